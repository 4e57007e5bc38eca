"""Django on real servers, over HTTP: WSGI with threads, and ASGI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import django_project
import httpx
import pytest
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.test import override_settings
from django_project import pause, with_lifespan
from serving import serve_asgi, serve_wsgi

from coatcheck.integrations.django import SessionStore, sessions

Serve = Callable[[], AbstractContextManager[str]]


@pytest.fixture(autouse=True)
def _project(store_url: str) -> Iterator[None]:
    django_project.make_users()
    connections.close_all()
    pause.reached.clear()
    pause.may_go_on.clear()
    pause.together = None
    with override_settings(COATCHECK={"store": store_url}):
        yield


@pytest.fixture(params=["wsgi", "asgi"])
def base_url(request: pytest.FixtureRequest) -> Iterator[str]:
    serving = serve_wsgi(get_wsgi_application()) if request.param == "wsgi" else serve_asgi(with_lifespan)
    with serving as url:
        yield url


WITH_ASGI = pytest.mark.parametrize("base_url", ["asgi"], indirect=True)
WITH_WSGI = pytest.mark.parametrize("base_url", ["wsgi"], indirect=True)  # which sends a sync body as it is made


@pytest.fixture
def browser(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=30) as browser:
        yield browser


def test_somebody_logs_in_uses_the_site_and_logs_out(browser: httpx.Client) -> None:
    for prefix in ("", "a"):
        assert browser.get(f"/{prefix}log_in?username=alice&password=wonderland").status_code == 302
        assert browser.get(f"/{prefix}who").json()["user"] == "alice"
        browser.get("/fill_cart")
        browser.get(f"/{prefix}nested?item=pen")
        assert browser.get(f"/{prefix}read").json()["values"] == {"cart": {"items": ["pen"]}}
        assert len(sessions().for_user("1")) == 1
        browser.get(f"/{prefix}log_out")
        assert not browser.cookies
        assert sessions().for_user("1") == []


def test_the_admin_works_over_http(browser: httpx.Client) -> None:
    form = {"username": "root", "password": "of all evil"}
    page = browser.get("/admin/login/").text
    form["csrfmiddlewaretoken"] = page.split('name="csrfmiddlewaretoken" value="')[1].partition('"')[0]
    assert browser.post("/admin/login/?next=/admin/", data=form).headers["location"] == "/admin/"
    assert "Log out" in browser.get("/admin/").text


def test_parallel_requests_lose_nothing(browser: httpx.Client) -> None:
    browser.get("/put?first=yes")
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda n: browser.get(f"/put?key{n}={n}"), range(24)))
    assert {response.status_code for response in responses} == {200}
    assert browser.get("/read").json()["values"] == {"first": "yes", **{f"key{n}": str(n) for n in range(24)}}


@WITH_WSGI
def test_headers_of_a_stream_leave_when_the_session_is_stored(browser: httpx.Client) -> None:
    with browser.stream("GET", "/stream") as response:
        key = response.cookies["sessionid"]
        chunks = response.iter_raw()
        assert next(chunks) == b"first"
        # A change in the body is stored before the chunk that may tell of it.
        assert SessionStore(key).load() == {"before": "the stream", "seen": "in the stream"}
        pause.may_go_on.set()
        assert b"".join(chunks) == b"last"


@WITH_ASGI
def test_an_async_stream_stores_what_it_changes(browser: httpx.Client) -> None:
    browser.get("/put?first=yes")
    assert browser.get("/astream").text == "firstlast"
    assert browser.get("/read").json()["values"] == {"first": "yes", "seen": "in the stream"}
