"""The servers of a deployment, for threads: one, or the nodes of a Cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace
from redis.cluster import ClusterNode

from coatcheck.stores.redis.cluster_cursor import ClusterCursor
from coatcheck.stores.redis.commands import Command, Commands, MixedUpAnswers
from coatcheck.stores.redis.connections import LOOK_EVERY_S, Hosts, Limits, is_elsewhere, read_slots, taker_of
from coatcheck.stores.redis.exchange import Exchange, Outcome, Reply, deliver
from coatcheck.stores.redis.failures import (
    Lost,
    NotSent,
    OutagesAs,
    explained,
    ignoring_outages,
    is_answer,
    is_demoted,
    is_outage,
    is_silence,
)

T = TypeVar("T")

Carry = Callable[[Exchange], list[Reply]]


class SyncServers(Protocol):
    """What the store asks of a deployment."""

    def ask(self, command: Command[T]) -> T:
        """Send a command where it belongs; give its result. Raises StoreUnavailable."""
        ...

    def ask_each(self, commands: Sequence[Command[T]]) -> list[T]:
        """Send commands, those for one server together."""
        ...

    def scan(self, commands: Commands, cursor: str, limit: int) -> tuple[list[str], str]:
        """See `SyncStore.scan`."""
        ...

    def reset(self) -> None:
        """See `SyncStore.reset`."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def servers_of(client: Any, limits: Limits, hosts: Hosts | None) -> SyncServers:
    """Give the servers that a client leads to. It is ours, and its connections have limits, if its hosts are given."""
    return (_Cluster if hasattr(client, "nodes_manager") else _OneServer)(client, limits, hosts)


class _Lookout:
    """Looks in the background, now and then, for what may have changed."""

    def __init__(self) -> None:
        self._next_look_at = 0.0
        self._look: threading.Thread | None = None

    def look(self, look: Callable[[], object]) -> None:
        """Begin to look, unless somebody does or has done so just now."""
        now = time.monotonic()
        if now >= self._next_look_at and (self._look is None or not self._look.is_alive()):
            self._next_look_at = now + LOOK_EVERY_S
            thread = threading.Thread(target=self._run, args=(look,), daemon=True)
            thread.start()
            self._look = thread  # only now: one that has not been started can't be waited for

    def wait(self, seconds: float) -> None:
        """Wait for what is looked at now, if anything is, but not for longer."""
        if self._look is not None:
            self._look.join(seconds)

    @staticmethod
    def _run(look: Callable[[], object]) -> None:
        with ignoring_outages():
            look()


class _Trust:
    """Tells the connections that were opened before something went wrong from those opened after it.

    One that is found to be older is opened anew by whoever takes it next. To close those of others from here would meet
    threads that have just taken them.
    """

    def __init__(self) -> None:
        self._generation = 0

    def end(self) -> None:
        self._generation += 1

    def check(self, connection: Any) -> None:
        if getattr(connection, "_coatcheck_generation", self._generation) != self._generation:
            connection.disconnect()
            connection.connect()
        connection._coatcheck_generation = self._generation


class _OneServer:
    """A server by itself, or whichever the Sentinels name."""

    def __init__(self, client: Any, limits: Limits, hosts: Hosts | None) -> None:
        self._client = client
        self._pool = client.connection_pool
        self._trust = _Trust()
        self._wire = _Wire(self._pool, self._trust, limits, is_ours=hosts is not None)
        self._has_sentinels = hasattr(self._pool, "sentinel_manager")
        self._lookout = _Lookout()

    def ask(self, command: Command[T]) -> T:
        return self.ask_each([command])[0]

    def ask_each(self, commands: Sequence[Command[T]]) -> list[T]:
        if self._has_sentinels:
            # They may name another primary. The pool then gives up its connections by itself.
            self._lookout.look(self._pool.get_master_address)
        return _send(self._wire, self._wire.carry, commands, merges=True)

    def scan(self, commands: Commands, cursor: str, limit: int) -> tuple[list[str], str]:
        keys, following = self.ask(commands.scan(int(cursor or 0), limit))
        return keys, str(following) if following else ""

    def reset(self) -> None:
        self._trust.end()

    def close(self) -> None:
        self._client.close()
        self._pool.disconnect()
        if self._has_sentinels:
            for sentinel in self._pool.sentinel_manager.sentinels:
                sentinel.close()


