"""A small application that uses its session as any would, for ASGI and for WSGI, and how to call it in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BytesIO
from typing import Any

from coatcheck import Session, SyncSession, wsgi

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each.lower() == name]

    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


# --- the application ----------------------------------------------------------------------------------------------


def _act(session: Session | SyncSession, path: str) -> bool:
    """Do what the path asks for. Whether the session is to be saved before the answer is made."""
    _, action, argument = path.split("/")
    if action == "login":
        session.login(argument)
    elif action == "logout":
        session.logout()
    elif action == "visit" and session.user_id is not None:
        session.increment("visits")
        session.append("numbers", int(argument))
    return action in ("login", "visit")


def _shown(session: Session | SyncSession) -> bytes:
    shown = {
        "user": session.user_id,
        "visits": session.get("visits", 0),
        "numbers": session.get("numbers", []),
    }
    return json.dumps(shown).encode()


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    session: Session = scope["session"]
    if _act(session, scope["path"]):
        await session.save()
    body = _shown(session)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def wsgi_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    session: SyncSession = environ[wsgi.ENVIRON_KEY]
    if _act(session, environ["PATH_INFO"]):
        session.save()
    start_response("200 OK", [])
    return [_shown(session)]


# --- calling it ---------------------------------------------------------------------------------------------------


async def call_asgi(app: Any, path: str, cookie: str | None) -> Answer:
    """Send a request as an ASGI server would. What the application raises is an answer of 500, as there."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if cookie is None else [(b"cookie", cookie.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "client": ("127.0.0.1", 1)}
    try:
        await app(scope, None, send)
    except Exception as error:  # noqa: BLE001
        return _failure(error)
    names_and_values = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
    return Answer(sent[0]["status"], names_and_values, b"".join(message["body"] for message in sent[1:]))


def call_wsgi(app: Callable[..., Iterable[bytes]], path: str, cookie: str | None) -> Answer:
    """Send a request as a WSGI server would."""
    started: list[tuple[int, Headers]] = []
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "REMOTE_ADDR": "127.0.0.1", "wsgi.input": BytesIO()}
    if cookie is not None:
        environ["HTTP_COOKIE"] = cookie

    def start_response(status: str, headers: Headers, _exc_info: object = None) -> None:
        started.append((int(status[:3]), headers))

    try:
        body: Any = app(environ, start_response)
        content = b"".join(body)
        if hasattr(body, "close"):
            body.close()
    except Exception as error:  # noqa: BLE001
        return _failure(error)
    return Answer(*started[-1], content)


def _failure(error: Exception) -> Answer:
    return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, body=f"raised {type(error).__name__}: {error}".encode())
