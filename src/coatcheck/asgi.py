"""Sessions for ASGI applications: a middleware for HTTP and WebSockets.

The headers of a response leave when its session is stored, never before. What a handler changes afterwards, in a
streaming body, a background task or a WebSocket, is stored before the next message leaves, and at the end at latest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from coatcheck import outage
from coatcheck.devices import Device
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.guard import Guard, Refusal, Request
from coatcheck.headers import BYTES
from coatcheck.mounting import Load, check_sessions, claim_cookie, is_below, is_eager
from coatcheck.outage import WhileDown
from coatcheck.plain_http import PlainHttpNotice
from coatcheck.sessions import FIRST_ERROR_STATUS, Session, Sessions

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

WHOLE_PATH: Final = "coatcheck.path"
"""The scope's key for the path that was asked for, where a router has left only the rest of it in `path`."""

SCOPE_KEY: Final = "session"
"""Where the middleware puts the session, unless it is given another key."""

POLICY_VIOLATION: Final = 1008
TRY_AGAIN_LATER: Final = 1013
"""WebSocket close codes (RFC 6455, section 7.4.1, and IANA's registry)."""

_WITH_SESSION: Final = frozenset({"http", "websocket"})
_HTTP_START: Final = "http.response.start"
# Messages whose headers can carry a cookie; the WebSocket ones are for accepted and for denied handshakes.
_STARTS: Final = frozenset({_HTTP_START, "websocket.accept", "websocket.http.response.start"})
_SWITCHING_PROTOCOLS: Final = 101


class SessionMiddleware:
    """Puts each request's session into its scope, where Starlette's `request.session` finds it.

    Without a session cookie in the request the store is not asked. While the store can't be reached, requests that
    need it are answered by 503 with Retry-After. At the application's shutdown the store is closed.

    Args:
        app: the application.
        sessions: the sessions to use.
        name: the key of the scope. For several sessions in one application, add the middleware several times with
            different names and different cookies, and use `scope[name]`.
        load: "eager" loads the session before the application runs, if the request has its cookie. "lazy" leaves that
            to `await session.load()`, which the application must call before it uses the session.
        while_down: what becomes of requests that need their session while the store is out of reach. "refuse" answers
            by 503; "continue" lets them go on as nobody's: `session.is_available` is False, the session looks empty,
            what would change it raises `StoreUnavailable` (503), and session and cookie are left as they are. For some
            of the paths, give a mapping: `{"/": "refuse", "/products": "continue"}`.

    Raises:
        ConfigurationError: an argument can't work.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: Sessions,
        *,
        name: str = SCOPE_KEY,
        load: Load = "eager",
        while_down: WhileDown | Mapping[str, WhileDown] = "refuse",
    ) -> None:
        check_sessions(sessions, Sessions, "the ASGI middleware")
        self._app = app
        self._sessions = sessions
        self._name = name
        self._is_eager = is_eager(load)
        self._routes = outage.Routes(while_down)
        self._outages = outage.OutageLog()
        self._cookie_name = sessions.config.cookie.full_name
        self._plain_http = PlainHttpNotice(sessions.config.cookie)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, partial(self._send_lifespan, send))
            return
        if kind not in _WITH_SESSION:
            await self._app(scope, receive, send)
            return
        exchange = self._begin(scope, receive, send)
        session = exchange.session
        try:
            if not self._is_eager:
                session.wait_for_load()
            elif not session._work.settled:  # else the client has no cookie
                await session.load()
            scope[self._name] = session
            await self._app(scope, receive if kind == "http" else exchange.receive, exchange.send)
        except Exception as error:
            await exchange.failed()
            outage_met = exchange.outage_behind(error)
            if outage_met is None:
                raise
            self._outages.report(outage_met)
            await _refuse(scope, send, self._sessions.cookie_of_failed(session))
        except BaseException:
            await exchange.failed()
            raise
        else:
            if not (exchange.has_started and session._work.settled):  # mostly, nothing is left to do
                await self._finish(exchange, scope)
        finally:
            session._work.closed = True

    def _begin(self, scope: Scope, receive: Receive, send: Send) -> _Exchange:
        """Begin with a request's session, which is not loaded yet."""
        if self._name in scope:
            self._check_name(scope)
        claim_cookie(scope, self._cookie_name)
        headers = scope["headers"]
        cookies = []
        for name, value in headers:  # a comprehension is a call, up to Python 3.11
            if name == b"cookie":
                cookies.append(value)
        # Not the scope, which is going to hold the session: what holds each other waits for the garbage collector.
        device = partial(_device, headers, scope.get("client"))
        may_go_on = self._routes.any_goes_on and self._routes.go_on(path_of(scope))
        session = self._sessions.begin(cookies, device, may_go_on=may_go_on)
        exchange = _Exchange(self._sessions, session, receive, send)
        if self._plain_http.is_due:
            exchange.on_cookie = partial(_look_at, self._plain_http, scope.get("scheme", "http"), headers)
        return exchange

    async def _finish(self, exchange: _Exchange, scope: Scope) -> None:
        outage_met = await exchange.finish(scope)
        if outage_met is not None:
            self._outages.report(outage_met)
        else:
            self._outages.went_on(exchange.session._work.outage)

    async def _send_lifespan(self, send: Send, message: Message) -> None:
        """Close the store when the application has shut down, before the server is told and may stop the loop."""
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await self._sessions.close()
        await send(message)

    def _check_name(self, scope: Scope) -> None:
        """Refuse two middlewares that would write to the same place."""
        if isinstance(scope[self._name], Session):
            msg = f"Two session middlewares have the same name {self._name!r}; give one of them another"
            raise ConfigurationError(msg)


