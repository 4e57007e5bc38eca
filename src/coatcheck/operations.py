"""What `lifecycle` asks of a store: one small object for each method of the protocol.

`perform` works for both kinds of store: it gives the result, or with an `AsyncStore` something to await for it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from coatcheck.adopters import AnyOldRecords
from coatcheck.stores.protocol import AsyncStore, SyncStore

_LONGEST_PAUSE_S: Final = 0.05


class Operation(Protocol):
    """One call to a store."""

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        ...


@dataclass(slots=True)
class Load:
    """See `SyncStore.load`."""

    keys: tuple[str, ...]

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.load(*self.keys)


@dataclass(slots=True)
class Create:
    """See `SyncStore.create`."""

    key: str
    record: bytes = field(repr=False)
    ttl_ms: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.create(self.key, self.record, self.ttl_ms)


@dataclass(slots=True)
class Update:
    """See `SyncStore.update`."""

    key: str
    revision: bytes
    record: bytes = field(repr=False)
    ttl_ms: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.update(self.key, self.revision, self.record, self.ttl_ms)


@dataclass(slots=True)
class Touch:
    """See `SyncStore.touch`."""

    key: str
    ttl_ms: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.touch(self.key, self.ttl_ms)


@dataclass(slots=True)
class Delete:
    """See `SyncStore.delete`."""

    key: str

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.delete(self.key)


@dataclass(slots=True)
class TimeLeft:
    """See `SyncStore.time_left`."""

    keys: tuple[str, ...]

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.time_left(*self.keys)


@dataclass(slots=True)
class Scan:
    """See `SyncStore.scan`."""

    cursor: str
    limit: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.scan(self.cursor, self.limit)


@dataclass(slots=True)
class FetchOld:
    """Not for the store, but for the records of another system: see `OldRecords.get`."""

    records: AnyOldRecords
    key: str = field(repr=False)

    def perform(self, store: SyncStore | AsyncStore) -> Any:  # noqa: ARG002 (another one is asked)
        """Call the old records."""
        return self.records.get(self.key)


@dataclass(slots=True)
class DeleteOld:
    """See `OldRecords.delete`."""

    records: AnyOldRecords
    key: str = field(repr=False)

    def perform(self, store: SyncStore | AsyncStore) -> Any:  # noqa: ARG002 (another one is asked)
        """Call the old records."""
        return self.records.delete(self.key)


@dataclass(slots=True)
class Pause:
    """Not for the store: wait a moment, by chance a longer one after more conflicts, so that rivals part."""

    conflicts: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Ask nothing of the store. The drivers wait."""

    @property
    def seconds(self) -> float:
        """Give how long to wait: nothing at first, for mostly there is no second rival."""
        if self.conflicts == 0:
            return 0.0
        return random.uniform(0, min(0.001 * 2**self.conflicts, _LONGEST_PAUSE_S))  # noqa: S311 (not a secret)


@dataclass(slots=True)
class Reset:
    """See `SyncStore.reset`."""

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.reset()
