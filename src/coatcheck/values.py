"""Values to bytes and back, without loss: what comes out is equal to what went in, and of the same type.

The format is MessagePack by msgspec. What MessagePack has no type for travels as an extension type whose code is
listed in `Code`; the numbers are part of the storage format and never change their meaning. Only exactly the types
listed here are taken (a subclass would come back as its base), and nothing stored can ever run code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec import Raw
from msgspec.msgpack import Decoder, Encoder, Ext

from coatcheck.errors import UndecodableValue, UnsupportedKey, UnsupportedValue

try:
    from markupsafe import Markup
except ImportError:
    _html: type[str] | None = None  # then nobody has such values, unless others have stored them
else:
    _html = Markup

MAX_DEPTH: Final = 64
"""How deep lists, dicts and the like may be nested; far below what a decoder's stack holds."""

_PLAIN: Final = frozenset({str, bool, type(None), float, bytes})
_PLAIN_KEYS: Final = _PLAIN | {int}
_SCALARS: Final = _PLAIN_KEYS | {datetime, date, time, timedelta, Decimal, UUID}

IMMUTABLE: Final = _SCALARS | {frozenset} | ({_html} if _html else set())
"""Types whose values can't change in place. (A tuple may hold a list, so it is not among them.)"""

_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1


class Code:
    """Extension type codes. Part of the storage format."""

    BIG_INT: Final = 1
    TUPLE: Final = 2
    SET: Final = 3
    FROZENSET: Final = 4
    DICT: Final = 5
    DATETIME: Final = 6
    DATE: Final = 7
    TIME: Final = 8
    TIMEDELTA: Final = 9
    DECIMAL: Final = 10
    UUID: Final = 11
    GO: Final = 12
    """A value with a type of Go's. Only between a store that translates and the application; see `add_type`."""
    HTML: Final = 13
    """Text that templates don't escape: MarkupSafe's `Markup`, which Jinja2 and Flask make."""


class _CannotEncodeError(Exception):
    """Raised inside this module; `encode` adds the session's key to it."""


def check_key(key: object) -> str:
    """Give a session's key back as it will be stored.

    Raises:
        UnsupportedKey: the key is not a string, or has code points that UTF-8 can't express.
    """
    if not isinstance(key, str):
        msg = f"A session's keys are strings, and {_shown(key)} is of type {type(key).__name__!r}"
        raise UnsupportedKey(msg)
    if not is_text(key):
        msg = f"The session key {key!a:.80} holds a lone surrogate, which can't be stored"
        raise UnsupportedKey(msg)
    return key


def _shown(key: object) -> str:
    """Show what was meant as a key, also when it can't show itself, like an int of thousands of digits."""
    try:
        return repr(key)[:80]
    except Exception:  # noqa: BLE001 (it is anybody's __repr__)
        return "this one"


def is_text(text: str) -> bool:
    """Tell whether a str is Unicode text: one with lone surrogates is not, and has no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode(key: str, value: object) -> bytes:
    """Encode the value kept under `key`.

    The encoding is deterministic, sets included, so that equal bytes mean an unchanged value.

    Raises:
        UnsupportedValue: the value or something inside it can't be stored without loss. Names the key and the type.
    """
    try:
        if type(value) in _PLAIN:
            return _encode(value)
        return _encode(_portable(value, MAX_DEPTH))
    except _CannotEncodeError as error:
        reason = str(error)
    except UnicodeEncodeError:
        reason = "a str with a lone surrogate"
    raise _unsupported(key, reason)


def _unsupported(key: str, reason: str) -> UnsupportedValue:
    return UnsupportedValue(
        f"session[{key!r:.80}] can't keep {reason}. Sessions keep None, bool, int, float, str, bytes, list, tuple, "
        "dict, set, frozenset, datetime, date, time, timedelta, Decimal and UUID; convert the value to one of these"
    )


def decode(key: str, encoded: bytes | Raw) -> Any:
    """Decode what `encode` made.

    Raises:
        UndecodableValue: the bytes are not a value that can be decoded here.
    """
    try:
        return _decode(encoded)
    except Exception as error:
        msg = f"The stored value of session[{key!r:.80}] can't be decoded here: {error}"
        raise UndecodableValue(msg) from error


# --- encoding -----------------------------------------------------------------------------------------------------

_encode = Encoder().encode


def _portable(value: Any, depth: int) -> Any:
    """Give what msgspec encodes in the value's place: itself where MessagePack has its type, else an extension."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    writer = _WRITERS.get(kind)
    if writer is None:
        msg = f"a value of type {kind.__qualname__!r}{_hint(value)}"
        raise _CannotEncodeError(msg)
    if depth == 0:
        msg = f"values nested deeper than {MAX_DEPTH} levels, or that hold themselves (in a {kind.__qualname__!r})"
        raise _CannotEncodeError(msg)
    return writer(value, depth - 1)


