"""Users and their sessions, async and sync, on every store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from faces import AnySession, Face, Kind
from msgspec import Raw

from coatcheck import Event, Events
from coatcheck import record as records
from coatcheck.devices import Device, remembered
from coatcheck.errors import (
    ConfigurationError,
    LoginRequired,
    RecentLoginRequired,
    ResponseStarted,
    TooManySessions,
    UndecodableValue,
    UnsupportedValue,
)
from coatcheck.guard import require_login, require_recent_login
from coatcheck.operations import Create
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.testing import ManualClock
from coatcheck.users import index_key, user_tag

AT_ONCE = 20


def log_in(face: Face, user_id: str = "alice", token: str | None = None, **values: Any) -> str:
    session = face.request(token)
    session.login(user_id)
    session.update(values)
    face.respond(session)
    return session.token


def handles(face: Face, user_id: str = "alice") -> list[str]:
    return [info.handle for info in face.run(face.sessions.for_user(user_id))]


def user_of(face: Face, token: str) -> str | None:
    return face.request(token).user_id


# --- login and logout -------------------------------------------------------------------------------------------------


def test_a_login_renews_the_id_keeps_the_cart_and_names_the_owner(face: Face) -> None:
    anonymous = face.new(cart=["pen"])
    token = log_in(face, token=anonymous)
    assert face.stored(token) == {"cart": ["pen"]}
    session = face.request(token)
    assert session.user_id == "alice"
    assert session.authenticated_at is not None
    assert face.stored(anonymous) is None
    assert face.request(anonymous).user_id is None
    assert handles(face) == [session.handle]


def test_a_login_without_anything_kept_makes_a_session(face: Face) -> None:
    assert user_of(face, log_in(face)) == "alice"


def test_a_login_of_another_user_carries_nothing_over_and_ends_the_first_session(face: Face) -> None:
    first = log_in(face, "alice", secret="of alice")
    second = log_in(face, "bob", first)
    assert face.stored(second) == {}
    assert user_of(face, second) == "bob"
    assert face.stored(first) is None
    assert handles(face, "alice") == []


def test_logging_in_again_as_the_same_user_keeps_the_values_and_counts_as_a_new_login(
    timed: Face, clock: ManualClock
) -> None:
    token = log_in(timed, cart=["pen"])
    clock.advance(timedelta(hours=1))
    again = log_in(timed, token=token)
    session = timed.request(again)
    assert session.authenticated_at is not None
    assert session.authenticated_at.timestamp() == clock()
    assert session.created_at.timestamp() == clock()
    assert dict(session) == {"cart": ["pen"]}
    assert timed.stored(token) is None
    assert handles(timed) == [session.handle]


def test_a_logout_ends_the_session_and_may_keep_some_values_under_a_new_id(face: Face) -> None:
    token = log_in(face, cart=["pen"], address="somewhere")
    session = face.request(token)
    session.logout(keep=["cart", "missing"])
    face.respond(session)
    assert face.stored(token) is None
    assert face.stored(session.token) == {"cart": ["pen"]}
    assert user_of(face, session.token) is None
    assert handles(face) == []


def test_a_logout_that_keeps_a_text_is_refused_for_its_letters_would_be_meant(kind: Kind) -> None:
    face = Face(kind, "memory://")
    session = face.request(log_in(face))
    with pytest.raises(TypeError, match="list of keys"):
        session.logout(keep="cart")
    assert session.user_id == "alice"


def test_a_logout_of_nobody_stores_nothing(face: Face) -> None:
    session = face.request()
    session.logout(keep=["cart"])
    assert face.respond(session) is None


def test_login_chooses_whether_the_cookie_survives_the_browser(face: Face) -> None:
    session = face.request()
    session.login("alice", remember=False)
    assert "Max-Age" not in (face.respond(session) or "")


@pytest.mark.parametrize("user_id", ["", "x" * 513, 5, None, b"alice", "\ud800"], ids=repr)
def test_what_can_not_be_a_user_id_is_refused(face: Face, user_id: Any) -> None:
    session = face.request()
    with pytest.raises(UnsupportedValue, match="user ID"):
        session.login(user_id)
    assert face.respond(session) is None


def test_a_login_that_fails_with_the_request_leaves_everything_as_it_was(face: Face) -> None:
    token = face.new(cart=["pen"])
    session = face.request(token)
    session.login("alice")
    face.respond(session, status=500)
    assert session.user_id is None
    assert user_of(face, token) is None
    assert face.stored(token) == {"cart": ["pen"]}
    assert handles(face) == []


def test_a_login_after_the_response_has_started_is_an_error(face: Face) -> None:
    session = face.request(face.new(a=1))
    face.respond(session)
    with pytest.raises(ResponseStarted):
        session.login("alice")


def test_a_token_from_before_the_login_never_sees_what_came_after(face: Face) -> None:
    planted = face.new(cart=[])
    in_flight = face.request(planted)
    token = log_in(face, token=planted)
    in_flight["stolen"] = True
    face.respond(in_flight)
    late = face.request(planted)
    assert late.user_id is None
    assert dict(late) == {}
    assert face.stored(token) == {"cart": []}


# --- lists ------------------------------------------------------------------------------------------------------------


def test_a_users_sessions_are_listed_oldest_first_with_what_tells_them_apart(kind: Kind, clock: ManualClock) -> None:
    face = Face(kind, "memory://", clock=clock)
    tokens = []
    for agent, address in (("Firefox", "192.0.2.77"), ("Safari", "2001:db8:1:2::5"), (None, None)):
        session = face.sessions.begin([], lambda agent=agent, address=address: Device(agent, address))
        session.login("alice")
        face.respond(session)
        tokens.append(session.token)
        clock.advance(timedelta(minutes=1))
    log_in(face, "bob")
    current = face.request(tokens[1])
    listed = face.run(face.sessions.for_user("alice", current))
    assert [info.user_agent for info in listed] == ["Firefox", "Safari", None]
    assert [info.client_address for info in listed] == ["192.0.2.0", "2001:db8:1::", None]
    assert [info.is_current for info in listed] == [False, True, False]
    assert [info.user_id for info in listed] == ["alice"] * 3
    assert listed[1].handle == current.handle
    assert (listed[1].created_at - listed[0].created_at) == timedelta(minutes=1)
    assert all(token not in repr(listed) for token in tokens)


def test_last_seen_follows_use_to_within_the_refresh_interval(timed: Face, clock: ManualClock) -> None:
    token = log_in(timed)
    clock.advance(timedelta(hours=1))
    session = timed.request(token)
    session.get("anything")
    timed.respond(session)
    clock.advance(timedelta(minutes=30))
    (info,) = timed.run(timed.sessions.for_user("alice"))
    assert clock() - info.last_seen_at.timestamp() == timedelta(minutes=30).total_seconds()
    assert info.expires_at.timestamp() - clock() == timedelta(hours=1, minutes=30).total_seconds()


def test_last_seen_is_true_also_when_the_lifetime_leaves_nothing_to_extend(timed: Face, clock: ManualClock) -> None:
    token = log_in(timed)
    timed.use_hourly(token, clock, 7 * 24 - 1)
    clock.advance(timedelta(minutes=20))
    (info,) = timed.run(timed.sessions.for_user("alice"))
    assert clock() - info.last_seen_at.timestamp() == timedelta(minutes=20).total_seconds()


def test_sessions_that_ended_by_themselves_are_not_listed(timed: Face, clock: ManualClock) -> None:
    log_in(timed)
    clock.advance(timedelta(hours=1, minutes=30))
    recent = log_in(timed)
    clock.advance(timedelta(hours=1))
    assert handles(timed) == [timed.request(recent).handle]


def test_the_index_does_not_keep_what_is_gone(timed: Face, clock: ManualClock) -> None:
    for _ in range(200):
        log_in(timed)
        clock.advance(timedelta(minutes=5))
    assert len(index_of(timed).entries) < 70
    assert len(handles(timed)) == 23


def index_of(face: Face, user_id: str = "alice") -> records.UserIndex:
    (_, index), _ = face.run_steps(face.sessions.lifecycle.keeper.find(index_key(user_tag(user_id))))
    assert isinstance(index, records.UserIndex)
    return index


@pytest.mark.parametrize("days", [30, 80])
def test_a_session_in_use_stays_listed_when_the_lifetime_is_raised(kind: Kind, clock: ManualClock, days: int) -> None:
    store = MemoryStore(clock=clock) if kind == "async" else SyncMemoryStore(clock=clock)
    idle = {"idle_timeout": timedelta(days=2), "clock": clock}
    token = log_in(Face(kind, store, lifetime=timedelta(days=7), **idle))
    face = Face(kind, store, lifetime=timedelta(days=90), max_sessions_per_user=1, **idle)
    for _ in range(days):
        clock.advance(timedelta(days=1))
        session = face.request(token)
        session.increment("visits")
        face.respond(session)
    assert handles(face) == [face.request(token).handle]
    assert len(face.run(face.sessions.export_user("alice"))) == 1
    newer = log_in(face)
    assert [user_of(face, each) for each in (token, newer)] == [None, "alice"]
    assert face.run(face.sessions.revoke(face.request(newer).handle, user_id="alice")) is True


def test_a_login_forgets_sessions_whose_lifetime_is_over(timed: Face, clock: ManualClock) -> None:
    for _ in range(5):
        log_in(timed)
    clock.advance(timedelta(days=8))
    last = log_in(timed)
    assert list(index_of(timed).entries) == [timed.request(last).handle]


def test_erasing_a_user_forgets_sessions_that_ended_by_themselves(timed: Face, clock: ManualClock) -> None:
    for _ in range(5):
        log_in(timed)
    clock.advance(timedelta(hours=3))
    assert timed.run(timed.sessions.erase_user("alice")) == 0
    assert index_of(timed).entries == {}


def test_everybodys_sessions_are_counted_and_gone_through_in_pages(face: Face) -> None:
    expected = {face.request(log_in(face, f"user {number % 7}")).handle for number in range(25)}
    anonymous = face.request(face.new(a=1)).handle
    assert face.run(face.sessions.count()) == 26
    listed = face.listed(face.sessions.iterate(page_size=4))
    assert {info.handle for info in listed} == expected | {anonymous}
    assert {info.user_id for info in listed} == {None} | {f"user {number}" for number in range(7)}


def fill(face: Face, data: bytes, count: int) -> None:
    """Store many sessions of others, quickly."""
    store = face.sessions.store
    keys = [f"{number:040x}" for number in range(count)]
    if face.kind == "sync":
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda key: store.create(key, data, 3_600_000), keys))
        return

    async def create_all() -> None:
        for start in range(0, count, 5_000):
            await asyncio.gather(*(store.create(key, data, 3_600_000) for key in keys[start : start + 5_000]))

    face.run(create_all())


@pytest.mark.parametrize("where", ["memory", "sqlite"])
def test_the_cost_of_a_users_list_does_not_grow_with_the_sessions_of_others(
    kind: Kind, where: str, tmp_path: Path
) -> None:
    memory_store = MemoryStore if kind == "async" else SyncMemoryStore
    face = Face(kind, memory_store(max_records=200_000) if where == "memory" else f"sqlite:///{tmp_path}/sessions")
    mine = [log_in(face) for _ in range(3)]
    (data,) = face.run(face.sessions.store.load(face.request(mine[0]).handle))
    fill(face, data, 100_000)
    store = face.sessions.store
    calls: list[tuple[str, int]] = []
    for name in ("load", "time_left", "create", "update", "delete", "touch", "scan"):
        original = getattr(store, name)

        def noted(*arguments: Any, name: str = name, original: Any = original) -> Any:
            calls.append((name, len(arguments)))
            return original(*arguments)

        setattr(store, name, noted)
    assert len(handles(face)) == 3
    assert calls == [("load", 2), ("load", 3), ("time_left", 3)]
    calls.clear()
    assert face.run(face.sessions.revoke_user("alice")) == 3
    assert "scan" not in {name for name, _ in calls}
    assert len(calls) < 20


# --- ending sessions --------------------------------------------------------------------------------------------------


def test_one_session_is_ended_by_its_handle(face: Face) -> None:
    kept, ended = log_in(face), log_in(face)
    handle = face.request(ended).handle
    in_flight = face.request(ended)
    in_flight["back"] = True
    assert face.run(face.sessions.revoke(handle)) is True
    assert face.run(face.sessions.revoke(handle)) is False
    assert "Max-Age=0" in (face.respond(in_flight) or "")
    assert face.stored(ended) is None
    assert handles(face) == [face.request(kept).handle]


def test_a_user_can_end_only_sessions_of_their_own(face: Face) -> None:
    alice, bob = log_in(face), log_in(face, "bob")
    handle = face.request(alice).handle
    assert face.run(face.sessions.revoke(handle, user_id="bob")) is False
    assert user_of(face, alice) == "alice"
    assert face.run(face.sessions.revoke(handle, user_id="alice")) is True
    assert user_of(face, alice) is None
    assert user_of(face, bob) == "bob"


def test_a_session_is_true_when_somebody_is_logged_in_or_something_is_kept(face: Face) -> None:
    assert not face.request()
    assert face.request(log_in(face))
    assert face.request(face.new(a=1))
    empty = face.request(face.new(a=1))
    empty.clear()
    assert not empty


@pytest.mark.parametrize("handle", ["", "x", "../..", "0" * 40, "A" * 40, "moved", "user-" + "0" * 40, "\ud800"])
def test_a_handle_of_nothing_ends_nothing(face: Face, handle: str) -> None:
    token = log_in(face)
    assert face.run(face.sessions.revoke(handle)) is False
    assert user_of(face, token) == "alice"


def test_all_sessions_of_a_user_end_at_once_and_nobody_elses(face: Face) -> None:
    tokens = [log_in(face) for _ in range(5)]
    bob = log_in(face, "bob")
    assert face.run(face.sessions.revoke_user("alice")) == 5
    assert [user_of(face, token) for token in tokens] == [None] * 5
    assert user_of(face, bob) == "bob"
    assert handles(face) == []
    again = log_in(face)
    assert user_of(face, again) == "alice"


def test_all_other_sessions_end_and_the_one_that_asks_goes_on_and_can_still_change(face: Face) -> None:
    others = [log_in(face) for _ in range(3)]
    token = log_in(face, n=1)
    session, parallel = face.request(token), face.request(token)
    session.increment("n")
    assert face.run(face.sessions.revoke_user("alice", keep=session)) == 3
    face.respond(session)
    parallel["late"] = True
    face.respond(parallel)
    assert [user_of(face, other) for other in others] == [None] * 3
    assert face.stored(token) == {"n": 2, "late": True}
    assert handles(face) == [session.handle]
    assert face.run(face.sessions.revoke_user("alice", keep=session)) == 0
    assert user_of(face, token) == "alice"


def test_ending_all_also_ends_what_the_index_has_lost(face: Face) -> None:
    lost, lost_too = log_in(face), log_in(face)
    face.run(face.sessions.store.delete(index_key(user_tag("alice"))))
    found = log_in(face)
    assert face.run(face.sessions.revoke_user("alice")) == 1
    assert [user_of(face, token) for token in (lost, lost_too, found)] == [None] * 3


def test_ending_all_twice_in_the_same_moment_ends_all(timed: Face) -> None:
    token = log_in(timed)
    timed.run(timed.sessions.revoke_user("alice"))
    between = log_in(timed)
    timed.run(timed.sessions.revoke_user("alice"))
    assert [user_of(timed, each) for each in (token, between)] == [None, None]


def test_a_session_kept_by_somebody_elses_handle_is_not_carried_over(face: Face) -> None:
    alice, bob = log_in(face), log_in(face, "bob")
    face.run(face.sessions.revoke_user("alice", keep=face.request(bob).handle))
    assert user_of(face, alice) is None
    assert user_of(face, bob) == "bob"


def test_everybodys_sessions_end_at_once(face: Face) -> None:
    tokens = [log_in(face, f"user {number}") for number in range(7)] + [face.new(a=1) for _ in range(3)]
    assert face.run(face.sessions.revoke_all()) == 10
    assert [face.stored(token) for token in tokens] == [None] * 10
    assert face.run(face.sessions.count()) == 0


def test_a_users_data_is_exported_and_erased(face: Face) -> None:
    token = log_in(face, cart=["pen"], address="somewhere")
    (exported,) = face.run(face.sessions.export_user("alice"))
    assert exported["values"] == {"cart": ["pen"], "address": "somewhere"}
    assert exported["user_id"] == "alice"
    assert token not in repr(exported)
    assert face.run(face.sessions.erase_user("alice")) == 1
    assert face.run(face.sessions.export_user("alice")) == []
    left = face.everything()
    assert b"alice" not in left
    assert b"somewhere" not in left


def test_a_value_that_can_not_be_decoded_hinders_no_export(timed: Face, caplog: pytest.LogCaptureFixture) -> None:
    handle = timed.request(log_in(timed, cart=["pen"])).handle
    (data,) = timed.run(timed.sessions.store.load(handle))
    revision, record = records.decode(handle, data)
    assert isinstance(record, records.Record)
    record.values["newer"] = Raw(b"\xd4\x63\x00")
    newer = records.encode(handle, records.new_revision(), record)
    timed.run(timed.sessions.store.update(handle, revision, newer, 3_600_000))
    (exported,) = timed.run(timed.sessions.export_user("alice"))
    assert exported["values"]["cart"] == ["pen"]
    assert isinstance(exported["values"]["newer"], UndecodableValue)
    assert handle in caplog.text
    assert "session['newer']" in caplog.text


@pytest.mark.parametrize("page_size", [0, -1])
def test_a_page_of_nothing_is_refused(face: Face, page_size: int) -> None:
    with pytest.raises(ConfigurationError, match="page_size"):
        face.listed(face.sessions.iterate(page_size))


@pytest.mark.parametrize("handle", ["", "x", "0" * 40, "user-" + "0" * 40, "\ud800", "\ud800" * 40])
def test_a_handle_of_nothing_keeps_nothing(face: Face, handle: str) -> None:
    token = log_in(face)
    assert face.run(face.sessions.revoke_user("alice", keep=handle)) == 1
    assert user_of(face, token) is None


# --- limits -----------------------------------------------------------------------------------------------------------


def limited(kind: Kind, store_url: str, when_full: str, **settings: Any) -> Face:
    return Face(kind, store_url, max_sessions_per_user=3, when_full=when_full, **settings)


def test_beyond_the_limit_the_oldest_session_ends(kind: Kind, store_url: str) -> None:
    face = limited(kind, store_url, "end_oldest")
    tokens = [log_in(face) for _ in range(5)]
    assert [user_of(face, token) for token in tokens] == [None, None, "alice", "alice", "alice"]
    assert len(handles(face)) == 3
    assert user_of(face, log_in(face, "bob")) == "bob"


def test_who_is_ended_by_the_limit_is_told(kind: Kind) -> None:
    seen: list[Event] = []
    face = Face(kind, "memory://", max_sessions_per_user=1, events=Events(on_revoked=seen.append))
    handle = face.request(log_in(face)).handle
    log_in(face)
    assert [(event.handle, event.user_id, event.reason) for event in seen] == [(handle, "alice", "too many sessions")]


def test_beyond_the_limit_a_login_is_refused_until_one_has_ended(kind: Kind, store_url: str) -> None:
    face = limited(kind, store_url, "refuse")
    tokens = [log_in(face) for _ in range(3)]
    session = face.request()
    session.login("alice")
    with pytest.raises(TooManySessions, match="max_sessions_per_user"):
        face.save(session)
    assert len(handles(face)) == 3
    face.run(face.sessions.revoke(face.request(tokens[1]).handle))
    assert user_of(face, log_in(face)) == "alice"
    renewed = face.request(tokens[0])
    renewed.renew()
    face.respond(renewed)
    again = log_in(face, token=renewed.token)
    assert user_of(face, again) == "alice"


def test_sessions_that_ended_by_themselves_do_not_count(kind: Kind, clock: ManualClock) -> None:
    face = limited(kind, "memory://", "refuse", clock=clock)
    for _ in range(3):
        log_in(face)
    clock.advance(timedelta(hours=3))
    assert user_of(face, log_in(face)) == "alice"


@pytest.mark.parametrize("when_full", ["end_oldest", "refuse"])
def test_the_limit_holds_for_twenty_logins_in_the_same_instant(kind: Kind, store_url: str, when_full: str) -> None:
    face = limited(kind, store_url, when_full)
    sessions: list[AnySession] = [face.request() for _ in range(AT_ONCE)]
    for session in sessions:
        session.login("alice")
    outcomes = face.conclude_together(sessions)
    refused = [outcome for outcome in outcomes if isinstance(outcome, TooManySessions)]
    assert all(isinstance(outcome, str | TooManySessions) for outcome in outcomes)
    alive = [session for session in sessions if user_of(face, session.token) == "alice"]
    assert len(alive) == 3
    assert sorted(handles(face)) == sorted(session.handle for session in alive)
    assert len(refused) == (AT_ONCE - 3 if when_full == "refuse" else 0)


def run_until_stored(face: Face, session: AnySession) -> Iterator[None]:
    """Commit a login; stop when it is in the index and not yet stored, and go on when asked to."""
    handle = session.handle
    steps = face.sessions.lifecycle.commit(session._work)
    result: Any = None
    while True:
        try:
            operation = steps.send(result)
        except StopIteration:
            return
        if isinstance(operation, Create) and operation.key == handle:
            yield
        result = face.run(operation.perform(face.sessions.store))


def test_a_renewal_that_is_about_to_be_stored_stays_in_the_index_though_its_session_is_old(
    kind: Kind, clock: ManualClock
) -> None:
    face = Face(kind, "memory://", clock=clock, max_sessions_per_user=2)
    token = log_in(face)
    clock.advance(timedelta(hours=1))
    session = face.request(token)
    session.renew()
    handle = session.handle
    commit = run_until_stored(face, session)
    next(commit)
    log_in(face)
    assert list(commit) == []
    alive = user_of(face, session.token) == "alice" if not session.has_ended else False
    assert (handle in handles(face)) is alive


@pytest.mark.parametrize("by_handle", [False, True])
def test_a_login_that_is_ended_before_it_is_stored_never_becomes_a_session(kind: Kind, by_handle: bool) -> None:
    face = Face(kind, "memory://", max_sessions_per_user=1)
    early = face.request()
    early.login("alice")
    token, handle = early.token, early.handle
    commit = run_until_stored(face, early)
    next(commit)
    newer = None if by_handle else log_in(face)
    if by_handle:
        assert face.run(face.sessions.revoke(handle)) is False
    assert list(commit) == []
    assert early.has_ended
    assert user_of(face, token) is None
    assert handles(face) == ([] if newer is None else [face.request(newer).handle])


@pytest.mark.parametrize("other", ["bob", None])
def test_a_record_that_became_another_users_is_not_given_to_the_first(kind: Kind, other: str | None) -> None:
    face = Face(kind, "memory://")
    alice = log_in(face)
    theirs = face.new(secret=1) if other is None else log_in(face, other, secret=1)
    handle = face.request(alice).handle
    (_, record), _ = face.run_steps(face.sessions.lifecycle.keeper.find(face.request(theirs).handle))
    face.run(face.sessions.store.delete(handle))
    face.run(face.sessions.store.create(handle, records.encode(handle, b"revision", record), 3_600_000))
    assert face.request(alice).is_new


# --- guards -----------------------------------------------------------------------------------------------------------


def test_the_guard_lets_only_those_who_are_logged_in_pass(timed: Face) -> None:
    with pytest.raises(LoginRequired):
        require_login(timed.request())
    assert require_login(timed.request(log_in(timed))) == "alice"


def test_the_guard_for_pages_that_matter_wants_a_recent_login(timed: Face, clock: ManualClock) -> None:
    with pytest.raises(LoginRequired):
        require_recent_login(timed.request(), within=timedelta(minutes=10))
    token = log_in(timed)
    clock.advance(timedelta(minutes=10))
    assert require_recent_login(timed.request(token), within=timedelta(minutes=10)) == "alice"
    clock.advance(timedelta(seconds=1))
    with pytest.raises(RecentLoginRequired):
        require_recent_login(timed.request(token), within=timedelta(minutes=10))
    assert require_recent_login(timed.request(log_in(timed, token=token)), within=timedelta(minutes=10)) == "alice"


# --- renewal by the clock ---------------------------------------------------------------------------------------------


@pytest.fixture
def renewing(kind: Kind, clock: ManualClock) -> Face:
    return Face(kind, "memory://", clock=clock, renew_every=timedelta(minutes=15))


def use(face: Face, token: str) -> AnySession:
    session = face.request(token)
    session.get("anything")
    return session


def test_a_session_that_is_used_gets_a_new_id_now_and_then(renewing: Face, clock: ManualClock) -> None:
    token = log_in(renewing, cart=["pen"])
    clock.advance(timedelta(minutes=14))
    session = use(renewing, token)
    renewing.respond(session)
    assert session.handle == renewing.request(token).handle
    clock.advance(timedelta(minutes=2))
    session = use(renewing, session.token)
    set_cookie = renewing.respond(session)
    assert session.token in (set_cookie or "")
    assert session.token != token
    assert renewing.stored(session.token) == {"cart": ["pen"]}
    assert user_of(renewing, session.token) == "alice"
    assert handles(renewing) == [session.handle]


def test_requests_under_way_reach_the_renewed_session_and_parallel_ones_renew_once(
    renewing: Face, clock: ManualClock
) -> None:
    token = log_in(renewing, n=0)
    clock.advance(timedelta(minutes=16))
    sessions = [use(renewing, token) for _ in range(5)]
    for session in sessions:
        session.increment("n")
    cookies = [renewing.respond(session) for session in sessions]
    assert [cookie is not None for cookie in cookies] == [True, False, False, False, False]
    late = use(renewing, token)
    late.increment("n")
    assert late.handle == sessions[0].handle
    assert renewing.respond(late) is None
    assert renewing.stored(sessions[0].token) == {"n": 6}
    assert handles(renewing) == [sessions[0].handle]


def test_after_the_grace_the_old_id_is_worthless_and_an_event(kind: Kind, clock: ManualClock) -> None:
    seen: list[Event] = []
    face = Face(kind, "memory://", clock=clock, renew_every=timedelta(minutes=15), events=Events(on_reused=seen.append))
    token = log_in(face)
    clock.advance(timedelta(minutes=16))
    session = use(face, token)
    face.respond(session)
    clock.advance(timedelta(seconds=11))
    thief = use(face, token)
    assert thief.user_id is None
    assert face.respond(thief) is None
    assert [event.handle for event in seen] == [session.handle]
    assert user_of(face, session.token) == "alice"
    clock.advance(timedelta(minutes=2))
    assert "Max-Age=0" in (face.respond(use(face, token)) or "")
    assert len(seen) == 2


def test_by_choice_the_use_of_an_old_id_ends_the_session(kind: Kind, clock: ManualClock) -> None:
    face = Face(kind, "memory://", clock=clock, renew_every=timedelta(minutes=15), end_on_reuse=True)
    token = log_in(face)
    clock.advance(timedelta(minutes=16))
    session = use(face, token)
    face.respond(session)
    clock.advance(timedelta(seconds=11))
    use(face, token)
    assert user_of(face, session.token) is None


def test_a_login_never_leaves_the_old_id_a_grace(renewing: Face, clock: ManualClock) -> None:
    anonymous = renewing.new(cart=[])
    clock.advance(timedelta(minutes=16))
    in_flight = use(renewing, anonymous)
    token = log_in(renewing, token=anonymous)
    in_flight["stolen"] = True
    assert renewing.respond(in_flight) is None
    assert renewing.request(anonymous).user_id is None
    assert renewing.stored(token) == {"cart": []}


def test_a_logout_through_an_old_id_in_its_grace_ends_the_session(renewing: Face, clock: ManualClock) -> None:
    token = log_in(renewing)
    clock.advance(timedelta(minutes=16))
    session = use(renewing, token)
    renewing.respond(session)
    late = use(renewing, token)
    late.logout()
    renewing.respond(late)
    assert user_of(renewing, session.token) is None


def test_revoking_an_old_handle_ends_the_session_where_it_is_now(renewing: Face, clock: ManualClock) -> None:
    token = log_in(renewing)
    old_handle = renewing.request(token).handle
    clock.advance(timedelta(minutes=16))
    session = use(renewing, token)
    renewing.respond(session)
    assert renewing.run(renewing.sessions.revoke(old_handle)) is True
    assert user_of(renewing, session.token) is None


# --- events -----------------------------------------------------------------------------------------------------------


def test_handlers_hear_what_happens_by_handle_and_never_by_id(kind: Kind, clock: ManualClock) -> None:
    seen: list[Event] = []
    names = ("created", "login", "logout", "renewed", "revoked", "refused")
    face = Face(kind, "memory://", clock=clock, events=Events(**{f"on_{name}": seen.append for name in names}))
    anonymous = face.new(a=1)
    token = log_in(face, token=anonymous)
    session = face.request(token)
    session.renew()
    face.respond(session)
    face.run(face.sessions.revoke(session.handle))
    face.respond(face.request(session.token))
    out = face.request(log_in(face, "bob"))
    out.logout()
    face.respond(out)
    assert [(event.kind, event.user_id) for event in seen] == [
        ("created", None),
        ("login", "alice"),
        ("renewed", "alice"),
        ("revoked", "alice"),
        ("refused", None),
        ("created", None),
        ("login", "bob"),
        ("logout", "bob"),
    ]
    assert anonymous not in repr(seen)
    assert token not in repr(seen)


def test_a_handler_that_fails_breaks_no_request(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Event) -> None:
        raise ZeroDivisionError

    face = Face(kind, "memory://", events=Events(on_created=fail, on_login=fail))
    assert user_of(face, log_in(face)) == "alice"
    assert "ZeroDivisionError" in caplog.text


def test_a_refused_cookie_is_told_of_also_when_the_request_fails(kind: Kind) -> None:
    seen: list[Event] = []
    face = Face(kind, "memory://", events=Events(on_refused=seen.append))
    session = face.request("forged")
    face.run(face.sessions.abandon(session))
    assert [event.reason for event in seen] == ["forged"]


def test_an_async_handler_is_awaited_and_refused_by_the_sync_face() -> None:
    seen: list[str] = []

    async def handler(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append(event.handle)

    face = Face("async", "memory://", events=Events(on_login=handler))
    token = log_in(face)
    assert seen == [face.request(token).handle]
    with pytest.raises(ConfigurationError, match="on_login is async"):
        Face("sync", "memory://", events=Events(on_login=handler))


def test_each_security_event_is_one_log_line_with_the_handle(timed: Face, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coatcheck")
    token = log_in(timed)
    handle = timed.request(token).handle
    lines = [record for record in caplog.records if getattr(record, "event", "") == "login"]
    assert len(lines) == 1
    assert handle in lines[0].getMessage()
    assert token not in caplog.text


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "truncated", "whole"),
    [
        ("192.0.2.77", "192.0.2.0", "192.0.2.77"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::", "2001:db8:1:2:3:4:5:6"),
        ("::ffff:192.0.2.77", "192.0.2.0", "192.0.2.77"),
        ("fe80::1%eth0", "fe80::", "fe80::1"),
        ("/run/socket", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_addresses_are_kept_only_as_far_as_is_wanted(address: str | None, truncated: Any, whole: Any) -> None:
    device = Device("Firefox", address)
    assert remembered(device, user_agent=True, client_address="truncated").client_address == truncated
    assert remembered(device, user_agent=True, client_address="whole").client_address == whole
    assert remembered(device, user_agent=False, client_address="none") == Device(None, None)


def test_a_user_agent_is_bounded_and_printable() -> None:
    device = remembered(Device("a\r\nb" + "x" * 1000, None), user_agent=True, client_address="none")
    assert device.user_agent is not None
    assert device.user_agent.startswith("a\ufffd\ufffdbxxx")
    assert len(device.user_agent) == 256


def _keys_read(face: Face) -> list[str]:
    """Give the list to which the keys are added that the store is asked for from now on."""
    read: list[str] = []
    store: Any = face.sessions.store
    load = store.load

    def counted(*keys: str) -> Any:
        read.extend(keys)
        return load(*keys)

    store.load = counted
    return read


@pytest.mark.parametrize("lifetime_is_raised", [False, True])
def test_a_login_does_not_read_all_of_its_users_sessions_because_some_are_past_the_lifetime_of_their_login(
    kind: Kind, lifetime_is_raised: bool
) -> None:
    clock = ManualClock()
    day = timedelta(days=1)
    face = Face(kind, "memory://", clock=clock, idle_timeout=day, lifetime=day)
    for _ in range(50):
        log_in(face)
        clock.advance(day / 45)
    if lifetime_is_raised:
        face = Face(kind, face.sessions.store, clock=clock, idle_timeout=3 * day, lifetime=9 * day)
    read = _keys_read(face)
    costs = []
    for _ in range(10):
        read.clear()
        log_in(face)
        costs.append(len(read))
        clock.advance(day / 45)
    assert max(costs[1:]) < 12, costs


def test_live_sessions_that_are_past_the_lifetime_of_their_login_are_looked_at_once(kind: Kind) -> None:
    clock = ManualClock()
    day = timedelta(days=1)
    face = Face(kind, "memory://", clock=clock, idle_timeout=day, lifetime=day)
    sessions = [log_in(face) for _ in range(20)]
    clock.advance(day / 2)
    face = Face(kind, face.sessions.store, clock=clock, idle_timeout=3 * day, lifetime=9 * day)
    for token in sessions:
        session = face.request(token)
        assert session.user_id == "alice"
        face.respond(session)
    clock.advance(day)
    read = _keys_read(face)
    log_in(face)
    assert len(read) > 20
    read.clear()
    log_in(face)
    assert len(read) < 12
    assert len(face.run(face.sessions.for_user("alice"))) == 22
