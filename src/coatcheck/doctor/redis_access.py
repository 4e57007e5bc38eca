"""How a store's URL lets the doctor in, and what is said of errors without giving that away.

The text of an error may have the user's name in it, and behind a proxy even the password. So what is known is said in
our words, and from the rest user and password are taken out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs

import redis
from redis.exceptions import MovedError, NoPermissionError, RedisClusterException
from redis.sentinel import MasterNotFoundError

from coatcheck.errors import StoreError
from coatcheck.stores.redis.commands import Commands
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
_LONGEST_OF_SENTINELS: Final = 1_000

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
)

_BY_WORDS: Final = (
    (
        "IP address mismatch",
        (
            "Name the server as its certificate does. Sentinels and Clusters hand out addresses, unless they are set "
            "up to announce names: docs/redis.md, Names in certificates."
        ),
    ),
    ("Hostname mismatch", "Name the server as its certificate does."),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "If it was signed by a CA of your own, name that in the store's URL: ?tls_ca_file=/path/of/ca.pem",
    ),
    ("Name or service not known", "Look at how the name is written, and at DNS."),
    ("Cluster mode is not enabled", "This is a server by itself: write redis:// in the store's URL."),
    ("unknown command 'SENTINEL'", "This is a server, and no Sentinel: write redis:// in the store's URL."),
    ("DB index is out of range", "Take a smaller number, or raise databases in the server's settings."),
)
"""What to do about errors that are told by words in their text only."""

_SENTINELS: Final = (
    "What Sentinels answered is behind their names. Those that are not listed know no such service (SENTINEL MASTERS "
    "lists what they know). They have users of their own: ?sentinel_username=…&sentinel_password=… in the store's URL. "
    "With TLS: rediss+sentinel://"
)

_OF_A_REFUSED_USER: Final = (
    "In the URL, percent-encode what is not a letter or digit. ACL LIST at the server shows its users; those made with "
    "ACL SETUSER are gone after a restart, unless ACL SAVE or CONFIG REWRITE has kept them."
)


@dataclass(frozen=True, slots=True)
class Access:
    """What a store's URL says of user and password.

    Attributes:
        commands: what the store sends, for the prefix of its keys.
        address: where the store is.
        has_password: whether there is a password in the URL.
        secrets: what must not be shown.
    """

    commands: Commands
    address: Address
    has_password: bool
    secrets: tuple[str, ...] = field(repr=False)

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
        return self._explain_failure(cause)

    def _explain_failure(self, cause: BaseException | None) -> tuple[str, str]:
        for kind, finding, advice in _EXPLANATIONS:
            if isinstance(cause, kind):
                return finding, advice
        if isinstance(cause, redis.TimeoutError):
            return "no answer in time", self._of_silence()
        text = str(cause)
        if isinstance(cause, MasterNotFoundError):
            return self._conceal(text, _LONGEST_OF_SENTINELS), _SENTINELS
        is_of_connection = isinstance(cause, redis.ConnectionError | RedisClusterException)
        advice = self._of_no_connection() if is_of_connection else _ANSWERED_503
        return self._conceal(text), next((known for words, known in _BY_WORDS if words in text), advice)

    def _of_silence(self) -> str:
        advice = "Look at the network and its firewalls, and at what keeps the server busy (SLOWLOG GET)."
        return f"{advice} A port without TLS gives no answer to rediss:// either." if self.address.has_tls else advice

    def _of_no_connection(self) -> str:
        if self.address.kind == "socket":
            return "Is it running, and is that the path of its socket (unixsocket in its settings)?"
        if self.address.has_tls:
            return (
                "Is it running, are host and port right, and is that the port for TLS? A server that asks for a "
                "certificate of the client's ends the connection without one: ?tls_certificate_file=…&tls_key_file=…"
            )
        return "Is it running, and are host and port right? A port for TLS needs rediss:// in the store's URL."

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
        rights = " ".join(f"+{each}" for each in dict.fromkeys((*NEEDED, command)) if each)
        advice = f"An administrator allows all that Coatcheck needs by: ACL SETUSER <user> &{keys} ~{keys} {rights}"
        return f"this user may not {what}", advice

    def _explain_refusal(self) -> tuple[str, str]:
        if not self.has_password:
            where = (
                "unix://user:password@/path" if self.address.kind == "socket" else "redis://user:password@host:6379/0"
            )
            return "the server asks for a password", f"Name it in the store's URL: {where}"
        return "the server refuses this user or password", _OF_A_REFUSED_USER

    def _conceal(self, text: str, longest: int = _LONGEST_ERROR) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text[:longest]


def _refused_command(error: BaseException) -> str:
    """Give the command that the text of an error says was refused; "" if it was a key or a channel."""
    quoted = str(error).split("'")[1::2]
    return next((command for command in quoted if command in _MAY_BE_REFUSED), "")


def access_by(made: Connecting) -> Access:
    """Read who asks, and how."""
    options = parse_qs(made.address.query)
    users = [made.settings.get("username"), *options.get("username", ()), made.sentinel_settings.get("username")]
    passwords = [made.settings.get("password"), *options.get("password", ())]
    secrets = sorted(filter(None, (*passwords, *users, made.sentinel_settings.get("password"))), key=len, reverse=True)
    commands = Commands(made.limits.prefix)
    return Access(commands, made.address, has_password=any(passwords), secrets=tuple(secrets))
