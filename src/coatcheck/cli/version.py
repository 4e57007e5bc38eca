"""`coatcheck version`."""

from __future__ import annotations

import platform

import typer

import coatcheck


def version() -> None:
    """Show which Coatcheck this is, and on which Python it runs.

    **Example**

    - `coatcheck version`
    """
    typer.echo(f"coatcheck {coatcheck.__version__} (Python {platform.python_version()})")
