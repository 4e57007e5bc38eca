"""Django beside another application on the same sessions: logins made there, and logins made here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django_project
import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import AsyncClient, Client, override_settings
from django_project import DJANGOS, MODEL_BACKEND, OURS, SHARED_LOGIN, middleware

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.integrations.django import SessionStore, async_sessions, sessions

SECRET_KEY = "test-secret-key-of-more-than-32-bytes"


@pytest.fixture(params=["sqlite", "valkey"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that two applications can have in common."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.sqlite3"
    url: str = request.getfixturevalue("running_servers")["valkey"].url
    return url


@pytest.fixture(autouse=True)
def _project(store_url: str) -> Iterator[None]:
    django_project.make_users()
    for user_id in ("1", "2"):
        with override_settings(COATCHECK={"store": store_url}):
            sessions().revoke_user(user_id)
    with override_settings(COATCHECK={"store": store_url}, AUTHENTICATION_BACKENDS=[MODEL_BACKEND, SHARED_LOGIN]):
        yield
    User.objects.filter(username="alice").update(is_active=True)
    connections.close_all()


@pytest.fixture
def other(store_url: str) -> Iterator[SyncSessions]:
    """The other application: nothing but Coatcheck, with the same store, cookie and secret key."""
    cookie = CookieConfig(name="sessionid", prefix="", secure=False)
    other = SyncSessions(store_url, secret_keys=[SECRET_KEY], cookie=cookie)
    yield other
    other.close()


@pytest.fixture(params=[OURS, DJANGOS], ids=["ours", "djangos"])
def any_middleware(request: pytest.FixtureRequest) -> Iterator[None]:
    with override_settings(MIDDLEWARE=middleware(request.param)):
        yield


def logged_in_elsewhere(other: SyncSessions, user_id: str, **values: Any) -> Client:
    with other.open() as session:
        session.login(user_id)
        session.update(values)
    return client_with(session.token)


def client_with(token: str) -> Client:
    client = Client()
    client.cookies["sessionid"] = token
    return client


def user(client: Client) -> str:
    return str(client.get("/who").json()["user"])


@pytest.mark.usefixtures("any_middleware")
def test_who_logged_in_elsewhere_is_the_user_here(other: SyncSessions) -> None:
    client = logged_in_elsewhere(other, "1", cart="full")
    assert user(client) == "alice"
    assert client.get("/read").json()["values"] == {"cart": "full"}
    assert len(sessions().for_user("1")) == 1


def test_who_logged_in_elsewhere_is_the_user_of_async_views(other: SyncSessions) -> None:
    token = logged_in_elsewhere(other, "1").cookies["sessionid"].value

    async def visit() -> str:
        client = AsyncClient()
        client.cookies["sessionid"] = token
        try:
            return str((await client.get("/awho")).json()["user"])
        finally:
            await async_sessions().close()

    assert asyncio.run(visit()) == "alice"


def test_to_be_introduced_is_not_to_log_in(other: SyncSessions) -> None:
    client = logged_in_elsewhere(other, "1")
    token = client.cookies["sessionid"].value
    (before,) = other.for_user("1")
    assert user(client) == "alice"
    (after,) = other.for_user("1")
    assert (after.handle, after.authenticated_at) == (before.handle, before.authenticated_at)
    with other.open(token) as session:
        assert session.user_id == "1"


@pytest.mark.usefixtures("any_middleware")
def test_without_the_backend_nobody_is_taken_for_logged_in(other: SyncSessions) -> None:
    with override_settings(AUTHENTICATION_BACKENDS=[MODEL_BACKEND]):
        client = logged_in_elsewhere(other, "1")
        assert user(client) == ""
        client.get("/put?a=1")
    with other.open(client.cookies["sessionid"].value) as session:
        assert session.user_id == "1"  # who is logged in there stays so


@pytest.mark.parametrize("user_id", ["4711", "alice", "1 OR 1=1", "\N{SNOWMAN}"])
def test_a_user_that_django_does_not_know_is_nobody(other: SyncSessions, user_id: str) -> None:
    assert user(logged_in_elsewhere(other, user_id)) == ""


@pytest.mark.usefixtures("any_middleware")
@pytest.mark.parametrize("user_id", ["01", " 1 ", "\N{FULLWIDTH DIGIT ONE}"])
def test_a_user_id_that_only_converts_to_a_primary_key_is_nobody_s(other: SyncSessions, user_id: str) -> None:
    client = logged_in_elsewhere(other, user_id, cart="full")
    assert user(client) == ""
    client.get("/put?a=1")
    with other.open(client.cookies["sessionid"].value) as session:  # not logged in anew, as somebody else
        assert session.user_id == user_id
        assert session["cart"] == "full"


def test_a_login_by_coatcheck_s_own_session_holds_whoever_was_shown(other: SyncSessions) -> None:
    client = logged_in_elsewhere(other, "1")
    assert user(client) == "alice"
    client.get("/switch?to=2")
    assert user(client) == "bob"
    assert other.for_user("1") == []


def test_a_user_who_is_not_active_is_nobody(other: SyncSessions) -> None:
    client = logged_in_elsewhere(other, "1")
    User.objects.filter(username="alice").update(is_active=False)
    assert user(client) == ""


def test_after_a_change_of_the_password_an_introduced_session_is_over(other: SyncSessions) -> None:
    client = logged_in_elsewhere(other, "2")
    assert user(client) == "bob"
    bob = User.objects.get(username="bob")
    old_password = bob.password
    try:
        bob.set_password("new")
        bob.save()
        assert user(client) == ""
        assert other.for_user("2") == []
    finally:
        User.objects.filter(username="bob").update(password=old_password)


@pytest.mark.usefixtures("any_middleware")
def test_values_can_not_make_somebody_the_user(other: SyncSessions) -> None:
    real = Client()
    real.login(username="alice", password="wonderland")
    stolen = {key: value for key, value in real.session.items() if key.startswith("_auth")}
    with other.open() as session:
        session.update(stolen)
    assert user(client_with(session.token)) == ""
    with other.open() as session:
        session.login("2")
        session.update(stolen)
    assert user(client_with(session.token)) == "bob"


@pytest.mark.usefixtures("any_middleware")
def test_a_login_here_is_one_there(other: SyncSessions) -> None:
    client = Client()
    client.get("/log_in?username=alice&password=wonderland")
    with other.open(client.cookies["sessionid"].value) as session:
        assert session.user_id == "1"
        session["from"] = "there"
    assert client.get("/read").json()["values"] == {"from": "there"}


def test_a_logout_there_is_one_here_and_the_other_way_round(other: SyncSessions) -> None:
    client = Client()
    client.get("/log_in?username=alice&password=wonderland")
    with other.open(client.cookies["sessionid"].value) as session:
        session.logout()
    assert user(client) == ""
    client = logged_in_elsewhere(other, "1")
    token = client.cookies["sessionid"].value
    assert user(client) == "alice"
    client.get("/log_out")
    assert other.for_user("1") == []
    assert not SessionStore().exists(token)


def test_a_login_here_over_another_user_s_from_there_carries_nothing_over(other: SyncSessions) -> None:
    with override_settings(AUTHENTICATION_BACKENDS=[MODEL_BACKEND]):
        client = logged_in_elsewhere(other, "1", secret="hers")
        client.get("/log_in?username=bob&password=builder")
        assert user(client) == "bob"
        assert client.get("/read").json()["values"] == {}
        assert other.for_user("1") == []


def test_taking_the_user_out_of_the_values_logs_out() -> None:
    client = Client()
    client.login(username="alice", password="wonderland")
    session = client.session
    session["cart"] = "full"
    del session["_auth_user_id"]
    session.save()
    assert sessions().for_user("1") == []
    assert SessionStore(session.session_key)["cart"] == "full"


def test_async_sessions_see_the_same(store_url: str, other: SyncSessions) -> None:
    client = Client()
    client.login(username="alice", password="wonderland")

    async def look() -> int:
        there = Sessions(store_url, secret_keys=[SECRET_KEY], cookie=other.config.cookie)
        try:
            return len(await there.for_user("1"))
        finally:
            await there.close()

    assert asyncio.run(look()) == 1
