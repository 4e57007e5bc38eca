"""What Redis adds to the contract: connections, scripts, clients of the application's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from servers import Server, free_port, server_binaries

from coatcheck import Sessions, SyncSessions
from coatcheck.errors import ConfigurationError, StoreFull, StoreUnavailable
from coatcheck.stores.protocol import Outcome
from coatcheck.stores.redis import RedisStore, SyncRedisStore

RECORD = b"\x01revisionthe rest"
KEY = "00112233445566778899aabbccddeeff00112233"
HOUR_MS = 3_600_000
SECRET_KEY = "a secret key for tests, 32 bytes or more"


@pytest.fixture(params=server_binaries())
def server(request: pytest.FixtureRequest, running_servers: dict[str, Server]) -> Server:
    return running_servers[request.param]


@pytest.fixture
def raw(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


def test_every_key_has_the_prefix_and_a_time_to_live(server: Server, raw: redis.Redis) -> None:
    store = SyncRedisStore(server.url, prefix="shop:")
    store.create(KEY, RECORD, HOUR_MS)
    store.update(KEY, b"revision", RECORD, HOUR_MS)
    store.touch(KEY, HOUR_MS)
    assert raw.keys() == [b"shop:" + KEY.encode()]
    assert HOUR_MS - 10_000 < raw.pttl(b"shop:" + KEY.encode()) <= HOUR_MS
    store.close()


def test_the_script_is_loaded_again_after_the_server_forgot_it(server: Server, raw: redis.Redis) -> None:
    store = SyncRedisStore(server.url)

    async def run() -> None:
        async_store = RedisStore(server.url)
        raw.script_flush()
        assert await async_store.update(KEY, b"revision", RECORD, HOUR_MS) is Outcome.DONE
        await async_store.close()

    store.create(KEY, RECORD, HOUR_MS)
    for _ in range(2):
        raw.script_flush()
        assert store.update(KEY, b"revision", RECORD, HOUR_MS) is Outcome.DONE
    asyncio.run(run())
    store.close()


def _key(number: int) -> str:
    return f"{number:040x}"


def _record(revision: bytes, text: bytes) -> bytes:
    return b"\x01" + revision + text


async def _update_together(store: RedisStore, count: int) -> list[Any]:
    """Update sessions whose records have the revision `revision` at the same time; give what came of each."""
    new = _record(b"replaced", b"new")
    updates = (store.update(_key(number), b"revision", new, HOUR_MS) for number in range(count))
    results = await asyncio.gather(*updates, return_exceptions=True)
    await store.close()
    return results


def test_each_of_the_updates_that_travel_together_gets_its_own_answer(server: Server, raw: redis.Redis) -> None:
    others = _record(b"anothers", b"newer")
    raw.set(f"coatcheck:{_key(0)}", RECORD, px=HOUR_MS)
    raw.set(f"coatcheck:{_key(2)}", others, px=HOUR_MS)
    raw.hset(f"coatcheck:{_key(3)}", "no", "record")
    raw.set(f"coatcheck:{_key(4)}", RECORD, px=HOUR_MS)
    stored, gone, newer, failed, also_stored = asyncio.run(_update_together(RedisStore(server.url), 5))
    assert (stored, gone, newer, also_stored) == (Outcome.DONE, Outcome.GONE, others, Outcome.DONE)
    assert isinstance(failed, StoreUnavailable)
    assert "WRONGTYPE" in str(failed)
    assert raw.get(f"coatcheck:{_key(4)}") == _record(b"replaced", b"new")
    assert 0 < raw.pttl(f"coatcheck:{_key(4)}") <= HOUR_MS
    assert raw.hgetall(f"coatcheck:{_key(3)}") == {b"no": b"record"}


def test_a_full_server_refuses_each_of_the_updates_and_keeps_what_it_has(server: Server, raw: redis.Redis) -> None:
    for number in range(3):
        raw.set(f"coatcheck:{_key(number)}", RECORD, px=HOUR_MS)
    raw.config_set("maxmemory", "1")
    try:
        results = asyncio.run(_update_together(RedisStore(server.url), 3))
    finally:
        raw.config_set("maxmemory", "0")
    assert [type(result) for result in results] == [StoreFull] * 3
    assert [raw.get(f"coatcheck:{_key(number)}") for number in range(3)] == [RECORD] * 3


def test_one_store_serves_several_event_loops(server: Server, raw: redis.Redis) -> None:
    store = RedisStore(server.url)

    async def count() -> bytes | None:
        await store.create(KEY, RECORD, HOUR_MS)
        (loaded,) = await store.load(KEY)
        await store.close()
        return loaded

    assert asyncio.run(count()) == RECORD
    assert asyncio.run(count()) == RECORD
    results: list[bytes | None] = []
    threads = [threading.Thread(target=lambda: results.append(asyncio.run(count()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [RECORD] * 4


def test_more_requests_than_connections_wait_their_turn(server: Server, raw: redis.Redis) -> None:
    store = RedisStore(server.url)

    async def run() -> list[list[bytes | None]]:
        await store.create(KEY, RECORD, HOUR_MS)
        loaded = await asyncio.gather(*(store.load(KEY) for _ in range(500)))
        await store.close()
        return loaded

    assert asyncio.run(run()) == [[RECORD]] * 500


def test_a_client_of_the_applications_own_is_used_and_left_open(server: Server, raw: redis.Redis) -> None:
    store = SyncRedisStore(raw)
    store.create(KEY, RECORD, HOUR_MS)
    store.close()
    assert raw.ping()

    async def run() -> None:
        client = redis.asyncio.Redis(port=server.port)
        async_store = RedisStore(client)
        assert await async_store.load(KEY) == [RECORD]
        await async_store.close()
        assert await client.ping()
        await client.aclose()

    asyncio.run(run())


def test_a_client_that_would_decode_records_as_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="decode_responses"):
        SyncRedisStore(redis.Redis(decode_responses=True))
    with pytest.raises(ConfigurationError, match="decode_responses"):
        RedisStore(redis.asyncio.Redis(decode_responses=True))


def test_a_client_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"RedisStore needs a redis\.asyncio\.Redis"):
        RedisStore(redis.Redis())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"SyncRedisStore needs a redis\.Redis"):
        SyncRedisStore(redis.asyncio.Redis())  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["", "a\nb", "\u20ac"])
def test_a_prefix_that_can_not_work_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        SyncRedisStore("redis://localhost", prefix=prefix)


def test_a_server_that_is_not_there_is_an_outage_with_its_cause() -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}"

    async def run() -> None:
        store = RedisStore(url)
        with pytest.raises(StoreUnavailable, match="ConnectionError") as caught:
            await store.load(KEY)
        assert isinstance(caught.value.__cause__, redis.ConnectionError)
        assert "hunter2" not in str(caught.value)
        await store.close()

    asyncio.run(run())
    store = SyncRedisStore(url)
    for call in (
        lambda: store.load(KEY),
        lambda: store.create(KEY, RECORD, 1),
        lambda: store.update(KEY, b"revision", RECORD, 1),
        lambda: store.touch(KEY, 1),
        lambda: store.delete(KEY),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    store.close()


def test_a_server_that_comes_back_is_used_again_without_a_restart() -> None:
    with Server(server_binaries()["valkey"], "--appendonly", "yes", "--appendfsync", "always") as server:
        sessions = SyncSessions(server.url, secret_keys=[SECRET_KEY])
        async_sessions = Sessions(server.url, secret_keys=[SECRET_KEY])
        with sessions.open() as session:
            session["user"] = "alice"

        async def read() -> str:
            async with async_sessions.open(session.token) as same:
                return str(same["user"])

        with asyncio.Runner() as runner:
            assert runner.run(read()) == "alice"
            server.stop()
            with pytest.raises(StoreUnavailable):
                runner.run(read())
            with pytest.raises(StoreUnavailable), sessions.open(session.token):
                pass
            server.start()
            assert runner.run(read()) == "alice"
            with sessions.open(session.token) as same:
                assert same["user"] == "alice"
            runner.run(async_sessions.close())
        sessions.close()


@pytest.mark.parametrize("left_over", [("MGET", "coatcheck:{}"), ("GET", "coatcheck:{}"), ("PING",)])
def test_an_answer_left_over_on_a_connection_is_not_taken_for_the_next(
    server: Server, raw: redis.Redis, left_over: tuple[str, ...]
) -> None:
    """The fault behind CVE-2023-28858: a command whose answer nobody read."""

    async def run() -> None:
        client = redis.asyncio.Redis(port=server.port)
        sessions = Sessions(RedisStore(client), secret_keys=[SECRET_KEY])
        tokens, handles = [], []
        for user in ("alice", "bob"):
            async with sessions.open() as session:
                session["user"] = user
                tokens.append(session.token)
                handles.append(session.handle)

        async def user_of_alice() -> str:
            async with sessions.open(tokens[0]) as session:
                return str(session["user"])

        for connection in client.connection_pool._in_use_connections:
            await connection.send_command(*(part.format(handles[1]) for part in left_over))
        if left_over[0] == "MGET":
            assert await user_of_alice() == "alice"
        else:
            with pytest.raises(StoreUnavailable, match="connections were closed"):
                await user_of_alice()
        assert await user_of_alice() == "alice"
        await sessions.close()
        await client.aclose()

    asyncio.run(run())


def test_an_answer_left_over_in_a_pool_is_not_taken_for_the_next(server: Server, raw: redis.Redis) -> None:
    """The same for threads, whose connections come from the client's pool for every command."""
    client = redis.Redis(port=server.port)
    store = SyncRedisStore(client)
    store.create(KEY, RECORD, HOUR_MS)
    connection = client.connection_pool.get_connection()
    connection.send_command("GET", "coatcheck:another")  # type: ignore[no-untyped-call]
    client.connection_pool.release(connection)
    with pytest.raises(StoreUnavailable, match="connections were closed"):
        store.load(KEY)
    assert store.load(KEY) == [RECORD]
    client.close()
