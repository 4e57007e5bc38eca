"""How the Redis stores connect when they are given a URL, and what is asked of a client that they are given."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from typing import Any, Final, TypeAlias, TypedDict, cast
from urllib.parse import parse_qsl, urlencode

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from coatcheck.errors import ConfigurationError
from coatcheck.stores.redis.commands import DEFAULT_PREFIX
from coatcheck.stores.redis.failures import is_outage
from coatcheck.stores.redis_address import Address, parse

CONNECT_TIMEOUT_S: Final = 2.0
COMMAND_TIMEOUT_S: Final = 1.0
_SENTINELS_IN_TIME: Final = 4
"""Several may have to be asked before one answers, so each is given a part of the time to connect, one in so many."""

LOOK_EVERY_S: Final = 1.0
"""How often somebody is asked who the primary is: the Sentinels always, because one that was replaced goes on answering
for a while, and what it is told then is lost; the nodes of a Cluster while one of them fails or sends us elsewhere."""

LONGEST_LOOK_S: Final = 30.0
"""How long that may take. Requests don't wait for it to end."""

_LONGEST_TIMEOUT_S: Final = 3600

MAX_CONNECTIONS: Final = 64
"""Of the sync store, which needs one for each thread that waits for an answer. Further threads wait their turn."""


Hosts: TypeAlias = tuple[tuple[str, int], ...]


class RedisOptions(TypedDict, total=False):
    """Settings of the connection. Each takes the place of what the URL says.

    All may also stand in the URL: `username`, `password` and `database` as URLs have them, the others after `?`, times
    in seconds.
    """

    prefix: str
    """What the keys of sessions begin with; "coatcheck:" unless set."""
    username: str
    password: str
    database: int
    tls_ca_file: str
    """Path of the certificates of those who may sign the server's; without it, the system's."""
    tls_certificate_file: str
    """Path of the client's own certificate, for servers that ask for it."""
    tls_key_file: str
    """Path of the client certificate's key."""
    sentinel_username: str
    sentinel_password: str
    """For the Sentinels, if they ask for one. The other password is for the servers."""
    connect_timeout: timedelta
    """How long connecting may take; 2 seconds unless set."""
    command_timeout: timedelta
    """How long an answer may take; 1 second unless set."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for a store whatever client it uses."""

    prefix: str
    connect_timeout_s: float
    command_timeout_s: float


@dataclass(frozen=True, slots=True)
class Connecting:
    """All that is needed to make a client. Makes none that retries: it can't know whether a write has been applied."""

    address: Address
    limits: Limits
    settings: Mapping[str, Any] = field(repr=False)
    """For each connection, in redis-py's names."""
    sentinel_settings: Mapping[str, Any] = field(repr=False)

    def async_client(self) -> redis.asyncio.Redis | redis.asyncio.RedisCluster:
        """Make a client for the running event loop. Connects when it is first used."""
        # Without a timeout of its own: the store limits a batch as a whole, and not each of its answers.
        settings = {**self.settings, "socket_timeout": None}
        retry = AsyncRetry(NoBackoff(), 0)
        if self.address.kind == "cluster":
            nodes = [redis.asyncio.cluster.ClusterNode(*host) for host in self.address.hosts]
            # For the map of slots, of which one node after the other is asked.
            settings["socket_timeout"] = self.limits.command_timeout_s
            # 0: to begin anew at every fifth redirection would cut the connections of commands that are under way.
            return redis.asyncio.RedisCluster(startup_nodes=nodes, retry=retry, reinitialize_steps=0, **settings)
        if self.address.kind == "sentinel":
            asks = {**self.sentinel_settings, "retry": retry}
            sentinel = _AsyncSentinel(self.address.hosts, sentinel_kwargs=asks)
            return cast("redis.asyncio.Redis", sentinel.master_for(self.address.service, retry=retry, **settings))
        pool = redis.asyncio.ConnectionPool.from_url(self._url(), retry=retry, **settings)
        return redis.asyncio.Redis.from_pool(pool)

    def sync_client(self) -> redis.Redis | redis.RedisCluster:
        """Make a client for threads. Connects when it is first used, but for a Cluster's, which does so at once."""
        settings = {**self.settings, "socket_timeout": self.limits.command_timeout_s}
        retry = Retry(NoBackoff(), 0)
        if self.address.kind == "cluster":
            nodes = [redis.cluster.ClusterNode(*host) for host in self.address.hosts]  # type: ignore[no-untyped-call]
            return redis.RedisCluster(startup_nodes=nodes, retry=retry, reinitialize_steps=0, **settings)
        if self.address.kind == "sentinel":
            asks = {**self.sentinel_settings, "retry": retry}
            sentinel = _Sentinel(self.address.hosts, sentinel_kwargs=asks)
            master = sentinel.master_for(self.address.service, retry=retry, **settings)  # type: ignore[no-untyped-call]
            return cast("redis.Redis", master)
        pool = redis.BlockingConnectionPool.from_url(
            self._url(), retry=retry, max_connections=MAX_CONNECTIONS, timeout=self.limits.command_timeout_s, **settings
        )
        return redis.Redis.from_pool(pool)

    def _url(self) -> str:
        """Give a URL with nothing but the kind of connection; the settings have the rest."""
        if self.address.kind == "socket":
            return f"unix://{self.address.path}"
        host, port = self.address.hosts[0]
        return f"redis{'s' if self.address.has_tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


