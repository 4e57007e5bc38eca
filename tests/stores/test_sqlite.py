"""What SQLite adds to the contract: one file for many processes, and what goes wrong with files."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coatcheck import SyncSessions
from coatcheck.errors import ConfigurationError, StoreCorrupted, StoreFull, StoreUnavailable
from coatcheck.stores import sqlite
from coatcheck.stores.protocol import Outcome
from coatcheck.stores.sqlite import SQLiteStore, SyncSQLiteStore
from coatcheck.testing import ManualClock

SECRET_KEY = "a secret key for tests, 32 bytes or more"
HOUR_MS = 3_600_000
RECORD = b"\x01revisionthe rest"
KEY = "00112233445566778899aabbccddeeff00112233"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "sessions.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[SyncSQLiteStore]:
    store = SyncSQLiteStore(path)
    yield store
    store.close()


def run_python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_file_and_its_folders_are_made_for_the_owner_only(store: SyncSQLiteStore, path: Path) -> None:
    assert not path.exists()
    store.create(KEY, RECORD, HOUR_MS)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_relative_path_stays_where_it_was_when_the_store_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SyncSQLiteStore("here.sqlite3")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.create(KEY, RECORD, HOUR_MS)
    assert (tmp_path / "here.sqlite3").exists()
    store.close()


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_a_path_that_is_not_a_file_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError):
        SyncSQLiteStore(path)


def test_a_reader_does_not_wait_for_a_writer(store: SyncSQLiteStore, path: Path) -> None:
    store.create(KEY, RECORD, HOUR_MS)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM coatcheck_sessions")
        assert store.load(KEY) == [RECORD]
        other.execute("ROLLBACK")
    other.close()


def test_writes_that_wait_are_committed_in_one_transaction(path: Path) -> None:
    store = SQLiteStore(path)
    transactions: list[str] = []

    async def run() -> list[bool]:
        await store.create(KEY, RECORD, HOUR_MS)
        writer = store._current._writer
        assert writer is not None
        writer.set_trace_callback(lambda sql: transactions.append(sql) if sql.startswith(("BEGIN", "COMMIT")) else None)
        return await asyncio.gather(*(store.create(f"{number:040x}", RECORD, HOUR_MS) for number in range(100)))

    assert asyncio.run(run()) == [True] * 100
    assert transactions.count("COMMIT") <= 3
    store._current.close()


def test_cancelling_one_write_does_not_harm_its_neighbours(path: Path) -> None:
    store = SQLiteStore(path)

    async def run() -> list[Any]:
        await store.create(KEY, RECORD, HOUR_MS)
        tasks = [asyncio.create_task(store.create(f"{number:040x}", RECORD, HOUR_MS)) for number in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert await store.load(f"{9:040x}") == [RECORD]
        await store.close()
        return results

    results = asyncio.run(run())
    assert isinstance(results.pop(3), asyncio.CancelledError)
    assert results == [True] * 9


def test_threads_that_write_at_once_all_succeed(store: SyncSQLiteStore) -> None:
    results: list[bool] = []

    def write(start: int) -> None:
        results.extend(store.create(f"{number:040x}", RECORD, HOUR_MS) for number in range(start, start + 50))

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 500, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 500


COUNT_IN_A_PROCESS = """
    import sys
    from coatcheck import SyncSessions
    url, key, token = sys.argv[1:]
    sessions = SyncSessions(url, secret_keys=[key])
    for _ in range(100):
        with sessions.open(token) as session:
            session.increment("n")
    sessions.close()
"""


def test_processes_share_the_file_and_lose_nothing(path: Path) -> None:
    url = f"sqlite:///{path}"
    sessions = SyncSessions(url, secret_keys=[SECRET_KEY])
    with sessions.open() as session:
        session["n"] = 0
    command = [sys.executable, "-c", textwrap.dedent(COUNT_IN_A_PROCESS), url, SECRET_KEY, session.token]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    with sessions.open(session.token) as session:
        assert session["n"] == 400
    sessions.close()


def test_processes_that_start_at_once_all_get_the_new_file(path: Path) -> None:
    script = """
        import sys
        from coatcheck.stores.sqlite import SyncSQLiteStore
        sys.stdin.readline()
        store = SyncSQLiteStore(sys.argv[1])
        print(store.create(sys.argv[2] * 40, b"\\x01revision", 3_600_000))
        store.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    processes = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0].strip() for process in processes] == ["True"] * 6


