"""Typed values, and the portable form in which a session keeps them.

The portable form of a dataclass, a Struct or a model is a dict, that of an enum its value; what `values` takes stays as
it is. `Unknown` carries along what a stored value has and its declared type does not know, because another version of
the application wrote it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from msgspec import UNSET, Struct

from coatcheck import values

_NOTHING: Final = object()

Unknown: TypeAlias = dict[int, tuple[object, Mapping[Any, Any]]]
"""For objects of the application's, by `id`: the object itself, so that the `id` stays its own, and the keys of its
stored form that its type does not know."""


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
    elif depth == 0 or (kind in values.IMMUTABLE and kind is not frozenset):
        form = value
    elif kind is list or kind is set or kind is frozenset:
        form = kind(portable(item, depth - 1) for item in value)
    elif isinstance(value, tuple):
        form = tuple(portable(item, depth - 1) for item in value)
    elif kind is dict:
        form = {portable(key, depth - 1): portable(item, depth - 1) for key, item in value.items()}
    else:
        form = _portable_object(value, kind, depth)
    return form


def _portable_object(value: Any, kind: type, depth: int) -> Any:
    named = attributes(kind)
    if not named and not (isinstance(value, Struct) or dataclasses.is_dataclass(kind)):
        return value
    parts = {
        key: portable(part, depth - 1) for name, key in named if (part := getattr(value, name, UNSET)) is not UNSET
    }
    if not isinstance(value, Struct):
        return parts
    config = value.__struct_config__
    if config.array_like:
        return [*(() if config.tag is None else (config.tag,)), *parts.values()]
    return parts if config.tag is None else {config.tag_field: config.tag, **parts}


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


def _part(form: Any, place: Any, size: int) -> Any:
    """Give what another portable form of the same shape has at a place."""
    if isinstance(form, dict):
        return form.get(place, _NOTHING)
    if isinstance(form, list | tuple) and len(form) == size:
        return form[place]
    return _NOTHING


def unknown_of(value: Any, form: Any, stored: Any) -> Unknown:
    """Find what is stored of a value, and not in the portable form that its type gives it."""
    unknown: Unknown = {}
    _find(value, form, stored, unknown)
    return unknown


def _find(value: Any, form: Any, stored: Any, unknown: Unknown) -> None:
    if isinstance(form, dict) and isinstance(stored, dict):
        extra = {key: part for key, part in stored.items() if key not in form}
        if extra:
            unknown[id(value)] = (value, extra)
    for place, part in _parts(value, form):
        stored_part = _part(stored, place, len(form))
        if stored_part is not _NOTHING:
            _find(part, form[place], stored_part, unknown)


def put_back(value: Any, form: Any, unknown: Unknown) -> None:
    """Put into a value's portable form what is unknown to the types of the objects in it."""
    for place, part in list(_parts(value, form)):
        put_back(part, form[place], unknown)
    if isinstance(form, dict) and id(value) in unknown:
        for key, part in unknown[id(value)][1].items():
            form.setdefault(key, part)
