"""Adopting the sessions of Django: of the database engines, of the cache engine with JSON, and of signed cookies."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import sha256
from typing import Any, ClassVar, Final, Literal

from coatcheck.adopters import AnyOldRecords, AsyncOldRecords, Claim, OldRecords, OldSession
from coatcheck.errors import ConfigurationError, StoreUnavailable, UnreadableSession
from coatcheck.interop.old_records import Store, old_records
from coatcheck.interop.old_system import OldSystem, UserOf, from_json
from coatcheck.interop.signed_cookie import SignedCookieSystem
from coatcheck.interop.signed_text import MAX_COOKIE_BYTES, Secret, SignedText, django_keys, secrets_of, unpacked

USER_ID_KEY: Final = "_auth_user_id"
USER_HASH_KEY: Final = "_auth_user_hash"
_EXPIRY_KEY: Final = "_session_expiry"
_OWN_KEYS: Final = frozenset({USER_ID_KEY, USER_HASH_KEY, "_auth_user_backend", _EXPIRY_KEY})
"""What Django keeps in a session for itself."""

_SALT: Final = b"django.contrib.sessions.SessionStore"
_COOKIE_SALT: Final = b"django.contrib.sessions.backends.signed_cookies"
_HASH_SALT: Final = b"django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash"

_SESSION_KEY: Final = re.compile(rb"[a-z0-9]{8,40}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_.\"`]+")
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MAX_TIME_DIGITS: Final = 8


def auth_user_id(values: Mapping[str, Any]) -> str | None:
    """Give the user ID that `django.contrib.auth` keeps in a session: the user's primary key, as text."""
    user_id = values.get(USER_ID_KEY)
    return user_id if isinstance(user_id, str) and user_id else None


@dataclass(frozen=True, kw_only=True)
class DjangoTable:
    """The tables in which Django keeps sessions and users, by a connection of any database driver (PEP 249).

    A session is given only if Django would honour it: its time is not over, and its user, if it has one, is active and
    has not changed the password since.

    Args:
        connect: opens a connection, which is closed after each use: `lambda: psycopg.connect(dsn)`, or
            `engine.raw_connection` of SQLAlchemy for one from a pool.
        placeholder: how the driver marks parameters: "%s" (PostgreSQL, MySQL) or "?" (SQLite).
        table: the table of sessions.
        passwords: the query for the password hash of an active user, with one parameter, the user's ID. For another
            user model: "SELECT password FROM accounts_user WHERE id = %s AND is_active". None leaves the password
            unchecked, and so sessions from before it was changed come back to life.
        time_zone: the zone of times that the driver gives without one: UTC with USE_TZ, else TIME_ZONE.
        clock: gives the time in seconds since the epoch. For tests.

    Raises:
        ConfigurationError: a setting can't work.
    """

    connect: Callable[[], Any] = field(repr=False)
    placeholder: Literal["%s", "?"] = "%s"
    table: str = "django_session"
    passwords: str | None = "SELECT password FROM auth_user WHERE id = %s AND is_active"
    time_zone: tzinfo = UTC
    clock: Callable[[], float] = field(default=time.time, repr=False)

    def __post_init__(self) -> None:
        if not _IDENTIFIER.fullmatch(self.table):
            msg = f"table: expected the name of a table, got {self.table!r:.80}"
            raise ConfigurationError(msg)

    def session(self, key: str) -> bytes | None:
        """Give a session's data. Raises StoreUnavailable when the database can't be asked."""
        row = self._run(f"SELECT session_data, expire_date FROM {self.table} WHERE session_key = %s", key)  # noqa: S608
        if row is None or self._moment(row[1]).timestamp() <= self.clock():
            return None
        return str(row[0]).encode("utf-8", "replace")

    def password(self, user_id: str) -> str | None:
        """Give the password hash of an active user, or None if there is no such user."""
        row = None if self.passwords is None else self._run(self.passwords, user_id)
        return None if row is None else str(row[0])

    def delete(self, key: str) -> None:
        """Delete a session. Raises StoreUnavailable when the database can't be asked."""
        self._run(f"DELETE FROM {self.table} WHERE session_key = %s", key, is_change=True)  # noqa: S608

    def _run(self, query: str, parameter: str, *, is_change: bool = False) -> Any:
        """Carry out a query. Every driver has exceptions of its own."""
        try:
            with closing(self.connect()) as connection:
                cursor = connection.cursor()
                cursor.execute(query.replace("%s", self.placeholder), (parameter,))
                if not is_change:
                    return cursor.fetchone()
                connection.commit()
        except Exception as error:
            msg = f"Django's database could not do its work: {type(error).__name__}"
            raise StoreUnavailable(msg) from error
        return None

    def _moment(self, stored: Any) -> datetime:
        moment = stored if isinstance(stored, datetime) else datetime.fromisoformat(str(stored))
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=self.time_zone)


