"""What the demo's pages answer, to people, to programs and to attackers."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from form_client import FormClient
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coatcheck import Sessions
from coatcheck.demo.app import MAX_ITEM_CHARACTERS, create_app
from coatcheck.demo.preferences import LANGUAGES
from coatcheck.demo.requests import MAX_BODY_BYTES
from coatcheck.errors import SessionNotFound, StoreUnavailable
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.protocol import WriteResult
from coatcheck.testing import ManualClock
from coatcheck.token import is_store_key

from .conftest import ALICE, BOB, HTML, JSON, NewClient

pytestmark = pytest.mark.anyio

PUBLIC = ["/", "/login"]
GUARDED = ["/profile", "/cart", "/devices", "/settings"]


def session_count(store: MemoryStore) -> int:
    """Count sessions; a user's list, which is a record too, may outlive them."""
    return sum(is_store_key(key) for key in store._table._records)


def without_live_script(page: str) -> str:
    """Take out the one script that there may be, which is a file of the demo's."""
    script = r'<script src="/static/live\.js\?v=[0-9a-f]+" data-username="\w+" data-expires-in="-?\d+" defer></script>'
    return re.sub(script, "", page, count=1)


# --- logging in and out -----------------------------------------------------------------------------------------------


async def test_login_leads_to_the_profile_and_greets(visitor: httpx.AsyncClient) -> None:
    response = await visitor.post("/login", data=ALICE)
    assert (response.status_code, response.headers["location"]) == (303, "/profile")
    page = await visitor.get("/profile")
    assert page.status_code == 200
    assert "Welcome, alice" in page.text


@pytest.mark.parametrize(
    "form",
    [
        {"username": "alice", "password": "wrong"},
        {"username": "nobody", "password": "wonderland"},
        {"username": "", "password": ""},
        {"username": "alice"},
        {"password": "wonderland"},
        {},
    ],
)
async def test_wrong_password_shows_the_form_again_with_an_error_and_makes_no_session(
    visitor: httpx.AsyncClient, store: MemoryStore, form: dict[str, str]
) -> None:
    response = await visitor.post("/login", data=form)
    assert response.status_code == 401
    assert 'role="alert"' in response.text
    assert 'name="password"' in response.text
    assert "set-cookie" not in response.headers
    assert session_count(store) == 0


async def test_wrong_password_is_told_to_programs_as_json(visitor: httpx.AsyncClient) -> None:
    response = await visitor.post("/login", data={"username": "alice", "password": "x"}, headers=JSON)
    assert response.status_code == 401
    assert response.json()["error"] == "wrong_credentials"


async def test_login_page_names_the_demos_users(visitor: httpx.AsyncClient) -> None:
    text = (await visitor.get("/login")).text
    assert all(word in text for word in ("alice", "wonderland", "bob", "builder"))


async def test_login_gives_a_new_id_and_the_one_from_before_is_dead(
    new_client: NewClient, visitor: httpx.AsyncClient
) -> None:
    await visitor.post("/login", data=ALICE)
    await visitor.post("/logout")
    planted = visitor.cookies["session"]  # of the session that carries the goodbye: anonymous, and genuine
    await visitor.post("/login", data=BOB)
    assert visitor.cookies["session"] != planted
    attacker = await new_client(HTML | {"Cookie": f"session={planted}"})
    assert (await attacker.get("/profile")).status_code == 303


async def test_login_again_gives_a_new_id_and_keeps_the_users_values(alice: httpx.AsyncClient) -> None:
    await alice.post("/cart", data={"item": "scarf"})
    before = alice.cookies["session"]
    await alice.post("/login", data=ALICE)
    assert alice.cookies["session"] != before
    assert (await alice.get("/cart", headers=JSON)).json() == {"items": ["scarf"]}


async def test_login_as_somebody_else_carries_nothing_over_and_ends_the_old_session(
    new_client: NewClient, alice: httpx.AsyncClient
) -> None:
    await alice.post("/cart", data={"item": "love letter"})
    old = alice.cookies["session"]
    await alice.post("/login", data=BOB)
    assert (await alice.get("/profile", headers=JSON)).json()["username"] == "bob"
    assert (await alice.get("/cart", headers=JSON)).json() == {"items": []}
    thief = await new_client(HTML | {"Cookie": f"session={old}"})
    assert (await thief.get("/profile")).status_code == 303


