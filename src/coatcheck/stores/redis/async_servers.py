"""The servers of a deployment, in asyncio: one, or the nodes of a Cluster, each with its gatherer and connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any, Final, Protocol, TypeVar

from msgspec.structs import replace
from redis.asyncio.cluster import ClusterNode

from coatcheck.loops import running_loop
from coatcheck.stores.redis.cluster_cursor import ClusterCursor
from coatcheck.stores.redis.commands import Command, Commands, MixedUpAnswers
from coatcheck.stores.redis.connections import (
    LONGEST_LOOK_S,
    LOOK_EVERY_S,
    Hosts,
    Limits,
    is_elsewhere,
    read_slots,
    taker_of,
)
from coatcheck.stores.redis.exchange import Exchange, Outcome, Reply, deliver
from coatcheck.stores.redis.failures import (
    Lost,
    NotSent,
    explained,
    ignoring_outages,
    is_answer,
    is_outage,
    is_silence,
)
from coatcheck.stores.redis.gathering import Gatherer
from coatcheck.stores.redis.lanes import Lanes

T = TypeVar("T")

_MAX_ALONE: Final = 16
"""Commands that the library of a Cluster carries at a time. It opens a connection for each."""

Carry = Callable[[Exchange], Awaitable[list[Reply]]]


class AsyncServers(Protocol):
    """What the store asks of a deployment."""

    def ask(self, command: Command[T]) -> Awaitable[T]:
        """Send a command where it belongs, with others; give its result. Raises StoreUnavailable."""
        ...

    def ask_each(self, commands: Sequence[Command[T]]) -> Awaitable[list[T]]:
        """Send commands, none of which waits for the others."""
        ...

    async def scan(self, commands: Commands, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        ...

    def news(self) -> AbstractAsyncContextManager[Any]:
        """Give the client library's object for subscriptions, for as long as the block lasts."""
        ...

    async def reset(self) -> None:
        """See `SyncStore.reset`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def servers_of(client: Any, limits: Limits, hosts: Hosts | None) -> AsyncServers:
    """Give the servers that a client leads to. It is ours, and closed with them, if its hosts are given."""
    return (_Cluster if hasattr(client, "nodes_manager") else _OneServer)(client, limits, hosts)


class _Lookout:
    """Looks in the background, now and then, for what may have changed."""

    def __init__(self) -> None:
        self._next_look_at = 0.0
        self._look: asyncio.Task[None] | None = None

    def look(self, look: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin to look, unless somebody does or has done so just now."""
        now = running_loop().time()
        if now >= self._next_look_at and (self._look is None or self._look.done()):
            self._next_look_at = now + LOOK_EVERY_S
            self._look = asyncio.create_task(look())

    async def wait(self, seconds: float) -> None:
        """Wait for what is looked at now, if anything is, but not for longer."""
        if self._look is not None and not self._look.done():
            await asyncio.wait([self._look], timeout=seconds)

    async def close(self) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])


