"""One small site on each framework, with the framework's own test client, behind one blocking face.

`/` tells who is there. `/logout` ends the session, `/renew` gives it a new ID.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import aiohttp.test_utils
import aiohttp.web
import fastapi
import flask
import httpx
import litestar
import quart
import werkzeug.test
from litestar.testing import TestClient as LitestarTestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette_client import TestClient

from coatcheck import Sessions, SyncSessions, asgi, wsgi

PATHS = ("/", "/logout", "/renew")


def answer(session: Any, path: str) -> str:
    """Do what the path asks for, and tell who is there."""
    if path == "/logout":
        session.logout()
    if path == "/renew":
        session.renew()
    return f"{session.user_id} {session.get('theme')}"


class GreetingSite:
    """A site and the client that visits it."""

    makes: ClassVar[Callable[..., Sessions | SyncSessions]] = Sessions

    def __init__(self, sessions: Any) -> None:
        self.sessions = sessions
        self.client = self.make_client()

    def make_client(self) -> Any:
        """Build the application, and give its test client."""
        raise NotImplementedError

    def visit(self, path: str = "/") -> str:
        """Give the text of a page."""
        response = self.client.get(path)
        assert response.status_code == 200
        return str(response.text)

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call what a test would call; for async sites, while their event loop runs."""
        result = function(*arguments, **named)
        return asyncio.run(result) if asyncio.iscoroutine(result) else result

    @property
    def tokens(self) -> list[str]:
        """The cookies of the session's name that the client keeps."""
        name = self.sessions.config.cookie.full_name
        return [cookie.value or "" for cookie in self.jar if cookie.name == name]

    @property
    def jar(self) -> Any:
        """All cookies that the client keeps."""
        return self.client.cookies.jar

    def close(self) -> None:
        """Free what it holds."""
        self.client.close()


class _AsyncSite(GreetingSite):
    """A site whose client is used with `await`."""

    def __init__(self, sessions: Any) -> None:
        self._runner = asyncio.Runner()
        super().__init__(sessions)

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        async def call() -> Any:
            result = function(*arguments, **named)
            return await result if asyncio.iscoroutine(result) else result

        return self._runner.run(call())

    def visit(self, path: str = "/") -> str:
        return str(self.call(self._visit, path))

    async def _visit(self, path: str) -> str:
        response = await self.client.get(path)
        assert response.status_code == 200
        return str(response.text)

    def close(self) -> None:
        self._runner.close()


async def _greet(request: Request) -> PlainTextResponse:
    return PlainTextResponse(answer(request.session, request.url.path))


class StarletteSite(GreetingSite):
    def make_client(self) -> Any:
        app = Starlette(routes=[Route(path, _greet) for path in PATHS])
        return TestClient(asgi.SessionMiddleware(app, self.sessions))


class FastAPISite(GreetingSite):
    def make_client(self) -> Any:
        app = fastapi.FastAPI()
        app.add_middleware(asgi.SessionMiddleware, sessions=self.sessions)
        for path in PATHS:
            app.add_route(path, _greet)
        return TestClient(app)


class LitestarSite(GreetingSite):
    def make_client(self) -> Any:
        @litestar.get(list(PATHS), media_type="text/plain")
        async def greet(scope: litestar.types.Scope) -> str:
            return answer(scope["coat"], scope["path"])  # type: ignore[typeddict-item]

        def middleware(app: Any) -> Any:
            return asgi.SessionMiddleware(app, self.sessions, name="coat")

        # By itself, Litestar would set the log of the whole process up.
        return LitestarTestClient(litestar.Litestar([greet], middleware=[middleware], logging_config=None))

    def close(self) -> None:
        pass  # its client holds nothing, and can't be closed


class AsyncHttpxSite(_AsyncSite):
    def make_client(self) -> Any:
        app = Starlette(routes=[Route(path, _greet) for path in PATHS])
        transport = httpx.ASGITransport(asgi.SessionMiddleware(app, self.sessions))
        return httpx.AsyncClient(transport=transport, base_url="http://shop.test")


