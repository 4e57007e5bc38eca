"""Sessions in this process's memory: for tests, and for development with one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from heapq import heapify, heappop, heappush, nsmallest
from threading import Lock
from typing import Final

from coatcheck.errors import ConfigurationError, StoreFull
from coatcheck.record import REVISION
from coatcheck.stores.protocol import EVERYTHING, Outcome, WriteResult

MAX_RECORDS: Final = 100_000
"""The default bound. A record of a few hundred bytes takes about 1 kB in all."""

_SWEEP_STEP: Final = 100
"""How many expired entries one call removes at most, so that no call takes long."""


class _Table:
    """The records, and what both stores do with them. Every method is one atomic step."""

    def __init__(self, max_records: int, clock: Callable[[], float]) -> None:
        if max_records < 1:
            msg = f"max_records: expected a positive whole number, got {max_records}"
            raise ConfigurationError(msg)
        self._max_records = max_records
        self._clock = clock
        self._lock = Lock()
        self.listeners: set[Callable[[str], object]] = set()
        self._records: dict[str, tuple[float, bytes]] = {}
        # When to look at which key. An entry whose record was touched since is put back when its time comes.
        self._due: list[tuple[float, str]] = []

    def load(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._lock:
            now = self._swept_now()
            return [self._live(key, now) for key in keys]

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        with self._lock:
            now = self._swept_now()
            if self._live(key, now) is not None:
                return False
            if len(self._records) >= self._max_records and key not in self._records:
                msg = f"The memory store holds {len(self._records)} sessions, which is its max_records"
                raise StoreFull(msg)
            expires_at = now + ttl_ms / 1000
            self._records[key] = (expires_at, record)
            self._look_at(key, expires_at)
            return True

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        with self._lock:
            now = self._swept_now()
            current = self._live(key, now)
            if current is None:
                return Outcome.GONE
            if current[REVISION] != revision:
                return current
            self._set(key, now + ttl_ms / 1000, record)
            return Outcome.DONE

    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        with self._lock:
            now = self._swept_now()
            current = self._live(key, now)
            if current is not None:
                self._set(key, now + ttl_ms / 1000, current)
            return current

    def delete(self, key: str) -> bytes | None:
        with self._lock:
            current = self._live(key, self._swept_now())
            self._records.pop(key, None)
            return current

    def time_left(self, keys: Sequence[str]) -> list[int | None]:
        with self._lock:
            now = self._swept_now()
            return [
                None if self._live(key, now) is None else max(round((self._records[key][0] - now) * 1000), 1)
                for key in keys
            ]

    def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        with self._lock:
            now = self._swept_now()
            keys = nsmallest(limit, (key for key in self._records if key > cursor and self._live(key, now) is not None))
            return keys, keys[-1] if len(keys) == limit else ""

    def announce(self, keys: Sequence[str]) -> None:
        with self._lock:
            listeners = list(self.listeners)
        for listener in listeners:
            for key in keys:
                listener(key)

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)

    def _live(self, key: str, now: float) -> bytes | None:
        entry = self._records.get(key)
        return None if entry is None or entry[0] <= now else entry[1]

    def _set(self, key: str, expires_at: float, record: bytes) -> None:
        """Change a live record. One whose time gets shorter must be looked at earlier than planned."""
        if expires_at < self._records[key][0]:
            self._look_at(key, expires_at)
        self._records[key] = (expires_at, record)

    def _look_at(self, key: str, when: float) -> None:
        heappush(self._due, (when, key))
        if len(self._due) > 2 * len(self._records) + _SWEEP_STEP:  # mostly of records that are deleted already
            self._due = [(expires_at, key) for key, (expires_at, _) in self._records.items()]
            heapify(self._due)

    def _swept_now(self) -> float:
        """Give the time, after removing what has expired by then (at most one step of it)."""
        now = self._clock()
        steps = _SWEEP_STEP
        while self._due and self._due[0][0] <= now and steps:
            steps -= 1
            _, key = heappop(self._due)
            entry = self._records.get(key)
            if entry is None:
                continue
            if entry[0] <= now:
                del self._records[key]
            else:
                heappush(self._due, (entry[0], key))
        return now


class _Store:
    """What the stores for threads and for asyncio have in common."""

    def __init__(
        self,
        *,
        max_records: int = MAX_RECORDS,
        clock: Callable[[], float] = time.time,
        share_with: MemoryStore | SyncMemoryStore | None = None,
    ) -> None:
        self._table: _Table = _Table(max_records, clock) if share_with is None else share_with._table

    def __len__(self) -> int:
        """Give the number of records held."""
        return len(self._table)


class SyncMemoryStore(_Store):
    """Keeps records in memory, for threads. Lost with the process, and not shared with another.

    Args:
        max_records: the most sessions to hold. A new one beyond that is refused (`StoreFull`), because dropping
            another in its place would log somebody out.
        clock: gives the time in seconds. For tests.
        share_with: another memory store, async or sync, whose records this one serves too.
    """

    def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        return self._table.load(keys)

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`. Raises StoreFull at `max_records`."""
        return self._table.create(key, record, ttl_ms)

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        return self._table.update(key, revision, record, ttl_ms)

    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return self._table.touch(key, ttl_ms)

    def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return self._table.delete(key)

    def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return self._table.time_left(keys)

    def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        return self._table.scan(cursor, limit)

    def announce(self, *keys: str) -> None:
        """See `SyncAnnouncer.announce`."""
        self._table.announce(keys)

    def reset(self) -> None:
        """Do nothing: there are no connections."""

    def close(self) -> None:
        """Do nothing: the records stay until the store itself goes."""


class MemoryStore(_Store):
    """Keeps records in memory, for asyncio. See `SyncMemoryStore` for the arguments."""

    async def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        return self._table.load(keys)

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`. Raises StoreFull at `max_records`."""
        return self._table.create(key, record, ttl_ms)

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        return self._table.update(key, revision, record, ttl_ms)

    async def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return self._table.touch(key, ttl_ms)

    async def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return self._table.delete(key)

    async def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return self._table.time_left(keys)

    async def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        return self._table.scan(cursor, limit)

    async def announce(self, *keys: str) -> None:
        """See `SyncAnnouncer.announce`."""
        self._table.announce(keys)

    async def listen(self) -> AsyncIterator[str]:
        """See `AsyncFeed.listen`."""
        announced: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def hear(key: str) -> None:
            try:
                loop.call_soon_threadsafe(announced.put_nowait, key)  # whoever announces may be another thread
            except RuntimeError:
                self._table.listeners.discard(hear)  # that loop is closed, and nobody in it listens any more

        self._table.listeners.add(hear)
        try:
            yield EVERYTHING
            while True:
                yield await announced.get()
        finally:
            self._table.listeners.discard(hear)

    async def reset(self) -> None:
        """Do nothing: there are no connections."""

    async def close(self) -> None:
        """Do nothing: the records stay until the store itself goes."""
