"""The first requests of a process, when nothing answers yet: all are refused in time, whatever their number."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Literal

import pytest
from clusters import Cluster
from replica_sets import ReplicaSet
from servers import Server, server_binaries
from trials import SLOWEST_S

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis import RedisStore, SyncRedisStore

Deployment = Literal["server", "sentinel", "cluster"]

REQUESTS = 8


def _start(stack: ExitStack, deployment: Deployment) -> tuple[str, list[Server]]:
    """Start servers. Gives the URL, and those that must answer before anything else can."""
    if deployment == "server":
        server = stack.enter_context(Server(server_binaries()["valkey"]))
        return f"redis://{server.address}", [server]
    if deployment == "sentinel":
        replica_set = stack.enter_context(ReplicaSet())
        return replica_set.url, [sentinel.server for sentinel in replica_set.sentinels]
    cluster = stack.enter_context(Cluster())
    return cluster.url, list(cluster.nodes)


@pytest.fixture(scope="module", params=["server", "sentinel", "cluster"])
def hung(request: pytest.FixtureRequest) -> Iterator[str]:
    with ExitStack() as stack:
        url, servers = _start(stack, request.param)
        for server in servers:
            server.pause()
        yield url


def test_threads_do_not_wait_for_one_another(hung: str) -> None:
    store = SyncRedisStore(hung)

    def load(number: int) -> float:
        began_at = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.load(str(number))
        return time.monotonic() - began_at

    with ThreadPoolExecutor(REQUESTS) as threads:
        assert max(threads.map(load, range(REQUESTS))) < SLOWEST_S
    store.close()


def test_tasks_do_not_wait_for_one_another(hung: str) -> None:
    async def load_all() -> None:
        store = RedisStore(hung)
        async with asyncio.timeout(SLOWEST_S):
            loaded = await asyncio.gather(*(store.load(str(each)) for each in range(REQUESTS)), return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable) for each in loaded)
        await store.close()

    asyncio.run(load_all())
