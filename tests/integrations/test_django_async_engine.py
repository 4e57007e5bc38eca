"""The engine's async methods: the same as the sync ones, under the loops that Django makes for a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import django_project
import pytest
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.test import override_settings

from coatcheck.integrations.django import SessionStore, async_sessions, sessions
from coatcheck.sessions import SyncSession

assert django_project.OURS


@pytest.fixture(autouse=True)
def _store(store_url: str) -> Iterator[None]:
    with override_settings(COATCHECK={"store": store_url}):
        yield


def native() -> SessionStore:
    """A session as the middleware makes it under ASGI."""
    core = async_sessions().begin([])
    store = SessionStore()
    store._take(SyncSession(sessions(), core._work), None, core)
    return store


def of_thread() -> SessionStore:
    """A session as Django's own middleware makes it, without a loop."""
    return SessionStore()


BOTH = pytest.mark.parametrize("make", [native, of_thread])


@pytest.fixture
async def _closing() -> object:
    yield
    await async_sessions().close()


pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_closing")]


@BOTH
async def test_the_async_mapping(make: Callable[[], SessionStore]) -> None:
    session = make()
    await session.aset("cat", 1)
    await session.aupdate({"dog": 2})
    assert await session.asetdefault("cow", 3) == 3
    assert await session.asetdefault("cow", 4) == 3
    assert await session.aget("cat") == 1
    assert await session.ahas_key("dog")
    assert list(await session.akeys()) == ["cat", "dog", "cow"]
    assert list(await session.avalues()) == [1, 2, 3]
    assert await session.apop("cat") == 1
    assert await session.apop("cat", None) is None
    await session.aset_test_cookie()
    assert await session.atest_cookie_worked()
    await session.adelete_test_cookie()
    assert list(await session.aitems()) == [("dog", 2), ("cow", 3)]
    assert session.accessed
    assert session.modified


@BOTH
async def test_the_async_life_of_a_session(make: Callable[[], SessionStore]) -> None:
    session = make()
    await session.aset("cat", 1)
    await session.asave()
    key = session.session_key
    assert await session.aexists(key)
    assert await SessionStore(key).aload() == {"cat": 1}
    await session.acycle_key()
    await session.asave()
    assert not await session.aexists(key)
    assert await SessionStore(session.session_key).aload() == {"cat": 1}
    key = session.session_key
    await session.aflush()
    assert session.session_key is None
    assert not await session.aexists(key)
    await session.acreate()
    assert await session.aexists(session.session_key)
    await session.adelete(session.session_key)
    assert not await session.aexists(session.session_key)
    await SessionStore.aclear_expired()


@BOTH
async def test_acreate_stores_what_was_set_and_in_the_place_of_a_stored_session_an_empty_one(
    make: Callable[[], SessionStore],
) -> None:
    session = make()
    await session.aset("cat", 1)
    await session.aset_expiry(60)
    await session.acreate()
    found = SessionStore(session.session_key)
    assert (await found.aget("cat"), await found.aget_expiry_age()) == (1, 60)
    await session.acreate()
    assert session.session_key != found.session_key
    assert await SessionStore(session.session_key).aload() == {}


@BOTH
async def test_async_saving_does_not_resurrect(make: Callable[[], SessionStore]) -> None:
    session = make()
    await session.aset("cat", 1)
    await session.asave()
    await SessionStore().adelete(session.session_key)
    await session.aset("cat", 2)
    with pytest.raises(UpdateError):
        await session.asave()
    assert await session.aload() == {}


@BOTH
async def test_async_expiry(make: Callable[[], SessionStore]) -> None:
    session = make()
    await session.aset_expiry(10)
    assert await session.aget_expiry_age() == 10
    assert not await session.aget_expire_at_browser_close()
    assert session._work.limits is not None
    await session.aset_expiry(0)
    assert await session.aget_expire_at_browser_close()
    await session.aset_expiry(timedelta(seconds=20))
    assert 19 <= await session.aget_expiry_age() <= 20
    assert await session.aget_expiry_date() is not None
    await session.aset_expiry(None)
    assert await session.aget_expiry_age() == settings.SESSION_COOKIE_AGE
    assert session._work.limits is None
