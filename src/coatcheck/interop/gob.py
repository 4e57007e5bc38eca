"""Go's gob format, for what sessions hold: `loads` and `dumps`.

What Go's values become:

================================================  =====================================================
Go                                                Python
================================================  =====================================================
`bool`, `string`, `float64`, `float32`            `bool`, `str`, `float`
every `int` and `uint` kind, `time.Duration`      `int` (a duration in nanoseconds)
`[]byte`                                          `bytes`
`[]interface{}`, `[]string` and other slices      `list`
`map[string]interface{}` and other maps           `dict`
`time.Time`                                       `datetime`, aware; UTC, or a fixed offset
`nil`                                             `None`
a registered struct                               `GobStruct`, a `dict` with its `type_name`
a slice, array or map with such structs in it     `GobList` or `GobMap`, a `list` or `dict` with its type
================================================  =====================================================

What Python's values become: the same from right to left, where an `int` is Go's `int` and must fit, a `list` is
`[]interface{}`, and a `dict` is `map[string]interface{}` if all keys are strings and `map[interface{}]interface{}`
otherwise and at the top, as gorilla's sessions have it. Types are taken exactly: a tuple, a naive datetime, or a
subclass of `str` is refused rather than changed into something similar. The Go program must have registered
`map[string]interface{}`, `time.Time` and whatever else it does not know by itself with `gob.Register`.

**Exact types.** A Go program that stored an `int64` and reads an `int` panics at `value.(int64)`. A program that
writes back what Go wrote therefore reads with `keep_types=True`: values whose type a plain value would lose come
as `GobInt`, `GobFloat`, `GobList`, `GobMap`, `GobTime` (with its nanoseconds) and so on, which equal the plain ones
and are written as they were read. It is not the default because subclasses surprise: some encoders (msgspec's) take
only the exact types, and arithmetic gives plain values, so that `session["n"] += 1` makes an `int` of an `int64`;
`retype` puts that right.

**Where it differs from Go.**

- Strings in Go are bytes. Those that are not UTF-8 come with lone surrogates in their place (Python's
  `surrogateescape`) and are written back as they were.
- Keys that differ in Go but not in Python, `1` and `true` and `int64(1)`, fall together and the last one wins;
  with `keep_types=True` such a map is refused, as it could not be written back.
- Times are cut to microseconds unless `keep_types=True`. A zone of zero offset is UTC. Times outside of the years
  1 to 9999, and zones of a day or more, are refused.
- A program's own scalar types (`type Role string`) and types that encode themselves (`*url.URL`) are refused unless
  `keep_types=True`: what they mean is not in the stream. Go would refuse a name that it has not registered; here
  nothing is registered, and so every struct is read.
- Complex numbers are refused. So is whatever follows the value, which Go ignores.
- Nesting beyond 128 levels, more than 100,000 values or 256 types, and streams above 1 MiB are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from coatcheck.interop import _gob_reader, _gob_writer
from coatcheck.interop._go_time import GobTime
from coatcheck.interop._gob_reader import MAX_BYTES, MAX_TYPES, MAX_VALUES, Target
from coatcheck.interop._gob_types import (
    MAX_DEPTH,
    TYPED_CLASSES,
    GobBytes,
    GobFloat,
    GobInt,
    GobList,
    GobMap,
    GobString,
    GobStruct,
    GobType,
)

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_TYPES",
    "MAX_VALUES",
    "GobBytes",
    "GobFloat",
    "GobInt",
    "GobList",
    "GobMap",
    "GobString",
    "GobStruct",
    "GobTime",
    "GobType",
    "Target",
    "dumps",
    "loads",
    "plain",
    "retype",
]


def loads(data: bytes, *, target: Target | None = None, keep_types: bool = False) -> Any:
    """Read what Go's `gob.Encoder` wrote. The bytes may come from anybody.

    Args:
        data: The whole stream, with exactly one value.
        target: What Go would decode into: `"map"` for the values of a session (`map[interface{}]interface{}`),
            `"string"` for the session ID in redistore's cookie, `"any"` for any type. By default a map or a string.
        keep_types: Whether values remember their Go types. See the module's text.

    Returns:
        The value.

    Raises:
        InvalidGob: The bytes are damaged, too large, of another type or one that is not supported.

    Example:
        >>> loads(bytes.fromhex("060c0003414243"))
        'ABC'
    """
    return _gob_reader.read(data, target, keep_types=keep_types)


def dumps(value: Any) -> bytes:
    """Write a value for Go's `gob.Decoder`.

    Args:
        value: A session's values as a dict, or a str, or one of the other types in the module's table.

    Returns:
        The stream.

    Raises:
        InvalidGob: The value has no equal in Go, does not fit its type, or is nested too deeply.

    Example:
        >>> dumps("ABC").hex()
        '060c0003414243'
    """
    return _gob_writer.write(value)


def retype(value: Any, like: Any) -> Any:
    """Give a new value the Go type of the one that it replaces, if it fits.

    Args:
        value: A plain value, such as the sum of a `GobInt` and 1.
        like: The value that was there before, read with `keep_types=True`.

    Returns:
        The value with the type of `like`; the value itself if `like` has a plain type, or if it does not fit.

    Example:
        >>> retype(5 + GobInt(1, "int64"), GobInt(1, "int64")).gob_type
        <GobType int64>
    """
    if not isinstance(like, TYPED_CLASSES) or not isinstance(value, like.plain_type()):
        return value
    if isinstance(value, (bool, *TYPED_CLASSES)):
        return value
    typed: Any = type(like)(value, like.gob_type)
    return typed if _gob_writer.is_writable(typed) else value


def plain(value: Any) -> Any:
    """Take the Go types off a value and everything in it, for what accepts plain types only.

    Args:
        value: A value that `loads` gave.

    Returns:
        The equal value of plain Python types. Nanoseconds are cut off.

    Example:
        >>> type(plain(GobInt(5, "int64")))
        <class 'int'>
    """
    for kind, plain_of in _PLAIN:
        if isinstance(value, kind):
            return plain_of(value)
    return value


_PLAIN: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (dict, lambda pairs: {plain(key): plain(element) for key, element in pairs.items()}),
    (list, lambda elements: [plain(element) for element in elements]),
    (GobTime, GobTime.to_datetime),
    *((kind, kind.plain_type()) for kind in (GobInt, GobFloat, GobString, GobBytes)),
)
