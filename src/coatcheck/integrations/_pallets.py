"""What Flask and Quart have in common: settings, the extension, the face of the session, and guards.

Quart builds on Flask, so this module imports Flask. What differs between them is in `flask` and `quart`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import partial, wraps
from typing import Any, Final, Generic, TypeVar, cast

from flask.sansio.app import App
from flask.sessions import SessionMixin
from werkzeug.datastructures import Headers

from coatcheck.config import MIN_SECRET_KEY_BYTES, CookieConfig
from coatcheck.csrf import Csrf, csrf_field, csrf_token
from coatcheck.csrf.policy import wants_tokens
from coatcheck.errors import ConfigurationError
from coatcheck.guard import Guard, require_login, require_recent_login
from coatcheck.headers import TEXT
from coatcheck.outage import OutageLog
from coatcheck.session import FLASH_KEY, BaseSession
from coatcheck.sessions import Sessions, SyncSessions
from coatcheck.stores.protocol import HasTokens

AppT = TypeVar("AppT", bound=App)
SessionsT = TypeVar("SessionsT", Sessions, SyncSessions)
View = TypeVar("View", bound=Callable[..., Any])

EXTENSION: Final = "coatcheck"
"""The key of `app.extensions`."""

FLASKS_FLASH_KEY: Final = "_flashes"
"""The session's key under which Flask's own `flash()` keeps messages."""


# --- settings ---------------------------------------------------------------------------------------------------------

_PREFIX: Final = "COATCHECK_"
_COOKIE_PREFIX: Final = "cookie_"

_COOKIE_SETTINGS: Final = frozenset(_COOKIE_PREFIX + each.name for each in fields(CookieConfig))
_SESSIONS_SETTINGS: Final = frozenset(inspect.signature(Sessions).parameters) - {"cookie"} | _COOKIE_SETTINGS
_DURATIONS: Final = ("idle_timeout", "lifetime", "renew_every", "renewal_grace")
_ADAPTER_SETTINGS: Final = frozenset(
    {"login_path", "load", "while_down", "csrf", "csrf_trusted_origins", "csrf_exempt"}
)

_FLASKS_COOKIE: Final[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
    "SESSION_COOKIE_NAME": ("name", ("session",)),
    "SESSION_COOKIE_DOMAIN": ("domain", (None, False, "")),
    "SESSION_COOKIE_PATH": ("path", (None, "")),
    "SESSION_COOKIE_HTTPONLY": ("http_only", (True, None)),
    "SESSION_COOKIE_SECURE": ("secure", (False, None)),
    "SESSION_COOKIE_SAMESITE": ("same_site", (None,)),
    "SESSION_COOKIE_PARTITIONED": ("partitioned", (False, None)),
}
"""Flask's settings: ours, and the values that don't tell whether anybody has chosen them."""

_FLASKS_LIFETIME: Final = timedelta(days=31)
_DEFAULT_LIFETIME: Final[timedelta] = inspect.signature(Sessions).parameters["lifetime"].default


@dataclass(frozen=True, slots=True)
class Settings:
    """What `app.config` says: the arguments of the sessions, of their middleware, of the CSRF middleware, and the rest.

    `csrf` is None where it is off.
    """

    sessions: Mapping[str, Any]
    middleware: Mapping[str, Any]
    csrf: Mapping[str, Any] | None
    login_path: str


def read_settings(config: Mapping[str, Any], *, has_sessions: bool) -> Settings:
    """Read an application's settings.

    Args:
        config: `app.config`.
        has_sessions: the application was given a ready sessions object, so no setting may be about that.

    Raises:
        ConfigurationError: a setting is unknown, missing, or of the wrong kind. The message names it.
    """
    found = {key.removeprefix(_PREFIX).lower(): value for key, value in config.items() if key.startswith(_PREFIX)}
    _check_known(found, has_sessions=has_sessions)
    protection: Csrf = found.get("csrf", "origin")
    csrf = {"tokens": wants_tokens(protection)}
    csrf |= {key: found[f"csrf_{key}"] for key in ("trusted_origins", "exempt") if f"csrf_{key}" in found}
    return Settings(
        sessions={} if has_sessions else _sessions_settings(found, config),
        middleware={key: found[key] for key in ("load", "while_down") if key in found},
        csrf=csrf if protection else None,
        login_path=found.get("login_path", "/login"),
    )


def _check_known(found: Mapping[str, Any], *, has_sessions: bool) -> None:
    known = _ADAPTER_SETTINGS if has_sessions else _ADAPTER_SETTINGS | _SESSIONS_SETTINGS
    unknown = [_PREFIX + name.upper() for name in sorted(found.keys() - known)]
    if not unknown:
        return
    if has_sessions and found.keys() <= _ADAPTER_SETTINGS | _SESSIONS_SETTINGS:
        msg = (
            f"app.config sets {', '.join(unknown)}, which would have no effect: Coatcheck was given a ready sessions "
            "object. Set it up there, or leave sessions= out"
        )
        raise ConfigurationError(msg)
    names = ", ".join(sorted(name.upper() for name in known))
    msg = (
        f"app.config has settings that Coatcheck does not know: {', '.join(unknown)}. After {_PREFIX} it knows {names}"
    )
    raise ConfigurationError(msg)


def _sessions_settings(found: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments of `Sessions`."""
    if found.get("store") is None or found["store"] == "":
        msg = (
            "app.config needs COATCHECK_STORE: where sessions are kept, such as 'redis://localhost:6379/0'. "
            "Set it before Coatcheck(app), or init_app(app)"
        )
        raise ConfigurationError(msg)
    given = {name: found[name] for name in _SESSIONS_SETTINGS - _COOKIE_SETTINGS if name in found}
    for name in _DURATIONS:
        if name in given:
            given[name] = _duration(given[name])
    if "secret_keys" not in given and not isinstance(given["store"], HasTokens):
        given["secret_keys"] = _flasks_secret_keys(config)
    return {**_flasks_clocks(given, config), **given, "cookie": CookieConfig(**_cookie_settings(found, config))}