WRITE_UNTIL_KILLED = """
    import sys
    from coatcheck.stores.sqlite import SyncSQLiteStore
    store = SyncSQLiteStore(sys.argv[1])
    for number in range(10_000_000):
        store.create(f"{number:040x}", b"\\x01revision", 3_600_000)
        print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITE_UNTIL_KILLED), str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 500:
            process.kill()
            break
    acknowledged = 500 + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()
    store = SyncSQLiteStore(path)
    assert all(store.load(f"{number:040x}") != [None] for number in range(acknowledged + 1))
    store.close()


def test_after_an_error_the_file_is_still_locked_against_those_who_close_it(store: SyncSQLiteStore, path: Path) -> None:
    store.create(KEY, RECORD, HOUR_MS)

    def fails(connection: sqlite3.Connection, _now_ms: int) -> None:
        connection.execute("nonsense")

    assert store.load(KEY) == [RECORD]
    with pytest.raises(StoreUnavailable):
        store._database().write(fails)
    store.touch(KEY, HOUR_MS)
    assert run_python(LOOK_FROM_OUTSIDE, str(path)).stdout == "1\n"
    store.create("1" * 40, RECORD, HOUR_MS)  # lost, if whoever looked took the write-ahead log away
    assert run_python(LOOK_FROM_OUTSIDE, str(path)).stdout == "2\n"


LOOK_FROM_OUTSIDE = """
    import sqlite3, sys
    connection = sqlite3.connect(sys.argv[1])
    print(connection.execute("SELECT count(*) FROM coatcheck_sessions").fetchone()[0])
    connection.close()
