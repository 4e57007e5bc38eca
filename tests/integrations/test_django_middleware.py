"""The middleware, and Django's own in its place: what the client gets, what the store keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.cookies import SimpleCookie
from threading import Barrier
from typing import Any, Literal

import django_project
import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections
from django.http import HttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, override_settings
from django.urls import reverse_lazy
from django_project import DJANGOS, OURS, middleware, pause
from servers import Server

from coatcheck.errors import ResponseStarted
from coatcheck.integrations._django_headers import put_headers
from coatcheck.integrations._django_settings import check_deployment, check_settings
from coatcheck.integrations.django import SessionMiddleware, SessionStore, sessions
from coatcheck.testing import FailingStore, ManualClock, SyncFailingStore


@pytest.fixture(autouse=True)
def _project() -> Iterator[None]:
    django_project.make_users()
    pause.reached.clear()
    pause.may_go_on.clear()
    pause.together = None
    with override_settings(COATCHECK={"store": "memory://"}):
        yield
    connections.close_all()


@pytest.fixture(params=[OURS, DJANGOS], ids=["ours", "djangos"])
def any_middleware(request: pytest.FixtureRequest) -> Iterator[str]:
    with override_settings(MIDDLEWARE=middleware(request.param)):
        yield request.param


@pytest.fixture
def client() -> Client:
    return Client()


def values(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/read").json()["values"]
    return found


def twin(client: Client) -> Client:
    """The same browser, for another request at the same time."""
    other = Client()
    other.cookies = SimpleCookie(client.cookies.output(header="", attrs=[]))
    return other


# --- with either middleware ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_middleware")
class TestEither:
    def test_what_a_view_sets_is_there_in_the_next_request(self, client: Client) -> None:
        client.get("/put?cart=full")
        assert values(client) == {"cart": "full"}

    def test_without_use_there_is_no_cookie_and_nothing_is_stored(self, client: Client) -> None:
        for path in ("/untouched", "/read"):
            assert not client.get(path).cookies
        assert sessions().count() == 0

    def test_the_cookie_is_as_the_settings_say(self) -> None:
        with override_settings(
            SESSION_COOKIE_NAME="__Secure-shop",
            SESSION_COOKIE_DOMAIN="example.com",
            SESSION_COOKIE_PATH="/shop",
            SESSION_COOKIE_SECURE=True,
            SESSION_COOKIE_HTTPONLY=False,
            SESSION_COOKIE_SAMESITE="Strict",
            SESSION_COOKIE_AGE=30 * 86_400,
        ):
            cookie = Client().get("/put?a=1").cookies["__Secure-shop"]
        assert {name: cookie[name] for name in ("domain", "path", "secure", "httponly", "samesite")} == {
            "domain": "example.com", "path": "/shop", "secure": True, "httponly": "", "samesite": "Strict",
        }  # fmt: skip
        assert int(cookie["max-age"]) == 30 * 86_400

    def test_a_browser_session_cookie_has_no_age(self) -> None:
        with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=True):
            cookie = Client().get("/put?a=1").cookies["sessionid"]
        assert (cookie["max-age"], cookie["expires"]) == ("", "")

    def test_set_expiry_zero_makes_a_browser_session_cookie(self, client: Client) -> None:
        assert client.get("/expire?after=0").cookies["sessionid"]["max-age"] == ""
        assert int(client.get("/expire?after=300").cookies["sessionid"]["max-age"]) > 0

    def test_a_response_that_read_the_session_varies_by_cookie(self, client: Client) -> None:
        assert "Vary" not in client.get("/untouched").headers
        assert client.get("/read").headers["Vary"] == "Cookie"

    def test_a_login_renews_the_key_and_enters_the_user_s_list(self, client: Client) -> None:
        client.get("/put?cart=full")
        before = client.cookies["sessionid"].value
        client.get("/log_in?username=alice&password=wonderland")
        assert client.get("/who").json()["user"] == "alice"
        assert values(client) == {"cart": "full"}
        assert not SessionStore().exists(before)
        (listed,) = sessions().for_user("1")
        assert listed.authenticated_at is not None
        assert listed.handle == SessionStore(client.cookies["sessionid"].value).handle

    def test_a_logout_ends_the_session_and_clears_the_cookie(self, client: Client) -> None:
        client.get("/log_in?username=alice&password=wonderland")
        key = client.cookies["sessionid"].value
        assert client.get("/log_out").cookies["sessionid"].value == ""
        assert not SessionStore().exists(key)
        assert sessions().for_user("1") == []

    def test_the_test_client_logs_in_and_out(self, client: Client) -> None:
        assert client.login(username="alice", password="wonderland")
        assert client.get("/who").json()["user"] == "alice"
        assert len(sessions().for_user("1")) == 1
        client.logout()
        assert client.get("/who").json()["user"] == ""

    def test_the_test_client_s_session_can_be_changed(self, client: Client) -> None:
        session = client.session
        session["cart"] = "full"
        session.save()
        assert values(client) == {"cart": "full"}

    def test_a_revoked_user_is_logged_out_everywhere(self, client: Client) -> None:
        other = Client()
        for each in (client, other):
            each.login(username="alice", password="wonderland")
        assert sessions().revoke_user("1") == 2
        for each in (client, other):
            assert each.get("/who").json()["user"] == ""

    def test_a_failed_view_stores_nothing(self) -> None:
        client = Client(raise_request_exception=False)
        client.get("/put?cart=full")
        assert client.get("/fail").status_code == 500
        assert client.get("/put?lost=yes&status=503").status_code == 503
        assert values(client) == {"cart": "full"}

    def test_a_forged_cookie_is_not_adopted_and_costs_the_store_nothing(self, client: Client) -> None:
        client.cookies["sessionid"] = "A" * 92
        client.get("/put?cart=full")
        assert client.cookies["sessionid"].value != "A" * 92
        assert values(client) == {"cart": "full"}

    def test_a_cookie_that_leads_nowhere_is_cleared(self, client: Client) -> None:
        client.get("/put?cart=full")
        SessionStore().delete(client.cookies["sessionid"].value)
        assert client.get("/read").cookies["sessionid"].value == ""

    def test_save_every_request_extends_a_session_that_is_not_used(self) -> None:
        with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
            client = Client()
            client.get("/put?a=1")
            response = client.get("/untouched")
            assert response.cookies["sessionid"].value
            assert response.headers["Vary"] == "Cookie"
            assert not Client().get("/untouched").cookies

    @pytest.mark.parametrize("path", ["/create", "/acreate"])
    def test_a_session_that_a_view_creates_is_the_client_s(self, client: Client, path: str) -> None:
        client.get(path)
        assert values(client) == {"cart": "full"}
        assert sessions().count() == 1

    @pytest.mark.parametrize("path", ["/create", "/acreate"])
    def test_what_a_view_sets_before_it_creates_the_session_is_kept(self, client: Client, path: str) -> None:
        client.get(path + "?pet=cat")
        assert values(client) == {"pet": "cat", "cart": "full"}

    @pytest.mark.parametrize("path", ["/create", "/acreate"])
    def test_a_session_that_a_view_creates_anew_has_nothing_of_the_one_before(self, client: Client, path: str) -> None:
        client.get("/log_in?username=alice&password=wonderland")
        client.get("/put?pet=cat")
        client.get(path + "?anew")
        assert values(client) == {"cart": "full"}
        assert client.get("/who").json()["user"] == ""

    def test_messages_wait_in_the_session(self) -> None:
        for storage in ("session.SessionStorage", "fallback.FallbackStorage"):
            with override_settings(MESSAGE_STORAGE=f"django.contrib.messages.storage.{storage}"):
                client = Client()
                client.get("/say?text=Saved.")
                assert client.get("/hear").json()["heard"] == ["Saved."]
                assert client.get("/hear").json()["heard"] == []

    def test_csrf_tokens_can_live_in_the_session(self, any_middleware: str) -> None:
        with override_settings(
            CSRF_USE_SESSIONS=True,
            MIDDLEWARE=[*middleware(any_middleware), "django.middleware.csrf.CsrfViewMiddleware"],
        ):
            client = Client(enforce_csrf_checks=True)
            page = client.get("/admin/login/").content.decode()
            token = page.split('name="csrfmiddlewaretoken" value="')[1].partition('"')[0]
            form = {"username": "root", "password": "of all evil"}
            assert client.post("/admin/login/", form).status_code == 403
            assert client.post("/admin/login/", {**form, "csrfmiddlewaretoken": token}).status_code == 302

    def test_the_admin_works(self, client: Client) -> None:
        form = {"username": "root", "password": "of all evil"}
        assert client.post("/admin/login/?next=/admin/", form).headers["Location"] == "/admin/"
        assert b"Log out" in client.get("/admin/").content
        page = client.get("/admin/auth/user/1/change/")
        assert page.status_code == 200
        client.post("/admin/logout/")
        assert client.get("/admin/").status_code == 302

    def test_the_project_s_checks_pass(self) -> None:
        with override_settings(SILENCED_SYSTEM_CHECKS=["coatcheck.W001"]):
            call_command("check")


# --- what only ours does ------------------------------------------------------------------------------------------


def test_changes_inside_values_are_found(client: Client) -> None:
    client.get("/fill_cart")
    client.get("/nested?item=pen")
    assert values(client) == {"cart": {"items": ["pen"]}}


def test_a_response_with_a_cookie_is_not_for_caches(client: Client) -> None:
    assert client.get("/put?a=1").headers["Cache-Control"] == "no-store"


def test_django_s_own_cache_keeps_no_response_that_logs_in(client: Client) -> None:
    cached = [
        "django.middleware.cache.UpdateCacheMiddleware",
        *middleware(OURS),
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    with override_settings(MIDDLEWARE=cached):
        assert Client().get("/put?a=1").cookies
        assert Client().get("/put?a=1").cookies["sessionid"].value


def test_a_request_whose_session_ended_meanwhile_gets_its_answer_and_loses_its_cookie(client: Client) -> None:
    client.get("/log_in?username=alice&password=wonderland")
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(twin(client).get, "/put_and_wait?slow=yes")
        assert pause.reached.wait(30)
        client.get("/log_out")
        pause.may_go_on.set()
        response = slow.result()
    assert response.status_code == 200
    assert response.cookies["sessionid"].value == ""
    assert sessions().for_user("1") == []
    assert sessions().count() == 0


def test_django_s_middleware_answers_that_request_by_400_and_resurrects_nothing() -> None:
    with override_settings(MIDDLEWARE=middleware(DJANGOS)):
        client = Client()
        client.get("/log_in?username=alice&password=wonderland")
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(twin(client).get, "/put_and_wait?slow=yes")
            assert pause.reached.wait(30)
            client.get("/log_out")
            pause.may_go_on.set()
            assert slow.result().status_code == 400
        assert sessions().count() == 0


def test_requests_that_change_different_keys_at_the_same_time_all_win(client: Client, store_url: str) -> None:
    with override_settings(COATCHECK={"store": store_url}):
        client.get("/put?first=yes")
        pause.together = Barrier(8)
        with ThreadPoolExecutor(8) as threads:
            responses = list(threads.map(lambda n: twin(client).get(f"/put_and_wait?key{n}={n}"), range(8)))
        assert [response.status_code for response in responses] == [200] * 8
        assert values(client) == {"first": "yes", **{f"key{n}": str(n) for n in range(8)}}


def test_login_and_logout_of_another_user_carry_nothing_over(client: Client) -> None:
    client.get("/log_in?username=alice&password=wonderland")
    client.get("/put?secret=hers")
    client.get("/log_in?username=bob&password=builder")
    assert client.get("/who").json()["user"] == "bob"
    assert values(client) == {}
    assert sessions().for_user("1") == []
    assert len(sessions().for_user("2")) == 1


def test_a_second_login_of_the_same_user_renews_the_key(client: Client) -> None:
    client.get("/log_in?username=alice&password=wonderland")
    first = client.cookies["sessionid"].value
    client.get("/log_in?username=alice&password=wonderland")
    assert not SessionStore().exists(first)
    assert len(sessions().for_user("1")) == 1


def test_the_limit_on_sessions_of_a_user_holds(client: Client) -> None:
    with override_settings(COATCHECK={"store": "memory://", "max_sessions_per_user": 1}):
        client.get("/log_in?username=alice&password=wonderland")
        Client().get("/log_in?username=alice&password=wonderland")
        assert client.get("/who").json()["user"] == ""


def test_the_device_is_kept_with_a_login(client: Client) -> None:
    client.get("/log_in?username=alice&password=wonderland", headers={"user-agent": "Firefox"}, REMOTE_ADDR="192.0.2.7")
    (device,) = sessions().for_user("1")
    assert (device.user_agent, device.client_address) == ("Firefox", "192.0.2.0")


def test_two_genuine_cookies_are_ambiguous_and_neither_counts(client: Client) -> None:
    client.get("/put?cart=mine")
    other = Client()
    other.get("/put?cart=theirs")
    both = "; ".join(f"sessionid={each.cookies['sessionid'].value}" for each in (client, other))
    assert Client().get("/read", headers={"cookie": both}).json()["values"] == {}


def test_a_partitioned_cookie_is_sent_as_one() -> None:
    with override_settings(COATCHECK={"store": "memory://", "partitioned": True}, SESSION_COOKIE_SECURE=True):
        assert "Partitioned" in Client().get("/put?a=1").cookies.output()


def test_a_cookie_is_one_client_s_also_where_a_view_gives_one_response_to_all(client: Client) -> None:
    response = client.get("/same?cart=full")
    assert (response.content, list(response.cookies)) == (b"OK", ["sessionid"])
    other = Client().get("/same")
    assert (other.content, list(other.cookies)) == (b"OK", [])
    assert values(client) == {"cart": "full"}


def test_a_cookie_is_sent_as_it_is() -> None:
    """Gorilla's end in "=", which http.cookies takes for a reason to put them into quotes."""
    response = HttpResponse()
    put_headers(response, [("set-cookie", "session=MTc=; Path=/; HttpOnly")])
    assert response.cookies["session"].OutputString().startswith("session=MTc=; ")


