"""The rules of a session's life, free of I/O: when to read, what to write, what a conflict means, which cookie to send.

Where a rule needs the store, it is a generator that yields one store operation after the other and is sent each one's
result. `coatcheck.drivers` runs such generators, with or without `await`; a test can run them by hand. What the rules
have in common with those of `users` is in `keeper`.

    begin   which session does this request claim?   no I/O
    load    what does the store hold of it?          one read
    commit  what has changed?                        nothing, or one conditional write
    cookie  what must the client be told?            no I/O
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from msgspec.structs import replace

from coatcheck import record as records
from coatcheck.adopters import Claimed, Source
from coatcheck.adoption import Adoption, Heir, longest_lifetime
from coatcheck.changes import NO_CHANGES, Patch, apply
from coatcheck.config import SessionConfig
from coatcheck.cookie import CookieWriter
from coatcheck.devices import ClientAddress, Device, remembered
from coatcheck.errors import ForeignRecord, UndecodableRecord
from coatcheck.events import Event
from coatcheck.keeper import MAX_CONFLICTS, MOVED_MS, NOTHING_FOUND, Found, Keeper, Steps, fetch, too_many_conflicts
from coatcheck.operations import Delete, Load, Pause, Touch
from coatcheck.record import AnyRecord, Login, Moved, Record
from coatcheck.token import Tokens, TokenSigner, VerifiedToken
from coatcheck.users import Users, check_user_id, epoch_key, is_of_epoch, tag_of
from coatcheck.working_copy import CLAIMED, WorkingCopy

_SKEW_MS: Final = 60_000
_MAX_ATTEMPTS: Final = 3

_MAX_COOKIES: Final = 8
"""Cookies of our name in one request beyond which none is looked at."""


class Lifecycle:
    """The rules, for one configuration, and for one form of token: Coatcheck's own unless another is given."""

    __slots__ = (
        "_client_address",
        "_cookies",
        "_end_on_reuse",
        "_grace_ms",
        "_keeps_user_agent",
        "_persistent",
        "_refresh_after",
        "_refresh_ms",
        "_renew_every_ms",
        "_tokens",
        "adoption",
        "keeper",
        "users",
    )

    def __init__(self, config: SessionConfig, sources: Sequence[Source] = (), tokens: Tokens | None = None) -> None:
        self.keeper = Keeper(config)
        old_lifetime_ms = round(longest_lifetime(sources).total_seconds() * 1000)
        self.users = Users(self.keeper, config.max_sessions_per_user, config.when_full, old_lifetime_ms=old_lifetime_ms)
        self.adoption = Adoption(config, self.keeper, self.users, sources, self._device)
        self._tokens = tokens or TokenSigner(config.key_material, config.cookie.full_name)
        self._cookies = CookieWriter(config.cookie)
        self._persistent = config.cookie.persistent
        self._refresh_after = config.refresh_after
        self._refresh_ms = int(self.keeper.idle_ms * config.refresh_after)
        self._renew_every_ms = None if config.renew_every is None else round(config.renew_every.total_seconds() * 1000)
        self._grace_ms = round(config.renewal_grace.total_seconds() * 1000)
        self._end_on_reuse = config.end_on_reuse
        self._keeps_user_agent = config.user_agent
        self._client_address: ClientAddress = config.client_address

    # --- begin ------------------------------------------------------------------------------------------------

    def begin(self, tokens: Sequence[bytes]) -> WorkingCopy:
        """Start work for a client that presented these cookie values.

        Two cookies of one name are ambiguous: browsers send those of sibling domains along, in an order that an
        attacker can influence. A token counts only if it is the only genuine one, never by its place.
        """
        now_ms = self.keeper.now_ms()
        work = WorkingCopy(now_ms, self._tokens.new_id)
        if not tokens:
            return work
        genuine = (self._tokens.verify(tokens[0]) or "forged") if len(tokens) == 1 else self._newest(tokens)
        if isinstance(genuine, str):
            return _refused(work, genuine)
        issued_at_ms = genuine.issued_at * 1000
        if now_ms - issued_at_ms >= self.keeper.lifetime_ms:
            return _refused(work, "stale")
        work.session_id = genuine.session_id
        work.issued_at_ms = issued_at_ms
        work.user_tag = genuine.user_tag
        work.by_older_key = genuine.by_older_key
        work.standing = "unloaded"
        work.settled = False
        return work

    def claim(self, work: WorkingCopy, cookie_headers: Sequence[bytes]) -> None:
        """See whether a client without a genuine token has a genuine cookie of a system whose sessions are adopted."""
        work.claimed = self.adoption.find(cookie_headers)
        if work.claimed is not None:
            work.standing = "unloaded"
            work.settled = False

    def _newest(self, tokens: Sequence[bytes]) -> VerifiedToken | str:
        """Give the genuine token of several, the newest if they are for one session; or why none counts.

        A browser has two of one session when the cookie's domain or path was changed while it lived.
        """
        if len(tokens) > _MAX_COOKIES:
            return "ambiguous"
        genuine = [token for token in map(self._tokens.verify, tokens) if token is not None]
        if len({token.session_id.store_key for token in genuine}) > 1:
            return "ambiguous"
        return max(genuine, key=lambda token: token.issued_at, default="forged")

    # --- load -------------------------------------------------------------------------------------------------

    def load(self, work: WorkingCopy) -> Steps[None]:
        """Find what the store holds. A session that is not there, or can't be used, makes the client start anew."""
        if work.standing == "unloaded" and work.claimed is not None:
            yield from self._adopt(work, work.claimed)
        keys = self.keys_to_load(work)
        if keys:
            rest = self.loaded(work, keys, cast("list[bytes | None]", (yield Load(keys))))
            if rest is not None:
                yield from rest

    # The two halves of `load` are plain functions, because they are on the path of every request that has a session,
    # and nearly always there is nothing between and after them but one read.

    def keys_to_load(self, work: WorkingCopy) -> tuple[str, ...]:
        """Give the keys to read first: the session's, and that of its user's epoch. None when there is no need."""
        if work.standing != "unloaded":
            return ()
        if work.session_id is None:  # a client without a session, see BaseSession.wait_for_load
            work.standing = "new"
            return ()
        if work.user_tag:
            return work.session_id.store_key, epoch_key(work.user_tag)
        return (work.session_id.store_key,)

    def loaded(self, work: WorkingCopy, keys: tuple[str, ...], data: list[bytes | None]) -> Steps[None] | None:
        """Take in what was read under these keys; give the steps that are left, if any."""
        try:
            found = self.keeper.current(keys[0], data[0])
        except (UndecodableRecord, ForeignRecord) as error:
            return self._load_again(work, keys, error)
        return self._take(work, found, data[1] if len(data) > 1 else None)

    def _load_again(
        self, work: WorkingCopy, keys: tuple[str, ...], error: UndecodableRecord | ForeignRecord
    ) -> Steps[None]:
        found, epochs = yield from self.keeper.find_again(*keys, because_of=error)
        rest = self._take(work, found, epochs[0] if epochs else None)
        if rest is not None:
            yield from rest

    def _adopt(self, work: WorkingCopy, claimed: Claimed) -> Steps[None]:
        """Adopt a session, or find that it was adopted, so that it is read as if the client had brought its token."""
        heir = yield from self.adoption.adopt(work, claimed)
        if work.standing != "unloaded":
            return  # it was destroyed, or loaded by another task, meanwhile
        if isinstance(heir, Heir):
            work.session_id, work.user_tag = heir
            return
        work.let_go("new")
        if heir is not None:
            work.remember = heir.remember
            for key, value in heir.values.items():
                work.assign(key, value)

    def _take(self, work: WorkingCopy, found: Found, epoch_data: bytes | None) -> Steps[None] | None:
        """Work on what was found, if it is this client's and alive.

        Gives the steps that are left for a session that was renewed, or whose token does not say whose it is.
        """
        if work.standing != "unloaded":
            return None  # it was destroyed, or loaded by another task, while the store was at work
        revision, record = found
        if isinstance(record, Moved):
            return self._load_moved(work, record, epoch_data)
        tag = work.user_tag
        if tag is None:
            return self._take_untagged(work, found)
        if (
            isinstance(record, Record)
            and tag_of(record.login) == tag
            and (epoch_data is None or is_of_epoch(record, self.users.epoch_in(tag, epoch_data)))
        ):
            work.found(revision, record)
        else:
            _refused(work, "ended")
            work.let_go("new")
        return None

    def _take_untagged(self, work: WorkingCopy, found: Found) -> Steps[None]:
        """Do as `_take`, for tokens that don't say whose session it is: the epoch is asked for once that is known."""
        if (
            self._tokens.carry_sessions
            and isinstance(found[1], Record)
            and self._was_unused_for_too_long(work, found[1])
        ):
            found = NOTHING_FOUND  # no store was there to forget it
        tag = tag_of(found[1].login) if isinstance(found[1], Record) else b""
        (epoch_data,) = (yield from fetch(epoch_key(tag))) if tag else (None,)
        work.user_tag = tag  # not before, or another task of the request would do without the epoch
        self._take(work, found, epoch_data)

    def _load_moved(self, work: WorkingCopy, moved: Moved, epoch_data: bytes | None) -> Steps[None]:
        """A session that was renewed: go after it in the grace after a renewal by the clock, and only then."""
        now_ms = self.keeper.now_ms()
        if self._is_in_grace(moved):
            work.moved_to = moved.successor
            found, _ = yield from self.keeper.find(moved.successor)
            if isinstance(found[1], Moved) and not found[1].successor:
                found = NOTHING_FOUND  # it was ended before it was stored there
            rest = self._take(work, found, epoch_data)
            if rest is not None:
                yield from rest
            return
        if moved.grace_until_ms and work.claimed is None:  # an old system's cookie that was kept is no sign of a theft
            work.note(Event("reused", moved.successor))
            if self._end_on_reuse:
                yield from self.keeper.end(moved.successor)
                work.note(Event("revoked", moved.successor, reason="an old ID was used"))
        if now_ms < moved.until_ms:
            self._superseded(work, moved)
        else:
            _refused(work, "renewed")
            work.let_go("new")

    def refresh(self, work: WorkingCopy) -> Steps[None] | None:
        """Give the steps that take in what others have stored meanwhile."""
        if work.standing == "unloaded":
            return self.load(work)
        if work.standing != "stored" or work.predecessor is not None:
            return None
        return self._refresh(work)

    def _refresh(self, work: WorkingCopy) -> Steps[None]:
        patch, tag = work.empty_patch(), tag_of(work.login)
        found, epochs = yield from self.keeper.find(work.store_key, *((epoch_key(tag),) if tag else ()))
        revision, record = found
        epoch = self.users.epoch_in(tag, epochs[0]) if epochs else 0
        if work.life != patch.life:
            return  # it was let go of while the store was at work
        if isinstance(record, Record) and is_of_epoch(record, epoch):
            work.refreshed(revision, record)
        else:
            yield from self._follow(work, None if isinstance(record, Record) else record, patch)

    # --- commit -----------------------------------------------------------------------------------------------

    def commit(self, work: WorkingCopy) -> Steps[None] | None:
        """Give the steps that store what has changed, or None when there is nothing to do.

        Afterwards the working copy holds what the store holds. A session that ended meanwhile is not brought back:
        what was changed in it is dropped, and `work.standing` says so.

        Raises UnsupportedValue here; RecordTooLarge, TooManySessions or TooManyConflicts from the steps. What was
        stored before is then untouched.
        """
        if work.destroyed:
            return self._end_and_commit(work)
        if work.standing not in {"stored", "new"}:
            if work.standing == "unavailable":
                work.write_views()  # which raises if anything was changed there; elsewhere the change itself has raised
            return None
        patch = work.patch()
        if work.standing == "new":
            if patch:
                self.check_change_can_be_sent(work)
            steps = self._create(work, patch or work.empty_patch()) if patch or work.login_is_new else None
        elif work.predecessor is not None:
            steps = self._renew(work, work.predecessor_key, patch or work.empty_patch())
        elif patch or work.terms_changed:
            self.check_change_can_be_sent(work)
            steps = self._update(work, patch or work.empty_patch())
        else:
            steps = self._extend(work) if self._refresh_is_due(work) else None
        work.settled = steps is None and patch is NO_CHANGES
        return steps

    def settle(self, work: WorkingCopy) -> bool:
        """Tell whether a response may leave at once, as nearly always when a session was only read; take note of it.

        False where `conclude` has to see what there is to do.
        """
        if not work.is_as_found() or self._refresh_is_due(work):
            return False
        if self._renew_every_ms is not None and self._renewal_is_due(work, self._renew_every_ms):
            return False
        work.settled = work.sealed = True
        return True

    def commit_anyway(self, work: WorkingCopy) -> Steps[None] | None:
        """Do as `commit`, but store a new session also when it is empty, and extend one in which nothing has changed.

        For APIs in which saving is asked for, and has to be done whatever there is to save.
        """
        steps = self.commit(work)
        if steps is None and work.standing == "new":
            return self._create(work, work.empty_patch())
        if steps is None and work.standing == "stored":
            return self._extend(work)
        return steps

    def check_change_can_be_sent(self, work: WorkingCopy) -> None:
        """Raise ResponseStarted when a change of the session needs a cookie, and the headers have left."""
        if work.sealed and (self._tokens.carry_sessions or work.standing == "new"):
            is_new = work.standing == "new"
            work.check_cookie_can_be_set("This would start a new session" if is_new else "This changes the session")

    def conclude(self, work: WorkingCopy) -> Steps[None] | None:
        """Give the steps before a response leaves: those of `commit`, and now and then a new ID.

        Only here is an ID renewed by the clock, where its cookie is sure to leave with what was stored.
        """
        if self._renew_every_ms is not None and self._renewal_is_due(work, self._renew_every_ms):
            work.renew(by_clock=True)
        # Where it could not be loaded, the old cookie is all that there is.
        if work.claimed is not None and work.standing not in {"unavailable", "unloaded"}:
            if work.standing == "new" and not work.accessed and work.has_changes():
                work.discard()  # what is in a cookie of nobody's, if it was not used, leaves nothing behind either
            else:
                self._leave_old(work, work.claimed)
        return self.commit(work)

    def _leave_old(self, work: WorkingCopy, claimed: Claimed) -> None:
        """Let the response bring the adopted session's cookie, and take the old one away.

        Only here: until a response has left, the old cookie is all that the client has.
        """
        claimed.is_to_leave = claimed.source.adopter.removes_old
        if work.standing == "stored" and work.moved_to is None and claimed.is_adopted:
            work.issues_cookie = True

    def end_destroyed(self, work: WorkingCopy) -> Steps[None]:
        """End the sessions that the application destroyed. Done even when the rest of the request has failed."""
        while work.destroyed:
            store_key = work.destroyed[0]
            if store_key == CLAIMED:
                yield from self._adopt_to_end(work)
                continue
            ended = yield from self.keeper.end(store_key)
            user_id = None if ended is None else ended.user_id
            if user_id is not None:
                yield from self.users.leave(user_id, [store_key])
            work.destroyed = work.destroyed[1:]
            work.note(Event("logout", store_key, user_id))

    def _adopt_to_end(self, work: WorkingCopy) -> Steps[None]:
        """Adopt what is to be ended, so that its old cookie leads nowhere afterwards."""
        assert work.claimed is not None  # noqa: S101 (`destroy` has seen it)
        heir = yield from self.adoption.adopt(work, work.claimed)
        adopted = (heir.session_id.store_key,) if isinstance(heir, Heir) else ()
        work.destroyed = adopted + work.destroyed[1:]

    def _end_and_commit(self, work: WorkingCopy) -> Steps[None]:
        yield from self.end_destroyed(work)
        rest = self.commit(work)
        if rest is not None:
            yield from rest

    def _create(self, work: WorkingCopy, patch: Patch) -> Steps[None]:
        store_key, patch.expected = patch.store_key, apply(patch, {})
        login = yield from self._enter(work, patch, store_key, work.opened_at_ms, None, None)
        now_ms = self.keeper.now_ms()
        record = Record(work.opened_at_ms, now_ms, now_ms, patch.remember, login, patch.expected, patch.limits)
        revision = records.new_revision()
        work.attempt(revision, patch)
        found = yield from self.keeper.put(store_key, revision, record)
        if found[1] is record:
            work.note(Event("created", store_key))
            if work.life != patch.life:  # it was destroyed while it was stored
                work.destroyed += (store_key,)
                work.cookie_is_stale = True
            self._committed(work, revision, record, patch)
            self._issue(work, patch)
        elif not (yield from self._was_ours(work, found)):
            self._lose(work, None, patch)  # somebody ended it before it was stored

    def _was_ours(self, work: WorkingCopy, found: Found) -> Steps[bool]:
        """See whether what was found is a write of this request whose fate was not known; go on from there."""
        revision, record = found
        patch = dict(work.attempts).get(revision)
        if patch is None or not isinstance(record, Record):
            return False
        yield from self._go_on_from(work, revision, record, patch)
        return True

    def _go_on_from(
        self, work: WorkingCopy, revision: bytes, record: Record, patch: Patch, previous: str = ""
    ) -> Steps[None]:
        """Take in that a patch was stored by an earlier attempt, and store what was changed since."""
        self._committed(work, revision, record, patch, previous)
        self._issue(work, patch)
        rest = self.commit(work)
        if rest is not None:
            yield from rest

    def _enter(  # noqa: PLR0913, PLR0917 (all of it is needed for an entry)
        self,
        work: WorkingCopy,
        patch: Patch,
        store_key: str,
        created_at_ms: int,
        old_key: str | None,
        login: Login | None,
    ) -> Steps[Login | None]:
        """Put a session that gets a new key into its user's index. Gives the login to store with it."""
        is_login = patch.login is not None and patch.login is not login
        if is_login:
            login = patch.login
        if login is None:
            return None
        ends_at_ms = created_at_ms + self.keeper.lifetime_ms
        epoch, ended = yield from self.users.enter(
            login.user_id, store_key, ends_at_ms, replacing=old_key, is_login=is_login
        )
        for ended_key in ended:
            work.note(Event("revoked", ended_key, login.user_id, reason="too many sessions"))
        return replace(login, epoch=epoch) if is_login else login

    def _update(self, work: WorkingCopy, patch: Patch) -> Steps[None]:
        """Write the patch on the record that we know; if there is a newer one, on that, until it succeeds."""
        store_key, base_revision, base = patch.store_key, work.revision, work.stored
        remember_changed, limits_changed = patch.remember is not base.remember, patch.limits is not base.limits
        patch.expected = merged = apply(patch, base.values)
        for conflicts in range(MAX_CONFLICTS):
            remember = patch.remember if remember_changed else base.remember
            limits = patch.limits if limits_changed else base.limits
            now_ms = self.keeper.now_ms()
            record = Record(base.created_at_ms, now_ms, base.renewed_at_ms, remember, base.login, merged, limits)
            revision, ttl_ms = records.new_revision(), self.keeper.ttl_ms(base.created_at_ms, limits)
            work.attempt(revision, patch)
            found_revision, found = yield from self.keeper.replace(store_key, base_revision, record, ttl_ms, revision)
            if found is record:
                self._committed(work, found_revision, record, patch)
                if remember_changed or self._tokens.carry_sessions or self._refresh_is_due(work):
                    self._issue(work, patch)
                return
            work.failed_attempt(revision)
            if not isinstance(found, Record):
                yield from self._follow(work, found, patch)
                return
            if (yield from self._was_ours(work, (found_revision, found))):
                return
            base_revision, base = found_revision, found
            merged = apply(patch, base.values)
            yield Pause(conflicts)
        raise too_many_conflicts(store_key)

    def _renew(self, work: WorkingCopy, old_key: str, patch: Patch) -> Steps[None]:
        """Store the session under its new ID, then put a `Moved` in the place of the old record.

        In this order a crash in between leaves the old session as it was, and a new one whose ID nobody was told.
        The second step is the one that counts: if the old session ended or was renewed meanwhile, the new one goes.
        """
        new_key, base_revision, base = patch.session_id.store_key, work.revision, work.stored
        is_login = patch.login is not base.login
        remember_changed, limits_changed = patch.remember is not base.remember, patch.limits is not base.limits
        created_at_ms = self.keeper.now_ms() if is_login else base.created_at_ms
        entered = yield from self._enter(work, patch, new_key, created_at_ms, old_key, base.login)
        patch.expected = merged = apply(patch, base.values)
        moved, moved_ttl_ms = self._moved(work, new_key)
        revision = b""
        for conflicts in range(MAX_CONFLICTS):
            now_ms = self.keeper.now_ms()
            login = entered if is_login else base.login
            remember = patch.remember if remember_changed else base.remember
            limits = patch.limits if limits_changed else base.limits
            record = Record(created_at_ms, now_ms, now_ms, remember, login, merged, limits)
            revision = yield from self._put_renewed(work, new_key, record, revision, patch)
            if not revision:
                yield from self._renewed_otherwise(work, old_key, new_key, patch)
                return
            found_revision, found = yield from self.keeper.replace(old_key, base_revision, moved, moved_ttl_ms)
            if isinstance(found, Moved) and found.successor == new_key:
                self._committed(work, revision, record, patch, old_key)
                self._issue(work, patch)
                return
            if isinstance(found, Moved) and self._is_in_grace(found) and not moved.grace_until_ms:
                # Another request renewed it by the clock. A login, or a renewal that was asked for, goes on from there.
                old_key = found.successor
                (found_revision, found), _ = yield from self.keeper.find(old_key)
            if not isinstance(found, Record):
                yield Delete(new_key)
                if work.session_id is patch.session_id:
                    work.take_back_renewal()
                yield from self._follow(work, found, patch)
                return
            base_revision, base = found_revision, found
            merged = apply(patch, base.values)
            yield Pause(conflicts)
        yield Delete(new_key)
        raise too_many_conflicts(old_key)

    def _renewed_otherwise(self, work: WorkingCopy, old_key: str, new_key: str, patch: Patch) -> Steps[None]:
        """The record can't be stored under its new key: somebody ended it, or it is there and in use already."""
        (_, old), _ = yield from self.keeper.find(old_key)
        (revision, record), _ = yield from self.keeper.find(new_key)
        if isinstance(old, Moved) and old.successor == new_key and isinstance(record, Record):
            # Our own renewal of before, whose answer was lost; others have worked on it since.
            ours = (each for _, each in work.attempts if each.session_id is patch.session_id)
            yield from self._go_on_from(work, revision, record, next(ours), old_key)
            return
        yield from self.keeper.end(old_key)
        self._lose(work, None, patch)

    def _put_renewed(
        self, work: WorkingCopy, new_key: str, record: Record, replacing: bytes, patch: Patch
    ) -> Steps[bytes]:
        """Store the record under the new key; give its revision, or b"" if somebody ended it before."""
        for _ in range(_MAX_ATTEMPTS):
            revision = records.new_revision()
            work.attempt(revision, patch)
            found_revision, found = yield from self.keeper.put(new_key, revision, record, replacing)
            if found is record:
                return revision
            if found_revision not in dict(work.attempts):
                return b""
            replacing = found_revision  # from an attempt of this request that was thought to have failed
        return b""

    def _moved(self, work: WorkingCopy, new_key: str) -> tuple[Moved, int]:
        """Give what takes the old record's place, and for how long.

        After a renewal by the clock it serves requests that are under way, and shows the use of an old ID for as long
        as its client may believe in it.
        """
        now_ms = self.keeper.now_ms()
        successor = str(new_key)  # the name alone: a key may have more with it, see `coatcheck.stores.cookie`
        if work.renewed_by_clock:
            return Moved(successor, now_ms + MOVED_MS, now_ms + self._grace_ms), max(
                self.keeper.idle_ms_of(work.limits), MOVED_MS
            )
        return Moved(successor, now_ms + MOVED_MS, 0), MOVED_MS

    def _follow(self, work: WorkingCopy, found: AnyRecord | None, patch: Patch) -> Steps[None]:
        """Our record is gone: commit where the session is now if it was renewed by the clock, else drop the patch."""
        if work.life != patch.life:
            return
        revision = b""
        while isinstance(found, Moved) and found.grace_until_ms:  # not only in the grace, which is for its old ID
            if work.predecessor is None:
                work.moved_to = found.successor
            else:
                work.predecessor_key = found.successor
            (revision, found), _ = yield from self.keeper.find(found.successor)
            if work.life != patch.life:
                return
        if not isinstance(found, Record):
            self._lose(work, found, patch)
            return
        work.refreshed(revision, found)
        if patch or work.terms_changed:
            rest = self.commit(work)  # anew: what the patch was made on is no more
            if rest is not None:
                yield from rest

    def _extend(self, work: WorkingCopy) -> Steps[None]:
        """Extend the time of a session that was only read."""
        patch, ttl_ms = work.empty_patch(), self.keeper.ttl_ms(work.stored.created_at_ms, work.limits)
        if ttl_ms < self.keeper.idle_ms_of(work.limits):
            # Its lifetime leaves nothing to extend, but that it was used has to be remembered.
            yield from self._update(work, patch)
            return
        revision, found = yield from self.keeper.answered(patch.store_key, (yield Touch(patch.store_key, ttl_ms)))
        if isinstance(found, Record):
            if found.limits != patch.limits and work.life == patch.life:
                # Another request has limited it meanwhile, and it must not last any longer by this one.
                work.refreshed(revision, found)
                yield Touch(patch.store_key, self.keeper.ttl_ms(found.created_at_ms, found.limits))
            self._issue(work, patch)
        else:
            yield from self._follow(work, found, patch)

    def _is_in_grace(self, moved: Moved) -> bool:
        return self.keeper.now_ms() < moved.grace_until_ms

    def _committed(self, work: WorkingCopy, revision: bytes, record: Record, patch: Patch, previous: str = "") -> None:
        if work.login_is_new and work.login is patch.login:
            work.note(Event("login", patch.store_key, record.user_id, previous_handle=previous))
        elif previous:
            work.note(Event("renewed", patch.store_key, record.user_id, previous_handle=previous))
        work.committed(revision, record, patch)

    def _lose(self, work: WorkingCopy, found: AnyRecord | None, patch: Patch) -> None:
        if work.life != patch.life:
            return  # the session was let go of anyway
        if work.login_is_new and work.login is not patch.login:
            work.start_over()
        elif isinstance(found, Moved) and found.successor:
            self._superseded(work, found)
        else:
            work.let_go("ended")
            work.cookie_is_stale = True

    def _superseded(self, work: WorkingCopy, moved: Moved) -> None:
        work.let_go("superseded")
        work.cookie_is_stale = False
        work.successor_key = moved.successor  # a logout goes there

    # --- users ------------------------------------------------------------------------------------------------

    def log_in(self, work: WorkingCopy, user_id: str, *, remember: bool | None) -> None:
        """Make it the session of a user. Nothing of another user's session is carried over."""
        check_user_id(user_id)
        if work.login is not None and work.login.user_id != user_id:
            work.destroy()
        work.renew()
        work.login = Login(user_id, self.keeper.now_ms(), 0, *self._device(work))
        work.login_is_new = True
        if remember is not None:
            work.remember = remember

    def _device(self, work: WorkingCopy) -> Device:
        """Give what is kept of the device that a request comes from."""
        return remembered(
            Device() if work.device is None else work.device(),
            user_agent=self._keeps_user_agent,
            client_address=self._client_address,
        )

    def is_persistent(self, work: WorkingCopy) -> bool:
        """Tell whether the session's cookie outlives the browser."""
        return self._persistent if work.remember is None else work.remember

    # --- the client -------------------------------------------------------------------------------------------

    def cookie(self, work: WorkingCopy) -> str | None:
        """Give the Set-Cookie value that is due after a commit, once."""
        if work.issues_cookie:
            work.issues_cookie = work.cookie_is_stale = False
            persistent = self.is_persistent(work)
            # Rounded up, because Max-Age=0 would delete the cookie that it sets.
            left_ms = max(self.keeper.time_left_ms(work.stored.created_at_ms, work.limits), 1)
            max_age_s = -(-left_ms // 1000) if persistent else None
            return self._cookies.issue(self.token(work), max_age_s)
        # Until its session has ended in the store, the client needs the cookie to try the logout again.
        if work.cookie_is_stale and not work.destroyed:
            work.cookie_is_stale = False
            return self._cookies.clear
        return None

    def token(self, work: WorkingCopy) -> str:
        """Give the session's token."""
        return self._tokens.sign(work.identity, work.issued_at_ms // 1000, tag_of(work.login))

    def _issue(self, work: WorkingCopy, patch: Patch) -> None:
        if work.moved_to is not None or work.session_id is not patch.session_id:
            return  # the new token belongs to another response, or to the next commit
        work.issued_at_ms = self.keeper.now_ms()
        work.by_older_key = False
        work.issues_cookie = True

    # --- time -------------------------------------------------------------------------------------------------

    def expires_at_ms(self, work: WorkingCopy) -> int:
        """Give the time at which the session ends if it is not used again."""
        began_ms, last_used_ms = work.opened_at_ms, work.opened_at_ms
        if work.record is not None:
            began_ms, last_used_ms = work.record.created_at_ms, _last_used_ms(work, work.record)
        idle_ms = self.keeper.idle_ms_of(work.limits)
        return min(last_used_ms + idle_ms, self.keeper.ends_at_ms(began_ms, work.limits))

    def _was_unused_for_too_long(self, work: WorkingCopy, record: Record) -> bool:
        return self.keeper.now_ms() - _last_used_ms(work, record) >= self.keeper.idle_ms_of(record.limits)

    def _refresh_is_due(self, work: WorkingCopy) -> bool:
        """Tell whether use has to extend the session. The token's time of issue says when that was last done."""
        if not work.accessed or work.outage is not None:
            return False
        age_ms = self.keeper.now_ms() - work.issued_at_ms
        # A token from the future was issued by a clock that is ahead, and says nothing of when that was.
        refresh_ms = self._refresh_ms
        if work.limits is not None:
            refresh_ms = int(self.keeper.idle_ms_of(work.limits) * self._refresh_after)
        return work.by_older_key or age_ms >= refresh_ms or age_ms < -_SKEW_MS

    def _renewal_is_due(self, work: WorkingCopy, renew_every_ms: int) -> bool:
        if work.standing != "stored" or work.predecessor is not None:
            return False
        if work.sealed or work.moved_to is not None or not work.accessed:
            return False
        return self.keeper.now_ms() - work.stored.renewed_at_ms >= renew_every_ms


def _last_used_ms(work: WorkingCopy, record: Record) -> int:
    """Give when a session was last used before this request, to within `refresh_after` of its idle timeout."""
    return max(record.updated_at_ms, work.issued_at_ms)


def _refused(work: WorkingCopy, reason: str) -> WorkingCopy:
    """The client's cookie leads nowhere."""
    # It is cleared, but for another system's, and where there are several: ours would go, and a planted one stay.
    if work.claimed is None and reason != "ambiguous":
        work.cookie_is_stale = True
    work.settled = False
    handle = "" if work.session_id is None else work.session_id.store_key
    work.note(Event("refused", handle, reason=reason))
    return work
