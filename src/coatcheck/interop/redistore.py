"""Sessions that Go's gorilla/sessions with boj/redistore and Coatcheck serve at the same time, from one Redis.

    sessions = Sessions(
        RedistoreStore("redis://localhost:6379/0", key_pairs=[hash_key, block_key]),
        cookie=CookieConfig(name="session-name", prefix=""),
        idle_timeout=timedelta(days=30),  # Go's Options.MaxAge
        lifetime=timedelta(days=30),
    )

A session is kept as redistore keeps it: under `session_` and its ID in base32, as gob or JSON, and its cookie is
securecookie's. The rules of sessions are Coatcheck's own: this store translates. What only Coatcheck has (`Moved`,
users' indexes and epochs) is kept beside, in its own form.

What this can't promise, because Go's programs overwrite whatever is there, is in `docs/interop-gorilla.md`.
"""

from __future__ import annotations

import secrets
import time
from base64 import b32decode, b32encode
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar, Unpack

import redis
from redis import asyncio as asyncio_redis

from coatcheck import record as records
from coatcheck.config import SessionConfig
from coatcheck.drivers import drive, drive_sync
from coatcheck.errors import ConfigurationError, InvalidCookie, SessionError, UndecodableRecord
from coatcheck.interop._go_sessions import GoSession, GoSessions, SerializerName
from coatcheck.interop.gorilla import SecureCookie
from coatcheck.record import Record
from coatcheck.stores.protocol import Outcome, WriteResult
from coatcheck.stores.redis import RedisStore, SyncRedisStore
from coatcheck.stores.redis.commands import Command, Commands, MixedUpAnswers, Script, run_script
from coatcheck.stores.redis.commands import records as records_of
from coatcheck.stores.redis.connections import RedisOptions
from coatcheck.token import FOREIGN_STORE_KEY_DIGITS, SessionID, VerifiedToken

T = TypeVar("T")
ClientT = TypeVar("ClientT")

_ID_BYTES: Final = 32
_ID_CHARACTERS: Final = 52

_SESSION, _MOVED = 1, 2
"""The places of the two keys that an ID has in Redis."""


class Ask(NamedTuple):
    """One command."""

    command: Command[Any]

    def perform(self, servers: Any) -> Any:
        """Ask the servers of a store."""
        return servers.ask(self.command)


class AskEach(NamedTuple):
    """Several commands, none of which waits for the others."""

    commands: list[Command[Any]]

    def perform(self, servers: Any) -> Any:
        """Ask the servers of a store."""
        return servers.ask_each(self.commands)


class Scan(NamedTuple):
    """Some of the keys."""

    commands: Commands
    cursor: str
    limit: int

    def perform(self, servers: Any) -> Any:
        """Ask the servers of a store."""
        return servers.scan(*self)


Steps: TypeAlias = Generator[Ask | AskEach | Scan, Any, T]
"""A store's method at work: yields what to ask Redis, is sent the answers, returns a T. See `drivers`."""


# --- IDs and cookies ----------------------------------------------------------------------------------------------


class RedistoreID(SessionID):
    """A session ID as redistore makes them. Its store key is the ID itself, for that is what Go's key in Redis has."""

    __slots__ = ()

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.store_key = secret.hex()

    def __repr__(self) -> str:
        return "<RedistoreID>"


def _text_of(store_key: str) -> str:
    """Give a session's ID as Go has it: base32 without padding."""
    return b32encode(bytes.fromhex(store_key)).decode("ascii").rstrip("=")


def _secret_of(text: str) -> bytes | None:
    """Read an ID in the one form that redistore makes."""
    if len(text) != _ID_CHARACTERS:
        return None
    try:
        secret = b32decode(text + "====")
    except ValueError:
        return None
    return secret if _text_of(secret.hex()) == text else None


class RedistoreTokens:
    """Cookies of redistore: the session ID, as a gob, in a securecookie."""

    carry_sessions = False

    def __init__(self, cookies: SecureCookie, name: str) -> None:
        self._cookies = cookies
        self._name = name

    def new_id(self) -> SessionID:
        """See `Tokens.new_id`."""
        return RedistoreID(secrets.token_bytes(_ID_BYTES))

    def sign(self, session_id: SessionID, issued_at: int, user_tag: bytes = b"") -> str:  # noqa: ARG002
        """See `Tokens.sign`. Go's cookies say nothing of the user."""
        return self._cookies.encode(self._name, _text_of(session_id.store_key), issued_at=issued_at)

    def verify(self, token: bytes) -> VerifiedToken | None:
        """See `Tokens.verify`."""
        try:
            opened = self._cookies.open(self._name, token.decode("ascii"), target="string")
        except (InvalidCookie, UnicodeDecodeError):
            return None
        secret = _secret_of(opened.value)
        if secret is None:
            return None
        return VerifiedToken(RedistoreID(secret), opened.issued_at, None, opened.by_older_key)


