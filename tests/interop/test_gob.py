"""Gob against what Go itself read and wrote, against damage, and against its own promises."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.errors import InvalidGob
from coatcheck.interop import _gob_writer, gob
from coatcheck.interop.gob import GobBytes, GobFloat, GobInt, GobList, GobMap, GobString, GobStruct, GobTime, GobType

PythonValue = Callable[[dict[str, Any]], Any]
Same = Callable[[Any, Any], bool]

RECORDS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "gob_public.json").read_text())

# What we do where Go is lax or panics, and its session would be readable or not depending on whom you ask.
EDGES = {
    "legal/no-type-name-id": "as Go",
    "legal/duplicate-key-last-wins": "as Go",
    "legal/uint-not-minimal": "as Go",
    "legal/interface-length-lies": "as Go",
    "legal/bool-2": "as Go",
    "legal/second-value-ignored": "refused",
    "legal/trailing-bytes-in-stream": "refused",
    "legal/trailing-bytes-in-message": "refused",
    "bad/empty-message-first": "refused",  # as Go
    "bad/count-2^63 (Go reads it as an empty map)": "refused",
    "bad/unhashable-key": "refused",  # Go panics
    "depth/1000": "refused",
}


def records(*supports: str) -> list[Any]:
    return [pytest.param(each, id=each["case"]) for each in RECORDS if each["support"] in supports]


def payload(record: dict[str, Any]) -> bytes:
    return bytes.fromhex(record["payload_hex"])


def payload_of(case: str) -> bytes:
    return next(payload(each) for each in RECORDS if each["case"] == case)


def expected(record: dict[str, Any], python_value: PythonValue) -> Any:
    if "value" in record["expect"]:
        return python_value(record["expect"]["value"])
    return {python_value(pair["key"]): python_value(pair["value"]) for pair in record["expect"]["values"]}


def uint(number: int) -> bytes:
    if number < 128:
        return bytes((number,))
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes((256 - len(raw),)) + raw


def message(body: bytes) -> bytes:
    return uint(len(body)) + body


READABLE = [each for each in records("core", "extra", "unsupported") if each.values[0]["expect"]["ok"]]


# -- what Go gave ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", records("core", "extra"))
def test_stream_is_read_or_refused_as_go_does(record: dict[str, Any], python_value: PythonValue, same: Same) -> None:
    if not record["expect"]["ok"]:
        with pytest.raises(InvalidGob):
            gob.loads(payload(record), target=record["target"])
        return
    assert same(gob.loads(payload(record), target=record["target"]), expected(record, python_value))


@pytest.mark.parametrize("record", records("core", "extra"))
def test_stream_is_read_without_saying_what_it_should_hold(
    record: dict[str, Any], python_value: PythonValue, same: Same
) -> None:
    """Only whether a string stands in for a map can't be known then."""
    if record["expect"]["ok"]:
        assert same(gob.loads(payload(record)), expected(record, python_value))
    elif record["case"] != "bad/top-is-string":
        with pytest.raises(InvalidGob):
            gob.loads(payload(record))


@pytest.mark.parametrize("record", records("edge"))
def test_edge_is_decided_as_documented(record: dict[str, Any], python_value: PythonValue, same: Same) -> None:
    if EDGES[record["case"]] == "refused":
        with pytest.raises(InvalidGob):
            gob.loads(payload(record), target=record["target"])
    else:
        assert same(gob.loads(payload(record)), expected(record, python_value))


@pytest.mark.parametrize("record", records("unsupported"))
def test_registered_types_of_a_program_are_read_with_their_names(
    record: dict[str, Any], python_value: PythonValue, same: Same
) -> None:
    if "binary-marshaler" in record["case"]:
        with pytest.raises(InvalidGob, match=r"The Go type \*url\.URL is known to a Go program only"):
            gob.loads(payload(record))
        return
    values = gob.loads(payload(record))
    assert same(values, expected(record, python_value))
    if "struct" in record["case"]:
        assert isinstance(values["user"], GobStruct)
        assert values["user"].type_name == "main.Profile"


