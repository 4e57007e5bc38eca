"""An outage fills no disk with log lines, and the lines that are left say how many there would have been."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from coatcheck import log_lines, outage
from coatcheck.errors import StoreUnavailable

OUT_OF_REACH = StoreUnavailable("out of reach")
LOSS = "A request failed, and the store could not end its session or keep its last changes: out of reach"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the log goes by, in seconds, to be moved; and nothing has been logged yet."""
    now = [1000.0]
    monkeypatch.setattr(log_lines, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(outage._LOSSES._line, "_next_at", float("-inf"))
    monkeypatch.setattr(outage._LOSSES._line, "_unsaid", 0)
    return now


def test_what_could_not_be_tidied_up_is_logged_but_not_for_each_request(
    now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        outage.log_loss(OUT_OF_REACH)
    assert caplog.messages == [LOSS]
    now[0] += 5
    outage.log_loss(OUT_OF_REACH)
    assert caplog.messages == [LOSS, f"{LOSS} (999 more since the last line)"]


def test_a_second_outage_is_logged_at_once_and_counts_anew(now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    outages = outage.OutageLog()
    for after_s in (0, 60, 60):
        now[0] += after_s
        outages.report(OUT_OF_REACH)
    assert caplog.messages == ["The store can't be used, so a request is answered by 503: out of reach"] * 3
