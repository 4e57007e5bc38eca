"""`coatcheck demo` as a user starts it: a process, driven over HTTP, on each kind of store."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from form_client import FormClient
from replica_sets import ReplicaSet

from coatcheck.demo.serve import _described

from .conftest import ALICE, BOB, HTML, JSON, DemoProcess, command_environment

pytestmark = pytest.mark.anyio

AT_ONCE = 50


def browser(demo: DemoProcess) -> httpx.AsyncClient:
    return FormClient(base_url=demo.url, headers=HTML, timeout=30)


def children_of(process_id: int) -> list[int]:
    """Give the processes that a process has started and that run still."""
    tasks = Path(f"/proc/{process_id}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


# --- on each kind of store --------------------------------------------------------------------------------------------


def test_demo_on_what_sentinels_name_says_so(running_replica_set: ReplicaSet, tmp_path: Path) -> None:
    with DemoProcess(tmp_path, ["--store", f"{running_replica_set.url}/1"]) as demo:
        said = " ".join(demo.banner.split())
    assert f"by 127.0.0.1:{running_replica_set.sentinels[0].port}, " in said


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("memory://", "memory, ends with the demo"),
        ("sqlite:////var/shop.sqlite3", "SQLite, /var/shop.sqlite3"),
        ("redis://user:hunter2@host/2?password=hunter2", "redis, host:6379, database 2"),
        ("valkeys://user:hunter2@[::1]:7", "valkeys, [::1]:7"),
        ("unix://user:hunter2@/run/valkey.sock?db=1", "unix, /run/valkey.sock"),
        ("redis+sentinel://user:hunter2@a:1,b:2/main/3", "redis+sentinel, main by a:1, b:2, database 3"),
        ("redis+cluster://user:hunter2@a:1,b:2", "redis+cluster, a:1, b:2"),
    ],
)
def test_store_is_described_without_user_and_password(url: str, place: str) -> None:
    assert _described(url, url) == place


async def test_whole_visit_from_login_to_logout(demo: DemoProcess) -> None:
    async with browser(demo) as client:
        refused = await client.get("/settings")
        assert refused.headers["location"] == "/login?next=%2Fsettings"
        welcome = await client.post("/login", data=ALICE, follow_redirects=True)
        assert "Welcome, alice" in welcome.text
        assert "You are logged in." in welcome.text
        await client.post("/settings", data={"theme": "dark", "language": "de"})
        assert 'data-theme="dark"' in (await client.get("/settings")).text
        assert (await client.post("/visit", headers=JSON)).json() == {"visits": 1}
        assert (await client.post("/cart", data={"item": "umbrella"}, headers=JSON)).json() == {"items": ["umbrella"]}
        assert "umbrella" in (await client.get("/cart")).text
        copied = client.cookies["session"]
        goodbye = await client.post("/logout", follow_redirects=True)
        assert "You are logged out." in goodbye.text
        assert (await client.get("/profile")).status_code == 303
    async with browser(demo) as thief:
        assert (await thief.get("/profile", headers={"Cookie": f"session={copied}"})).status_code == 303


async def test_two_browsers_have_two_sessions(demo: DemoProcess) -> None:
    async with browser(demo) as one, browser(demo) as other:
        await one.post("/login", data=ALICE)
        await other.post("/login", data=BOB)
        await one.post("/cart", data={"item": "hat"})
        mine = (await one.get("/profile", headers=JSON)).json()
        others = (await other.get("/profile", headers=JSON)).json()
        assert (mine["username"], others["username"]) == ("alice", "bob")
        assert mine["handle"] != others["handle"]
        assert (await other.get("/cart", headers=JSON)).json() == {"items": []}


async def test_nothing_is_lost_of_fifty_requests_of_one_session_at_once(demo: DemoProcess) -> None:
    async with browser(demo) as client:
        await client.post("/login", data=ALICE)
        items = [f"item {number}" for number in range(AT_ONCE)]
        answers = await asyncio.gather(
            *(client.post("/cart", data={"item": item}, headers=JSON) for item in items),
            *(client.post("/visit", headers=JSON) for _ in items),
            client.post("/settings", data={"theme": "dark", "language": "pl"}),
        )
        assert {answer.status_code for answer in answers} == {200, 303}
        assert sorted((await client.get("/cart", headers=JSON)).json()["items"]) == sorted(items)
        numbers = [answer.json()["visits"] for answer in answers[AT_ONCE:-1]]
        assert max(numbers) == AT_ONCE
        assert (await client.post("/visit", headers=JSON)).json() == {"visits": AT_ONCE + 1}
        assert 'data-theme="dark"' in (await client.get("/profile")).text


async def test_answer_names_no_server_software(demo: DemoProcess) -> None:
    async with browser(demo) as client:
        assert "server" not in (await client.get("/")).headers


# --- starting again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_restart_on_sqlite_leaves_everybody_logged_in(tmp_path: Path, number: signal.Signals) -> None:
    with DemoProcess(tmp_path) as first:
        async with browser(first) as client:
            await client.post("/login", data=ALICE)
            await client.post("/cart", data={"item": "umbrella"})
            token = client.cookies["session"]
        first.stop(number)
    with DemoProcess(tmp_path) as second:
        async with httpx.AsyncClient(base_url=second.url, cookies={"session": token}, headers=JSON) as client:
            assert (await client.get("/profile")).json()["username"] == "alice"
            assert (await client.get("/cart")).json() == {"items": ["umbrella"]}


async def test_restart_on_another_secret_key_logs_nobody_in(tmp_path: Path) -> None:
    with DemoProcess(tmp_path, COATCHECK_SECRET_KEYS="a" * 32) as first:
        async with browser(first) as client:
            await client.post("/login", data=ALICE)
            token = client.cookies["session"]
    assert not (tmp_path / ".coatcheck" / "secret").exists()
    with DemoProcess(tmp_path, COATCHECK_SECRET_KEYS="b" * 32) as second:
        async with httpx.AsyncClient(base_url=second.url, cookies={"session": token}, headers=JSON) as client:
            assert (await client.get("/profile")).status_code == 401
    with DemoProcess(tmp_path, COATCHECK_SECRET_KEYS=f" {'c' * 32} , {'a' * 32}") as third:
        async with httpx.AsyncClient(base_url=third.url, cookies={"session": token}, headers=JSON) as client:
            assert (await client.get("/profile")).json()["username"] == "alice"


async def test_folder_is_for_its_owner_alone_and_for_no_repository(tmp_path: Path) -> None:
    with DemoProcess(tmp_path) as demo:
        async with browser(demo) as client:
            await client.post("/login", data=ALICE)
    folder = tmp_path / ".coatcheck"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.iterdir())
    assert {file.name for file in folder.iterdir()} <= {
        ".gitignore", "secret", "sessions.sqlite3", "sessions.sqlite3-wal", "sessions.sqlite3-shm",
    }  # fmt: skip


def test_memory_and_embedded_valkey_leave_nothing_in_the_folder(tmp_path: Path) -> None:
    for store in ("memory://", "valkey+embedded:"):
        with DemoProcess(tmp_path, ["--store", store]) as demo:
            assert demo.url
        assert list(tmp_path.iterdir()) == []


# --- stopping ---------------------------------------------------------------------------------------------------------


def _what_is_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Give a folder whose path leaves room for that of a Unix socket, which has 107 characters at most."""
    with TemporaryDirectory(prefix="coatcheck-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_embedded_valkey_ends_with_the_demo(tmp_path: Path, temporary: Path, number: signal.Signals) -> None:
    with DemoProcess(tmp_path, ["--store", "valkey+embedded:"], TMPDIR=str(temporary)) as demo:
        (valkey,) = children_of(demo.process.pid)
        async with browser(demo) as client:
            await client.post("/login", data=ALICE)
        (folder,) = _what_is_in(temporary)
        assert folder.stat().st_mode & 0o077 == 0
        assert demo.stop(number) == 0
        outlived = is_running(valkey)
        if outlived:
            os.kill(valkey, signal.SIGKILL)
        assert not outlived
    assert _what_is_in(temporary) == []


async def test_demo_ends_though_a_client_keeps_its_connection(demo: DemoProcess, tmp_path: Path) -> None:
    del demo  # one more process beside it
    with DemoProcess(tmp_path, ["--store", "memory://"]) as another:
        async with browser(another) as client:
            await client.get("/")
            assert another.stop() == 0


# --- what can go wrong ------------------------------------------------------------------------------------------------


def refused(folder: Path, *arguments: str, **environment: str) -> str:
    """Run a demo that can't start, and give what it says."""
    result = subprocess.run(
        [sys.executable, "-m", "coatcheck", "demo", *arguments],
        cwd=folder, env=command_environment(**environment), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def test_port_that_is_taken_is_said_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = refused(tmp_path, "--port", str(other.getsockname()[1]), "--store", "valkey+embedded:")
    assert "in use" in said
    assert "--port" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("nonsense", "valkey+embedded:"),
        ("http://localhost", "redis://"),
        ("valkey+embedded:7", "valkey+embedded:"),
        ("sqlite://host/file", "sqlite:///"),
        ("memory://x", "memory://"),
        ("redis://127.0.0.1:1/0", "can't be used"),
        ("sqlite:////proc/nowhere/file", "can't be used"),
        ("", "redis://"),
    ],
)
def test_store_that_can_not_be_used_is_said(tmp_path: Path, store: str, expected: str) -> None:
    assert expected in refused(tmp_path, "--port", "0", "--store", store)


def test_password_of_a_store_is_never_said(tmp_path: Path) -> None:
    said = refused(tmp_path, "--port", "0", "--store", "redis://:hunter2@127.0.0.1:1/0")
    assert "hunter2" not in said
    said = refused(tmp_path, "--port", "0", "--store", "redis://:hunter2@127.0.0.1:port/0")
    assert "hunter2" not in said


@pytest.mark.parametrize("keys", ["", " , ", "short"])
def test_secret_keys_that_can_not_work_are_said(tmp_path: Path, keys: str) -> None:
    said = refused(tmp_path, "--port", "0", "--store", "memory://", COATCHECK_SECRET_KEYS=keys)
    assert "keygen" in said
    assert keys.strip() == "" or "short" not in said


def test_damaged_secret_is_said_and_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / ".coatcheck"
    folder.mkdir()
    (folder / "secret").write_text("half a k")
    assert ".coatcheck/secret" in refused(tmp_path, "--port", "0")
    assert (folder / "secret").read_text() == "half a k"


def test_folder_that_is_not_one_is_said(tmp_path: Path) -> None:
    (tmp_path / ".coatcheck").write_text("a file")
    assert ".coatcheck" in refused(tmp_path, "--port", "0")
