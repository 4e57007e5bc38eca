"""What a declared type says: which fields it has, and how each one's values become portable and come back.

msgspec converts dataclasses, Structs and TypedDicts; pydantic converts its models, and is imported only when there are
any. What can't work is found here, when a `SessionSchema` is built.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar, get_args, get_type_hints, is_typeddict
from uuid import UUID

import msgspec
from msgspec import inspect as types

from coatcheck import values
from coatcheck.errors import CoatcheckError, ConfigurationError
from coatcheck.typed.portable import attributes, is_model, portable

T = TypeVar("T")

_AS_THEY_ARE: Final = (bytes, datetime, date, time, timedelta, Decimal, UUID)
"""Types that sessions keep and msgspec would else take from a text."""

_OBJECTS: Final = (types.StructType, types.DataclassType)
_NOT_KEPT: Final = (types.RawType, types.ExtType, types.ByteArrayType, types.MemoryViewType)


class Absent(Enum):
    """Stands for a field that has no value: only in a TypedDict, and where an attribute was deleted."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


class MisfitError(Exception):
    """A value does not fit a type. The message says why, and never has anything of the value in it."""


class Converter(Protocol):
    """Makes values of a field's type of portable ones, and back."""

    def load(self, form: Any) -> Any:
        """Give the typed value. Raises MisfitError."""

    def dump(self, value: Any) -> Any:
        """Give the portable form, in which nothing is shared with the value."""


class Field(NamedTuple):
    """One field of the declared type, and one key of the session."""

    name: str
    key: str
    type_name: str
    converter: Converter


class _ByMsgspec:
    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def load(self, form: Any) -> Any:
        try:
            return msgspec.convert(form, self._kind, builtin_types=_AS_THEY_ARE)
        except msgspec.ValidationError as error:
            reason = _without_values(str(error))
        except Exception as error:  # noqa: BLE001 (it comes from the application's own class)
            reason = type(error).__name__
        raise MisfitError(reason)

    def dump(self, value: Any) -> Any:
        return portable(value)


def _without_values(message: str) -> str:
    """Give msgspec's message if it speaks of types and places alone: others quote what is there."""
    is_safe = re.match(r"Expected `[^`]*`(, got `[^`]*`)?( - at `[^`]*`)?$|Object missing required field `", message)
    place = re.search(r" - at `[^`]*`$", message)
    return message if is_safe else "not one of the values that the type allows" + (place[0] if place else "")


class _ByPydantic:
    """A type with models of pydantic's in it."""

    def __init__(self, kind: Any) -> None:
        from pydantic import TypeAdapter

        self._adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def load(self, form: Any) -> Any:
        return _loaded_by_pydantic(lambda: self._adapter.validate_python(form))

    def dump(self, value: Any) -> Any:
        return _dumped_by_pydantic(lambda: self._adapter.dump_python(value, by_alias=True, warnings=False))


class _OfModel:
    """A field of a model of pydantic's, with the validators and serializers that the model has for it."""

    def __init__(self, model: Any, name: str, key: str) -> None:
        self._model = model
        self._name = name
        self._key = key

    def load(self, form: Any) -> Any:
        scratch = self._model.model_construct()

        def assign() -> Any:
            self._model.__pydantic_validator__.validate_assignment(scratch, self._name, form)
            return scratch.__dict__[self._name]

        return _loaded_by_pydantic(assign)

    def dump(self, value: Any) -> Any:
        holder = self._model.model_construct()
        holder.__dict__[self._name] = value
        only = {self._name}
        return _dumped_by_pydantic(lambda: holder.model_dump(include=only, by_alias=True, warnings=False)[self._key])


def _loaded_by_pydantic(load: Callable[[], Any]) -> Any:
    from pydantic import ValidationError

    try:
        return load()
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        reason = ", ".join(dict.fromkeys(each["type"] for each in found))
    except Exception as error:  # noqa: BLE001 (it comes from the application's own validator)
        reason = type(error).__name__
    raise MisfitError(reason)


def _dumped_by_pydantic(dump: Callable[[], Any]) -> Any:
    try:
        return portable(dump())
    except Exception as error:  # noqa: BLE001 (it comes from the application's own serializer)
        reason = type(error).__name__
    raise MisfitError(reason)


# --- the declared type ------------------------------------------------------------------------------------------------


