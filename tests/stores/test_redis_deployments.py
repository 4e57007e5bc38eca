"""How Redis stores connect: what URL and options say, whose the client is, what stays open, what a request costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import valkey
from certificates import Authority
from clusters import Cluster
from faces import Kind
from proxies import Proxy
from replica_sets import SERVICE, ReplicaSet
from servers import Server, server_binaries, wait_until
from visited_app import Answer, asgi_app, call_asgi, call_wsgi, wsgi_app

from coatcheck import Sessions, SyncSessions, asgi, wsgi
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.stores.protocol import EVERYTHING
from coatcheck.stores.redis import RedisStore, SyncRedisStore, asynchronous
from coatcheck.stores.redis.connections import RedisOptions, taker_of
from coatcheck.testing import ManualClock

SECRET_KEY = "a secret key for tests, 32 bytes or more"
KEY = "00112233445566778899aabbccddeeff00112233"
RECORD = b"\x01revisionthe rest"
HOUR_MS = 3_600_000
PASSWORD = "hunter2/@:#"
QUOTED_PASSWORD = "hunter2%2F%40%3A%23"
NAME = "store-under-test"
"""Of the connections of the store, so that the server can tell them from the tests' own."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """With the user that the tests below log in as."""
    with Server(server_binaries()["valkey"]) as server, server.client() as client:
        client.execute_command("ACL SETUSER", "shop", "on", f">{PASSWORD}", "allkeys", "allchannels", "+@all")
        yield server


# Both kinds of store behind one face.


def _create(kind: Kind, redis_or_url: Any, **options: Any) -> None:
    """Make a store, have it store a record, and close it."""
    if kind == "sync":
        store = SyncRedisStore(redis_or_url, **options)
        assert store.create(KEY, RECORD, HOUR_MS)
        store.close()
        return

    async def create() -> None:
        async_store = RedisStore(redis_or_url, **options)
        try:
            assert await async_store.create(KEY, RECORD, HOUR_MS)
        finally:
            await async_store.close()

    asyncio.run(create())


def _make(kind: Kind, url: Any, **options: Any) -> object:
    return (RedisStore if kind == "async" else SyncRedisStore)(url, **options)


both = pytest.mark.parametrize("kind", ["async", "sync"])


# --- URL and options ----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("url", "options", "database", "name"),
    [
        ("redis://{}", {}, 0, "coatcheck:"),
        ("redis://{}/3", {}, 3, "coatcheck:"),
        ("redis://{}/3", {"database": 4}, 4, "coatcheck:"),
        ("valkey://{}/3", {}, 3, "coatcheck:"),
        ("redis://{}?prefix=shop:", {}, 0, "shop:"),
        ("redis://{}?prefix=shop:", {"prefix": "cafe:"}, 0, "cafe:"),
        ("redis://{}?connect_timeout=9&command_timeout=9.5", {}, 0, "coatcheck:"),
        ("redis://{}?socket_timeout=9", {"command_timeout": timedelta(seconds=9)}, 0, "coatcheck:"),
        (f"redis://shop:{QUOTED_PASSWORD}@{{}}/2", {}, 2, "coatcheck:"),
        ("redis://{}", {"username": "shop", "password": PASSWORD}, 0, "coatcheck:"),
        ("redis://somebody:wrong@{}", {"username": "shop", "password": PASSWORD}, 0, "coatcheck:"),
    ],
)
def test_url_and_options_say_where_sessions_are(  # noqa: PLR0917
    server: Server, kind: Kind, url: str, options: RedisOptions, database: int, name: str
) -> None:
    server.flush()
    _create(kind, url.format(server.address), **options)
    with redis.Redis(port=server.port, db=database) as client:
        assert client.keys() == [f"{name}{KEY}".encode()]


