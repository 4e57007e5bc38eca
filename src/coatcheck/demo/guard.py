"""The guard: who may see a page, and where somebody may be sent after the login."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final, TypeAlias
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Match, Route

from coatcheck import guard
from coatcheck.demo.requests import prefers_json, session_of
from coatcheck.demo.steps import current_user
from coatcheck.demo.users import User

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
GuardedHandler: TypeAlias = Callable[[Request, User], Awaitable[Response]]

FIRST_PAGE: Final = "/profile"
"""Where a login leads when nothing else was asked for."""


def require_login(handler: GuardedHandler) -> Handler:
    """Let a handler be reached by logged-in users only, and tell it who it is.

    A browser is sent to the login and back afterwards; a client that asks for JSON gets 401.
    """

    @wraps(handler)
    async def guarded(request: Request) -> Response:
        user = current_user(session_of(request))
        return ask_to_log_in(request) if user is None else await handler(request, user)

    return guarded


def ask_to_log_in(request: Request) -> Response:
    """Answer a request that needs a login and has none."""
    if prefers_json(request):
        return JSONResponse({"error": "login_required", "message": "Log in first, by POST /login."}, 401)
    # Not request.url, which is made with the Host header and fails for one that is not a host.
    query = request.scope["query_string"].decode("latin-1")
    target = request.scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse("/login?" + urlencode({"next": safe_next(request, target)}), 303)


def safe_next(request: Request, target: str) -> str:
    """Give `target` if it is the path of one of this site's pages, else `FIRST_PAGE`.

    Not every path of this site: the login must not end in an error, as a path would that only takes POST.
    """
    target = guard.safe_next(target, FIRST_PAGE)
    path = re.split(r"[?#]", target, maxsplit=1)[0]
    scope = {"type": "http", "method": "GET", "path": path, "root_path": ""}
    pages = [route for route in request.app.routes if isinstance(route, Route) and not route.param_convertors]
    return target if any(route.matches(scope)[0] is Match.FULL for route in pages) else FIRST_PAGE
