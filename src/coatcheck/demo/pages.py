"""HTML out: templates, the headers that keep a page safe, and the pages for errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from reprlib import Repr
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coatcheck.csrf.asgi import REFUSED_KEY
from coatcheck.demo import steps
from coatcheck.demo.device_names import device_name
from coatcheck.demo.listing import listing
from coatcheck.demo.observed import store_calls
from coatcheck.demo.preferences import LANGUAGES, THEMES, language_of, theme_of
from coatcheck.demo.requests import prefers_json, session_of
from coatcheck.demo.users import USERS

# --- headers ----------------------------------------------------------------------------------------------------------

SECURITY_HEADERS: Final = {
    # Nothing from elsewhere, no script within a page, and no other site's frame around one. To 'self' belongs the
    # WebSocket of the same host (CSP 3), in every browser that is new enough for the style sheet's light-dark().
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer", with which browsers would send `Origin: null` along with the demo's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeadersMiddleware:
    """Adds `SECURITY_HEADERS` to every response, and keeps pages out of caches.

    With `no-store`, the browser's back button shows nothing private after the logout.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
                    headers.add_vary_header("Accept")
            await send(message)

        await self._app(scope, receive, send_with_headers)


# --- static files -----------------------------------------------------------------------------------------------------

_MEDIA_TYPES: Final = {
    "live.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "ticket.svg": "image/svg+xml",
}
_STATIC: Final = {name: files("coatcheck.demo").joinpath("static", name).read_bytes() for name in _MEDIA_TYPES}
_STATIC_VERSION: Final = sha256(b"".join(_STATIC.values())).hexdigest()[:12]


async def static_file(request: Request) -> Response:
    """Serve a file that every page uses. Its address changes with its content, so it may be kept for ever."""
    name = request.path_params["name"]
    if name not in _STATIC:
        raise HTTPException(404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(_STATIC[name], media_type=_MEDIA_TYPES[name], headers=headers)


# --- pages ------------------------------------------------------------------------------------------------------------

_environment: Final = Environment(
    loader=PackageLoader("coatcheck.demo"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


async def page(
    request: Request, template: str, status: int = 200, *, headers: dict[str, str] | None = None, **context: Any
) -> Response:
    """Render a template for the session at hand.

    What the request has changed is stored before, so that the page can tell what this took.
    """
    session = session_of(request)
    flashes = [] if request.method == "HEAD" else session.flashes()  # of HEAD, nobody sees the page
    user = steps.current_user(session)
    if flashes and not session and user is None:
        session.destroy()  # it was there for the message only
    field = steps.form_field(session)
    look = {"theme": theme_of(session), "language": language_of(session)}
    await session.save()
    context |= {"user": user, "flashes": flashes, "expires_in": session.expires_at - datetime.now(UTC), **look}
    context |= {"path": request.scope["path"], "calls": store_calls(), "csrf_field": field}
    return HTMLResponse(_render(template, **context), status, headers)


def _render(template: str, **context: Any) -> str:
    return _environment.get_template(template).render(context)


def show_value(value: Any) -> str:
    """Show a session's value as Python would, bounded. Times are shown for people; their type is told beside."""
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    return _shortened.repr(value)


_shortened: Final = Repr()
_shortened.maxstring = _shortened.maxother = 80
_shortened.maxlist = 4


def show_span(span: timedelta) -> str:
    """Show a length of time, to the precision that a person wants."""
    seconds = max(0, round(span.total_seconds()))
    for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * size - size // 60:  # a moment less than two hours is not 120 minutes
            return f"{round(seconds / size)} {name}s"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def show_ticket_number(handle: str) -> str:
    """Show the beginning of a handle as the number on a ticket."""
    return f"{handle[:4]} {handle[4:8]}".upper()


_environment.filters |= {
    "value": show_value,
    "span": show_span,
    "ticket_number": show_ticket_number,
    "device_name": device_name,
}
_environment.globals |= {
    "USERS": USERS.values(),
    "THEMES": THEMES,
    "LANGUAGES": LANGUAGES,
    "listing": listing,
    "steps": steps,
    "now": lambda: datetime.now(UTC),
    "static_version": _STATIC_VERSION,
}

# --- errors -----------------------------------------------------------------------------------------------------------

_EXPLANATIONS: Final = {
    400: "What was sent is not a form that can be read.",
    404: "There is no page at this address.",
    405: "This address does not take that kind of request.",
    413: "What was sent is larger than any form here can be.",
}


async def error_page(request: Request, error: Exception) -> Response:
    """Answer an `HTTPException`, as JSON if that is asked for."""
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
    title = HTTPStatus(error.status_code).phrase
    explanation = _EXPLANATIONS.get(error.status_code, title)
    if prefers_json(request):
        name = title.lower().replace(" ", "_")
        return JSONResponse({"error": name, "message": explanation}, error.status_code, headers)
    return await page(
        request,
        "error.html",
        error.status_code,
        headers=headers,
        code=error.status_code,
        title=title,
        explanation=explanation,
    )


def _allowed_methods(request: Request) -> set[str]:
    """Give the methods of all routes with this path; Starlette names those of the first one only."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return set[str]().union(*matching)


async def forgery_page(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that no page of the demo has sent, as far as can be told. For `CsrfMiddleware`."""
    request, error = Request(scope, receive), scope[REFUSED_KEY]
    explanation = f"{error}. Nothing was changed. Go back, reload the page, and send it again."
    response = _page_without_session(request, 403, "Not accepted", explanation, error.code)
    await response(scope, receive, send)


async def failure_page(request: Request, _error: Exception) -> Response:
    """Answer an error in the demo itself.

    This response goes around the middleware, so it brings its headers along.
    """
    explanation = "Something went wrong here. Nothing of this request was stored."
    response = _page_without_session(request, 500, "Internal Server Error", explanation, "internal_server_error")
    response.headers.update(SECURITY_HEADERS | {"Cache-Control": "no-store"})
    return response


def _page_without_session(request: Request, code: int, title: str, explanation: str, error: str) -> Response:
    """Answer where the session is not to be touched: it may be what failed, or what somebody else wants to reach."""
    if prefers_json(request):
        return JSONResponse({"error": error, "message": explanation}, code)
    html = _render(
        "error.html",
        user=None,
        flashes=[],
        path=request.scope["path"],
        calls=[],
        theme="system",
        language="en",
        code=code,
        title=title,
        explanation=explanation,
    )
    return HTMLResponse(html, code)