def _hint(value: Any) -> str:
    """Say what to keep in the place of values that people often try to keep."""
    if isinstance(value, Enum):
        return " (keep its .value)"
    if is_dataclass(value) and not isinstance(value, type):
        return " (keep dataclasses.asdict() of it)"
    if hasattr(value, "model_dump"):
        return " (keep its .model_dump())"
    for base in (str, int, float, bytes, list, tuple, dict, set):
        if isinstance(value, base):
            return f" (keep {base.__name__}() of it; as it is, it would come back as a {base.__name__})"
    return ""


def _portable_int(value: int, _depth: int) -> int | Ext:
    if _MIN_INT <= value <= _MAX_INT:
        return value
    size = value.bit_length() // 8 + 1
    return Ext(Code.BIG_INT, value.to_bytes(size, "big", signed=True))


def _portable_list(value: list[Any], depth: int) -> list[Any]:
    return [item if type(item) in _PLAIN else _portable(item, depth) for item in value]


def _portable_tuple(value: tuple[Any, ...], depth: int) -> Ext:
    return Ext(Code.TUPLE, _encode([_portable(item, depth) for item in value]))


def _sorted_elements(value: Iterable[Any], depth: int) -> bytes:
    # A set has no order of its own: sorted, equal sets have equal bytes.
    return _encode([Raw(element) for element in sorted(_encode(_portable(item, depth)) for item in value)])


def _portable_set(value: set[Any], depth: int) -> Ext:
    return Ext(Code.SET, _sorted_elements(value, depth))


def _portable_frozenset(value: frozenset[Any], depth: int) -> Ext:
    return Ext(Code.FROZENSET, _sorted_elements(value, depth))


def _portable_dict(value: dict[Any, Any], depth: int) -> dict[Any, Any] | Ext:
    if all(type(key) in _PLAIN_KEYS and (type(key) is not int or _MIN_INT <= key <= _MAX_INT) for key in value):
        return {key: item if type(item) in _PLAIN else _portable(item, depth) for key, item in value.items()}
    # A MessagePack map can't have extension types as keys, so the pairs go into a list.
    pairs = [_portable(part, depth) for pair in value.items() for part in pair]
    return Ext(Code.DICT, _encode(pairs))


def _zone(value: datetime | time) -> Any:
    zone = value.tzinfo
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [_timedelta_fields(offset), *name]
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    instead = "keep its .astimezone(UTC)" if isinstance(value, datetime) else "give it one of these"
    msg = (
        f"a {type(value).__name__} with a tzinfo of type {type(zone).__qualname__!r} "
        f"(only timezone and named ZoneInfo come back the same; {instead})"
    )
    raise _CannotEncodeError(msg)


def _portable_datetime(value: datetime, _depth: int) -> Ext:
    day = (value.year, value.month, value.day)
    return Ext(Code.DATETIME, _encode([*day, *_clock_fields(value), value.fold, _zone(value)]))


def _portable_date(value: date, _depth: int) -> Ext:
    return Ext(Code.DATE, _encode([value.year, value.month, value.day]))


def _portable_time(value: time, _depth: int) -> Ext:
    return Ext(Code.TIME, _encode([*_clock_fields(value), value.fold, _zone(value)]))


def _clock_fields(value: datetime | time) -> tuple[int, int, int, int]:
    return value.hour, value.minute, value.second, value.microsecond


