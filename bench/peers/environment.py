"""What a run was made on and with, without which its figures say little."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis

from bench.peers.comparison import Plan
from bench.peers.interpreter import build
from bench.peers.load import CONNECTIONS
from bench.peers.processes import cores
from bench.peers.stacks import APPLICATIONS, STACKS, THREADS, Stack, versions


def describe(
    plan: Plan, busy: float, measured: Sequence[Stack], skipped: Mapping[str, str], client: redis.Redis
) -> dict[str, Any]:
    """Give what belongs beside the results. `busy` is the machine's load average before the run."""
    packages: dict[str, str] = {}
    for stack in measured:
        packages |= versions(stack)
    return {
        "plan": asdict(plan) | {"connections": CONNECTIONS, "gunicorn_threads": THREADS},
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "load_before": round(busy, 2),
            "application_has_a_core_of_its_own": cores() is not None,
            "python": build(),
        },
        "versions": dict(sorted((packages | versions_of_tools(client)).items())),
        "skipped": {stack.title: skipped[stack.name] for stack in STACKS if stack.name in skipped},
    }


def versions_of_tools(client: redis.Redis) -> dict[str, str]:
    """Give the versions of what is not a Python package."""
    node_packages = (APPLICATIONS / "express" / "package.json").read_text()
    named = {
        "python": platform.python_version(),
        **{package: version(package) for package in ("hiredis", "httptools", "uvloop")},
        "redis-py": version("redis"),
        "valkey": str(client.info("server").get("valkey_version", "")),
        "wrk": _output("wrk", "--version"),
        "go": _output("go", "version"),
        "node": _output("node", "--version"),
        "redistore": _output("dpkg-query", "--show", "--showformat", "${Version}", "golang-github-boj-redistore-dev"),
    }
    named = {name: _number(text) for name, text in named.items() if text}
    return named | {f"{name} (npm)": number for name, number in re.findall(r'"([\w-]+)": "([\d.]+)"', node_packages)}


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip()


def _number(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+[^\s\]]*", text)
    return found.group() if found else text


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else platform.machine()
