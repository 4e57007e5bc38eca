"""Measures what a request costs in Coatcheck itself: microseconds for each step, as medians. See bench/README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from typing import Any

from coatcheck import Sessions, SyncSession, SyncSessions
from coatcheck import record as records
from coatcheck.stores.protocol import Outcome
from coatcheck.stores.sqlite import SQLiteStore, SyncSQLiteStore
from coatcheck.token import TokenSigner

KEY = "a secret key for measurements, 32 bytes"
HOUR_MS = 3_600_000
VALUES: dict[str, Any] = {
    "user": "alice",
    "theme": "dark",
    "language": "en",
    "csrf": "x" * 43,
    "cart": ["pen", "ink", "paper"],
    "visits": 12,
    "last_page": "/products/12345",
    "beta": True,
}
"""A session of ordinary size: about 200 bytes."""

BUDGETS_US = {
    "token: verify": 5.0,
    "memory: open + close, unchanged": 15.0,
    "sqlite: read": 15.0,
    "sqlite: compare-and-set": 40.0,
}
BATCH = 20
"""Calls that are timed together, so that the clock's own cost does not count."""
ROWS = 20_000


def median_us(call: Callable[[], object], samples: int) -> float:
    """Time a call."""
    for _ in range(BATCH):
        call()
    times = []
    for _ in range(samples):
        start = perf_counter_ns()
        for _ in range(BATCH):
            call()
        times.append((perf_counter_ns() - start) / BATCH / 1000)
    return statistics.median(times)


async def async_median_us(call: Callable[[], Awaitable[object]], samples: int, at_once: int = 1) -> float:
    """Time a call that is awaited; of several at once, the share of each."""
    times = []
    for _ in range(samples):
        calls = [call() for _ in range(at_once)]
        start = perf_counter_ns()
        if at_once == 1:
            await calls[0]
        else:
            await asyncio.gather(*calls)
        times.append((perf_counter_ns() - start) / at_once / 1000)
    return statistics.median(times)


def request(sessions: SyncSessions, headers: list[bytes], act: Callable[[SyncSession], object]) -> Callable[[], object]:
    """Give a whole request as a call: begin, load, act, conclude."""

    def run() -> object:
        session = sessions.begin(headers)
        session.load()
        act(session)
        return sessions.conclude(session, 200)

    return run


def read(session: SyncSession) -> object:
    return session["user"]


def write(session: SyncSession) -> object:
    return session.increment("visits")


def nothing(_: SyncSession) -> None: ...


def new_session(sessions: SyncSessions) -> tuple[list[bytes], SyncSession]:
    """Store a session; give the Cookie header that leads to it."""
    session = sessions.begin([])
    session.update(VALUES)
    sessions.conclude(session, 200)
    return [f"lang=en; {sessions.config.cookie.full_name}={session.token}; theme=dark".encode()], session


def measure_core(results: dict[str, float], samples: int) -> None:
    """Measure what needs no disk."""
    sessions = SyncSessions("memory://", secret_keys=[KEY])
    headers, session = new_session(sessions)
    signer = TokenSigner([KEY.encode()], "__Host-session")
    token = signer.sign(session._work.identity, 0).encode()
    stored = sessions.store.load(session.handle)[0] or b""
    decoded = records.decode(session.handle, stored)[1]
    results["token: verify"] = median_us(lambda: signer._genuine(token), samples)
    results["token: verify, known"] = median_us(lambda: signer.verify(token), samples)
    results["record: decode"] = median_us(lambda: records.decode(session.handle, stored), samples)
    results["record: encode"] = median_us(lambda: records.encode(session.handle, b"revision", decoded), samples)
    results["no cookie: open + close"] = median_us(request(sessions, [], nothing), samples)
    results["memory: open + close, unchanged"] = median_us(request(sessions, headers, read), samples)
    results["memory: open + close, changed"] = median_us(request(sessions, headers, write), samples)


def measure_sqlite(results: dict[str, float], samples: int, folder: Path) -> None:
    """Measure the SQLite store, alone and under whole requests, in a file of some size."""
    path = folder / "sessions.sqlite3"
    store = SyncSQLiteStore(path)
    record = b"\x01revision" + b"x" * 241
    for number in range(ROWS):
        store.create(f"{number:040x}", record, HOUR_MS)
    key = f"{ROWS // 2:040x}"
    results["sqlite: read"] = median_us(lambda: store.load(key), samples)
    assert store.update(key, b"revision", record, HOUR_MS) is Outcome.DONE
    results["sqlite: compare-and-set"] = median_us(lambda: store.update(key, b"revision", record, HOUR_MS), samples)
    sessions = SyncSessions(store, secret_keys=[KEY])
    headers, _ = new_session(sessions)
    results["sqlite: open + close, unchanged"] = median_us(request(sessions, headers, read), samples)
    results["sqlite: open + close, changed"] = median_us(request(sessions, headers, write), samples)
    store.close()
    results.update(asyncio.run(measure_async_sqlite(path, record, samples)))


async def measure_async_sqlite(path: Path, record: bytes, samples: int) -> dict[str, float]:
    """Measure writes that go through the store's thread."""
    store = SQLiteStore(path)
    keys = iter(f"{number % ROWS:040x}" for number in range(1_000_000))

    def update() -> Awaitable[object]:
        return store.update(next(keys), b"revision", record, HOUR_MS)

    await update()
    results = {
        "sqlite, async: compare-and-set, alone": await async_median_us(update, samples),
        "sqlite, async: compare-and-set, 64 at once": await async_median_us(update, samples // 8, 64),
    }
    await store.close()
    return results


async def measure_async_memory(samples: int) -> float:
    """Measure a whole async request."""
    sessions = Sessions("memory://", secret_keys=[KEY])
    async with sessions.open() as session:
        session.update(VALUES)
    headers = [f"lang=en; __Host-session={session.token}".encode()]

    async def run() -> None:
        session = sessions.begin(headers)
        await session.load()
        session["user"]
        await sessions.conclude(session, 200)

    return await async_median_us(run, samples * BATCH // 4)


def show(results: dict[str, float]) -> bool:
    """Print a table; tell whether every budget was kept."""
    width = max(map(len, results))
    print(f"{platform.python_implementation()} {platform.python_version()}, medians in microseconds\n")
    kept = True
    for name, microseconds in results.items():
        budget = BUDGETS_US.get(name)
        verdict = (
            "" if budget is None else f"  budget {budget:4.0f}  {'kept' if microseconds <= budget else 'EXCEEDED'}"
        )
        kept = kept and (budget is None or microseconds <= budget)
        print(f"{name:<{width}}  {microseconds:7.2f}{verdict}")
    return kept


def main() -> int:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000, help="samples of each measurement (default 1000)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    results: dict[str, float] = {}
    measure_core(results, options.samples)
    results["memory, async: open + close, unchanged"] = asyncio.run(measure_async_memory(options.samples))
    with TemporaryDirectory(prefix="coatcheck-bench-") as folder:
        measure_sqlite(results, options.samples, Path(folder))
    kept = show(results)
    if options.json is not None:
        options.json.write_text(json.dumps({name: round(value, 3) for name, value in results.items()}, indent=2) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
