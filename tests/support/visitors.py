"""Clients of `visited_app`, who know what every answer must be. No I/O: whoever drives them sends their requests.

A visitor logs in, reads and writes, and logs out, again and again. Each write has a number of its own, and the visitor
keeps a ledger of them: one that was acknowledged must be there once in every later answer; one that was answered by
503 may be there or not, and never twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count

from visited_app import Answer

_STEPS_PER_LOGIN = 30
_RETIRED_COOKIES = 4


class Verdict(Enum):
    RIGHT = "right"
    REFUSED = "refused"
    """503 with Retry-After."""
    WRONG = "wrong"


@dataclass(frozen=True)
class Loss:
    """Something that was acknowledged, and that the store has no more."""

    what: str
    acknowledged_at: float


@dataclass(frozen=True)
class Request:
    path: str
    cookie: str | None
    judge: Callable[[Answer], Verdict]
    writes: bool = False
    """Whether a right answer shows that the store takes writes."""


Requests = Generator[Request, Verdict, None]


@dataclass
class Ledger:
    """What one visitor has written since the last login."""

    logged_in_at: float | None = None
    acknowledged: dict[int, float] = field(default_factory=dict)
    unknown: set[int] = field(default_factory=set)
    """Written with an answer of 503: it may have happened, and may still."""


class Visitor:
    """One client. Its name is its identity, and nobody else's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.faults: list[str] = []
        self.losses: list[Loss] = []
        self.writes = 0
        """How many were acknowledged."""
        self._cookie: str | None = None
        self._retired: deque[tuple[str, float]] = deque(maxlen=_RETIRED_COOKIES)
        self._numbers = count()
        self._ledger = Ledger()

    def life(self) -> Requests:
        """Make requests without end."""
        while True:
            yield from self._log_in()
            for step in range(_STEPS_PER_LOGIN):
                if self._ledger.logged_in_at is None:
                    break  # the store has lost the session, which was noted
                yield self._write() if step % 3 == 0 else self._read()
            yield from self._log_out()
            yield from self._try_retired_cookies()

    def last_look(self) -> Requests:
        """See, when all is over, whether everything is there that must be and nothing that must not."""
        if self._ledger.logged_in_at is not None:
            yield from _until_answered(self._read)
        yield from self._try_retired_cookies()

    # --- requests -------------------------------------------------------------------------------------------------

    def _log_in(self) -> Requests:
        self._ledger = Ledger()
        yield from _until_answered(partial(self._request, f"/login/{self.name}", self._judge_login))

    def _log_out(self) -> Requests:
        cookie = self._cookie
        yield from _until_answered(lambda: self._request("/logout/", self._judge_logout))
        self._ledger = Ledger()
        if cookie is not None:
            self._retired.append((cookie, time.monotonic()))

    def _read(self) -> Request:
        return self._request("/profile/", self._judge_page)

    def _write(self) -> Request:
        number = next(self._numbers)
        self._ledger.unknown.add(number)
        return self._request(f"/visit/{number}", partial(self._judge_page, wrote=number))

    def _try_retired_cookies(self) -> Requests:
        for cookie, retired_at in list(self._retired):
            judge = partial(self._judge_retired, retired_at)
            yield from _until_answered(partial(Request, "/profile/", cookie, judge))

    def _request(self, path: str, judge: Callable[[Answer], Verdict]) -> Request:
        return Request(path, self._cookie, judge, writes=path.startswith(("/login/", "/visit/")))

    # --- answers --------------------------------------------------------------------------------------------------

    def _judge_login(self, answer: Answer) -> Verdict:
        verdict = self._accept(answer)
        if verdict is Verdict.RIGHT:
            self._ledger.logged_in_at = time.monotonic()
            return self._check(answer)
        return verdict

    def _judge_logout(self, answer: Answer) -> Verdict:
        verdict = self._accept(answer, may_end=True)
        if verdict is Verdict.RIGHT and (answer.json()["user"] is not None or self._cookie is not None):
            return self._wrong("still logged in after the logout", answer)
        return verdict

    def _judge_page(self, answer: Answer, wrote: int | None = None) -> Verdict:
        verdict = self._accept(answer)
        if verdict is not Verdict.RIGHT:
            return verdict
        if answer.json()["user"] is None:
            self._lost("session", self._ledger.logged_in_at)
            self._lost_writes(set(self._ledger.acknowledged))
            self._ledger.logged_in_at = None
            return verdict
        if wrote is not None:
            self._acknowledge({wrote})
            self.writes += 1
        return self._check(answer)

    def _judge_retired(self, retired_at: float, answer: Answer) -> Verdict:
        if answer.status == 200:
            user = answer.json()["user"]
            if user == self.name:
                self._lost("logout", retired_at)
            elif user is not None:
                return self._wrong("another's session", answer)
            return Verdict.RIGHT
        return self._refusal(answer)

    def _accept(self, answer: Answer, *, may_end: bool = False) -> Verdict:
        """Take the cookie as a browser does, and see whether it is an answer that may be."""
        had_cookie = self._cookie is not None
        for set_cookie in answer.header("set-cookie"):
            pair = set_cookie.partition(";")[0]
            self._cookie = None if "Max-Age=0" in set_cookie else pair
        if answer.status == 200:
            return Verdict.RIGHT
        if had_cookie and self._cookie is None and not may_end:
            return self._wrong("an error that clears the cookie", answer)
        return self._refusal(answer)

    def _refusal(self, answer: Answer) -> Verdict:
        if answer.status == 503 and answer.header("retry-after"):
            return Verdict.REFUSED
        return self._wrong(f"status {answer.status}", answer)

    def _check(self, answer: Answer) -> Verdict:
        """Compare a page with the ledger."""
        page = answer.json()
        numbers: list[int] = page["numbers"]
        if page["user"] != self.name:
            return self._wrong("another's session", answer)
        if len(set(numbers)) != len(numbers):
            return self._wrong("a write was applied twice", answer)
        if page["visits"] != len(numbers):
            return self._wrong("half of a write was applied", answer)
        ledger, present = self._ledger, set(numbers)
        if not present <= ledger.acknowledged.keys() | ledger.unknown:
            return self._wrong("a write that was never made in this session", answer)
        self._lost_writes(ledger.acknowledged.keys() - present)
        self._acknowledge(present & ledger.unknown)  # what was shown once must stay
        return Verdict.RIGHT

    def _acknowledge(self, numbers: set[int]) -> None:
        now = time.monotonic()
        self._ledger.unknown -= numbers
        self._ledger.acknowledged.update(dict.fromkeys(numbers, now))

    # --- what went wrong ------------------------------------------------------------------------------------------

    def _lost(self, what: str, acknowledged_at: float | None) -> None:
        self.losses.append(Loss(what, acknowledged_at or 0.0))

    def _lost_writes(self, numbers: set[int]) -> None:
        for number in numbers:
            self._lost("write", self._ledger.acknowledged.pop(number))
            self._ledger.unknown.add(number)

    def _wrong(self, what: str, answer: Answer) -> Verdict:
        ledger = self._ledger
        known = f"acknowledged {sorted(ledger.acknowledged)}, unknown {sorted(ledger.unknown)}"
        self.faults.append(f"{self.name}: {what}: {answer.status} {answer.body.decode()[:400]} ({known})")
        return Verdict.WRONG


def _until_answered(make: Callable[[], Request]) -> Requests:
    """Make a request again for as long as it is refused, as a user would."""
    while (yield make()) is Verdict.REFUSED:
        pass


def crowd(prefix: str, size: int) -> Iterator[Visitor]:
    return (Visitor(f"{prefix}-{number}") for number in range(size))
