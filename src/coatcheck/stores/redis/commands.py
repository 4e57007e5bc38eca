"""What the Redis stores say to the server, and how its answers are read. No I/O.

One key for each session, with Redis's own expiry; one script, for compare-and-set. Every command names one key, so
all of it works on a cluster.
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


def was_set(reply: Any) -> bool:
    """Read what SET with NX answered."""
    if reply is None or reply is False:
        return False
    if reply is not True:
        raise MixedUpAnswers
    return True


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
