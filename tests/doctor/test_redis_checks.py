"""What settings and states mean for sessions: without servers."""

from __future__ import annotations

from typing import Any

import pytest

from coatcheck.doctor import redis_checks as checks
from coatcheck.doctor.findings import Finding, Report, Status
from coatcheck.doctor.redis_checks import Reach, Sample, Seen

NOTHING = Seen()
SLOTS = ("cluster_slots_pfail", "cluster_slots_fail")


def seen(**info: Any) -> Seen:
    return Seen(info=info)


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ({"redis_version": "6.0.16"}, Status.PROBLEM),
        ({"redis_version": "6.2.0"}, Status.OK),
        ({"redis_version": "10.1.0"}, Status.OK),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.8"}, Status.OK),
        ({"redis_version": "7.2.4", "valkey_version": "9.0.0"}, Status.OK),
    ],
)
def test_servers_without_the_commands_that_are_needed_are_a_problem(info: dict[str, Any], status: Status) -> None:
    assert checks.check_version(Seen(info=info)).status is status


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-ttl"])
def test_every_policy_that_evicts_drops_sessions_because_each_has_a_time_to_live(policy: str) -> None:
    finding = checks.check_eviction(seen(maxmemory_policy=policy, maxmemory=1000, evicted_keys=7))
    assert finding.status is Status.PROBLEM
    assert "7 keys" in finding.finding
    assert "maxmemory-policy noeviction" in finding.advice


def test_policy_that_can_not_evict_yet_is_a_warning() -> None:
    assert checks.check_eviction(seen(maxmemory_policy="allkeys-lru", maxmemory=0)).status is Status.WARNING


def test_without_eviction_it_is_said_that_a_full_server_refuses() -> None:
    finding = checks.check_eviction(seen(maxmemory_policy="noeviction", maxmemory=1000))
    assert finding.status is Status.OK
    assert "503" in finding.finding


@pytest.mark.parametrize(
    ("used", "limit", "status"),
    [(5, 0, Status.NOTE), (89, 100, Status.OK), (90, 100, Status.WARNING), (100, 100, Status.PROBLEM)],
)
def test_memory_that_runs_out_is_told_before_it_has(used: int, limit: int, status: Status) -> None:
    assert checks.check_memory(seen(used_memory=used, maxmemory=limit)).status is status


@pytest.mark.parametrize(
    ("info", "config", "status", "word"),
    [
        ({"aof_enabled": 1}, {"appendfsync": "everysec"}, Status.OK, "second"),
        ({"aof_enabled": 1}, {"appendfsync": "always"}, Status.OK, "nothing"),
        ({"aof_enabled": 1}, {"appendfsync": "no"}, Status.NOTE, "everysec"),
        ({"aof_enabled": 1}, {}, Status.OK, "append-only"),
        ({"aof_enabled": 0}, {"save": ""}, Status.WARNING, "logged out"),
        ({"aof_enabled": 0, "connected_slaves": 1}, {"save": ""}, Status.WARNING, "emptied"),
        ({"aof_enabled": 0}, {"save": "3600 1"}, Status.NOTE, "3600 1"),
        ({"aof_enabled": 0}, {}, Status.UNKNOWN, "CONFIG GET save"),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, {"save": "3600 1"}, Status.PROBLEM, "snapshot"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, {}, Status.PROBLEM, "append-only"),
    ],
)
def test_it_is_said_what_a_restart_loses(
    info: dict[str, Any], config: dict[str, str], status: Status, word: str
) -> None:
    finding = checks.check_persistence(Seen(info, config))
    assert finding.status is status
    assert word in finding.finding + finding.advice


REPLICA = {"ip": "10.0.0.2", "port": 6379, "state": "online", "offset": 1, "lag": 0}


@pytest.mark.parametrize(
    ("replicas", "required", "status"),
    [
        ([], "0", Status.NOTE),
        ([REPLICA], "1", Status.OK),
        ([REPLICA], None, Status.OK),
        ([REPLICA], "0", Status.NOTE),
        ([REPLICA, REPLICA | {"lag": 60}], "1", Status.WARNING),
        ([REPLICA | {"state": "wait_bgsave"}], "1", Status.WARNING),
    ],
)
def test_replicas_are_judged_by_whether_they_could_take_over(
    replicas: list[dict[str, Any]], required: str | None, status: Status
) -> None:
    info = {"role": "master", "slave_read_only": 1, **{f"slave{n}": each for n, each in enumerate(replicas)}}
    config = {} if required is None else {"min-replicas-to-write": required}
    assert checks.check_replicas(Seen(info, config)).status is status


