"""What a session adds to a response of Django's, whose headers are a mapping and whose cookies are kept apart."""

from __future__ import annotations

from http.cookies import Morsel, SimpleCookie
from typing import Any

from django.http.response import ResponseHeaders


def own_copy(response: Any) -> Any:
    """Give a response that is nobody else's, as long as it is no stream: views may give the same object to everybody.

    What is in it is the same, but for headers and cookies.
    """
    if response.streaming:
        return response
    copied = object.__new__(type(response))
    copied.__dict__.update(response.__dict__)
    copied.headers = ResponseHeaders(dict(response.headers.items()))
    copied.cookies = SimpleCookie()
    copied.cookies.update(response.cookies)
    return copied


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
    morsel.set(name, value, value)  # as it is: http.cookies puts one with "=" into quotes, which no other server does
    for attribute in attributes:
        key, _, setting = attribute.partition("=")
        if key == "Partitioned" and not morsel.isReservedKey(key):
            _know_partitioned()
        morsel[key] = setting or True


def _know_partitioned() -> None:
    """Teach http.cookies of an attribute that it does not know before Python 3.14."""
    Morsel._reserved["partitioned"] = "Partitioned"  # type: ignore[attr-defined]
    Morsel._flags.add("partitioned")  # type: ignore[attr-defined]
