"""A clock that goes when it is told to."""

from __future__ import annotations

from datetime import timedelta


class ManualClock:
    """Stands still until it is moved. Give it as the `clock` of `Sessions`, `SyncSessions` or a store.

    Args:
        now: the time to begin with, in seconds since the epoch.

    Example:
        clock = ManualClock()
        sessions = Sessions("memory://", secret_keys=[key], clock=clock)
        clock.advance(timedelta(hours=3))
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Give the time in seconds since the epoch."""
        return self.now

    def advance(self, by: timedelta) -> None:
        """Move the clock."""
        self.now += by.total_seconds()
