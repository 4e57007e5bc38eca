"""The comparison with peers counts what it says it counts, and ends what it starts."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.etree import ElementTree as ET

import pytest
import redis
from servers import Server, server_binaries

from bench.peers import measure
from bench.peers.chart import FIGURES, PANEL, chart
from bench.peers.comparison import Result, Sample, Samples, result
from bench.peers.interpreter import WITHOUT, build, build_of
from bench.peers.load import LoadFailed, parse
from bench.peers.processes import running
from bench.peers.report import page
from bench.peers.stacks import STACKS, Stack
from bench.peers.visitor import Visitor, WrongAnswer, check

DEADLINE_S = 30.0
BURN_AND_WAIT = "import sys\nn = 0\nwhile n < 3_000_000: n += 1\nsys.stdin.read()"


def eventually(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stack_named(name: str) -> Stack:
    return next(stack for stack in STACKS if stack.name == name)


def sample(cpu_us: float) -> Sample:
    return Sample(1000.0, 1.0, 2.0, cpu_us, 5.0, {"get": 1.0}, 0)


class Application(BaseHTTPRequestHandler):
    """Remembers nobody's visits, and ends a session by an expired cookie."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.send_response(200 if path in {"/none", "/login", "/visit", "/logout"} or self.headers["Cookie"] else 401)
        if path == "/login":
            self.send_header("Set-Cookie", "session=abc; Max-Age=60")
        if path == "/logout":
            self.send_header("Set-Cookie", "session=; expires=Thu, 01 Jan 1970 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(json.dumps({"visits": 1} if path == "/visit" else {"ok": True}).encode())

    do_GET = do_POST = _answer  # noqa: N815 (the library's names)

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 (the library's name)


@contextmanager
def application() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_stack_that_loses_a_visit_is_an_error_and_no_figure() -> None:
    with application() as port, pytest.raises(WrongAnswer, match="visits"):
        check(stack_named("starsessions"), port)


def test_visitor_drops_an_expired_cookie_as_browsers_do() -> None:
    with application() as port:
        visitor = Visitor(port)
        visitor.log_in("alice")
        assert visitor.cookie == "session=abc"
        visitor.ask("POST", "/logout")
        assert visitor.cookie == ""
        visitor.close()


@pytest.mark.parametrize(("requests", "failed"), [(100, 1), (0, 0)])
def test_load_with_errors_or_without_answers_is_refused(requests: int, failed: int) -> None:
    figures = {"requests": requests, "duration_us": 1_000_000, "p50_us": 1, "p99_us": 1, "failed": failed}
    with pytest.raises(LoadFailed):
        parse(f"Running 1s test\n{json.dumps(figures)}\n")


def test_load_gives_rate_and_milliseconds() -> None:
    load = parse('{"requests": 500, "duration_us": 2000000, "p50_us": 1500, "p99_us": 9000, "failed": 0}\n')
    assert (load.requests_per_second, load.p50_ms, load.p99_ms) == (250.0, 1.5, 9.0)


def test_added_cpu_compares_the_measurements_of_one_process() -> None:
    # Two of the three processes add 10 us each. The difference of the medians would be 30.
    rounds = Samples({"profile": [sample(60), sample(110), sample(40)], "none": [sample(20), sample(100), sample(30)]})
    rounds.session_bytes += [100, 300, 200]
    rounds.list_bytes += [10, 30, 20]
    made = result(stack_named("starsessions"), "profile", rounds)
    assert (made["cpu_us"], made["added_cpu_us"], made["redis_bytes_per_session"]) == (60, 10, 200)
    assert made["redis_bytes_of_lists"] == 20


def test_cpu_time_of_a_servers_children_is_counted() -> None:
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN_AND_WAIT!r}])"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", parent], stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            # The parent alone never takes as long as the loop of its child.
            eventually(lambda: measure.cpu_us(process.pid) > 100_000)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def test_server_and_its_children_are_ended_when_the_benchmark_fails() -> None:
    def fail() -> None:
        with running(["sh", "-c", "(trap '' TERM; exec sleep 1000) & wait"], lambda: True) as session_id:
            eventually(lambda: len(measure._processes(session_id)) == 2)
            sessions.append(session_id)
            raise KeyboardInterrupt

    sessions: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    eventually(lambda: not measure._processes(sessions[0]))


