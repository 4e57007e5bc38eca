"""Sessions that are kept in the browser: the cookie holds the whole session, encrypted with AES-256-GCM.

The store is then no place at all, and what it gives up is most of what Coatcheck is for: a session can't be ended from
the server's side, nor listed, and of two requests at the same time one is forgotten. It is for what is small and
harmless to repeat, and for sites that have no place to keep anything.

How it fits: the ID that comes out of a cookie has the session's record with it, on its store key. What the rules
then load and store under that key never leaves the process; and when a cookie is issued, the record goes into it.
"""

from __future__ import annotations

import hmac
import os
import secrets
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from typing import Any, Final

from coatcheck import record as records
from coatcheck import values
from coatcheck.config import SessionConfig, as_key_material, checked_secret_keys
from coatcheck.cookie import CookieWriter
from coatcheck.errors import (
    ConfigurationError,
    InvalidCookie,
    MissingExtra,
    RecordTooLarge,
    SessionError,
    StoreIncapable,
)
from coatcheck.record import Record
from coatcheck.stores.protocol import Outcome, WriteResult
from coatcheck.token import SessionID, VerifiedToken

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as error:
    _feature = "Sessions in encrypted cookies"
    raise MissingExtra(_feature, "cookie") from error

MAX_COOKIE_BYTES: Final = 4096
"""What browsers keep of one cookie: its name, value and attributes together (RFC 6265, section 6.1)."""

_ID_BYTES: Final = 32
_TIME_BYTES: Final = 5
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_SEALED_FROM: Final = _TIME_BYTES + _SALT_BYTES + _NONCE_BYTES
_MAX_TIME: Final = 2 ** (8 * _TIME_BYTES) - 1

