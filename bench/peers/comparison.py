"""Measures stack after stack, in rounds, and makes one result of each stack and scenario."""

from __future__ import annotations

import http.client
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import redis

from bench.peers import measure
from bench.peers.load import CONNECTIONS, LoadFailed, put_load
from bench.peers.processes import DidNotStart, free_port, pinned, running, url_of
from bench.peers.stacks import SCENARIOS, Stack
from bench.peers.visitor import WrongAnswer, check, logged_in

SECRET_KEY: Final = secrets.token_urlsafe(32)
SLICE_S: Final = 1.0
Result: TypeAlias = dict[str, Any]
Say: TypeAlias = Callable[[str], None]


class StackFailed(Exception):
    """A stack did not start, or did not do what is measured; the message says which and why."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    """Of load on each scenario in each round."""
    warm_up_s: float
    """Of load before that, which does not count."""
    sessions: int
    """How many are logged in; the load uses all of them in turn."""

    @property
    def slices(self) -> int:
        """In how many parts the load on a scenario is measured, those of the scenarios in turn.

        A shared machine is faster and slower by the second. What a scenario takes more than another one is told only by
        two that were measured one right after the other.
        """
        return max(1, round(self.seconds / SLICE_S))


@dataclass(frozen=True)
class Sample:
    """What one measurement gave; CPU, commands and bytes per request."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    redis_cpu_us: float
    commands: dict[str, float]
    setup_commands: int
    """How many connecting took while this was measured, in all."""


@dataclass
class Samples:
    """All that was measured of one stack."""

    by_scenario: dict[str, list[Sample]] = field(default_factory=dict)
    session_bytes: list[float] = field(default_factory=list)
    list_bytes: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Redis:
    """The one server that all stacks use."""

    client: redis.Redis
    process: int


def compare(
    stacks: Sequence[tuple[Stack, list[str]]], server: Redis, plan: Plan, folder: Path, say: Say
) -> list[Result]:
    """Measure each stack once in every round, so that what disturbs the machine for a while disturbs all of them.

    Raises:
        StackFailed: one can't be measured. Then there are no results at all.
    """
    samples = {stack.name: Samples() for stack, _ in stacks}
    for number in range(1, plan.rounds + 1):
        for stack, command in stacks:
            say(f"round {number} of {plan.rounds}: {stack.title}")
            try:
                by_scenario, (session_bytes, list_bytes) = measure_stack(stack, command, server, plan, folder)
            except (DidNotStart, LoadFailed, WrongAnswer) as error:
                msg = f"{stack.name}: {error}"
                raise StackFailed(msg) from error
            samples[stack.name].session_bytes.append(session_bytes)
            samples[stack.name].list_bytes.append(list_bytes)
            for scenario, slices in by_scenario.items():
                samples[stack.name].by_scenario.setdefault(scenario, []).extend(slices)
    return [
        result(stack, scenario, samples[stack.name])
        for scenario in SCENARIOS
        for stack, _ in stacks
        if scenario in stack.scenarios
    ]


@dataclass(frozen=True)
class Running:
    """A stack at work."""

    port: int
    process: int


@contextmanager
def started(command: Sequence[str], server: Redis) -> Iterator[Running]:
    """Run a stack's command while the block runs. Raises DidNotStart."""
    port = free_port()
    with running(
        pinned([part.replace("{port}", str(port)) for part in command], measured=True),
        lambda: answers(port),
        PORT=str(port),
        REDIS_URL=url_of(server.client),
        SECRET_KEY=SECRET_KEY,
        GOMAXPROCS="1",
        NODE_ENV="production",
    ) as process:
        yield Running(port, process)


