"""A master, its replicas and the Sentinels that watch them, as real processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import redis
from servers import Server, server_binaries, wait_until

SERVICE = "coats"
"""What the Sentinels call the master."""

_OPTIONS = (
    "--appendonly", "yes",  # a master that comes back empty would empty its replica, too
    "--appendfsync", "always",
    "--repl-diskless-sync-delay", "0",
    "--repl-ping-replica-period", "1",
)  # fmt: skip


class Replicas:
    """A master with one replica, kept by themselves: nobody fails over for them."""

    def __init__(self, binary: str | None = None) -> None:
        binary = binary or server_binaries()["valkey"]
        self._stack = ExitStack()
        self.master = Server(binary, *_OPTIONS)
        self.replica = Server(binary, *_OPTIONS, "--replicaof", f"127.0.0.1 {self.master.port}")
        self.servers = [self.master, self.replica]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            wait_until(lambda: is_in_sync(self.replica), "the replica is in sync")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fail_over(self) -> None:
        """Let master and replica change places, without loss, as `FAILOVER` does."""
        with self.master.client() as client:
            client.execute_command("FAILOVER")
        wait_until(lambda: is_master(self.replica), "the replica is the master")
        self.master, self.replica = self.replica, self.master


class ReplicaSet(Replicas):
    """The same, watched by three Sentinels."""

    def __init__(self, binary: str | None = None, *, down_after_ms: int = 500) -> None:
        super().__init__(binary)
        self.sentinels = [
            Sentinel(binary or server_binaries()["valkey"], self.master.port, down_after_ms) for _ in range(3)
        ]
        addresses = ",".join(sentinel.address for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{addresses}/{SERVICE}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            super().__enter__()
            stack.callback(super().__exit__)
            for sentinel in self.sentinels:
                stack.enter_context(sentinel)
            for sentinel in self.sentinels:
                wait_until(sentinel.knows_everybody, "the Sentinels know each other and the replica")
            self._all = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._all.close()

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """Give a plain client of redis-py's own that follows the master."""
        addresses = [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]
        sentinel = redis.Sentinel(addresses, socket_timeout=1)  # type: ignore[no-untyped-call]
        client: redis.Redis = sentinel.master_for(SERVICE, socket_timeout=1)  # type: ignore[no-untyped-call]
        with client:
            yield client
        for each in sentinel.sentinels:
            each.close()

    def begin_failover(self) -> None:
        """Ask a Sentinel to make the replica the master, though nothing is wrong.

        The old master goes on taking writes, which are lost, until a Sentinel makes it a replica: after about ten
        seconds with the defaults, and two here.
        """
        self.sentinels[0].ask("FAILOVER", SERVICE)

    def finish_failover(self) -> None:
        """Wait until the old master has become a replica of the new one."""
        wait_until(lambda: not is_master(self.replica), "the old master is a replica")

    def wait_for_new_master(self) -> None:
        """Wait until the replica has become the master and the Sentinels say so."""
        wait_until(lambda: is_master(self.replica), "the replica is the master")
        for sentinel in self.sentinels:
            wait_until(partial(sentinel.names, self.replica), "the Sentinels name the new one")
        self.master, self.replica = self.replica, self.master


class Sentinel:
    """One Sentinel, which writes its settings file anew as it learns."""

    def __init__(self, binary: str, master_port: int, down_after_ms: int) -> None:
        self._folder = TemporaryDirectory(prefix="coatcheck-test-")
        settings = Path(self._folder.name) / "sentinel.conf"
        self.server = Server(binary, arguments=[str(settings), "--sentinel"])
        self.port = self.server.port
        self.address = self.server.address
        settings.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n",
            "ascii",
        )

    def ask(self, *command: str) -> Any:
        """Send a SENTINEL command."""
        with self.server.client() as client:
            return client.execute_command(f"SENTINEL {command[0]}", *command[1:])

    def knows_everybody(self) -> bool:
        with self.server.client() as client:
            state = client.sentinel_master(SERVICE)
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2)

    def names(self, server: Server) -> bool:
        """Whether it says that this is the master."""
        return int(self.ask("GET-MASTER-ADDR-BY-NAME", SERVICE)[1]) == server.port

    def __enter__(self) -> Self:
        self.server.__enter__()
        # A Sentinel's own periods, in milliseconds, are settings only here. Its defaults are 10 and 2 seconds.
        self.ask("DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "500")
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()
        self._folder.cleanup()


def is_master(server: Server) -> bool:
    with server.client() as client:
        return bool(client.info("replication")["role"] == "master")


def is_in_sync(server: Server) -> bool:
    """Whether this replica has all that its master had and follows it."""
    with server.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up")
