"""Every line of the demo that touches a session. The pages show these functions, so what is read is what runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from coatcheck.demo.users import USERS, User
from coatcheck.sessions import Session

# Not spelled out below, so that a page shows a message once, and not again in the code beside it.
LOGGED_IN: Final = "You are logged in."
LOGGED_OUT: Final = "You are logged out."
SAVED: Final = "Your settings are saved."


def current_user(session: Session) -> User | None:
    """Who is this?"""
    return USERS.get(str(session.get("username")))


def log_in(session: Session, user: User) -> None:
    """Remember who this is, under a new ID."""
    if session.get("username") not in (None, user.username):
        session.destroy()  # nothing of another user stays
    session.renew()  # IDs from before lead nowhere now
    session["username"] = user.username
    session["logged_in_at"] = datetime.now(UTC)
    session.flash(LOGGED_IN, "login")


def log_out(session: Session) -> None:
    """Forget everything, on the server too."""
    session.destroy()
    session.flash(LOGGED_OUT, "logout")


async def count_visit(session: Session) -> int | None:
    """Count, and give what the store now holds."""
    session.increment("visits")
    await session.save()
    return session.get("visits")


async def add_to_cart(session: Session, item: str) -> list[str] | None:
    """Append. Two tabs at once both count."""
    session.append("cart", item)
    await session.save()
    return session.get("cart")


def change_settings(session: Session, theme: str, language: str) -> None:
    """Two values, stored before the answer leaves."""
    session["theme"] = theme
    session["language"] = language
    session.flash(SAVED, "settings")
