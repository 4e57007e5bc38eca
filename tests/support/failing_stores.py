"""Memory stores that can be told to be out of reach, for the tests of transports."""

from __future__ import annotations

from typing import Any

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore


class _Failing:
    def __init__(self) -> None:
        super().__init__()
        self.fails: set[str] = set()
        """Names of calls that fail."""
        self.calls: list[str] = []

    def _check(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            message = "out of reach"
            raise StoreUnavailable(message)


class FailingStore(_Failing, MemoryStore):
    """For asyncio."""

    async def load(self, *keys: str) -> list[bytes | None]:
        self._check("load")
        return await super().load(*keys)

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        self._check("create")
        return await super().create(key, record, ttl_ms)

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> Any:
        self._check("update")
        return await super().update(key, revision, record, ttl_ms)

    async def delete(self, key: str) -> bytes | None:
        self._check("delete")
        return await super().delete(key)

    async def touch(self, key: str, ttl_ms: int) -> bytes | None:
        self._check("touch")
        return await super().touch(key, ttl_ms)


class SyncFailingStore(_Failing, SyncMemoryStore):
    """For threads."""

    def load(self, *keys: str) -> list[bytes | None]:
        self._check("load")
        return super().load(*keys)

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        self._check("create")
        return super().create(key, record, ttl_ms)

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> Any:
        self._check("update")
        return super().update(key, revision, record, ttl_ms)

    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        self._check("touch")
        return super().touch(key, ttl_ms)
