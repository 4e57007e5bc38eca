"""The devices page: who sees which sessions, and who can end which."""

from __future__ import annotations

import html
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from coatcheck import Sessions
from coatcheck.demo.device_names import UNKNOWN_DEVICE, device_name
from coatcheck.demo.observed import ObservingMiddleware, observed, store_calls
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.protocol import AsyncFeed
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing import ManualClock

from .conftest import ALICE, BOB, HTML, JSON, NewClient

pytestmark = pytest.mark.anyio

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
LIKE_CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 Safari/537.36"
LIKE_SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15"
PHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {LIKE_SAFARI}"
SCRIPT = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"


async def logged_in(
    new_client: NewClient, form: dict[str, str] = ALICE, user_agent: str = FIREFOX
) -> httpx.AsyncClient:
    client = await new_client(HTML | {"User-Agent": user_agent})
    assert (await client.post("/login", data=form)).status_code == 303
    return client


async def listed(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    sessions: list[dict[str, Any]] = (await client.get("/devices", headers=JSON)).json()["sessions"]
    return sessions


async def handle_of(client: httpx.AsyncClient) -> str:
    handle: str = (await client.get("/profile", headers=JSON)).json()["handle"]
    return handle


async def is_out(client: httpx.AsyncClient) -> bool:
    """Tell whether nobody is logged in any more. Asked as a program, so that messages wait for the next page."""
    return (await client.get("/profile", headers=JSON)).status_code == 401


# --- the list ---------------------------------------------------------------------------------------------------------


async def test_list_has_every_session_of_the_user_and_nobody_elses(new_client: NewClient) -> None:
    here = await logged_in(new_client)
    phone = await logged_in(new_client, user_agent=PHONE)
    await logged_in(new_client, BOB)
    sessions = await listed(here)
    assert [(each["handle"], each["current"], each["user_agent"]) for each in sessions] == [
        (await handle_of(here), True, FIREFOX),
        (await handle_of(phone), False, PHONE),
    ]


async def test_list_for_programs_has_exactly_what_is_promised(
    new_client: NewClient, clock: ManualClock, sessions: Sessions
) -> None:
    here = await logged_in(new_client)
    clock.advance(timedelta(minutes=1))
    (entry,) = await listed(here)
    assert set(entry) == {"handle", "current", "created_at", "last_seen_at", "expires_at", "user_agent"}
    created, seen, expires = (
        datetime.fromisoformat(entry[key]) for key in ("created_at", "last_seen_at", "expires_at")
    )
    assert created.tzinfo is not None
    assert created == seen == expires - sessions.config.idle_timeout


async def test_page_names_devices_marks_the_current_one_and_truncates_addresses(new_client: NewClient) -> None:
    here = await logged_in(new_client)
    phone = await logged_in(new_client, user_agent=PHONE)
    text = (await here.get("/devices")).text
    assert "Firefox on Linux" in text
    assert "Safari on iPhone" in text
    assert "127.0.0.0" in text
    assert "127.0.0.1" not in text
    assert (
        text.count("This device") == text.count("Sign out this device") == text.count("Sign out everywhere else") == 1
    )
    assert f'name="handle" value="{await handle_of(phone)}"' in text
    assert text.index("Firefox on Linux") < text.index("Safari on iPhone")


async def test_page_with_one_device_offers_nothing_to_sign_out(new_client: NewClient) -> None:
    text = (await (await logged_in(new_client)).get("/devices")).text
    assert 'action="/devices/' not in text


async def test_page_never_shows_a_token_of_any_session(new_client: NewClient) -> None:
    clients = [await logged_in(new_client) for _ in range(3)]
    text = (await clients[0].get("/devices")).text
    assert not any(client.cookies["session"] in text for client in clients)


async def test_session_that_ran_out_is_not_listed(new_client: NewClient, clock: ManualClock) -> None:
    await logged_in(new_client)
    clock.advance(timedelta(hours=2, seconds=1))
    assert len(await listed(await logged_in(new_client))) == 1


async def test_login_again_in_one_browser_leaves_one_entry(new_client: NewClient) -> None:
    here = await logged_in(new_client)
    await here.post("/login", data=ALICE)
    assert [each["handle"] for each in await listed(here)] == [await handle_of(here)]


@pytest.mark.parametrize("user_agent", [SCRIPT, f"Mozilla/5.0 ({SCRIPT}) Firefox/1", "x" * 5_000, "\xff\x01", ""])
async def test_user_agent_of_any_kind_breaks_no_page_and_is_never_markup(
    new_client: NewClient, user_agent: str
) -> None:
    here = await new_client()
    header = [(b"User-Agent", user_agent.encode("latin-1")), (b"Accept", b"text/html")]
    await here.post("/login", data=ALICE, headers=header)
    page = await here.get("/devices")
    assert page.status_code == 200
    assert page.text.count("<script") == 1
    assert "<img src=x" not in page.text
    (entry,) = await listed(here)
    assert user_agent.startswith((entry["user_agent"] or "").replace("\ufffd", "\x01"))


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        (PHONE, "Safari on iPhone"),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {LIKE_CHROME} Edg/137.0.0.0", "Edge on Windows"),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {LIKE_CHROME}", "Chrome on macOS"),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) {LIKE_SAFARI}", "Safari on macOS"),
        (f"Mozilla/5.0 (Linux; Android 15) SamsungBrowser/28.0 {LIKE_CHROME}", "Samsung Internet on Android"),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {LIKE_CHROME}", "Chrome on ChromeOS"),
        (f"Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) CriOS/137.0 {LIKE_SAFARI}", "Chrome on iPad"),
        ("curl/8.14.1", "curl"),
        ("python-httpx/0.28.1", "Python"),
        ("Something (Linux)", "Unknown browser on Linux"),
        ("Something else", UNKNOWN_DEVICE),
        ("", UNKNOWN_DEVICE),
        (None, UNKNOWN_DEVICE),
    ],
)
def test_device_is_named_by_browser_and_system(user_agent: str | None, name: str) -> None:
    assert device_name(user_agent) == name


