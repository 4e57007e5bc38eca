"""One failure after another under traffic, round after round, and what is held on to after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from proxies import Proxy
from servers import Server, server_binaries
from trials import Trial
from visitors import Verdict

ROUND = ("kill -9, restart", "SIGSTOP, SIGCONT", "connection cut", "connection stalled", "SCRIPT FLUSH", "CLIENT KILL")
"""The failures of one round, in this order."""


@dataclass(frozen=True)
class Sample:
    """What there was when the service was back after a failure."""

    seconds: int
    """Since the beginning."""
    after: str
    requests: int
    refused: int
    wrong: int
    lost: int
    open_files: int
    threads: int
    tasks: int
    connected_clients: int
    """As the server counts them."""
    resident_kib: int


class Endurance:
    """Traffic on one server, and the failures of a round to be had again and again."""

    def __init__(self, server: Server, proxy: Proxy, trial: Trial) -> None:
        self._server = server
        self._trial = trial
        self._began_at = time.monotonic()
        # What lets it happen, whether requests are refused meanwhile, and what lets it be over.
        self._failures: dict[str, tuple[Callable[[], object], bool, Callable[[], object]]] = {
            "kill -9, restart": (server.stop, True, server.start),
            "SIGSTOP, SIGCONT": (server.pause, True, server.resume),
            "connection cut": (proxy.cut, True, proxy.mend),
            "connection stalled": (proxy.stall, True, proxy.mend),
            "SCRIPT FLUSH": (partial(self._tell, "SCRIPT FLUSH"), False, partial(self._tell, "PING")),
            "CLIENT KILL": (
                partial(self._tell, "CLIENT KILL", "TYPE", "normal", "SKIPME", "yes"),
                False,
                partial(self._tell, "PING"),
            ),
        }

    def undergo(self, failure: str) -> Sample:
        """Let one failure happen and be over; give what is held on to then."""
        cause, refuses, cure = self._failures[failure]
        self._trial.fail(cause)
        if refuses:
            self._trial.wait_for(Verdict.REFUSED)
        self._trial.mend(cure)
        return self.sample(failure)

    def sample(self, after: str) -> Sample:
        traffics = self._trial.all
        footprint = traffics[0].footprint()  # the first has an event loop; the rest is the process's
        with self._server.client() as client:
            connected_clients = int(client.info("clients")["connected_clients"])
        return Sample(
            seconds=round(time.monotonic() - self._began_at),
            after=after,
            requests=sum(traffic.tally.verdicts.total() for traffic in traffics),
            refused=self._trial.refused(),
            wrong=sum(len(traffic.faults) for traffic in traffics),
            lost=sum(len(traffic.losses) for traffic in traffics),
            open_files=footprint.open_files,
            threads=footprint.threads,
            tasks=footprint.tasks,
            connected_clients=connected_clients,
            resident_kib=footprint.resident_kib,
        )

    def _tell(self, *command: str) -> None:
        with self._server.client() as client:
            client.execute_command(*command)


@contextmanager
def endurance(title: str = "one failure after another") -> Iterator[Endurance]:
    """Start a server that keeps every write, a proxy in front of it, and traffic."""
    with (
        Server(server_binaries()["valkey"], "--appendonly", "yes", "--appendfsync", "always") as server,
        Proxy(server.port) as proxy,
        Trial(title, f"redis://127.0.0.1:{proxy.port}/0") as trial,
    ):
        yield Endurance(server, proxy, trial)


def growth(before: list[Sample], after: list[Sample], name: str) -> int:
    """Give by how much the highest value of a round is above that of an earlier one."""
    return max(int(getattr(each, name)) for each in after) - max(int(getattr(each, name)) for each in before)