@both
def test_a_wrong_password_is_an_outage_that_does_not_show_it(server: Server, kind: Kind) -> None:
    with pytest.raises(StoreUnavailable, match="invalid username-password") as caught:
        _create(kind, f"redis://shop:not-{QUOTED_PASSWORD}@{server.address}")
    assert "hunter2" not in str(caught.value)


SECOND = timedelta(seconds=1)


@both
@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("http://:hunter2@h", {}, "scheme"),
        ("redis://:hunter2@h:port", {}, "port"),
        ("redis://:hunter2@h:0", {}, "host or its port"),
        ("redis://:hunter2@", {}, "host"),
        ("redis://:hunter2@h,i", {}, r"redis\+cluster"),
        ("redis://:hunter2@h/first", {}, "database"),
        ("redis://:hunter2@h/1/2", {}, "database"),
        ("redis://:hunter2@word@h/x@y", {}, "percent-encode"),
        ("redis://:hunter2#word@h", {}, "percent-encode"),
        ("unix://", {}, "path of the socket"),
        ("redis+sentinel://:hunter2@h", {}, "service"),
        ("redis+cluster://:hunter2@h/1", {}, "only the database 0"),
        ("redis+cluster://:hunter2@h", {"database": 1}, "only the database 0"),
        ("redis://:hunter2@h?connect_timeout=0", {}, "connect_timeout"),
        ("redis://:hunter2@h?command_timeout=soon", {}, "command_timeout"),
        ("redis://:hunter2@h?command_timeout=nan", {}, "command_timeout"),
        ("redis://:hunter2@h", {"connect_timeout": -SECOND}, "connect_timeout"),
        ("redis://:hunter2@h", {"command_timeout": 4000 * SECOND}, "command_timeout"),
        ("redis://:hunter2@h?prefix=", {}, "prefix"),
        ("redis://:hunter2@h", {"prefix": "a b\n"}, "prefix"),
        ("redis://:hunter2@h", {"tls_ca_file": "/ca.pem"}, "rediss://"),
        ("redis://:hunter2@h?decode_responses=true", {}, "decode_responses"),
        ("redis://:hunter2@h?no_such_option=1", {}, "'no_such_option' among the options"),
        ("redis://:hunter2@h?comand_timeout=1", {}, "did you mean command_timeout"),
        ("redis://:hunter2@h", {"prefx": "shop:"}, "prefx: .* did you mean prefix"),
        ("redis://:hunter2@h", {"sentinel_password": "hunter2"}, r"redis\+sentinel://"),
        ("redis://:hunter2@h?sentinel_username=hunter2", {}, r"redis\+sentinel://"),
        ("rediss://:hunter2@h", {"tls_ca_file": "/no/such.pem"}, "tls_ca_file: /no/such.pem .* No such file"),
        ("rediss://:hunter2@h?tls_ca_file=/no/such.pem", {}, "tls_ca_file: /no/such.pem .* No such file"),
        ("rediss://:hunter2@h", {"tls_ca_file": __file__}, "tls_ca_file: .* not certificates in PEM form"),
        ("rediss://:hunter2@h", {"tls_certificate_file": __file__}, "tls_certificate_file.*not a certificate"),
        ("rediss://:hunter2@h", {"tls_key_file": "/key.pem"}, "set tls_certificate_file"),
        ("redis://:hunter2@h?health_check_interval=often", {}, "options"),
    ],
)
def test_what_can_not_work_is_refused_at_once_without_showing_the_password(
    kind: Kind, url: str, options: RedisOptions, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        _make(kind, url, **options)
    assert "hunter2" not in str(caught.value)


def test_a_key_that_belongs_to_another_certificate_is_refused_at_once(tmp_path: Path) -> None:
    certificate, _ = Authority(tmp_path).issue("one")
    _, key = Authority(tmp_path).issue("other")
    with pytest.raises(ConfigurationError, match="the key that belongs to it"):
        RedisStore("rediss://h", tls_certificate_file=str(certificate), tls_key_file=str(key))


def test_options_of_the_connection_are_refused_with_a_client_that_is_connected_already() -> None:
    for options in ({"password": "hunter2"}, {"database": 1}, {"tls_ca_file": "/ca.pem"}):
        with pytest.raises(ConfigurationError, match=f"{next(iter(options))}: the client") as caught:
            SyncRedisStore(redis.Redis(), **options)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="did you mean prefix"):
        SyncRedisStore(redis.Redis(), prefx="shop:")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="see also SyncRedisStore"):
        RedisStore(redis.Redis())  # type: ignore[arg-type]


