"""Old sessions in Redis or Valkey. Only commands that every version knows: an old system may have an old server."""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis import clients, commands


class OldRedis:
    """For threads. A client that is given stays open."""

    def __init__(self, client: str | redis.Redis) -> None:
        self._is_given = not isinstance(client, str)
        if isinstance(client, str):
            clients.check_url(client)
        else:
            clients.check_client(client, is_async=False)
        self._client = clients.sync_client(client) if isinstance(client, str) else client

    def get(self, key: str) -> bytes | None:
        """See `OldRecords.get`."""
        with commands.unavailable_on_error():
            return _checked(self._client.get(key))

    def delete(self, key: str) -> None:
        """See `OldRecords.delete`."""
        with commands.unavailable_on_error():
            self._client.delete(key)

    def close(self) -> None:
        """See `OldRecords.close`."""
        if not self._is_given:
            with commands.unavailable_on_error():
                self._client.connection_pool.disconnect(inuse_connections=True)


class AsyncOldRedis:
    """For asyncio. A client that is given stays open."""

    def __init__(self, client: str | redis.asyncio.Redis) -> None:
        self._given = None if isinstance(client, str) else client
        self._url = client if isinstance(client, str) else ""
        # Connections belong to the event loop that they were opened in, and a program may run several.
        self._clients: dict[asyncio.AbstractEventLoop, redis.asyncio.Redis] = {}
        if self._given is None:
            clients.check_url(self._url)
        else:
            clients.check_client(self._given, is_async=True)

    async def get(self, key: str) -> bytes | None:
        """See `OldRecords.get`."""
        with commands.unavailable_on_error():
            return _checked(await self._client().get(key))

    async def delete(self, key: str) -> None:
        """See `OldRecords.delete`."""
        with commands.unavailable_on_error():
            await self._client().delete(key)

    async def close(self) -> None:
        """See `OldRecords.close`."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            with commands.unavailable_on_error():
                await client.aclose(close_connection_pool=True)

    def _client(self) -> redis.asyncio.Redis:
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # A client holds on to its loop, so none goes by itself.
            self._clients = {known: each for known, each in self._clients.items() if not known.is_closed()}
            client = self._clients[loop] = clients.async_client(self._url)
        return client


def _checked(reply: Any) -> bytes | None:
    if reply is not None and not isinstance(reply, bytes):
        msg = "Redis gave an answer that can't be an old session"
        raise StoreUnavailable(msg)
    return reply
