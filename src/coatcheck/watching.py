"""Waiting for the end of a session, for WebSockets and streams that outlive the moment in which they were let in.

However many wait in a process, one task listens to the store's news, if it has any, and looks now and then whether the
sessions that are waited for are still alive: often where there is no news, seldom where there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

from coatcheck.errors import StoreError
from coatcheck.stores.protocol import EVERYTHING, AsyncFeed, AsyncStore
from coatcheck.users import Watched, epoch_key

logger: Final = logging.getLogger("coatcheck")

POLL_S: Final = 0.5
"""How often to look where the store brings no news: the end of a session is known within a second."""

POLL_WITH_NEWS_S: Final = 30.0
"""How often to look all the same: word can be lost, and of an expiry there is none."""


Look: TypeAlias = Callable[[list[Watched]], Awaitable[None]]
"""Looks which sessions are still alive, notes where they are now, and tells those who wait for the others."""


class Watch:
    """All that wait in one event loop."""

    def __init__(self, store: AsyncStore, look: Look) -> None:
        self._store = store
        self._look = look
        self._watched: set[Watched] = set()
        self._news: set[str] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_needed(self) -> bool:
        """Whether anybody waits."""
        return bool(self._watched)

    async def wait(self, watched: Watched) -> None:
        """Return when the session has ended."""
        has_ended = asyncio.Event()
        watched.tell = has_ended.set
        async with self._watching(watched):
            await has_ended.wait()

    @asynccontextmanager
    async def _watching(self, watched: Watched) -> AsyncIterator[None]:
        self._watched.add(watched)
        if not self._tasks:
            self._tasks.append(asyncio.create_task(self._look_again_and_again()))
            if isinstance(self._store, AsyncFeed):
                self._tasks.append(asyncio.create_task(self._hear(self._store)))
        self.hear_of(EVERYTHING)  # it may have ended before anybody listened
        try:
            yield
        finally:
            self._watched.discard(watched)
            if not self._watched:
                tasks, self._tasks = self._tasks, []
                for task in tasks:
                    task.cancel()

    async def _hear(self, feed: AsyncFeed) -> None:
        while True:
            try:
                async for key in feed.listen():
                    self.hear_of(key)
            except Exception:  # all that wait depend on this task
                logger.exception("Listening for the ends of sessions failed; it is tried again")
            await asyncio.sleep(POLL_S)

    def hear_of(self, key: str) -> None:
        """Take note that something happened to a key."""
        self._news.add(key)
        self._wake.set()

    async def _look_again_and_again(self) -> None:
        pause_s = POLL_WITH_NEWS_S if isinstance(self._store, AsyncFeed) else POLL_S
        clock = asyncio.get_running_loop().time
        due_at = clock() + pause_s  # news of some puts off no look at the others
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_at):
                    await self._wake.wait()
            self._wake.clear()
            news, self._news = self._news, set()
            is_for_all = EVERYTHING in news or clock() >= due_at
            concerned = [
                watched
                for watched in self._watched
                if is_for_all or not news.isdisjoint((watched.store_key, epoch_key(watched.user_tag)))
            ]
            try:
                await self._look(concerned)
                if is_for_all:
                    due_at = clock() + pause_s
            except Exception as error:  # all that wait depend on this task
                # An outage ends no session. What was missed meanwhile is looked at when it is over.
                if not isinstance(error, StoreError):
                    logger.exception("Looking for sessions that have ended failed; it is tried again")
                await asyncio.sleep(POLL_S)
                self.hear_of(EVERYTHING)
