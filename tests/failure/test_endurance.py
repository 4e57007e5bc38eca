"""Failure after failure, nothing is held on to: no connection, no task, no thread. `soak.py` is the long form."""

from __future__ import annotations

from endurance import endurance, growth

ROUND = ("kill -9, restart", "connection cut", "connection stalled", "CLIENT KILL")

SLACK = {"open_files": 16, "threads": 2, "tasks": 4, "connected_clients": 8, "resident_kib": 32_768}
"""A few connections more or fewer are open at any moment. What leaks with every failure is far more than that."""


def test_failure_after_failure_no_connection_task_or_thread_is_left_behind() -> None:
    with endurance() as trial:
        first, second = ([trial.undergo(failure) for failure in ROUND] for _ in range(2))
    grown = {name: growth(first, second, name) for name in SLACK}
    assert all(grown[name] <= slack for name, slack in SLACK.items()), grown
