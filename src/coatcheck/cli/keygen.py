"""`coatcheck keygen`."""

from __future__ import annotations

import secrets
import sys

import typer

from coatcheck.cli.console import stderr
from coatcheck.config import MIN_SECRET_KEY_BYTES


def keygen() -> None:
    """Make a secret key, to sign cookies with.

    Prints the key and nothing else: 32 bytes from the operating system's random generator, as URL-safe base64.

    To change a key, put the new one in front of the old one, so that nobody is logged out.

    **Examples**

    - `coatcheck keygen > secret`
    - `export COATCHECK_SECRET_KEYS="$(coatcheck keygen)"`
    - `export COATCHECK_SECRET_KEYS="$(coatcheck keygen),$COATCHECK_SECRET_KEYS"`
    """
    typer.echo(secrets.token_urlsafe(MIN_SECRET_KEY_BYTES))
    if sys.stdout.isatty():
        stderr.print("Keep it out of the source code: in the environment, or in a file that only the server reads.")
