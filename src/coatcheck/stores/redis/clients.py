"""How the Redis stores connect when they are given a URL, and what is asked of a client that they are given."""

from __future__ import annotations

import inspect
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from coatcheck.errors import ConfigurationError

CONNECT_TIMEOUT_S: Final = 2.0
COMMAND_TIMEOUT_S: Final = 1.0
MAX_CONNECTIONS: Final = 64
"""Commands beyond that many at once wait for a connection, for COMMAND_TIMEOUT_S at most."""

_OPTIONS: Final[dict[str, Any]] = {
    "max_connections": MAX_CONNECTIONS,
    "timeout": COMMAND_TIMEOUT_S,
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "socket_timeout": COMMAND_TIMEOUT_S,
}


def async_client(url: str) -> redis.asyncio.Redis:
    """Make a client for the running event loop. Connects when it is first used."""
    # The client library must not retry by itself: it can't know whether a write has been applied already.
    pool = redis.asyncio.BlockingConnectionPool.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **_OPTIONS)
    return redis.asyncio.Redis.from_pool(pool)


def sync_client(url: str) -> redis.Redis:
    """Make a client for threads. Connects when it is first used."""
    pool = redis.BlockingConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), **_OPTIONS)
    return redis.Redis.from_pool(pool)


def check_url(url: str) -> None:
    """Raise ConfigurationError for a URL that no connection could be made of, or not one whose answers are bytes."""
    try:
        client = sync_client(url)
        client.connection_pool.make_connection()  # makes an object, and connects nothing
    except (ValueError, TypeError, AttributeError, redis.RedisError) as error:
        # The error's own text is not shown: it may have parts of the URL, and so of a password, in it.
        msg = f"store URL: the Redis client can't work with the options of this URL ({type(error).__name__})"
        raise ConfigurationError(msg) from None
    check_client(client, is_async=False)


def check_client(client: redis.Redis | redis.asyncio.Redis, *, is_async: bool) -> None:
    """Raise ConfigurationError for a client of the other kind, and for one whose answers would not be bytes."""
    if inspect.iscoroutinefunction(client.execute_command) is not is_async:
        expected = "RedisStore needs a redis.asyncio.Redis" if is_async else "SyncRedisStore needs a redis.Redis"
        msg = f"{expected}, got a {type(client).__module__}.{type(client).__qualname__}"
        raise ConfigurationError(msg)
    if client.get_encoder().decode_responses:
        msg = "The Redis client has decode_responses=True; records are bytes, so give a client without it"
        raise ConfigurationError(msg)
