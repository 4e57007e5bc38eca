"""What an application holds: `Sessions` for asyncio, `SyncSessions` for threads.

Each joins the settings, the rules (`lifecycle`) and a store. An application uses one of them through a transport
(`coatcheck.asgi`, `coatcheck.wsgi`), and by `open()` where there is no request. The methods `begin`, `conclude` and
`abandon` are what transports are made of.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Generic, TypeVar

from coatcheck.config import CookieConfig, SessionConfig
from coatcheck.cookie import CookieReader
from coatcheck.drivers import drive, drive_sync
from coatcheck.errors import ConfigurationError, SessionNotFound, SessionNotLoaded
from coatcheck.lifecycle import Lifecycle, Steps
from coatcheck.session import BaseSession
from coatcheck.stores.protocol import AsyncStore, SyncStore
from coatcheck.stores.url import store_from_url, sync_store_from_url
from coatcheck.working_copy import Standing, WorkingCopy

StoreT = TypeVar("StoreT", AsyncStore, SyncStore)
SessionT = TypeVar("SessionT", bound=BaseSession)

_FIRST_ERROR_STATUS = 500


class Session(BaseSession):
    """A session in async code."""

    __slots__ = ("_sessions",)

    def __init__(self, sessions: Sessions, work: WorkingCopy) -> None:
        super().__init__(sessions.lifecycle, work)
        self._sessions = sessions

    async def load(self) -> None:
        """Read the session from the store, once. Needed only with `load="lazy"`.

        Raises:
            StoreUnavailable: the store can't be reached.
        """
        if self._work.standing is Standing.UNLOADED:
            await drive(self._lifecycle.load(self._work), self._sessions.store)

    async def save(self) -> None:
        """Commit what has changed so far. Afterwards the session holds what the store holds.

        There is no need to call it: the end of the request commits. Call it to answer with what the store now holds,
        such as the true number after `increment`. Read values again afterwards rather than use those read before.

        Raises:
            StoreUnavailable: the store can't be reached.
            RecordTooLarge: the session would exceed a limit. What was stored before is untouched.
            ResponseStarted: a new session or ID would need a cookie, which can't be set any more.
        """
        steps = self._lifecycle.commit(self._work)
        if steps is not None:
            await drive(steps, self._sessions.store)

    def _load_now(self) -> None:
        raise SessionNotLoaded


class SyncSession(BaseSession):
    """A session in code without `await`. Loads itself when it is first used."""

    __slots__ = ("_sessions",)

    def __init__(self, sessions: SyncSessions, work: WorkingCopy) -> None:
        super().__init__(sessions.lifecycle, work)
        self._sessions = sessions

    def load(self) -> None:
        """See `Session.load`."""
        if self._work.standing is Standing.UNLOADED:
            drive_sync(self._lifecycle.load(self._work), self._sessions.store)

    def save(self) -> None:
        """See `Session.save`."""
        steps = self._lifecycle.commit(self._work)
        if steps is not None:
            drive_sync(steps, self._sessions.store)

    def _load_now(self) -> None:
        self.load()


class _Sessions(Generic[StoreT, SessionT]):
    """What both façades have in common: settings, and all that needs no I/O."""

    def __init__(  # noqa: PLR0913 (they are the settings)
        self,
        store: str | StoreT,
        *,
        secret_keys: Sequence[str | bytes],
        idle_timeout: timedelta = timedelta(hours=2),
        lifetime: timedelta = timedelta(days=7),
        cookie: CookieConfig | None = None,
        refresh_after: float = 0.1,
        max_record_bytes: int = 1_048_576,
        max_keys: int = 1_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = SessionConfig(
            secret_keys=secret_keys,
            idle_timeout=idle_timeout,
            lifetime=lifetime,
            cookie=CookieConfig() if cookie is None else cookie,
            refresh_after=refresh_after,
            max_record_bytes=max_record_bytes,
            max_keys=max_keys,
            clock=clock,
        )
        self.lifecycle = Lifecycle(self.config)
        self.store: StoreT = self._store(store)
        self._cookies = CookieReader(self.config.cookie)

    def begin(self, cookie_headers: Iterable[bytes]) -> SessionT:
        """Start a request's work on its session. No I/O: the session is loaded by `load()`, or by its first use.

        Args:
            cookie_headers: the values of all Cookie headers of the request.
        """
        return self._session(self.lifecycle.begin(self._cookies.find(cookie_headers)))

    def _claim(self, token: str | None) -> SessionT:
        tokens = [] if token is None else [token.encode("utf-8", "replace")]
        return self._session(self.lifecycle.begin(tokens))

    def _steps_for_status(self, work: WorkingCopy, status: int) -> Steps[None] | None:
        """Give what has to be stored before a response of this status leaves."""
        work.sealed = True
        if status < _FIRST_ERROR_STATUS:
            return self.lifecycle.commit(work)
        return self._steps_to_abandon(work)

    def _steps_to_abandon(self, work: WorkingCopy) -> Steps[None] | None:
        work.discard()
        return self.lifecycle.end_destroyed(work) if work.destroyed else None

    def _session(self, work: WorkingCopy) -> SessionT:
        raise NotImplementedError

    def _store(self, store: str | StoreT) -> StoreT:
        raise NotImplementedError

    def __repr__(self) -> str:
        """Show the store's kind and the cookie's name, and no key."""
        return f"<{type(self).__name__} {type(self.store).__name__} cookie={self.config.cookie.full_name!r}>"


class Sessions(_Sessions[AsyncStore, Session]):
    """Server-side sessions for asyncio.

    May be built before any event loop runs; connects when first used.

    Args:
        store: where sessions are kept: `redis://host:6379/0`, `sqlite:///relative/file`, `sqlite:////absolute/file`,
            `memory://`, or an object with the methods of `AsyncStore`.
        secret_keys: sign the cookies; the first signs, all are accepted. `coatcheck keygen` makes one.
        idle_timeout: a session that is not used for this long ends.
        lifetime: a session ends at this age whatever its use.
        cookie: name and attributes of the cookie; by default `__Host-session`, for https only.
        refresh_after: the fraction of the idle timeout after which use extends a session.
        max_record_bytes: the most that one session may hold, encoded.
        max_keys: the most keys that one session may have.
        clock: gives the time in seconds since the epoch. For tests.

    Raises:
        ConfigurationError: a setting can't work, the store's URL is wrong, or an extra is missing.
    """

    @asynccontextmanager
    async def open(self, token: str | None = None) -> AsyncIterator[Session]:
        """Work on a session outside a request: the one of `token`, or a new one.

        Commits at the end of the block, unless it raises.

        Raises:
            SessionNotFound: the token does not lead to a live session.
        """
        session = self._claim(token)
        await session.load()
        _check_found(session, token)
        try:
            yield session
        except BaseException:
            await self.abandon(session)
            raise
        await session.save()

    async def conclude(self, session: Session, status: int) -> str | None:
        """Commit before a response of `status` leaves. Gives the Set-Cookie value that it has to carry, if any.

        A response of 500 or more stores nothing; only `destroy()` holds. From now on, what would need a cookie raises
        `ResponseStarted`; other changes are for `session.save()`.
        """
        steps = self._steps_for_status(session._work, status)
        if steps is not None:
            await drive(steps, self.store)
        return self.lifecycle.cookie(session._work)

    async def abandon(self, session: Session) -> None:
        """Drop what has changed, because the request failed. Only `destroy()` holds."""
        steps = self._steps_to_abandon(session._work)
        if steps is not None:
            await drive(steps, self.store)

    async def close(self) -> None:
        """Close the store's connections. They open anew if the store is used again."""
        await self.store.close()

    def _session(self, work: WorkingCopy) -> Session:
        return Session(self, work)

    def _store(self, store: str | AsyncStore) -> AsyncStore:
        if isinstance(store, str):
            return store_from_url(store, self.config.clock)
        if not inspect.iscoroutinefunction(getattr(store, "load", None)):
            msg = f"store: Sessions needs a URL or an async store, got a {type(store).__name__}; see also SyncSessions"
            raise ConfigurationError(msg)
        return store