# --- guards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/account", "/aaccount"])
def test_a_guard_in_a_view_sends_browsers_to_the_login_and_tells_programs(client: Client, path: str) -> None:
    target, quoted = f"{path}?tab=1", f"%2F{path[1:]}%3Ftab%3D1"
    for get in (client.get, async_to_sync(AsyncClient().get)):
        sent = get(target, headers={"accept": "text/html"})
        assert (sent.status_code, sent.headers["Location"]) == (303, f"/login?next={quoted}")
        assert (sent.headers["Cache-Control"], sent.headers["Vary"]) == ("no-store", "Cookie")
        told = get(target, headers={"accept": "application/json"})
        assert (told.status_code, told.json()) == (401, {"error": "login_required", "message": "Log in first"})
    client.get("/log_in?username=alice&password=wonderland")
    assert client.get(target).json()["user"] == "1"


def test_what_was_sent_to_a_guarded_view_is_not_asked_for_again_after_the_login(client: Client) -> None:
    assert client.post("/account").headers["Location"] == "/login"


@pytest.mark.parametrize(
    ("login_url", "location"),
    [
        ("admin:login", "/admin/login/?next=%2Faccount"),
        (reverse_lazy("admin:login"), "/admin/login/?next=%2Faccount"),
        ("/login?by=password", "/login?by=password&next=%2Faccount"),
        ("https://id.example/login", "https://id.example/login?next=http%3A%2F%2Ftestserver%2Faccount"),
    ],
)
def test_the_login_is_where_login_url_says(client: Client, login_url: Any, location: str) -> None:
    with override_settings(LOGIN_URL=login_url):
        assert client.get("/account").headers["Location"] == location