def _duration(value: Any) -> Any:
    """Take a number of seconds for a duration as well, as Flask does; it is what an environment variable can hold."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return timedelta(seconds=value) if is_number else value


def _flasks_secret_keys(config: Mapping[str, Any]) -> list[str | bytes]:
    keys = [config["SECRET_KEY"], *(config.get("SECRET_KEY_FALLBACKS") or ())]
    names = ["SECRET_KEY", *(f"SECRET_KEY_FALLBACKS[{position}]" for position in range(len(keys) - 1))]
    for name, key in zip(names, keys, strict=True):
        if not key or len(key.encode() if isinstance(key, str) else key) < MIN_SECRET_KEY_BYTES:
            size = "is not set" if not key else f"has fewer than {MIN_SECRET_KEY_BYTES} bytes"
            msg = (
                f"app.config[{name!r}] {size}, and signs the session's cookie. `coatcheck keygen` makes a key; to keep "
                "what you have for other uses, set COATCHECK_SECRET_KEYS = [key]"
            )
            raise ConfigurationError(msg)
    return keys


def _flasks_clocks(given: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, timedelta]:
    """Take PERMANENT_SESSION_LIFETIME for what it is with Flask: how long a session lasts that is not used."""
    lifetime = _duration(config["PERMANENT_SESSION_LIFETIME"])
    if lifetime == _FLASKS_LIFETIME or "idle_timeout" in given:
        return {}
    return {"idle_timeout": lifetime, "lifetime": max(lifetime, _DEFAULT_LIFETIME)}


def _cookie_settings(found: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments of `CookieConfig`: ours, else Flask's where somebody has chosen them."""
    settings: dict[str, Any] = {"persistent": False}  # with Flask, a session goes with the browser unless permanent
    for key, (name, unchosen) in _FLASKS_COOKIE.items():
        value = config.get(key)
        if value not in unchosen:
            settings[name] = str(value).lower() if name == "same_site" else value
    chosen = {name.removeprefix(_COOKIE_PREFIX): found[name] for name in _COOKIE_SETTINGS if name in found}
    settings |= chosen
    if str(settings.get("name", "")).lower().startswith(("__host-", "__secure-")):
        settings.setdefault("prefix", "")  # it is spelled out in the name
    return settings


