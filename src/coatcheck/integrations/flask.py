"""Sessions for Flask: an extension that puts Coatcheck in the place of Flask's own sessions.

A request's way past its session is `coatcheck.wsgi`'s: the extension puts the middleware around the application, and
`flask.session` shows the session that it has begun. Where there is no middleware in the way, as in
`test_request_context()` and `session_transaction()`, the session interface begins and concludes the session itself.

Example:
    app.config["COATCHECK_STORE"] = "redis://localhost:6379/0"
    coatcheck = Coatcheck(app)
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from coatcheck import outage
from coatcheck.csrf.wsgi import CsrfMiddleware
from coatcheck.errors import LoginRequired, MissingExtra, StoreUnavailable
from coatcheck.guard import check_login
from coatcheck.headers import TEXT
from coatcheck.sessions import SyncSession, SyncSessions
from coatcheck.wsgi import ENVIRON_KEY, SessionMiddleware, request_of

try:
    import flask
    from flask import Flask, Response, current_app, request, url_for
    from flask.sessions import SessionInterface, SessionMixin
    from werkzeug.datastructures import Headers
except ImportError as error:
    _feature = "The adapter to Flask"
    raise MissingExtra(_feature, "flask") from error

from coatcheck.integrations._pallets import (
    Extension,
    FlaskFace,
    View,
    answer,
    give_templates_the_csrf_token,
    guarded,
    guards_due,
    installed_in,
    with_outages,
)
from coatcheck.integrations._pallets_settings import Settings

if TYPE_CHECKING:
    from flask.wrappers import Request

__all__ = ["Coatcheck", "FlaskSession", "login_required", "recent_login_required", "session"]


class FlaskSession(FlaskFace, SyncSession):
    """What `flask.session` is: a `SyncSession` that Flask and its extensions can work with."""


session: Final = cast("FlaskSession", flask.session)
"""`flask.session` itself, known to type checkers for what it is."""


class Coatcheck(Extension[Flask, SyncSessions]):
    """Flask's extension: keeps `flask.session` on the server. Give it the application now, or later with `init_app`.

    Args:
        app: the application. Its settings, `COATCHECK_...` in `app.config`, have to be there before.
        sessions: a ready `SyncSessions` in the place of the settings about sessions.

    Raises:
        ConfigurationError: a setting is unknown, missing or can't work.

    Example:
        app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]  # 32 bytes or more
        app.config["COATCHECK_STORE"] = "redis://localhost:6379/0"
        coatcheck = Coatcheck(app)
        ...
        coatcheck.sessions.revoke_user(session.user_id, keep=session)
    """

    _kind = SyncSessions
    _middlewares = (CsrfMiddleware, SessionMiddleware)

    def _install(self, app: Flask, sessions: SyncSessions, settings: Settings) -> None:
        app.wsgi_app = self._around(app.wsgi_app, sessions, settings)  # type: ignore[method-assign]
        if settings.has_tokens:
            give_templates_the_csrf_token(app, session)
        app.session_interface = _Interface(sessions)
        # Not its dispatch_request, in the place of which Flask-DebugToolbar puts another one.
        app.preprocess_request = partial(_preprocess, app.preprocess_request)  # type: ignore[method-assign]
        answer(app, LoginRequired, _send_to_login)
        answer(app, StoreUnavailable, _refuse)
        app.handle_exception = with_outages(app.handle_exception, _refuse)  # type: ignore[method-assign]

    def _current_app(self) -> Flask:
        return current_app


def login_required(view: View) -> View:
    """Let only those reach a view who are logged in: browsers are sent to the login, programs get 401 and JSON.

    Stands above or below `@app.route`. All routes of the function are guarded.
    """
    return guarded(view, None, session)


def recent_login_required(within: timedelta) -> Callable[[View], View]:
    """Let only those reach a view who have logged in lately, as `login_required` does. For pages that matter.

    Args:
        within: how long ago the login may be.
    """
    return partial(guarded, within=within, session=session)


class _Interface(SessionInterface):
    """What Flask asks for its sessions."""

    def __init__(self, sessions: SyncSessions) -> None:
        self._sessions = sessions

    def open_session(self, app: Flask, request: Request) -> FlaskSession:  # noqa: ARG002 (the interface's)
        """Show the session that the middleware has begun, or begin one."""
        begun: SyncSession | None = request.environ.get(ENVIRON_KEY)
        if begun is not None:
            return FlaskSession(self._sessions, begun._work)
        cookies = [value.encode("latin-1", "replace") for value in request.headers.getlist("Cookie")]
        opened = FlaskSession(self._sessions, self._sessions.begin(cookies)._work)
        opened.is_own = True
        return opened

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:  # noqa: ARG002
        """Store what no middleware is going to store."""
        if not isinstance(session, FlaskSession) or not session.is_own:
            return
        set_cookie = self._sessions.conclude(session, response.status_code)
        headers = self._sessions.headers(TEXT, response.headers, session, set_cookie)
        if headers is not None:
            response.headers = Headers(headers)


def _preprocess(preprocess: Callable[..., Any], *args: Any) -> Any:
    """Do what the application does before a request, which may log in, and then check the guards of a marked view."""
    answer = preprocess(*args)
    if answer is None:
        for within in guards_due(current_app, request.method, request.url_rule):
            check_login(session, within)
    return answer


def _send_to_login(error: LoginRequired) -> Response:
    refusal = installed_in(current_app).guard(url_for).answer(error, request_of(request.environ))
    return Response(refusal.body, refusal.status, list(refusal.headers))


def _refuse(error: StoreUnavailable) -> Response:
    installed_in(current_app).outages.report(error)
    return Response(outage.BODY, 503, list(outage.HEADERS))
