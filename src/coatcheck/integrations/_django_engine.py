"""Django's session engine: its interface on a session of Coatcheck's.

Two things that Django keeps among a session's values have a place in Coatcheck's record: whose session it is, and when
it ends. `django` has the middleware, and is what SESSION_ENGINE names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from coatcheck.errors import StoreUnavailable
from coatcheck.integrations._django_login import shared_login
from coatcheck.integrations._django_settings import async_sessions, sessions
from coatcheck.sessions import Session, SyncSession
from coatcheck.working_copy import WorkingCopy

_AUTH_KEYS: Final = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)


class SessionStore(SessionBase):
    """The engine: Django's interface on a session of Coatcheck's.

    `session_key` is the cookie's value, a secret; `handle` is the session's public name. A key that was not signed by
    this server, or whose session has ended, is never adopted.

    Args:
        session_key: the cookie's value, or None for a new session.
    """

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)  # which sets _session_key

    # --- whose data it is -------------------------------------------------------------------------------------

    def _set_key(self, session_key: str | None) -> None:
        claimed = sessions().claim(session_key if isinstance(session_key, str) else None)
        self._take(claimed, session_key)

    def _take(self, core: SyncSession, session_key: str | None = None, native: Session | None = None) -> None:
        """Begin with a session.

        Args:
            core: the session.
            session_key: the key that it was found by.
            native: the same session for async code, where there is an event loop to be asked in.
        """
        self._core = core
        self._presented = session_key
        self._native = native
        self._is_open = False
        self._login_is_due = False
        self._shown_user_id: str | None = None
        self._outage: StoreUnavailable | None = None

    @property
    def _work(self) -> WorkingCopy:
        return self._core._work

    def _key(self) -> str | None:
        """The cookie's value, a secret. None before the session is stored, and after it has ended."""
        if self._work.standing == "unloaded":
            return self._presented
        return self._core._lifecycle.token(self._work) if self._work.standing == "stored" else None

    session_key = property(_key)
    _session_key = property(_key, _set_key)  # SessionBase has both

    @property
    def handle(self) -> str:
        """The session's public name, 40 characters, for logs, lists, and columns of your own tables."""
        return self._get_session().handle

    @property
    def coatcheck(self) -> SyncSession:
        """The session as Coatcheck's own, for what Django has no word for: `increment`, `append`, `user_id`, guards."""
        return self._get_session()

    def is_empty(self) -> bool:
        """Tell whether there is neither a stored session nor a value."""
        return self.session_key is None and self._work.standing != "unloaded" and not self._work.size()

    # --- loading ----------------------------------------------------------------------------------------------

    def _get_session(self, no_load: bool = False) -> SyncSession:  # noqa: ARG002, FBT001, FBT002 (Django's signature)
        self.accessed = True
        self._open()
        return self._core

    async def _aget_session(self, no_load: bool = False) -> SyncSession:  # noqa: ARG002, FBT001, FBT002
        self.accessed = True
        await self._aopen()
        return self._core  # what is loaded needs no awaiting

    _session = property(_get_session)

    def _open(self) -> None:
        """Load the session, once."""
        if not self._is_open:
            with self._noting_outages():
                self._core.load()
            foreign = self._check_login()
            if foreign is not None:
                self._introduce(foreign[0], foreign[1].get_user(foreign[2]))
            self._is_open = True

    async def _aopen(self) -> None:
        if self._is_open:
            return
        if self._native is None:
            await sync_to_async(self._open)()
            return
        with self._noting_outages():
            await self._native.load()
        foreign = self._check_login()
        if foreign is not None:
            self._introduce(foreign[0], await foreign[1].aget_user(foreign[2]))
        self._is_open = True

    @contextmanager
    def _noting_outages(self) -> Iterator[None]:
        """Remember that the store could not be asked: what Django makes of the exception hides it."""
        try:
            yield
        except StoreUnavailable as error:
            self._outage = error
            raise

    def load(self) -> dict[str, Any]:
        """Give the values as a dict; an empty one when there is no such session."""
        return self._get_session().copy()

    async def aload(self) -> dict[str, Any]:
        """See `load`."""
        return (await self._aget_session()).copy()

    def exists(self, session_key: str | None) -> bool:
        """Tell whether a key leads to a live session."""
        if not session_key:
            return False
        claimed = sessions().claim(session_key)
        with self._noting_outages():
            claimed.load()
        return claimed._work.standing == "stored"

    # --- saving -----------------------------------------------------------------------------------------------

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 (Django's signature)
        """Store the session now, also when nothing has changed.

        With `SessionMiddleware` of this module there is no need to call it.

        Raises:
            UpdateError: the session has ended meanwhile. It is not brought back.
            CreateError: with `must_create`, when the session is stored already.
        """
        with self._noting_outages():
            self._open()
            self._prepare(must_create=must_create)
            sessions().one_at_a_time(self._work, self._core._lifecycle.commit_anyway)
        self._check_survived()

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """See `save`."""
        if self._native is None:
            await sync_to_async(self.save)(must_create)
            return
        with self._noting_outages():
            await self._aopen()
            self._prepare(must_create=must_create)
            await async_sessions().one_at_a_time(self._work, self._native._lifecycle.commit_anyway)
        self._check_survived()

    def _check_survived(self) -> None:
        if self._core.has_ended:
            raise UpdateError

    def create(self) -> None:
        """Store the session now, with what has been set. One that is stored already gives way to a new, empty one.

        That one goes on without this request. Of it nothing is carried over, so that nobody's login is in two sessions;
        `cycle_key` takes values and login along.

        Raises:
            StoreUnavailable: the store can't be reached, or could not be when this request began.
        """
        self._let_go_of_stored()
        self.save(must_create=True)
        self.modified = True

    async def acreate(self) -> None:
        """See `create`."""
        self._let_go_of_stored()
        await self.asave(must_create=True)
        self.modified = True

    def _let_go_of_stored(self) -> None:
        """Let what follows be a new session's, unless this one is new."""
        self._work.check_open()
        if self._work.standing == "new":
            return
        self._work.let_go("new")
        self._presented = None
        self._login_is_due = False
        self._shown_user_id = None

    def cycle_key(self) -> None:
        """Give the session a new key when it is saved; the old one is dead from then on. The values stay."""
        self._get_session().renew()
        self.modified = True

    async def acycle_key(self) -> None:
        """See `cycle_key`."""
        (await self._aget_session()).renew()
        self.modified = True

    # --- ending -----------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Delete all values, and what `set_expiry` has set. The session itself goes on."""
        self._get_session().clear()
        self._limit(None)
        self.modified = True

    def flush(self) -> None:
        """End the session, at once. What is set afterwards belongs to a new one."""
        self.delete()
        self.accessed = self.modified = True

    async def aflush(self) -> None:
        """See `flush`."""
        await self.adelete()
        self.accessed = self.modified = True

    def delete(self, session_key: str | None = None) -> None:
        """End the session of a key, or without one this session. Does nothing where there is none."""
        with self._noting_outages():
            sessions().abandon(self._ended(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """See `delete`."""
        if self._native is None:
            await sync_to_async(self.delete)(session_key)
            return
        ended = self._ended(session_key)
        with self._noting_outages():
            await async_sessions().abandon(Session(async_sessions(), ended._work))

    def _ended(self, session_key: str | None) -> SyncSession:
        """Mark a session to be ended."""
        ended = self._core if session_key is None else sessions().claim(session_key)
        ended.destroy()
        return ended

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: stores let go of what has expired by themselves."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """See `clear_expired`."""

    # --- when it ends -----------------------------------------------------------------------------------------

    def get_session_cookie_age(self) -> int:
        """Give the idle timeout in seconds: SESSION_COOKIE_AGE, unless COATCHECK has another."""
        return int(sessions().config.idle_timeout.total_seconds())

    def set_expiry(self, value: int | datetime | timedelta | None) -> None:
        """Let this session last differently from others. See Django's documentation.

        Raises:
            ImproperlyConfigured: it would be longer than COATCHECK['lifetime'], which ends every session.
        """
        expiry = _expiry(value)
        super().set_expiry(value)
        self._limit(expiry)

    async def aset_expiry(self, value: int | datetime | timedelta | None) -> None:
        """See `set_expiry`."""
        expiry = _expiry(value)
        await super().aset_expiry(value)
        self._limit(expiry)

    def _limit(self, expiry: timedelta | datetime | None) -> None:
        """Set in the session what Django only notes among its values."""
        if isinstance(expiry, datetime):
            self._core.limit(ends_at=expiry)
            self._work.remember = True
        elif expiry:
            self._core.limit(idle_timeout=expiry)
            self._work.remember = True
        else:
            self._core.limit()
            self._work.remember = None if expiry is None else False

    # --- whose session it is ----------------------------------------------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a value. To set `_auth_user_id` is to log in: nothing else does in Django."""
        super().__setitem__(key, value)
        self._login_is_due = self._login_is_due or key == SESSION_KEY

    async def aset(self, key: str, value: Any) -> None:
        """Set a value."""
        await super().aset(key, value)
        self._login_is_due = self._login_is_due or key == SESSION_KEY

    def _user_id(self) -> str | None:
        """Give whom Django takes for the session's user."""
        return str(self._work.read(SESSION_KEY)) if self._work.has(SESSION_KEY) else None

    def _check_login(self) -> tuple[str, Any, Any] | None:
        """See that Django takes nobody for the session's user who has not logged in to it.

        Gives what is needed to introduce somebody who logged in elsewhere: a backend's path, the backend, and the key
        to ask it for.
        """
        work = self._work
        if work.standing != "stored":
            return None
        user_id = None if work.login is None else work.login.user_id
        if self._user_id() == user_id:
            self._shown_user_id = user_id
            return None
        for key in _AUTH_KEYS:
            if work.has(key):
                work.remove(key)
        return None if user_id is None else shared_login(user_id)

    def _introduce(self, backend_path: str, user: Any) -> None:
        """Let `django.contrib.auth` find somebody who logged in elsewhere.

        From now on the session is bound to the password that the user has now, like any of Django's. The user ID has to
        be the primary key as Django writes it: what only converts to it ("01") may have been meant for somebody else,
        and Django's own name for the user would be a login that nobody made.
        """
        user_id = self._core.user_id
        if user is not None and user._meta.pk.value_to_string(user) == user_id:
            self._work.assign(SESSION_KEY, user_id)
            self._work.assign(BACKEND_SESSION_KEY, backend_path)
            self._work.assign(HASH_SESSION_KEY, user.get_session_auth_hash())
            self._shown_user_id = user_id
            self.modified = True

    def _prepare(self, *, must_create: bool = False) -> None:
        """Before a commit: log in or out whom Django's values say."""
        work = self._work
        if must_create and work.standing == "stored":
            raise CreateError
        if work.standing not in ("stored", "new"):
            return
        known = None if work.login is None else work.login.user_id
        user_id = self._user_id()
        if user_id is not None and (self._login_is_due or user_id != known):
            self._log_in(user_id, known)
        elif user_id is None and known is not None and known == self._shown_user_id:
            self._core.logout(keep=list(self._core))  # taken out of the values, rather than never put in
        self._login_is_due, self._shown_user_id = False, user_id

    def _log_in(self, user_id: str, known: str | None) -> None:
        work = self._work
        if known in (None, user_id):
            self._core.login(user_id)
            return
        # Of the other user's session nothing is carried over but what this request has set.
        kept = {key: work.read(key) for key in (*_AUTH_KEYS, *work.patch()) if work.has(key)}
        self._core.login(user_id)
        self._core.update(kept)


def _expiry(value: int | datetime | timedelta | None) -> timedelta | datetime | None:
    """Give a value for `set_expiry` in one of three forms: idle timeout, end, or nothing special."""
    if value is None:
        return None
    now = timezone.now()
    if isinstance(value, datetime | timedelta):
        ends_at = now + value if isinstance(value, timedelta) else value
        expiry: timedelta | datetime = ends_at if timezone.is_aware(ends_at) else timezone.make_aware(ends_at)
        after = ends_at - now
    else:
        expiry = after = timedelta(seconds=value)
    lifetime = sessions().config.lifetime
    if after > lifetime:
        msg = f"set_expiry: {after} is longer than a session's lifetime, {lifetime}; raise COATCHECK['lifetime']"
        raise ImproperlyConfigured(msg)
    return expiry
