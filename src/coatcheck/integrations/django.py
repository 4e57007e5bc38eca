"""Sessions for Django: an engine, and a middleware that does what Django's own can't.

    SESSION_ENGINE = "coatcheck.integrations.django"
    COATCHECK = {"store": "redis://localhost:6379/0"}
    MIDDLEWARE = [..., "coatcheck.integrations.django.SessionMiddleware", ...]  # in the place of Django's

Here, Django's way of using sessions is translated into Coatcheck's, and nothing is decided about sessions. Two things
that Django keeps among a session's values have a place in Coatcheck's record: whose session it is, and when it ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.http import FileResponse, HttpResponse
from django.utils import timezone

from coatcheck import outage
from coatcheck.devices import Device
from coatcheck.errors import StoreUnavailable
from coatcheck.headers import TEXT
from coatcheck.integrations._django_headers import put_headers
from coatcheck.integrations._django_login import SharedLogin, shared_login
from coatcheck.integrations._django_settings import async_sessions, configuration, sessions
from coatcheck.sessions import Session, SyncSession
from coatcheck.working_copy import Standing, WorkingCopy

__all__ = ["SessionMiddleware", "SessionStore", "SharedLogin", "async_sessions", "sessions"]

_AUTH_KEYS: Final = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)
_FIRST_ERROR_STATUS: Final = 500


class SessionStore(SessionBase):
    """The engine: Django's interface on a session of Coatcheck's.

    `session_key` is the cookie's value, a secret; `handle` is the session's public name. A key that was not signed by
    this server, or whose session has ended, is never adopted.

    Args:
        session_key: the cookie's value, or None for a new session.
    """

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)  # which sets _session_key

    # --- whose data it is -------------------------------------------------------------------------------------

    def _set_key(self, session_key: str | None) -> None:
        claimed = sessions().claim(session_key if isinstance(session_key, str) else None)
        self._take(claimed, session_key)

    def _take(self, core: SyncSession, session_key: str | None = None, native: Session | None = None) -> None:
        """Begin with a session.

        Args:
            core: the session.
            session_key: the key that it was found by.
            native: the same session for async code, where there is an event loop to be asked in.
        """
        self._core = core
        self._presented = session_key
        self._native = native
        self._is_open = False
        self._login_is_due = False
        self._shows_login = False
        self._outage: StoreUnavailable | None = None

    @property
    def _work(self) -> WorkingCopy:
        return self._core._work

    def _key(self) -> str | None:
        """The cookie's value, a secret. None before the session is stored, and after it has ended."""
        if self._work.standing is Standing.UNLOADED:
            return self._presented
        return self._core._lifecycle.token(self._work) if self._work.standing is Standing.STORED else None

    session_key = property(_key)
    _session_key = property(_key, _set_key)  # SessionBase has both

    @property
    def handle(self) -> str:
        """The session's public name, 40 characters, for logs, lists, and columns of your own tables."""
        return self._get_session().handle

    @property
    def coatcheck(self) -> SyncSession:
        """The session as Coatcheck's own, for what Django has no word for: `increment`, `append`, `user_id`, guards."""
        return self._get_session()

    def is_empty(self) -> bool:
        """Tell whether there is neither a stored session nor a value."""
        return self.session_key is None and self._work.standing is not Standing.UNLOADED and not self._work.size()

    # --- loading ----------------------------------------------------------------------------------------------

    def _get_session(self, no_load: bool = False) -> SyncSession:  # noqa: ARG002, FBT001, FBT002 (Django's signature)
        self.accessed = True
        self._open()
        return self._core

    async def _aget_session(self, no_load: bool = False) -> SyncSession:  # noqa: ARG002, FBT001, FBT002
        self.accessed = True
        await self._aopen()
        return self._core  # what is loaded needs no awaiting

    _session = property(_get_session)

    def _open(self) -> None:
        """Load the session, once."""
        if not self._is_open:
            with self._noting_outages():
                self._core.load()
            foreign = self._check_login()
            if foreign is not None:
                self._introduce(foreign[0], foreign[1].get_user(foreign[2]))
            self._is_open = True

    async def _aopen(self) -> None:
        if self._is_open:
            return
        if self._native is None:
            await sync_to_async(self._open)()
            return
        with self._noting_outages():
            await self._native.load()
        foreign = self._check_login()
        if foreign is not None:
            self._introduce(foreign[0], await foreign[1].aget_user(foreign[2]))
        self._is_open = True

    @contextmanager
    def _noting_outages(self) -> Iterator[None]:
        """Remember that the store could not be asked: what Django makes of the exception hides it."""
        try:
            yield
        except StoreUnavailable as error:
            self._outage = error
            raise

    def load(self) -> dict[str, Any]:
        """Give the values as a dict; an empty one when there is no such session."""
        return self._get_session().copy()

    async def aload(self) -> dict[str, Any]:
        """See `load`."""
        return (await self._aget_session()).copy()

    def exists(self, session_key: str | None) -> bool:
        """Tell whether a key leads to a live session."""
        if not session_key:
            return False
        claimed = sessions().claim(session_key)
        with self._noting_outages():
            claimed.load()
        return claimed._work.standing is Standing.STORED

    # --- saving -----------------------------------------------------------------------------------------------

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 (Django's signature)
        """Store the session now, also when nothing has changed.

        With `SessionMiddleware` of this module there is no need to call it.

        Raises:
            UpdateError: the session has ended meanwhile. It is not brought back.
            CreateError: with `must_create`, when the session is stored already.
        """
        with self._noting_outages():
            self._open()
            self._prepare(must_create=must_create)
            sessions().one_at_a_time(self._work, self._core._lifecycle.commit_anyway)
        self._check_survived()

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """See `save`."""
        if self._native is None:
            await sync_to_async(self.save)(must_create)
            return
        with self._noting_outages():
            await self._aopen()
            self._prepare(must_create=must_create)
            await async_sessions().one_at_a_time(self._work, self._native._lifecycle.commit_anyway)
        self._check_survived()

    def _check_survived(self) -> None:
        if self._core.has_ended:
            raise UpdateError

    def create(self) -> None:
        """Store a new session, without values, in the place of this one."""
        self._session_key = None
        self.save(must_create=True)
        self.modified = True

    async def acreate(self) -> None:
        """See `create`."""
        await sync_to_async(self.create)()

    def cycle_key(self) -> None:
        """Give the session a new key when it is saved; the old one is dead from then on. The values stay."""
        self._get_session().renew()
        self.modified = True

    async def acycle_key(self) -> None:
        """See `cycle_key`."""
        (await self._aget_session()).renew()
        self.modified = True

    # --- ending -----------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Delete all values, and what `set_expiry` has set. The session itself goes on."""
        self._get_session().clear()
        self._limit(None)
        self.modified = True

    def flush(self) -> None:
        """End the session, at once. What is set afterwards belongs to a new one."""
        self.delete()
        self.accessed = self.modified = True

    async def aflush(self) -> None:
        """See `flush`."""
        await self.adelete()
        self.accessed = self.modified = True

    def delete(self, session_key: str | None = None) -> None:
        """End the session of a key, or without one this session. Does nothing where there is none."""
        with self._noting_outages():
            sessions().abandon(self._ended(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """See `delete`."""
        if self._native is None:
            await sync_to_async(self.delete)(session_key)
            return
        ended = self._ended(session_key)
        with self._noting_outages():
            await async_sessions().abandon(Session(async_sessions(), ended._work))

    def _ended(self, session_key: str | None) -> SyncSession:
        """Mark a session to be ended."""
        ended = self._core if session_key is None else sessions().claim(session_key)
        ended.destroy()
        return ended

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: stores let go of what has expired by themselves."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """See `clear_expired`."""

    # --- when it ends -----------------------------------------------------------------------------------------

    def get_session_cookie_age(self) -> int:
        """Give the idle timeout in seconds: SESSION_COOKIE_AGE, unless COATCHECK has another."""
        return int(sessions().config.idle_timeout.total_seconds())

    def set_expiry(self, value: int | datetime | timedelta | None) -> None:
        """Let this session last differently from others. See Django's documentation.

        Raises:
            ImproperlyConfigured: it would be longer than COATCHECK['lifetime'], which ends every session.
        """
        expiry = _expiry(value)
        super().set_expiry(value)
        self._limit(expiry)

    async def aset_expiry(self, value: int | datetime | timedelta | None) -> None:
        """See `set_expiry`."""
        expiry = _expiry(value)
        await super().aset_expiry(value)
        self._limit(expiry)

    def _limit(self, expiry: timedelta | datetime | None) -> None:
        """Set in the session what Django only notes among its values."""
        if isinstance(expiry, datetime):
            self._core.limit(ends_at=expiry)
            self._work.remember = True
        elif expiry:
            self._core.limit(idle_timeout=expiry)
            self._work.remember = True
        else:
            self._core.limit()
            self._work.remember = None if expiry is None else False

    # --- whose session it is ----------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value. To set `_auth_user_id` is to log in: nothing else does in Django."""
        super().__setitem__(key, value)
        self._login_is_due = self._login_is_due or key == SESSION_KEY

    async def aset(self, key: str, value: Any) -> None:
        """Set a value."""
        await super().aset(key, value)
        self._login_is_due = self._login_is_due or key == SESSION_KEY

    def _user_id(self) -> str | None:
        """Give whom Django takes for the session's user."""
        return str(self._work.read(SESSION_KEY)) if self._work.has(SESSION_KEY) else None

    def _check_login(self) -> tuple[str, Any, Any] | None:
        """See that Django takes nobody for the session's user who has not logged in to it.

        Gives what is needed to introduce somebody who logged in elsewhere: a backend's path, the backend, and the key
        to ask it for.
        """
        work = self._work
        if work.standing is not Standing.STORED:
            return None
        user_id = None if work.login is None else work.login.user_id
        if self._user_id() == user_id:
            self._shows_login = user_id is not None
            return None
        for key in _AUTH_KEYS:
            if work.has(key):
                work.remove(key)
        return None if user_id is None else shared_login(user_id)

    def _introduce(self, backend_path: str, user: Any) -> None:
        """Let `django.contrib.auth` find somebody who logged in elsewhere.

        From now on the session is bound to the password that the user has now, like any of Django's.
        """
        if user is not None:
            self._work.assign(SESSION_KEY, user._meta.pk.value_to_string(user))
            self._work.assign(BACKEND_SESSION_KEY, backend_path)
            self._work.assign(HASH_SESSION_KEY, user.get_session_auth_hash())
            self._shows_login = self.modified = True

    def _prepare(self, *, must_create: bool = False) -> None:
        """Before a commit: log in or out whom Django's values say."""
        work = self._work
        if must_create and work.standing is Standing.STORED:
            raise CreateError
        if work.standing not in (Standing.STORED, Standing.NEW):
            return
        known = None if work.login is None else work.login.user_id
        user_id = self._user_id()
        if user_id is not None and (self._login_is_due or user_id != known):
            self._log_in(user_id, known)
        elif user_id is None and self._shows_login:  # taken out of the values, rather than never put in
            self._core.logout(keep=list(self._core))
        self._login_is_due, self._shows_login = False, user_id is not None

    def _log_in(self, user_id: str, known: str | None) -> None:
        work = self._work
        if known in (None, user_id):
            self._core.login(user_id)
            return
        # Of the other user's session nothing is carried over but what this request has set.
        kept = {key: work.read(key) for key in (*_AUTH_KEYS, *work.patch()) if work.has(key)}
        self._core.login(user_id)
        self._core.update(kept)


def _expiry(value: int | datetime | timedelta | None) -> timedelta | datetime | None:
    """Give a value for `set_expiry` in one of three forms: idle timeout, end, or nothing special."""
    if value is None:
        return None
    now = timezone.now()
    if isinstance(value, datetime | timedelta):
        ends_at = now + value if isinstance(value, timedelta) else value
        expiry: timedelta | datetime = ends_at if timezone.is_aware(ends_at) else timezone.make_aware(ends_at)
        after = ends_at - now
    else:
        expiry = after = timedelta(seconds=value)
    lifetime = sessions().config.lifetime
    if after > lifetime:
        msg = f"set_expiry: {after} is longer than a session's lifetime, {lifetime}; raise COATCHECK['lifetime']"
        raise ImproperlyConfigured(msg)
    return expiry


class SessionMiddleware(DjangosMiddleware):
    """Takes the place of `django.contrib.sessions.middleware.SessionMiddleware`. Sync and async.

    It is one of its kind, so that the admin's checks find it. For an async view there is no hop to a thread.

    Commits before the headers leave, finds changes inside values, answers by 503 while the store can't be reached, and
    lets a request whose session has ended meanwhile have its answer.

    Args:
        get_response: what comes after it.

    Raises:
        ImproperlyConfigured: SESSION_ENGINE is not the one of this module, or a setting can't work.
    """

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        super().__init__(get_response)
        if not issubclass(self.SessionStore, SessionStore):
            msg = f"SESSION_ENGINE: expected 'coatcheck.integrations.django', got {settings.SESSION_ENGINE!r}"
            raise ImproperlyConfigured(msg)
        sessions()  # says now what is wrong with the settings
        self._routes = outage.Routes(configuration().while_down)
        self._outages = outage.OutageLog()

    def __call__(self, request: Any) -> Any:
        """Give the response to a request."""
        return self.__acall__(request) if self.async_mode else self._call(request)

    def process_exception(self, request: Any, exception: Exception) -> HttpResponse | None:  # noqa: ARG002
        """Let a view's exception be answered by 503, not by 500, when it is the store that can't be reached."""
        return HttpResponse(status=503) if isinstance(exception, StoreUnavailable) else None

    def _call(self, request: Any) -> Any:
        core = sessions().begin(*_claim_of(request), may_go_on=self._routes.go_on(request.path))
        store = self._store(core)
        try:
            store._open()
            request.session = store
            response = self.get_response(request)
            _prepare(store, response)
            set_cookie = sessions().conclude(core, response.status_code)
        except BaseException as error:  # noqa: BLE001 (it is raised again)
            self._tidy(partial(sessions().abandon, core))
            return self._refused(core, error)
        self._answered(store, response, set_cookie)
        return response

    async def __acall__(self, request: Any) -> Any:
        native = async_sessions().begin(*_claim_of(request), may_go_on=self._routes.go_on(request.path))
        store = self._store(SyncSession(sessions(), native._work), native)
        try:
            await store._aopen()
            request.session = store
            response = await self.get_response(request)
            _prepare(store, response)
            set_cookie = await async_sessions().conclude(native, response.status_code)
        except BaseException as error:  # noqa: BLE001 (it is raised again)
            await self._atidy(async_sessions().abandon(native))
            return self._refused(store._core, error)
        self._answered(store, response, set_cookie)
        return response

    def _store(self, core: SyncSession, native: Session | None = None) -> SessionStore:
        store: SessionStore = self.SessionStore()
        store._take(core, None, native)
        return store

    def _answered(self, store: SessionStore, response: Any, set_cookie: str | None) -> None:
        """Send with the response what is due, and see to what its body may yet change."""
        self._outages.went_on(store._work.outage)
        store._work.accessed = store._work.accessed or store.accessed
        headers = sessions().headers(TEXT, response.items(), store._core, set_cookie)
        if headers is not None:
            put_headers(response, headers)
        if response.streaming and not isinstance(response, FileResponse):  # a file uses no session
            streamed = _astreamed if response.is_async else _streamed
            response.streaming_content = streamed(store, response.streaming_content)

    def _refused(self, core: SyncSession, error: BaseException) -> HttpResponse:
        """Answer that the store can't be reached; raise what is not about that."""
        if not isinstance(error, StoreUnavailable):
            raise error
        self._outages.report(error)
        headers = list(outage.HEADERS)
        TEXT.add(headers, accessed=False, set_cookie=sessions().cookie_of_failed(core))
        response = HttpResponse(outage.BODY, status=503)
        put_headers(response, headers)
        return response

    def _tidy(self, abandon: Callable[[], None]) -> None:
        try:
            abandon()
        except StoreUnavailable as error:  # must not take the place of what was raised
            outage.log_loss(error)

    async def _atidy(self, abandoning: Awaitable[None]) -> None:
        try:
            await abandoning
        except StoreUnavailable as error:
            outage.log_loss(error)


def _claim_of(request: Any) -> tuple[list[bytes], Callable[[], Device]]:
    """Give what a request says of its session: cookies, and where it comes from."""
    header = request.META.get("HTTP_COOKIE")
    cookies = [] if header is None else [header.encode("latin-1", "replace")]
    return cookies, partial(Device, request.META.get("HTTP_USER_AGENT"), request.META.get("REMOTE_ADDR"))


def _prepare(store: SessionStore, response: Any) -> None:
    """Before the commit for a response."""
    if response.status_code >= _FIRST_ERROR_STATUS:
        if store._outage is not None:
            raise store._outage  # Django has made 500 of it
        return
    store._prepare()
    if settings.SESSION_SAVE_EVERY_REQUEST and store._work.standing is Standing.STORED:
        store._work.accessed = True  # and with refresh_after=0, what is accessed is extended


def _streamed(store: SessionStore, content: Iterator[bytes]) -> Iterator[bytes]:
    """Give a body, storing before each chunk what it may be about."""
    try:
        for chunk in content:
            _save_rest(store)
            yield chunk
    except GeneratorExit:
        _save_rest(store)
        raise
    except BaseException:
        sessions().abandon(store._core)
        raise
    _save_rest(store)


def _save_rest(store: SessionStore) -> None:
    if not store._work.settled:
        store._prepare()
        store._core.save()


async def _astreamed(store: SessionStore, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """See `_streamed`."""
    native = store._native
    if native is None:  # an async body in a sync server
        save, abandon = sync_to_async(store._core.save), sync_to_async(partial(sessions().abandon, store._core))
    else:
        save, abandon = native.save, partial(async_sessions().abandon, native)
    try:
        async for chunk in content:
            if not store._work.settled:
                store._prepare()
                await save()
            yield chunk
    except BaseException:
        await abandon()
        raise
    if not store._work.settled:
        store._prepare()
        await save()
