"""Sessions for aiohttp's server, which is neither ASGI nor WSGI, and so has a transport of its own.

    setup(app, sessions)
    session = await get_session(request)

A middleware sees what handlers return and raise. The signal `on_response_prepare` sees every response before its
headers leave, those included that handlers prepare themselves: streams and WebSockets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from functools import partial, wraps
from typing import Any, Final, ParamSpec, TypeVar

from coatcheck import outage
from coatcheck.csrf.policy import HEADER, Attempt, Csrf, CsrfPolicy, wants_tokens
from coatcheck.csrf.tokens import FIELD
from coatcheck.devices import Device
from coatcheck.errors import ConfigurationError, CsrfRefused, LoginRequired, MissingExtra, StoreUnavailable
from coatcheck.guard import Guard, Refusal, Request, check_login
from coatcheck.headers import TEXT
from coatcheck.mounting import Load, check_sessions, claim_cookie, is_eager
from coatcheck.outage import WhileDown
from coatcheck.plain_http import PlainHttpNotice
from coatcheck.sessions import FIRST_ERROR_STATUS, Session, Sessions

try:
    from aiohttp import web
    from aiohttp.http import HttpProcessingError, StreamWriter
    from aiohttp.typedefs import Handler
except ImportError as error:
    _feature = "The adapter to aiohttp"
    raise MissingExtra(_feature, "aiohttp") from error

P = ParamSpec("P")
ResponseT = TypeVar("ResponseT", bound=web.StreamResponse)

# aiohttp wants keys of a type of its own, and before 3.14 there is none.
_HELD: Final[Any] = web.RequestKey("coatcheck", dict[str, Any]) if hasattr(web, "RequestKey") else "coatcheck"
"""The request's key under which the exchanges are held, by name."""


def setup(  # noqa: PLR0913 (they are the settings)
    app: web.Application,
    sessions: Sessions,
    *,
    name: str = "session",
    load: Load = "eager",
    while_down: WhileDown | Mapping[str, WhileDown] = "refuse",
    login_path: str = "/login",
    csrf: Csrf = "origin",
    trusted_origins: Iterable[str] = (),
    csrf_exempt: Iterable[str] = (),
) -> None:
    """Give each request of an application its session, for `get_session`. Sub-applications have it too.

    The session is stored before the headers of a response leave, also of one that is raised, such as `web.HTTPFound`.
    Middlewares that the application has by now may use it. At the application's cleanup the store is closed.

    Args:
        app: the application.
        sessions: the sessions to use.
        name: for several sessions in one application, call this several times with different names and cookies.
        load: "eager" loads the session before the handler runs, if the request has its cookie. "lazy" when
            `get_session` first asks for it.
        while_down: what becomes of requests that need their session while the store is out of reach: see
            `coatcheck.asgi.SessionMiddleware`.
        login_path: where browsers are sent when a handler needs a login.
        csrf: "origin" refuses what other sites' pages send; True also asks for the token of
            `coatcheck.csrf.csrf_field`, in the header `X-CSRF-Token` or the form field `csrf_token`; False looks at
            nothing. See `CsrfPolicy`.
        trusted_origins: see `CsrfPolicy`.
        csrf_exempt: paths that need no check: `exempt` of `CsrfPolicy`.

    Raises:
        ConfigurationError: an argument can't work.
    """
    check_sessions(sessions, Sessions, "aiohttp")
    transport = _Transport(sessions, name, load, while_down, Guard(login_path=login_path))
    tokens = wants_tokens(csrf)
    if csrf:
        app.middlewares.insert(0, _CsrfCheck(CsrfPolicy(trusted_origins, csrf_exempt, tokens=tokens), name).run)
    app.middlewares.insert(0, transport.run)
    app.on_response_prepare.append(transport.prepare)
    app.on_cleanup.append(transport.close)


async def get_session(request: web.Request, name: str = "session") -> Session:
    """Give the request's session, loaded.

    Args:
        request: the request.
        name: which session, if there are several: see `setup`.

    Raises:
        ConfigurationError: `setup` was not called with this name, or not for this application.
        StoreUnavailable: with `load="lazy"`, the store can't be reached. Unless it is caught, the answer is 503.
    """
    exchange = request.get(_HELD, {}).get(name)
    if exchange is None:
        msg = f"This request has no session {name!r}: call coatcheck.integrations.aiohttp.setup(app, sessions) first"
        raise ConfigurationError(msg)
    session: Session = exchange.session
    await session.load()
    return session