"""


def test_a_file_behind_a_link_is_made_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    store = SyncSQLiteStore(tmp_path / "link")
    store.create(KEY, RECORD, HOUR_MS)
    assert stat.S_IMODE((tmp_path / "file").lstat().st_mode) == 0o600
    store.close()


def test_a_child_process_of_fork_uses_connections_of_its_own(store: SyncSQLiteStore) -> None:
    store.create(KEY, RECORD, HOUR_MS)
    parents = store._database()

    def child() -> None:
        ok = store._database() is not parents and store.load(KEY) == [RECORD]
        ok = ok and store.update(KEY, b"revision", b"\x01newrevisx", HOUR_MS) is Outcome.DONE
        os._exit(0 if ok else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert store.load(KEY) == [b"\x01newrevisx"]


def test_a_threads_connection_is_closed_when_the_thread_ends(store: SyncSQLiteStore) -> None:
    store.create(KEY, RECORD, HOUR_MS)
    used: list[sqlite._Connection] = []

    def read() -> None:
        store.load(KEY)
        used.append(store._current._of_thread.reader)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert used[0].is_closed
    assert not store._current._readers


def test_a_connection_that_lives_as_long_as_python_ends_without_a_word(path: Path) -> None:
    result = run_python(
        """
        import io, sys
        from coatcheck.stores.sqlite import SyncSQLiteStore
        io.kept = SyncSQLiteStore(sys.argv[1])  # this module is taken apart after most others
        io.kept.load("0" * 40)
        """,
        str(path),
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_child_leaves_its_parents_connections_alone_where_python_was_not_told_of_the_fork(path: Path) -> None:
    result = run_python(
        """
        import ctypes, os, sys, threading
        from coatcheck.stores.sqlite import SyncSQLiteStore
        store = SyncSQLiteStore(sys.argv[1])
        store.load("0" * 40)
        has_read, may_end = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: (store.load("0" * 40), has_read.set(), may_end.wait()))
        thread.start()
        has_read.wait()
        if ctypes.PyDLL(None).fork() == 0:  # as servers in C do
            readers = store._current._readers
            store.load("0" * 40)
            os._exit(0 if [reader.is_closed for reader in readers] == [False, False] else 1)
        may_end.set()
        thread.join()
        store.close()
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
        """,
        str(path),
    )
    assert result.returncode == 0, result.stderr


def test_what_a_child_stores_survives_that_its_parent_closes_the_file(path: Path) -> None:
    result = run_python(
        """
        import os, sys
        from coatcheck.stores.sqlite import SyncSQLiteStore
        store, record = SyncSQLiteStore(sys.argv[1]), b"\\x01revision"
        store.create("0" * 40, record, 3_600_000)
        (has_stored, say_stored), (is_closed, say_closed) = os.pipe(), os.pipe()
        if os.fork() == 0:
            store.create("1" * 40, record, 3_600_000)
            os.write(say_stored, b"x")
            os.read(is_closed, 1)
            store.create("2" * 40, record, 3_600_000)
            assert store.load("1" * 40, "2" * 40) == [record] * 2
            os._exit(0)
        os.read(has_stored, 1)
        store.close()
        os.write(say_closed, b"x")
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        assert store.load("0" * 40, "1" * 40, "2" * 40) == [record] * 3
        """,
        str(path),
    )
    assert result.returncode == 0, result.stderr


def test_a_fork_waits_for_the_transaction_of_another_thread(path: Path) -> None:
    result = run_python(
        """
        import os, sys, threading
        from coatcheck.stores.sqlite import SyncSQLiteStore
        store = SyncSQLiteStore(sys.argv[1])
        store.load("0" * 40)
        has_begun, may_end = threading.Event(), threading.Event()
        slow = threading.Thread(target=store._database().write, args=[lambda *_: (has_begun.set(), may_end.wait())])
        slow.start()
        has_begun.wait()
        os.register_at_fork(before=may_end.set)  # the last that is registered is the first to run
        if os.fork() == 0:
            os._exit(0 if store.create("1" * 40, b"\\x01revision", 3_600_000) else 1)
        slow.join()
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        assert store.create("2" * 40, b"\\x01revision", 3_600_000)
        """,
        str(path),
    )
    assert result.returncode == 0, result.stderr


def test_forks_while_threads_read_and_write_harm_neither_side(path: Path) -> None:
    result = run_python(
        """
        import os, sys, threading
        from coatcheck.stores.sqlite import SyncSQLiteStore
        store, record = SyncSQLiteStore(sys.argv[1]), b"\\x01revision" + b"x" * 5_000
        store.create("0" * 40, record, 3_600_000)
        ended, failed = threading.Event(), []
        def work():
            try:
                while not ended.is_set():
                    assert store.load(*["0" * 40] * 20) == [record] * 20
                    assert store.touch("0" * 40, 3_600_000) == record
            except BaseException as error:
                failed.append(error)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(1, 20):
            if os.fork() == 0:
                ok = store.load("0" * 40) == [record] and store.create(f"{number:040x}", record, 3_600_000)
                os._exit(0 if ok else 1)
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        ended.set()
        for thread in threads:
            thread.join()
        assert not failed, failed
        assert store.load(*(f"{number:040x}" for number in range(20))) == [record] * 20
        """,
        str(path),
    )
    assert result.returncode == 0, result.stderr


def test_a_fork_in_the_middle_of_a_write_fails_the_write_and_nothing_else(path: Path) -> None:
    # As the handler of a signal may do, in whatever moment it comes.
    result = run_python(
        """
        import os, sys
        from coatcheck.errors import StoreUnavailable
        from coatcheck.stores.sqlite import SyncSQLiteStore
        store, record, children = SyncSQLiteStore(sys.argv[1]), b"\\x01revision", []
        def interrupted(connection, now_ms):
            children.append(os.fork())
            connection.execute("DELETE FROM coatcheck_sessions")
        store.create("0" * 40, record, 3_600_000)
        try:
            store._database().write(interrupted)
        except StoreUnavailable:
            stored = store.create(f"{min(children[0], 1):040}", record, 3_600_000)  # the child's is there already
        else:
            stored = None
        assert store.load("0" * 40) == [record]
        if children == [0]:
            os._exit(0 if stored is False else 1)
        assert stored and os.waitstatus_to_exitcode(os.wait()[1]) == 0
        """,
        str(path),
    )
    assert result.returncode == 0, result.stderr


# --- what goes wrong with files ---------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_loses_nothing_that_was_acknowledged(path: Path) -> None:
    # A limit on the size of files, set by the kernel, is what a process can be given of a full disk.
    result = run_python(
        """
        import resource, sys
        from coatcheck.errors import StoreUnavailable
        from coatcheck.stores.sqlite import SyncSQLiteStore
        store = SyncSQLiteStore(sys.argv[1])
        record = b"\\x01revision" + b"x" * 10_000
        store.create("0" * 40, record, 3_600_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 2_000_000))
        stored = 1
        try:
            while stored < 1_000:
                store.create(f"{stored:040x}", record, 3_600_000)
                stored += 1
        except StoreUnavailable as error:
            print("said:", error)
        assert all(store.load(f"{number:040x}") == [record] for number in range(stored)), "lost"
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
        store.create("f" * 40, record, 3_600_000)
        print("stored again after", stored)
        """,
        str(path),
    )
    assert result.returncode == 0, result.stderr
    assert "said: " in result.stdout
    assert repr(str(path)) in result.stdout
    assert "stored again after" in result.stdout


def test_a_file_that_may_not_grow_is_full(store: SyncSQLiteStore) -> None:
    store.create(KEY, RECORD, HOUR_MS)
    writer = store._current._writer
    assert writer is not None
    writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreFull, match="no space left"):
        store.create("1" * 40, b"\x01revision" + b"x" * 100_000, HOUR_MS)
    assert store.load(KEY) == [RECORD]
    assert store.create("1" * 40, RECORD, HOUR_MS) is True


def test_a_file_that_another_process_keeps_locked_is_said(
    store: SyncSQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_S", 0.05)
    store.create(KEY, RECORD, HOUR_MS)
    store.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another process"):
        store.update(KEY, b"revision", b"\x01newrevisx", HOUR_MS)
    assert store.load(KEY) == [RECORD]
    other.execute("ROLLBACK")
    other.close()
    assert store.update(KEY, b"revision", b"\x01newrevisx", HOUR_MS) is Outcome.DONE


@pytest.mark.parametrize("content", [b"this is not a database, " * 100, b"SQLite format 3\x00" + b"\xff" * 5_000])
def test_a_file_that_is_not_a_database_is_said_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    store = SyncSQLiteStore(path)
    for call in (lambda: store.load(KEY), lambda: store.create(KEY, RECORD, HOUR_MS)):
        with pytest.raises(StoreCorrupted, match="left as it is"):
            call()
    assert path.read_bytes() == content


def test_a_file_that_is_damaged_while_it_is_used_is_said(store: SyncSQLiteStore, path: Path) -> None:
    for number in range(2_000):
        store.create(f"{number:040x}", RECORD + b"x" * 300, HOUR_MS)
    store.close()
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xa5" * (len(content) - 8192))

    def read_all() -> None:
        for number in range(2_000):
            store.load(f"{number:040x}")

    with pytest.raises(StoreCorrupted, match="damaged"):
        read_all()


def test_a_folder_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SyncSQLiteStore(tmp_path / "file" / "sessions.sqlite3")
    with pytest.raises(StoreUnavailable, match=r"can't open"):
        store.load(KEY)


def test_errors_reach_async_callers_too(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, " * 100)
    store = SQLiteStore(path)

    async def run() -> None:
        for call in (store.load(KEY), store.create(KEY, RECORD, HOUR_MS), store.touch(KEY, HOUR_MS)):
            with pytest.raises(StoreCorrupted):
                await call
        await store.close()

    asyncio.run(run())


def remove(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def in_a_thread(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(call).result()


@pytest.mark.parametrize("by_a_write", [False, True])
@pytest.mark.parametrize("run", [in_a_thread, lambda call: call()], ids=["new thread", "same thread"])
def test_a_file_that_is_removed_is_made_anew_for_the_owner_only(
    path: Path, run: Callable[[Callable[[], Any]], Any], by_a_write: bool
) -> None:
    clock = ManualClock()
    store = SyncSQLiteStore(path, clock=clock)
    store.create(KEY, RECORD, HOUR_MS)
    assert store.load(KEY) == [RECORD]
    remove(path)
    clock.advance(timedelta(seconds=1))
    if by_a_write:
        assert run(lambda: store.create(KEY, RECORD, HOUR_MS)) is True
    else:
        assert run(lambda: store.load(KEY)) == [None]
    assert store.load(KEY) == [RECORD if by_a_write else None]
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert rows(path) == by_a_write
    store.close()


CREATE_IN_A_PROCESS = """
    import sys
    from coatcheck.stores.sqlite import SyncSQLiteStore
    store = SyncSQLiteStore(sys.argv[1])
    assert store.create(sys.argv[2], b"\\x01revisionthe rest", 3_600_000)
    store.close()
