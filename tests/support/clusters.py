"""A Cluster of three masters with a replica each, as real processes, and moving its slots."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import redis
from redis.crc import key_slot
from replica_sets import is_in_sync, is_master
from servers import Server, free_port, server_binaries, wait_until

SLOTS = 16_384
_MASTERS = 3


class Node(Server):
    """One node of a Cluster."""

    def __init__(self, binary: str) -> None:
        self.bus_port = free_port()
        super().__init__(
            binary,
            "--cluster-enabled", "yes",
            "--cluster-port", str(self.bus_port),
            "--cluster-node-timeout", "1000",
            "--cluster-replica-validity-factor", "0",
            # The sessions on the other masters are to be served while one master is away.
            "--cluster-require-full-coverage", "no",
            "--appendonly", "yes",  # a master that comes back empty would empty its replica, too
            "--appendfsync", "always",
            "--repl-diskless-sync-delay", "0",
            "--repl-ping-replica-period", "1",
        )  # fmt: skip

    def ask(self, *command: object) -> Any:
        """Send a CLUSTER command."""
        with self.client() as client:
            return client.execute_command(f"CLUSTER {command[0]}", *command[1:])

    @property
    def node_id(self) -> str:
        return str(self.ask("MYID"))

    def knows(self, nodes: int) -> bool:
        """Whether it has met so many nodes, itself included."""
        return int(self.ask("INFO")["cluster_known_nodes"]) == nodes

    def is_ok(self) -> bool:
        """Whether it sees a whole Cluster."""
        state = self.ask("INFO")
        return bool(state["cluster_state"] == "ok" and int(state["cluster_slots_ok"]) == SLOTS)

    def slots_with_keys(self) -> list[int]:
        """Give the slots in which it holds any keys."""
        with self.client() as client:
            return sorted({key_slot(key.encode()) for key in client.scan_iter(count=1000)})


class Cluster:
    """Three masters and three replicas. `replicas[n]` follows `masters[n]` until something fails."""

    def __init__(self, binary: str | None = None) -> None:
        binary = binary or server_binaries()["valkey"]
        self.masters = [Node(binary) for _ in range(_MASTERS)]
        self.replicas = [Node(binary) for _ in range(_MASTERS)]
        self.nodes = [*self.masters, *self.replicas]
        self.url = "redis+cluster://" + ",".join(node.address for node in self.masters)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self) -> redis.RedisCluster:
        """Give a plain client of redis-py's own."""
        startup_nodes = [
            redis.cluster.ClusterNode("127.0.0.1", node.port)  # type: ignore[no-untyped-call]
            for node in self.masters
        ]
        return redis.RedisCluster(startup_nodes=startup_nodes, socket_timeout=1)

    def wait_until_ok(self, without: Node | None = None) -> None:
        """Wait until every node (but one, perhaps) sees a whole Cluster."""
        for node in self.nodes:
            if node is not without:
                wait_until(node.is_ok, "the Cluster is whole")

    def wait_for_promotion(self, killed: Node) -> Node:
        """Wait until the replica of a master that was killed has taken its place. Gives the replica."""
        replica = self.replicas[self.masters.index(killed)]
        wait_until(lambda: is_master(replica), "the replica is a master")
        self.wait_until_ok(without=killed)
        return replica

    def move_slots(self, source: Node, target: Node, slots: Iterable[int]) -> int:
        """Move slots with all their keys while they are in use, as the documentation of resharding says.

        Returns how many keys were moved.
        """
        source_id, target_id = source.node_id, target.node_id
        moved = 0
        for slot in slots:
            target.ask("SETSLOT", slot, "IMPORTING", source_id)
            source.ask("SETSLOT", slot, "MIGRATING", target_id)
            moved += _move_keys(source, target, slot)
            for node in (target, source, *(other for other in self.masters if other not in (source, target))):
                node.ask("SETSLOT", slot, "NODE", target_id)
        return moved

    def _join(self) -> None:
        for number, master in enumerate(self.masters):
            master.ask("ADDSLOTSRANGE", number * SLOTS // _MASTERS, (number + 1) * SLOTS // _MASTERS - 1)
        for epoch, node in enumerate(self.nodes, 1):
            node.ask("SET-CONFIG-EPOCH", epoch)
        first = self.nodes[0]
        for node in self.nodes[1:]:
            node.ask("MEET", "127.0.0.1", first.port, first.bus_port)
        for node in self.nodes:
            wait_until(partial(node.knows, len(self.nodes)), "all have met")
        for master, replica in zip(self.masters, self.replicas, strict=True):
            replica.ask("REPLICATE", master.node_id)
        self.wait_until_ok()
        for replica in self.replicas:
            wait_until(partial(is_in_sync, replica), "the replicas are in sync")


def _move_keys(source: Node, target: Node, slot: int) -> int:
    moved = 0
    with source.client() as client:
        while keys := client.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
    return moved