def login_required(
    handler: Callable[P, Awaitable[ResponseT]],
) -> Callable[P, Coroutine[Any, Any, ResponseT]]:
    """Let only those who are logged in reach a handler, or a method of a `web.View`. Goes under the route's decorator.

    A browser is sent to the login, with the path that it asked for as `next` (see `coatcheck.guard.safe_next`);
    programs get 401 with a JSON body, and so do the handshakes of WebSockets.
    """
    return _guarded(handler, None)


def recent_login_required(
    within: timedelta,
) -> Callable[[Callable[P, Awaitable[ResponseT]]], Callable[P, Coroutine[Any, Any, ResponseT]]]:
    """Do as `login_required`, for pages that matter: the login must not be longer ago than `within`."""
    return partial(_guarded, within=within)


def _guarded(
    handler: Callable[P, Awaitable[ResponseT]], within: timedelta | None
) -> Callable[P, Coroutine[Any, Any, ResponseT]]:
    @wraps(handler)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> ResponseT:
        check_login(await get_session(_request_among(args)), within)
        return await handler(*args, **kwargs)

    return guarded


def _request_among(args: tuple[object, ...]) -> web.Request:
    """Find the request: a function's argument, or that of a method, or the attribute of a view."""
    for arg in args:
        if isinstance(arg, web.Request):
            return arg
        if isinstance(arg, web.View):
            return arg.request
    msg = "login_required found no request: it goes on handlers and on the methods of a web.View"
    raise ConfigurationError(msg)


