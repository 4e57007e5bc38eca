"""A Cluster loses a master, and moves its slots: each session is found where it is now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from clusters import Cluster
from proxies import Proxy
from raw_writes import RawWrites
from servers import wait_until
from trials import SLOWEST_S, Trial
from visitors import Verdict

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis import RedisStore, SyncRedisStore

KEY = "0" * 40


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def test_a_master_that_is_killed_is_replaced_by_its_replica(cluster: Cluster) -> None:
    with (
        Trial("Cluster: kill -9 of a master", cluster.url, may_lose=True) as trial,
        cluster.client() as client,
        RawWrites(client) as raw,
    ):
        killed = cluster.masters[0]
        trial.fail(killed.stop)
        trial.mend(partial(cluster.wait_for_promotion, killed))
        trial.raw_lost = raw.lost()
        trial.undisturbed_by(killed.start)


class Timed:
    """Uses a store, and keeps how long that took at most, whatever came of it."""

    def __init__(self) -> None:
        self.slowest_s = 0.0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        began_at = time.monotonic()
        try:
            yield
        finally:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_at)


def _works(use: Callable[[], object]) -> bool:
    with suppress(StoreUnavailable):
        use()
        return True
    return False


def test_a_master_that_hangs_is_left_for_the_replica_that_was_promoted(cluster: Cluster) -> None:
    """It answers nothing and refuses nothing, so only the other nodes can tell who has its slots now."""
    hung = cluster.masters[0]
    store = SyncRedisStore(cluster.url)
    keys = [f"{number:040}" for number in range(30)]  # of which every master has some
    timed = Timed()

    def load_each() -> None:
        for key in keys:
            with timed():
                store.load(key)

    async def use() -> None:
        async_store = RedisStore(cluster.url)

        async def load(key: str) -> None:
            with timed():
                await async_store.load(key)

        async def load_all() -> bool:
            loaded = await asyncio.gather(*map(load, keys), return_exceptions=True)
            assert all(each is None or isinstance(each, StoreUnavailable) for each in loaded)
            return not any(loaded)

        assert await load_all()
        hung.pause()
        promotion = asyncio.create_task(asyncio.to_thread(cluster.wait_for_promotion, hung))
        while not await load_all() or not promotion.done():  # until the test's own time limit
            pass
        await promotion
        await async_store.close()

    try:
        load_each()
        asyncio.run(use())
        wait_until(lambda: _works(load_each), "the store has found the new master")
    finally:
        hung.resume()
        store.close()
    assert timed.slowest_s < SLOWEST_S


def test_a_cluster_that_moved_to_other_machines_is_found_again_by_the_name_in_the_url(cluster: Cluster) -> None:
    """None of the nodes that the client has learned of is there any more, as after a restart of everything at once."""
    with Proxy(cluster.masters[0].port) as name:
        url = f"redis+cluster://127.0.0.1:{name.port}"
        store = SyncRedisStore(url)

        async def use() -> None:
            async_store = RedisStore(url)
            await async_store.load(KEY)
            store.load(KEY)
            for node in cluster.nodes:
                node.stop()
            with Cluster() as other:
                name.target_port = other.masters[0].port
                while True:  # until the test's own time limit
                    with suppress(StoreUnavailable):
                        await async_store.load(KEY)
                        break
                wait_until(lambda: _works(lambda: store.load(KEY)), "the store has found the other Cluster")
                await async_store.close()

        asyncio.run(use())
        store.close()


def test_sessions_on_the_other_masters_are_served_while_one_is_away(cluster: Cluster) -> None:
    killed, replica = cluster.masters[0], cluster.replicas[0]
    with (
        Trial("Cluster: a master away, none promoted", cluster.url, may_lose=True) as trial,
        replica.client() as client,
    ):
        client.config_set("cluster-replica-no-failover", "yes")

        def bring_back() -> None:
            killed.start()
            cluster.wait_until_ok()  # a master that comes back serves nothing for two seconds, whoever asks

        trial.fail(killed.stop)
        trial.wait_for(Verdict.REFUSED)
        trial.wait_for(Verdict.RIGHT, 3)
        trial.mend(bring_back)


def test_slots_that_move_while_they_are_used_lose_nothing_and_mix_up_nothing(cluster: Cluster) -> None:
    with Trial("Cluster: slots move", cluster.url) as trial:
        source, target = cluster.masters[:2]
        trial.fail(lambda: cluster.move_slots(source, target, source.slots_with_keys()))
        trial.mend(lambda: cluster.move_slots(target, source, target.slots_with_keys()[:20]))