# --- clients of the application's own -----------------------------------------------------------------------------


def _sync_clients(server: Server, replica_set: ReplicaSet) -> Iterator[Any]:
    pool = redis.BlockingConnectionPool(port=server.port, max_connections=2)  # type: ignore[no-untyped-call]
    yield redis.Redis(connection_pool=pool)
    yield valkey.Valkey(connection_pool=valkey.ConnectionPool(port=server.port))
    sentinels = [("127.0.0.1", sentinel.port) for sentinel in replica_set.sentinels]
    yield redis.Sentinel(sentinels).master_for(SERVICE)  # type: ignore[no-untyped-call]


def test_a_client_stays_open_and_gets_its_connections_back(server: Server, running_replica_set: ReplicaSet) -> None:
    for client in _sync_clients(server, running_replica_set):
        client.delete(f"coatcheck:{KEY}")
        in_use = taker_of(client.connection_pool)()
        _create("sync", client)
        assert in_use._sock is not None, "it was not the store's to close"
        assert client.get(f"coatcheck:{KEY}") == RECORD
        client.connection_pool.disconnect()
        sentinels = getattr(client.connection_pool, "sentinel_manager", None)
        for sentinel in sentinels.sentinels if sentinels else ():
            sentinel.close()


def test_an_async_client_stays_open_and_gets_its_connections_back(
    server: Server, running_replica_set: ReplicaSet
) -> None:
    async def use(client: Any) -> None:
        await client.delete(f"coatcheck:{KEY}")
        in_use = await taker_of(client.connection_pool)()
        store = RedisStore(client)
        assert await store.create(KEY, RECORD, HOUR_MS)
        assert len(client.connection_pool._in_use_connections) == 2, "the store keeps the one that it uses"
        await store.close()
        assert client.connection_pool._in_use_connections == {in_use}
        assert in_use.is_connected, "it was not the store's to close"
        assert await client.get(f"coatcheck:{KEY}") == RECORD
        await client.aclose(close_connection_pool=True)

    async def use_all() -> None:
        pool = redis.asyncio.ConnectionPool(port=server.port, max_connections=3)
        await use(redis.asyncio.Redis(connection_pool=pool))
        sentinels = [("127.0.0.1", sentinel.port) for sentinel in running_replica_set.sentinels]
        sentinel = redis.asyncio.sentinel.Sentinel(sentinels)  # type: ignore[no-untyped-call]
        await use(sentinel.master_for(SERVICE))
        await sentinel.aclose()

    asyncio.run(use_all())


# --- nothing is left open -----------------------------------------------------------------------------------------


def _connections(servers: list[Server]) -> list[dict[str, Any]]:
    """Give the store's connections: those with its name, and those that ask Sentinels."""
    found: list[dict[str, Any]] = []
    for server in servers:
        with server.client() as client:
            found += [each for each in client.client_list() if each["name"] == NAME or "sentinel" in each["cmd"]]
    return found


@pytest.fixture(params=["server", "sentinel", "cluster"])
def deployment(request: pytest.FixtureRequest, server: Server) -> tuple[str, list[Server]]:
    """A URL, and all servers behind it."""
    if request.param == "server":
        return f"redis://{server.address}", [server]
    if request.param == "sentinel":
        replica_set: ReplicaSet = request.getfixturevalue("running_replica_set")
        return replica_set.url, [*replica_set.servers, *(sentinel.server for sentinel in replica_set.sentinels)]
    cluster: Cluster = request.getfixturevalue("running_cluster")
    return cluster.url, list(cluster.nodes)


