"""Which kind of store a URL names, and who examines it."""

from __future__ import annotations

from typing import Final

from coatcheck.doctor.findings import Finding, Report, Status
from coatcheck.errors import ConfigurationError
from coatcheck.stores import url as urls

DEFAULT_SAMPLE: Final = 1_000


def examine(url: str, *, prefix: str | None = None, sample: int = DEFAULT_SAMPLE) -> Report:
    """Examine the store of a URL, without changing it.

    Args:
        url: the store's URL, as for `Sessions`.
        prefix: what the keys of sessions begin with, on Redis; None for what the store's default is.
        sample: how many keys to look at, on Redis.

    Returns:
        What was found. A store that can't be reached is a finding, too.

    Raises:
        ConfigurationError: the URL is not one of a store, or `prefix` is given for a store that has none.
        MissingExtra: the store's packages are not installed.
    """
    scheme = urls._scheme(url)
    if scheme not in ("memory", "sqlite"):
        import coatcheck.stores.redis  # noqa: F401 (first, for it says which extra is missing)
        from coatcheck.doctor.redis import examine_redis

        return examine_redis(url, prefix, sample)
    if prefix is not None:
        msg = f"prefix: only keys in Redis and Valkey have one, and this is a {scheme} store"
        raise ConfigurationError(msg)
    if scheme == "sqlite":
        from coatcheck.doctor.sqlite import examine_sqlite

        return examine_sqlite(urls._sqlite_path(url))
    return Report("memory", (_MEMORY,))


_MEMORY: Final = Finding(
    "processes",
    Status.WARNING,
    "sessions are kept in the memory of one process",
    "They are gone when it ends, and no other process sees them: with two workers, users are logged in at one and not "
    "at the other. Right for tests and development; else use sqlite:///file on one host, or redis://host on several.",
)
