"""A session seen as an instance of a declared type: what the instance shows, and what was changed in it.

As in `working_copy`, a change is told by comparing encodings: a field that was assigned, or changed deep inside, is
written; one that was only read, and a default that nobody changed, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from coatcheck import values
from coatcheck.errors import UndecodableValue, UnfitValue, UnsupportedValue
from coatcheck.typed.fields import ABSENT, Declared, Field, MisfitError
from coatcheck.typed.portable import Kind, Unknown, put_back, unknown_of
from coatcheck.working_copy import WorkingCopy

T = TypeVar("T")


class Migrate(Protocol):
    """Makes a value that fits of a stored one that does not. Called whenever the value is read."""

    def __call__(self, key: str, value: Any, error: UnfitValue, /) -> Any:
        """Give a value of the field's type, or its portable form; or raise anything.

        Args:
            key: the session's key.
            value: what is stored, as the session without types would give it.
            error: why it does not fit.
        """


class Rules(NamedTuple):
    """What becomes of stored values that don't fit."""

    migrate: Migrate | None
    report: Callable[[UnfitValue], None]


class _Loaded(NamedTuple):
    """A typed value that was read, or made as a default."""

    value: Any
    form: Any
    """Its portable form."""
    encoded: bytes | None
    """The encoding of that."""
    stored: Any
    """The portable form that it was made of, or ABSENT."""


class _Shown(NamedTuple):
    """What an instance's field shows."""

    synced: bytes | None
    """The encoding of what the session has for it; None for nothing."""
    value: Any
    encoded: bytes | None
    """The encoding of the value's portable form: another one means that the application has changed it."""
    unknown: Unknown
    """What is stored in the value's parts that their types don't know, and in parts that it had."""
    misfit: UnfitValue | None
    """Why the default is shown in place of what is stored."""


_UNCHANGEABLE: Final = values.IMMUTABLE | {type(ABSENT)}


