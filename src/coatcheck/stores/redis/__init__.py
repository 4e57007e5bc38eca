"""Sessions in Redis or Valkey. `commands` says what is sent, `clients` how to connect; the stores send it."""

from coatcheck.errors import MissingExtra

try:
    import redis as _redis  # noqa: F401
except ImportError as error:
    feature = "The Redis store"
    raise MissingExtra(feature, "redis") from error

from coatcheck.stores.redis.asynchronous import RedisStore
from coatcheck.stores.redis.synchronous import SyncRedisStore

__all__ = ["RedisStore", "SyncRedisStore"]
