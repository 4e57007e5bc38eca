"""Typed values, and the portable form in which a session keeps them.

The portable form of a dataclass, a Struct or a model is a dict, that of an enum its value; what `values` takes stays as
it is. `Unknown` carries along what a stored value has and its declared type does not know, because another version of
the application wrote it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, time, timezone
from enum import Enum
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from msgspec import UNSET, Struct

from coatcheck import values

_NOTHING: Final = object()

_STANDARD_ZONES: Final = {type(None), timezone, ZoneInfo}

Unknown: TypeAlias = dict[int, tuple[object, Mapping[Any, Any]]]
"""For objects of the application's, by `id`: the object itself, so that the `id` stays its own, and what its stored
form has at keys, or as an array at places beyond the end, that its type does not know."""

Kind: TypeAlias = tuple[type, object]
"""Of what is unknown, what stays or goes together: one key of all objects of a type, or all keys of dicts."""


def is_model(kind: object) -> bool:
    """Tell whether it is a class of pydantic's, without importing pydantic."""
    return isinstance(kind, type) and hasattr(kind, "model_fields") and hasattr(kind, "__pydantic_validator__")


_attributes: Final[WeakKeyDictionary[type, tuple[tuple[str, str], ...]]] = WeakKeyDictionary()


def attributes(kind: type) -> tuple[tuple[str, str], ...]:
    """Give the attributes of a class's instances, each with its name in the portable form."""
    found = _attributes.get(kind)
    if found is None:
        found = _attributes[kind] = _attributes_of(kind)
    return found


def _attributes_of(kind: type) -> tuple[tuple[str, str], ...]:
    if issubclass(kind, Struct):
        return tuple(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    if dataclasses.is_dataclass(kind):
        return tuple((field.name, field.name) for field in dataclasses.fields(kind))
    if is_model(kind):
        fields: Mapping[str, Any] = kind.model_fields  # type: ignore[attr-defined]
        return tuple((name, field.serialization_alias or name) for name, field in fields.items())
    return tuple((field.name, field.name) for field in getattr(kind, "__attrs_attrs__", ()))


def portable(value: Any, depth: int = values.MAX_DEPTH) -> Any:
    """Give the portable form. What has none stays as it is, and `values.encode` refuses it."""
    kind = type(value)
    if isinstance(value, Enum):
        form = portable(value.value, depth)
    elif kind is datetime or kind is time:
        form = _with_standard_zone(value)
    elif depth == 0 or (kind in values.IMMUTABLE and kind is not frozenset):
        form = value
    elif kind is list:
        form = [portable(item, depth - 1) for item in value]
    elif kind is set or kind is frozenset:
        form = kind(_hashable(item, depth - 1) for item in value)
    elif isinstance(value, tuple):
        form = tuple(portable(item, depth - 1) for item in value)
    elif kind is dict:
        form = {_hashable(key, depth - 1): portable(item, depth - 1) for key, item in value.items()}
    else:
        form = _portable_object(value, kind, depth)
    return form


def _with_standard_zone(value: datetime | time) -> datetime | time:
    """Give a time with a `timezone` where it has another library's fixed offset, as all have that pydantic reads."""
    zone = value.tzinfo
    if zone is None or type(zone) in _STANDARD_ZONES:
        return value
    with suppress(Exception):  # it is anybody's class
        offset = zone.utcoffset(None)  # None from those that have to know the time
        if offset is not None and offset == value.utcoffset():
            return value.replace(tzinfo=timezone(offset))
    return value


def _hashable(value: Any, depth: int) -> Any:
    """Give the portable form of what is in a set or a key. That of an object can't be there: it has none."""
    form = portable(value, depth)
    try:
        hash(form)
    except TypeError:
        return value
    return form


def _portable_object(value: Any, kind: type, depth: int) -> Any:
    named = attributes(kind)
    if not named and not (isinstance(value, Struct) or dataclasses.is_dataclass(kind)):
        return value
    config = value.__struct_config__ if isinstance(value, Struct) else None
    if config is not None and config.array_like:
        places = [getattr(value, name) for name, _ in named]
        while places and places[-1] is UNSET:  # elsewhere it has a place, which can't be left out
            places.pop()
        return [*(() if config.tag is None else (config.tag,)), *(portable(part, depth - 1) for part in places)]
    parts = {
        key: portable(part, depth - 1) for name, key in named if (part := getattr(value, name, UNSET)) is not UNSET
    }
    return parts if config is None or config.tag is None else {config.tag_field: config.tag, **parts}


def _parts(value: Any, form: Any) -> Iterator[tuple[Any, Any]]:
    """Give the parts of a value, each with its place in the value's portable form."""
    if isinstance(value, list | tuple):
        if isinstance(form, list | tuple) and len(form) == len(value):
            yield from enumerate(value)
    elif isinstance(value, dict):
        if isinstance(form, dict) and len(form) == len(value):
            yield from zip(form, value.values(), strict=True)
    elif isinstance(form, dict):
        yield from ((key, getattr(value, name)) for name, key in attributes(type(value)) if key in form)
    elif _is_array(value, form):
        places = range(0 if value.__struct_config__.tag is None else 1, len(form))
        yield from zip(places, (getattr(value, name) for name in value.__struct_fields__), strict=False)


def _is_array(value: Any, form: Any) -> bool:
    """Tell whether it is a Struct whose portable form is a list."""
    return isinstance(value, Struct) and isinstance(form, list)


def _part(value: Any, form: Any, stored: Any, place: Any) -> Any:
    """Give what is stored of a value's part."""
    if isinstance(stored, dict):
        return stored.get(place, _NOTHING)
    if isinstance(stored, list | tuple) and (
        place < len(stored) if _is_array(value, form) else len(stored) == len(form)
    ):
        return stored[place]
    return _NOTHING


def unknown_of(value: Any, form: Any, stored: Any) -> Unknown:
    """Find what is stored of a value, and not in the portable form that its type gives it."""
    unknown: Unknown = {}
    _find(value, form, stored, unknown)
    return unknown


def _find(value: Any, form: Any, stored: Any, unknown: Unknown) -> None:
    extra: dict[Any, Any] = {}
    if isinstance(form, dict) and isinstance(stored, dict):
        extra = {key: part for key, part in stored.items() if key not in form}
    elif _is_array(value, form) and isinstance(stored, list | tuple):
        extra = {place: stored[place] for place in range(len(form), len(stored))}
    if extra:
        unknown[id(value)] = (value, extra)
    for place, part in _parts(value, form):
        stored_part = _part(value, form, stored, place)
        if stored_part is not _NOTHING:
            _find(part, form[place], stored_part, unknown)


def put_back(value: Any, form: Any, unknown: Unknown, only: Container[Kind] | None = None) -> set[Kind]:
    """Put into a value's portable form what is unknown to the types of the objects in it, or some kinds of that.

    Gives the kinds that were put back.
    """
    kinds: set[Kind] = set()
    for place, part in list(_parts(value, form)):
        kinds |= put_back(part, form[place], unknown, only)
    if id(value) in unknown:
        for place, part in unknown[id(value)][1].items():
            kind = type(value), None if isinstance(value, dict) else place
            if only is not None and kind not in only:
                continue
            kinds.add(kind)
            if isinstance(form, dict):
                form.setdefault(place, part)
            elif _is_array(value, form) and place == len(form):
                form.append(part)
    return kinds