async def test_logout_ends_the_session_on_the_server(
    new_client: NewClient, alice: httpx.AsyncClient, sessions: Sessions
) -> None:
    copied = alice.cookies["session"]
    response = await alice.post("/logout")
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    with pytest.raises(SessionNotFound):
        async with sessions.open(copied):
            pass
    assert (await alice.get("/profile")).status_code == 303
    thief = await new_client(HTML | {"Cookie": f"session={copied}"})
    assert (await thief.get("/profile")).status_code == 303


async def test_goodbye_leaves_neither_record_nor_cookie_behind(alice: httpx.AsyncClient, store: MemoryStore) -> None:
    await alice.post("/logout")
    assert "You are logged out." in (await alice.get("/login")).text
    assert session_count(store) == 0
    assert "session" not in alice.cookies


async def test_logout_without_a_session_makes_none(visitor: httpx.AsyncClient, store: MemoryStore) -> None:
    response = await visitor.post("/logout")
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert "set-cookie" not in response.headers
    assert session_count(store) == 0


async def test_session_that_ran_out_has_to_log_in_again(alice: httpx.AsyncClient, clock: ManualClock) -> None:
    clock.advance(timedelta(hours=2, seconds=1))
    assert (await alice.get("/profile")).status_code == 303


# --- messages that are shown once -------------------------------------------------------------------------------------


async def test_flash_messages_after_login_settings_and_logout_are_shown_once(visitor: httpx.AsyncClient) -> None:
    settings = {"theme": "dark", "language": "de"}
    for path, form, message in (
        ("/login", ALICE, "You are logged in."),
        ("/settings", settings, "Your settings are saved."),
        ("/logout", {}, "You are logged out."),
    ):
        shown = await visitor.post(path, data=form, follow_redirects=True)
        assert message in shown.text
        again = await visitor.get(shown.url)
        assert message not in again.text


async def test_head_and_json_leave_the_message_for_the_page(visitor: httpx.AsyncClient) -> None:
    await visitor.post("/login", data=ALICE)
    await visitor.head("/profile")
    await visitor.get("/profile", headers=JSON)
    assert "You are logged in." in (await visitor.get("/profile")).text


# --- the guard --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GUARDED)
async def test_browser_without_a_session_is_sent_to_the_login_and_back(visitor: httpx.AsyncClient, path: str) -> None:
    refused = await visitor.get(path)
    assert refused.status_code == 303
    location = urlsplit(refused.headers["location"])
    assert (location.path, parse_qs(location.query)) == ("/login", {"next": [path]})
    form = await visitor.get(refused.headers["location"])
    assert f'name="next" value="{path}"' in form.text
    response = await visitor.post("/login", data=ALICE | {"next": path})
    assert response.headers["location"] == path


@pytest.mark.parametrize("path", [*GUARDED, "/visit", "/devices/revoke", "/devices/revoke-others"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_program_without_a_session_gets_401_as_json(visitor: httpx.AsyncClient, method: str, path: str) -> None:
    only_post, only_get = ("/visit", "/devices/revoke", "/devices/revoke-others"), ("/profile", "/devices")
    if path in (only_post if method == "GET" else only_get):
        return
    response = await visitor.request(method, path, headers=JSON)
    assert response.status_code == 401
    assert response.json()["error"] == "login_required"


async def test_post_without_a_session_changes_nothing_and_leads_to_a_page_after_the_login(
    visitor: httpx.AsyncClient, store: MemoryStore
) -> None:
    for path, target in (
        ("/visit", "/profile"),
        ("/cart", "/cart"),
        ("/settings", "/settings"),
        ("/devices/revoke", "/profile"),
        ("/devices/revoke-others", "/profile"),
    ):
        response = await visitor.post(path, data={"item": "hat"})
        assert response.status_code == 303
        assert parse_qs(urlsplit(response.headers["location"]).query) == {"next": [target]}
    assert session_count(store) == 0


async def test_query_of_the_page_survives_the_login(visitor: httpx.AsyncClient) -> None:
    refused = await visitor.get("/cart?sort=name&page=2")
    assert parse_qs(urlsplit(refused.headers["location"]).query) == {"next": ["/cart?sort=name&page=2"]}


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example", "///evil.example", "https:evil.example", "https://evil.example/profile", "/\\evil.example",
        "\\\\evil.example", "/\t/evil.example", "\t//evil.example", " //evil.example", "/ /evil.example",
        "/profile\r\nSet-Cookie: a=b", "/profile%0d%0aSet-Cookie:%20a=b", "/profile\n", "/profile\x00", "/profile\x7f",
        "/%2f%2fevil.example", "/%5cevil.example", "/profile%5c", "/cart?x=%0aLocation:%20//evil", "/.//evil.example",
        "/profile/..//evil.example", "javascript:alert(1)", "data:text/html,x", "evil.example", "profile", "", "@evil",
        "/@evil.example", "/profile@evil.example", "http:/profile", "/logout", "/visit", "/nowhere",
        "/static/style.css", "/prof\u0131le", "/profile\u2028", "/" + "a" * 5_000, "/cart?" + "a" * 5_000,
        "?next=//evil", "#//evil",
    ],
)  # fmt: skip
async def test_login_never_leads_away_from_this_sites_pages(visitor: httpx.AsyncClient, target: str) -> None:
    for response in (
        await visitor.post("/login", data=ALICE | {"next": target}),
        await visitor.post("/login", params={"next": target}, data=ALICE),
    ):
        assert response.status_code == 303
        assert response.headers["location"] == "/profile"
        assert response.headers.get_list("set-cookie")[0].startswith("session=")
    form = await visitor.get("/login", params={"next": target})
    assert 'name="next" value="/profile"' in form.text


