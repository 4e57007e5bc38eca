"""What a route does while the store is out of reach: refuse, or go on as nobody with the session untouched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol

import httpx
import pytest

from coatcheck import CookieConfig, Sessions, SyncSessions, asgi, wsgi
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.guard import require_login
from coatcheck.outage import Routes
from coatcheck.testing import FailingStore, ManualClock, SyncFailingStore

KEY = "a secret key for tests, 32 bytes or more"
COOKIE = CookieConfig(secure=False)

Act = Callable[[Any], str]


class Site(Protocol):
    """An application of one handler, which gives the answer's text, behind a middleware; and a client."""

    store: Any
    clock: ManualClock
    act: Act

    def get(self, path: str) -> httpx.Response: ...


class _AsyncSite:
    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.store = FailingStore()
        self.act: Act = lambda session: str(session.get("name"))
        sessions = Sessions(self.store, secret_keys=[KEY], cookie=COOKIE, clock=self.clock)
        self._app = asgi.SessionMiddleware(self._answer, sessions, **options)
        self._cookies = httpx.Cookies()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await scope["session"].load()
        text = self.act(scope["session"]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"public")]})
        await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def get(self, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, cookies=self._cookies, base_url="http://site") as client:
                response = await client.get(path)
                self._cookies = client.cookies
                return response

        return asyncio.run(ask())


class _SyncSite:
    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.store = SyncFailingStore()
        self.act: Act = lambda session: str(session.get("name"))
        sessions = SyncSessions(self.store, secret_keys=[KEY], cookie=COOKIE, clock=self.clock)
        app = wsgi.SessionMiddleware(self._answer, sessions, **options)
        self._client = httpx.Client(transport=httpx.WSGITransport(app), base_url="http://site")

    def _answer(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        text = self.act(environ[wsgi.ENVIRON_KEY]).encode()
        start_response("200 OK", [("cache-control", "public")])
        yield text
        yield b""

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)


@pytest.fixture(params=[_AsyncSite, _SyncSite], ids=["asgi", "wsgi"])
def make_site(request: pytest.FixtureRequest) -> Callable[..., Site]:
    """Make sites with a session that knows a name, and a store that then is out of reach for reading."""

    def make(*, down: str = "load", **options: Any) -> Site:
        site: Site = request.param(**options)
        site.act = lambda session: session.update(name="alice") or "stored"
        assert site.get("/").status_code == 200
        site.act = lambda session: str(session.get("name"))
        site.store.fail(down)
        return site

    return make


def test_a_route_refuses_unless_told_otherwise(make_site: Callable[..., Site]) -> None:
    response = make_site().get("/")
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("load", ["eager", "lazy"])
def test_a_route_that_goes_on_sees_nobody_and_leaves_session_and_cookie_alone(
    make_site: Callable[..., Site], load: str
) -> None:
    site = make_site(while_down="continue", load=load)
    site.act = lambda session: f"{session.is_available} {session.get('name')} {session.user_id} {len(session)}"
    response = site.get("/")
    assert (response.status_code, response.text) == (200, "False None None 0")
    assert "set-cookie" not in response.headers
    site.store.recover()
    site.act = lambda session: f"{session.is_available} {session['name']}"
    assert site.get("/").text == "True alice"


@pytest.mark.parametrize("act", [lambda session: session.get("name", ""), lambda _: "hello"], ids=["read", "unused"])
def test_what_a_route_says_without_the_session_is_not_kept_by_caches(make_site: Callable[..., Site], act: Act) -> None:
    site = make_site(while_down="continue")
    site.act = act
    response = site.get("/")
    assert response.headers.get_list("cache-control") == ["no-store"]
    assert response.headers["vary"] == "Cookie"


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.__setitem__("name", "mallory"),
        lambda session: session.increment("visits"),
        lambda session: session.clear(),
        lambda session: session.login("mallory"),
        lambda session: session.logout(),
        lambda session: session.destroy(),
        lambda session: session.renew(),
        lambda session: session.remember(True),
        lambda session: session.flash("hello"),
    ],
)
def test_nothing_that_would_change_the_session_is_forgotten_in_silence(
    make_site: Callable[..., Site], change: Callable[[Any], object]
) -> None:
    site = make_site(while_down="continue")
    site.act = lambda session: str(change(session))
    response = site.get("/")
    assert response.status_code == 503
    assert "set-cookie" not in response.headers
    site.store.recover()
    site.act = lambda session: f"{session['name']} {session.user_id}"
    assert site.get("/").text == "alice None"


def test_a_change_that_can_not_be_stored_is_503_on_every_route(make_site: Callable[..., Site]) -> None:
    site = make_site(down="update", while_down="continue")
    site.act = lambda session: str(session.increment("visits"))
    assert site.get("/").status_code == 503


@pytest.mark.parametrize(("while_down", "status"), [("refuse", 503), ("continue", 200)])
def test_a_session_whose_time_can_not_be_extended_is_still_read_where_the_route_goes_on(
    make_site: Callable[..., Site], while_down: str, status: int
) -> None:
    site = make_site(down="touch", while_down=while_down)
    site.clock.advance(timedelta(hours=1))
    response = site.get("/")
    assert response.status_code == status
    assert "set-cookie" not in response.headers
    assert site.store.calls.count("touch") == 1
    site.store.recover()
    response = site.get("/")
    assert response.text == "alice"
    assert "set-cookie" in response.headers  # the next request extends it


def test_a_guard_lets_nobody_pass_whom_it_does_not_know_and_sends_nobody_to_the_login(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(while_down="continue")
    site.act = require_login
    assert site.get("/").status_code == 503


def test_the_choice_is_by_path(make_site: Callable[..., Site]) -> None:
    site = make_site(while_down={"/shop": "continue", "/shop/cart": "refuse"})
    statuses = {path: site.get(path).status_code for path in ("/", "/shop", "/shop/pens", "/shopping", "/shop/cart/1")}
    assert statuses == {"/": 503, "/shop": 200, "/shop/pens": 200, "/shopping": 503, "/shop/cart/1": 503}


def test_the_log_says_that_requests_go_on_without_their_session(
    make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(while_down="continue")
    with caplog.at_level(logging.ERROR, "coatcheck"):
        site.get("/")
        site.get("/")
    assert [record.message for record in caplog.records] == [
        "The store can't be used, so a request goes on without its session: the test made load() fail"
    ]


@pytest.mark.parametrize(
    "while_down", ["", "503", None, 5, {"/": "ignore"}, {"shop": "continue"}, {"/a/*": "continue"}]
)
def test_a_choice_that_is_none_is_refused(while_down: Any) -> None:
    with pytest.raises(ConfigurationError, match="while_down"):
        Routes(while_down)


def test_a_request_without_a_session_goes_on_by_itself(make_site: Callable[..., Site]) -> None:
    site = make_site(while_down="refuse")
    site.act = lambda session: str(session.is_available)
    fresh = type(site)()
    fresh.store.fail("load")
    fresh.act = site.act
    assert fresh.get("/").text == "True"
    fresh.act = lambda session: session.update(name="bob") or ""
    fresh.store.fail("create")
    assert fresh.get("/").status_code == 503


def test_the_error_of_a_change_has_the_outage_as_its_cause(make_site: Callable[..., Site]) -> None:
    site = make_site(while_down="continue")

    def change(session: Any) -> str:
        with pytest.raises(StoreUnavailable, match="can't be changed now") as caught:
            session["name"] = "mallory"
        assert str(caught.value.__cause__) == "the test made load() fail"
        return "seen"

    site.act = change
    assert site.get("/").text == "seen"