def test_a_recent_login_is_asked_for_again_after_its_time() -> None:
    clock = ManualClock()
    with override_settings(COATCHECK={"store": "memory://", "clock": clock}):
        client = Client()
        client.get("/log_in?username=alice&password=wonderland")
        assert client.get("/password").json()["user"] == "1"
        clock.advance(timedelta(minutes=10, seconds=1))
        assert client.get("/password").headers["Location"] == "/login?next=%2Fpassword"
        told = client.get("/password", headers={"accept": "application/json"})
        assert (told.status_code, told.json()["error"]) == (401, "recent_login_required")


# --- while the store is down --------------------------------------------------------------------------------------


@pytest.fixture
def store() -> SyncFailingStore:
    return SyncFailingStore()


def with_store(store: SyncFailingStore, **more: Any) -> Any:
    return override_settings(COATCHECK={"store": store, **more})


def test_while_the_store_is_down_the_answer_is_503_and_nobody_is_logged_out(store: SyncFailingStore) -> None:
    with with_store(store):
        client = Client()
        client.get("/log_in?username=alice&password=wonderland")
        store.fail("load")
        response = client.get("/who")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert not response.cookies
        assert Client().get("/untouched").status_code == 200
        store.recover()
        assert client.get("/who").json()["user"] == "alice"