# redis-py moves the Sentinel that answered to the front of its list. When several connections ask at the same time, as
# all do after a failover, some Sentinels fall out of it. So each asks by a list of its own, and leaves all in it.
#
# And where none names a primary, the error shows the Sentinels by their repr, which for redis-py's clients is all of
# their settings.


class _AsyncAsked(redis.asyncio.Redis):
    def __repr__(self) -> str:
        return _place_of(self)


class _Asked(redis.Redis):
    def __repr__(self) -> str:
        return _place_of(self)


def _place_of(client: redis.Redis | redis.asyncio.Redis) -> str:
    settings = client.connection_pool.connection_kwargs
    return f"{settings['host']}:{settings['port']}"


class _AsyncSentinel(redis.asyncio.sentinel.Sentinel):
    def __init__(self, hosts: Sequence[tuple[str, int]], sentinel_kwargs: dict[str, Any]) -> None:
        super().__init__((), sentinel_kwargs=sentinel_kwargs)  # type: ignore[no-untyped-call]
        self.sentinels = [_AsyncAsked(host=host, port=port, **sentinel_kwargs) for host, port in hosts]

    async def discover_master(self, service_name: str) -> Any:
        asking = copy(self)
        asking.sentinels = list(self.sentinels)
        address = await redis.asyncio.sentinel.Sentinel.discover_master(asking, service_name)
        self.sentinels = asking.sentinels
        return address


class _Sentinel(redis.sentinel.Sentinel):
    def __init__(self, hosts: Sequence[tuple[str, int]], sentinel_kwargs: dict[str, Any]) -> None:
        super().__init__((), sentinel_kwargs=sentinel_kwargs)  # type: ignore[no-untyped-call]
        self.sentinels = [_Asked(host=host, port=port, **sentinel_kwargs) for host, port in hosts]

    def discover_master(self, service_name: str) -> Any:
        asking = copy(self)
        asking.sentinels = list(self.sentinels)
        address = redis.sentinel.Sentinel.discover_master(asking, service_name)  # type: ignore[no-untyped-call]
        self.sentinels = asking.sentinels
        return address


def connecting(url: str, options: RedisOptions) -> Connecting:
    """Read a URL and options. Raises ConfigurationError for what no connection could be made of."""
    _check_names(options)
    address = parse(url)
    query = dict(parse_qsl(address.query, keep_blank_values=True))
    options = cast("RedisOptions", {name: query.pop(name) for name in _TEXTS_IN_URLS if name in query} | options)
    names = {"prefix": "prefix", "connect_timeout": "socket_connect_timeout", "command_timeout": "socket_timeout"}
    found = {ours: query.pop(ours, query.pop(theirs, None)) for ours, theirs in names.items()}
    limits = limits_of(options, found)
    try:
        # redis-py knows of which type its own settings are.
        settings: dict[str, Any] = dict(redis.connection.parse_url(f"redis://?{urlencode(query)}"))  # type: ignore[no-untyped-call]
    except ValueError as error:
        msg = f"store URL: the options after '?' are not understood: {error}"
        raise ConfigurationError(msg) from None
    settings |= _credentials(address, options) | _tls(address, options)
    settings["socket_connect_timeout"] = limits.connect_timeout_s
    # With 3, redis-py lets a server that announces maintenance make a request wait for longer, and looks less at
    # whether a connection is sound. Nothing here needs it.
    settings.setdefault("protocol", 2)
    _check_decoding(settings.get("decode_responses"))
    if address.kind != "sentinel" and (options.keys() & {"sentinel_username", "sentinel_password"}):
        msg = f"sentinel_username, sentinel_password: only a URL redis+sentinel:// has Sentinels, and this is {address}"
        raise ConfigurationError(msg)
    made = Connecting(
        address,
        limits,
        settings,
        _sentinel_settings(settings, options, limits.connect_timeout_s / max(_SENTINELS_IN_TIME, len(address.hosts))),
    )
    _check(made)
    return made


