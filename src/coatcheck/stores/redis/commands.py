"""What the Redis stores say to the server, and how its answers are read. No I/O.

One key for each record, with Redis's own expiry; one script, for compare-and-set, which names one key. Only reads
name several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import RedisError

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.stores.protocol import Outcome, WriteResult

DEFAULT_PREFIX: Final = "coatcheck:"
CHANNEL: Final = "news"
"""What follows the prefix in the name of the channel for announcements."""


class Script:
    """A Lua script, as EVALSHA and EVAL want it."""

    __slots__ = ("sha", "source")

    def __init__(self, name: str) -> None:
        self.source = (files("coatcheck.stores.redis") / "scripts" / name).read_text("utf-8")
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


UPDATE: Final = Script("update.lua")


def check_prefix(prefix: str) -> str:
    """Give the prefix back. Raises ConfigurationError when keys of sessions could not be told from others with it."""
    if not prefix or not prefix.isascii() or not prefix.isprintable():
        msg = f"prefix: expected printable ASCII that sets the sessions' keys apart from others, got {prefix!r:.80}"
        raise ConfigurationError(msg)
    return prefix


class MixedUpAnswers(StoreUnavailable):
    """An answer is of a kind that its command never gets, so it must be another command's (CVE-2023-28858)."""

    def __init__(self) -> None:
        super().__init__("Redis gave an answer that can't be that of the command sent; the connections were closed")


def record(reply: Any) -> bytes | None:
    """Read what GETEX or GETDEL answered."""
    if reply is not None and not isinstance(reply, bytes):
        raise MixedUpAnswers
    return reply


def records(count: int) -> Callable[[Any], list[bytes | None]]:
    """Give what reads the answer of an MGET of so many keys."""

    def read(reply: Any) -> list[bytes | None]:
        if not isinstance(reply, list) or len(reply) != count:
            raise MixedUpAnswers
        return [record(each) for each in reply]

    return read


def nothing(_reply: Any) -> None:
    """Read an answer that says nothing of interest."""


def was_set(reply: Any) -> bool:
    """Read what SET with NX answered."""
    if reply is None or reply is False:
        return False
    if reply is not True:
        raise MixedUpAnswers
    return True


def times_left(reply: Any) -> list[int | None]:
    """Read what a pipeline of PTTL answered. -2 stands for a key that is not there."""
    return [ttl_ms if ttl_ms >= 0 else None for ttl_ms in reply]


def pattern(prefix: str) -> str:
    """Give the SCAN pattern for all keys with a prefix, whose special characters stand for themselves."""
    return "".join("\\" + character if character in "*?[]\\^-" else character for character in prefix) + "*"


def scanned(prefix: str) -> Callable[[Any], tuple[list[str], str]]:
    """Give what reads the answer of SCAN: keys without their prefix, and the next cursor."""

    def read(reply: Any) -> tuple[list[str], str]:
        cursor, names = reply
        return [str(name[len(prefix) :], "ascii") for name in names], str(cursor) if cursor else ""

    return read


def write_result(reply: Any) -> WriteResult:
    """Read what the script for updates answered."""
    if reply == 1:
        return Outcome.DONE
    newer = record(reply)
    return Outcome.GONE if newer is None else newer


@contextmanager
def unavailable_on_error() -> Iterator[None]:
    """Turn whatever the client library raises into StoreUnavailable, with the original as its cause."""
    try:
        yield
    except (RedisError, OSError) as error:
        msg = f"Redis could not do its work: {type(error).__name__}: {error}"
        raise StoreUnavailable(msg) from error