@pytest.mark.parametrize("operation", ["create", "update"])
def test_what_can_not_be_stored_is_answered_by_503(
    store: SyncFailingStore, operation: Literal["create", "update"]
) -> None:
    with with_store(store):
        client = Client()
        if operation == "update":
            client.get("/put?a=1")
        store.fail(operation)
        response = client.get("/put?b=2")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert not response.cookies


def assert_unavailable(response: Any) -> None:
    assert (response.status_code, response.content[:11]) == (503, b"The service")
    assert (response.headers["Retry-After"], response.headers["Cache-Control"]) == ("5", "no-store")
    assert not response.cookies


@pytest.mark.parametrize("path", ["/save_now", "/increment", "/devices", "/adevices"])
def test_a_view_that_fails_for_the_store_is_answered_by_503(
    store: SyncFailingStore, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async_store = FailingStore()
    with with_store(store, async_store=async_store):
        with store.failing(), async_store.failing():
            assert_unavailable(Client().get(path))
            assert_unavailable(async_to_sync(AsyncClient().get)(path))
        assert "The store can't be used, so a request is answered by 503: the test made" in caplog.text


@pytest.mark.parametrize("name", ["look_for_devices", "alook_for_devices"])
def test_a_middleware_that_fails_for_the_store_is_answered_by_503(store: SyncFailingStore, name: str) -> None:
    async_store = FailingStore()
    with (
        with_store(store, async_store=async_store),
        override_settings(MIDDLEWARE=[*middleware(OURS), f"django_project.{name}"]),
        store.failing(),
        async_store.failing(),
    ):
        assert_unavailable(Client(raise_request_exception=False).get("/untouched"))
        assert_unavailable(async_to_sync(AsyncClient(raise_request_exception=False).get)("/untouched"))


def test_messages_of_a_path_that_goes_on_without_its_session_are_answered_by_503(store: SyncFailingStore) -> None:
    in_session = "django.contrib.messages.storage.session.SessionStorage"
    with with_store(store, while_down="continue"), override_settings(MESSAGE_STORAGE=in_session):
        client = Client(raise_request_exception=False)
        client.get("/put?a=1")
        with store.failing("load"):
            assert_unavailable(client.get("/say?text=Saved."))
            assert client.get("/untouched").status_code == 200


def test_a_path_may_go_on_without_its_session(store: SyncFailingStore) -> None:
    with with_store(store, while_down={"/": "refuse", "/who": "continue", "/put": "continue"}):
        client = Client()
        client.get("/log_in?username=alice&password=wonderland")
        store.fail("load")
        response = client.get("/who")
        assert (response.status_code, response.json()["user"]) == (200, "")
        assert (response.headers["Cache-Control"], bool(response.cookies)) == ("no-store", False)
        assert client.get("/put?a=1").status_code == 503
        assert client.get("/read").status_code == 503
        store.recover()
        assert client.get("/who").json()["user"] == "alice"


def test_a_session_that_could_not_be_loaded_is_not_replaced_by_a_created_one(store: SyncFailingStore) -> None:
    with with_store(store, while_down={"/": "refuse", "/create": "continue"}):
        client = Client(raise_request_exception=False)
        client.get("/log_in?username=alice&password=wonderland")
        with store.failing("load"):
            response = client.get("/create")
        assert (response.status_code, bool(response.cookies)) == (503, False)
        assert client.get("/who").json()["user"] == "alice"


def test_why_a_body_failed_is_not_hidden_by_a_store_that_fails_too(store: SyncFailingStore) -> None:
    with with_store(store):
        client = Client()
        client.get("/put?a=1")
        chunks = iter(client.get("/stream_and_fail"))
        assert next(chunks) == b"first"
        with store.failing(), pytest.raises(ValueError, match="the body fails"):
            next(chunks)


# --- async --------------------------------------------------------------------------------------------------------


def test_async_views_use_the_session() -> None:
    async def visit() -> None:
        client = AsyncClient()
        await client.get("/aput?cart=full")
        assert (await client.get("/aread")).json()["values"] == {"cart": "full"}
        await client.get("/alog_in?username=alice&password=wonderland")
        assert (await client.get("/awho")).json()["user"] == "alice"
        assert len(sessions().for_user("1")) == 1
        await client.get("/fill_cart")
        await client.get("/asave")
        assert (await client.get("/read")).json()["values"]["saved"] == "early"
        assert (await client.get("/alog_out")).cookies["sessionid"].value == ""
        assert sessions().for_user("1") == []

    asyncio.run(visit())


def test_an_async_stream_stores_what_it_changes_before_the_next_chunk_leaves() -> None:
    async def visit() -> None:
        client = AsyncClient()
        await client.get("/aput?cart=full")
        chunks = aiter(await client.get("/astream?after"))
        assert await anext(chunks) == b"first"
        assert SessionStore(client.cookies["sessionid"].value).load() == {"cart": "full", "seen": "in the stream"}
        assert [chunk async for chunk in chunks] == [b"last"]
        assert SessionStore(client.cookies["sessionid"].value).load()["after"] == "the last"

    asyncio.run(visit())


def test_why_an_async_body_failed_is_not_hidden_by_a_store_that_fails_too() -> None:
    store, async_store = SyncFailingStore(), FailingStore()

    async def visit() -> None:
        client = AsyncClient()
        await client.get("/aput?a=1")
        chunks = aiter(await client.get("/astream_and_fail"))
        assert await anext(chunks) == b"first"
        with async_store.failing(), pytest.raises(ValueError, match="the body fails"):
            await anext(chunks)

    with override_settings(COATCHECK={"store": store, "async_store": async_store}):
        asyncio.run(visit())


@pytest.mark.parametrize("path", ["/stream_an_error", "/astream_an_error"])
def test_a_stream_of_500_or_more_stores_nothing_but_a_logout_holds(client: Client, path: str) -> None:
    async def visit(target: str) -> list[bytes]:
        other = AsyncClient()
        other.cookies = client.cookies
        return [chunk async for chunk in await other.get(target)]

    client.get("/log_in?username=alice&password=wonderland")
    for query, user in (("", "alice"), ("?log_out", "")):
        chunks = asyncio.run(visit(path + query)) if path == "/astream_an_error" else list(client.get(path + query))
        assert chunks == [b"first", b"last"]
        assert values(client) == {}
        assert client.get("/who").json()["user"] == user


def test_a_stream_that_would_start_a_session_raises() -> None:
    async def visit() -> None:
        response = await AsyncClient().get("/astream")
        with pytest.raises(ResponseStarted):
            [chunk async for chunk in response]

    asyncio.run(visit())
    assert sessions().count() == 0


def test_coatcheck_s_own_session_is_within_reach(client: Client) -> None:
    client.get("/log_in?username=alice&password=wonderland")
    session = client.session
    session.coatcheck.increment("visits")
    session.save()
    assert session.coatcheck.user_id == "1"
    assert session["visits"] == 1


def test_a_session_that_an_async_view_creates_is_the_client_s() -> None:
    client = AsyncClient()

    async def visit() -> dict[str, Any]:
        await client.get("/acreate")
        found: dict[str, Any] = (await client.get("/aread")).json()["values"]
        return found

    assert asyncio.run(visit()) == {"cart": "full"}


def test_an_async_view_takes_no_thread() -> None:
    async def view(request: Any) -> HttpResponse:
        await request.session.aset("visits", await request.session.aget("visits", 0) + 1)
        return HttpResponse()

    def no_threads(*_: Any) -> Any:
        pytest.fail("a thread was used")

    async def visit() -> None:
        asyncio.get_running_loop().run_in_executor = no_threads  # type: ignore[method-assign, assignment]
        around = SessionMiddleware(view)
        requests = AsyncRequestFactory()
        for _ in range(2):
            response = await around(requests.get("/"))
            requests.cookies.update(response.cookies)
        assert SessionStore(requests.cookies["sessionid"].value).load() == {"visits": 2}

    asyncio.run(visit())


def test_every_async_method_that_django_has_is_here() -> None:
    for name in dir(SessionBase):
        if asyncio.iscoroutinefunction(getattr(SessionBase, name)):
            assert asyncio.iscoroutinefunction(getattr(SessionStore, name)), name


def test_loops_that_come_and_go_leave_no_connections(running_servers: dict[str, Server]) -> None:
    server = running_servers["valkey"]

    def connected() -> int:
        with server.client() as client:
            return int(client.info("clients")["connected_clients"])

    with override_settings(COATCHECK={"store": server.url}):
        client = Client()
        client.get("/aput?cat=1")
        before = connected()
        for number in range(50):
            assert client.get(f"/aput?number={number}").status_code == 200
            assert client.get("/asave").status_code == 200
            async_to_sync(SessionStore(client.cookies["sessionid"].value).aload)()
        assert connected() <= before + 2
        assert client.get("/aread").json()["values"] == {"cat": "1", "number": "49", "saved": "early"}


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (None, "expected a dict"),
        ({}, "at least 'store'"),
        ({"store": "memory://", "idle_timout": 1}, "did you mean 'idle_timeout'"),
        ({"store": "memory://", "cookie": 1}, "SESSION_COOKIE_NAME"),
        ({"store": "http://x"}, "store URL"),
        ({"store": "memory://", "secret_keys": ["short"]}, "too few"),
        ({"store": "memory://", "while_down": "panic"}, "while_down"),
    ],
)
def test_settings_that_can_not_work_are_clear_errors(setting: Any, said: str) -> None:
    with override_settings(COATCHECK=setting), pytest.raises(ImproperlyConfigured, match=said):
        Client().get("/untouched")


