"""A store that fails on demand: fails as told, and is the store within all the rest of the time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from faces import Face

from coatcheck import Sessions
from coatcheck.errors import StoreFull, StoreUnavailable
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.stores.protocol import AsyncFeed, AsyncStore, HasTokens, SyncAnnouncer, SyncStore
from coatcheck.stores.sqlite import SQLiteStore, SyncSQLiteStore
from coatcheck.testing import FailingStore, ManualClock, StoreContract, SyncFailingStore


class _Contract(StoreContract):
    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)

    def setup_method(self) -> None:
        self.clock = ManualClock()
        super().setup_method()


class TestFailingMemory(_Contract):
    def make_store(self) -> AsyncStore:
        return FailingStore(MemoryStore(clock=self.clock))


class TestSyncFailingMemory(_Contract):
    def make_store(self) -> SyncStore:
        return SyncFailingStore(SyncMemoryStore(clock=self.clock))


@pytest.fixture(params=["async", "sync"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Sessions over a failing store with a memory store within, of both kinds."""
    yield Face(request.param, FailingStore() if request.param == "async" else SyncFailingStore())
    Face.close_all()


def test_only_the_calls_that_were_named_fail_until_it_recovers(face: Face) -> None:
    token = face.new(a=1)
    store = face.sessions.store
    store.fail("update", "touch")
    session: Any = face.request(token)
    session["a"] = 2
    with pytest.raises(StoreUnavailable, match=r"the test made update\(\) fail"):
        face.respond(session)
    store.recover()
    assert face.stored(token) == {"a": 1}


def test_all_calls_fail_when_none_is_named(face: Face) -> None:
    store = face.sessions.store
    calls: dict[str, list[Any]] = {
        "load": ["k"],
        "create": ["k", b"", 1],
        "update": ["k", b"", b"", 1],
        "touch": ["k", 1],
        "delete": ["k"],
    }
    calls |= {"time_left": ["k"], "scan": ["", 1], "announce": ["k"]}
    store.fail()
    for name, arguments in calls.items():
        with pytest.raises(StoreUnavailable):
            face.run(getattr(store, name)(*arguments))
    assert store.calls == list(calls)
    face.run(store.reset())
    face.run(store.close())


def test_the_error_is_the_one_that_was_asked_for(face: Face) -> None:
    face.sessions.store.fail("create", error=StoreFull)
    session: Any = face.request()
    session["a"] = 1
    with pytest.raises(StoreFull, match=r"the test made create\(\) fail"):
        face.respond(session)


def test_a_block_of_failing_ends_with_what_was_before(face: Face) -> None:
    store = face.sessions.store
    store.fail("load")
    with pytest.raises(ZeroDivisionError), store.failing("update"):
        raise ZeroDivisionError
    assert face.run(store.update("k", b"", b"", 1))
    with pytest.raises(StoreUnavailable):
        face.run(store.load("k"))


def test_calls_are_counted_and_those_that_fail_too(face: Face) -> None:
    token = face.new(a=1)
    store = face.sessions.store
    store.calls.clear()
    with store.failing("load"), pytest.raises(StoreUnavailable):
        face.request(token)
    face.request(token)
    assert store.calls == ["load", "load"]


def test_a_call_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected some of load, create, .* got 'save', 'close'"):
        FailingStore().fail("save", "load", "close")  # type: ignore[arg-type]


def test_what_a_store_can_do_is_what_the_store_within_can_do(tmp_path: Path) -> None:
    file = str(tmp_path / "sessions.sqlite3")
    # Python 3.12 and newer look at it in this way, so that what is made when it is asked for is not found.
    inspect.getattr_static(FailingStore(MemoryStore()), "listen")
    assert isinstance(FailingStore(MemoryStore()), AsyncFeed)
    assert not isinstance(FailingStore(SQLiteStore(file)), AsyncFeed)
    assert isinstance(SyncFailingStore(SyncMemoryStore()), SyncAnnouncer)
    assert not isinstance(SyncFailingStore(SyncSQLiteStore(file)), SyncAnnouncer)
    assert not isinstance(FailingStore(), HasTokens)


def test_a_store_with_tokens_of_its_own_keeps_them() -> None:
    from coatcheck.stores.cookie import CookieStore

    sessions = Sessions(FailingStore(CookieStore(["a secret key for tests, 32 bytes or more"])))
    assert sessions.config.store_has_tokens


def test_the_kinds_are_told_apart_as_ever() -> None:
    with pytest.raises(ValueError, match="async store, got a SyncFailingStore"):
        Sessions(SyncFailingStore(), secret_keys=["k" * 32])  # type: ignore[arg-type]
