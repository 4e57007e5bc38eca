"""The WebSocket by which an open page hears that its session has ended. The script at the other end is `live.js`."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from coatcheck.demo import steps
from coatcheck.demo.requests import session_of

_POLICY_VIOLATION: Final = 1008
"""WebSocket close code (RFC 6455, section 7.4.1). Before the handshake, it makes the server answer 403."""


async def live(websocket: WebSocket) -> None:
    """Tell the page when its session has ended, and close then. Other sites' pages don't get here: `CsrfMiddleware`."""
    session = session_of(websocket)
    if steps.current_user(session) is None:
        await websocket.close(_POLICY_VIOLATION)
        return
    await websocket.accept()
    if await steps.hears_of_its_end(session, _until_gone(websocket)):
        with suppress(WebSocketDisconnect):  # the client may go in the same moment
            await websocket.send_json({"type": "session_ended"})
            await websocket.close()


async def _until_gone(websocket: WebSocket) -> None:
    """Wait until the client has gone, or the server closes because it shuts down. What a client sends is ignored."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
