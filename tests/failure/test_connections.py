"""The network between application and server fails, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from proxies import Proxy
from replica_sets import Replicas
from servers import Server, server_binaries
from trials import Trial
from visitors import Verdict


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Server(server_binaries()["valkey"]) as server, Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def url(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"


def test_connections_that_are_reset_are_replaced(proxy: Proxy, url: str) -> None:
    with Trial("connection cut", url) as trial:
        trial.fail(proxy.cut)
        trial.wait_for(Verdict.REFUSED, 3)
        trial.mend(proxy.mend)


def test_a_network_that_swallows_everything_is_met_by_503_within_the_timeout(proxy: Proxy, url: str) -> None:
    with Trial("connection stalled", url) as trial:
        trial.fail(proxy.stall)
        trial.wait_for(Verdict.REFUSED)
        trial.mend(proxy.mend)


def test_a_slow_network_slows_answers_and_refuses_none(proxy: Proxy, url: str) -> None:
    with Trial("100 ms each way", url) as trial:
        trial.fail(partial(proxy.slow, 100))
        trial.wait_for(Verdict.RIGHT, 3)
        trial.mend(proxy.mend)
    assert trial.refused() == 0


def test_a_network_slower_than_the_timeout_is_met_by_503(proxy: Proxy, url: str) -> None:
    with Trial("800 ms each way", url) as trial:
        trial.fail(partial(proxy.slow, 800))
        trial.wait_for(Verdict.REFUSED)
        trial.mend(proxy.mend)


def test_a_connection_to_a_master_that_became_a_replica_is_given_up() -> None:
    """As behind an address that follows the master: what was connected before stays with the old one."""
    with Replicas() as replicas, Proxy(replicas.master.port) as proxy:

        def fail_over() -> None:
            replicas.fail_over()
            proxy.target_port = replicas.master.port

        with Trial("FAILOVER, one address", f"redis://127.0.0.1:{proxy.port}/0") as trial:
            trial.fail(fail_over)
            trial.mend(lambda: None)
