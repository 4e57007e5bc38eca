"""The adapter to FastAPI: typed dependencies, guards, and what the OpenAPI document says of them."""

# No `annotations` from `__future__`: FastAPI reads those of handlers, and many of these stand inside of tests.

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import anyio.from_thread
import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Form, HTTPException, Request, WebSocket
from fastapi.openapi.models import OpenAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import StreamingResponse
from servers import Server
from serving import serve_asgi
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect
from starlette_client import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from coatcheck import CookieConfig, Session, Sessions
from coatcheck.csrf import csrf_token
from coatcheck.errors import ConfigurationError, LoginRequired, StoreUnavailable
from coatcheck.integrations.fastapi import (
    CurrentSession,
    CurrentUser,
    FromSession,
    OptionalUser,
    RequireLogin,
    RequireRecentLogin,
    add_sessions,
    current_session,
    current_user,
)
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing import FailingStore, ManualClock
from coatcheck.typed import SessionSchema

KEY = "a secret key for tests, 32 bytes or more"
PROGRAM = {"accept": "application/json"}
BROWSER = {"accept": "text/html", "sec-fetch-mode": "navigate"}
PLAIN = CookieConfig(secure=False)
RECENT = timedelta(minutes=10)


def new_sessions(store: Any = "memory://", **settings: Any) -> Sessions:
    return Sessions(store, secret_keys=[KEY], **{"cookie": PLAIN, **settings})


class Shop:
    """An application whose routes a test adds, and a client of it."""

    def __init__(self, sessions: Sessions | None = None, *, app: FastAPI | None = None, **options: Any) -> None:
        self.app = FastAPI() if app is None else app
        self.sessions = new_sessions() if sessions is None else sessions
        self.app.post("/login")(log_in)
        add_sessions(self.app, self.sessions, **{"csrf": False, **options})
        self.client = TestClient(self.app, follow_redirects=False)

    def log_in(self) -> None:
        assert self.client.post("/login").status_code == 200

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(path, **options)

    def openapi(self, path: str = "/openapi.json") -> dict[str, Any]:
        document: dict[str, Any] = self.client.get(path).json()
        OpenAPI.model_validate(document)
        return document


async def log_in(session: CurrentSession) -> None:
    session.login("alice")


@pytest.fixture
def shop() -> Shop:
    return Shop()


# --- the session ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", ["eager", "lazy"])
def test_a_parameter_is_given_the_session_and_its_changes_are_stored(load: str) -> None:
    shop = Shop(load=load)

    @shop.app.get("/async")
    async def visit(session: CurrentSession) -> int:
        assert type(session) is Session
        return session.increment("visits")

    @shop.app.get("/sync")
    def visit_in_a_thread(session: CurrentSession) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return session.increment("visits")

    assert [shop.get(path).json() for path in ("/async", "/sync", "/async", "/sync")] == [1, 2, 3, 4]


def test_a_sync_handler_can_save_in_the_middle_of_a_request(shop: Shop) -> None:
    @shop.app.get("/")
    def visit(session: CurrentSession) -> int:
        session.increment("visits")
        anyio.from_thread.run(session.save)
        return int(session["visits"])

    assert [shop.get("/").json() for _ in range(2)] == [1, 2]


def test_all_that_ask_for_the_session_in_a_request_get_the_same(shop: Shop) -> None:
    async def basket(session: CurrentSession) -> list[str]:
        session.append("basket", "pen")
        items: list[str] = session["basket"]
        return items

    @shop.app.get("/")
    async def show(session: CurrentSession, items: Annotated[list[str], Depends(basket)], request: Request) -> bool:
        return session["basket"] is items and request.session is session

    assert shop.get("/").json() is True


