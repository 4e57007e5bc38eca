"""When connections are given up, and when nothing is tried again."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from replica_sets import ReplicaSet
from servers import free_port

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis import async_servers, sync_servers
from coatcheck.stores.redis.commands import Commands
from coatcheck.stores.redis.connections import Limits, connecting
from coatcheck.stores.redis.exchange import Exchange
from coatcheck.stores.redis.failures import Lost, NotSent
from coatcheck.stores.redis.lanes import Lanes

COMMANDS = Commands("coatcheck:")
LOAD = COMMANDS.load(("key",))
UPDATE = COMMANDS.update("key", b"revision", b"record", 1)
LIMITS = Limits("coatcheck:", 30, 30)


class Connection:
    """One connection, whose answer is given by the test."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.is_open = True

    async def send_packed_command(self, packed: list[bytes]) -> None:
        pass

    async def read_response(self) -> Any:
        return await self.answer

    async def can_read(self) -> bool:
        return False

    async def disconnect(self, *, nowait: bool) -> None:
        self.is_open = False


class Pool:
    def __init__(self) -> None:
        self.taken: list[Connection] = []

    async def take(self) -> Connection:
        self.taken.append(Connection())
        return self.taken[-1]

    async def give_back(self, connection: Connection) -> None:
        assert not connection.is_open, "nobody else gets one that is still connected"

    async def is_taken(self, count: int) -> None:
        while len(self.taken) < count:  # noqa: ASYNC110 (a turn of the loop is all that it takes)
            await asyncio.sleep(0)


@pytest.mark.parametrize("answer", [redis.ReadOnlyError("READONLY"), redis.ConnectionError("reset")])
def test_what_happens_to_one_connection_gives_up_those_under_way_as_well(answer: Exception) -> None:
    """A server that has become a replica says so to writes only; a read over another connection would not notice."""

    async def run() -> None:
        pool = Pool()
        lanes = Lanes(pool.take, pool.give_back, LIMITS)
        reading, writing = (
            asyncio.create_task(lanes.carry(Exchange([command], merges=True))) for command in (LOAD, UPDATE)
        )
        await pool.is_taken(2)
        read, write = pool.taken
        write.answer.set_exception(answer)
        await asyncio.gather(writing, return_exceptions=True)
        read.answer.set_result([None])
        assert await reading == [[None]], "what is under way is read to its end"
        assert not write.is_open
        assert not read.is_open
        again = asyncio.create_task(lanes.carry(Exchange([LOAD], merges=True)))
        await pool.is_taken(3)
        pool.taken[2].answer.set_result([None])
        await again
        assert pool.taken[2].is_open, "a new one is kept"

    asyncio.run(run())


