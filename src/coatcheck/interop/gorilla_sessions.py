"""Adopting the sessions of Go's gorilla/sessions with redistore. The codecs are in `gorilla` and `gob`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Final, Literal

from coatcheck.adopters import AnyOldRecords, Claim, OldSession
from coatcheck.errors import InvalidCookie, InvalidGob, UnreadableSession
from coatcheck.interop import _go_json, gob
from coatcheck.interop.gorilla import SecureCookie
from coatcheck.interop.old_records import Store, old_records
from coatcheck.interop.old_system import OldSystem, decoded
from coatcheck.session import FLASH_KEY
from coatcheck.values import is_text

_MAX_ID_CHARACTERS: Final = 256


@dataclass(frozen=True, kw_only=True)
class GorillaSessions(OldSystem):
    """Adopts the sessions of gorilla/sessions, which boj/redistore keeps in Redis.

    Values are taken as their plain Python equals, see `coatcheck.interop.gob`. Structs and other types of the Go
    program's own have none: their session is refused, unless `convert=gob.plain` turns them into dicts and lists.

    Args:
        cookie_name: the session's name: what the Go program gives to `store.Get(r, name)`.
        key_pairs: the []byte keys of `NewRediStore`, in order; see `SecureCookie`.
        store: where redistore keeps them: a URL, a client of redis-py, or an object with the methods of
            `coatcheck.adopters.OldRecords`.
        prefix: what the keys begin with, `SetKeyPrefix`.
        serializer: "gob", or "json" if the Go program has set redistore's JSONSerializer.
        max_age: how old a cookie may be, 30 days unless the Go program calls `SetMaxAge`; None for any age.
        clock: gives the time in seconds since the epoch. For tests.
        user_id, convert, old, lifetime, cookie_path, cookie_domain: see `OldSystem`.

    Raises:
        ConfigurationError: a setting can't work.
        MissingExtra: the cookies are encrypted, and the extra `gorilla` is not installed.

    Example:
        GorillaSessions(
            cookie_name="session-name",
            key_pairs=[OLD_HASH_KEY],
            store="redis://localhost:6379/0",
            user_id=lambda values: values.get("username"),
        )
    """

    system: ClassVar[str] = "gorilla/sessions"

    cookie_name: str
    key_pairs: Sequence[bytes | None] = field(repr=False)
    store: Store = field(repr=False)
    prefix: str = "session_"
    serializer: Literal["gob", "json"] = "gob"
    max_age: timedelta | None = timedelta(days=30)
    clock: Callable[[], float] = field(default=time.time, repr=False)
    _codec: SecureCookie = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        max_age_s = 0 if self.max_age is None else round(self.max_age.total_seconds())
        # redistore's cookies are gob even where its records are JSON.
        object.__setattr__(self, "_codec", SecureCookie(self.key_pairs, max_age=max_age_s, clock=self.clock))
        object.__setattr__(self, "lifetime", max(self.lifetime, self.max_age or timedelta(0)))

    def claim(self, cookie: bytes) -> Claim | None:
        """See `Adopter.claim`."""
        try:
            session_id = self._codec.decode(self.cookie_name, cookie.decode("latin-1"), target="string")
        except InvalidCookie:
            return None
        if not 0 < len(session_id) <= _MAX_ID_CHARACTERS or not is_text(session_id):
            return None
        return Claim(self.prefix + session_id)

    def decode(self, data: bytes) -> OldSession:
        """See `Adopter.decode`. Flash messages that are texts become ours; others have no equal, and are dropped."""
        if self.serializer == "gob":
            values = decoded(data, _from_gob, "gob")
        else:
            values = decoded(data, _go_json.loads, "JSON as Go writes it")
        if FLASH_KEY in values:
            waiting = values[FLASH_KEY]
            texts = [each for each in waiting if isinstance(each, str)] if isinstance(waiting, list) else []
            values[FLASH_KEY] = [[text, "message"] for text in texts]
        return self.session(values)

    def records(self, *, is_async: bool) -> AnyOldRecords:
        """See `Adopter.records`."""
        return old_records(self.store, is_async=is_async)


def _from_gob(data: bytes) -> Any:
    try:
        return gob.loads(data, target="map")
    except InvalidGob as error:  # its text says where and why, and has nothing of the values in it
        msg = f"its gob can't be read: {error}"
        raise UnreadableSession(msg) from None