def test_a_session_is_loaded_once_for_all_that_ask() -> None:
    store = FailingStore()
    shop = Shop(new_sessions(store), load="lazy")

    @shop.app.get("/")
    async def show(session: CurrentSession, user_id: CurrentUser, other: OptionalUser) -> str:
        return f"{session.user_id} {user_id} {other}"

    shop.log_in()
    store.calls.clear()
    assert shop.get("/").json() == "alice alice alice"
    assert store.calls == ["load"]


@pytest.mark.parametrize(("load", "calls"), [("lazy", []), ("eager", ["load"])])
def test_a_lazy_session_that_nobody_asks_for_is_not_read(load: str, calls: list[str]) -> None:
    store = FailingStore()
    shop = Shop(new_sessions(store), load=load)

    @shop.app.get("/")
    async def show() -> None: ...

    shop.log_in()
    store.calls.clear()
    shop.get("/")
    assert store.calls == calls


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)


@pytest.mark.parametrize("load", ["eager", "lazy"])
def test_a_parameter_is_given_the_session_as_its_type_and_changes_of_it_are_stored(load: str) -> None:
    shop = Shop(load=load)

    @shop.app.get("/{item}")
    def put_in(
        item: str, basket: Annotated[Basket, FromSession(SessionSchema(Basket))], session: CurrentSession
    ) -> list[str]:
        basket.items.append(item)
        assert session["items"] == basket.items
        return basket.items

    assert [shop.get(f"/{item}").json() for item in ("pen", "ink")] == [["pen"], ["pen", "ink"]]
    assert "requestBody" not in shop.openapi()["paths"]["/{item}"]["get"]


def test_without_sessions_the_application_is_told_what_is_missing() -> None:
    app = FastAPI()

    @app.get("/")
    async def show(session: CurrentSession) -> None: ...

    with pytest.raises(ConfigurationError, match="add_sessions"):
        TestClient(app).get("/")


def test_a_background_task_may_still_change_the_session(shop: Shop) -> None:
    @shop.app.get("/")
    async def show(session: CurrentSession, tasks: BackgroundTasks) -> int:
        session["asked"] = True
        tasks.add_task(session.increment, "done")
        return int(session.get("done", 0))

    assert [shop.get("/").json() for _ in range(3)] == [0, 1, 2]


def test_a_stream_may_change_the_session_while_it_runs(shop: Shop) -> None:
    @shop.app.get("/")
    async def show(session: CurrentSession) -> StreamingResponse:
        session["asked"] = True

        async def lines() -> AsyncIterator[str]:
            for _ in range(3):
                yield f"{session.increment('lines')} "

        return StreamingResponse(lines())

    assert [shop.get("/").text for _ in range(2)] == ["1 2 3 ", "4 5 6 "]


@pytest.mark.parametrize("is_inside", [True, False])
def test_middleware_made_of_functions_may_be_inside_or_around(is_inside: bool) -> None:
    app = FastAPI()

    async def mark(request: Request, call_next: Any) -> Any:
        if is_inside:
            request.session["marked"] = True
        response = await call_next(request)
        response.headers["x-marked"] = "yes"
        return response

    if is_inside:
        app.add_middleware(BaseHTTPMiddleware, dispatch=mark)
    shop = Shop(app=app, login_path="/login")
    if not is_inside:
        app.add_middleware(BaseHTTPMiddleware, dispatch=mark)

    @app.get("/")
    async def show(session: CurrentSession, user_id: CurrentUser) -> dict[str, Any]:
        return dict(session)

    refused = shop.get("/", headers=BROWSER)
    assert (refused.status_code, refused.headers["x-marked"]) == (303, "yes")
    shop.log_in()
    assert shop.get("/").json() == ({"marked": True} if is_inside else {})


# --- guards -----------------------------------------------------------------------------------------------------------


def guarded_by_parameter(app: FastAPI) -> None:
    @app.get("/guarded")
    async def show(user_id: CurrentUser) -> str:
        return user_id


def guarded_in_a_thread(app: FastAPI) -> None:
    @app.get("/guarded")
    def show(user_id: CurrentUser) -> str:
        return user_id


