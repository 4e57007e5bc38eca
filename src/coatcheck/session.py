"""The session as the application sees it: a mapping with a life of its own.

What it does to the data is in `working_copy`, when that reaches the store is in `lifecycle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple, Self, TypeVar

from coatcheck import values
from coatcheck.changes import NOTHING, InapplicableError
from coatcheck.errors import UnsupportedValue
from coatcheck.lifecycle import Lifecycle
from coatcheck.record import Limits
from coatcheck.session_info import moment
from coatcheck.working_copy import WorkingCopy

Number = TypeVar("Number", int, float, Decimal)

_NUMBERS: Final = (int, float, Decimal)

FLASH_KEY: Final = "_flash"
"""The session's key under which flash messages wait to be shown."""


class Flash(NamedTuple):
    """A message to be shown once, on the next page."""

    message: str
    category: str


class BaseSession(MutableMapping[str, Any]):
    """What `Session` and `SyncSession` have in common: everything but loading and saving.

    Reading a value, changing it in place (`session["cart"].append(item)`) and assigning it all work as with a dict;
    there is neither a `modified` flag to set nor a call to remember. What changed is stored before the response's
    headers leave. Requests of one session that run at the same time do not undo each other's changes to different
    keys; for changes to the same key see `increment`, `append` and `modify`.

    A session is for one request, and not for several threads at once.
    """

    __slots__ = ("_lifecycle", "_work")

    _lifecycle: Lifecycle
    _work: WorkingCopy

    # --- the mapping ------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        """Give a value.

        Raises:
            KeyError: there is none.
            UndecodableValue: it can't be decoded here.
        """
        return self._read().read(key)

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value.

        Raises:
            UnsupportedKey: the key is not a string.
            UnsupportedValue: the value can't be stored without loss.
            ResponseStarted: this would start a new session, and its cookie could not be set any more.
        """
        self._write().assign(key, value)

    def __delitem__(self, key: str) -> None:
        """Delete a key. Raises KeyError when it is not there."""
        self._write().remove(key)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(list(self._read().keys()))

    def __len__(self) -> int:
        """Give the number of keys."""
        return self._read().size()

    def __bool__(self) -> bool:
        """Tell whether there is anything in it: a value, or somebody who is logged in."""
        work = self._read()
        return work.login is not None or work.size() > 0

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Give a dict of both, as a dict does."""
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """Give a dict of both, as a dict does."""
        return {**other, **self}

    def __ior__(self, other: Mapping[str, Any]) -> Self:
        """Update it, as a dict does."""
        self.update(other)
        return self

    def copy(self) -> dict[str, Any]:
        """Give a dict of the values, for `json.dumps` and the like."""
        return dict(self)

    def clear(self) -> None:
        """Delete all keys. The session itself goes on; `destroy()` or `logout()` ends it."""
        self._write().clear()

    def __contains__(self, key: object) -> bool:
        """Tell whether the key has a value. Does not decode it."""
        return self._read().has(key)

    def __repr__(self) -> str:
        """Show the handle and the standing, and neither the ID nor the data."""
        self._work.accessed = True
        return f"<{type(self).__name__} {self._work.store_key} {self._work.standing}>"

    # --- changes that are right under concurrency ---------------------------------------------------------------

    def increment(self, key: str, by: Number = 1) -> Number:  # type: ignore[assignment]
        """Add to a number, which starts at 0. Concurrent increments add up.

        Args:
            key: the session's key.
            by: how much to add; negative to subtract.

        Returns:
            The new number as far as this request knows; after `save()`, `session[key]` is what the store holds.

        Raises:
            UnsupportedValue: the key holds something that is not a number.
        """
        return self._write().operate(key, partial(_add, by))  # type: ignore[no-any-return]

    def append(self, key: str, value: Any) -> None:
        """Append to a list, which starts empty. Concurrent appends all arrive.

        Raises:
            UnsupportedValue: the key holds something that is not a list, or `value` can't be stored.
        """
        self._write().operate(key, partial(_append, key, values.encode(key, value)))

    def modify(self, key: str, function: Callable[[Any], Any], default: Any = None) -> Any:
        """Read, change and write a value as one atomic step.

        `function` is called with the current value and gives the new one. If another request changes the key before
        this one commits, it is called again with the newer value, so it must do nothing but compute.

        Args:
            key: the session's key.
            function: makes the new value of the current one.
            default: the current value for a key that is not there.

        Returns:
            The new value as far as this request knows.
        """
        return self._write().operate(key, partial(_modify, function, default))

    # --- flash messages -----------------------------------------------------------------------------------------

    def flash(self, message: str, category: str = "message") -> None:
        """Keep a message for the next page that asks for `flashes()`."""
        self.append(FLASH_KEY, [message, category])

    def flashes(self, category: str | None = None) -> list[Flash]:
        """Take the messages that wait, or those of one category, oldest first. They are gone afterwards.

        A message that another request adds in the same moment is kept for the next page.
        """
        waiting: list[list[str]] = self.get(FLASH_KEY, [])
        taken = [entry for entry in waiting if category is None or entry[1] == category]
        if taken:
            self._write().operate(FLASH_KEY, partial(_without, values.encode(FLASH_KEY, taken)))
        return [Flash(message, of_category) for message, of_category in taken]

    # --- users ----------------------------------------------------------------------------------------------------

    def login(self, user_id: str, *, remember: bool | None = None) -> None:
        """Make it the session of a user, at the commit.

        The session gets a new ID, and what was kept before stays; unless it was another user's session, of which
        nothing stays. Its time of authentication and its lifetime begin now. It is entered into the user's list of
        sessions before it can be used.

        Args:
            user_id: who it is; `str(user.id)`, at most 512 bytes.
            remember: let the cookie survive a restart of the browser, or not; None for the configuration's choice.

        Raises:
            UnsupportedValue: the user ID is not a text that can be one.
            ResponseStarted: the new cookie could not be set any more.
            TooManySessions: not here, but from the commit or `save()`, with `when_full="refuse"`.
        """
        work = self._read()
        work.check_open()
        work.check_cookie_can_be_set("A login gives the session a new ID")
        self._lifecycle.log_in(work, user_id, remember=remember)

    def logout(self, *, keep: Iterable[str] = ()) -> None:
        """End the session, like `destroy()`. The values of `keep` go on in a new session that is nobody's.

        Args:
            keep: keys, such as `["cart"]`.

        Raises:
            TypeError: it is a single text.
        """
        if isinstance(keep, str):
            msg = f"logout(keep=…): expected a list of keys, got the text {keep!r:.80}; put it into a list"
            raise TypeError(msg)
        kept = {key: self[key] for key in keep if key in self}
        self.destroy()
        if kept:
            self.update(kept)

    @property
    def user_id(self) -> str | None:
        """Who is logged in, or None."""
        login = self._read().login
        return None if login is None else login.user_id

    @property
    def authenticated_at(self) -> datetime | None:
        """When the user proved who they are. None if nobody did, and for a login of another system's (see `adopt`)."""
        login = self._read().login
        return None if login is None else login.authenticated_at

    @property
    def time_since_login(self) -> timedelta:
        """How long ago the user proved who they are; the longest time there is if nobody did, or nobody knows when."""
        login = self._read().login
        if login is None or login.authenticated_at is None:
            return timedelta.max
        return timedelta(milliseconds=max(self._lifecycle.keeper.now_ms() - login.authenticated_at_ms, 0))

    @property
    def has_ended(self) -> bool:
        """Whether the session was ended by somebody else since this request began, as the last `save()` found out."""
        return self._read().standing in ("ended", "superseded")

    @property
    def is_available(self) -> bool:
        """Whether the store could be asked. False only where a request goes on without: see `while_down`.

        Then the session looks empty and nobody's, and what would change it raises `StoreUnavailable`.
        """
        return self._read().standing != "unavailable"

    # --- identity and life --------------------------------------------------------------------------------------

    @property
    def handle(self) -> str:
        """The session's public name, for lists, logs and URLs. Nobody can use the session with it."""
        return str(self._read().store_key)  # the name alone: a key may have more with it, see `coatcheck.stores.cookie`

    @property
    def token(self) -> str:
        """The cookie's value. A secret: whoever has it has the session. For jobs and tests, see `Sessions.open`."""
        return self._lifecycle.token(self._read())

    @property
    def is_new(self) -> bool:
        """Whether nothing of this session is stored yet."""
        return self._read().standing != "stored"

    @property
    def was_accessed(self) -> bool:
        """Whether this request has read or changed anything of the session, so that its response depends on it."""
        return self._work.accessed

    @property
    def created_at(self) -> datetime:
        """When the session began."""
        work = self._read()
        return moment(work.opened_at_ms if work.record is None else work.record.created_at_ms)

    @property
    def expires_at(self) -> datetime:
        """When the session ends unless it is used again, by what this request knows."""
        return moment(self._lifecycle.expires_at_ms(self._read()))

    def renew(self) -> None:
        """Give the session a new ID at the commit; the old one is dead from then on. The values stay.

        Call it whenever somebody's rights change, above all at login: an ID that was known before (session fixation)
        must not lead to what comes after.

        Raises:
            ResponseStarted: the new cookie could not be set any more.
        """
        work = self._read()
        work.check_open()
        work.check_cookie_can_be_set("Renewing a session gives it a new ID")
        work.renew()

    def destroy(self) -> None:
        """End the session: log out. What is stored afterwards in the same request belongs to a new session.

        The end holds even when the rest of the request fails.
        """
        self._work.check_open()
        self._work.destroy()

    def remember(self, remember: bool) -> None:  # noqa: FBT001 (reads well: session.remember(True))
        """Let the cookie survive a restart of the browser, or not. Overrides `CookieConfig.persistent`.

        Raises:
            ResponseStarted: the new cookie could not be set any more.
        """
        work = self._read()
        work.check_open()
        if remember is not work.remember:
            work.check_cookie_can_be_set("remember() changes the cookie")
            work.remember = remember

    def limit(self, *, idle_timeout: timedelta | None = None, ends_at: datetime | None = None) -> None:
        """Let this session last differently from others: shorter, or idle for longer. Without arguments, as others.

        The configured lifetime ends it in any case. Times that are over already end it at the commit.

        Args:
            idle_timeout: how long it may be unused; None for the configured idle timeout.
            ends_at: when it ends whatever its use, with a time zone; None for the end of its lifetime.

        Raises:
            UnsupportedValue: `ends_at` has no time zone.
        """
        if ends_at is not None and ends_at.utcoffset() is None:
            msg = f"limit: ends_at needs a time zone, got {ends_at}"
            raise UnsupportedValue(msg)
        idle_ms = None if idle_timeout is None else max(round(idle_timeout.total_seconds() * 1000), 1)
        ends_at_ms = None if ends_at is None else round(ends_at.timestamp() * 1000)
        limits = None if idle_timeout is None and ends_at is None else Limits(idle_ms, ends_at_ms)
        work = self._write()
        if limits != work.limits:
            work.limits = limits

    def wait_for_load(self) -> None:
        """Let nothing of the session be used before it is loaded, also where there is nothing to load."""
        if self._work.standing == "new":
            self._work.standing = "unloaded"

    # --- access ---------------------------------------------------------------------------------------------------

    def _read(self) -> WorkingCopy:
        work = self._work
        if work.standing == "unloaded":
            self._load_now()
        work.accessed = True
        work.settled = False
        return work

    def _write(self) -> WorkingCopy:
        work = self._read()
        work.check_open()
        if work.sealed:
            self._lifecycle.check_change_can_be_sent(work)
        return work

    def _load_now(self) -> None:
        raise NotImplementedError


# --- operations -------------------------------------------------------------------------------------------------------


def _add(by: Any, current: Any) -> Any:
    if current is NOTHING:
        return by
    if isinstance(current, bool) or not isinstance(current, _NUMBERS):
        msg = f"holds a {type(current).__name__}, and only a number can be incremented"
        raise InapplicableError(msg)
    try:
        return current + by
    except (TypeError, ArithmeticError) as error:
        msg = f"can't be incremented: {error}"
        raise InapplicableError(msg) from None


def _append(key: str, encoded: bytes, current: Any) -> Any:
    value = values.decode(key, encoded)
    if current is NOTHING:
        return [value]
    if not isinstance(current, list):
        msg = f"holds a {type(current).__name__}, and only to a list can be appended"
        raise InapplicableError(msg)
    current.append(value)
    return current


def _modify(function: Callable[[Any], Any], default: Any, current: Any) -> Any:
    return function(default if current is NOTHING else current)


def _without(encoded: bytes, current: Any) -> Any:
    if not isinstance(current, list):
        return current
    for item in values.decode(FLASH_KEY, encoded):
        if item in current:
            current.remove(item)
    return current or NOTHING
