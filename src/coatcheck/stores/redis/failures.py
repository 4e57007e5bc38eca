"""What can go wrong between us and the server, and what may be tried again then. No I/O.

The names of errors are looked at rather than their classes: redis-py and valkey-py have the same ones, each its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

from coatcheck.errors import StoreFull, StoreUnavailable
from coatcheck.log_lines import printable
from coatcheck.stores.redis.commands import Command

_LONGEST_PAUSES_S: Final = (0.025, 0.075)
"""Before the second and the third attempt. By chance less: who failed together should not come back together."""

_LIBRARIES: Final = frozenset({"redis", "valkey"})

_REFUSED_FOR_NOW: Final = frozenset(
    {"ReadOnlyError", "MasterDownError", "ClusterDownError", "TryAgainError", "MovedError", "AskError", "NoScriptError"}
)
"""Answers by which a server says that it has not carried out the command, and that it is worth another try."""

_REDIRECTIONS: Final = frozenset({"MovedError", "AskError"})

_OF_NO_PLACE: Final = frozenset({"NoScriptError", "TryAgainError"})
"""Answers of the right node that say nothing of any other."""

_NOT_WORTH_IT: Final = frozenset(
    {
        "AuthenticationError",
        "AuthorizationError",
        "NoPermissionError",
        "TimeoutError",
        "AuthenticationWrongNumberOfArgsError",
        "MasterNotFoundError",
    }
)
"""A server that refuses a password, or says nothing for the whole of the time, does so a moment later as well.
So do Sentinels that know of no primary, and asking them all may have taken long."""


class _Failure(Exception):
    @classmethod
    def because(cls, error: BaseException) -> Self:
        """Make one, with what the client library or the network raised as its cause."""
        made = cls()
        made.__cause__ = error
        return made


class NotSent(_Failure):
    """No connection could be had, so nothing was carried out."""


class Lost(_Failure):
    """The connection failed after the command was sent: it may have been carried out, or not."""


def names_of(error: BaseException) -> frozenset[str]:
    """Give the names of an error's class and of its bases."""
    return frozenset(each.__name__ for each in type(error).__mro__)


def is_outage(error: BaseException) -> bool:
    """Tell whether an error is the server's or the network's, rather than a fault of ours."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _LIBRARIES


@contextmanager
def ignoring_outages() -> Iterator[None]:
    """Go on where the server or the network fails: whoever needs them hears of it."""
    try:
        yield
    except Exception as error:
        if not is_outage(error):
            raise


class OutagesAs:
    """Raises what it means for the commands that the server or the network has failed.

    Not made of a generator, because every batch passes through it.
    """

    __slots__ = ("_failure",)

    def __init__(self, failure: type[NotSent | Lost]) -> None:
        self._failure = failure

    def __enter__(self) -> None:
        """Begin the block that may fail."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise what its failure means, if it is one of these."""
        if isinstance(error, Exception) and is_outage(error):
            raise self._failure.because(error) from error


def is_silence(error: BaseException) -> bool:
    """Tell whether the server said nothing for the whole of the time. That is not tried again."""
    return error.__cause__ is not None and "TimeoutError" in names_of(error.__cause__)


def is_answer(error: BaseException) -> bool:
    """Tell whether an error is the server's answer to one command, and the connection sound."""
    return "ResponseError" in names_of(error)


def errors_among(replies: Iterable[object]) -> list[Exception]:
    """Give the answers that are errors: none, nearly always."""
    return [reply for reply in replies if isinstance(reply, Exception)]


def is_demoted(replies: Iterable[object]) -> bool:
    """Tell whether a server says that it is not the primary (any more), so that its connections are of no use."""
    return any("ReadOnlyError" in names_of(error) for error in errors_among(replies))


def is_redirection(error: Exception) -> bool:
    """Tell whether a node says that another one has the key."""
    return bool(names_of(error) & _REDIRECTIONS)


def is_of_place(error: Exception) -> bool:
    """Tell whether an error may be because another node has the key by now."""
    return not names_of(error) & _OF_NO_PLACE


def is_worth_another_try(command: Command[Any], error: Exception) -> bool:
    """Tell whether a command may be sent again: only if that can't carry it out twice."""
    if isinstance(error, NotSent | Lost):
        is_safe = isinstance(error, NotSent) or command.is_repeatable
        return is_safe and error.__cause__ is not None and not names_of(error.__cause__) & _NOT_WORTH_IT
    return bool(names_of(error) & _REFUSED_FOR_NOW)


def pauses() -> tuple[float, ...]:
    """Give how long to wait before each further attempt, in seconds."""
    return tuple(random.uniform(0, longest) for longest in _LONGEST_PAUSES_S)  # noqa: S311 (not a secret)


def explained(error: Exception) -> StoreUnavailable:
    """Make the error that the store raises, with the library's as its cause."""
    cause = error.__cause__ if isinstance(error, NotSent | Lost) and error.__cause__ is not None else error
    if isinstance(cause, StoreUnavailable):
        return cause
    names = names_of(cause)
    kind = StoreFull if "OutOfMemoryError" in names or "OOM " in str(cause) else StoreUnavailable
    text = printable(str(cause)) or "no answer in time"
    made = kind(f"Redis could not do its work: {type(cause).__name__}: {text}{_advice(names, text)}")
    made.__cause__ = cause
    return made


def _advice(names: frozenset[str], text: str) -> str:
    if "ClusterCrossSlotError" in names or "MovedError" in names:
        return ". This server is part of a Cluster: use redis+cluster://"
    if "NoPermissionError" in names:
        return ". docs/redis.md lists the permissions that Coatcheck needs"
    if "unknown command" in text.lower():
        return ". Coatcheck needs Redis 6.2 or Valkey 7.2, or newer"
    if "ReadOnlyError" in names:
        return ". This server is a replica: sessions need the primary"
    return ""
