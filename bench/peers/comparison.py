"""Measures stack after stack, in rounds, and makes one result of each stack and scenario."""

from __future__ import annotations

import http.client
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import redis

from bench.peers import measure
from bench.peers.load import CONNECTIONS, LoadFailed, put_load
from bench.peers.processes import DidNotStart, free_port, pinned, running, url_of
from bench.peers.stacks import Stack
from bench.peers.visitor import WrongAnswer, check, logged_in

SECRET_KEY: Final = secrets.token_urlsafe(32)
SETTLE_S: Final = 0.2
"""For the answers that are still under way when the load ends."""

Result: TypeAlias = dict[str, Any]
Say: TypeAlias = Callable[[str], None]


class StackFailed(Exception):
    """A stack did not start, or did not do what is measured; the message says which and why."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    """Of each measurement."""
    warm_up_s: float
    sessions: int
    """How many are logged in; the load uses all of them in turn."""


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
                measure_stack(stack, command, server, plan, folder, samples[stack.name])
            except (DidNotStart, LoadFailed, WrongAnswer) as error:
                msg = f"{stack.name}: {error}"
                raise StackFailed(msg) from error
    return [
        result(stack, scenario, samples[stack.name])
        for scenario in ("profile", "visit", "none")
        for stack, _ in stacks
        if scenario in stack.scenarios
    ]


def measure_stack(  # noqa: PLR0913, PLR0917 (all that one measurement is made of)
    stack: Stack, command: list[str], server: Redis, plan: Plan, folder: Path, samples: Samples
) -> None:
    """Start a stack on an empty Redis, check its answers, log everybody in, and measure every scenario."""
    port = free_port()
    server.client.flushall()
    with running(
        pinned([part.replace("{port}", str(port)) for part in command], measured=True),
        lambda: answers(port),
        PORT=str(port),
        REDIS_URL=url_of(server.client),
        SECRET_KEY=SECRET_KEY,
        GOMAXPROCS="1",
        NODE_ENV="production",
    ) as process:
        check(stack, port)
        server.client.flushall()
        everybody, nobody = folder / "cookies", folder / "no-cookies"
        cookies = logged_in(port, plan.sessions) if stack.has_sessions else []
        everybody.write_text("".join(f"{cookie}\n" for cookie in cookies))
        nobody.write_text("")
        samples.session_bytes.append(measure.stored_bytes(server.client) / plan.sessions)
        for scenario in stack.scenarios:
            file = nobody if scenario == "none" else everybody
            put_load(port, f"/{scenario}", file, plan.warm_up_s)
            sample = measure_load(port, scenario, file, plan.seconds, process, server)
            samples.by_scenario.setdefault(scenario, []).append(sample)


def measure_load(  # noqa: PLR0913, PLR0917 (all that one measurement is made of)
    port: int, scenario: str, cookies: Path, seconds: float, process: int, server: Redis
) -> Sample:
    """Put load on a stack, and see what it took."""
    calls_before = measure.calls(server.client)
    redis_before = measure.cpu_us(server.process)
    cpu_before = measure.cpu_us(process)
    load = put_load(port, f"/{scenario}", cookies, seconds)
    time.sleep(SETTLE_S)
    # When wrk stops, each connection waits for an answer that it does not count; the server gives it all the same.
    requests = load.requests + CONNECTIONS
    cpu = measure.cpu_us(process) - cpu_before
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
    """Make one result of all rounds: the median of each figure."""
    rounds = samples.by_scenario[scenario]
    # Of one round, so of one process: what differs from start to start does not count as added.
    added = [here.cpu_us - none.cpu_us for here, none in zip(rounds, samples.by_scenario["none"], strict=True)]
    commands: dict[str, list[float]] = {}
    for sample in rounds:
        for name, count in sample.commands.items():
            commands.setdefault(name, []).append(count)
    return {
        "stack": stack.name,
        "title": stack.title,
        "server": stack.server,
        "scenario": scenario,
        "requests_per_second": round(median(sample.requests_per_second for sample in rounds)),
        "p50_ms": round(median(sample.p50_ms for sample in rounds), 2),
        "p99_ms": round(median(sample.p99_ms for sample in rounds), 2),
        "cpu_us": round(median(sample.cpu_us for sample in rounds), 1),
        "added_cpu_us": round(median(added), 1),
        "redis_commands": round(median(sum(sample.commands.values()) for sample in rounds), 2),
        "redis_commands_by_name": {
            name: round(median(counts), 3) for name, counts in sorted(commands.items()) if median(counts) >= 0.005
        },
        "redis_setup_commands": round(median(sample.setup_commands for sample in rounds)),
        "redis_cpu_us": round(median(sample.redis_cpu_us for sample in rounds), 1),
        "redis_bytes_per_session": round(median(samples.session_bytes)),
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
