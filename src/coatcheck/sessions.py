"""What an application holds: `Sessions` for asyncio, `SyncSessions` for threads.

Each joins the settings, the rules (`lifecycle`, and `administration` for what no request does) and a store. An
application uses one of them through a transport (`coatcheck.asgi`, `coatcheck.wsgi`), and by `open()` where there is no
request. Transports are made of `begin`, `conclude`, `headers`, `save_rest`, `give_up` and `cookie_of_failed`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from enum import Enum
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary, WeakValueDictionary

from coatcheck.administration import Administration
from coatcheck.adopters import Adopter, AsyncOldRecords, Claimed
from coatcheck.adoption import log_leftover, sources_of
from coatcheck.config import CookieConfig, SessionConfig, WhenFull
from coatcheck.cookie import CookieReader
from coatcheck.devices import ClientAddress, Device
from coatcheck.drivers import drive, drive_sync
from coatcheck.errors import ConfigurationError, SessionNotFound, SessionNotLoaded, StoreError, StoreUnavailable
from coatcheck.events import Event, Events, log, log_failure
from coatcheck.headers import ResponseHeaders, Text
from coatcheck.keeper import Steps
from coatcheck.lifecycle import Lifecycle
from coatcheck.loops import running_loop
from coatcheck.outage import log_loss
from coatcheck.session import BaseSession
from coatcheck.session_info import SessionInfo
from coatcheck.stores.protocol import AsyncFeed, AsyncStore, HasTokens, SyncAnnouncer, SyncStore
from coatcheck.stores.url import store_from_url, sync_store_from_url
from coatcheck.token import is_store_key
from coatcheck.turns import Turns
from coatcheck.users import Watched, epoch_key, tag_of, user_tag
from coatcheck.watching import Watch
from coatcheck.working_copy import WorkingCopy

logger: Final = logging.getLogger("coatcheck")

T = TypeVar("T")
StoreT = TypeVar("StoreT", AsyncStore, SyncStore)
SessionT = TypeVar("SessionT", bound=BaseSession)

FIRST_ERROR_STATUS: Final = 500
"""A response of this status or more stores nothing."""


class New(Enum):
    """Stands for a session that there is not yet."""

    NEW = "new"


NEW: Final = New.NEW

Rule: TypeAlias = Callable[[WorkingCopy], Steps[None] | None]
"""A rule of the lifecycle, or None from it when there is nothing to do."""


class _ThreadLock:
    """A lock that can be kept for as long as somebody uses it."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Session(BaseSession):
    """A session in async code."""

    __slots__ = ("_sessions",)

    def __init__(self, sessions: Sessions, work: WorkingCopy) -> None:
        self._lifecycle, self._work, self._sessions = sessions.lifecycle, work, sessions

    async def load(self) -> None:
        """Read the session from the store, once. Needed only with `load="lazy"`.

        Raises:
            StoreUnavailable: the store can't be reached.
        """
        work, lifecycle, store = self._work, self._lifecycle, self._sessions.store
        try:
            if work.claimed is not None:
                await drive(lifecycle.load(work), store)
            elif keys := lifecycle.keys_to_load(work):
                rest = lifecycle.loaded(work, keys, await store.load(*keys))
                if rest is not None:
                    await drive(rest, store)
        except StoreUnavailable as error:
            work.go_on_as_nobody(error)
        if work.noted:
            await self._sessions._tell(work)

    async def refresh(self) -> None:
        """Take in what other requests have changed since this one read the session; keep its own changes.

        For WebSockets and streams, which go on for long. Afterwards `has_ended` says whether the session still lives.

        Raises:
            StoreUnavailable: the store can't be reached.
        """
        await self._sessions.one_at_a_time(self._work, self._lifecycle.refresh)

    async def save(self) -> None:
        """Commit what has changed so far. Afterwards the session holds what the store holds.

        There is no need to call it: the end of the request commits. Call it to answer with what the store now holds,
        such as the true number after `increment`. Read values again afterwards rather than use those read before.

        Raises:
            StoreUnavailable: the store can't be reached.
            RecordTooLarge: the session would exceed a limit. What was stored before is untouched.
            TooManySessions: after `login()`, with `when_full="refuse"`.
        """
        await self._sessions.one_at_a_time(self._work, self._lifecycle.commit)

    def _load_now(self) -> None:
        raise SessionNotLoaded

    async def revoked(self) -> None:
        """Wait until the session has ended: revoked, logged out or expired, in whatever process.

        For WebSockets and streams, which go on after the moment in which the session let them in. Returns at once
        for a session that is not stored. With Redis it is known within 100 ms, with SQLite within a second; the end
        by expiry within half a minute.

        Example:
            revoked = asyncio.create_task(session.revoked())
            ...
            revoked.cancel()
        """
        work = self._read()
        if work.standing == "stored":
            await self._sessions.wait_for_end(Watched(work.lock_key, tag_of(work.login)))


