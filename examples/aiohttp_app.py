"""Login, a guarded page, devices and logout with aiohttp, in one file. `python examples/aiohttp_app.py` runs it."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Any

from aiohttp import web

import pages
from coatcheck import CookieConfig, Session, Sessions
from coatcheck.csrf import csrf_field
from coatcheck.guard import safe_next
from coatcheck.integrations.aiohttp import get_session, login_required, setup

sessions = Sessions(
    os.environ.get("STORE", "sqlite:///example.sqlite3"),
    secret_keys=[os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)],  # without one, a restart logs people out
    cookie=CookieConfig(secure=os.environ.get("COOKIE_SECURE") == "1"),  # False only for http on this machine
    max_sessions_per_user=5,
)
routes = web.RouteTableDef()


def page(session: Session, name: str, status: int = 200, **context: Any) -> web.Response:
    """Give a page with what all of them show."""
    messages = [flash.message for flash in session.flashes()]
    theme = session.get("theme", "system")
    html = pages.render(name, user=session.user_id, csrf=csrf_field(session), messages=messages, theme=theme, **context)
    # No cache keeps a page, so that the back button shows nothing after a logout.
    return web.Response(text=html, status=status, content_type="text/html", headers={"Cache-Control": "no-store"})


@routes.get("/")
async def home(request: web.Request) -> web.Response:
    """Say who it is, or nobody."""
    return page(await get_session(request), "home")


@routes.get("/login")
async def login_form(request: web.Request) -> web.Response:
    """Ask for the password."""
    return page(await get_session(request), "login", error=None, next=request.query.get("next", ""))


@routes.post("/login")
async def login(request: web.Request) -> web.Response:
    """Log in, and go where the visitor wanted to go."""
    session, form = await get_session(request), await request.post()
    username, following = str(form.get("username", "")), str(form.get("next", ""))
    if not pages.check_password(username, str(form.get("password", ""))):
        error = "This username and password do not belong together."
        return page(session, "login", 401, error=error, next=following)
    session.login(username)
    raise web.HTTPSeeOther(safe_next(following, "/profile"))


@routes.post("/logout")
async def logout(request: web.Request) -> web.Response:
    """Log out."""
    (await get_session(request)).logout()
    raise web.HTTPSeeOther(location="/")


@routes.get("/profile")
@login_required
async def profile(request: web.Request) -> web.Response:
    """Count the visits."""
    session = await get_session(request)
    session.increment("visits")
    await session.save()
    return page(session, "profile", visits=session.get("visits", 0))


@routes.view("/settings")
class Settings(web.View):
    """Show what is kept in the session, and keep it."""

    @login_required
    async def get(self) -> web.Response:
        """Show it."""
        return page(await get_session(self.request), "settings")

    @login_required
    async def post(self) -> web.Response:
        """Keep it."""
        session = await get_session(self.request)
        theme = (await self.request.post()).get("theme")
        if theme in pages.THEMES:
            session["theme"] = theme
            session.flash("Saved.")
        raise web.HTTPSeeOther(location="/settings")


@routes.get("/devices")
@login_required
async def devices(request: web.Request) -> web.Response:
    """List every session of this user."""
    session = await get_session(request)
    return page(session, "devices", devices=await sessions.for_user(str(session.user_id), current=session))


@routes.post("/devices/revoke")
@login_required
async def revoke(request: web.Request) -> web.Response:
    """End one of the user's own sessions."""
    session = await get_session(request)
    await sessions.revoke(str((await request.post()).get("handle", "")), user_id=session.user_id)
    raise web.HTTPSeeOther(location="/devices")


@routes.post("/devices/revoke-others")
@login_required
async def revoke_others(request: web.Request) -> web.Response:
    """End every other session of this user."""
    session = await get_session(request)
    await sessions.revoke_user(str(session.user_id), keep=session)
    raise web.HTTPSeeOther(location="/devices")


app = web.Application()
app.add_routes(routes)
setup(app, sessions, csrf=True)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
