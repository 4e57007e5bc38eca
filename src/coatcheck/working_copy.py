"""One request's work on one session: what it found, what it read, what it changed.

No rules and no I/O live here. `lifecycle` decides what becomes of a working copy, `session` is the face that the
application sees. Values are decoded when they are first read; what was changed is told by comparing the encoding of
what was handed out with the encoding that was found, so a change deep inside a value counts like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias

from msgspec import Raw

from coatcheck import values
from coatcheck.adopters import Claimed
from coatcheck.changes import (
    NO_CHANGES,
    NOTHING,
    Change,
    Changes,
    Derived,
    InapplicableError,
    Nothing,
    Operation,
    Patch,
    since,
)
from coatcheck.devices import Device
from coatcheck.errors import ResponseStarted, SessionClosed, StoreUnavailable, UnsupportedValue
from coatcheck.events import Event
from coatcheck.record import Limits, Login, Record, Values
from coatcheck.token import SessionID

_NO_VALUES: Final[Values] = {}
"""What a session has before anything is found. Nobody changes it: values that were found are only ever replaced."""

CLAIMED: Final = ""
"""Stands for a session whose key is not known before its adoption."""


Standing: TypeAlias = Literal["unloaded", "new", "stored", "ended", "superseded", "unavailable"]
"""What is known of the session in the store:

- unloaded: the token is genuine; the store has not been asked yet.
- new: nothing is stored.
- stored: it is there.
- ended: revoked or expired while the request ran: nothing more is stored, and the cookie is cleared.
- superseded: renewed by another request: nothing more is stored, and the client's cookie, newer than ours, is left
  alone.
