"""Working a store as an application does: one record of its own, and reads that are timed. For every kind of store."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from statistics import median
from typing import Final

from coatcheck.doctor.findings import Finding, Status
from coatcheck.errors import StoreError
from coatcheck.record import REVISION
from coatcheck.stores.protocol import Outcome, SyncStore

_TTL_MS: Final = 5_000
"""How long the record lives should it not be deleted, because the connection breaks or the command is ended."""

_READS: Final = 50

_MEDIAN_NOTE_MS: Final = 5.0
_MEDIAN_WARNING_MS: Final = 20.0
_WORST_WARNING_MS: Final = 250.0
"""A quarter of what the Redis stores wait for an answer before they give up."""


def probe_key() -> str:
    """Make a key that no session can have, nor another doctor."""
    return f"doctor-{secrets.token_hex(8)}"


def check_operations(store: SyncStore, explain: Callable[[StoreError], tuple[str, str]]) -> Finding:
    """Find out whether a record can be created, replaced, kept alive and deleted, by doing it.

    Args:
        store: the store, as the application uses it.
        explain: says of an error what it is and what to do about it.
    """
    key = probe_key()
    try:
        failed = _failing_step(store, key)
    except StoreError as error:
        finding, advice = explain(error)
        return Finding("operations", Status.PROBLEM, finding, advice)
    if failed:
        advice = (
            "The store does not do what it was asked to do. If there is a proxy in front of it, connect to the server "
            "itself; if not, other software may be removing its records."
        )
        return Finding("operations", Status.PROBLEM, f"{failed} gave a wrong answer", advice)
    return Finding("operations", Status.OK, "create, read, compare-and-set, touch and delete work")


def _failing_step(store: SyncStore, key: str) -> str:
    """Give the name of the first step whose answer is wrong, or ""."""
    first, second = _record(), _record()
    steps: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("create", lambda: store.create(key, first, _TTL_MS)),
        ("create where a record is", lambda: not store.create(key, second, _TTL_MS)),
        ("read", lambda: store.load(key) == [first]),
        (
            "compare-and-set with a stale revision",
            lambda: store.update(key, second[REVISION], second, _TTL_MS) == first,
        ),
        ("compare-and-set", lambda: store.update(key, first[REVISION], second, _TTL_MS) is Outcome.DONE),
        ("touch", lambda: store.touch(key, _TTL_MS) == second),
        ("time to live", lambda: 0 < (store.time_left(key)[0] or 0) <= _TTL_MS),
        ("delete", lambda: store.delete(key) == second),
        ("read of what was deleted", lambda: store.load(key) == [None]),
    )
    is_deleted = False
    try:
        for name, is_right in steps:
            if not is_right():
                return name
        is_deleted = True
    finally:
        if not is_deleted:
            _delete(store, key)
    return ""


def _delete(store: SyncStore, key: str) -> None:
    try:
        store.delete(key)
    except StoreError:
        return  # it goes by itself, in a few seconds


def _record() -> bytes:
    """Make bytes with a revision where records have theirs. They belong to no session, and are decoded by nobody."""
    return b"\x00" + os.urandom(REVISION.stop - REVISION.start) + b"coatcheck doctor"


def time_reads(store: SyncStore) -> list[float]:
    """Read a record that is not there, again and again. Gives milliseconds."""
    key = probe_key()
    store.load(key)  # so that opening is not measured
    times_ms: list[float] = []
    for _ in range(_READS):
        began = time.perf_counter()
        store.load(key)
        times_ms.append((time.perf_counter() - began) * 1000)
    return times_ms


def check_latency(times_ms: list[float]) -> Finding:
    """Judge how long reads take, in milliseconds."""
    usual, slowest = median(times_ms), max(times_ms)
    finding = f"a read takes {_shown(usual)}, the slowest of {len(times_ms)} took {_shown(slowest)}"
    if usual >= _MEDIAN_WARNING_MS or slowest >= _WORST_WARNING_MS:
        advice = (
            "Every request that has a session waits for one read. Put the application and its store into one network, "
            "and look for what else keeps the store busy (on Redis: SLOWLOG GET)."
        )
        return Finding("latency", Status.WARNING, finding, advice)
    if usual >= _MEDIAN_NOTE_MS:
        advice = "Every request that has a session waits for one read. In one network it takes less than 1 ms."
        return Finding("latency", Status.NOTE, finding, advice)
    return Finding("latency", Status.OK, finding)


def _shown(time_ms: float) -> str:
    return f"{time_ms:.2g} ms" if time_ms < 10 else f"{time_ms:,.0f} ms"  # noqa: PLR2004 (two digits either way)
