"""Shows the results: tables in the terminal, a page, and the files that others read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.peers.chart import chart
from bench.peers.comparison import Result

SCENARIOS: Final = {
    "profile": ("/profile", "reads the session"),
    "visit": ("/visit", "adds one to a counter in the session"),
    "none": ("/none", "the same application, no cookie, session not used"),
}


@dataclass(frozen=True)
class Column:
    """One figure: how it is headed, and how it is read from a result."""

    heading: str
    key: str
    form: str


LEGEND: Final = (
    "p50, p99: milliseconds. CPU: microseconds of the application per request; added: over its own /none. "
    "cmds: Redis commands per request. bytes: in Redis per session."
)
COLUMNS: Final = (
    Column("req/s", "requests_per_second", ",.0f"),
    Column("p50", "p50_ms", ".1f"),
    Column("p99", "p99_ms", ".1f"),
    Column("CPU", "cpu_us", ".1f"),
    Column("added", "added_cpu_us", ".1f"),
    Column("cmds", "redis_commands", ".2f"),
    Column("bytes", "redis_bytes_per_session", ",.0f"),
)


def of_scenario(results: Sequence[Result], scenario: str) -> list[Result]:
    """Give the results of a scenario, those that take least CPU first."""
    return sorted((each for each in results if each["scenario"] == scenario), key=lambda each: float(each["cpu_us"]))


def cell(result: Result, column: Column) -> str:
    """Give a figure as it is printed; a dash where it says nothing."""
    has_sessions = result["stack"] != "floor"
    if column.key == "added_cpu_us" and not (has_sessions and result["scenario"] != "none"):
        return "\N{EN DASH}"
    return format(result[column.key], column.form)


def fitting(rows: Sequence[Result], width: int) -> list[Column]:
    """Give the columns that a terminal has room for beside the whole names; the least telling ones go first."""
    columns = list(COLUMNS)
    for key in ("p50_ms", "redis_bytes_per_session", "p99_ms", "cpu_us"):
        widths = [max(len(column.heading), *(len(cell(each, column)) for each in rows)) for column in columns]
        if max(len(each["title"]) for each in rows) + sum(widths) + 2 * len(columns) + 3 <= width:
            break
        columns = [column for column in columns if column.key != key]
    return columns


def print_tables(console: Console, results: Sequence[Result], skipped: Mapping[str, str]) -> None:
    """Print one table for each scenario."""
    for scenario, (path, meaning) in SCENARIOS.items():
        rows = of_scenario(results, scenario)
        if not rows:
            continue
        table = Table(
            title=f"[bold]{path}[/bold]  [dim]{meaning}[/dim]",
            title_justify="left", title_style="", box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False,
            padding=(0, 1, 0, 0),
        )  # fmt: skip
        table.add_column("stack", overflow="fold")
        columns = fitting(rows, console.width)
        for column in columns:
            table.add_column(column.heading, justify="right", overflow="fold")
        for each in rows:
            style = "bold" if each["stack"].startswith("coatcheck") else ""
            table.add_row(each["title"], *(cell(each, column) for column in columns), style=style)
        console.print(table)
    console.print(f"[dim]{LEGEND}[/dim]", highlight=False)
    for title, reason in skipped.items():
        console.print(f"[dim]Skipped: {title} {reason}.[/dim]", highlight=False)


def page(results: Sequence[Result], environment: Mapping[str, Any]) -> str:
    """Give the same as Markdown."""
    plan, machine = environment["plan"], environment["machine"]
    lines = [
        "# Coatcheck and its peers",
        "",
        "![CPU time per request of each stack](latest.svg)",
        "",
        f"Medians of {plan['rounds']} rounds of {plan['seconds']:g} s, {plan['connections']} connections, "
        f"{plan['sessions']} sessions. {machine['processor']}, {machine['cores']} cores"
        + (", one of them for the application alone" if machine["application_has_a_core_of_its_own"] else "")
        + f"; load average before the run {machine['load_before']}. "
        + f"CPython {environment['versions']['python']}, {machine['python']}."
        + " What is measured, and how to read it: [the page about measurements](../README.md).",
    ]
    for scenario, (path, meaning) in SCENARIOS.items():
        rows = of_scenario(results, scenario)
        if not rows:
            continue
        lines += ["", f"## `{path}`: {meaning}", ""]
        lines += ["| stack | server | " + " | ".join(column.heading for column in COLUMNS) + " |"]
        lines += ["|---|---|" + "---:|" * len(COLUMNS)]
        lines += [
            f"| {each['title']} | {each['server']} | " + " | ".join(cell(each, column) for column in COLUMNS) + " |"
            for each in rows
        ]
    lines += ["", LEGEND]
    if environment["skipped"]:
        lines += ["", "Skipped: " + "; ".join(f"{title} {why}" for title, why in environment["skipped"].items()) + "."]
    lines += [
        "",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in environment["versions"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def save(folder: Path, results: Sequence[Result], environment: Mapping[str, Any]) -> None:
    """Write the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.json").write_text(json.dumps(list(results), indent=2, ensure_ascii=False) + "\n")
    (folder / "environment.json").write_text(json.dumps(environment, indent=2, ensure_ascii=False) + "\n")
    (folder / "latest.md").write_text(page(results, environment))
    (folder / "latest.svg").write_text(chart(results))
