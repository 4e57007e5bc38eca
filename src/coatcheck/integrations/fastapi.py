"""Sessions for FastAPI: Starlette's adapter, and dependencies that are typed and show in the OpenAPI document.

    @app.get("/profile")
    async def profile(user_id: CurrentUser, session: CurrentSession) -> Profile: ...

FastAPI reads annotations while the application runs, so this module keeps them as they are (no `annotations` from
`__future__`).
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Final, TypeVar, get_args

from coatcheck.config import CookieConfig
from coatcheck.csrf import Csrf
from coatcheck.errors import ConfigurationError, LoginRequired, MissingExtra, RecentLoginRequired
from coatcheck.guard import check_login
from coatcheck.mounting import Load
from coatcheck.outage import WhileDown
from coatcheck.sessions import Session, Sessions
from coatcheck.typed import SessionSchema

try:
    from fastapi import Depends, FastAPI, Security, params
    from fastapi.security import APIKeyCookie
    from fastapi.security.base import SecurityBase
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp
except ImportError as error:
    _feature = "The adapter to FastAPI"
    raise MissingExtra(_feature, "fastapi") from error

from coatcheck.integrations import starlette  # only now: it would ask for another extra

T = TypeVar("T")

_SCHEME: Final = "SessionCookie"
"""The name of the security scheme in OpenAPI documents."""

_UNAUTHORIZED: Final = {
    "description": "Somebody has to log in",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "error": {"type": "string", "enum": [LoginRequired.code, RecentLoginRequired.code]},
                    "message": {"type": "string"},
                },
                "required": ["error", "message"],
            }
        }
    },
}
"""What `coatcheck.guard` answers to programs, as OpenAPI describes a response."""


def add_sessions(  # noqa: PLR0913 (they are the settings)
    app: FastAPI,
    sessions: Sessions,
    *,
    login_path: str | None = None,
    csrf: Csrf = "origin",
    trusted_origins: Iterable[str] = (),
    csrf_exempt: Iterable[str] = (),
    load: Load = "eager",
    while_down: WhileDown | Mapping[str, WhileDown] = "refuse",
) -> None:
    """Give an application sessions. The arguments and errors are those of `coatcheck.integrations.starlette`.

    The OpenAPI documents of the application, and of those mounted in it, show the cookie that guarded operations need
    by its name, and their answer 401. An application's own `app.openapi` has to be there before.

    When the application starts, or its first request comes, it raises ConfigurationError for a parameter that FastAPI
    would read from the query although it is declared by one of this module's types, such as `CurrentUser | None`.
    """
    starlette.add_sessions(
        app,
        sessions,
        login_path=login_path,
        csrf=csrf,
        trusted_origins=trusted_origins,
        csrf_exempt=csrf_exempt,
        load=load,
        while_down=while_down,
    )
    describe = partial(_describe, cookie=sessions.config.cookie.full_name)
    describe(app)
    starlette.prepare_mounted(app, describe)
    app.add_middleware(_checked, routes=app.routes)


# --- dependencies -----------------------------------------------------------------------------------------------------


async def current_session(connection: HTTPConnection) -> Session:
    """Give the session of a request or WebSocket, loaded. Use `CurrentSession`; this is for `dependency_overrides`."""
    session = starlette.session_of(connection)
    await session.load()
    return session


CurrentSession = Annotated[Session, Depends(current_session)]
"""The type of a parameter that is given the session."""


class _LoggedIn(SecurityBase):
    """Gives the user ID of whoever is logged in, and is what OpenAPI shows of a guard."""

    def __init__(self, within: timedelta | None = None) -> None:
        self.within = within
        self.scheme_name = _SCHEME
        # The name is only known to the application's sessions; _describe puts it into the document.
        self.model = APIKeyCookie(name=CookieConfig().full_name).model

    async def __call__(self, session: CurrentSession) -> str:
        """Give the user ID, or raise LoginRequired."""
        return check_login(session, self.within)

    def __eq__(self, other: object) -> bool:
        """Tell guards apart by what they demand, so that each runs once for a request."""
        return isinstance(other, _LoggedIn) and self.within == other.within

    def __hash__(self) -> int:
        return hash(self.within)


current_user: Final = _LoggedIn()
"""What `CurrentUser` and `RequireLogin()` depend on, for `app.dependency_overrides[current_user]`."""

CurrentUser = Annotated[str, Security(current_user)]
"""The type of a parameter that is given the user ID of whoever is logged in. Nobody else reaches the operation."""


def FromSession(schema: SessionSchema[T]) -> params.Depends:  # noqa: N802 (named like Depends, among which it stands)
    """Give the session as an instance of its type.

    Args:
        schema: the type, see `coatcheck.typed`.

    Example:
        ShopData = Annotated[ShopSession, FromSession(SessionSchema(ShopSession))]
    """

    async def typed(session: CurrentSession) -> T:
        return schema.of(session)

    dependency: params.Depends = Depends(typed)
    return dependency


async def _user_if_any(session: CurrentSession) -> str | None:
    return session.user_id


OptionalUser = Annotated[str | None, Depends(_user_if_any)]
"""The type of a parameter that is given the user ID of whoever is logged in, or None."""


def RequireLogin(_: Annotated[str | None, Security(current_user)] = None) -> params.Depends:  # noqa: N802
    """Let only those who are logged in reach a route, a router or an application.

    Takes nothing. The parameter is for FastAPI, which calls it where it is given as `Depends(RequireLogin)`: so it
    guards there, too.

    Example:
        router = APIRouter(prefix="/account", dependencies=[RequireLogin()])
    """
    return _guard(current_user)


def RequireRecentLogin(*, within: timedelta) -> params.Depends:  # noqa: N802
    """Let only those pass who have logged in lately. Also gives the user ID.

    Args:
        within: how long ago the login may be.

    Example:
        async def change_password(user_id: Annotated[str, RequireRecentLogin(within=timedelta(minutes=10))]): ...
    """
    return _guard(_LoggedIn(within))


def _guard(logged_in: _LoggedIn) -> params.Depends:
    dependency: params.Depends = Security(logged_in)
    return dependency


# --- parameters that are no dependencies ------------------------------------------------------------------------------


def _checked(app: ASGIApp, *, routes: Iterable[BaseRoute]) -> ASGIApp:
    """Look at the routes when the middlewares are made, and be none."""
    for route in routes:
        _check_route(route)
    return app


def _check_route(route: object) -> None:
    dependant = getattr(route, "dependant", None)
    if dependant is not None:
        _check_parameters(dependant, getattr(route, "path", ""))
    holder = getattr(route, "original_router", None) or getattr(route, "app", route)  # an included router, or a mount
    for inner in getattr(holder, "routes", ()):
        _check_route(inner)


def _check_parameters(dependant: Any, path: str) -> None:
    """Refuse what FastAPI takes from the client although it was to be given by us: then anybody would be anybody."""
    for place in ("path_params", "query_params", "header_params", "cookie_params", "body_params"):
        for field in getattr(dependant, place, ()):
            info = field.field_info
            parts = (*_parts_of(info.annotation), *info.metadata, *_parts_of(info.default))
            if any(map(_is_ours, parts)):
                msg = (
                    f"{path}: FastAPI would let clients say what {field.name!r} is. Declare it by one of CurrentUser, "
                    "OptionalUser and CurrentSession alone: `user: OptionalUser`, not `user: CurrentUser | None`"
                )
                raise ConfigurationError(msg)
    for dependency in dependant.dependencies:
        _check_parameters(dependency, path)


def _parts_of(annotation: Any) -> Iterator[Any]:
    """Give an annotation and all that is in it, the metadata of `Annotated` included."""
    yield annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from _parts_of(part)


def _is_ours(part: object) -> bool:
    if isinstance(part, params.Depends):
        part = part.dependency
    ours = (current_session, _user_if_any, RequireLogin, RequireRecentLogin)
    return isinstance(part, _LoggedIn) or any(part is each for each in ours)


# --- the OpenAPI document ---------------------------------------------------------------------------------------------


def _describe(app: Starlette, cookie: str) -> None:
    """Let the OpenAPI document of an application say what it can't know by itself. Other applications have none."""
    if not isinstance(app, FastAPI):
        return
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        _complete(document, cookie)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any], cookie: str) -> None:
    scheme = document.get("components", {}).get("securitySchemes", {}).get(_SCHEME)
    if scheme is None:
        return
    scheme["name"] = cookie
    for path in (*document.get("paths", {}).values(), *document.get("webhooks", {}).values()):
        for operation in path.values():
            if isinstance(operation, dict) and any(_SCHEME in needed for needed in operation.get("security", ())):
                operation.setdefault("responses", {}).setdefault("401", deepcopy(_UNAUTHORIZED))
