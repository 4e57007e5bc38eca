"""Sessions in one SQLite file, shared by all threads and processes of a host.

Write-ahead logging lets readers go on while somebody writes, and a read takes a few microseconds, so it runs where it
is called. Writes are gathered: one thread at a time commits all that wait in one transaction. From sync code that is
the first of the waiting threads, from asyncio a thread of the store's own, so that the event loop never waits for the
disk.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakSet

from coatcheck.errors import ConfigurationError, StoreCorrupted, StoreError, StoreFull, StoreUnavailable
from coatcheck.stores.protocol import Outcome, WriteResult

T = TypeVar("T")

_SCHEMA: Final = (
    """
    CREATE TABLE IF NOT EXISTS coatcheck_sessions (
        key TEXT NOT NULL PRIMARY KEY,
        expires_at_ms INTEGER NOT NULL,
        record BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS coatcheck_sessions_by_expiry ON coatcheck_sessions (expires_at_ms)",
)

_LOAD: Final = "SELECT record FROM coatcheck_sessions WHERE key = ? AND expires_at_ms > ?"
_CREATE: Final = """
    INSERT INTO coatcheck_sessions (key, expires_at_ms, record) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET expires_at_ms = excluded.expires_at_ms, record = excluded.record
    WHERE coatcheck_sessions.expires_at_ms <= ?
"""
# The revision is bytes 2 to 9 of a record, as SQL counts them: coatcheck.record.REVISION.
_UPDATE: Final = """
    UPDATE coatcheck_sessions SET expires_at_ms = ?, record = ?
    WHERE key = ? AND expires_at_ms > ? AND substr(record, 2, 8) = ?
"""
_TOUCH: Final = "UPDATE coatcheck_sessions SET expires_at_ms = ? WHERE key = ? AND expires_at_ms > ?"
_DELETE: Final = "DELETE FROM coatcheck_sessions WHERE key = ?"
_SWEEP: Final = """
    DELETE FROM coatcheck_sessions
    WHERE key IN (SELECT key FROM coatcheck_sessions WHERE expires_at_ms <= ? LIMIT ?)
"""

_SWEEP_STEP: Final = 200
"""How many expired rows one transaction removes at most, so that none takes long."""

_SWEEP_EVERY_MS: Final = 10_000

_MAX_BATCH: Final = 512
"""How many writes one transaction takes at most."""

_BUSY_TIMEOUT_S: Final = 5.0
"""How long a write waits for another process's transaction."""

_WAL_ATTEMPTS: Final = 100
_WAL_PAUSE_S: Final = _BUSY_TIMEOUT_S / _WAL_ATTEMPTS

_PRIMARY_CODE: Final = 0xFF
"""The part of an SQLite error code that says its kind (https://sqlite.org/rescode.html)."""

_Work: TypeAlias = Callable[[sqlite3.Connection, int], T]
"""A write: is given the connection, inside a transaction, and the time in milliseconds."""


class _Connection(sqlite3.Connection):
    """A connection that can be kept track of without keeping it."""

    __slots__ = ("__weakref__",)


class _Write:
    """A write that waits for its transaction."""

    __slots__ = ("answer", "error", "is_done", "result", "work")

    def __init__(self, work: _Work[Any], answer: asyncio.Future[Any] | None) -> None:
        self.work = work
        self.answer = answer
        self.result: Any = None
        self.error: StoreError | None = None
        self.is_done = False

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result

    def deliver(self) -> None:
        """Tell the task that waits. Runs in its event loop."""
        if self.answer is None or self.answer.done():  # cancelled meanwhile
            return
        if self.error is not None:
            self.answer.set_exception(self.error)
        else:
            self.answer.set_result(self.result)


