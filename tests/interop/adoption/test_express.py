"""Live sessions of the real express-session and connect-redis are adopted.

The packages are installed from npm into a temporary folder. Without Node or npm the tests are skipped, and say so.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from httpx_browser import NATIVE, Browser
from servers import Server

from coatcheck.interop.express import ExpressSessions

SOURCE = Path(__file__).parent / "express"
SECRET, OLDER_SECRET = "keyboard cat", "an older secret: ünïcode"
VALUES = {"userId": 7, "name": "Zoë", "cart": ["hat", {"size": 7}], "price": 1.5, "nothing": None}
DAY_MS = 86_400_000

OldShop = Callable[..., str]


@pytest.fixture(scope="session")
def express(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the old application and its packages."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("express")
    for name in ("package.json", "shop.js"):
        shutil.copy(SOURCE / name, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    subprocess.run(command, cwd=folder, check=True, timeout=110)
    return folder


@pytest.fixture
def old_shop(express: Path, old_redis: Server, run_server: Callable[..., str]) -> OldShop:
    def start(secrets: str = SECRET, max_age: str = "") -> str:
        url = f"redis://127.0.0.1:{old_redis.port}/0"
        return run_server("node", "shop.js", url, secrets, max_age, cwd=express)

    return start


def adopter(server: Server, **settings: Any) -> ExpressSessions:
    options: dict[str, Any] = {
        "secrets": [SECRET, OLDER_SECRET],
        "user_id": lambda values: values.get("userId"),
    } | settings
    return ExpressSessions(store=server.url, **options)


def test_a_login_in_express_goes_on_here(
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any, old_keys: Any
) -> None:
    address = old_shop()
    browser.visit_server(address, "/login")
    assert browser.visit_server(address, "/whoami").text == "7"
    assert [key.partition(":")[0] for key in old_keys()] == ["sess"]
    shop = open_shop(adopter(old_redis))
    assert shop.get().headers.get_list("cache-control") == ["no-store"]
    assert (shop.seen, shop.user_id) == (VALUES, "7")
    assert (set(browser.names), old_keys()) == ({NATIVE}, [])
    shop.get()
    assert (shop.seen, shop.user_id) == (VALUES, "7")
    shop.get("/logout")
    assert browser.names == {}


def test_a_secret_that_was_changed_in_express_still_counts(
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any
) -> None:
    browser.visit_server(old_shop(OLDER_SECRET), "/login")
    assert browser.visit_server(old_shop(f"{SECRET},{OLDER_SECRET}"), "/whoami").text == "7"
    shop = open_shop(adopter(old_redis))
    shop.get()
    assert shop.user_id == "7"


def test_what_is_kept_works_on_in_express(
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any, old_keys: Any
) -> None:
    address = old_shop()
    browser.visit_server(address, "/login")
    shop = open_shop(adopter(old_redis, old="keep"))
    shop.get()
    assert set(browser.names) == {NATIVE, "connect.sid"}
    assert browser.visit_server(address, "/whoami").text == "7"
    shop.get("/logout")
    shop.get()
    assert shop.seen == {}
    assert len(old_keys()) == 1


@pytest.mark.parametrize(("max_age", "remembered"), [("", False), (str(DAY_MS), True)])
def test_whether_the_cookie_outlives_the_browser_stays_as_it_was(  # noqa: PLR0917
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any, max_age: str, remembered: bool
) -> None:
    browser.visit_server(old_shop(max_age=max_age), "/login")
    shop = open_shop(adopter(old_redis))
    response = shop.get()
    assert shop.remembered is remembered
    assert ("Max-Age" in response.headers.get_list("set-cookie")[0]) is remembered


def test_a_session_past_the_age_that_express_gave_it_is_not_adopted(
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any
) -> None:
    """connect-redis lets Redis end it, unless it has `disableTTL`."""
    browser.visit_server(old_shop(max_age=str(DAY_MS)), "/login")
    shop = open_shop(adopter(old_redis, clock=lambda: 4_000_000_000.0))
    shop.get()
    assert (shop.seen, browser.names) == ({}, {})


@pytest.mark.parametrize("change", [lambda value: value[:-1], lambda value: value + "A", lambda value: value[4:]])
def test_a_cookie_that_express_would_refuse_is_refused(  # noqa: PLR0917
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any, old_keys: Any, change: Any
) -> None:
    address = old_shop()
    browser.visit_server(address, "/login")
    browser.cookies.set("connect.sid", change(browser.names["connect.sid"]), domain="shop.test", path="/")
    assert browser.visit_server(address, "/whoami").text == "undefined"
    shop = open_shop(adopter(old_redis))
    shop.get()
    assert (shop.seen, len(old_keys())) == ({}, 1)