@pytest.mark.parametrize("target", ["/", "/cart", "/settings", "/cart?sort=name", "/profile#values"])
async def test_login_leads_to_the_page_that_was_asked_for(visitor: httpx.AsyncClient, target: str) -> None:
    response = await visitor.post("/login", params={"next": target}, data=ALICE)
    assert response.headers["location"] == target


# --- profile, visits, cart, settings ----------------------------------------------------------------------------------


async def test_profile_answers_programs_with_username_and_handle(alice: httpx.AsyncClient) -> None:
    answer = (await alice.get("/profile", headers=JSON)).json()
    assert set(answer) == {"username", "handle", "csrf_token"}
    assert answer["username"] == "alice"
    assert answer["handle"] in (await alice.get("/profile")).text


async def test_profile_shows_age_expiry_and_values(alice: httpx.AsyncClient, clock: ManualClock) -> None:
    await alice.post("/visit")
    clock.advance(timedelta(minutes=5))
    text = (await alice.get("/profile")).text
    assert re.search(r"<dt>Age</dt>", text)
    assert re.search(r"<dt>Expiry</dt>", text)
    assert re.search(r"<code>visits</code></th><td>int</td><td><bdi>1</bdi>", text)
    assert "_flash" not in text


async def test_profile_never_shows_the_token(alice: httpx.AsyncClient) -> None:
    assert alice.cookies["session"] not in (await alice.get("/profile")).text


async def test_visit_answers_with_the_true_number_in_the_kind_that_is_asked_for(alice: httpx.AsyncClient) -> None:
    as_json = await alice.post("/visit", headers=JSON)
    as_text = await alice.post("/visit", headers={"Accept": "*/*"})
    as_page = await alice.post("/visit")
    assert as_json.json() == {"visits": 1}
    assert (as_text.headers["content-type"], as_text.text.strip()) == ("text/plain; charset=utf-8", "2")
    assert as_page.headers["content-type"].startswith("text/html")
    assert '<span class="number">3</span>' in as_page.text


async def test_cart_keeps_what_is_put_into_it(alice: httpx.AsyncClient) -> None:
    response = await alice.post("/cart", data={"item": "  umbrella "})
    assert (response.status_code, response.headers["location"]) == (303, "/cart")
    answer = await alice.post("/cart", data={"item": "hat"}, headers=JSON)
    assert answer.json() == {"items": ["umbrella", "hat"]}
    assert (await alice.get("/cart", headers=JSON)).json() == {"items": ["umbrella", "hat"]}
    assert "umbrella" in (await alice.get("/cart")).text


