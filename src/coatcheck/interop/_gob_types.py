"""The types of Go's values, and the Python values that remember theirs.

Gob has two notions of a type: the wire's, which knows seven kinds of scalars and how they nest, and the Go
program's, of which only the *name* is sent, and only where a value sits in an interface. `GobType` is both in one.

The value classes here are the plain types of Python with a `gob_type` attached. They equal, hash and print as the
plain types do; what they add is that `dumps` writes them as the type they were read from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, Literal, Self

from coatcheck.errors import InvalidGob

Kind = Literal[
    "bool", "int", "uint", "float", "string", "bytes", "interface", "time", "opaque", "slice", "array", "map", "struct"
]
"""How a value is laid out. `opaque` is a type with an encoding of its own, of which only the bytes are known."""

OpaqueEncoding = Literal["gob", "binary", "text"]
"""Which of Go's interfaces an opaque type encodes itself with: GobEncoder, BinaryMarshaler or TextMarshaler."""

MAX_DEPTH: Final = 128
"""Of values inside values: two calls each, so that Python's stack (1,000 calls) has room for the application's own."""

# More than any program writes by hand. Reading a name takes time in proportion to both.
_MAX_NAME_DEPTH = 16
_MAX_NAME_LENGTH = 128


@dataclass(eq=False, slots=True)
class GobType:
    """A type of Go's, as far as gob tells. Types may refer to themselves."""

    kind: Kind
    name: str = ""
    """As the Go program knows it: `int64`, `[]string`, `main.Profile`. Empty if it was never in an interface."""
    wire_name: str = ""
    """As the type's definition has it: `Profile`. Empty for types without a name."""
    bits: int = 64
    """Of an int, uint or float."""
    key: GobType | None = None
    """Of a map."""
    element: GobType | None = None
    """Of a slice, array or map."""
    length: int = 0
    """Of an array."""
    fields: dict[str, GobType] = field(default_factory=dict["str", "GobType"])
    """Of a struct, in order."""
    encoding: OpaqueEncoding = "gob"
    """Of an opaque type."""
    is_application_type: bool = False
    """Whether a Go program defined it or something in it, so that its name alone doesn't describe it."""

    @classmethod
    def of(cls, name: str) -> GobType:
        """A type made of Go's own: `int64`, `[]string`, `map[string]interface {}`, `time.Duration`, `[4]uint8`.

        Raises:
            InvalidGob: the name is not Go syntax, or has a type in it that only some Go program knows.
        """
        known = known_type(name)
        if known is None:
            msg = f"{describe_name(name)} is not made of Go's own types alone"
            raise InvalidGob(msg)
        return known

    @classmethod
    def named(cls, name: str, underlying: GobType | str) -> GobType:
        """A program's own type, such as `main.Role` for `type Role string`."""
        base = underlying if isinstance(underlying, GobType) else cls.of(underlying)
        return replace(base, name=name, is_application_type=True)

    @classmethod
    def struct(cls, name: str, fields: Mapping[str, GobType | str]) -> GobType:
        """A program's own struct. `fields` has the exported fields in their order."""
        types = {field: kind if isinstance(kind, GobType) else cls.of(kind) for field, kind in fields.items()}
        return cls("struct", name, wire_name=name.rpartition(".")[2], fields=types, is_application_type=True)

    def __repr__(self) -> str:
        """The name alone, since types may contain themselves."""
        return f"<GobType {self.name or self.wire_name or self.kind}>"

    @property
    def lowest(self) -> int:
        """The smallest int or uint."""
        return -1 << (self.bits - 1) if self.kind == "int" else 0

    @property
    def highest(self) -> int:
        """The largest int or uint."""
        return (1 << (self.bits - 1 if self.kind == "int" else self.bits)) - 1


def _go_types() -> Iterable[GobType]:
    yield GobType("bool", "bool")
    yield GobType("string", "string")
    yield GobType("interface", "interface {}")
    yield GobType("time", "time.Time", wire_name="Time")
    yield GobType("int", "time.Duration")
    for bits in (8, 16, 32, 64):
        yield GobType("int", f"int{bits}", bits=bits)
        yield GobType("uint", f"uint{bits}", bits=bits)
    for word in ("int", "uint"):
        yield GobType("int" if word == "int" else "uint", word)
    yield GobType("uint", "uintptr")
    yield GobType("float", "float32", bits=32)
    yield GobType("float", "float64")


