"""What Flask and Quart have in common: the extension, the face of the session, and guards.

Quart builds on Flask, so this module imports Flask. What differs between them is in `flask` and `quart`, and the
settings of both are in `_pallets_settings`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial, wraps
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar, cast

from flask.sansio.app import App
from flask.sessions import SessionMixin
from werkzeug.routing import Rule

from coatcheck.csrf import csrf_field, csrf_token
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.guard import Guard, check_login
from coatcheck.integrations._pallets_settings import Settings, read_settings
from coatcheck.outage import OutageLog
from coatcheck.session import FLASH_KEY, BaseSession
from coatcheck.sessions import Sessions, SyncSessions

AppT = TypeVar("AppT", bound=App)
SessionsT = TypeVar("SessionsT", Sessions, SyncSessions)
View = TypeVar("View", bound=Callable[..., Any])

EXTENSION: Final = "coatcheck"
"""The key of `app.extensions`."""

FLASKS_FLASH_KEY: Final = "_flashes"
"""The session's key under which Flask's own `flash()` keeps messages."""

FLASK_LOGINS_KEY: Final = "_user_id"
"""The session's key under which Flask-Login keeps who is logged in."""


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
    _middlewares: ClassVar[tuple[Callable[..., Any], Callable[..., Any]]]
    """That of the CSRF protection, and that of sessions."""

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

    def _around(self, inner: Any, sessions: SessionsT, settings: Settings) -> Any:
        """Put the middlewares around an application: the CSRF protection is inside of the session."""
        check_requests, put_session = self._middlewares
        if settings.csrf is not None:
            inner = check_requests(inner, **settings.csrf)
        return put_session(inner, sessions, **settings.middleware)

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


def with_outages(handle: Callable[..., Any], refuse: Callable[[StoreUnavailable], Any]) -> Callable[..., Any]:
    """Let outages be refused where there is nothing left but a 500.

    That is where error handlers don't count: in what answers errors, and after a view has answered.

    Args:
        handle: what the framework does with an exception that nobody has answered.
        refuse: answers that the store can't be reached.
    """

    def handle_all(*args: Any) -> Any:
        error = args[-1]  # in newer versions of Flask after its context
        return refuse(error) if isinstance(error, StoreUnavailable) else handle(*args)

    return handle_all


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

    Where Flask-Login enters a user, the session gets a new ID.
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
        if key == FLASK_LOGINS_KEY:
            self.renew()  # it does not know that a server's sessions have IDs, which others may have planted
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


# --- guards -----------------------------------------------------------------------------------------------------------

_MARK: Final = "__coatcheck_guard__"


Within: TypeAlias = timedelta | None
"""A guard of a view: how long ago the login may be, or None for any time."""


def guards_due(app: App, method: str, rule: Rule | None) -> tuple[Within, ...]:
    """Give the guards of the view that a request is about to reach.

    None where the framework answers OPTIONS by itself: browsers send no cookies when they ask whether another origin's
    script may send its request (Fetch standard, CORS-preflight), and learn nothing but the methods.

    Args:
        app: the application.
        method: the request's method.
        rule: the rule that it was matched to, if any.
    """
    if rule is None or (method == "OPTIONS" and getattr(rule, "provide_automatic_options", False)):
        return ()
    return _guards_of(app.view_functions.get(rule.endpoint))


def _guards_of(view: Any) -> tuple[Within, ...]:
    """Give the guards that a view is marked with."""
    return getattr(view, _MARK, ())


def guarded(view: View, within: Within, session: BaseSession) -> View:
    """Guard a view, sync or async.

    The view is wrapped, and it is marked, which the extension looks for after all that the application does before a
    request. So it is guarded where it was given to its route before it was guarded (`@login_required` above
    `@app.route`), and also where it is wrapped once more by something that does not hand marks on.

    Args:
        view: the view.
        within: how long ago the login may be of those who reach it.
        session: the framework's proxy for the session of the request.
    """
    with suppress(AttributeError):  # a bound method can't be marked
        setattr(view, _MARK, (*_guards_of(view), within))

    if inspect.iscoroutinefunction(view):

        @wraps(view)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            check_login(session, within)
            return await view(*args, **kwargs)

        return cast("View", guarded_async)

    @wraps(view)
    def guarded_sync(*args: Any, **kwargs: Any) -> Any:
        check_login(session, within)
        return view(*args, **kwargs)

    return cast("View", guarded_sync)
