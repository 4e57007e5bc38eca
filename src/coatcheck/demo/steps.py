"""Every line of the demo that touches a session. The pages show these functions, so what is read is what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Final

from coatcheck.csrf import csrf_field, csrf_token
from coatcheck.demo.users import USERS, User
from coatcheck.session_info import SessionInfo
from coatcheck.sessions import Session, Sessions

# Not spelled out below, so that a page shows a message once, and not again in the code beside it.
LOGGED_IN: Final = "You are logged in."
LOGGED_OUT: Final = "You are logged out."
SAVED: Final = "Your settings are saved."
DEVICE_SIGNED_OUT: Final = "That device is signed out."
OTHERS_SIGNED_OUT: Final = "You are signed out everywhere else."
NO_SUCH_DEVICE: Final = "That device is not among those where you are logged in."


def current_user(session: Session) -> User | None:
    """Who is this?"""
    return USERS.get(session.user_id or "")


def form_field(session: Session) -> str:
    """A hidden token. No other site has one."""
    return csrf_field(session)


def script_token(session: Session) -> str:
    """The same for scripts, which send it as X-CSRF-Token."""
    return csrf_token(session)


def log_in(session: Session, user: User) -> None:
    """Remember who this is, under a new ID."""
    session.login(user.username)  # IDs from before lead nowhere now
    session.flash(LOGGED_IN, "login")


def log_out(session: Session) -> None:
    """Forget everything, on the server too."""
    session.logout()
    session.flash(LOGGED_OUT, "logout")


async def count_visit(session: Session) -> int | None:
    """Count, and give what the store now holds."""
    session.increment("visits")
    await session.save()
    return None if session.has_ended else session["visits"]


async def add_to_cart(session: Session, item: str) -> list[str] | None:
    """Append. Two tabs at once both count."""
    session.append("cart", item)
    await session.save()
    return None if session.has_ended else session["cart"]


def change_settings(session: Session, theme: str, language: str) -> None:
    """Two values, stored before the answer leaves."""
    session["theme"] = theme
    session["language"] = language
    session.flash(SAVED, "settings")


async def list_devices(sessions: Sessions, session: Session, user: User) -> list[SessionInfo]:
    """Every live session of this user."""
    return await sessions.for_user(user.username, current=session)


async def sign_out_device(sessions: Sessions, session: Session, user: User, handle: str) -> bool:
    """End one session, if it is theirs."""
    if handle == session.handle:
        log_out(session)
        return True
    theirs = {info.handle for info in await sessions.for_user(user.username)}
    if handle not in theirs or not await sessions.revoke(handle):
        return False
    session.flash(DEVICE_SIGNED_OUT, "revoke")
    return True


async def sign_out_others(sessions: Sessions, session: Session, user: User) -> int:
    """End all of this user's sessions but one."""
    session.flash(OTHERS_SIGNED_OUT, "revoke-others")
    return await sessions.revoke_user(user.username, keep=session)


async def hears_of_its_end(session: Session, client_leaves: Coroutine[None, None, None]) -> bool:
    """Wait; False if the client leaves first."""
    ended = asyncio.create_task(session.revoked())
    gone = asyncio.create_task(client_leaves)
    try:
        done, _ = await asyncio.wait([ended, gone], return_when="FIRST_COMPLETED")
        for task in done:
            task.result()  # an error is no end
        return ended in done
    finally:
        ended.cancel()
        gone.cancel()
