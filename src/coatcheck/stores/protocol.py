"""What a store is: bytes under a key for a time. It knows nothing of sessions.

The one thing a store knows of a record is the place of its revision (`coatcheck.record.REVISION`), which it compares.
`coatcheck.testing.StoreContract` tests a store against every sentence of these protocols.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import Enum
from typing import Final, Protocol, TypeAlias, runtime_checkable

from coatcheck.config import SessionConfig
from coatcheck.token import Tokens


class Outcome(Enum):
    """How an update ended, unless a newer record was in its way."""

    DONE = "done"
    GONE = "gone"
    """Nothing is stored under the key (any more). Nothing was written."""


EVERYTHING: Final = ""
"""What a feed gives when it may have missed something, so that whoever listens has to look for themselves."""

WriteResult: TypeAlias = Outcome | bytes
"""`Outcome`, or the newer record that was found, in which case nothing was written."""


@runtime_checkable
class SyncStore(Protocol):
    """A store for threads. Every method may be called from several threads at once.

    Keys are ASCII strings without control characters, times to live are in milliseconds and at least 1.
    Every method raises `StoreUnavailable` when the store can't be reached or can't do its work now.
    """

    def load(self, *keys: str) -> list[bytes | None]:
        """Give the record of each key, or None in its place when there is none or its time is over.

        One round trip, whatever the number of keys.
        """
        ...

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """Store a record where none is. False when one is there, which is left as it is."""
        ...

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """Replace the record that has this revision, and set its time to live, in one atomic step.

        A record that is missing is not created.
        """
        ...

    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """Set the time to live and give the record, in one atomic step. None when there is no record."""
        ...

    def delete(self, key: str) -> bytes | None:
        """Delete the record and give it, in one atomic step. None when there is none."""
        ...

    def time_left(self, *keys: str) -> list[int | None]:
        """Give how long each record still lives, in milliseconds, or None in its place when there is none."""
        ...

    def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """Give some of the keys, about `limit`, and the cursor for the next call; "" begins, and says the end.

        For administration, not for requests. A key that is there all the while is given at least once.
        """
        ...

    def reset(self) -> None:
        """Give up every open connection, because one brought a wrong answer. The next call opens new ones."""
        ...

    def close(self) -> None:
        """Free what the store holds. It may be used again afterwards, and then opens anew."""
        ...


@runtime_checkable
class AsyncStore(Protocol):
    """A store for asyncio: the same as `SyncStore`, awaited."""

    async def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        ...

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        ...

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        ...

    async def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        ...

    async def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        ...

    async def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        ...

    async def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        ...

    async def reset(self) -> None:
        """See `SyncStore.reset`."""
        ...

    async def close(self) -> None:
        """See `SyncStore.close`."""
        ...


# A store that shares its sessions with another system has that system's cookies too.


@runtime_checkable
class HasTokens(Protocol):
    """A store, of either kind, with a form of token of its own. `Sessions` then takes no `secret_keys`."""

    @property
    def takes_foreign_values(self) -> bool:
        """Whether it gives its sessions to another system, and so keeps values of that system's types."""
        ...

    def tokens(self, config: SessionConfig) -> Tokens:
        """Give what makes and reads the tokens. Raises ConfigurationError for settings that don't go with them."""
        ...


# A store may also carry word from one process to another of what has happened to a key, so that whoever waits for it
# hears at once. Without it, whoever waits asks again and again.


@runtime_checkable
class SyncAnnouncer(Protocol):
    """A store that carries word, for threads."""

    def announce(self, *keys: str) -> None:
        """Tell everybody who listens that something happened to these keys."""
        ...


@runtime_checkable
class AsyncFeed(Protocol):
    """A store that carries word, for asyncio."""

    async def announce(self, *keys: str) -> None:
        """See `SyncAnnouncer.announce`."""
        ...

    def listen(self) -> AsyncIterator[str]:
        """Give every key that is announced from now on, or `EVERYTHING`.

        Gives `EVERYTHING` first, when it has begun to listen. Goes on through an outage, and gives `EVERYTHING` again
        after it. One connection, however many wait.
        """
        ...
