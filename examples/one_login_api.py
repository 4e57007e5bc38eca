"""An API with FastAPI beside the Django application of `django_app.py`, on the same host, with the same sessions.

Who logs in on either is logged in on both. Behind a proxy that gives `/api` to this one and the rest to Django:

    STORE=redis://localhost:6379/0 SECRET_KEY=... python examples/django_app.py 8000
    STORE=redis://localhost:6379/0 SECRET_KEY=... python examples/one_login_api.py 8001
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Response
from pydantic import BaseModel

from coatcheck import CookieConfig, Sessions
from coatcheck.integrations.fastapi import CurrentSession, CurrentUser, FromSession, OptionalUser, add_sessions
from coatcheck.typed import SessionSchema
from pages import check_password

IS_SECURE = os.environ.get("COOKIE_SECURE") == "1"

# What Django's settings say: SESSION_COOKIE_NAME, SESSION_COOKIE_AGE, SECRET_KEY.
sessions = Sessions(
    os.environ.get("STORE", "sqlite:///example.sqlite3"),
    secret_keys=[os.environ["SECRET_KEY"]],
    idle_timeout=timedelta(days=14),
    lifetime=timedelta(days=14),
    cookie=CookieConfig(name="__Host-session" if IS_SECURE else "session", prefix="", secure=IS_SECURE),
    max_sessions_per_user=5,
)

PRIMARY_KEYS = {"alice": "1", "bob": "2"}
"""Of Django's users. A real application would ask the same database."""


@dataclass
class ShopSession:
    """What both applications keep in the session, as far as this one is concerned."""

    theme: Literal["system", "light", "dark"] = "system"
    visits: int = 0


class Credentials(BaseModel):
    """What somebody logs in with."""

    username: str
    password: str


class Theme(BaseModel):
    """A choice of the settings page."""

    theme: Literal["system", "light", "dark"]


Shop = Annotated[ShopSession, FromSession(SessionSchema(ShopSession))]

api = APIRouter(prefix="/api")


@api.get("/me")
async def me(user_id: OptionalUser, shop: Shop) -> dict[str, str | int | None]:
    """Say who it is, wherever they have logged in."""
    return {"user": user_id, "theme": shop.theme, "visits": shop.visits}


@api.post("/login", status_code=204)
async def login(session: CurrentSession, credentials: Credentials) -> None:
    """Log in, on Django's side too."""
    if not check_password(credentials.username, credentials.password):
        raise HTTPException(401, "This name and password do not belong together.")
    session.login(PRIMARY_KEYS[credentials.username])


@api.post("/theme", status_code=204)
async def choose(_: CurrentUser, shop: Shop, chosen: Theme) -> None:
    """Choose a theme, which Django's pages show."""
    shop.theme = chosen.theme


@api.post("/visits")
async def count(_: CurrentUser, session: CurrentSession) -> int:
    """Count a visit. Django's profile counts the same ones."""
    session.increment("visits")
    await session.save()
    return int(session.get("visits", 0))


@api.get("/devices")
async def devices(session: CurrentSession, user_id: CurrentUser) -> list[dict[str, str | bool]]:
    """List the user's sessions, whichever application they began with."""
    found = await sessions.for_user(user_id, current=session)
    return [{"handle": info.handle, "is_current": info.is_current} for info in found]


@api.post("/devices/revoke-others")
async def revoke_others(session: CurrentSession, user_id: CurrentUser) -> int:
    """End every session of the user but this one."""
    return await sessions.revoke_user(user_id, keep=session)


@api.post("/logout", status_code=204)
async def logout(session: CurrentSession) -> Response:
    """Log out of both."""
    session.logout()
    return Response(status_code=204)


app = FastAPI()
app.include_router(api)
add_sessions(app, sessions)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 8001)
