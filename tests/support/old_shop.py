"""An old system in memory, for tests of the rules: its cookie is `<ID>.genuine`, its sessions are JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from coatcheck.adopters import AnyOldRecords, Claim, OldSession
from coatcheck.errors import StoreUnavailable
from coatcheck.interop.old_system import OldSystem, from_json

COOKIE = "old"


@dataclass
class Shelf:
    """The old records, for threads. Tells what it was asked."""

    records: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)

    def _check(self, call: str) -> None:
        self.calls.append(call)
        if call in self.fails:
            message = "the old records are out of reach"
            raise StoreUnavailable(message)

    def get(self, key: str) -> bytes | None:
        self._check("get")
        return self.records.get(key)

    def delete(self, key: str) -> None:
        self._check("delete")
        self.records.pop(key, None)

    def close(self) -> None:
        self._check("close")


class AsyncShelf:
    """The same for asyncio. Others get their turn at every call."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def get(self, key: str) -> bytes | None:
        await asyncio.sleep(0)
        return self._shelf.get(key)

    async def delete(self, key: str) -> None:
        await asyncio.sleep(0)
        self._shelf.delete(key)

    async def close(self) -> None:
        self._shelf.close()


@dataclass(frozen=True, kw_only=True)
class OldShop(OldSystem):
    """Adopts what is on a shelf. `in_cookie=True`: the cookie itself is `<JSON in hexadecimal>.genuine`."""

    system: ClassVar[str] = "old shop"

    shelf: Shelf = field(default_factory=Shelf)
    cookie_name: str = COOKIE
    in_cookie: bool = False
    decoder: Callable[[bytes], dict[str, Any]] = from_json

    def claim(self, cookie: bytes) -> Claim | None:
        key, _, seal = cookie.decode("latin-1").rpartition(".")
        if seal != "genuine":
            return None
        return Claim(key, bytes.fromhex(key)) if self.in_cookie else Claim(key)

    def decode(self, data: bytes) -> OldSession | None:
        values = self.decoder(data)
        return None if values.pop("is over", False) else self.session(values)

    def records(self, *, is_async: bool) -> AnyOldRecords | None:
        if self.in_cookie:
            return None
        return AsyncShelf(self.shelf) if is_async else self.shelf

    def put(self, key: str, **values: Any) -> str:
        """Keep a session; give its cookie."""
        data = json.dumps(values).encode()
        if self.in_cookie:
            return f"{COOKIE}={data.hex()}.genuine"
        self.shelf.records[key] = data
        return f"{COOKIE}={key}.genuine"
