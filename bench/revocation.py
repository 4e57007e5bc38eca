"""Measures how long it takes until whoever waits for a session's end hears of it, when another process ended it."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from coatcheck import Session, Sessions, SyncSessions

KEY = "a secret key for measurements, 32 bytes"
WAITING = 100
"""How many wait, each for a session of their own; one of them is ended at a time."""


def end_sessions(url: str) -> None:
    """Be the other process: end the sessions whose handles come in, and say when."""
    sessions = SyncSessions(url, secret_keys=[KEY])
    for line in sys.stdin:
        started = time.time()
        sessions.revoke(line.strip())
        print(started, flush=True)
    sessions.close()


async def measure(url: str) -> list[float]:
    """Give the milliseconds from the call in the other process to the moment in which the waiting task goes on."""
    sessions = Sessions(url, secret_keys=[KEY])
    waiting: dict[str, asyncio.Task[float]] = {}
    for number in range(WAITING):
        async with sessions.open() as session:
            session.login(f"user {number}")
        waiting[session.handle] = asyncio.create_task(wait(session))
    await asyncio.sleep(1)  # until the connection for news is open
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, __file__, "--end", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    milliseconds = []
    for handle, task in waiting.items():
        process.stdin.write(handle + "\n")
        process.stdin.flush()
        heard_at = await task
        milliseconds.append((heard_at - float(process.stdout.readline())) * 1000)
    process.stdin.close()
    process.wait()
    await sessions.close()
    return milliseconds


async def wait(session: Session) -> float:
    """Give the time at which the end is heard of."""
    await session.revoked()
    return time.time()


def main() -> None:
    """Measure SQLite, and the Redis or Valkey of a URL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", metavar="URL", help="also measure this server, for example redis://localhost:6379/0")
    parser.add_argument("--end", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.end is not None:
        end_sessions(options.end)
        return
    with TemporaryDirectory(prefix="coatcheck-bench-") as folder:
        urls = {"sqlite": f"sqlite:///{Path(folder) / 'sessions.sqlite3'}"}
        if options.redis is not None:
            urls["redis"] = options.redis
        for name, url in urls.items():
            figures = sorted(asyncio.run(measure(url)))
            print(
                f"{name:<8} median {statistics.median(figures):7.1f} ms   "
                f"p99 {figures[int(len(figures) * 0.99) - 1]:7.1f} ms   {len(figures)} ends, {WAITING} waiting"
            )


if __name__ == "__main__":
    main()
