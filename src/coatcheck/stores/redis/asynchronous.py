"""The Redis store for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from operator import methodcaller
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from coatcheck.stores.protocol import EVERYTHING, WriteResult
from coatcheck.stores.redis import clients, commands

T = TypeVar("T")

_LISTEN_S: Final = 30.0
_RECONNECT_S: Final = 0.5


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
        self._clients: dict[asyncio.AbstractEventLoop, Redis] = {}
        if self._given is None:
            clients.check_url(self._url)
        else:
            clients.check_client(self._given, is_async=True)

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

    async def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""

        async def ask(client: Redis) -> Any:
            async with client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.pttl(self._prefix + key)
                return await pipeline.execute()

        return await self._run(ask, commands.times_left)

    async def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        return await self._run(
            lambda client: client.scan(int(cursor or 0), match=commands.pattern(self._prefix), count=limit),
            commands.scanned(self._prefix),
        )

    async def announce(self, *keys: str) -> None:
        """See `SyncAnnouncer.announce`."""
        for key in keys:
            await self._run(methodcaller("publish", self._prefix + commands.CHANNEL, key), commands.nothing)

    async def listen(self) -> AsyncIterator[str]:
        """See `AsyncFeed.listen`."""
        while True:
            try:
                async with self._client().pubsub(ignore_subscribe_messages=False) as subscription:
                    await subscription.subscribe(self._prefix + commands.CHANNEL)
                    while True:
                        message = await subscription.get_message(timeout=_LISTEN_S)
                        if message is not None:
                            is_news = message["type"] == "message"
                            yield str(message["data"], "ascii", "replace") if is_news else EVERYTHING
            except (RedisError, OSError):
                await asyncio.sleep(_RECONNECT_S)  # then it begins to listen anew, which gives EVERYTHING

    async def reset(self) -> None:
        """See `SyncStore.reset`. Connections that are in use end with their command, whose answer is checked."""
        client = self._client()
        with commands.unavailable_on_error():
            await client.connection_pool.disconnect(inuse_connections=client.connection is not None)

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
            self._forget_closed_loops()
            client = self._clients[loop] = clients.async_client(self._url)
        return client

    def _forget_closed_loops(self) -> None:
        """Let go of clients that nobody can use any more. They hold on to their loop, so none goes by itself."""
        for loop in list(self._clients):
            if loop.is_closed():
                self._clients.pop(loop, None)
