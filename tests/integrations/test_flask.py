"""Flask, as its users meet Coatcheck: `flask.session`, `flash()`, settings, factories, test clients, a real server."""

# ruff: noqa: PLW0108 (the methods of `flask.session` can be had only in a request)

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from typing import Any
from uuid import UUID

import flask
import httpx
import pytest
from flask import Flask, copy_current_request_context, flash, get_flashed_messages, request, stream_with_context
from flask.testing import FlaskClient
from flask.views import MethodView, View
from markupsafe import Markup
from serving import serve_wsgi
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import TestResponse

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.errors import ConfigurationError, LoginRequired, StoreUnavailable, UnsupportedValue
from coatcheck.integrations.flask import Coatcheck, FlaskSession, login_required, recent_login_required, session
from coatcheck.testing import ManualClock, SyncFailingStore

KEY = "a secret key for tests, 32 bytes or more"
BROWSER = {"Accept": "text/html"}
PROGRAM = {"Accept": "application/json"}


def make_app(**config: Any) -> Flask:
    app = Flask("shop")
    app.config.update({"SECRET_KEY": KEY, "COATCHECK_STORE": "memory://", **config})
    Coatcheck(app)
    return app


@pytest.fixture
def app() -> Flask:
    return make_app()


def sessions_of(app: Flask) -> SyncSessions:
    sessions: SyncSessions = app.extensions["coatcheck"].sessions
    return sessions


def route(app: Flask, view: Callable[[], Any], path: str = "/") -> None:
    """Let a path be answered by a function, whatever it gives back."""

    def answer() -> Any:
        result = view()
        return "" if result is None else result

    app.add_url_rule(path, path, answer, methods=["GET", "POST"])


def steps(*calls: Callable[[], Any]) -> Callable[[], Any]:
    """Make one view of several calls; the last one answers."""
    return lambda: [call() for call in calls][-1]


def cookie_in(response: TestResponse) -> str | None:
    return response.headers.get("Set-Cookie")


def cookie_of(client: FlaskClient) -> str:
    cookie = client.get_cookie("__Host-session")
    assert cookie is not None
    return cookie.value


def logged_in(app: Flask, user_id: str = "alice") -> Any:
    client = app.test_client()
    with client.session_transaction() as opened:
        assert isinstance(opened, FlaskSession)
        opened.login(user_id)
    return client


# --- flask.session ----------------------------------------------------------------------------------------------------


def test_session_is_kept_on_the_server_and_the_cookie_is_the_safe_one(app: Flask) -> None:
    route(app, lambda: flask.session.update(secret="of the shop"), "/write")
    route(app, lambda: flask.session["secret"], "/read")
    client = app.test_client()
    cookie = cookie_in(client.get("/write"))
    assert cookie is not None
    assert cookie.startswith("__Host-session=")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert client.get("/read").text == "of the shop"
    assert sessions_of(app).count() == 1


def test_change_inside_a_value_is_kept_without_modified(app: Flask) -> None:
    route(app, lambda: flask.session.update(cart={"items": [1]}), "/start")
    route(app, lambda: flask.session["cart"]["items"].append(2), "/add")
    route(app, lambda: flask.session["cart"], "/cart")
    client = app.test_client()
    client.get("/start")
    client.get("/add")
    assert client.get("/cart").json == {"items": [1, 2]}


def test_values_that_flask_keeps_come_back_as_what_they_were(app: Flask) -> None:
    kept = {
        "tuple": (1, (2, "x")),
        "bytes": b"\xff",
        "uuid": UUID(int=5),
        "time": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        "html": [Markup("<b>"), {"deep": Markup("&amp;")}],
        "tagged": {" t": [1]},
    }
    client = app.test_client()
    with client.session_transaction() as opened:
        opened.update(kept)
    with client.session_transaction() as opened:
        found = dict(opened)
    assert found == kept
    assert [type(each) for each in (found["tuple"], found["html"][0], found["html"][1]["deep"])] == [
        tuple, Markup, Markup,
    ]  # fmt: skip


def test_value_that_can_not_be_kept_fails_in_the_view_that_sets_it(app: Flask) -> None:
    app.testing = True
    route(app, lambda: flask.session.update(form=object()))
    with pytest.raises(UnsupportedValue, match=r"session\['form'\] can't keep a value of type 'object'"):
        app.test_client().get("/")


def test_new_modified_and_accessed_tell_what_flask_says_they_do(app: Flask) -> None:
    with app.test_request_context():
        assert isinstance(flask.session, flask.sessions.SessionMixin)
        assert (session.new, session.modified) == (True, False)
        session["a"] = [1]
        assert session.modified
    client = app.test_client()
    with client.session_transaction() as opened:
        opened["a"] = [1]
    with client.session_transaction() as opened:
        assert (opened.new, opened.modified, opened.accessed) == (False, False, True)
        opened["a"].append(2)
        assert opened.modified


def test_setting_modified_or_accessed_changes_nothing(app: Flask) -> None:
    route(app, steps(lambda: setattr(session, "modified", True), lambda: setattr(session, "accessed", True)))
    response = app.test_client().get("/")
    assert (cookie_in(response), response.headers.get("Vary")) == (None, None)


def test_session_goes_with_the_browser_unless_it_is_permanent(app: Flask) -> None:
    def remember() -> str:
        before = session.permanent
        session.permanent = True
        session["a"] = 1
        return f"{before} {session.permanent}"

    route(app, lambda: session.update(a=1), "/browser")
    route(app, remember, "/permanent")
    client = app.test_client()
    assert "Max-Age" not in str(cookie_in(client.get("/browser")))
    changed = client.get("/permanent")
    assert changed.text == "False True"
    assert "Max-Age=604" in str(cookie_in(changed))
    with client.session_transaction() as opened:
        assert opened.permanent


