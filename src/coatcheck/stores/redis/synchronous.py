"""The Redis store for threads."""

from __future__ import annotations

from redis import Redis
from redis.exceptions import NoScriptError

from coatcheck.stores.protocol import WriteResult
from coatcheck.stores.redis import clients, commands


class SyncRedisStore:
    """Keeps sessions in Redis or Valkey. See `RedisStore` for the arguments; a client is a `redis.Redis`."""

    def __init__(self, redis: str | Redis, *, prefix: str = commands.DEFAULT_PREFIX) -> None:
        self._prefix = commands.check_prefix(prefix)
        self._is_given = not isinstance(redis, str)
        self._client = clients.sync_client(redis) if isinstance(redis, str) else redis
        clients.check_client(self._client)

    def load(self, key: str) -> bytes | None:
        """See `SyncStore.load`."""
        with commands.unavailable_on_error():
            return commands.record(self._client.get(self._prefix + key))

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        with commands.unavailable_on_error():
            return bool(self._client.set(self._prefix + key, record, px=ttl_ms, nx=True))

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        arguments = (1, self._prefix + key, revision, record, ttl_ms)
        with commands.unavailable_on_error():
            try:
                reply = self._client.evalsha(commands.UPDATE.sha, *arguments)
            except NoScriptError:
                reply = self._client.eval(commands.UPDATE.source, *arguments)
        return commands.write_result(reply)

    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        with commands.unavailable_on_error():
            return commands.record(self._client.getex(self._prefix + key, px=ttl_ms))

    def delete(self, key: str) -> bool:
        """See `SyncStore.delete`."""
        with commands.unavailable_on_error():
            return bool(self._client.delete(self._prefix + key))

    def reset(self) -> None:
        """See `SyncStore.reset`. Commands that are under way in other threads fail."""
        with commands.unavailable_on_error():
            self._client.connection_pool.disconnect(inuse_connections=True)

    def close(self) -> None:
        """See `SyncStore.close`. A client that was given stays open."""
        if not self._is_given:
            with commands.unavailable_on_error():
                self._client.connection_pool.disconnect(inuse_connections=True)
