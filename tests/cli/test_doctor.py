"""`coatcheck doctor`, as it is typed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from command_line import run, without
from servers import Server, free_port, server_binaries

from coatcheck.stores.sqlite import SyncSQLiteStore

PASSWORD = "correct-horse-battery"
USER = "stapler"


@pytest.fixture
def server() -> Iterator[Server]:
    """A Valkey that evicts, with a user who may not look at it."""
    with Server(server_binaries()["valkey"], "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        with redis.Redis(port=server.port) as admin:
            admin.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all", "-info", "-config")
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sessions.sqlite3"
    SyncSQLiteStore(path).load("x")
    return path


def test_finding_is_shown_with_symbol_word_and_advice(server: Server) -> None:
    result = run("doctor", "--store", server.url)
    assert result.stdout.startswith(f"\nCoatcheck doctor: 127.0.0.1:{server.port}, database 0\n")
    problem = r"^✗ problem  eviction     allkeys-lru drops sessions when memory is full\n {26}Every"
    assert re.search(problem, result.stdout, re.MULTILINE)
    assert re.search(r"^✓ ok       version      Valkey \d", result.stdout, re.MULTILINE)
    assert re.search(r"^1 problem, \d warnings?, .*\d+ ok$", result.stdout, re.MULTILINE)
    assert result.stderr == ""


@pytest.mark.parametrize("is_json", [True, False])
def test_user_and_password_are_never_shown(server: Server, is_json: bool) -> None:
    options = ["--json"] if is_json else []
    for port in (server.port, free_port()):
        for name in (USER, "nobody-knows"):
            url = f"redis://{name}:{PASSWORD}@127.0.0.1:{port}/0"
            result = run("doctor", *options, environment={"COATCHECK_STORE": url})
            assert result.stdout
            assert name not in result.stdout + result.stderr
            assert PASSWORD not in result.stdout + result.stderr


def test_what_could_not_be_seen_counts_only_where_that_is_asked_for(server: Server) -> None:
    with redis.Redis(port=server.port) as admin:
        admin.config_set("appendonly", "yes")
    url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0"
    assert run("doctor", "--store", url).returncode == 0
    assert run("doctor", "--store", url, "--strict").returncode == 1
    assert run("doctor", "--store", server.url, "--strict").returncode == 2


def test_status_is_2_with_a_problem(server: Server) -> None:
    assert run("doctor", "--store", server.url).returncode == 2


def test_status_is_2_for_a_store_that_can_not_be_reached() -> None:
    result = run("doctor", "--store", f"redis://127.0.0.1:{free_port()}")
    assert result.returncode == 2
    assert "problem  connection" in result.stdout
    assert "Traceback" not in result.stderr


def test_status_is_1_with_a_warning(file: Path) -> None:
    file.chmod(0o644)
    assert run("doctor", "--store", f"sqlite:///{file}").returncode == 1
    assert run("doctor", "--store", "memory://").returncode == 1


def test_status_is_0_with_nothing_worse_than_a_note(tmp_path: Path) -> None:
    result = run("doctor", "--store", f"sqlite:///{tmp_path}/new.sqlite3")
    assert result.returncode == 0
    assert "note     file" in result.stdout


def test_json_has_all_that_is_shown(server: Server) -> None:
    result = run("doctor", "--store", server.url, "--json")
    found = json.loads(result.stdout)
    assert all(set(each) == {"check", "status", "finding", "advice"} for each in found)
    assert next(each for each in found if each["check"] == "eviction")["status"] == "problem"
    shown = " ".join(run("doctor", "--store", server.url).stdout.split())
    assert all(each["advice"] in shown for each in found)
    assert result.returncode == 2


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_none_ends_in_spaces(server: Server, columns: int) -> None:
    output = run("doctor", "--store", server.url, environment={"COLUMNS": str(columns)}).stdout
    assert all(len(line) <= columns and line == line.rstrip() for line in output.splitlines())
    assert "\x1b" not in output


def test_what_a_store_says_is_not_taken_for_markup(server: Server) -> None:
    name = "coatcheck:[red]x[/red][link=https://evil.test]y[/link]"
    with redis.Redis(port=server.port) as admin:
        admin.set(name, "x")
    result = run("doctor", "--store", server.url, environment={"FORCE_COLOR": "1", "COLUMNS": "500"})
    assert name in result.stdout
    assert "\x1b]8;" not in result.stdout


def test_output_needs_no_more_than_ascii(server: Server) -> None:
    result = run("doctor", "--store", server.url, environment={"PYTHONIOENCODING": "ascii"})
    assert "x problem  eviction" in result.stdout
    assert "Traceback" not in result.stderr


def test_advice_is_not_repeated(server: Server) -> None:
    with redis.Redis(port=server.port) as admin:
        admin.execute_command("ACL", "SETUSER", USER, "-@all")
    url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0"
    output = run("doctor", "--store", url).stdout
    assert "As above." in output


def test_store_has_to_be_named() -> None:
    result = run("doctor")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--store" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--store", "nonsense"], ["--store", "memory://", "--prefix", "x"], ["--store", "redis://h", "--prefix", ""]],
)
def test_what_can_not_work_is_refused_on_stderr(arguments: list[str]) -> None:
    result = run("doctor", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")


def test_without_the_redis_client_the_extra_is_named_and_other_stores_work(file: Path) -> None:
    result = run("doctor", "--store", "redis://localhost", before=without("redis"))
    assert result.returncode == 2
    assert "pip install 'coatcheck[redis]'" in result.stderr
    assert "ok       operations" in run("doctor", "--store", f"sqlite:///{file}", before=without("redis")).stdout
