"""Sessions written by hand: about the least that a signed cookie and a read from Redis cost in Python.

A yardstick, not something to use. It signs a cookie, sends the reads that wait together and decodes what comes back,
and that is all: no errors, timeouts or reconnecting, no lost update prevented, no second key, no expiry by use, no
list of sessions, no checks of what is stored, no headers for caches but `Vary`.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import hiredis
import msgspec
from article import REDIS_URL, SECRET_KEY, WEEK_S, be_ready, content
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ID_BYTES = 33
"""A multiple of three, like the signature's with one byte cut off, so that base64 needs no padding."""
COOKIE = b"session="

key = hmac.new(SECRET_KEY.encode(), digestmod="sha256")
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


def signature(session_id: bytes) -> bytes:
    keyed = key.copy()
    keyed.update(session_id)
    return keyed.digest()[:30]


def key_of(token: bytes) -> str | None:
    decoded = urlsafe_b64decode(token)
    session_id = decoded[:ID_BYTES]
    if not hmac.compare_digest(signature(session_id), decoded[ID_BYTES:]):
        return None
    return "by-hand:" + sha256(session_id).hexdigest()


class Connection(asyncio.Protocol):
    """To Redis: the reads of one turn of the event loop as one MGET, everything else as it comes."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.reader = hiredis.Reader()
        self.sent: list[list[asyncio.Future[Any]] | asyncio.Future[Any]] = []
        self.reads: list[tuple[str, asyncio.Future[bytes | None]]] = []

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            waiting = self.sent.pop(0)
            if isinstance(waiting, list):
                for future, each in zip(waiting, reply, strict=True):
                    future.set_result(each)
            else:
                waiting.set_result(reply)

    def read(self, name: str) -> asyncio.Future[bytes | None]:
        """Read a key together with what others read in this turn of the loop."""
        future = self.loop.create_future()
        if not self.reads:
            self.loop.call_soon(self._send_reads)
        self.reads.append((name, future))
        return future

    def _send_reads(self) -> None:
        reads, self.reads = self.reads, []
        self.sent.append([future for _, future in reads])
        self.transport.write(hiredis.pack_command(("MGET", *[name for name, _ in reads])))

    def send(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command at once."""
        future = self.loop.create_future()
        self.sent.append(future)
        self.transport.write(hiredis.pack_command(command))
        return future


connections: list[Connection] = []


async def connection() -> Connection:
    if not connections:
        address = urlsplit(REDIS_URL)
        _, made = await asyncio.get_running_loop().create_connection(Connection, address.hostname, address.port)
        connections.append(made)
    return connections[0]


class SessionsByHand:
    """The middleware."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application for one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = None
        for header, value in scope["headers"]:
            if header == b"cookie" and value.startswith(COOKIE):
                name = key_of(value[len(COOKIE) :])
        data = None if name is None else await (await connection()).read(name)
        scope["session"] = None if data is None else decode(data)
        scope["session_name"] = name

        async def send_varied(message: Any) -> None:
            if name is not None and message["type"] == "http.response.start":
                message["headers"].append((b"vary", b"Cookie"))
            await send(message)

        await self.app(scope, receive, send_varied)


async def store(name: str, session: dict[str, Any]) -> None:
    await (await connection()).send("SET", name, encode(session), "EX", WEEK_S)


async def login(request: Request) -> Response:
    session_id = secrets.token_bytes(ID_BYTES)
    token = urlsafe_b64encode(session_id + signature(session_id))
    await store(key_of(token) or "", content(request.query_params["user"]))
    response = JSONResponse({"ok": True})
    response.set_cookie("session", token.decode(), max_age=WEEK_S, httponly=True)
    return response


async def profile(request: Request) -> Response:
    session = request.scope["session"]
    if session is None:
        return JSONResponse({"error": "not logged in"}, 401)
    return JSONResponse({"user": session["user"], "visits": session["visits"]})


async def visit(request: Request) -> Response:
    session = request.scope["session"]
    session["visits"] += 1
    await store(request.scope["session_name"], session)
    return JSONResponse({"visits": session["visits"]})


async def logout(request: Request) -> Response:
    await (await connection()).send("DEL", request.scope["session_name"])
    response = JSONResponse({"ok": True})
    response.delete_cookie("session")
    return response


async def none(_request: Request) -> Response:
    return JSONResponse({"ok": True})


app = Starlette(
    routes=[
        Route("/login", login, methods=["POST"]),
        Route("/profile", profile),
        Route("/visit", visit),
        Route("/logout", logout, methods=["POST"]),
        Route("/none", none),
    ],
    middleware=[Middleware(SessionsByHand)],
)

be_ready()
