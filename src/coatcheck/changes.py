"""What one request changes, in a form that can be applied to what another request has stored meanwhile. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

from msgspec import Raw

from coatcheck import values
from coatcheck.record import Limits, Login, Values
from coatcheck.token import SessionID


class Nothing(Enum):
    """Stands for the value of a key that is not there."""

    NOTHING = "nothing"


NOTHING: Final = Nothing.NOTHING
"""What an operation is given for a key that is not there, and what it gives to delete the key."""

Operation: TypeAlias = Callable[[Any], Any]
"""Makes a key's new value of its current one. Applied again to the newer value when another request was faster."""


class InapplicableError(Exception):
    """An operation met a value of a kind that it can't work on. The message says which."""


class Derived:
    """A key's change by operations, and what they made of the value they were first applied to."""

    __slots__ = ("base", "operations", "result")

    def __init__(self, operations: tuple[Operation, ...], base: Raw | Nothing | None, result: bytes | None) -> None:
        self.operations = operations
        self.base = base
        self.result = result

    def applied_to(self, key: str, current: Raw | None) -> bytes | None:
        """Give the key's new encoded value, or None for its deletion."""
        if current == self.base:
            return self.result
        value = NOTHING if current is None else values.decode(key, current)
        try:
            for operation in self.operations:
                value = operation(value)
        except InapplicableError:
            return self.result  # the key became another kind of value meanwhile: the last commit wins
        return None if value is NOTHING else values.encode(key, value)


Change: TypeAlias = bytes | Derived | None
"""A key's new encoded value, the operations that make it, or None for a deletion."""

Changes: TypeAlias = dict[str, Change]


class Patch(Changes):
    """All that a request changed, in a form that can be applied to a newer record than the one it was made on."""

    __slots__ = ("expected", "life", "limits", "login", "remember", "session_id", "store_key", "taken")

    # What was so when the patch was made, to tell later changes from: a task of the request may go on while the store
    # is at work.
    life: int
    session_id: SessionID
    store_key: str
    login: Login | None
    remember: bool | None
    limits: Limits | None
    taken: Changes
    expected: Values
    """What it makes of the values that were found. Set when it is first applied."""


def since(change: Change, taken: Change) -> Change:
    """Give what remains of a change after a commit that took along an earlier state of it."""
    if not isinstance(change, Derived):
        return change
    done = len(taken.operations) if isinstance(taken, Derived) and taken.base is change.base else 0
    # What it was first applied to is no more: the operations are applied to whatever is found then.
    return Derived(change.operations[done:], NOTHING, change.result)


def apply(patch: Changes, base: Mapping[str, Raw]) -> Values:
    """Give the values that `patch` makes of `base`."""
    merged = dict(base)
    for key, change in patch.items():
        encoded = change.applied_to(key, base.get(key)) if isinstance(change, Derived) else change
        if encoded is None:
            merged.pop(key, None)
        else:
            merged[key] = Raw(encoded)
    return merged


NO_CHANGES: Final = Patch()
"""The patch of most requests: nothing that can change was handed out. Made once, so it knows of no request: what stores
something needs its own."""