class Declared(Generic[T]):
    """A declared type: its fields, and how an instance is made, read and changed.

    Raises:
        ConfigurationError: it can't be the type of a session. Says why, and what to do.
    """

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind
        self._is_dict = is_typeddict(kind)
        self._is_model = is_model(kind)
        self.name = getattr(kind, "__qualname__", str(kind))
        _check_kind(kind, self.name)
        try:
            hints = get_type_hints(kind, include_extras=True)
        except Exception as error:
            msg = f"{self.name}: its annotations can't be read ({error}). Define it where the types it names are known"
            raise ConfigurationError(msg) from error
        self.fields = tuple(self._field(name, key, hints[name]) for name, key in _names(kind))
        self.by_key = {field.key: field for field in self.fields}
        self._check_keys()
        if self._is_dict:
            self._check_all_may_be_missing(hints)
        else:
            self._check_defaults()

    def _field(self, name: str, key: str, hint: Any) -> Field:
        hint = _unqualified(hint)
        type_name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
        try:
            converter = _OfModel(self.kind, name, key) if self._is_model else _converter(hint)
            if self._is_model:
                _check_models(hint, set())
        except CoatcheckError:
            raise
        except Exception as error:
            msg = f"{self.name}.{name}: {type_name} can't be kept in a session: {error}"
            raise ConfigurationError(msg) from error
        return Field(name, key, type_name, converter)

    def _check_keys(self) -> None:
        if not self.fields:
            msg = f"{self.name} has no fields, so there is nothing that it could say of a session"
            raise ConfigurationError(msg)
        if len(self.by_key) != len(self.fields):
            msg = f"{self.name}: two of its fields have the same name in the session"
            raise ConfigurationError(msg)
        for field in self.fields:
            if field.key.startswith("_"):
                msg = f"{self.name}.{field.name}: a session's keys with a leading underscore are Coatcheck's own"
                raise ConfigurationError(msg)

    def _check_all_may_be_missing(self, hints: Mapping[str, Any]) -> None:
        # Where annotations are texts, the class itself does not know which keys it needs.
        declared: Any = self.kind
        needed = [
            name
            for name, hint in hints.items()
            if (_qualifier(hint) or ("Required" if name in declared.__required_keys__ else "")) == "Required"
        ]
        if needed:
            msg = (
                f"{self.name}: {', '.join(needed)} must be allowed to be missing, because a new session has no values. "
                "Write total=False, or NotRequired[...]"
            )
            raise ConfigurationError(msg)

    def _check_defaults(self) -> None:
        try:
            blank = self.blank()
        except Exception as error:
            msg = (
                f"{self.name}: {self.name}() must work, because a new session has no values ({error}). "
                "Give every field a default"
            )
            raise ConfigurationError(msg) from error
        for field in self.fields:
            self._check_default(field, self.get(blank, field))

    def _check_default(self, field: Field, default: Any) -> None:
        if default is ABSENT:
            msg = f"{self.name}.{field.name} has no value in a new {self.name}(). Give it a default"
            raise ConfigurationError(msg)
        try:
            form = field.converter.dump(default)
            values.encode(field.key, form)
            field.converter.load(form)
        except (MisfitError, CoatcheckError) as error:
            msg = f"{self.name}.{field.name}: its default is not a {field.type_name} that can be kept: {error}"
            raise ConfigurationError(msg) from None

    # --- instances ------------------------------------------------------------------------------------------------

    def blank(self) -> T:
        """Make the instance that a new session has."""
        return self.kind()

    def get(self, instance: Any, field: Field) -> Any:
        """Give a field's value, or ABSENT."""
        if self._is_dict:
            return instance.get(field.name, ABSENT)
        return getattr(instance, field.name, ABSENT)

    def put(self, instance: Any, field: Field, value: Any) -> None:
        """Set a field's value, or with ABSENT take it away."""
        if self._is_dict:
            if value is ABSENT:
                instance.pop(field.name, None)
            else:
                instance[field.name] = value
        elif self._is_model:
            instance.__dict__[field.name] = value  # it has been validated
        else:
            setattr(instance, field.name, value)

    def undeclared(self, instance: Any) -> list[str]:
        """Give the names in a TypedDict that it does not declare."""
        return [name for name in instance if name not in self.by_key] if self._is_dict else []


def _check_kind(kind: Any, name: str) -> None:
    if is_model(kind):
        _check_model_itself(kind, name)
        return
    if is_typeddict(kind):
        return
    is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    is_dataclass = isinstance(kind, type) and dataclasses.is_dataclass(kind)
    if not (is_struct or is_dataclass) or hasattr(kind, "__pydantic_validator__"):
        msg = f"{name}: the type of a session is a dataclass, a msgspec.Struct, a TypedDict or a pydantic.BaseModel"
        raise ConfigurationError(msg)
    settings: Any = getattr(kind, "__struct_config__" if is_struct else "__dataclass_params__")
    if settings.frozen:
        msg = f"{name} is frozen, so a session could never be changed by it. What is in its fields may be frozen"
        raise ConfigurationError(msg)


