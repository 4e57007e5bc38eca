"""The Redis store for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from coatcheck.stores.protocol import WriteResult
from coatcheck.stores.redis import clients, commands

T = TypeVar("T")


class RedisStore:
    """Keeps sessions in Redis or Valkey.

    Args:
        redis: a URL (`redis://[user:password@]host:port/database`, `rediss://` for TLS, `unix://`), or a
            `redis.asyncio.Redis` of the application's own, which is then the application's to close.
        prefix: what the keys of sessions begin with.

    Raises:
        ConfigurationError: an argument can't work.
    """

    def __init__(self, redis: str | Redis, *, prefix: str = commands.DEFAULT_PREFIX) -> None:
        self._prefix = commands.check_prefix(prefix)
        self._given = None if isinstance(redis, str) else redis
        self._url = redis if isinstance(redis, str) else ""
        # Connections belong to the event loop that they were opened in, and a program may run several.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Redis] = WeakKeyDictionary()
        if self._given is not None:
            clients.check_client(self._given)

    async def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        names = [self._prefix + key for key in keys]
        return await self._run(lambda client: client.mget(names), commands.records(len(keys)))

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        return await self._run(
            lambda client: client.set(self._prefix + key, record, px=ttl_ms, nx=True), commands.was_set
        )

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        arguments = (1, self._prefix + key, revision, record, ttl_ms)

        async def run_script(client: Redis) -> Any:
            try:
                return await client.evalsha(commands.UPDATE.sha, *arguments)
            except NoScriptError:
                return await client.eval(commands.UPDATE.source, *arguments)

        return await self._run(run_script, commands.write_result)

    async def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return await self._run(lambda client: client.getex(self._prefix + key, px=ttl_ms), commands.record)

    async def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return await self._run(lambda client: client.getdel(self._prefix + key), commands.record)

    async def reset(self) -> None:
        """See `SyncStore.reset`. Commands that are under way fail."""
        with commands.unavailable_on_error():
            await self._client().connection_pool.disconnect(inuse_connections=True)

    async def close(self) -> None:
        """See `SyncStore.close`. A client that was given stays open."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            with commands.unavailable_on_error():
                await client.aclose(close_connection_pool=True)

    async def _run(self, command: Callable[[Redis], Awaitable[Any]], read: Callable[[Any], T]) -> T:
        """Send a command, and read its answer; if that can't be its answer, give up the connections."""
        with commands.unavailable_on_error():
            reply = await command(self._client())
        try:
            return read(reply)
        except commands.MixedUpAnswers:
            await self.reset()
            raise

    def _client(self) -> Redis:
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = clients.async_client(self._url)
        return client
