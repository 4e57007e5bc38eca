"""Logging in by the helper: with every store, whatever event loop runs, and what is refused."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import redis.asyncio
import werkzeug.test
from greeting_sites import FlaskSite, QuartSite, WerkzeugSite
from servers import Server

from coatcheck import CookieConfig, Events, Sessions, SyncSessions, asgi
from coatcheck.errors import UnsupportedValue
from coatcheck.stores.redis import RedisStore
from coatcheck.testing import alogged_in, logged_in

KEY = "a secret key for tests, 32 bytes or more"


def make_sessions(store: Any = "memory://", **settings: Any) -> Sessions:
    return Sessions(store, secret_keys=[KEY], **settings)


async def who(scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(scope["session"].user_id).encode()})


def client_of(sessions: Sessions, **options: Any) -> httpx.AsyncClient:
    options.setdefault("base_url", "https://shop.test")
    return httpx.AsyncClient(transport=httpx.ASGITransport(asgi.SessionMiddleware(who, sessions)), **options)


# --- stores and event loops -------------------------------------------------------------------------------------------


def test_every_store_works_before_and_while_an_event_loop_runs(store_url: str) -> None:
    sessions = make_sessions(store_url)
    client = logged_in(client_of(sessions), "alice", sessions)

    async def use() -> list[str]:
        first = (await client.get("/")).text
        logged_in(client, "bob", sessions)
        second = (await client.get("/")).text
        await alogged_in(client, "carol", sessions)
        third = (await client.get("/")).text
        await sessions.close()
        return [first, second, third]

    assert asyncio.run(use()) == ["alice", "bob", "carol"]


@pytest.mark.anyio
async def test_a_redis_client_of_the_applications_own_stays_usable(running_servers: dict[str, Server]) -> None:
    own = redis.asyncio.Redis(port=next(iter(running_servers.values())).port)
    await own.ping()  # from now on its connection belongs to this event loop
    sessions = make_sessions(RedisStore(own))
    async with client_of(sessions) as client:
        await alogged_in(client, "alice", sessions)
        assert (await client.get("/")).text == "alice"
    assert await own.ping()
    await sessions.close()
    await own.aclose()


@pytest.mark.anyio
async def test_handlers_of_events_run_in_the_event_loop_of_an_async_test() -> None:
    loops: list[object] = []

    async def on_login(_event: Any) -> None:
        loops.append(asyncio.get_running_loop())

    sessions = make_sessions(events=Events(on_login=on_login))
    async with client_of(sessions) as client:
        await alogged_in(client, "alice", sessions)
    assert loops == [asyncio.get_running_loop()]


def test_a_sync_test_keeps_its_current_event_loop_and_gets_no_thread() -> None:
    sessions = make_sessions()
    threads = threading.active_count()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        logged_in(client_of(sessions), "alice", sessions)
        assert asyncio.get_event_loop_policy().get_event_loop() is loop
        assert threading.active_count() == threads
    finally:
        asyncio.set_event_loop(None)
        loop.close()


# --- sessions that are found, and values ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FlaskSite, QuartSite])
def test_flask_and_quart_know_their_sessions_by_themselves(kind: Any) -> None:
    site = kind(kind.makes("memory://", secret_keys=[KEY]))
    site.call(logged_in, site.client, "alice")
    assert site.visit() == "alice None"
    site.close()


def test_values_may_have_the_names_of_the_arguments() -> None:
    site = WerkzeugSite(SyncSessions("memory://", secret_keys=[KEY]))
    logged_in(site.client, "alice", site.sessions, user_id=7, client="mobile")
    with site.sessions.open(site.tokens[0]) as session:
        assert dict(session) == {"user_id": 7, "client": "mobile"}
    site.close()


def test_the_cookie_is_for_the_path_and_domain_that_are_configured() -> None:
    sessions = make_sessions(cookie=CookieConfig(path="/shop", domain="shop.test"))
    client = logged_in(client_of(sessions, base_url="https://www.shop.test/shop/"), "alice", sessions)

    async def use() -> list[str]:
        async with client:
            return [
                (await client.get(url)).text
                for url in ("basket", "https://www.shop.test/", "https://api.shop.test/shop/")
            ]

    assert asyncio.run(use()) == ["alice", "None", "alice"]


def test_a_cookie_for_a_domain_is_for_all_its_hosts_in_flask_too() -> None:
    site = FlaskSite(SyncSessions("memory://", secret_keys=[KEY], cookie=CookieConfig(domain="shop.test")))
    logged_in(site.client, "alice")
    assert site.client.get("/", base_url="https://api.shop.test").text == "alice None"
    assert site.visit("/renew") == site.visit() == "alice None"
    assert len(site.tokens) == 1


def test_the_cookies_that_a_client_has_already_stay() -> None:
    client = client_of(sessions := make_sessions(), base_url="http://shop.test", cookies={"language": "eo"})
    assert dict(logged_in(client, "alice", sessions).cookies).keys() == {"language", "__Host-session"}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [object(), None, SimpleNamespace(cookies={}), httpx.Cookies()])
def test_an_unknown_client_is_refused_with_what_to_do_instead(client: object) -> None:
    with pytest.raises(TypeError, match=r"got a .*\. For any other, log in within `sessions\.open\(\)`"):
        logged_in(client, "alice", make_sessions())


def test_a_client_that_does_not_know_its_sessions_has_to_be_given_them() -> None:
    with pytest.raises(TypeError, match=r"sessions: expected .* none are found by this client"):
        logged_in(client_of(make_sessions()), "alice")
    with pytest.raises(TypeError, match=r"sessions: expected .* got a str"):
        logged_in(client_of(make_sessions()), "alice", "memory://")  # type: ignore[arg-type]


def test_a_client_without_a_host_is_refused() -> None:
    with pytest.raises(ValueError, match="no base_url"):
        logged_in(client_of(make_sessions(), base_url=""), "alice", make_sessions())


def test_clients_that_keep_no_cookies_are_refused() -> None:
    sessions = SyncSessions("memory://", secret_keys=[KEY])
    quart_site = QuartSite(make_sessions())
    with pytest.raises(TypeError, match="use_cookies=True"):
        logged_in(quart_site.client.app.test_client(use_cookies=False), "alice", sessions)
    with pytest.raises(TypeError, match="use_cookies=True"):
        logged_in(werkzeug.test.Client(lambda *_: [], use_cookies=False), "alice", sessions)
    quart_site.close()


def test_a_value_that_can_not_be_stored_is_an_error_and_no_login() -> None:
    client = client_of(sessions := make_sessions())
    with pytest.raises(UnsupportedValue, match="basket"):
        logged_in(client, "alice", sessions, basket=object())
    assert not client.cookies


def test_no_framework_and_no_pytest_is_imported() -> None:
    program = "import sys, coatcheck.testing; print(*sys.modules)"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    loaded = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "coatcheck.testing" in loaded
    unwanted = {
        "aiohttp",
        "django",
        "fastapi",
        "flask",
        "httpx",
        "litestar",
        "pytest",
        "quart",
        "redis",
        "starlette",
        "werkzeug",
    }
    assert not unwanted.intersection(loaded)
