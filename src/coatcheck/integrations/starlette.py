"""Sessions for Starlette: one call sets up an application, decorators guard its endpoints, templates get helpers.

What a session is and does is elsewhere; `coatcheck.asgi` carries it past requests, `coatcheck.guard` says who may pass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from coatcheck import outage
from coatcheck.asgi import POLICY_VIOLATION, SCOPE_KEY, SessionMiddleware, request_of
from coatcheck.csrf import Csrf, csrf_field, csrf_token
from coatcheck.csrf.asgi import CsrfMiddleware
from coatcheck.csrf.policy import CsrfPolicy, several, wants_tokens
from coatcheck.errors import ConfigurationError, LoginRequired, MissingExtra, StoreUnavailable
from coatcheck.guard import Guard, check_login
from coatcheck.mounting import Load, check_sessions, is_eager
from coatcheck.outage import WhileDown
from coatcheck.sessions import Session, Sessions

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import HTTPConnection, Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, ExceptionHandler
    from starlette.websockets import WebSocket
except ImportError as error:
    _feature = "The adapter to Starlette"
    raise MissingExtra(_feature, "starlette") from error

P = ParamSpec("P")
T = TypeVar("T")


def add_sessions(  # noqa: PLR0913 (they are the settings)
    app: Starlette,
    sessions: Sessions,
    *,
    login_path: str | None = None,
    csrf: Csrf = "origin",
    trusted_origins: Iterable[str] = (),
    csrf_exempt: Iterable[str] = (),
    load: Load = "eager",
    while_down: WhileDown | Mapping[str, WhileDown] = "refuse",
) -> None:
    """Give an application sessions: `request.session` in its handlers, and right answers where a session is missing.

    Adds the middlewares, the one for CSRF inside the one for sessions. Middleware that is there already is inside of
    both and may use the session; what is added later is outside. `LoginRequired`, raised anywhere in a handler, becomes
    the answer of `coatcheck.guard`, also in applications that are mounted in this one. The store is closed at the
    application's shutdown, whatever lifespan it has.

    Args:
        app: the application, which has not served a request yet.
        sessions: the sessions to use.
        login_path: where browsers are sent that have to log in. None for an application that has no such page: then
            everybody gets 401 and JSON, as programs always do.
        csrf: "origin" refuses what other sites' pages send; True also asks for the token of `csrf_field`, which forms
            and scripts then have to send; False looks at nothing. See `coatcheck.csrf.asgi.CsrfMiddleware`.
        trusted_origins: other origins whose pages may send requests here, such as "https://shop.example".
        csrf_exempt: paths that need no such protection, such as "/webhooks".
        load: see `coatcheck.asgi.SessionMiddleware`. With "lazy", decorators and dependencies load the session.
        while_down: see `coatcheck.asgi.SessionMiddleware`.

    Raises:
        ConfigurationError: an argument can't work.
        MissingExtra: with `csrf=True`, where the extra `csrf` is not installed.
    """
    kinds: list[Any] = [middleware.cls for middleware in app.user_middleware]
    if SessionMiddleware in kinds:
        msg = "add_sessions was called twice for this application; leave one of the calls out"
        raise ConfigurationError(msg)
    # Now, and not when the first request makes the middlewares:
    check_sessions(sessions, Sessions, "add_sessions")
    is_eager(load)
    outage.Routes(while_down)
    # One handler for requests and WebSockets; Starlette's types know only such as are for one of them.
    answer = cast("ExceptionHandler", partial(_answer, Guard(login_path=login_path)))
    app.exception_handlers.setdefault(LoginRequired, answer)
    prepare_mounted(app, partial(_prepare, answer, outage.OutageLog()))
    tokens = wants_tokens(csrf)
    if csrf:
        origins, exempt = several("trusted_origins", trusted_origins), several("csrf_exempt", csrf_exempt)
        CsrfPolicy(origins, exempt)  # so that what can't work is known now
        app.add_middleware(CsrfMiddleware, trusted_origins=origins, exempt=exempt, tokens=tokens)
    app.add_middleware(SessionMiddleware, sessions=sessions, load=load, while_down=while_down)


def session_of(connection: HTTPConnection) -> Session:
    """Give the session of a request or WebSocket, with its type: Starlette declares `request.session` a dict.

    Raises:
        ConfigurationError: there is none.
    """
    session = connection.scope.get(SCOPE_KEY)
    if session is None:
        msg = "This request has no session of Coatcheck: call add_sessions(app, sessions) when the application is made"
        raise ConfigurationError(msg)
    if not isinstance(session, Session):
        found = f"{type(session).__module__}.{type(session).__qualname__}"
        msg = (
            f"This request has no session of Coatcheck, but another one, a {found}: take out the middleware that makes "
            "it, such as Starlette's SessionMiddleware, and call add_sessions(app, sessions)"
        )
        raise ConfigurationError(msg)
    return session


def template_context(request: Request) -> dict[str, Any]:
    """Give templates `session`, `flashes()`, `csrf_field()` and `csrf_token()`.

    Example:
        templates = Jinja2Templates("templates", context_processors=[template_context])
    """
    session = session_of(request)
    return {
        "session": session,
        "flashes": session.flashes,
        "csrf_field": partial(csrf_field, session),
        "csrf_token": partial(csrf_token, session),
    }


# --- guards -----------------------------------------------------------------------------------------------------------


class GuardDecorator(Protocol):
    """Makes a guarded endpoint, which is async, of one that is or is not."""

    @overload
    def __call__(self, endpoint: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, endpoint: Callable[P, T], /) -> Callable[P, Coroutine[Any, Any, T]]: ...


@overload
def login_required(endpoint: Callable[P, Awaitable[T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
@overload
def login_required(endpoint: Callable[P, T], /) -> Callable[P, Coroutine[Any, Any, T]]: ...
def login_required(endpoint: Callable[P, Any], /) -> Callable[P, Coroutine[Any, Any, Any]]:
    """Let only those who are logged in reach an endpoint: a function, async or not, for HTTP or for a WebSocket.

    Also for the methods of `HTTPEndpoint` and `WebSocketEndpoint`. Others are answered as `add_sessions` describes, and
    a WebSocket's handshake is refused.

    Example:
        @login_required
        async def profile(request: Request) -> Response: ...
    """
    return _guarded(endpoint, None)


def recent_login_required(*, within: timedelta) -> GuardDecorator:
    """Let only those who have logged in lately reach an endpoint. See `login_required`.

    Args:
        within: how long ago the login may be.

    Example:
        @recent_login_required(within=timedelta(minutes=10))
        async def change_password(request: Request) -> Response: ...
    """
    return cast("GuardDecorator", partial(_guarded, within=within))


def _guarded(endpoint: Callable[P, Any], within: timedelta | None) -> Callable[P, Coroutine[Any, Any, Any]]:
    @wraps(endpoint)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        session = session_of(_connection_in((*args, *kwargs.values())))
        await session.load()
        check_login(session, within)
        if iscoroutinefunction(endpoint):
            return await endpoint(*args, **kwargs)
        return await run_in_threadpool(endpoint, *args, **kwargs)

    return guarded


def _connection_in(arguments: Iterable[object]) -> HTTPConnection:
    for argument in arguments:
        if isinstance(argument, HTTPConnection):
            return argument
    msg = "A guarded endpoint needs the request or the WebSocket as an argument"
    raise ConfigurationError(msg)


async def _answer(settings: Guard, connection: HTTPConnection, error: Exception) -> Response | None:
    """Answer a request for which a login is missing."""
    if isinstance(connection, WebSocket):
        await connection.close(POLICY_VIOLATION, str(error))
        return None
    refusal = settings.answer(cast("LoginRequired", error), request_of(connection.scope))
    return Response(refusal.body, refusal.status, dict(refusal.headers))


# --- mounted applications ---------------------------------------------------------------------------------------------


def prepare_mounted(app: Starlette, prepare: Callable[[Starlette], None]) -> None:
    """Prepare all that is mounted in an application when it serves its first request, and its mounts are known.

    A mounted application handles exceptions by itself, and makes 500 of what it does not know.
    """
    app.add_middleware(_as_it_is, routes=app.routes, prepare=prepare)


def _as_it_is(app: ASGIApp, *, routes: Iterable[BaseRoute], prepare: Callable[[Starlette], None]) -> ASGIApp:
    """Stand among the middlewares, which are made at the first request, and be none."""
    for mounted in _mounted_in(routes):
        prepare(mounted)
    return app


def _mounted_in(routes: Iterable[BaseRoute]) -> Iterator[Starlette]:
    for route in routes:
        app = getattr(route, "app", None)
        if isinstance(app, Starlette):
            yield app
        holder = getattr(route, "original_router", route)  # FastAPI keeps included routers as they are
        yield from _mounted_in(getattr(holder, "routes", ()))


def _prepare(answer: ExceptionHandler, outages: outage.OutageLog, mounted: Starlette) -> None:
    mounted.exception_handlers.setdefault(LoginRequired, answer)
    mounted.exception_handlers.setdefault(StoreUnavailable, partial(_say_unavailable, outages))


async def _say_unavailable(outages: outage.OutageLog, connection: HTTPConnection, error: Exception) -> Response:
    """Answer for a mounted application. In the outer one, what is raised reaches the session middleware by itself."""
    if isinstance(connection, WebSocket):
        raise error  # nobody makes 500 of it on its way out
    outages.report(cast("StoreUnavailable", error))
    return Response(outage.BODY, 503, dict(outage.HEADERS))
