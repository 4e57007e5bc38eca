"""What a session adds to a response of Django's, whose headers are a mapping and whose cookies are kept apart."""

from __future__ import annotations

from http.cookies import Morsel
from typing import Any


def put_headers(response: Any, headers: list[tuple[str, str]]) -> None:
    """Give a response these headers in the place of those that it has."""
    for name in [name for name, _ in response.items()]:
        del response[name]
    for name, value in headers:
        if name == "set-cookie":
            _add_cookie(response, value)
        else:  # a mapping has room for one Vary
            response[name] = f"{response[name]}, {value}" if name in response else value


def _add_cookie(response: Any, set_cookie: str) -> None:
    """Put a Set-Cookie value where Django and its test client look for cookies."""
    pair, *attributes = set_cookie.split("; ")
    name, _, value = pair.partition("=")
    response.cookies[name] = value
    morsel: Morsel[str] = response.cookies[name]
    for attribute in attributes:
        key, _, setting = attribute.partition("=")
        if key == "Partitioned" and not morsel.isReservedKey(key):
            _know_partitioned()
        morsel[key] = setting or True


def _know_partitioned() -> None:
    """Teach http.cookies of an attribute that it does not know before Python 3.14."""
    Morsel._reserved["partitioned"] = "Partitioned"  # type: ignore[attr-defined]
    Morsel._flags.add("partitioned")  # type: ignore[attr-defined]
