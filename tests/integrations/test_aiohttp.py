"""The aiohttp adapter, on aiohttp's own server: what leaves when, and what its users write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.csrf import csrf_field, csrf_token
from coatcheck.errors import ConfigurationError, ResponseStarted, SessionClosed, StoreUnavailable
from coatcheck.integrations.aiohttp import get_session, login_required, recent_login_required, setup
from coatcheck.testing import FailingStore, ManualClock, alogged_in

pytestmark = pytest.mark.anyio

KEY = "a secret key for tests, 32 bytes or more"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Client = TestClient[Any, Any]


class Site:
    """An application behind its session, and a client that keeps cookies."""

    def __init__(self, **options: Any) -> None:
        self.store = FailingStore()
        self.clock = ManualClock()
        self.sessions = Sessions(
            self.store, secret_keys=[KEY], cookie=CookieConfig(secure=False), clock=self.clock, max_keys=20
        )
        self.app = web.Application()
        self.options = options
        self.app.router.add_post("/login", log_in)
        self.client: Client

    def serve(self, handler: Any, path: str = "/") -> None:
        self.app.router.add_route("*", path, handler)

    @asynccontextmanager
    async def running(self, *handlers: Handler, log_in: bool = True) -> AsyncIterator[Client]:
        """Serve the last of the handlers at `/`, the others at paths of their names."""
        for handler in handlers:
            self.serve(handler, "/" if handler is handlers[-1] else f"/{handler.__name__}")
        setup(self.app, self.sessions, **self.options)
        async with TestClient(TestServer(self.app)) as self.client:
            if log_in:
                assert (await self.client.post("/login")).status == 204
                self.store.calls.clear()
            yield self.client

    @property
    def cookie(self) -> str | None:
        morsel = self.client.session.cookie_jar.filter_cookies(self.client.make_url("/")).get("session")
        return None if morsel is None else morsel.value

    async def stored(self, cookie: str | None = None) -> dict[str, Any] | None:
        value = cookie or self.cookie
        session = self.sessions.begin([] if value is None else [f"session={value}".encode()])
        await session.load()
        return None if session.is_new else dict(session)


async def log_in(request: web.Request) -> web.StreamResponse:
    session = await get_session(request)
    session.login("alice")
    session["cart"] = ["book"]
    return web.Response(status=204)


async def read(request: web.Request) -> web.StreamResponse:
    return web.json_response((await get_session(request)).copy())


async def write(request: web.Request) -> web.StreamResponse:
    (await get_session(request))["cart"].append("pen")
    return web.Response(text="ok")


async def ignore(_: web.Request) -> web.StreamResponse:
    return web.Response(text="ok")


@pytest.fixture
def site() -> Site:
    return Site()


# --- plain responses --------------------------------------------------------------------------------------------------


async def test_nested_changes_are_kept(site: Site) -> None:
    async with site.running(write, read) as client:
        await client.get("/write")
        assert await (await client.get("/")).json() == {"cart": ["book", "pen"]}


async def test_session_is_stored_before_the_headers_leave(site: Site) -> None:
    calls: list[list[str]] = []

    async def look(_: web.Request, response: web.StreamResponse) -> None:
        calls.append(list(site.store.calls))

    site.app.on_response_prepare.append(look)
    async with site.running(write) as client:
        await client.get("/")
    assert calls[-1] == ["load", "update"]


async def test_parallel_requests_lose_no_update(site: Site) -> None:
    async def count(request: web.Request) -> web.StreamResponse:
        (await get_session(request)).increment("visits")
        return web.Response()

    async with site.running(count) as client:
        await asyncio.gather(*(client.get("/") for _ in range(20)))
        assert (await site.stored() or {})["visits"] == 20


async def test_ended_session_is_not_brought_back_by_a_request_under_way(site: Site) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        await site.sessions.revoke(session.handle)
        session["late"] = True
        return web.Response(text="ok")

    async with site.running(slow) as client:
        cookie = site.cookie
        response = await client.get("/")
        assert (response.status, await response.text()) == (200, "ok")
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert await site.stored(cookie) is None


@pytest.mark.parametrize("handler", [ignore, read])
async def test_visitor_gets_no_cookie_and_asks_the_store_nothing(site: Site, handler: Handler) -> None:
    async with site.running(handler, log_in=False) as client:
        response = await client.get("/")
        assert "set-cookie" not in response.headers
        assert site.store.calls == []


async def test_forged_cookie_does_not_reach_the_store_and_is_taken_away(site: Site) -> None:
    async with site.running(ignore, log_in=False) as client:
        response = await client.get("/", headers={"cookie": "other=1; session=forged"})
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert site.store.calls == []


async def test_response_that_does_not_depend_on_the_session_is_left_alone(site: Site) -> None:
    async with site.running(ignore) as client:
        response = await client.get("/")
        assert not {"vary", "cache-control", "set-cookie"} & {name.lower() for name in response.headers}


async def test_response_that_was_made_from_the_session_varies_by_cookie(site: Site) -> None:
    async def cached(request: web.Request) -> web.StreamResponse:
        await read(request)
        return web.Response(headers={"Vary": "Accept", "Cache-Control": "max-age=60"})

    async with site.running(cached) as client:
        response = await client.get("/")
        assert response.headers.getall("vary") == ["Accept", "Cookie"]
        assert response.headers["cache-control"] == "max-age=60"


async def test_response_with_a_cookie_is_not_for_caches_and_keeps_other_cookies(site: Site) -> None:
    async def start(request: web.Request) -> web.StreamResponse:
        (await get_session(request))["name"] = "alice"
        response = web.Response(headers={"Cache-Control": "public"})
        response.set_cookie("theme", "dark")
        return response

    async with site.running(start, log_in=False) as client:
        response = await client.get("/")
        assert response.headers.getall("cache-control") == ["no-store"]
        assert [value.split("=")[0] for value in response.headers.getall("set-cookie")] == ["theme", "session"]


async def test_login_makes_the_id_of_before_worthless(site: Site) -> None:
    async with site.running(ignore) as client:
        first = site.cookie
        await client.post("/login")
        assert await site.stored(first) is None
        assert await site.stored()


async def test_name_and_address_of_the_device_are_remembered(site: Site) -> None:
    async with site.running(ignore, log_in=False) as client:
        await client.post("/login", headers={"user-agent": "Firefox"})
        (device,) = await site.sessions.for_user("alice")
        assert (device.user_agent, device.client_address) == ("Firefox", "127.0.0.0")


# --- answers that are raised, and failures ----------------------------------------------------------------------------


async def test_redirect_that_is_raised_after_a_login_is_stored_first(site: Site) -> None:
    async def enter(request: web.Request) -> web.StreamResponse:
        (await get_session(request)).login("bob")
        raise web.HTTPFound(location="/")

    async with site.running(enter, read, log_in=False) as client:
        response = await client.get("/enter", allow_redirects=False)
        assert response.status == 302
        assert "set-cookie" in response.headers
        assert [device.handle for device in await site.sessions.for_user("bob")]


@pytest.mark.parametrize("status", [200, 204, 303, 304, 400, 404])
async def test_every_answer_below_500_stores(site: Site, status: int) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        (await get_session(request))["x"] = 1
        return web.Response(status=status)

    async with site.running(answer) as client:
        await client.get("/", allow_redirects=False)
        assert (await site.stored() or {})["x"] == 1


async def _return_500(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def _raise_503(_: web.Request) -> web.StreamResponse:
    raise web.HTTPServiceUnavailable


async def _fail(_: web.Request) -> web.StreamResponse:
    raise ZeroDivisionError


async def _time_out(_: web.Request) -> web.StreamResponse:
    raise TimeoutError


async def _return_nothing(_: web.Request) -> Any:
    return None


@pytest.mark.parametrize("end", [_return_500, _raise_503, _fail, _time_out, _return_nothing])
async def test_failed_request_stores_nothing_but_the_end_of_the_session(site: Site, end: Handler) -> None:
    async def change(request: web.Request) -> web.StreamResponse:
        (await get_session(request))["x"] = 1
        return await end(request)

    async def leave(request: web.Request) -> web.StreamResponse:
        (await get_session(request)).destroy()
        return await end(request)

    async with site.running(change, leave) as client:
        cookie = site.cookie
        response = await client.get("/change")
        assert response.status >= 500
        assert "set-cookie" not in response.headers
        assert await site.stored() == {"cart": ["book"]}
        assert "Max-Age=0" in (await client.get("/")).headers["set-cookie"]
        assert await site.stored(cookie) is None


async def test_value_that_cannot_be_stored_is_answered_by_500_and_nothing_is_stored(site: Site) -> None:
    async def change(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        session["x"] = [1]
        session["x"].append(object())
        return web.Response()

    async with site.running(change) as client:
        assert (await client.get("/")).status == 500
        assert await site.stored() == {"cart": ["book"]}


async def test_request_that_is_cancelled_because_its_client_has_gone_stores_nothing(site: Site) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        (await get_session(request))["x"] = 1
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return web.Response()

    site.serve(wait)
    setup(site.app, site.sessions)
    async with TestClient(TestServer(site.app)) as site.client:  # the server cancels handlers (`handler_cancellation`)
        await site.client.post("/login")
        cookie = site.cookie
        request = asyncio.create_task(site.client.get("/"))
        await begun.wait()
        request.cancel()
        await asyncio.wait_for(ended.wait(), 10)
    assert await site.stored(cookie) == {"cart": ["book"]}


# --- responses that handlers prepare themselves -----------------------------------------------------------------------


async def test_stream_is_stored_and_has_its_cookie_before_the_first_chunk(site: Site) -> None:
    stored: list[Any] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        session["x"] = 1
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"1")
        stored.append(await site.stored(session.token))
        return response

    async with site.running(stream, log_in=False) as client:
        response = await client.get("/")
        assert "session=" in response.headers["set-cookie"]
        assert response.headers["cache-control"] == "no-store"
        assert await response.read() == b"1"
        assert stored == [{"x": 1}]


async def test_change_in_a_stream_is_stored_at_its_end_and_earlier_by_save(site: Site) -> None:
    seen: list[Any] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        response = web.StreamResponse()
        await response.prepare(request)
        session.append("cart", "pen")
        await session.save()
        seen.append(await site.stored())
        session.append("cart", "ink")
        return response

    async with site.running(stream) as client:
        assert (await client.get("/")).status == 200
        assert seen == [{"cart": ["book", "pen"]}]
        assert await site.stored() == {"cart": ["book", "pen", "ink"]}


async def test_change_in_a_body_that_is_made_after_the_handler_is_an_error_where_it_is_made(site: Site) -> None:
    """By then the session has been stored, and nothing of aiohttp's would say when the body is over."""
    errors: list[Exception] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)

        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            try:
                session["late"] = True
            except SessionClosed as error:
                errors.append(error)

        return web.Response(body=body())

    async with site.running(handler) as client:
        assert await (await client.get("/")).read() == b"a"
        assert len(errors) == 1
        assert await site.stored() == {"cart": ["book"]}


