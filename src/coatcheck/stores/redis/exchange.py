"""Commands that travel to one server together, and the rules of trying again. No I/O.

`deliver` is a generator, like the rules of a session: it yields what is to be sent, or how long to wait, and is sent
what came of it. The stores run it, with and without `await`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias, cast

from hiredis import pack_command

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis.commands import Argument, Command, MixedUpAnswers
from coatcheck.stores.redis.failures import Lost, NotSent, explained, is_worth_another_try, names_of, pauses

Reply: TypeAlias = Any
"""What the server answered to one command; an exception if that was an error."""


class Exchange:
    """Commands that are sent to one server in one go, and how its answers are given out.

    Args:
        commands: the commands.
        merges: whether all loads are one MGET. In a Cluster, a command can't name keys of several slots.
        attempt: 0 for the first.
    """

    __slots__ = ("_merges", "_places", "attempt", "commands", "has_failed", "sent")

    def __init__(self, commands: Sequence[Command[Any]], *, merges: bool, attempt: int = 0) -> None:
        self.commands = commands
        self.attempt = attempt
        self.has_failed = False
        """Whether one of the answers was an error."""
        self._merges = merges
        self._places: dict[str, int] = {}
        """Where the answer for a key is, among those of all loads."""
        places = self._places
        rest: list[tuple[Argument, ...]] = []
        for command in commands:
            if command.names:
                for name in command.names:
                    if name not in places:
                        places[name] = len(places)
            else:
                rest.append(command.arguments)
        self.sent: list[tuple[Argument, ...]] = [*_loads(list(places), merges=merges), *rest]
        """What is sent, in this order. There is one answer to each."""

    def packed(self) -> bytes:
        """Give what is sent, as it goes over the wire."""
        # hiredis's stub is for commands of one word.
        return b"".join([pack_command(cast("Any", arguments)) for arguments in self.sent])

    def results(self, replies: list[Reply]) -> list[Any]:
        """Give each command's result, or the exception for it.

        Raises MixedUpAnswers when one of the answers can't be its command's: then none can be trusted.
        """
        found, rest = self._found(replies)
        given = iter(rest)
        places = self._places
        self.has_failed = any(isinstance(each, Exception) for each in replies)
        results = []
        for command in self.commands:
            reply: Reply = [found[places[name]] for name in command.names] if command.names else next(given)
            if self.has_failed:
                failed = [each for each in (reply if command.names else [reply]) if isinstance(each, Exception)]
                if failed:
                    results.append(failed[0])
                    continue
            results.append(command.read(reply))
        return results

    def _found(self, replies: list[Reply]) -> tuple[list[Reply], list[Reply]]:
        """Tell the answers for the keys of loads from the others."""
        count = len(self._places)
        if not self._merges:
            return replies[:count], replies[count:]
        if not count:
            return [], replies
        first, *rest = replies
        if isinstance(first, Exception):
            return [first] * count, rest
        if not isinstance(first, list) or len(first) != count:
            raise MixedUpAnswers
        return first, rest


def _loads(names: list[str], *, merges: bool) -> list[tuple[Argument, ...]]:
    if not merges:
        return [("GET", name) for name in names]
    return [("MGET", *names)] if names else []


Outcome: TypeAlias = list[Reply] | NotSent | Lost | None
Delivery: TypeAlias = Generator[Exchange | float, Outcome, list[Any]]


def deliver(commands: Sequence[Command[Any]], *, merges: bool) -> Delivery:
    """Send commands to one server, and those again that may be.

    Yields an `Exchange`, to be sent its replies or why there are none, or the seconds to wait before the next one.
    Gives each command's result, or a `StoreUnavailable`. Raises MixedUpAnswers.
    """
    results: list[Any] = [None] * len(commands)
    pending = dict(enumerate(commands))
    for attempt, pause_s in enumerate((*pauses(), None)):
        exchange = Exchange(list(pending.values()), merges=merges, attempt=attempt)
        outcome = yield exchange
        came = exchange.results(outcome) if isinstance(outcome, list) else [outcome] * len(pending)
        if attempt == 0 and isinstance(outcome, list) and not exchange.has_failed:
            return came  # as nearly always
        again: dict[int, Command[Any]] = {}
        for (place, command), result in zip(pending.items(), came, strict=True):
            results[place] = result
            if isinstance(result, Exception) and is_worth_another_try(command, result):
                again[place] = command.spelled_out() if "NoScriptError" in names_of(result) else command
        if not again or pause_s is None:
            break
        pending = again
        yield pause_s
    return [_final(result) for result in results]


def _final(result: Any) -> Any:
    return explained(result) if isinstance(result, Exception) and not isinstance(result, StoreUnavailable) else result