@pytest.mark.parametrize("form", [{}, {"item": ""}, {"item": "  \t"}, {"item": "x" * 201}, {"item": "a\x00b"}])
async def test_thing_that_is_not_one_is_refused_and_nothing_changes(
    alice: httpx.AsyncClient, form: dict[str, str]
) -> None:
    page = await alice.post("/cart", data=form)
    assert page.status_code == 400
    assert 'role="alert"' in page.text
    answer = await alice.post("/cart", data=form, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_item")
    assert (await alice.get("/cart", headers=JSON)).json() == {"items": []}


async def test_cart_takes_the_longest_thing_and_is_full_at_its_bound(
    alice: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coatcheck.demo.app.MAX_ITEMS", 1)
    assert (await alice.post("/cart", data={"item": "🎩" * MAX_ITEM_CHARACTERS})).status_code == 303
    full = await alice.post("/cart", data={"item": "hat"}, headers=JSON)
    assert (full.status_code, full.json()["error"]) == (409, "cart_full")
    assert "The cart is full" in (await alice.post("/cart", data={"item": "hat"})).text


async def test_theme_and_language_are_kept_and_change_the_pages(alice: httpx.AsyncClient) -> None:
    assert 'data-theme="system"' in (await alice.get("/")).text
    response = await alice.post("/settings", data={"theme": "dark", "language": "ja"})
    assert (response.status_code, response.headers["location"]) == (303, "/settings")
    for path in ("/", "/profile", "/cart", "/settings", "/nowhere"):
        assert 'data-theme="dark"' in (await alice.get(path)).text
    profile = (await alice.get("/profile")).text
    assert LANGUAGES["ja"].greeting in profile
    assert "Welcome, alice" in profile


async def test_setting_that_is_not_given_stays(alice: httpx.AsyncClient) -> None:
    await alice.post("/settings", data={"theme": "dark", "language": "fr"})
    await alice.post("/settings", data={"theme": "light"})
    profile = (await alice.get("/profile")).text
    assert 'data-theme="light"' in profile
    assert LANGUAGES["fr"].greeting in profile


@pytest.mark.parametrize("form", [{"theme": '"><script>'}, {"theme": "dark", "language": "xx"}])
async def test_setting_that_does_not_exist_is_refused(alice: httpx.AsyncClient, form: dict[str, str]) -> None:
    page = await alice.post("/settings", data=form)
    assert page.status_code == 400
    assert 'role="alert"' in page.text
    assert 'data-theme="system"' in page.text
    answer = await alice.post("/settings", data=form, headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_settings")


# --- what the pages tell of the store ---------------------------------------------------------------------------------


async def test_pages_tell_what_their_request_asked_of_the_store(visitor: httpx.AsyncClient) -> None:
    def operations(response: httpx.Response) -> list[str]:
        return re.findall(r'<span class="operation">(\w+)</span>', response.text)

    assert operations(await visitor.get("/")) == []
    await visitor.post("/login", data=ALICE)
    assert operations(await visitor.get("/profile")) == ["load", "update"]  # the message is taken out
    assert operations(await visitor.get("/profile")) == ["load"]
    assert operations(await visitor.post("/visit")) == ["load", "update"]
    await visitor.post("/logout")
    assert operations(await visitor.get("/login")) == ["load", "load", "delete", "announce"]


async def test_pages_show_the_code_that_runs(alice: httpx.AsyncClient) -> None:
    text = re.sub(r"</?span[^>]*>", "", (await alice.get("/cart")).text)
    assert "session.append(&#34;cart&#34;, item)\n    await session.save()" in text


async def test_pages_work_with_a_store_that_is_not_observed() -> None:
    sessions = Sessions("memory://", secret_keys=["k" * 32])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(sessions)), base_url="https://demo"
    ) as client:
        response = await client.post("/login", data=ALICE, headers=HTML, follow_redirects=True)
        assert "Welcome, alice" in response.text
        assert "__Host-session" in response.text


# --- sessions that end while a request runs ---------------------------------------------------------------------------


class EndingStore(MemoryStore):
    """Ends a session in the moment before it is written."""

    is_armed = False

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> WriteResult:
        if self.is_armed:
            await self.delete(key)
        return await super().update(key, revision, record, ttl_ms)


@pytest.mark.parametrize(("path", "form"), [("/visit", {}), ("/cart", {"item": "hat"})])
async def test_session_ended_from_elsewhere_is_sent_to_the_login_and_not_brought_back(
    path: str, form: dict[str, str]
) -> None:
    store = EndingStore()
    sessions = Sessions(store, secret_keys=["k" * 32])
    transport = httpx.ASGITransport(create_app(sessions))
    async with FormClient(transport=transport, base_url="https://demo", headers=JSON) as client:
        await client.post("/login", data=ALICE)
        await client.get("/profile")
        store.is_armed = True
        assert (await client.post(path, data=form)).status_code == 401
        assert session_count(store) == 0


# --- forged requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/settings", "/logout", "/visit", "/cart", "/devices/revoke-others", "/login"])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Origin": "https://evil.example"}, "csrf_origin"),
        ({"Sec-Fetch-Site": "cross-site"}, "csrf_origin"),
        ({"X-CSRF-Token": "A" * 64}, "csrf_token_wrong"),
    ],
)
async def test_forged_request_changes_nothing(
    alice: httpx.AsyncClient, path: str, headers: dict[str, str], code: str
) -> None:
    form = {"theme": "dark", "item": "hat", "username": "bob", "password": "builder"}
    answer = await alice.post(path, data=form, headers=JSON | headers)
    assert (answer.status_code, answer.json()["error"]) == (403, code)
    page = await alice.post(path, data=form, headers=headers)
    assert page.status_code == 403
    assert "Nothing was changed" in page.text
    assert "alice" not in page.text
    profile = await alice.get("/profile")
    assert profile.status_code == 200
    assert "dark" not in re.findall(r'<html[^>]*data-theme="(\w+)"', profile.text)
    assert (await alice.get("/cart", headers=JSON)).json() == {"items": []}


