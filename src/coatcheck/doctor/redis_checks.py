"""What the settings and the state of a Redis or Valkey server mean for sessions. No I/O.

Each check takes what was read from one server. What could not be read is missing there, and the check says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from coatcheck.doctor.findings import Finding, Status

_OLDEST: Final = {"Redis": (6, 2), "Valkey": (7, 2)}
"""GETEX and GETDEL came with Redis 6.2."""

_NEARLY_FULL: Final = 0.9
_MEBIBYTE: Final = 1 << 20
"""What the servers' own settings mean by "mb"."""

_LAG_S: Final = 10
_SKEW_NOTE_S: Final = 1.0
_SKEW_WARNING_S: Final = 10.0

_SHOWN: Final = 3
"""How many names of keys are shown."""

_LARGEST: Final = (1 << 63) - 1
"""What servers count with; what is larger is no count, and too large to be divided."""

_NOT_VISIBLE: Final = "not visible to this user"


class Reach(Enum):
    """How far from here the server is, and so who else may listen."""

    SOCKET = "on a Unix socket"
    HOST = "over this host's loopback"
    PRIVATE = "in a private network"
    PUBLIC = "at a public address"


@dataclass(frozen=True, slots=True)
class Seen:
    """What one server shows of itself.

    Attributes:
        info: what INFO says; empty if it can't be asked.
        config: what CONFIG GET says; empty if it can't be asked.
    """

    info: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """Some of the keys that begin with the prefix.

    Attributes:
        count: how many were looked at.
        is_all: whether there are no others.
        without_ttl: the names of those that never expire.
    """

    count: int
    is_all: bool
    without_ttl: Sequence[str]


def number_in(shown: Mapping[str, Any], name: str, otherwise: int | None = None) -> int | None:
    """Read a number that a server shows.

    Args:
        shown: all that it shows.
        name: the number's name.
        otherwise: what it is where it is not shown.

    Returns:
        The number, or None for what is none: what poses as a server may show anything.
    """
    return _read(shown[name]) if name in shown else otherwise


