"""Where old systems keep their sessions: in Redis, by URL or by a client, or in an object of the application's."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from coatcheck.adopters import AnyOldRecords, AsyncOldRecords, OldRecords
from coatcheck.errors import ConfigurationError

if TYPE_CHECKING:
    import redis
    import redis.asyncio

Store: TypeAlias = "str | redis.Redis | redis.asyncio.Redis | OldRecords | AsyncOldRecords"
"""The URL of a Redis or Valkey, a client of redis-py, or an object with the methods of `OldRecords`."""


def old_records(store: Store, *, is_async: bool) -> AnyOldRecords:
    """Make ready what an adopter was given.

    Raises:
        ConfigurationError: it is for threads where asyncio is used, or the other way round, or no such thing at all.
        MissingExtra: it is a URL, and redis-py is not installed.
    """
    if isinstance(store, str) or hasattr(store, "execute_command"):
        from coatcheck.interop.old_redis import AsyncOldRedis, OldRedis

        return AsyncOldRedis(cast("redis.asyncio.Redis", store)) if is_async else OldRedis(cast("redis.Redis", store))
    if not all(hasattr(store, name) for name in ("get", "delete", "close")):
        msg = f"store: expected a Redis URL, a client of redis-py or an OldRecords object, got a {type(store).__name__}"
        raise ConfigurationError(msg)
    if inspect.iscoroutinefunction(store.get) is not is_async:
        expected = "Sessions needs AsyncOldRecords" if is_async else "SyncSessions needs OldRecords, without await"
        msg = f"store: {expected}, got a {type(store).__name__}"
        raise ConfigurationError(msg)
    return cast("Any", store)  # type: ignore[no-any-return]