def _check_model_itself(model: Any, name: str) -> None:
    """Refuse what concerns more than one field: each is read, merged and stored by itself."""
    rules = model.__pydantic_decorators__
    reasons = {
        "it is frozen": model.model_config.get("frozen"),
        "it has extra='allow'": model.model_config.get("extra") == "allow",
        "it is a RootModel": "root" in model.model_fields and getattr(model, "__pydantic_root_model__", False),
        "it has a model_validator": rules.model_validators or rules.root_validators,
        "it has a model_serializer": rules.model_serializers,
        "one of its fields is frozen": any(field.frozen for field in model.model_fields.values()),
    }
    for reason, is_so in reasons.items():
        if is_so:
            msg = (
                f"{name}: {reason}, which can't be kept for a session, whose fields are stored one by one. "
                "It can for a model in one of its fields"
            )
            raise ConfigurationError(msg)
    _check_aliases(model)


def _check_aliases(model: Any) -> None:
    for name, field in model.model_fields.items():
        where = f"{model.__qualname__}.{name}"
        if field.exclude:
            msg = f"{where} has exclude=True, so it would be lost. Leave it out of the session's type"
            raise ConfigurationError(msg)
        if (field.validation_alias or name) != (field.serialization_alias or name):
            msg = f"{where} is written by another name than it is read by. Give it one alias for both: Field(alias=...)"
            raise ConfigurationError(msg)


def _check_models(hint: Any, seen: set[Any]) -> None:
    """Check the models inside a field's type."""
    for part in get_args(hint):
        _check_models(part, seen)
    if not is_model(hint) or hint in seen:
        return
    seen.add(hint)
    _check_aliases(hint)
    for field in hint.model_fields.values():
        _check_models(field.annotation, seen)


def _names(kind: Any) -> Iterator[tuple[str, str]]:
    """Give the names of the type's fields, each with its key in the session."""
    if is_typeddict(kind):
        yield from ((name, name) for name in [*kind.__required_keys__, *kind.__optional_keys__])
    else:
        yield from attributes(kind)


def _unqualified(hint: Any) -> Any:
    """Take Required and NotRequired away, which say nothing of the value."""
    return get_args(hint)[0] if _qualifier(hint) else hint


def _qualifier(hint: Any) -> str:
    """Give which of Required and NotRequired it is, of whatever module."""
    name = str(getattr(hint, "__origin__", "")).rpartition(".")[2]
    return name if name in {"Required", "NotRequired"} else ""


def _converter(hint: Any) -> Converter:
    unknown = list(_kinds_unknown_to_msgspec(types.type_info(hint), set()))
    if any(map(is_model, unknown)):
        _check_models(hint, set())
        return _ByPydantic(hint)
    if unknown:
        msg = f"neither msgspec nor pydantic can convert {unknown[0]!r}"
        raise TypeError(msg)
    hashed = next(_objects_hashed(types.type_info(hint), set()), None)
    if hashed is not None:
        name = hashed.__qualname__
        msg = f"what is stored of a {name} can't be in a set or a key. Keep a list of them, or a dict[str, {name}]"
        raise TypeError(msg)
    with suppress(msgspec.ValidationError):  # of course: what counts is that msgspec knows the type
        msgspec.convert(None, hint, builtin_types=_AS_THEY_ARE)
    return _ByMsgspec(hint)


def _kinds_unknown_to_msgspec(info: Any, seen: set[int]) -> Iterator[Any]:
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, types.CustomType):
        yield info.cls
    elif isinstance(info, _NOT_KEPT):
        yield type(info).__name__
    elif isinstance(info, types.Type | types.Field):
        for name in info.__struct_fields__:
            yield from _kinds_unknown_to_msgspec(getattr(info, name), seen)
    elif isinstance(info, tuple):
        for part in info:
            yield from _kinds_unknown_to_msgspec(part, seen)


def _objects_hashed(info: Any, seen: set[tuple[int, bool]], *, is_hashed: bool = False) -> Iterator[Any]:
    """Give the classes of objects that a type has in sets and in keys, where their portable form can't be."""
    if (id(info), is_hashed) in seen:
        return
    seen.add((id(info), is_hashed))
    if is_hashed and isinstance(info, _OBJECTS):
        yield info.cls
    elif isinstance(info, types.Type | types.Field):
        is_set = isinstance(info, types.SetType | types.FrozenSetType)
        for name in info.__struct_fields__:
            part = getattr(info, name)
            yield from _objects_hashed(part, seen, is_hashed=is_hashed or is_set or name == "key_type")
    elif isinstance(info, tuple):
        for part in info:
            yield from _objects_hashed(part, seen, is_hashed=is_hashed)