@pytest.mark.parametrize(
    ("name", "value"),
    [("SESSION_COOKIE_SAMESITE", False), ("SESSION_COOKIE_NAME", "__Host-session"), ("SECRET_KEY", "short")],
)
def test_cookies_that_browsers_would_drop_are_clear_errors(name: str, value: Any) -> None:
    with override_settings(**{name: value}), pytest.raises(ImproperlyConfigured):
        Client().get("/untouched")


def test_checks_say_what_is_wrong_with_the_settings() -> None:
    def said(**more: Any) -> list[str]:
        with override_settings(**more):
            return [message.id for message in (*check_settings(), *check_deployment())]

    in_file = {"store": "sqlite:///sessions.sqlite3"}
    assert said(COATCHECK=in_file) == []
    assert said(COATCHECK={"store": "nowhere://"}) == ["coatcheck.E001"]
    assert said(COATCHECK=in_file, MIDDLEWARE=middleware(DJANGOS)) == ["coatcheck.W001"]
    assert said(COATCHECK={"store": "memory://"}) == ["coatcheck.W002"]


def test_the_middleware_refuses_another_engine() -> None:
    with (
        override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache"),
        pytest.raises(ImproperlyConfigured, match="SESSION_ENGINE"),
    ):
        Client().get("/untouched")
