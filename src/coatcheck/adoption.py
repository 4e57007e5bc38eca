"""The rules of adopting the sessions of another system, free of I/O. What is known of that system is in its adopter.

A session is adopted when a request has a genuine old cookie and no genuine one of ours. Three records take part: the
old one, the native session, and the *marker*, under a key that is a hash of the old session's.

    1. the native session is stored, under a new ID that nobody can know yet
    2. the marker is stored if none is there         this decides: whoever stores it has adopted the session
    3. the response leaves, with the new cookie
    4. the old record is deleted, if that is wanted

A crash after 1 leaves a session that nobody can reach, and the next request adopts anew; one after 2 or 3 leaves the
marker, which leads the old cookie to the native session. So nothing is lost, and nothing is adopted twice: who loses
the race at 2 deletes its own copy and goes to the winner's. When the native session has ended, the marker is still
there, and the old cookie leads nowhere.

The new ID is an HMAC, under the secret key, of the old session and a number in the marker. So the requests of every
process find the same one by the old cookie, and who reads the store finds none: it holds no secret.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final, NamedTuple, cast

from msgspec import Raw

from coatcheck import record as records
from coatcheck import values
from coatcheck.adopters import Adopter, AnyOldRecords, Claimed, OldSession, Source
from coatcheck.config import CookieConfig, SessionConfig
from coatcheck.cookie import CookieReader, CookieWriter
from coatcheck.devices import Device
from coatcheck.errors import ConfigurationError, SessionError, StoreError, UnreadableSession
from coatcheck.events import Event
from coatcheck.keeper import NOTHING_FOUND, Keeper, Steps
from coatcheck.operations import DeleteOld, FetchOld, Touch
from coatcheck.record import Adopted, Login, Record, Values
from coatcheck.token import SessionID
from coatcheck.users import Users, check_user_id, tag_of
from coatcheck.working_copy import WorkingCopy

logger: Final = logging.getLogger("coatcheck")

_MAX_COOKIES: Final = 8
_MAX_COOKIE_BYTES: Final = 8_192
_NONCE_BYTES: Final = 16
_KEY_DIGITS: Final = 40

_NEVER: Final = Adopted("", b"", b"")
"""The marker of an old session that must not be adopted: all sessions of its user were ended."""


class Heir(NamedTuple):
    """The native session that an old one has become. As good as a token, and read in the same way."""

    session_id: SessionID
    user_tag: bytes


class Adoption:
    """The rules, for one configuration."""

    __slots__ = ("_device", "_keeper", "_keys", "_sources", "_users")

    def __init__(
        self,
        config: SessionConfig,
        keeper: Keeper,
        users: Users,
        sources: Sequence[Source],
        device: Callable[[WorkingCopy], Device],
    ) -> None:
        self._keeper = keeper
        self._users = users
        self._sources = sources
        self._device = device
        self._keys = tuple(hmac.digest(key, b"coatcheck adoption 1", "sha256") for key in config.key_material)

    # --- which old session ------------------------------------------------------------------------------------

    def find(self, headers: Sequence[bytes]) -> Claimed | None:
        """Give the old session that a request's cookies lead to. No I/O.

        As with our own cookies, two that lead to different sessions are ambiguous, and neither counts.
        """
        for source in self._sources:
            cookies = source.cookies.find(headers)
            if not 0 < len(cookies) <= _MAX_COOKIES:
                continue
            claims = {source.adopter.claim(cookie) for cookie in cookies if len(cookie) <= _MAX_COOKIE_BYTES}
            genuine = [claim for claim in claims if claim is not None]
            if len(genuine) == 1:
                return Claimed(source, genuine[0])
        return None

    # --- adopting ---------------------------------------------------------------------------------------------

    def adopt(self, work: WorkingCopy, claimed: Claimed) -> Steps[Heir | OldSession | None]:
        """Give what has become of an old session, after adopting it if nobody has.

        None when it leads nowhere. The old session itself when it is all in its cookie and nobody's: two clients can
        have the very same cookie by chance, and must not share a session, so its values begin a new one.
        """
        marker = yield from self._marker(claimed)
        if marker is None:
            old, record = yield from self._old_session(work, claimed)
            if old is not None and old.user_id is None and claimed.claim.data is not None:
                claimed.is_spent = True
                return old
            if record is not None:
                marker = yield from self._carry_over(work, claimed, record)
            elif claimed.is_spent:
                # Another request may have adopted it since the first look, and have deleted the old record.
                marker = yield from self._marker(claimed)
            if marker is None:
                return None
        claimed.is_spent = claimed.is_adopted = True
        session_id = self._heir_of(claimed, marker)
        return None if session_id is None else Heir(session_id, marker.user_tag)

    def _marker(self, claimed: Claimed) -> Steps[Adopted | None]:
        """Give the marker if there is one, which stays for as long as its old cookie is used."""
        key = _marker_key(claimed)
        data = yield Touch(key, _lifetime_ms(claimed))
        _, found = yield from self._keeper.answered(key, data)
        if found is None and data is not None:
            return _NEVER  # it can't be read, so the session may have been adopted, and have ended
        return cast("Adopted | None", found)

    def _old_session(self, work: WorkingCopy, claimed: Claimed) -> Steps[tuple[OldSession | None, Record | None]]:
        """Fetch and read an old session, and make ours of it. One that can't be ours is reported, and left as it is."""
        data = claimed.claim.data
        if data is None:
            data = cast("bytes | None", (yield FetchOld(_records(claimed), claimed.claim.key)))
        try:
            old = None if data is None else claimed.source.adopter.decode(data)
            if old is not None:
                return old, self._record(work, old)
        except (UnreadableSession, SessionError) as error:
            _report(claimed, error)
            return None, None
        claimed.is_spent = True
        return None, None

    def _record(self, work: WorkingCopy, old: OldSession) -> Record:
        """Make the native session. Raises a SessionError if it could not be kept."""
        login = None
        if old.user_id is not None:
            # When the user proved who they are is not known, so it counts as long ago.
            login = Login(check_user_id(old.user_id), 0, 0, *self._device(work))
        encoded: Values = {values.check_key(key): Raw(values.encode(key, value)) for key, value in old.values.items()}
        now_ms = self._keeper.now_ms()
        record = Record(now_ms, now_ms, now_ms, old.remember, login, encoded)
        self._keeper.check_fits(record)
        return record

    def _carry_over(self, work: WorkingCopy, claimed: Claimed, record: Record) -> Steps[Adopted | None]:
        """Store the session, then the marker. Gives the marker that is there afterwards, or None if there is none."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        store_key = _derived(self._keys[0], claimed, nonce).store_key
        is_stored = yield from self._store(store_key, record)
        marker = Adopted(store_key, nonce, tag_of(record.login)) if is_stored else _NEVER
        ttl_ms = _lifetime_ms(claimed)
        _, found = yield from self._keeper.swap(_marker_key(claimed), NOTHING_FOUND, marker, ttl_ms)
        if found is marker and is_stored:
            work.note(Event("adopted", store_key, record.user_id, reason=claimed.source.adopter.name))
        else:
            yield from self._drop(store_key, record.user_id)
        return cast("Adopted | None", found)

    def _store(self, store_key: str, record: Record) -> Steps[bool]:
        """Store the native session. False if it was ended before, as when all sessions of its user were."""
        if record.user_id is not None:
            ends_at_ms = record.created_at_ms + self._keeper.lifetime_ms
            # Not counted as a login: to end another session, or to refuse this one, is not what the user asked for.
            epoch, _ = yield from self._users.enter(
                record.user_id, store_key, ends_at_ms, replacing=None, is_login=False
            )
            if epoch:
                return False
        _, found = yield from self._keeper.put(store_key, records.new_revision(), record)
        return found is record

    def _drop(self, store_key: str, user_id: str | None) -> Steps[None]:
        """Take back a copy that is not the one that counts. Nobody has its ID."""
        yield from self._keeper.end(store_key)
        if user_id is not None:
            yield from self._users.leave(user_id, [store_key])

    def _heir_of(self, claimed: Claimed, marker: Adopted) -> SessionID | None:
        """Give the ID of the session that a marker speaks of. It was made with one of the secret keys."""
        candidates = (_derived(key, claimed, marker.nonce) for key in self._keys)
        return next((each for each in candidates if each.store_key == marker.handle), None)

    # --- leaving the old one ----------------------------------------------------------------------------------

    def leftover(self, claimed: Claimed) -> Steps[None] | None:
        """Give the steps that delete the old record, once the response is sure to leave."""
        is_due = claimed.is_to_leave and claimed.is_adopted and claimed.claim.data is None
        return self._delete_old(claimed) if is_due else None

    def _delete_old(self, claimed: Claimed) -> Steps[None]:
        yield DeleteOld(_records(claimed), claimed.claim.key)


def sources_of(adopters: Sequence[Adopter], cookie: CookieConfig, *, is_async: bool) -> list[Source]:
    """Make ready what is configured. `cookie` is our own. Raises ConfigurationError for what can't work."""
    if not isinstance(adopters, Sequence):
        msg = f"adopt: expected a list of adopters, got a {type(adopters).__name__}"
        raise ConfigurationError(msg)
    sources: list[Source] = []
    for adopter in adopters:
        old = CookieConfig(
            name=adopter.cookie_name,
            prefix="",
            secure=cookie.secure,
            path=adopter.cookie_path,
            domain=adopter.cookie_domain,
        )
        if any(old.name == other.adopter.cookie_name for other in sources):
            msg = f"adopt: two adopters have the same cookie {old.name!r}; each old cookie has one"
            raise ConfigurationError(msg)
        if adopter.lifetime < timedelta(seconds=1):
            msg = f"adopt: lifetime: expected one second or more, got {adopter.lifetime}"
            raise ConfigurationError(msg)
        # The new cookie takes the place of an old one of its name, and deleting that one would delete the new one.
        is_replaced = (old.name, old.path, old.domain) == (cookie.full_name, cookie.path, cookie.domain)
        if is_replaced and not adopter.removes_old:
            msg = f"adopt: the cookie {old.name!r} can't be kept: ours has the same name; give it another"
            raise ConfigurationError(msg)
        clear = CookieWriter(old).clear if adopter.removes_old and not is_replaced else None
        sources.append(Source(adopter, CookieReader(old), clear, adopter.records(is_async=is_async)))
    return sources


