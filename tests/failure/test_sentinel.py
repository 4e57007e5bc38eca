"""A master that Sentinels watch fails, or is told to step down: the store follows the Sentinels to the new one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from raw_writes import RawWrites
from replica_sets import ReplicaSet
from trials import Trial


@pytest.fixture
def replica_set() -> Iterator[ReplicaSet]:
    with ReplicaSet() as replica_set:
        yield replica_set


def test_a_master_that_is_killed_is_replaced_by_the_one_that_the_sentinels_name(replica_set: ReplicaSet) -> None:
    with (
        Trial("Sentinel: kill -9 of the master", replica_set.url, may_lose=True) as trial,
        replica_set.client() as client,
        RawWrites(client) as raw,
    ):
        trial.fail(replica_set.master.stop)
        trial.mend(replica_set.wait_for_new_master)
        trial.raw_lost = raw.lost()
        trial.undisturbed_by(replica_set.replica.start)  # it takes itself for the master until it is told otherwise


def test_a_master_that_hangs_is_replaced_and_not_followed_when_it_goes_on(replica_set: ReplicaSet) -> None:
    with (
        Trial("Sentinel: SIGSTOP of the master", replica_set.url, may_lose=True) as trial,
        replica_set.client() as client,
        RawWrites(client) as raw,
    ):
        trial.fail(replica_set.master.pause)
        trial.mend(replica_set.wait_for_new_master)
        trial.raw_lost = raw.lost()
        trial.undisturbed_by(replica_set.replica.resume)


def test_an_old_master_that_still_takes_writes_is_left_at_once(replica_set: ReplicaSet) -> None:
    with (
        Trial("Sentinel: SENTINEL FAILOVER", replica_set.url, may_lose=True) as trial,
        replica_set.client() as client,
        RawWrites(client) as raw,
    ):
        trial.fail(replica_set.begin_failover)
        trial.mend(replica_set.wait_for_new_master)
        trial.undisturbed_by(replica_set.finish_failover)
        trial.raw_lost = raw.lost()