_TEXTS_IN_URLS: Final = (
    "tls_ca_file", "tls_certificate_file", "tls_key_file", "sentinel_username", "sentinel_password"
)  # fmt: skip


def _check_names(options: RedisOptions) -> None:
    """Raise ConfigurationError for an option that there is not: misspelt, it would be as if it had not been set."""
    for name in options:
        if name not in RedisOptions.__annotations__:
            msg = f"{name:.40}: the Redis stores have no such option{_meant(name, RedisOptions.__annotations__)}"
            raise ConfigurationError(msg)


def _meant(name: str, names: Iterable[str]) -> str:
    similar = get_close_matches(name, list(names), 1)
    return f"; did you mean {similar[0]}?" if similar else ""


def limits_of(options: RedisOptions, found: Mapping[str, str | None]) -> Limits:
    """Give the limits that options set, or else what was found in a URL, or else ours."""
    prefix = options.get("prefix", found.get("prefix"))
    return Limits(
        DEFAULT_PREFIX if prefix is None else prefix,
        _seconds("connect_timeout", options.get("connect_timeout"), found.get("connect_timeout"), CONNECT_TIMEOUT_S),
        _seconds("command_timeout", options.get("command_timeout"), found.get("command_timeout"), COMMAND_TIMEOUT_S),
    )


def _seconds(name: str, given: timedelta | None, found: str | None, otherwise: float) -> float:
    """Give what an option sets, or else what was found in the URL."""
    try:
        seconds = given.total_seconds() if given is not None else otherwise if found is None else float(found)
    except ValueError:
        msg = f"store URL: {name}: expected a number of seconds, got {found!r:.40}"
        raise ConfigurationError(msg) from None
    if not 0 < seconds <= _LONGEST_TIMEOUT_S:
        msg = f"{name}: expected more than 0 and at most {_LONGEST_TIMEOUT_S} seconds, got {seconds:g}"
        raise ConfigurationError(msg)
    return seconds


def _credentials(address: Address, options: RedisOptions) -> dict[str, Any]:
    database = options.get("database", address.database)
    if address.kind == "cluster":
        if database:
            msg = f"A Cluster has only the database 0, and {database} was asked for"
            raise ConfigurationError(msg)
        database = None
    found = {
        "username": options.get("username", address.username),
        "password": options.get("password", address.password),
        "db": database,
    }
    return {name: value for name, value in found.items() if value is not None}


def _tls(address: Address, options: RedisOptions) -> dict[str, Any]:
    given = {
        "ssl_ca_certs": options.get("tls_ca_file"),
        "ssl_certfile": options.get("tls_certificate_file"),
        "ssl_keyfile": options.get("tls_key_file"),
    }
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not address.has_tls:
        if settings:
            msg = f"TLS files are given, but the URL is for a connection without TLS; write rediss:// ({address})"
            raise ConfigurationError(msg)
        return {}
    if address.kind in ("sentinel", "cluster"):
        settings["ssl"] = True
    return settings


