"""The Redis store for threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Unpack

from redis import Redis, RedisCluster

from coatcheck.stores.protocol import WriteResult
from coatcheck.stores.redis.commands import KEYS_OF_A_REQUEST, Commands
from coatcheck.stores.redis.connections import Hosts, RedisOptions, check_client, connecting, limits_of
from coatcheck.stores.redis.failures import explained, is_outage
from coatcheck.stores.redis.sync_servers import SyncServers, servers_of


class SyncRedisStore:
    """Keeps sessions in Redis or Valkey. See `RedisStore` for the arguments; a client is a `redis.Redis`.

    Such a client connects by itself, in its own time: it has no `connect_timeout` here.
    """

    def __init__(self, redis: str | Redis | RedisCluster, **options: Unpack[RedisOptions]) -> None:
        self._servers: SyncServers | None = None
        self._hosts: Hosts | None = None
        """Where the client begins, if it is ours."""
        self._make_client: Callable[[], Redis | RedisCluster]
        if isinstance(redis, str):
            made = connecting(redis, options)
            self._hosts = made.address.hosts
            self._make_client, self._limits = made.sync_client, made.limits
        else:
            check_client(redis, options, is_async=False)
            self._make_client, self._limits = lambda: redis, limits_of(options, {})
        self._commands = Commands(self._limits.prefix)
        self._guard, self._process = threading.Lock(), os.getpid()
        self._failure: tuple[Exception | None, float] = (None, 0.0)
        """Why connecting failed, and when."""

    def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`. In a Cluster, one round trip to each node that has one of the keys."""
        if not keys:
            return []
        commands = self._commands
        make = commands.load if len(keys) <= KEYS_OF_A_REQUEST else commands.load_many
        return self._here().ask(make(keys))

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        return self._here().ask(self._commands.create(key, record, ttl_ms))

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        return self._here().ask(self._commands.update(key, revision, record, ttl_ms))

    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return self._here().ask(self._commands.touch(key, ttl_ms))

    def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return self._here().ask(self._commands.delete(key))

    def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return self._here().ask_each([self._commands.time_left(key) for key in keys])

    def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`. In a Cluster, what moves to another node meanwhile may be missed."""
        return self._here().scan(self._commands, cursor, limit)

    def announce(self, *keys: str) -> None:
        """See `SyncAnnouncer.announce`."""
        self._here().ask_each([self._commands.announce(key) for key in keys])

    def reset(self) -> None:
        """See `SyncStore.reset`. Connections that are in use end with their command, whose answer is checked."""
        self._here().reset()

    def close(self) -> None:
        """See `SyncStore.close`. A client that was given stays open."""
        if self._hosts is None:
            return
        with self._guard:
            servers, self._servers = self._servers, None
        if servers is not None:
            servers.close()

    def _here(self) -> SyncServers:
        """Give the servers. A client for a Cluster connects when it is made, so none is made before it is needed."""
        return self._servers or self._connected()

    def _connected(self) -> SyncServers:
        """Connect, or share what came of it with whoever does so already: one after the other would take too long."""
        since = time.monotonic()
        if self._process != os.getpid():  # a thread may hold it that this process, a child, has not
            self._guard, self._process = threading.Lock(), os.getpid()
        with self._guard:
            if self._servers is not None:
                return self._servers
            failure, failed_at = self._failure
            if failure is not None and failed_at > since:
                raise explained(failure) from failure
            try:
                self._servers = servers_of(self._make_client(), self._limits, self._hosts)
            except Exception as error:
                if not is_outage(error):
                    raise
                self._failure = error, time.monotonic()
                raise explained(error) from error
            return self._servers
