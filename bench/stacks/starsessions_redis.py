"""starsessions with its Redis store; a handler that uses the session loads it."""

from __future__ import annotations

from article import REDIS_URL, WEEK_S, be_ready, content
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starsessions import SessionMiddleware, load_session, regenerate_session_id
from starsessions.stores.redis import RedisStore


async def login(request: Request) -> Response:
    await load_session(request)
    regenerate_session_id(request)
    request.session.update(content(request.query_params["user"]))
    return JSONResponse({"ok": True})


async def profile(request: Request) -> Response:
    await load_session(request)
    session = request.session
    if not session.get("authenticated"):
        return JSONResponse({"error": "not logged in"}, 401)
    return JSONResponse({"user": session["user"], "visits": session["visits"]})


async def visit(request: Request) -> Response:
    await load_session(request)
    request.session["visits"] += 1
    return JSONResponse({"visits": request.session["visits"]})


async def logout(request: Request) -> Response:
    await load_session(request)
    request.session.clear()
    return JSONResponse({"ok": True})


async def none(_request: Request) -> Response:
    return JSONResponse({"ok": True})


app = Starlette(
    routes=[
        Route("/login", login, methods=["POST"]),
        Route("/profile", profile),
        Route("/visit", visit),
        Route("/logout", logout, methods=["POST"]),
        Route("/none", none),
    ],
    middleware=[
        Middleware(
            SessionMiddleware,
            store=RedisStore(connection=Redis.from_url(REDIS_URL)),
            lifetime=WEEK_S,
            cookie_https_only=False,
        )
    ],
)

be_ready()
