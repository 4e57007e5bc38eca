"""The few connections over which batches travel to one server, in asyncio.

They are taken from the client's pool once and kept, because taking one for each batch would cost more than the batch.
Every wait is limited, and a connection whose answers have not all been read is never used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis.connections import Limits
from coatcheck.stores.redis.exchange import Exchange, Reply
from coatcheck.stores.redis.failures import (
    Lost,
    NotSent,
    OutagesAs,
    ignoring_outages,
    is_answer,
    is_demoted,
    is_outage,
)

_TRUSTED_S: Final = 0.05
"""A connection that has been idle for longer may have been closed by the server, and is looked at before it is used."""


@dataclass(slots=True)
class _Lane:
    """A connection, and when it was last used, by the loop's clock."""

    connection: Any
    used_at: float


class Lanes:
    """Connections to one server.

    Args:
        take: gives a connection that is connected.
        give_back: takes back one that has been disconnected.
        limits: how long each may last.
    """

    def __init__(
        self, take: Callable[[], Awaitable[Any]], give_back: Callable[[Any], Awaitable[None]], limits: Limits
    ) -> None:
        self._take = take
        self._give_back = give_back
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Lane] = []
        self._generation = 0
        """Goes up when the connections that are open can't be trusted any more."""
        self._is_closed = False

    async def carry(self, exchange: Exchange) -> list[Reply]:
        """Send what an exchange has to send, and give the answers.

        Raises:
            NotSent: no connection could be had.
            Lost: it failed, and what was sent may have been carried out. Where others were answered, it takes the
                place of the answers that are missing.
        """
        generation = self._generation
        lane = await self._lane()
        is_sound = False
        try:
            replies = await self._talk(lane.connection, exchange)
            is_sound = not (isinstance(replies[-1], Lost) or is_demoted(replies))
        finally:
            is_trusted = generation == self._generation
            if is_sound and is_trusted:
                lane.used_at = self._loop.time()
                self._idle.append(lane)
            else:
                await self._drop(lane)
                if is_trusted:  # what happened to one has mostly happened to all, those under way included
                    await self.drop_all()
        return replies

    async def drop_all(self, *, is_hasty: bool = True) -> None:
        """Give up every connection; one that is in use when it has done its work.

        Unless it is hasty, wait until those are closed that nobody uses: TLS says goodbye first.
        """
        self._generation += 1
        idle, self._idle = self._idle, []
        await asyncio.gather(*(self._drop(lane, is_hasty=is_hasty) for lane in idle))

    async def close(self) -> None:
        """Give up every connection for good: what still waits must not open others, which nobody would close."""
        self._is_closed = True
        await self.drop_all(is_hasty=False)

    async def _lane(self) -> _Lane:
        """Give a connection that is ready."""
        if self._is_closed:
            raise NotSent.because(StoreUnavailable("The store was closed while a request waited for it"))
        lane = self._idle.pop() if self._idle else None
        if lane is not None and self._loop.time() - lane.used_at <= _TRUSTED_S:
            return lane
        with OutagesAs(NotSent):
            async with asyncio.timeout(self._limits.connect_timeout_s):
                if lane is not None:
                    if not await _is_stale(lane.connection):
                        return lane
                    await self._drop(lane)
                return _Lane(await self._take(), 0.0)

    async def _talk(self, connection: Any, exchange: Exchange) -> list[Reply]:
        replies: list[Reply] = []
        try:
            with OutagesAs(Lost):
                async with asyncio.timeout(self._limits.command_timeout_s):
                    await connection.send_packed_command([exchange.packed()])
                    for _ in exchange.sent:
                        try:
                            replies.append(await connection.read_response())
                        except Exception as error:
                            if not is_answer(error):
                                raise
                            replies.append(error)
        except Lost as lost:
            if not replies:
                raise
            replies += [lost] * (len(exchange.sent) - len(replies))  # what was answered before, was carried out
        return replies

    async def _drop(self, lane: _Lane, *, is_hasty: bool = True) -> None:
        with ignoring_outages():
            async with asyncio.timeout(self._limits.connect_timeout_s):
                await lane.connection.disconnect(nowait=is_hasty)
                await self._give_back(lane.connection)


async def _is_stale(connection: Any) -> bool:
    """Tell whether a connection is closed, or has something to read that nobody asked for."""
    # valkey-py and older redis-py have only the longer name.
    has_something = getattr(connection, "can_read", None) or connection.can_read_destructive
    try:
        return bool(await has_something())
    except Exception as error:
        if is_outage(error):
            return True
        raise
