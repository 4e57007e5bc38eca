"""Adopting the sessions of Express: express-session with connect-redis."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final
from urllib.parse import unquote_to_bytes

from coatcheck.adopters import AnyOldRecords, Claim, OldSession
from coatcheck.errors import UnreadableSession
from coatcheck.interop.old_records import Store, old_records
from coatcheck.interop.old_system import OldSystem, from_json
from coatcheck.interop.signed_text import Secret, secrets_of

_SIGNED: Final = b"s:"
_COOKIE_MEMBER: Final = "cookie"


@dataclass(frozen=True, kw_only=True)
class ExpressSessions(OldSystem):
    """Adopts the sessions of express-session, which connect-redis keeps in Redis.

    Args:
        secrets: what express-session has as `secret`; several, if it has a list.
        store: where connect-redis keeps them: a URL, a client of redis-py, or an object with the methods of
            `coatcheck.adopters.OldRecords` for another store of Express's.
        prefix: what the keys begin with, connect-redis's `prefix`.
        cookie_name: express-session's `name`.
        clock: gives the time in seconds since the epoch. For tests.
        user_id, convert, old, lifetime, cookie_path, cookie_domain: see `OldSystem`.

    Raises:
        ConfigurationError: a setting can't work.

    Example:
        ExpressSessions(
            secrets=[OLD_SECRET], store="redis://localhost:6379/0", user_id=lambda values: values.get("userId")
        )
    """

    system: ClassVar[str] = "express-session"

    secrets: Secret | Sequence[Secret] = field(repr=False)
    store: Store = field(repr=False)
    prefix: str = "sess:"
    cookie_name: str = "connect.sid"
    clock: Callable[[], float] = field(default=time.time, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        secrets_of(self.secrets)

    def claim(self, cookie: bytes) -> Claim | None:
        """See `Adopter.claim`. The cookie is `s:<ID>.<HMAC-SHA256 in base64>`, percent-encoded."""
        text = unquote_to_bytes(cookie)
        session_id, separator, signature = text.removeprefix(_SIGNED).rpartition(b".")
        if not text.startswith(_SIGNED) or not separator or not session_id:
            return None
        for secret in secrets_of(self.secrets):
            mac = base64.b64encode(hmac.digest(secret, session_id, "sha256")).rstrip(b"=")
            if hmac.compare_digest(mac, signature):
                return Claim(self.prefix + session_id.decode("utf-8", "replace"))
        return None

    def decode(self, data: bytes) -> OldSession | None:
        """See `Adopter.decode`. The session is JSON, with the settings of its cookie under the key `cookie`."""
        values = from_json(data)
        expires = _expires(values.get(_COOKIE_MEMBER))
        if expires is not None and expires.timestamp() <= self.clock():
            return None
        return self.session(values, without=frozenset({_COOKIE_MEMBER}), remember=expires is not None)

    def records(self, *, is_async: bool) -> AnyOldRecords:
        """See `Adopter.records`."""
        return old_records(self.store, is_async=is_async)


def _expires(cookie: Any) -> datetime | None:
    """Give the time at which a session ends, or None for the end of the browser's."""
    text = cookie.get("expires") if isinstance(cookie, dict) else None
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        msg = "the time of its cookie's expiry is not a time"
        raise UnreadableSession(msg) from None
