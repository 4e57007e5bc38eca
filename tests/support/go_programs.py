"""Builds Go programs for tests, with Go's own libraries for sessions (Debian: golang-github-boj-redistore-dev)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

LIBRARIES = Path("/usr/share/gocode")


def build(source: Path, folder: Path) -> Path:
    """Build a program; skip the test, and say so, where Go or the libraries are missing."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    if not (LIBRARIES / "src/github.com/boj/redistore").is_dir():
        pytest.skip("golang-github-boj-redistore-dev is not installed")
    program = folder / source.stem
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(LIBRARIES), "GOCACHE": str(folder / "cache")}
    subprocess.run(["go", "build", "-o", program, source], check=True, env=environment, timeout=110)
    return program
