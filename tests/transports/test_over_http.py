"""Real requests over HTTP to real servers, on every store: uvicorn for ASGI, a threading server for WSGI."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from serving import serve_asgi, serve_wsgi

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.asgi import SessionMiddleware as ASGISessionMiddleware
from coatcheck.wsgi import ENVIRON_KEY
from coatcheck.wsgi import SessionMiddleware as WSGISessionMiddleware

KEY = "a secret key for tests, 32 bytes or more"
AT_ONCE = 50


class Gate:
    """Lets everybody who waits at it go on together."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()


def act(session: Any, path: str, query: dict[str, list[str]]) -> None:
    """What both applications do, apart from waiting."""
    if path == "/set":
        session[query["key"][0]] = query["value"][0]
    elif path == "/add":
        session.increment("n")
        session.append("log", query["value"][0])
    elif path == "/out":
        session.destroy()
    elif path == "/slow":
        session["user"] = "back from the dead"


def asgi_app(gate: Gate) -> Any:
    import asyncio

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": kind + ".complete"})
                if kind == "lifespan.shutdown":
                    return
        session = scope["session"]
        act(session, scope["path"], parse_qs(scope["query_string"].decode()))
        if scope["path"] == "/slow":
            gate.reached.set()
            await asyncio.to_thread(gate.opened.wait, 30)
        body = json.dumps(dict(session)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


def wsgi_app(gate: Gate) -> Any:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        session = environ[ENVIRON_KEY]
        act(session, environ["PATH_INFO"], parse_qs(environ["QUERY_STRING"]))
        if environ["PATH_INFO"] == "/slow":
            gate.reached.set()
            gate.opened.wait(30)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(dict(session)).encode()]

    return app


@contextmanager
def asgi_site(store_url: str, gate: Gate) -> Iterator[str]:
    sessions = Sessions(store_url, secret_keys=[KEY], cookie=CookieConfig(secure=False))
    with serve_asgi(ASGISessionMiddleware(asgi_app(gate), sessions)) as url:
        yield url


@contextmanager
def wsgi_site(store_url: str, gate: Gate) -> Iterator[str]:
    sessions = SyncSessions(store_url, secret_keys=[KEY], cookie=CookieConfig(secure=False))
    with serve_wsgi(WSGISessionMiddleware(wsgi_app(gate), sessions)) as url:
        yield url
    sessions.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture(params=[asgi_site, wsgi_site], ids=["asgi", "wsgi"])
def client(request: pytest.FixtureRequest, store_url: str, gate: Gate) -> Iterator[httpx.Client]:
    with (
        request.param(store_url, gate) as url,
        httpx.Client(base_url=url, timeout=30, limits=httpx.Limits(max_connections=AT_ONCE)) as client,
    ):
        yield client


def test_fifty_requests_at_once_that_change_one_session_all_count(client: httpx.Client) -> None:
    client.get("/set?key=user&value=alice")

    def change(number: int) -> None:
        client.get(f"/set?key=key{number}&value={number}").raise_for_status()
        client.get(f"/add?value={number}").raise_for_status()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(change, range(AT_ONCE)))
    session = client.get("/").json()
    assert sorted(session.pop("log"), key=int) == [str(number) for number in range(AT_ONCE)]
    assert session == {"user": "alice", "n": AT_ONCE} | {f"key{number}": str(number) for number in range(AT_ONCE)}


def test_a_logout_is_not_undone_by_a_request_that_was_under_way(client: httpx.Client, gate: Gate) -> None:
    client.get("/set?key=user&value=alice")
    cookies = dict(client.cookies)
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(client.get, "/slow")
        assert gate.reached.wait(30)
        out = httpx.get(client.base_url.join("/out"), cookies=cookies)
        assert "Max-Age=0" in out.headers["set-cookie"]
        gate.opened.set()
        answer = slow.result()
    assert answer.status_code == 200
    assert answer.json()["user"] == "back from the dead"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert httpx.get(client.base_url.join("/"), cookies=cookies).json() == {}
