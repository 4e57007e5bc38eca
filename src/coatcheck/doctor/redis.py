"""Reading what a Redis or Valkey shows of itself, by the commands that this user is allowed to send.

`redis_checks` says what it means.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, TypeAlias, cast

import redis
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.sentinel import SentinelConnectionPool

from coatcheck.doctor import redis_checks as checks
from coatcheck.doctor.findings import Finding, Report, Status, worst
from coatcheck.doctor.probe import check_latency, check_operations, probe_key, time_reads
from coatcheck.doctor.redis_access import Access, access_by
from coatcheck.doctor.redis_checks import Reach, Sample, Seen
from coatcheck.errors import StoreError
from coatcheck.stores.redis import SyncRedisStore
from coatcheck.stores.redis.commands import UPDATE
from coatcheck.stores.redis.connections import MAX_CONNECTIONS, RedisOptions, connecting
from coatcheck.stores.redis_address import place_of

_Client: TypeAlias = "redis.Redis | RedisCluster"

_OF_READING: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What redis-py raises over an answer that is none of the kind that it expects."""

_SETTINGS: Final = ("appendfsync", "maxmemory-policy", "min-replicas-to-write", "save", "timeout")

_NEWS_WAIT_S: Final = 3.0
_CLOCK_READINGS: Final = 5
_SCAN_COUNT: Final = 500
_SCANS: Final = 200
"""How often SCAN is sent at most, should few keys of many have the prefix: 100,000 keys are looked through."""

_SHOWN_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class _Server:
    """One server that keeps sessions: the only one, or a primary of a cluster."""

    client: redis.Redis
    name: str
    reach: Reach
    is_encrypted: bool
    is_verified: bool


def examine_redis(url: str, prefix: str | None, sample: int) -> Report:
    """See `coatcheck.doctor.examine`."""
    options: RedisOptions = {} if prefix is None else {"prefix": prefix}
    made = connecting(url, options)
    with closing(SyncRedisStore(url, **options)) as store:
        findings = examine_store(store, made.sync_client, access_by(made), sample)
    return Report(place_of(made.address), findings)


def examine_store(
    store: SyncRedisStore, make_client: Callable[[], _Client], access: Access, sample: int
) -> tuple[Finding, ...]:
    """Examine the server or the servers of a store, and by the client, what no store asks."""
    try:
        with closing(make_client()) as client:
            with access.allowing_refusal_of("ping"):  # to be refused is an answer, too
                client.ping()
            return tuple(_findings(store, client, access, sample))
    except (StoreError, RedisError, RedisClusterException, OSError) as error:  # each check answers to its own errors
        finding, advice = access.explain(error)
        return (Finding("connection", Status.PROBLEM, finding, advice),)


def _findings(store: SyncRedisStore, client: _Client, access: Access, sample: int) -> Iterator[Finding]:
    servers: list[_Server] = []
    seen: list[Seen] = []
    for server in _servers(client):
        try:
            seen.append(_see(server.client))
        except (RedisError, OSError) as error:  # the others of a cluster can be looked at all the same
            finding, advice = access.explain(error)
            yield Finding("connection", Status.PROBLEM, f"{server.name}: {finding}", advice)
        else:
            if "sentinel" in (seen[-1].info.get("redis_mode"), seen[-1].info.get("server_mode")):  # Redis's, Valkey's
                yield _IS_SENTINEL
                return
            servers.append(server)
    if servers:
        yield from _findings_at(servers, seen, store, client, access, sample)


_IS_SENTINEL: Final = Finding(
    "connection",
    Status.PROBLEM,
    "this is a Sentinel, which keeps nothing itself",
    "Name it as one, with the service that it watches: redis+sentinel://host:26379/service",
)


def _findings_at(  # noqa: PLR0913, PLR0917 (what there is to look at, and how)
    servers: Sequence[_Server],
    seen: Sequence[Seen],
    store: SyncRedisStore,
    client: _Client,
    access: Access,
    sample: int,
) -> Iterator[Finding]:
    yield _over_all(servers, seen, checks.check_version)
    yield check_operations(store, access.explain)
    yield _check_script(client, access)
    yield _check_news(store, client, access)
    yield _over_all(servers, servers, lambda each: _check_access(each, access))
    yield _over_all(servers, servers, _check_encryption)
    yield _over_all(servers, seen, checks.check_eviction)
    yield _over_all(servers, seen, checks.check_memory)
    yield _over_all(servers, seen, checks.check_persistence)
    yield _over_all(servers, seen, checks.check_replicas)
    yield from _check_topology(client, seen[0])
    yield _over_all(servers, seen, lambda each: checks.check_connections(each, MAX_CONNECTIONS))
    yield _check_keys([server.client for server in servers], access, sample)
    yield _over_all(servers, servers, lambda each: _check_clock(each, access))
    yield _check_latency(store, access)
    unseen = checks.check_visibility(seen, is_cluster=isinstance(client, RedisCluster))
    if unseen is not None:
        yield unseen