def test_commands_are_counted_inside_scripts_and_pings_too_but_not_our_own() -> None:
    with Server(server_binaries()["valkey"]) as server, redis.Redis(port=server.port) as client:
        client.ping()
        before = measure.calls(client)
        client.ping()
        client.eval("redis.call('SET', KEYS[1], 'x') return redis.call('GET', KEYS[1])", 1, "key")
        assert dict(measure.calls(client) - before) == {"ping": 1, "eval": 1, "set": 1, "get": 1}


def test_connecting_is_told_from_requests() -> None:
    assert {name for name in ("hello", "client|setinfo", "ping", "get") if measure.is_setup(name)} == {
        "hello",
        "client|setinfo",
    }


def test_stored_bytes_cover_all_keys_and_tell_lists_of_sessions_apart() -> None:
    with Server(server_binaries()["valkey"]) as server, redis.Redis(port=server.port) as client:
        client.set("one", "x" * 1000)
        client.hset("two", "field", "y" * 1000)
        client.set("shop:user-1", "z" * 500)
        sessions, lists = measure.stored_bytes(client)
    assert 2000 < sessions < 3000
    assert 500 < lists < 1000


def test_chart_is_sound_and_shows_every_stack() -> None:
    results: list[Result] = [
        {
            "stack": name, "title": title, "server": "uvicorn", "scenario": "profile",
            "cpu_us": 60.0, "added_cpu_us": added, "requests_per_second": 1234,
        }
        for name, title, added in (("coatcheck-starlette", "Ours & <others>", 12.0), ("floor", "Floor", -3.0))
    ]  # fmt: skip
    results += [each | {"scenario": "visit"} for each in results[:1]]
    drawing = ET.fromstring(chart(results))
    words = " ".join("".join(element.itertext()) for element in drawing.iter() if element.tag.endswith("text"))
    assert "Ours & <others>" in words
    assert "Floor" in words
    assert "1,234/s" in words
    bars = [element for element in drawing.iter() if element.attrib.get("class") in {"anyway", "added ours"}]
    assert all(0 < float(bar.attrib["width"]) <= PANEL - FIGURES for bar in bars)


def test_chart_of_a_stack_without_visits_is_drawn() -> None:
    floor = {"stack": "floor", "title": "Floor", "server": "uvicorn", "scenario": "profile"}
    assert "Floor" in chart([floor | {"cpu_us": 60.0, "added_cpu_us": 0.0, "requests_per_second": 1}])


# --- what it was run on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configuration", "base_prefix", "system", "expected"),
    [
        ("'--prefix=/opt/python'", "/opt/python", "Debian 12", WITHOUT),
        ("'--enable-optimizations' '--with-lto'", "/usr/local", "Debian 12", "built with optimizations"),
        ("'--enable-shared' '--prefix=/usr'", "/usr", "Debian 12", "the package of Debian 12"),
        ("'--prefix=/usr'", "/usr", None, WITHOUT),
    ],
)
def test_an_interpreter_that_was_built_without_optimizations_is_told_from_those_that_people_deploy(
    configuration: str, base_prefix: str, system: str | None, expected: str
) -> None:
    assert build_of(configuration, base_prefix, system) == expected


def test_the_page_says_which_interpreter_it_was() -> None:
    environment = {
        "plan": {"rounds": 1, "seconds": 1, "connections": 64, "sessions": 2},
        "machine": {
            "processor": "a processor", "cores": 2, "load_before": 0.0, "application_has_a_core_of_its_own": True,
            "python": build(),
        },
        "versions": {"python": "3.11.2"},
        "skipped": {},
    }  # fmt: skip
    assert f"CPython 3.11.2, {build()}." in page([], environment)