def test_replica_itself_is_a_problem_because_it_refuses_writes() -> None:
    assert checks.check_replicas(seen(role="slave")).status is Status.PROBLEM


def test_server_needs_room_for_the_connections_of_one_more_process() -> None:
    assert checks.check_connections(seen(connected_clients=936, maxclients=1000), 64).status is Status.OK
    assert checks.check_connections(seen(connected_clients=937, maxclients=1000), 64).status is Status.WARNING


def test_closing_idle_connections_is_mentioned_and_fine() -> None:
    finding = checks.check_connections(Seen({"connected_clients": 1, "maxclients": 1000}, {"timeout": "300"}), 64)
    assert finding.status is Status.OK
    assert "300 s" in finding.finding


@pytest.mark.parametrize(
    ("state", "by_cluster_client", "status"),
    [
        (None, False, Status.PROBLEM),
        (None, True, Status.UNKNOWN),
        ({"cluster_state": "fail"}, True, Status.PROBLEM),
        ({"cluster_state": "ok", "cluster_slots_pfail": "5"}, True, Status.WARNING),
        ({"cluster_state": "ok", "cluster_slots_pfail": "0", "cluster_slots_fail": "0"}, True, Status.OK),
    ],
)
def test_clusters_are_judged_by_whether_every_session_can_be_reached(
    state: dict[str, str] | None, by_cluster_client: bool, status: Status
) -> None:
    assert checks.check_cluster(state, by_cluster_client=by_cluster_client).status is status


@pytest.mark.parametrize(
    ("others", "replicas", "is_down", "status"),
    [
        (2, 1, False, Status.OK),
        (1, 1, False, Status.WARNING),
        (2, 0, False, Status.WARNING),
        (2, 1, True, Status.PROBLEM),
    ],
)
def test_sentinels_are_judged_by_whether_a_replica_could_take_over(
    others: int, replicas: int, is_down: bool, status: Status
) -> None:
    state = {"num-other-sentinels": others, "num-slaves": replicas, "is_sdown": is_down, "is_odown": False}
    assert checks.check_sentinel(state).status is status


@pytest.mark.parametrize(
    ("reach", "status"),
    [
        (Reach.SOCKET, Status.OK),
        (Reach.HOST, Status.OK),
        (Reach.PRIVATE, Status.NOTE),
        (Reach.PUBLIC, Status.WARNING),
    ],
)
def test_plain_connections_are_judged_by_who_may_listen(reach: Reach, status: Status) -> None:
    assert checks.check_encryption(reach, is_encrypted=False, is_verified=False).status is status


def test_encryption_counts_only_with_the_certificate_checked() -> None:
    assert checks.check_encryption(Reach.PUBLIC, is_encrypted=True, is_verified=True).status is Status.OK
    assert checks.check_encryption(Reach.PUBLIC, is_encrypted=True, is_verified=False).status is Status.WARNING


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize(
    ("reach", "status"),
    [
        (Reach.SOCKET, Status.OK),
        (Reach.HOST, Status.NOTE),
        (Reach.PRIVATE, Status.WARNING),
        (Reach.PUBLIC, Status.PROBLEM),
    ],
)
def test_servers_that_let_everybody_in_are_judged_by_who_can_try(reach: Reach, status: Status, is_open: bool) -> None:
    """Also when we have a password ourselves, and others need none."""
    assert checks.check_access(reach, has_password=is_open, is_open=is_open or None).status is status


@pytest.mark.parametrize("is_open", [False, None])
def test_password_that_everybody_needs_is_enough(is_open: bool | None) -> None:
    assert checks.check_access(Reach.PUBLIC, has_password=True, is_open=is_open).status is Status.OK


def test_keys_that_never_go_are_a_problem_and_named() -> None:
    finding = checks.check_keys(
        Sample(1000, is_all=False, without_ttl=["shop:a", "shop:b", "shop:c", "shop:d"]), "shop:"
    )
    assert finding.status is Status.PROBLEM
    assert "4 of the 1,000 looked at" in finding.finding
    assert "shop:c and others" in finding.advice
    assert "shop:d" not in finding.advice