# --- signing out ------------------------------------------------------------------------------------------------------


async def test_device_that_is_signed_out_is_out_at_its_next_click_and_no_other_is(new_client: NewClient) -> None:
    here, phone, tablet = [await logged_in(new_client) for _ in range(3)]
    response = await here.post("/devices/revoke", data={"handle": await handle_of(phone)})
    assert (response.status_code, response.headers["location"]) == (303, "/devices")
    assert (await phone.get("/cart")).headers["location"] == "/login?next=%2Fcart"
    assert await is_out(phone)
    assert not await is_out(tablet)
    assert "That device is signed out." in (await here.get("/devices")).text
    assert len(await listed(here)) == 2
    assert "That device is signed out." not in (await here.get("/devices")).text


async def test_everywhere_else_is_everywhere_but_here_and_nobody_elses(new_client: NewClient) -> None:
    here, phone, tablet = [await logged_in(new_client) for _ in range(3)]
    bob = await logged_in(new_client, BOB)
    response = await here.post("/devices/revoke-others")
    assert (response.status_code, response.headers["location"]) == (303, "/devices")
    assert [await is_out(client) for client in (phone, tablet, here, bob)] == [True, True, False, False]
    assert "You are signed out everywhere else." in (await here.get("/devices")).text
    assert len(await listed(here)) == 1


async def test_signing_out_is_answered_to_programs_as_json(new_client: NewClient) -> None:
    here, phone, tablet = [await logged_in(new_client) for _ in range(3)]
    response = await here.post("/devices/revoke", data={"handle": await handle_of(phone)}, headers=JSON)
    assert (response.status_code, response.json()) == (200, {"revoked": True})
    assert (await here.post("/devices/revoke-others", headers=JSON)).json() == {"revoked": 1}
    assert (await here.post("/devices/revoke-others", headers=JSON)).json() == {"revoked": 0}
    assert await is_out(tablet)