def test_permanent_in_before_request_makes_no_session_of_a_visit(app: Flask) -> None:
    app.before_request(lambda: setattr(flask.session, "permanent", True))
    route(app, lambda: None)
    assert cookie_in(app.test_client().get("/")) is None
    assert sessions_of(app).count() == 0


def test_clear_logs_out_and_what_is_set_afterwards_is_a_new_sessions(app: Flask) -> None:
    route(app, steps(lambda: session.clear(), lambda: flash("Bye.")), "/logout")
    route(app, lambda: {"user": session.user_id, "keys": list(session), "flashes": get_flashed_messages()})
    client = logged_in(app)
    stolen = cookie_of(client)
    client.get("/logout")
    assert client.get("/").json == {"user": None, "keys": ["_flashes"], "flashes": ["Bye."]}
    client.set_cookie("__Host-session", stolen)
    assert client.get("/").json == {"user": None, "keys": [], "flashes": []}


def test_login_by_flask_login_gives_the_session_a_new_id_too(app: Flask) -> None:
    def enter() -> None:
        session["_user_id"] = "7"  # what its login_user() does

    route(app, lambda: session.update(cart=["hat"]), "/cart")
    route(app, enter, "/login")
    route(app, lambda: dict(session))
    client = app.test_client()
    client.get("/cart")
    planted = cookie_of(client)
    client.get("/login")
    assert client.get("/").json == {"cart": ["hat"], "_user_id": "7"}
    client.set_cookie("__Host-session", planted)
    assert client.get("/").json == {}


def test_login_gives_the_session_a_new_id_and_keeps_what_was_in_it(app: Flask) -> None:
    route(app, lambda: session.login("alice"), "/login")
    route(app, lambda: {"user": session.user_id, "cart": session["cart"]})
    client = app.test_client()
    with client.session_transaction() as opened:
        opened["cart"] = ["hat"]
    planted = cookie_of(client)
    client.get("/login")
    assert client.get("/").json == {"user": "alice", "cart": ["hat"]}
    attacker = app.test_client()
    attacker.set_cookie("__Host-session", planted)
    assert attacker.get("/").status_code == 500  # no cart


# --- no noise, and what a response says ------------------------------------------------------------------------------


def test_request_that_does_not_use_its_session_sets_no_cookie_and_no_vary(app: Flask) -> None:
    route(app, lambda: "hello")
    response = logged_in(app).get("/")
    assert (cookie_in(response), response.headers.get("Vary")) == (None, None)


@pytest.mark.parametrize("read", [lambda: "a" in session, lambda: session.get("a"), lambda: session.user_id])
def test_request_that_reads_its_session_varies_by_cookie_and_sets_none(app: Flask, read: Callable[[], Any]) -> None:
    route(app, lambda: str(read()))
    for client in (app.test_client(), logged_in(app)):
        response = client.get("/")
        assert (cookie_in(response), response.headers["Vary"]) == (None, "Cookie")
    assert sessions_of(app).count() == 1


def test_response_with_a_cookie_is_kept_by_no_cache(app: Flask) -> None:
    @app.get("/")
    def view() -> flask.Response:
        flask.session["a"] = 1
        response = flask.Response("")
        response.cache_control.public = True
        return response

    response = app.test_client().get("/")
    assert (response.headers.getlist("Cache-Control"), response.headers["Vary"]) == (["no-store"], "Cookie")


@pytest.mark.parametrize("propagates", [False, True])
def test_request_that_fails_stores_nothing_but_a_logout_holds(propagates: bool) -> None:
    app = make_app(PROPAGATE_EXCEPTIONS=propagates)

    def fail() -> None:
        session["a"] = 2
        message = "broken"
        raise RuntimeError(message)

    def log_out_and_fail() -> None:
        session.logout()
        fail()

    route(app, fail, "/fail")
    route(app, log_out_and_fail, "/logout")
    route(app, lambda: {"user": session.user_id, "a": session.get("a")})
    client = logged_in(app)
    for path, user_id in (("/fail", "alice"), ("/logout", None)):
        if propagates:
            with pytest.raises(RuntimeError):
                client.get(path)
        else:
            assert client.get(path).status_code == 500
        assert client.get("/").json == {"user": user_id, "a": None}


def test_error_page_of_500_stores_nothing_and_one_of_404_does(app: Flask) -> None:
    app.register_error_handler(404, lambda error: (session.update(seen=404), ("gone", 404))[1])
    app.register_error_handler(RuntimeError, lambda error: (session.update(seen=500), ("sorry", 500))[1])

    @app.get("/fail")
    def fail() -> str:
        raise RuntimeError

    client = app.test_client()
    assert cookie_in(client.get("/fail")) is None
    assert cookie_in(client.get("/nowhere")) is not None
    with client.session_transaction() as opened:
        assert opened["seen"] == 404


def test_hooks_of_the_request_may_change_the_session(app: Flask) -> None:
    app.before_request(steps(lambda: session.increment("before"), lambda: None))
    app.after_request(lambda response: (session.increment("after"), response)[1])
    app.teardown_request(lambda error: steps(lambda: session.increment("teardown"), lambda: None)())
    route(app, lambda: None)
    client = app.test_client()
    client.get("/")
    client.get("/")
    with client.session_transaction() as opened:
        assert dict(opened) == {"before": 2, "after": 2, "teardown": 2}


def test_stream_stores_what_it_changes_while_it_is_sent(app: Flask) -> None:
    @app.get("/")
    def view() -> flask.Response:
        session["begun"] = True

        def stream() -> Iterator[str]:
            yield "one"
            session["sent"] = 1
            yield "two"

        return flask.Response(stream_with_context(stream()))

    client = app.test_client()
    assert client.get("/").text == "onetwo"
    with client.session_transaction() as opened:
        assert dict(opened) == {"begun": True, "sent": 1}


