"""Writing gob: plain values in, a stream that Go's decoder reads out.

Go's encoder defines a type where it first meets it, in the middle of a value. This one sends all definitions
first, each as a message of its own, and then the value in one piece, which Go reads just as well.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from coatcheck.errors import InvalidGob
from coatcheck.interop._go_time import GobTime, encode_time
from coatcheck.interop._gob_types import (
    BOOL,
    BUILTIN_IDS,
    BYTES,
    FLOAT64,
    INT,
    LIST_OF_ANY,
    MAP_OF_ANY,
    MAP_OF_STRING,
    MAX_DEPTH,
    STRING,
    TIME,
    TYPED_CLASSES,
    GobType,
    Kind,
    describe_name,
)

# Go's own encoder starts here. Any number from 64 on would do.
_FIRST_ID = 65
_FIRST_LONG_UINT = 0x80
_MAX_FLOAT32 = (2 - 2**-23) * 2.0**127
_FLOAT_BITS = struct.Struct("<d")
_UINT64 = struct.Struct(">Q")
_FLOAT32 = struct.Struct("<f")
_SINGLETON_DELTA = b"\x00"
_END_OF_STRUCT = b"\x00"
_NIL = b"\x00"


def write(value: Any) -> bytes:
    """Write one value as a stream.

    Raises:
        InvalidGob: the value, or something in it, has no equal in gob.
    """
    try:
        return _Writer().write_stream(value)
    except RecursionError:
        msg = "The value is nested too deeply"
        raise InvalidGob(msg) from None


def is_writable(value: Any) -> bool:
    """Whether a value can be written, which for one with a `gob_type` says whether it fits that type."""
    try:
        write(value)
    except InvalidGob:
        return False
    return True


def _uint(number: int) -> bytes:
    if number < _FIRST_LONG_UINT:
        return bytes((number,))
    size = (number.bit_length() + 7) // 8
    return bytes((256 - size,)) + number.to_bytes(size, "big")


def _int(number: int) -> bytes:
    return _uint(~number << 1 | 1 if number < 0 else number << 1)


def _with_length(raw: bytes) -> bytes:
    return _uint(len(raw)) + raw


class _Writer:
    __slots__ = ("_definitions", "_depth", "_ids")

    def __init__(self) -> None:
        self._ids: dict[GobType, int] = {}
        self._definitions: list[bytes] = []
        self._depth = 0

    def write_stream(self, value: Any) -> bytes:
        gob_type = MAP_OF_ANY if type(value) is dict else _type_of(value)
        body = _WRITE[gob_type.kind](self, gob_type, value)
        delta = b"" if gob_type.kind == "struct" else _SINGLETON_DELTA
        message = _int(self._id_of(gob_type)) + delta + body
        return b"".join((*map(_with_length, self._definitions), _with_length(message)))

    # -- definitions of types -----------------------------------------------------------------------------------

    def _id_of(self, gob_type: GobType) -> int:
        builtin = BUILTIN_IDS.get(gob_type.kind)
        if builtin is not None:
            return builtin
        known = self._ids.get(gob_type)
        if known is not None:
            return known
        type_id = _FIRST_ID + len(self._ids)
        # Before its parts are looked at, since it may be one of them.
        self._ids[gob_type] = type_id
        self._definitions.append(_int(-type_id) + self._definition(gob_type, type_id))
        return type_id

    def _definition(self, gob_type: GobType, type_id: int) -> bytes:
        name = b"\x01" + _string(gob_type.wire_name) + b"\x01" if gob_type.wire_name else b"\x02"
        parts = [b"\x01", name, _int(type_id), _END_OF_STRUCT]
        if gob_type.key is not None:
            parts += [b"\x01", _int(self._id_of(gob_type.key))]
        if gob_type.element is not None:
            parts += [b"\x01", _int(self._id_of(gob_type.element))]
        if gob_type.kind == "array" and gob_type.length:
            parts += [b"\x01", _int(gob_type.length)]
        if gob_type.fields:
            parts += [b"\x01", _uint(len(gob_type.fields))]
            for field_name, field_type in gob_type.fields.items():
                parts += [b"\x01", _string(field_name), b"\x01", _int(self._id_of(field_type)), _END_OF_STRUCT]
        return _DEFINITION_FIELD[gob_type.kind, gob_type.encoding] + b"".join(parts) + _END_OF_STRUCT + _END_OF_STRUCT

    # -- values, by kind ----------------------------------------------------------------------------------------

    def write_interface(self, _: GobType, value: Any) -> bytes:
        if value is None:
            return _NIL
        gob_type = _type_of(value)
        if not gob_type.name:
            msg = f"A {gob_type.kind} has a type that is not registered under a name"
            raise InvalidGob(msg)
        # No call of its own for this: each one here counts against the depth of Python's stack.
        body = _WRITE[gob_type.kind](self, gob_type, value)
        if gob_type.kind != "struct":
            body = _SINGLETON_DELTA + body
        return _string(gob_type.name) + _int(self._id_of(gob_type)) + _with_length(body)

    def write_bool(self, _: GobType, value: Any) -> bytes:
        return b"\x01" if _expect(value, bool) else b"\x00"

    def write_int(self, gob_type: GobType, value: Any) -> bytes:
        number: int = _expect(value, int)
        if isinstance(number, bool):
            msg = f"A bool can't be written as {gob_type.name}"
            raise InvalidGob(msg)
        if not gob_type.lowest <= number <= gob_type.highest:
            msg = f"A number is out of range for Go's {gob_type.name or gob_type.kind}"
            raise InvalidGob(msg)
        return _int(number) if gob_type.kind == "int" else _uint(number)

    def write_float(self, gob_type: GobType, value: Any) -> bytes:
        number: float = _expect(value, float)
        if gob_type.bits == 32:
            if abs(number) > _MAX_FLOAT32 and abs(number) != float("inf"):
                msg = "A number is out of range for Go's float32"
                raise InvalidGob(msg)
            number = _FLOAT32.unpack(_FLOAT32.pack(number))[0]
        return _uint(_UINT64.unpack(_FLOAT_BITS.pack(number))[0])

    def write_string(self, _: GobType, value: Any) -> bytes:
        return _string(_expect(value, str))

    def write_bytes(self, _: GobType, value: Any) -> bytes:
        return _with_length(_expect(value, bytes))

    def write_time(self, _: GobType, value: Any) -> bytes:
        return _with_length(encode_time(_expect(value, datetime)))

    def write_opaque(self, gob_type: GobType, value: Any) -> bytes:
        is_time = gob_type.wire_name == "Time" and isinstance(value, datetime)
        return self.write_time(gob_type, value) if is_time else self.write_bytes(gob_type, value)

    def write_list(self, gob_type: GobType, value: Any) -> bytes:
        values: list[Any] = _expect(value, list)
        if gob_type.kind == "array" and len(values) != gob_type.length:
            msg = f"A list of {len(values)} can't be written as an array of {gob_type.length}"
            raise InvalidGob(msg)
        self._descend()
        element = _part(gob_type.element)
        write_element = _WRITE[element.kind]
        parts = [_uint(len(values))]
        for each in values:
            parts.append(write_element(self, element, each))  # noqa: PERF401 (a comprehension is a call)
        self._depth -= 1
        return b"".join(parts)

    def write_map(self, gob_type: GobType, value: Any) -> bytes:
        values: dict[Any, Any] = _expect(value, dict)
        self._descend()
        is_outermost = self._depth == 1
        key, element = _part(gob_type.key), _part(gob_type.element)
        write_key, write_element = _WRITE[key.kind], _WRITE[element.kind]
        parts = [_uint(len(values))]
        for name, each in values.items():
            if isinstance(name, bytes):
                msg = "Bytes can't be a map's key: Go has them as a slice"
                raise InvalidGob(msg)
            parts.append(write_key(self, key, name))
            try:
                parts.append(write_element(self, element, each))
            except InvalidGob as error:
                if not is_outermost:
                    raise
                msg = f"Under the key {name!r}: {error}"
                raise InvalidGob(msg) from error
        self._depth -= 1
        return b"".join(parts)

    def write_struct(self, gob_type: GobType, value: Any) -> bytes:
        values: dict[str, Any] = _expect(value, dict)
        if unknown := values.keys() - gob_type.fields.keys():
            msg = f"{describe_name(gob_type.name)} has no field {min(map(repr, unknown))}"
            raise InvalidGob(msg)
        self._descend()
        parts: list[bytes] = []
        previous = -1
        for number, (name, field_type) in enumerate(gob_type.fields.items()):
            field_value = values.get(name)
            if field_value is None or (field_type.kind in _OMITTED_WHEN_ZERO and not field_value):
                continue
            parts += [_uint(number - previous), _WRITE[field_type.kind](self, field_type, field_value)]
            previous = number
        self._depth -= 1
        return b"".join((*parts, _END_OF_STRUCT))

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            msg = "The value is nested too deeply, or contains itself"
            raise InvalidGob(msg)


def _type_of(value: Any) -> GobType:
    """The type that a value is written as where Go has an interface."""
    exact_type = _exact_type(value)
    if exact_type is dict:
        return MAP_OF_STRING if all(isinstance(key, str) for key in value) else MAP_OF_ANY
    plain = _PLAIN_TYPES.get(exact_type)
    if plain is not None:
        return plain
    if isinstance(value, TYPED_CLASSES):
        return value.gob_type
    msg = f"A value of type {exact_type.__qualname__} can't be written"
    raise InvalidGob(msg)


def _exact_type(value: object) -> type:
    return type(value)


def _expect(value: Any, expected: type) -> Any:
    if isinstance(value, expected):
        return value
    msg = f"A value of type {type(value).__qualname__} can't be written where Go has {expected.__name__}"
    raise InvalidGob(msg)


def _part(gob_type: GobType | None) -> GobType:
    """A key's or element's type, which slices, arrays and maps always have."""
    if gob_type is None:
        msg = "A type lacks the type of its elements"
        raise InvalidGob(msg)
    return gob_type


def _string(text: str) -> bytes:
    try:
        return _with_length(text.encode())
    except UnicodeEncodeError:
        pass
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        msg = "A str has a lone surrogate, which has no bytes in UTF-8"
        raise InvalidGob(msg) from None
    # Escaped bytes that happen to be UTF-8 would come back as another string.
    if raw.decode("utf-8", "surrogateescape") != text:
        msg = "A str has escaped bytes that would be read as other characters"
        raise InvalidGob(msg)
    return _with_length(raw)


_PLAIN_TYPES: Final[dict[type, GobType]] = {
    str: STRING,
    int: INT,
    bool: BOOL,
    float: FLOAT64,
    bytes: BYTES,
    datetime: TIME,
    GobTime: TIME,
    list: LIST_OF_ANY,
}
_OMITTED_WHEN_ZERO: Final = {"bool", "int", "uint", "float", "string", "bytes", "slice"}
# The number of the kind's field in Go's wireType struct.
_DEFINITION_FIELD: Final = {
    ("array", "gob"): b"\x01",
    ("slice", "gob"): b"\x02",
    ("struct", "gob"): b"\x03",
    ("map", "gob"): b"\x04",
    ("opaque", "gob"): b"\x05",
    ("time", "gob"): b"\x05",
    ("opaque", "binary"): b"\x06",
    ("opaque", "text"): b"\x07",
}

_WRITE: Final[dict[Kind, Callable[[_Writer, GobType, Any], bytes]]] = {
    "bool": _Writer.write_bool,
    "int": _Writer.write_int,
    "uint": _Writer.write_int,
    "float": _Writer.write_float,
    "string": _Writer.write_string,
    "bytes": _Writer.write_bytes,
    "interface": _Writer.write_interface,
    "time": _Writer.write_time,
    "opaque": _Writer.write_opaque,
    "slice": _Writer.write_list,
    "array": _Writer.write_list,
    "map": _Writer.write_map,
    "struct": _Writer.write_struct,
}