@pytest.mark.parametrize("path", ["/profile", "/cart", "/settings", "/devices"])
async def test_every_form_brings_a_token_that_is_good(
    new_client: NewClient, alice: httpx.AsyncClient, path: str
) -> None:
    other = await new_client()
    await other.post("/login", data=ALICE)
    page = (await alice.get(path)).text
    tokens = re.findall(r'<input type="hidden" name="csrf_token" value="([\w-]{64})">', page)
    assert len(tokens) == page.count("<form") > 0
    logout = await alice.post("/logout", data={"csrf_token": tokens[0]}, headers={"X-CSRF-Token": ""})
    assert logout.status_code == 303
    assert (await alice.get(path)).status_code == 303


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_missing_page_is_told_in_the_kind_that_is_asked_for(alice: httpx.AsyncClient) -> None:
    page = await alice.get("/nowhere")
    assert page.status_code == 404
    assert "<h1>Not Found</h1>" in page.text
    assert "alice" in page.text
    answer = await alice.get("/nowhere", headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/login", "GET, HEAD, POST"),
        ("GET", "/logout", "POST"),
        ("GET", "/visit", "POST"),
        ("DELETE", "/cart", "GET, HEAD, POST"),
        ("POST", "/profile", "GET, HEAD"),
        ("OPTIONS", "/settings", "GET, HEAD, POST"),
    ],
)
async def test_wrong_method_is_refused_and_the_right_ones_are_named(
    alice: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    response = await alice.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert (await alice.request(method, path, headers=JSON)).json()["error"] == "method_not_allowed"


@pytest.mark.parametrize("kind", [HTML, JSON])
async def test_failure_in_the_demo_stores_nothing_and_tells_nothing(sessions: Sessions, kind: dict[str, str]) -> None:
    async def fail(request: Request) -> Response:
        request.session["visits"] = 99
        msg = "with a secret in it"
        raise RuntimeError(msg)

    app = create_app(sessions)
    app.router.routes.append(Route("/fail", fail))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with FormClient(transport=transport, base_url="http://demo", headers=kind) as client:
        await client.post("/login", data=ALICE)
        response = await client.get("/fail")
        assert response.status_code == 500
        assert "secret" not in response.text
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert response.headers["cache-control"] == "no-store"
        assert (await client.post("/visit", headers=JSON)).json() == {"visits": 1}


async def test_path_with_a_slash_too_many_is_not_redirected_by_the_host_header(visitor: httpx.AsyncClient) -> None:
    response = await visitor.get("/profile/", headers={"Host": "evil.example"})
    assert response.status_code == 404


@pytest.mark.parametrize("host", ["[::", "a b", "evil.example/x?y#z", "x" * 5_000, "\xff", ""])
async def test_nonsense_in_the_host_header_breaks_no_page(alice: httpx.AsyncClient, host: str) -> None:
    headers = [(b"Host", host.encode("latin-1")), (b"Accept", b"text/html")]
    for path in (*PUBLIC, *GUARDED):
        assert (await alice.get(path, headers=headers)).status_code == 200
    assert (await alice.get("/nowhere", headers=headers)).status_code == 404
    alice.cookies.clear()
    assert (await alice.get("/cart", headers=headers)).headers["location"] == "/login?next=%2Fcart"


async def test_store_that_can_not_be_reached_is_no_logout(
    alice: httpx.AsyncClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        msg = "no route to the store"
        raise StoreUnavailable(msg)

    for method, request in (("load", ("GET", "/profile")), ("update", ("POST", "/visit"))):
        with monkeypatch.context() as broken:
            broken.setattr(store, method, fail)
            response = await alice.request(*request)
        assert (response.status_code, "retry-after" in response.headers) == (503, True)
        assert "content-security-policy" in response.headers
        assert "set-cookie" not in response.headers
    assert (await alice.post("/visit", headers=JSON)).json() == {"visits": 1}


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PUBLIC, *GUARDED, "/nowhere"])
@pytest.mark.parametrize("kind", [HTML, JSON])
async def test_every_answer_forbids_what_comes_from_elsewhere_and_is_kept_by_no_cache(
    alice: httpx.AsyncClient, path: str, kind: dict[str, str]
) -> None:
    headers = (await alice.get(path, headers=kind)).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    vary = {word.strip().lower() for word in headers["vary"].split(",")}
    assert vary == ({"accept"} if path == "/nowhere" and kind is JSON else {"cookie", "accept"})


