"""Writes the figures of a run into docs/redis-failures.md. See `make failure-report`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "redis-failures.md"

Row = dict[str, Any]

FIGURES = {
    "failure": "fault",
    "code": "kind",
    "requests": "requests",
    "right": "right",
    "503": "refused",
    "wrong": "wrong",
    "slowest answer, ms": "slowest_ms",
    "slowest right answer, ms": "slowest_right_ms",
    "all served again after, ms": "back_ms",
    "last 503 after, ms": "last_refusal_ms",
    "writes acknowledged": "writes",
    "lost": "lost",
    "lost by plain writes": "raw_lost",
}
SAMPLES = {
    "second": "seconds",
    "after": "after",
    "requests": "requests",
    "503": "refused",
    "wrong": "wrong",
    "lost": "lost",
    "open files": "open_files",
    "threads": "threads",
    "tasks": "tasks",
    "server's connections": "connected_clients",
    "memory, KiB": "resident_kib",
}


def main(report: Path) -> None:
    rows = [json.loads(line) for line in report.read_text("utf-8").splitlines()]
    page = PAGE.read_text("utf-8")
    page = _replaced(page, "figures", _table(FIGURES, [row for row in rows if "fault" in row]))
    page = _replaced(page, "soak", _table(SAMPLES, [row for row in rows if "after" in row]))
    PAGE.write_text(page, "utf-8")


def _table(columns: dict[str, str], rows: Iterable[Row]) -> str:
    lines = [list(columns), ["---"] * len(columns), *([_cell(row[name]) for name in columns.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def _replaced(page: str, name: str, table: str) -> str:
    before, begin, rest = page.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->\n")
    if not begin or not end:
        msg = f"{PAGE}: the comments around the table {name!r} are missing"
        raise ValueError(msg)
    return before + begin + table + end + after


if __name__ == "__main__":
    main(Path(sys.argv[1]))
