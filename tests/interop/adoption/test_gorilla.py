"""Live sessions of a Go program, with the real gorilla/sessions and redistore, are adopted.

Without Go or the libraries the tests are skipped, and say so.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from go_programs import build
from httpx_browser import NATIVE, Browser
from servers import Server

from coatcheck.interop import gob
from coatcheck.interop.gorilla_sessions import GorillaSessions

SOURCE = Path(__file__).parent / "go" / "shop.go"
HASH_KEY, BLOCK_KEY = bytes(range(32)), bytes(range(16))
VALUES = {
    "authenticated": True,
    "username": "alice",
    "visits": 42,
    "cart": ["hat", {"size": 7}],
    "_flash": [["Welcome back", "message"]],
}

OldShop = Callable[..., str]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(SOURCE, tmp_path_factory.mktemp("go"))


@pytest.fixture
def old_shop(program: Path, old_redis: Server, run_server: Callable[..., str]) -> OldShop:
    def start(block_key: bytes | None = None, serializer: str = "gob") -> str:
        keys = HASH_KEY.hex(), "" if block_key is None else block_key.hex()
        return run_server(program, f"127.0.0.1:{old_redis.port}", *keys, serializer)

    return start


def adopter(server: Server, **settings: Any) -> GorillaSessions:
    options: dict[str, Any] = {
        "cookie_name": "session-name",
        "key_pairs": [HASH_KEY],
        "store": server.url,
        "user_id": lambda values: values.get("username"),
    }
    return GorillaSessions(**options | settings)


@pytest.mark.parametrize("block_key", [None, BLOCK_KEY], ids=["signed", "encrypted"])
@pytest.mark.parametrize("serializer", ["gob", "json"])
def test_a_login_in_go_goes_on_here(  # noqa: PLR0917
    old_shop: OldShop,
    old_redis: Server,
    browser: Browser,
    open_shop: Any,
    old_keys: Any,
    block_key: bytes | None,
    serializer: str,
) -> None:
    address = old_shop(block_key, serializer)
    browser.visit_server(address, "/login")
    assert [key.partition("_")[0] for key in old_keys()] == ["session"]
    shop = open_shop(adopter(old_redis, key_pairs=[HASH_KEY, block_key], serializer=serializer))
    for _ in range(2):
        shop.get()
        assert (shop.seen, shop.user_id) == (VALUES, "alice")
    assert (set(browser.names), old_keys()) == ({NATIVE}, [])
    shop.get("/logout")
    assert browser.names == {}


def test_times_and_bytes_are_carried_over(
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any
) -> None:
    browser.visit_server(old_shop(), "/when")
    shop = open_shop(adopter(old_redis))
    shop.get()
    assert shop.seen == {"seen": datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC), "raw": b"\x00\xff"}


def test_a_struct_is_refused_with_its_reason_unless_it_is_made_plain(  # noqa: PLR0917
    old_shop: OldShop,
    old_redis: Server,
    browser: Browser,
    open_shop: Any,
    old_keys: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    browser.visit_server(old_shop(), "/profile")
    shop = open_shop(adopter(old_redis))
    shop.get()
    assert (shop.seen, len(old_keys())) == ({}, 1)
    assert "session['profile'] can't keep a value of type 'GobStruct'" in caplog.text
    shop = open_shop(adopter(old_redis, convert=gob.plain))
    shop.get()
    assert (shop.seen, old_keys()) == ({"profile": {"Name": "Alice"}}, [])


def test_keys_that_are_no_texts_can_be_converted(  # noqa: PLR0917
    old_shop: OldShop,
    old_redis: Server,
    browser: Browser,
    open_shop: Any,
    old_keys: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    browser.visit_server(old_shop(), "/login")
    with redis.Redis(port=old_redis.port) as client:
        (key,) = old_keys()
        client.set(key, gob.dumps({7: "seven"}))
    shop = open_shop(adopter(old_redis))
    shop.get()
    assert (shop.seen, len(old_keys())) == ({}, 1)
    assert "A session's keys are strings, and 7 is of type 'int'" in caplog.text
    shop = open_shop(adopter(old_redis, convert=lambda values: {str(key): value for key, value in values.items()}))
    shop.get()
    assert shop.seen == {"7": "seven"}


def test_what_is_kept_works_on_in_go(
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any, old_keys: Any
) -> None:
    address = old_shop()
    browser.visit_server(address, "/login")
    shop = open_shop(adopter(old_redis, old="keep"))
    shop.get()
    assert browser.visit_server(address, "/login").text == "alice"
    shop.get("/logout")
    shop.get()
    assert (shop.seen, len(old_keys())) == ({}, 1)


def test_a_logout_in_go_before_the_migration_holds(
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any
) -> None:
    address = old_shop()
    browser.visit_server(address, "/login")
    copy = browser.names["session-name"]
    browser.visit_server(address, "/logout")
    browser.cookies.set("session-name", copy, domain="shop.test", path="/")
    shop = open_shop(adopter(old_redis))
    shop.get()
    assert (shop.seen, browser.names) == ({}, {})


def test_a_damaged_gob_is_reported_and_left_as_it_is(  # noqa: PLR0917
    old_shop: OldShop,
    old_redis: Server,
    browser: Browser,
    open_shop: Any,
    old_keys: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    browser.visit_server(old_shop(), "/login")
    with redis.Redis(port=old_redis.port) as client:
        (key,) = old_keys()
        client.setrange(key, 0, b"\xff")
    shop = open_shop(adopter(old_redis))
    shop.get()
    assert (shop.seen, len(old_keys())) == ({}, 1)
    assert "An old session of gorilla/sessions can't be adopted and is left as it is" in caplog.text
    assert "its gob can't be read" in caplog.text


@pytest.mark.parametrize("change", [lambda value: value[:-4], lambda value: value.swapcase()])
def test_a_cookie_that_go_would_refuse_asks_nobody(
    old_shop: OldShop, old_redis: Server, browser: Browser, open_shop: Any, change: Any
) -> None:  # fmt: skip
    browser.visit_server(old_shop(), "/login")
    browser.cookies.set("session-name", change(browser.names["session-name"]), domain="shop.test", path="/")
    shop = open_shop(adopter(old_redis, store="redis://127.0.0.1:1/0"))
    assert shop.get().status_code == 200
    assert shop.seen == {}
