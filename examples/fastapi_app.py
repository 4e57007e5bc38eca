"""Login, guarded pages, devices and logout with FastAPI, in one file. `python examples/fastapi_app.py` runs it."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Annotated

import uvicorn
from fastapi import APIRouter, FastAPI, Form
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from coatcheck import CookieConfig, Session, Sessions
from coatcheck.csrf import csrf_field
from coatcheck.guard import safe_next
from coatcheck.integrations.fastapi import CurrentSession, CurrentUser, RequireLogin, add_sessions
from pages import THEMES, check_password, render

sessions = Sessions(
    os.environ.get("STORE", "sqlite:///example.sqlite3"),
    secret_keys=[os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)],  # without one, a restart logs people out
    cookie=CookieConfig(secure=os.environ.get("COOKIE_SECURE") == "1"),  # plain http is for this machine only
    max_sessions_per_user=10,
)


def page(session: Session, name: str, status: int = 200, **context: object) -> Response:
    """Show a page, of which the browser keeps nothing: after the logout, its back button shows nothing private."""
    html = render(
        name,
        user=session.user_id,
        csrf=csrf_field(session),
        messages=[flash.message for flash in session.flashes()],
        theme=session.get("theme", "system"),
        **context,
    )
    return HTMLResponse(html, status, headers={"cache-control": "no-store"})


app = FastAPI()


@app.get("/")
async def home(session: CurrentSession) -> Response:
    """Say who it is."""
    return page(session, "home")


@app.get("/login")
async def login_form(session: CurrentSession, next: str = "/profile") -> Response:  # noqa: A002 (the field's name)
    """Ask who it is."""
    return page(session, "login", error=None, next=safe_next(next, "/profile"))


@app.post("/login")
async def login(
    session: CurrentSession,
    username: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/profile",  # noqa: A002
) -> Response:
    """Log in, and go to where the visitor wanted to go."""
    following = safe_next(next, "/profile")
    if not check_password(username, password):
        return page(session, "login", 401, error="This name and password do not belong together.", next=following)
    session.login(username)
    return RedirectResponse(following, 303)


@app.post("/logout")
async def logout(session: CurrentSession) -> Response:
    """Log out."""
    session.logout()
    return RedirectResponse("/", 303)


private = APIRouter(dependencies=[RequireLogin()])


@private.get("/profile")
async def profile(session: CurrentSession) -> Response:
    """Count the visits."""
    session.increment("visits")
    await session.save()  # now it is the true number, whatever other requests have counted meanwhile
    return page(session, "profile", visits=session.get("visits", 0))


@private.get("/settings")
async def settings_form(session: CurrentSession) -> Response:
    """Show what can be chosen."""
    return page(session, "settings")


@private.post("/settings")
async def settings(session: CurrentSession, theme: Annotated[str, Form()] = "") -> Response:
    """Keep what was chosen."""
    if theme in THEMES:
        session["theme"] = theme
        session.flash("Saved.")
    return RedirectResponse("/settings", 303)


@private.get("/devices")
async def devices(session: CurrentSession, user_id: CurrentUser) -> Response:
    """List the user's sessions."""
    return page(session, "devices", devices=await sessions.for_user(user_id, current=session))


@private.post("/devices/revoke")
async def revoke(user_id: CurrentUser, handle: Annotated[str, Form()] = "") -> Response:
    """End one of the user's own sessions."""
    await sessions.revoke(handle, user_id=user_id)
    return RedirectResponse("/devices", 303)


@private.post("/devices/revoke-others")
async def revoke_others(session: CurrentSession, user_id: CurrentUser) -> Response:
    """End every session of the user but this one."""
    await sessions.revoke_user(user_id, keep=session)
    return RedirectResponse("/devices", 303)


app.include_router(private)
add_sessions(app, sessions, login_path="/login")

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
