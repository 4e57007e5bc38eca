"""What a session adds to a response's headers, once for both kinds of header lists: ASGI's bytes and WSGI's strings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

Text = TypeVar("Text", str, bytes)

_VARY_LENGTH: Final = len("vary")


class ResponseHeaders(Generic[Text]):
    """Adds Set-Cookie, Vary and Cache-Control to header lists of one kind of text."""

    def __init__(self, text: Callable[[str], Text]) -> None:
        self._text: Callable[[str], Text] = text
        self._vary: Text = text("vary")
        self._cookie: Text = text("cookie")
        self._any: Text = text("*")
        self._comma: Text = text(",")
        self._equals: Text = text("=")
        self._semicolon: Text = text(";")
        self._cache_control: Text = text("cache-control")
        self._surrogate_control: Text = text("surrogate-control")
        self._set_cookie: Text = text("set-cookie")
        self._no_store: tuple[Text, Text] = (self._cache_control, text("no-store"))
        self._vary_cookie: tuple[Text, Text] = (self._vary, text("Cookie"))

    def add(
        self,
        headers: list[tuple[Text, Text]],
        *,
        accessed: bool,
        set_cookie: str | None,
        old_cookie: str | None = None,
        for_now: bool = False,
    ) -> None:
        """Add to `headers` what is due, in place.

        Args:
            headers: the response's headers so far.
            accessed: the session was read, so what is said may differ for another cookie (RFC 9110, section 12.5.5).
            set_cookie: the Set-Cookie value, or None. A response that carries one must not be kept by caches, so it
                gets `Cache-Control: no-store` in place of what it had.
            old_cookie: another one, which takes away the cookie of a system that was there before, or None.
            for_now: what is said is not true for longer, so caches must not keep it either.
        """
        if set_cookie is not None or old_cookie is not None or for_now:
            headers[:] = [header for header in headers if not self._is_for_caches(header[0].lower())]
            headers.append(self._no_store)
            for cookie in (set_cookie, old_cookie):
                if cookie is not None and not self._is_outdone(self._text(cookie), headers):
                    headers.append((self._set_cookie, self._text(cookie)))
        elif not accessed:
            return
        self.vary(headers)

    def vary(self, headers: list[tuple[Text, Text]]) -> None:
        """Add to the headers of a response, in place, that what it says may differ for another cookie."""
        for name, value in headers:
            if len(name) == _VARY_LENGTH and name.lower() == self._vary:
                words = [word.strip().lower() for word in value.split(self._comma)]
                if self._cookie in words or self._any in words:
                    return
        headers.append(self._vary_cookie)

    def _is_outdone(self, cookie: Text, headers: list[tuple[Text, Text]]) -> bool:
        """Tell whether a cookie is to be cleared that an application further in has just set."""
        name, _, value = cookie.partition(self._equals)
        start = cookie[: len(name) + 1]
        return value.startswith(self._semicolon) and any(
            header.lower() == self._set_cookie and other[: len(start)] == start for header, other in headers
        )

    def _is_for_caches(self, name: Text) -> bool:
        """Also the fields for one kind of cache, which it would put before Cache-Control (RFC 9213)."""
        return name.endswith(self._cache_control) or name == self._surrogate_control


def _ascii(text: str) -> bytes:
    return text.encode("ascii")


BYTES: Final[ResponseHeaders[bytes]] = ResponseHeaders(_ascii)
TEXT: Final[ResponseHeaders[str]] = ResponseHeaders(str)
