"""Sessions with times of their own: `session.limit()`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from faces import Face

from coatcheck.errors import UnsupportedValue
from coatcheck.testing import ManualClock


def limited(face: Face, **limits: Any) -> str:
    session = face.request(None)
    session["cart"] = "full"
    session.limit(**limits)
    face.respond(session)
    return str(session.token)


def is_alive(face: Face, token: str) -> bool:
    return "cart" in face.request(token)


def at(clock: ManualClock, after: timedelta) -> datetime:
    return datetime.fromtimestamp(clock(), UTC) + after


def test_an_idle_timeout_of_its_own_ends_a_session_earlier(timed: Face, clock: ManualClock) -> None:
    token = limited(timed, idle_timeout=timedelta(minutes=5))
    clock.advance(timedelta(minutes=4))
    assert is_alive(timed, token)
    clock.advance(timedelta(minutes=1, seconds=1))
    assert not is_alive(timed, token)


def test_an_idle_timeout_of_its_own_may_be_longer_than_the_configured_one(timed: Face, clock: ManualClock) -> None:
    token = limited(timed, idle_timeout=timedelta(days=6))
    clock.advance(timedelta(days=5))
    assert is_alive(timed, token)


def test_use_extends_an_idle_timeout_of_its_own(timed: Face, clock: ManualClock) -> None:
    token = limited(timed, idle_timeout=timedelta(minutes=5))
    for _ in range(3):
        clock.advance(timedelta(minutes=4))
        session = timed.request(token)
        assert session["cart"] == "full"
        timed.respond(session)
        token = session.token


def test_use_does_not_extend_an_end_of_its_own(timed: Face, clock: ManualClock) -> None:
    token = limited(timed, ends_at=at(clock, timedelta(minutes=5)))
    for _ in range(2):
        clock.advance(timedelta(minutes=2))
        session = timed.request(token)
        session.increment("visits")
        timed.respond(session)
    clock.advance(timedelta(minutes=1, seconds=1))
    assert not is_alive(timed, token)


def test_the_lifetime_ends_a_session_whatever_limits_it_was_given(timed: Face, clock: ManualClock) -> None:
    token = limited(timed, idle_timeout=timedelta(days=30), ends_at=at(clock, timedelta(days=30)))
    clock.advance(timedelta(days=6, hours=23))
    assert is_alive(timed, token)
    clock.advance(timedelta(hours=1, seconds=1))
    assert not is_alive(timed, token)


def test_limits_survive_changes_renewals_and_logins(timed: Face, clock: ManualClock) -> None:
    token = limited(timed, ends_at=at(clock, timedelta(minutes=5)))
    changes: list[Callable[[Any], object]] = [
        lambda one: one.increment("visits"), lambda one: one.renew(), lambda one: one.login("alice"),
    ]  # fmt: skip
    for change in changes:
        session = timed.request(token)
        change(session)
        timed.respond(session)
        token = session.token
    clock.advance(timedelta(minutes=5, seconds=1))
    assert not is_alive(timed, token)


def test_limits_can_be_changed_and_taken_back(timed: Face, clock: ManualClock) -> None:
    token = limited(timed, idle_timeout=timedelta(minutes=5))
    session = timed.request(token)
    session.limit()
    timed.respond(session)
    clock.advance(timedelta(hours=1))
    assert is_alive(timed, token)


def test_an_end_in_the_past_ends_a_stored_session_at_the_commit(timed: Face, clock: ManualClock) -> None:
    token = timed.new(cart="full")
    session = timed.request(token)
    session.limit(ends_at=at(clock, -timedelta(seconds=1)))
    timed.respond(session)
    clock.advance(timedelta(milliseconds=2))
    assert not is_alive(timed, token)


@pytest.mark.parametrize(
    "act",
    [
        lambda one: one.increment("visits"), lambda one: one.renew(), lambda one: one.login("alice"),
        lambda one: one["cart"],
    ],
    ids=["change", "renew", "login", "read"],
)  # fmt: skip
def test_limits_that_another_request_sets_are_kept(timed: Face, clock: ManualClock, act: Callable[[Any], None]) -> None:
    token = timed.new(cart="full")
    clock.advance(timedelta(hours=1))  # reading extends it now
    slow, fast = timed.request(token), timed.request(token)
    fast.limit(idle_timeout=timedelta(minutes=5))
    fast.remember(False)
    timed.respond(fast)
    act(slow)
    set_cookie = timed.respond(slow)
    assert set_cookie is not None
    assert "Max-Age" not in set_cookie
    clock.advance(timedelta(minutes=5, seconds=1))
    assert not is_alive(timed, slow.token)


def test_expires_at_tells_of_limits(timed: Face, clock: ManualClock) -> None:
    session = timed.request(limited(timed, idle_timeout=timedelta(minutes=5)))
    assert session.expires_at == at(clock, timedelta(minutes=5))


def test_an_end_without_a_time_zone_is_refused(timed: Face) -> None:
    with pytest.raises(UnsupportedValue, match="needs a time zone"):
        timed.request(None).limit(ends_at=datetime(2030, 1, 1))  # noqa: DTZ001


def test_limits_hold_for_the_session_that_is_kept_when_all_others_are_ended(timed: Face, clock: ManualClock) -> None:
    session = timed.request(limited(timed, idle_timeout=timedelta(minutes=5)))
    session.login("alice")
    timed.respond(session)
    timed.run(timed.sessions.revoke_user("alice", keep=session.handle))
    assert is_alive(timed, session.token)
    clock.advance(timedelta(minutes=5, seconds=1))
    assert not is_alive(timed, session.token)