@pytest.mark.parametrize("record", [each for each in READABLE if "mixed-keys" not in each.values[0]["case"]])
def test_kept_types_are_those_that_go_wrote_and_survive_a_round_trip(
    record: dict[str, Any], python_value: PythonValue, same: Same
) -> None:
    read = gob.loads(payload(record), target=record["target"], keep_types=True)
    again = gob.loads(gob.dumps(read), target=record["target"], keep_types=True)
    if "binary-marshaler" not in record["case"]:
        assert same(read, expected(record, python_value))
    assert same(again, read)
    typed = record["expect"].get("values", [])
    names = {python_value(pair["key"]): pair["value"]["type"].removeprefix("struct ") for pair in typed}
    for values in (read, again):
        for key, name in names.items():
            assert getattr(getattr(values[key], "gob_type", None), "name", name) == name
            if name in {"int64", "uint8", "float32", "[]string", "map[string]string", "main.Profile", "*url.URL"}:
                assert values[key].gob_type.name == name


@pytest.mark.parametrize("case", ["time-utc", "time-1960", "time-zoned", "time-west", "time-odd-seconds", "time-zero"])
def test_kept_time_is_written_back_to_the_nanosecond(case: str) -> None:
    record = next(each for each in RECORDS if each["case"] == f"first-id-65/{case}")
    read = gob.loads(payload(record), keep_types=True)
    assert bytes.fromhex(record["expect"]["values"][0]["value"]["binary_hex"]) in gob.dumps(read)


def test_zero_time_seen_from_the_west_keeps_its_moment() -> None:
    """In Go it is in year 0 there, and a datetime has no such year."""
    stream = payload_of("first-id-65/time-zero").replace(bytes(8) + bytes(4) + b"\xff\xff", bytes(12) + b"\xff\x10")
    assert gob.loads(stream) == {"at": datetime(1, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (bytes(9) + b"\x3b\x9a\xca\x00\xff\xff", "nanoseconds"),
        (bytes(9) + b"\xff\xff\xff\xff\xff\xff", "nanoseconds"),
        (bytes(13) + (24 * 60).to_bytes(2, "big"), "a day or more"),
        (bytes(13) + (-24 * 60).to_bytes(2, "big", signed=True), "a day or more"),
        (b"\x00\x7f" + bytes(13), "years 1 to 9999"),
        (b"\x00\xff" + bytes(13), "years 1 to 9999"),
    ],
)
def test_times_that_a_datetime_can_not_be_are_refused(raw: bytes, complaint: str) -> None:
    stream = payload_of("first-id-65/time-zero").replace(b"\x0f\x01" + bytes(12) + b"\xff\xff", b"\x0f\x01" + raw[1:])
    with pytest.raises(InvalidGob, match=complaint):
        gob.loads(stream)


@pytest.mark.parametrize("body", [b"\x00", b"\x02\x02\x10\x00\x02\x02\x10\x01\x10\x00\x00"], ids=["none", "two"])
def test_definition_of_no_kind_or_of_two_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidGob, match="what the type is"):
        gob.loads(message(b"\xff\x83" + body) + gob.dumps("x"))


def test_keys_that_only_go_tells_apart_fall_together_unless_they_could_be_written_back() -> None:
    stream = payload_of("first-id-65/mixed-keys")
    assert len(gob.loads(stream)) == 3
    with pytest.raises(InvalidGob, match="equal in Python"):
        gob.loads(stream, keep_types=True)


# -- what Go must be able to read -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "stream"),
    [
        ("ABC", "060c0003414243"),
        ("", "030c0000"),
        ({}, "0eff81040102ff820001100110000004ff820000"),
        ({"authenticated": True}, payload_of("first-id-65/bool-true").hex()),
        ({"visits": 42}, payload_of("first-id-65/int-42").hex()),
        ({"ratio": 1.5}, payload_of("first-id-65/float-1.5").hex()),
        ({"raw": b"\x00\x01\xff"}, payload_of("first-id-65/bytes").hex()),
        ({"nothing": None}, payload_of("first-id-65/nil").hex()),
        ({"big": GobInt(1 << 40, "int64")}, payload_of("first-id-65/int64-big").hex()),
        (
            {"f": GobFloat(0.25, "float32"), "g": GobFloat(0.1, "float32")},
            payload_of("first-id-65/float32").hex(),
        ),
    ],
)
def test_simple_values_are_written_to_the_byte_as_go_writes_them(value: Any, stream: str) -> None:
    assert gob.dumps(value).hex() == stream


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ((1, 2), "tuple"),
        ({1, 2}, "set"),
        (1 + 2j, "complex"),
        (object(), "object"),
        (type("Text", (str,), {})("x"), "Text"),
        (datetime(2024, 5, 6), "naive"),  # noqa: DTZ001
        (datetime(2024, 5, 6, tzinfo=timezone(timedelta(minutes=-1))), "minus one minute"),
        (datetime(2024, 5, 6, tzinfo=timezone(timedelta(microseconds=1))), "fractions"),
        (1 << 63, "out of range"),
        (-(1 << 63) - 1, "out of range"),
        ("\ud800", "surrogate"),
        ("\udcc3\udca9", "escaped"),
        ({b"k": 1}, "key"),
        (GobInt(256, "uint8"), "uint8"),
        (GobInt(-1, "uint"), "uint"),
        (GobFloat(1e300, "float32"), "float32"),
        (GobList(["a", 1], "[]string"), "int"),
        (GobList([1], "[2]int"), "array of 2"),
        (GobMap({"a": None}, "map[string]string"), "NoneType"),
        (GobList([True], "[]int"), "bool"),
        (GobStruct({"Nmae": "x"}, GobType.struct("main.Profile", {"Name": "string"})), "Nmae"),
    ],
)
def test_what_go_has_no_equal_for_is_refused_with_its_key(value: Any, complaint: str) -> None:
    with pytest.raises(InvalidGob, match=complaint) as caught:
        gob.dumps({"ok": 1, "cart": value})
    assert "'cart'" in str(caught.value)