def _read(text: Any) -> int | None:
    try:
        read = int(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return read if abs(read) <= _LARGEST else None


def check_version(seen: Seen) -> Finding:
    """Find servers that don't know the commands that the store sends."""
    name = "Valkey" if "valkey_version" in seen.info else "Redis"
    version = str(seen.info.get("valkey_version", seen.info.get("redis_version", "")))
    if not _numbers(version):
        advice = "Check by hand: Redis has to be 6.2 or newer, Valkey 7.2 or newer (INFO server)."
        return Finding("version", Status.UNKNOWN, _NOT_VISIBLE, advice)
    oldest = _OLDEST[name]
    if _numbers(version) < oldest:
        advice = f"Coatcheck needs the commands of {name} {oldest[0]}.{oldest[1]} (GETEX, GETDEL) or newer. Upgrade it."
        return Finding("version", Status.PROBLEM, f"{name} {version} is too old", advice)
    return Finding("version", Status.OK, f"{name} {version}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(each for part in version.split(".")[:2] if (each := _read(part)) is not None)


def check_eviction(seen: Seen) -> Finding:
    """Find policies that drop sessions to make room for others."""
    policy = str(seen.info.get("maxmemory_policy", seen.config.get("maxmemory-policy", "")))
    if not policy:
        advice = (
            "Check by hand that maxmemory-policy is noeviction; every other policy logs users out when memory is full."
        )
        return Finding("eviction", Status.UNKNOWN, _NOT_VISIBLE, advice)
    if policy == "noeviction":
        finding = "noeviction: a full server refuses new and changed sessions (503), and drops none"
        return Finding("eviction", Status.OK, finding)
    advice = (
        "Every session has a time to live, so this policy drops sessions in use, and their users are logged out. Set "
        "maxmemory-policy noeviction; if the server is a cache, too, give sessions one of their own."
    )
    evicted = number_in(seen.info, "evicted_keys")
    so_far = f", and has dropped {_count(evicted, 'key')} since it started" if evicted else ""
    if number_in(seen.info, "maxmemory") == 0:
        finding = f"{policy} drops sessions as soon as maxmemory is set{so_far}"
        return Finding("eviction", Status.WARNING, finding, advice)
    return Finding("eviction", Status.PROBLEM, f"{policy} drops sessions when memory is full{so_far}", advice)


def check_memory(seen: Seen) -> Finding:
    """Find servers that are full, nearly full, or without a limit."""
    used, limit = number_in(seen.info, "used_memory"), number_in(seen.info, "maxmemory")
    if used is None or limit is None:
        advice = "Check by hand that used_memory is well below maxmemory (INFO memory)."
        return Finding("memory", Status.UNKNOWN, _NOT_VISIBLE, advice)
    if not limit:
        advice = (
            "A server that outgrows its machine is killed by the operating system. Set maxmemory to what the machine "
            "can spare; where snapshots are taken, to two thirds of that."
        )
        return Finding("memory", Status.NOTE, f"{_mebibytes(used)} used, without a limit", advice)
    finding = f"{_mebibytes(used)} of {_mebibytes(limit)} used"
    if used < limit * _NEARLY_FULL:
        return Finding("memory", Status.OK, finding)
    advice = (
        "A full server refuses new and changed sessions (503), or drops some, as its eviction policy says. Raise "
        "maxmemory, or find out what else fills it (MEMORY STATS)."
    )
    return Finding("memory", Status.PROBLEM if used >= limit else Status.WARNING, finding, advice)


def _mebibytes(size: int) -> str:
    return f"{size / _MEBIBYTE:,.1f} MiB"


def check_persistence(seen: Seen) -> Finding:
    """Find out what a restart of the server would lose."""
    has_append_only_file = number_in(seen.info, "aof_enabled")
    if has_append_only_file is None:
        advice = "Check by hand that appendonly is yes (CONFIG GET appendonly), or what your provider promises."
        return Finding("persistence", Status.UNKNOWN, _NOT_VISIBLE, advice)
    failing = _failing_write(seen)
    if failing:
        advice = "While that fails the server may refuse every write (503). Look into its log: often the disk is full."
        return Finding("persistence", Status.PROBLEM, failing, advice)
    if has_append_only_file:
        return _of_append_only_file(seen.config.get("appendfsync"))
    return _of_snapshots(seen)


def _failing_write(seen: Seen) -> str:
    if seen.info.get("aof_last_write_status", "ok") != "ok":
        return "the last write to the append-only file failed"
    if seen.info.get("rdb_last_bgsave_status", "ok") != "ok":
        return "the last snapshot failed"
    return ""


def _of_append_only_file(appendfsync: str | None) -> Finding:
    if appendfsync == "no":
        advice = (
            "A power failure loses the logins of half a minute, and brings sessions back that were ended in it. Set "
            "appendfsync everysec."
        )
        finding = "an append-only file, written out when the operating system likes"
        return Finding("persistence", Status.NOTE, finding, advice)
    loses = {"everysec": ": a crash loses a second or two", "always": ": a crash loses nothing"}.get(
        appendfsync or "", ""
    )
    return Finding("persistence", Status.OK, f"an append-only file{loses}")


def _of_snapshots(seen: Seen) -> Finding:
    save = seen.config.get("save")
    if save is None:
        advice = (
            "Without an append-only file, a restart loses what came after the last snapshot. Check by hand whether "
            "there are snapshots (CONFIG GET save), or what your provider promises."
        )
        return Finding("persistence", Status.UNKNOWN, "no append-only file; snapshots are not visible", advice)
    if not save:
        advice = "Every user is logged out when the server restarts. Set appendonly yes, with appendfsync everysec."
        if number_in(seen.info, "connected_slaves"):
            advice += " Its replicas are emptied then, too."
        return Finding("persistence", Status.WARNING, "nothing is kept over a restart", advice)
    advice = (
        "A crash loses the logins since the last snapshot, and brings sessions back that were ended since. If minutes "
        "of that are too much, set appendonly yes."
    )
    return Finding("persistence", Status.NOTE, f"snapshots only (save {save})", advice)


def check_replicas(seen: Seen) -> Finding:
    """Find replicas that can't be written to, and primaries that nobody could take over from."""
    role = seen.info.get("role")
    if role is None:
        advice = "Check by hand that this is the primary, and how many replicas it has (INFO replication)."
        return Finding("replicas", Status.UNKNOWN, _NOT_VISIBLE, advice)
    if role != "master":
        advice = "Sessions can't be stored here. Name the primary in the store's URL, or let Sentinel find it."
        return Finding("replicas", Status.PROBLEM, "this is a read-only replica", advice)
    replicas = [value for name, value in seen.info.items() if _is_replica(name, value)]
    if not replicas:
        advice = (
            "While this server is down, requests that have a session are answered by 503. If that has to go on without "
            "it, add a replica, with Sentinel or Cluster to let it take over."
        )
        return Finding("replicas", Status.NOTE, "a primary without replicas", advice)
    return _of_replicas(replicas, seen.config.get("min-replicas-to-write"))


def _is_replica(name: str, value: object) -> bool:
    return name.startswith("slave") and name[5:].isdecimal() and isinstance(value, dict)


def _of_replicas(replicas: Sequence[Mapping[str, Any]], required: str | None) -> Finding:
    behind = [each for each in replicas if not _is_up_to_date(each)]
    finding = f"a primary with {_count(len(replicas), 'replica')}"
    if behind:
        advice = (
            "If one of these takes over, logins are lost and sessions come back that were ended. Look into its log."
        )
        return Finding("replicas", Status.WARNING, f"{finding}, {len(behind)} of them not up to date", advice)
    if required == "0":
        advice = (
            "A primary that is cut off goes on to take writes, which are lost when it comes back as a replica: logins, "
            "and logouts. Set min-replicas-to-write 1 to bound that by min-replicas-max-lag."
        )
        return Finding("replicas", Status.NOTE, f"{finding}, writing also without them", advice)
    return Finding("replicas", Status.OK, f"{finding}, up to date")


def _is_up_to_date(replica: Mapping[str, Any]) -> bool:
    lag_s = number_in(replica, "lag", 0)
    return replica.get("state") == "online" and lag_s is not None and lag_s <= _LAG_S


def check_connections(seen: Seen, wanted: int) -> Finding:
    """Find servers that have no room for one more process, which opens `wanted` connections at most, from threads."""
    used, limit = number_in(seen.info, "connected_clients"), number_in(seen.info, "maxclients")
    if used is None or limit is None:
        advice = f"Check by hand that maxclients leaves room for all processes: {_needs(wanted)} (INFO clients)."
        return Finding("connections", Status.UNKNOWN, _NOT_VISIBLE, advice)
    finding = f"{used:,} of {limit:,} in use"
    idle_s = seen.config.get("timeout", "0")
    if idle_s != "0":
        finding += f"; idle ones are closed after {idle_s} s, which does no harm"
    if limit - used >= wanted:
        return Finding("connections", Status.OK, finding)
    advice = (
        f"A process of your application opens {_needs(wanted)}, and answers by 503 where they are refused. Raise "
        "maxclients, and the limit of open files with it."
    )
    return Finding("connections", Status.WARNING, finding, advice)


def _needs(wanted: int) -> str:
    return f"three with asyncio, up to {wanted} with threads"


def check_visibility(seen: Sequence[Seen], *, is_cluster: bool) -> Finding | None:
    """Say how a user is allowed to show more, where servers have shown nothing of themselves."""
    if all(each.info and each.config for each in seen):
        return None
    rights = "+info +config|get +time" + (" +cluster|info" if is_cluster else "")
    return Finding(
        "visibility",
        Status.UNKNOWN,
        "this user does not see all that could be checked",
        "Look once as an administrator, or let the user see it, which allows no change: "
        f"ACL SETUSER <user> {rights} (Redis 6.2: +config, which does allow changes)",
    )


def check_cluster(state: Mapping[str, Any] | None, *, by_cluster_client: bool) -> Finding:
    """Judge what CLUSTER INFO says (None if it can't be asked) of a server that is part of a cluster."""
    if not by_cluster_client:
        advice = (
            "Sessions whose slots are on other nodes can't be stored by way of this one. Name the cluster in the "
            "store's URL: redis+cluster://host:port."
        )
        return Finding("cluster", Status.PROBLEM, "this is one node of a cluster", advice)
    if state is None:
        return _CLUSTER_NOT_VISIBLE
    if state.get("cluster_state") != "ok":
        advice = "Requests that have a session are answered by 503. See CLUSTER NODES for the nodes that are missing."
        return Finding("cluster", Status.PROBLEM, "the cluster is down", advice)
    doubtful, failed = number_in(state, "cluster_slots_pfail", 0), number_in(state, "cluster_slots_fail", 0)
    if doubtful is None or failed is None:
        return _CLUSTER_NOT_VISIBLE
    troubled = doubtful + failed
    if troubled:
        advice = "Sessions in these slots are answered by 503. See CLUSTER NODES for the node that does not answer."
        return Finding("cluster", Status.WARNING, f"{_count(troubled, 'slot')} out of reach", advice)
    return Finding("cluster", Status.OK, "the cluster is up, every slot is served")


_CLUSTER_NOT_VISIBLE: Final = Finding(
    "cluster", Status.UNKNOWN, _NOT_VISIBLE, "Check by hand that cluster_state is ok (CLUSTER INFO)."
)


def check_sentinel(state: Mapping[str, Any]) -> Finding:
    """Judge what a Sentinel says of the primary that it watches (SENTINEL MASTER)."""
    if state.get("is_odown") or state.get("is_sdown"):
        advice = "Requests that have a session are answered by 503 until a replica takes over. See the Sentinels' logs."
        return Finding("sentinel", Status.PROBLEM, "the Sentinel can't reach the primary", advice)
    others, replicas = number_in(state, "num-other-sentinels", 0), number_in(state, "num-slaves", 0)
    if others is None or replicas is None:
        advice = "Check by hand how many Sentinels and replicas stand by (SENTINEL MASTERS)."
        return Finding("sentinel", Status.UNKNOWN, _NOT_VISIBLE, advice)
    sentinels = others + 1
    finding = f"{_count(sentinels, 'Sentinel')} and {_count(replicas, 'replica')} stand by"
    if sentinels < 3 or not replicas:  # noqa: PLR2004 (a majority that outlives one of its members)
        advice = (
            "No replica takes over when the primary and one Sentinel are lost with one machine. Have at least three "
            "Sentinels on three machines, and one replica."
        )
        return Finding("sentinel", Status.WARNING, finding, advice)
    return Finding("sentinel", Status.OK, finding)


def check_encryption(reach: Reach, *, is_encrypted: bool, is_verified: bool) -> Finding:
    """Find connections that others can read."""
    if is_encrypted and not is_verified:
        advice = "Whoever is in between can pass for the server. Take ssl_cert_reqs out of the URL; name ssl_ca_certs."
        return Finding("encryption", Status.WARNING, "TLS, but the server's certificate is not checked", advice)
    if is_encrypted:
        return Finding("encryption", Status.OK, "TLS, with the server's certificate checked")
    if reach in (Reach.SOCKET, Reach.HOST):
        return Finding("encryption", Status.OK, f"none needed {reach.value}")
    advice = (
        "Whoever can listen there reads what sessions hold, and the password. Use TLS: rediss:// in the store's URL."
    )
    status = Status.WARNING if reach is Reach.PUBLIC else Status.NOTE
    return Finding("encryption", status, f"plain TCP {reach.value}", advice)


def check_access(reach: Reach, *, has_password: bool, is_open: bool | None) -> Finding:
    """Find servers that let everybody in.

    Args:
        reach: who can try.
        has_password: whether the store's URL has one.
        is_open: whether the server lets others in without; None if that can't be seen.
    """
    if reach is Reach.SOCKET:
        return Finding("access", Status.OK, "the socket's permissions say who may connect")
    if has_password and not is_open:
        return Finding("access", Status.OK, "the server asks for a password")
    finding = f"no password is needed {reach.value}"
    if reach is Reach.HOST:
        advice = "Every user of this host can read and end sessions. If it has others than you, set a password."
        return Finding("access", Status.NOTE, finding, advice)
    advice = "Whoever reaches the port can read and end every session. Set requirepass, or an ACL user with a password."
    return Finding("access", Status.PROBLEM if reach is Reach.PUBLIC else Status.WARNING, finding, advice)


def check_keys(sample: Sample, prefix: str) -> Finding:
    """Find keys that would never go."""
    if not sample.count:
        finding = f"none under {prefix} {'yet' if sample.is_all else 'among those looked at'}"
        return Finding("keys", Status.OK, finding)
    looked_at = f"all {sample.count:,}" if sample.is_all else f"the {sample.count:,} looked at"
    if not sample.without_ttl:
        return Finding("keys", Status.OK, f"{looked_at} under {prefix} have a time to live")
    names = ", ".join(sample.without_ttl[:_SHOWN])
    more = " and others" if len(sample.without_ttl) > _SHOWN else ""
    advice = (
        f"They never go, and Coatcheck did not write them: {names}{more}. Something else uses this prefix, or took "
        "their time to live away (PERSIST). Give sessions a prefix of their own, or delete these."
    )
    finding = f"{len(sample.without_ttl):,} of {looked_at} under {prefix} without a time to live"
    return Finding("keys", Status.PROBLEM, finding, advice)


def check_clock(skew_s: float, uncertainty_s: float) -> Finding:
    """Judge how far the server's clock is ahead of this host's, in seconds (negative: behind)."""
    away_s = max(0.0, abs(skew_s) - uncertainty_s)
    if away_s < _SKEW_NOTE_S:
        return Finding("clock", Status.OK, "the server's clock and this host's agree")
    finding = f"the server's clock is {away_s:,.0f} s {'ahead of' if skew_s > 0 else 'behind'} this host's"
    advice = (
        "One of the two is wrong. The hosts of an application measure lifetimes by their own clocks, and a replica "
        "that takes over ends sessions by its own. Let every host set its clock by NTP."
    )
    return Finding("clock", Status.WARNING if away_s >= _SKEW_WARNING_S else Status.NOTE, finding, advice)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
