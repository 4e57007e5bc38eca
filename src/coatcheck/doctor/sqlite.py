"""Looking at an SQLite file, the folder that it is in, and the disk.

A file that is not there, or not yet one of Coatcheck's, is left as it is: the store would make it one. In one that is,
the record that is written has the store sweep some of those that have expired, as every write does.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from coatcheck.doctor.findings import Finding, Report, Status
from coatcheck.doctor.probe import check_latency, check_operations, time_reads
from coatcheck.errors import StoreError
from coatcheck.stores.sqlite import _PRIMARY_CODE, SyncSQLiteStore

_MEGABYTE: Final = 1_000_000
_FREE_WARNING_MB: Final = 500
_FREE_PROBLEM_MB: Final = 20
_CHECKED_WHOLE_MB: Final = 200
"""Files up to that size are read from beginning to end, which takes a second or so."""

_NETWORK_FILESYSTEMS: Final = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"),
        *("fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    )
)
_PASSING_FILESYSTEMS: Final = {
    "overlay": "overlay is the container's own, and goes with it",
    "tmpfs": "tmpfs is in memory",
    "ramfs": "ramfs is in memory",
}

_MOUNTS: Final = Path("/proc/self/mounts")


def examine_sqlite(path: str) -> Report:
    """See `coatcheck.doctor.examine`; the path is the file's."""
    file = Path(path).absolute()
    return Report(str(file), tuple(_findings(file)))


def _findings(file: Path) -> Iterator[Finding]:
    existing = check_file(file)
    yield existing
    yield check_folder(file.parent)
    filesystem = filesystem_of(file.parent, _mounts())
    yield check_filesystem(filesystem)
    yield check_disk(shutil.disk_usage(_nearest(file.parent)).free)
    if not file.exists() or existing.status is Status.PROBLEM:
        return
    yield check_permissions(file)
    content = check_content(file)
    yield content
    if content.status is not Status.OK:
        return
    yield check_damage(file)
    store = SyncSQLiteStore(file)
    try:
        yield check_operations(store, _explain)
        yield check_latency(time_reads(store))
    except StoreError as error:
        finding, advice = _explain(error)
        yield Finding("latency", Status.UNKNOWN, finding, advice)
    finally:
        store.close()


def _explain(error: StoreError) -> tuple[str, str]:
    return str(error), _ANSWERED_503


def _nearest(folder: Path) -> Path:
    """Give the folder, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def check_file(file: Path) -> Finding:
    """Find out whether the file is there, and can be written."""
    if not file.exists():
        advice = "It is made when the first session is stored. If there should be one, look at the path in the URL."
        return Finding("file", Status.NOTE, "the file does not exist yet", advice)
    if not file.is_file():
        return Finding(
            "file", Status.PROBLEM, "this is not a file", "Name a file in the store's URL: sqlite:///folder/file"
        )
    if not os.access(file, os.R_OK | os.W_OK):
        advice = f"Run this as the user that the application runs as; if you did, make the file {_own(file)}."
        return Finding("file", Status.PROBLEM, f"{_user()} may not read and write the file", advice)
    return Finding("file", Status.OK, f"{file.stat().st_size / _MEGABYTE:,.1f} MB, {_user()} may read and write it")


def _own(file: Path) -> str:
    return f"this user's (chown), which is now that of user {file.stat().st_uid}"


def _user() -> str:
    return f"user {os.geteuid()}"


def check_folder(folder: Path) -> Finding:
    """Find folders in which SQLite can't make the two files that it needs beside its own."""
    nearest = _nearest(folder)
    if not os.access(nearest, os.W_OK | os.X_OK):
        advice = "SQLite makes two files beside its own (-wal and -shm). Give the application's user the folder."
        return Finding("folder", Status.PROBLEM, f"{_user()} may not write in {nearest}", advice)
    return Finding("folder", Status.OK, f"{_user()} may write in {nearest}")


def _mounts() -> str:
    try:
        return _MOUNTS.read_text("utf-8", "replace")
    except OSError:
        return ""  # not Linux


def filesystem_of(folder: Path, mounts: str) -> str:
    """Give the kind of filesystem that a folder is on, by the system's table of mounts; "" if it is not in there."""
    kind, depth = "", -1
    resolved = folder.resolve()
    for line in mounts.splitlines():
        fields = line.split(" ")
        point = Path(fields[1].replace("\\040", " "))
        if len(point.parts) >= depth and resolved.is_relative_to(point):
            kind, depth = fields[2], len(point.parts)
    return kind


