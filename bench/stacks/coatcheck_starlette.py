"""Coatcheck on Starlette."""

from __future__ import annotations

from article import REDIS_URL, SECRET_KEY, SETTINGS, be_ready
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coatcheck import CookieConfig, Sessions
from coatcheck.asgi import SessionMiddleware

sessions = Sessions(
    REDIS_URL,
    secret_keys=[SECRET_KEY],
    cookie=CookieConfig(secure=False),
    user_agent=False,  # no other stack keeps either
    client_address="none",
)


async def login(request: Request) -> Response:
    request.session.login(request.query_params["user"])
    request.session.update(SETTINGS)
    return JSONResponse({"ok": True})


async def profile(request: Request) -> Response:
    session = request.session
    if session.user_id is None:
        return JSONResponse({"error": "not logged in"}, 401)
    return JSONResponse({"user": session.user_id, "visits": session["visits"]})


async def visit(request: Request) -> Response:
    return JSONResponse({"visits": request.session.increment("visits")})


async def logout(request: Request) -> Response:
    request.session.logout()
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
    middleware=[Middleware(SessionMiddleware, sessions=sessions)],
)

be_ready()
