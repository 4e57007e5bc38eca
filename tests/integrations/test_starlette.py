"""The adapter to Starlette: what an application gets from one call, and what its guards answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from jinja2 import DictLoader, Environment
from serving import serve_asgi
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware as SignedCookieMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute
from starlette.templating import Jinja2Templates
from starlette.websockets import WebSocket, WebSocketDisconnect
from starlette_client import TestClient, WebSocketDenialResponse

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.guard import require_login as user_of
from coatcheck.integrations.starlette import (
    add_sessions,
    login_required,
    recent_login_required,
    session_of,
    template_context,
)
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing import FailingStore, ManualClock

KEY = "a secret key for tests, 32 bytes or more"
PROGRAM = {"accept": "application/json"}
BROWSER = {"accept": "text/html", "sec-fetch-mode": "navigate"}


def new_sessions(store: Any = "memory://", **settings: Any) -> Sessions:
    return Sessions(store, secret_keys=[KEY], cookie=CookieConfig(secure=False), **settings)


def client_of(app: Any) -> TestClient:
    return TestClient(app, follow_redirects=False)


async def log_in(request: Request) -> Response:
    session_of(request).login("alice")
    return PlainTextResponse("welcome")


async def whoami(request: Request) -> Response:
    return PlainTextResponse(user_of(session_of(request)))


async def count(request: Request) -> Response:
    return PlainTextResponse(str(session_of(request).increment("visits")))


ROUTES = [Route("/login", log_in, methods=["POST"]), Route("/whoami", whoami), Route("/count", count)]


def new_app(sessions: Sessions | None = None, *routes: Any, **options: Any) -> Starlette:
    app = Starlette(routes=[*ROUTES, *routes])
    add_sessions(app, new_sessions() if sessions is None else sessions, **options)
    return app


def logged_in(app: Any) -> TestClient:
    client = client_of(app)
    assert client.post("/login").status_code == 200
    return client


# --- setting up -------------------------------------------------------------------------------------------------------


def test_one_call_gives_requests_their_session() -> None:
    client = client_of(new_app())
    assert [client.get("/count").text for _ in range(3)] == ["1", "2", "3"]


@pytest.mark.parametrize("middleware", [[], [Middleware(SignedCookieMiddleware, secret_key=KEY)]])
def test_a_request_without_a_session_of_ours_is_told_what_is_missing(middleware: list[Middleware]) -> None:
    client = client_of(Starlette(routes=ROUTES, middleware=middleware))
    with pytest.raises(ConfigurationError, match="add_sessions"):
        client.get("/count")


@pytest.mark.parametrize("login_path", ["login", "//evil.test", "https://evil.test/login"])
def test_a_login_page_of_another_site_is_refused_when_the_application_is_made(login_path: str) -> None:
    with pytest.raises(ConfigurationError, match="login_path"):
        add_sessions(Starlette(), new_sessions(), login_path=login_path)


def test_sessions_that_are_added_twice_are_refused_when_the_application_is_made() -> None:
    app = new_app()
    with pytest.raises(ConfigurationError, match="add_sessions was called twice"):
        add_sessions(app, new_sessions())


@pytest.mark.parametrize(
    "option",
    [
        {"while_down": {"/": "contineu"}},
        {"load": "never"},
        {"csrf_exempt": "/hooks"},
        {"trusted_origins": ["shop.test"]},
    ],
)
def test_a_setting_that_can_not_work_is_refused_before_the_application_runs(option: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        add_sessions(Starlette(), Sessions("memory://", secret_keys=[KEY]), **option)


class Counting(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Callable[..., Any]) -> Response:
        has_session = "session" in request.scope
        if has_session:
            session_of(request).increment("seen")
        response: Response = await call_next(request)
        response.headers["x-session"] = str(has_session)
        return response


async def seen(request: Request) -> Response:
    return JSONResponse(dict(session_of(request)))


@pytest.mark.parametrize("is_there_before", [True, False])
def test_middleware_that_is_there_before_may_use_the_session_and_what_comes_later_is_outside(
    is_there_before: bool,
) -> None:
    app = Starlette(routes=[Route("/", seen)], middleware=[Middleware(Counting)] if is_there_before else [])
    add_sessions(app, new_sessions())
    if not is_there_before:
        app.add_middleware(Counting)
    client = client_of(app)
    client.get("/")
    response = client.get("/")
    assert response.json() == ({"seen": 2} if is_there_before else {})
    assert response.headers["x-session"] == str(is_there_before)


def test_changes_of_a_sync_endpoint_are_stored() -> None:
    def sync_count(request: Request) -> Response:
        return PlainTextResponse(str(session_of(request).increment("visits")))

    client = client_of(new_app(None, Route("/sync", sync_count)))
    assert [client.get("/sync").text for _ in range(2)] == ["1", "2"]


# --- lifespan ---------------------------------------------------------------------------------------------------------


class ClosedStore(MemoryStore):
    """Notes when it is closed."""

    def __init__(self, happened: list[str]) -> None:
        super().__init__()
        self.happened = happened

    async def close(self) -> None:
        self.happened.append("store closed")
        await super().close()


def test_the_store_is_closed_at_shutdown_without_a_lifespan() -> None:
    happened: list[str] = []
    with client_of(new_app(new_sessions(ClosedStore(happened)))) as client:
        assert client.get("/count").text == "1"
        assert happened == []
    assert happened == ["store closed"]


def test_the_store_is_closed_after_the_applications_own_lifespan_and_its_state_is_kept() -> None:
    happened: list[str] = []
    sessions = new_sessions(ClosedStore(happened))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, str]]:
        happened.append("started")
        yield {"colour": "green"}
        async with sessions.open() as session:
            session["goodbye"] = True
        happened.append("stopped")

    async def colour(request: Request) -> Response:
        session_of(request)["colour"] = request.state.colour
        return PlainTextResponse(session_of(request)["colour"])

    app = Starlette(routes=[Route("/", colour)], lifespan=lifespan)
    add_sessions(app, sessions)
    with client_of(app) as client:
        assert client.get("/").text == "green"
    assert happened == ["started", "stopped", "store closed"]


def test_an_application_that_fails_to_start_still_closes_nothing_twice_and_says_why() -> None:
    happened: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        message = "no database"
        raise OSError(message)
        yield

    app = Starlette(lifespan=lifespan)
    add_sessions(app, new_sessions(ClosedStore(happened)))
    with pytest.raises(OSError, match="no database"), client_of(app):
        pass
    assert happened == []


# --- what is answered where nobody is logged in -----------------------------------------------------------------------


def test_a_program_gets_401_and_json() -> None:
    response = client_of(new_app(login_path="/login")).get("/whoami", headers=PROGRAM)
    assert (response.status_code, response.json()["error"]) == (401, "login_required")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["vary"] == "Cookie"


def test_a_browser_is_sent_to_the_login_page_and_told_where_it_came_from() -> None:
    response = client_of(new_app(login_path="/login")).get("/whoami?page=2", headers=BROWSER)
    assert (response.status_code, response.headers["location"]) == (303, "/login?next=%2Fwhoami%3Fpage%3D2")


@pytest.mark.parametrize("headers", [BROWSER, PROGRAM, {}])
def test_where_there_is_no_login_page_everybody_gets_401(headers: dict[str, str]) -> None:
    response = client_of(new_app()).get("/whoami", headers=headers)
    assert (response.status_code, response.json()["error"]) == (401, "login_required")


def test_the_applications_own_answer_comes_first() -> None:
    from coatcheck.errors import LoginRequired

    async def teapot(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse("", 418)

    app = Starlette(routes=ROUTES, exception_handlers={LoginRequired: teapot})
    add_sessions(app, new_sessions())
    assert client_of(app).get("/whoami").status_code == 418


def test_who_is_logged_in_passes() -> None:
    assert logged_in(new_app(csrf=False)).get("/whoami").text == "alice"


# --- decorators -------------------------------------------------------------------------------------------------------


@login_required
async def guarded_async(request: Request) -> Response:
    return PlainTextResponse(str(session_of(request).user_id))


@login_required
def guarded_sync(request: Request) -> Response:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()  # it has a thread of its own, where it may wait
    return PlainTextResponse(str(session_of(request).user_id))


class GuardedClass(HTTPEndpoint):
    @login_required
    async def get(self, request: Request) -> Response:
        return PlainTextResponse(str(session_of(request).user_id))

    async def post(self, _request: Request) -> Response:
        return PlainTextResponse("open")


@pytest.mark.parametrize("load", ["eager", "lazy"])
@pytest.mark.parametrize("endpoint", [guarded_async, guarded_sync, GuardedClass])
def test_a_guarded_endpoint_is_reached_only_after_a_login(endpoint: Any, load: str) -> None:
    async def log_in_lazily(request: Request) -> Response:
        await session_of(request).load()
        return await log_in(request)

    routes = [Route("/guarded", endpoint), Route("/log-in", log_in_lazily, methods=["POST"])]
    client = client_of(new_app(None, *routes, load=load))
    assert client.get("/guarded").status_code == 401
    client.post("/log-in")
    response = client.get("/guarded")
    assert (response.status_code, response.text) == (200, "alice")


def test_of_a_class_only_the_guarded_method_is_guarded() -> None:
    assert client_of(new_app(None, Route("/guarded", GuardedClass))).post("/guarded").text == "open"


def test_a_guarded_endpoint_keeps_its_name() -> None:
    assert guarded_async.__name__ == "guarded_async"


def test_an_endpoint_that_takes_no_request_can_not_be_guarded() -> None:
    @login_required
    async def blind() -> Response:
        return PlainTextResponse("")

    async def call(_request: Request) -> Response:
        return await blind()

    with pytest.raises(ConfigurationError, match="needs the request"):
        client_of(new_app(None, Route("/", call))).get("/")


def test_a_login_of_long_ago_is_not_enough_where_a_recent_one_is_asked_for() -> None:
    @recent_login_required(within=timedelta(minutes=10))
    async def password(request: Request) -> Response:
        return PlainTextResponse(str(session_of(request).user_id))

    clock = ManualClock()
    client = logged_in(new_app(new_sessions(clock=clock), Route("/password", password), login_path="/login"))
    assert client.get("/password").text == "alice"
    clock.advance(timedelta(minutes=11))
    refused = client.get("/password", headers=PROGRAM)
    assert (refused.status_code, refused.json()["error"]) == (401, "recent_login_required")
    assert client.get("/password", headers=BROWSER).headers["location"] == "/login?next=%2Fpassword"
    assert client.get("/whoami").text == "alice"


# --- WebSockets -------------------------------------------------------------------------------------------------------


@login_required
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(str(session_of(websocket).user_id))
    await websocket.close()


class Echo(WebSocketEndpoint):
    @login_required
    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(session_of(websocket).user_id))
        await websocket.close()


async def plain(websocket: WebSocket) -> None:
    user_of(session_of(websocket))
    await echo(websocket)


SOCKETS: list[Any] = [echo, Echo, plain]


def greeting(client: TestClient, path: str) -> str:
    with client.websocket_connect(path) as websocket:
        return websocket.receive_text()


@pytest.mark.parametrize("is_mounted", [False, True])
@pytest.mark.parametrize("endpoint", SOCKETS)
def test_a_guarded_websocket_refuses_the_handshake_of_strangers(endpoint: Any, is_mounted: bool) -> None:
    route = WebSocketRoute("/ws", endpoint)
    app = new_app(None, Mount("/sub", app=Starlette(routes=[route])) if is_mounted else route)
    path = "/sub/ws" if is_mounted else "/ws"
    with pytest.raises(WebSocketDisconnect) as refused:
        greeting(client_of(app), path)
    assert refused.value.code == 1008
    assert greeting(logged_in(app), path) == "alice"


# --- mounted applications ---------------------------------------------------------------------------------------------


async def save(request: Request) -> Response:
    session = session_of(request)
    await session.load()
    session.increment("visits")
    await session.save()
    return PlainTextResponse("saved")


def nested(routes: list[Any]) -> Starlette:
    return Starlette(routes=[Mount("/inner", app=Starlette(routes=routes))])


SUB_ROUTES = [Route("/whoami", whoami), Route("/count", count), Route("/save", save)]
MOUNTS: dict[str, Callable[[], BaseRoute]] = {
    "mount": lambda: Mount("/sub", app=Starlette(routes=SUB_ROUTES)),
    "routes": lambda: Mount("/sub", routes=SUB_ROUTES),
    "nested": lambda: Mount("/sub", routes=[Mount("/", app=nested(SUB_ROUTES))]),
    "host": lambda: Host("testserver", app=Starlette(routes=[Mount("/sub", app=Starlette(routes=SUB_ROUTES))])),
}


def sub_path(mount: str, name: str) -> str:
    return f"/sub/inner/{name}" if mount == "nested" else f"/sub/{name}"


@pytest.mark.parametrize("mount", MOUNTS)
def test_a_mounted_application_answers_like_the_one_around_it(mount: str) -> None:
    app = Starlette()
    add_sessions(app, new_sessions(), login_path="/login")
    app.router.routes.append(MOUNTS[mount]())  # after the call, which must not matter
    client = client_of(app)
    refused = client.get(sub_path(mount, "whoami"), headers=PROGRAM)
    assert (refused.status_code, refused.json()["error"]) == (401, "login_required")
    path = sub_path(mount, "whoami")
    assert client.get(path, headers=BROWSER).headers["location"] == f"/login?next={path.replace('/', '%2F')}"
    assert [client.get(sub_path(mount, "count")).text for _ in range(2)] == ["1", "2"]


@pytest.mark.parametrize("mount", [None, *MOUNTS])
@pytest.mark.parametrize(
    ("path", "load", "down"),
    [
        ("count", "eager", "load"),  # before the application runs
        ("count", "eager", "update"),  # when its response leaves
        ("save", "eager", "update"),  # in an endpoint
        ("save", "lazy", "load"),
    ],
)
def test_an_outage_is_503_wherever_it_is_met(
    mount: str | None, path: str, load: str, down: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = FailingStore()
    app = Starlette(routes=[*SUB_ROUTES] if mount is None else [MOUNTS[mount]()])
    options: dict[str, Any] = {"load": load}
    add_sessions(app, new_sessions(store), **options)
    client = client_of(app)
    path = f"/{path}" if mount is None else sub_path(mount, path)
    assert client.get(path).status_code == 200
    store.fail(down)
    with caplog.at_level(logging.ERROR, "coatcheck"):
        response = client.get(path)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert "set-cookie" not in response.headers
    assert [record.message for record in caplog.records] == [
        f"The store can't be used, so a request is answered by 503: the test made {down}() fail"
    ]


def test_a_mounted_websocket_that_meets_an_outage_is_refused_for_now() -> None:
    async def socket(websocket: WebSocket) -> None:
        await session_of(websocket).load()
        await websocket.accept()

    store = FailingStore()
    mounted = Starlette(routes=[WebSocketRoute("/ws", socket)])
    app = new_app(new_sessions(store), Mount("/sub", app=mounted), Route("/save", save), load="lazy")
    client = client_of(app)
    client.get("/save")
    store.fail("load")
    with pytest.raises(WebSocketDenialResponse) as refused:
        greeting(client, "/sub/ws")
    assert refused.value.status_code == 503


def test_an_outage_at_the_commit_is_503_although_a_handler_catches_all_network_errors() -> None:
    async def network_is_down(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse("", 502)

    store = FailingStore()
    app = Starlette(routes=ROUTES, exception_handlers={OSError: network_is_down})
    add_sessions(app, new_sessions(store))
    store.fail("create")
    response = client_of(app).get("/count")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


def test_a_mounted_applications_own_handlers_are_left_alone() -> None:
    async def teapot(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse("", 418)

    async def fail(_request: Request) -> Response:
        raise StoreUnavailable

    from coatcheck.errors import LoginRequired

    mounted = Starlette(
        routes=[Route("/whoami", whoami), Route("/fail", fail)],
        exception_handlers={LoginRequired: teapot, StoreUnavailable: teapot},
    )
    client = client_of(new_app(None, Mount("/sub", app=mounted)))
    assert [client.get(f"/sub/{path}").status_code for path in ("whoami", "fail")] == [418, 418]


# --- CSRF -------------------------------------------------------------------------------------------------------------


async def token(request: Request) -> Response:
    return PlainTextResponse(template_context(request)["csrf_token"]())


def test_a_change_needs_the_token_once_somebody_is_logged_in() -> None:
    client = logged_in(new_app(None, Route("/token", token), Route("/change", count, methods=["POST"]), csrf=True))
    assert client.post("/change").status_code == 403
    right = client.get("/token").text
    assert client.post("/change", headers={"x-csrf-token": right}).status_code == 200
    assert client.post("/change", data={"csrf_token": right}).status_code == 200
    assert client.post("/change", headers={"x-csrf-token": right[::-1]}).status_code == 403


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 403),
        ({"csrf": False}, 200),
        ({"csrf_exempt": ["/change"]}, 200),
        ({"csrf_exempt": ["/other"]}, 403),
        ({"trusted_origins": ["https://shop.example"]}, 200),
        ({"trusted_origins": ["https://other.example"]}, 403),
    ],
)
def test_what_another_site_sends_is_refused_unless_it_is_trusted(options: dict[str, Any], status: int) -> None:
    client = client_of(new_app(None, Route("/change", count, methods=["POST"]), **options))
    headers = {"origin": "https://shop.example", "sec-fetch-site": "cross-site"}
    assert client.post("/change", headers=headers).status_code == status


# --- templates --------------------------------------------------------------------------------------------------------


def test_templates_get_the_session_its_messages_and_the_csrf_field() -> None:
    source = (
        "{{ session.user_id }}|{{ session.visits }}|{% for flash in flashes() %}{{ flash.message }}{% endfor %}|"
        "{{ csrf_field() }}|{{ csrf_token() }}"
    )
    environment = Environment(loader=DictLoader({"page.html": source, "static.html": "same"}), autoescape=True)
    templates = Jinja2Templates(env=environment, context_processors=[template_context])

    async def page(request: Request) -> Response:
        if request.query_params:
            session_of(request).flash("Saved <it>.")
            session_of(request)["visits"] = 3
        return templates.TemplateResponse(request, "page.html")

    async def static(request: Request) -> Response:
        return templates.TemplateResponse(request, "static.html")

    client = logged_in(new_app(None, Route("/page", page), Route("/static", static)))
    user, visits, messages, field, shown = client.get("/page?flash=1").text.split("|")
    assert (user, visits, messages) == ("alice", "3", "Saved &lt;it&gt;.")
    assert field.startswith('<input type="hidden" name="csrf_token" value="')
    assert client.post("/login", headers={"x-csrf-token": shown}).status_code == 200
    assert client.get("/page").text.split("|")[2] == ""
    response = client.get("/static")
    assert (response.text, "vary" in response.headers) == ("same", False)


# --- a real server ----------------------------------------------------------------------------------------------------


def test_over_http_from_login_to_shutdown(tmp_path: Path) -> None:
    happened: list[str] = []
    sessions = new_sessions(f"sqlite:///{tmp_path}/sessions.sqlite3")
    close = sessions.store.close

    async def closed() -> None:
        happened.append("store closed")
        await close()

    sessions.store.close = closed  # type: ignore[method-assign]
    app = new_app(sessions, Mount("/sub", app=Starlette(routes=SUB_ROUTES)), login_path="/login", csrf=True)
    with serve_asgi(app) as url, httpx.Client(base_url=url) as client:
        assert client.get("/sub/whoami", headers=BROWSER).status_code == 303
        assert client.post("/login").status_code == 200
        assert client.get("/sub/whoami").text == "alice"
        assert client.post("/login").status_code == 403  # no token
        assert happened == []
    assert happened == ["store closed"]


def test_a_connection_without_a_session_says_what_to_call() -> None:
    with pytest.raises(ConfigurationError, match=r"no session of Coatcheck: call add_sessions"):
        session_of(HTTPConnection({"type": "http"}))


def test_starlettes_own_middleware_that_was_left_in_is_named() -> None:
    async def whoami(request: Request) -> Response:
        return PlainTextResponse(user_of(session_of(request)))

    app = Starlette(
        routes=[Route("/", whoami)], middleware=[Middleware(SignedCookieMiddleware, secret_key="left from before")]
    )
    add_sessions(app, Sessions("memory://", secret_keys=[KEY]))
    with pytest.raises(ConfigurationError, match=r"take out the middleware .* Starlette's SessionMiddleware"):
        TestClient(app).get("/")


@pytest.mark.parametrize("sessions", [SyncSessions("memory://", secret_keys=[KEY]), "memory://"])
def test_what_are_no_sessions_is_refused_by_the_call(sessions: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"add_sessions needs a Sessions object, got a (SyncSessions|str)"):
        add_sessions(Starlette(), sessions)
