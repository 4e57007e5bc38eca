"""What tests of meeting requests have in common: a store in which they meet, and a client's steps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from coatcheck import Session, Sessions
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing import ManualClock

Act: TypeAlias = Callable[[], object]


class MeetingStore(MemoryStore):
    """A memory store in which something happens just before or after the next call of a kind, or at random moments."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.before: dict[str, Act] = {}
        self.after: dict[str, Act] = {}
        self.calls: list[str] = []
        self.random: random.Random | None = None

    async def _at(self, moments: dict[str, Act], name: str) -> None:
        for _ in range(1 if self.random is None else self.random.randrange(4)):
            await asyncio.sleep(0)
        act = moments.pop(name, None)
        if act is not None:
            result = act()
            if asyncio.iscoroutine(result):
                await result

    async def _called(self, name: str, answer: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append(name)
        await self._at(self.before, name)
        result = await answer()
        await self._at(self.after, name)
        return result

    async def load(self, *keys: str) -> Any:
        return await self._called("load", lambda: super(MeetingStore, self).load(*keys))

    async def create(self, *arguments: Any) -> Any:
        return await self._called("create", lambda: super(MeetingStore, self).create(*arguments))

    async def update(self, *arguments: Any) -> Any:
        return await self._called("update", lambda: super(MeetingStore, self).update(*arguments))

    async def touch(self, *arguments: Any) -> Any:
        return await self._called("touch", lambda: super(MeetingStore, self).touch(*arguments))

    async def delete(self, key: str) -> Any:
        return await self._called("delete", lambda: super(MeetingStore, self).delete(key))


async def begin(sessions: Sessions, token: str | None = None, **options: Any) -> Session:
    session = sessions.begin([] if token is None else [f"__Host-session={token}".encode()], **options)
    await session.load()
    return session


async def new(sessions: Sessions, user_id: str | None = None, **values: Any) -> str:
    session = await begin(sessions)
    session.update(values)
    if user_id is not None:
        session.login(user_id)
    await sessions.conclude(session, 200)
    return session.token


def token_in(set_cookie: str | None) -> str:
    assert set_cookie is not None
    return set_cookie.split(";")[0].split("=", 1)[1]
