"""CSRF protection for ASGI applications: a middleware that goes inside `coatcheck.asgi.SessionMiddleware`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from coatcheck.asgi import (
    SCOPE_KEY,
    ASGIApp,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    header_of,
    path_of,
    request_of,
    send_refusal,
)
from coatcheck.csrf.policy import HEADER, SEARCHED_BYTES, Attempt, CsrfPolicy
from coatcheck.errors import ConfigurationError, CsrfRefused
from coatcheck.sessions import Session

REFUSED_KEY: Final = "coatcheck.csrf"
"""Where the application that answers finds out why a request was refused: a `CsrfRefused`."""

SEARCHES_S: Final = 30.0
"""How long a form may take to come as far as its token. The application has its own limit, for the rest."""

READS_ON_S: Final = 1.0
"""How long to wait for the rest of a request that is refused already."""

_HEADER: Final = HEADER.encode("ascii")
_HTTP_REQUEST: Final = "http.request"


class CsrfMiddleware:
    """Refuses requests that other sites' pages send, and those that lack a token. See `CsrfPolicy` for the rules.

    The token is taken from the header `X-CSRF-Token`, or else from the form field `csrf_token`, which has to be in the
    first 64 KiB of the body, and to arrive within 30 seconds. `coatcheck.csrf.csrf_field` and `csrf_token` make them.
    WebSockets need no token, but must not come from another site.

    Args:
        app: the application.
        trusted_origins: see `CsrfPolicy`.
        exempt: see `CsrfPolicy`.
        tokens: see `CsrfPolicy`. With False, it may also go outside of the session.
        name: the key of the scope with the session, see `coatcheck.asgi.SessionMiddleware`.
        refusal: answers refused HTTP requests instead of the plain 403. `scope["coatcheck.csrf"]` tells it why.

    Raises:
        ConfigurationError: an argument can't work.
        MissingExtra: there are to be tokens, and the extra `csrf` is not installed.
    """

    def __init__(  # noqa: PLR0913 (they are the settings)
        self,
        app: ASGIApp,
        *,
        trusted_origins: Iterable[str] = (),
        exempt: Iterable[str] = (),
        tokens: bool = True,
        name: str = SCOPE_KEY,
        refusal: ASGIApp | None = None,
    ) -> None:
        self._app = app
        self._policy = CsrfPolicy(trusted_origins, exempt, tokens=tokens)
        if tokens:
            import coatcheck.csrf.forms  # noqa: F401 (so that it fails now if it can't work)
        self._name = name
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection, if it may be reached."""
        if scope["type"] == "websocket":
            try:
                self._policy.check_origin(_attempt(scope))
            except CsrfRefused as error:
                await send_refusal(scope, send, self._policy.answer(error, request_of(scope)), str(error))
                return
        elif scope["type"] == "http" and self._policy.concerns(scope["method"], path_of(scope)):
            body = _Body(receive)
            try:
                await self._check(scope, body)
            except CsrfRefused as error:
                await body.read_what_is_left()
                await self._refuse(error, scope, body.rest, send)
                return
            receive = body.rest
        await self._app(scope, receive, send)

    async def _check(self, scope: Scope, body: _Body) -> None:
        is_own_page = self._policy.check_origin(_attempt(scope))
        if not self._policy.has_tokens:
            return
        session = scope.get(self._name)
        if not isinstance(session, Session):
            msg = f"CsrfMiddleware found no session under {self._name!r}: put it inside of SessionMiddleware"
            raise ConfigurationError(msg)
        await session.load()
        if self._policy.needs_token(session, is_own_page=is_own_page):
            token = header_of(scope["headers"], _HEADER) or await _token_in_form(scope, body)
            self._policy.check_token(session, token)

    async def _refuse(self, error: CsrfRefused, scope: Scope, receive: Receive, send: Send) -> None:
        if self._refusal is not None:
            scope[REFUSED_KEY] = error
            await self._refusal(scope, receive, send)
        else:
            await send_refusal(scope, send, self._policy.answer(error, request_of(scope)))


class _Body:
    """A request's body, of which the beginning may be looked at before the application receives it.

    What was seen is kept as bytes, not as messages: there may be very many of them, small or empty.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen: list[bytes] = []
        self._last: Message | None = None
        self._is_over = False

    async def next(self) -> tuple[bytes, bool]:
        """Give the next piece, and whether it is the last."""
        self._last = message = await self._receive()
        piece: bytes = message.get("body", b"")
        if piece:
            self._seen.append(piece)
        self._is_over = not message.get("more_body", False)  # nor has a client that leaves
        return piece, self._is_over

    @property
    def rest(self) -> Receive:
        """Where the application receives the body from: the server, unless some of it was seen."""
        return self._receive if self._last is None else self._receive_again

    async def _receive_again(self) -> Message:
        """Give the application what was seen, and then the rest."""
        last, self._last = self._last, None
        if last is None:
            return await self._receive()
        seen, self._seen = b"".join(self._seen), []
        if last["type"] == _HTTP_REQUEST:
            return {**last, "body": seen}
        if seen:  # and then the client left
            self._last = last
            return {"type": _HTTP_REQUEST, "body": seen, "more_body": True}
        return last

    async def read_what_is_left(self) -> None:
        """Read on, but not for long: servers close a connection on which they have not read the request to its end."""
        read_bytes = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(READS_ON_S):
                while not self._is_over and read_bytes < SEARCHED_BYTES:
                    piece, _ = await self.next()
                    read_bytes += len(piece)


async def _token_in_form(scope: Scope, body: _Body) -> str | None:
    from coatcheck.csrf.forms import FormSearch

    search = FormSearch(header_of(scope["headers"], b"content-type"))
    with suppress(TimeoutError):
        async with asyncio.timeout(SEARCHES_S):
            while not search.is_over:
                piece, is_last = await body.next()
                search.feed(piece, is_last=is_last)
    return search.token


def _attempt(scope: Scope) -> Attempt:
    headers: Headers = scope["headers"]
    scheme: str = scope.get("scheme", "http")
    return Attempt(
        method=scope.get("method", "GET"),
        path=path_of(scope),
        scheme={"ws": "http", "wss": "https"}.get(scheme, scheme),
        host=header_of(headers, b"host"),
        origin=header_of(headers, b"origin"),
        sec_fetch_site=header_of(headers, b"sec-fetch-site"),
    )