@pytest.mark.parametrize("kind", [HTML, JSON])
async def test_session_of_somebody_else_can_not_be_ended(new_client: NewClient, kind: dict[str, str]) -> None:
    alice, bob = await logged_in(new_client), await logged_in(new_client, BOB)
    response = await alice.post("/devices/revoke", data={"handle": await handle_of(bob)}, headers=kind)
    assert response.status_code == (404 if kind is JSON else 303)
    assert not await is_out(bob)
    assert not await is_out(alice)


@pytest.mark.parametrize("handle", ["", "0" * 40, "x", SCRIPT, "epoch-" + "0" * 34, "\x00", "é" * 10_000])
async def test_handle_that_is_not_in_the_list_ends_nothing_and_is_said(new_client: NewClient, handle: str) -> None:
    here, phone = await logged_in(new_client), await logged_in(new_client)
    answer = await here.post("/devices/revoke", data={"handle": handle}, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    page = await here.post("/devices/revoke", data={"handle": handle}, follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, "/devices")
    assert "not among those where you are logged in" in page.text
    assert not await is_out(phone)


async def test_form_without_a_handle_ends_nothing(new_client: NewClient) -> None:
    here = await logged_in(new_client)
    assert (await here.post("/devices/revoke", headers=JSON)).status_code == 404
    assert not await is_out(here)


async def test_device_that_signs_itself_out_is_logged_out(new_client: NewClient, sessions: Sessions) -> None:
    here = await logged_in(new_client)
    page = await here.post("/devices/revoke", data={"handle": await handle_of(here)}, follow_redirects=True)
    assert (page.url.path, page.status_code) == ("/login", 200)
    assert "You are logged out." in page.text
    assert await sessions.for_user("alice") == []


async def test_handle_from_before_a_login_is_no_handle_afterwards(new_client: NewClient) -> None:
    here, phone = await logged_in(new_client), await logged_in(new_client)
    before = await handle_of(phone)
    await phone.post("/login", data=ALICE)
    assert (await here.post("/devices/revoke", data={"handle": before}, headers=JSON)).status_code == 404
    assert not await is_out(phone)


# --- what the pages teach ---------------------------------------------------------------------------------------------


async def test_page_teaches_what_happened_with_the_code_that_did_it(new_client: NewClient) -> None:
    here, phone = await logged_in(new_client), await logged_in(new_client)
    handle = await handle_of(phone)
    for path, form, function in (
        ("/devices/revoke", {"handle": "0" * 40}, "sign_out_device"),
        ("/devices/revoke", {"handle": handle}, "sign_out_device"),
        ("/devices/revoke-others", {}, "sign_out_others"),
    ):
        page = await here.post(path, data=form, follow_redirects=True)
        assert f"<code>POST {path}</code>" in page.text
        code = html.unescape(re.sub(r"</?span[^>]*>", "", page.text))
        assert f"async def {function}(" in code
        assert "session.revoked()" in code


async def test_every_page_of_somebody_who_is_logged_in_listens_and_no_other_does(new_client: NewClient) -> None:
    visitor = await new_client()
    here = await logged_in(new_client)
    for path in ("/", "/login", "/profile", "/cart", "/devices", "/settings", "/nowhere"):
        assert 'data-username="alice"' in (await here.get(path)).text
        assert "<script" not in (await visitor.get(path, follow_redirects=True)).text


# --- observing --------------------------------------------------------------------------------------------------------


def test_observed_store_carries_word_if_and_only_if_the_store_does() -> None:
    assert isinstance(observed(MemoryStore()), AsyncFeed)
    assert not isinstance(observed(SQLiteStore(Path("nowhere"))), AsyncFeed)


async def test_nothing_is_written_down_for_a_websocket_however_long_it_is_open() -> None:
    store = observed(MemoryStore())
    noted = []

    async def app(*_: object) -> None:
        await store.load("key")
        noted.append(len(store_calls()))

    async def unused(*_: object) -> Any:
        raise AssertionError

    for kind in ("http", "websocket"):
        await ObservingMiddleware(app)({"type": kind}, unused, unused)
    assert noted == [1, 0]