def _flask_app() -> flask.Flask:
    app = flask.Flask("shop")

    def greet() -> str:
        return answer(flask.request.environ[wsgi.ENVIRON_KEY], flask.request.path)

    for path in PATHS:
        app.add_url_rule(path, path, greet)
    return app


class HttpxSite(GreetingSite):
    makes = SyncSessions

    def make_client(self) -> Any:
        transport = httpx.WSGITransport(wsgi.SessionMiddleware(_flask_app(), self.sessions))
        return httpx.Client(transport=transport, base_url="http://127.0.0.1:8000")


class WerkzeugSite(GreetingSite):
    makes = SyncSessions

    def make_client(self) -> Any:
        return werkzeug.test.Client(wsgi.SessionMiddleware(_flask_app(), self.sessions))

    @property
    def jar(self) -> Any:
        return [SimpleNamespace(name=cookie.key, value=cookie.value) for cookie in self.client._cookies.values()]

    def close(self) -> None:
        pass


class FlaskSite(WerkzeugSite):
    def make_client(self) -> Any:
        app = _flask_app()
        app.config["SERVER_NAME"] = "shop.test:5000"
        app.wsgi_app = wsgi.SessionMiddleware(app.wsgi_app, self.sessions)  # type: ignore[method-assign]
        app.extensions["coatcheck"] = SimpleNamespace(sessions=self.sessions)
        return app.test_client()


class QuartSite(_AsyncSite):
    def make_client(self) -> Any:
        app = quart.Quart("shop")

        async def greet() -> str:
            return answer(quart.request.scope["session"], quart.request.path)  # type: ignore[typeddict-item]

        for path in PATHS:
            app.add_url_rule(path, path, greet)
        asgi_app: Any = app.asgi_app  # typed with Quart's own types of scopes
        app.asgi_app = asgi.SessionMiddleware(asgi_app, self.sessions)  # type: ignore[method-assign, assignment]
        app.extensions["coatcheck"] = SimpleNamespace(sessions=self.sessions)
        return app.test_client()

    async def _visit(self, path: str) -> str:
        response = await self.client.get(path)
        assert response.status_code == 200
        return str(await response.get_data(as_text=True))

    @property
    def jar(self) -> Any:
        return self.client.cookie_jar


class AiohttpSite(_AsyncSite):
    def make_client(self) -> Any:
        return self.call(self._start)

    async def _start(self) -> Any:
        app = aiohttp.web.Application()
        app.add_routes([aiohttp.web.get(path, self._greet) for path in PATHS])
        client = aiohttp.test_utils.TestClient(aiohttp.test_utils.TestServer(app))
        await client.start_server()
        return client

    async def _greet(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        session = self.sessions.begin([value.encode() for value in request.headers.getall("Cookie", [])])
        await session.load()
        response = aiohttp.web.Response(text=answer(session, request.path))
        set_cookie = await self.sessions.conclude(session, response.status)
        if set_cookie is not None:
            response.headers["Set-Cookie"] = set_cookie
        return response

    async def _visit(self, path: str) -> str:
        async with self.client.get(path) as response:
            assert response.status == 200
            return str(await response.text())

    @property
    def jar(self) -> Any:
        return [SimpleNamespace(name=cookie.key, value=cookie.value) for cookie in self.client.session.cookie_jar]

    def close(self) -> None:
        self.call(self.client.close)
        super().close()


SITES: dict[str, type[GreetingSite]] = {
    "starlette": StarletteSite,
    "fastapi": FastAPISite,
    "litestar": LitestarSite,
    "httpx": HttpxSite,
    "httpx-async": AsyncHttpxSite,
    "werkzeug": WerkzeugSite,
    "flask": FlaskSite,
    "quart": QuartSite,
    "aiohttp": AiohttpSite,
}