_FROM_URL_SAFE: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class _StoreKey(str):
    """A session's store key, with the record that a store would keep under it."""

    __slots__ = ("record",)

    record: bytes | None

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the record behind: a key that is passed on is only a name."""
        return str, (str(self),)


class SealedID(SessionID):
    """A session ID that has the session with it."""

    __slots__ = ()

    def __init__(self, secret: bytes, record: bytes | None = None) -> None:
        super().__init__(secret)
        store_key = _StoreKey(self.store_key)
        store_key.record = record
        self.store_key = store_key


def _record_of(session_id: SessionID) -> bytes | None:
    return session_id.store_key.record if isinstance(session_id.store_key, _StoreKey) else None


class SealedTokens:
    """Makes and reads the cookies.

    `base64url(time of issue, 5 bytes | salt, 16 bytes | nonce, 12 bytes | AES-256-GCM(session ID | record))`

    Each cookie is encrypted under a key of its own, made of the secret key, the cookie's name and the salt, so that no
    number of cookies brings a nonce back under the same key. The time of issue is authenticated with it.
    """

    carry_sessions = True

    def __init__(self, secret_keys: Sequence[bytes], config: SessionConfig, older: _GorillaCookies | None) -> None:
        purpose = b"coatcheck sealed session 1\x00" + config.cookie.full_name.encode()
        self._keys = [hmac.digest(key, purpose, "sha256") for key in secret_keys]
        self._older = older

    def new_id(self) -> SessionID:
        """See `Tokens.new_id`."""
        return SealedID(secrets.token_bytes(_ID_BYTES))

    def sign(self, session_id: SessionID, issued_at: int, user_tag: bytes = b"") -> str:  # noqa: ARG002
        """See `Tokens.sign`. What the record says of the user is all that there is."""
        head = min(max(issued_at, 0), _MAX_TIME).to_bytes(_TIME_BYTES, "big") + os.urandom(_SALT_BYTES + _NONCE_BYTES)
        plain = session_id.secret + (_record_of(session_id) or b"")
        sealed = head + _cipher(self._keys[0], head).encrypt(_nonce(head), plain, _time(head))
        return b2a_base64(sealed, newline=False).rstrip(b"=").translate(_TO_URL_SAFE).decode("ascii")

    def verify(self, token: bytes) -> VerifiedToken | None:
        """See `Tokens.verify`."""
        try:
            padded = token.translate(_FROM_URL_SAFE) + b"=" * (-len(token) % 4)
            sealed = a2b_base64(padded, strict_mode=True)
        except (Base64Error, ValueError):
            sealed = b""
        verified = self._opened(sealed) if len(sealed) >= _SEALED_FROM + _ID_BYTES + _TAG_BYTES else None
        if verified is None and self._older is not None:
            verified = self._older.verify(token)
        return verified

    def _opened(self, sealed: bytes) -> VerifiedToken | None:
        head = sealed[:_SEALED_FROM]
        for position, key in enumerate(self._keys):
            try:
                plain = _cipher(key, head).decrypt(_nonce(head), sealed[_SEALED_FROM:], _time(head))
            except InvalidTag:
                continue
            issued_at = int.from_bytes(_time(head), "big")
            session_id = SealedID(plain[:_ID_BYTES], plain[_ID_BYTES:] or None)
            return VerifiedToken(session_id, issued_at, None, position > 0)
        return None


def _time(head: bytes) -> bytes:
    return head[:_TIME_BYTES]


def _cipher(key: bytes, head: bytes) -> AESGCM:
    return AESGCM(hmac.digest(key, head[_TIME_BYTES : _TIME_BYTES + _SALT_BYTES], "sha256"))


def _nonce(head: bytes) -> bytes:
    return head[_TIME_BYTES + _SALT_BYTES :]


class _GorillaCookies:
    """Reads cookies of gorilla's CookieStore, so that a site can leave it without logging anybody out."""

    def __init__(self, key_pairs: Sequence[bytes | None], config: SessionConfig) -> None:
        from coatcheck.interop._go_sessions import GoSessions
        from coatcheck.interop.gorilla import SecureCookie

        max_age_s = int(config.idle_timeout.total_seconds())
        self._cookies = SecureCookie(key_pairs, max_age=max_age_s, clock=config.clock)
        self._sessions = GoSessions("gob", 0, ())
        self._name = config.cookie.full_name
        self._clock = config.clock

    def verify(self, token: bytes) -> VerifiedToken | None:
        """See `Tokens.verify`. The session gets an ID now, and a cookie of ours when it is used."""
        from coatcheck.interop import gob

        try:
            opened = self._cookies.open(self._name, token.decode("ascii"), target="map")
            plain = gob.plain(opened.value)  # what it can't express is not taken over: Go will not see it again
            encoded_values = self._sessions.values(plain)
            values.check_own(encoded_values)
        except (InvalidCookie, SessionError, ValueError):
            return None
        began_ms = int(min(opened.issued_at, self._clock()) * 1000)  # Go's cookies may be from the future
        session_id = SealedID(secrets.token_bytes(_ID_BYTES))
        record = Record(began_ms, began_ms, began_ms, None, None, encoded_values)
        encoded = records.encode(session_id.store_key, records.new_revision(), record)
        return VerifiedToken(SealedID(session_id.secret, encoded), opened.issued_at, None, True)


