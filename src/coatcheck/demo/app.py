"""The article's application: log in, be remembered and counted, fill a cart, choose a theme, log out where you like."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute

from coatcheck.asgi import SessionMiddleware
from coatcheck.csrf.asgi import CsrfMiddleware
from coatcheck.demo import steps
from coatcheck.demo.devices import devices, revoke, revoke_others
from coatcheck.demo.guard import FIRST_PAGE, ask_to_log_in, require_login, safe_next
from coatcheck.demo.live import live
from coatcheck.demo.observed import ObservingMiddleware
from coatcheck.demo.pages import SecurityHeadersMiddleware, error_page, failure_page, forgery_page, page, static_file
from coatcheck.demo.preferences import LANGUAGES, THEMES, language_of, theme_of
from coatcheck.demo.requests import BodyLimit, accepts_html, prefers_json, read_form, session_of, text_field
from coatcheck.demo.users import User, authenticate
from coatcheck.sessions import Sessions

MAX_ITEM_CHARACTERS: Final = 200
MAX_ITEMS: Final = 1_000
"""With MAX_ITEM_CHARACTERS, keeps a full cart below the record's default limit of 1 MiB."""

_MAX_USERNAME_CHARACTERS: Final = 100


def create_app(sessions: Sessions) -> Starlette:
    """Make the demo.

    Args:
        sessions: where it keeps its sessions. Given a store that is `observed`, the pages tell what each request
            asked of it.
    """
    app = Starlette(
        routes=[
            Route("/", index, methods=["GET"]),
            Route("/login", login_form, methods=["GET"]),
            Route("/login", login, methods=["POST"]),
            Route("/logout", logout, methods=["POST"]),
            Route("/profile", profile, methods=["GET"]),
            Route("/settings", settings_form, methods=["GET"]),
            Route("/settings", settings, methods=["POST"]),
            Route("/visit", visit, methods=["POST"]),
            Route("/cart", cart, methods=["GET"]),
            Route("/cart", add_to_cart, methods=["POST"]),
            Route("/devices", devices, methods=["GET"]),
            Route("/devices/revoke", revoke, methods=["POST"]),
            Route("/devices/revoke-others", revoke_others, methods=["POST"]),
            WebSocketRoute("/devices/live", live),
            Route("/static/{name}", static_file, methods=["GET"]),
        ],
        middleware=[
            Middleware(SecurityHeadersMiddleware),
            Middleware(ObservingMiddleware),
            Middleware(SessionMiddleware, sessions=sessions),
            Middleware(CsrfMiddleware, refusal=forgery_page),
            Middleware(BodyLimit),
        ],
        exception_handlers={
            HTTPException: error_page,
            ClientDisconnect: client_has_gone,
            Exception: failure_page,
        },
    )
    app.state.sessions = sessions
    app.state.lifetime = sessions.config.lifetime
    app.state.cookie_name = sessions.config.cookie.full_name
    # The redirect to the address without the slash would be built from the Host header, which anybody can choose.
    app.router.redirect_slashes = False
    return app


async def index(request: Request) -> Response:
    """Say what this is."""
    session = session_of(request)
    handle = None if session.is_new else session.handle
    return await page(request, "index.html", handle=handle, cookie_name=request.app.state.cookie_name)


# --- login and logout -------------------------------------------------------------------------------------------------


async def login_form(request: Request) -> Response:
    """Ask who it is."""
    target = safe_next(request, request.query_params.get("next", FIRST_PAGE))
    return await page(request, "login.html", target=target, username="", error=None)


async def login(request: Request) -> Response:
    """Log in, and go to where the visitor wanted to go."""
    form = await read_form(request)
    target = safe_next(request, text_field(form, "next") or request.query_params.get("next", FIRST_PAGE))
    username = text_field(form, "username")
    user = authenticate(username, text_field(form, "password"))
    if user is not None:
        steps.log_in(session_of(request), user)
        return RedirectResponse(target, 303)
    message = "This username and password do not belong together."
    if prefers_json(request):
        return JSONResponse({"error": "wrong_credentials", "message": message}, 401)
    return await page(
        request, "login.html", 401, target=target, username=username[:_MAX_USERNAME_CHARACTERS], error=message
    )


