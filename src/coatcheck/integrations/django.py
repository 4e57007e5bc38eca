"""Sessions for Django: an engine, and a middleware that does what Django's own can't.

    SESSION_ENGINE = "coatcheck.integrations.django"
    COATCHECK = {"store": "redis://localhost:6379/0"}
    MIDDLEWARE = [..., "coatcheck.integrations.django.SessionMiddleware", ...]  # in the place of Django's

Here is the middleware. Django's way of using sessions is translated into Coatcheck's in `_django_engine`, and its
settings in `_django_settings`; nothing is decided about sessions.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from coatcheck import outage
from coatcheck.devices import Device
from coatcheck.errors import LoginRequired, MissingExtra, StoreUnavailable
from coatcheck.headers import TEXT
from coatcheck.sessions import FIRST_ERROR_STATUS, Session, SyncSession

try:
    from asgiref.sync import sync_to_async
    from django.conf import settings
    from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware
    from django.core.exceptions import ImproperlyConfigured
    from django.core.signals import got_request_exception
    from django.dispatch import receiver
    from django.http import FileResponse, HttpResponse
except ImportError as error:
    _feature = "The adapter to Django"
    raise MissingExtra(_feature, "django") from error

from coatcheck.integrations._django_engine import SessionStore
from coatcheck.integrations._django_guards import answer_login_required
from coatcheck.integrations._django_headers import own_copy, put_headers
from coatcheck.integrations._django_login import SharedLogin
from coatcheck.integrations._django_settings import async_sessions, configuration, sessions

__all__ = ["SessionMiddleware", "SessionStore", "SharedLogin", "async_sessions", "sessions"]


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

    def process_exception(self, request: Any, exception: Exception) -> HttpResponse | None:
        """Answer a view's exception where it is a guard's, or says that the store can't be reached."""
        if isinstance(exception, LoginRequired):
            return answer_login_required(request, exception)
        if not isinstance(exception, StoreUnavailable):
            return None
        _note_outage(request, exception)
        return HttpResponse(status=503)  # in the place of which `_refused` puts the whole answer

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
            sessions().give_up(core)
            return self._refused(core, error)
        return self._answered(store, response, set_cookie)

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
            await async_sessions().give_up(native)
            return self._refused(store._core, error)
        return self._answered(store, response, set_cookie)

    def _store(self, core: SyncSession, native: Session | None = None) -> SessionStore:
        store: SessionStore = self.SessionStore()
        store._take(core, None, native)
        return store

    def _answered(self, store: SessionStore, response: Any, set_cookie: str | None) -> Any:
        """Give the response with what is due, and see to what its body may yet change."""
        self._outages.went_on(store._work.outage)
        store._work.accessed = store._work.accessed or store.accessed
        headers = sessions().headers(TEXT, response.items(), store._core, set_cookie)
        if headers is not None:
            if set_cookie is not None or sessions().old_cookie(store._core) is not None:
                response = own_copy(response)
            put_headers(response, headers)
        if response.streaming and not isinstance(response, FileResponse):  # a file uses no session
            streamed = _astreamed if response.is_async else _streamed
            response.streaming_content = streamed(store, response.streaming_content)
        return response

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


def _claim_of(request: Any) -> tuple[list[bytes], Callable[[], Device]]:
    """Give what a request says of its session: cookies, and where it comes from."""
    header = request.META.get("HTTP_COOKIE")
    cookies = [] if header is None else [header.encode("latin-1", "replace")]
    return cookies, partial(Device, request.META.get("HTTP_USER_AGENT"), request.META.get("REMOTE_ADDR"))


def _prepare(store: SessionStore, response: Any) -> None:
    """Before the commit for a response."""
    if response.status_code >= FIRST_ERROR_STATUS:
        if store._outage is not None:
            raise store._outage  # Django has made an answer of it
        return
    store._prepare()
    if settings.SESSION_SAVE_EVERY_REQUEST and store._work.standing == "stored":
        store._work.accessed = True  # and with refresh_after=0, what is accessed is extended


def _note_outage(request: Any, error: BaseException | None) -> None:
    """Remember why a request fails, if it is for the store: the answer that Django makes of it does not tell."""
    store = getattr(request, "session", None)
    if isinstance(error, StoreUnavailable) and isinstance(store, SessionStore):
        store._outage = error


@receiver(got_request_exception)
def _note_exception(request: Any, **_: Any) -> None:
    """Called by Django in the place of `process_exception` for what middlewares raise."""
    _note_outage(request, sys.exc_info()[1])


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
        sessions().give_up(store._core)
        raise
    _save_rest(store)


def _save_rest(store: SessionStore) -> None:
    if not store._work.settled:
        store._prepare()
        sessions().save_rest(store._core)


async def _astreamed(store: SessionStore, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """See `_streamed`."""
    native = store._native
    if native is None:  # an async body in a sync server
        save = sync_to_async(partial(sessions().save_rest, store._core))
        give_up = sync_to_async(partial(sessions().give_up, store._core))
    else:
        save = partial(async_sessions().save_rest, native)
        give_up = partial(async_sessions().give_up, native)

    async def save_rest() -> None:
        if not store._work.settled:
            store._prepare()
            await save()

    try:
        async for chunk in content:
            await save_rest()
            yield chunk
    except BaseException:
        await give_up()
        raise
    await save_rest()
