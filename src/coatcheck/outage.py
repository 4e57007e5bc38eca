"""The answer while the store can't be reached, and the log line that says why."""

from __future__ import annotations

import logging
import time
from typing import Final

from coatcheck.errors import StoreUnavailable

logger: Final = logging.getLogger("coatcheck")

BODY: Final = b"The service is temporarily unavailable. Please try again in a moment.\n"
HEADERS: Final = (
    ("content-type", "text/plain; charset=utf-8"),
    ("content-length", str(len(BODY))),
    ("cache-control", "no-store"),
    ("retry-after", "5"),
)
"""503, never a silent logout (RFC 9110, section 15.6.4)."""

_LOG_EVERY_S: Final = 5.0


class OutageLog:
    """Says why requests are answered by 503, but not once for each of them."""

    def __init__(self) -> None:
        self._next_line_at = float("-inf")
        self._unsaid = 0

    def report(self, error: StoreUnavailable) -> None:
        """Log an error now, or count it until the next line is due."""
        now = time.monotonic()
        if now < self._next_line_at:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more since the last line)" if self._unsaid else ""
        logger.error("The store can't be used, so a request is answered by 503: %s%s", error, more)
        self._next_line_at, self._unsaid = now + _LOG_EVERY_S, 0


def log_loss(error: StoreUnavailable) -> None:
    """Say that a request that had failed already could not be tidied up after either."""
    logger.error("A request failed, and the store could not end its session or keep its last changes: %s", error)