_GO_TYPES: Final = {each.name: each for each in _go_types()}
_COMPLEX: Final = {"complex64", "complex128"}

BOOL: Final = _GO_TYPES["bool"]
INT: Final = _GO_TYPES["int"]
UINT: Final = _GO_TYPES["uint"]
FLOAT64: Final = _GO_TYPES["float64"]
STRING: Final = _GO_TYPES["string"]
INTERFACE: Final = _GO_TYPES["interface {}"]
TIME: Final = _GO_TYPES["time.Time"]
BYTES: Final = GobType("bytes", "[]uint8")
LIST_OF_ANY: Final = GobType("slice", "[]interface {}", element=INTERFACE)
MAP_OF_STRING: Final = GobType("map", "map[string]interface {}", key=STRING, element=INTERFACE)
MAP_OF_ANY: Final = GobType("map", "map[interface {}]interface {}", key=INTERFACE, element=INTERFACE)

BUILTIN_TYPES: Final = {1: BOOL, 2: INT, 3: UINT, 4: FLOAT64, 5: BYTES, 6: STRING, 8: INTERFACE}
"""The types that need no definition, by their number on the wire. 7 is complex, 9 to 15 are reserved."""
BUILTIN_IDS: Final[Mapping[Kind, int]] = {each.kind: number for number, each in BUILTIN_TYPES.items()}

# One object for each of the types that plain values are written as, since definitions are told apart by identity.
_COMPOSED: Final = {each.name: each for each in (BYTES, LIST_OF_ANY, MAP_OF_STRING, MAP_OF_ANY)}


@lru_cache(maxsize=512)
def known_type(name: str) -> GobType | None:
    """The type that a name in Go's syntax describes, or None if some name in it is a program's own.

    Raises:
        InvalidGob: the name has a complex number in it.
    """
    return _known_type(name, 0) if len(name) <= _MAX_NAME_LENGTH else None


def _known_type(name: str, depth: int) -> GobType | None:
    known = _GO_TYPES.get(name) or _COMPOSED.get(name)
    if known is not None or depth > _MAX_NAME_DEPTH:
        return known
    if name in _COMPLEX:
        msg = "Complex numbers are not supported"
        raise InvalidGob(msg)
    if name.startswith("[]"):
        element = _known_type(name[2:], depth + 1)
        return element and GobType("slice", name, element=element)
    if name.startswith("["):
        length, _, element_name = name[1:].partition("]")
        element = _known_type(element_name, depth + 1)
        is_array = element is not None and length.isascii() and length.isdigit() and len(length) < len(str(1 << 31))
        return GobType("array", name, element=element, length=int(length)) if is_array else None
    if name.startswith("map["):
        return _known_map(name, depth)
    return None


def _known_map(name: str, depth: int) -> GobType | None:
    open_brackets = 0
    for position in range(3, len(name)):
        open_brackets += {"[": 1, "]": -1}.get(name[position], 0)
        if open_brackets == 0:
            key = _known_type(name[4:position], depth + 1)
            element = _known_type(name[position + 1 :], depth + 1)
            return GobType("map", name, key=key, element=element) if key and element else None
    return None


def describe_name(name: str) -> str:
    """A type's name for an error. What doesn't look like one may be a user's data, and is not repeated."""
    looks_like_a_type = len(name) <= 100 and any(mark in name for mark in ".[*") and name.isprintable()
    return f"The Go type {name}" if looks_like_a_type else "A Go type"


def _as_type(gob_type: GobType | str) -> GobType:
    return gob_type if isinstance(gob_type, GobType) else GobType.of(gob_type)


