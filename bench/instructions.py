"""Counts the machine instructions that a request costs, which are the same on a noisy machine and on a quiet one.

`python -m bench.instructions`, from the repository's folder. The middleware runs around a bare ASGI application, in one
process and without a server, on a real Valkey, and Valgrind counts. A few tens of instructions are noise; one call of a
Python function is some hundreds. They are no times: what misses the processor's caches takes longer than what does not.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Final, cast

import uvloop
from rich import box
from rich.console import Console
from rich.table import Table

from bench.peers.comparison import SECRET_KEY
from bench.peers.interpreter import build
from bench.peers.processes import url_of, valkey
from coatcheck import CookieConfig, Session, Sessions
from coatcheck.asgi import Message, Receive, Scope, Send, SessionMiddleware
from coatcheck.stores.redis import RedisStore
from coatcheck.token import TokenSigner
from coatcheck.users import epoch_key, user_tag

ROUTES: Final = {
    "/none": "no cookie",
    "/profile": "reads",
    "/first": "reads, by a token that the process does not know",
    "/visit": "adds one to a counter",
}
AT_ONCE: Final = 32
"""Requests that run at the same time, and share their commands."""
FEW, MANY = 20, 60
"""How many times so many are run: what the second number costs more is theirs alone, without the start."""


async def application(scope: Scope, _receive: Receive, send: Send) -> None:
    session: Session = scope["session"]
    if scope["path"] in ("/profile", "/first"):
        _ = session.user_id, session["visits"]
    elif scope["path"] == "/visit":
        session.increment("visits")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def run(url: str, path: str, times: int) -> None:
    """Be the process whose instructions are counted."""
    cookie = CookieConfig(secure=False)
    sessions = Sessions(url, secret_keys=[SECRET_KEY], cookie=cookie, user_agent=False, client_address="none")
    tokens = []
    for number in range(AT_ONCE):
        async with sessions.open() as session:
            session.login(f"user-{number:06}")
            session.update({"theme": "dark", "visits": 0})
        tokens.append(session.token.encode())
    app = SessionMiddleware(application, sessions)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(_message: Message) -> None:
        pass

    def scope(token: bytes) -> dict[str, Any]:
        headers = [(b"host", b"localhost"), (b"accept", b"*/*"), (b"user-agent", b"a program")]
        if path != "/none":
            headers.append((b"cookie", cookie.full_name.encode() + b"=" + token))
        return {"type": "http", "method": "GET", "scheme": "http", "path": path, "headers": headers}

    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    for _ in range(times):
        if path == "/first":
            forget(sessions)
        await asyncio.gather(*(app(scope(token), receive, send) for token in tokens))
    await sessions.close()


def forget(sessions: Sessions) -> None:
    """Let a process know no more of its clients than when it started."""
    signer, store = cast("TokenSigner", sessions.lifecycle._tokens), cast("RedisStore", sessions.store)
    signer._recent.clear()
    signer._older.clear()
    for kept in (store._commands.load, epoch_key, user_tag):
        cast("Any", kept).cache_clear()


def counted(url: str, path: str, times: int) -> int:
    """Give the instructions of a whole process."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", sys.executable]
    command += ["-m", "bench.instructions", "--run", url, path, str(times)]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode or found is None:
        sys.exit(f"Valgrind could not count:\n{done.stderr[-2000:]}")
    return int(found[1].replace(",", ""))


def measure(path: str) -> float:
    """Give the instructions of one request."""
    with valkey() as (client, _):
        url = url_of(client)
        return (counted(url, path, MANY) - counted(url, path, FEW)) / (MANY - FEW) / AT_ONCE


def main() -> int:
    """Count, and show."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--run", nargs=3, metavar=("URL", "PATH", "TIMES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        url, path, times = options.run
        uvloop.run(run(url, path, int(times)))
        return 0
    if shutil.which("valgrind") is None:
        sys.exit("The instructions are counted by Valgrind, which is not installed (Debian: apt-get install valgrind)")
    console = Console()
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("route")
    table.add_column("does")
    table.add_column("instructions", justify="right")
    table.add_column("added", justify="right")
    with console.status("counting"):
        counts = {path: measure(path) for path in ROUTES}
    for path, does in ROUTES.items():
        added = counts[path] - counts["/none"]
        table.add_row(path, does, f"{counts[path]:,.0f}", f"{added:,.0f}" if added else "")
    console.print(f"[bold]Instructions of a request[/bold], CPython {sys.version.split()[0]}, {build()}")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