@dataclass(frozen=True, kw_only=True)
class _DjangoSystem(OldSystem):
    """What Django's engines have in common whose cookie is only a key."""

    system: ClassVar[str] = "Django"

    cookie_name: str = "sessionid"

    def claim(self, cookie: bytes) -> Claim | None:
        """See `Adopter.claim`. The cookie is the key, and not signed."""
        return Claim(cookie.decode("ascii")) if _SESSION_KEY.fullmatch(cookie) else None


def django_session(system: OldSystem, values: dict[str, Any]) -> OldSession:
    """Give what is to be carried over of one of Django's sessions."""
    remember = False if values.get(_EXPIRY_KEY) == 0 else None
    return system.session(values, without=_OWN_KEYS, remember=remember)


@dataclass(frozen=True, kw_only=True)
class DjangoSessions(_DjangoSystem):
    """Adopts the sessions of Django's engines `db`, the default, and `cached_db`.

    Users stay logged in: the user ID is the one of `django.contrib.auth`.

    Args:
        secret_key: SECRET_KEY, and after it those of SECRET_KEY_FALLBACKS. Sessions are signed with it.
        store: the tables, or an object with the methods of `coatcheck.adopters.OldRecords` that gives the column
            `session_data` for a key. Such an object has to see to it by itself that the session is still honoured.
        cookie_name: SESSION_COOKIE_NAME.
        user_id, convert, old, lifetime, cookie_path, cookie_domain: see `OldSystem`.

    Raises:
        ConfigurationError: a setting can't work.

    Example:
        DjangoSessions(secret_key=SECRET_KEY, store=DjangoTable(connect=lambda: psycopg.connect(dsn)))
    """

    secret_key: Secret | Sequence[Secret] = field(repr=False)
    store: DjangoTable | OldRecords | AsyncOldRecords = field(repr=False)
    user_id: UserOf | None = field(default=auth_user_id)
    _signed: SignedText = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_signed", SignedText(django_keys(self.secret_key, _SALT), "sha256", b":"))

    def decode(self, data: bytes) -> OldSession:
        """See `Adopter.decode`."""
        return django_session(self, self.values(data))

    def values(self, data: bytes) -> dict[str, Any]:
        """Give all that a session holds: signed JSON, compressed if that is shorter. Raises UnreadableSession."""
        signed = self._signed.value(data)
        if signed is None:
            msg = "its signature is not one of these secret keys"
            raise UnreadableSession(msg)
        return from_json(unpacked(signed.rpartition(b":")[0]))

    def records(self, *, is_async: bool) -> AnyOldRecords:
        """See `Adopter.records`."""
        if not isinstance(self.store, DjangoTable):
            return old_records(self.store, is_async=is_async)
        rows = _Rows(self, self.store)
        return _AsyncRows(rows) if is_async else rows


class _Rows:
    """The sessions in Django's tables, for threads."""

    def __init__(self, sessions: DjangoSessions, table: DjangoTable) -> None:
        self._sessions = sessions
        self._table = table

    def get(self, key: str) -> bytes | None:
        """See `OldRecords.get`."""
        data = self._table.session(key)
        return data if data is None or self._is_honoured(data) else None

    def _is_honoured(self, data: bytes) -> bool:
        """Tell whether a session's user is active, and has not changed the password since the login."""
        try:
            values = self._sessions.values(data)
        except UnreadableSession:
            return True  # whoever decodes it reports it
        user_id = values.get(USER_ID_KEY)
        if user_id is None or self._table.passwords is None:
            return True
        password = self._table.password(str(user_id))
        if password is None:
            return False
        given = str(values.get(USER_HASH_KEY)).encode()
        return any(
            hmac.compare_digest(_auth_hash(secret, password), given) for secret in secrets_of(self._sessions.secret_key)
        )

    def delete(self, key: str) -> None:
        """See `OldRecords.delete`."""
        self._table.delete(key)

    def close(self) -> None:
        """See `OldRecords.close`. Connections are closed after each use."""


