"""Reading gob: untrusted bytes in, plain values out, and never more work or memory than the limits allow.

A stream is a run of messages, each a type's definition or a value. Two habits of Go's encoder shape this code.
A type first seen inside an interface is defined right there, in the middle of the value, which *ends the message*
(or, inside another interface, a chunk of it); the value goes on in the next. So the end of the current message is
part of the reader's state, and an interface's length, which covers its first chunk only, is of no use.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from coatcheck.errors import InvalidGob
from coatcheck.interop._go_time import decode_time
from coatcheck.interop._gob_types import (
    BUILTIN_TYPES,
    MAP_OF_ANY,
    MAX_DEPTH,
    STRING,
    GobType,
    Kind,
    OpaqueEncoding,
    describe_name,
    known_type,
    with_type,
)

Target = Literal["map", "string", "any"]

MAX_BYTES: Final = 1 << 20
"""Of a stream. A thousand times what a session usually has."""
MAX_VALUES: Final = 100_000
"""Elements, pairs and fields together: a list of structs needs one byte for each, but a dict in memory."""
MAX_TYPES: Final = 256
"""Definitions, and names of types, in one stream."""
MAX_NAME_BYTES: Final = 1_024
"""Of a type's name, as in Go."""

# Go gives its own types the numbers below this and refuses a definition that takes one of them.
_FIRST_DEFINABLE_ID = 64
_LAST_ID = (1 << 31) - 1
_MAX_UINT_BYTES = 8
_FIRST_LONG_UINT = 0x80
_COMPLEX_ID = 7
_MAX_FLOAT32 = (2 - 2**-23) * 2.0**127
_MAX_FLOAT64 = (2 - 2**-52) * 2.0**1023
_FLOAT_BITS = struct.Struct("<d")
_FLOAT32 = struct.Struct("<f")
_UINT64 = struct.Struct(">Q")

# A stack overflow would otherwise depend on how deep the caller is; see `read`.
_TOO_DEEP = "The value is nested too deeply"
_ENDS_EARLY = "The stream ends early"


@dataclass(slots=True)
class _Definition:
    """A type as its definition has it: other types by number, since they may be defined later or be this one."""

    kind: Kind
    wire_name: str = ""
    key: int = 0
    element: int = 0
    length: int = 0
    fields: dict[str, int] = field(default_factory=dict[str, int])
    encoding: OpaqueEncoding = "gob"


# The fields of Go's wireType struct, in order.
_DEFINITIONS: Final[tuple[tuple[Kind, OpaqueEncoding], ...]] = (
    ("array", "gob"),
    ("slice", "gob"),
    ("struct", "gob"),
    ("map", "gob"),
    ("opaque", "gob"),
    ("opaque", "binary"),
    ("opaque", "text"),
)


def read(data: bytes, target: Target | None, *, keep_types: bool) -> Any:
    """Read the one value of a stream.

    Raises:
        InvalidGob: for whatever is wrong with the stream.
    """
    if len(data) > MAX_BYTES:
        msg = f"The stream has {len(data)} bytes; at most {MAX_BYTES} are read"
        raise InvalidGob(msg)
    try:
        return _Reader(data, keep_types=keep_types).read_stream(target)
    except RecursionError:
        raise InvalidGob(_TOO_DEEP) from None


