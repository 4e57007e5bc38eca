"""Sessions for Litestar: a plugin, guards, and the session as a dependency.

    app = Litestar(route_handlers=[...], plugins=[CoatcheckPlugin(sessions)])

Requests go past `coatcheck.asgi.SessionMiddleware`. Here is what Litestar does differently from other ASGI frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from copy import copy
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import unquote

from coatcheck.asgi import (
    POLICY_VIOLATION,
    SCOPE_KEY,
    WHOLE_PATH,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    SessionMiddleware,
    request_of,
)
from coatcheck.csrf import Csrf
from coatcheck.csrf.asgi import CsrfMiddleware
from coatcheck.csrf.policy import several, wants_tokens
from coatcheck.csrf.tokens import HiddenField, csrf_field, csrf_token
from coatcheck.errors import ConfigurationError, LoginRequired, MissingExtra, StoreUnavailable, UnsupportedValue
from coatcheck.guard import Guard, check_login
from coatcheck.mounting import Load, check_sessions, is_eager
from coatcheck.outage import Routes, WhileDown
from coatcheck.session import Flash
from coatcheck.sessions import Session, Sessions

try:
    from litestar import Litestar, Request, Response, WebSocket
    from litestar.config.app import AppConfig
    from litestar.config.response_cache import ResponseCacheConfig
    from litestar.connection import ASGIConnection
    from litestar.di import Provide
    from litestar.exceptions import LitestarException, WebSocketException
    from litestar.handlers import ASGIRouteHandler, BaseRouteHandler, HTTPRouteHandler
    from litestar.middleware import DefineMiddleware
    from litestar.middleware.session import SessionMiddleware as LitestarSessionMiddleware
    from litestar.openapi.spec import Components, SecurityScheme
    from litestar.plugins.base import InitPluginProtocol, ReceiveRoutePlugin
    from litestar.routes import ASGIRoute, BaseRoute, HTTPRoute, WebSocketRoute
    from litestar.security.session_auth.middleware import MiddlewareWrapper as SessionAuthMiddlewares
    from litestar.stores.base import Store
    from litestar.template import TemplateEngineProtocol
    from litestar.types import Empty
    from litestar.types import Scope as LitestarScope
    from litestar.utils.path import normalize_path
    from litestar.utils.scope.state import ScopeState
except ImportError as error:
    _feature = "The adapter to Litestar"
    raise MissingExtra(_feature, "litestar") from error

Connection = ASGIConnection[Any, Any, Any, Any]

_SESSIONS: Final = "coatcheck.integrations.litestar"
"""The key of a request's scope for its sessions by their names."""


