"""Reading and writing records for the rules: decode and check, compare and set, end. Free of I/O.

`lifecycle` and `users` say what is to happen; the steps that both are made of are here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Final, TypeAlias, TypeVar, cast

from coatcheck import record as records
from coatcheck import values
from coatcheck.config import SessionConfig
from coatcheck.errors import (
    ForeignRecord,
    RecordTooLarge,
    StoreUnavailable,
    TooManyConflicts,
    UndecodableRecord,
)
from coatcheck.operations import Create, Delete, Load, Operation, Reset, Update
from coatcheck.record import AnyRecord, Limits, Moved, Record, Values
from coatcheck.stores.protocol import Outcome

T = TypeVar("T")
RecordT = TypeVar("RecordT", bound=AnyRecord)

# object: each operation has a result of its own type, which a generator's type can't say.
Steps: TypeAlias = Generator[Operation, object, T]
"""A rule at work: yields operations, is sent their results, returns a T."""

logger: Final = logging.getLogger("coatcheck")

MAX_CONFLICTS: Final = 256
"""How often a write is tried again because another request was faster. Each time, one of the others has won."""

MOVED_MS: Final = 60_000
"""How long requests that were under way are told apart after a session was renewed: longer than requests take."""

_SOME_KEY: Final = "0" * 40

KeptChange: TypeAlias = Callable[[RecordT | None], RecordT | None]
"""Makes the new record of the one that is there; None to leave it as it is."""

Found: TypeAlias = tuple[bytes, AnyRecord | None]
"""A revision and the record that has it, or None."""

NOTHING_FOUND: Final[Found] = (b"", None)


class Keeper:
    """See the module's docstring. For one configuration."""

    __slots__ = ("_clock", "_max_keys", "_max_record_bytes", "_takes_foreign_values", "idle_ms", "lifetime_ms")

    def __init__(self, config: SessionConfig) -> None:
        self._clock = config.clock
        self.idle_ms = round(config.idle_timeout.total_seconds() * 1000)
        self.lifetime_ms = round(config.lifetime.total_seconds() * 1000)
        self._max_record_bytes = config.max_record_bytes
        self._max_keys = config.max_keys
        self._takes_foreign_values = config.store_takes_foreign_values

    # --- time -------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Give the time in milliseconds since the epoch."""
        clock = self._clock  # called as a method, it would be looked for in the class
        return int(clock() * 1000)

    def ends_at_ms(self, created_at_ms: int, limits: Limits | None) -> int:
        """Give when a session that began then ends, whatever its use."""
        ends_at_ms = created_at_ms + self.lifetime_ms
        if limits is None or limits.ends_at_ms is None:
            return ends_at_ms
        return min(ends_at_ms, limits.ends_at_ms)

    def idle_ms_of(self, limits: Limits | None) -> int:
        """Give the idle timeout of a session."""
        return self.idle_ms if limits is None or limits.idle_ms is None else limits.idle_ms

    def time_left_ms(self, created_at_ms: int, limits: Limits | None) -> int:
        """Give how long a session that began then may live, whatever its use."""
        return self.ends_at_ms(created_at_ms, limits) - self.now_ms()

    def ttl_ms(self, created_at_ms: int, limits: Limits | None) -> int:
        """Give the time to live for a session that began then: the smaller of its two clocks."""
        ttl_ms = min(self.idle_ms_of(limits), self.time_left_ms(created_at_ms, limits))
        if ttl_ms <= 0 and limits is not None and self.time_left_ms(created_at_ms, None) > 0:
            return 1  # its own end is over already: that has to be stored, or it would live on
        return ttl_ms

    # --- reading ----------------------------------------------------------------------------------------------

    def find(self, store_key: str, *beside: str) -> Steps[tuple[Found, list[bytes | None]]]:
        """Give what the store holds under a key, and in the same round trip the bytes under others.

        What can't be used is reported, and counts as nothing.
        """
        data, *others = yield from fetch(store_key, *beside)
        try:
            return self.current(store_key, data), others
        except (UndecodableRecord, ForeignRecord) as error:
            return (yield from self.find_again(store_key, *beside, because_of=error))

    def find_again(
        self, store_key: str, *beside: str, because_of: UndecodableRecord | ForeignRecord
    ) -> Steps[tuple[Found, list[bytes | None]]]:
        """Report what can't be used, and see whether it is the connection's fault."""
        report(store_key, because_of)
        if isinstance(because_of, UndecodableRecord):
            return NOTHING_FOUND, (yield from fetch(*beside)) if beside else []
        # Either the connection mixes up replies, and then it must not be used again, or somebody moved the record.
        # A second read, on a new connection, tells which it is.
        yield Reset()
        data, *others = yield from fetch(store_key, *beside)
        try:
            return self.current(store_key, data), others
        except (UndecodableRecord, ForeignRecord) as error:
            report(store_key, error)
            return NOTHING_FOUND, others

    def current(self, store_key: str, data: object) -> Found:
        """Decode what a store gave, and see through a session that is past its lifetime.

        The store may not know that: the setting may be shorter than it was. Raises UndecodableRecord, ForeignRecord.
        """
        if not isinstance(data, bytes):
            return NOTHING_FOUND
        found = revision, record = records.decode(store_key, data)
        if isinstance(record, Record) and self.ends_at_ms(record.created_at_ms, record.limits) <= self.now_ms():
            return revision, None
        return found

    # --- writing ----------------------------------------------------------------------------------------------

    def put(self, store_key: str, revision: bytes, record: Record, replacing: bytes = b"") -> Steps[Found]:
        """Store a session whose key only this request knows.

        `replacing` is the revision of what this request stored under the key before. Gives what is there afterwards:
        `record` itself if it was stored.
        """
        data = self._encoded(store_key, revision, record)
        ttl_ms = max(self.ttl_ms(record.created_at_ms, record.limits), 1)
        if replacing:
            stored = (yield Update(store_key, replacing, data, ttl_ms)) is Outcome.DONE
        else:
            stored = (yield Create(store_key, data, ttl_ms)) is True
        if stored:
            return revision, record
        return (yield from self._in_the_way(store_key, revision, record))

    def replace(
        self, store_key: str, revision: bytes, record: AnyRecord, ttl_ms: int, new_revision: bytes = b""
    ) -> Steps[Found]:
        """Replace the record that has this revision.

        Gives what the store holds afterwards: `record` itself if it was stored; else the newer record, or None when
        there is none.
        """
        if ttl_ms <= 0:
            return NOTHING_FOUND
        new_revision = new_revision or records.new_revision()
        data = self._encoded(store_key, new_revision, record)
        result = yield Update(store_key, revision, data, ttl_ms)
        if result is Outcome.DONE:
            return new_revision, record
        found = yield from self.answered(store_key, result)
        return (new_revision, record) if found[0] == new_revision else found  # sent twice, see _in_the_way

    def answered(self, store_key: str, data: object) -> Steps[Found]:
        """Decode what a write gave. What can't be used is reported, and counts as nothing.

        Raises StoreUnavailable, and gives up the connections, when one of them brought another session's record.
        """
        try:
            return self.current(store_key, data)
        except UndecodableRecord as error:
            report(store_key, error)
            return NOTHING_FOUND
        except ForeignRecord as error:
            yield Reset()
            msg = f"The store answered for another session than {store_key}; its connections were closed"
            raise StoreUnavailable(msg) from error

    def keep(self, store_key: str, change: KeptChange[RecordT], ttl_ms: Callable[[RecordT], int]) -> Steps[None]:
        """Change a small record of a user's, which others may be changing too, by compare-and-set."""
        found, _ = yield from self.find(store_key)
        for _ in range(MAX_CONFLICTS):
            changed = change(cast("RecordT | None", found[1]))
            if changed is None:
                return
            found = yield from self.swap(store_key, found, changed, ttl_ms(changed))
            if found[1] is changed:
                return
        raise too_many_conflicts(store_key)

    def swap(self, store_key: str, base: Found, record: AnyRecord, ttl_ms: int) -> Steps[Found]:
        """Put a record in the place of what was found there, which may be nothing. Gives what is there afterwards."""
        if base[1] is not None:
            return (yield from self.replace(store_key, base[0], record, ttl_ms))
        revision = records.new_revision()
        if (yield Create(store_key, self._encoded(store_key, revision, record), ttl_ms)) is True:
            return revision, record
        return (yield from self._in_the_way(store_key, revision, record))

    def _in_the_way(self, store_key: str, revision: bytes, record: AnyRecord) -> Steps[Found]:
        """See what kept a record from being stored under its key. Gives `record` itself if that is what is there.

        Two IDs are never the same by chance. But a client library that was unsure of a command's fate may have sent it
        twice, and then finds its own record in the way.
        """
        found, _ = yield from self.find(store_key)
        if found[0] == b"":  # damaged, and reported: a user's small records can be made anew
            yield Delete(store_key)
        return (revision, record) if found[0] == revision else found

    def end(self, store_key: str, *, is_pending: bool = False) -> Steps[Record | None]:
        """Delete a session; if it was renewed meanwhile, where it is now. Gives what it was.

        With `is_pending`, a session that is about to be stored under the key will not be.
        """
        for _ in range(MAX_CONFLICTS):
            (_, known), _ = yield from self.find(store_key)
            if isinstance(known, Moved) and known.successor:
                # The way to a session must be there until the session has ended, for whoever has to try again.
                ended = yield from self.end(known.successor, is_pending=is_pending)
                yield Delete(store_key)
                return ended
            deleted = yield Delete(store_key)
            try:
                _, record = self.current(store_key, deleted)
            except UndecodableRecord:
                return None  # whatever it was, it is gone
            except ForeignRecord as error:
                report(store_key, error)
                yield Reset()
                continue
            if isinstance(record, Record):
                return record
            if isinstance(record, Moved) and record.successor:
                store_key = record.successor
                continue
            if not is_pending:
                return None
            marker = Moved("", self.now_ms() + MOVED_MS, 0)
            data = self._encoded(store_key, records.new_revision(), marker)
            if (yield Create(store_key, data, MOVED_MS)) is True:
                return None
        raise too_many_conflicts(store_key)

    def check_fits(self, record: Record) -> None:
        """Raise RecordTooLarge or UnsupportedValue for a session that could not be stored."""
        self._encoded(_SOME_KEY, bytes(8), record)

    def _encoded(self, store_key: str, revision: bytes, record: AnyRecord) -> bytes:
        """Give a record's bytes."""
        data = records.encode(store_key, revision, record)
        if isinstance(record, Record):
            self._check_limits(record.values, len(data))
            if not self._takes_foreign_values:
                values.check_own(record.values)
        return data

    def _check_limits(self, encoded: Values, size: int) -> None:
        if len(encoded) > self._max_keys:
            msg = f"The session would have {len(encoded)} keys; max_keys allows {self._max_keys}. Nothing was stored"
            raise RecordTooLarge(msg)
        if size > self._max_record_bytes:
            largest = max(encoded, key=lambda key: len(bytes(encoded[key])), default="")
            msg = (
                f"The session would take {size} bytes; max_record_bytes allows {self._max_record_bytes}. "
                f"Nothing was stored. Its largest value is session[{largest!r:.80}]"
            )
            raise RecordTooLarge(msg)


def fetch(*store_keys: str) -> Steps[list[bytes | None]]:
    """Load records as they are, in one round trip."""
    loaded = yield Load(store_keys)
    return cast("list[bytes | None]", loaded)


def report(store_key: str, error: Exception) -> None:
    """Tell whoever runs the application of a record that can't be used."""
    logger.error("The record of %s can't be used and is left as it is; the client starts anew: %s", store_key, error)


def too_many_conflicts(store_key: str) -> TooManyConflicts:
    """Make the error for a write that others were always faster than."""
    return TooManyConflicts(f"Other requests changed {store_key} {MAX_CONFLICTS} times while one committed")
