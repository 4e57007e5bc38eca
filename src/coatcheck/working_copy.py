"""One request's work on one session: what it found, what it read, what it changed.

No rules and no I/O live here. `lifecycle` decides what becomes of a working copy, `session` is the face that the
application sees. Values are decoded when they are first read; what was changed is told by comparing the encoding of
what was handed out with the encoding that was found, so a change deep inside a value counts like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

from msgspec import Raw

from coatcheck import values
from coatcheck.errors import ResponseStarted, UnsupportedValue
from coatcheck.record import Record, Values
from coatcheck.token import SessionID


class _Nothing(Enum):
    NOTHING = "nothing"


NOTHING: Final = _Nothing.NOTHING
"""What an operation is given for a key that is not there, and what it gives to delete the key."""

Operation: TypeAlias = Callable[[Any], Any]
"""Makes a key's new value of its current one. Applied again to the newer value when another request was faster."""


class Standing(Enum):
    """What is known of the session in the store."""

    UNLOADED = "unloaded"
    """The token is genuine; the store has not been asked yet."""
    NEW = "new"
    """Nothing is stored."""
    STORED = "stored"
    ENDED = "ended"
    """Revoked or expired while the request ran: nothing more is stored, and the cookie is cleared."""
    SUPERSEDED = "superseded"
    """Renewed by another request: nothing more is stored, and the client's cookie, newer than ours, is left alone."""


class InapplicableError(Exception):
    """An operation met a value of a kind that it can't work on. The message says which."""


class _Derived:
    """A key's change by operations, and what they made of the value they were first applied to."""

    __slots__ = ("base", "operations", "result")

    def __init__(self, operations: tuple[Operation, ...], base: Raw | None, result: bytes | None) -> None:
        self.operations = operations
        self.base = base
        self.result = result

    def applied_to(self, key: str, current: Raw | None) -> bytes | None:
        if current == self.base:
            return self.result
        value = NOTHING if current is None else values.decode(key, current)
        try:
            for operation in self.operations:
                value = operation(value)
        except InapplicableError:
            return self.result  # the key became another kind of value meanwhile: the last commit wins
        return None if value is NOTHING else values.encode(key, value)


Change: TypeAlias = bytes | _Derived | None
"""A key's new encoded value, the operations that make it, or None for a deletion."""

Patch: TypeAlias = dict[str, Change]
"""All that a request changed, in a form that can be applied to a newer record than the one it was made on."""


def apply(patch: Patch, base: Mapping[str, Raw]) -> Values:
    """Give the values that `patch` makes of `base`."""
    merged = dict(base)
    for key, change in patch.items():
        encoded = change.applied_to(key, base.get(key)) if isinstance(change, _Derived) else change
        if encoded is None:
            merged.pop(key, None)
        else:
            merged[key] = Raw(encoded)
    return merged


