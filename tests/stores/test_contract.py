"""Every store keeps the contract, async and sync. `test_redis_contract` has Redis's other deployments."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from servers import Server, server_binaries

from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.stores.protocol import AsyncStore, SyncStore
from coatcheck.stores.redis import RedisStore, SyncRedisStore
from coatcheck.stores.sqlite import SQLiteStore, SyncSQLiteStore
from coatcheck.testing import ManualClock, StoreContract


class _WithClock(StoreContract):
    def setup_method(self) -> None:
        self.clock = ManualClock()
        super().setup_method()

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)


class TestMemoryStore(_WithClock):
    def make_store(self) -> AsyncStore:
        return MemoryStore(clock=self.clock)


class TestSyncMemoryStore(_WithClock):
    def make_store(self) -> SyncStore:
        return SyncMemoryStore(clock=self.clock)


class _InFile(_WithClock):
    @pytest.fixture(autouse=True)
    def _store_in_folder(self, tmp_path: Path) -> None:
        self._path = tmp_path / "sessions.sqlite3"
        super().setup_method()

    def setup_method(self) -> None:
        """Wait for the folder."""


class TestSQLiteStore(_InFile):
    def make_store(self) -> AsyncStore:
        return SQLiteStore(self._path, clock=self.clock)


class TestSyncSQLiteStore(_InFile):
    def make_store(self) -> SyncStore:
        return SyncSQLiteStore(self._path, clock=self.clock)


class TestDurableSQLiteStore(_InFile):
    def make_store(self) -> SyncStore:
        return SyncSQLiteStore(self._path, clock=self.clock, durable=True)


@pytest.mark.parametrize("kind", server_binaries())
class _OnServer(StoreContract):
    @pytest.fixture(autouse=True)
    def _store_on_server(self, kind: str, running_servers: dict[str, Server]) -> None:
        self._server = running_servers[kind]
        self._server.flush()
        super().setup_method()

    def setup_method(self) -> None:
        """Wait for the server."""

    def advance(self, by: timedelta) -> None:
        self._server.advance(by)


class TestRedisStore(_OnServer):
    def make_store(self) -> AsyncStore:
        return RedisStore(self._server.url)


class TestSyncRedisStore(_OnServer):
    def make_store(self) -> SyncStore:
        return SyncRedisStore(self._server.url)