class _OneServer:
    """A server by itself, or whichever the Sentinels name."""

    def __init__(self, client: Any, limits: Limits, hosts: Hosts | None) -> None:
        self._client = client
        self._is_ours = hosts is not None
        self._limits = limits
        self._pool = pool = client.connection_pool
        self._lanes = Lanes(taker_of(pool), pool.release, limits)
        self._has_sentinels = hasattr(pool, "sentinel_manager")
        self._primary: object = None
        self._lookout = _Lookout()
        carry = self._carry_to_primary if self._has_sentinels else self._lanes.carry
        self._gatherer = Gatherer(partial(_send, self._lanes, carry, merges=True), limits.command_timeout_s)
        self.ask = self._gatherer.ask

    async def ask_each(self, commands: Sequence[Command[T]]) -> list[T]:
        return await asyncio.gather(*map(self.ask, commands))

    async def scan(self, commands: Commands, cursor: str, limit: int) -> tuple[list[str], str]:
        keys, following = await self.ask(commands.scan(int(cursor or 0), limit))
        return keys, str(following) if following else ""

    @asynccontextmanager
    async def news(self) -> AsyncIterator[Any]:
        async with self._client.pubsub() as subscription:
            yield subscription

    async def reset(self) -> None:
        await self._lanes.drop_all()

    async def close(self) -> None:
        await self._lanes.close()
        await self._lookout.close()
        if self._is_ours:
            await self._client.aclose(close_connection_pool=True)
            if self._has_sentinels:
                await self._pool.sentinel_manager.aclose()

    async def _carry_to_primary(self, exchange: Exchange) -> list[Reply]:
        """Carry, and now and then see in the background whether the Sentinels name another primary."""
        self._lookout.look(self._look_for_primary)
        return await self._lanes.carry(exchange)

    async def _look_for_primary(self) -> None:
        with ignoring_outages():
            async with asyncio.timeout(self._limits.connect_timeout_s):
                primary = await self._pool.get_master_address()
            if self._primary not in (None, primary):
                await self._lanes.drop_all()
            self._primary = primary


