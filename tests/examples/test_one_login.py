"""One login across frameworks: the Django example and an API with FastAPI, behind one host as a proxy gives it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from https_front import HttpsFront
from servers import Server
from shop_driver import EXAMPLES, PASSWORDS, Page, ShopProcess

COOKIE = "__Host-session"


class Device:
    """A browser at the host of both. It sends cookies and Origin as browsers do."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, verify=False, timeout=30, headers={"Origin": url, "Referer": url})

    def close(self) -> None:
        self._client.close()

    @property
    def token(self) -> str | None:
        return self._client.cookies.get(COOKIE)

    # --- Django ---------------------------------------------------------------------------------------------------

    def page(self, path: str) -> Page:
        return Page(self._client.get(path, headers={"Accept": "text/html"}))

    def submit(self, path: str, action: str, **filled_in: str) -> Page:
        form = next(self.page(path).forms_to(action))
        return Page(self._client.post(action, data=form.fields | filled_in))

    def log_in_by_django(self, user: str) -> None:
        assert self.submit("/login", "/login", username=user, password=PASSWORDS[user]).status == 303

    @property
    def is_known_to_django(self) -> bool:
        return self.page("/profile").status == 200

    # --- the API --------------------------------------------------------------------------------------------------

    def api(self, path: str, body: Any = None) -> Any:
        response = self._client.get(path) if body is None else self._client.post(path, json=body)
        return response.json() if response.content else response.status_code

    def log_in_by_api(self, user: str) -> None:
        assert self.api("/api/login", {"username": user, "password": PASSWORDS[user]}) == 204

    @property
    def user_of_the_api(self) -> str | None:
        user: str | None = self.api("/api/me")["user"]
        return user


@pytest.fixture(scope="module", params=["sqlite", "valkey"])
def url(
    request: pytest.FixtureRequest, running_servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The host, behind which two processes of two frameworks have one store."""
    folder = tmp_path_factory.mktemp("one_login")
    store = f"sqlite:///{folder}/shared.sqlite3"
    if request.param == "valkey":
        store = running_servers["valkey"].url
        with redis.Redis.from_url(store) as client:
            client.flushall()
    environment = {"STORE": store, "COOKIE_SECURE": "1"}
    with ExitStack() as stack:
        django, api = (
            stack.enter_context(ShopProcess(EXAMPLES / name, _made(folder / name[:-3]), **environment))
            for name in ("django_app.py", "one_login_api.py")
        )
        front = stack.enter_context(HttpsFront(django.port, folder, below={"/api/": api.port}))
        yield f"https://127.0.0.1:{front.port}"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def devices(url: str) -> Iterator[list[Device]]:
    """Three devices, whose users are logged out everywhere afterwards."""
    devices = [Device(url) for _ in range(3)]
    yield devices
    for device in devices:
        device.api("/api/devices/revoke-others", {})
        device.api("/api/logout", {})
        device.close()


@pytest.fixture
def device(devices: list[Device]) -> Device:
    return devices[0]


def test_who_logs_in_with_django_is_known_to_the_api(device: Device) -> None:
    assert device.user_of_the_api is None
    device.log_in_by_django("alice")
    assert device.user_of_the_api == "1"


def test_who_logs_in_with_the_api_is_known_to_django(device: Device) -> None:
    device.log_in_by_api("bob")
    profile = device.page("/profile")
    assert profile.status == 200
    assert any("bob" in line for line in profile.lines)


def test_both_use_one_cookie_and_each_login_gives_it_a_new_value(device: Device) -> None:
    device.log_in_by_django("alice")
    by_django = device.token
    device.log_in_by_api("alice")
    assert device.token not in (None, by_django)
    assert device.is_known_to_django


def test_what_either_changes_the_other_shows(device: Device) -> None:
    device.log_in_by_django("alice")
    assert device.api("/api/theme", {"theme": "dark"}) == 204
    assert device.page("/settings").theme == "dark"
    assert device.submit("/settings", "/settings", theme="light").status == 303
    assert device.api("/api/me")["theme"] == "light"


def test_visits_that_both_count_at_the_same_time_are_all_counted(device: Device) -> None:
    device.log_in_by_django("alice")
    device.page("/profile")  # the first page is made with a value of Django's own
    before = device.api("/api/me")["visits"]
    with ThreadPoolExecutor(8) as threads:
        by_django = [threads.submit(device.page, "/profile") for _ in range(10)]
        by_api = [threads.submit(device.api, "/api/visits", {}) for _ in range(10)]
        assert {future.result().status for future in by_django} == {200}
        assert all(isinstance(future.result(), int) for future in by_api)
    assert device.api("/api/me")["visits"] == before + 20


def test_a_logout_from_either_is_one_from_both(devices: list[Device]) -> None:
    by_django, by_api, stranger = devices
    by_django.log_in_by_django("alice")
    by_api.log_in_by_api("alice")
    assert by_django.submit("/profile", "/logout").status == 303
    assert by_django.user_of_the_api is None
    assert by_api.api("/api/logout", {}) == 204
    assert not by_api.is_known_to_django
    assert not stranger.is_known_to_django


def test_the_devices_of_both_are_in_one_list_and_ended_by_either(devices: list[Device]) -> None:
    by_django, by_api, other = devices
    by_django.log_in_by_django("alice")
    by_api.log_in_by_api("alice")
    other.log_in_by_django("bob")
    listed = by_api.api("/api/devices")
    assert [entry["is_current"] for entry in listed] == [False, True]
    assert len(list(by_django.page("/devices").forms_to("/devices/revoke"))) == 1
    assert by_api.api("/api/devices/revoke-others", {}) == 1
    assert not by_django.is_known_to_django
    assert by_api.is_known_to_django
    assert other.is_known_to_django


def test_a_login_as_somebody_else_on_the_other_side_carries_nothing_over(device: Device) -> None:
    device.log_in_by_django("alice")
    device.submit("/settings", "/settings", theme="dark")
    device.log_in_by_api("bob")
    profile = device.page("/profile")
    assert any("bob" in line for line in profile.lines)
    assert not any("alice" in line for line in profile.lines)
    assert device.api("/api/me")["theme"] == "system"


def test_the_api_refuses_what_another_site_sends_with_django_s_session(device: Device, url: str) -> None:
    device.log_in_by_django("alice")
    foreign = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
    assert device._client.post("/api/logout", json={}, headers=foreign).status_code == 403
    assert device.is_known_to_django
