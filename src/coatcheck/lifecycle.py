"""The rules of a session's life, free of I/O: when to read, what to write, what a conflict means, which cookie to send.

Where a rule needs the store, it is a generator that yields one store operation after the other and is sent each one's
result. `coatcheck.drivers` runs such generators, with or without `await`; a test can run them by hand.

    begin   which session does this request claim?   no I/O
    load    what does the store hold of it?          one read
    commit  what has changed?                        nothing, or one conditional write
    cookie  what must the client be told?            no I/O
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Final, TypeAlias, TypeVar, cast

from coatcheck import record as records
from coatcheck.config import SessionConfig
from coatcheck.cookie import CookieWriter
from coatcheck.errors import ForeignRecord, RecordTooLarge, StoreUnavailable, TooManyConflicts, UndecodableRecord
from coatcheck.operations import Create, Delete, Load, Operation, Reset, Touch, Update
from coatcheck.record import Moved, Record, Values
from coatcheck.stores.protocol import Outcome
from coatcheck.token import TokenSigner
from coatcheck.working_copy import Patch, Standing, WorkingCopy, apply

T = TypeVar("T")
# object: each operation has a result of its own type, which a generator's type can't say.
Steps: TypeAlias = Generator[Operation, object, T]
"""A rule at work: yields operations, is sent their results, returns a T."""

logger: Final = logging.getLogger("coatcheck")

MAX_CONFLICTS: Final = 256
"""How often a commit is tried again because another request was faster. Each time, one of the others has won."""

MOVED_MS: Final = 60_000
"""How long it is remembered that a session was renewed: longer than requests take that were under way then."""

_MAX_COOKIES: Final = 8
"""Cookies of our name in one request beyond which none is looked at."""


class Lifecycle:
    """The rules, for one configuration."""

    __slots__ = (
        "_clock",
        "_cookies",
        "_idle_ms",
        "_lifetime_ms",
        "_max_keys",
        "_max_record_bytes",
        "_persistent",
        "_refresh_ms",
        "_signer",
    )

    def __init__(self, config: SessionConfig) -> None:
        self._clock: Callable[[], float] = config.clock
        self._signer = TokenSigner(config.key_material, config.cookie.full_name)
        self._cookies = CookieWriter(config.cookie)
        self._persistent = config.cookie.persistent
        self._idle_ms = round(config.idle_timeout.total_seconds() * 1000)
        self._lifetime_ms = round(config.lifetime.total_seconds() * 1000)
        self._refresh_ms = int(self._idle_ms * config.refresh_after)
        self._max_record_bytes = config.max_record_bytes
        self._max_keys = config.max_keys

    # --- begin ------------------------------------------------------------------------------------------------

    def begin(self, tokens: Sequence[bytes]) -> WorkingCopy:
        """Start work for a client that presented these cookie values.

        Two cookies of one name are ambiguous: browsers send those of sibling domains along, in an order that an
        attacker can influence. A token counts only if it is the only genuine one, never by its place.
        """
        now_ms = self._now_ms()
        work = WorkingCopy(now_ms)
        if not tokens:
            return work
        work.cookie_is_stale = True
        if len(tokens) > _MAX_COOKIES:
            return work
        genuine = [token for token in map(self._signer.verify, tokens) if token is not None]
        if len(genuine) != 1:
            return work
        session_id, issued_at_s, by_older_key = genuine[0]
        if now_ms - issued_at_s * 1000 >= self._lifetime_ms:
            return work
        work.cookie_is_stale = False
        work.session_id = session_id
        work.issued_at_ms = issued_at_s * 1000
        work.by_older_key = by_older_key
        work.standing = Standing.UNLOADED
        return work

    # --- load -------------------------------------------------------------------------------------------------

    def load(self, work: WorkingCopy) -> Steps[None]:
        """Find what the store holds. A session that is not there, or can't be used, makes the client start anew."""
        if work.standing is not Standing.UNLOADED:
            return
        store_key = work.identity.store_key
        revision, record = yield from self._find(store_key)
        if isinstance(record, Record):
            work.found(revision, record)
        elif record is not None:
            work.let_go(Standing.SUPERSEDED)
        else:
            work.let_go(Standing.NEW)
            work.cookie_is_stale = True

    def _find(self, store_key: str) -> Steps[tuple[bytes, Record | Moved | None]]:
        try:
            return self._current(store_key, (yield from _fetch(store_key)))
        except UndecodableRecord as error:
            self._report(store_key, error)
            return b"", None
        except ForeignRecord as error:
            self._report(store_key, error)
        # Either the connection mixes up replies, and then it must not be used again, or somebody moved the record.
        # A second read, on a new connection, tells which it is.
        yield Reset()
        try:
            return self._current(store_key, (yield from _fetch(store_key)))
        except (UndecodableRecord, ForeignRecord) as error:
            self._report(store_key, error)
            return b"", None

    def _current(self, store_key: str, data: object) -> tuple[bytes, Record | Moved | None]:
        """Decode what a store gave, and see through what is past its time though the store may not know it."""
        if not isinstance(data, bytes):
            return b"", None
        revision, record = records.decode(store_key, data)
        if isinstance(record, Record):
            is_over = self._time_left_ms(record.created_at_ms) <= 0  # the setting may be shorter than it was
        else:
            is_over = record.until_ms <= self._now_ms()
        return revision, None if is_over else record

    def _report(self, store_key: str, error: Exception) -> None:
        logger.error(
            "The record of session %s can't be used and is left as it is; the client starts anew: %s", store_key, error
        )

    # --- commit -----------------------------------------------------------------------------------------------

    def commit(self, work: WorkingCopy) -> Steps[None] | None:
        """Give the steps that store what has changed, or None when there is nothing to do.

        Afterwards the working copy holds what the store holds. A session that ended meanwhile is not brought back:
        what was changed in it is dropped, and `work.standing` says so.

        Raises UnsupportedValue here; RecordTooLarge or TooManyConflicts from the steps. What was stored before is
        then untouched.
        """
        if work.destroyed:
            return self._end_and_commit(work)
        if work.standing is Standing.NEW:
            patch = work.patch()
            return self._create(work, patch) if patch else None
        if work.standing is not Standing.STORED:
            return None
        patch = work.patch()
        if work.predecessor is not None:
            return self._renew(work, work.predecessor.store_key, patch)
        if patch or work.remember is not work.stored.remember:
            return self._update(work, patch)
        return self._touch(work) if self._refresh_is_due(work) else None

    def end_destroyed(self, work: WorkingCopy) -> Steps[None]:
        """End the sessions that the application destroyed. Done even when the rest of the request has failed."""
        while work.destroyed:
            yield from self._end(work.destroyed[-1])
            work.destroyed.pop()

    def _end(self, store_key: str) -> Steps[None]:
        """Delete a session; if it was renewed meanwhile, where it is now."""
        key: str | None = store_key
        while key is not None:
            deleted = yield Delete(key)
            try:
                _, record = self._current(key, deleted)
            except (UndecodableRecord, ForeignRecord):
                return  # whatever it was, it is gone
            key = record.successor if isinstance(record, Moved) else None

    def _end_and_commit(self, work: WorkingCopy) -> Steps[None]:
        yield from self.end_destroyed(work)
        rest = self.commit(work)
        if rest is not None:
            yield from rest

    def _create(self, work: WorkingCopy, patch: Patch) -> Steps[None]:
        record = Record(work.opened_at_ms, self._now_ms(), work.remember, apply(patch, {}))
        revision = yield from self._put(work.identity.store_key, record)
        work.committed(revision, record, record.values)
        self._issue(work)

    def _update(self, work: WorkingCopy, patch: Patch) -> Steps[None]:
        """Write the patch on the record that we know; if there is a newer one, on that, until it succeeds."""
        store_key, base_revision, base = work.identity.store_key, work.revision, work.stored
        remember_changed = work.remember is not base.remember
        expected = values = apply(patch, base.values)
        for _ in range(MAX_CONFLICTS):
            remember = work.remember if remember_changed else base.remember
            record = Record(base.created_at_ms, self._now_ms(), remember, values)
            found_revision, found = yield from self._replace(
                store_key, base_revision, record, self._ttl_ms(base.created_at_ms)
            )
            if found is record:
                work.committed(found_revision, record, expected)
                if remember_changed or self._refresh_is_due(work):
                    self._issue(work)
                return
            if not isinstance(found, Record):
                self._lose(work, found)
                return
            base_revision, base = found_revision, found
            values = apply(patch, base.values)
        raise _too_many_conflicts(store_key)

    def _renew(self, work: WorkingCopy, old_key: str, patch: Patch) -> Steps[None]:
        """Store the session under its new ID, then put a `Moved` in the place of the old record.

        In this order a crash in between leaves the old session as it was, and a new one whose ID nobody was told.
        The second step is the one that counts: if the old session ended or was renewed meanwhile, the new one goes.
        """
        new_key, base_revision, base = work.identity.store_key, work.revision, work.stored
        expected = values = apply(patch, base.values)
        revision = b""
        for _ in range(MAX_CONFLICTS):
            record = Record(base.created_at_ms, self._now_ms(), work.remember, values)
            revision = yield from self._put(new_key, record, revision)
            moved = Moved(new_key, self._now_ms() + MOVED_MS)
            found_revision, found = yield from self._replace(old_key, base_revision, moved, MOVED_MS)
            if found is moved:
                work.committed(revision, record, expected)
                work.predecessor = None
                self._issue(work)
                return
            if not isinstance(found, Record):
                yield Delete(new_key)
                self._lose(work, found)
                return
            base_revision, base = found_revision, found
            values = apply(patch, base.values)
        yield Delete(new_key)
        raise _too_many_conflicts(old_key)

    def _touch(self, work: WorkingCopy) -> Steps[None]:
        """Extend the time of a session that was only read."""
        store_key = work.identity.store_key
        ttl_ms = self._ttl_ms(work.stored.created_at_ms)
        data = (yield Touch(store_key, ttl_ms)) if ttl_ms > 0 else None
        try:
            _, found = self._current(store_key, data)
        except (UndecodableRecord, ForeignRecord) as error:
            self._report(store_key, error)
            found = None
        if isinstance(found, Record):
            self._issue(work)
        else:
            self._lose(work, found)

    # --- steps that rules share -------------------------------------------------------------------------------

    def _put(self, store_key: str, record: Record, replacing: bytes = b"") -> Steps[bytes]:
        """Store a record whose key only this request knows; give its revision.

        `replacing` is the revision of what an earlier round of this request stored under the key.
        """
        revision, data = self._encoded(store_key, record)
        ttl_ms = max(self._ttl_ms(record.created_at_ms), 1)
        if replacing:
            stored = (yield Update(store_key, replacing, data, ttl_ms)) is Outcome.DONE
        else:
            stored = (yield Create(store_key, data, ttl_ms)) is True
        if stored:
            return revision
        # Two IDs are never the same by chance. But a client library that was unsure of a command's fate may have
        # sent it twice, and then finds its own record in the way.
        existing = yield from _fetch(store_key)
        if existing is not None and existing[records.REVISION] == revision:
            return revision
        msg = f"The store has something else under the key of the new session {store_key}"
        raise StoreUnavailable(msg)

    def _replace(
        self, store_key: str, revision: bytes, record: Record | Moved, ttl_ms: int
    ) -> Steps[tuple[bytes, Record | Moved | None]]:
        """Replace the record that has this revision.

        Gives what the store holds afterwards, with its revision: `record` itself if it was stored; else the newer
        record, or None for a session that has ended.
        """
        if ttl_ms <= 0:
            return b"", None
        new_revision, data = self._encoded(store_key, record)
        result = yield Update(store_key, revision, data, ttl_ms)
        if result is Outcome.DONE:
            return new_revision, record
        try:
            found_revision, found = self._current(store_key, result)
        except UndecodableRecord as error:
            self._report(store_key, error)
            return b"", None
        except ForeignRecord as error:
            yield Reset()
            msg = f"The store answered for another session than {store_key}; its connections were closed"
            raise StoreUnavailable(msg) from error
        if found_revision == new_revision:  # sent twice, see _put
            return new_revision, record
        return found_revision, found

    def _encoded(self, store_key: str, record: Record | Moved) -> tuple[bytes, bytes]:
        """Give a new revision, and the record's bytes with it."""
        revision = records.new_revision()
        data = records.encode(store_key, revision, record)
        if isinstance(record, Record):
            self._check_limits(record.values, len(data))
        return revision, data

    def _check_limits(self, values: Values, size: int) -> None:
        if len(values) > self._max_keys:
            msg = f"The session would have {len(values)} keys; max_keys allows {self._max_keys}. Nothing was stored"
            raise RecordTooLarge(msg)
        if size > self._max_record_bytes:
            largest = max(values, key=lambda key: len(bytes(values[key])), default="")
            msg = (
                f"The session would take {size} bytes; max_record_bytes allows {self._max_record_bytes}. "
                f"Nothing was stored. Its largest value is session[{largest!r:.80}]"
            )
            raise RecordTooLarge(msg)

    def _lose(self, work: WorkingCopy, found: Moved | None) -> None:
        work.let_go(Standing.ENDED if found is None else Standing.SUPERSEDED)
        work.cookie_is_stale = found is None

    def _issue(self, work: WorkingCopy) -> None:
        work.issued_at_ms = self._now_ms()
        work.by_older_key = False
        work.issues_cookie = True

    # --- the client -------------------------------------------------------------------------------------------

    def cookie(self, work: WorkingCopy) -> str | None:
        """Give the Set-Cookie value that is due after a commit, once."""
        if work.issues_cookie:
            work.issues_cookie = work.cookie_is_stale = False
            persistent = self._persistent if work.remember is None else work.remember
            max_age_s = self._time_left_ms(work.stored.created_at_ms) // 1000 if persistent else None
            return self._cookies.issue(self.token(work), max_age_s)
        if work.cookie_is_stale:
            work.cookie_is_stale = False
            return self._cookies.clear
        return None

    def token(self, work: WorkingCopy) -> str:
        """Give the session's token."""
        return self._signer.sign(work.identity, work.issued_at_ms // 1000)

    # --- time -------------------------------------------------------------------------------------------------

    def expires_at_ms(self, work: WorkingCopy) -> int:
        """Give the time at which the session ends if it is not used again."""
        if work.record is None:
            return work.opened_at_ms + min(self._idle_ms, self._lifetime_ms)
        last_used_ms = max(work.record.updated_at_ms, work.issued_at_ms)
        return min(last_used_ms + self._idle_ms, work.record.created_at_ms + self._lifetime_ms)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _time_left_ms(self, created_at_ms: int) -> int:
        return created_at_ms + self._lifetime_ms - self._now_ms()

    def _ttl_ms(self, created_at_ms: int) -> int:
        return min(self._idle_ms, self._time_left_ms(created_at_ms))

    def _refresh_is_due(self, work: WorkingCopy) -> bool:
        """Tell whether use has to extend the session. The token's time of issue says when that was last done."""
        return work.accessed and (work.by_older_key or self._now_ms() - work.issued_at_ms >= self._refresh_ms)


def _fetch(store_key: str) -> Steps[bytes | None]:
    """Load one record."""
    loaded = yield Load((store_key,))
    (data,) = cast("list[bytes | None]", loaded)
    return data


def _too_many_conflicts(store_key: str) -> TooManyConflicts:
    return TooManyConflicts(f"Other requests changed the session {store_key} {MAX_CONFLICTS} times while one committed")