def test_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidGob, match="nested too deeply"):
        gob.dumps({"loop": loop})


def test_struct_leaves_out_none_and_zero_and_reads_them_back_as_zero() -> None:
    address = GobType.struct("main.Address", {"City": "string"})
    fields: dict[str, GobType | str] = {"Name": "string", "Tags": "[]string", "Home": address}
    fields |= {"Seen": "time.Time", "Any": "interface {}"}
    profile = GobStruct({"Name": "Al", "Home": {"City": "Zürich"}}, GobType.struct("main.Profile", fields))
    read = gob.loads(gob.dumps({"user": profile}))["user"]
    assert read == {"Name": "Al", "Tags": [], "Home": {"City": "Zürich"}, "Seen": None, "Any": None}
    assert gob.loads(gob.dumps({"user": read}))["user"] == read


def test_struct_is_written_without_its_zero_fields_as_go_writes_it() -> None:
    fields: dict[str, GobType | str] = {"Name": "string", "Age": "int", "Admin": "bool"}
    zero = GobStruct({"Name": "", "Age": 0, "Admin": False}, GobType.struct("main.Profile", fields))
    value_in_go = payload_of("first-id-65/struct-zero")[-2:]
    assert gob.dumps({"user": zero}).endswith(b"\x01\x00")
    assert value_in_go == b"\x01\x00"


def test_type_that_refers_to_itself_survives_a_round_trip() -> None:
    node = GobType.struct("main.Node", {"Label": "string"})
    node.fields["Next"] = node
    chain = GobStruct({"Label": "a", "Next": {"Label": "b", "Next": None}}, node)
    read = gob.loads(gob.dumps({"node": chain}))["node"]
    assert read == {"Label": "a", "Next": {"Label": "b", "Next": None}}
    assert gob.loads(gob.dumps({"node": read}))["node"] == read
    assert repr(read.gob_type) == "<GobType main.Node>"


def test_type_of_a_program_survives_only_where_types_are_kept() -> None:
    stream = gob.dumps({"role": GobString("admin", GobType.named("main.Role", "string"))})
    with pytest.raises(InvalidGob, match=r"main\.Role"):
        gob.loads(stream)
    read = gob.loads(stream, keep_types=True)
    assert read == {"role": "admin"}
    assert gob.dumps(read) == stream


@pytest.mark.parametrize(
    "name", ["main.Profile", "[]main.Item", "map[string", "[]", "[x]int", "complex128", "[]complex64"]
)
def test_names_that_do_not_describe_a_type_are_refused(name: str) -> None:
    with pytest.raises(InvalidGob):
        GobList([], name)


# -- values that remember their types -------------------------------------------------------------------------------

TYPED = [
    GobInt(5, "int64"),
    GobFloat(0.5, "float32"),
    GobString("admin", GobType.named("main.Role", "string")),
    GobBytes(b"\x01", GobType("opaque", "*url.URL", wire_name="URL", encoding="binary")),
    GobList(["a"], "[]string"),
    GobMap({"k": "v"}, "map[string]string"),
    GobStruct({"Name": "Al"}, GobType.struct("main.Profile", {"Name": "string"})),
]


