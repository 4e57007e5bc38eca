"""The Redis store for threads."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import NoScriptError

from coatcheck.stores.protocol import WriteResult
from coatcheck.stores.redis import clients, commands

T = TypeVar("T")


class SyncRedisStore:
    """Keeps sessions in Redis or Valkey. See `RedisStore` for the arguments; a client is a `redis.Redis`."""

    def __init__(self, redis: str | Redis, *, prefix: str = commands.DEFAULT_PREFIX) -> None:
        self._prefix = commands.check_prefix(prefix)
        self._is_given = not isinstance(redis, str)
        if isinstance(redis, str):
            clients.check_url(redis)
        else:
            clients.check_client(redis, is_async=False)
        self._client = clients.sync_client(redis) if isinstance(redis, str) else redis

    def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        names = [self._prefix + key for key in keys]
        return self._run(lambda client: client.mget(names), commands.records(len(keys)))

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        return self._run(lambda client: client.set(self._prefix + key, record, px=ttl_ms, nx=True), commands.was_set)

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        arguments = (1, self._prefix + key, revision, record, ttl_ms)

        def run_script(client: Redis) -> Any:
            try:
                return client.evalsha(commands.UPDATE.sha, *arguments)
            except NoScriptError:
                return client.eval(commands.UPDATE.source, *arguments)

        return self._run(run_script, commands.write_result)

    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return self._run(lambda client: client.getex(self._prefix + key, px=ttl_ms), commands.record)

    def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return self._run(lambda client: client.getdel(self._prefix + key), commands.record)

    def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""

        def ask(client: Redis) -> Any:
            with client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.pttl(self._prefix + key)
                return pipeline.execute()

        return self._run(ask, commands.times_left)

    def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        return self._run(
            lambda client: client.scan(int(cursor or 0), match=commands.pattern(self._prefix), count=limit),
            commands.scanned(self._prefix),
        )

    def announce(self, *keys: str) -> None:
        """See `SyncAnnouncer.announce`."""
        for key in keys:
            self._run(methodcaller("publish", self._prefix + commands.CHANNEL, key), commands.nothing)

    def reset(self) -> None:
        """See `SyncStore.reset`. Connections that are in use end with their command, whose answer is checked."""
        with commands.unavailable_on_error():
            self._client.connection_pool.disconnect(inuse_connections=self._client.connection is not None)

    def close(self) -> None:
        """See `SyncStore.close`. A client that was given stays open."""
        if not self._is_given:
            with commands.unavailable_on_error():
                self._client.connection_pool.disconnect(inuse_connections=True)

    def _run(self, command: Callable[[Redis], Any], read: Callable[[Any], T]) -> T:
        """Send a command, and read its answer; if that can't be its answer, give up the connections."""
        with commands.unavailable_on_error():
            reply = command(self._client)
        try:
            return read(reply)
        except commands.MixedUpAnswers:
            self.reset()
            raise