class _Cluster:
    """The nodes of a Cluster. The client library knows which has what; it also follows redirections."""

    def __init__(self, client: Any, limits: Limits, hosts: Hosts | None) -> None:
        self._client = client
        self._hosts = hosts
        self._patience_s = limits.command_timeout_s
        self._trust = _Trust()
        self._wire_to = partial(_Wire, trust=self._trust, limits=limits, is_ours=hosts is not None)
        # valkey-py has its own name for it.
        self._client_of = getattr(client, "get_redis_connection", None) or client.get_valkey_connection
        self._lookout = _Lookout()

    def ask(self, command: Command[T]) -> T:
        if len(command.names) <= 1:
            return self.ask_each([command])[0]
        loads = [replace(command, name=name, names=(name,)) for name in command.names]
        return [loaded[0] for loaded in self.ask_each(loads)]  # type: ignore[index, return-value]

    def ask_each(self, commands: Sequence[Command[T]]) -> list[T]:
        by_node: dict[str, tuple[Any, list[int]]] = {}
        for place, command in enumerate(commands):
            node = self._node_of(command.name)
            by_node.setdefault(node.name, (node, []))[1].append(place)
        results: list[Any] = [None] * len(commands)
        for node, places in by_node.values():
            sent = self._send_to(node, [commands[place] for place in places])
            for place, result in zip(places, sent, strict=True):
                results[place] = result
        return results

    def scan(self, commands: Commands, cursor: str, limit: int) -> tuple[list[str], str]:
        """Go through one primary after the other. A slot that moves meanwhile may come twice, or not at all."""
        nodes = {node.name: node for node in self._client.get_primaries()}
        place = ClusterCursor.read(cursor, nodes)
        while place is not None:
            keys, following = self._send_to(nodes[place.node], [commands.scan(place.cursor, limit)])[0]
            after = place.after(following, nodes)
            if keys or following:
                return keys, after
            place = ClusterCursor.read(after, nodes) if after else None  # that one had nothing; go on with the next
        return [], ""

    def reset(self) -> None:
        self._trust.end()

    def close(self) -> None:
        self._client.close()

    def _node_of(self, name: str) -> Any:
        try:
            return self._client.get_node_from_key(name)
        except Exception as error:
            if not is_outage(error):
                raise
            self._look_for_others()  # no node has the slot; soon, one may
            raise explained(error) from error

    def _look_for_others(self, failed: str | None = None) -> None:
        """See whether the slots have moved: from the other nodes first, if one has failed."""
        self._lookout.look(partial(self._read_slots, failed))

    def _read_slots(self, failed: str | None) -> None:
        spare = [ClusterNode(*host) for host in self._hosts or ()]  # type: ignore[no-untyped-call]
        read_slots(self._client, failed, spare)

    def _send_to(self, node: Any, commands: Sequence[Command[T]]) -> list[T]:
        wire = self._wire_to(self._client_of(node).connection_pool)
        return _send(wire, partial(self._carry, node.name, wire), commands, merges=False)

    def _carry(self, node: str, wire: _Wire, exchange: Exchange) -> list[Reply]:
        """Send a batch to its node, and what belongs to another by now one by one, wherever the library sends it."""
        moved = self._moved(node, exchange) if exchange.attempt else []
        staying = exchange.without(moved) if moved else exchange
        replies: list[Reply] = []
        try:
            if staying.sent:
                replies = wire.carry(staying)
        except (NotSent, Lost) as error:
            if is_silence(error):
                self._look_for_others(node)
            replies = [error] * len(staying.sent)
        for place in moved:
            replies.insert(place, self._carry_alone(exchange.sent[place]))
        return replies

    def _moved(self, node: str, exchange: Exchange) -> list[int]:
        """Give the places of what is sent again and belongs to another node by now."""
        if exchange.may_have_moved:
            self._look_for_others(node)
            self._lookout.wait(self._patience_s)
        return exchange.places(partial(is_elsewhere, self._client, node, exchange.redirected))

    def _carry_alone(self, arguments: tuple[Any, ...]) -> Reply:
        try:
            return self._client.execute_command(*arguments)
        except Exception as error:
            if not is_outage(error):
                raise
            return error if is_answer(error) else Lost.because(error)


