"""CSRF protection for ASGI applications: a middleware that goes inside `coatcheck.asgi.SessionMiddleware`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from coatcheck.asgi import ASGIApp, Headers, Message, Receive, Scope, Send, header_of, request_of, send_refusal
from coatcheck.csrf.forms import FormSearch
from coatcheck.csrf.policy import HEADER, Attempt, CsrfPolicy, refuse
from coatcheck.errors import ConfigurationError, CsrfRefused
from coatcheck.sessions import Session

SCOPE_KEY: Final = "coatcheck.csrf"
"""Where the application that answers finds out why a request was refused: a `CsrfRefused`."""

_HEADER: Final = HEADER.encode("ascii")


class CsrfMiddleware:
    """Refuses requests that other sites' pages send, and those that lack a token. See `CsrfPolicy` for the rules.

    The token is taken from the header `X-CSRF-Token`, or else from the form field `csrf_token`, which has to be in the
    first 64 KiB of the body. `coatcheck.csrf.csrf_field` and `csrf_token` make them. WebSockets need no token, but must
    not come from another site.

    Args:
        app: the application.
        trusted_origins: see `CsrfPolicy`.
        exempt: see `CsrfPolicy`.
        name: the key of the scope with the session, see `coatcheck.asgi.SessionMiddleware`.
        refusal: answers refused HTTP requests instead of the plain 403. `scope["coatcheck.csrf"]` tells it why.

    Raises:
        ConfigurationError: an argument can't work.
        MissingExtra: not from here, but from importing this module without the extra `csrf`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        trusted_origins: Iterable[str] = (),
        exempt: Iterable[str] = (),
        name: str = "session",
        refusal: ASGIApp | None = None,
    ) -> None:
        self._app = app
        self._policy = CsrfPolicy(trusted_origins, exempt)
        self._name = name
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection, if it may be reached."""
        try:
            if scope["type"] == "websocket":
                self._policy.check_origin(_attempt(scope))
            elif scope["type"] == "http" and self._policy.concerns(scope["method"], scope["path"]):
                receive = await self._checked(scope, receive)
        except CsrfRefused as error:
            await self._refuse(error, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """Give where the application receives the body from, of which the beginning may have been looked at."""
        is_own_page = self._policy.check_origin(_attempt(scope))
        session = scope.get(self._name)
        if not isinstance(session, Session):
            msg = f"CsrfMiddleware found no session under {self._name!r}: put it inside of SessionMiddleware"
            raise ConfigurationError(msg)
        await session.load()
        if not self._policy.needs_token(session, is_own_page=is_own_page):
            return receive
        token: str | None = header_of(scope["headers"], _HEADER)
        if not token:
            token, receive = await _token_in_form(scope, receive)
        self._policy.check_token(session, token)
        return receive

    async def _refuse(self, error: CsrfRefused, scope: Scope, receive: Receive, send: Send) -> None:
        if self._refusal is not None and scope["type"] == "http":
            scope[SCOPE_KEY] = error
            await self._refusal(scope, receive, send)
        else:
            await send_refusal(scope, send, refuse(error, request_of(scope)))


async def _token_in_form(scope: Scope, receive: Receive) -> tuple[str | None, Receive]:
    search = FormSearch(header_of(scope["headers"], b"content-type"))
    received: deque[Message] = deque()
    while not search.is_over:
        message = await receive()
        received.append(message)
        is_last = not message.get("more_body", False)  # nor has a client that leaves
        search.feed(message.get("body", b""), is_last=is_last)

    async def receive_again() -> Message:
        return received.popleft() if received else await receive()

    return search.token, receive_again if received else receive


def _attempt(scope: Scope) -> Attempt:
    headers: Headers = scope["headers"]
    scheme: str = scope.get("scheme", "http")
    return Attempt(
        method=scope.get("method", "GET"),
        path=scope["path"],
        scheme={"ws": "http", "wss": "https"}.get(scheme, scheme),
        host=header_of(headers, b"host"),
        origin=header_of(headers, b"origin"),
        sec_fetch_site=header_of(headers, b"sec-fetch-site"),
    )
