"""An open page hears of its session's end: over real HTTP and a real WebSocket, on each store and across processes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from form_client import FormClient
from servers import Server, server_binaries
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from .conftest import ALICE, BOB, HTML, JSON, DemoProcess

pytestmark = pytest.mark.anyio

BOUND_S = 10
"""Far more than any store needs, for a machine that is busy."""

GRACE_S = 5
"""How long the demo would wait, when told to stop, for what does not end by itself."""


@asynccontextmanager
async def browser(demo: DemoProcess, form: dict[str, str] = ALICE) -> AsyncIterator[httpx.AsyncClient]:
    """A browser in which somebody has logged in."""
    async with FormClient(base_url=demo.url, headers=HTML, timeout=30) as client:
        assert (await client.post("/login", data=form)).status_code == 303
        yield client


def page_of(client: httpx.AsyncClient, origin: str | None = "", cookie: str | None = None) -> connect:
    """Open the WebSocket as a page would: from its own origin, with the browser's cookie."""
    url = str(client.base_url).rstrip("/")
    headers = {"Cookie": cookie or f"session={client.cookies['session']}"}
    if origin is not None:
        headers["Origin"] = origin or url
    return connect(url.replace("http", "ws", 1) + "/devices/live", additional_headers=headers, proxy=None)


async def handle_of(client: httpx.AsyncClient) -> str:
    handle: str = (await client.get("/profile", headers=JSON)).json()["handle"]
    return handle


async def sign_out(client: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
    response = await client.post("/devices/revoke", data={"handle": await handle_of(other)}, headers=JSON)
    assert response.json() == {"revoked": True}


async def hears_of_the_end(page: ClientConnection) -> None:
    """Check that the page is told, in bounded time, and that the server closes then."""
    async with asyncio.timeout(BOUND_S):
        assert json.loads(await page.recv()) == {"type": "session_ended"}
        await page.wait_closed()
    assert page.close_code == 1000


async def is_quiet(page: ClientConnection) -> bool:
    """Tell whether a page is connected, and has been told nothing so far."""
    async with asyncio.timeout(BOUND_S):
        await (await page.ping())  # answered after whatever was sent before
    try:
        async with asyncio.timeout(0):
            await page.recv()
    except TimeoutError:
        return True
    return False


async def is_sent_to_the_login(client: httpx.AsyncClient) -> bool:
    response = await client.get("/cart")
    return (response.status_code, response.headers.get("location")) == (303, "/login?next=%2Fcart")


# --- on each kind of store --------------------------------------------------------------------------------------------


async def test_device_signed_out_from_another_hears_of_it_live_and_is_out_at_its_next_click(demo: DemoProcess) -> None:
    async with browser(demo) as here, browser(demo) as there, page_of(here) as own, page_of(there) as page:
        await sign_out(here, there)
        await hears_of_the_end(page)
        assert await is_sent_to_the_login(there)
        assert not await is_sent_to_the_login(here)
        assert await is_quiet(own)


async def test_everywhere_else_hears_of_it_and_nobody_who_stays(demo: DemoProcess) -> None:
    async with browser(demo) as here, browser(demo) as one, browser(demo) as two, browser(demo, BOB) as bob:
        async with page_of(here) as own, page_of(one) as page, page_of(two) as another, page_of(bob) as bobs:
            await here.post("/devices/revoke-others")
            await hears_of_the_end(page)
            await hears_of_the_end(another)
            assert await is_quiet(own)
            assert await is_quiet(bobs)
        assert await is_sent_to_the_login(one)
        assert await is_sent_to_the_login(two)
        assert not await is_sent_to_the_login(here)


async def test_logout_in_one_tab_is_heard_by_the_other_tabs(demo: DemoProcess) -> None:
    async with browser(demo) as client, page_of(client) as one, page_of(client) as other:
        await client.post("/logout")
        await hears_of_the_end(one)
        await hears_of_the_end(other)


async def test_session_that_ended_before_the_page_listened_is_refused(demo: DemoProcess) -> None:
    async with browser(demo) as client:
        cookie = f"session={client.cookies['session']}"
        await client.post("/logout")
        with pytest.raises(InvalidStatus) as refused:
            await page_of(client, cookie=cookie)
        assert refused.value.response.status_code == 403


# --- who may listen ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoProcess]:
    with DemoProcess(tmp_path_factory.mktemp("demo"), ["--store", "memory://"]) as demo:
        yield demo


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example",
        "null",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://localhost:{port}",
        "http://127.0.0.1:{port}.evil.example",
        "http://evil.example/127.0.0.1:{port}",
        "http://user@127.0.0.1:{port}",
        "ftp://127.0.0.1:{port}",
        "127.0.0.1:{port}",
        "http://[127.0.0.1:{port}",
        "http://127.0.0.1:{port}, http://evil.example",
    ],
)
async def test_page_of_another_site_can_not_listen(one_demo: DemoProcess, origin: str) -> None:
    async with browser(one_demo) as client:
        with pytest.raises(InvalidStatus) as refused:
            await page_of(client, origin.format(port=one_demo.port))
        assert refused.value.response.status_code == 403