class CoatcheckPlugin(InitPluginProtocol, ReceiveRoutePlugin):
    """Gives each request of a Litestar application its session: `request.session`, and the dependency `session`.

    Also guards (`login_required`), their answers, what they need in OpenAPI, helpers for templates, and the end of the
    store's connections at the application's shutdown. A request for which there is no route has no session.

    Args:
        sessions: the sessions to use.
        name: the key of the scope, and the dependency's name. For several sessions in one application, add the plugin
            several times with different names and cookies.
        dependency: another name for the dependency, where the application has one of this name.
        load: "eager" loads the session before the handler runs, if the request has its cookie. "lazy" when the
            dependency, a guard or `get_session` first asks for it.
        while_down: see `coatcheck.asgi.SessionMiddleware`.
        login_path: where browsers are sent when a handler needs a login.
        csrf: "origin" refuses what other sites' pages send; True also asks for the token of `csrf_field`, which forms
            and scripts then have to send; False looks at nothing. See `coatcheck.csrf.asgi.CsrfMiddleware`.
        trusted_origins: see `coatcheck.csrf.CsrfPolicy`.
        csrf_exempt: paths that need no check: `exempt` of `CsrfPolicy`.

    Raises:
        ConfigurationError: an argument can't work.
        MissingExtra: with `csrf=True`, where the extra `csrf` is not installed.
    """

    def __init__(  # noqa: PLR0913 (they are the settings)
        self,
        sessions: Sessions,
        *,
        name: str = SCOPE_KEY,
        dependency: str | None = None,
        load: Load = "eager",
        while_down: WhileDown | Mapping[str, WhileDown] = "refuse",
        login_path: str = "/login",
        csrf: Csrf = "origin",
        trusted_origins: Iterable[str] = (),
        csrf_exempt: Iterable[str] = (),
    ) -> None:
        check_sessions(sessions, Sessions, "Litestar")
        is_eager(load)  # both to say now what is wrong with them: the middlewares are made when routes are
        Routes(while_down)
        self._sessions = sessions
        self._name = name
        self._dependency = name if dependency is None else dependency
        self._guard = Guard(login_path=login_path)
        self._middlewares = [
            _define(_WholePath),
            _define(SessionMiddleware, sessions=sessions, name=name, load=load, while_down=while_down),
            _define(_Inside, name=name),
        ]
        self._has_tokens = wants_tokens(csrf)
        if csrf:
            self._middlewares.append(_csrf_middleware(name, trusted_origins, csrf_exempt, tokens=self._has_tokens))

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Called by Litestar when the application is made."""
        self._check(app_config)
        app_config.middleware[:0] = self._middlewares
        app_config.dependencies = {**app_config.dependencies, self._dependency: Provide(self._provide)}
        app_config.on_shutdown.append(self._sessions.close)
        app_config.exception_handlers.setdefault(LoginRequired, self._answer_login_required)
        app_config.exception_handlers.setdefault(StoreUnavailable, _leave_to_the_middleware)
        app_config.response_cache_config = _without_personal_responses(app_config.response_cache_config)
        self._describe_cookie(app_config)
        if app_config.template_config is not None:
            self._help_templates(app_config.template_config.engine_instance)
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        """Called by Litestar for each route: say in OpenAPI which need the session's cookie."""
        for handler in _handlers_of(route):
            if self._name == SCOPE_KEY:
                _check_middlewares(handler)
            if isinstance(handler, HTTPRouteHandler) and self._is_guarded(handler):
                requirement: dict[str, list[str]] = {self._name: []}
                others = [each for each in handler.security or () if each != requirement]
                handler.security = [*others, requirement]

    def _is_guarded(self, handler: BaseRouteHandler) -> bool:
        guards: list[Any] = [*handler.resolve_guards()]
        return any(isinstance(guard, LoginGuard) and guard.name == self._name for guard in guards)

    def _check(self, app_config: AppConfig) -> None:
        """Refuse what would be in each other's way."""
        if self._dependency in app_config.dependencies:
            msg = (
                f"The application has a dependency {self._dependency!r} already; "
                "give ours another name by CoatcheckPlugin(..., dependency=...)"
            )
            raise ConfigurationError(msg)

    async def _provide(self, scope: LitestarScope) -> Session:
        return await _session_in(scope, self._name)

    def _answer_login_required(self, request: Request[Any, Any, Any], error: LoginRequired) -> Response[bytes]:
        refusal = self._guard.answer(error, request_of(request.scope))  # type: ignore[arg-type]
        headers = dict(refusal.headers)
        del headers["content-length"]  # Litestar's own business
        media_type = headers.pop("content-type").partition(";")[0]  # Litestar adds the charset
        return Response(refusal.body, status_code=refusal.status, headers=headers, media_type=media_type)

    def _describe_cookie(self, app_config: AppConfig) -> None:
        if app_config.openapi_config is None:
            return
        cookie = self._sessions.config.cookie.full_name
        scheme = SecurityScheme(type="apiKey", name=cookie, security_scheme_in="cookie")
        config = copy(app_config.openapi_config)
        known = config.components if isinstance(config.components, list) else [config.components]
        config.components = [*known, Components(security_schemes={self._name: scheme})]
        app_config.openapi_config = config

    def _help_templates(self, engine: TemplateEngineProtocol[Any, Any]) -> None:
        def session_of(context: Mapping[str, Any]) -> Session:
            return _held_in(context["request"].scope, self._name)

        def get_flashes(context: Mapping[str, Any], /, category: str | None = None) -> list[Flash]:
            return session_of(context).flashes(category)

        def field(context: Mapping[str, Any], /) -> HiddenField:
            return csrf_field(session_of(context))

        def token(context: Mapping[str, Any], /) -> str:
            return csrf_token(session_of(context))

        engine.register_template_callable("get_flashes", get_flashes)
        engine.register_template_callable("csrf_field", field)
        if self._has_tokens:  # else templates may want that of Litestar's own protection
            engine.register_template_callable("csrf_token", token)


