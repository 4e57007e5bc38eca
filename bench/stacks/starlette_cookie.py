"""Starlette's own SessionMiddleware: the content travels in a signed cookie, and nothing is kept on the server."""

from __future__ import annotations

from article import SECRET_KEY, WEEK_S, be_ready, content
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def login(request: Request) -> Response:
    request.session.update(content(request.query_params["user"]))
    return JSONResponse({"ok": True})


async def profile(request: Request) -> Response:
    session = request.session
    if not session.get("authenticated"):
        return JSONResponse({"error": "not logged in"}, 401)
    return JSONResponse({"user": session["user"], "visits": session["visits"]})


async def visit(request: Request) -> Response:
    request.session["visits"] += 1
    return JSONResponse({"visits": request.session["visits"]})


async def logout(request: Request) -> Response:
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
    middleware=[Middleware(SessionMiddleware, secret_key=SECRET_KEY, max_age=WEEK_S)],
)

be_ready()
