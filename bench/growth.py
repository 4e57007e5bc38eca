"""Measures what a request costs as the store grows: Coatcheck's /profile with a thousand to a million sessions.

`python -m bench.growth`, from the repository's folder. The sessions are written to Valkey directly, as Coatcheck would
write them: real records, each of another user.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Raw
from rich import box
from rich.console import Console
from rich.table import Table

from bench.peers import load, measure
from bench.peers.comparison import SECRET_KEY, Redis, Running, measure_load, started
from bench.peers.processes import valkey
from bench.peers.stacks import REPOSITORY, STACKS
from bench.peers.visitor import USER_AGENT, Visitor
from coatcheck import CookieConfig, values
from coatcheck import record as records
from coatcheck.stores.redis.commands import DEFAULT_PREFIX
from coatcheck.token import SessionID, TokenSigner
from coatcheck.users import user_tag

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
COOKIES: Final = 4096
"""How many sessions the load uses at most, spread evenly over all of them."""
BATCH: Final = 1000
WARM_UP_S: Final = 1.0
HOUR_MS: Final = 3_600_000
COOKIE_NAME: Final = CookieConfig(secure=False).full_name
CONTENT: Final = {"authenticated": True, "theme": "dark", "visits": 0}


def session_id(number: int) -> SessionID:
    """Give the same ID for the same number, so that none has to be kept."""
    return SessionID(sha256(f"session {number}".encode()).digest())


def record_of(number: int, now_ms: int) -> tuple[str, bytes]:
    """Give the store key and the bytes of a session that has just been logged in."""
    user, key = f"user-{number:06}", session_id(number).store_key
    content = {name: Raw(values.encode(name, value)) for name, value in ({"user": user} | CONTENT).items()}
    login = records.Login(user, now_ms, 0, USER_AGENT, "127.0.0.0")
    record = records.Record(now_ms, now_ms, now_ms, None, login, content)
    return key, records.encode(key, records.new_revision(), record)


def fill(server: Redis, first: int, last: int) -> None:
    """Write the sessions of these numbers."""
    now_ms = int(time.time() * 1000)
    for start in range(first, last, BATCH):
        with server.client.pipeline(transaction=False) as pipeline:
            for number in range(start, min(start + BATCH, last)):
                key, record = record_of(number, now_ms)
                pipeline.set(DEFAULT_PREFIX + key, record, px=HOUR_MS)
            pipeline.execute()


def cookies(size: int) -> list[str]:
    """Give the Cookie headers of sessions that lie spread over all."""
    signer = TokenSigner([SECRET_KEY.encode()], COOKIE_NAME)
    now_s = int(time.time())
    numbers = range(0, size, max(1, size // COOKIES))
    return [f"{COOKIE_NAME}={signer.sign(session_id(n), now_s, user_tag(f'user-{n:06}'))}" for n in numbers]


def check(app: Running, cookie: str) -> None:
    """Ask with the first cookie, so that only requests that find their session are measured. Raises WrongAnswer."""
    visitor = Visitor(app.port, cookie)
    visitor.expect("GET", "/profile", 200, user="user-000000", visits=0)
    visitor.close()


def measure_size(app: Running, server: Redis, size: int, seconds: float, folder: Path) -> dict[str, float]:
    """Measure with the store filled up to a number of sessions."""
    headers = cookies(size)
    check(app, headers[0])
    file = folder / "cookies"
    file.write_text("".join(f"{cookie}\n" for cookie in headers))
    load.put_load(app.port, "/profile", file, WARM_UP_S)
    server_us, calls = measure.server_us(server.client), measure.calls(server.client)
    sample = measure_load(app, "profile", file, seconds, server)
    server_us, calls = measure.server_us(server.client) - server_us, measure.calls(server.client) - calls
    return {
        "sessions": size,
        "requests_per_second": round(sample.requests_per_second),
        "cpu_us": round(sample.cpu_us, 1),
        "redis_us_per_call": round(server_us.total() / calls.total(), 2),
        "redis_commands": round(sum(sample.commands.values()), 3),
        "redis_memory_mb": round(float(server.client.info("memory")["used_memory"]) / 1_000_000, 1),
    }


def show(console: Console, results: list[dict[str, float]]) -> None:
    """Print a table."""
    table = Table(title="/profile as the store grows", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("sessions", "req/s", "CPU µs", "Redis µs/call", "cmds", "Redis MB"):
        table.add_column(heading, justify="right", overflow="fold")
    for each in results:
        table.add_row(*(f"{figure:,}" for figure in each.values()))
    console.print(table)


def main() -> None:
    """Fill, measure, and fill further."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="length of each measurement (default 3)")
    parser.add_argument("--up-to", type=int, default=SIZES[-1], metavar="SESSIONS", help="leave out larger sizes")
    parser.add_argument("--save", type=Path, default=REPOSITORY / "bench" / "results" / "growth.json", metavar="FILE")
    options = parser.parse_args()
    if not load.is_there():
        sys.exit("The load comes from wrk, which is not installed (Debian: apt-get install wrk)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    command = next(stack for stack in STACKS if stack.name == "coatcheck-starlette").prepare()
    results: list[dict[str, float]] = []
    with TemporaryDirectory(prefix="coatcheck-bench-") as folder, valkey() as (client, process):
        server, stored = Redis(client, process), 0
        with console.status("starting") as status, started(command, server) as app:
            for size in (each for each in SIZES if each <= options.up_to):
                status.update(f"{size:,} sessions")
                fill(server, stored, size)
                stored = size
                results.append(measure_size(app, server, size, options.seconds, Path(folder)))
    show(console, results)
    options.save.parent.mkdir(parents=True, exist_ok=True)
    options.save.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; every server has been ended.")
