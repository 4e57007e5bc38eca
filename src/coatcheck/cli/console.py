"""What the subcommands share: how they speak to people."""

from __future__ import annotations

from typing import Final, NoReturn

import typer
from rich.console import Console

from coatcheck.log_lines import printable

stdout: Final = Console(highlight=False, soft_wrap=True)
stderr: Final = Console(highlight=False, soft_wrap=True, stderr=True)


def refuse(message: str) -> NoReturn:
    """Say why the command can't do what it was asked to do, and end it. A server may have had part in the message."""
    stderr.print("Error:", style="bold red", end=" ")
    stderr.print(printable(message), markup=False)
    raise typer.Exit(2)
