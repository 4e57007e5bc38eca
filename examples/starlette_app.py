"""Login, guarded pages, devices and logout with Starlette, in one file. `python examples/starlette_app.py` runs it."""

from __future__ import annotations

import os
import secrets
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from coatcheck import CookieConfig, Sessions
from coatcheck.csrf import csrf_field
from coatcheck.guard import safe_next
from coatcheck.integrations.starlette import add_sessions, login_required, session_of
from pages import THEMES, check_password, render

sessions = Sessions(
    os.environ.get("STORE", "sqlite:///example.sqlite3"),
    secret_keys=[os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)],  # without one, a restart logs people out
    cookie=CookieConfig(secure=os.environ.get("COOKIE_SECURE") == "1"),  # plain http is for this machine only
    max_sessions_per_user=10,
)


def page(request: Request, name: str, status: int = 200, **context: object) -> Response:
    """Show a page, of which the browser keeps nothing: after the logout, its back button shows nothing private."""
    session = session_of(request)
    html = render(
        name,
        user=session.user_id,
        csrf=csrf_field(session),
        messages=[flash.message for flash in session.flashes()],
        theme=session.get("theme", "system"),
        **context,
    )
    return HTMLResponse(html, status, headers={"cache-control": "no-store"})


async def home(request: Request) -> Response:
    """Say who it is."""
    return page(request, "home")


async def login_form(request: Request) -> Response:
    """Ask who it is."""
    return page(request, "login", error=None, next=safe_next(request.query_params.get("next"), "/profile"))


async def login(request: Request) -> Response:
    """Log in, and go to where the visitor wanted to go."""
    form = await request.form()
    username, password = str(form.get("username", "")), str(form.get("password", ""))
    following = safe_next(str(form.get("next", "")), "/profile")
    if not check_password(username, password):
        error = "This name and password do not belong together."
        return page(request, "login", 401, error=error, next=following)
    session_of(request).login(username)
    return RedirectResponse(following, 303)


async def logout(request: Request) -> Response:
    """Log out."""
    session_of(request).logout()
    return RedirectResponse("/", 303)


@login_required
async def profile(request: Request) -> Response:
    """Count the visits."""
    session = session_of(request)
    session.increment("visits")
    await session.save()  # now it is the true number, whatever other requests have counted meanwhile
    return page(request, "profile", visits=session.get("visits", 0))


@login_required
async def settings_form(request: Request) -> Response:
    """Show what can be chosen."""
    return page(request, "settings")


@login_required
async def settings(request: Request) -> Response:
    """Keep what was chosen."""
    session, theme = session_of(request), (await request.form()).get("theme")
    if theme in THEMES:
        session["theme"] = theme
        session.flash("Saved.")
    return RedirectResponse("/settings", 303)


@login_required
async def devices(request: Request) -> Response:
    """List the user's sessions."""
    session = session_of(request)
    return page(request, "devices", devices=await sessions.for_user(str(session.user_id), current=session))


@login_required
async def revoke(request: Request) -> Response:
    """End one of the user's own sessions."""
    handle = (await request.form()).get("handle", "")
    await sessions.revoke(str(handle), user_id=session_of(request).user_id)
    return RedirectResponse("/devices", 303)


@login_required
async def revoke_others(request: Request) -> Response:
    """End every session of the user but this one."""
    session = session_of(request)
    await sessions.revoke_user(str(session.user_id), keep=session)
    return RedirectResponse("/devices", 303)


app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login_form),
        Route("/login", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/profile", profile),
        Route("/settings", settings_form),
        Route("/settings", settings, methods=["POST"]),
        Route("/devices", devices),
        Route("/devices/revoke", revoke, methods=["POST"]),
        Route("/devices/revoke-others", revoke_others, methods=["POST"]),
    ]
)
add_sessions(app, sessions, login_path="/login", csrf=True)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
