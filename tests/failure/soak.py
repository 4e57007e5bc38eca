"""Ten minutes of traffic with a failure every twenty seconds: everything that is held on to must stay flat.

Run by `make soak`; SOAK_SECONDS changes how long. Not part of the test suite, which has a short form of it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from endurance import ROUND, Endurance, Sample, endurance, growth
from trials import record

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
FAILURE_EVERY_S = min(20.0, SECONDS / len(ROUND) / 4)
"""At least four rounds, also in a shorter soak."""

SLACK = {"open_files": 16, "threads": 2, "tasks": 4, "connected_clients": 8, "resident_kib": 8_192}

_WIDTHS = {each.name: max(len(each.name), 8 if each.name != "after" else 18) for each in fields(Sample)}
"""Of the columns, in characters."""


def main() -> int:
    with endurance("soak") as trial:
        samples = list(_undergo(trial))
    warm, last = samples[len(ROUND) : 2 * len(ROUND)], samples[-len(ROUND) :]  # the first round fills the pools
    grown = {name: growth(warm, last, name) for name in SLACK}
    print("Growth from the second round to the last:", grown)
    too_much = [name for name, slack in SLACK.items() if grown[name] > slack]
    if too_much:
        print("Not flat:", ", ".join(too_much))
    return 1 if too_much else 0


def _undergo(trial: Endurance) -> Iterator[Sample]:
    began_at = due = time.monotonic()
    print("  ".join(name.rjust(width) for name, width in _WIDTHS.items()))
    for failure in cycle(ROUND):
        if due - began_at > SECONDS:
            return
        time.sleep(max(due - time.monotonic(), 0))
        sample = trial.undergo(failure)
        _show(sample)
        record(sample)
        yield sample
        due += FAILURE_EVERY_S


def _show(sample: Sample) -> None:
    print("  ".join(str(getattr(sample, name)).rjust(width) for name, width in _WIDTHS.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