def test_a_closed_store_leaves_no_connection(deployment: tuple[str, list[Server]]) -> None:
    url, servers = deployment
    store = SyncRedisStore(f"{url}?client_name={NAME}")
    store.load(KEY)
    store.scan("", 10)
    assert _connections(servers)
    held = store._here()  # else the garbage collector might close what `close` forgets
    store.close()
    wait_until(lambda: not _connections(servers), "the connections are closed", 10)
    del held


def test_a_closed_async_store_leaves_no_connection(deployment: tuple[str, list[Server]]) -> None:
    url, servers = deployment

    async def use() -> None:
        store = RedisStore(f"{url}?client_name={NAME}")
        news = store.listen()
        await anext(news)
        await asyncio.gather(*(store.load(f"{each:040}") for each in range(8)))
        await store.scan("", 10)
        assert await asyncio.to_thread(_connections, servers)
        await news.aclose()  # type: ignore[attr-defined]
        await store.close()
        await asyncio.to_thread(wait_until, lambda: not _connections(servers), "the connections are closed", 10)

    asyncio.run(use())


@both
def test_only_what_requests_ask_for_again_is_remembered(server: Server, kind: Kind) -> None:
    keys = [f"{each:040}" for each in range(100)]

    def kept(store: Any) -> int:
        return int(store._commands.load.cache_info().currsize)

    if kind == "sync":
        sync_store = SyncRedisStore(server.url)
        sync_store.load(*keys)
        assert kept(sync_store) == 0
        sync_store.load(*keys[:2])
        assert kept(sync_store) == 1
        sync_store.close()
        return

    async def run() -> None:
        store = RedisStore(server.url)
        await store.load(*keys)
        assert kept(store) == 0
        await store.load(*keys[:2])
        assert kept(store) == 1
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("library", [redis.Redis, valkey.Valkey])
def test_a_client_without_a_limit_waits_no_longer_than_the_stores_and_keeps_its_own(
    server: Server, library: Any
) -> None:
    client = library(port=server.port, socket_timeout=None)
    store = SyncRedisStore(client, command_timeout=SECOND / 10)
    store.load(KEY)
    server.pause()
    try:
        with pytest.raises(StoreUnavailable):  # else the test's own time limit ends it
            store.load(KEY)
    finally:
        server.resume()
    store.load(KEY)
    (connection,) = client.connection_pool._available_connections
    assert connection._sock.gettimeout() is None
    client.close()


def test_a_sync_client_connects_in_its_own_time() -> None:
    with pytest.raises(ConfigurationError, match="connect_timeout: the client"):
        SyncRedisStore(redis.Redis(), connect_timeout=SECOND)


def test_who_listens_notices_when_nobody_is_there_any_more(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asynchronous, "_LISTEN_S", 0.05)

    async def run(proxy: Proxy) -> None:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}", connect_timeout=SECOND / 5)
        news = store.listen()
        assert await anext(news) == EVERYTHING
        proxy.forget()
        assert await anext(news) == EVERYTHING  # it has subscribed anew, and what was said meanwhile is looked for
        await store.announce("a key")
        assert await anext(news) == "a key"
        await news.aclose()  # type: ignore[attr-defined]
        await store.close()

    with Proxy(server.port) as proxy:
        asyncio.run(run(proxy))


# --- what a request costs -----------------------------------------------------------------------------------------