class _Reader:
    __slots__ = (
        "_budget",
        "_data",
        "_definitions",
        "_depth",
        "_end",
        "_keep_types",
        "_position",
        "_types",
        "_wire_types",
    )

    def __init__(self, data: bytes, *, keep_types: bool) -> None:
        self._data = data
        self._keep_types = keep_types
        self._position = 0
        self._end = 0
        self._depth = 0
        self._budget = MAX_VALUES
        self._definitions: dict[int, _Definition] = {}
        self._wire_types: dict[int, GobType] = dict(BUILTIN_TYPES)
        self._types: dict[tuple[bytes, int], GobType] = dict(_COMMON_TYPES)

    # -- the stream ---------------------------------------------------------------------------------------------

    def read_stream(self, target: Target | None) -> Any:
        gob_type = self._wire_type(self._next_type_id(in_interface=False))
        self._check_target(gob_type, target)
        self._skip_singleton_delta(gob_type)
        value = _READ[gob_type.kind](self, gob_type)
        if self._position != self._end or self._end != len(self._data):
            msg = "Something follows the stream's value"
            raise InvalidGob(msg)
        if gob_type.kind == "struct" or (self._keep_types and gob_type.kind in {"uint", "slice", "array", "map"}):
            return value if _same_shape(MAP_OF_ANY, gob_type) else with_type(value, gob_type)
        return value

    def _check_target(self, gob_type: GobType, target: Target | None) -> None:
        is_string = gob_type is STRING
        is_session = _same_shape(MAP_OF_ANY, gob_type)
        if target == "any" or (is_string and target != "map") or (is_session and target != "string"):
            return
        expected = {"map": "a session's map", "string": "a string", None: "a session's map or a string"}[target]
        msg = f"The stream holds a {gob_type.kind} where {expected} is expected"
        raise InvalidGob(msg)

    def _next_type_id(self, *, in_interface: bool) -> int:
        """Read definitions up to the value, and the number of the value's type."""
        while True:
            if self._position == self._end:
                self._open_message()
            type_id = self._read_int()
            if type_id >= 0:
                return type_id
            self._read_definition(-type_id)
            if self._position < self._end:
                if not in_interface:
                    msg = "Something follows a type's definition"
                    raise InvalidGob(msg)
                # Inside another interface the definition ended a chunk, and the next one's length follows.
                self._read_uint()

    def _open_message(self) -> None:
        self._end = len(self._data)
        length = self._read_uint()
        if length > len(self._data) - self._position:
            raise InvalidGob(_ENDS_EARLY)
        self._end = self._position + length

    # -- numbers and bytes --------------------------------------------------------------------------------------

    def _read_uint(self) -> int:
        position = self._position
        if position >= self._end:
            raise InvalidGob(_ENDS_EARLY)
        first = self._data[position]
        if first < _FIRST_LONG_UINT:
            self._position = position + 1
            return first
        stop = position + 257 - first
        if 256 - first > _MAX_UINT_BYTES:
            msg = "A number is longer than 64 bits"
            raise InvalidGob(msg)
        if stop > self._end:
            raise InvalidGob(_ENDS_EARLY)
        self._position = stop
        return int.from_bytes(self._data[position + 1 : stop], "big")

    def _read_int(self) -> int:
        number = self._read_uint()
        return ~(number >> 1) if number & 1 else number >> 1

    def _take(self, length: int) -> bytes:
        start = self._position
        if length > self._end - start:
            raise InvalidGob(_ENDS_EARLY)
        self._position = start + length
        return self._data[start : start + length]

    def _read_name(self) -> str:
        length = self._read_uint()
        if length > MAX_NAME_BYTES:
            msg = "A name is too long"
            raise InvalidGob(msg)
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            msg = "A name is not UTF-8"
            raise InvalidGob(msg) from None

    def _skip_singleton_delta(self, gob_type: GobType) -> None:
        """What is not a struct is sent like the only field of one, whose number must be the first."""
        if gob_type.kind != "struct" and self._read_uint() != 0:
            msg = "A value does not start where it should"
            raise InvalidGob(msg)

    def _enter(self) -> int:
        """Go one level deeper, into something with as many elements as the number that comes next."""
        count = self._read_uint()
        # Nothing takes less than a byte.
        if count > len(self._data) - self._position:
            raise InvalidGob(_ENDS_EARLY)
        self._descend(count)
        return count

    def _descend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            msg = f"There are more than {MAX_VALUES} values"
            raise InvalidGob(msg)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InvalidGob(_TOO_DEEP)

    # -- definitions of types -----------------------------------------------------------------------------------

    def _read_definition(self, type_id: int) -> None:
        if not _FIRST_DEFINABLE_ID <= type_id <= _LAST_ID or type_id in self._definitions:
            msg = "A type is defined twice, or under a number that is taken"
            raise InvalidGob(msg)
        if len(self._definitions) >= MAX_TYPES:
            msg = f"There are more than {MAX_TYPES} types"
            raise InvalidGob(msg)
        definitions = [
            self._read_definition_body(*_DEFINITIONS[number]) for number in self._field_numbers(len(_DEFINITIONS))
        ]
        if len(definitions) != 1:
            msg = "A definition does not say what the type is"
            raise InvalidGob(msg)
        self._definitions[type_id] = definitions[0]

    def _field_numbers(self, count: int) -> Iterator[int]:
        """The numbers of a struct's fields that are present. The caller reads each one's value before the next."""
        number = -1
        while delta := self._read_uint():
            number += delta
            if number >= count:
                msg = "A struct has more fields than its type"
                raise InvalidGob(msg)
            yield number

    def _read_definition_body(self, kind: Kind, encoding: OpaqueEncoding) -> _Definition:
        definition = _Definition(kind, encoding=encoding)
        attributes = _DEFINITION_FIELDS[kind]
        for number in self._field_numbers(len(attributes)):
            attribute = attributes[number]
            if attribute == "common":
                definition.wire_name = self._read_common()
            elif attribute == "fields":
                definition.fields = self._read_field_types()
            else:
                setattr(definition, attribute, self._read_int())
        return definition

    def _read_common(self) -> str:
        name = ""
        for number in self._field_numbers(2):
            if number == 0:
                name = self._read_name()
            else:
                # The type's number once more. Go ignores it, and so does this.
                self._read_int()
        return name

    def _read_field_types(self) -> dict[str, int]:
        count = self._read_uint()
        if count > self._end - self._position:
            raise InvalidGob(_ENDS_EARLY)
        fields: dict[str, int] = {}
        for _ in range(count):
            name, type_id = "", 0
            for number in self._field_numbers(2):
                if number == 0:
                    name = self._read_name()
                else:
                    type_id = self._read_int()
            fields[name] = type_id
        if len(fields) != count:
            msg = "A struct has two fields of one name"
            raise InvalidGob(msg)
        return fields

    def _wire_type(self, type_id: int, depth: int = 0) -> GobType:
        """What the wire tells of a type."""
        known = self._wire_types.get(type_id)
        if known is not None:
            return known
        definition = self._definitions.get(type_id)
        if definition is None:
            is_complex = type_id == _COMPLEX_ID
            raise InvalidGob("Complex numbers are not supported" if is_complex else "A type is used but not defined")
        if depth > MAX_DEPTH:
            raise InvalidGob(_TOO_DEEP)
        gob_type = GobType(definition.kind, wire_name=definition.wire_name, encoding=definition.encoding)
        # Before its parts are looked at, since it may be one of them.
        self._wire_types[type_id] = gob_type
        if definition.kind in {"slice", "array", "map"}:
            gob_type.element = self._wire_type(definition.element, depth + 1)
            gob_type.length = definition.length
        if definition.kind == "map":
            gob_type.key = self._wire_type(definition.key, depth + 1)
        gob_type.fields = {name: self._wire_type(number, depth + 1) for name, number in definition.fields.items()}
        return gob_type

    # -- interfaces ---------------------------------------------------------------------------------------------

    def read_interface(self, _: GobType) -> Any:
        length = self._read_uint()
        if length == 0:
            return None
        name = self._take(length)
        first = self._data[self._position] if self._position < self._end else 1
        if first < _FIRST_LONG_UINT and not first & 1:
            # A type that needs no definition, which most values have.
            self._position += 1
            type_id = first >> 1
        else:
            type_id = self._next_type_id(in_interface=True)
        # The length of the value's first chunk, for readers that want to skip it.
        self._read_uint()
        gob_type = self._types.get((name, type_id)) or self._resolve(name, type_id)
        if gob_type.kind != "struct" and self._read_uint() != 0:
            msg = "A value does not start where it should"
            raise InvalidGob(msg)
        value = _READ[gob_type.kind](self, gob_type)
        if gob_type.is_application_type or (self._keep_types and gob_type.name not in _PLAIN_NAMES):
            return with_type(value, gob_type)
        return value

    def _resolve(self, raw_name: bytes, type_id: int) -> GobType:
        """Bring the Go program's name of a type and the wire's definition of it together."""
        if len(self._types) >= MAX_TYPES:
            msg = f"There are more than {MAX_TYPES} types"
            raise InvalidGob(msg)
        try:
            name = raw_name.decode()
        except UnicodeDecodeError:
            msg = "A type's name is not UTF-8"
            raise InvalidGob(msg) from None
        known = known_type(name)
        wire_type = self._wire_type(type_id)
        if known is None:
            gob_type = self._application_type(name, wire_type)
        elif known.kind != "interface" and _same_shape(known, wire_type):
            gob_type = known
        else:
            msg = f"{describe_name(name)} is sent as a {wire_type.kind} that it can't be"
            raise InvalidGob(msg)
        self._types[raw_name, type_id] = gob_type
        return gob_type

    def _application_type(self, name: str, wire_type: GobType) -> GobType:
        """A type that only the Go program knows. Its scalars mean something to that program alone."""
        readable = _COMPOSITES | _NAMED_SCALARS if self._keep_types else _COMPOSITES
        if wire_type.kind not in readable or not name.isprintable():
            msg = f"{describe_name(name)} is known to a Go program only"
            raise InvalidGob(msg)
        return replace(wire_type, name=name, is_application_type=True)

    # -- values, by kind ----------------------------------------------------------------------------------------

    def read_bool(self, _: GobType) -> bool:
        return self._read_uint() != 0

    def read_signed(self, gob_type: GobType) -> int:
        number = self._read_int()
        if gob_type.bits < 64 and not gob_type.lowest <= number <= gob_type.highest:
            msg = f"A number is out of range for {gob_type.name}"
            raise InvalidGob(msg)
        return number

    def read_unsigned(self, gob_type: GobType) -> int:
        number = self._read_uint()
        if number > gob_type.highest:
            msg = f"A number is out of range for {gob_type.name}"
            raise InvalidGob(msg)
        return number

    def read_float(self, gob_type: GobType) -> float:
        number: float = _FLOAT_BITS.unpack(_UINT64.pack(self._read_uint()))[0]
        return _to_float32(number) if gob_type.bits == 32 else number

    def read_bytes(self, _: GobType) -> bytes:
        return self._take(self._read_uint())

    def read_string(self, _: GobType) -> str:
        # Go's strings are bytes. What is not UTF-8 comes back as lone surrogates, from which it can be restored.
        return self._take(self._read_uint()).decode("utf-8", "surrogateescape")

    def read_time(self, _: GobType) -> Any:
        return decode_time(self._take(self._read_uint()), keep_nanoseconds=self._keep_types)

    def read_opaque(self, gob_type: GobType) -> Any:
        """A type with an encoding of its own. In a struct's field it has no full name, so a time is told by trying."""
        raw = self._take(self._read_uint())
        if gob_type.encoding == "gob" and gob_type.wire_name == "Time" and not gob_type.name:
            try:
                return decode_time(raw, keep_nanoseconds=self._keep_types)
            except InvalidGob:
                return raw
        return raw

    def read_list(self, gob_type: GobType) -> list[Any]:
        count = self._enter()
        if gob_type.kind == "array" and count != gob_type.length:
            msg = "An array does not have its type's length"
            raise InvalidGob(msg)
        element = _part(gob_type.element)
        read_element = _READ[element.kind]
        values: list[Any] = []
        for _ in range(count):
            values.append(read_element(self, element))  # noqa: PERF401 (a comprehension is a call)
        self._depth -= 1
        return values

    def read_map(self, gob_type: GobType) -> dict[Any, Any]:
        count = self._enter()
        key, element = _part(gob_type.key), _part(gob_type.element)
        read_key, read_element = _READ[key.kind], _READ[element.kind]
        values: dict[Any, Any] = {}
        for _ in range(count):
            name = read_key(self, key)
            # Go can't have slices and maps for keys, and bytes are a slice; nor can Python have dicts.
            if isinstance(name, (bytes, list, dict)):
                msg = "A map's key is of a type that can't be one"
                raise InvalidGob(msg)
            values[name] = read_element(self, element)
        self._depth -= 1
        if self._keep_types and len(values) != count:
            msg = "A map has keys that are different in Go and equal in Python, such as 1 and true"
            raise InvalidGob(msg)
        return values

    def read_struct(self, gob_type: GobType) -> dict[str, Any]:
        fields = list(gob_type.fields.items())
        self._descend(len(fields))
        present: dict[str, Any] = {}
        for number in self._field_numbers(len(fields)):
            name, field_type = fields[number]
            present[name] = _READ[field_type.kind](self, field_type)
        self._depth -= 1
        return {name: present[name] if name in present else _zero(field_type) for name, field_type in fields}


