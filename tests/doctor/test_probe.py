"""What the doctor's own record proves, at stores that do not keep their promises."""

from __future__ import annotations

from typing import Any

import pytest

from coatcheck.doctor.findings import Status
from coatcheck.doctor.probe import check_latency, check_operations
from coatcheck.errors import StoreError, StoreUnavailable
from coatcheck.stores.memory import SyncMemoryStore
from coatcheck.stores.protocol import Outcome, WriteResult


def explain(error: StoreError) -> tuple[str, str]:
    return str(error), "what to do"


class NoExpiry(SyncMemoryStore):
    def time_left(self, *keys: str) -> list[int | None]:
        return [None for _ in keys]


class NoCompare(SyncMemoryStore):
    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        self.delete(key)
        self.create(key, record, ttl_ms)
        return Outcome.DONE


class NoDelete(SyncMemoryStore):
    def delete(self, key: str) -> bytes | None:
        return self.load(key)[0]


class NoCreateOnce(SyncMemoryStore):
    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        self.delete(key)
        return super().create(key, record, ttl_ms)


class Forgetful(SyncMemoryStore):
    def load(self, *keys: str) -> list[bytes | None]:
        return [None for _ in keys]


class NoTouch(SyncMemoryStore):
    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        return None


class Failing(SyncMemoryStore):
    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        message = "out of reach"
        raise StoreUnavailable(message)


def test_store_that_keeps_its_promises_is_left_empty() -> None:
    store = SyncMemoryStore()
    assert check_operations(store, explain).status is Status.OK
    assert len(store) == 0


@pytest.mark.parametrize(
    ("store", "step"),
    [
        (NoExpiry(), "time to live"),
        (NoCompare(), "stale revision"),
        (NoDelete(), "deleted"),
        (NoCreateOnce(), "create where a record is"),
        (Forgetful(), "read"),
        (NoTouch(), "touch"),
    ],
)
def test_broken_promise_is_named(store: Any, step: str) -> None:
    finding = check_operations(store, explain)
    assert finding.status is Status.PROBLEM
    assert step in finding.finding


@pytest.mark.parametrize("store", [Failing(), NoTouch()])
def test_record_is_deleted_also_after_a_failure(store: SyncMemoryStore) -> None:
    assert check_operations(store, explain).status is Status.PROBLEM
    assert len(store) == 0


@pytest.mark.parametrize(
    ("times_ms", "status"),
    [
        ([1.0, 1.0, 200.0], Status.OK),
        ([6.0] * 3, Status.NOTE),
        ([21.0] * 3, Status.WARNING),
        ([1, 1, 300], Status.WARNING),
    ],
)
def test_latency_is_judged_by_the_usual_and_by_the_slowest(times_ms: list[float], status: Status) -> None:
    assert check_latency(times_ms).status is status
