"""One after the other, in the order in which they came, and nothing is kept of those who have gone."""

from __future__ import annotations

import asyncio

import pytest

from coatcheck.turns import Place, Turns

pytestmark = pytest.mark.anyio


class Workers:
    """Tasks that work at one place for as long as they are told to."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.place: Place = (asyncio.get_running_loop(), "key")
        self.at_work: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def come(self, name: str) -> asyncio.Task[None]:
        """Let one more begin to work, or to wait."""
        self._ends[name] = asyncio.Event()
        task = asyncio.create_task(self._work(name))
        await settle()
        return task

    async def go(self, name: str) -> None:
        """Let one end its work."""
        self._ends[name].set()
        await settle()

    async def _work(self, name: str) -> None:
        if not self.turns.take(self.place):
            await self.turns.wait(self.place)
        self.at_work.append(name)
        try:
            await self._ends[name].wait()
        finally:
            self.at_work.remove(name)
            self.turns.leave(self.place)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_each_waits_for_those_that_came_before() -> None:
    workers = Workers()
    for name in "abc":
        await workers.come(name)
    for name in "abc":
        assert workers.at_work == [name]
        await workers.go(name)
    assert len(workers.turns) == 0


async def test_whoever_comes_last_does_not_get_ahead() -> None:
    workers = Workers()
    await workers.come("a")
    await workers.come("b")
    workers._ends["a"].set()
    await asyncio.sleep(0)  # a has left, and b does not know it yet
    assert workers.at_work == []
    await workers.come("c")
    assert workers.at_work == ["b"]
    await workers.go("b")
    assert workers.at_work == ["c"]
    await workers.go("c")
    assert len(workers.turns) == 0


@pytest.mark.parametrize("leaves_first", [True, False])
@pytest.mark.parametrize("others", ["", "c"])
async def test_whoever_stops_waiting_is_in_nobodys_way(others: str, *, leaves_first: bool) -> None:
    workers = Workers()
    await workers.come("a")
    waiting = await workers.come("b")
    for name in others:
        await workers.come(name)
    if leaves_first:
        workers._ends["a"].set()
        await asyncio.sleep(0)
        assert workers.at_work == []
    waiting.cancel()  # before it is its turn, or when it is and it does not know it yet
    await settle()
    await workers.go("a")
    assert workers.at_work == [*others]
    for name in others:
        await workers.go(name)
    assert len(workers.turns) == 0
    await workers.come("d")
    assert workers.at_work == ["d"]


async def test_other_places_are_free() -> None:
    turns = Turns()
    loop = asyncio.get_running_loop()
    assert turns.take((loop, "one"))
    assert turns.take((loop, "two"))
    assert not turns.take((loop, "one"))
    turns.leave((loop, "one"))
    assert turns.take((loop, "one"))
