"""The short way that nearly every response to a reader takes: nothing to store, no cookie due.

It must never be taken when something is due; that would be a change, a cookie or an end that is forgotten.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from coatcheck import Sessions
from coatcheck.errors import StoreUnavailable
from coatcheck.events import Event
from coatcheck.record import Limits, Login, Record
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing import ManualClock
from coatcheck.token import SessionID
from coatcheck.values import encode
from coatcheck.working_copy import CLAIMED, WorkingCopy

pytestmark = pytest.mark.anyio

KEY = "a secret key for tests, 32 bytes or more"
LOGIN = Login("alice", 1, 0, None, None)
VALUES = {"name": Raw(encode("name", "Alice")), "cart": Raw(encode("cart", ["tea"]))}


def found() -> WorkingCopy:
    work = WorkingCopy(0, SessionID.generate)
    work.found(b"revision", Record(1, 1, 1, None, LOGIN, VALUES))
    return work


def test_a_session_in_which_only_what_can_not_change_was_read_is_as_it_was_found() -> None:
    work = found()
    assert work.is_as_found()
    assert work.read("name") == "Alice"
    assert work.is_as_found()


def test_a_session_of_which_a_list_was_handed_out_may_have_changed() -> None:
    work = found()
    work.read("cart")
    assert not work.is_as_found()


def test_a_session_that_is_not_stored_was_not_found() -> None:
    assert not WorkingCopy(0, SessionID.generate).is_as_found()


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("destroyed", (CLAIMED,)),
        ("noted", (Event("logout", "handle"),)),
        ("views", (object(),)),
        ("login_is_new", True),
        ("issues_cookie", True),
        ("cookie_is_stale", True),
        ("predecessor", SessionID.generate()),
        ("claimed", object()),
        ("outage", StoreUnavailable("down")),
        ("at_work_on", "handle"),
        ("remember", True),
        ("limits", Limits(1, None)),
    ],
)
def test_whatever_may_be_due_is_seen(attribute: str, value: Any) -> None:
    work = found()
    setattr(work, attribute, value)
    assert not work.is_as_found()


async def readers(**options: Any) -> tuple[Sessions, str, ManualClock, MemoryStore]:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    sessions = Sessions(store, secret_keys=[KEY], clock=clock, **options)
    async with sessions.open() as session:
        session.login("alice")
    return sessions, session.token, clock, store


async def test_a_session_that_was_only_read_needs_nothing_and_is_settled() -> None:
    sessions, token, _, _ = await readers()
    session = sessions.claim(token)
    await session.load()
    assert session.user_id == "alice"
    assert sessions.lifecycle.settle(session._work)
    assert session._work.settled
    assert session._work.sealed  # so that what needs a cookie is refused from now on


async def test_the_short_way_is_not_taken_when_it_is_time_to_extend_the_session() -> None:
    sessions, token, clock, store = await readers(idle_timeout=timedelta(hours=2))
    clock.advance(timedelta(minutes=13))
    session = sessions.claim(token)
    await session.load()
    assert session.user_id == "alice"
    assert not sessions.lifecycle.settle(session._work)
    assert await sessions.conclude(session, 200) is not None
    (left_ms,) = await store.time_left(session.handle)
    assert left_ms == timedelta(hours=2) / timedelta(milliseconds=1)


async def test_the_short_way_is_not_taken_when_it_is_time_for_a_new_id() -> None:
    sessions, token, clock, _ = await readers(renew_every=timedelta(minutes=5), refresh_after=0.9)
    clock.advance(timedelta(minutes=6))
    session = sessions.claim(token)
    await session.load()
    handle = session.handle
    assert not sessions.lifecycle.settle(session._work)
    assert await sessions.conclude(session, 200) is not None
    assert session.handle != handle