# --- what is sent to Redis ----------------------------------------------------------------------------------------


def _script(name: str) -> Script:
    return Script(f"{name}.lua", "coatcheck.interop")


_CREATE: Final = _script("create")
_UPDATE: Final = _script("update")
_TOUCH: Final = _script("touch")
_DELETE: Final = _script("delete")

Pair: TypeAlias = tuple[bytes | None, bytes | None]
"""What is there under both keys of an ID."""


def _pair(reply: Any) -> Pair:
    if not isinstance(reply, list) or len(reply) != len(("session", "moved")):
        raise MixedUpAnswers
    session, moved = records_of(reply)
    return session, moved


def _was_created(reply: Any) -> bool:
    if reply not in (0, 1):
        raise MixedUpAnswers
    return bool(reply)


def _update_result(reply: Any) -> Pair | Literal[Outcome.DONE]:
    return Outcome.DONE if reply == 1 else _pair(reply)


def _is_session(key: str) -> bool:
    """Tell the store keys of sessions from those of users' indexes and epochs."""
    return len(key) == FOREIGN_STORE_KEY_DIGITS


class _Layout:
    """Where what is kept, and what each method of a store has to ask of Redis. No I/O."""

    def __init__(  # noqa: PLR0913 (they are the settings)
        self,
        *,
        key_pairs: Sequence[bytes | None],
        max_age: timedelta,
        serializer: SerializerName,
        key_prefix: str,
        prefix: str,
        max_length: int,
        flash_categories: Iterable[str],
        clock: Callable[[], float],
    ) -> None:
        self._gos = Commands(key_prefix)
        self._own = Commands(prefix)
        if key_prefix.startswith(prefix) or prefix.startswith(key_prefix):
            msg = f"prefix: expected one that sets Coatcheck's keys apart from Go's ({key_prefix!r}), got {prefix!r}"
            raise ConfigurationError(msg)
        age: object = max_age
        if not isinstance(age, timedelta) or age < timedelta(seconds=1):
            msg = f"max_age: expected a timedelta of a second or more, got {max_age!r}"
            raise ConfigurationError(msg)
        self._key_pairs = key_pairs
        self._max_age = max_age
        self._clock = clock
        secrets = self._cookies(clock).hash_keys  # so, keys that can't work are known at once
        self._sessions = GoSessions(serializer, max_length, flash_categories, secrets)

    def tokens(self, config: SessionConfig) -> RedistoreTokens:
        return RedistoreTokens(self._cookies(config.clock), config.cookie.full_name)

    def _cookies(self, clock: Callable[[], float]) -> SecureCookie:
        return SecureCookie(self._key_pairs, max_age=int(self._max_age.total_seconds()), clock=clock)

    def _keys(self, store_key: str) -> tuple[str, ...]:
        """Give the keys in Redis of what has this store key: a session's are Go's, and that of what has moved.

        The braces keep both in one slot of a Cluster.
        """
        if not _is_session(store_key):
            return (self._own.prefix + store_key,)
        of_go = self._gos.prefix + _text_of(store_key)
        return of_go, f"{self._own.prefix}{{{of_go}}}"

    def _load(self, names: tuple[str, ...]) -> Ask:
        return Ask(Command(names[0], (), records_of, is_repeatable=True, names=names))

    # --- the methods of a store -----------------------------------------------------------------------------------

    def load(self, *store_keys: str) -> Steps[list[bytes | None]]:
        if not store_keys:
            return []
        replies = iter((yield self._load(tuple(name for key in store_keys for name in self._keys(key)))))
        found: list[bytes | None] = []
        of_go_alone: dict[int, GoSession] = {}
        for position, key in enumerate(store_keys):
            data = next(replies) if _is_session(key) else None
            seen = self._look((data, next(replies)))
            if isinstance(seen, GoSession) and not seen.is_known:
                of_go_alone[position] = seen
            found.append(self._native(key, seen) if isinstance(seen, GoSession) else seen)
        if of_go_alone:
            yield from self._date(found, store_keys, of_go_alone)
        return found

    def _date(
        self, found: list[bytes | None], store_keys: Sequence[str], of_go_alone: dict[int, GoSession]
    ) -> Steps[None]:
        """Say of sessions that only Go has written that they began when Go last saved them."""
        times_left = yield AskEach([self._gos.time_left(_text_of(store_keys[position])) for position in of_go_alone])
        for (position, session), left_ms in zip(of_go_alone.items(), times_left, strict=True):
            found[position] = self._native(store_keys[position], session, left_ms)

    def create(self, store_key: str, record: bytes, ttl_ms: int) -> Steps[bool]:
        place, data = self._stored(store_key, record)
        session, moved = self._keys(store_key)
        keys = (session, moved) if place == _SESSION else (moved, session)
        created: bool = yield Ask(run_script(_CREATE, keys, data, ttl_ms, read=_was_created))
        return created

    def update(self, store_key: str, revision: bytes, record: bytes, ttl_ms: int) -> Steps[WriteResult]:
        """Replace a session that has this revision, which its bytes tell. So they are read, and then compared whole."""
        keys = self._keys(store_key)
        there: Pair = _pair((yield self._load(keys)))
        seen = self._look(there)
        if not isinstance(seen, GoSession) or seen.revision != revision:
            return self._newer(store_key, there)
        place, new_data = self._stored(store_key, record, seen)
        data = there[0] or b""
        result = yield Ask(run_script(_UPDATE, keys, data, place, new_data, ttl_ms, read=_update_result))
        return Outcome.DONE if result is Outcome.DONE else self._newer(store_key, result)

    def touch(self, store_key: str, ttl_ms: int) -> Steps[bytes | None]:
        there: Pair = yield Ask(run_script(_TOUCH, self._keys(store_key), ttl_ms, read=_pair, is_repeatable=True))
        seen = self._look(there)
        if not isinstance(seen, GoSession):
            return seen
        found = self._native(store_key, seen)
        if not seen.is_known:
            # So that its lifetime begins, although it is only read. It is no harm if that fails.
            with suppress(SessionError):
                yield from self.update(store_key, seen.revision, found, ttl_ms)
        return found

    def delete(self, store_key: str) -> Steps[bytes | None]:
        return self._found(store_key, (yield Ask(run_script(_DELETE, self._keys(store_key), read=_pair))))

    def time_left(self, *store_keys: str) -> Steps[list[int | None]]:
        gos = [key for key in store_keys if _is_session(key)]
        own = [self._keys(key)[-1].removeprefix(self._own.prefix) for key in store_keys]
        asked = [*(self._gos.time_left(_text_of(key)) for key in gos), *map(self._own.time_left, own)]
        left = (yield AskEach(asked)) if asked else []
        of_go = dict(zip(gos, left[: len(gos)], strict=True))
        return [
            of_go.get(key) if of_own is None else of_own
            for key, of_own in zip(store_keys, left[len(gos) :], strict=True)
        ]

    def scan(self, cursor: str, limit: int) -> Steps[tuple[list[str], str]]:
        """Give what is under Go's prefix, then what is under Coatcheck's own."""
        place, _, position = (cursor or "go:").partition(":")
        found: list[str] = []
        if place == "go":
            names, following = yield Scan(self._gos, position, limit)
            found = [secret.hex() for secret in map(_secret_of, names) if secret is not None]
            if following:
                return found, f"go:{following}"
            position = ""
        names, following = yield Scan(self._own, position, limit)
        return found + [self._store_key_of(name) for name in names], f"own:{following}" if following else ""

    def _store_key_of(self, name: str) -> str:
        """Give the store key of what is under Coatcheck's prefix and this name."""
        secret = _secret_of(name[1:-1].removeprefix(self._gos.prefix))
        return name if secret is None else secret.hex()

    # --- translation ----------------------------------------------------------------------------------------------

    def _look(self, there: Pair) -> GoSession | bytes | None:
        """Read what is there under both keys of an ID. That the session has moved counts more than what Go keeps.

        Gives what is handed over as it is, unless it is a session.
        """
        data, moved = there
        if moved is not None or data is None:
            return moved
        try:
            return self._sessions.read(data)
        except UndecodableRecord as error:
            return records.set_aside(str(error))

    def _native(self, store_key: str, session: GoSession, left_ms: int | None = None) -> bytes:
        """Give a session's record, encoded. `left_ms` is its time to live, if that is known."""
        record = session.record
        if not session.is_known:
            now_ms = int(self._clock() * 1000)
            max_age_ms = int(self._max_age.total_seconds() * 1000)
            began_ms = now_ms if left_ms is None else now_ms - max(max_age_ms - left_ms, 0)
            record = Record(began_ms, began_ms, began_ms, None, None, record.values)
        return records.encode(store_key, session.revision, record)

    def _found(self, store_key: str, there: Pair) -> bytes | None:
        seen = self._look(there)
        return self._native(store_key, seen) if isinstance(seen, GoSession) else seen

    def _newer(self, store_key: str, there: Pair) -> WriteResult:
        found = self._found(store_key, there)
        return Outcome.GONE if found is None else found

    def _stored(self, store_key: str, data: bytes, replacing: GoSession | None = None) -> tuple[int, bytes]:
        """Give the place and the bytes for a record that the rules have made."""
        revision, record = records.decode(store_key, data)
        if isinstance(record, Record):
            return _SESSION, self._sessions.write(revision, record, replacing)
        return _MOVED, data


