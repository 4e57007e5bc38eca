"""The settings: frozen, and validated when they are made, so that no request ever meets a wrong one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, get_args

from coatcheck.devices import ClientAddress
from coatcheck.errors import ConfigurationError
from coatcheck.values import is_text

WhenFull = Literal["end_oldest", "refuse"]
SameSite = Literal["lax", "strict", "none"]
CookiePrefix = Literal["__Host-", "__Secure-", "__Host-Http-", "__Http-", ""]

MAX_COOKIE_AGE: Final = timedelta(days=400)
"""Browsers keep no cookie for longer (RFC 6265bis, section 5.5)."""

_LONGEST: Final = timedelta(days=36_500)
_MAX_GRACE: Final = timedelta(minutes=1)

MIN_SECRET_KEY_BYTES: Final = 32
"""The output size of HMAC-SHA256's hash, below which a key weakens it (RFC 2104, section 3)."""

# RFC 6265bis: a cookie's name is an RFC 9110 token, an attribute's value has no control character and no semicolon.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH: Final = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")
_DOMAIN: Final = re.compile(r"\.?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_MAX_ATTRIBUTE_BYTES: Final = 1024
_MAX_NAME_BYTES: Final = 128

_HOST_PREFIXES: Final = ("__host-", "__host-http-")
_HTTP_PREFIXES: Final = ("__http-", "__host-http-")


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieConfig:
    """How the session's cookie is named and who may see it.

    Args:
        name: the name without its prefix.
        prefix: `__Host-` and the like make browsers enforce the attributes, so that no subdomain can plant a cookie
            (RFC 6265bis, section 4.1.3). None takes `__Host-` where the other settings allow it, else `__Secure-`,
            else none.
        secure: send the cookie over https only. False is for development over plain http, and for nothing else.
        http_only: keep the cookie from scripts.
        same_site: "lax" (default), "strict" or "none". "none" lets other sites' pages send requests with the session.
        path: the part of the site that sees the cookie. Anything but "/" gives up the `__Host-` prefix.
        domain: share the cookie with all hosts of a domain. Gives up the `__Host-` prefix.
        partitioned: one cookie per top-level site that embeds this one (CHIPS).
        persistent: True keeps the cookie over a restart of the browser (Max-Age: the rest of the session's lifetime,
            at most 400 days), False makes it a browser-session cookie. `session.remember()` overrides it.

    Raises:
        ConfigurationError: the settings contradict each other, or browsers would drop the cookie.
    """

    name: str = "session"
    prefix: CookiePrefix | None = None
    secure: bool = True
    http_only: bool = True
    same_site: SameSite = "lax"
    path: str = "/"
    domain: str | None = None
    partitioned: bool = False
    persistent: bool = True

    def __post_init__(self) -> None:
        self._check_syntax()
        if self.prefix is not None and self.prefix not in get_args(CookiePrefix):
            msg = f"cookie prefix: expected one of {get_args(CookiePrefix)}, got {self.prefix!r}"
            raise ConfigurationError(msg)
        if self.same_site not in get_args(SameSite):
            msg = f"cookie same_site: expected 'lax', 'strict' or 'none', got {self.same_site!r}"
            raise ConfigurationError(msg)
        if self.same_site == "none" and not self.secure:
            msg = "cookie same_site='none' needs secure=True: browsers drop it otherwise"
            raise ConfigurationError(msg)
        if self.partitioned and not self.secure:
            msg = "cookie partitioned=True needs secure=True: browsers drop it otherwise"
            raise ConfigurationError(msg)
        self._check_prefix()

    def _check_syntax(self) -> None:
        if not _TOKEN.fullmatch(self.name) or len(self.name) > _MAX_NAME_BYTES:
            msg = f"cookie name: expected 1 to {_MAX_NAME_BYTES} characters of an HTTP token, got {self.name!r:.80}"
            raise ConfigurationError(msg)
        if not _PATH.fullmatch(self.path) or len(self.path) > _MAX_ATTRIBUTE_BYTES:
            msg = f"cookie path: expected printable ASCII that begins with '/' and has no ';', got {self.path!r:.80}"
            raise ConfigurationError(msg)
        if self.domain is not None and (not _DOMAIN.fullmatch(self.domain) or len(self.domain) > _MAX_ATTRIBUTE_BYTES):
            msg = f"cookie domain: expected a host name such as 'example.com', got {self.domain!r:.80}"
            raise ConfigurationError(msg)

    def _check_prefix(self) -> None:
        # Browsers match prefixes without regard to case, so a name that spells one out is held to the same rules.
        full_name = self.full_name.lower()
        if full_name.startswith(("__secure-", *_HOST_PREFIXES, *_HTTP_PREFIXES)) and not self.secure:
            msg = f"a cookie named {self.full_name!r} needs secure=True: browsers drop it otherwise"
            raise ConfigurationError(msg)
        if full_name.startswith(_HOST_PREFIXES) and (self.domain is not None or self.path != "/"):
            msg = f"a cookie named {self.full_name!r} takes no domain, and only path '/': browsers drop it otherwise"
            raise ConfigurationError(msg)
        if full_name.startswith(_HTTP_PREFIXES) and not self.http_only:
            msg = f"a cookie named {self.full_name!r} needs http_only=True: browsers drop it otherwise"
            raise ConfigurationError(msg)

    @property
    def full_name(self) -> str:
        """The name that browsers see: prefix and name."""
        if self.prefix is not None:
            return self.prefix + self.name
        if not self.secure:
            return self.name
        prefix = "__Host-" if self.domain is None and self.path == "/" else "__Secure-"
        return prefix + self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Everything that `Sessions` and `SyncSessions` are configured with, apart from the store.

    Args:
        secret_keys: sign the cookies; the first signs, all are accepted. Each has 32 bytes or more
            (`coatcheck keygen` makes one). A session signed by an older key gets a new cookie when it is next used.
            None if the store has tokens and keys of its own.
        idle_timeout: a session that is not used for this long ends (OWASP: idle timeout).
        lifetime: a session ends at this age whatever its use (OWASP: absolute timeout).
        cookie: name and attributes of the cookie.
        refresh_after: the fraction of the idle timeout after which use extends a session and renews its cookie. Less
            means a more exact idle timeout, and more writes and cookies.
        max_record_bytes: the most that one session may hold, encoded.
        max_keys: the most keys that one session may have.
        max_sessions_per_user: how many sessions a user may have at once; None for any number.
        when_full: what a login beyond that does: "end_oldest" ends the user's oldest session, "refuse" raises
            `TooManySessions` at the commit (call `session.save()` after `login()` to catch it).
        renew_every: give sessions that are used a new ID this often (OWASP: renewal timeout); None for only at logins.
        renewal_grace: how long after such a renewal requests with the old ID still reach the session.
        end_on_reuse: end a session whose old ID is used after the grace, which is a sign that it was stolen.
        user_agent: keep the browser's User-Agent with a login, for lists of devices.
        client_address: keep the client's address with a login: "truncated" to its network, "whole", or "none".
        clock: gives the time in seconds since the epoch. For tests.
        store_has_tokens: whether the store has a form of token of its own (`coatcheck.stores.protocol.HasTokens`).
        store_takes_foreign_values: whether the store gives its sessions to another system, whose types it keeps.

    Raises:
        ConfigurationError: a setting can't work. The message names it and what was expected.
    """

    secret_keys: Sequence[str | bytes] | None = field(repr=False)
    idle_timeout: timedelta = timedelta(hours=2)
    lifetime: timedelta = timedelta(days=7)
    cookie: CookieConfig = field(default_factory=CookieConfig)
    refresh_after: float = 0.1
    max_record_bytes: int = 1_048_576
    max_keys: int = 1_000
    max_sessions_per_user: int | None = None
    when_full: WhenFull = "end_oldest"
    renew_every: timedelta | None = None
    renewal_grace: timedelta = timedelta(seconds=10)
    end_on_reuse: bool = False
    user_agent: bool = True
    client_address: ClientAddress = "truncated"
    clock: Callable[[], float] = time.time
    store_has_tokens: bool = False
    store_takes_foreign_values: bool = False

    def __post_init__(self) -> None:
        if not self.store_has_tokens:
            object.__setattr__(self, "secret_keys", checked_secret_keys(self.secret_keys))
        elif self.secret_keys is not None:
            msg = "secret_keys: this store signs its cookies with the keys that it was given; leave secret_keys out"
            raise ConfigurationError(msg)
        if not isinstance(self.cookie, CookieConfig):
            msg = f"cookie: expected a CookieConfig, got a {type(self.cookie).__name__}"
            raise ConfigurationError(msg)
        self._check_timeouts()
        fraction: object = self.refresh_after
        if not isinstance(fraction, int | float) or not 0 <= fraction < 1:
            msg = f"refresh_after: expected a fraction (0 or more, below 1), got {self.refresh_after!r}"
            raise ConfigurationError(msg)
        self._check_choices()
        for name in ("max_record_bytes", "max_keys", "max_sessions_per_user"):
            value = getattr(self, name)
            if name == "max_sessions_per_user" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                msg = f"{name}: expected a positive whole number, got {value!r}"
                raise ConfigurationError(msg)

    def _check_choices(self) -> None:
        for name, choices in (("when_full", get_args(WhenFull)), ("client_address", get_args(ClientAddress))):
            if getattr(self, name) not in choices:
                msg = f"{name}: expected one of {', '.join(map(repr, choices))}, got {getattr(self, name)!r}"
                raise ConfigurationError(msg)
        grace: object = self.renewal_grace
        if not isinstance(grace, timedelta) or not timedelta(0) <= grace <= _MAX_GRACE:
            msg = f"renewal_grace: expected a timedelta of 0 to {_MAX_GRACE}, got {grace!r}"
            raise ConfigurationError(msg)

    def _check_timeouts(self) -> None:
        names = ["idle_timeout", "lifetime"] + ([] if self.renew_every is None else ["renew_every"])
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, timedelta):
                msg = f"{name}: expected a timedelta such as timedelta(hours=2), got {value!r}"
                raise ConfigurationError(msg)
            if not timedelta(seconds=1) <= value <= _LONGEST:
                msg = f"{name}: expected one second to {_LONGEST.days} days, got {value}"
                raise ConfigurationError(msg)
        if self.idle_timeout > self.lifetime:
            msg = f"idle_timeout ({self.idle_timeout}) is longer than lifetime ({self.lifetime}) and would never matter"
            raise ConfigurationError(msg)

    @property
    def key_material(self) -> tuple[bytes, ...]:
        """The secret keys as bytes, newest first."""
        return as_key_material(self.secret_keys or ())


def as_key_material(secret_keys: Sequence[str | bytes]) -> tuple[bytes, ...]:
    """Give secret keys as bytes."""
    return tuple(key.encode() if isinstance(key, str) else key for key in secret_keys)


def checked_secret_keys(secret_keys: Sequence[str | bytes] | None) -> tuple[str | bytes, ...]:
    """Give secret keys back. Raises ConfigurationError for such as can't be ones."""
    advice = "`coatcheck keygen` makes one"
    if isinstance(secret_keys, str | bytes):
        msg = "secret_keys: expected a list of keys, newest first, got a single key; put it into a list"
        raise ConfigurationError(msg)
    keys = tuple(secret_keys or ())
    if not keys:
        msg = f"secret_keys: at least one secret key is needed to sign the cookies; {advice}"
        raise ConfigurationError(msg)
    for position, key in enumerate(keys):
        if not isinstance(key, str | bytes):
            msg = f"secret_keys[{position}]: expected str or bytes, got {type(key).__name__}"
            raise ConfigurationError(msg)
        if isinstance(key, str) and not is_text(key):
            msg = f"secret_keys[{position}]: it is not valid Unicode; {advice}"
            raise ConfigurationError(msg)
        size = len(key.encode() if isinstance(key, str) else key)
        if size < MIN_SECRET_KEY_BYTES:
            msg = f"secret_keys[{position}]: {size} bytes are too few, {MIN_SECRET_KEY_BYTES} are needed; {advice}"
            raise ConfigurationError(msg)
    return keys
