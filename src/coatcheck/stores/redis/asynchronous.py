"""The Redis store for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Unpack

from redis.asyncio import Redis, RedisCluster

from coatcheck.errors import StoreUnavailable
from coatcheck.loops import running_loop
from coatcheck.stores.protocol import EVERYTHING, WriteResult
from coatcheck.stores.redis.async_servers import AsyncServers, servers_of
from coatcheck.stores.redis.commands import KEYS_OF_A_REQUEST, Commands
from coatcheck.stores.redis.connections import Hosts, RedisOptions, check_client, connecting, limits_of
from coatcheck.stores.redis.failures import is_outage

_LISTEN_S: Final = 5.0
"""How long to hear nothing before the server is asked for a sign of life: what a firewall drops says no word."""

_RECONNECT_S: Final = 0.5


class RedisStore:
    """Keeps sessions in Redis or Valkey: on one server, by Sentinel, or in a Cluster.

    Commands that wait in the same turn of the event loop are sent together, all reads among them as one.

    Args:
        redis: a URL (see `coatcheck.stores.redis_address`), or a `redis.asyncio.Redis` or `RedisCluster` of the
            application's own, which is then the application's to close. valkey-py's clients work as well.
        options: what the URL leaves open; see `RedisOptions`. With a client of the application's own, only `prefix`,
            `connect_timeout` and `command_timeout`.

    Raises:
        ConfigurationError: an argument can't work.
    """

    def __init__(self, redis: str | Redis | RedisCluster, **options: Unpack[RedisOptions]) -> None:
        self._hosts: Hosts | None = None
        """Where the client begins, if it is ours."""
        self._make_client: Callable[[], Redis | RedisCluster]
        if isinstance(redis, str):
            made = connecting(redis, options)
            self._hosts = made.address.hosts
            self._make_client, self._limits = made.async_client, made.limits
        else:
            check_client(redis, options, is_async=True)
            self._make_client, self._limits = lambda: redis, limits_of(options, {})
        self._commands = Commands(self._limits.prefix)
        # Connections belong to the event loop that they were opened in, and a program may run several.
        self._servers: dict[asyncio.AbstractEventLoop, AsyncServers] = {}

    async def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`. In a Cluster, one round trip to each node that has one of the keys."""
        if not keys:
            return []
        commands = self._commands
        make = commands.load if len(keys) <= KEYS_OF_A_REQUEST else commands.load_many
        return await self._here().ask(make(keys))

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        return await self._here().ask(self._commands.create(key, record, ttl_ms))

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        return await self._here().ask(self._commands.update(key, revision, record, ttl_ms))

    async def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return await self._here().ask(self._commands.touch(key, ttl_ms))

    async def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return await self._here().ask(self._commands.delete(key))

    async def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return await self._here().ask_each([self._commands.time_left(key) for key in keys])

    async def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`. In a Cluster, what moves to another node meanwhile may be missed."""
        return await self._here().scan(self._commands, cursor, limit)

    async def announce(self, *keys: str) -> None:
        """See `SyncAnnouncer.announce`."""
        await self._here().ask_each([self._commands.announce(key) for key in keys])

    async def listen(self) -> AsyncIterator[str]:
        """See `AsyncFeed.listen`."""
        while True:
            try:
                async with self._here().news() as subscription:
                    async with asyncio.timeout(self._limits.connect_timeout_s):
                        await subscription.subscribe(self._commands.channel)
                    while True:
                        message = await subscription.get_message(timeout=_LISTEN_S)
                        if message is None:
                            # Nothing was said, or nobody is there any more: asked again, a server answers.
                            await subscription.subscribe(self._commands.channel)
                            message = await subscription.get_message(timeout=self._limits.connect_timeout_s)
                            if message is None:
                                break
                            if message["type"] == "subscribe":
                                continue
                        is_news = message["type"] == "message"
                        yield str(message["data"], "ascii", "replace") if is_news else EVERYTHING
            except Exception as error:
                if not isinstance(error, StoreUnavailable) and not is_outage(error):
                    raise
                await asyncio.sleep(_RECONNECT_S)  # then it begins to listen anew, which gives EVERYTHING

    async def reset(self) -> None:
        """See `SyncStore.reset`. Connections that are in use end with their command, whose answer is checked."""
        await self._here().reset()

    async def close(self) -> None:
        """See `SyncStore.close`. A client that was given stays open."""
        here = self._servers.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.close()

    def _here(self) -> AsyncServers:
        """Give the servers, as the running event loop is connected to them."""
        loop = running_loop()
        here = self._servers.get(loop)
        if here is None:
            self._forget_closed_loops()
            here = servers_of(self._make_client(), self._limits, self._hosts)
            self._servers[loop] = here
        return here

    def _forget_closed_loops(self) -> None:
        """Let go of connections that nobody can use any more. They hold on to their loop, so none goes by itself."""
        for loop in list(self._servers):
            if loop.is_closed():
                self._servers.pop(loop, None)