class SyncSession(BaseSession):
    """A session in code without `await`. Loads itself when it is first used."""

    __slots__ = ("_sessions",)

    def __init__(self, sessions: SyncSessions, work: WorkingCopy) -> None:
        self._lifecycle, self._work, self._sessions = sessions.lifecycle, work, sessions

    def load(self) -> None:
        """See `Session.load`."""
        if self._work.standing == "unloaded":
            try:
                self._sessions.run(self._lifecycle.load(self._work), self._work)
            except StoreUnavailable as error:
                self._work.go_on_as_nobody(error)

    def refresh(self) -> None:
        """See `Session.refresh`."""
        self._sessions.one_at_a_time(self._work, self._lifecycle.refresh)

    def save(self) -> None:
        """See `Session.save`."""
        self._sessions.one_at_a_time(self._work, self._lifecycle.commit)

    def _load_now(self) -> None:
        self.load()


class _Sessions(Generic[StoreT, SessionT]):
    """What both façades have in common: settings, and all that needs no I/O."""

    _is_async: ClassVar[bool]
    _kind: Callable[[Any, WorkingCopy], SessionT]
    """The class of its sessions."""

    def __init__(  # noqa: PLR0913 (they are the settings)
        self,
        store: str | StoreT,
        *,
        secret_keys: Sequence[str | bytes] | None = None,
        idle_timeout: timedelta = timedelta(hours=2),
        lifetime: timedelta = timedelta(days=7),
        cookie: CookieConfig | None = None,
        refresh_after: float = 0.1,
        max_record_bytes: int = 1_048_576,
        max_keys: int = 1_000,
        max_sessions_per_user: int | None = None,
        when_full: WhenFull = "end_oldest",
        renew_every: timedelta | None = None,
        renewal_grace: timedelta = timedelta(seconds=10),
        end_on_reuse: bool = False,
        user_agent: bool = True,
        client_address: ClientAddress = "truncated",
        adopt: Sequence[Adopter] = (),
        events: Events | None = None,
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
            max_sessions_per_user=max_sessions_per_user,
            when_full=when_full,
            renew_every=renew_every,
            renewal_grace=renewal_grace,
            end_on_reuse=end_on_reuse,
            user_agent=user_agent,
            client_address=client_address,
            clock=clock,
            store_has_tokens=isinstance(store, HasTokens),
            store_takes_foreign_values=isinstance(store, HasTokens) and store.takes_foreign_values,
        )
        self.events = Events() if events is None else events
        if adopt and self.config.store_has_tokens:
            msg = "adopt: this store has IDs and cookies of its own, and no session can be adopted into it"
            raise ConfigurationError(msg)
        self._sources = sources_of(adopt, self.config.cookie, is_async=self._is_async)
        self.store: StoreT = self._store(store)
        tokens = self.store.tokens(self.config) if isinstance(self.store, HasTokens) else None
        self.lifecycle = Lifecycle(self.config, self._sources, tokens)
        self.administration = Administration(self.lifecycle.keeper, self.lifecycle.users)
        self._cookies = CookieReader(self.config.cookie)

    def begin(
        self,
        cookie_headers: Sequence[bytes],
        device: Callable[[], Device] | None = None,
        *,
        may_go_on: bool = False,
    ) -> SessionT:
        """Start a request's work on its session. No I/O: the session is loaded by `load()`, or by its first use.

        Args:
            cookie_headers: the values of all Cookie headers of the request.
            device: tells where the request comes from. Called at a login, and when a session of a user is adopted.
            may_go_on: whether the request goes on as nobody's while the store is out of reach.
        """
        work = self.lifecycle.begin(self._cookies.find(cookie_headers))
        if self._sources and work.session_id is None:
            self.lifecycle.claim(work, cookie_headers)
        work.device = device
        work.may_go_on = may_go_on
        return self._kind(self, work)

    def claim(self, token: str | New | None) -> SessionT:
        """Start work on the session of a token, outside a request; on a new one for `NEW`, and for None. No I/O."""
        tokens = [token.encode("utf-8", "replace")] if isinstance(token, str) else []
        return self._kind(self, self.lifecycle.begin(tokens))

    def headers(
        self,
        kind: ResponseHeaders[Text],
        headers: Iterable[tuple[Text, Text]],
        session: SessionT,
        set_cookie: str | None,
    ) -> list[tuple[Text, Text]] | None:
        """Give a response's headers with what its session makes due, or None where that is nothing.

        Args:
            kind: makes headers of this kind of text, see `coatcheck.headers`.
            headers: the headers that the application gave.
            session: the request's session, after `conclude`.
            set_cookie: what `conclude` gave.
        """
        work = session._work
        old_cookie = None if work.claimed is None else self.old_cookie(session)
        is_for_now = work.outage is not None
        if not (work.accessed or is_for_now) and set_cookie is None and old_cookie is None:
            return None
        due = list(headers)
        kind.add(due, accessed=work.accessed, set_cookie=set_cookie, old_cookie=old_cookie, for_now=is_for_now)
        return due

    def old_cookie(self, session: SessionT) -> str | None:
        """Give the Set-Cookie value by which the response to an adopted session takes the old cookie away, if any."""
        claimed = session._work.claimed
        if claimed is None or not (claimed.is_spent and claimed.is_to_leave):
            return None
        return claimed.source.clear

    def cookie_of_failed(self, session: SessionT) -> str | None:
        """Give the Set-Cookie value for the answer to a request that has failed, after `give_up`.

        What was stored before may need a cookie all the same, and so may the session's end.
        """
        return self.lifecycle.cookie(session._work)

    def _rule_for(self, status: int) -> Rule:
        """Give the rule for what has to be stored before a response of this status leaves."""
        return self._steps_to_abandon if status >= FIRST_ERROR_STATUS else self.lifecycle.conclude

    def _sealed(self, work: WorkingCopy) -> str | None:
        """Take note that the headers leave; give the Set-Cookie value for them."""
        work.sealed = True
        return self.lifecycle.cookie(work) if work.issues_cookie or work.cookie_is_stale else None

    def _steps_to_abandon(self, work: WorkingCopy) -> Steps[None] | None:
        work.discard()
        if work.claimed is not None:
            # Until a response is good, the old cookie is all that the client has. But a logout holds in any case.
            work.claimed.is_to_leave = work.claimed.is_ended and work.claimed.source.adopter.removes_old
        return self.lifecycle.end_destroyed(work) if work.destroyed else None

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
        secret_keys: sign the cookies; the first signs, all are accepted. `coatcheck keygen` makes one. Left out only
            with a store that has keys of its own.
        idle_timeout: a session that is not used for this long ends.
        lifetime: a session ends at this age whatever its use.
        cookie: name and attributes of the cookie; by default `__Host-session`, for https only.
        refresh_after: the fraction of the idle timeout after which use extends a session.
        max_record_bytes: the most that one session may hold, encoded.
        max_keys: the most keys that one session may have.
        max_sessions_per_user: how many sessions a user may have at once; None for any number.
        when_full: what a login beyond that does: "end_oldest" ends the user's oldest session, "refuse" raises
            `TooManySessions` at the commit (call `session.save()` after `login()` to catch it).
        renew_every: give sessions that are used a new ID this often; None for only at logins.
        renewal_grace: how long after such a renewal requests with the old ID still reach the session.
        end_on_reuse: end a session whose old ID is used after the grace, which is a sign that it was stolen.
        user_agent: keep the browser's User-Agent with a login, for lists of devices.
        client_address: keep the client's address with a login: "truncated" to its network, "whole", or "none".
        adopt: systems whose sessions become ours when their clients come; see `coatcheck.interop`. One for each old
            cookie.
        events: handlers for what happens to sessions.
        clock: gives the time in seconds since the epoch. For tests.

    Raises:
        ConfigurationError: a setting can't work, the store's URL is wrong, or an extra is missing.
    """

    _is_async = True
    _kind = Session

    @asynccontextmanager
    async def open(self, token: str | New | None = NEW) -> AsyncIterator[Session]:
        """Work on a session outside a request: the one of `token`, or without one a new session.

        Commits at the end of the block, unless it raises.

        Raises:
            SessionNotFound: the token does not lead to a live session, or its session ended during the block, and
                nothing of what the block changed was stored. Also for None, which is what a missing cookie gives.
        """
        session = self.claim(token)
        await session.load()
        _check_found(session, token)
        try:
            yield session
            await session.save()
        except BaseException:
            await self.abandon(session)
            raise
        finally:
            session._work.closed = True
        _check_survived(session)

    async def conclude(self, session: Session, status: int) -> str | None:
        """Commit before a response of `status` leaves. Gives the Set-Cookie value that it has to carry, if any.

        A response of 500 or more stores nothing; only `destroy()` holds. From now on, what would need a cookie raises
        `ResponseStarted`; other changes are for `session.save()`. A transport may ask `lifecycle.settle` before, which
        spares most responses this.
        """
        work = session._work
        work.is_void = status >= FIRST_ERROR_STATUS
        try:
            rule = self._rule_for(status)
            waiting = self._due(work, rule)
            while waiting is not None:
                await waiting
                # Meanwhile another task of the request may have done what needs a cookie, too.
                needs_cookie = work.predecessor is not None or work.login_is_new or work.standing == "new"
                waiting = self._due(work, rule) if needs_cookie else None
        except StoreUnavailable as error:
            work.go_on_unextended(error)
        if work.claimed is not None:
            await self._delete_old(work.claimed)
        return self._sealed(work)

    async def _delete_old(self, claimed: Claimed) -> None:
        leftover = self.lifecycle.adoption.leftover(claimed)
        if leftover is not None:
            try:
                await drive(leftover, self.store)
            except StoreError as error:  # what the request is about is stored
                log_leftover(error)

    async def save_rest(self, session: Session) -> None:
        """Store what was changed after `conclude`. Asked for with every message that leaves after the headers."""
        if not session._work.settled:
            await (self.abandon(session) if session._work.is_void else session.save())

    async def abandon(self, session: Session) -> None:
        """Drop what has changed, because the request failed. Only `destroy()` holds, also when it is cancelled."""
        abandoning = self.one_at_a_time(session._work, self._steps_to_abandon)
        await (self._to_its_end(abandoning) if session._work.destroyed else abandoning)

    async def _to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what has to be done although whoever waits is cancelled: once, or as anyio does, at whatever it awaits."""
        task = asyncio.create_task(work)
        self._to_end.add(task)
        task.add_done_callback(self._to_end.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_what_failed)
            raise

    async def give_up(self, session: Session, *, keep_changes: bool = False) -> None:
        """Do as `abandon` for an application that has raised: a store that fails then is logged, not raised.

        Args:
            session: the request's session.
            keep_changes: store what was changed all the same: it is a WebSocket whose client has just gone.
        """
        try:
            await (session.save() if keep_changes else self.abandon(session))
        except StoreUnavailable as error:  # must not take the place of what the application raised
            log_loss(error)

    async def one_at_a_time(self, work: WorkingCopy, rule: Rule) -> None:
        """Carry out a rule while no other task of this process does so with the same session.

        Two tasks of one request must not commit the same changes twice, and many requests of one session would only
        be in each other's way: each would write what the next one finds to be too old.
        """
        waiting = self._due(work, rule)
        if waiting is not None:
            await waiting

    def _due(self, work: WorkingCopy, rule: Rule) -> Awaitable[None] | None:
        """Give what is to be awaited for `one_at_a_time`. For most requests, there is nothing to do."""
        steps = None
        if work.at_work_on is None:
            steps = rule(work)
            if steps is None:
                return self._tell(work) if work.noted else None
        return self._carry_out(work, rule, steps)

    async def _carry_out(self, work: WorkingCopy, rule: Rule, steps: Steps[None] | None) -> None:
        loop, turns = running_loop(), self._turns
        place = (loop, work.at_work_on or work.lock_key)
        while not turns.take(place):
            await turns.wait(place)
            steps = None  # what there is to do may have changed meanwhile
            if work.at_work_on is None and work.lock_key == place[1]:
                break
            # The session was renewed meanwhile, and another task of the request may be at work on it elsewhere.
            turns.leave(place)
            place = (loop, work.at_work_on or work.lock_key)
        work.at_work_on = place[1]
        try:
            if steps is None:
                steps = rule(work)
            if steps is not None:
                await drive(steps, self.store)
        finally:
            work.at_work_on = None
            turns.leave(place)
        if work.noted:  # not before others may go on: a handler may use the session
            await self._tell(work)

    async def run(self, steps: Steps[T], work: WorkingCopy | None = None) -> T:
        """Carry out steps of the rules, and tell what happened."""
        result = await drive(steps, self.store)
        if work is not None and work.noted:
            await self._tell(work)
        return result

    async def _tell(self, work: WorkingCopy) -> None:
        noted, work.noted = work.noted, ()
        await self._tell_all(noted)

    async def _tell_all(self, events: Iterable[Event]) -> None:
        """Log what happened, tell those who wait for it, and call the application's handlers."""
        for event in events:
            log(event)
            await self._announce(*event.news)
            handler = self.events.handler(event)
            if handler is not None:
                try:
                    result = handler(event)
                    if result is not None:
                        await result
                except Exception as error:  # noqa: BLE001 (a handler must not break a request)
                    log_failure(event, error)

    async def _announce(self, *keys: str) -> None:
        for loop, watch in list(self._watches.items()):
            for key in keys:
                if loop is asyncio.get_running_loop():
                    watch.hear_of(key)
                elif not loop.is_closed():
                    loop.call_soon_threadsafe(watch.hear_of, key)
        if keys and isinstance(self.store, AsyncFeed):
            with suppress(StoreError):  # those who wait look for themselves, only later
                await self.store.announce(*keys)

    async def wait_for_end(self, watched: Watched) -> None:
        """Wait until a session has ended. See `Session.revoked`."""
        loop = asyncio.get_running_loop()
        watch = self._watches.get(loop)
        if watch is None:
            watch = self._watches[loop] = Watch(self.store, self._look)
        try:
            await watch.wait(watched)
        finally:
            if not watch.is_needed:
                self._watches.pop(loop, None)

    async def _look(self, watched: list[Watched]) -> None:
        await self.run(self.administration.look(watched))

    # --- users ------------------------------------------------------------------------------------------------

    async def for_user(self, user_id: str, current: BaseSession | None = None) -> list[SessionInfo]:
        """Give every live session of a user, oldest first. The cost grows with the user's own sessions only.

        Args:
            user_id: whose.
            current: the session that asks, to be marked in the list.
        """
        return await self.run(self.administration.sessions_of(user_id, handle_of(current)))

    async def revoke(self, handle: str, *, user_id: str | None = None) -> bool:
        """End one session, by its handle. False when there is none.

        Args:
            handle: the session's handle.
            user_id: end it only if it is this user's. For handles that come from a user's own list of devices.
        """
        event = await self.run(self.administration.revoke(check_handle(handle), user_id))
        await self._tell_all([] if event is None else [event])
        return event is not None

    async def revoke_user(self, user_id: str, keep: BaseSession | str | None = None) -> int:
        """End every session of a user, those included that no list knows and logins that are under way.

        Args:
            user_id: whose.
            keep: a session, or its handle, that goes on: usually the one that asks.

        Returns:
            How many sessions were found and ended.
        """
        events = await self.run(self.administration.revoke_user(user_id, handle_of(keep)))
        await self._tell_all(events)
        await self._announce(epoch_key(user_tag(user_id)))  # also for sessions that no list knows
        return len(events)

    async def revoke_all(self) -> int:
        """End every session of everybody. For administration: the cost grows with the number of sessions."""
        events = await self.run(self.administration.revoke_all())
        await self._tell_all(events)
        return len(events)

    async def count(self) -> int:
        """Count the live sessions. For administration: the cost grows with their number."""
        count = 0
        async for _ in self.iterate():
            count += 1
        return count

    async def iterate(self, page_size: int = 100) -> AsyncIterator[SessionInfo]:
        """Give every live session, about `page_size` at a time. One that is renewed meanwhile may come twice."""
        cursor, is_last = "", False
        while not is_last:
            page, cursor = await self.run(self.administration.page(cursor, page_size))
            is_last = not cursor
            for info in page:
                yield info

    async def export_user(self, user_id: str) -> list[dict[str, Any]]:
        """Give all that is kept in a user's sessions (GDPR, article 15: right of access)."""
        return await self.run(self.administration.export(user_id))

    async def erase_user(self, user_id: str) -> int:
        """End and delete every session of a user (GDPR, article 17). A hash and a number are left for a while."""
        return await self.revoke_user(user_id)

    async def close(self) -> None:
        """Close the store's connections. They open anew if the store is used again."""
        loop = asyncio.get_running_loop()
        under_way = [task for task in list(self._to_end) if task.get_loop() is loop]
        await asyncio.gather(*under_way, return_exceptions=True)
        await self.store.close()
        for source in self._sources:
            if source.records is not None:
                await cast("AsyncOldRecords", source.records).close()

    def _store(self, store: str | AsyncStore) -> AsyncStore:
        self._watches: WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = WeakKeyDictionary()
        self._turns = Turns()
        self._to_end: set[asyncio.Task[None]] = set()
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

    _is_async = False
    _kind = SyncSession

    @contextmanager
    def open(self, token: str | New | None = NEW) -> Iterator[SyncSession]:
        """See `Sessions.open`."""
        session = self.claim(token)
        session.load()
        _check_found(session, token)
        try:
            yield session
            session.save()
        except BaseException:
            self.abandon(session)
            raise
        finally:
            session._work.closed = True
        _check_survived(session)

    def conclude(self, session: SyncSession, status: int) -> str | None:
        """See `Sessions.conclude`."""
        work = session._work
        work.is_void = status >= FIRST_ERROR_STATUS
        if not work.is_void and self.lifecycle.settle(work):
            return None
        try:
            self.one_at_a_time(work, self._rule_for(status))
        except StoreUnavailable as error:
            work.go_on_unextended(error)
        if work.claimed is not None:
            self._delete_old(work.claimed)
        return self._sealed(work)

    def _delete_old(self, claimed: Claimed) -> None:
        leftover = self.lifecycle.adoption.leftover(claimed)
        if leftover is not None:
            try:
                drive_sync(leftover, self.store)
            except StoreError as error:
                log_leftover(error)

    def save_rest(self, session: SyncSession) -> None:
        """See `Sessions.save_rest`."""
        if not session._work.settled:
            if session._work.is_void:
                self.abandon(session)
            else:
                session.save()

    def abandon(self, session: SyncSession) -> None:
        """See `Sessions.abandon`."""
        self.one_at_a_time(session._work, self._steps_to_abandon)

    def give_up(self, session: SyncSession) -> None:
        """See `Sessions.give_up`."""
        try:
            self.abandon(session)
        except StoreUnavailable as error:
            log_loss(error)

    def one_at_a_time(self, work: WorkingCopy, rule: Rule) -> None:
        """See `Sessions.one_at_a_time`; here for threads."""
        if rule(work) is not None:
            lock = self._lock(work.lock_key)  # it is there for as long as somebody holds on to it
            with lock.lock:
                steps = rule(work)
                if steps is not None:
                    drive_sync(steps, self.store)
        if work.noted:
            self._tell(work)

    def _lock(self, store_key: str) -> _ThreadLock:
        if self._process != os.getpid():
            self._forget_locks()  # threads may hold them that this process, a child, has not
        with self._guard_of_locks:
            lock = self._locks.get(store_key)
            if lock is None:
                lock = self._locks[store_key] = _ThreadLock()
            return lock

    def run(self, steps: Steps[T], work: WorkingCopy | None = None) -> T:
        """See `Sessions.run`."""
        result = drive_sync(steps, self.store)
        if work is not None and work.noted:
            self._tell(work)
        return result

    def _tell(self, work: WorkingCopy) -> None:
        noted, work.noted = work.noted, ()
        self._tell_all(noted)

    def _tell_all(self, events: Iterable[Event]) -> None:
        for event in events:
            log(event)
            self._announce(*event.news)
            handler = self.events.handler(event)
            if handler is not None:
                try:
                    handler(event)
                except Exception as error:  # noqa: BLE001 (a handler must not break a request)
                    log_failure(event, error)

    def _announce(self, *keys: str) -> None:
        if keys and isinstance(self.store, SyncAnnouncer):
            with suppress(StoreError):
                self.store.announce(*keys)

    # --- users ------------------------------------------------------------------------------------------------

    def for_user(self, user_id: str, current: BaseSession | None = None) -> list[SessionInfo]:
        """See `Sessions.for_user`."""
        return self.run(self.administration.sessions_of(user_id, handle_of(current)))

    def revoke(self, handle: str, *, user_id: str | None = None) -> bool:
        """See `Sessions.revoke`."""
        event = self.run(self.administration.revoke(check_handle(handle), user_id))
        self._tell_all([] if event is None else [event])
        return event is not None

    def revoke_user(self, user_id: str, keep: BaseSession | str | None = None) -> int:
        """See `Sessions.revoke_user`."""
        events = self.run(self.administration.revoke_user(user_id, handle_of(keep)))
        self._tell_all(events)
        self._announce(epoch_key(user_tag(user_id)))
        return len(events)

    def revoke_all(self) -> int:
        """See `Sessions.revoke_all`."""
        events = self.run(self.administration.revoke_all())
        self._tell_all(events)
        return len(events)

    def count(self) -> int:
        """See `Sessions.count`."""
        return sum(1 for _ in self.iterate())

    def iterate(self, page_size: int = 100) -> Iterator[SessionInfo]:
        """See `Sessions.iterate`."""
        cursor, is_last = "", False
        while not is_last:
            page, cursor = self.run(self.administration.page(cursor, page_size))
            is_last = not cursor
            yield from page

    def export_user(self, user_id: str) -> list[dict[str, Any]]:
        """See `Sessions.export_user`."""
        return self.run(self.administration.export(user_id))

    def erase_user(self, user_id: str) -> int:
        """See `Sessions.erase_user`."""
        return self.revoke_user(user_id)

    def close(self) -> None:
        """See `Sessions.close`."""
        self.store.close()
        for source in self._sources:
            if source.records is not None:
                source.records.close()

    def _forget_locks(self) -> None:
        self._locks: WeakValueDictionary[str, _ThreadLock] = WeakValueDictionary()
        self._guard_of_locks = threading.Lock()
        self._process = os.getpid()

    def _store(self, store: str | SyncStore) -> SyncStore:
        self.events.check_sync()
        self._forget_locks()
        if isinstance(store, str):
            return sync_store_from_url(store, self.config.clock)
        if not hasattr(store, "load") or inspect.iscoroutinefunction(store.load):
            msg = f"store: SyncSessions needs a URL or a sync store, got a {type(store).__name__}; see also Sessions"
            raise ConfigurationError(msg)
        return store


def handle_of(session: BaseSession | str | None) -> str | None:
    """Give the store key of what may be a session or a handle."""
    # Of a session that is to be renewed, what counts is what is stored now.
    return session._work.lock_key if isinstance(session, BaseSession) else session


def check_handle(handle: str) -> str:
    """Give a handle back. One that can't be a session's becomes one that no session has."""
    return handle if is_store_key(handle) else "0" * 40


def _log_what_failed(task: asyncio.Task[None]) -> None:
    """Say of what nobody waits for any more that it has failed."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, StoreUnavailable):
        log_loss(error)
    elif error is not None:
        logger.error("What a cancelled request had to tidy up has failed", exc_info=error)


def _check_found(session: BaseSession, token: str | New | None) -> None:
    if token is not NEW and session._work.standing != "stored":
        msg = "The token does not lead to a live session: it is forged or stale, or the session has ended"
        raise SessionNotFound(msg)


def _check_survived(session: BaseSession) -> None:
    if session._work.standing in ("ended", "superseded"):
        msg = "The session ended while the block of open() ran, so nothing of what it changed was stored"
        raise SessionNotFound(msg)
