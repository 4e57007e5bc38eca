"""What a request asked of the store, for the pages to tell: measured, not claimed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextvars import ContextVar
from time import perf_counter
from typing import Final, NamedTuple, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from coatcheck.stores.protocol import AsyncFeed, AsyncStore, WriteResult

T = TypeVar("T")


class StoreCall(NamedTuple):
    """One call of the store."""

    operation: str
    microseconds: int
    key_count: int


_calls: Final[ContextVar[list[StoreCall] | None]] = ContextVar("coatcheck_demo_calls", default=None)


class ObservedStore:
    """Passes everything on to a store, and notes what the request at hand asked of it."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store

    async def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        return await _noted("load", self._store.load(*keys), len(keys))

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        return await _noted("create", self._store.create(key, record, ttl_ms))

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        return await _noted("update", self._store.update(key, revision, record, ttl_ms))

    async def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return await _noted("touch", self._store.touch(key, ttl_ms))

    async def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return await _noted("delete", self._store.delete(key))

    async def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return await _noted("time_left", self._store.time_left(*keys), len(keys))

    async def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        return await _noted("scan", self._store.scan(cursor, limit))

    async def reset(self) -> None:
        """See `SyncStore.reset`."""
        await self._store.reset()

    async def close(self) -> None:
        """See `SyncStore.close`."""
        await self._store.close()


class ObservedFeed(ObservedStore):
    """The same, for a store that also carries word of what happened."""

    def __init__(self, store: AsyncStore, feed: AsyncFeed) -> None:
        super().__init__(store)
        self._feed = feed

    async def announce(self, *keys: str) -> None:
        """See `SyncAnnouncer.announce`."""
        await _noted("announce", self._feed.announce(*keys), len(keys))

    def listen(self) -> AsyncIterator[str]:
        """See `AsyncFeed.listen`."""
        return self._feed.listen()


def observed(store: AsyncStore) -> ObservedStore:
    """Observe a store, without hiding what it can do: only one that carries word may look like one."""
    return ObservedFeed(store, store) if isinstance(store, AsyncFeed) else ObservedStore(store)


class ObservingMiddleware:
    """Starts a new page in the notebook for every request. Goes around the session middleware.

    A WebSocket gets none: it shows nothing, and stays open for longer than anything should be written down.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection."""
        _calls.set([] if scope["type"] == "http" else None)
        await self._app(scope, receive, send)


def store_calls() -> list[StoreCall]:
    """Give what the request at hand has asked of the store so far."""
    return list(_calls.get() or ())


async def _noted(operation: str, call: Awaitable[T], key_count: int = 1) -> T:
    started = perf_counter()
    try:
        return await call
    finally:
        calls = _calls.get()
        if calls is not None:
            calls.append(StoreCall(operation, round((perf_counter() - started) * 1_000_000), key_count))
