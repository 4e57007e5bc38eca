"""The subcommands, joined."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from coatcheck.cli.demo import demo
from coatcheck.cli.doctor import doctor
from coatcheck.cli.keygen import keygen
from coatcheck.cli.version import version


def _show_version(value: bool) -> None:  # noqa: FBT001 (typer calls it so)
    if value:
        version()
        raise typer.Exit


app: Final = typer.Typer(
    help="Server-side sessions for Python web applications.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Server-side sessions for Python web applications."""


for command in (demo, doctor, keygen, version):
    app.command()(command)