class _Cluster:
    """The nodes of a Cluster. The client library knows which has what; it also follows redirections, one by one."""

    def __init__(self, client: Any, limits: Limits, hosts: Hosts | None) -> None:
        self._client = client
        self._limits = limits
        self._hosts = hosts
        self._nodes: dict[str, tuple[Gatherer, Lanes]] = {}
        self._alone = asyncio.Semaphore(_MAX_ALONE)
        self._lookout = _Lookout()

    async def ask(self, command: Command[T]) -> T:
        await self._know_the_nodes()
        if len(command.names) <= 1:
            return await self._gatherer(command.name).ask(command)
        loads = [replace(command, name=name, names=(name,)) for name in command.names]
        return [loaded[0] for loaded in await self.ask_each(loads)]  # type: ignore[index, return-value]

    async def ask_each(self, commands: Sequence[Command[T]]) -> list[T]:
        return await asyncio.gather(*map(self.ask, commands))

    async def scan(self, commands: Commands, cursor: str, limit: int) -> tuple[list[str], str]:
        """Go through one primary after the other. A slot that moves meanwhile may come twice, or not at all."""
        await self._know_the_nodes()
        nodes = {node.name: node for node in self._client.get_primaries()}
        place = ClusterCursor.read(cursor, nodes)
        while place is not None:
            keys, following = await self._gatherer_of(nodes[place.node]).ask(commands.scan(place.cursor, limit))
            after = place.after(following, nodes)
            if keys or following:
                return keys, after
            place = ClusterCursor.read(after, nodes) if after else None  # that one had nothing; go on with the next
        return [], ""

    @asynccontextmanager
    async def news(self) -> AsyncIterator[Any]:
        """Listen on any node: they pass on to each other what is published."""
        await self._know_the_nodes()
        node = self._client.get_random_node()
        library = import_module(f"{type(self._client).__module__.partition('.')[0]}.asyncio")
        pool = library.ConnectionPool(connection_class=node.connection_class, **node.connection_kwargs)
        try:
            async with library.client.PubSub(pool) as subscription:
                yield subscription
        finally:
            await pool.aclose()

    async def reset(self) -> None:
        for _, lanes in self._nodes.values():
            await lanes.drop_all()

    async def close(self) -> None:
        for _, lanes in self._nodes.values():
            await lanes.close()
        await self._lookout.close()
        if self._hosts is not None:
            await self._client.aclose()
            for nodes in ("nodes_cache", "startup_nodes"):  # as it does not while it wants the map of slots read anew
                await self._client.nodes_manager.aclose(nodes)

    async def _know_the_nodes(self) -> None:
        """Ask for the nodes and their slots, if nothing is known of them yet. Later that is done in the background."""
        if self._client.nodes_manager.slots_cache:
            return
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                await self._client.initialize()
        except Exception as error:
            if is_outage(error):
                raise explained(error) from error
            raise

    def _look_for_others(self, failed: str | None = None) -> None:
        """See whether the slots have moved: from the other nodes first, if one has failed."""
        self._lookout.look(partial(self._read_slots, failed))

    async def _read_slots(self, failed: str | None) -> None:
        with ignoring_outages():
            async with asyncio.timeout(LONGEST_LOOK_S):
                await read_slots(self._client, failed, [_node(self._client, *host) for host in self._hosts or ()])

    def _gatherer(self, name: str) -> Gatherer:
        try:
            return self._gatherer_of(self._client.get_node_from_key(name))
        except Exception as error:
            if not is_outage(error):
                raise
            self._look_for_others()  # no node has the slot; soon, one may
            raise explained(error) from error

    def _gatherer_of(self, node: Any) -> Gatherer:
        known = self._nodes.get(node.name)
        if known is None:
            # Where the client is ours, the limit for a batch as a whole takes the place of that for each answer.
            settings = (
                node.connection_kwargs if self._hosts is None else {**node.connection_kwargs, "socket_timeout": None}
            )
            lanes = Lanes(partial(_connect_to, node.connection_class, settings), _forget, self._limits)
            send = partial(_send, lanes, partial(self._carry, node.name, lanes), merges=False)
            known = self._nodes[node.name] = (Gatherer(send, self._limits.command_timeout_s), lanes)
        return known[0]

    async def _carry(self, node: str, lanes: Lanes, exchange: Exchange) -> list[Reply]:
        """Send a batch to its node, and what belongs to another by now one by one, wherever the library sends it."""
        moved = await self._moved(node, exchange) if exchange.attempt else []
        staying = exchange.without(moved) if moved else exchange
        replies: list[Reply] = []
        try:
            if staying.sent:
                replies = await lanes.carry(staying)
        except (NotSent, Lost) as error:
            if is_silence(error):
                self._look_for_others(node)
            replies = [error] * len(staying.sent)
        alone = await asyncio.gather(*(self._carry_alone(exchange.sent[place]) for place in moved))
        for place, reply in zip(moved, alone, strict=True):
            replies.insert(place, reply)
        return replies

    async def _moved(self, node: str, exchange: Exchange) -> list[int]:
        """Give the places of what is sent again and belongs to another node by now."""
        if exchange.may_have_moved:
            self._look_for_others(node)
            await self._lookout.wait(self._limits.command_timeout_s)
        return exchange.places(partial(is_elsewhere, self._client, node, exchange.redirected))

    async def _carry_alone(self, arguments: tuple[Any, ...]) -> Reply:
        try:
            async with asyncio.timeout(self._limits.command_timeout_s), self._alone:
                return await self._client.execute_command(*arguments)
        except Exception as error:
            if not is_outage(error):
                raise
            return error if is_answer(error) else Lost.because(error)


async def _send(lanes: Lanes, carry: Carry, commands: list[Command[Any]], *, merges: bool) -> list[Any]:
    """Run a delivery, and give up the connections when one of them mixes up answers."""
    delivery = deliver(commands, merges=merges, clock=running_loop().time)
    outcome: Outcome = None
    while True:
        try:
            step = delivery.send(outcome)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except MixedUpAnswers:
            await lanes.drop_all()
            raise
        if not isinstance(step, Exchange):
            await asyncio.sleep(step)
            outcome = None
            continue
        try:
            outcome = await carry(step)
        except (NotSent, Lost) as error:
            outcome = error


def _node(client: Any, host: str, port: int) -> ClusterNode:
    return ClusterNode(host, port, **client.nodes_manager.connection_kwargs)


async def _connect_to(kind: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """Open a connection to a node."""
    connection = kind(**settings)
    await connection.connect()
    return connection


async def _forget(_connection: Any) -> None:
    """Give back a connection that is nobody's."""