async def logout(request: Request) -> Response:
    """Log out. For somebody who is not logged in, this does not even make a session."""
    session = session_of(request)
    if not session.is_new:
        steps.log_out(session)
    return RedirectResponse("/login", 303)


# --- guarded pages ----------------------------------------------------------------------------------------------------


@require_login
async def profile(request: Request, user: User) -> Response:
    """Show who it is, and what the session knows."""
    session = session_of(request)
    if prefers_json(request):
        token = steps.script_token(session)
        return JSONResponse({"username": user.username, "handle": session.handle, "csrf_token": token})
    return await page(
        request,
        "profile.html",
        handle=session.handle,
        cookie_name=request.app.state.cookie_name,
        created_at=session.created_at,
        age=datetime.now(UTC) - session.created_at,
        expires_at=session.expires_at,
        ends_at=session.created_at + request.app.state.lifetime,
        values={key: session[key] for key in session if not key.startswith("_")},
    )


@require_login
async def visit(request: Request, _user: User) -> Response:
    """Count the visit, and answer with the true number."""
    visits = await steps.count_visit(session_of(request))
    if visits is None:  # the session was ended from elsewhere while this request ran
        return ask_to_log_in(request)
    if prefers_json(request):
        return JSONResponse({"visits": visits})
    if accepts_html(request):
        return await page(request, "visit.html", visits=visits)
    return PlainTextResponse(f"{visits}\n")


@require_login
async def cart(request: Request, _user: User) -> Response:
    """Show what is in the cart."""
    return await _cart(request)


async def _cart(request: Request, status: int = 200, error: str | None = None) -> Response:
    items: list[str] = session_of(request).get("cart", [])
    if prefers_json(request):
        if error is None:
            return JSONResponse({"items": items})
        return JSONResponse(
            {"error": "cart_full" if status == HTTPStatus.CONFLICT else "invalid_item", "message": error}, status
        )
    return await page(request, "cart.html", status, items=items, error=error, max_item_characters=MAX_ITEM_CHARACTERS)


@require_login
async def add_to_cart(request: Request, _user: User) -> Response:
    """Put something into the cart."""
    item = text_field(await read_form(request), "item").strip()
    error = _problem_with(item)
    if error is not None:
        return await _cart(request, 400, error)
    session = session_of(request)
    if len(session.get("cart", ())) >= MAX_ITEMS:
        return await _cart(request, 409, f"The cart is full: it holds {MAX_ITEMS} things.")
    items = await steps.add_to_cart(session, item)
    if items is None:  # as in visit()
        return ask_to_log_in(request)
    return JSONResponse({"items": items}) if prefers_json(request) else RedirectResponse("/cart", 303)


def _problem_with(item: str) -> str | None:
    if not item:
        return "Say what to put into the cart."
    if len(item) > MAX_ITEM_CHARACTERS:
        return f"That is too long: {MAX_ITEM_CHARACTERS} characters are the most."
    if any(unicodedata.category(character) == "Cc" for character in item):
        return "That has control characters in it."
    return None


@require_login
async def settings_form(request: Request, _user: User) -> Response:
    """Show what can be chosen."""
    return await page(request, "settings.html", error=None)


@require_login
async def settings(request: Request, _user: User) -> Response:
    """Keep what was chosen."""
    form = await read_form(request)
    session = session_of(request)
    theme = text_field(form, "theme") or theme_of(session)
    language = text_field(form, "language") or language_of(session)
    if theme not in THEMES or language not in LANGUAGES:
        message = "Choose a theme and a language from the lists."
        if prefers_json(request):
            return JSONResponse({"error": "invalid_settings", "message": message}, 400)
        return await page(request, "settings.html", 400, error=message)
    steps.change_settings(session, theme, language)
    return RedirectResponse("/settings", 303)


async def client_has_gone(_request: Request, _error: Exception) -> Response:
    """End a request whose client left while it was sending. Nobody sees the answer."""
    return Response(status_code=400)
