"""The Litestar adapter: Litestar's idioms over our sessions, with Litestar's test client and a real server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from litestar import (
    Controller,
    Litestar,
    Request,
    Response,
    Router,
    WebSocket,
    asgi,
    get,
    post,
    websocket,
    websocket_listener,
)
from litestar.background_tasks import BackgroundTask
from litestar.config.csrf import CSRFConfig
from litestar.di import NamedDependency, Provide
from litestar.exceptions import WebSocketDisconnect
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Redirect, Stream, Template
from litestar.security.session_auth import SessionAuth
from litestar.template import TemplateConfig
from litestar.testing import AsyncTestClient, TestClient, create_test_client
from litestar.types import ASGIApp, Receive, Scope, Send
from serving import serve_asgi

from coatcheck import CookieConfig, Session, Sessions, SyncSessions
from coatcheck.csrf import csrf_token
from coatcheck.errors import ConfigurationError, LoginRequired, RecordTooLarge, SessionNotLoaded
from coatcheck.guard import require_login
from coatcheck.integrations.litestar import (
    CoatcheckPlugin,
    LoginGuard,
    get_session,
    login_required,
    recent_login_required,
)
from coatcheck.testing import FailingStore, ManualClock, logged_in
from coatcheck.typed import SessionSchema

KEY = "a secret key for tests, 32 bytes or more"
JSON = {"accept": "application/json"}
Injected = NamedDependency[Session]


class Site:
    """An application with the plugin, and a client that keeps cookies."""

    def __init__(self, **options: Any) -> None:
        self.store = FailingStore()
        self.clock = ManualClock()
        self.sessions = Sessions(
            self.store, secret_keys=[KEY], cookie=CookieConfig(secure=False), clock=self.clock, max_keys=20
        )
        self.plugin = CoatcheckPlugin(self.sessions, **options)

    @contextmanager
    def running(self, *handlers: Any, logged_in: bool = True, **options: Any) -> Iterator[TestClient[Litestar]]:
        app = Litestar([log_in, *handlers], plugins=[self.plugin], logging_config=None, **options)
        with TestClient(app, raise_server_exceptions=False) as client:
            client.follow_redirects = False
            if logged_in:
                assert client.post("/login").status_code == 201
                self.store.calls.clear()
            yield client

    async def _stored(self, cookie: str | None) -> dict[str, Any] | None:
        session = self.sessions.begin([] if cookie is None else [f"session={cookie}".encode()])
        await session.load()
        return None if session.is_new else session.copy()

    def stored(self, client: Any, cookie: str | None = None) -> dict[str, Any] | None:
        """Give what the store holds of a client's session."""
        found: dict[str, Any] | None = client.blocking_portal.call(
            self._stored, cookie or client.cookies.get("session")
        )
        return found


@post("/login")
async def log_in(session: Injected) -> None:
    session.login("alice")
    session["cart"] = ["book"]


@get("/")
async def read(session: Injected) -> dict[str, Any]:
    return session.copy()


@get("/write")
async def write(session: Injected) -> str:
    session["cart"].append("pen")
    return "ok"


@get("/ignore")
async def ignore() -> str:
    return "ok"


@get("/who", guards=[login_required])
async def who(session: Injected) -> str:
    return str(session.user_id)


@pytest.fixture
def site() -> Site:
    return Site()


# --- what every transport promises, through Litestar's layers ---------------------------------------------------------


def test_nested_changes_are_kept(site: Site) -> None:
    with site.running(read, write) as client:
        client.get("/write")
        assert client.get("/").json() == {"cart": ["book", "pen"]}


@pytest.mark.parametrize("path", ["/", "/ignore"])
def test_visitor_gets_no_cookie_and_asks_the_store_nothing(site: Site, path: str) -> None:
    with site.running(read, ignore, logged_in=False) as client:
        assert "set-cookie" not in client.get(path).headers
        assert site.store.calls == []


def test_response_that_does_not_depend_on_the_session_is_left_alone(site: Site) -> None:
    with site.running(ignore) as client:
        assert not {"vary", "cache-control", "set-cookie"} & set(client.get("/ignore").headers)


def test_redirect_after_a_login_is_stored_first(site: Site) -> None:
    @get("/enter")
    async def enter(session: Injected) -> Redirect:
        session.login("bob")
        return Redirect("/who", status_code=303)

    with site.running(enter, who, logged_in=False) as client:
        assert client.get("/enter").status_code == 303
        assert client.get("/who").text == "bob"


