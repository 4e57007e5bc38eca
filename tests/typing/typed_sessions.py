"""Never run: the type checkers read it, and say whether a typed session has the types that users are promised."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict, assert_type

import msgspec
import pydantic

from coatcheck import Session, SyncSession
from coatcheck.typed import Migrate, SessionSchema, UnfitValue


@dataclass
class Item:
    name: str
    count: int = 1


@dataclass
class ShopSession:
    theme: Literal["light", "dark"] = "light"
    cart: list[Item] = field(default_factory=list)


class ShopStruct(msgspec.Struct):
    visits: int = 0


class ShopDict(TypedDict):
    note: NotRequired[str]


class ShopModel(pydantic.BaseModel):
    email: str = ""


shop = SessionSchema(ShopSession)
assert_type(shop, SessionSchema[ShopSession])


def of_every_kind(session: Session, sync_session: SyncSession, of_a_framework: MutableMapping[str, Any]) -> None:
    assert_type(shop.of(session), ShopSession)
    assert_type(shop.of(sync_session), ShopSession)
    assert_type(shop.of(of_a_framework), ShopSession)
    assert_type(SessionSchema(ShopStruct).of(session).visits, int)
    assert_type(SessionSchema(ShopDict).of(session).get("note"), str | None)
    assert_type(SessionSchema(ShopModel).of(session).email, str)
    shop.of(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def read_and_written(session: Session) -> None:
    data = shop.of(session)
    assert_type(data.cart, list[Item])
    assert_type(data.cart[0].count, int)
    data.theme = "dark"
    data.cart.append(Item("book"))
    data.theme = "blue"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    data.them = "dark"  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    data.cart.append("book")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    data.cart[0].count = "2"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    note = SessionSchema(ShopDict).of(session)
    note["note"] = "x"
    note["nota"] = "x"  # type: ignore[typeddict-unknown-key]  # pyright: ignore[reportGeneralTypeIssues]


def migrate(key: str, value: Any, error: UnfitValue) -> object:
    assert_type(error.key, str)
    assert_type(error.expected, str)
    assert_type(error.found, str)
    return int(value) if key == "visits" else value


def migrate_without_error(key: str, value: Any) -> object:
    return value


as_declared: Migrate = migrate
SessionSchema(ShopStruct, migrate=migrate, when_unfit="raise")
SessionSchema(ShopStruct, migrate=lambda key, value, error: 0)
SessionSchema(ShopStruct, migrate=migrate_without_error)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
SessionSchema(ShopStruct, when_unfit="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
SessionSchema(ShopStruct())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
