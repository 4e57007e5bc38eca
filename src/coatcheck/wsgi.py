"""Sessions for WSGI applications: a middleware.

The headers of a response leave when its session is stored, never before. PEP 3333 lets an application call
`start_response` long before its headers leave, so they are held back until there is a body to send: what a handler
changes until then counts. What it changes later, in a streaming body, is stored before the next chunk leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

from coatcheck import outage
from coatcheck.devices import Device
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.guard import Guard, Refusal, Request
from coatcheck.headers import TEXT
from coatcheck.mounting import Load, check_sessions, claim_cookie, is_eager
from coatcheck.outage import WhileDown
from coatcheck.plain_http import PlainHttpNotice
from coatcheck.sessions import SyncSession, SyncSessions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

ENVIRON_KEY: Final = "coatcheck.session"
"""Where the middleware puts the session, unless it is given another key."""


class SessionMiddleware:
    """Puts each request's session into its environ, as `environ["coatcheck.session"]`.

    Without a session cookie in the request the store is not asked. While the store can't be reached, requests that
    need it are answered by 503 with Retry-After.

    Args:
        app: the application.
        sessions: the sessions to use.
        environ_key: where to put the session. For several sessions in one application, add the middleware several
            times with different keys and different cookies.
        load: "eager" loads the session before the application runs, if the request has its cookie; "lazy" when it is
            first used.
        while_down: what becomes of requests that need their session while the store is out of reach: see
            `coatcheck.asgi.SessionMiddleware`.

    Raises:
        ConfigurationError: an argument can't work.
    """

    def __init__(
        self,
        app: WSGIApplication,
        sessions: SyncSessions,
        *,
        environ_key: str = ENVIRON_KEY,
        load: Load = "eager",
        while_down: WhileDown | Mapping[str, WhileDown] = "refuse",
    ) -> None:
        check_sessions(sessions, SyncSessions, "the WSGI middleware")
        self._app = app
        self._sessions = sessions
        self._environ_key = environ_key
        self._is_eager = is_eager(load)
        self._routes = outage.Routes(while_down)
        self._outages = outage.OutageLog()
        self._cookie_name = sessions.config.cookie.full_name
        self._plain_http = PlainHttpNotice(sessions.config.cookie)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application for one request."""
        self._check_names(environ)
        header = environ.get("HTTP_COOKIE")
        # PEP 3333: header values are str that hold bytes, decoded as Latin-1.
        cookies = [] if header is None else [header.encode("latin-1", "replace")]
        may_go_on = self._routes.go_on(path_of(environ))
        session = self._sessions.begin(cookies, _device_of(environ), may_go_on=may_go_on)
        response = _Response(self._sessions, session, start_response, self._outages)
        if self._plain_http.is_due:
            scheme, host = environ.get("wsgi.url_scheme", ""), environ.get("HTTP_HOST", "")
            response.on_cookie = partial(self._plain_http.look_at, scheme, host)
        try:
            if self._is_eager:
                session.load()
            environ[self._environ_key] = session
            body = self._app(environ, response.start)
            if isinstance(body, list | tuple) or _is_file(body, environ):
                response.send_headers_of(body)  # the application is done; the server may want the body as it is
                session._work.closed = True
                return body
            return _body(body, response, self._outages)
        except StoreUnavailable as error:
            response.failed()
            if response.has_left:
                raise
            self._outages.report(error)
            return _body_for(environ, response.refuse())
        except BaseException:
            response.failed()
            raise

    def _check_names(self, environ: WSGIEnvironment) -> None:
        """Refuse two middlewares that would write to the same place, here or in the browser."""
        if self._environ_key in environ:
            msg = f"Two session middlewares have the same environ_key {self._environ_key!r}; give one of them another"
            raise ConfigurationError(msg)
        claim_cookie(environ, self._cookie_name)


def require_login(
    app: WSGIApplication, *, login_path: str = "/login", within: timedelta | None = None, environ_key: str = ENVIRON_KEY
) -> WSGIApplication:
    """Let only those who are logged in reach an application. See `coatcheck.asgi.require_login`."""
    guard = Guard(login_path=login_path, within=within)

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        refusal = guard.refusal(environ[environ_key], request_of(environ))
        return app(environ, start_response) if refusal is None else start_refusal(refusal, environ, start_response)

    return guarded


