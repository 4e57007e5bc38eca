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
from contextlib import ExitStack, contextmanager, suppress
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
_EXPIRY: Final = "SELECT expires_at_ms FROM coatcheck_sessions WHERE key = ? AND expires_at_ms > ?"
_SCAN: Final = "SELECT key FROM coatcheck_sessions WHERE key > ? AND expires_at_ms > ? ORDER BY key LIMIT ?"
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
"""How long a transaction waits for another process's. A write may have to wait for its own process's before that."""

_LONGEST_HOLD_S: Final = 4 * _BUSY_TIMEOUT_S
"""How long to wait for writes that are under way before the connections are closed all the same."""

_WAL_PAUSE_S: Final = 0.05

_LOOK_EVERY_MS: Final = 1_000
"""How often reads and writes look whether the file is still where it was."""

_PRIMARY_CODE: Final = 0xFF
"""The part of an SQLite error code that says its kind (https://sqlite.org/rescode.html)."""

_Work: TypeAlias = Callable[[sqlite3.Connection, int], T]
"""A write: is given the connection, inside a transaction, and the time in milliseconds."""


class _Connection(sqlite3.Connection):
    """A connection that another thread can close without pulling it from under a query, which would crash SQLite."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.in_use = threading.RLock()  # the handler of a signal may fork in the middle of a query
        self.is_closed = False

    def close(self) -> None:
        """Close it as soon as nobody uses it."""
        with self.in_use:
            self.is_closed = True
            super().close()


class _Closing:
    """Closes a thread's connection when the thread ends, of which nobody else is told."""

    __slots__ = ("_connection", "_connections", "_process")

    def __init__(self, connection: _Connection, connections: set[_Connection]) -> None:
        self._connection = connection
        self._connections = connections
        self._process = os.getpid()

    def __del__(self, process_now: Callable[[], int] = os.getpid) -> None:
        # Bound now, because modules are taken apart before the last connections are, when Python ends.
        # A child process loses all threads but one, and closing what belongs to its parent is what SQLite forbids.
        if process_now() == self._process:
            self._connection.close()  # and then forget it: a fork has to know of all that are open
            self._connections.discard(self._connection)


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
        self._readers: set[_Connection] = set()
        self._of_thread = threading.local()
        self._opening = threading.RLock()
        self._committing = threading.RLock()  # taken before `_opening` where both are needed
        self._writer: _Connection | None = None
        self._waiting: deque[_Write] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._is_scheduled = False
        self._next_sweep_ms = 0
        self._file: tuple[int, int] | None = None
        self._next_look_ms = 0
        _forks.watch(self)

    def __del__(self, process_now: Callable[[], int] = os.getpid) -> None:
        # As `_Closing` does for readers: from Python 3.13 on, SQLite's module warns of what nobody has closed.
        if process_now() == self.process and self._writer is not None:
            self._writer.close()

    # --- reading ----------------------------------------------------------------------------------------------

    def read(self, query: str, rows_wanted: Sequence[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
        """Run a query in this thread, once for each set of parameters; give the rows of each."""
        while True:
            reader: _Connection = getattr(self._of_thread, "reader", None) or self._open_reader()
            try:
                with reader.in_use:
                    if not reader.is_closed:
                        return [reader.execute(query, parameters).fetchall() for parameters in rows_wanted]
            except sqlite3.Error as error:
                if reader.is_closed:  # by the handler of a signal, which has forked in the middle of the query
                    continue
                reader.is_closed = True
                raise self._store_error(error) from error
            finally:
                if reader.is_closed:  # the next read opens a new connection
                    self._of_thread.reader = self._of_thread.closing = None

    def read_first(self, query: str, keys: Sequence[str]) -> list[Any]:
        """Give the first column of what a query finds for each key and the present time, or None."""
        now_ms = self.now_ms()
        self._look_at_times(now_ms)
        return [rows[0][0] if rows else None for rows in self.read(query, [(key, now_ms) for key in keys])]

    def _open_reader(self) -> _Connection:
        self._leave_moved_file()
        with self._translated_errors(), self._opening:
            self._open_writer()
            reader = self._connect()
            self._readers.add(reader)
        self._of_thread.reader = reader
        self._of_thread.closing = _Closing(reader, self._readers)
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
        write = _Write(work, answer)
        self._waiting.append(write)
        if not self._is_scheduled:
            self._is_scheduled = True
            try:
                self._own_thread().submit(self._commit_scheduled)
            except RuntimeError as error:  # no more threads, or the interpreter is shutting down
                self._is_scheduled = False
                self._waiting.remove(write)
                raise self._store_error(error) from error
        return await answer

    async def open_in_thread(self) -> None:
        """Open the file in the store's own thread, where a read would have to: it may wait for other processes."""
        if self._writer is None or (self._is_time_to_look(self.now_ms()) and self._has_moved()):
            try:
                await asyncio.wrap_future(self._own_thread().submit(self._open_what_is_there))
            except sqlite3.Error as error:
                raise self._store_error(error) from error

    async def close_in_thread(self) -> None:
        """Close in another thread: writes that are under way may be waiting for other processes."""
        await asyncio.to_thread(self.close)

    def _own_thread(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "coatcheck-sqlite")
        return self._thread

    def _open_what_is_there(self) -> None:
        self._leave_moved_file()
        self._open_writer()

    def _open_writer(self) -> _Connection:
        with self._opening:
            if self._writer is None:
                self._writer = self._connect_writer()
            return self._writer

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
        except BaseException as error:  # whoever waits must be told, also when a signal's handler raises here
            self._drop_writer()
            for write in batch:
                write.error = self._store_error(error)
                write.error.__cause__ = error
            if not isinstance(error, Exception):
                raise
        finally:
            for write in batch:
                write.is_done = True
            _deliver(batch)

    def _commit(self, batch: list[_Write]) -> None:
        now_ms = self.now_ms()
        self._look_at_times(now_ms)
        writer = self._writer or self._open_writer()
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

    # --- opening ----------------------------------------------------------------------------------------------

    def _connect_writer(self) -> _Connection:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Sessions are personal data, so nobody but the owner gets to read a new file. One that is there is left to
            # SQLite: to close it here would give up the locks of all connections that this process has to it.
            with suppress(FileExistsError):
                os.close(os.open(os.path.realpath(self._path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            msg = f"The SQLite store can't open {str(self._path)!r}: {error.strerror}"
            raise StoreUnavailable(msg) from error
        self._note_file()
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
        deadline = time.monotonic() + _BUSY_TIMEOUT_S
        writer.execute("PRAGMA busy_timeout = 0")
        mode = None
        while mode is None:
            try:
                (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_WAL_PAUSE_S)
        writer.execute(f"PRAGMA busy_timeout = {int(_BUSY_TIMEOUT_S * 1000)}")
        if mode != "wal":
            msg = (
                f"The SQLite store needs write-ahead logging, which {str(self._path)!r} does not allow (mode {mode!r})"
            )
            raise StoreUnavailable(msg)

    def _connect(self) -> _Connection:
        return sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",  # never makes the file: SQLite would let others read it
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )

    # --- a file that is removed, moved away or replaced -------------------------------------------------------

    def _is_time_to_look(self, now_ms: int) -> bool:
        if now_ms < self._next_look_ms:
            return False
        self._next_look_ms = now_ms + _LOOK_EVERY_MS
        return True

    def _look_at_times(self, now_ms: int) -> None:
        if self._is_time_to_look(now_ms):
            self._leave_moved_file()

    def _leave_moved_file(self) -> None:
        """Close all connections where the path leads elsewhere by now. The next one opens, or makes, what is there."""
        if self._has_moved():
            with ExitStack() as locks:
                self.hold_closed(locks)

    def _has_moved(self) -> bool:
        return self._file is not None and self._file != _identity(self._path)

    def _note_file(self) -> None:
        """Note which file is about to be opened. The caller holds `_opening`."""
        file, self._file = self._file, _identity(self._path)
        if file != self._file:
            self._close_readers()

    # --- closing ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection of this process, after the writes that are under way."""
        with ExitStack() as locks:
            self.hold_closed(locks)
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)

    def hold_closed(self, locks: ExitStack) -> None:
        """Close every connection, after the writes that are under way. None is opened before the locks are released."""
        for lock in (self._committing, self._opening):
            # For so long, and no longer: the handler of a signal may fork while its thread opens the file, for which
            # the thread that commits may wait.
            if lock.acquire(timeout=_LONGEST_HOLD_S):
                locks.callback(lock.release)
        self._drop_writer()
        self._close_readers()
        self._file = None

    def _close_readers(self) -> None:
        for reader in list(self._readers):
            reader.close()
        self._readers.clear()

    # --- the rest ---------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return int(self._clock() * 1000)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._store_error(error) from error

    def _store_error(self, error: BaseException) -> StoreError:
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


def _identity(path: Path) -> tuple[int, int] | None:
    """Give what tells the file at a path from any other, or None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _primary_code(error: BaseException) -> int:
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


# --- forks ------------------------------------------------------------------------------------------------------------


class _Forks:
    """Sees to it that no connection is open while the process forks.

    SQLite notes in memory which locks its process holds on a file. A child inherits the notes and not the locks, so it
    would believe that it holds what it does not: whoever closes the file next removes the write-ahead log under it,
    with sessions in it that were acknowledged. See https://sqlite.org/howtocorrupt.html, section 2.6.
    """

    def __init__(self) -> None:
        self._databases: WeakSet[_Database] = WeakSet()
        self._one_at_a_time = threading.RLock()
        self._held: list[ExitStack] = []

    def watch(self, database: _Database) -> None:
        """Close its connections at every fork to come."""
        with self._one_at_a_time:
            self._databases.add(database)

    def before(self) -> None:
        """Close the connections of this process."""
        self._one_at_a_time.acquire()
        locks = ExitStack()
        self._held.append(locks)
        for database in list(self._databases):
            if database.process == os.getpid():
                database.hold_closed(locks)

    def after_in_parent(self) -> None:
        """Let them be opened again."""
        self._held.pop().close()
        self._one_at_a_time.release()

    def after_in_child(self) -> None:
        """Leave the locks alone, for which threads may wait that are no more: the child has databases of its own."""
        self._one_at_a_time = threading.RLock()
        self._held = []


_forks: Final = _Forks()
os.register_at_fork(before=_forks.before, after_in_parent=_forks.after_in_parent, after_in_child=_forks.after_in_child)


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


# --- other reads ------------------------------------------------------------------------------------------------------


def _time_left(database: _Database, keys: Sequence[str]) -> list[int | None]:
    now_ms = database.now_ms()
    return [
        None if expires_at_ms is None else expires_at_ms - now_ms
        for expires_at_ms in database.read_first(_EXPIRY, keys)
    ]


def _scan(database: _Database, cursor: str, limit: int) -> tuple[list[str], str]:
    keys = [key for (key,) in database.read(_SCAN, [(cursor, database.now_ms(), limit)])[0]]
    return keys, keys[-1] if len(keys) == limit else ""


# --- the stores -------------------------------------------------------------------------------------------------------


class _Store:
    """Finds this process's connections. What a parent process waits for and holds is left to it."""

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
            # Kept, because where Python was not told of the fork, collecting it would close the parent's connections
            # from here, which SQLite forbids.
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
        return self._database().read_first(_LOAD, keys)

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

    def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        return _time_left(self._database(), keys)

    def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        return _scan(self._database(), cursor, limit)

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
        database = self._database()
        await database.open_in_thread()
        return database.read_first(_LOAD, keys)

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

    async def time_left(self, *keys: str) -> list[int | None]:
        """See `SyncStore.time_left`."""
        await self._database().open_in_thread()
        return _time_left(self._database(), keys)

    async def scan(self, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        await self._database().open_in_thread()
        return _scan(self._database(), cursor, limit)

    async def reset(self) -> None:
        """See `SyncStore.reset`."""
        await self._database().close_in_thread()

    async def close(self) -> None:
        """See `SyncStore.close`."""
        await self._database().close_in_thread()
