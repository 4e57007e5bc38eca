"""Gathering the commands that wait in one event loop for one server, so that they travel together.

A command waits until the loop has run all that is ready in this turn, and then leaves with all that wait by then. At
most a few batches are under way at a time: under load those that wait become more, and not slower (the idea of
DataLoader). Whoever stops waiting takes nothing from the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Final, TypeAlias, TypeVar

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis.commands import Command

T = TypeVar("T")

MAX_UNDER_WAY: Final = 2
"""Batches at a time. More would be smaller, and cost more each; fewer would let the network's delay add up."""

MAX_BATCH: Final = 256
"""Commands in one batch: what a server answers in one go, and how much a failure can concern. Fewer while the
connection is too slow for so many."""

MIN_BATCH: Final = 16
"""Commands that a batch may have in any case."""

LARGE_BYTES: Final = 262_144
"""Of a batch that took long: with fewer, the connection's speed was not the reason. (That would be 4 Mbit/s.)"""

Send: TypeAlias = Callable[[list[Command[Any]]], Awaitable[list[Any]]]
"""Sends commands, and gives each one's result or the error for it. Raises what concerns all of them."""


class Gatherer:
    """Gathers for one server, in the running event loop.

    Args:
        send: sends a batch.
        patience_s: how long a command may wait to be sent, in seconds.
    """

    def __init__(self, send: Send, patience_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._send = send
        self._patience_s = patience_s
        self._waiting: deque[tuple[Command[Any], asyncio.Future[Any], float]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._limit = MAX_BATCH
        # Of its own, because a batch belongs to no request more than to another: not in one's traces, nor may its
        # connections keep one's context alive.
        self._context = Context()

    def ask(self, command: Command[T]) -> asyncio.Future[T]:
        """Send a command with the next batch; give what its result will be in."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((command, answer, self._loop.time()))
        if not self._is_due:
            self._call_soon()
        return answer

    def _call_soon(self) -> None:
        """Have a batch depart in the loop's next turn, or with the next one that arrives."""
        if len(self._under_way) < MAX_UNDER_WAY:
            self._is_due = True
            self._loop.call_soon(self._depart, context=self._context)

    def _depart(self) -> None:
        """Let those go that wait."""
        self._is_due = False
        oldest = self._loop.time() - self._patience_s
        commands: list[Command[Any]] = []
        answers: list[asyncio.Future[Any]] = []
        while self._waiting and len(commands) < self._limit:
            command, answer, since = self._waiting.popleft()
            if answer.done():  # whoever asked has been cancelled
                continue
            if since < oldest:
                answer.set_exception(StoreUnavailable("Redis is too slow: a command could not be sent in time"))
                continue
            commands.append(command)
            answers.append(answer)
        if commands:
            task = self._loop.create_task(self._travel(commands, answers))
            self._under_way.add(task)
            task.add_done_callback(self._arrived, context=self._context)
        if self._waiting:
            self._call_soon()

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if self._waiting and not self._is_due:
            self._call_soon()

    async def _travel(self, commands: list[Command[Any]], answers: list[asyncio.Future[Any]]) -> None:
        """Send a batch and give out its results. Whatever happens, nobody is left waiting."""
        left_at = self._loop.time()
        try:
            results = await self._send(commands)
        except asyncio.CancelledError:
            for answer in answers:
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 (it is raised where somebody waits for it)
            results = [error] * len(answers)
        self._learn(commands, results, self._loop.time() - left_at)
        for answer, result in zip(answers, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    def _learn(self, commands: list[Command[Any]], results: list[Any], took_s: float) -> None:
        """Have the next batches be smaller where one has too many bytes for the connection, and larger again elsewhere.

        What a connection can't carry in the time that a command has would fail as a whole, and be asked for again. But
        a server that is far away, or busy, takes as long for few commands as for many.
        """
        is_slow = took_s > self._patience_s / 2
        if is_slow and (_has_failed(results) or _bytes_of(commands, results) > LARGE_BYTES):
            self._limit = max(MIN_BATCH, len(commands) // 2)
        elif len(commands) >= self._limit:
            self._limit = min(MAX_BATCH, 2 * self._limit)


def _has_failed(results: list[Any]) -> bool:
    return any(isinstance(result, Exception) for result in results)


def _bytes_of(commands: list[Command[Any]], results: list[Any]) -> int:
    """Give about how many bytes went to and fro."""
    there = sum(len(each) for command in commands for each in command.arguments if isinstance(each, bytes))
    back = [part for result in results for part in (result if isinstance(result, list) else [result])]
    return there + sum(len(part) for part in back if isinstance(part, bytes))
