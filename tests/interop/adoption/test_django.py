"""Live sessions of the real Django are adopted: from its tables, from a cache with JSON, and from signed cookies."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import django_project
import pytest
from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from httpx_browser import NATIVE, Browser
from servers import Server

from coatcheck.errors import ConfigurationError, UnreadableSession
from coatcheck.interop.django import (
    DjangoCacheSessions,
    DjangoCookieSessions,
    DjangoSessions,
    DjangoTable,
    auth_user_id,
)
from coatcheck.interop.old_system import MAX_BYTES
from coatcheck.interop.signed_text import MAX_COOKIE_BYTES, unpacked

SECRET, OLDER_SECRET = "an old secret", "an older secret"
VALUES = {"name": "Zoë", "cart": ["hat", {"size": 7}], "price": 1.5, "nothing": None}
LONG = {"history": "a page and " * 200}
ENGINES = "django.contrib.sessions.backends."


class JSONForCache:
    """What Django's documentation calls a serializer for its Redis cache."""

    def dumps(self, obj: Any) -> bytes:
        return json.dumps(obj).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Django's tables, in an SQLite file of their own."""
    path = tmp_path_factory.mktemp("django") / "db.sqlite3"
    with kept_in(path):
        call_command("migrate", verbosity=0)
    return path


@contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Let the process's one Django project have another database for a while."""
    connections.close_all()
    database = connections.settings["default"]
    before, database["NAME"] = database["NAME"], str(path)
    try:
        yield
    finally:
        connections.close_all()
        database["NAME"] = before


class OldShop:
    """The old application, with one of Django's session engines."""

    def __init__(self, browser: Browser) -> None:
        self.user = User.objects.create_user("alice", password="correct horse")
        self.browser = browser

        def log_in(request: HttpRequest) -> HttpResponse:
            login(request, self.user)
            request.session.update(VALUES)
            return HttpResponse("hello")

        def more(request: HttpRequest) -> HttpResponse:
            request.session.update(LONG)
            return HttpResponse("more")

        def forget(request: HttpRequest) -> HttpResponse:
            request.session.set_expiry(0)
            return HttpResponse("until the browser closes")

        def whoami(request: HttpRequest) -> HttpResponse:
            return HttpResponse(request.user.get_username() or "nobody")

        def log_out(request: HttpRequest) -> HttpResponse:
            logout(request)
            return HttpResponse("bye")

        views = {"login": log_in, "more": more, "forget": forget, "whoami": whoami, "logout": log_out}
        settings.ROOT_URLCONF = tuple(path(name, view) for name, view in views.items())
        self.app = WSGIHandler()

    def get(self, path: str) -> str:
        return self.browser.visit_wsgi(self.app, path).text

    @property
    def user_id(self) -> str:
        return str(self.user.pk)


@pytest.fixture
def old_shop(database: Path, browser: Browser, engine: str, old_redis: Server) -> Iterator[OldShop]:
    cache = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{old_redis.port}/0",
        "OPTIONS": {"serializer": JSONForCache} if engine == "cache" else {},
    }
    old = override_settings(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["shop.test"],
        MIDDLEWARE=[django_project.DJANGOS, "django.contrib.auth.middleware.AuthenticationMiddleware"],
        SESSION_ENGINE=ENGINES + engine.removesuffix(", pickled"),
        SESSION_COOKIE_SECURE=True,
        CACHES={"default": cache},
    )
    with kept_in(database), old:
        yield OldShop(browser)
        User.objects.all().delete()
        Session.objects.all().delete()


def table(database: Path, **options: Any) -> DjangoTable:
    defaults: dict[str, Any] = {"connect": lambda: sqlite3.connect(database), "placeholder": "?"}
    return DjangoTable(**defaults | options)


def adopter(database: Path, **options: Any) -> DjangoSessions:
    defaults: dict[str, Any] = {"secret_key": SECRET, "store": table(database)}
    return DjangoSessions(**defaults | options)