def test_failed_request_stores_nothing_but_the_end_of_the_session(site: Site) -> None:
    @get("/fail")
    async def fail(session: Injected) -> None:
        session["x"] = 1
        raise ZeroDivisionError

    @get("/leave")
    async def leave(session: Injected) -> None:
        session.destroy()
        raise ZeroDivisionError

    with site.running(fail, leave) as client:
        cookie = client.cookies["session"]
        assert client.get("/fail").status_code == 500
        assert site.stored(client) == {"cart": ["book"]}
        assert "Max-Age=0" in client.get("/leave").headers["set-cookie"]
        assert site.stored(client, cookie) is None


def test_ended_session_is_not_brought_back_by_a_request_under_way(site: Site) -> None:
    @get("/slow")
    async def slow(session: Injected) -> str:
        await site.sessions.revoke(session.handle)
        session["late"] = True
        return "ok"

    with site.running(slow) as client:
        cookie = client.cookies["session"]
        response = client.get("/slow")
        assert (response.status_code, response.text) == (200, "ok")
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert site.stored(client, cookie) is None


async def _chunks(session: Session) -> AsyncIterator[bytes]:
    for number in range(3):
        session.append("chunks", number)
        yield b"x"


def test_stream_stores_what_it_changes(site: Site) -> None:
    @get("/stream")
    async def stream(session: Injected) -> Stream:
        return Stream(_chunks(session))

    with site.running(stream) as client:
        assert client.get("/stream").content == b"xxx"
        assert (site.stored(client) or {})["chunks"] == [0, 1, 2]


@pytest.mark.anyio
async def test_parallel_requests_on_a_real_server_lose_no_update(site: Site) -> None:
    import asyncio

    @get("/count")
    async def count(session: Injected) -> int:
        session.increment("visits")
        return 0

    app = Litestar([log_in, count, read], logging_config=None, plugins=[site.plugin])
    with serve_asgi(app) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            await client.post("/login")
            await asyncio.gather(*(client.get("/count") for _ in range(20)))
            assert (await client.get("/")).json()["visits"] == 20


def test_shutdown_closes_the_store(site: Site) -> None:
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    site.store.close = close  # type: ignore[assignment]
    with site.running(ignore):
        assert closed == []
    assert closed == [True]


