"""A trial: traffic of both kinds while something fails, what must hold of its answers, and its figures."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from traffic import CLIENTS, AsyncTraffic, Kind, SyncTraffic, Traffic
from visitors import Verdict

REPORT_VARIABLE = "COATCHECK_FAILURE_REPORT"
"""Names the file to which the figures are added, one JSON object a line."""

SLOWEST_S = 4.0
"""No answer may take longer: 2 s to connect and 1 s for a command, and what a busy machine adds."""
BACK_MS = 5_000.0
"""The service is to be back within 2 s; this is that, on a busy machine. The report has the true figure."""
REPLICATION_WINDOW_S = 1.0
"""Replication is asynchronous: a failover may lose what was acknowledged so shortly before it, and nothing older."""
LEAVING_S = 1.0
"""So long after the new master was named, an old one that still takes writes must have been left."""

_WARM_ROUNDS = 10
_ROUNDS_AFTER = 12


@dataclass(frozen=True)
class Figures:
    """What became of the traffic of one kind in one trial."""

    fault: str
    kind: Kind
    requests: int
    right: int
    refused: int
    wrong: int
    slowest_ms: float
    slowest_right_ms: float
    back_ms: float
    last_refusal_ms: float
    writes: int
    lost: int
    raw_lost: int | None = None
    """What plain writes without Coatcheck lost in the same failure."""


class Trial:
    """Both kinds of traffic on one store, from entry to exit. What must always hold is checked at the exit.

    Args:
        fault: what is going to happen, for the report.
        url: the store's.
        may_lose: whether a failover is part of it, which may lose what was acknowledged last.
    """

    def __init__(self, fault: str, url: str, *, may_lose: bool = False, size: int = CLIENTS) -> None:
        self.fault = fault
        self.all: list[Traffic] = [AsyncTraffic(url, size), SyncTraffic(url, size)]
        self.raw_lost: int | None = None
        self._may_lose = may_lose
        self._fault_at = self._return_at = 0.0
        self._stack = ExitStack()

    def fail(self, cause: Callable[[], object]) -> None:
        """Let it happen."""
        self._fault_at = time.monotonic()
        cause()

    def mend(self, cure: Callable[[], object]) -> None:
        """Let it be over, and wait until every visitor is served again and has been for a while."""
        cure()
        self._return_at = time.monotonic()
        for traffic in self.all:
            traffic.tally.begin_return()
        for traffic in self.all:
            traffic.wait_for_return()
        self.wait_for(Verdict.RIGHT, _ROUNDS_AFTER)
        refused = self.refused()
        self.wait_for(Verdict.RIGHT, _ROUNDS_AFTER)
        assert self.refused() == refused, "requests were refused when the service was back"

    def undisturbed_by(self, cause: Callable[[], object]) -> None:
        """Let something happen that no request may be refused for."""
        refused = self.refused()
        cause()
        self.wait_for(Verdict.RIGHT, _ROUNDS_AFTER)
        assert self.refused() == refused, "requests were refused for what should disturb none"

    def wait_for(self, verdict: Verdict, rounds: int = 1) -> None:
        """Wait until each kind of traffic has had so many such answers for each visitor, on average."""
        goals = [(traffic, traffic.count(verdict) + rounds * len(traffic.visitors)) for traffic in self.all]
        for traffic, goal in goals:
            traffic.wait_for_count(verdict, goal)

    def refused(self) -> int:
        return sum(traffic.count(Verdict.REFUSED) for traffic in self.all)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for traffic in self.all:
                stack.enter_context(traffic)
            self.wait_for(Verdict.RIGHT, _WARM_ROUNDS)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stack.close()
        figures = [self._figures(traffic) for traffic in self.all]
        if kind is None:
            record(*figures)
            for traffic, each in zip(self.all, figures, strict=True):
                self._check(traffic, each)
        else:
            for traffic in self.all:
                assert traffic.faults == []  # says more than what was waited for in vain

    def _figures(self, traffic: Traffic) -> Figures:
        tally, back = traffic.tally, traffic.wait_for_return()
        return Figures(
            fault=self.fault,
            kind=traffic.kind,
            requests=tally.verdicts.total(),
            right=traffic.count(Verdict.RIGHT),
            refused=traffic.count(Verdict.REFUSED),
            wrong=traffic.count(Verdict.WRONG),
            slowest_ms=round(tally.slowest_s * 1000, 1),
            slowest_right_ms=round(tally.slowest_right_s * 1000, 1),
            back_ms=round(back.all_ms, 1),
            last_refusal_ms=round(back.last_refusal_ms, 1),
            writes=traffic.writes,
            lost=len(traffic.losses),
            raw_lost=self.raw_lost,
        )

    def _check(self, traffic: Traffic, figures: Figures) -> None:
        assert traffic.faults == []
        assert figures.wrong == 0
        assert figures.slowest_ms <= SLOWEST_S * 1000, figures
        assert figures.back_ms <= BACK_MS, figures
        assert figures.last_refusal_ms <= BACK_MS, figures
        if not self._may_lose:
            assert traffic.losses == []
        window = (self._fault_at - REPLICATION_WINDOW_S, self._return_at + LEAVING_S)
        assert [loss for loss in traffic.losses if not window[0] <= loss.acknowledged_at <= window[1]] == [], window


def record(*figures: Any) -> None:
    """Add figures (dataclasses) to the report, if one was asked for."""
    path = os.environ.get(REPORT_VARIABLE)
    if path:
        with Path(path).open("a", encoding="utf-8") as report:
            report.writelines(json.dumps(asdict(each)) + "\n" for each in figures)
