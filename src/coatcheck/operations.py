"""What `lifecycle` asks of a store: one small object for each method of the protocol.

`perform` works for both kinds of store: it gives the result, or with an `AsyncStore` something to await for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from coatcheck.stores.protocol import AsyncStore, SyncStore


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
    record: bytes
    ttl_ms: int

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.create(self.key, self.record, self.ttl_ms)


@dataclass(slots=True)
class Update:
    """See `SyncStore.update`."""

    key: str
    revision: bytes
    record: bytes
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
class Reset:
    """See `SyncStore.reset`."""

    def perform(self, store: SyncStore | AsyncStore) -> Any:
        """Call the store."""
        return store.reset()
