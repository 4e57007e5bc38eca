"""The floor: Starlette without any session, and with as many routes as the others. /profile answers a constant."""

from __future__ import annotations

from article import be_ready
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def profile(_request: Request) -> Response:
    return JSONResponse({"user": "nobody", "visits": 0})


async def none(_request: Request) -> Response:
    return JSONResponse({"ok": True})


app = Starlette(
    routes=[
        Route("/login", none, methods=["POST"]),
        Route("/profile", profile),
        Route("/visit", none),
        Route("/logout", none, methods=["POST"]),
        Route("/none", none),
    ]
)

be_ready()
