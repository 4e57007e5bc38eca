"""One log line for those who develop over plain http and wonder where their cookie goes."""

from __future__ import annotations

import logging
import re
from typing import Final

from coatcheck.config import CookieConfig

logger: Final = logging.getLogger("coatcheck")

_THIS_MACHINE: Final = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE)
_PLAIN: Final = frozenset({"http", "ws"})


class PlainHttpNotice:
    """Says once, of the first cookie that is set, that it is `Secure` and most clients won't send it back.

    Only of requests for this very machine: elsewhere a proxy may speak https for the application.
    """

    __slots__ = ("_cookie", "is_due")

    is_due: bool
    """Whether no cookie was looked at yet. Nothing is done for the requests that come after."""

    def __init__(self, cookie: CookieConfig) -> None:
        self._cookie = cookie
        self.is_due = cookie.secure

    def look_at(self, scheme: str, host: str) -> None:
        """Look at a request that is answered with the cookie.

        Args:
            scheme: of the request's URL.
            host: the Host header.
        """
        if not self.is_due:
            return
        self.is_due = False
        if scheme in _PLAIN and _THIS_MACHINE.fullmatch(host):
            logger.warning(
                "The cookie %s is Secure, and was set over plain http, at %s. Some browsers send it back from there; "
                "Safari and HTTP libraries don't, so nobody stays logged in. For development set "
                "CookieConfig(secure=False); with Flask and Quart, COATCHECK_COOKIE_SECURE = False",
                self._cookie.full_name,
                host,
            )