def _check_tls_files(settings: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for files that can't be read or don't belong together, as every connection would."""
    context = ssl.create_default_context()
    authorities, certificate, key = (settings.get(f"ssl_{name}") for name in ("ca_certs", "certfile", "keyfile"))
    if key is not None and certificate is None:
        msg = f"tls_key_file: there is a key ({key}) and no certificate; set tls_certificate_file"
        raise ConfigurationError(msg)
    if authorities is not None:
        with _told("tls_ca_file", authorities, "not certificates in PEM form"):
            context.load_verify_locations(authorities)
    if certificate is not None:
        password = str(settings.get("ssl_password") or "")  # with none at all, OpenSSL would ask the terminal
        files = certificate if key is None else f"{certificate} with {key}"
        with _told("tls_certificate_file, tls_key_file", files, "not a certificate and the key that belongs to it"):
            context.load_cert_chain(certificate, key, lambda: password)


@contextmanager
def _told(option: str, files: str, otherwise: str) -> Iterator[None]:
    """Raise ConfigurationError where files can't be used; `otherwise` says what is wrong if they can be read."""
    try:
        yield
    except (OSError, ValueError) as error:
        is_read = isinstance(error, ssl.SSLError | ValueError)
        msg = f"{option}: {files} can't be used: {otherwise if is_read else cast('OSError', error).strerror}"
        raise ConfigurationError(msg) from error


def _sentinel_settings(settings: Mapping[str, Any], options: RedisOptions, timeout_s: float) -> dict[str, Any]:
    """Give the settings for connections to Sentinels, who have passwords of their own."""
    shared = {name: value for name, value in settings.items() if name.startswith("ssl")}
    own = {
        "username": options.get("sentinel_username"),
        "password": options.get("sentinel_password"),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }
    return shared | {name: value for name, value in own.items() if value is not None}


def _check(made: Connecting) -> None:
    """Make a client, and connect nothing: then its settings can't be wrong later."""
    settings = {name: value for name, value in made.settings.items() if name != "ssl"}
    kind = redis.SSLConnection if made.address.has_tls else redis.Connection
    error = _error_of(kind, settings)
    if error is not None:
        # The error's own text is not shown: it may have parts of the URL, and so of a password, in it.
        wrong = next((name for name in settings if _error_of(kind, {name: settings[name]}) is not None), "")
        names = {*RedisOptions.__annotations__, *_SOME_OF_THE_CLIENT}
        what = f"{wrong!r:.42} among " if wrong else ""
        msg = (
            f"store URL: the Redis client can't work with {what}the options of this URL ({type(error).__name__})"
            f"{_meant(wrong, names)}"
        )
        raise ConfigurationError(msg)
    _check_tls_files(settings)


_SOME_OF_THE_CLIENT: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "health_check_interval")


def _error_of(kind: type[redis.Connection], settings: Mapping[str, Any]) -> Exception | None:
    try:
        kind(**settings)
    except (ValueError, TypeError, AttributeError, redis.RedisError) as error:
        return error
    return None


def read_slots(client: Any, failed: str | None, spare: Iterable[Any]) -> Any:
    """Have a Cluster's client read the map of slots anew.

    Args:
        client: the client.
        failed: the name of a node that is asked only if all others fail, where the library can do so.
        spare: nodes to ask as well. A client forgets those that it began with for those that it learns of, and these
            may all be gone one day, as when everything moves to other machines.
    """
    nodes = client.nodes_manager.startup_nodes
    for node in spare:
        nodes.setdefault(node.name, node)
    initialize = client.nodes_manager.initialize
    if "last_failed_node_name" in inspect.signature(initialize).parameters:
        return initialize(last_failed_node_name=failed)
    return initialize()


def is_elsewhere(client: Any, node: str, redirected: Collection[str], key: str) -> bool:
    """Tell whether a key of a Cluster belongs to another node, by what the client knows or what was answered."""
    if key in redirected:
        return True
    try:
        return bool(key) and client.get_node_from_key(key).name != node
    except Exception as error:
        if not is_outage(error):
            raise
        return False  # nobody is known to have it


def taker_of(pool: Any) -> Callable[[], Any]:
    """Give what takes a connection from a pool."""
    name = inspect.signature(pool.get_connection).parameters.get("command_name")
    if name is not None and name.default is inspect.Parameter.empty:
        return partial(pool.get_connection, "_")  # valkey-py wants to know what for
    return pool.get_connection  # type: ignore[no-any-return]


def check_client(client: Any, options: RedisOptions, *, is_async: bool) -> None:
    """Raise ConfigurationError for a client that can't be used: of the other kind, or whose answers are not bytes."""
    _check_names(options)
    usable = {"prefix", "command_timeout"} | ({"connect_timeout"} if is_async else set())
    unusable = sorted(options.keys() - usable)
    if unusable:
        msg = f"{', '.join(unusable)}: the client that was given is connected its own way; set it there"
        raise ConfigurationError(msg)
    execute = getattr(client, "execute_command", None)
    if execute is None or inspect.iscoroutinefunction(execute) is not is_async:
        expected, other = "RedisStore needs a redis.asyncio.Redis", "SyncRedisStore"
        if not is_async:
            expected, other = "SyncRedisStore needs a redis.Redis", "RedisStore"
        got = f"{type(client).__module__}.{type(client).__qualname__}"
        msg = f"{expected}, or RedisCluster, got a {got}; see also {other}"
        raise ConfigurationError(msg)
    _check_decoding(client.get_encoder().decode_responses)


def _check_decoding(decodes: object) -> None:
    if decodes:
        msg = "The Redis client has decode_responses=True; records are bytes, so give a client without it"
        raise ConfigurationError(msg)
