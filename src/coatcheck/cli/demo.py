"""`coatcheck demo`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from coatcheck.cli.console import refuse, stdout
from coatcheck.errors import ConfigurationError, MissingExtra, StoreError

if TYPE_CHECKING:
    from coatcheck.demo.serve import Announcement

_NEEDED: Final = ("jinja2", "python_multipart", "starlette", "uvicorn")

_STORE_HELP: Final = (
    "Where to keep the sessions: redis://…, valkey://…, sqlite:///file, memory://, or valkey+embedded: for a private "
    "Valkey that ends with the demo. Without it, an SQLite file in the folder .coatcheck."
)


def demo(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8000,
    store: Annotated[str | None, typer.Option(metavar="URL", help=_STORE_HELP, show_default=False)] = None,
) -> None:
    """Run a small web application that shows what sessions do.

    It keeps its sessions and its secret key in the folder `.coatcheck` of the current directory, so a restart leaves
    everybody logged in. `COATCHECK_SECRET_KEYS` (keys separated by commas, newest first) takes the key's place.

    **Examples**

    - `coatcheck demo`
    - `coatcheck demo --port 9000 --store valkey+embedded:`
    - `coatcheck demo --store redis://localhost:6379/0`
    """
    if any(find_spec(module) is None for module in _NEEDED):
        refuse(str(MissingExtra("coatcheck demo", "demo")))
    from coatcheck.demo.serve import serve

    try:
        serve(host, port, store, environment=os.environ, announce=_announce)
    except KeyboardInterrupt:
        return  # asked to stop, and stopped
    except StoreError as error:
        refuse(f"The store can't be used: {error}")
    except ConfigurationError as error:
        hint = " (or valkey+embedded: for a private Valkey)" if str(error).startswith("store URL") else ""
        refuse(f"{error}{hint}")


def _announce(announcement: Announcement) -> None:
    from coatcheck.demo.users import USERS

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("Open", Text(announcement.url, "bold underline cyan"))
    table.add_row("Log in", Text(" or ".join(f"{user.username} / {user.password}" for user in USERS.values())))
    table.add_row("Store", Text(announcement.store))
    table.add_row("Cookie", Text(f"{announcement.cookie}, without Secure, because the demo speaks plain http"))
    if announcement.is_public:
        table.add_row("Careful", Text("other machines can reach this, and the passwords are known", "yellow"))
    table.add_row("Stop", Text("Ctrl+C"))
    stdout.print(Text("\nCoatcheck demo", "bold"))
    stdout.print(table)
    stdout.print()
    stdout.file.flush()
