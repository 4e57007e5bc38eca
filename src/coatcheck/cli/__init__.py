"""The command `coatcheck`: one module per subcommand, joined in `app`. Needs the extra `coatcheck[cli]`."""

from __future__ import annotations

import sys

from coatcheck.errors import MissingExtra


def main() -> None:
    """Run the command."""
    try:
        from coatcheck.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("typer", "rich"):
            raise
        feature = "The command coatcheck"
        print(  # noqa: T201 (what prints more nicely is what is missing)
            MissingExtra(feature, "cli"),
            'A secret key can be made without: python -c "import secrets; print(secrets.token_urlsafe(32))"',
            sep="\n",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    app(prog_name="coatcheck")
