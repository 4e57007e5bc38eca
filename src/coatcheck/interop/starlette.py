"""Adopting the sessions of Starlette's `SessionMiddleware`, whose data is all in a signed cookie."""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Final

from coatcheck.adopters import Claim, OldSession
from coatcheck.errors import UnreadableSession
from coatcheck.interop.old_system import OldSystem, from_json
from coatcheck.interop.signed_text import Secret, SignedText, from_base64, itsdangerous_keys

_SALT: Final = b"itsdangerous.Signer"
SKEW_S: Final = 60
"""How much the clocks of two servers may differ."""


@dataclass(frozen=True, kw_only=True)
class StarletteSessions(OldSystem):
    """Adopts the sessions of `starlette.middleware.sessions.SessionMiddleware`, which FastAPI has as well.

    All of such a session is in its cookie, so there is no old record, and nothing that could be deleted. Which cookies
    of users were adopted is remembered. Every older copy of a cookie is a session of its own, as it always was with
    Starlette; `revoke_user` ends the user's native sessions and keeps all those copies from being adopted.

    Args:
        secret_key: what the middleware has as `secret_key`. Several, if it was changed.
        max_age: the middleware's `max_age`, 14 days by default; None if it is None there.
        cookie_name: the middleware's `session_cookie`.
        clock: gives the time in seconds since the epoch. For tests.
        user_id, convert, old, cookie_path, cookie_domain: see `OldSystem`. `lifetime` is at least `max_age`.

    Raises:
        ConfigurationError: a setting can't work.

    Example:
        StarletteSessions(secret_key=OLD_SECRET_KEY, user_id=lambda values: values.get("user_id"))
    """

    name: ClassVar[str] = "Starlette"

    secret_key: Secret | Sequence[Secret] = field(repr=False)
    max_age: timedelta | None = timedelta(days=14)
    cookie_name: str = "session"
    clock: Callable[[], float] = field(default=time.time, repr=False)
    _signed: SignedText = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        keys = itsdangerous_keys(self.secret_key, _SALT, "django-concat")
        object.__setattr__(self, "_signed", SignedText(keys, "sha1", b"."))
        object.__setattr__(self, "lifetime", max(self.lifetime, self.max_age or timedelta(0)))

    def claim(self, cookie: bytes) -> Claim | None:
        """See `Adopter.claim`. The cookie is `<JSON in base64>.<time>.<HMAC-SHA1>`."""
        signed = self._signed.value(cookie)
        if signed is None:
            return None
        data, _, time_text = signed.rpartition(b".")
        if not is_in_time(time_text, self.max_age, self.clock()):
            return None
        return Claim(signed.decode("latin-1"), data)

    def decode(self, data: bytes) -> OldSession:
        """See `Adopter.decode`."""
        try:
            values = b64decode(data, validate=True)
        except ValueError:
            msg = "it is not base64"
            raise UnreadableSession(msg) from None
        return self.session(from_json(values), remember=self.max_age is not None)

    def records(self, *, is_async: bool) -> None:
        """See `Adopter.records`."""


def is_in_time(time_text: bytes, max_age: timedelta | None, now_s: float) -> bool:
    """Tell whether a time as itsdangerous writes it is neither too long ago nor in the future."""
    encoded = from_base64(time_text)
    if not encoded:
        return False
    age_s = now_s - int.from_bytes(encoded, "big")
    return age_s >= -SKEW_S and (max_age is None or age_s <= max_age.total_seconds())
