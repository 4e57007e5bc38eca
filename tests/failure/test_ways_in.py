"""TLS and Unix sockets: the same traffic, the same failures; and a server that can't prove who it is gets nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest
from certificates import Authority
from proxies import Proxy
from servers import Server, free_port, server_binaries
from trials import Trial
from visitors import Verdict

from coatcheck import SyncSessions
from coatcheck.errors import StoreUnavailable

SECRET_KEY = "a secret key for tests, 32 bytes or more"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


# Valkey's package has no TLS, Debian's Redis has.
@pytest.fixture(params=["a proxy's", *(["the server's own"] if "redis" in server_binaries() else [])])
def tls(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[Server, int]]:
    """A server, and the port at which it is reached by TLS."""
    with ExitStack() as stack:
        if request.param == "a proxy's":
            server = stack.enter_context(Server(server_binaries()["valkey"]))
            yield server, stack.enter_context(Proxy(server.port, authority.server_context())).port
            return
        port = free_port()
        yield stack.enter_context(Server(server_binaries()["redis"], *authority.server_options(port))), port


def _url(port: int, trusted: Authority, known_as: tuple[Path, Path] | None) -> str:
    query = {"ssl_ca_certs": str(trusted.certificate)}
    if known_as is not None:
        query |= {"ssl_certfile": str(known_as[0]), "ssl_keyfile": str(known_as[1])}
    return f"rediss://127.0.0.1:{port}/0?{urlencode(query)}"


def test_a_server_with_tls_that_kills_all_connections_is_reached_again(
    tls: tuple[Server, int], authority: Authority
) -> None:
    server, port = tls
    url = _url(port, authority, authority.issue("application"))
    with Trial("TLS: all connections killed", url) as trial, server.client() as client:
        trial.fail(lambda: client.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes"))
        trial.mend(lambda: None)


def test_a_server_whose_certificate_nobody_trusts_gets_no_session(
    tls: tuple[Server, int], authority: Authority, tmp_path: Path
) -> None:
    _, port = tls
    sessions = SyncSessions(
        _url(port, Authority(tmp_path, "others"), authority.issue("application")), secret_keys=[SECRET_KEY]
    )
    with pytest.raises(StoreUnavailable, match="certificate verify failed"), sessions.open() as session:
        session["user"] = "alice"
    sessions.close()


def test_an_application_without_a_certificate_is_refused_where_one_is_asked_for(
    tls: tuple[Server, int], authority: Authority
) -> None:
    _, port = tls
    sessions = SyncSessions(_url(port, authority, None), secret_keys=[SECRET_KEY])
    with pytest.raises(StoreUnavailable), sessions.open() as session:
        session["user"] = "alice"
    sessions.close()


def test_a_server_behind_a_unix_socket_is_killed_and_reached_again(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    options = ["--unixsocket", str(path), "--appendonly", "yes", "--appendfsync", "always"]
    with (
        Server(server_binaries()["valkey"], *options) as server,
        Trial("Unix socket: kill -9, restart", f"unix://{path}") as trial,
    ):
        trial.fail(server.stop)
        trial.wait_for(Verdict.REFUSED, 3)
        trial.mend(server.start)
