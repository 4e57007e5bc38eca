"""One session, served by a Go site and a Python site at the same time: real HTTP, real redistore, one Valkey."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import redis
from servers import Server
from serving import serve_asgi, serve_wsgi

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.asgi import SessionMiddleware as ASGISessionMiddleware
from coatcheck.interop.redistore import RedistoreStore, SyncRedistoreStore
from coatcheck.stores.cookie import SyncCookieStore
from coatcheck.wsgi import ENVIRON_KEY
from coatcheck.wsgi import SessionMiddleware as WSGISessionMiddleware

GoProgram = Callable[[str], Path]

NAME = "session-name"
KEYS = [bytes(range(32)), bytes(range(32, 64))]
MAX_AGE = timedelta(days=30)


def act(session: Any, path: str, query: dict[str, str]) -> Any:
    """What both kinds of Python site do."""
    match path:
        case "/visit":
            session.increment("visits")
        case "/set":
            session[query["key"]] = query["value"]
        case "/login":
            session.login(query["user"])
            session.update(authenticated=True, username=query["user"])
        case "/renew":
            session.renew()
        case "/flash":
            session.flash(query["message"], query.get("key", "message"))
        case "/flashes":
            return [list(flash) for flash in session.flashes()]
        case "/logout":
            session.logout()
        case "/user":
            return session.user_id
        case "/types":
            return {key: f"{type(value).__name__} {value}" for key, value in session.items()}
        case _:
            return dict(session)
    return None


def asgi_app() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": kind + ".complete"})
                if kind == "lifespan.shutdown":
                    return
        answer = act(scope["session"], scope["path"], _query(scope["query_string"].decode()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    return app


def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    answer = act(environ[ENVIRON_KEY], environ["PATH_INFO"], _query(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def _query(text: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(text).items()}


@contextmanager
def python_site(transport: str, url: str, serializer: Any) -> Iterator[str]:
    store: dict[str, Any] = {"key_pairs": KEYS, "serializer": serializer, "flash_categories": ["errors"]}
    settings: dict[str, Any] = {
        "cookie": CookieConfig(name=NAME, prefix="", secure=False),
        "idle_timeout": MAX_AGE,
        "lifetime": MAX_AGE,
    }
    if transport == "asgi":
        sessions = Sessions(RedistoreStore(url, **store), **settings)
        with serve_asgi(ASGISessionMiddleware(asgi_app(), sessions)) as site:
            yield site
    else:
        sync_sessions = SyncSessions(SyncRedistoreStore(url, **store), **settings)
        with serve_wsgi(WSGISessionMiddleware(wsgi_app, sync_sessions)) as site:
            yield site
        sync_sessions.close()


@contextmanager
def go_site(program: Path, port: int = 0, serializer: str = "gob", *, client_side: bool = False) -> Iterator[str]:
    config = {
        "Redis": f"127.0.0.1:{port}",
        "Keys": [key.hex() for key in KEYS],
        "Name": NAME,
        "KeyPrefix": "session_",
        "MaxAge": int(MAX_AGE.total_seconds()),
        "Serializer": serializer,
        "Client": client_side,
    }
    with subprocess.Popen([program, json.dumps(config)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@dataclass
class Browser:
    """A client of both sites, which share its cookies as two paths of one host would."""

    go_url: str
    python_url: str
    client: httpx.Client

    def go(self, path: str, **query: str) -> Any:
        answer = self.client.get(self.go_url + path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def python(self, path: str, **query: str) -> Any:
        return self.client.get(self.python_url + path, params=query).raise_for_status().json()

    @property
    def cookie(self) -> str | None:
        """The session's cookie. There must never be two."""
        cookies = [cookie.value for cookie in self.client.cookies.jar]
        assert len(cookies) <= 1
        return cookies[0] if cookies else None


@pytest.fixture(params=["gob", "json"])
def serializer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(running_servers: dict[str, Server]) -> Iterator[redis.Redis]:
    with redis.Redis(port=running_servers["valkey"].port) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["asgi", "wsgi"])
def browser(
    request: pytest.FixtureRequest,
    serializer: str,
    go_program: GoProgram,
    database: redis.Redis,
    running_servers: dict[str, Server],
) -> Iterator[Browser]:
    server = running_servers["valkey"]
    with (
        go_site(go_program("site/main.go"), server.port, serializer) as go_url,
        python_site(request.param, server.url, serializer) as python_url,
        httpx.Client(timeout=30) as client,
    ):
        yield Browser(go_url, python_url, client)


def go_keys(database: redis.Redis) -> list[bytes]:
    return sorted(key for key in database.scan_iter(b"session_*"))