- unavailable: the store is out of reach, and the request goes on as nobody's: session and cookie are left alone.
"""


class View(Protocol):
    """Shows values of a working copy in another form, and brings back what the application changes there.

    `key` is the session's key that it is about; None for all that the view has.
    """

    def write(self, work: WorkingCopy, key: str | None = None) -> None:
        """Bring back what was changed in the view."""

    def show(self, work: WorkingCopy) -> None:
        """Take in what the working copy has now, and keep what was changed in the view."""

    def reset(self, work: WorkingCopy, key: str | None = None) -> None:
        """Take in what the working copy has now, whatever was changed in the view."""


class WorkingCopy:
    """See the module's docstring. Not for use by several threads at once."""

    __slots__ = (
        "_base",
        "_changes",
        "_live",
        "_new_id",
        "accessed",
        "at_work_on",
        "attempts",
        "by_older_key",
        "claimed",
        "closed",
        "cookie_is_stale",
        "destroyed",
        "device",
        "is_void",
        "issued_at_ms",
        "issues_cookie",
        "life",
        "limits",
        "login",
        "login_is_new",
        "may_go_on",
        "moved_to",
        "noted",
        "opened_at_ms",
        "outage",
        "predecessor",
        "predecessor_is_untold",
        "predecessor_key",
        "record",
        "remember",
        "renewed_by_clock",
        "revision",
        "sealed",
        "session_id",
        "settled",
        "standing",
        "successor_key",
        "user_tag",
        "views",
    )

    session_id: SessionID | None
    """None until somebody needs to know it."""
    moved_to: str | None
    """The store key that the session has, if the client's ID is an old one in its grace."""
    user_tag: bytes | None
    """What the client's token says of whose session it is; None if it can't say it."""
    by_older_key: bool
    standing: Standing
    revision: bytes
    record: Record | None
    remember: bool | None
    limits: Limits | None
    """Times of the session's own."""
    login: Login | None
    login_is_new: bool
    """Somebody logged in during this request."""
    predecessor: SessionID | None
    """The ID that the client has, if the session is to be renewed at the commit."""
    predecessor_key: str
    """The store key that the session has until then."""
    predecessor_is_untold: bool
    """The predecessor was stored by this request, and no cookie with it has left."""
    renewed_by_clock: bool
    destroyed: tuple[str, ...]
    """Store keys of sessions to end; `CLAIMED` for the one that is claimed by an old cookie."""
    claimed: Claimed | None
    """The session of another system that the client has the cookie of, and none of ours."""
    accessed: bool
    settled: bool
    """There is nothing to commit and no cookie due, unless somebody uses the session from now on."""
    at_work_on: str | None
    """The store key under which a task is at work on it in the store, while there is one."""
    closed: bool
    """Nobody is going to commit any more."""
    sealed: bool
    """The response's headers have left: no cookie can be set any more."""
    is_void: bool
    """The response is an error of the application's, so nothing is stored, with its body or after it either."""
    cookie_is_stale: bool
    """The client holds a cookie of our name that leads nowhere."""
    issues_cookie: bool
    """The response has to carry a new token."""
    successor_key: str
    """Of a session that another request renewed: the store key that it has now."""
    attempts: tuple[tuple[bytes, Patch], ...]
    """Writes whose fate is not known, because the store failed: their revisions, and what they were to change."""
    device: Callable[[], Device] | None
    """Tells where the request comes from."""
    may_go_on: bool
    """Whether the request goes on as nobody's while the store is out of reach."""
    outage: StoreUnavailable | None
    """Why it goes on without the store."""
    noted: tuple[Event, ...]
    """What happened, for the application's handlers and the log."""
    views: tuple[View, ...]
    """Other forms in which values are shown; see `typed`. They know no working copy, so that there is no circle."""
    life: int
    """Which of the sessions that the request works on, one after the other, this is."""

    def __init__(self, opened_at_ms: int, new_id: Callable[[], SessionID]) -> None:
        self.opened_at_ms = self.issued_at_ms = opened_at_ms
        self._new_id = new_id
        self._base: Mapping[str, Raw] = _NO_VALUES
        self._live: dict[str, Any] = {}
        self._changes: Changes = {}
        self.life = 0
        self.standing = "new"
        self.revision = self.user_tag = b""
        self.session_id = self.predecessor = None
        self.moved_to = None
        self.predecessor_is_untold = False
        self.record = None
        self.remember = None
        self.limits = None
        self.login = None
        self.claimed = None
        self.at_work_on = None
        self.device = None
        self.outage = None
        self.by_older_key = self.login_is_new = self.renewed_by_clock = False
        self.accessed = self.closed = self.sealed = self.is_void = False
        self.settled = True
        self.cookie_is_stale = self.issues_cookie = self.may_go_on = False
        self.predecessor_key = self.successor_key = ""
        self.destroyed = ()
        self.attempts = ()
        self.noted = ()
        self.views = ()

    # --- identity ---------------------------------------------------------------------------------------------

    @property
    def identity(self) -> SessionID:
        """The session's ID, made now if there is none yet."""
        if self.session_id is None:
            if self.standing == "unloaded" and self.claimed is None:
                self.standing = "new"  # a client without a session, see BaseSession.wait_for_load
            self.session_id = self._new_id()
        return self.session_id

    @property
    def store_key(self) -> str:
        """The key that the session has in the store, or is going to have."""
        return self.moved_to or self.identity.store_key

    @property
    def lock_key(self) -> str:
        """The key that the session is known by to others who may be at work on it in this process."""
        return self.predecessor_key if self.predecessor is not None else self.store_key

    def note(self, event: Event) -> None:
        """Remember that something happened."""
        # The names alone, as in `BaseSession.handle`: handlers keep them.
        handle, previous_handle = str(event.handle), str(event.previous_handle)
        self.noted += (event._replace(handle=handle, previous_handle=previous_handle),)

    @property
    def stored(self) -> Record:
        """The record that the store was last known to hold. Only for a session that is stored."""
        if self.record is None:
            msg = "nothing is stored"
            raise AssertionError(msg)
        return self.record

    def is_as_found(self) -> bool:
        """Tell whether nothing has happened to a session that is stored but that values which can't change were read.

        Then there is nothing to commit and no cookie due, unless it is time to extend the session or to renew its ID.
        """
        record = self.record
        return (
            record is not None
            and not (self._changes or self.views or self.destroyed or self.noted)
            and not (self.login_is_new or self.issues_cookie or self.cookie_is_stale)
            and self.predecessor is None
            and self.claimed is None
            and self.outage is None
            and self.at_work_on is None
            and self.remember is record.remember
            and self.limits is record.limits
            and values.IMMUTABLE.issuperset(map(type, self._live.values()))
        )

    def found(self, revision: bytes, record: Record) -> None:
        """Take in what the store holds under this session's key."""
        self._hold(revision, record)
        self.remember = record.remember
        self.limits = record.limits
        self.login = record.login

    def attempt(self, revision: bytes, patch: Patch) -> None:
        """Remember that a patch is about to be written with this revision."""
        self.attempts += ((revision, patch),)

    def failed_attempt(self, revision: bytes) -> None:
        """Forget a write that is known not to have happened."""
        self.attempts = tuple(attempt for attempt in self.attempts if attempt[0] != revision)

    def refreshed(self, revision: bytes, record: Record) -> None:
        """Take in a newer record, and keep what was changed."""
        for key in list(self._live):
            if key not in self._changes and record.values.get(key) != self._base.get(key):
                self._refresh(key, record.values.get(key), self._base.get(key))
        for key, change in list(self._changes.items()):
            if isinstance(change, Derived) and record.values.get(key) != change.base:
                self._rebase(key, change, record.values.get(key))
        old = self.record
        self._hold(revision, record)
        if old is not None:
            self._take_terms(old, record)
        if not self.login_is_new:
            self.login = record.login
        self._show_views()

    def committed(self, revision: bytes, record: Record, patch: Patch) -> None:
        """Take in what was just stored.

        Args:
            revision: the record's revision.
            record: what is stored.
            patch: the changes that were stored. What was changed since, while the store was at work, stays to be
                committed.
        """
        if patch.life != self.life:
            return  # the session was let go of while the store was at work
        taken = patch.taken
        newer = {key: change for key, change in self._changes.items() if change is not taken.get(key, NOTHING)}
        expected = patch.expected
        if record.values is not expected:
            for key in list(self._live):
                if key not in newer and record.values.get(key) != expected.get(key):
                    self._refresh(key, record.values.get(key), expected.get(key))
        for key, change in patch.items():
            if isinstance(change, Derived) and change.base is NOTHING and key not in newer and key in self._live:
                self._refresh(key, record.values.get(key), _raw(change.result))
        self._changes = newer and {key: since(change, taken.get(key)) for key, change in newer.items()}
        self.attempts = ()
        self._hold(revision, record)
        self._take_terms(patch, record)
        if self.login is patch.login:
            self.login, self.login_is_new = record.login, False
        if self.session_id is patch.session_id:
            self.predecessor, self.predecessor_is_untold = None, False
        else:  # it was renewed while the store was at work, and what was stored is what the next commit renews
            if patch.session_id is not self.predecessor and patch.store_key == patch.session_id.store_key:
                self.predecessor_is_untold = True
            self.predecessor, self.predecessor_key = patch.session_id, patch.store_key
        self._show_views()
        is_whole = self.predecessor is None and not self.login_is_new and not self.terms_changed
        self.settled = is_whole and not self._changes and self._shows_only_what_can_not_change()

    def _take_terms(self, known: Record | Patch, record: Record) -> None:
        """Take in how long the session is to last, if the request has not changed that since what is known."""
        if self.remember is known.remember:
            self.remember = record.remember
        if self.limits is known.limits:
            self.limits = record.limits

    @property
    def terms_changed(self) -> bool:
        """Whether it is to last differently from what is stored."""
        record = self.record
        if record is None:
            return self.remember is not None or self.limits is not None
        return self.remember is not record.remember or self.limits is not record.limits

    def _hold(self, revision: bytes, record: Record) -> None:
        self.standing = "stored"
        self.revision = revision
        self.record = record
        self._base = record.values

    def _rebase(self, key: str, change: Derived, found: Raw | None) -> None:
        """Another request has changed a value to which this one has applied operations: apply them to the newer one."""
        result = change.applied_to(key, found)
        self._changes[key] = Derived(change.operations, found, result)
        if key in self._live:
            self._refresh(key, _raw(result), _raw(change.result))
            if result is not None and key not in self._live:
                self._live[key] = values.decode(key, result)  # a changed key that is not among these counts as deleted

    def start_over(self) -> None:
        """The session is lost, but somebody logs in: what was set belongs to a new one."""
        self.standing = "new"
        self.record = None
        self.predecessor = None
        self._base = _NO_VALUES
        self._live = {key: value for key, value in self._live.items() if key in self._changes}  # not what was only read
        self.issues_cookie = False
        self._show_views()

    def _refresh(self, key: str, stored: Raw | None, expected: Raw | None) -> None:
        """Another request had a part in this value: let what was handed out show what the store holds."""
        live = self._live[key]
        if expected is not None and values.encode(key, live) != bytes(expected):
            return  # it was changed again meanwhile, and the next commit decides
        value: Any = NOTHING if stored is None else values.decode(key, stored)
        if any(other is live for other_key, other in self._live.items() if other_key != key):
            del self._live[key]  # one object under two keys can't show what both hold
        elif isinstance(live, list) and isinstance(value, list):
            live[:] = value
        elif isinstance(live, dict | set) and type(value) is type(live):
            live.clear()
            live.update(value)
        else:
            del self._live[key]  # the next read decodes it

    def let_go(self, standing: Standing) -> None:
        """Forget the session at hand. With `"new"`, what follows belongs to a new one."""
        self.life += 1
        self.settled = False
        self.standing = standing
        self.session_id = None
        self.revision = b""
        self.record = None
        self.remember = None
        self.limits = None
        self.login = None
        self.login_is_new = False
        self.moved_to = None
        self.predecessor = None
        self.predecessor_is_untold = False
        self.renewed_by_clock = False
        self.issues_cookie = False
        self.successor_key = ""
        self.attempts = ()
        self._base = _NO_VALUES
        self._live.clear()
        self._changes.clear()
        self._reset_views()

    def renew(self, *, by_clock: bool = False) -> None:
        """Take a new ID. Of a session that is stored, the commit moves the record there."""
        if self.standing == "stored":
            if self.predecessor is None:
                self.predecessor, self.predecessor_key = self.identity, self.store_key
            self.renewed_by_clock = by_clock
        else:
            self.standing = "new"  # what this request has set so far belongs to it
            self.successor_key = ""
        self.session_id = None
        self.moved_to = None

    def take_back_renewal(self) -> None:
        """Keep the ID that the client has after all."""
        if self.predecessor is not None:
            self.session_id, self.predecessor = self.predecessor, None
            if self.predecessor_is_untold:
                self.issues_cookie, self.predecessor_is_untold = True, False
            old_key = self.session_id.store_key
            self.moved_to = None if self.predecessor_key == old_key else self.predecessor_key

    def destroy(self) -> None:
        """Mark the stored session, if there is one, to be ended; what follows belongs to a new one."""
        if self.claimed is not None:
            self.claimed.is_ended = True
        is_known = self.standing == "stored" or (self.standing == "unloaded" and self.session_id is not None)
        if self.standing == "unloaded" and self.claimed is not None:
            self.destroyed += (CLAIMED,)
        elif self.successor_key:
            self.destroyed += (self.successor_key,)
            self.cookie_is_stale = True
        elif is_known:
            self.destroyed += (self.store_key if self.predecessor is None else self.predecessor_key,)
            self.cookie_is_stale = True
        self.let_go("new")

    def discard(self) -> None:
        """Take back all that was changed and not committed, except that the session was destroyed."""
        self._live.clear()
        self._changes.clear()
        self.take_back_renewal()
        self.remember = None if self.record is None else self.record.remember
        self.limits = None if self.record is None else self.record.limits
        self.login = None if self.record is None else self.record.login
        self.login_is_new = False
        self._reset_views()

    # --- reading ----------------------------------------------------------------------------------------------

    def read(self, key: str) -> Any:
        """Give the value of `key`. Raises KeyError when there is none."""
        if self.views:
            self.write_views(key)
        live = self._live
        if key in live:
            return live[key]
        if key in self._changes:  # only a deleted key is in the changes and not among the live values
            raise KeyError(key)
        value = live[key] = values.decode(key, self._base[key])
        return value

    def has(self, key: object) -> bool:
        """Tell whether `key` has a value."""
        if self.views and isinstance(key, str):
            self.write_views(key)
        return key in self._live or (key in self._base and key not in self._changes)

    def keys(self) -> Iterator[str]:
        """Give all keys: those that were found, in their order, then new ones."""
        self.write_views()
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
        if self.views:
            self._reset_views(key)

    def remove(self, key: str) -> None:
        """Delete a key. Raises KeyError when it is not there."""
        if not self.has(key):
            raise KeyError(key)
        self._live.pop(key, None)
        self._changes[key] = None
        if self.views:
            self._reset_views(key)

    def clear(self) -> None:
        """Delete all keys, without decoding anything."""
        self._changes = dict.fromkeys([*self._base, *self._live, *self._changes])
        self._live.clear()
        self._reset_views()

    def operate(self, key: str, operation: Operation) -> Any:
        """Apply an operation now, and again at the commit if another request changed the key meanwhile.

        Gives the new value. Raises UnsupportedValue when the operation can't work on the value that is there.
        """
        values.check_key(key)
        current = self.read(key) if self.has(key) else NOTHING
        change = self._change_so_far(key)
        # To restore what the operation may have begun to change, if it can be changed.
        before = None if current is NOTHING or type(current) in values.IMMUTABLE else values.encode(key, current)
        try:
            result = operation(current)
            encoded = None if result is NOTHING else values.encode(key, result)
        except Exception as error:
            if before is not None:
                self._live[key] = values.decode(key, before)
            if isinstance(error, InapplicableError):
                msg = f"session[{key!r:.80}] {error}"
                raise UnsupportedValue(msg) from None
            raise
        if isinstance(change, Derived):
            self._changes[key] = Derived((*change.operations, operation), change.base, encoded)
        elif change is NOTHING:
            self._changes[key] = Derived((operation,), self._base.get(key), encoded)
        else:
            self._changes[key] = encoded
        if result is NOTHING:
            self._live.pop(key, None)
        else:
            self._live[key] = result
        if self.views:
            self._reset_views(key)
        return result

    def take_from(self, view: View, key: str, encoded: bytes | None, value: Any = NOTHING) -> None:
        """Set a value that was changed in a view, or with `NOTHING` delete it; the other views show it."""
        self._changes[key] = encoded
        if value is NOTHING:
            self._live.pop(key, None)
        else:
            self._live[key] = value
        for other in self.views:
            if other is not view:
                other.reset(self, key)

    def encoded(self, key: str) -> bytes | None:
        """Give the encoding of a key's value as this request has it now; None when there is none."""
        change = self._change_so_far(key)
        if change is NOTHING:
            found = self._base.get(key)
            return None if found is None else bytes(found)
        return change.result if isinstance(change, Derived) else change

    def write_views(self, key: str | None = None) -> None:
        """Take in what was changed in views."""
        for view in self.views:
            view.write(self, key)

    def _show_views(self) -> None:
        for view in self.views:
            view.show(self)

    def _reset_views(self, key: str | None = None) -> None:
        for view in self.views:
            view.reset(self, key)

    def _change_so_far(self, key: str) -> Change | Nothing:
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
            return change.result if isinstance(change, Derived) else change
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
        if not self._changes and self._shows_only_what_can_not_change():
            return NO_CHANGES
        self.write_views()
        patch = self.empty_patch()
        for key in self._live | self._changes:
            change = self._change_so_far(key)
            if change is NOTHING:
                continue
            found = self._base.get(key)
            result = change.result if isinstance(change, Derived) else change
            # Operations that are left over from an earlier commit have a result that says nothing any more.
            is_left_over = isinstance(change, Derived) and change.base is NOTHING
            if is_left_over or result != (None if found is None else bytes(found)):
                patch[key] = change
        return patch

    def has_changes(self) -> bool:
        """Tell whether there is anything to commit, other than that the session is used."""
        is_kept = self.predecessor is None and not self.login_is_new and not self.terms_changed
        return bool(self.destroyed) or not is_kept or bool(self.patch())

    def _shows_only_what_can_not_change(self) -> bool:
        return not self.views and values.IMMUTABLE.issuperset(map(type, self._live.values()))

    def empty_patch(self) -> Patch:
        """Give a patch that changes nothing."""
        patch = Patch()
        patch.life = self.life
        patch.session_id = self.identity
        patch.store_key = self.store_key
        patch.login = self.login
        patch.remember = self.remember
        patch.limits = self.limits
        patch.taken = dict(self._changes)
        return patch

    # --- without the store ------------------------------------------------------------------------------------

    def go_on_as_nobody(self, error: StoreUnavailable) -> None:
        """The session can't be loaded: go on without, or else raise the error."""
        if self.standing != "unloaded":
            return  # another task has loaded, or destroyed, it meanwhile
        if not self.may_go_on:
            raise error
        self.standing = "unavailable"
        self.outage = error

    def go_on_unextended(self, error: StoreUnavailable) -> None:
        """What is to be stored can't be: go on if that was only that the session is used, or else raise the error."""
        if self.standing == "unavailable":
            raise error  # what was changed in a view can't be stored
        if self.may_go_on and self.renewed_by_clock:
            self.take_back_renewal()
        if not self.may_go_on or self.record is None or self.has_changes():
            raise error
        self.outage = error

    def check_open(self) -> None:
        """Raise SessionClosed when nobody is going to commit any more, StoreUnavailable when nobody can."""
        if self.closed:
            raise SessionClosed
        if self.standing == "unavailable":
            msg = "The session can't be changed now: the store is out of reach, and the request goes on without it"
            raise StoreUnavailable(msg) from self.outage

    def check_cookie_can_be_set(self, reason: str) -> None:
        """Raise ResponseStarted when the headers have left."""
        if self.sealed:
            msg = (
                f"{reason}, which needs a cookie, but the headers of the response have already left. "
                "Do it before the response starts"
            )
            raise ResponseStarted(msg)


def _raw(encoded: bytes | None) -> Raw | None:
    return None if encoded is None else Raw(encoded)
