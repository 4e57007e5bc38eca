"""What all tests share: servers, and every kind of store by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
import redis
from clusters import Cluster
from replica_sets import ReplicaSet
from servers import Server, server_binaries

# How long an example takes says something of the machine alone.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

STORES = ["memory", "sqlite", *server_binaries()]


@pytest.fixture(scope="session")
def running_servers() -> Iterator[dict[str, Server]]:
    """One server of each kind that this machine has, for all tests; those that break servers start their own."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Server(binary)) for name, binary in server_binaries().items()}


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    """One Cluster for all tests that break nothing in it."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def running_replica_set() -> Iterator[ReplicaSet]:
    """One master that Sentinels watch, likewise."""
    with ReplicaSet(down_after_ms=30_000) as replica_set:
        yield replica_set


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, of each kind in turn."""
    kind: str = request.param
    if kind == "memory":
        return "memory://"
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.sqlite3"
    server: Server = request.getfixturevalue("running_servers")[kind]
    with redis.Redis(port=server.port) as client:
        client.flushall()
    return server.url


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, which is what Coatcheck supports."""
    return "asyncio"