def test_copied_request_context_works_on_the_same_session(app: Flask) -> None:
    @app.get("/")
    def view() -> str:
        @copy_current_request_context
        def work() -> None:
            session["by"] = "another thread"

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return str(session["by"])

    client = app.test_client()
    assert client.get("/").text == "another thread"
    with client.session_transaction() as opened:
        assert opened["by"] == "another thread"


def test_async_views_have_the_session_and_are_guarded(app: Flask) -> None:
    @app.get("/open")
    async def count() -> str:
        return str(session.increment("n"))

    @app.get("/guarded")
    @login_required
    async def guarded() -> str:
        return str(session.user_id)

    assert app.test_client().get("/guarded").status_code == 303
    client = logged_in(app)
    assert [client.get("/open").text, client.get("/open").text] == ["1", "2"]
    assert client.get("/guarded").text == "alice"


# --- flash ------------------------------------------------------------------------------------------------------------


def test_flashed_messages_keep_order_category_and_markup(app: Flask) -> None:
    route(app, steps(lambda: flash("one"), lambda: flash(Markup("<b>two</b>"), "warning")), "/flash")
    route(app, lambda: flask.render_template_string("{{ get_flashed_messages(with_categories=true) | safe }}"), "/show")
    page = "{% for message in get_flashed_messages() %}{{ message }}|{% endfor %}{{ get_flashed_messages() | length }}"
    route(app, lambda: flask.render_template_string(page), "/page")
    client = app.test_client()
    client.get("/flash")
    assert client.get("/show").text == "[('message', 'one'), ('warning', Markup('<b>two</b>'))]"
    client.get("/flash")
    assert client.get("/page").text == "one|<b>two</b>|2"
    assert client.get("/page").text == "0"


def test_text_that_is_flashed_is_escaped(app: Flask) -> None:
    route(app, lambda: flash("<script>"), "/flash")
    route(app, lambda: flask.render_template_string("{{ get_flashed_messages()[0] }}"), "/page")
    client = app.test_client()
    client.get("/flash")
    assert client.get("/page").text == "&lt;script&gt;"


def test_flask_flashes_and_the_sessions_own_are_the_same_messages(app: Flask) -> None:
    with app.test_request_context():
        flash("by Flask", "info")
        session.flash("by the session")
        assert "_flashes" in session
        assert dict(session) == {"_flashes": [("info", "by Flask"), ("message", "by the session")]}
        assert len(session) == 1
        assert [tuple(each) for each in session.flashes("info")] == [("by Flask", "info")]
        assert get_flashed_messages(with_categories=True) == [("message", "by the session")]
        assert ("_flashes" in session, len(session), session.get("_flashes")) == (False, 0, None)
        with pytest.raises(KeyError):
            del session["_flashes"]


def test_flashes_can_be_assigned_and_replaced(app: Flask) -> None:
    with app.test_request_context():
        flash("one")
        flask.session["_flashes"] = [("message", "other"), ("info", "two")]
        assert get_flashed_messages(with_categories=True) == [("message", "other"), ("info", "two")]


def test_messages_flashed_at_the_same_time_are_all_kept(app: Flask) -> None:
    client = logged_in(app)
    with client.session_transaction() as opened:
        flashes = opened.get("_flashes", [])  # what Flask does, with another request in between
        _flash_by_another_request(app, client, "other")
        flashes.append(("message", "own"))
        opened["_flashes"] = flashes
    with client.session_transaction() as opened:
        assert opened["_flashes"] == [("message", "other"), ("message", "own")]


def test_message_that_arrives_while_others_are_shown_is_kept(app: Flask) -> None:
    client = logged_in(app)
    _flash_by_another_request(app, client, "old")
    with client.session_transaction() as opened:
        assert "_flashes" in opened
        _flash_by_another_request(app, client, "new")
        assert opened.pop("_flashes") == [("message", "old")]
    with client.session_transaction() as opened:
        assert opened["_flashes"] == [("message", "new")]


def _flash_by_another_request(app: Flask, client: Any, message: str) -> None:
    with app.test_request_context(headers={"Cookie": f"__Host-session={cookie_of(client)}"}):
        flash(message)
        app.process_response(flask.Response())


# --- the extension ----------------------------------------------------------------------------------------------------


def test_one_extension_serves_several_applications_of_a_factory() -> None:
    coatcheck = Coatcheck()
    apps = [Flask(name) for name in ("shop", "office")]
    for app in apps:
        app.config.update(SECRET_KEY=KEY, COATCHECK_STORE="memory://")
        coatcheck.init_app(app)
        route(app, lambda: session.login("alice"), "/login")
    apps[0].test_client().get("/login")
    with apps[0].app_context():
        assert len(coatcheck.sessions.for_user("alice")) == 1
    with apps[1].app_context():
        assert coatcheck.sessions.for_user("alice") == []
    with pytest.raises(RuntimeError, match="application context"):
        _ = coatcheck.sessions


def test_extension_of_one_application_needs_no_context() -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY=KEY, COATCHECK_STORE="memory://")
    assert Coatcheck(app).sessions is app.extensions["coatcheck"].sessions


def test_ready_sessions_are_taken_as_they_are() -> None:
    sessions = SyncSessions("memory://", secret_keys=[KEY], cookie=CookieConfig(name="ready"))
    app = Flask("shop")
    assert Coatcheck(app, sessions=sessions).sessions is sessions
    route(app, lambda: session.update(a=1))
    assert str(cookie_in(app.test_client().get("/"))).startswith("__Host-ready=")


