"""Login, a guarded page, devices and logout with Starlette, in one file. `python examples/starlette_app.py` runs it."""

from __future__ import annotations

import os
import secrets
import sys
from hmac import compare_digest

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from coatcheck import CookieConfig, Session, Sessions
from coatcheck.asgi import SessionMiddleware, require_login
from coatcheck.guard import safe_next

PASSWORDS = {"alice": "wonderland"}  # a real application keeps hashes, of a password-hashing function

sessions = Sessions(
    os.environ.get("STORE", "sqlite:///example.sqlite3"),
    secret_keys=[os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)],  # without one, a restart logs people out
    cookie=CookieConfig(secure=False),  # for http on this machine only
    max_sessions_per_user=5,
)


def session_of(request: Request) -> Session:
    """Give the request's session, with its type."""
    session: Session = request.scope["session"]
    return session


async def login(request: Request) -> Response:
    """Log in, and go where the visitor wanted to go."""
    form = await request.form()
    name, password = str(form.get("username")), str(form.get("password"))
    if not compare_digest(password.encode(), PASSWORDS.get(name, secrets.token_urlsafe()).encode()):
        return JSONResponse({"error": "wrong_credentials"}, 401)
    session = session_of(request)
    session.login(name)
    session.flash("Welcome back.")
    return RedirectResponse(safe_next(request.query_params.get("next"), "/account/"), 303)


async def account(request: Request) -> Response:
    """Show who it is. Only for those who are logged in, see `routes`."""
    session = session_of(request)
    session.increment("visits")
    await session.save()
    messages = [flash.message for flash in session.flashes()]
    return JSONResponse({"user": session.user_id, "visits": session.get("visits", 0), "messages": messages})


async def devices(request: Request) -> Response:
    """List every session of this user."""
    session = session_of(request)
    found = await sessions.for_user(str(session.user_id), current=session)
    return JSONResponse(
        [
            {"handle": info.handle, "device": info.user_agent, "seen": str(info.last_seen_at), "this": info.is_current}
            for info in found
        ]
    )


async def sign_out_others(request: Request) -> Response:
    """End every other session of this user."""
    session = session_of(request)
    return JSONResponse({"ended": await sessions.revoke_user(str(session.user_id), keep=session)})


async def logout(request: Request) -> Response:
    """Log out."""
    session_of(request).logout()
    return RedirectResponse("/", 303)


async def index(request: Request) -> Response:
    """Say who it is, or nobody."""
    return JSONResponse({"user": session_of(request).user_id})


private = Starlette(
    routes=[
        Route("/", account),
        Route("/devices", devices),
        Route("/sign-out-others", sign_out_others, methods=["POST"]),
    ]
)

app = Starlette(
    routes=[
        Route("/", index),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Mount("/account", require_login(private, login_path="/login")),
    ],
    middleware=[Middleware(SessionMiddleware, sessions=sessions)],
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
