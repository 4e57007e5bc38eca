"""What the adopters of all old systems have in common: their settings, and how what they read is made ready.

Whatever is read here was written by another program, and may have been put there by somebody else. So it is bounded in
size, it is decoded by formats that hold data and nothing else, and it is never unpickled.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePath
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypeVar, get_args

import msgspec

from coatcheck.adopters import OldSession
from coatcheck.errors import ConfigurationError, UnreadableSession

T = TypeVar("T")

MAX_BYTES: Final = 1_048_576
"""The most that is read of one old session."""

PICKLE_STARTS: Final = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
"""How pickles of the protocols 2 to 5 begin."""

Old: TypeAlias = Literal["remove", "keep"]
UserOf: TypeAlias = Callable[[Mapping[str, Any]], str | int | None]
"""Gives the user ID in an old session's values, or None for nobody's."""
Convert: TypeAlias = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Makes a new session's values of an old one's."""


@dataclass(frozen=True, kw_only=True)
class OldSystem:
    """The settings that all adopters have.

    Args:
        user_id: gives the user ID that an old session's values tell, or None. With it a session is logged in after its
            adoption: it is in the user's list, and ends with `revoke_user`. Without it nobody is logged in by ours.
        convert: makes the new session's values of the old one's, for what is to be renamed, changed or left behind.
        old: "remove" deletes the old cookie and the old record once the new cookie leaves; "keep" leaves both, for as
            long as the old application still runs.
        lifetime: how long an old session lives without being used. For that long it is remembered what was adopted.
        cookie_path: the old cookie's Path.
        cookie_domain: the old cookie's Domain, if it has one.

    Raises:
        ConfigurationError: a setting can't work.
    """

    system: ClassVar[str]
    """The system's name."""

    user_id: UserOf | None = None
    convert: Convert | None = None
    old: Old = "remove"
    lifetime: timedelta = timedelta(days=30)
    cookie_path: str = "/"
    cookie_domain: str | None = None

    def __post_init__(self) -> None:
        if self.old not in get_args(Old):
            msg = f"old: expected 'remove' or 'keep', got {self.old!r}"
            raise ConfigurationError(msg)

    @property
    def name(self) -> str:
        """See `Adopter.name`."""
        return self.system

    @property
    def removes_old(self) -> bool:
        """See `Adopter.removes_old`."""
        return self.old == "remove"

    def session(
        self, values: dict[str, Any], *, without: frozenset[str] = frozenset(), remember: bool | None = None
    ) -> OldSession:
        """Make ready what is to be carried over.

        Args:
            values: all that the old session holds.
            without: the keys that only the old system has a use for.
            remember: see `OldSession`.

        Raises:
            UnreadableSession: one of the application's functions failed.
        """
        user_id = None if self.user_id is None else _called(self.user_id, values)
        carried: Mapping[str, Any] = {key: value for key, value in values.items() if key not in without}
        if self.convert is not None:
            carried = _called(self.convert, dict(carried))
            if not isinstance(carried, Mapping):
                msg = f"convert gave a {type(carried).__name__}, and a dict is needed"
                raise UnreadableSession(msg)
        return OldSession(carried, _user_id(user_id), remember)


def _user_id(user_id: object) -> str | None:
    """Give a user ID as a str. Many systems keep it as a number."""
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        return str(user_id)
    if user_id is None or isinstance(user_id, str):
        return user_id
    msg = f"user_id gave a {type(user_id).__name__}, and a str, an int or None is needed"
    raise UnreadableSession(msg)


def _called(function: Callable[[Any], T], values: Any) -> T:
    """Call a function of the application's. What it raises may have a value in its text, so only its kind is told."""
    try:
        return function(values)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        msg = f"{type(error).__name__} in line {place.lineno} of {PurePath(place.filename).name}"
        raise UnreadableSession(msg) from error


# --- formats ----------------------------------------------------------------------------------------------------------


def decoded(data: bytes, decoder: Callable[[bytes], Any], what: str) -> dict[str, Any]:
    """Decode a session by `decoder`. Raises UnreadableSession for all that is not a mapping.

    Its keys may be of other types than text, with gob and MessagePack; then it takes a `convert` to adopt it.
    """
    if len(data) > MAX_BYTES:
        msg = f"it has {len(data)} bytes, and at most {MAX_BYTES} are read"
        raise UnreadableSession(msg)
    if data.startswith(PICKLE_STARTS):
        msg = f"it is pickled, and a pickle can run any code, so none is read; {what} is"
        raise UnreadableSession(msg)
    try:
        values = decoder(data)
    except UnreadableSession:
        raise
    except (ValueError, RecursionError):  # the error's own text may have parts of the data in it
        msg = f"it is not {what}"
        raise UnreadableSession(msg) from None
    if not isinstance(values, dict):
        msg = f"its {what} does not hold a mapping"
        raise UnreadableSession(msg)
    return values


def from_json(data: bytes) -> dict[str, Any]:
    """Decode a session kept as JSON."""
    return decoded(data, msgspec.json.decode, "JSON")


def from_msgpack(data: bytes) -> dict[str, Any]:
    """Decode a session kept as MessagePack."""
    return decoded(data, msgspec.msgpack.decode, "MessagePack")