def longest_lifetime(sources: Iterable[Source]) -> timedelta:
    """Give for how long an old session may turn up."""
    return max((source.adopter.lifetime for source in sources), default=timedelta(0))


def _report(claimed: Claimed, error: Exception) -> None:
    """Tell whoever runs the application of an old session that can't be carried over."""
    logger.error(
        "An old session of %s can't be adopted and is left as it is; the client starts anew (%s): %s",
        claimed.source.adopter.name,
        _marker_key(claimed),
        error,
    )


def log_leftover(error: StoreError) -> None:
    """Say that an old record is still there. It is not adopted again, but the old system would go on with it."""
    logger.error("A session was adopted, and its old record could not be deleted: %s", error)


def _records(claimed: Claimed) -> AnyOldRecords:
    old_records = claimed.source.records
    if old_records is None:
        msg = f"the adopter {claimed.source.adopter.name!r} gives a claim without data, and has no records"
        raise AssertionError(msg)
    return old_records


def _name(claimed: Claimed) -> bytes:
    """Give what names an old session among those of all systems."""
    adopter = claimed.source.adopter
    return b"\x00".join(text.encode() for text in (adopter.name, adopter.cookie_name, claimed.claim.key))


def _marker_key(claimed: Claimed) -> str:
    return f"adopted-{sha256(_name(claimed)).hexdigest()[:_KEY_DIGITS]}"


def _derived(key: bytes, claimed: Claimed, nonce: bytes) -> SessionID:
    return SessionID(hmac.digest(key, nonce + _name(claimed), "sha256"))


def _lifetime_ms(claimed: Claimed) -> int:
    return round(claimed.source.adopter.lifetime.total_seconds() * 1000)