async def get_session(connection: Connection, name: str = SCOPE_KEY) -> Session:
    """Give the session of a request or a WebSocket, loaded: for guards, hooks and middlewares.

    Args:
        connection: the request or the WebSocket.
        name: which session, if there are several: see `CoatcheckPlugin`.

    Raises:
        ConfigurationError: there is none: the plugin is missing, or there is no route for the request.
        StoreUnavailable: with `load="lazy"`, the store can't be reached. Unless it is caught, the answer is 503.
    """
    return await _session_in(connection.scope, name)


class LoginGuard:
    """A guard, for `guards=[...]` of handlers, controllers, routers and applications.

    A browser is sent to the login, with the path that it asked for as `next` (see `coatcheck.guard.safe_next`);
    programs get 401 with a JSON body; the handshakes of WebSockets are refused.

    Args:
        within: how long ago the login may be, for pages that matter; None for any time.
        name: which session, if there are several: see `CoatcheckPlugin`.
    """

    def __init__(self, *, within: timedelta | None = None, name: str = SCOPE_KEY) -> None:
        self.within = within
        self.name = name

    async def __call__(self, connection: Connection, _: BaseRouteHandler) -> None:
        """Raise LoginRequired for those who may not pass."""
        session = await get_session(connection, self.name)
        try:
            check_login(session, self.within)
        except LoginRequired as error:
            if isinstance(connection, WebSocket):
                raise WebSocketException(detail=str(error), code=POLICY_VIOLATION) from error
            raise


login_required: Final = LoginGuard()
"""The guard that lets pass whoever is logged in."""


def recent_login_required(within: timedelta, *, name: str = SCOPE_KEY) -> LoginGuard:
    """Give a guard that lets pass whoever has logged in lately. See `LoginGuard`."""
    return LoginGuard(within=within, name=name)


async def _session_in(scope: Any, name: str) -> Session:
    session = _known_to(scope).get(name)
    if session is None:
        msg = f"This request has no session {name!r}: add CoatcheckPlugin, and see whether something replaced it"
        raise ConfigurationError(msg)
    await session.load()
    return _held_in(scope, name)


def _known_to(scope: Any) -> dict[str, Session]:
    """Give the sessions of a request, whatever the application has put into their places since."""
    return cast("dict[str, Session]", scope.setdefault(_SESSIONS, {}))


def _held_in(scope: Any, name: str) -> Session:
    """Give a session, after bringing into it what `set_session` or `clear_session` has put into its place."""
    session = _known_to(scope)[name]
    value: object = scope.get(name)
    if value is session:
        return session
    scope[name] = session
    if value is Empty or value is None:
        session.destroy()
    elif isinstance(value, Mapping):
        session.clear()
        session.update(value)
    else:
        msg = f"set_session: expected a mapping, got a {type(value).__name__}"
        raise UnsupportedValue(msg)
    return session


def _handlers_of(route: BaseRoute) -> list[BaseRouteHandler]:
    if isinstance(route, HTTPRoute):
        return [*route.route_handlers]
    return [route.route_handler] if isinstance(route, ASGIRoute | WebSocketRoute) else []


def _check_middlewares(handler: BaseRouteHandler) -> None:
    """Refuse Litestar's own sessions. Only here, because plugins such as SessionAuth may bring them along later."""
    for middleware in handler.resolve_middleware():
        kind = middleware.middleware if isinstance(middleware, DefineMiddleware) else middleware
        if isinstance(kind, type) and issubclass(kind, LitestarSessionMiddleware | SessionAuthMiddlewares):
            msg = "Litestar's own sessions are there too, by a session middleware or SessionAuth; take them out"
            raise ConfigurationError(msg)


def _leave_to_the_middleware(_: Request[Any, Any, Any], error: StoreUnavailable) -> Response[Any]:
    """Let the error reach `SessionMiddleware`, which answers by 503 and says why in the log."""
    raise error