# --- the servers ------------------------------------------------------------------------------------------------------


def _servers(client: _Client) -> list[_Server]:
    if isinstance(client, RedisCluster):
        return [_server(client.get_redis_connection(node)) for node in client.get_primaries()]  # type: ignore[no-untyped-call]
    return [_server(client)]


def _server(client: redis.Redis) -> _Server:
    pool = client.connection_pool
    options = pool.connection_kwargs
    if isinstance(pool, SentinelConnectionPool):
        host, port = pool.get_master_address()  # type: ignore[no-untyped-call]
    else:
        host, port = options.get("host", "localhost"), options.get("port", 6379)
    is_socket = issubclass(pool.connection_class, redis.UnixDomainSocketConnection)
    return _Server(
        client=client,
        name=str(options["path"]) if is_socket else f"{host}:{port}",
        reach=Reach.SOCKET if is_socket else _reach(host),
        is_encrypted=issubclass(pool.connection_class, redis.SSLConnection),
        is_verified=options.get("ssl_cert_reqs") != "none" and options.get("ssl_check_hostname", True),
    )


def _reach(host: str) -> Reach:
    addresses = [ip_address(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    if all(address.is_loopback for address in addresses):
        return Reach.HOST
    return Reach.PUBLIC if any(address.is_global for address in addresses) else Reach.PRIVATE


def _see(client: redis.Redis) -> Seen:
    """Read INFO and CONFIG as far as this user may, and this kind of server has them."""
    info: dict[str, Any] = _ask(client.info) or {}
    config: dict[str, str] = _ask(lambda: client.config_get(*_SETTINGS)) or {}
    return Seen(info, config)


def _ask(question: Callable[[], Any]) -> Any:
    """Give the answer, or None where the server refuses it: managed ones do, and users with few permissions.

    Also where redis-py can't read it: what poses as a server may answer anything.
    """
    try:
        return question()
    except (redis.ResponseError, *_OF_READING):
        return None


def _over_all(servers: Sequence[_Server], of_each: Sequence[Any], check: Callable[[Any], Finding]) -> Finding:
    """Make one finding of one check on several servers: the gravest, with the names of those that it holds for."""
    findings = [check(each) for each in of_each]
    gravest = worst(findings)
    named = [(server.name, each) for server, each in zip(servers, findings, strict=True) if each.status is gravest]
    first = named[0][1]
    if len(servers) == 1 or all(each == first for each in findings):
        return first
    text = "; ".join(f"{name}: {each.finding}" for name, each in named)
    return Finding(first.check, gravest, text, first.advice)


# --- what takes more than one question --------------------------------------------------------------------------------


def _check_script(client: _Client, access: Access) -> Finding:
    """Run the script by EVAL, as after every restart of the server, on a key that is not there: it writes nothing."""
    arguments = (1, access.commands.prefix + probe_key(), b"revision", b"", 1)
    try:
        client.eval(UPDATE.source, *arguments)
        client.evalsha(UPDATE.sha, *arguments)
    except (RedisError, OSError) as error:
        finding, advice = access.explain(error)
        return Finding("script", Status.PROBLEM, finding, advice)
    return Finding("script", Status.OK, "the script for compare-and-set runs (EVAL, EVALSHA)")


def _check_news(store: SyncRedisStore, client: _Client, access: Access) -> Finding:
    """Find out whether word of ended sessions travels, by sending one that concerns nobody."""
    key = probe_key()
    try:
        has_come = _hears(store, client, access.commands.channel, key)
    except (StoreError, RedisError, OSError) as error:
        finding, advice = access.explain(error)
        return Finding("news", Status.WARNING, finding, f"{_WITHOUT_NEWS} {advice}")
    if has_come:
        return Finding("news", Status.OK, "word of ended sessions travels (PUBLISH, SUBSCRIBE)")
    return Finding("news", Status.WARNING, "what is published does not arrive", _WITHOUT_NEWS)


_WITHOUT_NEWS: Final = "Open WebSockets hear of the end of their session half a minute late."


def _hears(store: SyncRedisStore, client: _Client, channel: str, key: str) -> bool:
    with client.pubsub(ignore_subscribe_messages=False) as subscription:  # type: ignore[no-untyped-call]
        subscription.subscribe(channel)
        deadline = time.monotonic() + _NEWS_WAIT_S
        while (wait_s := deadline - time.monotonic()) > 0:
            message = subscription.get_message(timeout=wait_s) or {}
            if message.get("type") == "subscribe":
                store.announce(key)
            if message.get("data") == key.encode():
                return True
    return False


def _check_access(server: _Server, access: Access) -> Finding:
    is_open: bool | None = None
    if access.has_password:
        default: dict[str, Any] | None = _ask(lambda: server.client.acl_getuser("default"))
        is_open = None if default is None else {"on", "nopass"} <= set(default.get("flags", ()))
    return checks.check_access(server.reach, has_password=access.has_password, is_open=is_open)


def _check_encryption(server: _Server) -> Finding:
    return checks.check_encryption(server.reach, is_encrypted=server.is_encrypted, is_verified=server.is_verified)


def _check_topology(client: _Client, seen: Seen) -> Iterator[Finding]:
    """Look at the Cluster or the Sentinels, where there are any."""
    if isinstance(client, RedisCluster):
        yield checks.check_cluster(_ask(client.cluster_info), by_cluster_client=True)
        return
    if checks.number_in(seen.info, "cluster_enabled"):
        yield checks.check_cluster(None, by_cluster_client=False)
    if isinstance(client.connection_pool, SentinelConnectionPool):
        pool = client.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            state = _ask(lambda: sentinel.sentinel_master(pool.service_name))  # noqa: B023 (called at once)
            if state is not None:
                yield checks.check_sentinel(state)
                return


def _check_keys(of_servers: Sequence[redis.Redis], access: Access, wanted: int) -> Finding:
    count, is_all = 0, True
    without_ttl: list[str] = []
    try:
        for client in of_servers:
            names, is_end = _scan(client, access.commands.pattern, max(1, wanted // len(of_servers)))
            count += len(names)
            is_all = is_all and is_end
            without_ttl += [
                _shown(name) for name, ttl in zip(names, _times_left(client, names), strict=True) if ttl == -1
            ]
    except (RedisError, OSError) as error:
        finding, advice = access.explain(error)
        return Finding("keys", Status.UNKNOWN, finding, advice)
    except _OF_READING:
        return Finding("keys", Status.UNKNOWN, _UNREADABLE)
    return checks.check_keys(Sample(count, is_all, without_ttl), access.commands.prefix)


def _scan(client: redis.Redis, pattern: str, wanted: int) -> tuple[list[bytes], bool]:
    """Give so many names of keys at most, and whether there are no others."""
    names: dict[bytes, None] = {}  # SCAN may give a key twice
    cursor = 0
    for _ in range(_SCANS):
        if len(names) >= wanted:
            break
        cursor, found = client.scan(cursor, match=pattern, count=_SCAN_COUNT)
        names |= dict.fromkeys(cast("list[bytes]", found))
        if not cursor:
            return list(names)[:wanted], len(names) <= wanted
    return list(names)[:wanted], False


def _times_left(client: redis.Redis, names: Sequence[bytes]) -> list[int]:
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.pttl(name)
        return pipeline.execute() if names else []


def _shown(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")[:_SHOWN_CHARACTERS]


def _check_clock(server: _Server, access: Access) -> Finding:
    try:
        uncertainty_s, skew_s = min(_skew(server.client) for _ in range(_CLOCK_READINGS))
    except (RedisError, OSError) as error:
        finding, _ = access.explain(error)
        return Finding("clock", Status.UNKNOWN, finding, _CLOCK_BY_HAND)
    except _OF_READING:
        return Finding("clock", Status.UNKNOWN, _UNREADABLE, _CLOCK_BY_HAND)
    return checks.check_clock(skew_s, uncertainty_s)


_UNREADABLE: Final = "the server's answer can't be read"
_CLOCK_BY_HAND: Final = "Check by hand that the server's host sets its clock by NTP."


def _skew(client: redis.Redis) -> tuple[float, float]:
    """Give how far the server's clock is ahead, and before that by how much this may be wrong, in seconds."""
    asked_at = time.time()
    seconds, microseconds = client.time()
    half_s = (time.time() - asked_at) / 2
    return half_s, seconds + microseconds / 1e6 - (asked_at + half_s)


def _check_latency(store: SyncRedisStore, access: Access) -> Finding:
    try:
        return check_latency(time_reads(store))
    except StoreError as error:
        finding, advice = access.explain(error)
        return Finding("latency", Status.UNKNOWN, finding, advice)
