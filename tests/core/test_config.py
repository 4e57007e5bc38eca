"""Every wrong setting is refused when the object is built, with a message that helps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.errors import ConfigurationError
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore

KEY = "k" * 32


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "at least one"),
        (None, "at least one"),
        ([""], "0 bytes"),
        (["k" * 31], "31 bytes"),
        ([b"k" * 31], "31 bytes"),
        ([KEY, "short"], r"secret_keys\[1\]"),
        (KEY, "list"),
        (b"k" * 32, "list"),
        ([5], "int"),
    ],
)
@pytest.mark.parametrize("kind", [Sessions, SyncSessions])
def test_weak_secret_keys_are_refused(kind: Any, keys: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        kind("memory://", secret_keys=keys)
    assert says in ("list", "int") or "coatcheck keygen" in str(caught.value)
    assert "short" not in str(caught.value)


def test_keys_are_text_or_bytes_and_counted_in_bytes() -> None:
    Sessions("memory://", secret_keys=[b"\x00" * 32, "\u20ac" * 11])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"idle_timeout": 7200}, "idle_timeout.*timedelta"),
        ({"lifetime": "7d"}, "lifetime.*timedelta"),
        ({"idle_timeout": timedelta(0)}, "idle_timeout.*one second"),
        ({"lifetime": timedelta(days=-1)}, "lifetime.*one second"),
        ({"idle_timeout": timedelta(days=8)}, "longer than lifetime"),
        ({"refresh_after": 1}, "refresh_after"),
        ({"refresh_after": -0.1}, "refresh_after"),
        ({"max_record_bytes": 0}, "max_record_bytes"),
        ({"max_record_bytes": 1.5}, "max_record_bytes"),
        ({"max_keys": True}, "max_keys"),
        ({"cookie": "session"}, "CookieConfig"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        SyncSessions("memory://", secret_keys=[KEY], **settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a=b"}, "name"),
        ({"name": "a;b"}, "name"),
        ({"name": "s\u00e9ssion"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": "a\n"}, "name"),
        ({"path": "app"}, "path"),
        ({"path": "/a;b"}, "path"),
        ({"path": "/a\r\nSet-Cookie: x=y"}, "path"),
        ({"domain": "example.com; x"}, "domain"),
        ({"domain": ""}, "domain"),
        ({"domain": "exa mple.com\n"}, "domain"),
        ({"same_site": "Lax"}, "same_site"),
        ({"same_site": None}, "same_site"),
        ({"same_site": "none", "secure": False}, "secure=True"),
        ({"partitioned": True, "secure": False}, "secure=True"),
        ({"prefix": "__Host-", "secure": False}, "secure=True"),
        ({"prefix": "__Secure-", "secure": False}, "secure=True"),
        ({"prefix": "__Host-", "domain": "example.com"}, "no domain"),
        ({"prefix": "__Host-", "path": "/app"}, "path '/'"),
        ({"prefix": "__Http-", "http_only": False}, "http_only"),
        ({"prefix": "__Host-Http-", "domain": "example.com"}, "no domain"),
        ({"prefix": "__Other-"}, "prefix"),
        ({"prefix": "", "name": "__host-session", "domain": "example.com"}, "no domain"),
        ({"name": "__HOST-x", "secure": False}, "secure=True"),
    ],
)
def test_cookies_that_browsers_would_drop_or_misread_are_refused(settings: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        CookieConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "__Host-session"),
        ({"name": "id"}, "__Host-id"),
        ({"domain": "example.com"}, "__Secure-session"),
        ({"path": "/app"}, "__Secure-session"),
        ({"secure": False}, "session"),
        ({"prefix": ""}, "session"),
        ({"prefix": "__Host-Http-"}, "__Host-Http-session"),
    ],
)
def test_the_strongest_prefix_that_the_settings_allow_is_chosen(settings: Any, name: str) -> None:
    assert CookieConfig(**settings).full_name == name


@pytest.mark.parametrize(
    "url",
    [
        "", "redis", "localhost:6379", "http://localhost", "mysql://localhost/db", "memory://x", "memory", "sqlite://",
        "sqlite:///", "sqlite:///:memory:", "sqlite://host/file", "sqlite:///file?mode=ro", "redis://",
        "redis://localhost:0", "redis://localhost:99999", "redis://localhost:port", "redis://localhost/name",
        "redis:///0", "unix://", "://x", "redis://localhost?decode_responses=True", "redis://localhost?db=x",
        "redis://localhost?socket_timeout=abc", "redis://localhost?nonsense=1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [Sessions, SyncSessions])
def test_a_wrong_store_url_is_refused_with_what_was_expected(kind: Any, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected|takes nothing|another one|options|decode_responses"):
        kind(url, secret_keys=[KEY])


def test_a_password_in_a_wrong_store_url_is_not_shown() -> None:
    for url in ("redis://user:hunter2@localhost:port/0", "user:hunter2@localhost"):
        with pytest.raises(ConfigurationError) as caught:
            Sessions(url, secret_keys=[KEY])
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "store", "says"),
    [
        (Sessions, SyncMemoryStore(), "SyncSessions"),
        (SyncSessions, MemoryStore(), "Sessions"),
        (Sessions, object(), "async store"),
        (SyncSessions, object(), "sync store"),
        (Sessions, None, "async store"),
    ],
)
def test_a_store_of_the_other_kind_is_refused(kind: Any, store: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        kind(store, secret_keys=[KEY])


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost", "redis://localhost:6379", "redis://:pw@localhost:6379/3", "rediss://user:pw@localhost/0",
        "valkey://localhost", "valkeys://localhost", "unix:///run/redis.sock", "redis://[::1]:6379/0", "REDIS://localhost",
    ],
)  # fmt: skip
def test_sessions_on_redis_are_built_without_an_event_loop_or_a_server(url: str) -> None:
    Sessions(url, secret_keys=[KEY])
    SyncSessions(url, secret_keys=[KEY])
