"""Lines for logs and terminals that others have a part in: by what they send, and by how often."""

from __future__ import annotations

import logging
import time
from typing import Final

logger: Final = logging.getLogger("coatcheck")

_EVERY_S: Final = 5.0


def printable(text: str) -> str:
    """Show the characters that move a cursor, begin a line or hide others, instead of letting them do so."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class RareLine:
    """A line that is written at most once every five seconds, with how often there was cause for it in between.

    Args:
        level: how grave it is, as `logging` has it.
        message: the line, with `%s` or the like for each of the values.
    """

    def __init__(self, level: int, message: str) -> None:
        self._level = level
        self._message = message + "%s"
        self._next_at = float("-inf")
        self._unsaid = 0

    def write(self, *values: object) -> None:
        """Write the line now, or count it until the next one is due."""
        now = time.monotonic()
        if now < self._next_at:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more since the last line)" if self._unsaid else ""
        logger.log(self._level, self._message, *values, more)
        self._next_at, self._unsaid = now + _EVERY_S, 0
