"""The doctor at SQLite files, and at the memory of a process."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from coatcheck.doctor import Finding, Status, examine
from coatcheck.doctor import sqlite as checks
from coatcheck.errors import ConfigurationError
from coatcheck.stores.sqlite import SyncSQLiteStore
from coatcheck.testing import ManualClock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store's file with one session that lives."""
    path = tmp_path / "sessions.sqlite3"
    store = SyncSQLiteStore(path)
    store.create("a", b"\x00" * 40, 1_000_000)
    store.close()
    return path


def findings(file: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(f"sqlite:///{file}").findings}


def content(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return list(database.iterdump())


def test_healthy_file_has_no_findings_and_is_left_as_it_is(file: Path) -> None:
    before = content(file)
    found = findings(file)
    worse = {name for name, finding in found.items() if finding.status is not Status.OK}
    assert worse <= {"filesystem", "disk", "latency"}  # those are this machine's
    assert set(found) == {
        *("file", "folder", "filesystem", "disk", "permissions", "content", "damage", "operations", "latency"),
    }
    assert content(file) == before


def test_missing_file_is_not_made(tmp_path: Path) -> None:
    found = findings(tmp_path / "folder" / "sessions.sqlite3")
    assert found["file"].status is Status.NOTE
    assert "operations" not in found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("statement", ["CREATE TABLE other (x)", "PRAGMA user_version = 1"])
def test_file_of_something_else_is_not_made_one_of_ours(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
    before = path.read_bytes()
    found = findings(path)
    assert found["content"].status is Status.NOTE
    assert "operations" not in found
    assert path.read_bytes() == before


def test_file_that_is_no_database_is_a_problem_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"not a database, whatever its name" * 100)
    before = path.read_bytes()
    found = findings(path)["content"]
    assert found.status is Status.PROBLEM
    assert "Restore" in found.advice
    assert path.read_bytes() == before


def test_file_that_is_locked_is_not_taken_for_damaged(file: Path) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("DELETE FROM coatcheck_sessions")
        found = checks.check_content(file)
    assert found.status is Status.PROBLEM
    assert "Restore" not in found.advice


def test_folder_is_not_taken_for_a_file(tmp_path: Path) -> None:
    found = findings(tmp_path)
    assert found["file"].status is Status.PROBLEM
    assert "operations" not in found


def test_damage_inside_is_found(file: Path) -> None:
    store = SyncSQLiteStore(file)
    for number in range(500):
        store.create(f"key{number}", bytes(1000), 1_000_000)
    store.close()
    with file.open("r+b") as opened:
        opened.seek(4096 * 20)
        opened.write(b"\xff" * 4096)
    assert findings(file)["damage"].status is Status.PROBLEM


def test_name_in_a_file_that_somebody_else_wrote_is_shown_harmlessly(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA writable_schema = 1")
        name = "\x1b]0;all is well\x07"
        row = ("index", name, "coatcheck_sessions", 0, "CREATE garbage")
        database.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
        database.commit()
    found = findings(file)["content"]
    assert found.status is Status.PROBLEM
    assert r"\x1b]0;all is well\x07" in found.finding


@pytest.mark.parametrize(
    ("mode", "status"), [(0o600, Status.OK), (0o640, Status.OK), (0o644, Status.WARNING), (0o666, Status.PROBLEM)]
)
def test_file_that_every_user_may_read_is_told(file: Path, mode: int, status: Status) -> None:
    file.chmod(mode)
    found = findings(file)["permissions"]
    assert found.status is status
    assert status is Status.OK or "chmod 600" in found.advice


def test_user_who_may_not_write_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who may everything, so the system's answer is replaced."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert checks.check_file(file).status is Status.PROBLEM
    assert checks.check_folder(file.parent).status is Status.PROBLEM


def test_records_are_counted_alive_and_expired(file: Path) -> None:
    long_ago = SyncSQLiteStore(file, clock=ManualClock(time.time() - 1000))
    for number in range(3):
        long_ago.create(f"old{number}", b"\x00" * 40, 1)
    long_ago.close()
    assert "1 records alive, 3 expired" in findings(file)["content"].finding


MOUNTS = """\
tmpfs /home/me/fast\\040disk tmpfs rw 0 0
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home2 xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind", "status"),
    [
        ("/var/lib/shop", "ext4", Status.OK),
        ("/home2/shop", "xfs", Status.OK),
        ("/home/me", "nfs4", Status.PROBLEM),
        ("/home/me/fast disk/shop", "tmpfs", Status.NOTE),
    ],
)
def test_filesystems_that_write_ahead_logging_fails_on_are_found(folder: str, kind: str, status: Status) -> None:
    assert checks.filesystem_of(Path(folder), MOUNTS) == kind
    assert checks.check_filesystem(kind).status is status


def test_filesystem_that_can_not_be_seen_is_unknown() -> None:
    assert checks.filesystem_of(Path("/"), "") == ""
    assert checks.check_filesystem("").status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("free", "status"), [(10**9, Status.OK), (10**8, Status.WARNING), (10**7, Status.PROBLEM), (0, Status.PROBLEM)]
)
def test_disk_that_runs_out_is_told(free: int, status: Status) -> None:
    assert checks.check_disk(free).status is status


def test_memory_is_said_to_be_of_one_process() -> None:
    report = examine("memory://")
    assert report.worst is Status.WARNING
    assert "one process" in report.findings[0].finding


@pytest.mark.parametrize("url", ["memory://", "sqlite:///x"])
def test_prefix_is_refused_where_keys_have_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        examine(url, prefix="shop:")
