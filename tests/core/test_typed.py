"""What `SessionSchema` promises, async and sync, on every store."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from faces import KEY, AnySession, Face, Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck import SyncSessions
from coatcheck.asgi import SessionMiddleware
from coatcheck.errors import (
    ConfigurationError,
    ResponseStarted,
    SessionClosed,
    SessionError,
    SessionNotLoaded,
    StoreUnavailable,
    UnsupportedValue,
)
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.typed import SessionSchema, UnfitValue

Theme = Literal["light", "dark"]


class Size(Enum):
    SMALL = "S"
    LARGE = "L"


@dataclass
class Item:
    name: str
    count: int = 1


@dataclass
class ShopSession:
    theme: Theme = "light"
    cart: list[Item] = field(default_factory=list)
    visits: int = 0


class StructItem(msgspec.Struct):
    name: str
    count: int = 1


class ShopStruct(msgspec.Struct):
    theme: Theme = "light"
    cart: list[StructItem] = msgspec.field(default_factory=list)
    visits: int = 0


class ModelItem(pydantic.BaseModel):
    name: str
    count: int = 1


class ShopModel(pydantic.BaseModel):
    theme: Theme = "light"
    cart: list[ModelItem] = []
    visits: int = 0


@dataclass
class ShopOfModels:
    theme: Theme = "light"
    cart: list[ModelItem] = field(default_factory=list)
    visits: int = 0


shop = SessionSchema(ShopSession)

SCHEMAS: list[tuple[SessionSchema[Any], Callable[..., Any]]] = [
    (shop, Item),
    (SessionSchema(ShopStruct), StructItem),
    (SessionSchema(ShopModel), ModelItem),
    (SessionSchema(ShopOfModels), ModelItem),
]


@pytest.fixture(params=SCHEMAS, ids=["dataclass", "Struct", "pydantic", "dataclass of models"])
def declared(request: pytest.FixtureRequest) -> tuple[SessionSchema[Any], Callable[..., Any]]:
    schema: tuple[SessionSchema[Any], Callable[..., Any]] = request.param
    return schema


@pytest.fixture
def memory(kind: Kind) -> Face:
    """Each façade on the memory store: for what no store has a part in."""
    return Face(kind, "memory://")


# --- reading and writing ----------------------------------------------------------------------------------------------


def test_values_are_real_instances_of_the_declared_types_and_changes_are_stored_without_a_call(
    face: Face, declared: tuple[SessionSchema[Any], Callable[..., Any]]
) -> None:
    schema, item = declared
    session = face.request()
    data = schema.of(session)
    data.theme = "dark"
    data.cart.append(item(name="book"))
    face.respond(session)
    again = face.request(session.token)
    data = schema.of(again)
    assert (data.theme, data.cart, data.visits) == ("dark", [item(name="book")], 0)
    assert isinstance(data.cart[0], type(item(name="x")))
    data.cart[0].count += 1
    face.respond(again)
    assert face.stored(session.token) == {"theme": "dark", "cart": [{"name": "book", "count": 2}]}


def test_of_a_session_that_was_lost_while_somebody_logs_in_nothing_is_shown(memory: Face) -> None:
    session = memory.request()
    shop.of(session).theme = "dark"
    memory.respond(session)
    session = memory.request(session.token)
    data = shop.of(session)
    shown = [data.theme]
    session._work.start_over()
    assert [*shown, data.theme] == ["dark", "light"]


def test_of_gives_the_same_object_whenever_a_request_asks(memory: Face) -> None:
    session = memory.request()
    assert shop.of(session) is shop.of(session)
    assert shop.of(session) is not shop.of(memory.request())


def test_reading_only_stores_nothing_and_sets_no_cookie(
    face: Face, declared: tuple[SessionSchema[Any], Callable[..., Any]]
) -> None:
    schema, _ = declared
    session = face.request()
    assert schema.of(session).cart == []
    assert face.respond(session) is None
    assert face.stored(session.token) is None
    token = face.new(cart=[{"name": "pen", "count": 1}])
    before = face.everything()
    session = face.request(token)
    assert schema.of(session).cart[0].name == "pen"
    assert face.respond(session) is None
    assert face.everything() == before


def test_a_default_that_nobody_changed_is_not_stored(memory: Face) -> None:
    session = memory.request()
    shop.of(session).visits = 1
    memory.respond(session)
    assert memory.stored(session.token) == {"visits": 1}


def test_a_field_set_back_to_its_default_is_stored(memory: Face) -> None:
    session = memory.request(memory.new(theme="dark"))
    shop.of(session).theme = "light"
    memory.respond(session)
    assert memory.stored(session.token) == {"theme": "light"}


def test_a_change_in_a_stream_is_found_at_every_save(memory: Face) -> None:
    token = memory.new(visits=1)
    session = memory.request(token)
    data = shop.of(session)
    memory.respond(session)
    for number in range(2, 5):
        data.visits = number
        assert not session._work.settled, "or a stream would not look for changes before it sends on"
        memory.save(session)
        assert memory.stored(token) == {"visits": number}


def test_a_change_between_two_chunks_of_a_stream_is_stored_before_the_second_leaves() -> None:
    face = Face("async", "memory://")
    token = face.new(visits=1)
    stored_when_sent: list[Any] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        data = shop.of(scope["session"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(2, 5):
            data.visits = number
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 4})

    async def receive() -> Any: ...

    async def send(message: Any) -> None:
        async with face.sessions.open(token) as session:
            stored_when_sent.append(session["visits"])

    headers = [(b"cookie", f"__Host-session={token}".encode())]
    scope = {"type": "http", "path": "/", "headers": headers, "scheme": "https", "method": "GET"}
    face.run(SessionMiddleware(app, face.sessions)(scope, receive, send))
    assert stored_when_sent == [1, 2, 3, 4]


class Partial(TypedDict, total=False):
    theme: Theme
    cart: list[Item]


class WithNotRequired(TypedDict):
    note: NotRequired[str]


def test_a_typed_dict_is_a_dict_with_what_there_is(face: Face) -> None:
    schema = SessionSchema(Partial)
    token = face.new(theme="dark", other=1)
    session = face.request(token)
    data = schema.of(session)
    assert data == {"theme": "dark"}
    data["cart"] = [Item("pen")]
    del data["theme"]
    face.respond(session)
    assert face.stored(token) == {"other": 1, "cart": [{"name": "pen", "count": 1}]}
    assert SessionSchema(WithNotRequired).of(session) == {}


def test_a_key_that_a_typed_dict_does_not_declare_is_refused(memory: Face) -> None:
    session = memory.request()
    SessionSchema(Partial).of(session)["colour"] = "red"  # type: ignore[typeddict-unknown-key]
    with pytest.raises(UnfitValue, match="Partial declares no 'colour'"):
        memory.respond(session)


class Rank(IntEnum):
    FIRST = 1


class Point(msgspec.Struct, frozen=True, rename="camel", tag=True):
    left_side: int


class Circle(msgspec.Struct, tag=True):
    radius: float


@dataclass
class Everything:
    size: Size = Size.SMALL
    rank: Rank = Rank.FIRST
    when: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    day: date | None = None
    span: timedelta = timedelta(0)
    price: Decimal = Decimal(0)
    key: UUID | None = None
    raw: bytes = b""
    tags: set[str] = field(default_factory=set)
    pair: tuple[int, str] = (0, "")
    by_size: dict[Size, Item] = field(default_factory=dict)
    shape: Point | Circle | None = None
    anything: Any = None


everything = SessionSchema(Everything)


@given(
    st.builds(
        Everything,
        when=st.datetimes(timezones=st.just(UTC)),
        tags=st.sets(st.text()),
        raw=st.binary(),
        key=st.uuids(),
        price=st.decimals(allow_nan=False),
        by_size=st.dictionaries(st.sampled_from(Size), st.builds(Item)),
        shape=st.one_of(st.builds(Point, left_side=st.integers()), st.builds(Circle, radius=st.floats(0, 9))),
        anything=st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=4),
    )
)
@settings(max_examples=60)
def test_what_was_put_in_comes_out_equal_and_of_the_same_types(value: Everything) -> None:
    sessions = SyncSessions("memory://", secret_keys=[KEY])
    with sessions.open() as session:
        data = everything.of(session)
        for name in Everything.__dataclass_fields__:
            setattr(data, name, getattr(value, name))
    with sessions.open(session.token) as session:
        found = everything.of(session)
        assert found == value
        assert [type(part) for part in vars(found).values()] == [type(part) for part in vars(value).values()]


def test_what_is_stored_is_portable(memory: Face) -> None:
    session = memory.request()
    data = everything.of(session)
    data.size, data.tags, data.pair, data.shape = Size.LARGE, {"a"}, (1, "b"), Point(left_side=3)
    data.by_size[Size.SMALL] = Item("pen")
    memory.respond(session)
    assert memory.stored(session.token) == {
        "size": "L",
        "tags": {"a"},
        "pair": (1, "b"),
        "shape": {"type": "Point", "leftSide": 3},
        "by_size": {"S": {"name": "pen", "count": 1}},
    }


class Renamed(msgspec.Struct, rename="camel"):
    last_page: str = ""


class Aliased(pydantic.BaseModel):
    last_page: str = pydantic.Field("", alias="lastPage")


@pytest.mark.parametrize("kind_of_type", [Renamed, Aliased])
def test_the_name_that_a_field_is_given_for_the_outside_is_the_session_key(memory: Face, kind_of_type: Any) -> None:
    session = memory.request(memory.new(lastPage="/"))
    data = SessionSchema(kind_of_type).of(session)
    assert data.last_page == "/"
    data.last_page = "/cart"
    memory.respond(session)
    assert memory.stored(session.token) == {"lastPage": "/cart"}


class AliasedItem(pydantic.BaseModel):
    full_name: str = pydantic.Field(alias="fullName")


class OfAliased(pydantic.BaseModel):
    items: list[AliasedItem] = []


@dataclass
class OfAliasedToo:
    items: list[AliasedItem] = field(default_factory=list)


@pytest.mark.parametrize("kind_of_type", [OfAliased, OfAliasedToo])
def test_an_alias_inside_a_field_is_the_name_that_is_stored(memory: Face, kind_of_type: Any) -> None:
    session = memory.request()
    SessionSchema(kind_of_type).of(session).items.append(AliasedItem(fullName="pen"))
    memory.respond(session)
    assert memory.stored(session.token) == {"items": [{"fullName": "pen"}]}


class Lowered(pydantic.BaseModel):
    email: str = ""
    size: Size = Size.SMALL
    when: datetime | None = None

    @pydantic.field_validator("email")
    @classmethod
    def lower(cls, email: str) -> str:
        if "@" not in email and email:
            msg = f"{email} has no @"
            raise ValueError(msg)
        return email.lower()


def test_the_validators_of_a_model_decide_what_is_stored_and_shown(memory: Face) -> None:
    session = memory.request()
    data = SessionSchema(Lowered).of(session)
    data.email, data.size, data.when = "A@B", Size.LARGE, datetime(2026, 1, 1, tzinfo=UTC)
    memory.respond(session)
    assert data.email == "a@b"
    stored = {"email": "a@b", "size": "L", "when": datetime(2026, 1, 1, tzinfo=UTC)}
    assert memory.stored(session.token) == stored
    data.email = "SECRET"
    with pytest.raises(UnfitValue, match=r"Lowered.email is str, but it was given str \(value_error\)") as raised:
        memory.save(session)
    assert "SECRET" not in str(raised.value)
    assert raised.value.__cause__ is None


class Timed(pydantic.BaseModel):
    when: datetime | None = None
    daily: time | None = None
    by_time: dict[datetime, set[datetime]] = {}


@dataclass
class TimedToo:
    when: datetime | None = None
    daily: time | None = None
    by_time: dict[datetime, set[datetime]] = field(default_factory=dict)


@pytest.mark.parametrize("kind_of_type", [Timed, TimedToo])
@pytest.mark.parametrize("offset", ["Z", "+02:00", "-03:30"])
def test_times_as_pydantic_reads_them_are_stored_with_zones_of_the_standard_library(
    memory: Face, kind_of_type: Any, offset: str
) -> None:
    when, daily = f"2026-01-01T10:00:00{offset}", f"10:00:00{offset}"
    body = Timed.model_validate({"when": when, "daily": daily, "by_time": {when: [when]}})
    assert body.when is not None
    assert type(body.when.tzinfo) is not timezone, "or this shows nothing"
    session = memory.request()
    data = SessionSchema(kind_of_type).of(session)
    data.when, data.daily, data.by_time = body.when, body.daily, body.by_time
    memory.respond(session)
    session = memory.request(session.token)
    assert dict(session) == body.model_dump()
    assert session["when"].utcoffset() == body.when.utcoffset()
    for stored in (session["when"], session["daily"], *session["by_time"], *session["by_time"][body.when]):
        assert type(stored.tzinfo) is timezone
    assert SessionSchema(kind_of_type).of(session) == data


class Summer(tzinfo):
    """Knows its offset only at a time."""

    def utcoffset(self, at: datetime | None) -> timedelta | None:
        return None if at is None else timedelta(hours=2 if at.month == 7 else 1)

    def dst(self, _: datetime | None) -> None: ...

    def tzname(self, _: datetime | None) -> None: ...


class Broken(Summer):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise ZeroDivisionError


class Guessing(Summer):
    def utcoffset(self, at: datetime | None) -> timedelta:
        return timedelta(hours=2 if at is None else 1)


@pytest.mark.parametrize("zone", [Summer(), Guessing(), Broken()], ids=["not fixed", "guessing", "broken"])
def test_a_zone_that_is_no_fixed_offset_is_refused(memory: Face, zone: tzinfo) -> None:
    session = memory.request()
    data = SessionSchema(TimedToo).of(session)
    data.when = datetime(2026, 1, 1, tzinfo=zone)
    with pytest.raises(UnsupportedValue, match=rf"session\['when'\] can't keep .*'{type(zone).__name__}'"):
        memory.respond(session)


# --- concurrency ------------------------------------------------------------------------------------------------------


def test_requests_that_change_different_fields_both_win(
    face: Face, declared: tuple[SessionSchema[Any], Callable[..., Any]]
) -> None:
    schema, item = declared
    token = face.new(theme="light")
    first, second = face.request(token), face.request(token)
    schema.of(first).theme = "dark"
    schema.of(second).cart.append(item(name="pen"))
    face.respond(second)
    face.respond(first)
    assert face.stored(token) == {"theme": "dark", "cart": [{"name": "pen", "count": 1}]}


@pytest.mark.parametrize("bring_in", ["save", "refresh"])
def test_what_another_request_changed_is_shown_unless_this_one_changed_it_too(memory: Face, bring_in: str) -> None:
    token = memory.new(theme="light", visits=1)
    session, other = memory.request(token), memory.request(token)
    data, other_data = shop.of(session), shop.of(other)
    cart = data.cart
    other_data.theme, other_data.visits = "dark", 5
    other_data.cart.append(Item("pen"))
    memory.respond(other)
    data.visits = 2
    memory.run(getattr(session, bring_in)())
    assert (data.theme, data.visits, data.cart) == ("dark", 2, [Item("pen")])
    assert data.cart is cart, "the list at hand shows it too"
    memory.respond(session)
    assert memory.stored(token) == {"theme": "dark", "visits": 2, "cart": [{"name": "pen", "count": 1}]}


def test_one_list_in_two_fields_does_not_make_them_one(memory: Face) -> None:
    @dataclass
    class Two:
        a: list[int] = field(default_factory=list)
        b: list[int] = field(default_factory=list)

    session = memory.request()
    data = _schema_here(Two, a=list[int], b=list[int]).of(session)
    data.a = data.b = [1]
    memory.respond(session)
    other = memory.request(session.token)
    other["a"] = [2]
    memory.respond(other)
    memory.run(session.refresh())
    assert (data.a, data.b) == ([2], [1])


def _schema_here(kind: type[Any], **annotations: Any) -> SessionSchema[Any]:
    """Give the schema of a class that is defined in a test, whose annotations are texts."""
    kind.__annotations__ = annotations
    return SessionSchema(kind)


class ChangesMeanwhile:
    """A store in whose `update` the request goes on changing its session."""

    def __init__(self, kind: Kind) -> None:
        inner: Any = (MemoryStore if kind == "async" else SyncMemoryStore)()
        self.act: Callable[[], None] = lambda: None

        async def update(*arguments: Any) -> Any:
            self.act()
            return await inner.update(*arguments)

        def sync_update(*arguments: Any) -> Any:
            self.act()
            return inner.update(*arguments)

        self.update = update if kind == "async" else sync_update
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_field_that_is_changed_while_the_store_is_at_work_is_stored_by_the_next_commit(kind: Kind) -> None:
    store = ChangesMeanwhile(kind)
    face = Face(kind, store)
    session = face.request(face.new(theme="light"))
    data = shop.of(session)
    data.theme = "dark"

    def go_on() -> None:
        data.theme, data.visits = "light", 7

    store.act = go_on
    face.save(session)
    assert (data.theme, data.visits) == ("light", 7)
    store.act = lambda: None
    assert face.stored(session.token) == {"theme": "dark"}
    face.save(session)
    assert face.stored(session.token) == {"theme": "light", "visits": 7}


# --- the session without types, beside it -----------------------------------------------------------------------------


def test_of_typed_and_untyped_assignments_the_last_wins(memory: Face) -> None:
    session = memory.request(memory.new(theme="light"))
    data = shop.of(session)
    data.theme = "dark"
    assert session["theme"] == "dark"
    session["theme"] = "light"
    assert shop.of(session) == ShopSession(theme="light")
    data.theme = "dark"
    memory.respond(session)
    assert memory.stored(session.token) == {"theme": "dark"}


def test_the_session_shows_what_was_changed_by_the_types_and_the_other_way_round(memory: Face) -> None:
    session = memory.request()
    data = shop.of(session)
    assert "cart" not in session
    data.cart.append(Item("pen"))
    assert "cart" in session
    assert dict(session) == {"cart": [{"name": "pen", "count": 1}]}
    session["cart"].append({"name": "ink"})
    assert shop.of(session).cart == [Item("pen"), Item("ink")]
    del session["cart"]
    assert data.cart == []
    data.visits = 3
    assert len(session) == 1
    session.clear()
    assert data.visits == 0
    assert memory.respond(session) is None


def test_a_change_inside_an_untyped_value_is_stored_beside_the_types(memory: Face) -> None:
    session = memory.request(memory.new(cart=[{"name": "pen", "count": 1}]))
    data = shop.of(session)
    session["cart"].append({"name": "ink", "count": 1})
    data.theme = "dark"
    memory.respond(session)
    assert data.cart == [Item("pen"), Item("ink")]
    stored = memory.stored(session.token)
    assert stored == {"theme": "dark", "cart": [{"name": "pen", "count": 1}, {"name": "ink", "count": 1}]}


def test_of_changes_inside_a_value_by_both_ways_the_typed_one_counts(memory: Face) -> None:
    session = memory.request(memory.new(cart=[{"name": "pen", "count": 1}]))
    data, cart = shop.of(session), session["cart"]
    cart.append({"name": "ink", "count": 1})
    data.cart[0].count = 5
    memory.respond(session)
    assert memory.stored(session.token) == {"cart": [{"name": "pen", "count": 5}]}


def test_operations_add_up_beside_the_types(face: Face) -> None:
    token = face.new(visits=1)
    session, other = face.request(token), face.request(token)
    data = shop.of(session)
    cart = data.cart
    session.increment("visits")
    session.append("cart", {"name": "pen"})
    session.modify("theme", lambda _: "dark")
    assert (data.visits, data.cart, data.theme) == (2, [Item("pen")], "dark")
    assert data.cart is cart
    other.increment("visits", 10)
    other.append("cart", {"name": "ink"})
    face.respond(other)
    face.respond(session)
    assert (data.visits, [item.name for item in data.cart]) == (12, ["ink", "pen"])
    stored = face.stored(token)
    assert stored == {"visits": 12, "theme": "dark", "cart": [{"name": "ink"}, {"name": "pen"}]}


def test_an_operation_works_on_what_was_changed_by_the_types(memory: Face) -> None:
    session = memory.request()
    shop.of(session).visits = 5
    assert session.increment("visits") == 6
    memory.respond(session)
    assert memory.stored(session.token) == {"visits": 6}


def test_two_types_may_share_a_field(memory: Face) -> None:
    @dataclass
    class Other:
        visits: int = 0

    session = memory.request()
    data, other = shop.of(session), _schema_here(Other, visits=int).of(session)
    data.visits = 3
    assert session["visits"] == 3
    assert other.visits == 3
    other.visits = 4
    memory.respond(session)
    assert data.visits == 4
    assert memory.stored(session.token) == {"visits": 4}


# --- the session's life -----------------------------------------------------------------------------------------------


def _log_out(session: AnySession) -> None:
    session.logout()


def _log_in_as_bob(session: AnySession) -> None:
    session.login("bob")


@pytest.mark.parametrize("let_go", [_log_out, _log_in_as_bob])
def test_nothing_of_a_session_that_was_let_go_of_gets_into_the_next(
    face: Face, let_go: Callable[[AnySession], None]
) -> None:
    session = face.request()
    session.login("alice")
    data = shop.of(session)
    data.cart.append(Item("pen"))
    face.respond(session)
    session = face.request(session.token)
    data = shop.of(session)
    data.theme = "dark"
    at_hand = data.cart
    let_go(session)
    assert data == ShopSession()
    assert at_hand == [Item("pen")]
    data.visits = 1
    face.respond(session)
    assert face.stored(session.token) == {"visits": 1}


def test_a_login_keeps_what_nobody_had_in_the_session(memory: Face) -> None:
    session = memory.request()
    data = shop.of(session)
    data.cart.append(Item("pen"))
    session.login("alice")
    memory.respond(session)
    assert memory.stored(session.token) == {"cart": [{"name": "pen", "count": 1}]}


def test_logout_keeps_what_it_is_told_to_keep_of_what_was_changed_by_the_types(memory: Face) -> None:
    session = memory.request(memory.new(visits=1))
    data = shop.of(session)
    data.theme = "dark"
    session.logout(keep=["theme"])
    assert (data.theme, data.visits) == ("dark", 0)
    memory.respond(session)
    assert memory.stored(session.token) == {"theme": "dark"}


def test_a_session_that_was_revoked_meanwhile_is_not_brought_back(face: Face) -> None:
    token = face.new(theme="dark")
    session = face.request(token)
    data = shop.of(session)
    data.visits = 1
    face.revoke(token)
    face.respond(session)
    assert session.has_ended
    assert data == ShopSession()
    assert face.stored(token) is None
    data.visits = 2
    face.save(session)
    assert face.stored(token) is None


def test_a_request_that_failed_stores_nothing_then_or_later(memory: Face) -> None:
    session = memory.request(memory.new(visits=1))
    data = shop.of(session)
    data.visits = 2
    memory.respond(session, status=500)
    assert data.visits == 1
    memory.save(session)
    assert memory.stored(session.token) == {"visits": 1}


def test_a_new_session_after_the_headers_have_left_is_refused_at_the_save(memory: Face) -> None:
    session = memory.request()
    data = shop.of(session)
    memory.respond(session)
    memory.save(session)
    data.visits = 1
    with pytest.raises(ResponseStarted):
        memory.save(session)
    assert memory.everything() == b""


class Down:
    """A store that is out of reach."""

    def __init__(self, kind: Kind) -> None:
        async def load(*_: str) -> Any:
            raise StoreUnavailable

        def sync_load(*_: str) -> Any:
            raise StoreUnavailable

        async def close() -> None: ...

        self.load = load if kind == "async" else sync_load
        self.close = close if kind == "async" else lambda: None


def test_without_the_store_defaults_are_shown_and_a_change_is_refused(kind: Kind) -> None:
    token = Face(kind, "memory://").new(theme="dark")
    face = Face(kind, Down(kind))
    session = face.sessions.begin([f"__Host-session={token}".encode()])
    session._work.may_go_on = True
    face.run(session.load())
    data = shop.of(session)
    assert data == ShopSession()
    assert not session.is_available
    face.save(session)
    data.visits = 1
    with pytest.raises(StoreUnavailable):
        face.respond(session)
    with pytest.raises(StoreUnavailable):
        face.save(session)
    assert face.respond(session, status=500) is None


def test_a_change_after_the_block_of_open_is_refused_where_somebody_could_notice() -> None:
    sessions = SyncSessions("memory://", secret_keys=[KEY])
    with sessions.open() as session:
        data = shop.of(session)
    data.visits = 1
    with pytest.raises(SessionClosed):
        session.save()


def test_a_lazy_session_has_to_be_loaded_first() -> None:
    face = Face("async", "memory://")
    session = face.sessions.begin([f"__Host-session={face.new(visits=1)}".encode()])
    with pytest.raises(SessionNotLoaded):
        shop.of(session)
    lazy = Face("sync", "memory://")
    session = lazy.sessions.begin([f"__Host-session={lazy.new(visits=1)}".encode()])
    assert shop.of(session).visits == 1


def test_only_a_session_of_ours_has_types() -> None:
    with pytest.raises(SessionError, match="got a dict: is its middleware installed"):
        shop.of({})


def _gives_up(key: str, value: Any, error: UnfitValue) -> Any:
    raise error


def test_a_view_leaves_nothing_to_the_garbage_collector() -> None:
    sessions = SyncSessions("memory://", secret_keys=[KEY])
    strict = SessionSchema(ShopSession, migrate=_gives_up, when_unfit="raise")
    with sessions.open() as session:
        session["visits"] = "many"
    token = session.token
    del session
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            session = sessions.begin([f"__Host-session={token}".encode()])
            shop.of(session).cart.append(Item("pen"))
            with pytest.raises(UnfitValue):
                strict.of(session)
            sessions.conclude(session, 200)
            del session
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each for each in gc.garbage if type(each).__module__.startswith("coatcheck")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_left_as_it_is_and_said_once(memory: Face, caplog: pytest.LogCaptureFixture) -> None:
    schema = SessionSchema(ShopSession)
    token = memory.new(theme="SECRET", visits="SECRET", cart=[{"name": "pen"}])
    with caplog.at_level(logging.WARNING, "coatcheck"):
        for count in range(1, 4):
            session = memory.request(token)
            data = schema.of(session)
            assert data == ShopSession(cart=[Item("pen", count)])
            data.cart[0].count += 1
            memory.respond(session)
    stored = {"theme": "SECRET", "visits": "SECRET", "cart": [{"name": "pen", "count": 4}]}
    assert memory.stored(token) == stored
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "ShopSession.visits is int, but session['visits'] holds str (Expected `int`, got `str`)" in lines[1]
    assert "migrate" in lines[1]
    assert "SECRET" not in caplog.text


class Unlucky(pydantic.BaseModel):
    number: int = 0
    link: pydantic.AnyUrl | None = None  # is read from a text, and written as an object

    @pydantic.field_validator("number")
    @classmethod
    def no_twelve(cls, number: int) -> int:
        return 13 if number == 12 else number

    @pydantic.field_serializer("number")
    def no_thirteen(self, number: int) -> int:
        if number == 13:
            raise ValueError
        return number


def test_what_a_type_reads_and_can_not_write_does_not_fit(memory: Face, caplog: pytest.LogCaptureFixture) -> None:
    stored = {"number": 13, "link": "https://SECRET"}
    session = memory.request(memory.new(**stored))
    data = SessionSchema(Unlucky).of(session)
    assert data == Unlucky()
    memory.respond(session)
    assert memory.stored(session.token) == stored
    assert "session['number'] holds int" in caplog.text
    assert "session['link'] holds str" in caplog.text
    assert "SECRET" not in caplog.text
    data.number = 12
    with pytest.raises(UnfitValue, match=r"Unlucky\.number is int, but it was given int"):
        memory.save(session)


def test_an_assignment_replaces_what_does_not_fit(memory: Face) -> None:
    session = memory.request(memory.new(visits="many"))
    shop.of(session).visits += 1
    memory.respond(session)
    assert memory.stored(session.token) == {"visits": 1}


def test_a_change_inside_a_default_does_not_overwrite_what_does_not_fit(memory: Face) -> None:
    session = memory.request(memory.new(cart="pen, ink"))
    data = shop.of(session)
    data.cart.append(Item("ink"))
    with pytest.raises(UnfitValue, match=r"ShopSession\.cart was changed in place"):
        memory.respond(session)
    assert memory.stored(session.token) == {"cart": "pen, ink"}
    data.cart = [Item("ink")]
    memory.respond(session)
    assert memory.stored(session.token) == {"cart": [{"name": "ink", "count": 1}]}


def test_who_wants_the_error_gets_it(memory: Face) -> None:
    schema = SessionSchema(ShopSession, when_unfit="raise")
    session = memory.request(memory.new(cart=[{"name": "SECRET", "count": "SECRET"}]))
    for _ in range(2):
        with pytest.raises(UnfitValue, match=r"Expected `int`, got `str` - at `\$\[0\].count`") as raised:
            schema.of(session)
        assert (raised.value.key, raised.value.expected, raised.value.found) == (
            "cart",
            f"list[{__name__}.Item]",
            "list",
        )
        assert "SECRET" not in str(raised.value)


def test_a_migration_shows_a_value_that_fits_and_stores_it_only_when_it_is_changed(face: Face) -> None:
    calls: list[tuple[str, Any, str]] = []

    def migrate(key: str, value: Any, error: UnfitValue) -> Any:
        calls.append((key, value, error.expected))
        return [Item(name) for name in value.split(", ")]

    schema = SessionSchema(ShopSession, migrate=migrate)
    token = face.new(cart="pen, ink")
    session = face.request(token)
    data = schema.of(session)
    assert data.cart == [Item("pen"), Item("ink")]
    assert face.respond(session) is None
    assert face.stored(token) == {"cart": "pen, ink"}
    assert calls == [("cart", "pen, ink", f"list[{__name__}.Item]")]
    session = face.request(token)
    schema.of(session).cart[0].count = 2
    face.respond(session)
    assert face.stored(token) == {"cart": [{"name": "pen", "count": 2}, {"name": "ink", "count": 1}]}


def _fails(key: str, value: Any, error: UnfitValue) -> Any:
    raise ZeroDivisionError(value)


def _gives_no_int(key: str, value: Any, error: UnfitValue) -> Any:
    return value


@pytest.mark.parametrize(("migrate", "name"), [(_fails, "ZeroDivisionError"), (_gives_no_int, "MisfitError")])
def test_a_migration_that_fails_makes_no_request_fail(
    memory: Face, migrate: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = memory.request(memory.new(visits="SECRET"))
    assert SessionSchema(ShopSession, migrate=migrate).of(session).visits == 0
    assert f"migrate failed with {name}" in caplog.text
    assert "SECRET" not in caplog.text
    with pytest.raises(UnfitValue):
        SessionSchema(ShopSession, migrate=migrate, when_unfit="raise").of(session)


WRONG: list[tuple[str, Any, str]] = [
    ("visits", "3", "ShopSession.visits is int, but it was given str"),
    ("visits", True, "Expected `int`, got `bool`"),
    ("theme", "SECRET", r"ShopSession.theme is Literal\['light', 'dark'\], but it was given str"),
    ("cart", [Item(name=5)], r"Expected `str`, got `int` - at `\$\[0\].name`"),  # type: ignore[arg-type]
    ("cart", [object()], "Expected `object`, got `object`"),
    ("cart", None, "it was given NoneType"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_value_of_another_type_is_refused_at_the_commit(memory: Face, name: str, value: Any, message: str) -> None:
    session = memory.request(memory.new(theme="dark"))
    setattr(shop.of(session), name, value)
    with pytest.raises(UnfitValue, match=message) as raised:
        memory.respond(session)
    assert "SECRET" not in str(raised.value)
    assert memory.stored(session.token) == {"theme": "dark"}


def test_a_text_is_no_date(memory: Face) -> None:
    session = memory.request(memory.new(when="2026-01-01T00:00:00Z"))
    data = everything.of(session)
    assert data == Everything()
    data.day = "2026-01-01"  # type: ignore[assignment]
    with pytest.raises(UnfitValue, match=r"Expected `date \| null`, got `str`"):
        memory.respond(session)


def test_a_value_that_no_session_keeps_is_refused(memory: Face) -> None:
    session = memory.request()
    data = everything.of(session)
    data.anything = object()
    with pytest.raises(UnsupportedValue, match=r"session\['anything'\] can't keep"):
        memory.respond(session)
    data.anything = [data.anything]
    data.anything[0] = data.anything
    with pytest.raises(UnsupportedValue):
        memory.respond(session)


class Tag(pydantic.BaseModel, frozen=True):
    name: str = ""


class Tags(pydantic.BaseModel):
    tags: set[Tag] = set()


@dataclass
class TagsToo:
    tags: set[Tag] = field(default_factory=set)


@pytest.mark.parametrize("kind_of_type", [Tags, TagsToo])
def test_a_model_in_a_set_is_refused_by_field_and_type(memory: Face, kind_of_type: Any) -> None:
    session = memory.request()
    data = SessionSchema(kind_of_type).of(session)
    data.tags.add(Tag())
    with pytest.raises(UnfitValue, match=r"\.tags is set\[.*Tag\], but it was given set"):
        memory.respond(session)


def test_an_object_in_a_set_that_no_type_speaks_of_is_refused_by_key_and_type(memory: Face) -> None:
    session = memory.request()
    data = everything.of(session)
    for anything in ({Point(left_side=1)}, frozenset({Frozen()}), {(Frozen(), 1): 2}, [{Frozen(): 2}]):
        data.anything = anything
        with pytest.raises(
            UnsupportedValue, match=r"session\['anything'\] can't keep a value of type '(Point|Frozen)'"
        ):
            memory.respond(session)


class Array(msgspec.Struct, array_like=True):
    first: int | msgspec.UnsetType = msgspec.UNSET
    second: int | msgspec.UnsetType = msgspec.UNSET


def test_of_an_array_only_the_end_can_be_unset(memory: Face) -> None:
    @dataclass
    class Arrays:
        arrays: list[Array] = field(default_factory=list)

    session = memory.request()
    data = _schema_here(Arrays, arrays=list[Array]).of(session)
    data.arrays = [Array(), Array(first=1)]
    memory.respond(session)
    assert memory.stored(session.token) == {"arrays": [[], [1]]}
    data.arrays = [Array(second=2)]
    with pytest.raises(UnfitValue, match=r"Arrays\.arrays"):
        memory.save(session)


def test_a_float_that_was_given_an_int_is_a_float_when_stored_and_shown(memory: Face) -> None:
    session = memory.request()
    data = everything.of(session)
    data.shape = Circle(radius=2)
    memory.respond(session)
    assert isinstance(data.shape.radius, float)


# --- types that can't be a session's ----------------------------------------------------------------------------------


@dataclass
class NoDefault:
    name: str


@dataclass
class NoValue:
    name: str = field(init=False)


@dataclass(frozen=True)
class Frozen:
    name: str = ""


@dataclass
class NoFields:
    pass


@dataclass
class Odd:
    thing: complex = 0j


@dataclass
class WrongDefault:
    count: int = None  # type: ignore[assignment]


@dataclass
class Underscore:
    _flash: str = ""


@dataclass
class Ambiguous:
    shape: Item | StructItem | None = None


@dataclass
class Unresolved:
    name: NotThere = None  # type: ignore[name-defined]  # noqa: F821


class Required(TypedDict):
    name: str
    count: NotRequired[int]


class FrozenStruct(msgspec.Struct, frozen=True):
    name: str = ""


@dataclass
class FrozenInSet:
    tags: set[Frozen] = field(default_factory=set)


@dataclass
class FrozenAsKey:
    prices: dict[str, list[dict[tuple[FrozenStruct, int] | None, int]]] = field(default_factory=dict)


class Pair(NamedTuple):
    name: str
    shape: FrozenStruct


class Pairs(TypedDict, total=False):
    inner: list[FrozenOfSet]


@dataclass(frozen=True)
class FrozenOfSet:
    pairs: frozenset[Pair] = frozenset()


class OfTwoFields(pydantic.BaseModel):
    name: str = ""

    @pydantic.model_validator(mode="after")
    def check(self) -> OfTwoFields:
        return self


class TwoNames(pydantic.BaseModel):
    name: str = pydantic.Field("", validation_alias="a", serialization_alias="b")


class Nested(pydantic.BaseModel):
    inner: list[TwoNames] = []


class Excluded(pydantic.BaseModel):
    name: str = pydantic.Field("", exclude=True)


class Extra(pydantic.BaseModel, extra="allow"):
    name: str = ""


@pytest.mark.parametrize(
    ("declared_type", "message"),
    [
        (NoDefault, "Give every field a default"),
        (NoValue, r"NoValue\.name has no value"),
        (Required, "name must be allowed to be missing.*total=False"),
        (Frozen, "Frozen is frozen"),
        (FrozenStruct, "FrozenStruct is frozen"),
        (NoFields, "has no fields"),
        (Odd, "Odd.thing: complex can't be kept"),
        (WrongDefault, "WrongDefault.count: its default is not a int"),
        (Underscore, "Coatcheck's own"),
        (FrozenInSet, r"FrozenInSet\.tags: .*Frozen can't be in a set or a key.*dict\[str, Frozen\]"),
        (FrozenAsKey, r"FrozenAsKey\.prices: .*FrozenStruct can't be in a set or a key"),
        (Pairs, r"Pairs\.inner: .*FrozenStruct can't be in a set or a key"),
        (Ambiguous, "Ambiguous.shape: .* more than one dict-like type"),
        (Unresolved, "NotThere"),
        (OfTwoFields, "model_validator"),
        (TwoNames, "TwoNames.name is written by another name"),
        (Nested, "TwoNames.name is written by another name"),
        (Excluded, "exclude=True"),
        (Extra, "extra='allow'"),
        (int, "is a dataclass, a msgspec.Struct"),
        (dict[str, int], "is a dataclass, a msgspec.Struct"),
        (Item("x"), "is a dataclass, a msgspec.Struct"),
    ],
)
def test_a_type_that_can_not_be_a_sessions_is_refused_when_the_schema_is_built(
    declared_type: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SessionSchema(declared_type)


def test_pydantic_is_imported_only_for_its_models() -> None:
    program = (
        "import dataclasses, sys; from coatcheck.typed import SessionSchema\n"
        "SessionSchema(dataclasses.make_dataclass('Shop', [('visits', int, 0)]))\n"
        "assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_settings_that_can_not_work_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="when_unfit: expected 'default' or 'raise', got 'ignore'"):
        SessionSchema(ShopSession, when_unfit="ignore")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="migrate: expected a function"):
        SessionSchema(ShopSession, migrate={})  # type: ignore[arg-type]
    assert repr(shop) == "SessionSchema(ShopSession)"


def test_a_replaced_object_is_a_new_one(memory: Face) -> None:
    session = memory.request(memory.new(cart=[{"name": "pen", "price": 3}]))
    data = shop.of(session)
    data.cart[0] = replace(data.cart[0], count=2)
    memory.respond(session)
    assert memory.stored(session.token) == {"cart": [{"name": "pen", "count": 2}]}
