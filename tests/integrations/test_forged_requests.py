"""What every adapter does without being asked: it refuses what other sites' pages send, and asks nobody for a token."""

from __future__ import annotations

from typing import Any

import flask
import pytest
import quart
from aiohttp import web
from aiohttp.test_utils import TestClient as AiohttpClient
from aiohttp.test_utils import TestServer
from fastapi import FastAPI
from litestar import Litestar, post
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette_client import TestClient

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.integrations import aiohttp, fastapi, litestar, starlette
from coatcheck.integrations.flask import Coatcheck as FlaskCoatcheck
from coatcheck.integrations.quart import Coatcheck as QuartCoatcheck
from coatcheck.testing import logged_in

KEY = "a secret key for tests, 32 bytes or more"
FOREIGN = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}


def new_sessions() -> Sessions:
    return Sessions("memory://", secret_keys=[KEY], cookie=CookieConfig(secure=False))


def flask_client() -> Any:
    app = flask.Flask(__name__)
    app.post("/change")(lambda: "changed")
    cookie = CookieConfig(secure=False)
    FlaskCoatcheck(app, sessions=SyncSessions("memory://", secret_keys=[KEY], cookie=cookie))
    return logged_in(app.test_client(), "alice")


def starlette_client() -> Any:
    sessions = new_sessions()
    app = Starlette(routes=[Route("/change", lambda _: PlainTextResponse("changed"), methods=["POST"])])
    starlette.add_sessions(app, sessions)
    return logged_in(TestClient(app), "alice", sessions)


def fastapi_client() -> Any:
    sessions = new_sessions()
    app = FastAPI()
    app.post("/change")(lambda: "changed")
    fastapi.add_sessions(app, sessions)
    return logged_in(TestClient(app), "alice", sessions)


def litestar_client() -> Any:
    @post("/change")
    async def change() -> str:
        return "changed"

    sessions = new_sessions()
    app = Litestar([change], plugins=[litestar.CoatcheckPlugin(sessions)], logging_config=None)
    return logged_in(LitestarClient(app), "alice", sessions)


@pytest.mark.parametrize("make", [flask_client, starlette_client, fastapi_client, litestar_client])
def test_other_sites_are_refused_and_no_token_is_needed(make: Any) -> None:
    client = make()
    assert client.post("/change").status_code in (200, 201)
    assert client.post("/change", headers={"Sec-Fetch-Site": "same-origin"}).status_code in (200, 201)
    assert client.post("/change", headers=FOREIGN).status_code == 403


@pytest.mark.anyio
async def test_other_sites_are_refused_by_quart() -> None:
    app = quart.Quart(__name__)

    @app.post("/change")
    async def change() -> str:
        return "changed"

    QuartCoatcheck(app, sessions=new_sessions())
    client = app.test_client()
    assert (await client.post("/change")).status_code == 200
    assert (await client.post("/change", headers=FOREIGN)).status_code == 403


@pytest.mark.anyio
async def test_other_sites_are_refused_by_aiohttp() -> None:
    async def change(_: web.Request) -> web.Response:
        return web.Response(text="changed")

    app = web.Application()
    app.router.add_post("/change", change)
    aiohttp.setup(app, new_sessions())
    async with AiohttpClient(TestServer(app)) as client:
        assert (await client.post("/change")).status == 200
        assert (await client.post("/change", headers=FOREIGN)).status == 403