class FewAnswers(Connection):
    """A connection that fails after its first answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Any] = [b"OK"]

    async def read_response(self) -> Any:
        if not self.answers:
            message = "reset"
            raise redis.ConnectionError(message)
        return self.answers.pop()


def test_what_was_answered_before_the_connection_failed_has_been_carried_out() -> None:
    create = COMMANDS.create("key", b"record", 1)

    async def run() -> list[Any]:
        pool = Pool()
        pool.taken.append(FewAnswers())

        async def take() -> Connection:
            return pool.taken[0]

        lanes = Lanes(take, pool.give_back, LIMITS)
        results = await async_servers._send(lanes, lanes.carry, [create, UPDATE], merges=True)
        assert not pool.taken[0].is_open
        return results

    stored, lost = asyncio.run(run())
    assert stored is True
    assert isinstance(lost, StoreUnavailable)


class SyncConnection:
    """A connection for threads, which says how often it was closed, and fails when its answers are used up."""

    _sock = socket_timeout = None

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.closed = self.opened = 0

    def send_packed_command(self, packed: list[bytes]) -> None:
        pass

    def read_response(self) -> Any:
        if not self.answers:
            message = "reset"
            raise redis.ConnectionError(message)
        return self.answers.pop(0)

    def disconnect(self) -> None:
        self.closed += 1

    def connect(self) -> None:
        self.opened += 1


class SyncPool:
    def __init__(self, *idle: SyncConnection) -> None:
        self.idle = list(idle)

    def get_connection(self) -> SyncConnection:
        return self.idle.pop(0)

    def release(self, connection: SyncConnection) -> None:
        self.idle.append(connection)


def _wire(*connections: SyncConnection) -> sync_servers._Wire:
    return sync_servers._Wire(SyncPool(*connections), sync_servers._Trust(), LIMITS, is_ours=True)


def test_in_threads_too_what_was_answered_has_been_carried_out() -> None:
    connection = SyncConnection(b"OK")
    create = COMMANDS.create("key", b"record", 1)
    replies = _wire(connection).carry(Exchange([create, UPDATE], merges=True))
    assert replies[0] == b"OK"
    assert isinstance(replies[1], Lost)
    assert connection.closed == 1


def test_connections_that_lead_to_a_demoted_server_are_opened_anew_by_whoever_takes_them() -> None:
    first, other = SyncConnection([None], redis.ReadOnlyError("READONLY")), SyncConnection([None])
    wire = _wire(first, other)
    load = Exchange([LOAD], merges=True)
    wire.carry(load)
    wire.carry(load)
    taken = wire._take()  # another thread's
    assert taken is first
    wire._pool.idle.insert(0, first)
    wire.carry(Exchange([UPDATE], merges=True))
    assert (first.closed, other.closed) == (0, 0), "nobody else's connection is closed"
    for connection in (other, first):
        connection.answers.append([None])
    assert [wire.carry(load), wire.carry(load)] == [[[None]], [[None]]]
    assert (first.closed, other.closed, first.opened, other.opened) == (1, 1, 1, 1)
    wire._pool.idle[0].answers.append([None])
    wire.carry(load)
    assert first.closed + other.closed == 2, "once"


def test_what_took_long_to_fail_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(sync_servers, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None))
    attempts: list[int] = []

    def fail(exchange: Exchange) -> list[Any]:
        attempts.append(exchange.attempt)
        now[0] += 0.6
        raise NotSent.because(redis.ConnectionError("refused"))

    wire: Any = None
    with pytest.raises(StoreUnavailable):
        sync_servers._send(wire, fail, [LOAD], merges=True)
    assert attempts == [0, 1]


def test_in_asyncio_too_what_took_long_to_fail_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(async_servers, "running_loop", lambda: SimpleNamespace(time=lambda: now[0]))
    attempts: list[int] = []

    async def fail(exchange: Exchange) -> list[Any]:
        attempts.append(exchange.attempt)
        now[0] += 0.6
        raise NotSent.because(redis.ConnectionError("refused"))

    lanes: Any = None
    (result,) = asyncio.run(async_servers._send(lanes, fail, [LOAD], merges=True))
    assert isinstance(result, StoreUnavailable)
    assert attempts == [0, 1]


def test_a_command_that_waits_when_the_lanes_are_closed_opens_no_other() -> None:
    async def run() -> None:
        pool = Pool()
        lanes = Lanes(pool.take, pool.give_back, LIMITS)
        await lanes.close()
        with pytest.raises(NotSent) as closed:
            await lanes.carry(Exchange([LOAD], merges=True))
        assert "was closed" in str(closed.value.__cause__)
        assert pool.taken == []

    asyncio.run(run())


def test_an_answer_takes_no_longer_because_a_server_says_it_is_being_maintained() -> None:
    assert connecting("redis://h", {}).settings["protocol"] == 2
    assert connecting("redis://h?protocol=3", {}).settings["protocol"] == 3


async def _ask_alone(cluster: Any, commands: int) -> None:
    await cluster._carry("node", None, Exchange([UPDATE] * commands, merges=False, attempt=1))


def test_in_a_cluster_few_commands_are_carried_by_the_library_at_a_time() -> None:
    under_way = most = 0

    class Library:
        nodes_manager = None

        async def execute_command(self, *_arguments: Any) -> int:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return 1

    async def run() -> None:
        cluster = async_servers.servers_of(Library(), LIMITS, is_ours=True)
        await _ask_alone(cluster, 100)

    asyncio.run(run())
    assert most == async_servers._MAX_ALONE


# --- Sentinels ----------------------------------------------------------------------------------------------------

ASKING = 8
"""How many connections ask at the same time, as after a failover."""


def _url_with_a_dead_sentinel(replica_set: ReplicaSet) -> str:
    return replica_set.url.replace("://", f"://127.0.0.1:{free_port()},")


def test_no_sentinel_is_forgotten_when_tasks_ask_at_the_same_time(running_replica_set: ReplicaSet) -> None:
    async def run() -> None:
        client: Any = connecting(_url_with_a_dead_sentinel(running_replica_set), {}).async_client()
        pool = client.connection_pool
        before = set(pool.sentinel_manager.sentinels)
        addresses = await asyncio.gather(*(pool.get_master_address() for _ in range(ASKING)))
        assert {port for _, port in addresses} == {running_replica_set.master.port}
        assert set(pool.sentinel_manager.sentinels) == before
        await client.aclose(close_connection_pool=True)
        await pool.sentinel_manager.aclose()

    asyncio.run(run())


def test_no_sentinel_is_forgotten_when_threads_ask_at_the_same_time(running_replica_set: ReplicaSet) -> None:
    client: Any = connecting(_url_with_a_dead_sentinel(running_replica_set), {}).sync_client()
    pool = client.connection_pool
    before = set(pool.sentinel_manager.sentinels)
    with ThreadPoolExecutor(ASKING) as threads:
        addresses = [each.result() for each in [threads.submit(pool.get_master_address) for _ in range(ASKING)]]
    assert {port for _, port in addresses} == {running_replica_set.master.port}
    assert set(pool.sentinel_manager.sentinels) == before
    for sentinel in before:
        sentinel.close()
    client.close()
