"""The WebSocket by which an open page hears that its session has ended. The script at the other end is `live.js`."""

from __future__ import annotations

from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from coatcheck.asgi import POLICY_VIOLATION
from coatcheck.demo import steps
from coatcheck.demo.requests import session_of


async def live(websocket: WebSocket) -> None:
    """Tell the page when its session has ended, and close then. Other sites' pages don't get here: `CsrfMiddleware`."""
    session = session_of(websocket)
    if steps.current_user(session) is None:
        await websocket.close(POLICY_VIOLATION)  # before the handshake, it makes the server answer 403
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