def guarded_by_route(app: FastAPI) -> None:
    @app.get("/guarded", dependencies=[RequireLogin()])
    async def show(session: CurrentSession) -> str | None:
        return session.user_id


def guarded_by_depends(app: FastAPI) -> None:
    """As users of FastAPI may write it, although it is a dependency already."""

    @app.get("/guarded", dependencies=[Depends(RequireLogin)])
    async def guarded() -> str:
        return "alice"


def guarded_by_router(app: FastAPI) -> None:
    router = APIRouter(dependencies=[RequireLogin()])

    @router.get("/guarded")
    async def show(user_id: OptionalUser) -> str | None:
        return user_id

    app.include_router(router)


def guarded_by_another_dependency(app: FastAPI) -> None:
    async def name_of(user_id: CurrentUser) -> str:
        return user_id

    @app.get("/guarded")
    async def show(name: Annotated[str, Depends(name_of)]) -> str:
        return name


def guarded_by_recent_login(app: FastAPI) -> None:
    @app.get("/guarded")
    async def show(user_id: Annotated[str, RequireRecentLogin(within=RECENT)]) -> str:
        return user_id


def guarded_by_recent_login_of_router(app: FastAPI) -> None:
    router = APIRouter()

    @router.get("/guarded")
    async def show(user_id: OptionalUser) -> str | None:
        return user_id

    app.include_router(router, dependencies=[RequireRecentLogin(within=RECENT)])


GUARDS = [
    guarded_by_parameter,
    guarded_in_a_thread,
    guarded_by_route,
    guarded_by_depends,
    guarded_by_router,
    guarded_by_another_dependency,
    guarded_by_recent_login,
    guarded_by_recent_login_of_router,
]


@pytest.mark.parametrize("load", ["eager", "lazy"])
@pytest.mark.parametrize("guard", GUARDS)
def test_a_guarded_operation_is_reached_only_after_a_login(guard: Any, load: str) -> None:
    shop = Shop(login_path="/login", load=load)
    guard(shop.app)
    refused = shop.get("/guarded", headers=PROGRAM)
    assert (refused.status_code, refused.json()["error"]) == (401, "login_required")
    sent_away = shop.get("/guarded?a=1", headers=BROWSER)
    assert (sent_away.status_code, sent_away.headers["location"]) == (303, "/login?next=%2Fguarded%3Fa%3D1")
    shop.log_in()
    assert shop.get("/guarded").json() == "alice"


async def _user_by_union(user: CurrentUser | None = None) -> str | None:
    return user


async def _user_by_default(user: str = CurrentUser) -> str:  # type: ignore[assignment]
    return user


async def _user_by_function(user: Annotated[str, RequireLogin]) -> str:
    return user


async def _session_by_union(session: Annotated[Any, Depends(current_session)] | str = "") -> str:
    return str(session)


async def _user_of_another(user: Annotated[str | None, Depends(_user_by_union)]) -> str | None:
    return user


MISTAKES = [_user_by_union, _user_by_default, _user_by_function, _session_by_union, _user_of_another]


def _serve_in_router(app: FastAPI, endpoint: Any) -> None:
    router = APIRouter(prefix="/deep")
    router.get("/mistake")(endpoint)
    app.include_router(router)


def _serve_in_mounted(app: FastAPI, endpoint: Any) -> None:
    mounted = FastAPI()
    mounted.get("/mistake")(endpoint)
    app.mount("/deep", mounted)


def _serve_by_websocket(app: FastAPI, endpoint: Any) -> None:
    app.websocket("/mistake")(endpoint)


def _serve(app: FastAPI, endpoint: Any) -> None:
    app.get("/mistake")(endpoint)


