"""The doctor at real servers, with settings good and bad."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster
from replica_sets import ReplicaSet
from servers import Server, free_port, server_binaries

from coatcheck.doctor import Finding, Status, examine
from coatcheck.doctor.redis import _over_all, _server, examine_store
from coatcheck.doctor.redis_access import access_by
from coatcheck.doctor.redis_checks import Reach
from coatcheck.errors import ConfigurationError
from coatcheck.stores.redis import SyncRedisStore
from coatcheck.stores.redis.connections import connecting
from coatcheck.stores.redis_address import parse, place_of

BINARIES = list(server_binaries().values())

NEEDED = "+mget +get +set +getex +getdel +pttl +scan +evalsha +eval +publish +subscribe +getrange".split()  # noqa: SIM905
PASSWORD = "correct-horse-battery"  # never to be seen
USER = "stapler"  # nor this


@pytest.fixture(params=BINARIES, ids=list(server_binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        yield client


def findings(url: str, **options: Any) -> dict[str, Finding]:
    found = examine(url, **options).findings
    assert PASSWORD not in str(found)
    assert USER not in str(found)
    return {finding.check: finding for finding in found}


def url_of(server: Server, userinfo: str = "") -> str:
    return server.url.replace("://", f"://{userinfo}")


def add_user(admin: redis.Redis, *rights: str) -> str:
    """Add a user, and give what the URL says of them."""
    keys = ("resetkeys", "~coatcheck:*", "resetchannels", "&coatcheck:news")
    admin.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", *keys, "-@all", *rights)  # type: ignore[no-untyped-call]
    return f"{USER}:{PASSWORD}@"


def test_healthy_server_has_nothing_worse_than_notes_and_keeps_nothing(server: Server, admin: redis.Redis) -> None:
    admin.config_set("appendonly", "yes")
    before = admin.config_get("*")
    found = findings(server.url)
    latency = found["latency"]  # whose judgement is this machine's
    assert {name: each.status for name, each in found.items() if each.status is not Status.OK and each != latency} == {
        "access": Status.NOTE,
        "memory": Status.NOTE,
        "replicas": Status.NOTE,
    }
    assert list(found) == [
        *("version", "operations", "script", "news", "access", "encryption", "eviction", "memory", "persistence"),
        *("replicas", "connections", "keys", "clock", "latency"),
    ]
    assert admin.dbsize() == 0
    assert admin.config_get("*") == before


def test_only_writes_are_those_of_one_record_under_the_prefix(server: Server, admin: redis.Redis) -> None:
    writes = {"SET", "GETEX", "GETDEL"}
    reads = set("PING INFO CONFIG MGET GET GETRANGE EVAL EVALSHA PTTL PUBLISH SUBSCRIBE SCAN TIME ACL".split())  # noqa: SIM905
    connecting = {"HELLO", "AUTH", "CLIENT", "SELECT"}
    keys = set()
    with admin.monitor() as monitor:  # type: ignore[no-untyped-call]
        findings(url_of(server), prefix="shop:")
        admin.echo("the end")
        for entry in monitor.listen():
            name, *arguments = entry["command"].split()
            name = name.upper()
            if name == "ECHO":
                break
            assert name in writes | reads | connecting, entry
            if name == "CONFIG":
                assert arguments[0].upper() == "GET"
            if name in writes:
                keys.add(arguments[0])
    assert len(keys) == 1
    assert next(iter(keys)).startswith("shop:doctor-")


def test_evicting_server_without_persistence_is_found(server: Server, admin: redis.Redis) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.config_set("maxmemory", "100mb")
    found = findings(server.url)
    assert found["eviction"].status is Status.PROBLEM
    assert found["persistence"].status is Status.WARNING
    assert found["memory"].status is Status.OK


def test_full_server_refuses_and_it_is_said_why(server: Server, admin: redis.Redis) -> None:
    admin.config_set("maxmemory", "1")
    found = findings(server.url)
    assert "full" in found["operations"].finding
    assert found["memory"].status is Status.PROBLEM


def test_user_with_only_the_needed_commands_is_enough_and_the_rest_is_said_to_be_unseen(
    server: Server, admin: redis.Redis
) -> None:
    url = url_of(server, add_user(admin, *NEEDED))
    found = findings(url)
    del found["latency"]  # whose judgement is this machine's
    ok = {name for name, finding in found.items() if finding.status is Status.OK}
    unseen = {name for name, finding in found.items() if finding.status is Status.UNKNOWN}
    assert ok == {"operations", "script", "news", "encryption", "keys", "access"}
    unseen_by_few_rights = {"version", "eviction", "memory", "persistence", "replicas", "connections", "clock"}
    assert unseen == {*unseen_by_few_rights, "visibility"}
    command = found["visibility"].advice.rpartition("ACL SETUSER <user> ")[2].partition(" (")[0]
    admin.execute_command("ACL SETUSER", USER, *command.split())  # type: ignore[no-untyped-call]
    assert not {each for each in findings(url).values() if each.status is Status.UNKNOWN}


@pytest.mark.parametrize("missing", NEEDED)
def test_every_command_that_is_needed_is_found_missing(server: Server, admin: redis.Redis, missing: str) -> None:
    found = findings(url_of(server, add_user(admin, *(right for right in NEEDED if right != missing))))
    named = re.compile(rf"may not send .*\b{missing[1:].upper()}\b")
    affected = [finding for finding in found.values() if named.search(finding.finding)]
    status = {"+publish": Status.WARNING, "+subscribe": Status.WARNING, "+scan": Status.UNKNOWN}
    assert affected[0].status is status.get(missing, Status.PROBLEM)
    assert all(missing in finding.advice.split() for finding in affected)


def test_advice_for_a_user_with_too_few_rights_works_as_it_is_written(server: Server, admin: redis.Redis) -> None:
    url = url_of(server, add_user(admin, "+scan"))
    advice = findings(url)["operations"].advice
    command = advice.partition(": ")[2].replace("<user>", USER)
    admin.execute_command(*command.split())  # type: ignore[no-untyped-call]
    found = findings(url)
    assert {found[name].status for name in ("operations", "script", "news", "keys")} == {Status.OK}


def test_server_that_others_enter_without_a_password_is_open_whatever_password_we_have(
    server: Server, admin: redis.Redis
) -> None:
    found = findings(url_of(server, add_user(admin, "+@all")))
    assert "no password is needed" in found["access"].finding
    admin.config_set("requirepass", "another")
    found = findings(url_of(server, f"{USER}:{PASSWORD}@"))
    assert found["access"].status is Status.OK


def test_wrong_password_and_none_are_told_apart(server: Server, admin: redis.Redis) -> None:
    admin.config_set("requirepass", "right")
    wrong = findings(url_of(server, f":{PASSWORD}@"))
    assert list(wrong) == ["connection"]
    assert "refuses" in wrong["connection"].finding
    none = findings(url_of(server))
    assert list(none) == ["connection"]
    assert "asks for a password" in none["connection"].finding


def test_server_that_is_not_there_is_a_problem() -> None:
    found = findings(f"redis://{USER}:{PASSWORD}@127.0.0.1:{free_port()}/0")
    assert list(found) == ["connection"]
    assert found["connection"].status is Status.PROBLEM


def test_database_that_is_not_there_is_a_problem(server: Server) -> None:
    found = findings(f"redis://127.0.0.1:{server.port}/99?socket_timeout=30")
    assert list(found) == ["connection"]
    assert "DB index" in found["connection"].finding
    assert "raise databases" in found["connection"].advice


def test_a_deployment_of_another_kind_than_the_url_says_is_recognized(server: Server) -> None:
    place = f"127.0.0.1:{server.port}"
    found = findings(f"redis+cluster://{place}")
    assert list(found) == ["connection"]
    assert "redis://" in found["connection"].advice
    found = findings(f"redis+sentinel://{place}/sessions")
    assert list(found) == ["connection"]
    assert "no Sentinel" in found["connection"].advice


def test_a_sentinel_is_not_taken_for_a_server(running_replica_set: ReplicaSet) -> None:
    found = findings(f"redis://127.0.0.1:{running_replica_set.sentinels[0].port}")
    assert list(found) == ["connection"]
    assert "redis+sentinel://" in found["connection"].advice


def test_sentinels_that_do_not_help_are_named_with_what_they_said(running_replica_set: ReplicaSet) -> None:
    there, gone = running_replica_set.sentinels[0].port, free_port()
    found = findings(f"redis+sentinel://127.0.0.1:{there},127.0.0.1:{gone}/no-such-service")["connection"]
    assert found.finding == f"No master found for 'no-such-service' : 127.0.0.1:{gone} - network:ConnectionError"
    assert "SENTINEL MASTERS" in found.advice


def test_user_who_may_not_choose_the_database_is_told_once_and_what_to_allow(
    server: Server, admin: redis.Redis
) -> None:
    found = findings(url_of(server, add_user(admin, *NEEDED)).replace("/0?", "/1?"))
    assert list(found) == ["connection"]
    assert "SELECT" in found["connection"].finding
    assert "+select" in found["connection"].advice


def test_replica_is_a_problem_and_its_primary_is_not(server: Server, admin: redis.Redis) -> None:
    with Server(server._binary, "--replicaof", "127.0.0.1", str(server.port)) as replica:
        found = findings(replica.url)
    assert found["replicas"].status is Status.PROBLEM
    assert "read-only replica" in found["operations"].finding


def test_keys_without_a_time_to_live_are_found_and_shown_harmlessly(server: Server, admin: redis.Redis) -> None:
    with admin.pipeline() as pipeline:
        for number in range(1500):
            pipeline.set(f"shop:{number}", "x", ex=1000)
            pipeline.set(f"other:{number}", "x")
        pipeline.execute()
    found = findings(server.url, prefix="shop:")["keys"]
    assert found.status is Status.OK
    assert "the 1,000 looked at" in found.finding
    admin.set(b"shop:\x1b[31m\xff\n", "x")
    found = findings(server.url, prefix="shop:", sample=10_000)["keys"]
    assert found.status is Status.PROBLEM
    assert "1 of all 1,501 under shop:" in found.finding
    assert found.advice.isprintable()


def test_sample_that_is_smaller_than_what_there_is_does_not_pass_for_all(server: Server, admin: redis.Redis) -> None:
    for number in range(3):
        admin.set(f"coatcheck:{number}", "x", ex=1000)
    assert "the 2 looked at" in findings(server.url, sample=2)["keys"].finding
    assert "all 3" in findings(server.url, sample=3)["keys"].finding


def test_rights_in_the_advice_are_for_the_prefix_as_it_stands() -> None:
    access = access_by(connecting("redis://host", {"prefix": "a*b:"}))
    _, advice = access.explain(redis.exceptions.NoPermissionError("No permissions"))
    assert r" &a\*b:* ~a\*b:* " in advice


def test_prefix_with_special_characters_stands_for_itself(server: Server, admin: redis.Redis) -> None:
    admin.set("axb:1", "x")
    found = findings(server.url, prefix="a*b:")
    assert found["keys"].status is Status.OK
    assert found["operations"].status is Status.OK


@pytest.fixture
def node() -> Iterator[Server]:
    """A cluster of one node, which is all of its primaries."""
    with Server(server_binaries()["valkey"], "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as node:
        with redis.Redis(port=node.port) as admin:
            admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            while admin.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                time.sleep(0.01)  # until the test's own time limit
        yield node


def findings_at(client: redis.Redis | RedisCluster) -> dict[str, Finding]:
    access = access_by(connecting("redis://host", {}))
    return {finding.check: finding for finding in examine_store(SyncRedisStore(client), lambda: client, access, 1000)}


def test_answers_that_the_client_can_not_read_count_as_not_to_be_seen(server: Server) -> None:
    with redis.Redis(port=server.port) as client:
        for command in ("INFO", "CONFIG GET", "SCAN", "TIME"):
            client.set_response_callback(command, lambda *_, **__: int("12abc"))  # as redis-py reads them, too
        found = findings_at(client)
    assert {found[name].status for name in ("version", "memory", "keys", "clock", "visibility")} == {Status.UNKNOWN}
    assert found["operations"].status is Status.OK


def test_one_node_of_a_cluster_is_a_problem_and_the_cluster_is_not(node: Server) -> None:
    assert findings(url_of(node))["cluster"].status is Status.PROBLEM
    with RedisCluster.from_url(url_of(node)) as client:
        found = findings_at(client)
    assert {found[name].status for name in ("cluster", "operations", "script", "news", "keys")} == {Status.OK}


def test_primary_of_a_cluster_that_is_down_does_not_hide_the_others(node: Server) -> None:
    gone = ClusterNode("127.0.0.1", free_port(), "primary", redis.Redis(port=free_port()))  # type: ignore[no-untyped-call]
    with RedisCluster.from_url(url_of(node)) as client:
        client.get_primaries = lambda: [gone, *client.get_nodes()]
        found = findings_at(client)
    assert found["connection"].status is Status.PROBLEM
    assert found["version"].status is Status.OK


def test_finding_on_several_servers_is_the_gravest_and_names_those_that_it_holds_for() -> None:
    servers = [_server(redis.Redis("127.0.0.1", port)) for port in (1, 2, 3)]

    def check(number: int) -> Finding:
        return Finding("memory", Status.WARNING if number else Status.OK, f"{number} MB")

    assert _over_all(servers, [0, 7, 9], check).finding == "127.0.0.1:2: 7 MB; 127.0.0.1:3: 9 MB"
    assert _over_all(servers, [7, 7, 7], check).finding == "7 MB"


def test_socket_is_for_those_whom_its_permissions_let_in(tmp_path: Path) -> None:
    with Server(server_binaries()["valkey"], "--unixsocket", f"{tmp_path}/valkey.sock"):
        found = findings(f"unix://{tmp_path}/valkey.sock?db=2")
    assert {found[name].status for name in ("operations", "access", "encryption")} == {Status.OK}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1", (Reach.HOST, False)),
        ("redis://[::1]:6380", (Reach.HOST, False)),
        ("redis://10.1.2.3", (Reach.PRIVATE, False)),
        ("redis://100.64.1.2", (Reach.PRIVATE, False)),
        ("redis://8.8.8.8", (Reach.PUBLIC, False)),
        ("rediss://8.8.8.8", (Reach.PUBLIC, True)),
    ],
)
def test_it_is_known_how_far_away_a_server_is_and_whether_with_tls(url: str, expected: tuple[Reach, bool]) -> None:
    server = _server(connecting(url, {}).sync_client())  # type: ignore[arg-type]
    assert (server.reach, server.is_encrypted) == expected


@pytest.mark.parametrize(
    ("query", "is_verified"), [("", True), ("?ssl_cert_reqs=none", False), ("?ssl_check_hostname=false", False)]
)
def test_certificate_that_is_not_checked_is_known(query: str, is_verified: bool) -> None:
    assert _server(connecting(f"rediss://8.8.8.8{query}", {}).sync_client()).is_verified is is_verified  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"redis://{USER}:{PASSWORD}@host:6379/3?password={PASSWORD}", "host:6379, database 3"),
        (f"unix://{USER}:{PASSWORD}@/run/valkey.sock?db=1", "/run/valkey.sock"),
        (f"redis+sentinel://:{PASSWORD}@a:1,b:2/main", "main by a:1, b:2"),
        ("redis+cluster://a,b:7000", "a:6379, b:7000"),
    ],
)
def test_place_is_shown_without_user_and_password(url: str, place: str) -> None:
    assert place_of(parse(url)) == place


@pytest.mark.parametrize("url", [f"redis://{USER}:1/{PASSWORD}@host", f"redis://{USER}:1#{PASSWORD}@host"])
def test_url_whose_password_ends_nobody_knows_where_is_refused_without_showing_it(url: str) -> None:
    assert urlsplit(url).hostname == USER  # which is what would be connected to, and shown
    with pytest.raises(ConfigurationError) as refused:
        examine(url)
    assert USER not in str(refused.value)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "error", "advice"),
    [
        (
            "rediss://h",
            redis.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer"),
            "tls_ca_file",
        ),
        (
            "rediss://h",
            redis.ConnectionError("CERTIFICATE_VERIFY_FAILED: Hostname mismatch"),
            "as its certificate does",
        ),
        (
            "rediss+sentinel://h/s",
            redis.ConnectionError("CERTIFICATE_VERIFY_FAILED: IP address mismatch"),
            "announce names",
        ),
        ("rediss://h", redis.ConnectionError("Error 8. EOF occurred in violation of protocol"), "tls_certificate_file"),
        ("redis://h", redis.ConnectionError("Connection refused"), "rediss://"),
        ("redis://h", redis.ConnectionError("Error -2: Name or service not known"), "DNS"),
        ("unix:///s", redis.ConnectionError("No such file or directory"), "unixsocket"),
        ("unix:///s", redis.AuthenticationError("NOAUTH"), "unix://user:password@/path"),
        ("redis://h", redis.AuthenticationError("NOAUTH"), "redis://user:password@host"),
        ("redis://:x@h", redis.AuthenticationError("WRONGPASS"), "ACL SAVE"),
        ("rediss://h", redis.TimeoutError("Timeout"), "without TLS"),
        ("redis://h", redis.TimeoutError("Timeout"), "firewalls"),
    ],
)
def test_advice_is_for_what_has_happened_and_for_how_the_store_is_reached(
    url: str, error: Exception, advice: str
) -> None:
    assert advice in access_by(connecting(url, {})).explain(error)[1]


def test_text_of_an_error_is_shown_without_user_and_password() -> None:
    access = access_by(connecting(f"redis://{USER}:{PASSWORD}%40@host?password={PASSWORD}2", {}))
    finding, _ = access.explain(redis.ResponseError(f"unknown command AUTH {USER} {PASSWORD}@ {PASSWORD}2 \x1b[31m"))
    assert finding == "unknown command AUTH *** *** *** \x1b[31m"


def test_user_and_password_are_in_no_repr() -> None:
    made = connecting(f"redis+sentinel://{USER}:{PASSWORD}@host/service?sentinel_password={PASSWORD}2", {})
    for each in (made, made.address, access_by(made)):
        assert USER not in repr(each)
        assert PASSWORD not in repr(each)


def test_what_sentinels_ask_for_is_a_secret_too() -> None:
    url = f"redis+sentinel://host/service?sentinel_username={USER}&sentinel_password={PASSWORD}"
    finding, _ = access_by(connecting(url, {})).explain(redis.ResponseError(f"AUTH {USER} {PASSWORD}"))
    assert finding == "AUTH *** ***"
