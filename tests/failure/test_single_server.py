"""One server fails, and comes back: every answer is right or 503, nothing that was acknowledged is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
import redis
from servers import Server, server_binaries
from trials import Trial
from visitors import Verdict

EVERY_WRITE_IS_ON_DISK = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(server_binaries()["valkey"], *EVERY_WRITE_IS_ON_DISK) as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    """With the timeouts that the store has by itself."""
    return f"redis://{server.address}/0"


def test_a_server_that_is_killed_and_restarted_loses_no_acknowledged_write(server: Server, url: str) -> None:
    with Trial("kill -9, restart", url) as trial:
        trial.fail(server.stop)
        trial.wait_for(Verdict.REFUSED, 3)
        trial.mend(server.start)


def test_a_server_that_hangs_is_met_by_503_and_applies_nothing_twice_when_it_goes_on(server: Server, url: str) -> None:
    with Trial("SIGSTOP, SIGCONT", url) as trial:
        trial.fail(server.pause)
        trial.wait_for(Verdict.REFUSED)
        trial.mend(server.resume)


def test_scripts_that_are_flushed_again_and_again_refuse_no_request(server: Server, url: str) -> None:
    with Trial("SCRIPT FLUSH", url) as trial, server.client() as client:
        for _ in range(10):
            trial.fail(client.script_flush)
            trial.wait_for(Verdict.RIGHT)
        trial.mend(client.script_flush)
    assert trial.refused() == 0


def test_connections_that_the_server_kills_are_replaced(server: Server, url: str) -> None:
    with Trial("CLIENT KILL, all connections", url) as trial, server.client() as client:
        kill = partial(client.execute_command, "CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
        trial.fail(kill)
        trial.mend(kill)


def test_a_server_without_a_free_connection_is_met_by_503(server: Server, url: str) -> None:
    with Trial("maxclients exhausted", url) as trial, server.client() as client, ExitStack() as others:

        def exhaust() -> None:
            for _ in range(20):
                other = others.enter_context(redis.Redis(port=server.port, client_name="other"))
                other.ping()
            kept = [each for each in client.client_list() if each["name"] == "other"]
            client.config_set("maxclients", len(kept) + 1)
            for each in client.client_list():
                if each not in kept and int(each["id"]) != client.client_id():
                    client.client_kill_filter(_id=each["id"])

        trial.fail(exhaust)
        trial.wait_for(Verdict.REFUSED)
        trial.mend(partial(client.config_set, "maxclients", 1000))


def test_a_server_without_memory_serves_reads_and_refuses_writes(server: Server, url: str) -> None:
    with Trial("maxmemory, noeviction", url) as trial, server.client() as client:
        trial.fail(partial(client.config_set, "maxmemory", 1))
        trial.wait_for(Verdict.REFUSED, 3)
        trial.wait_for(Verdict.RIGHT, 1)
        trial.mend(partial(client.config_set, "maxmemory", 0))
