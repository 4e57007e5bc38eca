"""Never run: the type checkers read it, and say whether the testing helpers have the types that users are promised."""

from __future__ import annotations

from typing import assert_type

import aiohttp.test_utils
import flask.testing
import httpx
import quart.typing

from coatcheck import Sessions, SyncSessions
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.stores.protocol import AsyncStore, SyncStore
from coatcheck.testing import FailingStore, SyncFailingStore, alogged_in, logged_in

store, sync_store = FailingStore(), SyncFailingStore(SyncMemoryStore())
async_stores: list[AsyncStore] = [store, FailingStore(MemoryStore())]
sync_stores: list[SyncStore] = [sync_store]
FailingStore(SyncMemoryStore())  # type: ignore[arg-type]
SyncFailingStore(MemoryStore())  # type: ignore[arg-type]

sessions = Sessions(store, secret_keys=["key"])
sync_sessions = SyncSessions(sync_store, secret_keys=["key"])
Sessions(sync_store, secret_keys=["key"])  # type: ignore[arg-type]

store.fail()
store.fail("load", "update", error=TimeoutError)
store.fail("save")  # type: ignore[arg-type]
assert_type(store.calls, list[str])
with store.failing("update"):
    store.recover()


def in_sync_tests(client: httpx.Client, of_flask: flask.testing.FlaskClient) -> None:
    assert_type(logged_in(client, "alice", sessions), httpx.Client)
    assert_type(logged_in(client, "alice", sync_sessions, theme="dark", user_id=7), httpx.Client)
    assert_type(logged_in(of_flask, "alice"), flask.testing.FlaskClient)
    logged_in(client)  # type: ignore[call-arg]
    logged_in(client, 7)  # type: ignore[arg-type]
    logged_in(client, "alice", store)  # type: ignore[arg-type]


async def in_async_tests(
    client: httpx.AsyncClient, of_quart: quart.typing.TestClientProtocol, of_aiohttp: aiohttp.test_utils.TestServer
) -> None:
    assert_type(await alogged_in(client, "alice", sessions), httpx.AsyncClient)
    assert_type(await alogged_in(of_quart, "alice"), quart.typing.TestClientProtocol)
    async with aiohttp.test_utils.TestClient(of_aiohttp) as started:
        (await alogged_in(started, "alice", sessions)).make_url("/")
