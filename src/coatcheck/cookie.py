"""The Cookie header in, Set-Cookie out.

Incoming headers are searched for one exact name, linearly and on bytes. Nothing is unquoted, percent-decoded or
stripped beyond space and tab: lenient parsers have let one cookie pass for another again and again (CVE-2020-8184,
CVE-2023-23934, CVE-2024-7592).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from coatcheck.config import MAX_COOKIE_AGE, CookieConfig
from coatcheck.errors import ConfigurationError

_MAX_AGE_S: Final = int(MAX_COOKIE_AGE.total_seconds())


class CookieReader:
    """Finds the values of one cookie."""

    __slots__ = ("_pair_start",)

    def __init__(self, config: CookieConfig) -> None:
        self._pair_start = config.full_name.encode("ascii") + b"="

    def find(self, headers: Iterable[bytes]) -> list[bytes]:
        """Give all values that the Cookie headers of one request hold for this name, in their order."""
        start = self._pair_start
        values: list[bytes] = []
        for header in headers:
            if header.find(start) >= 0:  # bytes `in` bytes first tries for a number, with an exception inside
                for pair in header.split(b";"):
                    stripped = pair.strip(b" \t")
                    if stripped.startswith(start):
                        values.append(stripped[len(start) :])
        return values


class CookieWriter:
    """Writes Set-Cookie values with one set of attributes, which a deletion has to repeat (RFC 6265, section 5.3)."""

    __slots__ = ("_attributes", "_start", "clear")

    clear: str
    """The value that deletes the cookie."""

    def __init__(self, config: CookieConfig) -> None:
        attributes = [f"Path={config.path}"]
        if config.domain is not None:
            attributes.append(f"Domain={config.domain}")
        attributes += [
            attribute
            for attribute, present in (
                ("Secure", config.secure),
                ("HttpOnly", config.http_only),
                (f"SameSite={config.same_site.capitalize()}", True),
                ("Partitioned", config.partitioned),
            )
            if present
        ]
        self._attributes = "; ".join(attributes)
        self._start = config.full_name + "="
        expired = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        self.clear = _printable(f"{self._start}; {expired}; {self._attributes}")

    def issue(self, token: str, max_age_s: int | None) -> str:
        """Give the value that sets the cookie, for `max_age_s` seconds or, with None, for the browser's session."""
        if max_age_s is None:
            return _printable(f"{self._start}{token}; {self._attributes}")
        return _printable(f"{self._start}{token}; Max-Age={min(max_age_s, _MAX_AGE_S)}; {self._attributes}")


def _printable(header: str) -> str:
    if not header.isascii() or not header.isprintable():
        msg = "a Set-Cookie header would hold control characters or non-ASCII"
        raise ConfigurationError(msg)
    return header