class _Transport:
    """Takes requests of an application past their sessions."""

    def __init__(
        self,
        sessions: Sessions,
        name: str,
        load: Load,
        while_down: WhileDown | Mapping[str, WhileDown],
        guard: Guard,
    ) -> None:
        self._sessions = sessions
        self._name = name
        self._is_eager = is_eager(load)
        self._routes = outage.Routes(while_down)
        self._outages = outage.OutageLog()
        self._plain_http = PlainHttpNotice(sessions.config.cookie)
        self._guard = guard

    @web.middleware
    async def run(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Run the rest of the application for one request."""
        exchange = self._begin(request)
        try:
            if self._is_eager:  # else `get_session` loads it
                await exchange.session.load()
            answer = await self._answer(request, handler)
            await exchange.finish(answer)
        except StoreUnavailable as error:
            await exchange.failed(error)
            if exchange.has_started:
                raise
            self._outages.report(error)
            return _unavailable()
        except BaseException as error:
            await exchange.failed(error)
            raise
        finally:
            exchange.session._work.closed = True
        self._outages.went_on(exchange.session._work.outage)
        if isinstance(answer, web.HTTPException):
            try:
                raise answer
            finally:
                del answer  # its traceback holds this frame: what holds each other waits for the garbage collector
        return answer

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Called by aiohttp before the headers of a response leave."""
        exchange = request.get(_HELD, {}).get(self._name)
        if exchange is not None:
            try:
                await exchange.start(response)
                if exchange.sets_cookie:
                    self._plain_http.look_at(request.scheme, request.host)
            except BaseException:
                # Another response takes its place, for which aiohttp uses the same writer.
                if isinstance(request.writer, StreamWriter):
                    request.writer.chunked = False
                raise

    async def close(self, _: web.Application) -> None:
        """Called by aiohttp at the application's cleanup."""
        await self._sessions.close()

    def _begin(self, request: web.Request) -> _Exchange:
        held: dict[str, Any] = request.setdefault(_HELD, {})
        if self._name in held:
            msg = f"setup() was called twice with the same name {self._name!r}; give one of them another"
            raise ConfigurationError(msg)
        claim_cookie(held, self._sessions.config.cookie.full_name)
        # aiohttp decodes headers as UTF-8 with surrogates for what is none.
        cookies = [value.encode("utf-8", "surrogateescape") for value in request.headers.getall("Cookie", ())]
        # Not the request, which is going to hold the session.
        device = partial(Device, request.headers.get("User-Agent"), request.remote)
        session = self._sessions.begin(cookies, device, may_go_on=self._routes.go_on(_path(request)))
        exchange = held[self._name] = _Exchange(self._sessions, session)
        return exchange

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give what the handler returns, or what it raises that is an answer all the same."""
        try:
            return await handler(request)
        except web.HTTPException as raised:
            return raised
        except LoginRequired as error:
            return _response(self._guard.answer(error, _request(request)))


class _Exchange:
    """One request and its response, on their way past the session."""

    __slots__ = (
        "_is_concluded", "_is_websocket", "_sessions", "_set_cookie", "_store_error", "has_started", "session"
    )  # fmt: skip

    def __init__(self, sessions: Sessions, session: Session) -> None:
        self._sessions = sessions
        self.session = session
        self._store_error: StoreUnavailable | None = None
        self._set_cookie: str | None = None
        self._is_concluded = False
        self._is_websocket = False
        self.has_started = False

    @property
    def sets_cookie(self) -> bool:
        """Whether the headers that left, or are about to, set the session's cookie."""
        return self._set_cookie is not None

    async def finish(self, answer: object) -> None:
        """The handler is done: store what it changed, while another answer can still be given if that fails."""
        if self.has_started:
            await self._sessions.save_rest(self.session)
        elif isinstance(answer, web.StreamResponse):
            await self._conclude(answer.status)
        else:
            await self.failed(None)  # aiohttp is going to answer that by 500

    async def start(self, response: web.StreamResponse) -> None:
        """The headers are about to leave: store the session, if that is not done yet, and add what is due."""
        if self.has_started:
            return
        if not self._is_concluded:
            await self._conclude(response.status)  # the handler sends this response itself
        self.has_started = True
        self._is_websocket = isinstance(response, web.WebSocketResponse)
        headers = self._sessions.headers(TEXT, response.headers.items(), self.session, self._set_cookie)
        if headers is not None:
            response.headers.clear()
            response.headers.extend(headers)

    async def failed(self, error: BaseException | None) -> None:
        """The handler raised: nothing is stored, unless it is a WebSocket whose client has just gone."""
        is_gone = self._is_websocket and isinstance(error, ConnectionResetError)
        await self._sessions.give_up(self.session, keep_changes=is_gone)
        self._set_cookie = self._sessions.cookie_of_failed(self.session)
        self._is_concluded = True

    async def _conclude(self, status: int) -> None:
        if self._store_error is not None and status < FIRST_ERROR_STATUS:
            raise self._store_error  # the handler went on after the error; its answer may not be true
        try:
            self._set_cookie = await self._sessions.conclude(self.session, status)
        except StoreUnavailable as error:
            self._store_error = error
            raise
        self._is_concluded = True


class _CsrfCheck:
    """Refuses requests that another site's page may have sent."""

    def __init__(self, policy: CsrfPolicy, name: str) -> None:
        self._policy = policy
        self._name = name

    @web.middleware
    async def run(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Run the rest of the application for one request, if it may be reached."""
        try:
            if _asks_for_websocket(request):
                self._policy.check_origin(_attempt(request))
            if self._policy.concerns(request.method, _path(request)):
                await self._check(request)
        except CsrfRefused as error:
            return _response(self._policy.answer(error, _request(request)))
        return await handler(request)

    async def _check(self, request: web.Request) -> None:
        is_own_page = self._policy.check_origin(_attempt(request))
        if not self._policy.has_tokens:
            return
        session = await get_session(request, self._name)
        if self._policy.needs_token(session, is_own_page=is_own_page):
            token = request.headers.get(HEADER) or await _token_in_form(request)
            self._policy.check_token(session, token)


async def _token_in_form(request: web.Request) -> str | None:
    try:
        token = (await request.post()).get(FIELD)
    except web.HTTPException:  # it is too large, say
        raise
    except (ValueError, LookupError, RuntimeError, HttpProcessingError):  # it is not what its Content-Type says
        return None
    return token if isinstance(token, str) else None


def _path(request: web.Request) -> str:
    """Give the path as routes see it: to them, an encoded slash is none."""
    return request.rel_url.path_safe


def _attempt(request: web.Request) -> Attempt:
    return Attempt(
        method=request.method,
        path=_path(request),
        scheme=request.scheme,
        host=request.host,
        origin=request.headers.get("Origin", ""),
        sec_fetch_site=request.headers.get("Sec-Fetch-Site", ""),
    )


def _request(request: web.Request) -> Request:
    mode = "websocket" if _asks_for_websocket(request) else request.headers.get("Sec-Fetch-Mode", "")
    return Request(request.method, request.raw_path, ", ".join(request.headers.getall("Accept", ())), mode)


def _asks_for_websocket(request: web.Request) -> bool:
    """Tell whether a request is a WebSocket's handshake. Browsers also say so in Sec-Fetch-Mode, others don't."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _response(refusal: Refusal) -> web.Response:
    return web.Response(status=refusal.status, headers=dict(refusal.headers), body=refusal.body)


def _unavailable() -> web.Response:
    """Answer that the store can't be reached."""
    return web.Response(status=503, headers=dict(outage.HEADERS), body=outage.BODY)
