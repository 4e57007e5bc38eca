"""Ends TLS in front of a server of this machine, as a reverse proxy does where applications are deployed."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from certificates import Authority

_CHUNK_BYTES: Final = 65_536
_GONE: Final = (OSError, asyncio.IncompleteReadError)


class HttpsFront:
    """Passes requests on over http and says so by `X-Forwarded-Proto`. WebSockets pass too.

    Each connection carries one request, so that every request gets the header without a parser of HTTP here.

    Args:
        target_port: the server's port.
        folder: where to put the certificate. No browser trusts it, so let it ignore that.
        below: other servers' ports, by the beginning of the paths that they serve: `{"/api/": 8001}`.
    """

    def __init__(self, target_port: int, folder: Path, below: Mapping[str, int] | None = None) -> None:
        self.port = 0
        self._target_port = target_port
        self._below = below or {}
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(*Authority(folder).issue("front"))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="https front")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._carry(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port_for(head))
            ends.append(server_writer)
            server_writer.write(_forwarded(head))
            await _exchange(reader, writer, server_reader, server_writer)
            for end in ends:
                end.close()  # what is written is sent before
                await end.wait_closed()
        except _GONE:
            pass  # the browser changed its mind, or the server is not there
        finally:
            for end in ends:
                end.transport.abort()

    def _port_for(self, head: bytes) -> int:
        """Give the port of the server that serves a request's path."""
        path = head.split(b" ", 2)[1].decode("latin-1")
        return next((port for start, port in self._below.items() if path.startswith(start)), self._target_port)


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    server_reader: asyncio.StreamReader,
    server_writer: asyncio.StreamWriter,
) -> None:
    """Pass on both directions, until the server has said everything."""
    rest = asyncio.ensure_future(_pass_on(reader, server_writer))
    try:
        await _pass_on(server_reader, writer)
    finally:
        rest.cancel()
        await asyncio.gather(rest, return_exceptions=True)


def _forwarded(head: bytes) -> bytes:
    """Add what a reverse proxy adds, and ask for the end of the connection unless it becomes a WebSocket."""
    request_line, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    is_websocket = any(header.lower().startswith(b"upgrade:") for header in headers)
    if not is_websocket:
        headers = [header for header in headers if not header.lower().startswith(b"connection:")]
        headers.append(b"Connection: close")
    return b"\r\n".join([request_line, *headers, b"X-Forwarded-Proto: https", b"", b""])


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on one direction until its end."""
    with suppress(*_GONE):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
