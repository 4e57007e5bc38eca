"""How a store's URL lets the doctor in, and what is said of errors without giving that away.

The text of an error may have the user's name in it, and behind a proxy even the password. So what is known is said in
our words, and from the rest user and password are taken out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

import redis
from redis.exceptions import MovedError, NoPermissionError

from coatcheck.errors import StoreError
from coatcheck.stores.redis.commands import CHANNEL, Commands
from coatcheck.stores.redis.connections import Connecting
from coatcheck.stores.redis_address import Address

NEEDED: Final = (
    *("mget", "get", "set", "getrange", "getex", "getdel", "pttl", "scan"),
    *("eval", "evalsha", "publish", "subscribe"),
)
"""The commands that the store sends."""

_MAY_BE_REFUSED: Final = (*NEEDED, "ping", "select", "time")
"""What is taken out of the text of an error, and nothing else: it may have the user's name in it."""

_REFUSED_IN_SCRIPT: Final = ("ACL failure in script", "user executing the script can't run this command")
"""Valkey's words and Redis's."""

_LONGEST_ERROR: Final = 200

_ANSWERED_503: Final = "Requests that have a session are answered by 503 while this lasts."

_EXPLANATIONS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (redis.BusyLoadingError, "the server is still loading its data", _ANSWERED_503),
    (redis.ReadOnlyError, "this is a read-only replica", "Name the primary in the store's URL."),
    (MovedError, "this is one node of a cluster", "Name the cluster in the store's URL: redis+cluster://host:port."),
    (
        redis.OutOfMemoryError,
        "the server is full, and refuses writes",
        "New and changed sessions are answered by 503. Raise maxmemory, or find out what fills it (MEMORY STATS).",
    ),
    (
        redis.TimeoutError,
        "no answer in time",
        "Look at the network and its firewalls, and at what keeps the server busy (SLOWLOG GET).",
    ),
)


@dataclass(frozen=True, slots=True)
class Access:
    """What a store's URL says of user and password.

    Attributes:
        commands: what the store sends, for the prefix of its keys.
        has_password: whether there is a password in the URL.
        secrets: what must not be shown.
    """

    commands: Commands
    has_password: bool
    secrets: tuple[str, ...]

    def explain(self, error: BaseException) -> tuple[str, str]:
        """Say what an error is, and what to do about it."""
        cause = error.__cause__ if isinstance(error, StoreError) else error
        if isinstance(cause, NoPermissionError):
            command = _refused_command(cause)
            what = f"send {command.upper()}" if command else "use the keys or the channel with this prefix"
            return self._explain_lack(what, command)
        if any(words in str(cause) for words in _REFUSED_IN_SCRIPT):
            return self._explain_lack("send what the script sends (GETRANGE, GET, SET)", "")
        if isinstance(cause, redis.AuthenticationError):
            return self._explain_refusal()
        for kind, finding, advice in _EXPLANATIONS:
            if isinstance(cause, kind):
                return finding, advice
        if isinstance(cause, redis.ConnectionError):
            advice = "Is it running, and are host and port right? A port for TLS needs rediss:// in the store's URL."
            return self._conceal(str(cause)), advice
        return self._conceal(str(cause)), _ANSWERED_503

    @contextmanager
    def allowing_refusal_of(self, command: str) -> Iterator[None]:
        """Go on where this user may not send a command, which is no error then."""
        try:
            yield
        except NoPermissionError as error:
            if _refused_command(error) != command:
                raise

    def _explain_lack(self, what: str, command: str) -> tuple[str, str]:
        """Say what is not permitted, and how a user gets all the permissions that the store needs."""
        keys = self.commands.pattern
        channel = keys.removesuffix("*") + CHANNEL
        rights = " ".join(f"+{each}" for each in dict.fromkeys((*NEEDED, command)) if each)
        advice = f"An administrator allows all that Coatcheck needs by: ACL SETUSER <user> ~{keys} &{channel} {rights}"
        return f"this user may not {what}", advice

    def _explain_refusal(self) -> tuple[str, str]:
        if not self.has_password:
            return "the server asks for a password", "Name it in the store's URL: redis://user:password@host:6379/0"
        advice = "In the URL, percent-encode what is not a letter or digit. ACL LIST at the server shows its users."
        return "the server refuses this user or password", advice

    def _conceal(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return "".join(character if character.isprintable() else " " for character in text)[:_LONGEST_ERROR]


def _refused_command(error: BaseException) -> str:
    """Give the command that the text of an error says was refused; "" if it was a key or a channel."""
    quoted = str(error).split("'")[1::2]
    return next((command for command in quoted if command in _MAY_BE_REFUSED), "")


def access_by(made: Connecting) -> Access:
    """Read who asks, and how."""
    options = parse_qs(made.address.query)
    users = [made.settings.get("username"), *options.get("username", ())]
    passwords = [made.settings.get("password"), *options.get("password", ())]
    secrets = sorted(filter(None, (*passwords, *users)), key=len, reverse=True)
    return Access(Commands(made.limits.prefix), has_password=any(passwords), secrets=tuple(secrets))


def place_of(address: Address) -> str:
    """Give where the store is, without user, password and options, which may have passwords in them."""
    return str(address) if address.database is None else f"{address}, database {address.database}"