# --- errors of storing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", ["load", "update"])
@pytest.mark.parametrize("path", ["/write", "/save"])
def test_request_that_needs_the_store_is_answered_by_503(
    site: Site, fails: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    @get("/save")
    async def save(session: Injected) -> None:
        session["x"] = 1
        await session.save()

    with site.running(write, save) as client, caplog.at_level(logging.ERROR, "coatcheck"):
        site.store.fail(fails)
        response = client.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert "set-cookie" not in response.headers
        assert [
            "is answered by 503" in record.message for record in caplog.records if record.levelno == logging.ERROR
        ] == [True]
        site.store.recover()
        assert site.stored(client) == {"cart": ["book"]}


def test_error_of_storing_reaches_the_applications_exception_handlers(site: Site) -> None:
    @get("/many")
    async def many(session: Injected) -> None:
        session.update({str(number): number for number in range(30)})

    def explain(_: Request[Any, Any, Any], error: RecordTooLarge) -> Response[str]:
        return Response(type(error).__name__, status_code=422)

    handlers = cast("Any", {RecordTooLarge: explain})
    with site.running(many, exception_handlers=handlers) as client:
        response = client.get("/many")
        assert (response.status_code, response.text) == (422, "RecordTooLarge")
        assert site.stored(client) == {"cart": ["book"]}
    with Site().running(many) as client:
        assert client.get("/many").status_code == 500


def test_route_may_go_on_without_the_store() -> None:
    site = Site(while_down={"/look": "continue"})

    @get("/look")
    async def look(session: Injected) -> str:
        return f"{session.is_available} {session.user_id}"

    with site.running(look, who) as client:
        site.store.fail("load")
        assert client.get("/look").text == "False None"
        assert client.get("/who").status_code == 503


# --- the session in Litestar's hands ----------------------------------------------------------------------------------


def test_request_session_is_the_session_that_is_injected(site: Site) -> None:
    @get("/same")
    async def same(request: Request[Any, Any, Any], session: Injected) -> bool:
        return request.session is session

    with site.running(same) as client:
        assert client.get("/same").json() is True


def test_clear_session_logs_out(site: Site) -> None:
    @get("/leave")
    async def leave(request: Request[Any, Any, Any]) -> None:
        request.clear_session()

    with site.running(leave) as client:
        cookie = client.cookies["session"]
        assert "Max-Age=0" in client.get("/leave").headers["set-cookie"]
        assert site.stored(client, cookie) is None


@get("/stream-out")
async def leave_in_a_stream(request: Request[Any, Any, Any]) -> Stream:
    async def body() -> AsyncIterator[bytes]:
        yield b"still "
        request.clear_session()
        yield b"here"

    return Stream(body())


@get("/stream-out-and-fail")
async def leave_in_a_stream_that_fails(request: Request[Any, Any, Any]) -> Stream:
    async def body() -> AsyncIterator[bytes]:
        yield b"still here"
        request.clear_session()
        raise ZeroDivisionError

    return Stream(body())


@get("/leave-later")
async def leave_later(request: Request[Any, Any, Any]) -> Response[str]:
    async def later() -> None:
        request.clear_session()

    return Response("", background=BackgroundTask(later))


@get("/leave-and-fail")
async def leave_and_fail(request: Request[Any, Any, Any]) -> None:
    request.clear_session()
    raise ZeroDivisionError


@websocket("/socket-out")
async def leave_over_a_websocket(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    socket.clear_session()
    await socket.send_text("bye")
    await socket.close()


@pytest.mark.parametrize("load", ["eager", "lazy"])
@pytest.mark.parametrize(
    "path", ["/stream-out", "/stream-out-and-fail", "/leave-later", "/leave-and-fail", "/socket-out"]
)
def test_clear_session_logs_out_whenever_it_is_called(path: str, load: str) -> None:
    site = Site(load=load)
    leaving = (
        leave_in_a_stream, leave_in_a_stream_that_fails, leave_later, leave_and_fail, leave_over_a_websocket
    )  # fmt: skip
    with site.running(*leaving) as client:
        cookie = client.cookies["session"]
        if path == "/socket-out":
            with client.websocket_connect(path) as connection:
                assert connection.receive_text() == "bye"
        else:
            client.get(path)
        assert site.stored(client, cookie) is None


def test_what_set_session_replaces_over_a_websocket_is_stored_before_the_next_message(site: Site) -> None:
    @websocket("/socket")
    async def replace(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        socket.set_session({"x": 1})
        await socket.send_text("done")
        await socket.receive_text()

    with site.running(replace) as client, client.websocket_connect("/socket") as connection:
        assert connection.receive_text() == "done"
        assert site.stored(client) == {"x": 1}


@get("/bye")
async def bye(request: Request[Any, Any, Any]) -> Template:
    request.clear_session()
    session = await get_session(request)
    assert request.session is session
    return Template("form.html", context={"ours": session.user_id is not None})


def test_templates_and_guards_work_after_clear_session(templates: TemplateConfig[Any]) -> None:
    site = Site(csrf=False)
    with site.running(bye, template_config=templates) as client:
        cookie = client.cookies["session"]
        answer = client.get("/bye")
        assert (answer.status_code, answer.text[:14]) == (200, "<form></form>|")
        assert site.stored(client, cookie) is None


@pytest.mark.parametrize("load", ["eager", "lazy"])
def test_set_session_replaces_what_the_session_holds_and_nothing_else(load: str) -> None:
    site = Site(load=load)

    @get("/replace")
    async def replace(request: Request[Any, Any, Any]) -> None:
        request.set_session({"x": 1})

    with site.running(replace, who) as client:
        client.get("/replace")
        assert site.stored(client) == {"x": 1}
        assert client.get("/who").text == "alice"


def test_set_session_with_what_is_no_mapping_is_an_error_and_stores_nothing(site: Site) -> None:
    @get("/replace")
    async def replace(request: Request[Any, Any, Any]) -> None:
        request.set_session(cast("Any", 5))

    with site.running(replace) as client:
        assert client.get("/replace").status_code == 500
        assert site.stored(client) == {"cart": ["book"]}


@pytest.mark.parametrize("sync_to_thread", [False, True])
def test_handlers_without_await_use_the_session(site: Site, sync_to_thread: bool) -> None:
    @get("/sync", sync_to_thread=sync_to_thread)
    def sync(session: Injected) -> str:
        session["cart"].append("pen")
        return str(session.user_id)

    with site.running(sync) as client:
        assert client.get("/sync").text == "alice"
        assert site.stored(client) == {"cart": ["book", "pen"]}


def test_before_request_sees_the_session_and_may_answer(site: Site) -> None:
    async def only_alice(request: Request[Any, Any, Any]) -> Response[str] | None:
        session = await get_session(request)
        session.increment("seen")
        return None if session.user_id == "alice" else Response("no", status_code=403)

    with site.running(_before(only_alice)) as client:
        assert client.get("/before").status_code == 200
        assert (site.stored(client) or {})["seen"] == 1
        client.cookies.clear()
        assert client.get("/before").status_code == 403


def _before(hook: Any) -> Any:
    @get("/before", before_request=hook)
    async def before() -> str:
        return "ok"

    return before


def test_middlewares_of_the_application_see_the_session(site: Site) -> None:
    seen: list[str | None] = []

    def look(app: ASGIApp) -> ASGIApp:
        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append((await get_session(Request(cast("Any", scope)))).user_id)
            await app(scope, receive, send)

        return run

    with site.running(ignore, middleware=[look]) as client:
        client.get("/ignore")
    assert seen == [None, "alice"]


def test_lazy_session_is_loaded_when_it_is_asked_for() -> None:
    site = Site(load="lazy")

    @get("/raw")
    async def raw(request: Request[Any, Any, Any]) -> str:
        with pytest.raises(SessionNotLoaded):
            request.session.get("x")
        return "ok"

    with site.running(read, ignore, raw) as client:
        client.get("/ignore")
        assert client.get("/raw").status_code == 200
        assert site.store.calls == []
        assert client.get("/").json() == {"cart": ["book"]}


def test_sessions_of_different_names_stand_side_by_side(site: Site) -> None:
    admin = Sessions("memory://", secret_keys=[KEY], cookie=CookieConfig(name="admin", secure=False))

    @get("/both")
    async def both(session: Injected, admin_session: Injected) -> None:
        session["x"] = 1
        admin_session.login("root")

    @get("/admin", guards=[LoginGuard(name="admin_session")])
    async def only_admin(admin_session: Injected) -> str:
        return str(admin_session.user_id)

    plugins = [site.plugin, CoatcheckPlugin(admin, name="admin_session")]
    with create_test_client(
        [both, only_admin], logging_config=None, plugins=plugins, raise_server_exceptions=False
    ) as client:
        assert client.get("/admin", headers=JSON).status_code == 401
        client.get("/both")
        assert set(client.cookies) == {"session", "admin"}
        assert client.get("/admin").text == "root"


@pytest.mark.anyio
async def test_async_test_client_works(site: Site) -> None:
    async with AsyncTestClient(Litestar([log_in, who], logging_config=None, plugins=[site.plugin])) as client:
        await client.post("/login")
        assert (await client.get("/who")).text == "alice"


def test_what_would_be_in_each_others_way_is_refused_when_the_application_is_made(site: Site) -> None:
    with pytest.raises(ConfigurationError, match="dependency 'session'"):
        Litestar(
            [],
            logging_config=None,
            plugins=[site.plugin],
            dependencies={"session": Provide(dict, sync_to_thread=False)},
        )
    auth: SessionAuth[Any, Any] = SessionAuth(
        retrieve_user_handler=lambda *_: None, session_backend_config=ServerSideSessionConfig()
    )
    for others in ({"middleware": [ServerSideSessionConfig().middleware]}, {"on_app_init": [auth.on_app_init]}):
        with pytest.raises(ConfigurationError, match="own sessions"):
            Litestar([ignore], logging_config=None, plugins=[site.plugin], openapi_config=None, **cast("Any", others))
    with pytest.raises(ConfigurationError, match="needs a Sessions object"):
        CoatcheckPlugin(SyncSessions("memory://", secret_keys=[KEY]))  # type: ignore[arg-type]
    for options in (
        {"load": "never"},
        {"while_down": "x"},
        {"login_path": "//x"},
        {"csrf": True, "csrf_exempt": ["x"]},
    ):
        with pytest.raises(ConfigurationError):
            CoatcheckPlugin(site.sessions, **cast("Any", options))


@dataclass
class ShopSession:
    cart: list[str] = field(default_factory=list)


def test_typed_session_is_a_dependency_of_ones_own_and_the_public_helper_logs_in(site: Site) -> None:
    shop = SessionSchema(ShopSession)

    async def shop_session(session: Injected) -> ShopSession:
        return shop.of(session)

    @get("/add")
    async def add(visit: NamedDependency[ShopSession]) -> int:
        visit.cart.append("pen")
        return len(visit.cart)

    dependencies = {"visit": Provide(shop_session)}
    with site.running(add, logged_in=False, dependencies=dependencies) as client:
        logged_in(client, "alice", site.sessions, cart=["book"])
        assert client.get("/add").json() == 2
        assert site.stored(client) == {"cart": ["book", "pen"]}


def test_dependency_may_have_another_name(site: Site) -> None:
    @get("/other")
    async def other(claim: Injected) -> str:
        return str(claim.user_id)

    site = Site(dependency="claim")

    @post("/login")
    async def enter(claim: Injected) -> None:
        claim.login("alice")

    with create_test_client([enter, other], logging_config=None, plugins=[site.plugin]) as client:
        client.post("/login")
        assert client.get("/other").text == "alice"


@pytest.mark.anyio
async def test_session_without_the_plugin_is_an_error_that_says_so() -> None:
    request: Request[Any, Any, Any] = Request({"type": "http", "state": {}})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="CoatcheckPlugin"):
        await get_session(request)


# --- Litestar's response cache ----------------------------------------------------------------------------------------


def test_response_cache_keeps_nobodys_page_for_others(site: Site) -> None:
    @get("/mine", cache=True)
    async def mine(session: Injected) -> str:
        return str(session.user_id)

    @get("/all", cache=True)
    async def for_all() -> str:
        made.append(1)
        return "ok"

    made: list[int] = []
    with site.running(mine, for_all) as client:
        assert client.get("/mine").text == "alice"
        assert [client.get("/all").text for _ in range(2)] == ["ok", "ok"]
        assert made == [1]
        client.cookies.clear()
        assert client.get("/mine").text == "None"


def test_response_cache_keeps_no_stream_that_uses_a_session(site: Site) -> None:
    @get("/mine", cache=True)
    async def mine(request: Request[Any, Any, Any]) -> Stream:
        async def lines() -> AsyncIterator[str]:
            yield "This is "
            yield cast("Session", request.session).user_id or "nobody"

        return Stream(lines())

    @get("/all", cache=True)
    async def for_all() -> Stream:
        async def lines() -> AsyncIterator[str]:
            made.append("all")
            yield "hello"

        return Stream(lines())

    made: list[str] = []
    with site.running(mine, for_all) as client:
        assert client.get("/mine").text == "This is alice"
        assert client.get("/mine", headers={"cookie": "session=x"}).text != "This is alice"
        client.cookies.clear()
        assert client.get("/mine").text == "This is nobody"
        assert [client.get("/all").text for _ in range(2)] == ["hello", "hello"]
        assert made == ["all"]


def test_response_cache_holds_no_cookie(site: Site) -> None:
    @get("/all", cache=True)
    async def for_all() -> str:
        return "ok"

    with site.running(for_all) as client:
        assert "set-cookie" in client.get("/all", headers={"cookie": "session=forged"}).headers
        assert "set-cookie" not in client.get("/all").headers


# --- guards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", ["eager", "lazy"])
def test_guarded_handler_is_for_those_who_are_logged_in(load: str) -> None:
    site = Site(load=load)
    with site.running(who, logged_in=False) as client:
        browser = client.get("/who?x=1", headers={"accept": "text/html"})
        assert (browser.status_code, browser.headers["location"]) == (303, "/login?next=%2Fwho%3Fx%3D1")
        assert browser.headers["content-type"] == "text/plain; charset=utf-8"
        program = client.get("/who", headers=JSON)
        assert (program.status_code, program.json()["error"]) == (401, "login_required")
        assert program.headers["cache-control"] == "no-store"
        assert program.headers["content-type"] == "application/json"
        client.post("/login")
        assert client.get("/who").text == "alice"


def test_guard_of_a_router_and_of_a_controller_count(site: Site) -> None:
    class Account(Controller):
        path = "/account"
        guards = [login_required]  # noqa: RUF012 (as Litestar has it)

        @get("/")
        async def show(self) -> str:
            return "ok"

    @get("/a")
    async def inside() -> str:
        return "ok"

    with site.running(Account, Router("/private", route_handlers=[inside], guards=[login_required])) as client:
        assert [client.get(path).status_code for path in ("/account", "/private/a")] == [200, 200]
        client.cookies.clear()
        assert [client.get(path, headers=JSON).status_code for path in ("/account", "/private/a")] == [401, 401]


def test_recent_login_is_asked_for_again() -> None:
    @get("/password", guards=[recent_login_required(timedelta(minutes=10))])
    async def password() -> str:
        return "ok"

    site = Site(login_path="/enter")
    with site.running(password) as client:
        assert client.get("/password").status_code == 200
        site.clock.advance(timedelta(minutes=11))
        assert client.get("/password").headers["location"] == "/enter?next=%2Fpassword"
        assert client.get("/password", headers=JSON).json()["error"] == "recent_login_required"


def test_login_that_a_handler_requires_is_answered_alike(site: Site) -> None:
    @get("/handler")
    async def handler(session: Injected) -> str:
        return require_login(session)

    with site.running(handler, logged_in=False) as client:
        assert client.get("/handler").status_code == 303
        assert client.get("/handler", headers=JSON).status_code == 401


def test_application_may_answer_otherwise_for_those_who_are_not_logged_in(site: Site) -> None:
    def hide(_: Request[Any, Any, Any], __: LoginRequired) -> Response[str]:
        return Response("nothing here", status_code=404)

    with site.running(who, logged_in=False, exception_handlers=cast("Any", {LoginRequired: hide})) as client:
        assert client.get("/who").status_code == 404


def test_openapi_names_the_cookie_on_guarded_routes_only() -> None:
    sessions = Sessions("memory://", secret_keys=[KEY])
    app = Litestar([read, who], logging_config=None, plugins=[CoatcheckPlugin(sessions)])
    schema = app.openapi_schema.to_schema()
    assert schema["components"]["securitySchemes"] == {
        "session": {"type": "apiKey", "name": "__Host-session", "in": "cookie"}
    }
    assert schema["paths"]["/who"]["get"]["security"] == [{"session": []}]
    assert "security" not in schema["paths"]["/"]["get"]
    assert not any(each["name"] == "session" for each in schema["paths"]["/"]["get"].get("parameters", []))


def test_application_without_openapi_works(site: Site) -> None:
    with site.running(who, openapi_config=None) as client:
        assert client.get("/who").text == "alice"


# --- WebSockets -------------------------------------------------------------------------------------------------------


@websocket("/socket", guards=[login_required])
async def socket(socket: WebSocket[Any, Any, Any], session: Injected) -> None:
    session["opened"] = True
    await socket.accept()
    await socket.send_text(str(session.user_id))
    session["last"] = await socket.receive_text()
    await socket.close()


@websocket_listener("/listener", guards=[login_required])
async def listener(data: str, session: Injected) -> str:
    session.append("heard", data)
    return str(session.user_id)


def test_websocket_has_the_session_and_stores_what_it_changes(site: Site) -> None:
    with site.running(socket, listener) as client:
        with client.websocket_connect("/socket") as connection:
            assert connection.receive_text() == "alice"
            assert (site.stored(client) or {})["opened"] is True
            connection.send_text("bye")
        with client.websocket_connect("/listener") as connection:
            for text in ("a", "b"):
                connection.send_text(text)
                assert connection.receive_text() == "alice"
                assert (site.stored(client) or {})["heard"][-1] == text
        assert (site.stored(client) or {})["last"] == "bye"


@pytest.mark.parametrize("path", ["/socket", "/listener"])
def test_guarded_handshake_is_refused_to_strangers(site: Site, path: str) -> None:
    with site.running(socket, listener, logged_in=False) as client:
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect(path):
            pass
        assert refused.value.code == 1008


@pytest.mark.parametrize("fails", ["load", "update"])
def test_handshake_that_needs_the_store_is_refused_for_now(site: Site, fails: Any) -> None:
    with site.running(socket) as client:
        site.store.fail(fails)
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/socket"):
            pass
        assert refused.value.code == 1013


# --- CSRF, templates --------------------------------------------------------------------------------------------------


@get("/token")
async def token(session: Injected) -> str:
    return csrf_token(session)


@post("/change")
async def change(request: Request[Any, Any, Any]) -> str:
    return str((await request.form()).get("name"))


def test_request_without_a_token_is_refused_and_with_one_it_passes() -> None:
    site = Site(csrf=True, trusted_origins=["https://shop.test"], csrf_exempt=["/hook"])

    @post("/hook")
    async def hook() -> str:
        return "ok"

    with site.running(token, change, hook) as client:
        value = client.get("/token").text
        refused = client.post("/change", data={"name": "x"}, headers=JSON)
        assert (refused.status_code, refused.json()["error"]) == (403, "csrf_token_missing")
        assert client.post("/change", data={"name": "x", "csrf_token": value}).text == "x"
        assert client.post("/change", data={"name": "x"}, headers={"x-csrf-token": value}).text == "x"
        for origin, status in (("https://shop.test", 201), ("https://evil.test", 403)):
            headers = {"x-csrf-token": value, "origin": origin}
            assert client.post("/change", headers=headers).status_code == status
        assert client.post("/hook").status_code == 201


def test_websocket_of_another_sites_page_is_refused() -> None:
    with Site(csrf=True).running(listener, logged_in=False) as client:
        with (
            pytest.raises(WebSocketDisconnect) as refused,
            client.websocket_connect("/listener", headers={"origin": "https://evil.test"}),
        ):
            pass
        assert refused.value.code == 1008


@pytest.fixture
def templates(tmp_path: Path) -> TemplateConfig[Any]:
    (tmp_path / "form.html").write_text(
        "<form>{% if ours %}{{ csrf_field() }}{% endif %}</form>|{{ csrf_token() }}|"
        "{% for flash in get_flashes() %}{{ flash.message }}{% endfor %}"
    )
    return TemplateConfig(directory=tmp_path, engine=JinjaTemplateEngine)


@get("/form")
async def form(session: Injected) -> Template:
    session.flash("Saved.")
    return Template("form.html", context={"ours": session.user_id is not None})


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_paths_of_settings_are_whole_also_for_what_is_mounted(root_path: str) -> None:
    @asgi(["/shop", "/market"], is_mount=True, copy_scope=True)
    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"] == "/hook/"
        await Response("mounted").to_asgi_response(None, Request(scope))(scope, receive, send)

    def answers(client: TestClient[Litestar], *paths: str) -> list[int]:
        return [client.post(root_path + path, headers={"origin": "https://evil.test"}).status_code for path in paths]

    for exempt, expected in (("/hook", [403, 403, 403]), ("/shop/hook", [200, 200, 403])):
        site = Site(csrf_exempt=[exempt], while_down={exempt: "continue"})
        app = Litestar([log_in, mounted], plugins=[site.plugin], logging_config=None)
        with TestClient(app, root_path=root_path) as client:
            assert client.post(root_path + "/login").status_code == 201
            assert answers(client, "/shop/hook", "/shop//hook/", "/market/hook") == expected
            with site.store.failing():
                down = [client.get(root_path + path).status_code for path in ("/shop/hook", "/market/hook")]
            assert down == [200 if exempt == "/shop/hook" else 503, 503]


def test_templates_have_the_csrf_field_the_token_and_the_flashes(templates: TemplateConfig[Any]) -> None:
    with Site(csrf=True).running(form, change, template_config=templates) as client:
        field, value, flashes = client.get("/form").text.split("|")
        assert field.startswith('<form><input type="hidden" name="csrf_token" value="')
        assert flashes == "Saved."
        assert client.post("/change", headers={"x-csrf-token": value}).status_code == 201


def test_forms_with_the_field_are_shown_where_no_token_is_asked_for(templates: TemplateConfig[Any]) -> None:
    with Site(csrf="origin").running(form, template_config=templates) as client:
        assert client.get("/form").text.startswith('<form><input type="hidden" name="csrf_token" value="')


def test_litestars_own_csrf_protection_still_works_where_ours_is_off(
    site: Site, templates: TemplateConfig[Any]
) -> None:
    options = {"csrf_config": CSRFConfig(secret="s" * 32), "template_config": templates}
    with site.running(form, change, logged_in=False, **options) as client:
        value = client.get("/form").text.split("|")[1]
        assert client.post("/change").status_code == 403
        assert client.post("/change", headers={"x-csrftoken": value}).status_code == 201
