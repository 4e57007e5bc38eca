"""The rules for what is done to sessions from outside of their requests: ending, listing and watching them. No I/O.

As in `lifecycle`, a rule that needs the store is a generator of store operations.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from coatcheck import values
from coatcheck.errors import ConfigurationError, ForeignRecord, UndecodableRecord, UndecodableValue
from coatcheck.events import Event
from coatcheck.keeper import Keeper, Steps, fetch
from coatcheck.record import Moved, Record, Values
from coatcheck.session_info import SessionInfo, moment
from coatcheck.token import is_store_key
from coatcheck.users import Users, Watched, check_user_id, epoch_key, is_of_epoch

logger: Final = logging.getLogger("coatcheck")

_MAX_PASSES: Final = 10
_PAGE: Final = 100


class Administration:
    """The rules, for the sessions that a keeper and a user's index know."""

    __slots__ = ("_keeper", "_users")

    def __init__(self, keeper: Keeper, users: Users) -> None:
        self._keeper = keeper
        self._users = users

    # --- ending -----------------------------------------------------------------------------------------------

    def revoke(self, store_key: str, owner: str | None = None) -> Steps[Event | None]:
        """End a session by its handle, wherever it is, also one that is about to be stored.

        With `owner`, only if it is that user's.
        """
        if owner is not None and not (yield from self._users.has(owner, store_key)):
            return None
        ended = yield from self._keeper.end(store_key, is_pending=True)
        if ended is None:
            return None
        if ended.user_id is not None:
            yield from self._users.leave(ended.user_id, [store_key])
        return Event("revoked", store_key, ended.user_id)

    def revoke_user(self, user_id: str, keep: str | None) -> Steps[list[Event]]:
        """End every session of a user, but the one to keep. What can't be a handle keeps none."""
        if keep is not None and not is_store_key(keep):
            keep = None
        ended = yield from self._users.end_all(check_user_id(user_id), keep)
        return [Event("revoked", store_key, user_id) for store_key in ended]

    def revoke_all(self) -> Steps[list[Event]]:
        """End every session of everybody.

        A session that is renewed while the store is gone through may escape into a page already seen, so it is gone
        through until nothing is found that is older than the beginning.
        """
        began_ms = self._keeper.now_ms()
        events: list[Event] = []
        for _ in range(_MAX_PASSES):
            before = len(events)
            cursor, is_last = "", False
            while not is_last:
                found, cursor = yield from self._users.page(cursor, _PAGE)
                is_last = not cursor
                for store_key, (record, _) in found.items():
                    event = (yield from self.revoke(store_key)) if record.created_at_ms <= began_ms else None
                    if event is not None:
                        events.append(event)
            if len(events) == before:
                break
        return events

    # --- listing ----------------------------------------------------------------------------------------------

    def info(self, store_key: str, record: Record, left_ms: int, current: str | None) -> SessionInfo:
        """Describe a session for a list."""
        expires_at_ms = self._keeper.now_ms() + left_ms
        login = record.login
        return SessionInfo(
            handle=store_key,
            user_id=record.user_id,
            created_at=moment(record.created_at_ms),
            authenticated_at=None if login is None else login.authenticated_at,
            # Use sets the time to live to the idle timeout, so what is left of it tells when that was.
            last_seen_at=moment(max(record.updated_at_ms, expires_at_ms - self._keeper.idle_ms_of(record.limits))),
            expires_at=moment(expires_at_ms),
            user_agent=None if login is None else login.user_agent,
            client_address=None if login is None else login.client_address,
            is_current=store_key == current,
        )

    def sessions_of(self, user_id: str, current: str | None) -> Steps[list[SessionInfo]]:
        """Describe a user's live sessions, oldest first."""
        found = yield from self._users.sessions(check_user_id(user_id))
        return [self.info(key, record, left_ms, current) for key, (record, left_ms) in found.items()]

    def page(self, cursor: str, size: int) -> Steps[tuple[list[SessionInfo], str]]:
        """Describe some of all sessions; give the cursor of the next page, "" at the end."""
        if size < 1:
            msg = f"page_size: expected a positive whole number, got {size}"
            raise ConfigurationError(msg)
        found, cursor = yield from self._users.page(cursor, size)
        return [self.info(key, record, left_ms, None) for key, (record, left_ms) in found.items()], cursor

    def export(self, user_id: str) -> Steps[list[dict[str, Any]]]:
        """Give all that is kept of a user's sessions, decoded.

        A value that can't be decoded here is reported, and an `UndecodableValue` stands in its place.
        """
        found = yield from self._users.sessions(check_user_id(user_id))
        return [
            {
                **asdict(self.info(key, record, left_ms, None)),
                "values": _decoded(key, record.values),
            }
            for key, (record, left_ms) in found.items()
        ]

    # --- watching ---------------------------------------------------------------------------------------------

    def look(self, watched: Sequence[Watched]) -> Steps[None]:
        """See which sessions that somebody waits for are alive, and where they are now."""
        for start in range(0, len(watched), _PAGE):
            chunk = watched[start : start + _PAGE]
            tags = list({each.user_tag for each in chunk if each.user_tag})
            loaded = yield from fetch(*(each.store_key for each in chunk), *map(epoch_key, tags))
            epochs = {
                tag: self._users.epoch_in(tag, data) for tag, data in zip(tags, loaded[len(chunk) :], strict=True)
            }
            for each, data in zip(chunk, loaded[: len(chunk)], strict=True):
                yield from self._look_at(each, data, epochs.get(each.user_tag, 0))

    def _look_at(self, watched: Watched, data: bytes | None, epoch: int) -> Steps[None]:
        try:
            _, record = self._keeper.current(watched.store_key, data)
        except (UndecodableRecord, ForeignRecord):
            return  # it can't be told; a request with the session's cookie reports it
        while isinstance(record, Moved) and record.grace_until_ms:
            watched.store_key = record.successor
            (_, record), _ = yield from self._keeper.find(watched.store_key)
        if not isinstance(record, Record) or not is_of_epoch(record, epoch):
            watched.tell()


def _decoded(store_key: str, encoded: Values) -> dict[str, Any]:
    decoded: dict[str, Any] = {}
    for name, value in encoded.items():
        try:
            decoded[name] = values.decode(name, value)
        except UndecodableValue as error:
            logger.error("A value of %s is left out of what is exported: %s", store_key, error)  # noqa: TRY400 (it says all)
            decoded[name] = UndecodableValue(str(error))  # without what it holds on to
    return decoded
