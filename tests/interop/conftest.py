"""What the interop tests share: the vectors' values as Python has them, a comparison that sees types, Go programs."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from go_programs import build

PythonValue = Callable[[dict[str, Any]], Any]
Same = Callable[[Any, Any], bool]
GoProgram = Callable[[str], Path]

SOURCES = Path(__file__).parent / "go"


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> GoProgram:
    """Builds the program of a source file in the folder `go`, once."""
    built: dict[str, Path] = {}

    def build_once(source: str) -> Path:
        if source not in built:
            built[source] = build(SOURCES / source, tmp_path_factory.mktemp("go"))
        return built[source]

    return build_once


def _python_value(typed: dict[str, Any]) -> Any:
    """The plain Python value of a typed value of the vectors."""
    kind: str = typed["type"]
    read = _SCALARS.get(kind)
    if read is not None:
        return read(typed)
    if kind.startswith(("int", "uint")) or kind == "time.Duration":
        return int(typed["value"])
    return _python_composite(kind, typed["value"])


def _string(typed: dict[str, Any]) -> str:
    raw = base64.b64decode(typed["base64"]) if "base64" in typed else typed["value"].encode()
    return raw.decode("utf-8", "surrogateescape")


def _float(typed: dict[str, Any], layout: str) -> float:
    number: float = struct.unpack(layout, bytes.fromhex(typed["bits"]))[0]
    return number


def _python_composite(kind: str, value: Any) -> Any:
    if kind == "[]interface {}":
        return [_python_value(element) for element in value]
    if kind == "map[string]interface {}":
        return {key: _python_value(element) for key, element in value.items()}
    if kind in {"map[interface {}]interface {}", "map[int]string"}:
        return {_python_value(pair["key"]): _python_value(pair["value"]) for pair in value}
    if kind == "[]int":
        return [int(element) for element in value]
    if kind == "[]float64":
        return [float(element) for element in value]
    assert kind in {"[]string", "[]bool", "map[string]string", "*url.URL"} or kind.startswith("struct "), kind
    return value


def _time(typed: dict[str, Any]) -> datetime:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=typed["unix"], microseconds=typed["nsec"] // 1000)
    return moment.astimezone(timezone(timedelta(seconds=typed["offset_seconds"])))


_SCALARS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "string": _string,
    "bool": lambda typed: typed["value"],
    "nil": lambda typed: None,
    "float64": lambda typed: _float(typed, ">d"),
    "float32": lambda typed: _float(typed, ">f"),
    "[]uint8": lambda typed: base64.b64decode(typed["base64"]),
    "time.Time": _time,
}


def _same(got: Any, wanted: Any) -> bool:
    """Whether two values are equal and of the same types, to the sign of zero, the bits of NaN and the time zone."""
    if not isinstance(got, type(wanted)) or isinstance(got, bool) != isinstance(wanted, bool):
        return False
    if isinstance(wanted, float):
        return struct.pack("d", got) == struct.pack("d", wanted)
    if isinstance(wanted, datetime):
        return bool(got == wanted) and got.utcoffset() == wanted.utcoffset()
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(_same, got, wanted))
    if isinstance(wanted, dict):
        # Go's maps have no order.
        keys = sorted(got, key=repr), sorted(wanted, key=repr)
        return _same(*keys) and all(_same(got[key], wanted[key]) for key in wanted)
    return bool(got == wanted)


@pytest.fixture
def python_value() -> PythonValue:
    return _python_value


@pytest.fixture
def same() -> Same:
    return _same
