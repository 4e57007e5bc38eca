"""Logging a test client in without a login page: `logged_in`, and `alogged_in` for async tests.

The session is made and stored by the same rules as any other. Where a client keeps its cookies is known to
`coatcheck.testing.clients`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from coatcheck.session import BaseSession
from coatcheck.sessions import Sessions, SyncSessions
from coatcheck.testing.clients import DjangoClient, KnownClient, client_of

ClientT = TypeVar("ClientT")

_OK = 200


def logged_in(
    client: ClientT, user_id: str, /, sessions: Sessions | SyncSessions | None = None, **values: Any
) -> ClientT:
    """Log a test client in: make a session of the user, and give the client its cookie.

    Works in sync and async tests. With `Sessions`, what is asynchronous runs in an event loop of its own; in an async
    test, `alogged_in` uses the test's.

    Args:
        client: a test client of Starlette, FastAPI, Litestar, Flask, Quart, Django or aiohttp, or an httpx client.
            Over http it goes on to send cookies that are Secure, as browsers do at localhost.
        user_id: who is logged in, as in `session.login`. For Django, the primary key of a user, who is then
            `request.user`.
        sessions: the application's; to be left out for Flask, Quart and Django, where they are found.
        values: what else the session holds.

    Returns:
        The same client. A session that it had before is forgotten, as if on another device.

    Raises:
        TypeError: the client is of a kind that is not known, or `sessions` is needed.
        ValueError: the cookie is not for the host that the client talks to.
        CoatcheckError: the session can't be stored.

    Example:
        client = logged_in(TestClient(app), "alice", sessions, theme="dark")
        assert client.get("/profile").status_code == 200
    """
    known = client_of(client)
    if sessions is None and isinstance(known, DjangoClient):
        known.log_in(user_id, values)
        return client
    used = _sessions_for(known, sessions)
    if isinstance(used, SyncSessions):
        known.keep(used.config.cookie, _store(used, user_id, values))
    else:
        known.keep(used.config.cookie, _store_elsewhere(used, user_id, values))
    return client


async def alogged_in(
    client: ClientT, user_id: str, /, sessions: Sessions | SyncSessions | None = None, **values: Any
) -> ClientT:
    """Do what `logged_in` does in the event loop of an async test.

    It makes a difference to what belongs to this loop: a Redis client of the application's own, and handlers of events.
    """
    known = client_of(client)
    if sessions is None and isinstance(known, DjangoClient):
        await known.alog_in(user_id, values)
        return client
    used = _sessions_for(known, sessions)
    if isinstance(used, SyncSessions):
        known.keep(used.config.cookie, _store(used, user_id, values))
    else:
        known.keep(used.config.cookie, await _store_async(used, user_id, values))
    return client


def _sessions_for(known: KnownClient, sessions: object) -> Sessions | SyncSessions:
    """Give the sessions to use. Raises TypeError."""
    used: object = known.sessions() if sessions is None else sessions
    if not isinstance(used, Sessions | SyncSessions):
        found = "none are found by this client" if used is None else f"got a {type(used).__name__}"
        msg = f"sessions: expected the Sessions or SyncSessions that the application uses; {found}"
        raise TypeError(msg)
    return used


def _store(sessions: SyncSessions, user_id: str, values: Mapping[str, Any]) -> str:
    session = sessions.begin([])
    _log_in(session, user_id, values)
    sessions.conclude(session, _OK)
    return session.token


async def _store_async(sessions: Sessions, user_id: str, values: Mapping[str, Any]) -> str:
    session = sessions.begin([])
    _log_in(session, user_id, values)
    await sessions.conclude(session, _OK)
    return session.token


def _log_in(session: BaseSession, user_id: str, values: Mapping[str, Any]) -> None:
    session.login(user_id)
    session.update(values)


def _store_elsewhere(sessions: Sessions, user_id: str, values: Mapping[str, Any]) -> str:
    """Store a session in an event loop of its own, in a thread of its own.

    In this thread one may be running already; and if none is, running one would take away what a test has set as the
    current loop. Afterwards what was opened for this loop is closed, because nobody could do so later.
    """

    async def store() -> str:
        try:
            return await _store_async(sessions, user_id, values)
        finally:
            await sessions.close()

    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, "coatcheck-login") as thread:
        return thread.submit(context.run, asyncio.run, store()).result()
