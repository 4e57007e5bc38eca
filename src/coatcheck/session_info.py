"""What lists say of a session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session, described for a list of devices or an administrator. Nothing in it lets anybody use the session."""

    handle: str
    user_id: str | None
    """None for a session that nobody has logged in to."""
    created_at: datetime
    authenticated_at: datetime | None
    last_seen_at: datetime
    """When it was last used, to within `refresh_after` of the idle timeout."""
    expires_at: datetime
    user_agent: str | None
    client_address: str | None
    is_current: bool
    """Whether it is the session that asks."""


def moment(ms: int) -> datetime:
    """Give the time of so many milliseconds since the epoch."""
    return datetime.fromtimestamp(ms / 1000, UTC)
