"""Who may pass: guards for pages that need a login, or a recent one. No I/O and no framework.

`require_login` and `require_recent_login` are plain functions for handlers; `coatcheck.asgi.require_login` and
`coatcheck.wsgi.require_login` wrap whole applications with what is here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import quote, unquote

from coatcheck.errors import ConfigurationError, LoginRequired, RecentLoginRequired, StoreUnavailable
from coatcheck.mounting import has_dot_segment
from coatcheck.session import BaseSession

_MAX_NEXT_CHARACTERS: Final = 2_000

# Browsers take "//host" and "/\host" for another site's address, and drop tabs and newlines before they look.
_LOCAL: Final = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f-\U0010ffff]*")
_LOCAL_DECODED: Final = re.compile(r"/(?![/\\])[^\\\x00-\x1f\x7f-\x9f]*")
_PATH_END: Final = re.compile("[?#]")


def require_login(session: BaseSession) -> str:
    """Give the user ID of whoever is logged in.

    Raises:
        LoginRequired: nobody is.
        StoreUnavailable: nobody knows. Only where the request goes on without the store: see `while_down`.
        ConfigurationError: this is not a session of Coatcheck's.
    """
    if not isinstance(session, BaseSession):
        # By its class as it says, because frameworks give proxies.
        msg = (
            f"A guard needs a session of Coatcheck's, got a {session.__class__.__name__}: is Coatcheck set up for this "
            "application, and the framework's own session middleware taken out?"
        )
        raise ConfigurationError(msg)
    if not session.is_available:
        msg = "Whether somebody is logged in can't be told now: the store is out of reach"
        raise StoreUnavailable(msg)
    if session.user_id is None:
        raise LoginRequired
    return session.user_id


def require_recent_login(session: BaseSession, *, within: timedelta) -> str:
    """Give the user ID of whoever has logged in lately, for pages that matter (OWASP ASVS 5, 7.5.1 and 7.5.3).

    Args:
        session: the request's session.
        within: how long ago the login may be.

    Raises:
        LoginRequired: nobody is logged in.
        RecentLoginRequired: the login is longer ago. Ask for the password again, and call `session.login()`.
    """
    user_id = require_login(session)
    if session.time_since_login > within:
        raise RecentLoginRequired
    return user_id


def check_login(session: BaseSession, within: timedelta | None) -> str:
    """Do as `require_login`, or with a time as `require_recent_login`: what every guard comes down to."""
    return require_login(session) if within is None else require_recent_login(session, within=within)


def safe_next(target: str | None, default: str = "/") -> str:
    """Give `target` if it is a path of this site, else `default`.

    A target that anybody can put into a link must not lead to another site (CWE-601). What is percent-encoded is
    looked at as well, so that whoever decodes once too often is not led astray either.
    """
    if target is None or len(target) > _MAX_NEXT_CHARACTERS:
        return default
    is_local = _LOCAL.fullmatch(target) and _LOCAL_DECODED.fullmatch(unquote(target, errors="replace"))
    return target if is_local and not _hides_host(target) else default


def _hides_host(target: str) -> bool:
    """Tell whether "//host" may be left of a path once its dot segments are taken out, as of "/..//host"."""
    path = _PATH_END.split(target, 1)[0]
    return "//" in unquote(path) and has_dot_segment(path)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that may not pass."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The settings of a guard around an application.

    Args:
        login_path: where browsers are sent, with `?next=` and the path that was asked for. None if there is no such
            page: then they get 401 like programs.
        within: how long ago the login may be; None for any time.

    Raises:
        ConfigurationError: the login's path is not a path of this site.
    """

    login_path: str | None = "/login"
    within: timedelta | None = None

    def __post_init__(self) -> None:
        if self.login_path is not None and safe_next(self.login_path, "") != self.login_path:
            msg = f"login_path: expected a path of this site such as '/login', got {self.login_path!r:.80}"
            raise ConfigurationError(msg)

    def refusal(self, session: BaseSession, request: Request) -> Refusal | None:
        """Give the answer to a request that may not pass, or None for one that may."""
        try:
            check_login(session, self.within)
        except LoginRequired as error:
            return self.answer(error, request)
        return None

    def answer(self, error: LoginRequired, request: Request) -> Refusal:
        """Give the answer to a request for which a guard has raised."""
        if self.login_path is None or not request.is_browsing():
            body = json.dumps({"error": error.code, "message": str(error)}).encode()
            return Refusal(401, text_headers("application/json", body), body)
        target = request.target if request.method in ("GET", "HEAD") else ""
        following = safe_next(target, "")
        location = self.login_path + (f"?next={quote(following, safe='')}" if following else "")
        return Refusal(303, (*text_headers("text/plain; charset=utf-8", b""), ("location", location)), b"")


@dataclass(frozen=True, slots=True)
class Request:
    """What a guard has to know of a request."""

    method: str
    target: str
    """Path and query."""
    accept: str
    sec_fetch_mode: str

    def is_browsing(self) -> bool:
        """Tell whether a person is to be sent to the login, rather than a program told by 401."""
        if self.sec_fetch_mode not in ("", "navigate"):
            return False  # a script's fetch(), which would follow the redirect and take the login page for its data
        kinds = [part.partition(";")[0].strip().lower() for part in self.accept.split(",")]
        return "text/html" in kinds or not any(kind == "application/json" or kind.endswith("+json") for kind in kinds)


def text_headers(content_type: str, body: bytes) -> tuple[tuple[str, str], ...]:
    """Give the headers of an answer that is not for caches."""
    return (("content-type", content_type), ("content-length", str(len(body))), ("cache-control", "no-store"))
