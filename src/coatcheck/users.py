"""The rules of users and their sessions, free of I/O: who has which, how many, and how all of them end at once.

Two small records for each user, found by the user's tag (a hash of the user ID):

- the *index* says which sessions the user has. A session is entered before it is stored.
- the *epoch* is there after all sessions of the user were ended. Each session carries the epoch of its login, and is
  dead when the user's is higher. The epoch is loaded together with the session, so this costs no round trip, and one
  write ends every session, those included that an index has lost or that are about to be stored.

Both are ordinary records under keys of their own, written by compare-and-set: any store can keep them, and on a cluster
no two of them need to be on one node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final, TypeAlias, cast

from msgspec.structs import replace

from coatcheck.config import WhenFull
from coatcheck.errors import ForeignRecord, TooManySessions, UndecodableRecord, UnsupportedValue
from coatcheck.keeper import MAX_CONFLICTS, MOVED_MS, Keeper, Steps, fetch, report, too_many_conflicts
from coatcheck.operations import Scan, TimeLeft
from coatcheck.record import AnyRecord, IndexEntry, Login, Moved, Record, UserEpoch, UserIndex
from coatcheck.token import USER_TAG_BYTES, is_store_key
from coatcheck.values import is_text

Entries: TypeAlias = dict[str, IndexEntry]
"""See `UserIndex`."""

MAX_USER_ID_BYTES: Final = 512
PENDING_MS: Final = 60_000
"""How long an entry may be in the index without a record before it counts as lost: longer than any login takes."""

# A store key ends in 40 hexadecimal digits (see `record`), of which the tag has fewer.
_EPOCH_OF: Final = "epoch-" + "0" * (40 - 2 * USER_TAG_BYTES)
_INDEX_OF: Final = "user-" + "0" * (40 - 2 * USER_TAG_BYTES)

_UNREADABLE_EPOCH: Final = 2**62

_PRUNE_EVERY: Final = 32
"""At each so many entries of an index, a login looks which of them are dead."""

_INDEX_KEPT_MS: Final = 90 * 24 * 3_600_000
"""How long an index is kept at least after it was last changed.

Sessions go by the lifetime that is set now, and the use of one does not change the index. So it has to outlive sessions
whose lifetime was raised since their login. It is kept for twice the lifetime if that is longer.
"""

_CHUNK: Final = 100
"""How many records are loaded at once."""


def check_user_id(user_id: object) -> str:
    """Give a user ID back. Raises UnsupportedValue when it can't be one."""
    if not isinstance(user_id, str):
        msg = f"A user ID is a str, this one is of type {type(user_id).__name__}; convert it with str()"
        raise UnsupportedValue(msg)
    if not user_id or len(user_id.encode("utf-8", "surrogatepass")) > MAX_USER_ID_BYTES or not is_text(user_id):
        msg = f"A user ID has 1 to {MAX_USER_ID_BYTES} bytes of valid Unicode"
        raise UnsupportedValue(msg)
    return user_id


@lru_cache(maxsize=4096)  # it is made for every request of somebody who is logged in, and requests come in bursts
def user_tag(user_id: str) -> bytes:
    """Give what stands for a user in tokens and store keys."""
    return sha256(b"coatcheck user\x00" + user_id.encode()).digest()[:USER_TAG_BYTES]


def tag_of(login: Login | None) -> bytes:
    """Give the tag of whoever is logged in; empty for nobody."""
    return b"" if login is None else user_tag(login.user_id)


@lru_cache(maxsize=4096)
def epoch_key(tag: bytes) -> str:
    """Give the store key of a user's epoch."""
    return _EPOCH_OF + tag.hex()


def index_key(tag: bytes) -> str:
    """Give the store key of a user's index."""
    return _INDEX_OF + tag.hex()


@dataclass(slots=True, eq=False)
class Watched:
    """A session whose end somebody waits for."""

    store_key: str
    user_tag: bytes
    tell: Callable[[], None] = lambda: None
    """Called when it has ended."""


