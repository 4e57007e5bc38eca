"""Django's test clients, by the adapter and by nothing but sessions."""

from __future__ import annotations

from collections.abc import Iterator

import django_project
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ObjectDoesNotExist
from django.db import connections
from django.test import AsyncClient, Client

from coatcheck.integrations.django import async_sessions, sessions
from coatcheck.testing import alogged_in, logged_in


@pytest.fixture(autouse=True)
def _users() -> Iterator[None]:
    django_project.make_users()
    yield
    connections.close_all()


@pytest.fixture
def alice() -> str:
    return str(User.objects.get(username="alice").pk)


def who(client: Client) -> str:
    return str(client.get("/who").json()["user"])


def test_the_user_is_djangos_and_on_the_list_of_devices(alice: str) -> None:
    before = len(sessions().for_user(alice))
    client = Client()
    assert logged_in(client, alice, cart="full") is client
    assert who(client) == "alice"
    assert client.get("/read").json()["values"]["cart"] == "full"
    assert len(sessions().for_user(alice)) == before + 1


def test_the_application_can_log_out_whom_a_test_has_logged_in(alice: str) -> None:
    client = logged_in(Client(), alice)
    client.get("/log_out")
    assert who(client) != "alice"
    assert len([cookie for cookie in client.cookies.values() if cookie.value]) == 0


def test_somebody_who_does_not_exist_can_not_be_logged_in() -> None:
    with pytest.raises(ObjectDoesNotExist):
        logged_in(Client(), "4711")


@pytest.mark.anyio
async def test_the_async_client_is_logged_in_as_well() -> None:
    alice = str((await User.objects.aget(username="alice")).pk)
    client = AsyncClient()
    assert await alogged_in(client, alice, cart="full") is client
    response = await client.get("/who")
    assert response.json()["user"] == "alice"
    await async_sessions().close()


def test_with_sessions_given_it_is_a_session_of_theirs(alice: str) -> None:
    client = logged_in(Client(), alice, sessions(), cart="full")
    assert sessions().for_user(alice)[-1].user_id == alice
    assert client.get("/read").json()["values"]["cart"] == "full"
