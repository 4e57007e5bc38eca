"""Reads what the kernel and Redis count: CPU time of processes, commands, memory."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import redis

SETUP: Final = frozenset({"hello", "auth", "client", "select", "command", "script"})
"""Commands that belong to connecting, not to requests."""
OUR_OWN: Final = frozenset({"info"})

LOOK_EVERY_S: Final = 0.1
IDLE_SHARE: Final = 0.02
"""Whoever uses less than this of a core has nothing to do."""
IDLE_DEADLINE_S: Final = 5.0


def cpu_us(session_id: int) -> float:
    """Give the CPU time that all threads of all processes of a session have used, in user and system mode."""
    return sum(_process_ns(process) for process in _processes(session_id)) / 1000


def wait_until_idle(session_id: int) -> None:
    """Wait until the processes have done what they still had to do, such as answers that nobody waits for any more."""
    deadline, before = time.monotonic() + IDLE_DEADLINE_S, cpu_us(session_id)
    while time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
        now = cpu_us(session_id)
        if now - before < IDLE_SHARE * LOOK_EVERY_S * 1_000_000:
            return
        before = now


def _processes(session_id: int) -> list[Path]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session_id:
                found.append(stat.parent)
    return found


def _process_ns(process: Path) -> int:
    """Add up the threads. The first figure of schedstat is the time on a core, in nanoseconds."""
    total = 0
    for thread in process.glob("task/*/schedstat"):
        with suppress(OSError):
            total += int(thread.read_text().split()[0])
    return total


def calls(client: redis.Redis) -> Counter[str]:
    """Give how often each command was carried out so far, those that scripts run included."""
    return Counter({name: int(each["calls"]) for name, each in _statistics(client).items()})


def server_us(client: redis.Redis) -> Counter[str]:
    """Give how many microseconds each command has taken at the server so far."""
    return Counter({name: int(each["usec"]) for name, each in _statistics(client).items()})


def _statistics(client: redis.Redis) -> dict[str, dict[str, float]]:
    statistics = client.info("commandstats")
    named = {str(name).removeprefix("cmdstat_"): each for name, each in statistics.items()}
    return {name: each for name, each in named.items() if _family(name) not in OUR_OWN}


def is_setup(command: str) -> bool:
    """Tell whether a command belongs to connecting."""
    return _family(command) in SETUP


def _family(command: str) -> str:
    return command.partition("|")[0]


def stored_bytes(client: redis.Redis) -> tuple[int, int]:
    """Give the memory that the keys of sessions take, their names and Redis's own bookkeeping included.

    And apart from it that of what lists a user's sessions, which only Coatcheck has.
    """
    keys = list(client.scan_iter(count=1000))
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.memory_usage(key, samples=0)
        sizes = dict(zip(keys, pipeline.execute(), strict=True))
    of_lists = sum(size for key, size in sizes.items() if b":user-" in key)
    return sum(sizes.values()) - of_lists, of_lists