def _timedelta_fields(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _portable_timedelta(value: timedelta, _depth: int) -> Ext:
    return Ext(Code.TIMEDELTA, _encode(_timedelta_fields(value)))


def _portable_decimal(value: Decimal, _depth: int) -> Ext:
    return Ext(Code.DECIMAL, str(value).encode("ascii"))


def _portable_uuid(value: UUID, _depth: int) -> Ext:
    return Ext(Code.UUID, value.bytes)


_Writer: TypeAlias = Callable[[Any, int], Any]

_WRITERS: Final[dict[type, _Writer]] = {
    int: _portable_int,
    list: _portable_list,
    tuple: _portable_tuple,
    set: _portable_set,
    frozenset: _portable_frozenset,
    dict: _portable_dict,
    datetime: _portable_datetime,
    date: _portable_date,
    time: _portable_time,
    timedelta: _portable_timedelta,
    Decimal: _portable_decimal,
    UUID: _portable_uuid,
}
if _html:
    _WRITERS[_html] = lambda value, _depth: Ext(Code.HTML, str.encode(value))


_foreign_codes: Final[dict[type, int]] = {}
"""Types of other systems', and their codes."""


def add_type(kind: type, code: int, write: Callable[[Any], bytes], read: Callable[[bytes], Any]) -> None:
    """Take values of a type of another system's, as an extension type of its own. For `coatcheck.interop`.

    They are for stores that give them to that system; others don't keep them, see `check_own`.

    Args:
        kind: the type. A subclass of one of the usual types is welcome if `read` gives it back as it was.
        code: one of `Code`, which several types may share.
        write: gives a value's bytes, the same for equal values.
        read: makes the value of them.
    """
    _WRITERS[kind] = lambda value, _depth: Ext(code, write(value))
    _READERS[code] = lambda data: read(bytes(data))
    _foreign_codes[kind] = code


def check_own(encoded: Mapping[str, Raw]) -> None:
    """Raise UnsupportedValue for values of other systems' types, which a store of our own must not keep."""
    if not _foreign_codes:
        return
    codes = {code.to_bytes(1, "big") for code in _foreign_codes.values()}
    for key, each in encoded.items():
        if any(code in bytes(each) for code in codes):  # mostly there are none, and this tells it at once
            foreign = _foreign_in(decode(key, each))
            if foreign is not None:
                raise _unsupported(key, f"a value of type {type(foreign).__qualname__!r}{_hint(foreign)}")


def _foreign_in(value: Any) -> Any:
    """Give the first value of another system's type that is in a value; None if there is none."""
    if type(value) in _foreign_codes:
        return value
    if isinstance(value, dict):
        parts: Iterable[Any] = [*value, *value.values()]
    else:
        parts = value if isinstance(value, list | tuple | set | frozenset) else ()
    return next((found for found in map(_foreign_in, parts) if found is not None), None)


# --- decoding -----------------------------------------------------------------------------------------------------


def _extension(code: int, data: memoryview) -> Any:
    reader = _READERS.get(code)
    if reader is None:
        msg = f"unknown extension type {code}; a newer version of Coatcheck may have written it"
        raise ValueError(msg)
    return reader(data)


_decode = Decoder(ext_hook=_extension).decode


def _read_zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    (days, seconds, microseconds), *name = zone
    return timezone(timedelta(days, seconds, microseconds), *name)


def _read_datetime(data: memoryview) -> datetime:
    *fields, fold, zone = _decode(data)
    return datetime(*fields).replace(tzinfo=_read_zone(zone), fold=fold)  # noqa: DTZ001


def _read_time(data: memoryview) -> time:
    *fields, fold, zone = _decode(data)
    return time(*fields).replace(tzinfo=_read_zone(zone), fold=fold)


def _read_html(data: memoryview) -> str:
    if not _html:
        msg = "it is HTML, and MarkupSafe is not installed"
        raise ValueError(msg)
    return _html(str(data, "utf-8"))


def _read_dict(data: memoryview) -> dict[Any, Any]:
    parts = iter(_decode(data))
    return dict(zip(parts, parts, strict=True))


_READERS: Final[dict[int, Callable[[memoryview], Any]]] = {
    Code.BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    Code.TUPLE: lambda data: tuple(_decode(data)),
    Code.SET: lambda data: set(_decode(data)),
    Code.FROZENSET: lambda data: frozenset(_decode(data)),
    Code.DICT: _read_dict,
    Code.DATETIME: _read_datetime,
    Code.DATE: lambda data: date(*_decode(data)),
    Code.TIME: _read_time,
    Code.TIMEDELTA: lambda data: timedelta(*_decode(data)),
    Code.DECIMAL: lambda data: Decimal(str(data, "ascii")),
    Code.UUID: lambda data: UUID(bytes=bytes(data)),
    Code.HTML: _read_html,
}
