"""Adopting the sessions of Starlette's `SessionMiddleware`, whose data is all in a signed cookie."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar, Final

from coatcheck.adopters import OldSession
from coatcheck.errors import UnreadableSession
from coatcheck.interop.old_system import from_json
from coatcheck.interop.signed_cookie import SignedCookieSystem
from coatcheck.interop.signed_text import SignedText, itsdangerous_keys

_SALT: Final = b"itsdangerous.Signer"


@dataclass(frozen=True, kw_only=True)
class StarletteSessions(SignedCookieSystem):
    """Adopts the sessions of `starlette.middleware.sessions.SessionMiddleware`, which FastAPI has as well.

    See `SignedCookieSystem` for what it means that all is in the cookie, and for the other arguments.

    Args:
        secret_key: what the middleware has as `secret_key`. Several, if it was changed.
        max_age: the middleware's `max_age`, 14 days by default; None if it is None there.
        cookie_name: the middleware's `session_cookie`.

    Raises:
        ConfigurationError: a setting can't work.

    Example:
        StarletteSessions(secret_key=OLD_SECRET_KEY, user_id=lambda values: values.get("user_id"))
    """

    system: ClassVar[str] = "Starlette"

    max_age: timedelta | None = timedelta(days=14)
    cookie_name: str = "session"

    def verifier(self) -> SignedText:
        """See `SignedCookieSystem.verifier`."""
        return SignedText(itsdangerous_keys(self.secret_key, _SALT, "django-concat"), "sha1", b".")

    def decode(self, data: bytes) -> OldSession:
        """See `Adopter.decode`. The data is JSON in base64."""
        try:
            values = b64decode(data, validate=True)
        except ValueError:
            msg = "it is not base64"
            raise UnreadableSession(msg) from None
        return self.session(from_json(values), remember=self.max_age is not None)