@pytest.mark.parametrize("value", TYPED, ids=lambda value: type(value).__name__)
def test_typed_value_is_usable_as_the_plain_one(value: Any) -> None:
    plain = type(value).__mro__[1](value)
    assert value == plain
    assert repr(value) == repr(plain)
    assert {"key": value} == {"key": plain}
    if not isinstance(value, (list, dict)):
        assert hash(value) == hash(plain)
    if not isinstance(value, bytes):
        assert json.dumps(value) == json.dumps(plain)


@pytest.mark.parametrize("value", TYPED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_of_a_typed_value_keep_the_type(value: Any, duplicate: Callable[[Any], Any]) -> None:
    other = duplicate(value)
    assert (other, type(other), other.gob_type.name) == (value, type(value), value.gob_type.name)
    assert gob.dumps({"k": other}) == gob.dumps({"k": value})


def test_copies_of_a_time_keep_its_nanoseconds() -> None:
    time = gob.loads(payload_of("first-id-65/time-utc"), keep_types=True)["at"]
    assert isinstance(time, GobTime)
    assert time == datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    for other in (copy.deepcopy(time), pickle.loads(pickle.dumps(time))):
        assert (other, other.nanosecond) == (time, 789)


@pytest.mark.parametrize(
    ("value", "like", "name"),
    [
        (6, GobInt(5, "int64"), "int64"),
        (300, GobInt(5, "uint8"), None),
        (True, GobInt(5, "int64"), None),
        ("6", GobInt(5, "int64"), None),
        (6, 5, None),
        (0.25, GobFloat(0.5, "float32"), "float32"),
        (["b"], GobList(["a"], "[]string"), "[]string"),
        ([1], GobList(["a"], "[]string"), None),
        (GobInt(6, "int8"), GobInt(5, "int64"), "int8"),
    ],
)
def test_retype_gives_a_new_value_the_old_type_where_it_fits(value: Any, like: Any, name: str | None) -> None:
    result = gob.retype(value, like)
    assert result == value
    assert getattr(getattr(result, "gob_type", None), "name", None) == name


def test_plain_leaves_nothing_of_gos_types() -> None:
    """For stores that take the exact types only."""

    def types(value: Any) -> set[type]:
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        return {type(value)}.union(*map(types, inner))

    address = GobType.struct("main.Address", {"Any": "interface {}"})
    session = {**{str(n): value for n, value in enumerate(TYPED)}, "deep": [GobStruct({"Any": TYPED}, address)]}
    session["at"] = gob.loads(payload_of("first-id-65/time-utc"), keep_types=True)["at"]
    assert gob.plain(session) == session
    assert types(gob.plain(session)) == {dict, list, str, int, float, bytes, datetime}


# -- limits ---------------------------------------------------------------------------------------------------------


SESSION_TYPE = bytes.fromhex("0eff81040102ff8200011001100000")


def session_of(*pairs: tuple[bytes, bytes]) -> bytes:
    body = b"".join(b"\x06string\x0c" + message(b"\x00" + message(key)) + value for key, value in pairs)
    return SESSION_TYPE + message(b"\xff\x82\x00" + uint(len(pairs)) + body)


def test_stream_of_exactly_the_limit_is_read_and_one_byte_more_is_refused() -> None:
    overhead = len(gob.dumps("x" * (gob.MAX_BYTES - 100))) - (gob.MAX_BYTES - 100)
    largest = gob.dumps("x" * (gob.MAX_BYTES - overhead))
    assert len(largest) == gob.MAX_BYTES
    assert len(gob.loads(largest)) == gob.MAX_BYTES - overhead
    with pytest.raises(InvalidGob, match="at most"):
        gob.loads(gob.dumps("x" * (gob.MAX_BYTES - overhead + 1)))


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 2):
        value = [value]
    return {"deep": value}


def test_nesting_to_the_limit_is_read_and_one_level_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gob.loads(gob.dumps(nested(gob.MAX_DEPTH))) == nested(gob.MAX_DEPTH)
    with pytest.raises(InvalidGob, match="deeply"):
        gob.dumps(nested(gob.MAX_DEPTH + 1))
    monkeypatch.setattr(_gob_writer, "MAX_DEPTH", gob.MAX_DEPTH + 1)
    with pytest.raises(InvalidGob, match="deeply"):
        gob.loads(gob.dumps(nested(gob.MAX_DEPTH + 1)))
    with pytest.raises(InvalidGob, match="deeply"):
        gob.loads(payload_of("depth/1000"))