class _Exchange:
    """One request and its response, on their way past the session."""

    __slots__ = (
        "_receive", "_send", "_sessions", "_store_error", "has_started", "is_disconnected", "on_cookie", "session"
    )  # fmt: skip

    def __init__(self, sessions: Sessions, session: Session, receive: Receive, send: Send) -> None:
        self._sessions = sessions
        self.session = session
        self._receive = receive
        self._send = send
        self._store_error: StoreUnavailable | None = None
        self.has_started = False
        self.is_disconnected = False
        self.on_cookie: Callable[[], None] | None = None

    async def receive(self) -> Message:
        """Pass a message on to the application, and take note when the client has gone."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.is_disconnected = True
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on to the client, after storing what it may be about."""
        work = self.session._work
        if self.has_started:
            if not work.settled:
                await self._sessions.save_rest(self.session)
        elif message["type"] in _STARTS:
            status = message.get("status", _SWITCHING_PROTOCOLS)
            is_error = status >= FIRST_ERROR_STATUS
            if not work.settled or work.accessed or is_error:  # else nobody has used it, and nothing is due
                if self._store_error is not None and not is_error:
                    raise self._store_error  # the application went on after the error; its answer may not be true
                if is_error or not self._sessions.lifecycle.settle(work):
                    try:
                        set_cookie = await self._sessions.conclude(self.session, status)
                    except StoreUnavailable as error:
                        self._store_error = error
                        raise
                    message = self._with_headers(message, set_cookie)
                elif work.accessed:
                    headers = [*message.get("headers", ())]
                    BYTES.vary(headers)
                    message = {**message, "headers": headers}
            work.sealed = self.has_started = True
        await self._send(message)

    def _with_headers(self, message: Message, set_cookie: str | None) -> Message:
        """Give a response's first message with what is due in its headers.

        Another one, because a cache further in, as Litestar has, may keep the first: it must not hold a cookie.
        """
        if set_cookie is not None and self.on_cookie is not None:
            self.on_cookie()
        headers = self._sessions.headers(BYTES, message.get("headers", ()), self.session, set_cookie)
        return message if headers is None else {**message, "headers": headers}

    def outage_behind(self, error: Exception) -> StoreUnavailable | None:
        """Give the error for which to answer by 503 when the application raises, if there is one.

        That is what it raised, or what sending its response raised: frameworks put their own errors in its place.
        """
        if self.has_started:
            return None
        return _outage_in(error) or self._store_error

    async def failed(self) -> None:
        """The application raised: nothing is stored, unless it is a WebSocket whose client has just gone."""
        await self._sessions.give_up(self.session, keep_changes=self.is_disconnected)

    async def finish(self, scope: Scope) -> StoreUnavailable | None:
        """The application returned: store what it did last. Gives the error for which it was answered by 503."""
        if self.has_started:
            await self._sessions.save_rest(self.session)
        elif self._store_error is not None:
            await self.failed()
            await _refuse(scope, self._send, self._sessions.cookie_of_failed(self.session))
        else:  # no response, or a handshake that was refused without one: no cookie can be set
            await self._sessions.abandon(self.session)
        return None if self.has_started else self._store_error