def _part(gob_type: GobType | None) -> GobType:
    """A key's or element's type, which slices, arrays and maps always have."""
    if gob_type is None:
        msg = "A type lacks the type of its elements"
        raise InvalidGob(msg)
    return gob_type


def _to_float32(number: float) -> float:
    # Infinities pass, as in Go.
    if _MAX_FLOAT32 < abs(number) <= _MAX_FLOAT64:
        msg = "A number is out of range for float32"
        raise InvalidGob(msg)
    rounded: float = _FLOAT32.unpack(_FLOAT32.pack(number))[0]
    return rounded


def _zero(gob_type: GobType) -> Any:
    """What a field that was not sent has."""
    return [] if gob_type.kind == "slice" else _ZEROS.get(gob_type.kind)


def _same_shape(known: GobType, wire_type: GobType) -> bool:
    """Whether a type of a Go program can be read from a type on the wire. `known` is finite: it came from a name."""
    if known.kind == "time":
        return wire_type.kind == "opaque" and wire_type.encoding == "gob"
    if known.kind != wire_type.kind or known.length != wire_type.length:
        return False
    parts = ((known.key, wire_type.key), (known.element, wire_type.element))
    return all(mine is None or (theirs is not None and _same_shape(mine, theirs)) for mine, theirs in parts)