def test_second_init_of_an_application_is_an_error(app: Flask) -> None:
    with pytest.raises(ConfigurationError, match="'shop' has Coatcheck already"):
        Coatcheck(app)


def test_extension_that_an_application_does_not_have_is_named_in_the_error() -> None:
    with (
        Flask("bare").app_context(),
        pytest.raises(ConfigurationError, match=r"'bare' has no Coatcheck; call init_app"),
    ):
        _ = Coatcheck().sessions


def test_applications_side_by_side_each_have_their_own_session() -> None:
    shop, office = make_app(), make_app(COATCHECK_COOKIE_NAME="office")
    for app in (shop, office):
        route(app, lambda: str(session.increment("n")))
    shop.wsgi_app = DispatcherMiddleware(shop.wsgi_app, {"/office": office})  # type: ignore[method-assign]
    client = shop.test_client()
    assert [client.get(path).text for path in ("/", "/office/", "/", "/office/")] == ["1", "1", "2", "2"]


# --- settings ---------------------------------------------------------------------------------------------------------


def config_of(**config: Any) -> Any:
    return sessions_of(make_app(**config)).config


def test_every_setting_of_sessions_can_be_set() -> None:
    settings: dict[str, Any] = {
        "IDLE_TIMEOUT": timedelta(minutes=5), "LIFETIME": timedelta(hours=1), "REFRESH_AFTER": 0.5,
        "MAX_RECORD_BYTES": 1000, "MAX_KEYS": 10, "MAX_SESSIONS_PER_USER": 3, "WHEN_FULL": "refuse",
        "RENEW_EVERY": timedelta(minutes=1), "RENEWAL_GRACE": timedelta(seconds=5), "END_ON_REUSE": True,
        "USER_AGENT": False, "CLIENT_ADDRESS": "none", "CLOCK": ManualClock(), "SECRET_KEYS": (KEY, KEY[::-1]),
    }  # fmt: skip
    config = config_of(**{f"COATCHECK_{name}": value for name, value in settings.items()}, SECRET_KEY=None)
    assert {name: getattr(config, name.lower()) for name in settings} == settings


def test_seconds_are_taken_for_durations() -> None:
    config = config_of(COATCHECK_IDLE_TIMEOUT=60, COATCHECK_LIFETIME=3600.5)
    assert (config.idle_timeout, config.lifetime) == (timedelta(minutes=1), timedelta(hours=1, milliseconds=500))


def test_cookie_is_set_up_by_our_settings_or_by_those_of_flask_that_somebody_has_chosen() -> None:
    assert config_of().cookie == CookieConfig(persistent=False)
    flasks = {
        "SESSION_COOKIE_NAME": "shop", "SESSION_COOKIE_DOMAIN": "shop.test", "SESSION_COOKIE_PATH": "/shop",
        "SESSION_COOKIE_HTTPONLY": False, "SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_SAMESITE": "Strict",
        "SESSION_COOKIE_PARTITIONED": True,
    }  # fmt: skip
    expected = CookieConfig(
        name="shop", domain="shop.test", path="/shop", http_only=False, same_site="strict", partitioned=True,
        persistent=False,
    )  # fmt: skip
    assert config_of(**flasks).cookie == expected
    ours = {"NAME": "ours", "DOMAIN": None, "PATH": "/", "HTTP_ONLY": True, "SAME_SITE": "lax", "PARTITIONED": False}
    settings = {f"COATCHECK_COOKIE_{name}": value for name, value in ours.items()}
    config = config_of(**flasks, **settings, COATCHECK_COOKIE_PERSISTENT=True, COATCHECK_COOKIE_SECURE=False)
    assert config.cookie == CookieConfig(name="ours", secure=False)


def test_explicit_prefix_in_flasks_cookie_name_is_not_doubled() -> None:
    assert config_of(SESSION_COOKIE_NAME="__Host-shop").cookie.full_name == "__Host-shop"


def test_permanent_session_lifetime_is_the_idle_timeout_where_it_was_chosen() -> None:
    assert config_of().idle_timeout == timedelta(hours=2)
    short = config_of(PERMANENT_SESSION_LIFETIME=1800)
    assert (short.idle_timeout, short.lifetime) == (timedelta(minutes=30), timedelta(days=7))
    long = config_of(PERMANENT_SESSION_LIFETIME=timedelta(days=60))
    assert (long.idle_timeout, long.lifetime) == (timedelta(days=60), timedelta(days=60))
    ours = config_of(PERMANENT_SESSION_LIFETIME=1800, COATCHECK_IDLE_TIMEOUT=60)
    assert (ours.idle_timeout, ours.lifetime) == (timedelta(minutes=1), timedelta(days=7))


