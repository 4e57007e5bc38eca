"""How the Redis stores connect when they are given a URL, and what is asked of a client that they are given."""

from __future__ import annotations

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


def check_client(client: redis.Redis | redis.asyncio.Redis) -> None:
    """Raise ConfigurationError for a client whose answers would not be bytes."""
    if client.get_encoder().decode_responses:
        msg = "The Redis client has decode_responses=True; records are bytes, so give a client without it"
        raise ConfigurationError(msg)
