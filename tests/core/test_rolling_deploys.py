"""Two versions of an application serve the same sessions: neither loses what only the other one knows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import msgspec
import pydantic
import pytest
from faces import KEY, Face
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server

from coatcheck import SyncSessions
from coatcheck.typed import SessionSchema

PROGRAM = Path(__file__).parent.parent / "support" / "deployed_shop.py"


# --- objects that the other version knows more of ---------------------------------------------------------------------


@dataclass
class Item:
    name: str
    count: int = 1


class StructItem(msgspec.Struct):
    name: str
    count: int = 1


class ModelItem(pydantic.BaseModel):
    name: str
    count: int = 1


class CamelItem(msgspec.Struct, tag="item", rename={"count": "howMany"}):
    name: str
    count: int = 1


class Address(msgspec.Struct):
    city: str = ""


class ArrayItem(msgspec.Struct, array_like=True):
    name: str
    to: Address


class TaggedArrayItem(msgspec.Struct, array_like=True, tag="item"):
    name: str
    count: int = 1


class Options(TypedDict):
    gift: NotRequired[bool]


class Row(NamedTuple):
    item: Item
    note: str


@dataclass
class Order:
    items: list[Item] = field(default_factory=list)
    to: Address = field(default_factory=Address)


@dataclass
class Session1:
    cart: list[Item] = field(default_factory=list)
    saved: list[Item] = field(default_factory=list)
    structs: list[StructItem] = field(default_factory=list)
    models: list[ModelItem] = field(default_factory=list)
    camels: list[CamelItem] = field(default_factory=list)
    by_name: dict[str, Item] = field(default_factory=dict)
    pair: tuple[Item, int] | None = None
    row: Row | None = None
    orders: dict[int, Order] = field(default_factory=dict)
    address: Address = field(default_factory=Address)
    options: Options = field(default_factory=Options)
    arrays: list[ArrayItem] = field(default_factory=list)
    tagged: list[TaggedArrayItem] = field(default_factory=list)


class Model1(pydantic.BaseModel):
    cart: list[ModelItem] = []
    saved: list[ModelItem] = []
    by_name: dict[str, ModelItem] = {}
    pair: tuple[ModelItem, int] | None = None


version_1 = SessionSchema(Session1)
model_1 = SessionSchema(Model1)


@pytest.fixture
def face() -> Face:
    return Face("sync", "memory://")


def stored(**entry: Any) -> dict[str, Any]:
    return {"name": "pen", "count": 1, "price": 3, **entry}


def test_keys_of_the_session_that_a_version_does_not_declare_are_left_alone(face: Face) -> None:
    token = face.new(cart=[], currency="EUR")
    session = face.request(token)
    version_1.of(session).cart.append(Item("pen"))
    face.respond(session)
    assert face.stored(token) == {"cart": [{"name": "pen", "count": 1}], "currency": "EUR"}


PLACES: list[tuple[str, Any, str, Any]] = [
    ("cart", [stored()], "data.cart[0].count = 2", [stored(count=2)]),
    ("structs", [stored()], "data.structs[0].count = 2", [stored(count=2)]),
    ("models", [stored()], "data.models[0].count = 2", [stored(count=2)]),
    (
        "camels",
        [{"type": "item", "name": "pen", "howMany": 1, "price": 3}],
        "data.camels[0].count = 2",
        [{"type": "item", "name": "pen", "howMany": 2, "price": 3}],
    ),
    ("by_name", {"a": stored(), "b": stored()}, "data.by_name['b'].count = 2", {"a": stored(), "b": stored(count=2)}),
    ("by_name", {"a": stored(), "b": stored()}, "del data.by_name['a']", {"b": stored()}),
    ("pair", (stored(), 1), "data.pair = (data.pair[0], 2)", (stored(), 2)),
    ("row", (stored(), "x"), "data.row = data.row._replace(note='y')", (stored(), "y")),
    (
        "orders",
        {7: {"items": [stored()], "to": {"city": "A", "zip": 1}, "paid": True}},
        "data.orders[7].items[0].count = 2; data.orders[7].to.city = 'B'",
        {7: {"items": [stored(count=2)], "to": {"city": "B", "zip": 1}, "paid": True}},
    ),
    ("address", {"city": "A", "zip": 1}, "data.address.city = 'B'", {"city": "B", "zip": 1}),
    ("options", {"gift": True, "wrap": "red"}, "data.options['gift'] = False", {"gift": False, "wrap": "red"}),
    ("options", {"gift": True, "wrap": "red"}, "del data.options['gift']", {"wrap": "red"}),
    (
        "arrays",
        [["pen", {"city": "A", "zip": 1}, 3, "red"], ["ink", {"city": "A"}]],
        "data.arrays[0].to.city = data.arrays[1].to.city = 'B'; data.arrays.reverse()",
        [["ink", {"city": "B"}], ["pen", {"city": "B", "zip": 1}, 3, "red"]],
    ),
    (
        "tagged",
        [["item", "pen", 1, 3], ["item", "ink"]],
        "data.tagged[0].count = 2",
        [["item", "pen", 2, 3], ["item", "ink", 1]],
    ),
]


@pytest.mark.parametrize(("key", "before", "act", "after"), PLACES, ids=[place[2] for place in PLACES])
def test_what_a_version_does_not_know_inside_an_object_survives_its_changes(
    face: Face, key: str, before: Any, act: str, after: Any
) -> None:
    token = face.new(**{key: before})
    session = face.request(token)
    exec(act, {"data": version_1.of(session)})
    face.respond(session)
    assert face.stored(token) == {key: after}


@pytest.mark.parametrize("schema", [version_1, model_1], ids=["dataclass", "model"])
def test_it_goes_with_its_object_when_lists_are_changed_around(face: Face, schema: SessionSchema[Any]) -> None:
    token = face.new(cart=[stored(name=name, price=price) for price, name in enumerate("abcd")], saved=[])
    session = face.request(token)
    data = schema.of(session)
    data.saved.append(data.cart.pop(1))
    data.cart.reverse()
    data.cart.insert(0, type(data.cart[0])(name="new"))
    data.cart = list(data.cart)
    face.respond(session)
    assert face.stored(token) == {
        "cart": [
            {"name": "new", "count": 1},
            *(stored(name=name, price=price) for price, name in [(3, "d"), (2, "c"), (0, "a")]),
        ],
        "saved": [stored(name="b", price=1)],
    }


def test_it_survives_change_after_change_of_one_request(face: Face) -> None:
    session = face.request(face.new(cart=[stored()], saved=[]))
    data = version_1.of(session)
    for count in range(2, 5):
        data.cart[0].count = count
        face.save(session)
    data.saved.append(data.cart.pop())
    face.save(session)
    data.saved[0].name = "ink"
    face.save(session)
    assert face.stored(session.token) == {"cart": [], "saved": [stored(name="ink", count=4)]}


def test_it_survives_where_another_request_brought_it_in_meanwhile(face: Face) -> None:
    session = face.request(face.new(cart=[{"name": "pen", "count": 1}]))
    data = version_1.of(session)
    other = face.request(session.token)
    other["cart"][0]["price"] = 3
    face.respond(other)
    face.run(session.refresh())
    data.cart[0].count = 2
    face.respond(session)
    assert face.stored(session.token) == {"cart": [stored(count=2)]}


def test_a_migration_decides_what_goes_on_of_what_it_was_given(face: Face) -> None:
    def migrate(key: str, value: Any, error: Exception) -> Any:
        return [{**item, "count": int(item["count"])} for item in value]

    session = face.request(face.new(cart=[stored(count="1")]))
    SessionSchema(Session1, migrate=migrate).of(session).cart[0].count = 2
    face.respond(session)
    assert face.stored(session.token) == {"cart": [stored(count=2)]}


class Recounted(pydantic.BaseModel):
    """Was called `qty` once, which it still reads."""

    name: str = ""
    count: int = 1

    @pydantic.model_validator(mode="before")
    @classmethod
    def read_old_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and "qty" in data:
            return {**data, "count": data["qty"]}
        return data


class Renamed1(pydantic.BaseModel):
    cart: list[Recounted] = []
    saved: list[Recounted] = []
    by_id: dict[int, str] = {}


CHANGES = [
    "data.cart[0].count = 5",
    "data.cart[0].count = 5; session.save(); data.cart[0].count = 3; session.save(); data.cart[0].count = 4",
    "data.cart[1].count = 5",
    "data.cart[0].name = 'ink'",
    "data.saved.append(data.cart.pop(0)); data.saved[0].count = 5",
    "data.by_id[1] = 'b'",
    "data.by_id[2] = 'b'",
    "del data.by_id[1]",
]


@pytest.mark.parametrize("act", CHANGES)
def test_what_a_type_reads_under_another_name_undoes_no_change(face: Face, act: str) -> None:
    schema = SessionSchema(Renamed1)
    cart = [{"name": "pen", "qty": 3, "price": 7}, {"name": "cup", "qty": 1, "price": 8}]
    token = face.new(cart=cart, by_id={"1": "a"})
    session = face.request(token)
    data = schema.of(session)
    exec(act, {"data": data, "session": session})
    face.respond(session)
    assert schema.of(face.request(token)) == data
    stored = face.stored(token)
    assert stored is not None
    assert sorted(item["price"] for key in ("cart", "saved") for item in stored.get(key, [])) == [7, 8]


known = st.fixed_dictionaries({"name": st.text(max_size=3), "count": st.integers()})
extra = st.dictionaries(
    st.sampled_from(["price", "size", "notes"]), st.integers() | st.lists(st.integers(), max_size=2)
)
items = st.builds(lambda of_both, of_one: {**of_one, **of_both}, known, extra)


@given(cart=st.lists(items, max_size=5), data=st.data())
@settings(max_examples=60)
def test_any_change_of_a_list_keeps_each_objects_other_keys(cart: list[dict[str, Any]], data: st.DataObject) -> None:
    sessions = SyncSessions("memory://", secret_keys=[KEY])
    with sessions.open() as session:
        session["cart"] = cart
    order = data.draw(st.permutations(range(len(cart))))
    kept = order[: data.draw(st.integers(0, len(cart)))]
    with sessions.open(session.token) as session:
        typed = version_1.of(session)
        typed.cart[:] = [typed.cart[number] for number in kept]
        for item in typed.cart:
            item.count += 1
    with sessions.open(session.token) as session:
        assert session["cart"] == [{**cart[number], "count": cart[number]["count"] + 1} for number in kept]


# --- two processes ----------------------------------------------------------------------------------------------------


class Deployed:
    """One version, running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, command: str) -> None:
        """Let it serve a request that does this."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


@contextmanager
def deployed(version: str, store_url: str, token: str) -> Iterator[Deployed]:
    command = [sys.executable, str(PROGRAM), version, store_url, token]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Deployed(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.fixture(params=["sqlite", "valkey"])
def shared_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.sqlite3"
    servers: dict[str, Server] = request.getfixturevalue("running_servers")
    return servers["valkey"].url


def test_two_versions_side_by_side_lose_nothing_that_the_other_wrote(shared_store: str) -> None:
    face = Face("sync", shared_store)
    token = face.new(visits=1)
    with ExitStack() as stack:
        old, new = (stack.enter_context(deployed(version, shared_store, token)) for version in "12")
        old.do("data.cart.append(Item('pen')); data.language = 'de'")
        new.do("data.cart[0].price = 3; data.currency = 'CHF'")
        old.do("data.cart[0].count = 2; data.cart.insert(0, Item('ink'))")
        assert face.stored(token) == {
            "visits": 1,
            "language": "de",
            "currency": "CHF",
            "cart": [{"name": "ink", "count": 1}, {"name": "pen", "count": 2, "price": 3}],
        }
        # A value that only the new version's type allows: the old one shows its default, and leaves it alone.
        new.do("data.theme = 'sepia'; assert data.visits == '0'")
        old.do("assert data.theme == 'light'; assert data.visits == 1; data.cart.reverse()")
        new.do("assert data.theme == 'sepia'; assert [item.price for item in data.cart] == [3, 0]")
        found = face.stored(token)
        assert found is not None
        assert (found["theme"], found["visits"]) == ("sepia", 1)


def test_two_versions_at_the_same_moment_lose_nothing_either(shared_store: str) -> None:
    face = Face("sync", shared_store)
    token = face.new(cart=[stored()])
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        old, new = (stack.enter_context(deployed(version, shared_store, token)) for version in "12")

        def work(version: Deployed, field_name: str, numbers: range) -> None:
            for number in numbers:
                version.do(f"data.{field_name} += '{number % 10}'; session.append('log', {number})")

        for each in [
            threads.submit(work, old, "language", range(20)),
            threads.submit(work, new, "currency", range(20, 40)),
        ]:
            each.result(60)
    found = face.stored(token)
    assert found is not None
    assert sorted(found["log"]) == list(range(40))
    assert (found["language"], found["currency"]) == ("en" + "0123456789" * 2, "EUR" + "0123456789" * 2)
    assert found["cart"] == [stored()]