@pytest.mark.parametrize("last", ["go", "python"])
def test_a_session_goes_from_go_to_python_and_back(browser: Browser, database: redis.Redis, last: str) -> None:
    """Log in on Go, visit on Python, flash on Python, read on Go, log out on either."""
    browser.go("/login", user="alice")
    assert browser.python("/profile") == {"authenticated": True, "username": "alice", "visits": 0}
    browser.python("/visit")
    browser.python("/flash", message="Welcome back")
    assert browser.go("/visit")["values"]["visits"].split()[1] == "2"
    assert browser.go("/flashes")["flashes"] == ["Welcome back"]
    assert browser.go("/flashes")["flashes"] is None
    assert browser.python("/profile") == {"authenticated": True, "username": "alice", "visits": 2}
    assert len(go_keys(database)) == 1
    if last == "go":
        browser.go("/logout", **{"max-age": "-1"})
    else:
        browser.python("/logout")
    assert go_keys(database) == []
    assert browser.cookie is None
    assert browser.go("/profile")["is_new"]
    assert browser.python("/profile") == {}


def test_a_session_goes_from_python_to_go_and_back(browser: Browser) -> None:
    browser.python("/login", user="alice")
    browser.python("/set", key="colour", value="green")
    seen = browser.go("/profile")
    assert not seen["is_new"]
    assert seen["values"]["username"] == "string alice"
    assert seen["values"]["authenticated"] == "bool true"
    browser.go("/set", key="colour", value="blue")
    assert browser.python("/user") == "alice"
    assert browser.python("/profile")["colour"] == "blue"


def test_flash_messages_and_their_categories_go_both_ways(browser: Browser) -> None:
    browser.go("/flash", message="from Go")
    browser.go("/flash", message="wrong", key="errors")
    browser.python("/flash", message="from Python")
    assert browser.python("/flashes") == [["from Go", "message"], ["from Python", "message"], ["wrong", "errors"]]
    assert browser.go("/flashes")["flashes"] is None
    browser.python("/flash", message="too late", key="errors")
    assert browser.go("/flashes")["flashes"] is None
    assert browser.go("/flashes", key="errors")["flashes"] == ["too late"]
    assert browser.python("/flashes") == []


@pytest.mark.parametrize("max_age", ["-1", "0"])
def test_a_session_that_go_deletes_is_gone_for_python(browser: Browser, database: redis.Redis, max_age: str) -> None:
    browser.python("/login", user="alice")
    cookie = browser.cookie
    browser.go("/logout", **{"max-age": max_age})
    assert go_keys(database) == []
    browser.client.cookies.set(NAME, cookie or "")
    assert browser.python("/profile") == {}


def test_a_login_on_python_leaves_go_nothing_under_the_old_id(browser: Browser, database: redis.Redis) -> None:
    browser.go("/set", key="cart", value="A-1")
    planted = browser.cookie
    browser.python("/login", user="alice")
    assert browser.cookie != planted
    assert len(go_keys(database)) == 1
    assert browser.go("/profile")["values"]["cart"] == "string A-1"
    answer = httpx.get(browser.go_url + "/profile", cookies={NAME: planted or ""}).json()
    assert answer["is_new"]
    assert answer["values"] == {}


def test_go_may_give_the_session_another_id(browser: Browser) -> None:
    browser.python("/login", user="alice")
    before = browser.cookie
    browser.go("/renew")
    assert browser.cookie != before
    assert browser.python("/user") == "alice"


def test_times_to_live_are_gos_max_age_whoever_writes(browser: Browser, database: redis.Redis) -> None:
    for site in (browser.go, browser.python, browser.go):
        site("/set", key="by", value=str(site))
        (key,) = go_keys(database)
        assert MAX_AGE.total_seconds() - 60 < database.ttl(key) <= MAX_AGE.total_seconds()


# --- what this mode can't promise, because Go overwrites what is there ------------------------------------------------


def test_go_overwrites_what_python_wrote_while_its_request_ran(browser: Browser) -> None:
    """As two requests of Go's do to each other. Between Python's requests nothing is lost, see test_redistore.py."""
    browser.go("/login", user="alice")
    cookies = {NAME: browser.cookie or ""}
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(httpx.get, browser.go_url + "/slow", cookies=cookies, timeout=30)
        browser.client.get(browser.go_url + "/wait-until-loaded")
        browser.python("/set", key="colour", value="green")
        browser.client.get(browser.go_url + "/go-on")
        assert slow.result().status_code == 200
    profile = browser.python("/profile")
    assert profile["slow"] == "went on"
    assert "colour" not in profile


