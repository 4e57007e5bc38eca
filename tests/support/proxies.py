"""A TCP proxy between a client and a server, which can cut, hold up and slow down what passes."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Self, TypeVar

T = TypeVar("T")

_CHUNK_BYTES = 65_536


class Proxy:
    """Passes bytes to a server on this machine; told to do worse by its methods, which any thread may call.

    Args:
        target_port: the server's port. May be changed: connections made from then on go to the new one.
        tls: what to offer clients, so that a server without TLS can be reached by it.
    """

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.target_port = target_port
        self.port = 0
        self._tls = tls
        self._delay_s = 0.0
        self._is_cut = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset all connections, and every new one."""
        self._is_cut = True
        self._call(self._reset_all())

    def stall(self) -> None:
        """Accept connections and bytes, and pass nothing on."""
        self._call(self._set_flowing(is_flowing=False))

    def forget(self) -> None:
        """Keep the connections that there are, and pass nothing on in them ever again, as a firewall may do."""
        self._forgotten |= self._writers

    def slow(self, delay_ms: float) -> None:
        """Let everything arrive so much later, in each direction."""
        self._delay_s = delay_ms / 1000

    def mend(self) -> None:
        """Pass everything again, what was held up included."""
        self._is_cut = False
        self._delay_s = 0
        self._call(self._set_flowing(is_flowing=True))

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[object, object, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(10)

    async def _listen(self) -> int:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _close(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _set_flowing(self, *, is_flowing: bool) -> None:
        if is_flowing:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def _reset_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._carry(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._writers.add(writer)
        try:
            if self._is_cut:
                return
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            ends.add(server_writer)
            self._writers.add(server_writer)
            directions = [
                asyncio.ensure_future(self._pump(reader, server_writer)),
                asyncio.ensure_future(self._pump(server_reader, writer)),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
        except OSError:
            pass  # the server is not there: the client finds its connection reset
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one direction. Delays latency, not throughput: many chunks may be on their way at once."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = asyncio.ensure_future(self._deliver(on_the_way, writer))
        try:
            while data := await reader.read(_CHUNK_BYTES):
                on_the_way.put_nowait((self._loop.time() + self._delay_s, data))
        except OSError:
            pass
        finally:
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

    async def _deliver(self, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await on_the_way.get()
            await asyncio.sleep(due - self._loop.time())
            await self._flowing.wait()
            if writer in self._forgotten:
                continue
            writer.write(data)
            await writer.drain()