# --- the stores ---------------------------------------------------------------------------------------------------


class _Shared(Generic[ClientT]):
    """What both stores have in common: the settings. Stands before the store that is extended, among the bases."""

    takes_foreign_values = True
    _commands: Commands

    def __init__(  # noqa: PLR0913 (they are the settings)
        self,
        redis: str | ClientT,
        *,
        key_pairs: Sequence[bytes | None],
        max_age: timedelta = timedelta(days=30),
        serializer: SerializerName = "gob",
        key_prefix: str = "session_",
        max_length: int = 4096,
        flash_categories: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
        **options: Unpack[RedisOptions],
    ) -> None:
        super().__init__(redis, **options)  # type: ignore[call-arg, misc]
        self._layout = _Layout(
            key_pairs=key_pairs,
            max_age=max_age,
            serializer=serializer,
            key_prefix=key_prefix,
            prefix=self._commands.prefix,
            max_length=max_length,
            flash_categories=flash_categories,
            clock=clock,
        )

    def tokens(self, config: SessionConfig) -> RedistoreTokens:
        """See `HasTokens.tokens`."""
        return self._layout.tokens(config)


class RedistoreStore(_Shared[asyncio_redis.Redis | asyncio_redis.RedisCluster], RedisStore):
    """Shares its sessions with Go programs that use gorilla/sessions and redistore. For `Sessions`.

    Args:
        redis: a URL or a client of the application's own; see `RedisStore`.
        key_pairs: the `[]byte` keys of `NewRediStore`, in order; see `SecureCookie`.
        max_age: Go's `Options.MaxAge`: how long Redis keeps what Go has saved, and how old a cookie may be. Where
            that is 0, Go's `DefaultMaxAge`.
        serializer: "gob" (Go's default) or "json" (`JSONSerializer`).
        key_prefix: Go's `SetKeyPrefix`.
        max_length: Go's `SetMaxLength`: the bytes that a session may have; 0 for no limit.
        flash_categories: the keys that the Go program gives to `AddFlash` and `Flashes`, if it gives any. They are
            the categories of `session.flash` here; messages without one are Go's messages without a key.
        clock: gives the time in seconds since the epoch. For tests.
        options: as for `RedisStore`. `prefix` is what the keys of Coatcheck's own begin with.

    Raises:
        ConfigurationError: an argument can't work.
        MissingExtra: there is a block key, and the `cryptography` package is not installed.
    """

    async def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        return await self._drive(self._layout.load(*keys))

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        if not _is_session(key):
            return await super().create(key, record, ttl_ms)
        return await self._drive(self._layout.create(key, record, ttl_ms))

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        if not _is_session(key):
            return await super().update(key, revision, record, ttl_ms)
        return await self._drive(self._layout.update(key, revision, record, ttl_ms))

    async def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        if not _is_session(key):
            return await super().touch(key, ttl_ms)
        return await self._drive(self._layout.touch(key, ttl_ms))

    async def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        if not _is_session(key):
            return await super().delete(key)
        return await self._drive(self._layout.delete(key))

    async def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return await self._drive(self._layout.time_left(*keys))

    async def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        return await self._drive(self._layout.scan(cursor, limit))

    async def _drive(self, steps: Steps[T]) -> T:
        return await drive(steps, self._here())


class SyncRedistoreStore(_Shared[redis.Redis | redis.RedisCluster], SyncRedisStore):
    """Shares its sessions with Go programs. For `SyncSessions`; see `RedistoreStore` for the arguments."""

    def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        return self._drive(self._layout.load(*keys))

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        if not _is_session(key):
            return super().create(key, record, ttl_ms)
        return self._drive(self._layout.create(key, record, ttl_ms))

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        if not _is_session(key):
            return super().update(key, revision, record, ttl_ms)
        return self._drive(self._layout.update(key, revision, record, ttl_ms))

    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        if not _is_session(key):
            return super().touch(key, ttl_ms)
        return self._drive(self._layout.touch(key, ttl_ms))

    def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        if not _is_session(key):
            return super().delete(key)
        return self._drive(self._layout.delete(key))

    def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return self._drive(self._layout.time_left(*keys))

    def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        return self._drive(self._layout.scan(cursor, limit))

    def _drive(self, steps: Steps[T]) -> T:
        return drive_sync(steps, self._here())