class _Database:
    """The connections of one process to one file."""

    def __init__(self, path: Path, clock: Callable[[], float], *, durable: bool) -> None:
        self._path = path
        self._clock = clock
        self._durable = durable
        self.process = os.getpid()
        self._readers: WeakSet[_Connection] = WeakSet()
        self._of_thread = threading.local()
        self._opening = threading.Lock()
        self._committing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._waiting: deque[_Write] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._is_scheduled = False
        self._next_sweep_ms = 0

    # --- reading ----------------------------------------------------------------------------------------------

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        try:
            reader: sqlite3.Connection = self._of_thread.reader
        except AttributeError:
            reader = self._open_reader()
        try:
            now_ms = self._now_ms()
            rows = [reader.execute(_LOAD, (key, now_ms)).fetchone() for key in keys]
        except sqlite3.Error as error:
            del self._of_thread.reader  # the next read opens a new connection
            raise self._store_error(error) from error
        return [None if row is None else row[0] for row in rows]

    def _open_reader(self) -> sqlite3.Connection:
        with self._translated_errors(), self._opening:
            if self._writer is None:
                self._writer = self._connect_writer()
            reader = self._connect()
            self._of_thread.reader = reader
            self._readers.add(reader)
            return reader

    # --- writing ----------------------------------------------------------------------------------------------

    def write(self, work: _Work[T]) -> T:
        """Carry a write out, in this thread unless another one is at it and takes it along."""
        write = _Write(work, None)
        self._waiting.append(write)
        while not write.is_done:
            with self._committing:
                self._commit_waiting()
        return write.outcome()  # type: ignore[no-any-return]

    async def write_in_thread(self, work: _Work[T]) -> T:
        """Carry a write out in the store's own thread."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Write(work, answer))
        if not self._is_scheduled:
            self._is_scheduled = True
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "coatcheck-sqlite")
            self._thread.submit(self._commit_scheduled)
        return await answer

    def _commit_scheduled(self) -> None:
        self._is_scheduled = False  # from here on, what is added has a new turn
        while self._waiting:
            with self._committing:
                self._commit_waiting()

    def _commit_waiting(self) -> None:
        """Commit what waits in one transaction. The caller holds `_committing`."""
        batch: list[_Write] = []
        while self._waiting and len(batch) < _MAX_BATCH:
            batch.append(self._waiting.popleft())
        if not batch:
            return
        try:
            self._commit(batch)
        except Exception as error:  # noqa: BLE001 (whoever waits must be told, whatever went wrong)
            self._drop_writer()
            for write in batch:
                write.error = self._store_error(error)
                write.error.__cause__ = error
        finally:
            for write in batch:
                write.is_done = True
            _deliver(batch)

    def _commit(self, batch: list[_Write]) -> None:
        writer = self._writer
        if writer is None:
            with self._opening:
                writer = self._writer = self._writer or self._connect_writer()
        now_ms = self._now_ms()
        writer.execute("BEGIN IMMEDIATE")
        for write in batch:
            write.result = write.work(writer, now_ms)
        if now_ms >= self._next_sweep_ms:
            swept = writer.execute(_SWEEP, (now_ms, _SWEEP_STEP)).rowcount
            self._next_sweep_ms = now_ms if swept == _SWEEP_STEP else now_ms + _SWEEP_EVERY_MS
        writer.execute("COMMIT")

    def _drop_writer(self) -> None:
        """Close the writing connection, which rolls its transaction back. The next write opens a new one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    # --- opening and closing ----------------------------------------------------------------------------------

    def _connect_writer(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Sessions are personal data, so nobody but the owner gets to read a new file.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            msg = f"The SQLite store can't open {str(self._path)!r}: {error.strerror}"
            raise StoreUnavailable(msg) from error
        writer = self._connect()
        try:
            self._enter_wal_mode(writer)
            writer.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            if (
                writer.execute("SELECT 1 FROM sqlite_schema WHERE name = 'coatcheck_sessions_by_expiry'").fetchone()
                is None
            ):
                for statement in _SCHEMA:
                    writer.execute(statement)
        except BaseException:
            writer.close()
            raise
        return writer

    def _enter_wal_mode(self, writer: sqlite3.Connection) -> None:
        # While another process does the same, SQLite answers "locked" at once rather than after the busy timeout.
        attempts_left = _WAL_ATTEMPTS
        mode = None
        while mode is None:
            try:
                (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                attempts_left -= 1
                if _primary_code(error) != sqlite3.SQLITE_BUSY or not attempts_left:
                    raise
                time.sleep(_WAL_PAUSE_S)
        if mode != "wal":
            msg = (
                f"The SQLite store needs write-ahead logging, which {str(self._path)!r} does not allow (mode {mode!r})"
            )
            raise StoreUnavailable(msg)

    def _connect(self) -> _Connection:
        return sqlite3.connect(
            self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, factory=_Connection
        )

    def close(self) -> None:
        """Close every connection of this process, after the writes that are under way."""
        with self._committing, self._opening:
            self._drop_writer()
            for reader in list(self._readers):
                reader.close()
            self._readers.clear()
            self._of_thread = threading.local()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)

    # --- the rest ---------------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._store_error(error) from error

    def _store_error(self, error: Exception) -> StoreError:
        """Say what an error of SQLite means for whoever runs the application."""
        if isinstance(error, StoreError):
            return type(error)(str(error))
        name = repr(str(self._path))
        code = _primary_code(error)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return StoreCorrupted(
                f"The SQLite file {name} is damaged or not a database: {error}. It is left as it is; "
                "restore it or move it away, and a new one is made"
            )
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(f"There is no space left for the SQLite file {name}: {error}. What it holds is intact")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreUnavailable(
                f"The SQLite file {name} was locked by another process for more than {_BUSY_TIMEOUT_S:g} s"
            )
        return StoreUnavailable(f"The SQLite file {name} can't be used: {type(error).__name__}: {error}")


def _primary_code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & _PRIMARY_CODE


def _deliver(batch: list[_Write]) -> None:
    """Tell the tasks that wait, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
    for write in batch:
        if write.answer is not None:
            by_loop.setdefault(write.answer.get_loop(), []).append(write)
    for loop, writes in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver_all, writes)
        except RuntimeError:
            continue  # that loop is closed, and nobody in it waits any more


def _deliver_all(writes: list[_Write]) -> None:
    for write in writes:
        write.deliver()


# --- the writes -------------------------------------------------------------------------------------------------------


def _create(key: str, record: bytes, ttl_ms: int, connection: sqlite3.Connection, now_ms: int) -> bool:
    return connection.execute(_CREATE, (key, now_ms + ttl_ms, record, now_ms)).rowcount == 1


def _update(  # noqa: PLR0913, PLR0917 (what SyncStore.update takes, and what a write is given)
    key: str, revision: bytes, record: bytes, ttl_ms: int, connection: sqlite3.Connection, now_ms: int
) -> WriteResult:
    if connection.execute(_UPDATE, (now_ms + ttl_ms, record, key, now_ms, revision)).rowcount == 1:
        return Outcome.DONE
    row = connection.execute(_LOAD, (key, now_ms)).fetchone()
    return Outcome.GONE if row is None else row[0]


def _touch(key: str, ttl_ms: int, connection: sqlite3.Connection, now_ms: int) -> bytes | None:
    if connection.execute(_TOUCH, (now_ms + ttl_ms, key, now_ms)).rowcount == 0:
        return None
    return connection.execute(_LOAD, (key, now_ms)).fetchone()[0]  # type: ignore[no-any-return]


def _delete(key: str, connection: sqlite3.Connection, now_ms: int) -> bytes | None:
    row = connection.execute(_LOAD, (key, now_ms)).fetchone()
    if row is None:
        return None
    connection.execute(_DELETE, (key,))
    return row[0]  # type: ignore[no-any-return]


# --- the stores -------------------------------------------------------------------------------------------------------


class _Store:
    """Finds this process's connections: those of a parent process must not be used after a fork."""

    def __init__(
        self, path: str | os.PathLike[str], *, durable: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        if str(path) in ("", ":memory:"):
            msg = f"The SQLite store needs the path of a file, got {str(path)!r}"
            raise ConfigurationError(msg)
        # Made absolute now: the application may change its working directory later.
        self._open = partial(_Database, Path(path).absolute(), clock, durable=durable)
        self._current = self._open()
        self._left_behind: list[_Database] = []

    def _database(self) -> _Database:
        database = self._current
        if database.process != os.getpid():
            # Kept, because collecting them would close the parent's connections from here, which SQLite forbids.
            self._left_behind.append(database)
            database = self._current = self._open()
        return database


class SyncSQLiteStore(_Store):
    """Keeps sessions in an SQLite file, for threads.

    Args:
        path: the file. It and its folders are made when first needed, readable by the owner only.
        durable: wait for the disk at every commit, so that even a power failure loses nothing that was acknowledged.
            Without it, nothing is lost when the process or the application dies.
        clock: gives the time in seconds since the epoch. For tests.
    """

    def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`."""
        return self._database().read(keys)

    def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        return self._database().write(partial(_create, key, record, ttl_ms))

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        return self._database().write(partial(_update, key, revision, record, ttl_ms))

    def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return self._database().write(partial(_touch, key, ttl_ms))

    def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return self._database().write(partial(_delete, key))

    def reset(self) -> None:
        """See `SyncStore.reset`."""
        self._database().close()

    def close(self) -> None:
        """See `SyncStore.close`."""
        self._database().close()


class SQLiteStore(_Store):
    """Keeps sessions in an SQLite file, for asyncio. See `SyncSQLiteStore` for the arguments."""

    async def load(self, *keys: str) -> list[bytes | None]:
        """See `SyncStore.load`. Reads in place: handing it to a thread would take ten times as long as the read."""
        return self._database().read(keys)

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        """See `SyncStore.create`."""
        return await self._database().write_in_thread(partial(_create, key, record, ttl_ms))

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        """See `SyncStore.update`."""
        return await self._database().write_in_thread(partial(_update, key, revision, record, ttl_ms))

    async def touch(self, key: str, ttl_ms: int) -> bytes | None:
        """See `SyncStore.touch`."""
        return await self._database().write_in_thread(partial(_touch, key, ttl_ms))

    async def delete(self, key: str) -> bytes | None:
        """See `SyncStore.delete`."""
        return await self._database().write_in_thread(partial(_delete, key))

    async def reset(self) -> None:
        """See `SyncStore.reset`."""
        self._database().close()

    async def close(self) -> None:
        """See `SyncStore.close`."""
        self._database().close()
