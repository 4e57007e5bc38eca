"""Both façades behind one blocking face, so that a promise is tested once for async and sync code."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, ClassVar, Literal

from coatcheck import Session, Sessions, SyncSession, SyncSessions
from coatcheck.testing import ManualClock

KEY = "a secret key for tests, 32 bytes or more"
OLD_KEY = "an older secret key for tests, also long enough"

Kind = Literal["async", "sync"]
AnySession = Session | SyncSession


class Face:
    """Sessions, called without `await` whatever they are. Closed by `Face.close_all()` after each test."""

    _open: ClassVar[list[Face]] = []

    def __init__(self, kind: Kind, store: Any, **settings: Any) -> None:
        self.kind = kind
        settings.setdefault("secret_keys", [KEY])
        self.sessions: Any = (Sessions if kind == "async" else SyncSessions)(store, **settings)
        self._runner = asyncio.Runner()
        self._open.append(self)

    def run(self, result: Any) -> Any:
        """Wait for what a method gave, if it has to be awaited."""
        if not inspect.isawaitable(result):
            return result

        async def wait() -> Any:
            return await result

        return self._runner.run(wait())

    def request(self, token: str | None = None) -> AnySession:
        """Begin a request that carries this token, and load its session."""
        name = self.sessions.config.cookie.full_name
        session: AnySession = self.sessions.begin([] if token is None else [f"{name}={token}".encode()])
        self.run(session.load())
        return session

    def respond(self, session: AnySession, status: int = 200) -> str | None:
        """End the request; give the Set-Cookie value."""
        set_cookie: str | None = self.run(self.sessions.conclude(session, status))
        return set_cookie

    def run_steps(self, steps: Any) -> Any:
        """Carry out steps of the rules."""
        return self.run(self.sessions.run(steps))

    def listed(self, infos: Any) -> list[Any]:
        """Collect what an iterator or async iterator gives."""
        if not hasattr(infos, "__aiter__"):
            return list(infos)

        async def collect() -> list[Any]:
            return [info async for info in infos]

        return list(self.run(collect()))

    def conclude_together(self, sessions: list[AnySession]) -> list[Any]:
        """End many requests at the same time, in tasks or in threads. Gives their cookies, or what was raised."""
        if self.kind == "async":

            async def conclude_all() -> list[Any]:
                return await asyncio.gather(
                    *(self.sessions.conclude(session, 200) for session in sessions), return_exceptions=True
                )

            return list(self.run(conclude_all()))

        def conclude(session: AnySession) -> Any:
            try:
                return self.sessions.conclude(session, 200)
            except Exception as error:  # noqa: BLE001
                return error

        with ThreadPoolExecutor(len(sessions)) as threads:
            return list(threads.map(conclude, sessions))

    def everything(self) -> bytes:
        """Give all that the store holds, in one piece."""
        cursor, held = "", b""
        while True:
            keys, cursor = self.run(self.sessions.store.scan(cursor, 100))
            if keys:
                held += b"".join(data or b"" for data in self.run(self.sessions.store.load(*keys)))
            if not cursor:
                return held

    def save(self, session: AnySession) -> None:
        self.run(session.save())

    def new(self, **values: Any) -> str:
        """Store a new session; give its token."""
        session = self.request()
        session.update(values)
        self.respond(session)
        return session.token

    def use_hourly(self, token: str, clock: ManualClock, hours: int) -> str:
        """Read the session once in each of so many hours, as its client would; give the last token."""
        for _ in range(hours):
            clock.advance(timedelta(hours=1))
            session = self.request(token)
            session.get("anything")
            self.respond(session)
            token = session.token
        return token

    def stored(self, token: str) -> dict[str, Any] | None:
        """Give what the store holds for this token, or None."""
        session = self.request(token)
        return None if session.is_new else dict(session)

    def revoke(self, token: str) -> None:
        """End the session from elsewhere."""
        session = self.request(token)
        session.destroy()
        self.respond(session)

    @classmethod
    def close_all(cls) -> None:
        while cls._open:
            face = cls._open.pop()
            face.run(face.sessions.close())
            face._runner.close()
