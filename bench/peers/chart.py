"""Draws the chart: for each stack a bar of CPU time, split into what the stack takes anyway and what sessions add.

An SVG without scripts, fonts or files of its own. Its colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil
from typing import Final

from bench.peers.comparison import Result

WIDTH: Final = 880
MARGIN: Final = 24
NAMES: Final = 190
"""Width of the column of names."""
GAP: Final = 28
"""Between the two panels."""
FIGURES: Final = 92
"""Width that is kept free after the longest bar, for its figures."""
PANEL: Final = (WIDTH - 2 * MARGIN - NAMES - GAP) // 2
HEADER: Final = 136
ROW: Final = 34
BAR: Final = 14
FOOTER: Final = 58
PANELS: Final = (("profile", "/profile", "reads the session"), ("visit", "/visit", "changes the session"))

STYLE: Final = """
svg { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.ground { fill: #ffffff; }
.text { fill: #1f2328; }
.quiet { fill: #667079; font-size: 12px; }
.quiet.small { font-size: 10px; }
.quiet.tick { font-size: 10px; text-anchor: middle; }
.title { font-size: 19px; font-weight: 650; }
.panel { font-weight: 600; }
.ours { font-weight: 650; }
.figure { font-variant-numeric: tabular-nums; font-weight: 600; }
.grid { stroke: #e4e8ec; }
.anyway { fill: #c9d1d9; }
.added { fill: #7c8ea3; }
.ours.added { fill: #0f8a7e; }
@media (prefers-color-scheme: dark) {
  .ground { fill: #0d1117; }
  .text { fill: #e6edf3; }
  .quiet { fill: #919ba6; }
  .grid { stroke: #21272f; }
  .anyway { fill: #3a434d; }
  .added { fill: #8296ad; }
  .ours.added { fill: #2fbfae; }
}
"""


def chart(results: Sequence[Result]) -> str:
    """Draw CPU time per request of /profile and /visit, the stacks in the order of what /profile takes."""
    figures = {(each["stack"], each["scenario"]): each for each in results}
    order = sorted((each for each in results if each["scenario"] == "profile"), key=lambda each: float(each["cpu_us"]))
    height = HEADER + ROW * len(order) + FOOTER
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
        '<title id="title">CPU time per request of each stack, and what its sessions add</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="10"/>',
        *heading(),
    ]
    for row, stack in enumerate(order):
        drawn.append(name(stack, HEADER + ROW * row + ROW // 2))
    for index, (scenario, path, meaning) in enumerate(PANELS):
        left = MARGIN + NAMES + index * (PANEL + GAP)
        bars = [figures.get((stack["stack"], scenario)) for stack in order]
        if any(bars):
            drawn += panel(left, path, meaning, bars)
    drawn.append(
        text(MARGIN, height - 18, "Bold figure: µs that sessions add. Beside it: requests per second.", "quiet")
    )
    return "\n".join([*drawn, "</svg>", ""])


def heading() -> list[str]:
    """Draw the title and what the colours mean."""
    legend = 86
    return [
        text(MARGIN, 38, "What sessions cost", "text title"),
        text(
            MARGIN,
            60,
            "CPU time of the application per request, in microseconds, on one core. Shorter is less.",
            "quiet",
        ),
        box(MARGIN, legend - 9, 10, "anyway", 10),
        text(MARGIN + 16, legend, "the same application without a session", "quiet"),
        box(MARGIN + 262, legend - 9, 10, "added ours", 10),
        box(MARGIN + 275, legend - 9, 10, "added", 10),
        text(MARGIN + 291, legend, "added by sessions: Coatcheck, others", "quiet"),
    ]


def name(stack: Result, middle: int) -> str:
    """Write a stack's name and, small, its server."""
    return text(MARGIN, middle + 1, stack["title"], f"text{ours(stack)}") + text(
        MARGIN, middle + 14, stack["server"], "quiet small"
    )


def panel(left: int, path: str, meaning: str, bars: Sequence[Result | None]) -> list[str]:
    """Draw one scenario."""
    longest = max(float(each["cpu_us"]) for each in bars if each is not None)
    step = grid_step(longest)
    scale = (PANEL - FIGURES) / longest
    bottom = HEADER + ROW * len(bars)
    title = f'<tspan class="text panel">{path}</tspan><tspan class="quiet" dx="8">{meaning}</tspan>'
    drawn = [f'<text x="{left}" y="{HEADER - 18}">{title}</text>']
    for tick in range(0, ceil(longest), step):
        x = round(left + tick * scale, 1)
        drawn.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{HEADER - 6}" y2="{bottom}"/>')
        drawn.append(text(x, bottom + 14, f"{tick:,}", "quiet tick"))
    for row, each in enumerate(bars):
        if each is not None:
            drawn += bar(left, HEADER + ROW * row + ROW // 2, each, scale)
    return drawn


def bar(left: int, middle: int, each: Result, scale: float) -> list[str]:
    """Draw one bar with its figures."""
    whole, added = float(each["cpu_us"]), max(0.0, float(each["added_cpu_us"]))
    anyway = round((whole - added) * scale, 1)
    top, end = middle - BAR // 2 + 2, round(left + whole * scale, 1)
    drawn = [box(left, top, max(anyway, 1), "anyway", BAR)]
    if added * scale >= 1:
        drawn.append(box(left + anyway, top, round(added * scale, 1), f"added{ours(each)}", BAR))
    rate = f"{each['requests_per_second']:,.0f}/s"
    figure = "" if each["stack"] == "floor" else f"{each['added_cpu_us']:+,.0f}".replace("-", "\N{MINUS SIGN}")
    drawn.append(
        f'<text x="{end + 7}" y="{middle + 6}"><tspan class="text figure">{figure}</tspan>'
        f'<tspan class="quiet" dx="{6 if figure else 0}" font-size="11">{rate}</tspan></text>'
    )
    return drawn


def grid_step(longest: float) -> int:
    """Give a round distance between grid lines, so that there are four or five of them."""
    return next(step for step in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if longest / step <= 5)


def ours(each: Result) -> str:
    """Give the class that sets Coatcheck's own rows apart."""
    return " ours" if each["stack"].startswith("coatcheck") else ""


def text(x: float, y: float, content: str, kind: str) -> str:
    """Write a line of text."""
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(content)}</text>'


def box(x: float, y: float, width: float, kind: str, height: int) -> str:
    """Draw a part of a bar."""
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="2"/>'