def test_it_is_said_whether_all_keys_were_looked_at() -> None:
    assert "all 3 under shop:" in checks.check_keys(Sample(3, is_all=True, without_ttl=[]), "shop:").finding
    assert "the 3 looked at" in checks.check_keys(Sample(3, is_all=False, without_ttl=[]), "shop:").finding


@pytest.mark.parametrize(
    ("skew_s", "uncertainty_s", "status"),
    [
        (0.9, 0, Status.OK),
        (-1.2, 0.3, Status.OK),
        (-1.2, 0.1, Status.NOTE),
        (30, 0.1, Status.WARNING),
        (-30, 0.1, Status.WARNING),
    ],
)
def test_clocks_are_judged_by_what_the_round_trip_does_not_explain(
    skew_s: float, uncertainty_s: float, status: Status
) -> None:
    finding = checks.check_clock(skew_s, uncertainty_s)
    assert finding.status is status
    assert status is Status.OK or ("ahead" if skew_s > 0 else "behind") in finding.finding


def test_nothing_that_a_store_says_moves_a_cursor_or_begins_a_line() -> None:
    hostile = "\x1b]0;all is well\x07\x1b[2J\n\u202e\x9b1m\udcff"
    finding = Finding("eviction", Status.PROBLEM, hostile, hostile)
    report = Report(hostile, (finding,))
    assert finding.finding == finding.advice == report.store == r"\x1b]0;all is well\x07\x1b[2J\n\u202e\x9b1m\udcff"


def test_text_without_control_characters_is_shown_as_it_is() -> None:
    text = r"Größe “5 µs” … [red]C:\temp[/red]"
    assert Finding("keys", Status.OK, text).finding == text


@pytest.mark.parametrize(
    "odd",
    ["12abc", "", "{}", "\x1b[2J", "9" * 5000, 10**400, float("inf"), {"a": 1}, None],
    ids=lambda odd: repr(odd)[:9],
)
@pytest.mark.parametrize(
    ("check", "names"),
    [
        (checks.check_memory, ("used_memory", "maxmemory")),
        (checks.check_persistence, ("aof_enabled",)),
        (lambda seen: checks.check_connections(seen, 64), ("connected_clients", "maxclients")),
        (lambda seen: checks.check_cluster({"cluster_state": "ok"} | seen.info, by_cluster_client=True), SLOTS),
        (lambda seen: checks.check_sentinel(seen.info), ("num-other-sentinels", "num-slaves")),
    ],
    ids=["memory", "persistence", "connections", "cluster", "sentinel"],
)
def test_what_is_no_number_counts_as_not_to_be_seen(check: Any, names: tuple[str, ...], odd: object) -> None:
    for name in names:
        finding = check(Seen(info=dict.fromkeys(names, 5) | {name: odd}))
        assert finding.status is Status.UNKNOWN
        assert "Check by hand" in finding.advice


def test_version_without_a_number_counts_as_not_to_be_seen() -> None:
    assert checks.check_version(seen(redis_version="\x1b[2J")).status is Status.UNKNOWN
    assert checks.check_version(seen(redis_version="7." + "9" * 5000)).status is Status.OK


def test_policy_that_evicts_is_a_problem_also_where_numbers_are_none() -> None:
    finding = checks.check_eviction(seen(maxmemory_policy="allkeys-lru", maxmemory="12abc", evicted_keys="{}"))
    assert finding.status is Status.PROBLEM


def test_replica_whose_lag_is_no_number_does_not_pass_for_up_to_date() -> None:
    info = {"role": "master", "slave0": REPLICA | {"lag": "12abc"}}
    assert checks.check_replicas(Seen(info)).status is Status.WARNING


@pytest.mark.parametrize(
    "check",
    [
        checks.check_version,
        checks.check_eviction,
        checks.check_memory,
        checks.check_persistence,
        checks.check_replicas,
        lambda nothing: checks.check_connections(nothing, 64),
    ],
)
def test_what_can_not_be_seen_is_said_with_what_to_look_at_by_hand(check: Any) -> None:
    finding = check(NOTHING)
    assert finding.status is Status.UNKNOWN
    assert "Check by hand" in finding.advice
