"""What every store must do, as tests: the one suite that all stores of Coatcheck pass, async and sync.

Derive a test class from `StoreContract` and run it with pytest:

    class TestMyStore(StoreContract):
        def make_store(self):
            return MyStore(clock=self.clock)

        def advance(self, by):
            self.clock.advance(by)
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from coatcheck.operations import Create, Delete, Load, Operation, Reset, Scan, TimeLeft, Touch, Update
from coatcheck.stores.protocol import AsyncStore, Outcome, SyncStore

_HOUR_MS = 3_600_000
_KEY = "00112233445566778899aabbccddeeff00112233"
_OTHER_KEY = "00112233445566778899aabbccddeeff00112234"
_ONE_SECOND = timedelta(seconds=1)


def _record(revision: bytes, content: bytes = b"content") -> bytes:
    """Make what looks like a record to a store: a byte, the revision, and anything."""
    return b"\x01" + revision + content


_FIRST = _record(b"revisn-1")
_SECOND = _record(b"revisn-2", bytes(range(256)))
_THIRD = _record(b"\x00\xff\r\n\x00 '\"", b"")


class StoreContract:
    """Tests for one kind of store. See the module's docstring."""

    def make_store(self) -> SyncStore | AsyncStore:
        """Give a new store with nothing in it."""
        raise NotImplementedError

    def advance(self, by: timedelta) -> None:
        """Let time pass for the store."""
        raise NotImplementedError

    # --- what the tests use -----------------------------------------------------------------------------------

    def setup_method(self) -> None:
        """Make a store, and an event loop to run it in."""
        self._runner = asyncio.Runner()
        self.store = self.make_store()

    def teardown_method(self) -> None:
        """Close both."""
        self._wait_for(self.store.close())
        self._runner.close()

    def do(self, operation: Operation) -> Any:
        """Carry out one operation."""
        return self._wait_for(operation.perform(self.store))

    def load(self, key: str) -> bytes | None:
        """Give the record of one key."""
        records: list[bytes | None] = self.do(Load((key,)))
        assert len(records) == 1
        return records[0]

    def do_together(self, operations: Sequence[Operation]) -> list[Any]:
        """Carry out operations at the same time: in tasks, or in threads."""
        if inspect.iscoroutinefunction(self.store.load):
            return self._runner.run(self._gather(operations))
        with ThreadPoolExecutor(len(operations)) as threads:
            return list(threads.map(self.do, operations))

    async def _gather(self, operations: Sequence[Operation]) -> list[Any]:
        return await asyncio.gather(*(operation.perform(self.store) for operation in operations))

    def _wait_for(self, result: Any) -> Any:
        if not inspect.isawaitable(result):
            return result

        async def wait() -> Any:
            return await result

        return self._runner.run(wait())

    # --- load and create --------------------------------------------------------------------------------------

    def test_a_missing_record_is_none(self) -> None:
        """Nothing is stored under a key that was never used."""
        assert self.load(_KEY) is None

    def test_a_record_comes_back_byte_for_byte(self) -> None:
        """Records are bytes of any value, not text."""
        for key, record in ((_KEY, _SECOND), (_OTHER_KEY, _THIRD)):
            assert self.do(Create(key, record, _HOUR_MS)) is True
            assert self.load(key) == record

    def test_a_large_record_comes_back(self) -> None:
        """A mebibyte is the default limit of a session."""
        record = _record(b"revisn-1", b"\xa5" * 1_048_576)
        assert self.do(Create(_KEY, record, _HOUR_MS)) is True
        assert self.load(_KEY) == record

    def test_several_records_are_loaded_at_once_in_the_order_asked_for(self) -> None:
        """Missing ones have None in their place."""
        self.do(Create(_KEY, _FIRST, _HOUR_MS))
        self.do(Create(_OTHER_KEY, _SECOND, _HOUR_MS))
        assert self.do(Load((_OTHER_KEY, "missing", _KEY, _OTHER_KEY))) == [_SECOND, None, _FIRST, _SECOND]

    def test_create_does_not_replace_a_record(self) -> None:
        """A key that is taken stays as it is."""
        self.do(Create(_KEY, _FIRST, _HOUR_MS))
        assert self.do(Create(_KEY, _SECOND, _HOUR_MS)) is False
        assert self.load(_KEY) == _FIRST

    def test_records_do_not_touch_each_other(self) -> None:
        """Keys that differ in the last character are different keys."""
        self.do(Create(_KEY, _FIRST, _HOUR_MS))
        self.do(Create(_OTHER_KEY, _SECOND, _HOUR_MS))
        self.do(Delete(_KEY))
        assert self.load(_OTHER_KEY) == _SECOND

    def test_only_one_of_many_simultaneous_creates_wins(self) -> None:
        """Create is one atomic step."""
        records = [_record(b"revisn-%d" % number) for number in range(8)]
        results = self.do_together([Create(_KEY, record, _HOUR_MS) for record in records])
        assert results.count(True) == 1
        assert self.load(_KEY) == records[results.index(True)]

    # --- time to live -----------------------------------------------------------------------------------------

    def test_a_record_goes_when_its_time_is_over(self) -> None:
        """And not before."""
        self.do(Create(_KEY, _FIRST, 60_000))
        self.advance(timedelta(seconds=58))
        assert self.load(_KEY) == _FIRST
        self.advance(timedelta(seconds=3))
        assert self.load(_KEY) is None

    def test_the_key_of_an_expired_record_is_free(self) -> None:
        """Create treats an expired record as none."""
        self.do(Create(_KEY, _FIRST, 1_000))
        self.advance(timedelta(seconds=2))
        assert self.do(Create(_KEY, _SECOND, _HOUR_MS)) is True
        assert self.load(_KEY) == _SECOND

    def test_update_sets_the_time_anew(self) -> None:
        """The time to live of an update replaces the one before."""
        self.do(Create(_KEY, _FIRST, 10_000))
        self.do(Update(_KEY, b"revisn-1", _SECOND, 60_000))
        self.advance(timedelta(seconds=30))
        assert self.load(_KEY) == _SECOND
        self.advance(timedelta(seconds=31))
        assert self.load(_KEY) is None

    def test_touch_extends_and_shortens(self) -> None:
        """Touch sets the time to live, whichever is longer, and gives the record."""
        self.do(Create(_KEY, _FIRST, 10_000))
        assert self.do(Touch(_KEY, 60_000)) == _FIRST
        self.advance(timedelta(seconds=30))
        assert self.do(Touch(_KEY, 5_000)) == _FIRST
        self.advance(timedelta(seconds=6))
        assert self.load(_KEY) is None

    def test_touch_does_not_create(self) -> None:
        """A session that has ended stays ended."""
        assert self.do(Touch(_KEY, _HOUR_MS)) is None
        self.do(Create(_KEY, _FIRST, 1_000))
        self.advance(timedelta(seconds=2))
        assert self.do(Touch(_KEY, _HOUR_MS)) is None
        assert self.load(_KEY) is None

    def test_the_shortest_time_to_live_is_accepted(self) -> None:
        """One millisecond is neither an error nor forever."""
        assert self.do(Create(_KEY, _FIRST, 1)) is True
        self.advance(_ONE_SECOND)
        assert self.load(_KEY) is None

    # --- update -----------------------------------------------------------------------------------------------

    def test_update_replaces_the_record_with_the_expected_revision(self) -> None:
        """The ordinary write."""
        self.do(Create(_KEY, _FIRST, _HOUR_MS))
        assert self.do(Update(_KEY, b"revisn-1", _SECOND, _HOUR_MS)) is Outcome.DONE
        assert self.do(Update(_KEY, b"revisn-2", _THIRD, _HOUR_MS)) is Outcome.DONE
        assert self.do(Update(_KEY, _THIRD[1:9], _FIRST, _HOUR_MS)) is Outcome.DONE
        assert self.load(_KEY) == _FIRST

    def test_update_gives_the_newer_record_and_leaves_it(self) -> None:
        """Compare-and-set: the writer learns what it has to work on instead."""
        self.do(Create(_KEY, _SECOND, _HOUR_MS))
        assert self.do(Update(_KEY, b"revisn-1", _FIRST, _HOUR_MS)) == _SECOND
        assert self.load(_KEY) == _SECOND

    def test_update_does_not_create(self) -> None:
        """A session that has ended stays ended: no record, deleted, or expired."""
        assert self.do(Update(_KEY, b"revisn-1", _SECOND, _HOUR_MS)) is Outcome.GONE
        self.do(Create(_KEY, _FIRST, _HOUR_MS))
        self.do(Delete(_KEY))
        assert self.do(Update(_KEY, b"revisn-1", _SECOND, _HOUR_MS)) is Outcome.GONE
        self.do(Create(_KEY, _FIRST, 1_000))
        self.advance(timedelta(seconds=2))
        assert self.do(Update(_KEY, b"revisn-1", _SECOND, _HOUR_MS)) is Outcome.GONE
        assert self.load(_KEY) is None

    def test_only_one_of_many_simultaneous_updates_wins(self) -> None:
        """Compare and set are one atomic step."""
        self.do(Create(_KEY, _FIRST, _HOUR_MS))
        records = [_record(b"writer-%d" % number) for number in range(8)]
        results = self.do_together([Update(_KEY, b"revisn-1", record, _HOUR_MS) for record in records])
        assert results.count(Outcome.DONE) == 1
        winner = records[results.index(Outcome.DONE)]
        assert self.load(_KEY) == winner
        assert [result for result in results if result is not Outcome.DONE] == [winner] * 7

    # --- delete -----------------------------------------------------------------------------------------------

    def test_delete_removes_the_record_and_gives_it(self) -> None:
        """So that what was deleted is known, whoever wrote last."""
        self.do(Create(_KEY, _FIRST, _HOUR_MS))
        self.do(Update(_KEY, b"revisn-1", _SECOND, _HOUR_MS))
        assert self.do(Delete(_KEY)) == _SECOND
        assert self.load(_KEY) is None
        assert self.do(Delete(_KEY)) is None

    def test_delete_treats_an_expired_record_as_none(self) -> None:
        """It was gone already."""
        self.do(Create(_KEY, _FIRST, 1_000))
        self.advance(timedelta(seconds=2))
        assert self.do(Delete(_KEY)) is None

    # --- lists ------------------------------------------------------------------------------------------------

    def test_the_time_left_of_each_record_is_told(self) -> None:
        """In milliseconds, and None for what is not there."""
        self.do(Create(_KEY, _FIRST, 60_000))
        self.do(Create(_OTHER_KEY, _SECOND, 10_000))
        self.advance(timedelta(seconds=20))
        left, expired, missing = self.do(TimeLeft((_KEY, _OTHER_KEY, "missing")))
        assert expired is None
        assert missing is None
        assert 30_000 < left <= 40_000

    def test_a_scan_gives_every_live_key_in_bounded_pieces(self) -> None:
        """And nothing that is not there."""
        keys = {f"{number:040x}" for number in range(57)}
        for key in keys:
            self.do(Create(key, _FIRST, _HOUR_MS))
        self.do(Create(_KEY, _FIRST, 1_000))
        self.do(Create(_OTHER_KEY, _FIRST, _HOUR_MS))
        self.do(Delete(_OTHER_KEY))
        self.advance(timedelta(seconds=2))
        found: list[str] = []
        cursor, rounds = "", 0
        while rounds == 0 or cursor:
            piece, cursor = self.do(Scan(cursor, 10))
            found += piece
            rounds += 1
            assert rounds < 100
        assert set(found) == keys
        assert rounds > 1

    def test_a_scan_of_nothing_ends_at_once(self) -> None:
        """The end is told by an empty cursor."""
        assert self.do(Scan("", 10)) == ([], "")

    # --- connections ------------------------------------------------------------------------------------------

    def test_a_store_works_on_after_reset_and_close(self) -> None:
        """Both give up connections, not records."""
        self.do(Create(_KEY, _FIRST, _HOUR_MS))
        self.do(Reset())
        assert self.load(_KEY) == _FIRST
        self._wait_for(self.store.close())
        assert self.load(_KEY) == _FIRST
        assert self.do(Update(_KEY, b"revisn-1", _SECOND, _HOUR_MS)) is Outcome.DONE