_DEFINITION_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "array": ("common", "element", "length"),
    "slice": ("common", "element"),
    "struct": ("common", "fields"),
    "map": ("common", "key", "element"),
    "opaque": ("common",),
}
_ZEROS: Final[dict[str, Any]] = {"bool": False, "int": 0, "uint": 0, "float": 0.0, "string": "", "bytes": b""}
_COMPOSITES: Final = {"struct", "slice", "array", "map"}
_NAMED_SCALARS: Final = {"int", "uint", "float", "string", "bytes", "opaque"}

# These are what `dumps` writes plain values as, so they need not be remembered.
_PLAIN_NAMES: Final = {
    "bool",
    "int",
    "float64",
    "string",
    "[]uint8",
    "time.Time",
    "[]interface {}",
    "map[string]interface {}",
}
_COMMON_TYPES: Final = {
    (each.name.encode(), number): each for number, each in BUILTIN_TYPES.items() if each.kind != "interface"
}

_READ: Final[dict[Kind, Callable[[_Reader, GobType], Any]]] = {
    "bool": _Reader.read_bool,
    "int": _Reader.read_signed,
    "uint": _Reader.read_unsigned,
    "float": _Reader.read_float,
    "string": _Reader.read_string,
    "bytes": _Reader.read_bytes,
    "interface": _Reader.read_interface,
    "time": _Reader.read_time,
    "opaque": _Reader.read_opaque,
    "slice": _Reader.read_list,
    "array": _Reader.read_list,
    "map": _Reader.read_map,
    "struct": _Reader.read_struct,
}