def _define(kind: Callable[..., ASGIApp], **options: Any) -> DefineMiddleware:
    return DefineMiddleware(cast("Any", kind), **options)  # to Litestar, ASGI's messages are typed dicts


def _csrf_middleware(
    name: str, trusted_origins: Iterable[str], exempt: Iterable[str], *, tokens: bool
) -> DefineMiddleware:
    origins, paths = several("trusted_origins", trusted_origins), several("csrf_exempt", exempt)

    async def nothing(*_: object) -> None: ...

    CsrfMiddleware(nothing, trusted_origins=origins, exempt=paths, tokens=tokens)  # to say now what is wrong
    return _define(CsrfMiddleware, trusted_origins=origins, exempt=paths, tokens=tokens, name=name)


# --- Litestar's response cache ----------------------------------------------------------------------------------------


_at_work: Final[ContextVar[tuple[Session, ...]]] = ContextVar("coatcheck.integrations.litestar", default=())
"""The sessions of the request at hand. The cache asks for its store when a response is over, and tells no request."""


def _without_personal_responses(config: ResponseCacheConfig) -> ResponseCacheConfig:
    """Keep out of Litestar's response cache what was made from somebody's session.

    Not by its filter, which is asked when a response starts: what is streamed may use the session later.
    """
    careful = copy(config)

    def get_store(app: Litestar) -> Store:
        store = config.get_store_from_app(app)
        is_personal = any(session.was_accessed for session in _at_work.get())
        return cast("Store", _Unwritten(store)) if is_personal else store

    careful.get_store_from_app = get_store  # type: ignore[method-assign]
    return careful


class _Unwritten:
    """The cache's store, for a request whose response it must not keep."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def set(self, *_: object, **__: object) -> None:
        """Keep nothing."""


# --- between the session and Litestar ---------------------------------------------------------------------------------


class _WholePath:
    """Stands outside of the session, and notes which path was asked for where Litestar has cut it: in what is mounted.

    What is set for paths, such as that there is no check for one, must not be taken for a mounted application's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection."""
        handler = scope["route_handler"]
        if isinstance(handler, ASGIRouteHandler) and handler.is_mount:
            scope[WHOLE_PATH] = _asked_for(scope)
        await self._app(scope, receive, send)


def _asked_for(scope: Scope) -> str:
    """Give the path as Litestar has it where nothing is mounted; if the server does not tell, one that is nowhere."""
    raw: bytes = scope.get("raw_path") or b""
    path = unquote(raw.partition(b"?")[0].decode("latin-1"))
    root_path: str = scope.get("root_path", "")
    if root_path:
        path = path.split(root_path, maxsplit=1)[-1]
    return normalize_path(path) if raw else ""


class _Inside:
    """Stands between the session and Litestar, inside of `SessionMiddleware`.

    It lets `set_session` and `clear_session` mean what Litestar says, and lets errors of storing a session be what
    they are.
    """

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app = app
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection."""
        session: Session = scope[self._name]
        _known_to(scope)[self._name] = session
        failure: Exception | None = None
        has_started = False

        async def pass_on(message: Message) -> None:
            nonlocal failure, has_started
            if failure is not None and message["type"] == "websocket.close":
                raise failure  # Litestar closes it as if the handler had failed
            try:
                await self._take_over(scope, session)
                await send(message)
            except Exception as error:
                failure = None if has_started else error
                raise
            has_started = True

        others = _at_work.set((*_at_work.get(), session))
        try:
            await self._app(scope, receive, pass_on)
            await self._take_over(scope, session)
        except LitestarException:
            if failure is None:
                raise
            # Litestar takes a response for started that has not passed the session: say that it can still answer.
            ScopeState.from_scope(scope).response_started = False  # type: ignore[arg-type]
            raise failure from None
        finally:
            _at_work.reset(others)
            if scope.get(self._name) is Empty:
                session.destroy()  # which holds when all else fails

    async def _take_over(self, scope: Scope, session: Session) -> None:
        """Bring what the application has put into the session's place into the session."""
        value = scope.get(self._name)
        if value is not session:
            if isinstance(value, Mapping):
                await session.load()
            _held_in(scope, self._name)
