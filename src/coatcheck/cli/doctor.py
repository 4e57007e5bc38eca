"""`coatcheck doctor`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from rich.text import Text

from coatcheck.cli.console import refuse, stdout
from coatcheck.doctor import Finding, Report, Status, examine
from coatcheck.doctor.run import DEFAULT_SAMPLE
from coatcheck.errors import ConfigurationError

_EXIT_CODES: Final = {Status.WARNING: 1, Status.PROBLEM: 2}

_LOOKS: Final = {
    Status.OK: ("✓", "+", "green"),
    Status.UNKNOWN: ("?", "?", "magenta"),
    Status.NOTE: ("•", "-", "cyan"),
    Status.WARNING: ("!", "!", "bold yellow"),
    Status.PROBLEM: ("✗", "x", "bold red"),
}
"""Symbol, symbol where only ASCII can be shown, style. The word beside it says the same."""

_WIDE: Final = 80
_NARROWEST: Final = 20
_ADVICE_INDENT: Final = 26
_ADVICE_INDENT_WHERE_NARROW: Final = 4

_STORE_HELP: Final = (
    "The store to look at: redis://…, valkey://…, sqlite:///file, as for the application. In the variable, a password "
    "stays out of the list of processes."
)


def doctor(
    store: Annotated[str, typer.Option(metavar="URL", envvar="COATCHECK_STORE", help=_STORE_HELP)],
    prefix: Annotated[
        str | None,
        typer.Option(help="What the keys of sessions begin with, if not coatcheck: (Redis).", show_default=False),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many keys to look at (Redis).")
    ] = DEFAULT_SAMPLE,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 also for what could not be seen.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of findings for programs.")] = False,
) -> None:
    """Look at a store, and say what its settings and its state mean for sessions.

    It changes nothing. To see that the store works, it writes one record of its own and deletes it again. What this
    user may not see is named, with what to look at by hand.

    Exit status: 0 if there is nothing worse than a note, 1 with a warning, 2 with a problem. What could not be seen
    ("unknown") counts for nothing, unless with `--strict`.

    **Examples**

    - `coatcheck doctor --store redis://localhost:6379/0`
    - `COATCHECK_STORE=rediss://… coatcheck doctor --prefix shop:`
    - `coatcheck doctor --store sqlite:////var/lib/shop/sessions.sqlite3 --json`
    """
    try:
        report = examine(store, prefix=prefix, sample=sample)
    except ConfigurationError as error:
        refuse(str(error))
    if as_json:
        typer.echo(json.dumps([_as_json(finding) for finding in report.findings], indent=2))
    else:
        _show(report)
    has_unknown = any(finding.status is Status.UNKNOWN for finding in report.findings)
    raise typer.Exit(_EXIT_CODES.get(report.worst, int(strict and has_unknown)))


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "status": finding.status.value,
        "finding": finding.finding,
        "advice": finding.advice,
    }


def _show(report: Report) -> None:
    """Print a report, wrapped here and not by the console, which would fill every line up with spaces."""
    stdout.print(Text.assemble("\nCoatcheck doctor: ", (report.store, "bold"), "\n"))
    already_said: set[str] = set()
    for finding in report.findings:
        symbol, in_ascii, style = _LOOKS[finding.status]
        word = f"{in_ascii if stdout.options.ascii_only else symbol} {finding.status.value}"
        head = Text.assemble((f"{word:<11}", style), f"{finding.check:<13}")
        for line in _wrapped(Text(finding.finding), len(head)):
            stdout.print(head + line)
            head = Text(" " * len(head))
        indent = _ADVICE_INDENT if stdout.width >= _WIDE else _ADVICE_INDENT_WHERE_NARROW
        advice = "As above." if finding.advice in already_said else finding.advice
        already_said |= {advice} - {""}
        for line in _wrapped(Text(advice, "dim"), indent):
            stdout.print(Text(" " * indent) + line)
    stdout.print(Text.assemble("\n", _summary(report), "\n"))


def _wrapped(text: Text, indent: int) -> Iterator[Text]:
    for line in text.wrap(stdout, max(_NARROWEST, stdout.width - indent)) if text else ():
        line.rstrip()
        yield line


def _summary(report: Report) -> Text:
    """Give how many findings there are of each kind, the gravest first."""
    numbers = Counter(finding.status for finding in report.findings)
    counted = [
        Text(f"{numbers[status]} {_word(status, numbers[status])}", _LOOKS[status][2])
        for status in reversed(Status)
        if numbers[status]
    ]
    return Text(", ").join(counted)


def _word(status: Status, number: int) -> str:
    is_countable = status in (Status.NOTE, Status.WARNING, Status.PROBLEM)
    return f"{status.value}s" if is_countable and number != 1 else status.value
