"""The subcommands, joined."""

from __future__ import annotations

from typing import Final

import typer

from coatcheck.cli.demo import demo
from coatcheck.cli.keygen import keygen
from coatcheck.cli.version import version

app: Final = typer.Typer(
    help="Server-side sessions for Python web applications.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, keygen, version):
    app.command()(command)