@pytest.mark.parametrize("serve", [_serve, _serve_in_router, _serve_in_mounted, _serve_by_websocket])
@pytest.mark.parametrize("endpoint", MISTAKES)
def test_an_application_does_not_start_that_would_let_clients_say_who_they_are(endpoint: Any, serve: Any) -> None:
    """FastAPI reads what is no dependency to it from the query: `GET /mistake?user=admin`."""
    shop = Shop()
    serve(shop.app, endpoint)
    with pytest.raises(ConfigurationError, match=r"mistake: FastAPI would let clients say what '(user|session)' is"):
        shop.get("/mistake?user=admin")
    with pytest.raises(ConfigurationError), TestClient(shop.app):
        pass


def test_without_a_login_page_browsers_get_401_too(shop: Shop) -> None:
    guarded_by_parameter(shop.app)
    assert shop.get("/guarded", headers=BROWSER).json() == {"error": "login_required", "message": "Log in first"}


@pytest.mark.parametrize("guard", [guarded_by_recent_login, guarded_by_recent_login_of_router])
def test_a_login_of_long_ago_is_not_enough_where_a_recent_one_is_asked_for(guard: Any) -> None:
    clock = ManualClock()
    shop = Shop(new_sessions(clock=clock))
    guard(shop.app)
    shop.log_in()
    clock.advance(RECENT + timedelta(seconds=1))
    refused = shop.get("/guarded")
    assert (refused.status_code, refused.json()["error"]) == (401, "recent_login_required")
    shop.log_in()
    assert shop.get("/guarded").json() == "alice"


def test_two_guards_of_one_operation_both_hold() -> None:
    clock = ManualClock()
    shop = Shop(new_sessions(clock=clock))

    @shop.app.get("/")
    async def show(
        user_id: CurrentUser,
        lately: Annotated[str, RequireRecentLogin(within=RECENT)],
        just_now: Annotated[str, RequireRecentLogin(within=timedelta(minutes=1))],
    ) -> list[str]:
        return [user_id, lately, just_now]

    shop.log_in()
    assert shop.get("/").json() == ["alice", "alice", "alice"]
    clock.advance(timedelta(minutes=2))
    assert shop.get("/").json()["error"] == "recent_login_required"


def test_guards_are_equal_only_if_they_demand_the_same() -> None:
    short, long = timedelta(minutes=1), timedelta(minutes=10)
    assert RequireLogin().dependency == current_user
    assert RequireRecentLogin(within=short).dependency == RequireRecentLogin(within=short).dependency
    assert RequireRecentLogin(within=short).dependency != RequireRecentLogin(within=long).dependency
    assert RequireRecentLogin(within=short).dependency != current_user


def test_who_is_not_logged_in_is_none_where_that_is_allowed(shop: Shop) -> None:
    @shop.app.get("/")
    async def show(user_id: OptionalUser) -> str | None:
        return user_id

    assert shop.get("/").json() is None
    shop.log_in()
    assert shop.get("/").json() == "alice"


def test_an_error_raised_in_a_handler_or_a_generator_is_answered_alike(shop: Shop) -> None:
    async def setting_up(session: CurrentSession) -> AsyncIterator[None]:
        if "broken" not in session:
            raise LoginRequired
        yield

    @shop.app.get("/generator")
    async def show(_: Annotated[None, Depends(setting_up)]) -> None: ...

    @shop.app.get("/handler")
    def fail() -> None:
        raise LoginRequired

    for path in ("/generator", "/handler"):
        assert (shop.get(path).status_code, shop.get(path).json()["error"]) == (401, "login_required")


def test_dependencies_can_be_overridden_in_tests(shop: Shop) -> None:
    @shop.app.get("/user")
    async def show(user_id: CurrentUser) -> str:
        return user_id

    @shop.app.get("/recent")
    async def show_recent(user_id: Annotated[str, RequireRecentLogin(within=RECENT)]) -> str:
        return user_id

    recent = RequireRecentLogin(within=RECENT).dependency
    assert recent is not None
    shop.app.dependency_overrides = {current_user: lambda: "bob", recent: lambda: "carol"}
    assert (shop.get("/user").json(), shop.get("/recent").json()) == ("bob", "carol")
    shop.app.dependency_overrides = {}
    assert (shop.get("/user").status_code, shop.get("/recent").status_code) == (401, 401)


