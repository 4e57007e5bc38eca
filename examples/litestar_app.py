"""Login, a guarded page, devices and logout with Litestar, in one file. `python examples/litestar_app.py` runs it."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import uvicorn
from litestar import Litestar, MediaType, Response, Router, get, post
from litestar.datastructures import CacheControlHeader
from litestar.di import NamedDependency
from litestar.enums import RequestEncodingType
from litestar.params import Body, Parameter
from litestar.response import Redirect

import pages
from coatcheck import CookieConfig, Session, Sessions
from coatcheck.csrf import csrf_field
from coatcheck.guard import safe_next
from coatcheck.integrations.litestar import CoatcheckPlugin, login_required

sessions = Sessions(
    os.environ.get("STORE", "sqlite:///example.sqlite3"),
    secret_keys=[os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)],  # without one, a restart logs people out
    cookie=CookieConfig(secure=os.environ.get("COOKIE_SECURE") == "1"),  # False only for http on this machine
    max_sessions_per_user=5,
)


@dataclass
class Fields:
    """What the forms send."""

    username: str = ""
    password: str = ""
    next: str = ""
    theme: str = ""
    handle: str = ""


Form = Annotated[Fields, Body(media_type=RequestEncodingType.URL_ENCODED)]


def page(session: Session, name: str, status: int = 200, **context: Any) -> Response[str]:
    """Give a page with what all of them show."""
    messages = [flash.message for flash in session.flashes()]
    theme = session.get("theme", "system")
    html = pages.render(name, user=session.user_id, csrf=csrf_field(session), messages=messages, theme=theme, **context)
    return Response(html, status_code=status, media_type=MediaType.HTML)


@get("/")
async def home(session: NamedDependency[Session]) -> Response[str]:
    """Say who it is, or nobody."""
    return page(session, "home")


@get("/login")
async def login_form(
    session: NamedDependency[Session], following: Annotated[str, Parameter(query="next")] = ""
) -> Response[str]:
    """Ask for the password."""
    return page(session, "login", error=None, next=following)


@post("/login", status_code=303)
async def login(session: NamedDependency[Session], data: Form) -> Response[Any]:
    """Log in, and go where the visitor wanted to go."""
    if not pages.check_password(data.username, data.password):
        error = "This username and password do not belong together."
        return page(session, "login", 401, error=error, next=data.next)
    session.login(data.username)
    return Redirect(safe_next(data.next, "/profile"), status_code=303)


@post("/logout", status_code=303)
async def logout(session: NamedDependency[Session]) -> Redirect:
    """Log out."""
    session.logout()
    return Redirect("/", status_code=303)


@get("/profile")
async def profile(session: NamedDependency[Session]) -> Response[str]:
    """Count the visits."""
    session.increment("visits")
    await session.save()
    return page(session, "profile", visits=session.get("visits", 0))


@get("/settings")
async def settings(session: NamedDependency[Session]) -> Response[str]:
    """Show what is kept in the session."""
    return page(session, "settings")


@post("/settings", status_code=303)
async def save_settings(session: NamedDependency[Session], data: Form) -> Redirect:
    """Keep it."""
    if data.theme in pages.THEMES:
        session["theme"] = data.theme
        session.flash("Saved.")
    return Redirect("/settings", status_code=303)


@get("/devices")
async def devices(session: NamedDependency[Session]) -> Response[str]:
    """List every session of this user."""
    return page(session, "devices", devices=await sessions.for_user(str(session.user_id), current=session))


@post("/devices/revoke", status_code=303)
async def revoke(session: NamedDependency[Session], data: Form) -> Redirect:
    """End one of the user's own sessions."""
    await sessions.revoke(data.handle, user_id=session.user_id)
    return Redirect("/devices", status_code=303)


@post("/devices/revoke-others", status_code=303)
async def revoke_others(session: NamedDependency[Session]) -> Redirect:
    """End every other session of this user."""
    await sessions.revoke_user(str(session.user_id), keep=session)
    return Redirect("/devices", status_code=303)


private = Router(
    "/",
    route_handlers=[profile, settings, save_settings, devices, revoke, revoke_others],
    guards=[login_required],
)
app = Litestar(
    [home, login_form, login, logout, private],
    plugins=[CoatcheckPlugin(sessions, csrf=True)],
    cache_control=CacheControlHeader(no_store=True),  # so that the back button shows nothing after a logout
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
