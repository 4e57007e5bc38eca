"""Where a Redis deployment is, read from a URL. Needs no client library.

    redis://[user:password@]host[:port][/database]           one server; rediss:// with TLS
    unix:///path/to/socket[?db=1]                             one server, on this host
    redis+sentinel://host[:port][,host…]/service[/database]   the primary that the Sentinels name
    redis+cluster://host[:port][,host…]                       a Cluster; some of its nodes are enough

`valkey` may stand for `redis`, and the other schemes have forms with TLS as well. What follows `?` are settings: see
`RedisOptions`, and redis-py's own for connections, such as `ssl_ca_certs`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from coatcheck.errors import ConfigurationError

Kind: TypeAlias = Literal["server", "socket", "sentinel", "cluster"]

_KINDS: Final[dict[str, tuple[Kind, bool]]] = {
    **{f"{name}{tls}": ("server", bool(tls)) for name in ("redis", "valkey") for tls in ("", "s")},
    **{f"{name}{tls}+sentinel": ("sentinel", bool(tls)) for name in ("redis", "valkey") for tls in ("", "s")},
    **{f"{name}{tls}+cluster": ("cluster", bool(tls)) for name in ("redis", "valkey") for tls in ("", "s")},
    "unix": ("socket", False),
    "redis+unix": ("socket", False),
    "valkey+unix": ("socket", False),
}
"""Schemes: what kind of deployment, and whether with TLS."""

SCHEMES: Final = frozenset(_KINDS)

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """Where a deployment is, and who asks."""

    kind: Kind
    has_tls: bool
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    """Of a socket."""
    service: str = ""
    """What the Sentinels call the primary."""
    database: int | None = None
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    query: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Show where it is, without who asks."""
        if self.kind == "socket":
            return self.path
        hosts = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.service} by {hosts}" if self.service else hosts


def parse(url: str) -> Address:
    """Read a URL. Raises ConfigurationError, without showing what may be a password."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme not in _KINDS:
        _refuse("given", "the scheme")  # not shown: without "://" it is the whole URL
    kind, has_tls = _KINDS[scheme]
    # Parsed as http, because urlsplit treats the parts of schemes that it doesn't know in different ways.
    parts = split(f"http://{rest}")
    if parts is None:
        _refuse(scheme, "the host")
    credentials, _, netloc = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    path = [unquote(each) for each in parts.path.split("/") if each]
    if parts.fragment or "@" in parts.path + parts.query:
        _refuse(scheme, "the end of the password (percent-encode what is not a letter or digit: %40 for @, %23 for #)")
    hosts, service, database = _hosts(scheme, netloc, kind), "", None
    if kind == "socket":
        if not path:
            _refuse(scheme, "the path of the socket")
    else:
        if kind == "sentinel":
            if not path:
                _refuse(scheme, "the service (redis+sentinel://host,host/service)")
            service = path.pop(0)
        if len(path) > 1 or not all(each.isdecimal() for each in path):
            _refuse(scheme, "the database")
        database = int(path[0]) if path else None
    return Address(
        kind, has_tls, hosts,
        path="/" + "/".join(path) if kind == "socket" else "",
        service=service,
        database=database,
        username=unquote(username) or None,
        password=unquote(password) or None,
        query=parts.query,
    )  # fmt: skip


def place_of(address: Address) -> str:
    """Give where the store is, without user, password and options, which may have passwords in them."""
    return str(address) if address.database is None else f"{address}, database {address.database}"


def split(url: str) -> SplitResult | None:
    """Split a URL, or give None for one that can't be. Its error shows what may be a password, so it ends here.

    Whoever refuses the URL does so after that, and not beside the error, which would be in the traceback as well.
    """
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _hosts(scheme: str, netloc: str, kind: Kind) -> tuple[tuple[str, int], ...]:
    if kind == "socket":
        return ()
    hosts = tuple(_host(scheme, each, _SENTINEL_PORT if kind == "sentinel" else _PORT) for each in netloc.split(","))
    if kind == "server" and len(hosts) != 1:
        _refuse(
            scheme, "the host: one server has one; for more, use redis+cluster:// or redis+sentinel://, and the host"
        )
    return hosts


def _host(scheme: str, text: str, default_port: int) -> tuple[str, int]:
    host: str | None = None
    port: int | None = None
    with suppress(ValueError):  # for the reason in `split`
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    if not host or port == 0:
        _refuse(scheme, "the host or its port (before them, user and password end with @)")
    return unquote(host), default_port if port is None else port


def _refuse(scheme: str, what: str) -> NoReturn:
    msg = (
        f"store URL: {what} of the {scheme} URL is not understood; expected "
        "redis://[user:password@]host[:port][/database], rediss://… (TLS), unix:///path/to/socket, "
        "redis+sentinel://host,host/service, or redis+cluster://host,host"
    )
    raise ConfigurationError(msg)
