"""Which event loop is running, known without asking the operating system."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from coatcheck import record as records
from coatcheck.loops import running_loop


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_revision_is_used_by_two_processes() -> None:
    records.new_revision()
    assert records._spare_revisions
    assert in_child("not records._spare_revisions")


def test_no_revision_is_used_twice() -> None:
    revisions = [records.new_revision() for _ in range(1000)]
    assert len(set(revisions)) == 1000
    assert {len(revision) for revision in revisions} == {8}