async def test_client_that_is_no_browser_and_sends_no_origin_can_listen(one_demo: DemoProcess) -> None:
    async with browser(one_demo) as client, page_of(client, None) as page:
        assert await is_quiet(page)


@pytest.mark.parametrize("cookie", ["session=forged", "session=", "other=1"])
async def test_nobody_who_is_not_logged_in_can_listen(one_demo: DemoProcess, cookie: str) -> None:
    async with httpx.AsyncClient(base_url=one_demo.url) as client:
        with pytest.raises(InvalidStatus) as refused:
            await page_of(client, cookie=cookie)
        assert refused.value.response.status_code == 403


async def test_session_without_a_login_can_not_listen(one_demo: DemoProcess) -> None:
    async with browser(one_demo) as client:
        await client.post("/logout")  # what is left is a session that carries the goodbye
        with pytest.raises(InvalidStatus):
            await page_of(client)


async def test_page_that_talks_is_not_listened_to_and_one_that_talks_too_much_is_cut_off(one_demo: DemoProcess) -> None:
    async with browser(one_demo) as client:
        async with page_of(client) as page:
            for message in ("{}", b"\x00", "session_ended"):
                await page.send(message)
            assert await is_quiet(page)
        async with page_of(client) as page, asyncio.timeout(BOUND_S):
            await page.send("x" * 5_000)
            with pytest.raises(ConnectionClosed):
                await page.recv()


async def test_page_that_left_without_a_goodbye_is_forgotten(one_demo: DemoProcess) -> None:
    async with browser(one_demo) as here, browser(one_demo) as there:
        async with page_of(there) as page:
            page.transport.abort()
        async with page_of(there) as page:
            await sign_out(here, there)
            await hears_of_the_end(page)


# --- across processes -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sqlite", *server_binaries()])
def two_demos(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DemoProcess, DemoProcess]]:
    """Two processes of the demo with one store and one secret key, as behind a load balancer."""
    folder: Path = tmp_path_factory.mktemp("demos")
    with ExitStack() as stack:
        arguments: list[str] = []
        if request.param != "sqlite":
            arguments = ["--store", stack.enter_context(Server(server_binaries()[request.param])).url]
        yield stack.enter_context(DemoProcess(folder, arguments)), stack.enter_context(DemoProcess(folder, arguments))


async def test_device_hears_of_its_end_in_another_process_than_the_one_that_ended_it(
    two_demos: tuple[DemoProcess, DemoProcess],
) -> None:
    one, other = two_demos
    async with browser(one) as here, browser(other) as there, page_of(here) as own, page_of(there) as page:
        sessions = (await here.get("/devices", headers=JSON)).json()["sessions"]
        assert {each["handle"] for each in sessions} == {await handle_of(here), await handle_of(there)}
        await sign_out(here, there)
        await hears_of_the_end(page)
        assert await is_sent_to_the_login(there)
        assert await is_quiet(own)
        await here.post("/logout")
        await hears_of_the_end(own)


async def test_everywhere_else_reaches_the_other_process(two_demos: tuple[DemoProcess, DemoProcess]) -> None:
    one, other = two_demos
    async with browser(one) as here, browser(other) as there, page_of(there) as page:
        assert (await here.post("/devices/revoke-others", headers=JSON)).json() == {"revoked": 1}
        await hears_of_the_end(page)
        assert await is_sent_to_the_login(there)


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["memory://", "sqlite:///sessions.sqlite3", "valkey+embedded:"])
async def test_demo_ends_at_once_though_pages_listen(tmp_path: Path, store: str) -> None:
    with DemoProcess(tmp_path, ["--store", store]) as demo:
        async with browser(demo) as client, page_of(client) as one, page_of(client) as other:
            began = time.monotonic()
            assert await asyncio.to_thread(demo.stop) == 0
            assert time.monotonic() - began < GRACE_S
            for page in (one, other):
                with pytest.raises(ConnectionClosed):
                    await page.recv()
                assert page.close_code == 1012  # service restart: no end of the session
