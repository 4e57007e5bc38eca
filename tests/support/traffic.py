"""Traffic: many visitors at once, from asyncio or from threads, all of whose answers are judged and timed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from visited_app import Answer, asgi_app, call_asgi, call_wsgi, wsgi_app
from visitors import Loss, Request, Requests, Verdict, Visitor, crowd

from coatcheck import Sessions, SyncSessions, asgi, wsgi

KEY = "a secret key for tests, 32 bytes or more"
CLIENTS = 24
PAUSE_S = 0.02
"""Between two requests of one visitor, so that a refusal at once is not followed by a busy loop."""

PATIENCE_S = 15.0
"""How long to wait for what must happen soon, on a machine that is busy with other things."""

Kind = Literal["async", "sync"]


@dataclass(frozen=True)
class Return:
    """How the service came back after an outage. Times since the moment from which it was awaited, in ms."""

    first_ms: float
    """Until the first visitor's write was acknowledged."""
    all_ms: float
    """Until a write of every visitor was."""
    last_refusal_ms: float
    """Until the last 503. 0 if there was none."""


class Tally:
    """Counts answers, and lets others wait for some. May be used by any thread."""

    def __init__(self) -> None:
        self.verdicts: Counter[Verdict] = Counter()
        self.slowest_s = 0.0
        self.slowest_right_s = 0.0
        self._changed = threading.Condition()
        self._since = 0.0
        self._served: dict[str, float] = {}
        self._refused_at: float | None = None

    def enter(self, visitor: Visitor, request: Request, verdict: Verdict, began_at: float) -> None:
        now = time.monotonic()
        with self._changed:
            self.verdicts[verdict] += 1
            self.slowest_s = max(self.slowest_s, now - began_at)
            if verdict is Verdict.RIGHT:
                self.slowest_right_s = max(self.slowest_right_s, now - began_at)
            if began_at >= self._since:
                if verdict is Verdict.RIGHT and request.writes:
                    self._served.setdefault(visitor.name, now)
                elif verdict is Verdict.REFUSED:
                    self._refused_at = now
            self._changed.notify_all()

    def begin_return(self) -> None:
        """From now on the service is expected back."""
        with self._changed:
            self._since, self._served, self._refused_at = time.monotonic(), {}, None

    def wait_for_return(self, size: int) -> Return:
        """Wait until a write of each of so many visitors was acknowledged since `begin_return`."""
        self.wait_for(lambda: len(self._served) == size, "every visitor is served again")
        served, refused_at = self._served.values(), self._refused_at
        return Return(
            first_ms=(min(served) - self._since) * 1000,
            all_ms=(max(served) - self._since) * 1000,
            last_refusal_ms=0.0 if refused_at is None else (refused_at - self._since) * 1000,
        )

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE_S):
                msg = f"{what}: not so after {PATIENCE_S} s; {dict(self.verdicts)}"
                raise TimeoutError(msg)


@dataclass(frozen=True)
class Footprint:
    """What this process, or an event loop of it, holds on to."""

    open_files: int
    threads: int
    tasks: int
    resident_kib: int