# --- the extension ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Installed(Generic[SessionsT]):
    """What an application has in `app.extensions["coatcheck"]`."""

    sessions: SessionsT
    login_path: str
    outages: OutageLog = field(default_factory=OutageLog)

    def guard(self, url_for: Callable[[str], str]) -> Guard:
        """Give the guard that says where a browser is sent. In a request: a login may be named by its endpoint."""
        is_path = self.login_path.startswith("/")
        return Guard(login_path=self.login_path if is_path else url_for(self.login_path))


class Extension(ABC, Generic[AppT, SessionsT]):
    """What the extensions of both frameworks share. It may be given to several applications, by `init_app`."""

    _kind: type[SessionsT]

    def __init__(self, app: AppT | None = None, *, sessions: SessionsT | None = None) -> None:
        self._given: SessionsT | None = sessions
        self._app = app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: AppT) -> None:
        """Give an application its sessions.

        Raises:
            ConfigurationError: a setting is unknown, missing or can't work, or it has its sessions already.
        """
        if EXTENSION in app.extensions:
            msg = f"The application {app.name!r} has Coatcheck already; call init_app once for each application"
            raise ConfigurationError(msg)
        settings = read_settings(app.config, has_sessions=self._given is not None)
        sessions = self._kind(**settings.sessions) if self._given is None else self._given
        if not isinstance(sessions, self._kind):
            msg = f"sessions: expected a {self._kind.__name__} object, got a {type(sessions).__name__}"
            raise ConfigurationError(msg)
        installed = Installed(sessions, settings.login_path)
        installed.guard(lambda _endpoint: "/")  # says now if the path can't be one
        self._install(app, sessions, settings)
        app.extensions[EXTENSION] = installed

    @property
    def sessions(self) -> SessionsT:
        """The application's sessions, to list, count and revoke.

        Raises:
            RuntimeError: it is a factory's extension, used where it is not known which application is meant.
        """
        if self._given is not None:
            return self._given
        return cast("SessionsT", installed_in(self._app or self._current_app()).sessions)

    @abstractmethod
    def _install(self, app: AppT, sessions: SessionsT, settings: Settings) -> None: ...

    @abstractmethod
    def _current_app(self) -> AppT: ...


def installed_in(app: App) -> Installed[Any]:
    """Give what an application has got from `init_app`. Raises ConfigurationError if it has nothing."""
    installed: Installed[Any] | None = app.extensions.get(EXTENSION)
    if installed is None:
        msg = f"The application {app.name!r} has no Coatcheck; call init_app(app) where it is made"
        raise ConfigurationError(msg)
    return installed


def answer(app: App, error: type[Exception], handler: Callable[[Any], Any]) -> None:
    """Answer an error that views raise, unless the application has an answer of its own."""
    app.error_handler_spec[None][None].setdefault(error, handler)


def give_templates_the_csrf_token(app: App, session: BaseSession) -> None:
    """Let templates say `{{ csrf_field() }}`, or `{{ csrf_token() }}` for scripts.

    Args:
        app: the application.
        session: the framework's proxy for the session of the request.
    """
    app.jinja_env.globals["csrf_token"] = partial(csrf_token, session)
    app.jinja_env.globals["csrf_field"] = partial(csrf_field, session)


# --- the session ------------------------------------------------------------------------------------------------------