class _AsyncRows:
    """The same, in threads of asyncio's."""

    def __init__(self, rows: _Rows) -> None:
        self._rows = rows

    async def get(self, key: str) -> bytes | None:
        """See `OldRecords.get`."""
        return await asyncio.to_thread(self._rows.get, key)

    async def delete(self, key: str) -> None:
        """See `OldRecords.delete`."""
        await asyncio.to_thread(self._rows.delete, key)

    async def close(self) -> None:
        """See `OldRecords.close`."""


def _auth_hash(secret: bytes, password: str) -> bytes:
    """Give what Django keeps in a session to tell whether its user's password has changed."""
    key = sha256(_HASH_SALT + secret).digest()
    return hmac.digest(key, password.encode(), "sha256").hex().encode()


@dataclass(frozen=True, kw_only=True)
class DjangoCacheSessions(_DjangoSystem):
    """Adopts the sessions of Django's engine `cache` in Redis, if the cache is set up with a JSON serializer.

    By default Django's Redis caches pickle, and pickles are not read: they can run any code. With the engine
    `cached_db`, use `DjangoSessions`; with pickled caches, change to `cached_db` for a while first.

    Nobody is logged in by ours unless `user_id=auth_user_id` is given. Then also those are who changed their password
    since: without the user's row that can't be known.

    Args:
        store: the cache: a URL, a client of redis-py, or an object with the methods of `coatcheck.adopters.OldRecords`.
        prefix: what the keys begin with: KEY_PREFIX, VERSION and the engine's own prefix.
        cookie_name: SESSION_COOKIE_NAME.
        user_id, convert, old, lifetime, cookie_path, cookie_domain: see `OldSystem`.
    """

    store: Store = field(repr=False)
    prefix: str = ":1:django.contrib.sessions.cache"

    def claim(self, cookie: bytes) -> Claim | None:
        """See `Adopter.claim`."""
        claim = super().claim(cookie)
        return None if claim is None else Claim(self.prefix + claim.key)

    def decode(self, data: bytes) -> OldSession:
        """See `Adopter.decode`."""
        return django_session(self, from_json(data))

    def records(self, *, is_async: bool) -> AnyOldRecords:
        """See `Adopter.records`."""
        return old_records(self.store, is_async=is_async)


@dataclass(frozen=True, kw_only=True)
class DjangoCookieSessions(SignedCookieSystem):
    """Adopts the sessions of Django's engine `signed_cookies`, whose data is all in the cookie.

    See `SignedCookieSystem` for what that means, and for the other arguments. What `DjangoCacheSessions` says of
    `user_id` is true here as well.

    Args:
        secret_key: SECRET_KEY, and after it those of SECRET_KEY_FALLBACKS.
        max_age: SESSION_COOKIE_AGE.
        cookie_name: SESSION_COOKIE_NAME.

    Raises:
        ConfigurationError: a setting can't work.
    """

    system: ClassVar[str] = "Django"
    separator: ClassVar[bytes] = b":"

    max_age: timedelta | None = timedelta(days=14)
    cookie_name: str = "sessionid"

    def verifier(self) -> SignedText:
        """See `SignedCookieSystem.verifier`."""
        return SignedText(django_keys(self.secret_key, _COOKIE_SALT), "sha256", self.separator)

    def signed_at_s(self, text: bytes) -> int | None:
        """See `SignedCookieSystem.signed_at_s`. Django writes it in base 62."""
        return _from_base62(text.decode("latin-1"))

    def decode(self, data: bytes) -> OldSession:
        """See `Adopter.decode`."""
        return django_session(self, from_json(unpacked(data, MAX_COOKIE_BYTES)))


def _from_base62(text: str) -> int | None:
    if not 0 < len(text) <= _MAX_TIME_DIGITS:
        return None
    number = 0
    for character in text:
        digit = _BASE62.find(character)
        if digit < 0:
            return None
        number = number * 62 + digit
    return number
