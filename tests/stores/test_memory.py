"""What the memory store adds to the contract: bounds."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from coatcheck.errors import ConfigurationError, StoreFull
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.stores.protocol import EVERYTHING
from coatcheck.testing import ManualClock

RECORD = b"\x01revision"


def test_a_full_store_refuses_new_sessions_and_keeps_those_it_has() -> None:
    store = SyncMemoryStore(max_records=2)
    assert store.create("a", RECORD, 1_000)
    assert store.create("b", RECORD, 1_000)
    with pytest.raises(StoreFull, match="max_records"):
        store.create("c", RECORD, 1_000)
    assert store.load("a") == [RECORD]
    store.delete("a")
    assert store.create("c", RECORD, 1_000)


def test_expired_entries_go_without_being_asked_for() -> None:
    clock = ManualClock()
    store = SyncMemoryStore(clock=clock)
    for number in range(250):
        store.create(f"short {number}", RECORD, 1_000)
    store.create("long", RECORD, 60_000)
    store.create("touched", RECORD, 1_000)
    store.touch("touched", 60_000)
    clock.advance(timedelta(seconds=2))
    for _ in range(3):
        store.load("something else")
    assert len(store) == 2
    clock.advance(timedelta(minutes=1))
    store.load("something else")
    assert len(store) == 0


def test_an_entry_whose_time_was_shortened_goes_at_its_new_time() -> None:
    clock = ManualClock()
    store = SyncMemoryStore(clock=clock)
    store.create("a", RECORD, 3_600_000)
    store.touch("a", 1_000)
    clock.advance(timedelta(seconds=2))
    store.load("something else")
    assert len(store) == 0


def test_sessions_that_come_and_go_leave_nothing_behind() -> None:
    store = SyncMemoryStore()
    for number in range(5_000):
        store.create(str(number), RECORD, 3_600_000)
        store.delete(str(number))
    assert len(store._table._due) < 500


def test_an_async_and_a_sync_store_can_share_their_records() -> None:
    store = MemoryStore()
    shared = SyncMemoryStore(share_with=store)
    shared.create("a", RECORD, 1_000)
    assert len(store) == 1


def test_a_loop_that_was_closed_while_somebody_listened_in_it_hinders_nobody_who_announces() -> None:
    store = MemoryStore()
    heard = store.listen()
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(anext(heard)) == EVERYTHING
    loop.close()

    async def listen_and_announce() -> str:
        others = store.listen()
        assert await anext(others) == EVERYTHING
        await store.announce("key")
        return await anext(others)

    assert asyncio.run(listen_and_announce()) == "key"
    SyncMemoryStore(share_with=store).announce("key")
    assert not store._table.listeners


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_records"):
        MemoryStore(max_records=0)