class _Wire:
    """How an exchange gets to one server and back, on a connection of a pool."""

    def __init__(self, pool: Any, trust: _Trust, limits: Limits, *, is_ours: bool) -> None:
        self._pool = pool
        self._trust = trust
        self._timeout_s = limits.command_timeout_s
        self._is_ours = is_ours
        self._take = taker_of(pool)

    def carry(self, exchange: Exchange) -> list[Reply]:
        """Send what an exchange has to send, and give the answers.

        Raises:
            NotSent: no connection could be had.
            Lost: it failed, and what was sent may have been carried out. Where others were answered, it takes the
                place of the answers that are missing.
        """
        replies: list[Reply] = []
        with OutagesAs(NotSent):
            connection = self._take()
        try:
            with OutagesAs(NotSent):
                self._trust.check(connection)
            with OutagesAs(Lost):
                self._talk(connection, exchange, replies)
        except Lost as lost:
            if not replies:
                raise
            replies += [lost] * (len(exchange.sent) - len(replies))  # what was answered before, was carried out
        finally:
            self._pool.release(connection)
        if is_demoted(replies):
            self._trust.end()  # the others lead to the same server
        return replies

    def give_up(self) -> None:
        """Open every connection anew before it is used again."""
        self._trust.end()

    def _talk(self, connection: Any, exchange: Exchange, replies: list[Reply]) -> None:
        is_done = False
        deadline = time.monotonic() + self._timeout_s
        # A connection of our own has the limit for one answer already, and setting it is a system call.
        has_limit = self._is_ours and len(exchange.sent) == 1
        try:
            if not has_limit:
                _limit(connection, self._timeout_s)
            connection.send_packed_command([exchange.packed()])
            for place in range(len(exchange.sent)):
                if place:
                    _limit(connection, deadline - time.monotonic())
                try:
                    replies.append(connection.read_response())
                except Exception as error:
                    if not is_answer(error):
                        raise
                    replies.append(error)
            is_done = True
        finally:
            if not is_done:  # whatever is still to come must not be read by the next
                connection.disconnect()
            elif not has_limit:
                _limit(connection, connection.socket_timeout)


def _limit(connection: Any, seconds: float | None) -> None:
    """Set how long a connection waits; None for ever. The client libraries only know it for all commands."""
    if connection._sock is not None:
        connection._sock.settimeout(None if seconds is None else max(seconds, 0.001))  # 0 would mean not to wait at all


def _send(wire: _Wire, carry: Carry, commands: Sequence[Command[T]], *, merges: bool) -> list[T]:
    """Run a delivery, and give up the connections when one of them mixes up answers."""
    delivery = deliver(commands, merges=merges, clock=time.monotonic)
    outcome: Outcome = None
    while True:
        try:
            step = delivery.send(outcome)
        except StopIteration as stop:
            return _results(stop.value)
        except MixedUpAnswers:
            wire.give_up()
            raise
        if not isinstance(step, Exchange):
            time.sleep(step)
            outcome = None
            continue
        try:
            outcome = carry(step)
        except (NotSent, Lost) as error:
            outcome = error


def _results(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