def test_caller_that_is_deep_in_the_stack_itself_gets_the_documented_error() -> None:
    stream = gob.dumps(nested(gob.MAX_DEPTH))

    def call_from(depth: int) -> Any:
        return call_from(depth - 1) if depth else gob.loads(stream)

    room = sys.getrecursionlimit() - len(inspect.stack(0))
    with pytest.raises(InvalidGob, match="deeply"):
        call_from(room - gob.MAX_DEPTH)


def test_types_inside_types_to_any_depth_do_not_overflow_the_stack() -> None:
    slices = [b"\x02\x01\x02" + b"\x02\x00\x01" + uint((67 + number) * 2) + b"\x00\x00" for number in range(1, 255)]
    definitions = [message(uint((65 + number) * 2 + 1) + body) for number, body in enumerate(slices, 1)]
    stream = b"".join(definitions) + message(uint(67 * 2) + b"\x00\x00")
    with pytest.raises(InvalidGob, match="deeply"):
        gob.loads(stream, target="any")


def test_more_types_than_the_limit_are_refused() -> None:
    definition = b"\x02\x01\x02\x02\x00\x01\x10\x00\x00"
    definitions = b"".join(message(uint(number * 2 - 1) + definition) for number in range(65, 66 + gob.MAX_TYPES))
    with pytest.raises(InvalidGob, match="more than 256 types"):
        gob.loads(definitions + gob.dumps("x"))


def test_more_names_of_types_than_the_limit_are_refused() -> None:
    stream = gob.dumps({str(n): GobInt(n, GobType.named(f"main.T{n}", "int")) for n in range(gob.MAX_TYPES)})
    with pytest.raises(InvalidGob, match="more than 256 types"):
        gob.loads(stream, keep_types=True)


def test_names_of_types_are_read_in_little_time_whatever_they_say() -> None:
    """They are not even looked into when they are longer or deeper than names are."""
    for name in ("map[" * 30 + "]" * 30, "[]" * 50 + "int", "map[" * 255, "[" * 1000, "map[string]" * 12 + "int"):
        assert GobType.of("int").name == "int"
        with pytest.raises(InvalidGob):
            GobType.of(name)


def struct_bomb() -> bytes:
    """A struct of many fields, defined once, and many of it at one byte each."""
    fields = b"".join(b"\x01" + message(b"%d" % number) + b"\x01\x04\x00" for number in range(1000))
    struct_type = b"\xff\x83" + b"\x03\x01\x01\x01S\x01\xff\x84\x00\x01" + uint(1000) + fields + b"\x00\x00"
    slice_type = b"\xff\x85" + b"\x02\x01\x02\xff\x86\x00\x01\xff\x84\x00\x00"
    bomb = b"\x08[]main.S\xff\x86" + message(b"\x00" + uint(200_000) + bytes(200_000))
    return message(struct_type) + message(slice_type) + session_of((b"bomb", bomb))


def list_of(name: str, element: int, body: bytes) -> bytes:
    definition = b"\xff\x83\x02\x01\x02\xff\x84\x00\x01" + uint(element * 2) + b"\x00\x00"
    return message(definition) + session_of((b"k", message(name.encode()) + b"\xff\x84" + message(b"\x00" + body)))


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (struct_bomb(), "more than 100000 values"),
        (list_of("[]interface {}", 8, uint(1 << 62)), "ends early"),
        (session_of((b"k", b"\x06string\x0c" + message(b"\x00" + uint(1 << 40)))), "ends early"),
        (list_of("[]bool", 1, uint(500_000) + bytes(500_000)), "more than 100000 values"),
        (list_of("[]main.T", 1, uint(1 << 40)), "ends early"),
    ],
    ids=["struct-bomb", "list-count", "string-length", "values", "list-of-a-program"],
)
def test_small_streams_can_not_ask_for_much_memory(stream: bytes, reason: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidGob, match=reason):
            gob.loads(stream)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000


def test_number_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(InvalidGob, match="64 bits"):
        gob.loads(session_of((b"k", b"\x04uint\x06" + message(b"\x00\xf7" + bytes(9)))))


def test_struct_with_two_fields_of_one_name_is_refused() -> None:
    field = b"\x01\x01A\x01\x04\x00"
    with pytest.raises(InvalidGob, match="one name"):
        gob.loads(message(b"\xff\x83\x03\x02\x02" + field + field + b"\x00\x00") + gob.dumps("x"))