def test_an_overridden_session_is_what_guards_look_at(shop: Shop) -> None:
    async def session_of_bob() -> AsyncIterator[Session]:
        async with shop.sessions.open() as session:
            session.login("bob")
            yield session

    guarded_by_parameter(shop.app)
    shop.app.dependency_overrides = {current_session: session_of_bob}
    assert shop.get("/guarded").json() == "bob"


def test_other_errors_of_the_application_are_left_to_it(shop: Shop) -> None:
    @shop.app.get("/")
    async def show() -> None:
        raise HTTPException(401, "mine")

    assert shop.get("/").json() == {"detail": "mine"}


# --- WebSockets -------------------------------------------------------------------------------------------------------


def with_sockets(shop: Shop) -> Shop:
    @shop.app.websocket("/ws")
    async def greet(websocket: WebSocket, session: CurrentSession, user_id: CurrentUser) -> None:
        await websocket.accept()
        session.increment("greetings")
        await websocket.send_text(user_id)
        revoked = asyncio.create_task(session.revoked())
        await revoked
        await websocket.close(4401, "ended")

    @shop.app.websocket("/guarded", dependencies=[RequireRecentLogin(within=RECENT)])
    async def greet_guarded(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    @shop.app.get("/devices")
    async def devices(session: CurrentSession) -> list[str]:
        return [session.handle, str(session.get("greetings"))]

    @shop.app.post("/end/{handle}")
    async def end(handle: str) -> bool:
        return await shop.sessions.revoke(handle)

    return shop


@pytest.mark.parametrize("path", ["/ws", "/guarded"])
def test_a_guard_refuses_the_handshake_of_a_stranger(shop: Shop, path: str) -> None:
    with_sockets(shop)
    with pytest.raises(WebSocketDisconnect) as refused, shop.client.websocket_connect(path):
        pass
    assert refused.value.code == 1008


def test_over_http_a_websocket_is_guarded_and_closed_when_its_session_ends(tmp_path: Path) -> None:
    shop = with_sockets(Shop(new_sessions(f"sqlite:///{tmp_path}/sessions.sqlite3"), csrf=True))
    with serve_asgi(shop.app) as url, httpx.Client(base_url=url) as client:
        address = url.replace("http", "ws") + "/ws"
        with pytest.raises(InvalidStatus) as refused, connect(address):
            pass
        assert refused.value.response.status_code == 403
        client.post("/login")
        cookie = {"cookie": f"session={client.cookies['session']}"}
        with (
            pytest.raises(InvalidStatus),
            connect(address, additional_headers={**cookie, "origin": "http://evil.test"}),
        ):
            pass
        with connect(address, additional_headers=cookie) as websocket:
            assert websocket.recv(10) == "alice"
            handle, greetings = client.get("/devices").json()
            assert greetings == "1"
            with httpx.Client(base_url=url) as administrator:
                assert administrator.post(f"/end/{handle}").json() is True
            with pytest.raises(Exception, match="4401"):
                websocket.recv(10)


# --- sub-applications -------------------------------------------------------------------------------------------------


def mounted_by_the_application(app: FastAPI, mounted: FastAPI) -> None:
    app.mount("/sub", mounted)


def mounted_by_a_router(app: FastAPI, mounted: FastAPI) -> None:
    router = APIRouter()
    router.mount("/sub", mounted)
    app.include_router(router)


def mounted_in_starlette(app: FastAPI, mounted: FastAPI) -> None:
    app.mount("/", Starlette(routes=[Mount("/sub", app=mounted)]))


@pytest.mark.parametrize("mount", [mounted_by_the_application, mounted_by_a_router, mounted_in_starlette])
def test_a_mounted_application_is_guarded_and_described_alike(mount: Any) -> None:
    shop = Shop(login_path="/login")
    mounted = FastAPI()
    guarded_by_parameter(mounted)

    @mounted.get("/save")
    async def save(session: CurrentSession) -> None:
        raise StoreUnavailable

    mount(shop.app, mounted)
    assert shop.get("/sub/guarded", headers=PROGRAM).json()["error"] == "login_required"
    assert shop.get("/sub/guarded", headers=BROWSER).headers["location"] == "/login?next=%2Fsub%2Fguarded"
    assert (shop.get("/sub/save").status_code, shop.get("/sub/save").headers["retry-after"]) == (503, "5")
    shop.log_in()
    assert shop.get("/sub/guarded").json() == "alice"
    document = shop.openapi("/sub/openapi.json")
    assert document["components"]["securitySchemes"]["SessionCookie"]["name"] == "session"
    assert "401" in document["paths"]["/guarded"]["get"]["responses"]


# --- outages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", ["load", "update"])
@pytest.mark.parametrize("load", ["eager", "lazy"])
def test_an_outage_is_503_with_retry_after(down: Any, load: str, caplog: pytest.LogCaptureFixture) -> None:
    store = FailingStore()
    shop = Shop(new_sessions(store), load=load)

    @shop.app.get("/")
    async def visit(session: CurrentSession, user_id: CurrentUser) -> int:
        return session.increment("visits")

    shop.log_in()
    store.fail(down)
    with caplog.at_level(logging.ERROR, "coatcheck"):
        response = shop.get("/")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert "set-cookie" not in response.headers
    assert len(caplog.records) == 1
    store.recover()
    assert shop.get("/").json() == 1


def test_where_a_route_goes_on_without_the_store_a_guard_still_lets_nobody_pass() -> None:
    store = FailingStore()
    shop = Shop(new_sessions(store), while_down={"/": "continue"}, login_path="/login")
    guarded_by_parameter(shop.app)

    @shop.app.get("/products")
    async def products(user_id: OptionalUser) -> str | None:
        return user_id

    shop.log_in()
    store.fail("load")
    assert (shop.get("/products").status_code, shop.get("/products").json()) == (200, None)
    assert shop.get("/guarded", headers=BROWSER).status_code == 503


# --- CSRF -------------------------------------------------------------------------------------------------------------


def test_changes_need_the_token_where_it_is_asked_for_and_forms_still_reach_their_handler() -> None:
    app = FastAPI()
    app.post("/login")(log_in)

    @app.get("/token")
    async def token(session: CurrentSession) -> str:
        return csrf_token(session)

    @app.post("/change")
    async def change(session: CurrentSession, user_id: CurrentUser, colour: Annotated[str, Form()]) -> str:
        session["colour"] = colour
        return colour

    add_sessions(app, new_sessions(), csrf=True)
    client = TestClient(app)
    assert client.post("/change", data={"colour": "green"}).status_code == 401
    client.post("/login")
    assert client.post("/change", data={"colour": "green"}).status_code == 403
    right = client.get("/token").json()
    assert client.post("/change", data={"colour": "green", "csrf_token": right}).json() == "green"
    assert client.post("/change", data={"colour": "blue"}, headers={"x-csrf-token": right}).json() == "blue"


# --- the OpenAPI document ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize(("cookie", "name"), [(PLAIN, "session"), (CookieConfig(name="sid"), "__Host-sid")])
def test_a_guarded_operation_shows_the_cookie_it_needs_and_its_401(guard: Any, cookie: CookieConfig, name: str) -> None:
    shop = Shop(new_sessions(cookie=cookie))
    guard(shop.app)
    document = shop.openapi()
    assert document["components"]["securitySchemes"] == {
        "SessionCookie": {"type": "apiKey", "in": "cookie", "name": name}
    }
    operation = document["paths"]["/guarded"]["get"]
    assert operation["security"] == [{"SessionCookie": []}]
    schema = operation["responses"]["401"]["content"]["application/json"]["schema"]
    assert set(schema["required"]) == {"error", "message"}
    assert schema["properties"]["error"]["enum"] == ["login_required", "recent_login_required"]
    assert "parameters" not in operation
    assert set(document["paths"]["/login"]["post"]["responses"]) == {"200"}
    assert "security" not in document["paths"]["/login"]["post"]


def test_applications_of_one_process_show_each_its_own_cookie() -> None:
    shops = [Shop(new_sessions(cookie=CookieConfig(name=name))) for name in ("one", "two")]
    for shop in shops:
        guarded_by_parameter(shop.app)
    names = [shop.openapi()["components"]["securitySchemes"]["SessionCookie"]["name"] for shop in shops]
    assert names == ["__Host-one", "__Host-two"]


def test_a_document_without_guards_is_left_as_it_is(shop: Shop) -> None:
    assert "components" not in shop.openapi()


def test_routes_that_come_later_are_described_too(shop: Shop) -> None:
    shop.openapi()
    guarded_by_parameter(shop.app)
    shop.app.openapi_schema = None
    assert "401" in shop.openapi()["paths"]["/guarded"]["get"]["responses"]


def test_the_applications_own_description_and_other_schemes_are_kept() -> None:
    app = FastAPI()

    @app.get("/guarded", responses={401: {"description": "Mine"}})
    async def show(user_id: CurrentUser) -> str:
        return user_id

    def own() -> dict[str, Any]:
        document: dict[str, Any] = get_openapi(title="Own", version="1", routes=app.routes)
        document["components"]["securitySchemes"]["Other"] = {"type": "http", "scheme": "basic"}
        return document

    app.openapi = own  # type: ignore[method-assign]
    document = Shop(app=app).openapi()
    assert document["paths"]["/guarded"]["get"]["responses"]["401"] == {"description": "Mine"}
    assert document["components"]["securitySchemes"]["Other"] == {"type": "http", "scheme": "basic"}
    assert document["components"]["securitySchemes"]["SessionCookie"]["name"] == "session"
    assert document["info"]["title"] == "Own"


# --- lifespan ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_lifespan", [True, False])
def test_the_store_is_closed_when_the_application_has_shut_down(has_lifespan: bool) -> None:
    happened: list[str] = []

    class Watched(MemoryStore):
        async def close(self) -> None:
            happened.append("store closed")
            await super().close()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        happened.append("started")
        yield
        happened.append("stopped")

    shop = Shop(new_sessions(Watched()), app=FastAPI(lifespan=lifespan) if has_lifespan else FastAPI())
    with shop.client:
        shop.log_in()
        assert "store closed" not in happened
    assert happened == (["started", "stopped"] if has_lifespan else []) + ["store closed"]


@pytest.fixture
def redis_url(running_servers: dict[str, Server]) -> str:
    return next(iter(running_servers.values())).url


def test_over_http_with_redis_a_login_leads_to_the_guarded_page_and_a_logout_away(redis_url: str) -> None:
    shop = Shop(new_sessions(redis_url), login_path="/login")
    guarded_by_router(shop.app)

    @shop.app.post("/logout")
    def logout(session: CurrentSession) -> None:
        session.logout()

    with serve_asgi(shop.app) as url, httpx.Client(base_url=url) as client:
        assert client.get("/guarded", headers=BROWSER).headers["location"] == "/login?next=%2Fguarded"
        client.post("/login")
        stolen = client.cookies["session"]
        assert client.get("/guarded").json() == "alice"
        client.post("/logout")
        assert "session" not in client.cookies
        assert client.get("/guarded", headers=PROGRAM).status_code == 401
        assert httpx.get(f"{url}/guarded", headers={**PROGRAM, "cookie": f"session={stolen}"}).status_code == 401
