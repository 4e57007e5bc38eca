"""Live sessions of Starlette's own SessionMiddleware are adopted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from httpx_browser import NATIVE, Browser
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from coatcheck import CookieConfig
from coatcheck.interop.starlette import StarletteSessions

SECRET, OLDER_SECRET = "an old secret", "an older secret"
VALUES = {"user_id": 7, "name": "Zoë", "cart": ["hat", {"size": 7}], "price": 1.5, "nothing": None}


async def login(request: Request) -> PlainTextResponse:
    request.session.update(VALUES)
    return PlainTextResponse("hello")


async def language(request: Request) -> PlainTextResponse:
    request.session["lang"] = "de"
    return PlainTextResponse("hallo")


async def whoami(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(request.session.get("user_id")))


def old_shop(secret_key: str = SECRET, **options: Any) -> Starlette:
    routes = [Route("/login", login), Route("/language", language), Route("/whoami", whoami)]
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, secret_key=secret_key, **options)])


def adopter(**settings: Any) -> StarletteSessions:
    defaults: dict[str, Any] = {"secret_key": SECRET, "user_id": lambda values: values.get("user_id")}
    return StarletteSessions(**defaults | settings)


def test_a_login_in_starlette_goes_on_here(browser: Browser, open_shop: Any) -> None:
    old = old_shop(https_only=True)
    browser.visit_asgi(old, "/login")
    copy = browser.names["session"]
    assert browser.visit_asgi(old, "/whoami").text == "7"
    shop = open_shop(adopter())
    shop.get()
    assert (shop.seen, shop.user_id, shop.remembered) == (VALUES, "7", True)
    assert set(browser.names) == {NATIVE}
    shop.get("/logout")
    assert browser.names == {}
    browser.cookies.set("session", copy, domain="shop.test", path="/")
    shop.get()
    assert (shop.seen, shop.user_id) == ({}, None)


def test_what_nobody_has_logged_in_to_is_carried_over_too(browser: Browser, open_shop: Any) -> None:
    browser.visit_asgi(old_shop(), "/language")
    shop = open_shop(adopter())
    for _ in range(2):
        shop.get()
        assert (shop.seen, shop.user_id) == ({"lang": "de"}, None)
    assert set(browser.names) == {NATIVE}


def test_every_copy_of_a_users_cookie_ends_with_revoke_user(browser: Browser, open_shop: Any) -> None:
    old = old_shop()
    shop = open_shop(adopter())
    browser.visit_asgi(old, "/login")
    older = browser.names["session"]
    browser.visit_asgi(old, "/language")
    assert browser.names["session"] != older
    shop.get()
    assert browser.run(shop.sessions.revoke_user("7")) == 1
    shop.get()
    browser.cookies.set("session", older, domain="shop.test", path="/")
    shop.get()
    assert (shop.seen, shop.user_id) == ({}, None)


def test_a_secret_key_that_was_changed_still_counts(browser: Browser, open_shop: Any) -> None:
    browser.visit_asgi(old_shop(OLDER_SECRET), "/login")
    shop = open_shop(adopter(secret_key=[SECRET, OLDER_SECRET]))
    shop.get()
    assert shop.user_id == "7"


def test_a_cookie_of_the_browsers_session_stays_one(browser: Browser, open_shop: Any) -> None:
    browser.visit_asgi(old_shop(max_age=None), "/login")
    shop = open_shop(adopter(max_age=None))
    response = shop.get()
    assert (shop.user_id, shop.remembered) == ("7", False)
    assert "Max-Age" not in response.headers.get_list("set-cookie")[0]


@pytest.mark.parametrize("age", [timedelta(days=14, seconds=2), -timedelta(minutes=2)])
def test_a_cookie_that_is_too_old_or_from_the_future_is_refused(
    browser: Browser, open_shop: Any, age: timedelta
) -> None:
    import time

    browser.visit_asgi(old_shop(), "/login")
    shop = open_shop(adopter(clock=lambda: time.time() + age.total_seconds()))
    shop.get()
    assert shop.seen == {}


@pytest.mark.parametrize(
    "change", [lambda value: value[:-1], lambda value: "e30=" + value[4:], lambda value: ".." + value]
)
def test_a_cookie_that_starlette_would_refuse_is_refused(browser: Browser, open_shop: Any, change: Any) -> None:
    old = old_shop()
    browser.visit_asgi(old, "/login")
    browser.cookies.set("session", change(browser.names["session"]), domain="shop.test", path="/")
    assert browser.visit_asgi(old, "/whoami").text == "None"
    shop = open_shop(adopter())
    shop.get()
    assert shop.seen == {}


def test_over_plain_http_the_new_cookie_takes_the_place_of_the_old_one(browser: Browser, open_shop: Any) -> None:
    browser.visit_asgi(old_shop(), "/login")
    shop = open_shop(adopter(), cookie=CookieConfig(secure=False))
    for _ in range(2):
        shop.get()
        assert shop.user_id == "7"
    assert set(browser.names) == {"session"}