@pytest.mark.parametrize("path", [*PUBLIC, *GUARDED, "/nowhere"])
async def test_pages_use_nothing_from_elsewhere_and_no_script_or_style_within(
    alice: httpx.AsyncClient, path: str
) -> None:
    text = (await alice.get(path)).text
    assert "<script" not in without_live_script(text)
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert not re.search(r'(?:src|href|action)="(?!/(?!/)|#)', text)


async def test_static_files_may_be_kept_and_cost_the_store_nothing(visitor: httpx.AsyncClient) -> None:
    page = (await visitor.get("/")).text
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
        response = await visitor.get(address)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert "set-cookie" not in response.headers
        assert "url(" not in response.text
    assert (await visitor.get("/static/app.py")).status_code == 404
    assert (await visitor.get("/static/..%2fapp.py")).status_code == 404


async def test_cookie_is_hidden_from_scripts_and_from_other_sites_forms(visitor: httpx.AsyncClient) -> None:
    cookie = (await visitor.post("/login", data=ALICE)).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/" in cookie


@pytest.mark.parametrize("path", [*PUBLIC, *GUARDED, "/static/style.css"])
async def test_head_answers_like_get_without_a_body(alice: httpx.AsyncClient, path: str) -> None:
    get, head = await alice.get(path), await alice.head(path)
    assert (head.status_code, head.headers["content-type"]) == (get.status_code, get.headers["content-type"])


async def test_visitors_who_only_read_cost_the_store_nothing(visitor: httpx.AsyncClient, store: MemoryStore) -> None:
    for path in (*PUBLIC, *GUARDED, "/nowhere"):
        assert "set-cookie" not in (await visitor.get(path)).headers
    assert session_count(store) == 0


# --- what attackers send ----------------------------------------------------------------------------------------------

SCRIPT = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"


async def test_markup_in_a_username_is_shown_as_text(visitor: httpx.AsyncClient) -> None:
    text = (await visitor.post("/login", data={"username": SCRIPT, "password": "x"})).text
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "{{7*7}}" in text


async def test_markup_in_a_thing_is_shown_as_text_wherever_it_is_shown(alice: httpx.AsyncClient) -> None:
    await alice.post("/cart", data={"item": SCRIPT})
    for path in ("/cart", "/profile"):
        text = without_live_script((await alice.get(path)).text)
        assert "&lt;script&gt;" in text
        assert "<script" not in text
        assert "<img src=x" not in text
    answer = await alice.get("/cart", headers=JSON)
    assert answer.json()["items"] == [SCRIPT]
    assert answer.headers["content-type"] == "application/json"


async def test_markup_in_values_of_any_type_and_in_messages_is_shown_as_text(
    alice: httpx.AsyncClient, sessions: Sessions
) -> None:
    values: dict[str, Any] = {"<b>key": {SCRIPT: [SCRIPT]}, "set": {SCRIPT}, "bytes": SCRIPT.encode()}
    async with sessions.open(alice.cookies["session"]) as session:
        session.update(values)
        session.flash(SCRIPT, SCRIPT)
    text = without_live_script((await alice.get("/profile")).text)
    assert "<b>key" not in text
    assert "<script" not in text
    assert "<img src=x" not in text