class FlaskFace(BaseSession, SessionMixin):
    """A session with what Flask and Quart, their extensions and their users expect of one.

    It works on the same working copy as the session that the middleware has begun, so whatever is done to either
    is done to both.

    Flask's `flash()` keeps its messages under a key of its own: it reads a list, appends to it and assigns it. Here
    that key shows what `session.flash()` keeps, and an assignment only adds what is new, so that messages of requests
    that run at the same time are all kept, and other frameworks of the same sessions see them.
    """

    is_own = False
    """Whether no middleware has begun it, so that nobody but the session interface stores it."""

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser. See `remember()`, which assigning to it calls."""
        return self._lifecycle.is_persistent(self._read())

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self.remember(bool(value))

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether nothing of it is stored yet."""
        return self.is_new

    @property
    def modified(self) -> bool:
        """Whether there is something to store. Assigning to it has no effect: changes are found without it."""
        return self._work.has_changes()

    @modified.setter
    def modified(self, value: bool) -> None:
        """Take what existing code sets."""

    @property
    def accessed(self) -> bool:
        """Whether the response depends on the session. Newer versions of Flask set it."""
        return self.was_accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        """Take what Flask sets. That something was done with the session is known without it."""

    def clear(self) -> None:
        """End the session: with Flask, this is how people are logged out. What is set afterwards is a new one's."""
        self.destroy()

    def __getitem__(self, key: str) -> Any:
        """See `BaseSession`."""
        if key == FLASKS_FLASH_KEY:
            return self._flasks_flashes(super().__getitem__(FLASH_KEY))
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        """See `BaseSession`."""
        if key != FLASKS_FLASH_KEY:
            super().__setitem__(key, value)
            return
        waiting = self._flasks_flashes(self.get(FLASH_KEY, []))
        if value[: len(waiting)] != waiting:
            self.flashes()
            waiting = []
        for category, message in value[len(waiting) :]:
            self.flash(message, category)

    def __delitem__(self, key: str) -> None:
        """See `BaseSession`."""
        if key == FLASKS_FLASH_KEY and key in self:
            self.flashes()
        else:
            super().__delitem__(key)

    def __contains__(self, key: object) -> bool:
        """See `BaseSession`."""
        return super().__contains__(FLASH_KEY if key == FLASKS_FLASH_KEY else key)

    def __iter__(self) -> Iterator[str]:
        """See `BaseSession`."""
        return iter([FLASKS_FLASH_KEY if key == FLASH_KEY else key for key in super().__iter__()])

    @staticmethod
    def _flasks_flashes(waiting: list[list[str]]) -> list[tuple[str, str]]:
        return [(category, message) for message, category in waiting]


def add_headers(headers: Headers, session: BaseSession, set_cookie: str | None, old_cookie: str | None) -> None:
    """Add to a response's headers what the session makes due, where no middleware does."""
    pairs = list(headers)
    TEXT.add(pairs, accessed=session.was_accessed, set_cookie=set_cookie, old_cookie=old_cookie)
    headers.clear()
    headers.extend(pairs)


# --- guards -----------------------------------------------------------------------------------------------------------

_MARK: Final = "__coatcheck_guard__"


@dataclass(frozen=True, slots=True)
class ViewGuard:
    """Who may reach a view: whoever has logged in, or has within some time."""

    within: timedelta | None = None

    def check(self, session: BaseSession) -> None:
        """Raise LoginRequired, RecentLoginRequired or StoreUnavailable for a request that may not pass."""
        if self.within is None:
            require_login(session)
        else:
            require_recent_login(session, within=self.within)


def guards_of(view: Any) -> tuple[ViewGuard, ...]:
    """Give the guards that a view is marked with."""
    return getattr(view, _MARK, ())


def guarded(view: View, guard: ViewGuard, session: BaseSession) -> View:
    """Guard a view, sync or async.

    The view is wrapped, and it is marked, which the extension looks for before it is called. So it is guarded where
    it was given to its route before it was guarded (`@login_required` above `@app.route`), and also where it is wrapped
    once more by something that does not hand marks on.

    Args:
        view: the view.
        guard: who may reach it.
        session: the framework's proxy for the session of the request.
    """
    with suppress(AttributeError):  # a bound method can't be marked
        setattr(view, _MARK, (*guards_of(view), guard))

    if inspect.iscoroutinefunction(view):

        @wraps(view)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            guard.check(session)
            return await view(*args, **kwargs)

        return cast("View", guarded_async)

    @wraps(view)
    def guarded_sync(*args: Any, **kwargs: Any) -> Any:
        guard.check(session)
        return view(*args, **kwargs)

    return cast("View", guarded_sync)
