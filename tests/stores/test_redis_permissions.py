"""The users that docs/redis.md describes can do all that Coatcheck needs, and none of their permissions is too many."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clusters import Cluster
from deployments import PATIENT, OnDeployment
from redis.crc import key_slot
from replica_sets import ReplicaSet
from servers import Server, server_binaries

from coatcheck import Sessions, SyncSessions
from coatcheck.errors import StoreError, StoreUnavailable
from coatcheck.stores.protocol import AsyncStore, Outcome, SyncStore
from coatcheck.stores.redis import RedisStore, SyncRedisStore
from coatcheck.stores.redis.connections import RedisOptions

PAGE = Path(__file__).parents[2] / "docs" / "redis.md"
ON_ONE_SERVER, IN_A_CLUSTER, AT_A_SENTINEL = (
    line.split()[2:] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("ACL SETUSER ")
)
AS_THE_USER: RedisOptions = {**PATIENT, "username": "shop", "password": "password"}

SECRET_KEY = "a secret key for tests, 32 bytes or more"
KEY = "00112233445566778899aabbccddeeff00112233"
RECORD = b"\x01revisionthe rest"
HOUR_MS = 3_600_000
DEADLINE_S = 10.0


def _permissions(rules: list[str]) -> list[str]:
    return [rule for rule in rules if rule[0] in "+~&"]


@contextmanager
def allowed(rules: list[str], *servers: Server) -> Iterator[None]:
    """Have the user on these servers, for as long as the block lasts."""
    for server in servers:
        with server.client() as client:
            client.execute_command("ACL SETUSER", rules[0], "reset", *rules[1:])
    yield
    for server in servers:
        with server.client() as client:
            client.execute_command("ACL DELUSER", rules[0])


# --- what the users can do ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=server_binaries())
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(server_binaries()[request.param]) as server:
        yield server


class _OnServer(OnDeployment):
    @pytest.fixture(autouse=True)
    def _on_server(self, server: Server) -> Iterator[None]:
        with allowed(ON_ONE_SERVER, server):
            self._url = f"redis://{server.address}"
            self.use(server)
            yield


class TestRedisStore(_OnServer):
    def make_store(self) -> AsyncStore:
        return RedisStore(self._url, **AS_THE_USER)


class TestSyncRedisStore(_OnServer):
    def make_store(self) -> SyncStore:
        return SyncRedisStore(self._url, **AS_THE_USER)


class _OnCluster(OnDeployment):
    @pytest.fixture(autouse=True)
    def _on_cluster(self, running_cluster: Cluster) -> Iterator[None]:
        with allowed(IN_A_CLUSTER, *running_cluster.nodes):
            self._url = running_cluster.url
            self.use(*running_cluster.masters)
            yield


class TestRedisStoreOnCluster(_OnCluster):
    def make_store(self) -> AsyncStore:
        return RedisStore(self._url, **AS_THE_USER)


class TestSyncRedisStoreOnCluster(_OnCluster):
    def make_store(self) -> SyncStore:
        return SyncRedisStore(self._url, **AS_THE_USER)


async def _live_asynchronously(url: str) -> None:
    """Log in, wait for the end from elsewhere, and be ended; log in again and out."""
    sessions = Sessions(RedisStore(url, **AS_THE_USER), secret_keys=[SECRET_KEY])
    async with asyncio.timeout(DEADLINE_S), sessions.open() as session:
        session.login("alice")
        await session.save()
        end = asyncio.create_task(session.revoked())
        assert len(await sessions.for_user("alice")) == 1
        assert await sessions.count() == 1
        await sessions.revoke_user("alice")
        await end
    async with sessions.open() as session:
        session.login("alice")
        await session.save()
        session.logout()
    await sessions.close()


def _live_synchronously(url: str) -> None:
    sessions = SyncSessions(SyncRedisStore(url, **AS_THE_USER), secret_keys=[SECRET_KEY])
    with sessions.open() as session:
        session.login("alice")
        session.save()
        assert len(sessions.for_user("alice")) == 1
        session.logout()
    with sessions.open() as session:
        session.login("alice")
    sessions.revoke_user("alice")
    sessions.close()


def test_the_user_on_one_server_can_live_through_whole_sessions(server: Server) -> None:
    server.flush()
    with allowed(ON_ONE_SERVER, server):
        asyncio.run(_live_asynchronously(f"redis://{server.address}"))
        _live_synchronously(f"redis://{server.address}")


def test_the_user_in_a_cluster_can_live_through_whole_sessions(running_cluster: Cluster) -> None:
    for master in running_cluster.masters:
        master.flush()
    with allowed(IN_A_CLUSTER, *running_cluster.nodes):
        asyncio.run(_live_asynchronously(running_cluster.url))
        _live_synchronously(running_cluster.url)


def test_the_user_at_the_sentinels_finds_the_master(running_replica_set: ReplicaSet) -> None:
    options: RedisOptions = {**PATIENT, "sentinel_username": "shop", "sentinel_password": "password"}
    servers = [sentinel.server for sentinel in running_replica_set.sentinels]
    running_replica_set.master.flush()
    with allowed(AT_A_SENTINEL, *servers):
        asyncio.run(_everything(RedisStore(running_replica_set.url, **options)))
        with allowed([*AT_A_SENTINEL, "-sentinel|masters"], *servers), pytest.raises((StoreUnavailable, TimeoutError)):
            asyncio.run(_everything(RedisStore(running_replica_set.url, **options)))


# --- and that they need to ----------------------------------------------------------------------------------------


async def _everything(store: RedisStore) -> None:
    """Do all that a store does. Raises StoreUnavailable or TimeoutError if something can't be done."""
    news = store.listen()
    try:
        async with asyncio.timeout(1):
            await anext(news)
        await store.create(KEY, RECORD, HOUR_MS)
        assert await store.load(KEY) == [RECORD]
        for _ in range(2):  # by EVAL, and then by EVALSHA
            assert await store.update(KEY, b"revision", RECORD, HOUR_MS) is Outcome.DONE
        assert await store.update(KEY, b"outdated", RECORD, HOUR_MS) == RECORD
        await store.touch(KEY, HOUR_MS)
        await store.time_left(KEY)
        await store.scan("", 10)
        await store.delete(KEY)
        await store.announce(KEY)
    finally:
        await news.aclose()  # type: ignore[attr-defined]
        await store.close()