class TypedView(Generic[T]):
    """One session's instance. See `working_copy.View`."""

    __slots__ = ("_declared", "_rules", "_shown", "instance")

    def __init__(self, declared: Declared[T], rules: Rules, work: WorkingCopy) -> None:
        self._declared = declared
        self._rules = rules
        self.instance = declared.blank()
        self._shown: dict[str, _Shown] = {}
        for field in declared.fields:
            self._take(work, field, self.instance, in_place=False)

    def shows(self, declared: Declared[Any]) -> bool:
        """Tell whether it is the view of this declared type."""
        return self._declared is declared

    def misfits(self) -> list[UnfitValue]:
        """Give why fields show their defaults in place of what is stored."""
        return [shown.misfit for shown in self._shown.values() if shown.misfit is not None]

    # --- from the session to the instance --------------------------------------------------------------------------

    def show(self, work: WorkingCopy) -> None:
        """See `View`."""
        self._update(work, None, keeps_changes=True)

    def reset(self, work: WorkingCopy, key: str | None = None) -> None:
        """See `View`."""
        self._update(work, key, keeps_changes=False)

    def _update(self, work: WorkingCopy, key: str | None, *, keeps_changes: bool) -> None:
        blank = None
        for field in self._fields(key):
            shown = self._shown[field.key]
            try:
                is_same = work.encoded(field.key) == shown.synced
            except UnsupportedValue:
                continue  # the session itself was given what can't be stored: the commit says so
            if is_same and (keeps_changes or not self._is_changed(field, shown)):
                continue
            if keeps_changes and self._is_changed(field, shown):
                continue
            blank = blank or self._declared.blank()
            # When the session ends, what the application has at hand stays as it is.
            self._take(work, field, blank, in_place=keeps_changes or key is not None)

    def _take(self, work: WorkingCopy, field: Field, blank: T, *, in_place: bool) -> None:
        """Let a field show what the session has."""
        synced = work.encoded(field.key)
        loaded = self._default(field, blank) if synced is None else self._load(field, synced)
        misfit = loaded if isinstance(loaded, UnfitValue) else None
        value, form, encoded, stored = self._default(field, blank) if isinstance(loaded, UnfitValue) else loaded
        if in_place:
            value = self._in_place(field, value)
        self._declared.put(self.instance, field, value)
        unknown = {} if stored is ABSENT else unknown_of(value, form, stored)
        self._shown[field.key] = _Shown(synced, value, encoded, unknown, misfit)
        if misfit is not None:
            self._rules.report(misfit)

    def _in_place(self, field: Field, value: Any) -> Any:
        """Let a list, dict or set that the application may have at hand show a newer value, if that is possible."""
        known = self._declared.get(self.instance, field)
        if type(known) is not type(value):
            return value
        if any(self._declared.get(self.instance, other) is known for other in self._declared.fields if other != field):
            return value  # one object in two fields can't show what both hold
        if isinstance(known, list):
            known[:] = value
        elif isinstance(known, dict | set):
            known.clear()
            known.update(value)
        else:
            return value
        return known

    def _default(self, field: Field, blank: T) -> _Loaded:
        value = self._declared.get(blank, field)
        if value is ABSENT:
            return _Loaded(ABSENT, ABSENT, None, ABSENT)
        form = field.converter.dump(value)
        return _Loaded(value, form, values.encode(field.key, form), ABSENT)

    def _load(self, field: Field, encoded: bytes) -> _Loaded | UnfitValue:
        """Read what the session has; or give why it can't be read."""
        try:
            stored = values.decode(field.key, encoded)
        except UndecodableValue:
            return self._misfit(field, "bytes that can't be decoded here", "", is_stored=True)
        try:
            return _read(field, stored)
        except MisfitError as error:
            misfit = self._misfit(field, type(stored).__name__, str(error), is_stored=True)
        if self._rules.migrate is None:
            return misfit
        try:
            form = field.converter.dump(self._rules.migrate(field.key, stored, misfit))
            values.encode(field.key, form)
            return _read(field, form)
        except Exception as error:  # noqa: BLE001 (a hook that fails must not make every request fail)
            reason = f"{misfit.found}; migrate failed with {type(error).__name__}"
            error.__traceback__ = None  # it may be the misfit itself, which must not hold what is at work here
        return self._misfit(field, reason, "", is_stored=True)

    # --- from the instance to the session --------------------------------------------------------------------------

    def write(self, work: WorkingCopy, key: str | None = None) -> None:
        """See `View`.

        Raises:
            UnfitValue: a field was given what its type does not allow, or what stands in for a stored value that does
                not fit was changed in place.
            UnsupportedValue: a field was given what can't be stored.
        """
        if key is None:
            self._check_names()
        for field in self._fields(key):
            shown = self._shown[field.key]
            value = self._declared.get(self.instance, field)
            if value is shown.value and type(value) in _UNCHANGEABLE:
                continue
            if value is ABSENT:
                self._remove(work, field)
            elif self._encoding(field, value) != shown.encoded:
                self._write(work, field, value, shown)

    def _fields(self, key: str | None) -> tuple[Field, ...]:
        if key is None:
            return self._declared.fields
        field = self._declared.by_key.get(key)
        return () if field is None else (field,)

    def _check_names(self) -> None:
        for name in self._declared.undeclared(self.instance):
            msg = (
                f"{self._declared.name} declares no {name!r:.80}, so it was not stored. Declare it, or use the session"
            )
            raise UnfitValue(msg, key=name, expected="nothing", found=type(self.instance).__name__)

    def _remove(self, work: WorkingCopy, field: Field) -> None:
        work.check_open()
        work.take_from(self, field.key, None)
        self._shown[field.key] = _Shown(None, ABSENT, None, {}, None)

    def _write(self, work: WorkingCopy, field: Field, value: Any, shown: _Shown) -> None:
        work.check_open()
        if shown.misfit is not None and value is shown.value:
            msg = (
                f"{self._declared.name}.{field.name} was changed in place, but shows a default: what is stored does "
                f"not fit ({shown.misfit}), and would be lost. Assign the field to replace it"
            )
            raise UnfitValue(msg, key=field.key, expected=field.type_name, found=shown.misfit.found)
        fitting, form = self._fitting(field, value)
        encoded = synced = values.encode(field.key, form)
        if encoded == self._encoding(field, value):
            fitting = value
        else:  # its type took it as something else: an int as a float, say
            self._declared.put(self.instance, field, fitting)
        unknown = shown.unknown  # also of objects that have left this field: another one may get them
        if any(each.unknown for each in self._shown.values()):
            stored, synced = self._with_unknown(field, value, fitting, encoded)
            unknown = unknown | unknown_of(fitting, form, stored)
            form = stored
        work.take_from(self, field.key, synced, form)
        self._shown[field.key] = _Shown(synced, fitting, encoded, unknown, None)

    def _with_unknown(self, field: Field, value: Any, fitting: Any, encoded: bytes) -> tuple[Any, bytes]:
        """Give the form of a value that fits with what its types don't know, and its encoding.

        A validator may read more than its type shows, like a field's old name. That must not win over the field's new
        value at the next request, so it is left out where the value would not be the same.
        """
        unknown: Unknown = {}
        for shown in self._shown.values():  # objects may have come from another field
            unknown |= shown.unknown

        def form_with(only: Container[Kind] | None) -> tuple[Any, set[Kind]]:
            form = field.converter.dump(fitting)
            return form, put_back(value, form, unknown, only)

        def is_same(form: Any) -> bool:
            return _read_again(field, values.encode(field.key, form)) == meant

        form, kinds = form_with(None)
        meant = _read_again(field, encoded) if kinds else None
        if kinds and not is_same(form):
            kept: list[Kind] = []
            for kind in sorted(kinds, key=repr):
                if is_same(form_with([*kept, kind])[0]):
                    kept.append(kind)
            form, _ = form_with(kept)
        return form, values.encode(field.key, form)

    def _fitting(self, field: Field, value: Any) -> tuple[Any, Any]:
        """Give a value as its type has it, and its portable form; or raise."""
        try:
            fitting = field.converter.load(field.converter.dump(value))
            return fitting, field.converter.dump(fitting)
        except MisfitError as error:
            raise self._misfit(field, type(value).__name__, str(error), is_stored=False) from None

    def _is_changed(self, field: Field, shown: _Shown) -> bool:
        value = self._declared.get(self.instance, field)
        if value is shown.value and type(value) in _UNCHANGEABLE:
            return False
        return (None if value is ABSENT else self._encoding(field, value)) != shown.encoded

    def _encoding(self, field: Field, value: Any) -> bytes | None:
        """Give the encoding of a value that may be anything; an impossible one for what can't be encoded."""
        try:
            return values.encode(field.key, field.converter.dump(value))
        except (MisfitError, UnsupportedValue):
            return b""

    def _misfit(self, field: Field, found: str, reason: str, *, is_stored: bool) -> UnfitValue:
        what = f"session[{field.key!r}] holds {found}" if is_stored else f"it was given {found}"
        msg = f"{self._declared.name}.{field.name} is {field.type_name}, but {what}" + (
            f" ({reason})" if reason else ""
        )
        return UnfitValue(msg, key=field.key, expected=field.type_name, found=found)


def _read(field: Field, stored: Any) -> _Loaded:
    """Read a portable form. Raises MisfitError, also for what the type reads and can't write: its serializer fails."""
    value = field.converter.load(stored)
    form = field.converter.dump(value)
    try:
        return _Loaded(value, form, values.encode(field.key, form), stored)
    except UnsupportedValue as error:
        reason = type(error).__name__
    raise MisfitError(reason)


def _read_again(field: Field, encoded: bytes) -> bytes | None:
    """Give the encoding of the value that the next request will read; None if it will not fit."""
    try:
        return _read(field, values.decode(field.key, encoded)).encoded
    except MisfitError:
        return None