class Traffic:
    """Visitors at work, from entry until `stop`. `AsyncTraffic` and `SyncTraffic` say how."""

    kind: Kind

    def __init__(self, url: str, size: int = CLIENTS) -> None:
        self.url = url
        self.tally = Tally()
        self.visitors = list(crowd(self.kind, size))
        self._crash: list[BaseException] = []

    @property
    def writes(self) -> int:
        """How many writes were acknowledged."""
        return sum(visitor.writes for visitor in self.visitors)

    @property
    def faults(self) -> list[str]:
        """What was wrong with answers."""
        return [fault for visitor in self.visitors for fault in visitor.faults] + [repr(error) for error in self._crash]

    @property
    def losses(self) -> list[Loss]:
        return [loss for visitor in self.visitors for loss in visitor.losses]

    def count(self, verdict: Verdict) -> int:
        return self.tally.verdicts[verdict]

    def wait_for_count(self, verdict: Verdict, goal: int) -> None:
        """Wait until there were so many answers of a kind."""
        self.tally.wait_for(lambda: self.count(verdict) >= goal, f"{goal} answers that are {verdict.value}")

    def wait_for_return(self) -> Return:
        return self.tally.wait_for_return(len(self.visitors))

    def start(self) -> None:
        """Begin, and wait until everybody is logged in and at work."""
        raise NotImplementedError

    def stop(self) -> None:
        """Let every request end, look whether the store holds what it must, and close everything."""
        raise NotImplementedError

    def tasks(self) -> int:
        """How many tasks its event loop has."""
        return 0

    def footprint(self) -> Footprint:
        return Footprint(
            open_files=len(list(Path("/proc/self/fd").iterdir())),
            threads=threading.active_count(),
            tasks=self.tasks(),
            resident_kib=int(Path("/proc/self/statm").read_text().split()[1]) * 4,
        )

    def __enter__(self) -> Self:
        try:
            self.start()
            self.tally.begin_return()
            self.wait_for_return()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class AsyncTraffic(Traffic):
    """Through the ASGI middleware, each visitor a task of one event loop."""

    kind: Kind = "async"

    def __init__(self, url: str, size: int = CLIENTS) -> None:
        super().__init__(url, size)
        self._sessions = Sessions(url, secret_keys=[KEY])
        self._app: Any = asgi.SessionMiddleware(asgi_app, self._sessions)
        self._loop = asyncio.new_event_loop()
        self._is_over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="async traffic")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._is_over.set)
            self._thread.join()

    def tasks(self) -> int:
        async def count_tasks() -> int:
            return len(asyncio.all_tasks()) - 1

        return asyncio.run_coroutine_threadsafe(count_tasks(), self._loop).result(PATIENCE_S)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._visit())
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            self._crash.append(error)

    async def _visit(self) -> None:
        async with asyncio.TaskGroup() as group:
            for visitor in self.visitors:
                group.create_task(self._accompany(visitor))
        await self._sessions.close()

    async def _accompany(self, visitor: Visitor) -> None:
        await self._send_all(visitor, visitor.life(), until_over=True)
        await self._send_all(visitor, visitor.last_look(), until_over=False)

    async def _send_all(self, visitor: Visitor, requests: Requests, *, until_over: bool) -> None:
        request = next(requests, None)
        last_moment = _last_moment(until_over=until_over)
        while request is not None and not (until_over and self._is_over.is_set()):
            began_at = _now(last_moment)
            answer: Answer = await call_asgi(self._app, request.path, request.cookie)
            verdict = request.judge(answer)
            self.tally.enter(visitor, request, verdict, began_at)
            await asyncio.sleep(PAUSE_S)
            request = _following(requests, verdict)


class SyncTraffic(Traffic):
    """Through the WSGI middleware, each visitor a thread."""

    kind: Kind = "sync"

    def __init__(self, url: str, size: int = CLIENTS) -> None:
        super().__init__(url, size)
        self._sessions = SyncSessions(url, secret_keys=[KEY])
        self._app = wsgi.SessionMiddleware(wsgi_app, self._sessions)
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._accompany, args=[visitor], name=visitor.name) for visitor in self.visitors
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._sessions.close()

    def _accompany(self, visitor: Visitor) -> None:
        try:
            self._send_all(visitor, visitor.life(), until_over=True)
            self._send_all(visitor, visitor.last_look(), until_over=False)
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            self._crash.append(error)

    def _send_all(self, visitor: Visitor, requests: Requests, *, until_over: bool) -> None:
        request = next(requests, None)
        last_moment = _last_moment(until_over=until_over)
        while request is not None and not (until_over and self._is_over.is_set()):
            began_at = _now(last_moment)
            verdict = request.judge(call_wsgi(self._app, request.path, request.cookie))
            self.tally.enter(visitor, request, verdict, began_at)
            time.sleep(PAUSE_S)
            request = _following(requests, verdict)


def _last_moment(*, until_over: bool) -> float:
    """Give when a visitor has to be done. Traffic has no end, a last look has."""
    return float("inf") if until_over else time.monotonic() + PATIENCE_S


def _now(last_moment: float) -> float:
    now = time.monotonic()
    if now > last_moment:
        msg = "the store could not be looked at when all was over"
        raise TimeoutError(msg)
    return now


def _following(requests: Requests, verdict: Verdict) -> Any:
    try:
        return requests.send(verdict)
    except StopIteration:
        return None


def traffic(kind: Kind, url: str, size: int = CLIENTS) -> Traffic:
    return AsyncTraffic(url, size) if kind == "async" else SyncTraffic(url, size)
