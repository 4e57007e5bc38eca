"""Runs the comparison: `python -m bench.peers`, from the repository's folder. `make bench` sets everything up."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console

from bench.peers import load
from bench.peers.comparison import Plan, Redis, StackFailed, compare
from bench.peers.environment import describe
from bench.peers.interpreter import ADVICE, WITHOUT
from bench.peers.processes import valkey
from bench.peers.report import print_tables, save
from bench.peers.stacks import QUICK, REPOSITORY, STACKS, Missing, Stack, versions

BUSY: Final = 0.7
"""The load average from which on other work is likely to be seen in the figures."""


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    names = ", ".join(stack.name for stack in STACKS)
    parser.add_argument("--stack", action="append", metavar="NAME", help=f"measure only this one (repeat): {names}")
    parser.add_argument("--quick", action="store_true", help="four stacks and short runs")
    parser.add_argument("--rounds", type=int, help="how often each stack is measured (default 5, quick 2)")
    parser.add_argument("--seconds", type=int, help="length of each measurement (default 5, quick 2)")
    parser.add_argument("--warm-up", type=int, default=1, metavar="SECONDS", help="load before each one (default 1)")
    parser.add_argument("--sessions", type=int, default=256, help="how many are logged in (default 256)")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FOLDER",
        help="where the results go (default bench/results when all stacks are measured, else nowhere)",
    )
    return parser.parse_args()


def chosen(only: Sequence[str] | None) -> list[Stack]:
    """Give the stacks of these names; all without any. Exits for a name that there is not."""
    names = [stack.name for stack in STACKS]
    for name in only or ():
        if name not in names:
            sys.exit(f"There is no stack {name!r}. There are: {', '.join(names)}")
    return [stack for stack in STACKS if not only or stack.name in only]


def prepared(stacks: Sequence[Stack]) -> tuple[list[tuple[Stack, list[str]]], dict[str, str]]:
    """Build what has to be built. Gives the stacks with their commands, and why others are skipped."""
    ready, skipped = [], {}
    for stack in stacks:
        try:
            versions(stack)
            ready.append((stack, stack.prepare()))
        except Missing as reason:
            skipped[stack.name] = str(reason)
    return ready, skipped


def main() -> int:
    """Measure, show and save."""
    chosen_options = options()
    quick = chosen_options.quick
    console = Console()
    if not load.is_there():
        sys.exit("The load comes from wrk, which is not installed (Debian: apt-get install wrk)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every server is ended on the way out
    plan = Plan(
        rounds=chosen_options.rounds or (2 if quick else 5),
        seconds=chosen_options.seconds or (2 if quick else 5),
        warm_up_s=chosen_options.warm_up,
        sessions=chosen_options.sessions,
    )
    is_whole = not (quick or chosen_options.stack)
    busy = os.getloadavg()[0]
    folder = chosen_options.save or (REPOSITORY / "bench" / "results" if is_whole else None)
    with TemporaryDirectory(prefix="coatcheck-bench-") as temporary, valkey() as (client, process):
        with console.status("preparing") as status:
            ready, skipped = prepared(chosen(chosen_options.stack or (QUICK if quick else None)))
            results = compare(ready, Redis(client, process), plan, Path(temporary), status.update)
        environment = describe(plan, busy, [stack for stack, _ in ready], skipped, client)
    print_tables(console, results, environment["skipped"])
    if busy > BUSY:
        console.print(f"[dim]The machine was busy before (load {busy:.1f}); expect noise.[/dim]", highlight=False)
    if environment["machine"]["python"] == WITHOUT:
        console.print(f"[yellow]{ADVICE}[/yellow]", highlight=False)
    if folder is not None:
        save(folder, results, environment)
        console.print(f"[dim]Saved in {folder}[/dim]", highlight=False)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackFailed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nStopped; every server has been ended.")
