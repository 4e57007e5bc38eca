"""What the tests of all old systems share: a browser, the new application, and a Valkey for the old sessions."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from httpx_browser import Browser, Kind, NewShop
from servers import Server

OpenShop = Callable[..., NewShop]


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def open_shop(kind: Kind, browser: Browser) -> Iterator[OpenShop]:
    """Opens the new application with an adopter, for the browser."""
    with ExitStack() as stack:

        def open_one(adopter: Any, **settings: Any) -> NewShop:
            shop = NewShop(kind, browser, adopter, **settings)
            stack.callback(shop.close)
            return shop

        yield open_one


@pytest.fixture
def old_redis(running_servers: dict[str, Server]) -> Server:
    """An empty Valkey for the old sessions."""
    server = running_servers["valkey"]
    with redis.Redis(port=server.port) as client:
        client.flushall()
    return server


@pytest.fixture
def old_keys(old_redis: Server) -> Iterator[Callable[[], list[str]]]:
    """Tells which keys the old sessions have."""
    with redis.Redis(port=old_redis.port) as client:
        yield lambda: sorted(key.decode() for key in client.keys("*"))


@contextmanager
def running(command: list[str | Path], folder: Path) -> Iterator[str]:
    """Run a server that says on its first line where it listens."""
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, "the server ended before it listened"
            yield address
        finally:
            process.kill()


@pytest.fixture
def run_server(tmp_path: Path) -> Iterator[Callable[..., str]]:
    with ExitStack() as stack:
        yield lambda *command, cwd=tmp_path: stack.enter_context(running(list(command), cwd))