"""


def test_who_only_reads_finds_what_another_process_has_put_in_the_files_place(path: Path) -> None:
    clock = ManualClock(time.time())
    store, in_loop = SyncSQLiteStore(path, clock=clock), SQLiteStore(path, clock=clock)
    store.create("1" * 40, RECORD, HOUR_MS)

    async def run() -> None:
        assert await in_loop.load("1" * 40) == store.load("1" * 40) == [RECORD]
        remove(path)
        process = await asyncio.to_thread(run_python, CREATE_IN_A_PROCESS, str(path), KEY)
        assert process.returncode == 0, process.stderr
        clock.advance(timedelta(seconds=1))
        assert await in_loop.load("1" * 40, KEY) == store.load("1" * 40, KEY) == [None, RECORD]
        await in_loop.close()

    asyncio.run(run())
    store.close()


def test_a_damaged_file_that_is_moved_away_is_made_anew(store: SyncSQLiteStore, path: Path) -> None:
    for number in range(300):
        store.create(f"{number:040x}", RECORD + b"x" * 3_000, HOUR_MS)
    store.close()
    assert store.load("f" * 40) == [None]
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xa5" * 4_096 * 100)
    with pytest.raises(StoreCorrupted):
        store.load(f"{0:040x}", f"{150:040x}")
    for file_of_it in path.parent.glob(f"{path.name}*"):
        file_of_it.rename(path.parent / f"moved-{file_of_it.name}")
    assert store.load(KEY) == [None]
    assert store.create(KEY, RECORD, HOUR_MS) is True


@pytest.mark.parametrize("name", ["with space?mode=ro", "100%41", "#1", "é\udcff"], ids=ascii)
def test_the_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    store = SyncSQLiteStore(tmp_path / name)
    store.create(KEY, RECORD, HOUR_MS)
    assert store.load(KEY) == [RECORD]
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == [name]


# --- expiry -----------------------------------------------------------------------------------------------------------


def rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    count: int = connection.execute("SELECT count(*) FROM coatcheck_sessions").fetchone()[0]
    connection.close()
    return count


def test_expired_rows_are_swept_in_small_steps_by_later_writes(path: Path) -> None:
    clock = ManualClock()
    store = SyncSQLiteStore(path, clock=clock)
    for number in range(500):
        store.create(f"{number:040x}", RECORD, 1_000)
    clock.advance(timedelta(minutes=1))
    counts = []
    for number in range(4):
        store.create(f"{number + 1000:040x}", RECORD, HOUR_MS)
        counts.append(rows(path))
    assert counts == [301, 102, 3, 4]
    store.close()


# --- threads and signals ----------------------------------------------------------------------------------------------


def test_closing_while_other_threads_read_crashes_nothing(path: Path) -> None:
    # In a process of its own: what would go wrong is not an exception.
    result = run_python(
        """
        import sys, threading
        from coatcheck.stores.sqlite import SyncSQLiteStore
        store = SyncSQLiteStore(sys.argv[1])
        record = b"\\x01revision" + b"x" * 5_000
        for number in range(200):
            store.create(f"{number:040x}", record, 3_600_000)
        ended = threading.Event()
        def read():
            while not ended.is_set():
                assert store.load(*(f"{number:040x}" for number in range(50))) == [record] * 50
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(30):
            store.close()
        ended.set()
        for thread in threads:
            thread.join()
        """,
        str(path),
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_thread_that_can_not_be_started_fails_its_write_and_no_later_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(path)

    async def run() -> None:
        def refuse() -> Any:
            message = "can't start new thread"
            raise RuntimeError(message)

        with monkeypatch.context() as patched:
            patched.setattr(store._current, "_own_thread", refuse)
            with pytest.raises(StoreUnavailable, match="new thread"):
                await store.create(KEY, RECORD, HOUR_MS)
        assert await store.load(KEY) == [None]
        assert await store.create(KEY, RECORD, HOUR_MS) is True
        await store.close()

    asyncio.run(run())


def test_a_signal_in_the_middle_of_a_commit_acknowledges_nothing_that_was_rolled_back(store: SyncSQLiteStore) -> None:
    store.create(KEY, RECORD, HOUR_MS)
    database = store._database()
    neighbour = sqlite._Write(
        lambda connection, now_ms: sqlite._create("1" * 40, RECORD, HOUR_MS, connection, now_ms), None
    )

    def interrupted(_connection: Any, _now_ms: int) -> None:
        raise KeyboardInterrupt

    database._waiting.append(neighbour)
    with pytest.raises(KeyboardInterrupt):
        database.write(interrupted)
    assert neighbour.is_done
    with pytest.raises(StoreUnavailable):
        neighbour.outcome()
    assert store.load("1" * 40) == [None]
    assert store.create("1" * 40, RECORD, HOUR_MS) is True


def test_a_durable_store_waits_for_the_disk(path: Path) -> None:
    for durable, synchronous in ((False, 1), (True, 2)):
        store = SyncSQLiteStore(path, durable=durable)
        store.touch(KEY, HOUR_MS)
        writer = store._current._writer
        assert writer is not None
        assert writer.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        store.close()


def test_a_store_is_used_again_after_an_error(store: SyncSQLiteStore, path: Path) -> None:
    store.create(KEY, RECORD, HOUR_MS)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("ALTER TABLE coatcheck_sessions RENAME TO away")
    for call in (lambda: store.load(KEY), lambda: store.create("1" * 40, RECORD, HOUR_MS)):
        with pytest.raises(StoreUnavailable):
            call()
    other.execute("ALTER TABLE away RENAME TO coatcheck_sessions")
    other.close()
    assert store.load(KEY) == [RECORD]
    assert store.create("1" * 40, RECORD, HOUR_MS) is True


def test_a_read_does_not_wait_for_writes_when_it_looks_whether_the_file_is_still_there(path: Path) -> None:
    clock = ManualClock()

    async def run() -> None:
        store = SQLiteStore(path, clock=clock)
        await store.create(KEY, RECORD, 60_000)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(store.create("1" * 40, RECORD, 60_000))
        await asyncio.sleep(0)  # from now on the store's own thread waits
        clock.advance(timedelta(seconds=2))
        assert await store.load(KEY) == [RECORD]
        assert not write.done()
        other.execute("ROLLBACK")
        other.close()
        assert await write
        await store.close()

    asyncio.run(run())


def test_a_read_is_done_again_that_the_handler_of_a_signal_has_interrupted_by_a_fork(
    store: SyncSQLiteStore,
) -> None:
    store.create(KEY, RECORD, 60_000)
    assert store.load(KEY) == [RECORD]
    reader = store._current._of_thread.reader

    def execute(*_: object) -> None:
        reader.close()  # as a fork does
        message = "Cannot operate on a closed database."
        raise sqlite3.ProgrammingError(message)

    reader.execute = execute
    assert store.load(KEY) == [RECORD]


def test_a_store_that_nobody_closes_leaves_no_connection_open(path: Path) -> None:
    store = SyncSQLiteStore(path)
    store.create(KEY, RECORD, 60_000)
    assert store.load(KEY) == [RECORD]
    connections = [store._current._writer, store._current._of_thread.reader]
    del store
    gc.collect()
    assert [connection is not None and connection.is_closed for connection in connections] == [True, True]