def start_refusal(refusal: Refusal, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request that may not pass."""
    status = HTTPStatus(refusal.status)
    start_response(f"{status} {status.phrase}", list(refusal.headers))
    return _body_for(environ, [refusal.body])


def _body_for(environ: WSGIEnvironment, body: Iterable[bytes]) -> Iterable[bytes]:
    """Give a body of our own, which the answer to HEAD has not (RFC 9110, section 9.3.2)."""
    return [] if environ["REQUEST_METHOD"] == "HEAD" else body


def path_of(environ: WSGIEnvironment) -> str:
    """Give the whole path of a request, no longer percent-encoded."""
    return _path_bytes(environ).decode("utf-8", "replace")


def _path_bytes(environ: WSGIEnvironment) -> bytes:
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path.encode("latin-1", "replace")  # PEP 3333: a str that holds bytes


def request_of(environ: WSGIEnvironment) -> Request:
    """Give what guards have to know of a request."""
    path = quote(_path_bytes(environ))
    query = environ.get("QUERY_STRING", "")
    return Request(
        environ["REQUEST_METHOD"],
        f"{path}?{query}" if query else path,
        environ.get("HTTP_ACCEPT", ""),
        environ.get("HTTP_SEC_FETCH_MODE", ""),
    )


def _device_of(environ: WSGIEnvironment) -> Callable[[], Device]:
    # Not the environ, which is going to hold the session: what holds each other waits for the garbage collector.
    return partial(Device, environ.get("HTTP_USER_AGENT"), environ.get("REMOTE_ADDR"))


def _is_file(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class _Response:
    """The application's status and headers, held back until the session is stored."""

    __slots__ = (
        "_headers", "_outages", "_session", "_sessions", "_start_response", "_status", "_write", "exc_info", "has_left",
        "on_cookie",
    )  # fmt: skip

    def __init__(
        self,
        sessions: SyncSessions,
        session: SyncSession,
        start_response: StartResponse,
        outages: outage.OutageLog,
    ) -> None:
        self._outages = outages
        self._sessions = sessions
        self._session = session
        self._start_response = start_response
        self._status: str | None = None
        self._headers: list[tuple[str, str]] = []
        self._write: Callable[[bytes], object] | None = None
        self.exc_info: ExcInfo | None = None
        self.has_left = False
        self.on_cookie: Callable[[], None] | None = None

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """What the application calls as `start_response`."""
        if self.has_left:
            # The server raises exc_info, or says that a second call without it is an error (PEP 3333).
            return self._start_response(status, headers, exc_info)
        if self._status is not None and exc_info is None:
            msg = "start_response was called twice without exc_info"
            raise AssertionError(msg)
        self._status, self._headers, self.exc_info = status, list(headers), exc_info
        return self.write

    def send_headers(self) -> None:
        """Store the session, then let the headers leave. If they have, store what was changed since."""
        if self.has_left:
            self.save()
            return
        if self._status is None:
            msg = "the application gave a body without calling start_response"
            raise AssertionError(msg)
        set_cookie = self._sessions.conclude(self._session, int(self._status[:3]))
        self._outages.went_on(self._session._work.outage)
        headers = self._sessions.headers(TEXT, self._headers, self._session, set_cookie)
        self.has_left = True
        if set_cookie is not None and self.on_cookie is not None:
            self.on_cookie()
        self._write = self._start_response(self._status, self._headers if headers is None else headers, self.exc_info)

    def write(self, data: bytes) -> object:
        """What `start_response` gives the application: the older way to send a body."""
        self.send_headers()
        assert self._write is not None  # noqa: S101 (send_headers has set it)
        return self._write(data)

    def send_headers_of(self, body: Iterable[bytes]) -> None:
        """The same for a body that is handed on as it is. If it is not, it has to be closed here."""
        try:
            self.send_headers()
        except BaseException:
            _close(body)
            raise

    def refuse(self) -> Iterable[bytes]:
        """Answer that the store can't be reached. What was stored before that may need a cookie all the same."""
        self.has_left = True
        headers = list(outage.HEADERS)
        TEXT.add(headers, accessed=False, set_cookie=self._sessions.cookie_of_failed(self._session))
        self._start_response("503 Service Unavailable", headers)
        return [outage.BODY]

    def save(self) -> None:
        """Store what was changed since the headers left."""
        self._sessions.save_rest(self._session)

    def failed(self) -> None:
        """Drop what was changed, because the application failed."""
        self._sessions.give_up(self._session)

    def finish(self, *, failed: bool) -> None:
        """Store what was changed while the body was sent."""
        try:
            if failed or not self.has_left:
                self.failed()
            else:
                self.save()
        finally:
            self._session._work.closed = True


def _body(body: Iterable[bytes], response: _Response, outages: outage.OutageLog) -> _Body:
    """Make a body that stores what is changed while it is sent. One that can't be iterated over has to be closed."""
    try:
        return _Body(body, response, outages)
    except BaseException:
        _close(body)
        raise


def _close(body: Iterable[bytes]) -> None:
    """Close an application's body, if it can be closed (PEP 3333)."""
    close: Any = getattr(body, "close", None)
    if close is not None:
        close()


class _Body:
    """A body that is made while it is sent."""

    __slots__ = ("_body", "_failed", "_iterator", "_outages", "_refusal", "_response")

    def __init__(self, body: Iterable[bytes], response: _Response, outages: outage.OutageLog) -> None:
        self._outages = outages
        self._body = body
        self._iterator = iter(body)
        self._response = response
        self._failed = False
        self._refusal: Iterator[bytes] | None = None

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        if self._refusal is not None:
            return next(self._refusal)
        try:
            return self._next_chunk()
        except StopIteration:
            raise
        except StoreUnavailable as error:
            self._failed = True
            if self._response.has_left:
                raise
            self._outages.report(error)
            self._response.failed()
            self._refusal = iter(self._response.refuse())
            return next(self._refusal)
        except BaseException:
            self._failed = True
            raise

    def _next_chunk(self) -> bytes:
        """Give the next chunk, after storing what it may be about."""
        if self._response.has_left:
            chunk = next(self._iterator)
            self._response.save()
            return chunk
        # The headers leave with the first chunk that has something in it (PEP 3333), or at the end.
        chunk = b""
        try:
            while not chunk:
                chunk = next(self._iterator)
        except StopIteration:
            self._response.send_headers()
            raise
        self._response.send_headers()
        return chunk

    def close(self) -> None:
        """Called by the server when the response is over, whether it was sent whole or not."""
        try:
            _close(self._body)
        except BaseException:
            self._failed = True
            raise
        finally:
            self._response.finish(failed=self._failed)
