"""Fixtures for pytest.

They are there with this in the `conftest.py` at the root of your tests:

    pytest_plugins = ["coatcheck.testing.fixtures"]

They are not there by themselves: pytest would import Coatcheck wherever it is installed, and before coverage begins.
"""

from __future__ import annotations

import secrets
from typing import Final

import pytest

from coatcheck.config import CookieConfig
from coatcheck.sessions import Sessions, SyncSessions
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.testing.clock import ManualClock
from coatcheck.testing.failing_store import FailingStore, SyncFailingStore

_KEY: Final = secrets.token_urlsafe(32)
# What test clients talk to is http, and there most of them drop a Secure cookie that the application sets.
_COOKIE: Final = CookieConfig(secure=False)


@pytest.fixture
def coatcheck_clock() -> ManualClock:
    """The clock of the other fixtures. It stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
def _coatcheck_memory(coatcheck_clock: ManualClock) -> SyncMemoryStore:
    """What both stores keep their sessions in."""
    return SyncMemoryStore(clock=coatcheck_clock)


@pytest.fixture
def coatcheck_store(_coatcheck_memory: SyncMemoryStore) -> FailingStore:
    """The store of `coatcheck_sessions`: in memory, empty, and failing when it is told to."""
    return FailingStore(MemoryStore(share_with=_coatcheck_memory))


@pytest.fixture
def coatcheck_sync_store(_coatcheck_memory: SyncMemoryStore) -> SyncFailingStore:
    """The store of `coatcheck_sync_sessions`. It holds the same sessions as `coatcheck_store`, and fails by itself."""
    return SyncFailingStore(_coatcheck_memory)


@pytest.fixture
def coatcheck_sessions(coatcheck_store: FailingStore, coatcheck_clock: ManualClock) -> Sessions:
    """Sessions for an async application. Override it to have other settings."""
    return Sessions(coatcheck_store, secret_keys=[_KEY], cookie=_COOKIE, clock=coatcheck_clock)


@pytest.fixture
def coatcheck_sync_sessions(coatcheck_sync_store: SyncFailingStore, coatcheck_clock: ManualClock) -> SyncSessions:
    """Sessions for a sync application: the same sessions, so that a sync test can look into those of an async one."""
    return SyncSessions(coatcheck_sync_store, secret_keys=[_KEY], cookie=_COOKIE, clock=coatcheck_clock)
