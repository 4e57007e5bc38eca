"""When connections are given up, and when nothing is tried again."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from replica_sets import ReplicaSet
from servers import free_port

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.protocol import Outcome
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


# --- the nodes of a Cluster -------------------------------------------------------------------------------------------


class ClusterLibrary:
    """What a client for a Cluster does for the store, in asyncio. Every key is at `node_of[key]`, or "node"."""

    def __init__(self) -> None:
        self.nodes_manager = self
        self.startup_nodes: dict[str, Any] = {}
        self.slots_cache = {0: "known"}
        self.node_of: dict[str, str] = {}
        self.carried: list[tuple[Any, ...]] = []
        self.reads: list[str | None] = []
        self.most_under_way = self._under_way = 0
        self.map_is_read = asyncio.Event()
        self.map_is_read.set()

    def get_node_from_key(self, key: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.node_of.get(key, "node"))

    async def execute_command(self, *arguments: Any) -> bytes:
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        await asyncio.sleep(0)
        self._under_way -= 1
        self.carried.append(arguments)
        return b"alone"

    async def initialize(self, last_failed_node_name: str | None = None) -> None:
        self.reads.append(last_failed_node_name)
        await self.map_is_read.wait()


class OneLane:
    """Carries with one answer, or error, for each attempt."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[list[tuple[Any, ...]]] = []

    async def carry(self, exchange: Exchange) -> list[Any]:
        self.sent.append(exchange.sent)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]


def _load(key: str) -> Any:
    return COMMANDS.load((key,))


class FailingOnce(ClusterLibrary):
    """A library whose first command fails."""

    async def execute_command(self, *arguments: Any) -> bytes:
        answer = await super().execute_command(*arguments)
        if len(self.carried) == 1:
            message = "reset"
            raise redis.ConnectionError(message)
        return answer


async def _deliver(library: ClusterLibrary, lane: OneLane, *commands: Any) -> list[Any]:
    cluster: Any = async_servers.servers_of(library, LIMITS, None)
    lanes: Any = lane
    carry = partial(cluster._carry, "node", lanes)
    results = await async_servers._send(lanes, carry, list(commands), merges=False)
    await cluster.close()
    return results


DOWN = redis.exceptions.ClusterDownError("CLUSTERDOWN The cluster is down")
MOVED = redis.exceptions.MovedError("1 other:1")


def test_a_node_that_says_the_cluster_is_down_is_asked_again_and_nobody_else_waits_for_the_library() -> None:
    """redis-py would close its map of the slots and read it anew, while all other requests wait."""

    async def run() -> None:
        library, lane = ClusterLibrary(), OneLane([DOWN], [b"found"])
        assert await _deliver(library, lane, _load("a")) == [[b"found"]]
        assert library.carried == []
        assert library.reads == ["node"], "whether another has its slots by now is seen in the background"

    asyncio.run(run())


@pytest.mark.parametrize("first", [[b"A", MOVED, b"C"], [DOWN, MOVED, DOWN]])
def test_what_was_redirected_is_followed_one_by_one_and_the_rest_stays_together(first: list[Any]) -> None:
    async def run() -> None:
        library = ClusterLibrary()
        lane = OneLane(first, [b"A", b"C"])
        assert await _deliver(library, lane, *map(_load, "abc")) == [[b"A"], [b"alone"], [b"C"]]
        assert library.carried == [("GET", "coatcheck:b")]
        assert lane.sent[1:] == ([] if first[0] == b"A" else [[("GET", "coatcheck:a"), ("GET", "coatcheck:c")]])

    asyncio.run(run())


def test_nobody_waits_for_the_map_of_the_slots_where_it_is_not_to_blame() -> None:
    """A node that was started anew has not the script, and another one may be silent meanwhile."""

    async def run() -> None:
        library = ClusterLibrary()
        library.map_is_read.clear()
        unknown = redis.exceptions.NoScriptError("NOSCRIPT")
        assert await asyncio.wait_for(_deliver(library, OneLane([unknown], [1]), UPDATE), 30) == [Outcome.DONE]
        assert library.reads == []

    asyncio.run(run())


def test_what_was_redirected_once_is_not_asked_for_again_where_it_was() -> None:
    """A node that is giving away a slot would only redirect it again."""

    async def run() -> None:
        library, lane = FailingOnce(), OneLane([MOVED])
        assert await _deliver(library, lane, _load("a")) == [[b"alone"]]
        assert (len(library.carried), len(lane.sent)) == (2, 1)

    asyncio.run(run())


def test_what_could_not_be_sent_goes_to_the_node_that_has_it_by_now() -> None:
    async def run() -> None:
        library, lane = ClusterLibrary(), OneLane(NotSent.because(redis.ConnectionError("refused")))
        library.map_is_read.clear()
        asked = asyncio.create_task(_deliver(library, lane, UPDATE, _load("a")))
        while not library.reads:  # noqa: ASYNC110 (it takes a pause of 25 ms at most)
            await asyncio.sleep(0)
        library.node_of = {UPDATE.name: "other", "coatcheck:a": "other"}
        library.map_is_read.set()
        assert await asked == [b"alone", [b"alone"]]
        assert {arguments[0] for arguments in library.carried} == {"EVALSHA", "GET"}
        assert len(lane.sent) == 1, "the node that is gone is not asked again"

    asyncio.run(run())


