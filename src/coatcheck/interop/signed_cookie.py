"""What the adopters of sessions have in common whose data is all in a signed cookie: `<data>.<time>.<signature>`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Final

from coatcheck.adopters import Claim
from coatcheck.config import MAX_COOKIE_AGE
from coatcheck.interop.old_system import OldSystem, UserOf
from coatcheck.interop.signed_text import Secret, SignedText, from_base64

_SKEW_S: Final = 60
"""How much the clocks of two servers may differ."""


@dataclass(frozen=True, kw_only=True)
class SignedCookieSystem(OldSystem):
    """The settings that all of these have.

    There is no old record, and nothing that could be deleted but the browser's own cookie. Which cookies of users were
    adopted is remembered. Every older copy of a cookie is a session of its own, as it always was; `revoke_user` ends
    the user's native sessions and keeps all those copies from being adopted.

    Args:
        secret_key: what signs the cookies. Several, if it was changed.
        user_id: see `OldSystem`. None only if there are no logins in these sessions: a cookie of nobody's is carried
            over again whenever it comes, also after a logout.
        max_age: how old a cookie may be; None for any age.
        clock: gives the time in seconds since the epoch. For tests.
        convert, old, cookie_path, cookie_domain: see `OldSystem`. `lifetime` is at least `max_age`.

    Raises:
        ConfigurationError: a setting can't work.
    """

    separator: ClassVar[bytes] = b"."

    secret_key: Secret | Sequence[Secret] = field(repr=False)
    user_id: UserOf | None = field()  # no default: who forgot it would let every logout be undone
    max_age: timedelta | None
    clock: Callable[[], float] = field(default=time.time, repr=False)
    _signed: SignedText = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_signed", self.verifier())
        object.__setattr__(self, "lifetime", max(self.lifetime, self.max_age or MAX_COOKIE_AGE))

    def verifier(self) -> SignedText:
        """Give what verifies the cookies."""
        raise NotImplementedError

    def signed_at_s(self, text: bytes) -> int | None:
        """Read when a cookie was signed, as itsdangerous writes it; None for anything else."""
        encoded = from_base64(text)
        return int.from_bytes(encoded, "big") if encoded else None

    def claim(self, cookie: bytes) -> Claim | None:
        """See `Adopter.claim`."""
        signed = self._signed.value(cookie)
        if signed is None:
            return None
        data, _, time_text = signed.rpartition(self.separator)
        signed_at_s = self.signed_at_s(time_text)
        if signed_at_s is None or not self._is_in_time(self.clock() - signed_at_s):
            return None
        return Claim(signed.decode("latin-1"), data)

    def _is_in_time(self, age_s: float) -> bool:
        return age_s >= -_SKEW_S and (self.max_age is None or age_s <= self.max_age.total_seconds())

    def records(self, *, is_async: bool) -> None:
        """See `Adopter.records`."""
