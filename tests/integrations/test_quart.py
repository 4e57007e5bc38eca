"""Quart, as its users meet Coatcheck: what `test_flask` shows of Flask, and WebSockets."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from types import MethodType
from typing import Any

import httpx
import pytest
import quart
import websockets
from markupsafe import Markup
from quart import (
    Blueprint,
    Quart,
    Response,
    flash,
    get_flashed_messages,
    has_request_context,
    render_template_string,
    request,
    websocket,
)
from quart.testing import WebsocketResponseError
from quart.testing.connections import WebsocketDisconnectError
from quart.views import View
from serving import serve_asgi
from websockets.exceptions import InvalidStatus

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.errors import ConfigurationError, LoginRequired
from coatcheck.integrations.quart import Coatcheck, QuartSession, login_required, recent_login_required, session
from coatcheck.testing import FailingStore, ManualClock

pytestmark = pytest.mark.anyio

KEY = "a secret key for tests, 32 bytes or more"
PROGRAM = {"Accept": "application/json"}


def make_app(**config: Any) -> Quart:
    app = Quart("shop")
    app.config.update({"SECRET_KEY": KEY, "COATCHECK_STORE": "memory://", **config})
    Coatcheck(app)

    @app.get("/login")
    async def login() -> str:
        session.login("alice")
        return ""

    @app.get("/logout")
    async def logout() -> str:
        session.logout()
        return ""

    @app.get("/who")
    async def who() -> str:
        return str(session.user_id)

    @app.get("/all")
    async def everything() -> Any:
        return dict(session)

    return app


@pytest.fixture
def app() -> Quart:
    return make_app()


def sessions_of(app: Quart) -> Sessions:
    sessions: Sessions = app.extensions["coatcheck"].sessions
    return sessions


async def logged_in(app: Quart) -> Any:
    client = app.test_client()
    await client.get("/login")
    return client


async def text_of(answer: Any) -> str:
    text: str = await (await answer).get_data(as_text=True)
    return text


# --- quart.session ----------------------------------------------------------------------------------------------------


async def test_session_is_kept_on_the_server_and_the_cookie_is_the_safe_one(app: Quart) -> None:
    @app.get("/write")
    async def write() -> str:
        quart.session["cart"] = [1]
        return ""

    client = app.test_client()
    cookie = (await client.get("/write")).headers["Set-Cookie"]
    assert cookie.startswith("__Host-session=")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert await text_of(client.get("/all")) == '{"cart":[1]}\n'
    assert await sessions_of(app).count() == 1


async def test_change_inside_a_value_is_kept_without_modified(app: Quart) -> None:
    @app.get("/add")
    async def add() -> str:
        quart.session["cart"]["items"].append(2)
        return ""

    client = app.test_client()
    async with client.session_transaction() as opened:
        opened["cart"] = {"items": [1]}
    await client.get("/add")
    async with client.session_transaction() as opened:
        assert dict(opened) == {"cart": {"items": [1, 2]}}


async def test_session_goes_with_the_browser_unless_it_is_permanent(app: Quart) -> None:
    @app.get("/permanent")
    async def remember() -> str:
        quart.session.permanent = True
        return ""

    client = app.test_client()
    assert "Max-Age" not in (await client.get("/login")).headers["Set-Cookie"]
    assert "Max-Age=604" in (await client.get("/permanent")).headers["Set-Cookie"]


async def test_request_that_does_not_use_its_session_sets_no_cookie_and_no_vary(app: Quart) -> None:
    @app.get("/")
    async def view() -> str:
        return "hello"

    response = await (await logged_in(app)).get("/")
    assert ("Set-Cookie" in response.headers, "Vary" in response.headers) == (False, False)
    read = await app.test_client().get("/who")
    assert ("Set-Cookie" in read.headers, read.headers["Vary"]) == (False, "Cookie")


async def test_request_that_fails_stores_nothing_but_a_logout_holds(app: Quart) -> None:
    @app.get("/fail")
    async def fail() -> str:
        session["a"] = 1
        raise RuntimeError

    @app.get("/logout-fail")
    async def log_out_and_fail() -> str:
        session.logout()
        raise RuntimeError

    logging.getLogger("shop").disabled = True
    client = await logged_in(app)
    assert (await client.get("/fail")).status_code == 500
    assert await text_of(client.get("/all")) == "{}\n"
    assert await text_of(client.get("/who")) == "alice"
    assert (await client.get("/logout-fail")).status_code == 500
    assert await text_of(client.get("/who")) == "None"


async def test_flashed_messages_keep_order_category_and_markup(app: Quart) -> None:
    @app.get("/flash")
    async def say() -> str:
        await flash("<one>")
        await flash(Markup("<b>two</b>"), "warning")
        return ""

    @app.get("/show")
    async def show() -> str:
        return await render_template_string("{% for m in get_flashed_messages() %}{{ m }}|{% endfor %}")

    client = app.test_client()
    await client.get("/flash")
    assert await text_of(client.get("/all")) == '{"_flashes":[["message","<one>"],["warning","<b>two</b>"]]}\n'
    assert await text_of(client.get("/show")) == "&lt;one&gt;|<b>two</b>|"
    assert await text_of(client.get("/show")) == ""


async def test_stream_stores_what_it_changes_while_it_is_sent(app: Quart) -> None:
    @app.get("/")
    async def view() -> Any:
        session["begun"] = True

        @quart.stream_with_context
        async def stream() -> AsyncIterator[str]:
            yield "one"
            session["sent"] = 1
            yield "two"

        return stream()

    client = app.test_client()
    assert await text_of(client.get("/")) == "onetwo"
    async with client.session_transaction() as opened:
        assert dict(opened) == {"begun": True, "sent": 1}


async def test_sync_views_have_the_session_and_are_guarded(app: Quart) -> None:
    @app.get("/")
    @login_required
    def view() -> str:
        return f"{session.user_id} {session.increment('n')}"

    assert (await app.test_client().get("/")).status_code == 303
    client = await logged_in(app)
    assert [await text_of(client.get("/")), await text_of(client.get("/"))] == ["alice 1", "alice 2"]


# --- the extension ----------------------------------------------------------------------------------------------------


async def test_one_extension_serves_several_applications_of_a_factory() -> None:
    coatcheck = Coatcheck()
    apps = [Quart(name) for name in ("shop", "office")]
    for app in apps:
        app.config.update(SECRET_KEY=KEY, COATCHECK_STORE="memory://")
        coatcheck.init_app(app)
    async with apps[0].app_context():
        first = coatcheck.sessions
    async with apps[1].app_context():
        assert coatcheck.sessions is not first
    with pytest.raises(RuntimeError):
        _ = coatcheck.sessions


async def test_ready_sessions_are_taken_as_they_are_and_sync_ones_refused() -> None:
    sessions = Sessions("memory://", secret_keys=[KEY], cookie=CookieConfig(name="ready"))
    app = Quart("shop")
    assert Coatcheck(app, sessions=sessions).sessions is sessions
    with pytest.raises(ConfigurationError, match="expected a Sessions object, got a SyncSessions"):
        Coatcheck(Quart("shop"), sessions=SyncSessions("memory://", secret_keys=[KEY]))  # type: ignore[arg-type]


async def test_setting_that_can_not_work_is_named_when_the_application_is_made() -> None:
    with pytest.raises(ConfigurationError, match="does not know: COATCHECK_STOER"):
        make_app(COATCHECK_STOER="memory://")


async def test_flasks_cookie_settings_count_where_somebody_has_chosen_them() -> None:
    config = sessions_of(make_app(SESSION_COOKIE_NAME="shop", SESSION_COOKIE_SAMESITE="Strict")).config
    assert config.cookie == CookieConfig(name="shop", same_site="strict", persistent=False)


def test_missing_framework_is_an_error_that_names_the_extra() -> None:
    program = "import sys; sys.modules['quart'] = None; import coatcheck.integrations.quart"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'coatcheck[quart]'" in result.stderr


# --- guards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", ["eager", "lazy"])
async def test_guarded_view_sends_browsers_to_the_login_and_tells_programs_in_any_order(load: str) -> None:
    app = make_app(COATCHECK_LOAD=load, COATCHECK_LOGIN_PATH="login")

    @app.before_request
    async def load_session() -> None:
        if request.path == "/login":
            await session.load()

    @login_required
    @app.get("/above")
    async def above() -> str:
        return "secret"

    @app.get("/below")
    @login_required
    async def below() -> str:
        return "secret"

    def forgetful(view: Callable[[], Awaitable[str]]) -> Callable[[], Awaitable[str]]:
        async def wrapped() -> str:
            return await view()

        return wrapped

    @login_required
    async def secret() -> str:
        return "secret"

    paths = ["/above", "/below"]
    if load == "eager":  # a lazy session would have to be loaded by `forgetful`
        app.add_url_rule("/wrapped", "wrapped", forgetful(secret))
        paths.append("/wrapped")
    client = await logged_in(app)
    for path in paths:
        sent = await app.test_client().get(f"{path}?tab=1")
        assert (sent.status_code, sent.headers["Location"]) == (303, f"/login?next=%2F{path[1:]}%3Ftab%3D1")
        told = await app.test_client().get(path, headers=PROGRAM)
        assert (told.status_code, (await told.json)["error"]) == (401, "login_required")
        assert await text_of(client.get(path)) == "secret"


class Account(View):
    async def dispatch_request(self, **_: Any) -> str:
        return "secret"


class DecoratedAccount(Account):
    decorators = [login_required]  # noqa: RUF012


def new_view() -> Callable[[], Awaitable[str]]:
    async def view() -> str:
        return "secret"

    return view


def new_socket() -> Callable[[], Awaitable[None]]:
    async def socket() -> None:
        await websocket.send("secret")

    return socket


def in_blueprints(app: Quart, register: Callable[[Blueprint], Any]) -> None:
    outer, inner = Blueprint("outer", "outer"), Blueprint("inner", "inner")
    register(inner)
    outer.register_blueprint(inner)
    app.register_blueprint(outer)


# Each registers a guarded view for "/".
WAYS: dict[str, Callable[[Quart], Any]] = {
    "below the route": lambda app: app.route("/")(login_required(new_view())),
    "above the route": lambda app: login_required(app.route("/")(new_view())),
    "sync, below": lambda app: app.route("/")(login_required(lambda: "secret")),
    "sync, above": lambda app: login_required(app.route("/")(lambda: "secret")),
    "add_url_rule": lambda app: app.add_url_rule("/", view_func=login_required(new_view())),
    "view_functions": lambda app: (
        app.add_url_rule("/", "secret", new_view()),
        app.view_functions.update(secret=login_required(new_view())),
    ),
    "class": lambda app: app.add_url_rule("/", view_func=DecoratedAccount.as_view("secret")),
    "as_view": lambda app: app.add_url_rule("/", view_func=login_required(Account.as_view("secret"))),
    "as_view, then guarded": lambda app: login_required(app.route("/")(Account.as_view("secret"))),
    "blueprint, below": lambda app: in_blueprints(app, lambda inner: inner.route("/")(login_required(new_view()))),
    "blueprint, above": lambda app: in_blueprints(app, lambda inner: login_required(inner.route("/")(new_view()))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_first", [False, True], ids=["after the extension", "before the extension"])
@pytest.mark.parametrize("load", ["eager", "lazy"])
async def test_guard_holds_however_its_view_is_registered(way: str, is_first: bool, load: str) -> None:
    app = Quart("shop")
    app.config.update(SECRET_KEY=KEY, COATCHECK_STORE="memory://", COATCHECK_LOAD=load)
    for step in (WAYS[way], Coatcheck) if is_first else (Coatcheck, WAYS[way]):
        step(app)
    client = app.test_client()
    assert (await client.get("/")).status_code == 303
    async with client.session_transaction() as opened:
        assert isinstance(opened, QuartSession)
        opened.login("alice")
    assert await text_of(client.get("/")) == "secret"


@pytest.mark.parametrize("way", ["below the route", "above the route", "class", "blueprint, above"])
async def test_options_that_quart_answers_by_itself_ask_for_no_login(app: Quart, way: str) -> None:
    WAYS[way](app)
    response = await app.test_client().options("/", headers={"Access-Control-Request-Method": "GET"})
    assert (response.status_code, "GET" in response.headers["Allow"]) == (200, True)


async def test_options_that_a_view_answers_are_guarded(app: Quart) -> None:
    login_required(app.route("/", methods=["OPTIONS"])(new_view()))
    assert (await app.test_client().options("/")).status_code == 303


async def test_what_the_application_does_before_a_request_may_log_in(app: Quart) -> None:
    async def log_in_by_token() -> None:
        asked = request if has_request_context() else websocket
        if asked.headers.get("Authorization") == "Bearer of alice":
            session.login("alice")

    api = Blueprint("api", "api")
    api.before_request(log_in_by_token)
    api.before_websocket(log_in_by_token)
    login_required(api.get("/above")(new_view()))
    api.get("/below", endpoint="below")(login_required(new_view()))
    login_required(api.websocket("/ws-above")(new_socket()))
    api.websocket("/ws-below", endpoint="ws-below")(login_required(new_socket()))
    app.register_blueprint(api)
    WAYS["above the route"](app)
    app.before_request(log_in_by_token)
    client, token = app.test_client(), {"Authorization": "Bearer of alice"}
    for path in ("/", "/above", "/below"):
        assert (await app.test_client().get(path)).status_code == 303
        assert await text_of(app.test_client().get(path, headers=token)) == "secret"
    for path in ("/ws-above", "/ws-below"):
        async with client.websocket(path, headers=token) as connection:
            assert await connection.receive() == "secret"


async def test_guard_holds_where_another_extension_calls_the_views(app: Quart) -> None:
    async def call_view(*_: Any) -> Any:
        return await app.ensure_async(app.view_functions[str(request.endpoint)])()

    WAYS["above the route"](app)
    app.dispatch_request = call_view  # type: ignore[method-assign, assignment]
    assert (await app.test_client().get("/")).status_code == 303


async def test_recent_login_is_asked_for_again_after_its_time() -> None:
    clock = ManualClock()
    app = make_app(COATCHECK_CLOCK=clock)

    @app.get("/password")
    @recent_login_required(within=timedelta(minutes=10))
    async def password() -> str:
        return "changed"

    client = await logged_in(app)
    assert await text_of(client.get("/password")) == "changed"
    clock.advance(timedelta(minutes=10, seconds=1))
    assert (await (await client.get("/password", headers=PROGRAM)).json)["error"] == "recent_login_required"


async def test_application_may_answer_for_itself(app: Quart) -> None:
    @app.errorhandler(LoginRequired)
    async def answer(_error: Any) -> tuple[str, int]:
        return "own answer", 418

    @app.get("/")
    @login_required
    async def view() -> str:
        return ""

    assert (await app.test_client().get("/")).status_code == 418


async def test_csrf_protection_is_one_switch() -> None:
    app = make_app(COATCHECK_CSRF=True)

    @app.get("/form")
    async def form() -> str:
        return await render_template_string("{{ csrf_field() }}|{{ csrf_token() }}")

    @app.post("/settings")
    async def settings() -> str:
        return str((await request.form)["theme"])

    client = await logged_in(app)
    field, token = (await text_of(client.get("/form"))).split("|")
    assert field.startswith('<input type="hidden" name="csrf_token" value="')
    assert (await client.post("/settings", form={"theme": "dark"})).status_code == 403
    assert await text_of(client.post("/settings", form={"theme": "dark", "csrf_token": token})) == "dark"


# --- while the store is down ------------------------------------------------------------------------------------------


async def test_while_the_store_is_down_the_answer_is_503_and_nobody_is_logged_out() -> None:
    store = FailingStore()
    app = make_app(COATCHECK_STORE=store)
    client = await logged_in(app)
    calls: list[tuple[Any, str]] = [("load", "/who"), ("update", "/login")]
    for call, path in calls:
        store.recover()
        store.fail(call)
        response = await client.get(path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert "Set-Cookie" not in response.headers
    store.recover()
    assert await text_of(client.get("/who")) == "alice"


async def test_outage_that_a_view_meets_is_503(caplog: pytest.LogCaptureFixture) -> None:
    store = FailingStore()
    app = make_app(COATCHECK_STORE=store)

    @app.get("/")
    async def view() -> str:
        session["a"] = 1
        await session.save()
        return ""

    store.fail("create")
    response = await app.test_client().get("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "The store can't be used, so a request is answered by 503: the test made create() fail" in caplog.text


@pytest.mark.parametrize("testing", [False, True], ids=["production", "testing"])
async def test_outage_that_is_met_after_a_view_is_503(testing: bool, caplog: pytest.LogCaptureFixture) -> None:
    store = FailingStore()
    app = make_app(COATCHECK_STORE=store, COATCHECK_LOAD="lazy")
    app.testing = testing

    @app.get("/")
    async def view() -> str:
        return "hello"

    @app.after_request
    async def touch(response: Response) -> Response:
        await session.load()
        return response

    @app.errorhandler(404)
    async def show_devices(_error: Any) -> tuple[str, int]:
        return str(await sessions_of(app).for_user("alice")), 404

    client = app.test_client()
    async with client.session_transaction() as opened:
        opened["a"] = 1
    store.fail()
    for path in ("/", "/nowhere"):
        response = await client.get(path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert response.headers["Cache-Control"] == "no-store"
    assert "The store can't be used, so a request is answered by 503" in caplog.text


# --- WebSockets -------------------------------------------------------------------------------------------------------


def add_socket(app: Quart) -> None:
    @app.websocket("/ws")
    @login_required
    async def talk() -> None:
        while True:
            session["last"] = await websocket.receive()
            await websocket.send(f"{session.user_id} {session.increment('n')}")


async def test_websocket_has_the_session_and_stores_before_it_says_so(app: Quart) -> None:
    add_socket(app)
    client = await logged_in(app)
    async with client.websocket("/ws") as connection:
        for number in (1, 2):
            await connection.send(f"message {number}")
            assert await connection.receive() == f"alice {number}"
            assert await text_of(client.get("/all")) == f'{{"last":"message {number}","n":{number}}}\n'


async def test_guarded_websocket_is_refused_to_strangers_in_any_order_of_decorators(app: Quart) -> None:
    add_socket(app)

    @login_required
    @app.websocket("/above")
    async def above() -> None:
        await websocket.send("secret")

    for path in ("/ws", "/above"):
        with pytest.raises((WebsocketResponseError, WebsocketDisconnectError)):
            async with app.test_client().websocket(path) as connection:
                await connection.receive()


async def test_websocket_is_refused_while_the_store_is_down() -> None:
    store = FailingStore()
    app = make_app(COATCHECK_STORE=store)
    add_socket(app)
    client = await logged_in(app)
    store.fail("load")
    with pytest.raises((WebsocketResponseError, WebsocketDisconnectError)):
        async with client.websocket("/ws") as connection:
            await connection.receive()


async def test_websocket_that_meets_an_outage_is_told_to_try_again_later() -> None:
    store = FailingStore()
    app = make_app(COATCHECK_STORE=store)

    @app.websocket("/ws")
    async def talk() -> None:
        await websocket.accept()
        await websocket.receive()
        session["a"] = 1
        await session.save()

    client = await logged_in(app)
    async with client.websocket("/ws") as connection:
        store.fail("update")
        await connection.send("go")
        with pytest.raises(WebsocketDisconnectError) as caught:
            await connection.receive()
    assert caught.value.args == (1013,)


@pytest.mark.parametrize("testing", [False, True], ids=["production", "testing"])
async def test_websocket_that_meets_an_outage_when_it_is_over_is_told_to_try_again_later(testing: bool) -> None:
    store = FailingStore()
    app = make_app(COATCHECK_STORE=store)
    app.testing = testing

    @app.websocket("/ws")
    async def talk() -> None:
        await websocket.accept()

    @app.after_websocket
    async def ask(response: Any) -> Any:
        await sessions_of(app).for_user("alice")
        return response

    store.fail()
    async with app.test_client().websocket("/ws") as connection:
        with pytest.raises(WebsocketDisconnectError) as caught:
            await connection.receive()
    assert caught.value.args == (1013,)


# --- tests of applications --------------------------------------------------------------------------------------------


async def test_session_can_be_read_after_a_request_of_the_test_client(app: Quart) -> None:
    async with app.test_client() as client:
        await client.get("/login")
        assert session.user_id == "alice"


async def test_session_transaction_reads_and_writes_what_requests_do(app: Quart) -> None:
    client = app.test_client()
    async with client.session_transaction() as opened:
        assert isinstance(opened, QuartSession)
        opened.login("bob")
    assert await text_of(client.get("/who")) == "bob"
    await client.get("/logout")
    async with client.session_transaction() as opened:
        assert opened.new


async def test_test_request_context_begins_and_stores_a_session_of_its_own(app: Quart) -> None:
    async with app.test_request_context("/"):
        session.login("alice")
        response = await app.process_response(Response(""))
    assert response.headers["Set-Cookie"].startswith("__Host-session=")
    assert (response.headers["Vary"], response.headers["Cache-Control"]) == ("Cookie", "no-store")
    assert len(await sessions_of(app).for_user("alice")) == 1
    async with app.test_request_context("/"):
        session.login("bob")
        assert "Set-Cookie" not in (await app.process_response(Response("", 500))).headers
    assert await sessions_of(app).for_user("bob") == []


async def test_websocket_is_stored_also_where_the_middleware_was_taken_away(app: Quart) -> None:
    @app.websocket("/ws")
    async def count() -> None:
        session.increment("n")
        await websocket.send("counted")

    client = await logged_in(app)
    with_middleware = app.asgi_app
    app.asgi_app = MethodType(Quart.asgi_app, app)  # type: ignore[method-assign]
    async with client.websocket("/ws") as connection:
        assert await connection.receive() == "counted"
        with pytest.raises(WebsocketDisconnectError):
            await connection.receive()
    app.asgi_app = with_middleware  # type: ignore[method-assign]
    assert await text_of(client.get("/all")) == '{"n":1}\n'


# --- on a real server -------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(store_url: str) -> Quart:
    return make_app(COATCHECK_STORE=store_url, COATCHECK_COOKIE_SECURE=False)


async def test_requests_that_run_at_the_same_time_undo_nothing_of_each_other(shop: Quart) -> None:
    barrier = asyncio.Barrier(8)

    @shop.get("/write/<name>")
    async def write(name: str) -> str:
        await barrier.wait()
        session[name] = True
        session.increment("n")
        session.append("names", name)
        await flash(name)
        return ""

    @shop.get("/read")
    async def read() -> Any:
        messages = sorted(get_flashed_messages())
        return {"keys": sorted(session), "n": session["n"], "names": sorted(session["names"]), "messages": messages}

    names = [f"key{number}" for number in range(8)]
    with serve_asgi(shop) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await client.get("/login")
            answers = await asyncio.gather(*(client.get(f"/write/{name}") for name in names))
            assert {answer.status_code for answer in answers} == {200}
            found = (await client.get("/read")).json()
    assert found == {"keys": [*names, "n", "names"], "n": 8, "names": names, "messages": names}


async def test_logout_is_not_undone_by_a_request_that_was_under_way(shop: Quart) -> None:
    is_reading, may_go_on = threading.Event(), threading.Event()  # the server's loop is another one

    @shop.get("/slow")
    async def slow() -> str:
        user_id = str(session.user_id)
        is_reading.set()
        assert await asyncio.to_thread(may_go_on.wait, 60)
        session["last"] = "slow"
        return user_id

    with serve_asgi(shop) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await client.get("/login")
            cookies = dict(client.cookies)
            async with httpx.AsyncClient(base_url=url, cookies=cookies, timeout=60) as other:
                slow_answer = asyncio.create_task(other.get("/slow"))
                assert await asyncio.to_thread(is_reading.wait, 60)
                await client.get("/logout")
                may_go_on.set()
                assert (await slow_answer).text == "alice"
                assert (await other.get("/who")).text == "None"


async def test_websockets_on_a_real_server_are_guarded_and_stored(shop: Quart) -> None:
    add_socket(shop)
    with serve_asgi(shop) as url:
        address = url.replace("http", "ws") + "/ws"
        with pytest.raises(InvalidStatus):
            async with websockets.connect(address):
                pass
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await client.get("/login")
            cookie = f"session={client.cookies['session']}"
            async with websockets.connect(address, additional_headers={"Cookie": cookie}) as connection:
                await connection.send("hello")
                assert await connection.recv() == "alice 1"
            assert (await client.get("/all")).json() == {"last": "hello", "n": 1}


async def test_devices_of_a_user_are_listed_with_their_addresses(shop: Quart) -> None:
    @shop.get("/devices")
    @login_required
    async def devices() -> Any:
        found = await sessions_of(shop).for_user(str(session.user_id), current=session)
        return [[info.user_agent, info.client_address, info.is_current] for info in found]

    with serve_asgi(shop) as url:
        async with httpx.AsyncClient(base_url=url, headers={"User-Agent": "One"}, timeout=60) as client:
            await client.get("/login")
            assert (await client.get("/devices")).json() == [["One", "127.0.0.0", True]]