def test_the_failure_of_those_that_stay_is_not_that_of_those_that_were_followed() -> None:
    async def run() -> None:
        library = ClusterLibrary()
        lane = OneLane([DOWN, MOVED], Lost.because(redis.TimeoutError("silence")))
        stayed, followed = await _deliver(library, lane, _load("a"), _load("b"))
        assert isinstance(stayed, StoreUnavailable)
        assert followed == [b"alone"]

    asyncio.run(run())


def test_nobody_waits_for_a_map_of_the_slots_that_is_known() -> None:
    """The library wants it read anew whenever a node has failed, and asks one after the other who may be hung."""

    async def run() -> None:
        library = ClusterLibrary()
        library.map_is_read.clear()
        cluster: Any = async_servers.servers_of(library, LIMITS, None)
        await asyncio.wait_for(cluster._know_the_nodes(), 5)
        assert library.reads == []

    asyncio.run(run())


def test_in_a_cluster_few_commands_are_carried_by_the_library_at_a_time() -> None:
    async def run() -> int:
        library = ClusterLibrary()
        await _deliver(library, OneLane([MOVED] * 100), *(_load(str(number)) for number in range(100)))
        return library.most_under_way

    assert asyncio.run(run()) == async_servers._MAX_ALONE


class SyncClusterLibrary(ClusterLibrary):
    """The same for threads."""

    def __init__(self) -> None:
        super().__init__()
        self.get_redis_connection = lambda _node: SimpleNamespace(connection_pool=SyncPool())

    def execute_command(self, *arguments: Any) -> bytes:  # type: ignore[override]
        self.carried.append(arguments)
        return b"alone"

    def initialize(self, last_failed_node_name: str | None = None) -> None:  # type: ignore[override]
        self.reads.append(last_failed_node_name)


class SyncOneLane(OneLane):
    def carry(self, exchange: Exchange) -> list[Any]:  # type: ignore[override]
        self.sent.append(exchange.sent)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]


def _deliver_sync(library: ClusterLibrary, lane: OneLane, *commands: Any) -> list[Any]:
    cluster: Any = sync_servers.servers_of(library, LIMITS, None)
    wire: Any = lane
    return sync_servers._send(wire, partial(cluster._carry, "node", wire), commands, merges=False)


def test_in_threads_too_a_node_that_says_the_cluster_is_down_is_asked_again() -> None:
    library, lane = SyncClusterLibrary(), SyncOneLane([DOWN], [b"found"])
    assert _deliver_sync(library, lane, _load("a")) == [[b"found"]]
    assert (library.carried, library.reads) == ([], ["node"])


def test_in_threads_too_what_was_redirected_is_followed_and_the_rest_stays_together() -> None:
    library, lane = SyncClusterLibrary(), SyncOneLane([DOWN, MOVED, DOWN], [b"A", b"C"])
    assert _deliver_sync(library, lane, *map(_load, "abc")) == [[b"A"], [b"alone"], [b"C"]]
    assert library.carried == [("GET", "coatcheck:b")]


# --- looking in the background ----------------------------------------------------------------------------------------


def test_somebody_looks_at_most_once_a_second_and_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(async_servers, "running_loop", lambda: SimpleNamespace(time=lambda: now[0]))

    async def run() -> None:
        lookout = async_servers._Lookout()
        looks = 0
        is_over = asyncio.Event()

        async def look() -> None:
            nonlocal looks
            looks += 1
            await is_over.wait()

        async def looks_after(seconds: float) -> int:
            now[0] += seconds
            lookout.look(look)
            await asyncio.sleep(0)
            return looks

        assert [await looks_after(seconds) for seconds in (0, 0.5, 0.6)] == [1, 1, 1], "one is not over yet"
        is_over.set()
        await lookout.wait(5)
        assert [await looks_after(seconds) for seconds in (0, 0.5, 0.5)] == [2, 2, 3]
        await lookout.close()

    asyncio.run(run())


def test_in_threads_too_somebody_looks_at_most_once_a_second_and_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(sync_servers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    lookout = sync_servers._Lookout()
    begun: list[float] = []
    is_over = threading.Event()

    def look() -> None:
        begun.append(now[0])
        is_over.wait(30)
        message = "an outage is nobody's problem here"
        raise redis.ConnectionError(message)

    def looks_after(seconds: float) -> int:
        now[0] += seconds
        lookout.look(look)
        return len(begun)

    assert [looks_after(seconds) for seconds in (0, 0.5, 0.6)] == [1, 1, 1], "one is not over yet"
    is_over.set()
    lookout.wait(30)
    assert looks_after(0) == 2
    lookout.wait(30)
    assert looks_after(0.5) == 2
    assert looks_after(0.5) == 3
    lookout.wait(30)


# --- Sentinels --------------------------------------------------------------------------------------------------------

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
