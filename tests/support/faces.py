"""Both façades behind one blocking face, so that a promise is tested once for async and sync code."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, ClassVar, Literal

from coatcheck import Session, Sessions, SyncSession, SyncSessions

KEY = "a secret key for tests, 32 bytes or more"
OLD_KEY = "an older secret key for tests, also long enough"

Kind = Literal["async", "sync"]
AnySession = Session | SyncSession


class Face:
    """Sessions, called without `await` whatever they are. Closed by `Face.close_all()` after each test."""

    _open: ClassVar[list[Face]] = []

    def __init__(self, kind: Kind, store: Any, **settings: Any) -> None:
        self._open.append(self)
        self._runner = asyncio.Runner()
        settings.setdefault("secret_keys", [KEY])
        self.sessions: Any = (Sessions if kind == "async" else SyncSessions)(store, **settings)

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

    def save(self, session: AnySession) -> None:
        self.run(session.save())

    def new(self, **values: Any) -> str:
        """Store a new session; give its token."""
        session = self.request()
        session.update(values)
        self.respond(session)
        return session.token

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
