"""Litestar's server-side sessions with its Redis store."""

from __future__ import annotations

from typing import Any

from article import REDIS_URL, WEEK_S, be_ready, content
from litestar import Litestar, Request, get, post
from litestar.exceptions import NotAuthorizedException
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.redis import RedisStore


@post("/login")
async def login(request: Request[Any, Any, Any], user: str) -> dict[str, Any]:
    request.set_session(content(user))
    return {"ok": True}


@get("/profile")
async def profile(request: Request[Any, Any, Any]) -> dict[str, Any]:
    session = request.session
    if not session.get("authenticated"):
        raise NotAuthorizedException
    return {"user": session["user"], "visits": session["visits"]}


@get("/visit")
async def visit(request: Request[Any, Any, Any]) -> dict[str, Any]:
    request.session["visits"] += 1
    return {"visits": request.session["visits"]}


@post("/logout")
async def logout(request: Request[Any, Any, Any]) -> dict[str, Any]:
    request.clear_session()
    return {"ok": True}


@get("/none")
async def none() -> dict[str, Any]:
    return {"ok": True}


app = Litestar(
    route_handlers=[login, profile, visit, logout, none],
    middleware=[ServerSideSessionConfig(max_age=WEEK_S).middleware],
    stores={"sessions": RedisStore.with_client(url=REDIS_URL)},
)

be_ready()
