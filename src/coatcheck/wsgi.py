"""Sessions for WSGI applications: a middleware.

The headers of a response leave when its session is stored, never before. PEP 3333 lets an application call
`start_response` long before its headers leave, so they are held back until there is a body to send: what a handler
changes until then counts. What it changes later, in a streaming body, is stored when the body ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.headers import TEXT, UNAVAILABLE_BODY, UNAVAILABLE_HEADERS
from coatcheck.sessions import SyncSession, SyncSessions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Load: TypeAlias = Literal["eager", "lazy"]

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
    ) -> None:
        if not isinstance(sessions, SyncSessions):
            msg = f"sessions: the WSGI middleware needs a SyncSessions object, got a {type(sessions).__name__}"
            raise ConfigurationError(msg)
        if load not in ("eager", "lazy"):
            msg = f"load: expected 'eager' or 'lazy', got {load!r}"
            raise ConfigurationError(msg)
        self._app = app
        self._sessions = sessions
        self._environ_key = environ_key
        self._is_eager = load == "eager"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application for one request."""
        if self._environ_key in environ:
            msg = f"Two session middlewares have the same environ_key {self._environ_key!r}; give one of them another"
            raise ConfigurationError(msg)
        header = environ.get("HTTP_COOKIE")
        # PEP 3333: header values are str that hold bytes, decoded as Latin-1.
        session = self._sessions.begin([] if header is None else [header.encode("latin-1", "replace")])
        response = _Response(self._sessions, session, start_response)
        try:
            if self._is_eager:
                session.load()
            environ[self._environ_key] = session
            body = self._app(environ, response.start)
            if isinstance(body, list | tuple) or _is_file(body, environ):
                response.send_headers()  # the application is done; the server may want the body as it is
                return body
        except StoreUnavailable:
            if response.has_left:
                raise
            return _refuse(start_response)
        except BaseException:
            self._sessions.abandon(session)
            raise
        return _Body(body, response)


def _is_file(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class _Response:
    """The application's status and headers, held back until the session is stored."""

    __slots__ = ("_headers", "_session", "_sessions", "_start_response", "_status", "_write", "exc_info", "has_left")

    def __init__(self, sessions: SyncSessions, session: SyncSession, start_response: StartResponse) -> None:
        self._sessions = sessions
        self._session = session
        self._start_response = start_response
        self._status: str | None = None
        self._headers: list[tuple[str, str]] = []
        self._write: Callable[[bytes], object] | None = None
        self.exc_info: ExcInfo | None = None
        self.has_left = False

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
        """Store the session, then let the headers leave. Does nothing the second time."""
        if self.has_left:
            return
        if self._status is None:
            msg = "the application gave a body without calling start_response"
            raise AssertionError(msg)
        set_cookie = self._sessions.conclude(self._session, int(self._status[:3]))
        TEXT.add(self._headers, accessed=self._session.was_accessed, set_cookie=set_cookie)
        self.has_left = True
        self._write = self._start_response(self._status, self._headers, self.exc_info)

    def write(self, data: bytes) -> object:
        """What `start_response` gives the application: the older way to send a body."""
        self.send_headers()
        assert self._write is not None  # noqa: S101 (send_headers has set it)
        return self._write(data)

    def refuse(self) -> Iterable[bytes]:
        """Answer that the store can't be reached."""
        self.has_left = True
        return _refuse(self._start_response)

    def finish(self, *, failed: bool) -> None:
        """Store what was changed while the body was sent."""
        if failed or not self.has_left:
            self._sessions.abandon(self._session)
        else:
            self._session.save()


class _Body:
    """A body that is made while it is sent."""

    __slots__ = ("_body", "_failed", "_iterator", "_refusal", "_response")

    def __init__(self, body: Iterable[bytes], response: _Response) -> None:
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
            try:
                chunk = next(self._iterator)
            except StopIteration:
                self._response.send_headers()
                raise
            self._response.send_headers()
        except StopIteration:
            raise
        except StoreUnavailable:
            self._failed = True
            if self._response.has_left:
                raise
            self._refusal = iter(self._response.refuse())
            return next(self._refusal)
        except BaseException:
            self._failed = True
            raise
        return chunk

    def close(self) -> None:
        """Called by the server when the response is over, whether it was sent whole or not."""
        try:
            close: Any = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException:
            self._failed = True
            raise
        finally:
            self._response.finish(failed=self._failed)


def _refuse(start_response: StartResponse) -> Iterable[bytes]:
    start_response("503 Service Unavailable", list(UNAVAILABLE_HEADERS))
    return [UNAVAILABLE_BODY]
