"""Never run: the type checkers read it, for what users of the adapters to aiohttp and Litestar are promised."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from aiohttp import web
from litestar import Litestar, Request, get
from litestar.di import NamedDependency

from coatcheck import Session, Sessions, SyncSessions
from coatcheck.integrations import aiohttp as for_aiohttp
from coatcheck.integrations import litestar as for_litestar

sessions = Sessions("memory://", secret_keys=["newest"])
sync_sessions = SyncSessions("memory://", secret_keys=["newest"])

# --- aiohttp ----------------------------------------------------------------------------------------------------------

app = web.Application()
routes = web.RouteTableDef()
for_aiohttp.setup(app, sessions, name="shop", load="lazy", while_down={"/": "continue"}, csrf=True)
for_aiohttp.setup(app, sync_sessions)  # type: ignore[arg-type]
for_aiohttp.setup(app, sessions, load="never")  # type: ignore[arg-type]


@for_aiohttp.login_required
async def profile(request: web.Request) -> web.Response:
    assert_type(await for_aiohttp.get_session(request), Session)
    assert_type(await for_aiohttp.get_session(request, "admin"), Session)
    return web.Response()


class Password(web.View):
    @for_aiohttp.recent_login_required(within=timedelta(minutes=10))
    async def post(self) -> web.StreamResponse:
        assert_type(await profile(self.request), web.Response)
        return web.StreamResponse()


routes.get("/")(profile)
routes.view("/password")(Password)


# --- Litestar ---------------------------------------------------------------------------------------------------------


@get("/", guards=[for_litestar.login_required, for_litestar.recent_login_required(timedelta(minutes=10))])
async def home(session: NamedDependency[Session], request: Request[Any, Any, Any]) -> str:
    assert_type(session, Session)
    assert_type(await for_litestar.get_session(request), Session)
    return str(session.user_id)


Litestar([home], plugins=[for_litestar.CoatcheckPlugin(sessions, csrf=True)])
for_litestar.CoatcheckPlugin(sync_sessions)  # type: ignore[arg-type]
for_litestar.CoatcheckPlugin(sessions, while_down="never")  # type: ignore[arg-type]