def test_field_just_beyond_the_last_is_refused() -> None:
    with pytest.raises(InvalidGob, match="more fields"):
        gob.loads(message(b"\xff\x83\x08") + gob.dumps("x"))
    stream = gob.dumps({"user": GobStruct({"Name": "Al"}, GobType.struct("main.Profile", {"Name": "string"}))})
    with pytest.raises(InvalidGob, match="more fields"):
        gob.loads(stream.replace(b"\x01\x02Al\x00", b"\x02\x02Al\x00"))


def test_name_that_can_not_be_one_of_a_type_is_refused() -> None:
    definition = message(b"\xff\x83\x02\x01\x02\xff\x84\x00\x01\x10\x00\x00")
    value = message(b"[]i\nterface {}") + b"\xff\x84" + message(b"\x00\x00")
    with pytest.raises(InvalidGob, match="A Go type"):
        gob.loads(definition + session_of((b"k", value)))


def test_array_of_another_length_than_its_types_is_refused() -> None:
    array_type = b"\xff\x83\x01\x01\x02\xff\x84\x00\x01\x02\x01" + uint(4) + b"\x00\x00"
    array = b"\x07[2]bool\xff\x84" + message(b"\x00\x03\x00\x01\x00")
    with pytest.raises(InvalidGob, match="length"):
        gob.loads(message(array_type) + session_of((b"k", array)))


def test_errors_do_not_repeat_what_may_be_a_users_data() -> None:
    secret = b"T2KIUDQK7NRXRJJLOUCOAXXARMVQ6ND75ONIJPZQXYDIHCHVYJRQ"
    with pytest.raises(InvalidGob) as caught:
        gob.loads(session_of((b"k", message(secret) + b"\x0c\x02\x00\x00")))
    assert secret.decode() not in str(caught.value)


# -- properties -----------------------------------------------------------------------------------------------------

text = st.text(max_size=20) | st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
zones = st.integers(-1439, 1439).filter(lambda minutes: minutes != -1).map(lambda m: timezone(timedelta(minutes=m)))
moments = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones).map(  # noqa: DTZ001
    lambda moment: moment.replace(fold=0)
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats()
    | text
    | st.binary(max_size=20)
    | moments
)
keys = text | st.integers(2, 1 << 40)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
sessions = st.dictionaries(keys, values, max_size=6)


@given(sessions)
def test_any_session_that_is_written_is_read_back_the_same(session: dict[Any, Any]) -> None:
    read = gob.loads(gob.dumps(session))
    assert repr(read) == repr(session)


@given(text)
def test_any_string_that_is_written_is_read_back_the_same(string: str) -> None:
    assert gob.loads(gob.dumps(string), target="string") == string


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        *((f"[]int{bits}", st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)) for bits in (8, 16, 32, 64)),
        *((f"[]uint{bits}", st.integers(0, (1 << bits) - 1)) for bits in (16, 32, 64)),
        ("[]float32", st.floats(width=32)),
        ("[]string", text),
        ("[]time.Time", moments),
        ("[][]uint8", st.binary(max_size=9)),
    ],
)
def test_any_list_of_one_type_is_read_back_the_same(name: str, elements: st.SearchStrategy[Any]) -> None:
    @settings(max_examples=30)
    @given(st.lists(elements, max_size=6))
    def check(plain: list[Any]) -> None:
        read = gob.loads(gob.dumps({"k": GobList(plain, name)}), keep_types=True)["k"]
        assert repr(read) == repr(plain)
        assert read.gob_type.name == name

    check()


def read_or_refuse(stream: bytes) -> None:
    targets: tuple[gob.Target | None, ...] = (None, "any")
    for target in targets:
        for keep_types in (False, True):
            try:
                gob.loads(stream, target=target, keep_types=keep_types)
            except InvalidGob:
                continue


@given(st.binary(max_size=300))
def test_random_bytes_are_read_or_refused(stream: bytes) -> None:
    read_or_refuse(stream)


SEEDS = [payload(each) for each in RECORDS if each["expect"]["ok"] and len(each["payload_hex"]) < 2000]


@settings(max_examples=500)
@given(st.sampled_from(SEEDS), st.data())
def test_damaged_streams_are_read_or_refused(seed: bytes, data: st.DataObject) -> None:
    stream = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(stream)))
        stream[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4) | st.sampled_from(SEEDS))
    read_or_refuse(bytes(stream))
