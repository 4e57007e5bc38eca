"""Puts load on a server with wrk, and reads what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.peers.processes import pinned

CONNECTIONS: Final = 64
SCRIPT: Final = Path(__file__).with_name("load.lua")


class LoadFailed(Exception):
    """wrk is missing, failed, or met answers that were errors."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk gave."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def put_load(port: int, path: str, cookies: Path, seconds: float) -> Load:
    """Ask for a path over and over on all connections, with the cookies of a file in turn.

    Raises:
        LoadFailed: an answer had a status of 400 or more, a connection failed, or wrk did.
    """
    command = [
        "wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{max(1, round(seconds))}s",
        "--timeout", "10s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}/", "--", path, str(cookies),
    ]  # fmt: skip
    done = subprocess.run(
        pinned(command, measured=False), capture_output=True, text=True, check=False, timeout=seconds + 60
    )
    if done.returncode != 0:
        msg = f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}"
        raise LoadFailed(msg)
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Read the line that load.lua writes last. Raises LoadFailed when answers were errors, or there were none."""
    figures = json.loads(output.strip().splitlines()[-1])
    if figures["failed"] or not figures["requests"]:
        msg = f"{figures['failed']} of {figures['requests']} requests failed"
        raise LoadFailed(msg)
    return Load(
        requests=figures["requests"],
        requests_per_second=figures["requests"] / (figures["duration_us"] / 1_000_000),
        p50_ms=figures["p50_us"] / 1000,
        p99_ms=figures["p99_us"] / 1000,
    )


def is_there() -> bool:
    """Tell whether wrk is installed."""
    return shutil.which("wrk") is not None
