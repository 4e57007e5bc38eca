"""Login, a guarded page, devices and logout with Quart, in one file. `python examples/quart_app.py` runs it."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Any

from quart import Quart, Response, flash, get_flashed_messages, redirect, request
from werkzeug.wrappers import Response as Redirect

import pages
from coatcheck.csrf import csrf_field
from coatcheck.guard import safe_next
from coatcheck.integrations.quart import Coatcheck, login_required, session

app = Quart(__name__)
app.config.update(
    SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32),  # without one, a restart logs people out
    COATCHECK_STORE=os.environ.get("STORE", "sqlite:///example.sqlite3"),
    COATCHECK_COOKIE_SECURE=os.environ.get("COOKIE_SECURE") == "1",  # False only for http on this machine
    COATCHECK_MAX_SESSIONS_PER_USER=5,
    COATCHECK_CSRF=True,
)
coatcheck = Coatcheck(app)


def page(name: str, **context: Any) -> str:
    """Give a page with what all of them show."""
    messages = get_flashed_messages()
    theme = session.get("theme", "system")
    return pages.render(name, user=session.user_id, csrf=csrf_field(session), messages=messages, theme=theme, **context)


@app.after_request
async def keep_private(response: Response) -> Response:
    """Let no cache keep a page, so that the back button shows nothing after a logout."""
    response.headers["Cache-Control"] = "no-store"
    return response


@app.get("/")
async def home() -> str:
    """Say who it is, or nobody."""
    return page("home")


@app.get("/login")
async def login_form() -> str:
    """Ask for the password."""
    return page("login", error=None, next=request.args.get("next", ""))


@app.post("/login")
async def login() -> Redirect | tuple[str, int]:
    """Log in, and go where the visitor wanted to go."""
    form = await request.form
    username, following = form.get("username", ""), form.get("next", "")
    if not pages.check_password(username, form.get("password", "")):
        return page("login", error="This username and password do not belong together.", next=following), 401
    session.login(username)
    return redirect(safe_next(following, "/profile"), 303)


@app.post("/logout")
async def logout() -> Redirect:
    """Log out."""
    session.logout()
    return redirect("/", 303)


@app.get("/profile")
@login_required
async def profile() -> str:
    """Count the visits."""
    session.increment("visits")
    await session.save()
    return page("profile", visits=session.get("visits", 0))


@app.get("/settings")
@login_required
async def settings() -> str:
    """Show what is kept in the session."""
    return page("settings")


@app.post("/settings")
@login_required
async def save_settings() -> Redirect:
    """Keep it."""
    theme = (await request.form).get("theme")
    if theme in pages.THEMES:
        session["theme"] = theme
        await flash("Saved.")
    return redirect("/settings", 303)


@app.get("/devices")
@login_required
async def devices() -> str:
    """List every session of this user."""
    return page("devices", devices=await coatcheck.sessions.for_user(str(session.user_id), current=session))


@app.post("/devices/revoke")
@login_required
async def revoke() -> Redirect:
    """End one of the user's own sessions."""
    handle = (await request.form).get("handle", "")
    await coatcheck.sessions.revoke(handle, user_id=session.user_id)
    return redirect("/devices", 303)


@app.post("/devices/revoke-others")
@login_required
async def revoke_others() -> Redirect:
    """End every other session of this user."""
    await coatcheck.sessions.revoke_user(str(session.user_id), keep=session)
    return redirect("/devices", 303)


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
