"""What the Redis stores say to the server, and how its answers are read. No I/O.

One key for each record, with Redis's own expiry; one script, for compare-and-set, which names one key. Only reads
name several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, Generic, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.stores.protocol import Outcome, WriteResult

T = TypeVar("T")

Argument: TypeAlias = str | bytes | int

DEFAULT_PREFIX: Final = "coatcheck:"
CHANNEL: Final = "news"
"""What follows the prefix in the name of the channel for announcements."""


class Script:
    """A Lua script, as EVALSHA and EVAL want it: a file in the folder `scripts` of a package."""

    __slots__ = ("sha", "source")

    def __init__(self, name: str, package: str = "coatcheck.stores.redis") -> None:
        self.source = (files(package) / "scripts" / name).read_text("utf-8")
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


UPDATE: Final = Script("update.lua")

KEPT_LOADS: Final = 4_096
KEYS_OF_A_REQUEST: Final = 2
"""Of a session, and of its user's epoch."""


class MixedUpAnswers(StoreUnavailable):
    """An answer is of a kind that its command never gets, so it must be another command's (CVE-2023-28858)."""

    def __init__(self) -> None:
        super().__init__("Redis gave an answer that can't be that of the command sent; the connections were closed")


class Command(Struct, Generic[T], frozen=True, eq=False):
    """One command to the server, or a load."""

    name: str
    """The key that it is about, which says where in a Cluster it belongs."""
    arguments: tuple[Argument, ...]
    read: Callable[[Any], T]
    """Makes the result of the answer, or raises MixedUpAnswers."""
    is_repeatable: bool
    """Whether it may be sent again when it is not known whether it has been carried out."""
    names: tuple[str, ...] = ()
    """Of a load, the keys. How they are asked for depends on the server, and the answers to all loads of a batch are
    read at once: see `exchange`."""
    script: Script | None = None
    """Of an EVALSHA, the script."""

    def spelled_out(self) -> Command[T]:
        """Give the same command for a server that doesn't know the script (any more)."""
        return (
            self if self.script is None else replace(self, arguments=("EVAL", self.script.source, *self.arguments[2:]))
        )


def run_script(
    script: Script, keys: Sequence[str], *arguments: Argument, read: Callable[[Any], T], is_repeatable: bool = False
) -> Command[T]:
    """Give the command that runs a script. In a Cluster, its keys must be in one slot."""
    spelled = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
    return Command(keys[0], spelled, read, is_repeatable, script=script)


class Commands:
    """Makes the commands, for one prefix."""

    __slots__ = ("channel", "load", "load_many", "pattern", "prefix")

    load: Callable[[tuple[str, ...]], Command[list[bytes | None]]]
    """Makes the command by which a request reads its session, with the epoch of its user. Those of late are kept, for
    clients come again."""
    load_many: Callable[[tuple[str, ...]], Command[list[bytes | None]]]
    """Makes the command that reads any number of records."""

    def __init__(self, prefix: str) -> None:
        if not prefix or not prefix.isascii() or not prefix.isprintable():
            msg = f"prefix: expected printable ASCII that sets the sessions' keys apart from others, got {prefix!r:.80}"
            raise ConfigurationError(msg)
        self.prefix = prefix
        self.load_many = partial(_load, prefix)
        self.load = lru_cache(maxsize=KEPT_LOADS)(self.load_many)
        self.channel = prefix + CHANNEL
        self.pattern = "".join("\\" + each if each in "*?[]\\^-" else each for each in prefix) + "*"
        """For SCAN; the prefix's special characters stand for themselves."""

    def create(self, key: str, record: bytes, ttl_ms: int) -> Command[bool]:
        """Store a record where none is."""
        name = self.prefix + key
        return Command(name, ("SET", name, record, "PX", ttl_ms, "NX"), was_set, is_repeatable=False)

    def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> Command[WriteResult]:
        """Compare and set."""
        return run_script(UPDATE, (self.prefix + key,), revision, record, ttl_ms, read=write_result)

    def touch(self, key: str, ttl_ms: int) -> Command[bytes | None]:
        """Set the time to live, and give the record."""
        name = self.prefix + key
        return Command(name, ("GETEX", name, "PX", ttl_ms), record, is_repeatable=True)

    def delete(self, key: str) -> Command[bytes | None]:
        """Delete a record, and give it."""
        name = self.prefix + key
        return Command(name, ("GETDEL", name), record, is_repeatable=False)

    def time_left(self, key: str) -> Command[int | None]:
        """Ask how long a record still lives."""
        name = self.prefix + key
        return Command(name, ("PTTL", name), time_left, is_repeatable=True)

    def announce(self, key: str) -> Command[None]:
        """Tell those who listen of a key. Twice does no harm."""
        return Command(self.channel, ("PUBLISH", self.channel, key), nothing, is_repeatable=True)

    def scan(self, cursor: int, limit: int) -> Command[tuple[list[str], int]]:
        """Ask for some of the keys."""
        arguments = ("SCAN", cursor, "MATCH", self.pattern, "COUNT", limit)
        return Command("", arguments, self._scanned, is_repeatable=True)

    def _scanned(self, reply: Any) -> tuple[list[str], int]:
        if not isinstance(reply, list | tuple) or len(reply) != 2:  # noqa: PLR2004 (cursor and keys)
            raise MixedUpAnswers
        cursor, names = reply
        if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
            raise MixedUpAnswers
        return [str(name[len(self.prefix) :], "ascii", "replace") for name in names], int(cursor)


def _load(prefix: str, keys: tuple[str, ...]) -> Command[list[bytes | None]]:
    names = tuple(prefix + key for key in keys)
    return Command(names[0], (), records, True, names)


# Answers are read as the server gives them, and as client libraries make them more convenient.


_OF_A_RECORD: Final = frozenset({bytes, type(None)})


def record(reply: Any) -> bytes | None:
    """Read what GETEX or GETDEL answered."""
    if reply is not None and not isinstance(reply, bytes):
        raise MixedUpAnswers
    return reply


def records(reply: list[Any]) -> list[bytes | None]:
    """Read the answers of a load."""
    if not _OF_A_RECORD.issuperset(map(type, reply)):
        raise MixedUpAnswers
    return reply


def nothing(_reply: Any) -> None:
    """Read an answer that says nothing of interest."""


def was_set(reply: Any) -> bool:
    """Read what SET with NX answered."""
    if reply is None:
        return False
    if reply != b"OK" and reply is not True:
        raise MixedUpAnswers
    return True


def time_left(reply: Any) -> int | None:
    """Read what PTTL answered. -2 stands for a key that is not there."""
    if not isinstance(reply, int):
        raise MixedUpAnswers
    return reply if reply >= 0 else None


def write_result(reply: Any) -> WriteResult:
    """Read what the script for updates answered."""
    if reply == 1:
        return Outcome.DONE
    newer = record(reply)
    return Outcome.GONE if newer is None else newer