class WorkingCopy:
    """See the module's docstring. Not for use by several threads at once."""

    __slots__ = (
        "_base",
        "_changes",
        "_live",
        "accessed",
        "by_older_key",
        "cookie_is_stale",
        "destroyed",
        "issued_at_ms",
        "issues_cookie",
        "opened_at_ms",
        "predecessor",
        "record",
        "remember",
        "revision",
        "sealed",
        "session_id",
        "standing",
    )

    def __init__(self, opened_at_ms: int) -> None:
        self.opened_at_ms = opened_at_ms
        self.session_id: SessionID | None = None
        """None until somebody needs to know it."""
        self.issued_at_ms = opened_at_ms
        self.by_older_key = False
        self.standing = Standing.NEW
        self.revision = b""
        self.record: Record | None = None
        self.remember: bool | None = None
        self.predecessor: SessionID | None = None
        """The ID that the session has in the store, if it is to be renewed at the commit."""
        self.destroyed: list[str] = []
        """Store keys of sessions to end."""
        self.accessed = False
        self.sealed = False
        """The response's headers have left: no cookie can be set any more."""
        self.cookie_is_stale = False
        """The client holds a cookie of our name that leads nowhere."""
        self.issues_cookie = False
        """The response has to carry a new token."""
        self._base: Mapping[str, Raw] = {}
        self._live: dict[str, Any] = {}
        self._changes: Patch = {}

    # --- identity ---------------------------------------------------------------------------------------------

    @property
    def identity(self) -> SessionID:
        """The session's ID, made now if there is none yet."""
        if self.session_id is None:
            self.session_id = SessionID.generate()
        return self.session_id

    @property
    def stored(self) -> Record:
        """The record that the store was last known to hold. Only for a session that is stored."""
        if self.record is None:
            msg = "nothing is stored"
            raise AssertionError(msg)
        return self.record

    def found(self, revision: bytes, record: Record) -> None:
        """Take in what the store holds under this session's key."""
        self.standing = Standing.STORED
        self.revision = revision
        self.record = record
        self.remember = record.remember
        self._base = record.values

    def committed(self, revision: bytes, record: Record, expected: Values) -> None:
        """Take in what was just stored; `expected` is what our changes made of the record that we had found."""
        if record.values is not expected:
            for key in list(self._live):
                if record.values.get(key) != expected.get(key):
                    del self._live[key]  # another request had a part in it; the next read sees what the store holds
        self._changes.clear()
        self.found(revision, record)

    def let_go(self, standing: Standing) -> None:
        """Forget the session at hand. With `Standing.NEW`, what follows belongs to a new one."""
        self.standing = standing
        self.session_id = None
        self.revision = b""
        self.record = None
        self.remember = None
        self.predecessor = None
        self.issues_cookie = False
        self._base = {}
        self._live.clear()
        self._changes.clear()

    def renew(self) -> None:
        """Take a new ID. Of a session that is stored, the commit moves the record there."""
        if self.standing is Standing.STORED:
            self.predecessor = self.predecessor or self.identity
        elif self.standing is not Standing.NEW:
            self.let_go(Standing.NEW)
        self.session_id = None

    def destroy(self) -> None:
        """Mark the stored session, if there is one, to be ended; what follows belongs to a new one."""
        if self.standing in (Standing.STORED, Standing.UNLOADED):
            self.destroyed.append((self.predecessor or self.identity).store_key)
            self.cookie_is_stale = True
        self.let_go(Standing.NEW)

    def discard(self) -> None:
        """Take back all that was changed and not committed, except that the session was destroyed."""
        self._live.clear()
        self._changes.clear()
        if self.predecessor is not None:
            self.session_id, self.predecessor = self.predecessor, None
        self.remember = None if self.record is None else self.record.remember

    # --- reading ----------------------------------------------------------------------------------------------

    def read(self, key: str) -> Any:
        """Give the value of `key`. Raises KeyError when there is none."""
        live = self._live
        if key in live:
            return live[key]
        if key in self._changes:  # only a deleted key is in the changes and not among the live values
            raise KeyError(key)
        value = live[key] = values.decode(key, self._base[key])
        return value

    def has(self, key: object) -> bool:
        """Tell whether `key` has a value."""
        return key in self._live or (key in self._base and key not in self._changes)

    def keys(self) -> Iterator[str]:
        """Give all keys: those that were found, in their order, then new ones."""
        base, live, changes = self._base, self._live, self._changes
        yield from [key for key in base if key in live or key not in changes]
        yield from [key for key in live if key not in base]

    def size(self) -> int:
        """Give the number of keys."""
        return sum(1 for _ in self.keys())

    # --- changing ---------------------------------------------------------------------------------------------

    def assign(self, key: str, value: Any) -> None:
        """Set a value. Raises UnsupportedKey or UnsupportedValue, and then nothing has changed."""
        self._changes[values.check_key(key)] = values.encode(key, value)
        self._live[key] = value

    def remove(self, key: str) -> None:
        """Delete a key. Raises KeyError when it is not there."""
        if not self.has(key):
            raise KeyError(key)
        self._live.pop(key, None)
        self._changes[key] = None

    def operate(self, key: str, operation: Operation) -> Any:
        """Apply an operation now, and again at the commit if another request changed the key meanwhile.

        Gives the new value. Raises UnsupportedValue when the operation can't work on the value that is there.
        """
        values.check_key(key)
        current = self.read(key) if self.has(key) else NOTHING
        change = self._change_so_far(key)
        try:
            result = operation(current)
        except InapplicableError as error:
            msg = f"session[{key!r:.80}] {error}"
            raise UnsupportedValue(msg) from None
        encoded = None if result is NOTHING else values.encode(key, result)
        if isinstance(change, _Derived):
            self._changes[key] = _Derived((*change.operations, operation), change.base, encoded)
        elif change is NOTHING:
            self._changes[key] = _Derived((operation,), self._base.get(key), encoded)
        else:
            self._changes[key] = encoded
        if result is NOTHING:
            self._live.pop(key, None)
        else:
            self._live[key] = result
        return result

    def _change_so_far(self, key: str) -> Change | _Nothing:
        """Give this request's change of one key, counting what it did to a value that was handed out."""
        change = self._changes.get(key, NOTHING)
        if key not in self._live or type(self._live[key]) in values.IMMUTABLE:
            return change
        encoded = values.encode(key, self._live[key])
        if encoded == self._expected(key):
            return change
        return encoded

    def _expected(self, key: str) -> bytes | None:
        """Give the encoding that a handed-out value has unless it was changed in place."""
        if key in self._changes:
            change = self._changes[key]
            return change.result if isinstance(change, _Derived) else change
        found = self._base.get(key)
        return None if found is None else bytes(found)

    # --- the outcome ------------------------------------------------------------------------------------------

    @property
    def base(self) -> Mapping[str, Raw]:
        """The encoded values that were found in the store."""
        return self._base

    def patch(self) -> Patch:
        """Give what has changed. Empty for a request that only read.

        Raises UnsupportedValue when a value that was handed out now holds something that can't be stored.
        """
        patch: Patch = {}
        for key in [*self._live, *(key for key in self._changes if key not in self._live)]:
            change = self._change_so_far(key)
            if change is NOTHING:
                continue
            found = self._base.get(key)
            result = change.result if isinstance(change, _Derived) else change
            if result != (None if found is None else bytes(found)):
                patch[key] = change
        return patch

    def check_cookie_can_be_set(self, reason: str) -> None:
        """Raise ResponseStarted when the headers have left."""
        if self.sealed:
            msg = (
                f"{reason}, which needs a cookie, but the headers of the response have already left. "
                "Do it before the response starts"
            )
            raise ResponseStarted(msg)
