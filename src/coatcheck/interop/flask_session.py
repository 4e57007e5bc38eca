"""Adopting the sessions of Flask-Session, the extension that keeps Flask's sessions on the server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from coatcheck.adopters import AnyOldRecords, Claim, OldSession
from coatcheck.interop.flask import flask_session
from coatcheck.interop.old_records import Store, old_records
from coatcheck.interop.old_system import OldSystem, from_json, from_msgpack
from coatcheck.interop.signed_text import Secret, SignedText, itsdangerous_keys

_SALT: Final = b"flask-session"
# Both forms that its versions have given to IDs: token_urlsafe of SESSION_ID_LENGTH bytes, and UUIDs.
_SESSION_ID: Final = re.compile(rb"[A-Za-z0-9_-]{8,256}")


@dataclass(frozen=True, kw_only=True)
class FlaskSessions(OldSystem):
    """Adopts the sessions that Flask-Session, 0.7 or newer, keeps in Redis as MessagePack or as JSON.

    Those that older versions pickled, and that nobody has used since, are refused: a pickle can run any code.

    Args:
        store: where they are kept: a URL, a client of redis-py, or an object with the methods of
            `coatcheck.adopters.OldRecords` for another store of Flask-Session's.
        secret_key: Flask's SECRET_KEY if SESSION_USE_SIGNER is on; several, if it was changed. None, as by default, for
            cookies that are not signed. Whether one leads anywhere is then known by asking the store only.
        prefix: what the keys begin with, SESSION_KEY_PREFIX.
        cookie_name: SESSION_COOKIE_NAME.
        user_id, convert, old, lifetime, cookie_path, cookie_domain: see `OldSystem`.

    Raises:
        ConfigurationError: a setting can't work.

    Example:
        FlaskSessions(store="redis://localhost:6379/0", user_id=lambda values: values.get("_user_id"))
    """

    system: ClassVar[str] = "Flask-Session"

    store: Store = field(repr=False)
    secret_key: Secret | Sequence[Secret] | None = field(default=None, repr=False)
    prefix: str = "session:"
    cookie_name: str = "session"
    _signed: SignedText | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        signed = None
        if self.secret_key is not None:
            signed = SignedText(itsdangerous_keys(self.secret_key, _SALT, "hmac"), "sha1", b".")
        object.__setattr__(self, "_signed", signed)

    def claim(self, cookie: bytes) -> Claim | None:
        """See `Adopter.claim`. The cookie is the ID, or `<ID>.<HMAC-SHA1>`."""
        session_id = cookie if self._signed is None else self._signed.value(cookie)
        if session_id is None or not _SESSION_ID.fullmatch(session_id):
            return None
        return Claim(self.prefix + session_id.decode("ascii"))

    def decode(self, data: bytes) -> OldSession:
        """See `Adopter.decode`."""
        values = from_json(data) if data.startswith(b"{") else from_msgpack(data)
        return flask_session(self, values)

    def records(self, *, is_async: bool) -> AnyOldRecords:
        """See `Adopter.records`."""
        return old_records(self.store, is_async=is_async)
