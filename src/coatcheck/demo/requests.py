"""What a request asks for: its form, bounded, and the kind of answer it would like."""

from __future__ import annotations

import re
from typing import Final, cast

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coatcheck.sessions import Session, Sessions

MAX_BODY_BYTES: Final = 64 * 1024
"""No form of the demo has more than a few hundred bytes."""

_MAX_FIELDS: Final = 20

_WEIGHT: Final = re.compile(r";\s*q=([01](?:\.\d{0,3})?)\s*(?:;|$)", re.IGNORECASE)
"""RFC 9110, section 12.4.2."""

_HTML: Final = ("text/html", "application/xhtml+xml")
_JSON: Final = "application/json"


def session_of(request: HTTPConnection) -> Session:
    """Give the request's session. Starlette declares `request.session` a dict, so this says what it is here."""
    return cast("Session", request.session)


def sessions_of(request: Request) -> Sessions:
    """Give where the demo keeps its sessions."""
    return cast("Sessions", request.app.state.sessions)


# --- Accept -----------------------------------------------------------------------------------------------------------


def prefers_json(request: Request) -> bool:
    """Tell whether the client asks for JSON, by name and no less than for HTML."""
    accepted = _accepted(request)
    json_weight = accepted.get(_JSON, 0.0)
    html_weight = _html_weight(accepted)
    if json_weight != html_weight:
        return json_weight > html_weight
    return json_weight > 0 and next(kind for kind in accepted if kind == _JSON or kind in _HTML) == _JSON


def accepts_html(request: Request) -> bool:
    """Tell whether the client asks for HTML by name, as browsers do."""
    return _html_weight(_accepted(request)) > 0


def _html_weight(accepted: dict[str, float]) -> float:
    return max(accepted.get(kind, 0.0) for kind in _HTML)


def _accepted(request: Request) -> dict[str, float]:
    """Give the media types that the request names, in their order, with their weights."""
    accepted: dict[str, float] = {}
    for part in ",".join(request.headers.getlist("accept")).split(","):
        kind = part.partition(";")[0].strip().lower()
        weight = _WEIGHT.search(part)
        if kind:
            accepted.setdefault(kind, float(weight[1]) if weight else 1.0)
    return accepted


# --- forms ------------------------------------------------------------------------------------------------------------


class BodyLimit:
    """Answers 413 to whoever sends more than a form can need, as soon as it is more."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection."""
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                # The rest is not read, so the connection can't carry another request.
                raise HTTPException(413, headers={"Connection": "close"})
            return message

        await self._app(scope, receive_bounded if scope["type"] == "http" else receive, send)


async def read_form(request: Request) -> FormData:
    """Read the form. A body that is not one is answered by 400."""
    try:
        return await request.form(max_fields=_MAX_FIELDS, max_files=0)
    except ValueError:  # what the parsers, and the character sets that a part may name, raise for nonsense
        raise HTTPException(400) from None


def text_field(form: FormData, name: str) -> str:
    """Give a text of the form, empty when it is missing. A text that is not Unicode is answered by 400."""
    value = form.get(name, "")
    if not isinstance(value, str):
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, by way of UTF-7 or the like
        raise HTTPException(400) from None
    return value