class SyncCookieStore:
    """Keeps sessions in the browser. For `SyncSessions`; see `CookieStore` for the arguments."""

    takes_foreign_values = False

    def __init__(
        self,
        secret_keys: Sequence[str | bytes],
        *,
        gorilla_key_pairs: Sequence[bytes | None] = (),
    ) -> None:
        self._secret_keys = as_key_material(checked_secret_keys(secret_keys))
        self._gorilla_key_pairs = gorilla_key_pairs
        self._room = MAX_COOKIE_BYTES

    def tokens(self, config: SessionConfig) -> SealedTokens:
        """See `HasTokens.tokens`."""
        for setting, can_not_be in (
            ("max_sessions_per_user", config.max_sessions_per_user is not None),
            ("end_on_reuse", config.end_on_reuse),
        ):
            if can_not_be:
                msg = f"{setting}: sessions that are kept in cookies can't be counted or ended; leave it out"
                raise ConfigurationError(msg)
        self._room = MAX_COOKIE_BYTES - _cookie_bytes_without_token(config)
        older = _GorillaCookies(self._gorilla_key_pairs, config) if self._gorilla_key_pairs else None
        return SealedTokens(self._secret_keys, config, older)

    def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        return [key.record if isinstance(key, _StoreKey) else None for key in keys]

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:  # noqa: ARG002
        """See `SyncStore.create`. A user's index is not kept, and does not stand in a login's way."""
        if key.startswith("user-"):
            return True
        place = _place(key)
        if place.record is not None:
            return False
        place.record = self._fitting(record)
        return True

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:  # noqa: ARG002
        """See `SyncStore.update`."""
        place = _place(key)
        if place.record is None:
            return Outcome.GONE
        if place.record[records.REVISION] != revision:
            return place.record
        place.record = self._fitting(record)
        return Outcome.DONE

    def touch(self, key: str, ttl_ms: int) -> bytes | None:  # noqa: ARG002
        """See `SyncStore.touch`."""
        return _place(key).record

    def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        place = _place(key)
        record, place.record = place.record, None
        return record

    def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return [None for _ in keys]

    def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:  # noqa: ARG002
        """See `SyncStore.scan`. There is nothing to go through."""
        msg = "Sessions that are kept in cookies can't be counted, listed or ended from the server's side"
        raise StoreIncapable(msg)

    def reset(self) -> None:
        """See `SyncStore.reset`."""

    def close(self) -> None:
        """See `SyncStore.close`."""

    def _fitting(self, record: bytes) -> bytes:
        """Give a record back that fits into a cookie."""
        size = _SEALED_FROM + _ID_BYTES + len(record) + _TAG_BYTES
        characters = -(-size * 4 // 3)
        if characters > self._room:
            taken = characters + MAX_COOKIE_BYTES - self._room
            msg = (
                f"The session's cookie would take {taken} bytes, and browsers keep {MAX_COOKIE_BYTES}. Nothing was "
                "stored. Keep less in it, or keep it on the server"
            )
            raise RecordTooLarge(msg)
        return record


class CookieStore:
    """Keeps sessions in the browser: each cookie holds the whole session, encrypted with AES-256-GCM.

    Read in `docs/cookie-store.md` what this can't do before you use it.

    Args:
        secret_keys: encrypt the cookies; the first encrypts, all are accepted. Each has 32 bytes or more.
        gorilla_key_pairs: the `[]byte` keys of gorilla's `NewCookieStore`, to take over the sessions of a Go program.
            Their cookies are read, and replaced when they are used.

    Raises:
        ConfigurationError: an argument can't work.
        MissingExtra: the `cryptography` package is not installed.
    """

    takes_foreign_values = False

    def __init__(
        self,
        secret_keys: Sequence[str | bytes],
        *,
        gorilla_key_pairs: Sequence[bytes | None] = (),
    ) -> None:
        self._store = SyncCookieStore(secret_keys, gorilla_key_pairs=gorilla_key_pairs)

    def tokens(self, config: SessionConfig) -> SealedTokens:
        """See `HasTokens.tokens`."""
        return self._store.tokens(config)

    async def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        return self._store.load(*keys)

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        return self._store.create(key, record, ttl_ms)

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        return self._store.update(key, revision, record, ttl_ms)

    async def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return self._store.touch(key, ttl_ms)

    async def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return self._store.delete(key)

    async def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return self._store.time_left(*keys)

    async def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        return self._store.scan(cursor, limit)

    async def reset(self) -> None:
        """See `SyncStore.reset`."""

    async def close(self) -> None:
        """See `SyncStore.close`."""


def _place(key: str) -> _StoreKey:
    """Give a key that has its record with it. Others are handles of sessions, and epochs, which lead nowhere."""
    if isinstance(key, _StoreKey):
        return key
    msg = "Sessions that are kept in cookies can't be ended from the server's side: only their own requests have them"
    raise StoreIncapable(msg)


def _cookie_bytes_without_token(config: SessionConfig) -> int:
    return len(CookieWriter(config.cookie).issue("", int(config.lifetime.total_seconds())))
