"""Old sessions in Redis or Valkey. Only commands that every version knows: an old system may have an old server."""

from __future__ import annotations

import redis
import redis.asyncio

from coatcheck.stores.redis import RedisStore, SyncRedisStore
from coatcheck.stores.redis.commands import Command, nothing, record


def _get(key: str) -> Command[bytes | None]:
    return Command(key, ("GET", key), record, is_repeatable=True)


def _delete(key: str) -> Command[None]:
    return Command(key, ("DEL", key), nothing, is_repeatable=True)


class OldRedis:
    """For threads. Connects as our own store does; a client that is given stays open."""

    def __init__(self, client: str | redis.Redis) -> None:
        self._store = SyncRedisStore(client)

    def get(self, key: str) -> bytes | None:
        """See `OldRecords.get`."""
        return self._store._here().ask(_get(key))

    def delete(self, key: str) -> None:
        """See `OldRecords.delete`."""
        self._store._here().ask(_delete(key))

    def close(self) -> None:
        """See `OldRecords.close`."""
        self._store.close()


class AsyncOldRedis:
    """For asyncio. See `OldRedis`."""

    def __init__(self, client: str | redis.asyncio.Redis) -> None:
        self._store = RedisStore(client)

    async def get(self, key: str) -> bytes | None:
        """See `OldRecords.get`."""
        return await self._store._here().ask(_get(key))

    async def delete(self, key: str) -> None:
        """See `OldRecords.delete`."""
        await self._store._here().ask(_delete(key))

    async def close(self) -> None:
        """See `OldRecords.close`."""
        await self._store.close()
