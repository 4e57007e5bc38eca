"""Whoever waits for the end of a session hears of it: in this process, and from others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import redis
from faces import KEY
from servers import Server, server_binaries

from coatcheck import Sessions, watching
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.testing import ManualClock
from coatcheck.watching import Watch

pytestmark = pytest.mark.anyio

LONG_S = 30
"""Far longer than it takes, so that a slow machine fails no test."""


@pytest.fixture
async def sessions(store_url: str) -> AsyncIterator[Sessions]:
    sessions = Sessions(store_url, secret_keys=[KEY])
    yield sessions
    await sessions.close()


async def log_in(sessions: Sessions, user_id: str = "alice") -> str:
    async with sessions.open() as session:
        session.login(user_id)
    return session.token


async def waiting(sessions: Sessions, token: str) -> asyncio.Task[None]:
    """Begin to wait, and be sure that it has begun."""
    session = sessions.begin([f"__Host-session={token}".encode()])
    await session.load()
    task = asyncio.create_task(session.revoked())
    await asyncio.sleep(0)
    return task


async def heard(*tasks: asyncio.Task[None]) -> None:
    async with asyncio.timeout(LONG_S):
        await asyncio.gather(*tasks)


async def handle_of(sessions: Sessions, token: str) -> str:
    async with sessions.open(token) as session:
        return session.handle


async def test_the_end_of_one_session_is_heard_by_all_who_wait_for_it_and_by_nobody_else(sessions: Sessions) -> None:
    token, other = await log_in(sessions), await log_in(sessions)
    tasks = [await waiting(sessions, token) for _ in range(3)]
    bystander = await waiting(sessions, other)
    await sessions.revoke(await handle_of(sessions, token))
    await heard(*tasks)
    assert not bystander.done()
    bystander.cancel()


async def test_the_end_of_all_sessions_but_one_is_heard_by_the_others(sessions: Sessions) -> None:
    tokens = [await log_in(sessions) for _ in range(3)]
    tasks = [await waiting(sessions, token) for token in tokens]
    await sessions.revoke_user("alice", keep=await handle_of(sessions, tokens[0]))
    await heard(*tasks[1:])
    assert not tasks[0].done()
    tasks[0].cancel()


async def test_a_logout_is_heard(sessions: Sessions) -> None:
    token = await log_in(sessions)
    task = await waiting(sessions, token)
    async with sessions.open(token) as session:
        session.logout()
    await heard(task)


async def test_a_session_that_has_ended_already_is_not_waited_for(sessions: Sessions) -> None:
    token = await log_in(sessions)
    session = sessions.begin([f"__Host-session={token}".encode()])
    await session.load()
    await sessions.revoke_user("alice")
    async with asyncio.timeout(LONG_S):
        await session.revoked()
    anonymous = sessions.begin([])
    async with asyncio.timeout(LONG_S):
        await anonymous.revoked()


REVOKE_IN_A_PROCESS = """
import sys
from coatcheck import SyncSessions
url, key, handle = sys.argv[1:]
sessions = SyncSessions(url, secret_keys=[key])
assert sessions.revoke(handle) if len(handle) == 40 else sessions.revoke_user(handle)
sessions.close()
"""


@pytest.mark.parametrize("store_url", ["sqlite", *server_binaries()], indirect=True)
@pytest.mark.parametrize("whole_user", [False, True])
async def test_an_end_in_another_process_is_heard(sessions: Sessions, store_url: str, whole_user: bool) -> None:
    token = await log_in(sessions)
    tasks = [await waiting(sessions, token) for _ in range(2)]
    what = "alice" if whole_user else await handle_of(sessions, token)
    process = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", REVOKE_IN_A_PROCESS, store_url, KEY, what], check=False
    )
    assert process.returncode == 0
    await heard(*tasks)


@asynccontextmanager
async def traffic_of_others(sessions: Sessions) -> AsyncIterator[None]:
    """Let others log in and out in this process all the time."""

    async def come_and_go() -> None:
        while True:
            token = await log_in(sessions, "somebody")
            async with sessions.open(token) as session:
                session.logout()
            await asyncio.sleep(0)

    task = asyncio.create_task(come_and_go())
    yield
    task.cancel()


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_news_of_others_put_off_no_word_from_another_process(sessions: Sessions, store_url: str) -> None:
    token = await log_in(sessions)
    task = await waiting(sessions, token)
    elsewhere = Sessions(store_url, secret_keys=[KEY])
    async with traffic_of_others(sessions):
        await elsewhere.revoke(await handle_of(elsewhere, token))
        await heard(task)
    await elsewhere.close()


async def test_news_of_others_put_off_no_look_for_what_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_WITH_NEWS_S", 0.05)
    clock = ManualClock()
    sessions = Sessions("memory://", secret_keys=[KEY], clock=clock)
    task = await waiting(sessions, await log_in(sessions))
    for _ in range(5):  # it has been looked at by then
        await asyncio.sleep(0)
    async with traffic_of_others(sessions):
        clock.advance(timedelta(hours=3))
        await heard(task)


async def test_an_end_in_another_thread_is_heard() -> None:
    from coatcheck import SyncSessions

    store = MemoryStore()
    sessions = Sessions(store, secret_keys=[KEY])
    token = await log_in(sessions)
    task = await waiting(sessions, token)
    in_threads = SyncSessions(SyncMemoryStore(share_with=store), secret_keys=[KEY])
    await asyncio.to_thread(in_threads.revoke_user, "alice")
    await heard(task)


async def test_who_waits_through_a_renewal_hears_of_the_end_afterwards() -> None:
    clock = ManualClock()
    sessions = Sessions("memory://", secret_keys=[KEY], clock=clock, renew_every=timedelta(minutes=15))
    token = await log_in(sessions)
    task = await waiting(sessions, token)
    clock.advance(timedelta(minutes=16))
    session = sessions.begin([f"__Host-session={token}".encode()])
    await session.load()
    session.get("anything")
    await sessions.conclude(session, 200)
    assert session.token != token
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    await sessions.revoke(session.handle)
    await heard(task)


@pytest.mark.parametrize("store_url", server_binaries(), indirect=True)
async def test_one_connection_listens_however_many_wait_and_none_when_nobody_does(
    sessions: Sessions, store_url: str
) -> None:
    tokens = [await log_in(sessions) for _ in range(20)]
    tasks = [await waiting(sessions, token) for token in tokens]
    with redis.Redis.from_url(store_url) as client:
        await until(lambda: listeners(client) == 1)
        assert listeners(client) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: listeners(client) == 0)


def listeners(client: redis.Redis) -> int:
    return int(dict(client.pubsub_numsub("coatcheck:news"))[b"coatcheck:news"])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.01)


async def test_an_end_during_an_outage_of_the_server_is_heard_when_it_is_back() -> None:
    with Server(server_binaries()["valkey"]) as server:  # which forgets everything when it ends
        sessions = Sessions(server.url, secret_keys=[KEY])
        token = await log_in(sessions)
        task = await waiting(sessions, token)
        with redis.Redis.from_url(server.url) as client:
            await until(lambda: listeners(client) == 1)
        server.stop()
        assert not task.done()
        server.start()
        await heard(task)
        await sessions.close()


async def test_an_error_nobody_expected_does_not_make_those_who_wait_deaf(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = Sessions("memory://", secret_keys=[KEY])
    token = await log_in(sessions)
    original, calls = sessions._look, []

    async def fail_once(watched: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        await original(watched)

    monkeypatch.setattr(sessions, "_look", fail_once)
    task = await waiting(sessions, token)
    for _ in range(5):
        await asyncio.sleep(0)
    await sessions.revoke_user("alice")
    await heard(task)
    assert "ZeroDivisionError" in caplog.text


async def test_where_a_store_brings_no_news_one_task_looks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    original = Watch._look_again_and_again

    async def counted(self: Any) -> None:
        looked.append(1)
        await original(self)

    monkeypatch.setattr(Watch, "_look_again_and_again", counted)
    sessions = Sessions("memory://", secret_keys=[KEY])
    tasks = [await waiting(sessions, await log_in(sessions)) for _ in range(10)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert looked == [1]
    for task in tasks:
        task.cancel()