def stored_keys(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [key for (key,) in connection.execute("SELECT session_key FROM django_session")]


# --- db and cached_db -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["db", "cached_db"])
def test_a_login_in_django_goes_on_here(database: Path, old_shop: OldShop, browser: Browser, open_shop: Any) -> None:
    old_shop.get("/login")
    assert old_shop.get("/whoami") == "alice"
    assert stored_keys(database) == [browser.names["sessionid"]]
    shop = open_shop(adopter(database))
    for _ in range(2):
        shop.get()
        assert (shop.seen, shop.user_id, shop.remembered) == (VALUES, old_shop.user_id, None)
    assert (set(browser.names), stored_keys(database)) == ({NATIVE}, [])
    shop.get("/logout")
    assert browser.names == {}


@pytest.fixture
def engine() -> str:
    return "db"


def test_a_session_that_django_compressed_is_read(
    database: Path, old_shop: OldShop, browser: Browser, open_shop: Any
) -> None:
    old_shop.get("/more")
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT session_data FROM django_session").fetchone()[0].startswith(".")
    shop = open_shop(adopter(database))
    shop.get()
    assert (shop.seen, shop.user_id) == (LONG, None)


def test_what_is_kept_works_on_in_django(database: Path, old_shop: OldShop, browser: Browser, open_shop: Any) -> None:
    old_shop.get("/login")
    shop = open_shop(adopter(database, old="keep"))
    shop.get()
    assert set(browser.names) == {NATIVE, "sessionid"}
    assert old_shop.get("/whoami") == "alice"
    shop.get("/logout")
    shop.get()
    assert shop.seen == {}


def test_a_secret_key_that_was_changed_still_counts(
    database: Path, old_shop: OldShop, browser: Browser, open_shop: Any
) -> None:
    with override_settings(SECRET_KEY=OLDER_SECRET):
        old_shop.get("/login")
    shop = open_shop(adopter(database, secret_key=[SECRET, OLDER_SECRET]))
    shop.get()
    assert shop.user_id == old_shop.user_id


def test_after_a_change_of_the_password_an_old_login_is_worth_nothing(
    database: Path, old_shop: OldShop, browser: Browser, open_shop: Any
) -> None:
    old_shop.get("/login")
    old_shop.user.set_password("battery staple")
    old_shop.user.save()
    shop = open_shop(adopter(database, old="keep"))
    shop.get()
    assert (shop.seen, shop.user_id) == ({}, None)
    assert old_shop.get("/whoami") == "nobody"


@pytest.mark.parametrize("end", ["inactive", "deleted"])
def test_the_login_of_a_user_who_is_inactive_or_gone_is_worth_nothing(
    database: Path, old_shop: OldShop, browser: Browser, open_shop: Any, end: str
) -> None:
    old_shop.get("/login")
    if end == "deleted":
        old_shop.user.delete()
    else:
        old_shop.user.is_active = False
        old_shop.user.save()
    shop = open_shop(adopter(database, old="keep"))
    shop.get()
    assert (shop.seen, shop.user_id) == ({}, None)
    assert old_shop.get("/whoami") == "nobody"


def test_a_session_whose_time_is_over_is_not_adopted(
    database: Path, old_shop: OldShop, browser: Browser, open_shop: Any
) -> None:
    import time

    old_shop.get("/login")
    later = table(database, clock=lambda: time.time() + timedelta(days=14, seconds=2).total_seconds())
    shop = open_shop(adopter(database, store=later))
    shop.get()
    assert shop.seen == {}


def test_times_without_a_zone_are_those_of_the_setting(database: Path, old_shop: OldShop, browser: Browser) -> None:
    import time

    old_shop.get("/login")
    key = browser.names["sessionid"]
    later = time.time() + timedelta(days=14, hours=1).total_seconds()
    assert table(database, clock=lambda: later).session(key) is None
    assert table(database, clock=lambda: later, time_zone=timezone(timedelta(hours=-2))).session(key) is not None


def test_a_cookie_for_the_browsers_session_stays_one(
    database: Path, old_shop: OldShop, browser: Browser, open_shop: Any
) -> None:
    old_shop.get("/login")
    old_shop.get("/forget")
    shop = open_shop(adopter(database))
    shop.get()
    assert (shop.seen, shop.remembered) == (VALUES, False)


def test_a_record_that_was_tampered_with_is_reported_and_left_as_it_is(
    database: Path, old_shop: OldShop, browser: Browser, open_shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    old_shop.get("/login")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE django_session SET session_data = 'e30' || substr(session_data, 4)")
        connection.commit()
    shop = open_shop(adopter(database))
    shop.get()
    assert shop.seen == {}
    assert "its signature is not one of these secret keys" in caplog.text
    assert stored_keys(database) == [browser.names["sessionid"]]
    assert browser.names["sessionid"] not in caplog.text


@pytest.mark.parametrize("cookie", ["short", "UPPER" * 7, "a" * 41, "a' OR '1'='1"])
def test_a_cookie_that_cannot_be_djangos_asks_nobody(
    database: Path, old_shop: OldShop, browser: Browser, open_shop: Any, cookie: str
) -> None:  # fmt: skip
    def connect() -> Any:
        pytest.fail("the database was asked")

    shop = open_shop(adopter(database, store=table(database, connect=connect)))
    shop.browser.cookies.set("sessionid", cookie, domain="shop.test", path="/")
    assert shop.get().status_code == 200


def test_while_djangos_database_is_down_the_answer_is_503(
    database: Path, old_shop: OldShop, browser: Browser, open_shop: Any, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    def connect() -> Any:
        message = "password=secret"
        raise sqlite3.OperationalError(message)

    old_shop.get("/login")
    shop = open_shop(adopter(database, store=table(database, connect=connect)))
    assert shop.get().status_code == 503
    assert "Django's database could not do its work: OperationalError" in caplog.text
    assert "password=secret" not in caplog.text
    assert set(browser.names) == {"sessionid"}


def test_a_table_has_a_name() -> None:
    with pytest.raises(ConfigurationError, match="table: expected the name of a table"):
        DjangoTable(connect=lambda: None, table="django_session; DROP TABLE users")


# --- cache ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["cache"])
def test_a_session_in_a_cache_with_json_goes_on_here(
    old_shop: OldShop, browser: Browser, open_shop: Any, old_redis: Server, old_keys: Any
) -> None:  # fmt: skip
    old_shop.get("/login")
    assert old_shop.get("/whoami") == "alice"
    shop = open_shop(DjangoCacheSessions(store=old_redis.url, user_id=auth_user_id))
    shop.get()
    assert (shop.seen, shop.user_id) == (VALUES, old_shop.user_id)
    assert (set(browser.names), old_keys()) == ({NATIVE}, [])


@pytest.mark.parametrize("engine", ["cache"])
def test_without_the_users_row_nobody_is_logged_in_unless_it_is_asked_for(
    old_shop: OldShop, browser: Browser, open_shop: Any, old_redis: Server
) -> None:
    old_shop.get("/login")
    shop = open_shop(DjangoCacheSessions(store=old_redis.url))
    shop.get()
    assert (shop.seen, shop.user_id) == (VALUES, None)


@pytest.mark.parametrize("engine", ["cache, pickled"])
def test_a_pickled_cache_is_refused_and_left_as_it_is(  # noqa: PLR0917
    old_shop: OldShop,
    browser: Browser,
    open_shop: Any,
    old_redis: Server,
    old_keys: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old_shop.get("/login")
    shop = open_shop(DjangoCacheSessions(store=old_redis.url, user_id=auth_user_id))
    shop.get()
    assert (shop.seen, len(old_keys())) == ({}, 1)
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert "it is pickled, and a pickle can run any code, so none is read" in line
    assert old_shop.get("/whoami") == "alice"


# --- signed cookies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["signed_cookies"])
def test_a_session_in_a_signed_cookie_goes_on_here(old_shop: OldShop, browser: Browser, open_shop: Any) -> None:
    old_shop.get("/login")
    old_shop.get("/more")
    assert browser.names["sessionid"].startswith(".")
    copy = browser.names["sessionid"]
    shop = open_shop(DjangoCookieSessions(secret_key=[SECRET], user_id=auth_user_id))
    shop.get()
    assert (shop.seen, shop.user_id, set(browser.names)) == (VALUES | LONG, old_shop.user_id, {NATIVE})
    shop.get("/logout")
    browser.cookies.set("sessionid", copy, domain="shop.test", path="/")
    shop.get()
    assert shop.seen == {}


@pytest.mark.parametrize("engine", ["signed_cookies"])
def test_a_signed_cookie_that_django_would_refuse_is_refused(
    old_shop: OldShop, browser: Browser, open_shop: Any
) -> None:
    old_shop.get("/login")
    genuine = browser.names["sessionid"]
    data, time_text, signature = genuine.rsplit(":", 2)
    adopter = DjangoCookieSessions(secret_key=SECRET, user_id=auth_user_id)
    assert adopter.claim(genuine.encode()) is not None
    for forged in (genuine[:-1], f"e30:{time_text}:{signature}", f"{data}:zzzzzz:{signature}", data, ":::", ""):
        browser.cookies.set("sessionid", forged, domain="shop.test", path="/")
        assert old_shop.get("/whoami") == "nobody"
        assert adopter.claim(forged.encode()) is None


@pytest.mark.parametrize("engine", ["signed_cookies"])
@pytest.mark.parametrize("age", [timedelta(days=14, seconds=2), -timedelta(minutes=2)])
def test_a_signed_cookie_that_is_too_old_or_from_the_future_is_refused(
    old_shop: OldShop, browser: Browser, age: timedelta
) -> None:
    import time

    old_shop.get("/login")
    adopter = DjangoCookieSessions(secret_key=SECRET, user_id=None, clock=lambda: time.time() + age.total_seconds())
    assert adopter.claim(browser.names["sessionid"].encode()) is None


@pytest.mark.parametrize("engine", ["signed_cookies"])
def test_a_signed_bomb_is_refused(old_shop: OldShop, browser: Browser, open_shop: Any) -> None:
    """Whoever has the secret key could pack 100 MiB into a cookie."""
    from django.core import signing

    data = {"a": "b" * 3_000_000}
    bomb = signing.dumps(data, compress=True, salt="django.contrib.sessions.backends.signed_cookies")
    assert len(bomb) < 8_192
    for limit in (MAX_BYTES, MAX_COOKIE_BYTES):
        with pytest.raises(UnreadableSession, match=f"more than {limit} bytes"):
            unpacked(bomb.rsplit(":", 2)[0].encode(), limit)
    browser.cookies.set("sessionid", bomb, domain="shop.test", path="/")
    shop = open_shop(DjangoCookieSessions(secret_key=SECRET, user_id=None))
    shop.get()
    assert shop.seen == {}
