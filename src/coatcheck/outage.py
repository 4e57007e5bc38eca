"""What becomes of requests while the store can't be reached, and the log line that says why."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.log_lines import RareLine
from coatcheck.mounting import is_below

WhileDown: TypeAlias = Literal["refuse", "continue"]

BODY: Final = b"The service is temporarily unavailable. Please try again in a moment.\n"
HEADERS: Final = (
    ("content-type", "text/plain; charset=utf-8"),
    ("content-length", str(len(BODY))),
    ("cache-control", "no-store"),
    ("retry-after", "5"),
)
"""503, never a silent logout (RFC 9110, section 15.6.4)."""


class Routes:
    """Which requests go on as nobody's while the store is out of reach.

    Args:
        while_down: "refuse" answers those that need their session by 503, "continue" lets them go on without. For
            some of the paths, a mapping of paths to these words: the longest that the request's begins with counts,
            and where none does, "refuse".

    Raises:
        ConfigurationError: it is neither.
    """

    def __init__(self, while_down: WhileDown | Mapping[str, WhileDown]) -> None:
        rules = dict(while_down) if isinstance(while_down, Mapping) else {"/": while_down}
        for path, rule in rules.items():
            if rule not in get_args(WhileDown) or not path.startswith("/"):
                msg = f"while_down: expected 'refuse', 'continue' or {{'/path': one of these}}, got {path!r}: {rule!r}"
                raise ConfigurationError(msg)
            if any(each in path for each in "*{<"):
                msg = f"while_down: a path stands for itself and all below it; write it without patterns, not {path!r}"
                raise ConfigurationError(msg)
        self._rules = sorted(rules.items(), key=lambda each: len(each[0]), reverse=True)
        self.any_goes_on = "continue" in rules.values()
        """Whether there are any for which `go_on` is true."""

    def go_on(self, path: str) -> bool:
        """Tell whether a request for this path goes on."""
        if not self.any_goes_on:
            return False
        for start, rule in self._rules:
            if is_below(path, start):
                return rule == "continue"
        return False


class OutageLog:
    """Says why requests fare badly, but not once for each of them.

    Args:
        message: the line, with `%s` for what becomes of the request and for the error.
    """

    def __init__(self, message: str = "The store can't be used, so a request %s: %s") -> None:
        self._line = RareLine(logging.ERROR, message)

    def report(self, error: StoreUnavailable, outcome: str = "is answered by 503") -> None:
        """Log an error now, or count it until the next line is due."""
        self._line.write(outcome, error)

    def went_on(self, error: StoreUnavailable | None) -> None:
        """Log why a request went on without its session, if it did: `outage` of its working copy."""
        if error is not None:
            self.report(error, "goes on without its session")


_LOSSES: Final = OutageLog("A request %s, and the store could not end its session or keep its last changes: %s")
"""One for the process: who fails after a failure has no more to say than the log of outages has said."""


def log_loss(error: StoreUnavailable) -> None:
    """Say that a request that had failed already could not be tidied up after either."""
    _LOSSES.report(error, "failed")
