"""Whoever develops over plain http with the default cookie is told once why nobody stays logged in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final
from wsgiref.util import setup_testing_defaults

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import coatcheck.asgi
import coatcheck.wsgi
from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.integrations.aiohttp import get_session, setup

KEY: Final = "a secret key for tests, 32 bytes or more"
Get = Callable[[str], Awaitable[None]]


def get_by_asgi(cookie: CookieConfig) -> Get:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/login":
            scope["session"].login("alice")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    stack: Any = coatcheck.asgi.SessionMiddleware(app, Sessions("memory://", secret_keys=[KEY], cookie=cookie))

    async def get(url: str) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(stack)) as client:
            await client.get(url)

    return get


def get_by_wsgi(cookie: CookieConfig) -> Get:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/login":
            environ["coatcheck.session"].login("alice")
        start_response("204 No Content", [])
        return []

    stack: Any = coatcheck.wsgi.SessionMiddleware(app, SyncSessions("memory://", secret_keys=[KEY], cookie=cookie))

    async def get(url: str) -> None:
        parts = httpx.URL(url)
        host = parts.netloc.decode()
        environ = {"PATH_INFO": parts.path, "HTTP_HOST": host, "wsgi.url_scheme": parts.scheme}
        setup_testing_defaults(environ)
        list(stack(environ, lambda *_: None))

    return get


@pytest.fixture(params=[get_by_asgi, get_by_wsgi], ids=["asgi", "wsgi"])
def make_site(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.anyio
async def test_the_first_cookie_over_plain_http_on_this_machine_is_explained_once(
    make_site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    get = make_site(CookieConfig())
    await get("http://localhost:8000/")
    assert caplog.messages == []
    await get("http://localhost:8000/login")
    await get("http://localhost:8000/login")
    [message] = [message for message in caplog.messages if "Secure" in message]
    assert "__Host-session" in message
    assert "localhost:8000" in message
    assert "CookieConfig(secure=False)" in message
    assert "COATCHECK_COOKIE_SECURE = False" in message


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"])
async def test_every_name_of_this_machine_is_known(make_site: Any, host: str, caplog: pytest.LogCaptureFixture) -> None:
    await make_site(CookieConfig())(f"http://{host}/login")
    assert "is Secure" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("secure", "url"),
    [
        (True, "https://localhost/login"),
        (True, "http://shop.example/login"),  # a proxy may speak https for it
        (True, "http://localhost.shop.example/login"),
        (False, "http://localhost/login"),
    ],
)
async def test_nothing_is_said_where_the_cookie_comes_back(
    make_site: Any, secure: bool, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await make_site(CookieConfig(secure=secure))(url)
    assert "is Secure" not in caplog.text


@pytest.mark.anyio
async def test_a_site_that_has_set_its_first_cookie_elsewhere_is_left_alone(
    make_site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    get = make_site(CookieConfig())
    await get("http://shop.example/login")
    await get("http://127.0.0.1/login")
    assert "is Secure" not in caplog.text


@pytest.mark.anyio
async def test_aiohttp_explains_it_too(caplog: pytest.LogCaptureFixture) -> None:
    async def log_in(request: web.Request) -> web.Response:
        (await get_session(request)).login("alice")
        return web.Response()

    app = web.Application()
    app.router.add_get("/login", log_in)
    setup(app, Sessions("memory://", secret_keys=[KEY]))
    async with TestClient(TestServer(app)) as client:
        await client.get("/login")
        await client.get("/login")
    assert caplog.text.count("is Secure") == 1
