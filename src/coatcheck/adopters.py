"""What it takes to adopt the sessions of another system: the protocol that every adopter follows.

An adopter knows one old system: the name of its cookie, how the cookie is proven genuine, where the data is, and how it
is read. It decides nothing else: when a session is adopted, that it is adopted once, and what becomes of the old one
are rules, which are in `adoption`. The adopters that come with Coatcheck are in `coatcheck.interop`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias

from coatcheck.cookie import CookieReader


class Claim(NamedTuple):
    """What an old cookie leads to, once it is proven genuine. Its text is a secret."""

    key: str
    """Names the old session, and no other. Where there are old records, it is the key of this one."""
    data: bytes | None = None
    """The session itself, where the cookie holds all of it; None where it has to be fetched."""

    def __repr__(self) -> str:
        """Without the key, which is as good as the cookie."""
        return "<Claim>"


class OldSession(NamedTuple):
    """What is to be carried over."""

    values: Mapping[str, Any]
    user_id: str | None = None
    """Whose session it is; None for nobody's."""
    remember: bool | None = None
    """Whether the cookie outlived the browser's session; None if that is not known."""


class OldRecords(Protocol):
    """Where an old system keeps its sessions, for threads. Its methods raise `StoreUnavailable` when it is down."""

    def get(self, key: str) -> bytes | None:
        """Give what is kept under a key, or None when there is nothing or its time is over."""
        ...

    def delete(self, key: str) -> object:
        """Delete it, if it is there."""
        ...

    def close(self) -> None:
        """Free what it holds. It may be used again afterwards."""
        ...


class AsyncOldRecords(Protocol):
    """The same as `OldRecords`, awaited."""

    async def get(self, key: str) -> bytes | None:
        """See `OldRecords.get`."""
        ...

    async def delete(self, key: str) -> object:
        """See `OldRecords.delete`."""
        ...

    async def close(self) -> None:
        """See `OldRecords.close`."""
        ...


AnyOldRecords: TypeAlias = OldRecords | AsyncOldRecords


class Adopter(Protocol):
    """Knows one old system. See the module's docstring."""

    @property
    def name(self) -> str:
        """The system's name, for the log. What it adopted is remembered by it, so it never changes."""
        ...

    @property
    def cookie_name(self) -> str:
        """The name of the old cookie."""
        ...

    @property
    def cookie_path(self) -> str:
        """The old cookie's Path, which a browser must be told to delete it."""
        ...

    @property
    def cookie_domain(self) -> str | None:
        """The old cookie's Domain, or None if it had none."""
        ...

    @property
    def removes_old(self) -> bool:
        """Whether the old cookie and the old record are deleted after the adoption."""
        ...

    @property
    def lifetime(self) -> timedelta:
        """How long an old session may live without being used. For that long it is remembered what was adopted."""
        ...

    def claim(self, cookie: bytes) -> Claim | None:
        """Prove a cookie genuine, without I/O; None for one that is not, or is too old.

        Two cookies of the same session give the same key.
        """
        ...

    def decode(self, data: bytes) -> OldSession | None:
        """Read a session, or give None for one whose time is over.

        Raises:
            UnreadableSession: it can't be read, or not safely. The message says why, and has nothing of the data in it.
        """
        ...

    def records(self, *, is_async: bool) -> AnyOldRecords | None:
        """Give the old records, for asyncio or for threads; None where the cookie holds all. Called once.

        Raises:
            ConfigurationError: they are of the other kind, or can't be what they should be.
        """
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """An adopter, and what the rules need at hand of it."""

    adopter: Adopter
    cookies: CookieReader
    clear: str | None
    """The Set-Cookie value that deletes the old cookie, if that is to be done."""
    records: AnyOldRecords | None


@dataclass(slots=True)
class Claimed:
    """An old session that a request claims."""

    source: Source
    claim: Claim
    is_spent: bool = False
    """The old cookie leads nowhere any more: the session was adopted, or is no more."""
    is_adopted: bool = False
    """What the old record held is in the native store."""
    is_to_leave: bool = False
    """The response that leaves may take the old cookie and the old record with it."""
    is_ended: bool = False
    """The application has logged out of it."""
