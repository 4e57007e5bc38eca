"""Values come out equal and of the same type, or the assignment fails."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from coatcheck import values
from coatcheck.errors import UndecodableValue, UnsupportedKey, UnsupportedValue

ZONES = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC"]).map(ZoneInfo),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.builds(
        timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.text(st.characters(codec="ascii"))
    ),
)

HASHABLE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.dates(),
        st.datetimes(timezones=ZONES),
        st.times(timezones=ZONES),
        st.timedeltas(),
        st.decimals(allow_nan=False),
        st.uuids(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(inner, max_size=4),
    ),
    max_leaves=8,
)

ANY = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.sets(HASHABLE, max_size=4),
        st.dictionaries(HASHABLE, inner, max_size=4),
    ),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """Give a value together with the types of all that is in it, for a comparison that sees 1 and True as different."""
    kind = type(value)
    if isinstance(value, dict):
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return kind, sorted((shape(item) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return kind, [shape(item) for item in value]
    if isinstance(value, datetime | time):
        return kind, value.replace(tzinfo=None), value.fold, type(value.tzinfo), str(value.tzinfo), value.tzinfo
    if isinstance(value, float):
        return kind, math.copysign(1, value), value
    return kind, value, str(value)


@settings(max_examples=400)
@given(ANY)
def test_every_supported_value_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    back = values.decode("key", values.encode("key", value))
    assert back == value
    assert shape(back) == shape(value)


@settings(max_examples=100)
@given(ANY)
def test_encoding_is_deterministic_so_that_equal_bytes_mean_unchanged(value: Any) -> None:
    encoded = values.encode("key", value)
    assert values.encode("key", values.decode("key", encoded)) == encoded


@pytest.mark.parametrize(
    "value",
    [2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**5000, -(10**5000), 0, True, False, -0.0, math.inf],
    ids=lambda value: f"{value:.3g}" if abs(value) < 2**70 else "huge",
)
def test_numbers_at_the_edges_come_back_exactly(value: float) -> None:
    back = values.decode("key", values.encode("key", value))
    assert shape(back) == shape(value) if abs(value) < 2**70 else back == value


def test_nan_comes_back_as_nan() -> None:
    assert math.isnan(values.decode("key", values.encode("key", math.nan)))
    assert values.decode("key", values.encode("key", Decimal("sNaN"))).is_snan()


class Colour(enum.Enum):
    RED = 1


class Size(enum.IntEnum):
    SMALL = 1


class Name(enum.StrEnum):
    ALICE = "alice"


@dataclasses.dataclass
class Product:
    name: str


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024


class Strange(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, _: datetime | None) -> None: ...

    def tzname(self, _: datetime | None) -> None: ...


UNSUPPORTED = [
    object(), Colour.RED, Size.SMALL, Name.ALICE, Product("pen"), Point(1, 2), collections.OrderedDict(a=1),
    collections.defaultdict(list), collections.Counter("ab"), bytearray(b"x"), memoryview(b"x"), 1j, range(3),
    iter([]), len, Product, datetime(2026, 1, 1, tzinfo=Strange()), time(1, tzinfo=Strange()), "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("value", UNSUPPORTED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [1, {"a": (value,)}]], ids=["itself", "nested"])
def test_what_would_not_come_back_the_same_is_refused_by_key_and_type(value: Any, wrap: Any) -> None:
    with pytest.raises(UnsupportedValue, match=r"session\['cart'\]") as caught:
        values.encode("cart", wrap(value))
    assert type(value).__name__ in str(caught.value)


def test_of_a_datetime_with_a_zone_that_would_not_come_back_the_error_says_what_to_keep() -> None:
    when = datetime(2026, 1, 1, tzinfo=Strange())
    with pytest.raises(UnsupportedValue, match=r"tzinfo of type 'Strange'.*keep its \.astimezone\(UTC\)"):
        values.encode("when", when)
    assert values.decode("when", values.encode("when", when.astimezone(UTC))) == when


def test_a_value_that_holds_itself_is_refused_and_does_not_overflow_the_stack() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnsupportedValue, match="nested deeper"):
        values.encode("key", endless)


def test_nesting_is_allowed_to_the_limit_and_not_beyond() -> None:
    def nested(depth: int) -> Any:
        return [nested(depth - 1)] if depth else []

    deepest = nested(values.MAX_DEPTH - 1)
    assert values.decode("key", values.encode("key", deepest)) == deepest
    with pytest.raises(UnsupportedValue):
        values.encode("key", nested(values.MAX_DEPTH))


@pytest.mark.parametrize("key", [1, None, b"bytes", ("a",), 1.5, "\ud800"], ids=repr)
def test_a_key_that_is_not_a_storable_string_is_refused(key: Any) -> None:
    with pytest.raises(UnsupportedKey) as caught:
        values.check_key(key)
    assert isinstance(key, str) or (repr(key) in str(caught.value) and type(key).__name__ in str(caught.value))


def test_a_key_that_can_not_show_itself_is_refused_by_its_type() -> None:
    with pytest.raises(UnsupportedKey, match="'int'"):
        values.check_key(10**5000)


@pytest.mark.parametrize("key", ["", "__class__", "a\x00b", "\U0001f36a", "x" * 100_000], ids=lambda key: key[:9])
def test_odd_strings_are_keys_like_any_other(key: str) -> None:
    assert values.check_key(key) == key


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_any_bytes_decode_or_are_called_undecodable(data: bytes) -> None:
    with suppress(UndecodableValue):
        values.decode("key", data)


@pytest.mark.parametrize("kind", sorted(values._READERS))
@given(st.binary(max_size=30))
def test_a_damaged_extension_is_called_undecodable(kind: int, payload: bytes) -> None:
    data = bytes([0xC7, len(payload), kind]) + payload
    with suppress(UndecodableValue):
        values.decode("key", data)


def test_a_type_of_a_newer_version_is_called_undecodable() -> None:
    with pytest.raises(UndecodableValue, match="newer version"):
        values.decode("key", b"\xd4\x63\x00")


def test_a_time_zone_that_is_not_known_here_is_called_undecodable() -> None:
    encoded = values.encode("key", datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")))
    with pytest.raises(UndecodableValue, match="Atlan"):
        values.decode("key", encoded.replace(b"Europe/Berlin", b"Europe/Atlant"))


def test_no_decoder_that_could_run_code_is_ever_imported() -> None:
    script = (
        "import sys, coatcheck, coatcheck.asgi, coatcheck.wsgi, coatcheck.stores.memory, coatcheck.stores.sqlite;"
        "print(sorted({'pickle', 'marshal', 'shelve', 'yaml', 'dill', 'cloudpickle'} & set(sys.modules)))"
    )
    # marshal is the interpreter's own: it loads every module's bytecode with it.
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() in ("[]", "['marshal']")


def test_date_and_uuid_are_not_confused_with_their_relatives() -> None:
    for value in (date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), UUID(int=5), "2026-01-02", Decimal("1.10"), 1.1):
        assert shape(values.decode("key", values.encode("key", value))) == shape(value)


def test_html_comes_back_as_html_wherever_it_stands() -> None:
    kept = [Markup("<b>\u00e9</b>"), {"deep": (Markup(""), "<b>")}]
    found = values.decode("key", values.encode("key", kept))
    assert found == kept
    assert [type(each) for each in (found[0], *found[1]["deep"])] == [Markup, Markup, str]
    assert values.encode("key", Markup("a")) != values.encode("key", "a")


def test_html_is_not_taken_for_text_where_markupsafe_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = values.encode("key", Markup("<b>"))
    monkeypatch.setattr(values, "_html", None)
    with pytest.raises(
        UndecodableValue, match=r"session\['key'\] can't be decoded here: .*MarkupSafe is not installed"
    ):
        values.decode("key", encoded)
