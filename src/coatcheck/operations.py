"""What `lifecycle` asks of a store: one small object for each method of the protocol.

`perform` works for both kinds of store: it gives the result, or with an `AsyncStore` something to await for it.
"""

from __future__ import annotations

import random
from typing import Any, Final, Protocol

from msgspec import Struct

from coatcheck.adopters import AnyOldRecords
from coatcheck.stores.protocol import AsyncStore, SyncStore

_LONGEST_PAUSE_S: Final = 0.05


class Operation(Protocol):
    """One call to a store."""

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        ...


class _Step(Struct):
    """Shows its kind, and not what it carries: records, and the names of old sessions, are secrets."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Load(_Step):
    """See `SyncStore.load`."""

    keys: tuple[str, ...]

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.load(*self.keys)


class Create(_Step):
    """See `SyncStore.create`."""

    key: str
    record: bytes
    ttl_ms: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.create(self.key, self.record, self.ttl_ms)


class Update(_Step):
    """See `SyncStore.update`."""

    key: str
    revision: bytes
    record: bytes
    ttl_ms: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.update(self.key, self.revision, self.record, self.ttl_ms)


class Touch(_Step):
    """See `SyncStore.touch`."""

    key: str
    ttl_ms: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.touch(self.key, self.ttl_ms)


class Delete(_Step):
    """See `SyncStore.delete`."""

    key: str

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.delete(self.key)


class TimeLeft(_Step):
    """See `SyncStore.time_left`."""

    keys: tuple[str, ...]

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.time_left(*self.keys)


class Scan(_Step):
    """See `SyncStore.scan`."""

    cursor: str
    limit: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.scan(self.cursor, self.limit)


class FetchOld(_Step):
    """Not for the store, but for the records of another system: see `OldRecords.get`."""

    records: AnyOldRecords
    key: str

    def perform(self, store: SyncStore | AsyncStore) -> Any:  # noqa: ARG002 (another one is asked)
        """Call the old records."""
        return self.records.get(self.key)


class DeleteOld(_Step):
    """See `OldRecords.delete`."""

    records: AnyOldRecords
    key: str

    def perform(self, store: SyncStore | AsyncStore) -> Any:  # noqa: ARG002 (another one is asked)
        """Call the old records."""
        return self.records.delete(self.key)


class Pause(_Step):
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


class Reset(_Step):
    """See `SyncStore.reset`."""

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.reset()