def _without(permission: str, rules: list[str]) -> list[str]:
    return [rule for rule in rules if rule != permission]


@pytest.mark.parametrize("permission", _permissions(ON_ONE_SERVER))
def test_no_permission_on_one_server_is_too_many(running_servers: dict[str, Server], permission: str) -> None:
    server = running_servers["valkey"]
    server.flush()
    with server.client() as client:
        client.script_flush()
    with (
        allowed(_without(permission, ON_ONE_SERVER), server),
        pytest.raises((StoreUnavailable, TimeoutError)),
    ):
        asyncio.run(_everything(RedisStore(f"redis://{server.address}", **AS_THE_USER)))


@pytest.fixture
def cluster_on_the_move(running_cluster: Cluster) -> Iterator[Cluster]:
    """An empty Cluster, in which the slot of KEY is about to move: what is new goes to its target, by `ASKING`."""
    for master in running_cluster.masters:
        master.flush()
        with master.client() as client:
            client.script_flush()
    target, _, source = running_cluster.masters
    slot = key_slot(f"coatcheck:{KEY}".encode())
    assert slot > 11_000, "it is the last master's"
    target.ask("SETSLOT", slot, "IMPORTING", source.node_id)
    source.ask("SETSLOT", slot, "MIGRATING", target.node_id)
    yield running_cluster
    target.flush()
    for node in (target, source):
        node.ask("SETSLOT", slot, "STABLE")


def test_the_user_in_a_cluster_can_do_everything_while_slots_move(cluster_on_the_move: Cluster) -> None:
    with allowed(IN_A_CLUSTER, *cluster_on_the_move.nodes):
        asyncio.run(_everything(RedisStore(cluster_on_the_move.url, **AS_THE_USER)))


@pytest.mark.parametrize("permission", _permissions(IN_A_CLUSTER))
def test_no_permission_in_a_cluster_is_too_many(cluster_on_the_move: Cluster, permission: str) -> None:
    with (
        allowed(_without(permission, IN_A_CLUSTER), *cluster_on_the_move.nodes),
        pytest.raises((StoreUnavailable, TimeoutError)),
    ):
        asyncio.run(_everything(RedisStore(cluster_on_the_move.url, **AS_THE_USER)))


def test_what_is_not_allowed_is_an_outage_that_names_the_page(running_servers: dict[str, Server]) -> None:
    server = running_servers["valkey"]
    with allowed(_without("+mget", ON_ONE_SERVER), server):
        store = SyncRedisStore(f"redis://{server.address}", **AS_THE_USER)
        with pytest.raises(StoreError, match=r"docs/redis\.md lists the permissions"):
            store.load(KEY)
        store.close()
