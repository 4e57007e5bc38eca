"""The demo for tests: inside this process for its pages, as processes of its own for the rest."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import IO, Protocol, Self

import httpx
import pytest
from form_client import FormClient
from servers import Server, server_binaries

import coatcheck
from coatcheck import CookieConfig, Sessions
from coatcheck.demo.app import create_app
from coatcheck.demo.observed import observed
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing import ManualClock

ALICE = {"username": "alice", "password": "wonderland"}
BOB = {"username": "bob", "password": "builder"}
HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
JSON = {"Accept": "application/json"}

_SOURCES = Path(coatcheck.__file__).parents[1]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def sessions(store: MemoryStore, clock: ManualClock) -> Sessions:
    return Sessions(
        observed(store),
        secret_keys=["a secret key for tests, 32 bytes or more"],
        cookie=CookieConfig(secure=False),
        clock=clock,
    )


class NewClient(Protocol):
    async def __call__(self, headers: dict[str, str] | None = None) -> httpx.AsyncClient: ...


@pytest.fixture
async def new_client(sessions: Sessions) -> AsyncIterator[NewClient]:
    """Make clients of one demo, each with its own cookies."""
    transport = httpx.ASGITransport(create_app(sessions), raise_app_exceptions=False)
    async with AsyncExitStack() as stack:

        async def make(headers: dict[str, str] | None = None) -> httpx.AsyncClient:
            client = FormClient(transport=transport, base_url="http://demo", headers=headers or HTML)
            return await stack.enter_async_context(client)

        yield make


@pytest.fixture
async def visitor(new_client: NewClient) -> httpx.AsyncClient:
    """A browser without a session."""
    return await new_client()


@pytest.fixture
async def alice(new_client: NewClient) -> httpx.AsyncClient:
    """A browser in which Alice has logged in and seen the page that follows."""
    client = await new_client()
    response = await client.post("/login", data=ALICE, follow_redirects=True)
    assert response.status_code == 200
    return client


# --- processes --------------------------------------------------------------------------------------------------------


def command_environment(**variables: str) -> dict[str, str]:
    """Give an environment in which this checkout is the Coatcheck that runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COATCHECK_")}
    return environment | {"PYTHONPATH": str(_SOURCES)} | variables


class DemoProcess:
    """`coatcheck demo` as a process, in `folder`, on a port that it chooses or on `port`."""

    def __init__(self, folder: Path, arguments: Sequence[str] = (), port: int = 0, **environment: str) -> None:
        self._command = [sys.executable, "-m", "coatcheck", "demo", "--port", str(port), *arguments]
        self._folder = folder
        self._environment = command_environment(**environment)
        self._stack = ExitStack()
        self.banner = ""
        self.url = ""

    def __enter__(self) -> Self:
        with self._stack:
            errors: IO[str] = self._stack.enter_context(tempfile.TemporaryFile("w+"))
            self.process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
            self._stack.callback(self._end)
            self._read_banner(errors)
            self._stack = self._stack.pop_all()
        return self

    def _read_banner(self, errors: IO[str]) -> None:
        """Read up to the banner's last line; from then on, the demo takes requests."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.banner += line
            if line.startswith("Stop"):
                break
        address = re.search(r"http://\S+", self.banner)
        if address is None:
            self.process.wait()
            errors.seek(0)
            raise RuntimeError(errors.read())
        self.url = address[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def _end(self) -> None:
        """End the process, kindly so that it ends what it started; by force if it does not listen."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __exit__(self, *_: object) -> None:
        self._stack.close()


STORES = ["memory", "sqlite", "valkey+embedded", *(kind for kind in server_binaries() if kind == "redis")]


@pytest.fixture(scope="module", params=STORES)
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoProcess]:
    """The demo on each kind of store in turn."""
    folder = tmp_path_factory.mktemp("demo")
    with ExitStack() as stack:
        arguments = {
            "memory": ["--store", "memory://"],
            "sqlite": [],
            "valkey+embedded": ["--store", "valkey+embedded:"],
        }
        if request.param == "redis":
            server = stack.enter_context(Server(server_binaries()["redis"]))
            arguments["redis"] = ["--store", server.url]
        yield stack.enter_context(DemoProcess(folder, arguments[request.param]))