@dataclass
class Site:
    """The application, and a client that is logged in."""

    call: Callable[[str, str | None], Answer]
    call_together: Callable[[list[str], str], list[Answer]]
    clock: ManualClock
    server: Server

    def __post_init__(self) -> None:
        answer = self.call("/login/alice", None)
        self.cookie = answer.header("set-cookie")[0].partition(";")[0]
        self.call("/visit/0", self.cookie)  # now the connection is open, and the server knows the script

    @contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        """Count the commands that the server carries out, those of scripts included."""
        counts: dict[str, int] = {}
        with self.server.client() as client:
            client.config_resetstat()
            yield counts
            for name, stats in client.info("commandstats").items():
                counts[name.removeprefix("cmdstat_")] = stats["calls"]
        del counts["config|resetstat"]


@pytest.fixture(params=["async", "sync"])
def site(request: pytest.FixtureRequest, server: Server) -> Iterator[Site]:
    clock = ManualClock()
    url = f"redis://{server.address}?connect_timeout=30&command_timeout=30"
    with ExitStack() as stack:
        if request.param == "sync":
            sync_sessions = SyncSessions(url, secret_keys=[SECRET_KEY], clock=clock)
            stack.callback(sync_sessions.close)
            wsgi_site = wsgi.SessionMiddleware(wsgi_app, sync_sessions)

            def call_wsgi_all(paths: list[str], cookie: str) -> list[Answer]:
                return [call_wsgi(wsgi_site, path, cookie) for path in paths]

            yield Site(lambda path, cookie: call_wsgi(wsgi_site, path, cookie), call_wsgi_all, clock, server)
            return
        runner = stack.enter_context(asyncio.Runner())
        sessions = Sessions(url, secret_keys=[SECRET_KEY], clock=clock)
        stack.callback(lambda: runner.run(sessions.close()))
        asgi_site = asgi.SessionMiddleware(asgi_app, sessions)

        async def call_all(paths: list[str], cookie: str) -> list[Answer]:
            return await asyncio.gather(*(call_asgi(asgi_site, path, cookie) for path in paths))

        yield Site(
            lambda path, cookie: runner.run(call_asgi(asgi_site, path, cookie)),
            lambda paths, cookie: runner.run(call_all(paths, cookie)),
            clock,
            server,
        )


@pytest.mark.parametrize("cookie", [None, "__Host-session=forged", "another=1"])
def test_a_request_without_a_session_costs_nothing(site: Site, cookie: str | None) -> None:
    with site.counting() as counts:
        assert site.call("/profile/", cookie).json()["user"] is None
    assert counts == {}


def test_a_request_that_reads_costs_one_command_also_for_a_user(site: Site) -> None:
    with site.counting() as counts:
        assert site.call("/profile/", site.cookie).json()["user"] == "alice"
    assert counts == {"mget": 1}


def test_a_request_that_changes_something_costs_a_read_and_a_script(site: Site) -> None:
    with site.counting() as counts:
        assert site.call("/visit/1", site.cookie).json()["visits"] == 2
    assert counts == {"mget": 1, "evalsha": 1, "getrange": 1, "set": 1}, "the last two are the script's own"


def test_a_request_whose_time_is_to_be_extended_costs_a_read_and_one_more(site: Site) -> None:
    site.clock.advance(timedelta(days=2))
    with site.counting() as counts:
        assert site.call("/profile/", site.cookie).header("set-cookie")
    assert counts == {"mget": 1, "getex": 1}


def test_connections_are_not_asked_whether_they_live(site: Site) -> None:
    """No PING before a command, and no new connection for one."""
    with site.counting() as counts:
        site.call_together(["/profile/"] * 8, site.cookie)
        site.call_together(["/visit/1"], site.cookie)
    assert counts.keys() == {"mget", "evalsha", "getrange", "set"}


def test_requests_at_the_same_time_share_their_reads(site: Site, request: pytest.FixtureRequest) -> None:
    with site.counting() as counts:
        answers = site.call_together(["/profile/"] * 64, site.cookie)
    assert [answer.json()["user"] for answer in answers] == ["alice"] * 64
    is_async = request.node.callspec.params["site"] == "async"
    assert counts.keys() == {"mget"}
    assert counts["mget"] <= 2 if is_async else counts["mget"] == 64