def test_go_brings_back_a_session_that_python_ended_while_its_request_ran(browser: Browser) -> None:
    """As it does with a logout on Go."""
    browser.go("/login", user="alice")
    cookies = {NAME: browser.cookie or ""}
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(httpx.get, browser.go_url + "/slow", cookies=cookies, timeout=30)
        browser.client.get(browser.go_url + "/wait-until-loaded")
        browser.python("/logout")
        browser.client.get(browser.go_url + "/go-on")
        assert slow.result().status_code == 200
    answer = httpx.get(browser.go_url + "/profile", cookies=cookies).json()
    assert answer["values"]["username"] == "string alice"
    python_answer = httpx.get(browser.python_url + "/profile", cookies=cookies).json()
    assert python_answer["username"] == "alice"


def test_go_adopts_the_id_of_a_session_that_has_ended_and_python_does_not(browser: Browser) -> None:
    browser.python("/set", key="colour", value="green")
    ended = browser.cookie or ""
    browser.python("/logout")
    browser.client.cookies.set(NAME, ended)
    browser.python("/set", key="colour", value="blue")
    with httpx.Client(cookies={NAME: ended}) as other:
        assert other.get(browser.python_url + "/profile").json() == {}
        answer = other.get(browser.go_url + "/set", params={"key": "colour", "value": "red"}).json()
        assert answer["is_new"]
    assert httpx.get(browser.python_url + "/profile", cookies={NAME: ended}).json() == {"colour": "red"}


def test_python_does_not_follow_go_back_to_an_id_that_a_login_left(browser: Browser) -> None:
    """Go's late request brings the old ID back for Go, with what it knew; for Python it stays dead for the while."""
    browser.go("/set", key="cart", value="A-1")
    old = {NAME: browser.cookie or ""}
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(httpx.get, browser.go_url + "/slow", cookies=old, timeout=30)
        browser.client.get(browser.go_url + "/wait-until-loaded")
        browser.python("/login", user="alice")
        browser.client.get(browser.go_url + "/go-on")
        assert slow.result().status_code == 200
    assert "username" not in httpx.get(browser.go_url + "/profile", cookies=old).json()["values"]
    assert httpx.get(browser.python_url + "/profile", cookies=old).json() == {}
    assert browser.python("/user") == "alice"


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["gob"])
@pytest.mark.parametrize("change", ["/visit", "/renew", "/login"])
def test_go_finds_its_own_types_after_python_has_changed_the_session(browser: Browser, change: str) -> None:
    browser.go("/login", user="alice")
    before = browser.go("/types")["values"]
    browser.python(change, user="bob")
    after = browser.go("/profile")["values"]
    assert after["user_id"] == "int64 5"
    assert after["profile"] == "main.Profile {Alice -5}"
    assert after["int64(8)"] == "bool true"
    assert after["since"] == "time.Time 2024-05-06 07:08:09.123456789 +0000 UTC"
    changed = {"visits", "username", "_coatcheck"}
    assert {key: value for key, value in after.items() if key not in changed} == {
        key: value for key, value in before.items() if key not in changed
    }


@pytest.mark.parametrize("serializer", ["gob"])
def test_python_reads_gos_types_and_keys_by_name(browser: Browser) -> None:
    browser.go("/types")
    seen = browser.python("/types")
    assert seen["user_id"] == "GobInt 5"
    assert seen["profile"] == "GobStruct {'Name': 'Alice', 'Level': -5}"
    assert seen["int(42)"] == "int 43"
    assert seen["int64(8)"] == "bool True"


# --- gorilla's CookieStore --------------------------------------------------------------------------------------------


def test_a_session_of_gorillas_cookie_store_is_taken_over(go_program: GoProgram) -> None:
    sessions = SyncSessions(
        SyncCookieStore([b"k" * 32], gorilla_key_pairs=KEYS), cookie=CookieConfig(name=NAME, prefix="", secure=False)
    )
    with (
        go_site(go_program("site/main.go"), client_side=True) as go_url,
        serve_wsgi(WSGISessionMiddleware(wsgi_app, sessions)) as python_url,
        httpx.Client() as client,
    ):
        browser = Browser(go_url, python_url, client)
        browser.go("/login", user="alice")
        assert browser.python("/profile") == {"authenticated": True, "username": "alice", "visits": 0}
        cookie = browser.cookie or ""
        assert len(cookie) > 100
        browser.python("/visit")
        assert browser.python("/profile")["visits"] == 1
        assert browser.client.get(go_url + "/profile").status_code == 500  # and there is no way back