class SyncSessions(_Sessions[SyncStore, SyncSession]):
    """Server-side sessions for code without `await`.

    See `Sessions` for the arguments; a store object is one with the methods of `SyncStore`.
    """

    @contextmanager
    def open(self, token: str | None = None) -> Iterator[SyncSession]:
        """See `Sessions.open`."""
        session = self._claim(token)
        session.load()
        _check_found(session, token)
        try:
            yield session
        except BaseException:
            self.abandon(session)
            raise
        session.save()

    def conclude(self, session: SyncSession, status: int) -> str | None:
        """See `Sessions.conclude`."""
        steps = self._steps_for_status(session._work, status)
        if steps is not None:
            drive_sync(steps, self.store)
        return self.lifecycle.cookie(session._work)

    def abandon(self, session: SyncSession) -> None:
        """See `Sessions.abandon`."""
        steps = self._steps_to_abandon(session._work)
        if steps is not None:
            drive_sync(steps, self.store)

    def close(self) -> None:
        """See `Sessions.close`."""
        self.store.close()

    def _session(self, work: WorkingCopy) -> SyncSession:
        return SyncSession(self, work)

    def _store(self, store: str | SyncStore) -> SyncStore:
        if isinstance(store, str):
            return sync_store_from_url(store, self.config.clock)
        if not hasattr(store, "load") or inspect.iscoroutinefunction(store.load):
            msg = f"store: SyncSessions needs a URL or a sync store, got a {type(store).__name__}; see also Sessions"
            raise ConfigurationError(msg)
        return store


def _check_found(session: BaseSession, token: str | None) -> None:
    if token is not None and session._work.standing is not Standing.STORED:
        msg = "The token does not lead to a live session: it is forged or stale, or the session has ended"
        raise SessionNotFound(msg)
