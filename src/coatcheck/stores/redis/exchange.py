"""Commands that travel to one server together, and the rules of trying again. No I/O.

`deliver` is a generator, like the rules of a session: it yields what is to be sent, or how long to wait, and is sent
what came of it. The stores run it, with and without `await`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from copy import copy
from typing import Any, Final, Self, TypeAlias, cast

from hiredis import pack_command

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis.commands import Argument, Command, MixedUpAnswers, records
from coatcheck.stores.redis.failures import (
    Lost,
    NotSent,
    errors_among,
    explained,
    is_of_place,
    is_redirection,
    is_worth_another_try,
    names_of,
    pauses,
)

_packed: Final[Callable[[tuple[Argument, ...]], bytes]] = cast("Any", pack_command)
"""hiredis's stub is for commands of one word."""

Reply: TypeAlias = Any
"""What the server answered to one command; an exception if that was an error."""


class Exchange:
    """Commands that are sent to one server in one go, and how its answers are given out.

    Args:
        commands: the commands.
        merges: whether all loads are one MGET. In a Cluster, a command can't name keys of several slots.
        attempt: 0 for the first.
        redirected: the keys that another node of the Cluster was said to have.
        may_have_moved: whether what failed before may be because other nodes have the keys by now.
    """

    __slots__ = ("_merges", "_names", "attempt", "commands", "has_failed", "may_have_moved", "redirected", "sent")

    def __init__(
        self,
        commands: Sequence[Command[Any]],
        *,
        merges: bool,
        attempt: int = 0,
        redirected: Collection[str] = (),
        may_have_moved: bool = False,
    ) -> None:
        self.commands = commands
        self.attempt = attempt
        self.redirected = redirected
        self.may_have_moved = may_have_moved
        self.has_failed = False
        """Whether one of the answers was an error."""
        self._merges = merges
        names: list[str] = []
        rest: list[tuple[Argument, ...]] = []
        for command in commands:
            if command.names:
                names += command.names
            else:
                rest.append(command.arguments)
        self._names = list(dict.fromkeys(names))
        """The keys of all loads, each once."""
        self.sent: list[tuple[Argument, ...]] = [*_loads(self._names, merges=merges), *rest]
        """What is sent, in this order. There is one answer to each."""

    def places(self, condition: Callable[[str], bool]) -> list[int]:
        """Give the places of what is sent about keys that meet a condition. Without merging."""
        keys = [*self._names, *(command.name for command in self.commands if not command.names)]
        return [place for place, key in enumerate(keys) if condition(key)]

    def without(self, places: Collection[int]) -> Self:
        """Give what is sent at the other places, to be sent by itself."""
        rest = copy(self)
        rest.sent = [each for place, each in enumerate(self.sent) if place not in places]
        return rest

    def packed(self) -> bytes:
        """Give what is sent, as it goes over the wire."""
        return b"".join(map(_packed, self.sent))

    def results(self, replies: list[Reply]) -> list[Any]:
        """Give each command's result, or the exception for it.

        Raises MixedUpAnswers when one of the answers can't be its command's: then none can be trusted.
        """
        found, rest = self._found(replies)
        self.has_failed = bool(errors_among(replies))
        records([each for each in found if not _is_error(each)] if self.has_failed else found)
        answer_of = dict(zip(self._names, found, strict=True)).__getitem__
        given = iter(rest)
        results: list[Any] = []
        for command in self.commands:
            if command.names:
                loaded = list(map(answer_of, command.names))
                failed = next(filter(_is_error, loaded), None) if self.has_failed else None
                results.append(loaded if failed is None else failed)
            else:
                reply = next(given)
                results.append(reply if self.has_failed and _is_error(reply) else command.read(reply))
        return results

    def _found(self, replies: list[Reply]) -> tuple[list[Reply], list[Reply]]:
        """Tell the answers for the keys of loads from the others."""
        count = len(self._names)
        if not self._merges:
            return replies[:count], replies[count:]
        if not count:
            return [], replies
        first, *rest = replies
        if _is_error(first):
            return [first] * count, rest
        if not isinstance(first, list) or len(first) != count:
            raise MixedUpAnswers
        return first, rest


def _loads(names: list[str], *, merges: bool) -> list[tuple[Argument, ...]]:
    if not merges:
        return [("GET", name) for name in names]
    return [("MGET", *names)] if names else []


def _is_error(reply: Reply) -> bool:
    return isinstance(reply, Exception)


_TRY_AGAIN_WITHIN_S: Final = 1.0
"""What took longer to fail may do so again, and nobody should wait for it twice."""

Outcome: TypeAlias = list[Reply] | NotSent | Lost | None
Delivery: TypeAlias = Generator[Exchange | float, Outcome, list[Any]]


def deliver(commands: Sequence[Command[Any]], *, merges: bool, clock: Callable[[], float]) -> Delivery:
    """Send commands to one server, and those again that may be. `clock` gives seconds.

    Yields an `Exchange`, to be sent its replies or why there are none, or the seconds to wait before the next one.
    Gives each command's result, or a `StoreUnavailable`. Raises MixedUpAnswers.
    """
    last_moment = clock() + _TRY_AGAIN_WITHIN_S
    exchange = Exchange(commands, merges=merges)
    results = _came_of(exchange, (yield exchange))
    if not exchange.has_failed:
        return results  # as nearly always
    pending = dict(enumerate(commands))
    redirected: set[str] = set()
    for attempt, pause_s in enumerate(pauses(), start=1):
        pending = {
            place: command.spelled_out() if "NoScriptError" in names_of(results[place]) else command
            for place, command in pending.items()
            if _is_error(results[place]) and is_worth_another_try(command, results[place])
        }
        if not pending:
            break
        yield pause_s
        redirected |= {command.name for place, command in pending.items() if is_redirection(results[place])}
        exchange = Exchange(
            list(pending.values()),
            merges=merges,
            attempt=attempt,
            redirected=redirected,
            may_have_moved=any(is_of_place(results[place]) for place in pending),
        )
        outcome = _too_late() if clock() > last_moment else (yield exchange)
        for place, result in zip(pending, _came_of(exchange, outcome), strict=True):
            results[place] = result
    return [_final(result) for result in results]


def _too_late() -> NotSent:
    return NotSent.because(TimeoutError("no time is left to try again"))


def _came_of(exchange: Exchange, outcome: Outcome) -> list[Any]:
    """Give each command's result, or the error for it."""
    if isinstance(outcome, list):
        return exchange.results(outcome)
    exchange.has_failed = True
    return [outcome] * len(exchange.commands)


def _final(result: Any) -> Any:
    return explained(result) if _is_error(result) and not isinstance(result, StoreUnavailable) else result