def measure_stack(
    stack: Stack, command: Sequence[str], server: Redis, plan: Plan, folder: Path
) -> tuple[dict[str, list[Sample]], tuple[float, float]]:
    """Start a stack on an empty Redis, check its answers, log everybody in, and measure every scenario.

    Gives the samples by scenario, one for each slice, and the bytes in Redis per session: its own, and of the list that
    it is in.
    """
    server.client.flushall()
    with started(command, server) as app:
        check(stack, app.port)
        server.client.flushall()
        everybody, nobody = folder / "cookies", folder / "no-cookies"
        cookies = logged_in(app.port, plan.sessions) if stack.has_sessions else []
        everybody.write_text("".join(f"{cookie}\n" for cookie in cookies))
        nobody.write_text("")
        session_bytes, list_bytes = (size / plan.sessions for size in measure.stored_bytes(server.client))
        files = {scenario: nobody if scenario == "none" else everybody for scenario in stack.scenarios}
        for name, file in files.items():
            put_load(app.port, f"/{name}", file, plan.warm_up_s)
        by_scenario: dict[str, list[Sample]] = {name: [] for name in files}
        for _ in range(plan.slices):
            for name, file in files.items():
                by_scenario[name].append(measure_load(app, name, file, plan.seconds / plan.slices, server))
        return by_scenario, (session_bytes, list_bytes)


def measure_load(app: Running, scenario: str, cookies: Path, seconds: float, server: Redis) -> Sample:
    """Put load on a stack, and see what that took."""
    measure.wait_until_idle(app.process)
    calls_before = measure.calls(server.client)
    redis_before = measure.cpu_us(server.process)
    cpu_before = measure.cpu_us(app.process)
    load = put_load(app.port, f"/{scenario}", cookies, seconds)
    measure.wait_until_idle(app.process)
    # When wrk stops, each connection waits for an answer that it does not count; the server gives it all the same.
    requests = load.requests + CONNECTIONS
    cpu = measure.cpu_us(app.process) - cpu_before
    redis_cpu = measure.cpu_us(server.process) - redis_before
    calls = measure.calls(server.client)
    calls.subtract(calls_before)
    return Sample(
        requests_per_second=load.requests_per_second,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        cpu_us=cpu / requests,
        redis_cpu_us=redis_cpu / requests,
        commands={name: count / requests for name, count in calls.items() if count and not measure.is_setup(name)},
        setup_commands=sum(count for name, count in calls.items() if measure.is_setup(name)),
    )


def result(stack: Stack, scenario: str, samples: Samples) -> Result:
    """Make one result of all slices of all rounds: the median of each figure."""
    slices = samples.by_scenario[scenario]
    # Of one process, and of the same seconds: what differs from start to start, and by the hour, is not added.
    added = [here.cpu_us - none.cpu_us for here, none in zip(slices, samples.by_scenario["none"], strict=True)]
    commands: dict[str, list[float]] = {}
    for sample in slices:
        for name, count in sample.commands.items():
            commands.setdefault(name, []).append(count)
    return {
        "stack": stack.name,
        "title": stack.title,
        "server": stack.server,
        "scenario": scenario,
        "requests_per_second": round(median(sample.requests_per_second for sample in slices)),
        "p50_ms": round(median(sample.p50_ms for sample in slices), 2),
        "p99_ms": round(median(sample.p99_ms for sample in slices), 2),
        "cpu_us": round(median(sample.cpu_us for sample in slices), 1),
        "added_cpu_us": round(median(added), 1),
        "redis_commands": round(median(sum(sample.commands.values()) for sample in slices), 2),
        "redis_commands_by_name": {
            name: round(median(counts), 3) for name, counts in sorted(commands.items()) if median(counts) >= 0.005
        },
        "redis_setup_commands": round(median(sample.setup_commands for sample in slices)),
        "redis_cpu_us": round(median(sample.redis_cpu_us for sample in slices), 1),
        "redis_bytes_per_session": round(median(samples.session_bytes)),
        "redis_bytes_of_lists": round(median(samples.list_bytes)),
    }


def answers(port: int) -> bool:
    """Tell whether the application answers at all."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/none")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
