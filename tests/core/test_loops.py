"""Which event loop is running, known without asking the operating system; and what a child has of its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from coatcheck import SyncSessions
from coatcheck import record as records
from coatcheck.loops import running_loop
from coatcheck.stores.memory import SyncMemoryStore


def test_the_loop_that_runs_is_told() -> None:
    async def check() -> None:
        assert running_loop() is asyncio.get_running_loop()

    for _ in range(3):
        asyncio.run(check())
    with asyncio.Runner() as one, asyncio.Runner() as other:
        for runner in (one, other, one, other):
            runner.run(check())


def test_without_a_loop_there_is_none() -> None:
    async def nothing() -> None:
        running_loop()

    asyncio.run(nothing())
    with pytest.raises(RuntimeError):
        running_loop()


def test_each_thread_has_its_own() -> None:
    seen: list[bool] = []
    both_run = threading.Barrier(2)

    async def check() -> None:
        running_loop()
        await asyncio.to_thread(both_run.wait)
        seen.append(running_loop() is asyncio.get_running_loop())

    threads = [threading.Thread(target=asyncio.run, args=(check(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True, True]


def in_child(check: str) -> bool:
    """Fork, evaluate an expression in the child, and tell whether it was true."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if eval(check) else 1)
        except BaseException:  # noqa: BLE001 (whatever it is, the child must not go on as the test run)
            os._exit(2)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


async def _is_told() -> bool:
    return running_loop() is asyncio.get_running_loop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking beside threads
def test_a_child_does_not_take_its_parents_loop_for_its_own() -> None:
    async def check() -> None:
        running_loop()
        assert in_child("asyncio.run(_is_told())")

    asyncio.run(check())


class SlowStore(SyncMemoryStore):
    """Lets one thread wait in the middle of a write."""

    def __init__(self) -> None:
        super().__init__()
        self.is_writing, self.may_go_on = threading.Event(), threading.Event()
        self.process = os.getpid()

    def update(self, *arguments: Any) -> Any:
        if os.getpid() == self.process:
            self.is_writing.set()
            self.may_go_on.wait(30)
        return super().update(*arguments)


def _writes(sessions: SyncSessions, token: str) -> bool:
    with sessions.open(token) as session:
        session["seen"] = True
    return True


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_does_not_wait_for_threads_that_only_its_parent_has() -> None:
    store = SlowStore()
    sessions = SyncSessions(store, secret_keys=["a secret key for tests, 32 bytes or more"])
    with sessions.open() as session:
        session["user"] = "alice"
    with ThreadPoolExecutor(1) as thread:
        write = thread.submit(_writes, sessions, session.token)
        store.is_writing.wait(30)
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends one that waits
            os._exit(0 if _writes(sessions, session.token) else 1)
        _, status = os.waitpid(child, 0)
        store.may_go_on.set()
        assert write.result()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_revision_is_used_by_two_processes() -> None:
    records.new_revision()
    assert records._spare_revisions
    assert in_child("not records._spare_revisions")


def test_no_revision_is_used_twice() -> None:
    revisions = [records.new_revision() for _ in range(1000)]
    assert len(set(revisions)) == 1000
    assert {len(revision) for revision in revisions} == {8}
