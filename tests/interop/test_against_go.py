"""What Python wrote, read by Go's own encoding/gob, gorilla/securecookie and boj/redistore.

The Go program beside this file is built once.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from go_programs import build
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.errors import InvalidGob
from coatcheck.interop import _go_json, gob
from coatcheck.interop.gob import GobFloat, GobInt, GobList, GobMap, GobString, GobStruct, GobType
from coatcheck.interop.gorilla import SecureCookie

PythonValue = Callable[[dict[str, Any]], Any]
Same = Callable[[Any, Any], bool]
Go = Callable[..., list[dict[str, Any]]]

SOURCE = Path(__file__).parent / "go" / "main.go"
NOW = 1_700_000_000


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Go:
    """Asks the Go program a list of questions and gives its answers."""
    program = build(SOURCE, tmp_path_factory.mktemp("go"))

    def ask(*questions: dict[str, Any]) -> list[dict[str, Any]]:
        done = subprocess.run([program], input=_go_json.dumps(list(questions)), capture_output=True, check=True)
        answers: list[dict[str, Any]] = _go_json.loads(done.stdout)
        return answers

    return ask


def python_from(typed: dict[str, Any], python_value: PythonValue) -> Any:
    """The Go program gives every map as pairs and every slice as typed elements."""
    kind, value = typed["type"], typed.get("value")
    if isinstance(value, list) and kind.startswith("map["):
        return {python_from(p["key"], python_value): python_from(p["value"], python_value) for p in value}
    if isinstance(value, list):
        return [python_from(element, python_value) for element in value]
    return python_value(typed)


SESSIONS: list[dict[Any, Any]] = [
    {},
    {"authenticated": True, "username": "alice", "visits": 42, "ratio": 1.5, "raw": b"\x00\xff", "nothing": None},
    {"_flash": ["hello", "bye"], "errors": []},
    {
        "cart": {
            "sku": "A-1",
            "lines": [{"qty": 1}, {"qty": 2, "at": datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)}],
        }
    },
    {"zone": datetime(2023, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5, minutes=30)))},
    {"odd": datetime(1890, 1, 1, tzinfo=timezone(timedelta(seconds=7297)))},
    {"odd, west": datetime(1890, 1, 1, tzinfo=timezone(-timedelta(seconds=7297)))},
    {"first": datetime(1, 1, 1, tzinfo=UTC), "last": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)},
    {"not utf-8": "a\udcff\udcfeb", "\udcff": "Zürich 😀", "": ""},
    {7: "seven", "map": {1: "a", "b": [None, True, -(1 << 63)]}},
    {"max": (1 << 63) - 1, "inf": float("inf"), "tiny": 5e-324, "zero": -0.0},
    {"n": GobInt(5, "int64"), "u": GobInt((1 << 64) - 1, "uint64"), "f": GobFloat(0.5, "float32")},
    {"roles": GobList(["admin", "ops"], "[]string"), "none": GobList([], "[]string")},
    {"attrs": GobMap({"k": "v"}, "map[string]string")},
    {"deep": [[[[[[[[{"a": [[{}]]}]]]]]]]]},
]


@pytest.mark.parametrize("number", range(len(SESSIONS)))
def test_go_reads_a_session_that_python_wrote(go: Go, number: int, python_value: PythonValue, same: Same) -> None:
    session = SESSIONS[number]
    (answer,) = go({"op": "gob", "payload": gob.dumps(session).hex()})
    assert answer["ok"], answer
    assert same(session, python_from(answer["value"], python_value))


def test_go_finds_the_types_that_python_asked_for(go: Go) -> None:
    session = {
        "int": 1,
        "int64": GobInt(1, "int64"),
        "time.Duration": GobInt(1, "time.Duration"),
        "main.Role": GobString("admin", GobType.named("main.Role", "string")),
        "main.Profile": GobStruct({"Name": "Al"}, GobType.struct("main.Profile", {"Name": "string", "Age": "uint8"})),
        "map[string]interface {}": {},
        "[]interface {}": [],
        "[]time.Time": GobList([datetime(2024, 5, 6, tzinfo=UTC)], "[]time.Time"),
        "map[interface {}]interface {}": {1: 2},
    }
    (answer,) = go({"op": "gob", "payload": gob.dumps(session).hex()})
    assert answer["ok"], answer
    found = {_text(pair["key"]): pair["value"]["type"] for pair in answer["value"]["value"]}
    assert found == {name: name for name in session}


def _text(typed: dict[str, Any]) -> str:

    return base64.b64decode(typed["base64"]).decode()


def test_every_type_that_go_wrote_is_the_same_to_go_after_a_visit_to_python(go: Go) -> None:
    (names,) = go({"op": "names"})
    samples = go(*({"op": "sample", "sample": name} for name in names["names"]))
    questions: list[dict[str, Any]] = []
    for name, sample in zip(names["names"], samples, strict=True):
        values = gob.loads(bytes.fromhex(sample["payload"]), keep_types=True)
        questions.append({"op": "is-sample", "sample": name, "payload": gob.dumps(values).hex()})
    answers = go(*questions)
    assert {name: answer for name, answer in zip(names["names"], answers, strict=True) if not answer["ok"]} == {}
    assert len(answers) == 9


def test_go_sees_when_a_visit_changed_something(go: Go) -> None:
    (sample,) = go({"op": "sample", "sample": "kinds"})
    values = gob.loads(bytes.fromhex(sample["payload"]))
    (answer,) = go({"op": "is-sample", "sample": "kinds", "payload": gob.dumps({**values, "uint64": 1}).hex()})
    assert not answer["ok"]


@pytest.mark.parametrize("block_key", [None, bytes(16), bytes(24), bytes(32)], ids=["signed", "128", "192", "256"])
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
@pytest.mark.parametrize(
    ("serializer", "target", "value"),
    [
        ("gob", "string", "T2KIUDQK7NRXRJJLOUCOAXXARMVQ6ND75ONIJPZQXYDIHCHVYJRQ"),
        ("gob", "map", {"authenticated": True, "_flash": ["a"]}),
        ("json", "json", {"name": "<Zoë> & \u2028", "n": [1.5, None, True, 1e21]}),
        ("nop", "bytes", b"\x00|\xff"),
    ],
)
def test_go_reads_a_cookie_that_python_wrote(  # noqa: PLR0917
    go: Go,
    serializer: Any,
    target: str,
    value: Any,
    digest: Any,
    block_key: bytes | None,
    python_value: PythonValue,
    same: Same,
) -> None:
    keys = [bytes(range(32)), block_key]
    cookie = SecureCookie(keys, serializer=serializer, hash=digest, clock=lambda: NOW).encode("session-name", value)
    question = {
        "op": "cookie",
        "name": "session-name",
        "cookie": cookie,
        "keys": [None if key is None else key.hex() for key in keys],
        "serializer": serializer,
        "target": target,
        "hash": digest,
    }
    answer, other_name = go(question, {**question, "name": "sid"})
    assert answer["ok"], answer
    assert same(python_from(answer["value"], python_value), value)
    assert not other_name["ok"]


def test_redistore_reads_json_that_python_wrote(go: Go, python_value: PythonValue, same: Same) -> None:
    session = {"user": "alice", "visits": 42.0, "cart": {"lines": [{"sku": "<A&1>"}]}, "none": None, "big": 1e300}
    (answer,) = go({"op": "json", "payload": _go_json.dumps(session).hex()})
    assert answer["ok"], answer
    assert same(session, python_from(answer["value"], python_value))


scalars = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False)
leaves = scalars | st.text(max_size=9) | st.binary(max_size=9)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def test_go_reads_any_session_that_python_wrote(go: Go, python_value: PythonValue, same: Same) -> None:
    written: list[dict[str, Any]] = []

    @settings(max_examples=200)
    @given(st.dictionaries(st.text(max_size=9), values, max_size=5))
    def write(session: dict[str, Any]) -> None:
        written.append(session)

    write()
    answers = go(*({"op": "gob", "payload": gob.dumps(session).hex()} for session in written))
    for session, answer in zip(written, answers, strict=True):
        assert answer["ok"], answer
        assert same(session, python_from(answer["value"], python_value))


def test_python_reads_what_go_reads_of_damaged_streams_or_refuses_them(
    go: Go, python_value: PythonValue, same: Same
) -> None:
    """Python may be stricter. It must never read something else than Go does, but for names Go has not registered."""
    streams: list[bytes] = []

    @settings(max_examples=400)
    @given(st.sampled_from(SESSIONS[1:6]).map(gob.dumps), st.data())
    def damage(seed: bytes, data: st.DataObject) -> None:
        stream = bytearray(seed)
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at : at + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=1))
        streams.append(bytes(stream))

    damage()
    answers = go(*({"op": "gob", "payload": stream.hex()} for stream in streams))
    disagreements: list[tuple[str, Any, Any]] = []
    for stream, answer in zip(streams, answers, strict=True):
        try:
            read = gob.loads(stream, target="map")
        except InvalidGob:
            continue
        if "name not registered" in answer.get("error", ""):
            continue
        if not answer["ok"] or not same(read, python_from(answer["value"], python_value)):
            disagreements.append((stream.hex(), read, answer))
    assert disagreements == []
