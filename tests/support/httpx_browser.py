"""A browser with a real cookie jar, that visits applications of every kind under one host name over https."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import httpx

from coatcheck import Sessions, SyncSessions
from coatcheck.asgi import SessionMiddleware as ASGISessionMiddleware
from coatcheck.wsgi import ENVIRON_KEY
from coatcheck.wsgi import SessionMiddleware as WSGISessionMiddleware

KEY = "a secret key for tests, 32 bytes or more"
BASE_URL = "https://shop.test"
NATIVE = "__Host-session"

Kind = Literal["async", "sync"]


class Browser:
    """Keeps cookies as a browser does."""

    def __init__(self) -> None:
        self.cookies = httpx.Cookies()
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.close()

    def visit_wsgi(self, app: Any, path: str) -> httpx.Response:
        with httpx.Client(transport=httpx.WSGITransport(app), base_url=BASE_URL, cookies=self.cookies) as client:
            response = client.get(path)
            self.cookies = client.cookies
        return response

    def visit_asgi(self, app: Any, path: str) -> httpx.Response:
        async def visit() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url=BASE_URL, cookies=self.cookies) as client:
                response = await client.get(path)
                self.cookies = client.cookies
            return response

        return self._runner.run(visit())

    def visit_server(self, address: str, path: str) -> httpx.Response:
        """Visit a server on this machine as if it were the host of the others."""
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self.names.items())}
        with httpx.Client(base_url=f"http://{address}") as client:
            response = client.get(path, headers=headers)
        response.request.url = httpx.URL(BASE_URL)
        self.cookies.extract_cookies(response)
        return response

    @property
    def names(self) -> dict[str, str]:
        """The cookies by name."""
        return {cookie.name: cookie.value or "" for cookie in self.cookies.jar}

    def run(self, result: Any) -> Any:
        async def wait() -> Any:
            return await result

        return self._runner.run(wait()) if asyncio.iscoroutine(result) else result


class NewShop:
    """The application after the migration, async behind the ASGI middleware or sync behind the WSGI one."""

    def __init__(self, kind: Kind, browser: Browser, adopter: Any, **settings: Any) -> None:
        self.kind, self.browser = kind, browser
        facade: Any = Sessions if kind == "async" else SyncSessions
        self.sessions = facade("memory://", secret_keys=[KEY], adopt=[adopter], **settings)
        self.seen: dict[str, Any] = {}
        self.user_id: str | None = None
        self.remembered: bool | None = None
        self.app: Any = (
            ASGISessionMiddleware(self._asgi, self.sessions)
            if kind == "async"
            else WSGISessionMiddleware(self._wsgi, self.sessions)
        )

    def get(self, path: str = "/") -> httpx.Response:
        """Visit it. Afterwards `seen` and `user_id` tell what it saw."""
        visit = self.browser.visit_asgi if self.kind == "async" else self.browser.visit_wsgi
        return visit(self.app, path)

    def _act(self, session: Any, path: str) -> None:
        if path == "/logout":
            session.logout()
        self.seen, self.user_id = dict(session), session.user_id
        self.remembered = session._work.remember

    async def _asgi(self, scope: Any, _receive: Any, send: Any) -> None:
        self._act(scope["session"], scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _wsgi(self, environ: Any, start_response: Any) -> list[bytes]:
        self._act(environ[ENVIRON_KEY], environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b""]

    def close(self) -> None:
        self.browser.run(self.sessions.close())
