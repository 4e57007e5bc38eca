"""Django's settings, as those of Coatcheck: the setting COATCHECK, SESSION_COOKIE_* and the secret keys.

The façades are made when they are first asked for, and anew after a test has overridden a setting that they come of.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from threading import Lock
from typing import Any, Final, TypeVar

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from coatcheck.config import CookieConfig
from coatcheck.errors import ConfigurationError
from coatcheck.outage import Routes
from coatcheck.sessions import Sessions, SyncSessions
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.stores.protocol import AsyncStore, HasTokens, SyncStore

SessionsT = TypeVar("SessionsT", Sessions, SyncSessions)

_ENGINE: Final = "coatcheck.integrations.django"
_DJANGOS_MIDDLEWARE: Final = "django.contrib.sessions.middleware.SessionMiddleware"
_SERIALIZER: Final = "django.contrib.sessions.serializers.JSONSerializer"
_OURS: Final = frozenset({"store", "async_store", "partitioned", "while_down"})
_OF_SESSIONS: Final = frozenset(inspect.signature(SyncSessions).parameters) - {"store", "cookie"}
_SHORTEST_LIFETIME: Final = timedelta(days=7)
"""A session that is in use ends no earlier than this, unless COATCHECK says so."""

_OF_COATCHECK: Final = frozenset({"COATCHECK", "SECRET_KEY", "SECRET_KEY_FALLBACKS"})


class Configuration:
    """What the settings say.

    Raises:
        ImproperlyConfigured: a setting can't work.
    """

    def __init__(self) -> None:
        given = dict(_given())
        self.while_down = given.pop("while_down", "refuse")
        self._store: str | SyncStore = given.pop("store")
        self._async_store: AsyncStore | None = given.pop("async_store", None)
        self._clock: Callable[[], float] = given.get("clock", time.time)
        try:
            Routes(self.while_down)
            self._arguments = _arguments(given, self._store)
        except ConfigurationError as error:
            raise ImproperlyConfigured(str(error)) from error

    @property
    def is_in_memory(self) -> bool:
        """Whether sessions are lost with the process, and not shared with another."""
        return isinstance(self._store, str) and self._store.lower().startswith("memory:")

    def sessions(self, memory: SyncMemoryStore) -> SyncSessions:
        """Make the façade for sync code."""
        return _made(SyncSessions, memory if self.is_in_memory else self._store, self._arguments)

    def async_sessions(self, memory: SyncMemoryStore) -> Sessions:
        """Make the façade for async code, on the same sessions."""
        store: str | AsyncStore
        if self.is_in_memory:
            store = MemoryStore(share_with=memory)
        elif self._async_store is not None:
            store = self._async_store
        elif isinstance(self._store, str):
            store = self._store
        else:
            msg = "COATCHECK['store'] is an object for sync code; give async code one as COATCHECK['async_store']"
            raise ImproperlyConfigured(msg)
        return _made(Sessions, store, self._arguments)

    def memory(self) -> SyncMemoryStore:
        """Make what holds the sessions of `memory://`."""
        return SyncMemoryStore(clock=self._clock)


def _made(kind: Callable[..., SessionsT], store: object, arguments: Mapping[str, Any]) -> SessionsT:
    try:
        return kind(store, **arguments)
    except ConfigurationError as error:
        raise ImproperlyConfigured(str(error)) from error


def _given() -> Mapping[str, Any]:
    """Give the setting COATCHECK, if it can be one."""
    given = getattr(settings, "COATCHECK", None)
    if not isinstance(given, Mapping) or "store" not in given:
        msg = "COATCHECK: expected a dict with at least 'store', such as {'store': 'redis://localhost:6379/0'}"
        raise ImproperlyConfigured(msg)
    allowed = _OURS | _OF_SESSIONS
    for name in given:
        if name in allowed:
            continue
        if name == "cookie":
            msg = "COATCHECK['cookie']: the cookie is set up by Django's settings SESSION_COOKIE_NAME and the like"
        else:
            similar = get_close_matches(str(name), allowed, 1)
            hint = f"did you mean {similar[0]!r}?" if similar else f"expected one of {', '.join(sorted(allowed))}"
            msg = f"COATCHECK[{name!r:.80}]: there is no such setting; {hint}"
        raise ImproperlyConfigured(msg)
    if settings.SESSION_SERIALIZER != _SERIALIZER:
        msg = (
            "SESSION_SERIALIZER: Coatcheck has an encoding of its own, which keeps more types than JSON and never "
            "pickles; take the setting out"
        )
        raise ImproperlyConfigured(msg)
    return given


def _arguments(given: Mapping[str, Any], store: object) -> dict[str, Any]:
    """Give the arguments for both façades."""
    arguments = dict(given)
    cookie = _cookie(partitioned=arguments.pop("partitioned", False))
    idle_timeout = arguments.setdefault("idle_timeout", timedelta(seconds=settings.SESSION_COOKIE_AGE))
    if "lifetime" not in arguments and isinstance(idle_timeout, timedelta):
        arguments["lifetime"] = max(idle_timeout, _SHORTEST_LIFETIME)
    if not isinstance(store, HasTokens):
        arguments.setdefault("secret_keys", [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])
    if settings.SESSION_SAVE_EVERY_REQUEST:
        arguments.setdefault("refresh_after", 0.0)
    return {**arguments, "cookie": cookie}


def _cookie(*, partitioned: bool) -> CookieConfig:
    """Give the cookie that Django's settings describe."""
    same_site: Any = settings.SESSION_COOKIE_SAMESITE
    if not isinstance(same_site, str):
        msg = f"SESSION_COOKIE_SAMESITE: expected 'Lax', 'Strict' or 'None', got {same_site!r}"
        raise ConfigurationError(msg)
    return CookieConfig(
        name=settings.SESSION_COOKIE_NAME,
        prefix="",
        secure=bool(settings.SESSION_COOKIE_SECURE),
        http_only=bool(settings.SESSION_COOKIE_HTTPONLY),
        same_site=same_site.lower(),  # type: ignore[arg-type]  # CookieConfig checks it
        path=settings.SESSION_COOKIE_PATH,
        domain=settings.SESSION_COOKIE_DOMAIN,
        partitioned=partitioned,
        persistent=not settings.SESSION_EXPIRE_AT_BROWSER_CLOSE,
    )


