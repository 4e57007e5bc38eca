"""Several processes get the same old cookies at the same time, as servers behind a balancer do."""

from __future__ import annotations

import secrets
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import adopting_process
import pytest
import redis
from servers import Server

from coatcheck import SyncSessions

COUNT, PROCESSES = 40, 3


@pytest.mark.parametrize("native", ["sqlite", "valkey"])
def test_processes_adopt_each_session_once_and_lose_no_change(
    old_redis: Server, old_keys: Any, tmp_path: Path, native: str
) -> None:
    url = old_redis.url if native == "valkey" else f"sqlite:///{tmp_path}/sessions.sqlite3"
    session_ids = [secrets.token_urlsafe(32) for _ in range(COUNT)]
    with redis.Redis(port=old_redis.port) as client:
        for number, session_id in enumerate(session_ids):
            client.set(f"session:{session_id}", f'{{"user": "user {number}", "n": 0}}')
    command = [sys.executable, adopting_process.__file__, url, old_redis.url, *session_ids]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        handles = {process.communicate(timeout=60)[0] for process in processes}
    assert len(handles) == 1
    assert len(set(handles.pop().split())) == COUNT
    sessions = SyncSessions(url, secret_keys=[adopting_process.KEY])
    assert sessions.count() == COUNT
    (exported,) = sessions.export_user("user 7")
    assert exported["values"] == {"user": "user 7", "n": PROCESSES}
    assert [key for key in old_keys() if key.startswith("session:")] == []
    sessions.close()
