"""Live sessions of the real Flask-Session are adopted, from Redis."""

from __future__ import annotations

import logging
import pickle
import warnings
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from flask import Flask, flash, session
from flask_session import Session
from httpx_browser import NATIVE, Browser
from servers import Server

from coatcheck.interop.flask_session import FlaskSessions

SECRET = "an old secret"
SEEN = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
VALUES = {"_user_id": "7", "name": "Zoë", "cart": ["hat", {"size": 7}], "price": 1.5, "nothing": None}


def old_shop(server: Server, **settings: Any) -> Flask:
    app = Flask("old shop")
    app.config.update(SECRET_KEY=SECRET, SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(port=server.port), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # SESSION_USE_SIGNER is deprecated, and much used
        Session(app)

    @app.get("/login")
    def login() -> str:
        session.update(VALUES)
        flash("Welcome back", "success")
        return "hello"

    @app.get("/when")
    def when() -> str:
        session.update(seen=SEEN, raw=b"\x00\xff")
        return "now"

    @app.get("/whoami")
    def whoami() -> str:
        return str(session.get("_user_id"))

    return app


def adopter(server: Server, **settings: Any) -> FlaskSessions:
    defaults: dict[str, Any] = {"store": server.url, "user_id": lambda values: values.get("_user_id")}
    return FlaskSessions(**defaults | settings)


@pytest.mark.parametrize("form", ["msgpack", "json"])
@pytest.mark.parametrize("signed", [False, True])
def test_a_login_in_flask_goes_on_here(  # noqa: PLR0917
    old_redis: Server, browser: Browser, open_shop: Any, old_keys: Any, form: str, signed: bool
) -> None:
    old = old_shop(old_redis, SESSION_USE_SIGNER=signed, SESSION_SERIALIZATION_FORMAT=form)
    browser.visit_wsgi(old, "/login")
    assert browser.visit_wsgi(old, "/whoami").text == "7"
    assert [key.partition(":")[0] for key in old_keys()] == ["session"]
    shop = open_shop(adopter(old_redis, secret_key=SECRET if signed else None))
    shop.get()
    assert shop.user_id == "7"
    assert shop.seen == VALUES | {"_flash": [["Welcome back", "success"]]}
    assert (set(browser.names), old_keys()) == ({NATIVE}, [])
    shop.get()
    assert shop.user_id == "7"


def test_a_datetime_and_bytes_are_carried_over(old_redis: Server, browser: Browser, open_shop: Any) -> None:
    browser.visit_wsgi(old_shop(old_redis), "/when")
    shop = open_shop(adopter(old_redis))
    shop.get()
    assert (shop.seen, shop.user_id) == ({"seen": SEEN, "raw": b"\x00\xff"}, None)


@pytest.mark.parametrize("permanent", [True, False])
def test_whether_the_cookie_outlives_the_browser_stays_as_it_was(
    old_redis: Server, browser: Browser, open_shop: Any, permanent: bool
) -> None:
    browser.visit_wsgi(old_shop(old_redis, SESSION_PERMANENT=permanent), "/login")
    shop = open_shop(adopter(old_redis))
    shop.get()
    assert shop.remembered is permanent


def test_another_prefix_and_cookie_name_are_settings(old_redis: Server, browser: Browser, open_shop: Any) -> None:
    browser.visit_wsgi(old_shop(old_redis, SESSION_KEY_PREFIX="shop:", SESSION_COOKIE_NAME="sid"), "/login")
    shop = open_shop(adopter(old_redis, prefix="shop:", cookie_name="sid"))
    shop.get()
    assert (shop.user_id, set(browser.names)) == ("7", {NATIVE})


def test_a_signed_cookie_that_flask_would_refuse_asks_nobody(
    old_redis: Server, browser: Browser, open_shop: Any
) -> None:
    old = old_shop(old_redis, SESSION_USE_SIGNER=True)
    browser.visit_wsgi(old, "/login")
    unsigned = browser.names["session"].partition(".")[0]
    for value in (unsigned, unsigned + ".AAAA", browser.names["session"][:-2]):
        browser.cookies.set("session", value, domain="shop.test", path="/")
        shop = open_shop(adopter(old_redis, secret_key=SECRET, store="redis://127.0.0.1:1/0"))
        assert shop.get().status_code == 200
        assert shop.seen == {}


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


def test_what_an_older_version_pickled_is_refused_and_never_loaded(
    old_redis: Server, browser: Browser, open_shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    browser.visit_wsgi(old_shop(old_redis), "/login")
    shop = open_shop(adopter(old_redis))
    with redis.Redis(port=old_redis.port) as client:
        (key,) = client.keys("session:*")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            pickled = pickle.dumps({"_user_id": "7", "bomb": Bomb()}, protocol)
            client.set(key, pickled)
            caplog.clear()
            shop.get()
            assert shop.seen == {}
            (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
            assert "An old session of Flask-Session can't be adopted and is left as it is" in line
            assert ("it is pickled" in line) is (protocol >= 2)
            assert client.get(key) == pickled


def test_while_the_old_redis_is_down_the_answer_is_503(browser: Browser, open_shop: Any, old_redis: Server) -> None:
    browser.visit_wsgi(old_shop(old_redis), "/login")
    shop = open_shop(adopter(old_redis, store="redis://127.0.0.1:1/0"))
    response = shop.get()
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert set(browser.names) == {"session"}