class Users:
    """The rules, for one configuration. All of them give steps; see `lifecycle`."""

    __slots__ = ("_epoch_ttl_ms", "_index_kept_ms", "_keeper", "_max_sessions", "_when_full")

    def __init__(
        self, keeper: Keeper, max_sessions: int | None, when_full: WhenFull, *, old_lifetime_ms: int = 0
    ) -> None:
        self._keeper = keeper
        self._max_sessions = max_sessions
        self._when_full = when_full
        # An epoch outlives every session from before it, those included that may yet be adopted.
        self._epoch_ttl_ms = max(keeper.lifetime_ms, old_lifetime_ms) + MOVED_MS
        self._index_kept_ms = max(2 * keeper.lifetime_ms, _INDEX_KEPT_MS)

    # --- entering and leaving ---------------------------------------------------------------------------------

    def enter(
        self, user_id: str, store_key: str, ends_at_ms: int, *, replacing: str | None, is_login: bool
    ) -> Steps[tuple[int, list[str]]]:
        """Put a session into its user's index, before it is stored.

        Gives the user's epoch, and the keys of the sessions that were ended to make room.

        Args:
            user_id: whose session it is.
            store_key: the key that it is going to have.
            ends_at_ms: when its lifetime ends.
            replacing: the key that it has until then, if it is renewed.
            is_login: whether the limit on sessions counts.

        Raises:
            TooManySessions: the user has as many as allowed, and the newest is to be refused.
        """
        tag = user_tag(user_id)
        key = index_key(tag)
        base, (epoch_data,) = yield from self._keeper.find(key, epoch_key(tag))
        epoch = self.epoch_in(tag, epoch_data)
        ended: list[str] = []
        for _ in range(MAX_CONFLICTS):
            entries = _entries(base[1])
            entered_at_ms = self._next_moment(entries)
            since_ms = entries[replacing].since_ms if replacing in entries else entered_at_ms
            others = {other: entry for other, entry in entries.items() if other not in (store_key, replacing)}
            leaving = yield from self._make_room(others, epoch, ended, is_login=is_login)
            kept = {other: entry for other, entry in (entries | others).items() if other not in leaving}
            index = UserIndex(kept | {store_key: IndexEntry(since_ms, ends_at_ms, entered_at_ms)})
            base = yield from self._keeper.swap(key, base, index, self._index_ttl_ms(index))
            if base[1] is index:
                return epoch, ended
        raise too_many_conflicts(key)

    def _make_room(self, others: Entries, epoch: int, ended: list[str], *, is_login: bool) -> Steps[set[str]]:
        """Give the entries that may go: dead ones, and where the user has too many sessions, the oldest.

        The latter are ended, and added to `ended`. Those of `others` that outlive their entry get a later end.
        """
        limit = self._max_sessions if is_login else None
        is_full = limit is not None and len({entry.since_ms for entry in others.values()}) >= limit
        # An entry says when the session ends by the lifetime of its login. Whether it has, only the session can tell.
        now_ms = self._keeper.now_ms()
        overdue = {other: entry for other, entry in others.items() if entry.ends_at_ms <= now_ms}
        is_to_prune = not overdue and not len(others) % _PRUNE_EVERY
        looked_at = others if is_full or is_to_prune else overdue
        if not looked_at:
            return set()
        leaving = yield from self._dead(looked_at, epoch)
        for other in overdue.keys() - leaving:
            # It goes by a longer lifetime than that of its login. So it is not looked at by each one from now on.
            others[other] = replace(others[other], ends_at_ms=now_ms + self._keeper.lifetime_ms)
        # A session that is being renewed has two keys, and one age.
        ages = sorted({entry.since_ms for other, entry in others.items() if other not in leaving})
        too_many = 0 if limit is None else len(ages) - limit + 1
        if too_many <= 0:
            return leaving
        if self._when_full == "refuse":
            msg = f"The user has {limit} sessions, which is max_sessions_per_user; one has to end first"
            raise TooManySessions(msg)
        for other, entry in others.items():
            if other not in leaving and entry.since_ms in ages[:too_many]:
                # It must be gone before the index forgets it, or it could live on unknown. One that is about to be
                # stored must not be stored any more.
                if (yield from self._keeper.end(other, is_pending=True)) is not None:
                    ended.append(other)
                leaving.add(other)
        return leaving

    def _dead(self, entries: Entries, epoch: int) -> Steps[set[str]]:
        """Give the keys that lead to no live session, apart from those that may be about to."""
        pending_since_ms = self._pending_since_ms()
        dead: set[str] = set()
        for chunk in _chunks(list(entries)):
            loaded = yield from fetch(*chunk)
            for key, data in zip(chunk, loaded, strict=True):
                record = self._session(key, data)
                if record is None:
                    is_dead = data is not None or entries[key].entered_at_ms <= pending_since_ms
                else:
                    is_dead = not is_of_epoch(record, epoch)
                if is_dead:
                    dead.add(key)
        return dead

    def leave(self, user_id: str, store_keys: Iterable[str]) -> Steps[None]:
        """Take sessions that have ended out of their user's index."""
        gone = set(store_keys)
        yield from self._forget(user_id, lambda key, _: key in gone)

    def _forget(self, user_id: str, is_gone: Callable[[str, IndexEntry], bool]) -> Steps[None]:
        def without(index: UserIndex | None) -> UserIndex | None:
            entries = _entries(index)
            kept = {key: entry for key, entry in entries.items() if not is_gone(key, entry)}
            return None if len(kept) == len(entries) else UserIndex(kept)

        yield from self._keeper.keep(index_key(user_tag(user_id)), without, self._index_ttl_ms)

    def has(self, user_id: str, store_key: str) -> Steps[bool]:
        """Tell whether a session is a user's. The index knows all of them."""
        (_, index), _ = yield from self._keeper.find(index_key(user_tag(check_user_id(user_id))))
        return store_key in _entries(index)

    # --- looking ----------------------------------------------------------------------------------------------

    def sessions(self, user_id: str) -> Steps[dict[str, tuple[Record, int]]]:
        """Give a user's live sessions: store key -> (record, time left in milliseconds), oldest first."""
        tag = user_tag(user_id)
        (_, index), (epoch_data,) = yield from self._keeper.find(index_key(tag), epoch_key(tag))
        entries = _entries(index)
        epoch = self.epoch_in(tag, epoch_data)
        alive = yield from self._alive(sorted(entries, key=lambda key: entries[key]), epoch)
        return {key: found for key, found in alive.items() if found[0].user_id == user_id}

    def _alive(self, store_keys: list[str], epoch: int) -> Steps[dict[str, tuple[Record, int]]]:
        """Load sessions in bounded pieces; give those that are alive."""
        alive: dict[str, tuple[Record, int]] = {}
        for chunk in _chunks(store_keys):
            loaded = yield from fetch(*chunk)
            left = cast("list[int | None]", (yield TimeLeft(tuple(chunk))))
            for key, data, left_ms in zip(chunk, loaded, left, strict=True):
                record = self._session(key, data)
                if record is not None and left_ms is not None and is_of_epoch(record, epoch):
                    alive[key] = (record, left_ms)
        return alive

    def page(self, cursor: str, size: int) -> Steps[tuple[dict[str, tuple[Record, int]], str]]:
        """Give about `size` of all live sessions, and the cursor of the next page, "" at the end."""
        keys, cursor = cast("tuple[list[str], str]", (yield Scan(cursor, size)))
        alive = yield from self._alive([key for key in keys if is_store_key(key)], 0)
        tags = {key: tag_of(record.login) for key, (record, _) in alive.items() if record.login is not None}
        epoch_of = dict.fromkeys(tags.values(), 0)
        if epoch_of:
            loaded = yield from fetch(*map(epoch_key, epoch_of))
            epoch_of = {tag: self.epoch_in(tag, data) for tag, data in zip(epoch_of, loaded, strict=True)}
        of_present = {
            key: found for key, found in alive.items() if key not in tags or is_of_epoch(found[0], epoch_of[tags[key]])
        }
        return of_present, cursor

    def _session(self, store_key: str, data: bytes | None) -> Record | None:
        try:
            _, record = self._keeper.current(store_key, data)
        except (UndecodableRecord, ForeignRecord):
            return None
        return record if isinstance(record, Record) else None

    # --- ending all -------------------------------------------------------------------------------------------

    def end_all(self, user_id: str, keep: str | None) -> Steps[list[str]]:
        """End every session of a user, but the one of the store key `keep`. Gives the keys of those that it found.

        The epoch ends also what the index has lost, and what is about to be stored: a login that is under way has
        read the old epoch, or the new one and then it is a later login.
        """
        tag = user_tag(user_id)
        base, (epoch_data,) = yield from self._keeper.find(index_key(tag), epoch_key(tag))
        epoch = max(self.epoch_in(tag, epoch_data) + 1, self._keeper.now_ms())
        spared = {keep}
        if keep is not None:
            kept = yield from self._lift(keep, user_id, epoch)
            # A renewal of it that is under way has the same age, and ends with the epoch if it knows only the old one.
            entries = _entries(base[1])
            ages = {entries[key].since_ms for key in (keep, kept) if key in entries}
            spared |= {kept, *(key for key, entry in entries.items() if entry.since_ms in ages)}

        def risen(found: UserEpoch | None) -> UserEpoch | None:
            return None if found is not None and found.epoch >= epoch else UserEpoch(epoch)

        yield from self._keeper.keep(epoch_key(tag), risen, lambda _: self._epoch_ttl_ms)
        pending_since_ms = self._pending_since_ms()
        (_, index), _ = yield from self._keeper.find(index_key(tag))
        listed = [key for key in _entries(index) if key not in spared]
        ended: list[str] = []
        for key in listed:
            session = yield from self._keeper.end(key)
            if session is not None:
                ended.append(key)
        gone = set(ended)
        yield from self._forget(
            user_id,  # but keep what leads nowhere yet and may be about to be stored
            lambda key, entry: key in gone or (key not in spared and entry.entered_at_ms <= pending_since_ms),
        )
        return ended

    def _lift(self, store_key: str, user_id: str, epoch: int) -> Steps[str]:
        """Carry one session over into a new epoch. Gives the key that it has now."""
        (revision, record), _ = yield from self._keeper.find(store_key)
        for _ in range(MAX_CONFLICTS):
            if isinstance(record, Moved):
                store_key = record.successor
                (revision, record), _ = yield from self._keeper.find(store_key)
                continue
            if not isinstance(record, Record) or record.login is None or record.login.user_id != user_id:
                return store_key
            lifted = replace(record, login=replace(record.login, epoch=epoch))
            ttl_ms = self._keeper.ttl_ms(record.created_at_ms, record.limits)
            revision, record = yield from self._keeper.replace(store_key, revision, lifted, ttl_ms)
            if record is lifted:
                return store_key
        raise too_many_conflicts(store_key)

    # --- the rest ---------------------------------------------------------------------------------------------

    def epoch_in(self, tag: bytes, data: bytes | None) -> int:
        """Read an epoch that was loaded together with a session. One that can't be read ends the sessions so far."""
        if data is None:  # as for most users
            return 0
        try:
            _, found = self._keeper.current(epoch_key(tag), data)
        except (UndecodableRecord, ForeignRecord) as error:
            report(epoch_key(tag), error)
            return _UNREADABLE_EPOCH
        return found.epoch if isinstance(found, UserEpoch) else 0

    def _pending_since_ms(self) -> int:
        """Give since when an entry may have been made whose session is yet to be stored."""
        return self._keeper.now_ms() - PENDING_MS

    def _next_moment(self, entries: Entries) -> int:
        """Give the time, but later than all entries: logins in one millisecond have an order, too."""
        return max(self._keeper.now_ms(), 1 + max((entry.entered_at_ms for entry in entries.values()), default=0))

    def _index_ttl_ms(self, index: UserIndex) -> int:
        """An index outlives every session in it; an empty one goes soon."""
        return self._index_kept_ms if index.entries else MOVED_MS


def _entries(index: AnyRecord | None) -> Entries:
    return index.entries if isinstance(index, UserIndex) else {}


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut what is to be loaded into pieces that one answer can hold."""
    return (keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK))


def is_of_epoch(record: Record, epoch: int) -> bool:
    """Tell whether a session is from the user's present epoch."""
    return record.login is None or record.login.epoch >= epoch
