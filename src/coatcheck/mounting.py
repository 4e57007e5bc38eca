"""How the middlewares of all transports are set up, and stand side by side: what each of them checks."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import unquote

from coatcheck.errors import ConfigurationError

Load: TypeAlias = Literal["eager", "lazy"]

_COOKIES: Final = "coatcheck.cookies"
"""The key of a request's scope or environ for the names of the cookies that are taken."""


def check_sessions(sessions: object, kind: type, who: str) -> None:
    """Raise ConfigurationError where somebody is given something else than the sessions that it can work with.

    Args:
        sessions: what is given.
        kind: `Sessions` or `SyncSessions`.
        who: who needs it, for the message.
    """
    if not isinstance(sessions, kind):
        msg = f"sessions: {who} needs a {kind.__name__} object, got a {type(sessions).__name__}"
        raise ConfigurationError(msg)


def is_eager(load: Load) -> bool:
    """Tell whether sessions are loaded before the application runs. Raises ConfigurationError for another word."""
    if load not in ("eager", "lazy"):
        msg = f"load: expected 'eager' or 'lazy', got {load!r}"
        raise ConfigurationError(msg)
    return load == "eager"


def is_below(path: str, start: str) -> bool:
    """Tell whether a path is `start`, or below it."""
    return path == start or path.startswith(start if start.endswith("/") else start + "/")


def has_dot_segment(path: str) -> bool:
    """Tell whether a path has "." or ".." in it, and so is another one to whoever takes these out (RFC 3986, 5.2.4)."""
    return not {".", ".."}.isdisjoint(unquote(path).split("/"))


def claim_cookie(request: MutableMapping[str, Any], cookie: str) -> None:
    """Note in a request's scope or environ that a middleware uses a cookie.

    Raises:
        ConfigurationError: another one does already, and they would overwrite each other's in the browser.
    """
    cookies = request.get(_COOKIES, ())
    if cookie in cookies:
        msg = f"Two session middlewares use the same cookie {cookie!r}; give one of them CookieConfig(name=...)"
        raise ConfigurationError(msg)
    request[_COOKIES] = (*cookies, cookie)