async def test_change_in_a_stream_that_needs_a_cookie_is_an_error_where_it_is_made(site: Site) -> None:
    raised: list[type[BaseException]] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        response = web.StreamResponse()
        await response.prepare(request)
        with pytest.raises(ResponseStarted) as caught:
            session["x"] = 1
        raised.append(caught.type)
        return response

    async with site.running(stream, log_in=False) as client:
        await client.get("/")
    assert raised == [ResponseStarted]


async def test_failed_stream_stores_nothing_of_what_came_after_its_headers(site: Site) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        session["before"] = 1
        response = web.StreamResponse()
        await response.prepare(request)
        session["after"] = 1
        raise ZeroDivisionError

    async with site.running(stream) as client:
        with pytest.raises(aiohttp.ClientError):
            await (await client.get("/")).read()
        assert await site.stored() == {"cart": ["book"], "before": 1}


async def test_file_is_sent_after_its_session_is_stored(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")

    async def send(request: web.Request) -> web.StreamResponse:
        (await get_session(request))["x"] = 1
        return web.FileResponse(tmp_path / "file")

    async with site.running(send, log_in=False) as client:
        response = await client.get("/")
        assert await response.text() == "content"
        assert await site.stored() == {"x": 1}


async def test_websocket_stores_before_the_handshake_and_at_its_end(site: Site) -> None:
    async def socket(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        session["opened"] = 1
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_json(await site.stored(session.token))
        async for message in response:
            session["last"] = message.data
        return response

    async with site.running(socket, ignore) as client:
        async with client.ws_connect("/socket") as connection:
            assert (await connection.receive_json())["opened"] == 1
            await connection.send_str("bye")
        await _until(lambda: _has(site, "last", "bye"))


async def test_websocket_that_notices_that_its_client_has_gone_stores_what_came_before(site: Site) -> None:
    async def socket(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            session["last"] = message.data
        await response.send_str("too late")
        raise AssertionError

    async with site.running(socket, ignore) as client:
        async with client.ws_connect("/socket") as connection:
            await connection.send_str("bye")
        await _until(lambda: _has(site, "last", "bye"))


async def _has(site: Site, key: str, value: object) -> bool:
    return (await site.stored() or {}).get(key) == value


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 (what it waits for is in the store)
            await asyncio.sleep(0.01)


# --- while the store is out of reach ----------------------------------------------------------------------------------


async def _stream(request: web.Request) -> web.StreamResponse:
    (await get_session(request))["x"] = 1
    response = web.StreamResponse()
    await response.prepare(request)
    return response


async def _stream_and_go_on(request: web.Request) -> web.StreamResponse:
    try:
        return await _stream(request)
    except StoreUnavailable:
        return web.Response(text="stored")


async def test_handler_that_goes_on_after_an_outage_does_not_answer_for_what_it_has_missed(site: Site) -> None:
    async def go_on(request: web.Request) -> web.StreamResponse:
        with pytest.raises(StoreUnavailable):
            await _stream(request)
        site.store.recover()
        return web.Response(text="it could not be stored")

    async with site.running(go_on) as client:
        site.store.fail("update")
        assert (await client.get("/")).status == 503
        assert await site.stored() == {"cart": ["book"]}


async def _socket(request: web.Request) -> web.StreamResponse:
    (await get_session(request))["x"] = 1
    response = web.WebSocketResponse()
    await response.prepare(request)
    return response


@pytest.mark.parametrize("fails", ["load", "update"])
@pytest.mark.parametrize("handler", [write, _stream, _stream_and_go_on])
async def test_request_that_needs_the_store_is_answered_by_503(site: Site, fails: Any, handler: Handler) -> None:
    async with site.running(handler) as client:
        site.store.fail(fails)
        for _ in range(2):  # the connection stays usable
            response = await client.get("/")
            assert response.status == 503
            assert response.headers["retry-after"] == "5"
            assert "set-cookie" not in response.headers
            assert "temporarily unavailable" in await response.text()
        site.store.recover()
        assert await site.stored() == {"cart": ["book"]}


@pytest.mark.parametrize("fails", ["load", "update"])
async def test_handshake_that_needs_the_store_is_answered_by_503(site: Site, fails: Any) -> None:
    async with site.running(_socket) as client:
        site.store.fail(fails)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/")
        assert refused.value.status == 503


async def test_outage_is_logged_once_and_visitors_go_on(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async with site.running(read) as client:
        site.store.fail("load")
        with caplog.at_level(logging.ERROR, "coatcheck"):
            for _ in range(3):
                await client.get("/")
        assert [record.message for record in caplog.records if record.name == "coatcheck"] == [
            "The store can't be used, so a request is answered by 503: the test made load() fail"
        ]
        client.session.cookie_jar.clear()
        assert (await client.get("/")).status == 200


async def test_outage_after_the_headers_ends_the_stream(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        response = web.StreamResponse()
        await response.prepare(request)
        session["x"] = 1
        site.store.fail("update")
        return response

    async with site.running(stream) as client:
        with pytest.raises(aiohttp.ClientError):
            await (await client.get("/")).read()
    assert not any("is answered by 503" in record.message for record in caplog.records)


async def test_route_may_go_on_without_the_store() -> None:
    site = Site(while_down={"/": "refuse", "/look": "continue"})

    async def look(request: web.Request) -> web.StreamResponse:
        session = await get_session(request)
        return web.Response(text=f"{session.is_available} {session.user_id}", headers={"cache-control": "public"})

    async with site.running(look, read) as client:
        site.store.fail("load")
        response = await client.get("/look")
        assert (response.status, await response.text()) == (200, "False None")
        assert response.headers["cache-control"] == "no-store"
        assert (await client.get("/")).status == 503


async def test_page_that_goes_on_without_the_store_is_not_for_caches_even_if_it_ignores_the_session() -> None:
    site = Site(while_down="continue")
    async with site.running(ignore) as client:
        site.store.fail("load")
        response = await client.get("/")
        assert (response.status, response.headers["cache-control"]) == (200, "no-store")


# --- load, names, sub-applications ------------------------------------------------------------------------------------


async def test_lazy_session_is_loaded_when_it_is_asked_for() -> None:
    site = Site(load="lazy")
    async with site.running(ignore, read) as client:
        await client.get("/ignore")
        assert site.store.calls == []
        assert await (await client.get("/")).json() == {"cart": ["book"]}
        assert site.store.calls == ["load"]


async def test_sub_applications_have_the_session(site: Site) -> None:
    shop = web.Application()
    shop.router.add_get("/cart", read)
    shop.router.add_get("/stream", _stream)
    site.app.add_subapp("/shop", shop)
    async with site.running(ignore) as client:
        assert await (await client.get("/shop/cart")).json() == {"cart": ["book"]}
        await client.get("/shop/stream")
        assert (await site.stored() or {})["x"] == 1


async def test_middlewares_of_the_application_see_the_session_also_where_nothing_is_found(site: Site) -> None:
    seen: list[Any] = []

    @web.middleware
    async def look(request: web.Request, handler: Handler) -> web.StreamResponse:
        seen.append((await get_session(request)).user_id)
        return await handler(request)

    site.app.middlewares.append(look)
    async with site.running(ignore) as client:
        assert (await client.get("/missing")).status == 404
    assert seen[-1] == "alice"


async def test_sessions_of_different_names_stand_side_by_side(site: Site) -> None:
    other = Sessions("memory://", secret_keys=[KEY], cookie=CookieConfig(name="admin", secure=False))
    setup(site.app, other, name="admin")

    async def both(request: web.Request) -> web.StreamResponse:
        (await get_session(request, "admin"))["x"] = 1
        (await get_session(request))["y"] = 1
        return web.Response()

    async with site.running(both, log_in=False) as client:
        response = await client.get("/")
        assert {value.split("=")[0] for value in response.headers.getall("set-cookie")} == {"admin", "session"}


@pytest.mark.parametrize(("name", "cookie"), [("session", "other"), ("other", "session")])
async def test_second_setup_with_the_same_name_or_cookie_is_an_error(
    site: Site, name: str, cookie: str, caplog: pytest.LogCaptureFixture
) -> None:
    setup(site.app, Sessions("memory://", secret_keys=[KEY], cookie=CookieConfig(name=cookie, secure=False)), name=name)
    async with site.running(ignore, log_in=False) as client:
        assert (await client.get("/")).status == 500
    assert any(record.exc_info and record.exc_info[0] is ConfigurationError for record in caplog.records)


async def test_session_without_setup_is_an_error_that_says_so() -> None:
    from aiohttp.test_utils import make_mocked_request

    with pytest.raises(ConfigurationError, match="setup"):
        await get_session(make_mocked_request("GET", "/"))


def test_sync_sessions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs a Sessions object"):
        setup(web.Application(), SyncSessions("memory://", secret_keys=[KEY]))  # type: ignore[arg-type]


async def test_public_helper_logs_in(site: Site) -> None:
    async with site.running(read, log_in=False) as client:
        await alogged_in(client, "alice", site.sessions, cart=["book"])
        assert await (await client.get("/")).json() == {"cart": ["book"]}


async def test_cleanup_closes_the_store(site: Site) -> None:
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    site.store.close = close  # type: ignore[assignment]
    async with site.running(ignore):
        assert closed == []
    assert closed == [True]


# --- guards -----------------------------------------------------------------------------------------------------------


@login_required
async def _function(request: web.Request) -> web.StreamResponse:
    return web.Response(text=str((await get_session(request)).user_id))


class _View(web.View):
    @login_required
    async def get(self) -> web.StreamResponse:
        return web.Response(text=str((await get_session(self.request)).user_id))


class _Handlers:
    @login_required
    async def method(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=str((await get_session(request)).user_id))


@pytest.mark.parametrize("handler", [_function, _View, _Handlers().method], ids=["function", "view", "method"])
@pytest.mark.parametrize("load", ["eager", "lazy"])
async def test_guarded_handler_is_for_those_who_are_logged_in(handler: Any, load: str) -> None:
    site = Site(load=load)
    site.serve(handler, "/a page")
    async with site.running(ignore, log_in=False) as client:
        browser = await client.get("/a%20page?x=1", headers={"accept": "text/html"}, allow_redirects=False)
        assert (browser.status, browser.headers["location"]) == (303, "/login?next=%2Fa%2520page%3Fx%3D1")
        program = await client.get("/a%20page", headers={"accept": "application/json"})
        assert (program.status, (await program.json())["error"]) == (401, "login_required")
        await client.post("/login")
        assert await (await client.get("/a%20page")).text() == "alice"


async def test_recent_login_is_asked_for_again() -> None:
    @recent_login_required(timedelta(minutes=10))
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response()

    site = Site(login_path="/enter")
    async with site.running(handler) as client:
        assert (await client.get("/")).status == 200
        site.clock.advance(timedelta(minutes=11))
        refused = await client.get("/", allow_redirects=False)
        assert (refused.status, refused.headers["location"]) == (303, "/enter?next=%2F")
        program = await client.get("/", headers={"accept": "application/json"})
        assert (await program.json())["error"] == "recent_login_required"


@pytest.mark.parametrize("headers", [{"sec-fetch-mode": "websocket"}, {}], ids=["browser", "program"])
async def test_guarded_handshake_is_refused_to_strangers(site: Site, headers: dict[str, str]) -> None:
    async with site.running(login_required(_socket), log_in=False) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/", headers=headers)
        assert refused.value.status == 401


def test_login_path_of_another_site_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="login_path"):
        setup(web.Application(), Sessions("memory://", secret_keys=[KEY]), login_path="//evil.test")


# --- CSRF -------------------------------------------------------------------------------------------------------------


async def _token(request: web.Request) -> web.StreamResponse:
    session = await get_session(request)
    assert csrf_field(session).startswith("<input")
    return web.Response(text=csrf_token(session))


async def _echo(request: web.Request) -> web.StreamResponse:
    return web.Response(text=str((await request.post()).get("name")))


@asynccontextmanager
async def _protected(**options: Any) -> AsyncIterator[tuple[Client, str]]:
    site = Site(csrf=True, **options)
    async with site.running(_token, _echo, _socket, login_required(_echo)) as client:
        yield client, await (await client.get("/_token")).text()


async def test_request_without_a_token_is_refused_and_with_one_it_passes() -> None:
    async with _protected() as (client, token):
        refused = await client.post("/_echo", data={"name": "x"}, headers={"accept": "application/json"})
        assert (refused.status, (await refused.json())["error"]) == (403, "csrf_token_missing")
        wrong = await client.post("/_echo", data={"csrf_token": "x" * 86})
        assert wrong.status == 403
        form = await client.post("/_echo", data={"name": "x", "csrf_token": token})
        assert (form.status, await form.text()) == (200, "x")
        header = await client.post("/_echo", data={"name": "x"}, headers={"x-csrf-token": token})
        assert (header.status, await header.text()) == (200, "x")


async def test_token_is_found_in_a_multipart_form_and_a_file_of_that_name_is_none() -> None:
    async with _protected() as (client, token):
        form = aiohttp.FormData({"csrf_token": token, "name": "x"}, default_to_multipart=True)
        assert await (await client.post("/_echo", data=form)).text() == "x"
        file = aiohttp.FormData()
        file.add_field("csrf_token", token.encode(), filename="file")
        assert (await client.post("/_echo", data=file)).status == 403


_PART = b'--x\r\nContent-Disposition: form-data; name="csrf_token"\r\n'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"nonsense"),
        ("multipart/form-data; boundary=x", _PART + b"Content-Type: text/plain; charset=none\r\n\r\nx\r\n--x--"),
        ("multipart/form-data; boundary=x", _PART + b"Content-Transfer-Encoding: none\r\n\r\nx\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A" * 20_000 + b"\r\n\r\n"),
        ("application/x-www-form-urlencoded; charset=none", b"csrf_token=x"),
    ],
    ids=["no boundary", "charset of a part", "encoding of a part", "long header", "charset"],
)
async def test_body_that_is_no_form_in_spite_of_its_type_is_refused(content_type: str, body: bytes) -> None:
    async with _protected() as (client, _):
        assert (await client.post("/_echo", data=body, headers={"content-type": content_type})).status == 403


async def test_path_with_an_encoded_slash_is_not_below_an_exempt_one() -> None:
    async with _protected(csrf_exempt=["/_echo"]) as (client, _):
        assert (await client.post(URL("/_echo/x", encoded=True))).status == 404
        assert (await client.post(URL("/_echo%2Fx", encoded=True))).status == 403  # to routes, this is one name


async def test_request_of_another_sites_page_is_refused_whatever_its_token() -> None:
    async with _protected() as (client, token):
        headers = {"x-csrf-token": token, "origin": "https://evil.test"}
        assert (await client.post("/_echo", headers=headers)).status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/_socket", headers={"origin": "https://evil.test"})
        assert refused.value.status == 403


async def test_trusted_origins_and_exempt_paths_pass() -> None:
    options = {"trusted_origins": ["https://shop.test"], "csrf_exempt": ["/_echo"]}
    async with _protected(**options) as (client, token):
        assert (await client.post("/_echo")).status == 200
        headers = {"x-csrf-token": token, "origin": "https://shop.test"}
        assert (await client.post("/", headers=headers)).status == 200
        assert (await client.post("/")).status == 403


async def test_forged_request_is_refused_before_anything_else_looks_at_it() -> None:
    async with _protected() as (client, _):
        client.session.cookie_jar.clear()
        refused = await client.post("/", headers={"origin": "https://evil.test"}, allow_redirects=False)
        assert refused.status == 403