def require_login(
    app: ASGIApp, *, login_path: str = "/login", within: timedelta | None = None, name: str = SCOPE_KEY
) -> ASGIApp:
    """Let only those who are logged in reach an application. Goes inside `SessionMiddleware`.

    A browser is sent to the login, with the path that it asked for as `next` (see `coatcheck.guard.safe_next`); a
    program that asks for JSON, and a script's fetch, get 401 with a JSON body; a WebSocket is refused.

    Args:
        app: the application.
        login_path: the path of the login page.
        within: how long ago the login may be, for pages that matter; None for any time.
        name: the key of the scope, see `SessionMiddleware`.

    Raises:
        ConfigurationError: `login_path` is not a path of this site.
    """
    guard = Guard(login_path=login_path, within=within)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        session: Session = scope[name]
        await session.load()
        refusal = guard.refusal(session, request_of(scope))
        if refusal is None:
            await app(scope, receive, send)
        else:
            await send_refusal(scope, send, refusal, "Log in first")

    return guarded


async def send_refusal(scope: Scope, send: Send, refusal: Refusal, reason: str = "") -> None:
    """Answer a request that may not pass. A WebSocket's handshake is refused; `reason` is for those who log it."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
        return
    headers = [(key.encode("ascii"), value.encode("ascii")) for key, value in refusal.headers]
    await send({"type": _HTTP_START, "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body})


def path_of(scope: Scope) -> str:
    """Give the whole path of a request, no longer percent-encoded."""
    path: str = scope.get(WHOLE_PATH, scope["path"])
    return path


def request_of(scope: Scope) -> Request:
    """Give what guards have to know of a request."""
    # Servers need not give the raw path, and Starlette's TestClient left the query on it for long.
    path: bytes = (scope.get("raw_path") or b"").partition(b"?")[0] or scope["path"].encode()
    target = path.decode("latin-1")
    root: str = scope.get("root_path", "")
    if root and not is_below(unquote(target), root):  # a proxy took it away, and the application says that it is there
        target = quote(root) + target
    if scope.get("query_string"):
        target += "?" + scope["query_string"].decode("latin-1")
    return Request(
        scope.get("method", "GET"),
        target,
        header_of(scope["headers"], b"accept"),
        header_of(scope["headers"], b"sec-fetch-mode"),
    )


def header_of(headers: Headers, wanted: bytes) -> str:
    """Give a header's value; of several, all with commas between; an empty text if there is none."""
    return ", ".join(value.decode("latin-1") for name, value in headers if name == wanted)


def _outage_in(error: Exception) -> StoreUnavailable | None:
    """Give the error of the store that an application raised, by itself or in the group of errors that tasks had."""
    if isinstance(error, ExceptionGroup):
        rest = error.split(StoreUnavailable)[1]
        return None if rest is not None else _outage_in(error.exceptions[0])
    return error if isinstance(error, StoreUnavailable) else None


def _device(headers: Headers, client: Sequence[Any] | None) -> Device:
    return Device(header_of(headers, b"user-agent"), client[0] if client else None)


def _look_at(notice: PlainHttpNotice, scheme: str, headers: Headers) -> None:
    notice.look_at(scheme, header_of(headers, b"host"))


async def _refuse(scope: Scope, send: Send, set_cookie: str | None) -> None:
    """Answer that the store can't be reached. What was stored before that may need a cookie all the same."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": "Try again later"})
        return
    prefix = "http" if scope["type"] == "http" else "websocket.http"
    headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in outage.HEADERS]
    BYTES.add(headers, accessed=False, set_cookie=set_cookie)
    await send({"type": f"{prefix}.response.start", "status": 503, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": outage.BODY})
