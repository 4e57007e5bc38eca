"""Taking turns: the tasks of one process that are at work on the same session in the store, one after the other.

They would only be in each other's way: each would write what the next one finds to be too old. Nearly always there is
one, so a lock is made only for the second that comes.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

Place: TypeAlias = tuple[asyncio.AbstractEventLoop, str]
"""An event loop, and the store key of a session. Tasks of several loops don't wait for each other."""


class _Lock(asyncio.Lock):
    """A lock, and how many wait for it."""

    waiting = 0


class Turns:
    """Who is at work where."""

    def __init__(self) -> None:
        self._at_work: dict[Place, _Lock | None] = {}

    def __len__(self) -> int:
        """Give how many places somebody is at work at."""
        return len(self._at_work)

    def take(self, place: Place) -> bool:
        """Begin to work somewhere, if nobody else does. Whoever begins must `leave`."""
        if place in self._at_work:
            return False
        self._at_work[place] = None
        return True

    async def wait(self, place: Place) -> None:
        """Wait until all that came before have left a place, and begin to work there."""
        lock = self._at_work[place]
        if lock is None:
            lock = self._at_work[place] = _Lock()
            await lock.acquire()  # at once, for the one that is at work and knows of no lock; its `leave` releases it
        lock.waiting += 1
        try:
            await lock.acquire()
        except BaseException:
            if lock.waiting == 1 and not lock.locked():
                del self._at_work[place]  # it was this one's turn, and nobody else waits for it
            raise
        finally:
            lock.waiting -= 1

    def leave(self, place: Place) -> None:
        """End the work somewhere; whoever has waited for longest goes on."""
        lock = self._at_work[place]
        if lock is None or not lock.waiting:
            del self._at_work[place]
        if lock is not None:
            lock.release()