class _Typed:
    """What the classes of values share. Comes second among their bases, after the plain type."""

    __slots__ = ()

    gob_type: GobType

    @classmethod
    def plain_type(cls) -> Any:
        """Give the plain type of Python that this class adds its Go type to."""
        return cls.__mro__[1]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle with the type."""
        return (type(self), (self.plain_type()(self), self.gob_type))


class GobInt(int, _Typed):
    """An int whose Go type is not `int`: `GobInt(5, "int64")`. Arithmetic gives plain ints."""

    def __new__(cls, value: int, gob_type: GobType | str) -> Self:
        """Make an int that `dumps` writes as `gob_type`, a kind of int or uint."""
        self = super().__new__(cls, value)
        self.gob_type = _as_type(gob_type)
        return self


class GobFloat(float, _Typed):
    """A float whose Go type is not `float64`: `GobFloat(0.5, "float32")`. Arithmetic gives plain floats."""

    def __new__(cls, value: float, gob_type: GobType | str) -> Self:
        """Make a float that `dumps` writes as `gob_type`."""
        self = super().__new__(cls, value)
        self.gob_type = _as_type(gob_type)
        return self


class GobString(str, _Typed):
    """A str of a Go program's own type, such as `type Role string`."""

    __slots__ = ("gob_type",)

    def __new__(cls, value: str, gob_type: GobType | str) -> Self:
        """Make a str that `dumps` writes as `gob_type`."""
        self = super().__new__(cls, value)
        self.gob_type = _as_type(gob_type)
        return self


class GobBytes(bytes, _Typed):
    """The bytes of a Go program's own type, or of a type that encodes itself, such as `*url.URL`."""

    def __new__(cls, value: bytes, gob_type: GobType | str) -> Self:
        """Make bytes that `dumps` writes as `gob_type`."""
        self = super().__new__(cls, value)
        self.gob_type = _as_type(gob_type)
        return self


class GobList(list[Any], _Typed):
    """A list whose Go type is not `[]interface {}`: `GobList(["admin"], "[]string")`."""

    __slots__ = ("gob_type",)

    def __init__(self, values: Iterable[Any], gob_type: GobType | str) -> None:
        """Make a list that `dumps` writes as `gob_type`, a slice or an array."""
        super().__init__(values)
        self.gob_type = _as_type(gob_type)


class GobMap(dict[Any, Any], _Typed):
    """A dict whose Go type is not `map[string]interface {}`: `GobMap({"k": "v"}, "map[string]string")`."""

    __slots__ = ("gob_type",)

    def __init__(self, values: Mapping[Any, Any], gob_type: GobType | str) -> None:
        """Make a dict that `dumps` writes as `gob_type`, a map."""
        super().__init__(values)
        self.gob_type = _as_type(gob_type)


class GobStruct(dict[str, Any], _Typed):
    """A struct that a Go program registered, as a dict of its exported fields.

    A field that the sender left out has its zero value: `False`, `0`, `0.0`, `""`, `b""`, `[]`, or None for what
    may be nil or has no plain zero (maps, interfaces, structs, arrays, times). None is left out in turn.

    Example:
        >>> profile = GobStruct({"Name": "Alice"}, GobType.struct("main.Profile", {"Name": "string", "Age": "int"}))
        >>> profile.type_name, profile["Name"]
        ('main.Profile', 'Alice')
    """

    __slots__ = ("gob_type",)

    def __init__(self, values: Mapping[str, Any], gob_type: GobType) -> None:
        """Make a dict that `dumps` writes as `gob_type`, a struct."""
        super().__init__(values)
        self.gob_type = gob_type

    @property
    def type_name(self) -> str:
        """The name that the struct is registered under in Go: `main.Profile`."""
        return self.gob_type.name


TypedValue = GobInt | GobFloat | GobString | GobBytes | GobList | GobMap | GobStruct
TYPED_CLASSES: Final = (GobInt, GobFloat, GobString, GobBytes, GobList, GobMap, GobStruct)
_CLASS_OF_KIND: Final[Mapping[Kind, Any]] = {
    "int": GobInt,
    "uint": GobInt,
    "float": GobFloat,
    "string": GobString,
    "bytes": GobBytes,
    "opaque": GobBytes,
    "slice": GobList,
    "array": GobList,
    "map": GobMap,
    "struct": GobStruct,
}


def with_type(value: Any, gob_type: GobType) -> TypedValue:
    """The same value, remembering its Go type."""
    typed: TypedValue = _CLASS_OF_KIND[gob_type.kind](value, gob_type)
    return typed