def check_filesystem(kind: str) -> Finding:
    """Find filesystems on which write-ahead logging fails, or nothing lasts."""
    if not kind:
        advice = (
            "Check by hand that the file is on a disk of this host: write-ahead logging fails on network filesystems."
        )
        return Finding("filesystem", Status.UNKNOWN, "its kind is not visible on this system", advice)
    if kind in _NETWORK_FILESYSTEMS:
        advice = (
            "Write-ahead logging needs memory that all processes share, so on a network filesystem the file gets "
            "damaged. Put it on a disk of the host; for several hosts use Redis or Valkey."
        )
        return Finding("filesystem", Status.PROBLEM, f"{kind} is a network filesystem", advice)
    if kind in _PASSING_FILESYSTEMS:
        advice = (
            "Every user is logged out when it is started anew. Put the file on a disk, or a volume, if that matters."
        )
        return Finding("filesystem", Status.NOTE, _PASSING_FILESYSTEMS[kind], advice)
    return Finding("filesystem", Status.OK, f"{kind}, on this host")


def check_disk(free: int) -> Finding:
    """Find disks that are nearly full, by the bytes that are free."""
    free_mb = free / _MEGABYTE
    finding = f"{free_mb:,.0f} MB free"
    if free_mb >= _FREE_WARNING_MB:
        return Finding("disk", Status.OK, finding)
    advice = "On a full disk new and changed sessions are refused (503). Make room."
    return Finding("disk", Status.PROBLEM if free_mb < _FREE_PROBLEM_MB else Status.WARNING, finding, advice)


def check_permissions(file: Path) -> Finding:
    """Find files that other users of the host can read or change."""
    mode = stat.S_IMODE(file.stat().st_mode)
    advice = f"Sessions are personal data. chmod 600 {file} and the files beside it that end in -wal and -shm."
    if mode & stat.S_IWOTH:
        return Finding("permissions", Status.PROBLEM, f"every user of this host may change it (mode {mode:o})", advice)
    if mode & stat.S_IROTH:
        return Finding("permissions", Status.WARNING, f"every user of this host may read it (mode {mode:o})", advice)
    return Finding("permissions", Status.OK, f"not for every user of this host (mode {mode:o})")


def check_content(file: Path) -> Finding:
    """Read what the file is, and how many sessions are in it, without making it anything else."""
    try:
        with closing(_reading(file)) as database:
            (mode,) = database.execute("PRAGMA journal_mode").fetchone()
            table = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'coatcheck_sessions%' AND sql IS NOT NULL"
            (parts,) = database.execute(table).fetchone()
            if mode != "wal" or not parts:
                advice = "The store makes it one when it first opens it. If there should be sessions, look at the path."
                return Finding("content", Status.NOTE, "not yet a file of Coatcheck's", advice)
            counted = "SELECT count(*), count(*) FILTER (WHERE expires_at_ms > ?) FROM coatcheck_sessions"
            rows, alive = database.execute(counted, (int(time.time() * 1000),)).fetchone()
    except sqlite3.Error as error:
        return _unreadable("content", error)
    return Finding("content", Status.OK, f"{alive:,} records alive, {rows - alive:,} expired and not yet swept")


_ANSWERED_503: Final = "Requests that have a session are answered by 503 while this lasts."
_RESTORE: Final = "Restore the file or move it away, and a new one is made; its users have to log in again."


def _unreadable(check: str, error: sqlite3.Error) -> Finding:
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    is_damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return Finding(check, Status.PROBLEM, f"SQLite can't read it: {error}", _RESTORE if is_damaged else _ANSWERED_503)


def check_damage(file: Path) -> Finding:
    """Let SQLite look for damage, unless the file is so large that this would take long."""
    size_mb = file.stat().st_size / _MEGABYTE
    if size_mb > _CHECKED_WHOLE_MB:
        advice = f"That takes long for {size_mb:,.0f} MB. To do it by hand: sqlite3 {file} 'PRAGMA quick_check'"
        return Finding("damage", Status.UNKNOWN, "not looked for", advice)
    try:
        with closing(_reading(file)) as database:
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return _unreadable("damage", error)
    if answer != "ok":
        return Finding("damage", Status.PROBLEM, " ".join(str(answer).split()), _RESTORE)
    return Finding("damage", Status.OK, "none found")


def _reading(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, isolation_level=None)