def test_secret_key_and_its_fallbacks_sign_unless_there_are_own_keys() -> None:
    other = KEY[::-1]
    assert config_of(SECRET_KEY_FALLBACKS=[other]).secret_keys == (KEY, other)
    assert config_of(COATCHECK_SECRET_KEYS=[other]).secret_keys == (other,)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"SECRET_KEY": None}, r"app.config\['SECRET_KEY'\] is not set"),
        ({"SECRET_KEY": "dev"}, r"app.config\['SECRET_KEY'\] has fewer than 32 bytes"),
        ({"SECRET_KEY_FALLBACKS": [b"old"]}, r"app.config\['SECRET_KEY_FALLBACKS\[0\]'\] has fewer than 32 bytes"),
        ({"COATCHECK_STORE": None}, r"app.config needs COATCHECK_STORE.* Set it before Coatcheck\(app\)"),
        ({"COATCHECK_STORES": "memory://"}, "does not know: COATCHECK_STORES. After COATCHECK_ it knows ADOPT, CLIENT"),
        ({"COATCHECK_IDLE_TIMEOUT": True}, "idle_timeout: expected a timedelta"),
        ({"COATCHECK_COOKIE_SAME_SITE": "none", "COATCHECK_COOKIE_SECURE": False}, "needs secure=True"),
        ({"COATCHECK_LOGIN_PATH": "//evil.test"}, "login_path: expected a path of this site"),
        ({"COATCHECK_WHILE_DOWN": "go on"}, "while_down: expected"),
        ({"COATCHECK_LOAD": "never"}, "load: expected"),
        ({"COATCHECK_CSRF": "tokens"}, "csrf: expected True, 'origin' or False"),
        ({"COATCHECK_CSRF": 1}, "csrf: expected True, 'origin' or False, got 1"),
        ({"COATCHECK_CSRF_EXEMPT": ["hook"]}, "exempt: expected a path"),
    ],
)
def test_setting_that_can_not_work_is_named_when_the_application_is_made(config: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        make_app(**config)
    assert "dev" not in str(caught.value)


def test_settings_about_sessions_beside_ready_ones_are_an_error() -> None:
    app = Flask("shop")
    app.config.update(COATCHECK_STORE="memory://", COATCHECK_LOGIN_PATH="/in")
    with pytest.raises(ConfigurationError, match="sets COATCHECK_STORE, which would have no effect"):
        Coatcheck(app, sessions=SyncSessions("memory://", secret_keys=[KEY]))


def test_async_sessions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected a SyncSessions object, got a Sessions"):
        Coatcheck(Flask("shop"), sessions=Sessions("memory://", secret_keys=[KEY]))  # type: ignore[arg-type]


def test_lazy_load_reads_nothing_for_a_page_that_does_not_ask() -> None:
    store = SyncFailingStore()
    app = make_app(COATCHECK_STORE=store, COATCHECK_LOAD="lazy")
    route(app, lambda: "hello")
    route(app, lambda: str(session.user_id), "/who")
    client = logged_in(app)
    store.calls.clear()
    client.get("/")
    assert store.calls == []
    assert client.get("/who").text == "alice"
    assert store.calls == ["load"]


def test_missing_framework_is_an_error_that_names_the_extra() -> None:
    program = "import sys; sys.modules['flask'] = None; import coatcheck.integrations.flask"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'coatcheck[flask]'" in result.stderr


# --- guards -----------------------------------------------------------------------------------------------------------


def test_guarded_view_sends_browsers_to_the_login_and_tells_programs(app: Flask) -> None:
    app.add_url_rule("/account", view_func=login_required(lambda: str(session.user_id)))
    stranger = app.test_client()
    sent = stranger.get("/account?tab=1", headers=BROWSER)
    assert (sent.status_code, sent.headers["Location"]) == (303, "/login?next=%2Faccount%3Ftab%3D1")
    assert sent.headers["Vary"] == "Cookie"
    told = stranger.get("/account", headers=PROGRAM)
    assert (told.status_code, told.json) == (401, {"error": "login_required", "message": "Log in first"})
    assert logged_in(app).get("/account").text == "alice"


class Account(View):
    def dispatch_request(self) -> str:
        return "secret"

    def method(self) -> str:
        return "secret"

    def __call__(self) -> str:
        return "secret"


class DecoratedAccount(Account):
    decorators = [login_required]  # noqa: RUF012


class OneForAll(DecoratedAccount):
    init_every_request = False


class Mixed(MethodView):
    def get(self) -> str:
        return "open"

    @login_required
    def post(self) -> str:
        return "secret"


def new_view() -> Callable[[], str]:
    return lambda: "secret"


def new_async_view() -> Callable[[], Any]:
    async def view() -> str:
        return "secret"

    return view


def forgetful(view: Callable[[], Any]) -> Callable[[], Any]:
    """A decorator that does not hand marks on."""
    return lambda: view()


def remembering(view: Callable[[], Any]) -> Callable[[], Any]:
    return wraps(view)(forgetful(view))


def by_rule(app: Flask) -> Callable[[Any], Any]:
    app.url_map.add(app.url_rule_class("/", endpoint="secret"))
    return app.endpoint("secret")


def by_blueprints(app: Flask, register: Callable[[flask.Blueprint], Any]) -> None:
    outer, inner = flask.Blueprint("outer", "outer"), flask.Blueprint("inner", "inner")
    register(inner)
    outer.register_blueprint(inner)
    app.register_blueprint(outer)


# Each registers a guarded view for "/".
WAYS: dict[str, Callable[[Flask], Any]] = {
    "below the route": lambda app: app.route("/")(login_required(new_view())),
    "above the route": lambda app: login_required(app.route("/")(new_view())),
    "async, below": lambda app: app.route("/")(login_required(new_async_view())),
    "async, above": lambda app: login_required(app.route("/")(new_async_view())),
    "add_url_rule": lambda app: app.add_url_rule("/", view_func=login_required(new_view())),
    "add_url_rule, then guarded": lambda app: (
        app.add_url_rule("/", "secret", new_view()), login_required(app.view_functions["secret"]),
    ),
    "partial": lambda app: app.add_url_rule("/", "secret", login_required(partial(new_view()))),
    "partial, then guarded": lambda app: login_required(app.route("/", endpoint="secret")(partial(new_view()))),
    "method": lambda app: app.add_url_rule("/", "secret", login_required(Account().method)),
    "object": lambda app: app.add_url_rule("/", "secret", login_required(Account())),
    "object, then guarded": lambda app: login_required(app.route("/", endpoint="secret")(Account())),
    "endpoint, below": lambda app: by_rule(app)(login_required(new_view())),
    "endpoint, above": lambda app: login_required(by_rule(app)(new_view())),
    "view_functions": lambda app: (by_rule(app), app.view_functions.update(secret=login_required(new_view()))),
    "class": lambda app: app.add_url_rule("/", view_func=DecoratedAccount.as_view("secret")),
    "class with one instance": lambda app: app.add_url_rule("/", view_func=OneForAll.as_view("secret")),
    "as_view": lambda app: app.add_url_rule("/", view_func=login_required(Account.as_view("secret"))),
    "as_view, then guarded": lambda app: login_required(app.route("/")(Account.as_view("secret"))),
    "blueprint, below": lambda app: by_blueprints(app, lambda inner: inner.route("/")(login_required(new_view()))),
    "blueprint, above": lambda app: by_blueprints(app, lambda inner: login_required(inner.route("/")(new_view()))),
    "class in a blueprint": lambda app: by_blueprints(
        app, lambda inner: inner.add_url_rule("/", view_func=DecoratedAccount.as_view("secret"))
    ),
    "wrapped": lambda app: app.add_url_rule("/", "secret", forgetful(login_required(new_view()))),
    "wrapped, with marks": lambda app: app.add_url_rule("/", "secret", remembering(login_required(new_view()))),
    "wrapped, then guarded": lambda app: login_required(app.route("/")(forgetful(new_view()))),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_first", [False, True], ids=["after the extension", "before the extension"])
def test_guard_holds_however_its_view_is_registered(way: str, is_first: bool) -> None:
    app = Flask("shop")
    app.config.update(SECRET_KEY=KEY, COATCHECK_STORE="memory://")
    for step in (WAYS[way], Coatcheck) if is_first else (Coatcheck, WAYS[way]):
        step(app)
    for method in ("GET", "HEAD"):
        assert app.test_client().open("/", method=method).status_code == 303
    assert logged_in(app).get("/").text == "secret"


def test_one_method_of_a_class_can_be_guarded(app: Flask) -> None:
    app.add_url_rule("/", view_func=Mixed.as_view("mixed"))
    stranger = app.test_client()
    assert (stranger.get("/").text, stranger.post("/").status_code) == ("open", 303)
    assert logged_in(app).post("/").text == "secret"


@pytest.mark.parametrize("way", ["below the route", "above the route", "class", "blueprint, above"])
def test_options_that_flask_answers_by_itself_ask_for_no_login(app: Flask, way: str) -> None:
    """Or else no browser would let another origin's script send its request (CORS preflights carry no cookies)."""
    WAYS[way](app)
    response = app.test_client().options("/", headers={"Access-Control-Request-Method": "GET"})
    assert (response.status_code, "GET" in response.headers["Allow"]) == (200, True)


def test_options_that_a_view_answers_are_guarded(app: Flask) -> None:
    login_required(app.route("/", methods=["OPTIONS"])(new_view()))
    assert app.test_client().options("/").status_code == 303
    assert logged_in(app).options("/").text == "secret"


def test_what_the_application_does_before_a_request_may_log_in(app: Flask) -> None:
    def log_in_by_token() -> None:
        if request.headers.get("Authorization") == "Bearer of alice":
            session.login("alice")

    api = flask.Blueprint("api", "api", url_prefix="/api")
    api.before_request(log_in_by_token)
    login_required(api.get("/above")(new_view()))
    api.get("/below", endpoint="below")(login_required(new_view()))
    app.register_blueprint(api)
    WAYS["above the route"](app)
    app.before_request(lambda: log_in_by_token() if request.path == "/" else None)
    for path in ("/", "/api/above", "/api/below"):
        assert app.test_client().get(path).status_code == 303
        assert app.test_client().get(path, headers={"Authorization": "Bearer of alice"}).text == "secret"


def test_guard_holds_where_another_extension_calls_the_views(app: Flask) -> None:
    """Flask-DebugToolbar puts its own in the place of `dispatch_request`."""
    WAYS["above the route"](app)
    call_view: Any = lambda: app.view_functions[str(request.endpoint)]()  # noqa: E731
    app.dispatch_request = call_view  # type: ignore[method-assign]
    assert app.test_client().get("/").status_code == 303
    assert logged_in(app).get("/").text == "secret"


def test_recent_login_is_asked_for_again_after_its_time() -> None:
    clock = ManualClock()
    app = make_app(COATCHECK_CLOCK=clock)

    @app.route("/password")
    @recent_login_required(within=timedelta(minutes=10))
    @login_required
    def password() -> str:
        return "changed"

    client = logged_in(app)
    assert client.get("/password").text == "changed"
    clock.advance(timedelta(minutes=10, seconds=1))
    assert client.get("/password", headers=PROGRAM).json["error"] == "recent_login_required"
    assert client.get("/password", headers=BROWSER).headers["Location"] == "/login?next=%2Fpassword"


def test_login_page_can_be_named_by_path_or_by_endpoint() -> None:
    by_path = make_app(COATCHECK_LOGIN_PATH="/users/in")
    by_endpoint = make_app(COATCHECK_LOGIN_PATH="enter")
    by_endpoint.add_url_rule("/come/in", "enter", lambda: "")
    for app in (by_path, by_endpoint):
        app.add_url_rule("/", view_func=login_required(lambda: ""))
    assert by_path.test_client().get("/").headers["Location"].startswith("/users/in?next=")
    mounted = by_endpoint.test_client().get("/", environ_overrides={"SCRIPT_NAME": "/shop"})
    assert mounted.headers["Location"] == "/shop/come/in?next=%2Fshop%2F"


def test_application_may_answer_for_itself(app: Flask) -> None:
    app.register_error_handler(LoginRequired, lambda error: ("own answer", 418))
    app.add_url_rule("/", view_func=login_required(lambda: ""))
    assert app.test_client().get("/").status_code == 418
    earlier = Flask("shop")
    earlier.config.update(SECRET_KEY=KEY, COATCHECK_STORE="memory://")
    earlier.register_error_handler(LoginRequired, lambda error: ("own answer", 418))
    Coatcheck(earlier)
    earlier.add_url_rule("/", view_func=login_required(lambda: ""))
    assert earlier.test_client().get("/").status_code == 418


# --- while the store is down ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", ["eager", "lazy"])
def test_while_the_store_is_down_the_answer_is_503_and_nobody_is_logged_out(load: str) -> None:
    store = SyncFailingStore()
    app = make_app(COATCHECK_STORE=store, COATCHECK_LOAD=load)
    app.testing = load == "eager"
    route(app, lambda: str(session.user_id))
    route(app, lambda: "hello", "/open")
    client = logged_in(app)
    store.fail("load")
    response = client.get("/")
    assert (response.status_code, response.headers["Retry-After"], cookie_in(response)) == (503, "5", None)
    assert app.test_client().get("/open").text == "hello"
    store.recover()
    assert client.get("/").text == "alice"


def test_change_that_can_not_be_stored_is_answered_by_503(app: Flask) -> None:
    store = SyncFailingStore()
    app = make_app(COATCHECK_STORE=store)
    route(app, lambda: session.update(a=1))
    client = logged_in(app)
    store.fail("update")
    assert client.get("/").status_code == 503


def test_outage_that_a_view_meets_is_503_and_can_be_answered_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    store = SyncFailingStore()
    app = make_app(COATCHECK_STORE=store)
    route(app, steps(lambda: session.update(a=1), lambda: session.save()))
    client = logged_in(app)
    store.fail("update")
    response = client.get("/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert "The store can't be used, so a request is answered by 503: the test made update() fail" in caplog.text
    own = make_app(COATCHECK_STORE=store)
    own.register_error_handler(StoreUnavailable, lambda error: ("own page", 503))
    route(own, steps(lambda: session.update(a=1), lambda: session.save()))
    store.fail("create")
    assert own.test_client().get("/").text == "own page"


def in_after_request(app: Flask, ask: Callable[[], object]) -> None:
    app.after_request(lambda response: (ask(), response)[1])


def in_error_handler(app: Flask, ask: Callable[[], object]) -> None:
    app.register_error_handler(RuntimeError, lambda error: str(ask()))


def in_page_of_404(app: Flask, ask: Callable[[], object]) -> None:
    app.register_error_handler(404, lambda error: (str(ask()), 404))


def in_before_request(app: Flask, ask: Callable[[], object]) -> None:
    app.before_request(lambda: str(ask()))


@pytest.mark.parametrize("place", [in_after_request, in_error_handler, in_page_of_404, in_before_request])
@pytest.mark.parametrize("testing", [False, True], ids=["production", "testing"])
@pytest.mark.parametrize("asks_for", ["session", "devices"])
def test_outage_is_503_wherever_it_is_met(
    place: Callable[[Flask, Callable[[], object]], None], testing: bool, asks_for: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError

    store = SyncFailingStore()
    app = make_app(COATCHECK_STORE=store, COATCHECK_LOAD="lazy")
    app.testing = testing
    client = logged_in(app)
    place(app, lambda: session.user_id if asks_for == "session" else sessions_of(app).for_user("alice"))
    route(app, fail if place is in_error_handler else lambda: None)
    store.fail()
    response = client.get("/nowhere" if place is in_page_of_404 else "/")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert response.headers["Cache-Control"] == "no-store"
    assert cookie_in(response) is None
    assert "The store can't be used, so a request is answered by 503" in caplog.text


def test_what_was_stored_before_an_outage_in_after_request_has_its_cookie() -> None:
    store = SyncFailingStore()
    app = make_app(COATCHECK_STORE=store)
    route(app, steps(lambda: session.login("alice"), lambda: session.save(), lambda: store.fail()))
    app.after_request(lambda response: (sessions_of(app).for_user("alice"), response)[1])
    client = app.test_client()
    assert client.get("/").status_code == 503
    store.recover()
    with client.session_transaction() as opened:
        assert isinstance(opened, FlaskSession)
        assert opened.user_id == "alice"


def test_pages_go_on_without_the_store_where_that_is_chosen() -> None:
    store = SyncFailingStore()
    app = make_app(COATCHECK_STORE=store, COATCHECK_WHILE_DOWN={"/": "refuse", "/shop": "continue"})
    route(app, lambda: f"{session.is_available} {session.user_id}", "/shop")
    app.add_url_rule("/shop/account", view_func=login_required(lambda: "secret"))
    client = logged_in(app)
    store.fail("load")
    assert client.get("/shop").text == "False None"
    assert client.get("/shop/account").status_code == 503
    assert client.get("/elsewhere").status_code == 503


# --- forged requests --------------------------------------------------------------------------------------------------


def test_csrf_protection_is_one_switch() -> None:
    app = make_app(COATCHECK_CSRF=True, COATCHECK_CSRF_EXEMPT=["/hook"])
    route(app, lambda: flask.render_template_string("{{ csrf_field() }}|{{ csrf_token() }}"), "/form")
    route(app, lambda: request.form.get("theme", "none"), "/settings")
    route(app, lambda: "received", "/hook")
    client = logged_in(app)
    field, token = client.get("/form").text.split("|")
    assert field.startswith('<input type="hidden" name="csrf_token" value="')
    assert client.post("/settings", data={"theme": "dark"}).status_code == 403
    assert client.post("/settings", data={"theme": "dark", "csrf_token": token}).text == "dark"
    assert client.post("/settings", headers={"X-CSRF-Token": token}).text == "none"
    assert client.post("/hook").text == "received"
    assert (
        client.post("/settings", data={"csrf_token": token}, headers={"Origin": "https://evil.test"}).status_code == 403
    )


def test_no_token_is_asked_for_unless_that_is_switched_on(app: Flask) -> None:
    route(app, lambda: "done")
    assert logged_in(app).post("/").text == "done"
    assert "csrf_token" not in app.jinja_env.globals


# --- tests of applications --------------------------------------------------------------------------------------------


def test_session_can_be_read_after_a_request_of_the_test_client(app: Flask) -> None:
    route(app, lambda: session.update(a=1))
    with app.test_client() as client:
        client.get("/")
        assert flask.session["a"] == 1


def test_session_transaction_reads_and_writes_what_requests_do(app: Flask) -> None:
    route(app, lambda: str(session.increment("n")))
    client = app.test_client()
    with client.session_transaction() as opened:
        opened["n"] = 41
    assert client.get("/").text == "42"
    with client.session_transaction() as opened:
        assert opened.pop("n") == 42
    assert client.get("/").text == "1"


def test_test_request_context_begins_and_stores_a_session_of_its_own(app: Flask) -> None:
    with app.test_request_context():
        session.login("alice")
        response = app.process_response(flask.Response())
    assert response.headers["Set-Cookie"].startswith("__Host-session=")
    assert (response.headers["Vary"], response.headers["Cache-Control"]) == ("Cookie", "no-store")
    assert response.headers.getlist("Content-Type") == ["text/html; charset=utf-8"]
    assert len(sessions_of(app).for_user("alice")) == 1
    with app.test_request_context():
        session.login("bob")
        assert "Set-Cookie" not in app.process_response(flask.Response(status=500)).headers
    assert sessions_of(app).for_user("bob") == []


# --- on a real server -------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(store_url: str) -> Iterator[Flask]:
    app = make_app(COATCHECK_STORE=store_url, COATCHECK_COOKIE_SECURE=False)
    yield app
    sessions_of(app).close()


def test_requests_that_run_at_the_same_time_undo_nothing_of_each_other(shop: Flask) -> None:
    barrier = threading.Barrier(8, timeout=60)

    @shop.get("/<name>")
    def write(name: str) -> str:
        barrier.wait()
        session[name] = True
        session.increment("n")
        session.append("names", name)
        flash(name)
        return ""

    @shop.get("/")
    def read() -> Any:
        return {
            "session": sorted(session),
            "n": session["n"],
            "names": sorted(session["names"]),
            "messages": sorted(get_flashed_messages()),
        }

    @shop.get("/login")
    def login() -> str:
        session.login("alice")
        return ""

    names = [f"key{number}" for number in range(8)]
    with serve_wsgi(shop) as url, httpx.Client(base_url=url, timeout=60) as client:
        client.get("/login")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(client.get, (f"/{name}" for name in names)))
        assert {answer.status_code for answer in answers} == {200}
        found = client.get("/").json()
    assert found == {
        "session": [*sorted(["_flashes", *names, "n", "names"])],
        "n": 8,
        "names": names,
        "messages": names,
    }


def test_logout_is_not_undone_by_a_request_that_was_under_way(shop: Flask) -> None:
    is_reading, may_go_on = threading.Event(), threading.Event()

    @shop.get("/slow")
    def slow() -> str:
        user_id = str(session.user_id)
        is_reading.set()
        assert may_go_on.wait(60)
        session["last"] = "slow"
        return user_id

    route(shop, lambda: session.login("alice"), "/login")
    route(shop, lambda: session.logout(), "/logout")
    with serve_wsgi(shop) as url, httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(1) as pool:
        client.get("/login")
        cookies = dict(client.cookies)
        slow_answer = pool.submit(httpx.get, f"{url}/slow", cookies=cookies, timeout=60)
        assert is_reading.wait(60)
        client.get("/logout")
        may_go_on.set()
        assert slow_answer.result().text == "alice"
    assert sessions_of(shop).count() == 0


def test_redirect_leaves_when_the_session_is_stored(shop: Flask) -> None:
    route(shop, steps(lambda: session.login("alice"), lambda: flask.redirect("/who", 303)), "/login")
    route(shop, lambda: str(session.user_id), "/who")
    with serve_wsgi(shop) as url, httpx.Client(base_url=url, follow_redirects=True, timeout=60) as client:
        assert client.get("/login").text == "alice"


def test_devices_of_a_user_are_listed_and_signed_out(shop: Flask) -> None:
    @shop.get("/devices")
    @login_required
    def devices() -> Any:
        found = sessions_of(shop).for_user(str(session.user_id), current=session)
        return [[info.user_agent, info.is_current] for info in found]

    @shop.get("/others")
    @login_required
    def others() -> str:
        return str(sessions_of(shop).revoke_user(str(session.user_id), keep=session))

    route(shop, lambda: session.login("alice"), "/login")
    with (
        serve_wsgi(shop) as url,
        httpx.Client(base_url=url, headers={"User-Agent": "One"}, timeout=60) as one,
        httpx.Client(base_url=url, headers={"User-Agent": "Two"}, timeout=60) as two,
    ):
        one.get("/login")
        two.get("/login")
        assert sorted(two.get("/devices").json()) == [["One", False], ["Two", True]]
        assert two.get("/others").text == "1"
        assert (one.get("/devices").status_code, two.get("/devices").status_code) == (303, 200)


def test_a_guard_without_the_extension_says_what_is_missing() -> None:
    app = Flask(__name__)
    app.secret_key = KEY
    app.testing = True

    @app.get("/")
    @login_required
    def page() -> str:
        return "private"

    with pytest.raises(ConfigurationError, match=r"got a SecureCookieSession: is Coatcheck set up"):
        app.test_client().get("/")
