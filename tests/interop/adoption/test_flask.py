"""Live sessions of Flask itself, which are all in their cookie, are adopted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, flash, session
from httpx_browser import NATIVE, Browser
from markupsafe import Markup

from coatcheck.interop.flask import FlaskCookieSessions

SECRET, OLDER_SECRET = "an old secret", "an older secret"
VALUES = {
    "_user_id": "7",
    "name": "Zoë",
    "cart": ["hat", {"size": 7}],
    "pair": (1, ("a", None)),
    "raw": b"\x00\xff",
    "id": UUID(int=7),
    "seen": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
    "looks like a tag": {" t": [1]},
    "text": "<b>" * 300,
}


def old_shop(secret_key: str = SECRET, fallbacks: list[str] | None = None) -> Flask:
    app = Flask("old shop")
    app.config.update(SECRET_KEY=secret_key, SECRET_KEY_FALLBACKS=fallbacks)

    @app.get("/login")
    def login() -> str:
        session.update(VALUES, html=Markup("<b>hi</b>"))
        flash("Welcome back", "success")
        return "hello"

    @app.get("/remember")
    def remember() -> str:
        session.permanent = True
        return "for long"

    @app.get("/whoami")
    def whoami() -> str:
        return str(session.get("_user_id"))

    return app


def adopter(**settings: Any) -> FlaskCookieSessions:
    defaults: dict[str, Any] = {"secret_key": SECRET, "user_id": lambda values: values.get("_user_id")}
    return FlaskCookieSessions(**defaults | settings)


def test_a_login_in_flask_goes_on_here_with_all_its_types(browser: Browser, open_shop: Any) -> None:
    browser.visit_wsgi(old_shop(), "/login")
    copy = browser.names["session"]
    assert copy.startswith(".")  # compressed
    shop = open_shop(adopter())
    for _ in range(2):
        shop.get()
        assert shop.seen == VALUES | {"html": "<b>hi</b>", "_flash": [["Welcome back", "success"]]}
        assert (shop.user_id, shop.remembered) == ("7", False)
    assert set(browser.names) == {NATIVE}
    shop.get("/logout")
    browser.cookies.set("session", copy, domain="shop.test", path="/")
    shop.get()
    assert shop.seen == {}


def test_a_permanent_session_stays_one(browser: Browser, open_shop: Any) -> None:
    old = old_shop()
    browser.visit_wsgi(old, "/login")
    browser.visit_wsgi(old, "/remember")
    shop = open_shop(adopter())
    shop.get()
    assert (shop.user_id, shop.remembered) == ("7", True)


def test_a_secret_key_that_was_changed_still_counts(browser: Browser, open_shop: Any) -> None:
    browser.visit_wsgi(old_shop(OLDER_SECRET), "/login")
    assert browser.visit_wsgi(old_shop(SECRET, [OLDER_SECRET]), "/whoami").text == "7"
    shop = open_shop(adopter(secret_key=[SECRET, OLDER_SECRET]))
    shop.get()
    assert shop.user_id == "7"


@pytest.mark.parametrize("change", [lambda value: value[:-1], lambda value: value[1:], lambda value: "e30" + value])
def test_a_cookie_that_flask_would_refuse_is_refused(browser: Browser, open_shop: Any, change: Any) -> None:
    old = old_shop()
    browser.visit_wsgi(old, "/login")
    browser.cookies.set("session", change(browser.names["session"]), domain="shop.test", path="/")
    assert browser.visit_wsgi(old, "/whoami").text == "None"
    shop = open_shop(adopter())
    shop.get()
    assert shop.seen == {}
