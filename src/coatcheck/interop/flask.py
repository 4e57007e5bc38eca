"""Adopting Flask's own sessions, whose data is all in a signed cookie. For Flask-Session see `flask_session`."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final
from uuid import UUID

import msgspec

from coatcheck.adopters import OldSession
from coatcheck.interop.old_system import OldSystem, decoded
from coatcheck.interop.signed_cookie import SignedCookieSystem
from coatcheck.interop.signed_text import MAX_COOKIE_BYTES, SignedText, itsdangerous_keys, unpacked
from coatcheck.session import FLASH_KEY

_SALT: Final = b"cookie-session"
_PERMANENT: Final = "_permanent"
_FLASHES: Final = "_flashes"


@dataclass(frozen=True, kw_only=True)
class FlaskCookieSessions(SignedCookieSystem):
    """Adopts the sessions that Flask keeps in its cookie, which it does unless an extension changes it.

    See `SignedCookieSystem` for what it means that all is in the cookie, and for the other arguments.

    Args:
        secret_key: Flask's SECRET_KEY, and those of SECRET_KEY_FALLBACKS.
        max_age: PERMANENT_SESSION_LIFETIME, 31 days by default.
        cookie_name: SESSION_COOKIE_NAME.

    Raises:
        ConfigurationError: a setting can't work.

    Example:
        FlaskCookieSessions(secret_key=OLD_SECRET_KEY, user_id=lambda values: values.get("_user_id"))
    """

    system: ClassVar[str] = "Flask"

    max_age: timedelta | None = timedelta(days=31)
    cookie_name: str = "session"

    def verifier(self) -> SignedText:
        """See `SignedCookieSystem.verifier`."""
        return SignedText(itsdangerous_keys(self.secret_key, _SALT, "hmac"), "sha1", b".")

    def decode(self, data: bytes) -> OldSession:
        """See `Adopter.decode`. The data is JSON with tags for the types that JSON lacks."""
        return flask_session(
            self, decoded(unpacked(data, MAX_COOKIE_BYTES), _from_tagged_json, "JSON as Flask writes it")
        )


def flask_session(system: OldSystem, values: dict[str, Any]) -> OldSession:
    """Give what is to be carried over of one of Flask's sessions. Its flash messages become ours."""
    is_permanent = values.get(_PERMANENT) is True
    waiting = values.get(_FLASHES)
    if isinstance(waiting, list):
        pairs = [entry for entry in waiting if isinstance(entry, list | tuple) and list(map(type, entry)) == [str, str]]
        values = {**values, FLASH_KEY: [[message, category] for category, message in pairs]}
    return system.session(values, without=frozenset({_PERMANENT, _FLASHES}), remember=is_permanent)


_TAGS: Final[dict[str, Callable[[Any], Any]]] = {
    " t": tuple,
    " b": b64decode,
    " m": str,  # text that is safe as HTML, which it would not be known to be here
    " u": UUID,
    " d": parsedate_to_datetime,
    " di": lambda pair: {key.removesuffix("__"): value for key, value in pair.items()},
}


def _from_tagged_json(data: bytes) -> Any:
    try:
        return _untagged(msgspec.json.decode(data))
    except (AttributeError, TypeError, LookupError, ArithmeticError) as error:
        msg = "a tag does not fit its value"
        raise ValueError(msg) from error


def _untagged(value: Any) -> Any:
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _untagged(item) for key, item in value.items()}
    if len(plain) == 1:
        ((tag, tagged),) = plain.items()
        if tag in _TAGS:
            return _TAGS[tag](tagged)
    return plain