class _Held:
    """The façades of the settings as they are now."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._memory: SyncMemoryStore | None = None
        self._configuration: Configuration | None = None
        self._sync: SyncSessions | None = None
        self._async: Sessions | None = None

    def configuration(self) -> Configuration:
        if self._configuration is None:
            self._configuration = Configuration()
        return self._configuration

    def sessions(self) -> SyncSessions:
        made = self._sync  # asked for several times in each request, so without the lock
        if made is None:
            with self._lock:
                made = self._sync = self._sync or self.configuration().sessions(self._table())
        return made

    def async_sessions(self) -> Sessions:
        made = self._async
        if made is None:
            with self._lock:
                made = self._async = self._async or self.configuration().async_sessions(self._table())
        return made

    def _table(self) -> SyncMemoryStore:
        if self._memory is None:
            self._memory = self.configuration().memory()
        return self._memory

    def forget(self, setting: str) -> None:
        with self._lock:
            if self._sync is not None:
                self._sync.close()
            self._configuration = self._sync = self._async = None
            if setting == "COATCHECK":  # another setting is no reason to log everybody out
                self._memory = None


_held: Final = _Held()


def sessions() -> SyncSessions:
    """Give the sessions of this project, for sync code: lists of devices, revocations, jobs.

    Raises:
        ImproperlyConfigured: a setting can't work.

    Example:
        sessions().revoke_user(str(user.pk))
    """
    return _held.sessions()


def async_sessions() -> Sessions:
    """Give the sessions of this project, for async code. They are the same sessions.

    Raises:
        ImproperlyConfigured: a setting can't work.
    """
    return _held.async_sessions()


def configuration() -> Configuration:
    """Give what the settings say. Raises ImproperlyConfigured when one can't work."""
    return _held.configuration()


def _forget(*, setting: str, **_: object) -> None:
    if setting.startswith("SESSION_") or setting in _OF_COATCHECK:
        _held.forget(setting)


setting_changed.connect(_forget, dispatch_uid="coatcheck")


@checks.register(checks.Tags.security)
def check_settings(**_: object) -> list[checks.CheckMessage]:
    """Tell of settings that can't work, for `manage.py check`."""
    try:
        configuration()
        sessions()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="coatcheck.E001")]
    if settings.SESSION_ENGINE == _ENGINE and _DJANGOS_MIDDLEWARE in settings.MIDDLEWARE:
        hint = f"Put '{_ENGINE}.SessionMiddleware' in its place."
        text = "Django's SessionMiddleware does not find nested changes, and answers a lost session by 400."
        return [checks.Warning(text, hint=hint, id="coatcheck.W001")]
    return []


@checks.register(checks.Tags.security, deploy=True)
def check_deployment(**_: object) -> list[checks.CheckMessage]:
    """Tell of settings that are for development only, for `manage.py check --deploy`."""
    try:
        in_memory = configuration().is_in_memory
    except ImproperlyConfigured:
        return []  # the other check tells it
    if not in_memory:
        return []
    text = "COATCHECK['store'] is memory://: sessions are lost with each process, and no two processes share them."
    return [checks.Warning(text, hint="Use redis://… or sqlite:///….", id="coatcheck.W002")]
