"""Commands that wait at the same moment travel together, and stay independent of each other."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis.commands import Command, Commands
from coatcheck.stores.redis.gathering import MAX_BATCH, MAX_UNDER_WAY, MIN_BATCH, Gatherer

pytestmark = pytest.mark.anyio

COMMANDS = Commands("c:")


def load(key: object) -> Command[list[bytes | None]]:
    return COMMANDS.load((str(key),))


class Server:
    """Answers a load with the name of its key, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.under_way = self.most_under_way = 0
        self.fails_with: Exception | None = None

    async def send(self, commands: list[Command[Any]]) -> list[Any]:
        self.batches.append([command.name for command in commands])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.may_answer.wait()
            if self.fails_with is not None:
                raise self.fails_with
            return [StoreUnavailable("for me") if "bad" in each.name else [each.name.encode()] for each in commands]
        finally:
            self.under_way -= 1


@pytest.fixture
async def server() -> Server:
    return Server()


async def settled() -> None:
    """Let everything run that is ready."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_waits_in_one_turn_is_one_batch(server: Server) -> None:
    gatherer = Gatherer(server.send, 60)

    async def ask(number: int) -> list[bytes | None]:
        return await gatherer.ask(load(number))

    answers = await asyncio.gather(*map(ask, range(50)))
    assert answers == [[b"c:%d" % number] for number in range(50)]
    assert [len(batch) for batch in server.batches] == [50]


async def test_a_batch_is_in_nobodys_context(server: Server) -> None:
    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    seen: list[str] = []

    async def send(commands: list[Command[Any]]) -> list[Any]:
        seen.append(whose.get())
        return await server.send(commands)

    gatherer = Gatherer(send, 60)
    whose.set("alice's")
    await gatherer.ask(load(1))
    server.may_answer.clear()
    waiting = [gatherer.ask(load(number)) for number in range(2)]
    await settled()
    waiting += [gatherer.ask(load(number)) for number in range(2)]
    server.may_answer.set()
    await asyncio.gather(*waiting)
    assert set(seen) == {"nobody's"}


async def test_under_load_batches_grow_and_few_are_under_way(server: Server) -> None:
    gatherer = Gatherer(server.send, 60)
    server.may_answer.clear()
    answers = []
    for turn in range(10):
        answers += [gatherer.ask(load(f"{turn}-{number}")) for number in range(5)]
        await settled()
    assert len(server.batches) == MAX_UNDER_WAY
    server.may_answer.set()
    await asyncio.gather(*answers)
    assert server.most_under_way == MAX_UNDER_WAY
    assert [len(batch) for batch in server.batches] == [5] * MAX_UNDER_WAY + [5 * (10 - MAX_UNDER_WAY)]


async def test_a_batch_is_bounded(server: Server) -> None:
    gatherer = Gatherer(server.send, 60)
    answers = [gatherer.ask(load(number)) for number in range(2 * MAX_BATCH + 1)]
    assert await asyncio.gather(*answers) == [[b"c:%d" % number] for number in range(2 * MAX_BATCH + 1)]
    assert [len(batch) for batch in server.batches] == [MAX_BATCH, MAX_BATCH, 1]


async def test_whoever_is_cancelled_while_waiting_is_not_sent_and_harms_nobody(server: Server) -> None:
    gatherer = Gatherer(server.send, 60)
    answers = [gatherer.ask(load(number)) for number in range(3)]
    answers[1].cancel()
    assert await answers[0] == [b"c:0"]
    assert await answers[2] == [b"c:2"]
    assert server.batches == [["c:0", "c:2"]]


async def test_whoever_is_cancelled_under_way_harms_nobody(server: Server) -> None:
    gatherer = Gatherer(server.send, 60)
    server.may_answer.clear()
    answers = [gatherer.ask(load(number)) for number in range(3)]
    await settled()
    answers[0].cancel()
    server.may_answer.set()
    assert await asyncio.gather(*answers[1:]) == [[b"c:1"], [b"c:2"]]


async def test_a_task_that_is_cancelled_leaves_the_others_their_answers(server: Server) -> None:
    gatherer = Gatherer(server.send, 60)
    server.may_answer.clear()

    async def request(number: int) -> list[bytes | None]:
        return await gatherer.ask(load(number))

    requests = [asyncio.create_task(request(number)) for number in range(3)]
    await settled()
    requests[1].cancel()
    await settled()
    server.may_answer.set()
    assert await asyncio.gather(*requests, return_exceptions=True) != []
    assert (requests[0].result(), requests[2].result()) == ([b"c:0"], [b"c:2"])
    assert requests[1].cancelled()


async def test_an_error_reaches_exactly_those_whom_it_concerns(server: Server) -> None:
    gatherer = Gatherer(server.send, 60)
    answers = [gatherer.ask(load(key)) for key in ("good", "bad", "fine")]
    good, bad, fine = await asyncio.gather(*answers, return_exceptions=True)
    assert (good, fine) == ([b"c:good"], [b"c:fine"])
    assert isinstance(bad, StoreUnavailable)


async def test_what_fails_as_a_whole_fails_for_all_and_the_next_batch_is_sent(server: Server) -> None:
    gatherer = Gatherer(server.send, 60)
    server.fails_with = StoreUnavailable("for all")
    answers = await asyncio.gather(*(gatherer.ask(load(number)) for number in range(3)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["for all"] * 3
    server.fails_with = None
    assert await gatherer.ask(load("next")) == [b"c:next"]


async def test_an_error_that_nobody_foresaw_leaves_nobody_waiting(server: Server) -> None:
    gatherer = Gatherer(server.send, 60)
    server.fails_with = ZeroDivisionError("a fault of ours")
    with pytest.raises(ZeroDivisionError):
        await gatherer.ask(load(1))


async def test_nobody_waits_for_longer_than_patience_to_be_sent(server: Server) -> None:
    gatherer = Gatherer(server.send, -1)
    with pytest.raises(StoreUnavailable, match="too slow"):
        await gatherer.ask(load(1))
    assert server.batches == []


RECORD = b"r" * 50_000


class SlowConnection(Server):
    """Carries so many records a second, by the clock of a gatherer, after so long a way. Fails after the patience."""

    def __init__(self, each_s: float, *, way_s: float = 0.0, record: bytes = RECORD) -> None:
        super().__init__()
        self.now = 0.0
        self.each_s, self.way_s, self.record = each_s, way_s, record
        self.gatherer = Gatherer(self.send, 1)
        loop: Any = self.gatherer._loop
        clock: Any = SimpleNamespace(
            time=lambda: self.now,
            **{name: getattr(loop, name) for name in ("create_future", "create_task", "call_soon")},
        )
        self.gatherer._loop = clock

    async def send(self, commands: list[Command[Any]]) -> list[Any]:
        self.batches.append([command.name for command in commands])
        took_s = self.way_s + len(commands) * self.each_s
        self.now += min(took_s, 1)
        return [[self.record] if took_s <= 1 else StoreUnavailable("no answer in time") for _ in commands]

    async def ask(self, count: int) -> list[int]:
        """Ask for so much at once. Gives the sizes of the batches."""
        begins_at = len(self.batches)
        await asyncio.gather(*(self.gatherer.ask(load(number)) for number in range(count)), return_exceptions=True)
        return [len(batch) for batch in self.batches[begins_at:]]


async def test_batches_are_smaller_while_a_connection_is_too_slow_for_large_ones() -> None:
    """One that takes longer than a command may fails as a whole, the answers that have arrived included."""
    connection = SlowConnection(0.01)
    assert await connection.ask(80) == [80]  # takes 0.8 s
    assert await connection.ask(80) == [40, 40]
    connection.each_s = 1
    assert await connection.ask(40) == [40]  # which fails
    assert await connection.ask(20) == [20]
    assert await connection.ask(20) == [MIN_BATCH, 4]  # and no smaller


async def test_what_took_long_for_its_bytes_makes_the_next_ones_smaller_and_never_too_small() -> None:
    connection = SlowConnection(0.02)
    sizes = [size for _ in range(6) for size in await connection.ask(MAX_BATCH)]
    assert sizes[0] == MAX_BATCH
    assert min(sizes) >= MIN_BATCH
    assert max(sizes[3:]) * connection.each_s <= 1, "each is answered in time"


@pytest.mark.parametrize("way_s", [0.3, 0.6, 0.9])
async def test_a_long_way_is_no_reason_for_smaller_batches(way_s: float) -> None:
    """Fewer commands would arrive no sooner, and all others would wait."""
    connection = SlowConnection(0, way_s=way_s, record=b"a small one")
    for _ in range(5):
        assert await connection.ask(MAX_BATCH) == [MAX_BATCH]


async def test_batches_grow_again_when_nothing_is_slow_any_more() -> None:
    connection = SlowConnection(1)
    for _ in range(6):
        await connection.ask(MAX_BATCH)
    connection.each_s, connection.way_s = 0, 0.4
    assert await connection.ask(3) == [3], "that was no whole batch, and tells nothing of a larger one"
    connection.way_s = 0.01
    sizes = await connection.ask(10 * MAX_BATCH)
    assert sizes[:5] == [MIN_BATCH, 2 * MIN_BATCH, 4 * MIN_BATCH, 8 * MIN_BATCH, MAX_BATCH]


async def test_those_who_have_waited_for_too_long_take_no_place_in_a_batch() -> None:
    connection = SlowConnection(0)
    connection.gatherer._limit = 1
    late = [connection.gatherer.ask(load(number)) for number in range(5)]
    connection.now += 2
    assert await connection.ask(1) == [1]
    assert all(isinstance(each.exception(), StoreUnavailable) for each in late)


async def test_no_task_is_left_over(server: Server) -> None:
    before = asyncio.all_tasks()
    gatherer = Gatherer(server.send, 60)
    await asyncio.gather(*(gatherer.ask(load(number)) for number in range(3 * MAX_BATCH)))
    await settled()
    assert asyncio.all_tasks() == before
