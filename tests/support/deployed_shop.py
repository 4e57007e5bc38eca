"""One version of an application, in a process of its own, that changes its typed session when it is told to.

python deployed_shop.py VERSION STORE_URL TOKEN     prints "ready"; then for each line of commands, "done" or an error

The versions differ as versions do between two deploys: fields come, go, and change their types.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic

from coatcheck import SyncSessions
from coatcheck.typed import SessionSchema

KEY = "a secret key for tests, 32 bytes or more"


@dataclass
class Item1:
    name: str
    count: int = 1


@dataclass
class Shop1:
    theme: Literal["light", "dark"] = "light"
    cart: list[Item1] = field(default_factory=list)
    language: str = "en"
    visits: int = 0


class Item2(pydantic.BaseModel):
    name: str
    count: int = 1
    price: int = 0


class Shop2(pydantic.BaseModel):
    theme: Literal["light", "dark", "sepia"] = "light"
    cart: list[Item2] = []
    currency: str = "EUR"
    visits: str = "0"


VERSIONS: dict[str, tuple[type[Any], type[Any]]] = {"1": (Shop1, Item1), "2": (Shop2, Item2)}


def main(version: str, store_url: str, token: str) -> None:
    kind, item = VERSIONS[version]
    schema = SessionSchema(kind)
    sessions = SyncSessions(store_url, secret_keys=[KEY])
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        session = sessions.begin([f"__Host-session={token}".encode()])
        session.load()
        # The commands are the test's own.
        exec(line, {"data": schema.of(session), "Item": item, "session": session})
        sessions.conclude(session, 200)
        print("done", flush=True)  # noqa: T201
    sessions.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