async def test_value_of_another_type_than_expected_breaks_no_page(alice: httpx.AsyncClient, sessions: Sessions) -> None:
    async with sessions.open(alice.cookies["session"]) as session:
        session["theme"], session["language"] = ["dark"], 7
    assert (await alice.get("/profile")).status_code == 200


async def test_login_of_somebody_whom_the_demo_does_not_know_opens_no_page(
    new_client: NewClient, sessions: Sessions
) -> None:
    async with sessions.open() as session:
        session.login("mallory")
        session["username"] = "alice"
    stranger = await new_client(HTML | {"Cookie": f"session={session.token}"})
    for path in GUARDED:
        assert (await stranger.get(path)).status_code == 303


async def test_body_beyond_any_form_is_refused(alice: httpx.AsyncClient) -> None:
    for path in ("/login", "/cart", "/settings"):
        response = await alice.post(path, data={"item": "x" * MAX_BODY_BYTES})
        assert response.status_code == 413
        assert response.headers["connection"] == "close"
    assert (await alice.post("/cart", data={"item": "x" * MAX_BODY_BYTES}, headers=JSON)).status_code == 413


URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (URLENCODED, b"item=%ff%fe"),
        (URLENCODED, b"item=\xff\xfe"),
        (URLENCODED, b"&&&===;;;%%%"),
        (URLENCODED, b"item"),
        (URLENCODED, b"&".join(b"a%d=1" % number for number in range(500))),
        (URLENCODED + "; charset=utf-7", b"item=+2AA-"),
        (MULTIPART, b""),
        (MULTIPART, b"nonsense"),
        (MULTIPART, b"--b\r\n\r\n\r\n--b--\r\n"),
        (MULTIPART, part("item", b"\xff\xfe")),
        (MULTIPART, part("item", b"x", '; filename="a.txt"')),
        (MULTIPART + "; charset=utf-7", part("item", b"+2AA-")),
        (MULTIPART + "; charset=punycode", part("item", b"\xff-\xff")),
        (MULTIPART + "; charset=idna", part("item", b"xn--\xff")),
        (MULTIPART + "; charset=zip", part("item", b"x")),
        (MULTIPART + "; charset=undefined", part("item", b"x")),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=" + "b" * 5_000, b"x"),
        ("application/json", b'{"item": "hat"}'),
        ("", b"item=hat"),
        ("\xff", b"item=hat"),
    ],
)
async def test_body_that_is_not_a_proper_form_never_breaks_the_demo(
    alice: httpx.AsyncClient, content_type: str, body: bytes
) -> None:
    headers = [(b"Content-Type", content_type.encode("latin-1"))]
    for path in ("/cart", "/login", "/settings"):
        response = await alice.post(path, content=body, headers=headers)
        assert response.status_code < 500
        assert (await alice.get("/profile")).status_code == 200


async def test_multipart_form_is_a_form_too(alice: httpx.AsyncClient) -> None:
    body = part("item", "chapeau à plume".encode())
    response = await alice.post("/cart", content=body, headers=JSON | {"Content-Type": MULTIPART})
    assert response.json() == {"items": ["chapeau à plume"]}


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("application/json, text/plain, */*", True),
        ("APPLICATION/JSON; charset=utf-8", True),
        ("text/html;q=0.5, application/json;q=0.9", True),
        ("application/json, text/html", True),
        ("text/html, application/json", False),
        ("application/json;q=0.5, text/html;q=0.9", False),
        ("application/json;q=0", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("*/*", False),
        ("", False),
        (",,;q=1,;", False),
        ("application/json;q=nan, text/html", True),
        ("application/jsonp", False),
        ("x" * 60_000, False),
    ],
)
async def test_json_is_given_to_those_who_ask_for_it(alice: httpx.AsyncClient, accept: str, *, is_json: bool) -> None:
    response = await alice.get("/profile", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/json" if is_json else "text/html")


@pytest.mark.parametrize(
    "cookie", ["session=", "session=forged", "session=" + "A" * 8_000, "session=a; session=b", ";"]
)
async def test_forged_cookie_is_no_session_and_reaches_no_store(
    new_client: NewClient, store: MemoryStore, cookie: str
) -> None:
    client = await new_client(HTML | {"Cookie": cookie})
    assert (await client.get("/profile")).status_code == 303
    assert 'class="operation"' not in (await client.get("/")).text
    assert session_count(store) == 0
