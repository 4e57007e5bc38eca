"""Stores by URL. Each kind is imported when it is asked for, so that its dependencies are needed only then."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from coatcheck.errors import ConfigurationError
from coatcheck.stores.protocol import AsyncStore, SyncStore
from coatcheck.stores.redis_address import SCHEMES, split

_EXPECTED: Final = (
    "expected redis://[user:password@]host[:port][/database], rediss://… (TLS), valkey://…, unix:///path/to/socket, "
    "redis+sentinel://host,host/service, redis+cluster://host,host, sqlite:///relative/file, sqlite:////absolute/file "
    "or memory://"
)

_BEGINNING: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
"""RFC 3986, section 3.1."""


def store_from_url(url: str, clock: Callable[[], float]) -> AsyncStore:
    """Make an async store. Raises ConfigurationError for a URL that is not one of ours."""
    scheme = _scheme(url)
    if scheme == "memory":
        from coatcheck.stores.memory import MemoryStore

        return MemoryStore(clock=clock)
    if scheme == "sqlite":
        from coatcheck.stores.sqlite import SQLiteStore

        return SQLiteStore(_sqlite_path(url), clock=clock)
    from coatcheck.stores.redis import RedisStore

    return RedisStore(url)


def sync_store_from_url(url: str, clock: Callable[[], float]) -> SyncStore:
    """Make a sync store. Raises ConfigurationError for a URL that is not one of ours."""
    scheme = _scheme(url)
    if scheme == "memory":
        from coatcheck.stores.memory import SyncMemoryStore

        return SyncMemoryStore(clock=clock)
    if scheme == "sqlite":
        from coatcheck.stores.sqlite import SyncSQLiteStore

        return SyncSQLiteStore(_sqlite_path(url), clock=clock)
    from coatcheck.stores.redis import SyncRedisStore

    return SyncRedisStore(url)


def _scheme(url: str) -> str:
    if not _BEGINNING.match(url):
        # Not shown: what was meant as a URL may hold a password.
        msg = f"store URL: {_EXPECTED}; got a text of {len(url)} characters that does not begin like that"
        raise ConfigurationError(msg)
    scheme = url.partition("://")[0].lower()
    if scheme not in ("memory", "sqlite", *SCHEMES):
        msg = f"store URL: {_EXPECTED}; got the scheme {scheme!r:.40}"
        raise ConfigurationError(msg)
    if scheme == "memory" and url.lower() not in ("memory://", "memory:///"):
        msg = "store URL: memory:// takes nothing after it"
        raise ConfigurationError(msg)
    return scheme


def _sqlite_path(url: str) -> str:
    parts = split(url)
    path = "" if parts is None else unquote(parts.path[1:])
    if parts is None or parts.netloc or not path or parts.query or parts.fragment or "\x00" in path:
        # Not shown: there may be a password for another kind of SQLite, or of another kind of store.
        msg = (
            "store URL: expected sqlite:///relative/file or sqlite:////absolute/file, without a host before the path "
            "or settings after it; in names of files, percent-encode ? (%3F) and # (%23)"
        )
        raise ConfigurationError(msg)
    if path == ":memory:":
        msg = "store URL: an SQLite database in memory would be another one for each connection; use memory://"
        raise ConfigurationError(msg)
    return path
