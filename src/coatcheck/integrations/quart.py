"""Sessions for Quart: an extension that puts Coatcheck in the place of Quart's own sessions.

A request's way past its session, and a WebSocket's, is `coatcheck.asgi`'s: the extension puts the middleware around the
application, and `quart.session` shows the session that it has begun. Where there is no middleware in the way, as in
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
from coatcheck.asgi import POLICY_VIOLATION, SCOPE_KEY, TRY_AGAIN_LATER, SessionMiddleware, request_of
from coatcheck.csrf.asgi import CsrfMiddleware
from coatcheck.errors import LoginRequired, MissingExtra, StoreUnavailable
from coatcheck.guard import check_login
from coatcheck.headers import TEXT
from coatcheck.sessions import Session, Sessions

try:
    import quart
    from quart import Quart, Response, current_app, has_websocket_context, request, url_for, websocket
    from quart.sessions import SessionInterface, SessionMixin
    from werkzeug.datastructures import Headers
except ImportError as error:
    _feature = "The adapter to Quart"
    raise MissingExtra(_feature, "quart") from error

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
    from quart.wrappers import BaseRequestWebsocket
    from werkzeug.wrappers import Response as WerkzeugResponse

__all__ = ["Coatcheck", "QuartSession", "login_required", "recent_login_required", "session"]


class QuartSession(FlaskFace, Session):
    """What `quart.session` is: a `Session` that Quart and its extensions can work with."""


session: Final = cast("QuartSession", quart.session)
"""`quart.session` itself, known to type checkers for what it is."""


class Coatcheck(Extension[Quart, Sessions]):
    """Quart's extension: keeps `quart.session` on the server. Give it the application now, or later with `init_app`.

    Args:
        app: the application. Its settings, `COATCHECK_...` in `app.config`, have to be there before.
        sessions: a ready `Sessions` in the place of the settings about sessions.

    Raises:
        ConfigurationError: a setting is unknown, missing or can't work.

    Example:
        app.config["SECRET_KEY"] = os.environ["SECRET_KEY"]  # 32 bytes or more
        app.config["COATCHECK_STORE"] = "redis://localhost:6379/0"
        coatcheck = Coatcheck(app)
        ...
        await coatcheck.sessions.revoke_user(session.user_id, keep=session)
    """

    _kind = Sessions
    _middlewares = (CsrfMiddleware, SessionMiddleware)

    def _install(self, app: Quart, sessions: Sessions, settings: Settings) -> None:
        app.asgi_app = self._around(app.asgi_app, sessions, settings)  # type: ignore[method-assign]
        if settings.has_tokens:
            give_templates_the_csrf_token(app, session)
        app.session_interface = cast("Any", _Interface(sessions))  # any will do, whatever the annotation says
        app.preprocess_request = partial(_preprocess, request, app.preprocess_request)  # type: ignore[method-assign]
        app.preprocess_websocket = partial(_preprocess, websocket, app.preprocess_websocket)  # type: ignore[method-assign]
        answer(app, LoginRequired, _send_to_login)
        answer(app, StoreUnavailable, _refuse)
        app.handle_exception = with_outages(app.handle_exception, _refuse)  # type: ignore[method-assign]
        app.handle_websocket_exception = with_outages(app.handle_websocket_exception, _refuse)  # type: ignore[method-assign]

    def _current_app(self) -> Quart:
        return current_app


def login_required(view: View) -> View:
    """Let only those reach a view who are logged in: browsers are sent to the login, programs get 401 and JSON.

    A WebSocket is refused. Stands above or below `@app.route`. All routes of the function are guarded.
    """
    return guarded(view, None, session)


def recent_login_required(within: timedelta) -> Callable[[View], View]:
    """Let only those reach a view who have logged in lately, as `login_required` does. For pages that matter.

    Args:
        within: how long ago the login may be.
    """
    return partial(guarded, within=within, session=session)


class _Interface(SessionInterface):
    """What Quart asks for its sessions."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> QuartSession:  # noqa: ARG002 (the interface's)
        """Show the session that the middleware has begun, or begin one."""
        begun: Any = request.scope.get(SCOPE_KEY)
        if isinstance(begun, Session):
            return QuartSession(self._sessions, begun._work)
        cookies = [value.encode("latin-1", "replace") for value in request.headers.getlist("Cookie")]
        opened = QuartSession(self._sessions, self._sessions.begin(cookies)._work)
        opened.is_own = True
        await opened.load()
        return opened

    async def save_session(
        self,
        app: Quart,  # noqa: ARG002
        session: SessionMixin,
        response: Response | WerkzeugResponse | None,
    ) -> None:
        """Store what no middleware is going to store."""
        if not isinstance(session, QuartSession) or not session.is_own:
            return
        if response is None:  # of a WebSocket
            await session.save()
            return
        set_cookie = await self._sessions.conclude(session, response.status_code)
        headers = self._sessions.headers(TEXT, response.headers, session, set_cookie)
        if headers is not None:
            response.headers = Headers(headers)


async def _preprocess(asked: BaseRequestWebsocket, preprocess: Callable[..., Any], *args: Any) -> Any:
    """Do what the application does before a request, which may log in, and then check the guards of a marked view."""
    answer = await preprocess(*args)
    if answer is None:
        for within in guards_due(current_app, asked.method, asked.url_rule):
            await session.load()
            check_login(session, within)
    return answer


async def _send_to_login(error: LoginRequired) -> Response | None:
    if has_websocket_context():
        await websocket.close(POLICY_VIOLATION, str(error))
        return None
    scope: Any = request.scope
    refusal = installed_in(current_app).guard(url_for).answer(error, request_of(scope))
    return Response(refusal.body, refusal.status, dict(refusal.headers))


async def _refuse(error: StoreUnavailable) -> Response | None:
    installed = installed_in(current_app)
    installed.outages.report(error)
    if has_websocket_context():
        # Or the changes that failed would be tried again before the close leaves.
        await installed.sessions.give_up(session)
        await websocket.close(TRY_AGAIN_LATER, "Try again later")
        return None
    return Response(outage.BODY, 503, dict(outage.HEADERS))
