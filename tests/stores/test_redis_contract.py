"""The Redis stores keep the contract on every deployment and through every client that they take, async and sync."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import valkey
import valkey.asyncio
from certificates import Authority
from clusters import Cluster
from deployments import PATIENT, OnDeployment
from proxies import Proxy
from replica_sets import ReplicaSet
from servers import Server, free_port, server_binaries

from coatcheck.stores.protocol import AsyncStore, SyncStore
from coatcheck.stores.redis import RedisStore, SyncRedisStore
from coatcheck.stores.redis.connections import RedisOptions

# --- a Cluster ----------------------------------------------------------------------------------------------------


class _OnCluster(OnDeployment):
    @pytest.fixture(autouse=True)
    def _on_cluster(self, running_cluster: Cluster) -> None:
        self._cluster = running_cluster
        self.use(*running_cluster.masters)


class TestRedisStoreOnCluster(_OnCluster):
    def make_store(self) -> AsyncStore:
        return RedisStore(self._cluster.url, **PATIENT)


class TestSyncRedisStoreOnCluster(_OnCluster):
    def make_store(self) -> SyncStore:
        return SyncRedisStore(self._cluster.url, **PATIENT)


class TestRedisStoreWithClusterClient(_OnCluster):
    def make_store(self) -> AsyncStore:
        node = redis.asyncio.cluster.ClusterNode("127.0.0.1", self._cluster.masters[0].port)
        self.client = redis.asyncio.RedisCluster(startup_nodes=[node])
        return RedisStore(self.client, **PATIENT)


class TestSyncRedisStoreWithClusterClient(_OnCluster):
    def make_store(self) -> SyncStore:
        self.client = redis.RedisCluster(host="127.0.0.1", port=self._cluster.masters[0].port)
        return SyncRedisStore(self.client, command_timeout=PATIENT["command_timeout"])


class TestRedisStoreWithValkeyClusterClient(_OnCluster):
    def make_store(self) -> AsyncStore:
        self.client = valkey.asyncio.ValkeyCluster(host="127.0.0.1", port=self._cluster.masters[0].port)
        return RedisStore(self.client, **PATIENT)


class TestSyncRedisStoreWithValkeyClusterClient(_OnCluster):
    def make_store(self) -> SyncStore:
        self.client = valkey.ValkeyCluster(host="127.0.0.1", port=self._cluster.masters[0].port)
        return SyncRedisStore(self.client, command_timeout=PATIENT["command_timeout"])


# --- Sentinels ----------------------------------------------------------------------------------------------------


class _BySentinel(OnDeployment):
    @pytest.fixture(autouse=True)
    def _by_sentinel(self, running_replica_set: ReplicaSet) -> None:
        self._replica_set = running_replica_set
        self.use(running_replica_set.master)


class TestRedisStoreBySentinel(_BySentinel):
    def make_store(self) -> AsyncStore:
        return RedisStore(self._replica_set.url, **PATIENT)


class TestSyncRedisStoreBySentinel(_BySentinel):
    def make_store(self) -> SyncStore:
        return SyncRedisStore(self._replica_set.url, **PATIENT)


# --- valkey-py ----------------------------------------------------------------------------------------------------


class _OnServer(OnDeployment):
    @pytest.fixture(autouse=True)
    def _on_server(self, running_servers: dict[str, Server]) -> None:
        self._server = running_servers["valkey"]
        self.use(self._server)


class TestRedisStoreWithValkeyClient(_OnServer):
    def make_store(self) -> AsyncStore:
        self.client = valkey.asyncio.Valkey(port=self._server.port)
        return RedisStore(self.client, **PATIENT)


class TestSyncRedisStoreWithValkeyClient(_OnServer):
    def make_store(self) -> SyncStore:
        self.client = valkey.Valkey(port=self._server.port)
        return SyncRedisStore(self.client, command_timeout=PATIENT["command_timeout"])


# --- a Unix socket ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def socket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    path = tmp_path_factory.mktemp("run") / "socket"
    with Server(server_binaries()["valkey"], "--unixsocket", str(path)) as server:
        yield server, path


class _OnSocket(OnDeployment):
    @pytest.fixture(autouse=True)
    def _on_socket(self, socket_server: tuple[Server, Path]) -> None:
        server, self._path = socket_server
        self.use(server)


class TestRedisStoreOnSocket(_OnSocket):
    def make_store(self) -> AsyncStore:
        return RedisStore(f"unix://{self._path}", **PATIENT)


class TestSyncRedisStoreOnSocket(_OnSocket):
    def make_store(self) -> SyncStore:
        return SyncRedisStore(f"unix://{self._path}", **PATIENT)


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=server_binaries())
def tls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, int, Authority]]:
    """A server, and the port at which it wants TLS with a certificate: its own, or else a proxy's."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    with ExitStack() as stack:
        if request.param == "valkey":  # its package has no TLS
            server = stack.enter_context(Server(server_binaries()["valkey"]))
            port = stack.enter_context(Proxy(server.port, authority.server_context())).port
        else:
            port = free_port()
            server = stack.enter_context(Server(server_binaries()["redis"], *authority.server_options(port)))
        yield server, port, authority


class _OverTLS(OnDeployment):
    @pytest.fixture(autouse=True)
    def _over_tls(self, tls: tuple[Server, int, Authority]) -> None:
        server, port, authority = tls
        certificate, key = authority.issue("application")
        self._url = f"rediss://127.0.0.1:{port}"
        self._files: RedisOptions = {
            "tls_ca_file": str(authority.certificate),
            "tls_certificate_file": str(certificate),
            "tls_key_file": str(key),
        }
        self.use(server)


class TestRedisStoreOverTLS(_OverTLS):
    def make_store(self) -> AsyncStore:
        return RedisStore(self._url, **PATIENT | self._files)


class TestSyncRedisStoreOverTLS(_OverTLS):
    def make_store(self) -> SyncStore:
        return SyncRedisStore(self._url, **PATIENT | self._files)
