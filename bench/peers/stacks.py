"""The stacks that are compared: how each is named, started, and what it needs to be there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
APPLICATIONS: Final = REPOSITORY / "bench" / "stacks"
BUILT: Final = REPOSITORY / ".bench"
"""What is built or fetched for stacks in other languages. Kept between runs, not committed."""

GO_PATH: Final = Path("/usr/share/gocode")
"""Where Debian puts the sources of Go packages."""

SCENARIOS: Final = ("profile", "visit", "none")
BUILD_S: Final = 300
THREADS: Final = 4
"""Threads of the one gunicorn worker."""


class Missing(Exception):
    """A stack can't run here; the message says what it needs."""


@dataclass(frozen=True)
class Stack:
    """One application on one server."""

    name: str
    title: str
    server: str
    prepare: Callable[[], list[str]]
    """Builds what has to be built and gives the command, in which `{port}` stands for the port. Raises Missing."""
    packages: tuple[str, ...] = ()
    """The Python distributions whose versions are worth knowing; all have to be installed."""
    scenarios: tuple[str, ...] = SCENARIOS
    has_sessions: bool = True


def _python(name: str, title: str, module: str, *packages: str, scenarios: tuple[str, ...] = SCENARIOS) -> Stack:
    def prepare() -> list[str]:
        return [
            sys.executable, "-m", "uvicorn", f"{module}:app", "--app-dir", str(APPLICATIONS),
            "--host", "127.0.0.1", "--port", "{port}",
            "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
        ]  # fmt: skip

    return Stack(name, title, "uvicorn", prepare, packages, scenarios, has_sessions="visit" in scenarios)


def _wsgi(name: str, title: str, module: str, *packages: str) -> Stack:
    def prepare() -> list[str]:
        return [
            sys.executable, "-m", "gunicorn", f"{module}:app", "--chdir", str(APPLICATIONS),
            "--bind", "127.0.0.1:{port}", "--workers", "1", "--worker-class", "gthread", "--threads", str(THREADS),
            "--keep-alive", "30", "--log-level", "warning",
        ]  # fmt: skip

    return Stack(name, title, "gunicorn", prepare, packages)


def _express() -> list[str]:
    """Copy the program to a folder of its own and install its packages there, unless that was done before."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        msg = "needs node and npm"
        raise Missing(msg)
    source, folder = APPLICATIONS / "express", BUILT / "express"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "server.js", folder)
    wanted, installed = (source / "package.json").read_text(), folder / "installed.json"
    if not (installed.exists() and installed.read_text() == wanted):
        shutil.copy(source / "package.json", folder)
        _build(["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"], folder)
        installed.write_text(wanted)
    return ["node", str(folder / "server.js")]


def _gorilla() -> list[str]:
    if shutil.which("go") is None or not (GO_PATH / "src/github.com/boj/redistore").exists():
        msg = "needs the Debian packages golang-go and golang-github-boj-redistore-dev"
        raise Missing(msg)
    BUILT.mkdir(exist_ok=True)
    program = BUILT / "gorilla"
    _build(["go", "build", "-o", str(program), "."], APPLICATIONS / "gorilla", GO111MODULE="off", GOPATH=str(GO_PATH))
    return [str(program)]


def _build(command: list[str], folder: Path, **environment: str) -> None:
    """Run a command that builds or fetches something. Raises Missing when it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False,
            timeout=BUILD_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        msg = f"{command[0]} took longer than {BUILD_S} s"
        raise Missing(msg) from None
    if done.returncode != 0:
        last_line = ((done.stderr or done.stdout).strip().splitlines() or ["no output"])[-1]
        msg = f"{command[0]} failed: {last_line}"
        raise Missing(msg)


STACKS: Final = (
    _python("floor", "No sessions at all", "floor", "starlette", "uvicorn", scenarios=("profile", "none")),
    _python("by-hand", "By hand, the least", "by_hand", "starlette", "uvicorn", "hiredis", "msgspec"),
    _python("coatcheck-starlette", "Coatcheck, Starlette", "coatcheck_starlette", "coatcheck", "starlette", "uvicorn"),
    _wsgi("coatcheck-flask", "Coatcheck, Flask", "coatcheck_flask", "coatcheck", "flask", "gunicorn"),
    _python("starlette-cookie", "Starlette, signed cookie", "starlette_cookie", "starlette", "uvicorn", "itsdangerous"),
    _python("starsessions", "starsessions", "starsessions_redis", "starsessions", "starlette", "uvicorn"),
    _python("fastapi-redis-sdk", "fastapi-redis-sdk", "fastapi_redis", "fastapi-redis-sdk", "fastapi", "uvicorn"),
    _wsgi("flask-session", "Flask-Session", "flask_session_redis", "flask-session", "flask", "gunicorn"),
    _wsgi("django", "Django, cache sessions", "django_cache", "django", "gunicorn"),
    _python("litestar", "Litestar", "litestar_redis", "litestar", "uvicorn"),
    Stack("express-session", "express-session", "Node", _express),
    Stack("gorilla", "gorilla, redistore (Go)", "Go", _gorilla),
)

QUICK: Final = ("floor", "coatcheck-starlette", "starsessions", "gorilla")


def versions(stack: Stack) -> dict[str, str]:
    """Give the versions of what a stack is made of. Raises Missing for a package that is not installed."""
    found = {}
    for package in stack.packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            msg = f"needs the Python package {package} (make bench installs it)"
            raise Missing(msg) from None
    return found
