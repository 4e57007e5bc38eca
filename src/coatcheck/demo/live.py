"""The WebSocket by which an open page hears that its session has ended. The script at the other end is `live.js`."""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from starlette.websockets import WebSocket, WebSocketDisconnect

from coatcheck.demo import steps
from coatcheck.demo.requests import session_of

_POLICY_VIOLATION: Final = 1008
"""WebSocket close code (RFC 6455, section 7.4.1). Before the handshake, it makes the server answer 403."""


async def live(websocket: WebSocket) -> None:
    """Tell the page when its session has ended, and close then."""
    session = session_of(websocket)
    if not _comes_from_here(websocket) or steps.current_user(session) is None:
        await websocket.close(_POLICY_VIOLATION)
        return
    await websocket.accept()
    if await steps.hears_of_its_end(session, _until_gone(websocket)):
        with suppress(WebSocketDisconnect):  # the client may go in the same moment
            await websocket.send_json({"type": "session_ended"})
            await websocket.close()


def _comes_from_here(websocket: WebSocket) -> bool:
    """Tell whether it is one of this site's own pages that asks.

    Neither the same-origin policy nor CORS keeps other sites from opening a WebSocket, and the browser sends the
    cookies along that it has (CWE-1385, cross-site WebSocket hijacking). SameSite does not keep out another port of
    the same host. Browsers always send Origin; who sends none is no browser, and has only cookies of its own. The
    scheme is not compared, since a proxy may have taken the TLS off.
    """
    origins, hosts = websocket.headers.getlist("origin"), websocket.headers.getlist("host")
    if not origins:
        return True
    if len(origins) > 1 or len(hosts) != 1:
        return False
    try:
        origin = urlsplit(origins[0])
    except ValueError:  # brackets that enclose no address
        return False
    return origin.scheme in ("http", "https") and origin.netloc.lower() == hosts[0].lower()


async def _until_gone(websocket: WebSocket) -> None:
    """Wait until the client has gone, or the server closes because it shuts down. What a client sends is ignored."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
