"""The promises of docs/architecture.md that are about a session's life, async and sync, on every store."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from faces import KEY, OLD_KEY, AnySession, Face, Kind

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.testing import ManualClock


class Spy:
    """A memory store that notes which calls it gets, and can lie."""

    def __init__(self, kind: Kind) -> None:
        self.calls: list[str] = []
        self.answers: list[bytes | None] = []
        self.error: Exception | None = None
        inner: Any = (MemoryStore if kind == "async" else SyncMemoryStore)()

        def noted(name: str) -> Any:
            def note() -> None:
                self.calls.append(name)
                if self.error is not None:
                    raise self.error

            async def call(*arguments: Any) -> Any:
                note()
                result = await getattr(inner, name)(*arguments)
                return [self.answers.pop(0)] if name == "load" and self.answers else result

            def sync_call(*arguments: Any) -> Any:
                note()
                result = getattr(inner, name)(*arguments)
                return [self.answers.pop(0)] if name == "load" and self.answers else result

            return call if kind == "async" else sync_call

        self.inner = inner
        for name in ("load", "create", "update", "touch", "delete", "reset", "close"):
            setattr(self, name, noted(name))


@pytest.fixture
def spy(kind: Kind) -> Spy:
    return Spy(kind)


@pytest.fixture
def spied(kind: Kind, spy: Spy, clock: ManualClock) -> Any:
    face = Face(kind, spy, clock=clock)
    spy.inner._table._clock = clock
    yield face
    spy.error = None


# --- 1. no lost update ------------------------------------------------------------------------------------------------


def test_requests_that_change_different_keys_all_win_whatever_their_order(face: Face) -> None:
    token = face.new(base=1)
    requests = [face.request(token) for _ in range(10)]
    for number, session in enumerate(requests):
        session[f"key{number}"] = number
        session.increment("hits")
        session.append("log", number)
    del requests[0]["base"]
    for session in reversed(requests):
        face.respond(session)
    stored = face.stored(token)
    assert stored is not None
    assert sorted(stored.pop("log")) == list(range(10))
    assert stored == {"hits": 10} | {f"key{number}": number for number in range(10)}


def test_of_requests_that_change_the_same_key_the_last_commit_wins(face: Face) -> None:
    token = face.new(theme="light")
    first, last = face.request(token), face.request(token)
    last["theme"] = "dark"
    first["theme"] = "blue"
    face.respond(first)
    face.respond(last)
    assert face.stored(token) == {"theme": "dark"}


def test_a_change_by_another_request_survives_a_renewal_that_did_not_know_of_it(face: Face) -> None:
    token = face.new(cart=["pen"])
    session, other = face.request(token), face.request(token)
    session["user"] = "alice"
    session.renew()
    other["late"] = True
    face.respond(other)
    face.respond(session)
    assert face.stored(session.token) == {"cart": ["pen"], "user": "alice", "late": True}
    assert face.stored(token) is None


def test_a_command_that_the_client_library_sent_twice_is_applied_once(spied: Face, spy: Spy) -> None:
    twice = {"update", "create"}
    for name in twice:
        once = getattr(spy, name)

        async def call_twice(*arguments: Any, once: Any = once) -> Any:
            await once(*arguments)
            return await once(*arguments)

        def sync_call_twice(*arguments: Any, once: Any = once) -> Any:
            once(*arguments)
            return once(*arguments)

        setattr(spy, name, call_twice if isinstance(spy.inner, MemoryStore) else sync_call_twice)
    token = spied.new(n=1)
    session = spied.request(token)
    session.increment("n")
    spied.respond(session)
    assert spied.stored(token) == {"n": 2}
    session = spied.request(token)
    session.renew()
    session.increment("n")
    spied.respond(session)
    assert spied.stored(session.token) == {"n": 3}


# --- 2. no resurrection -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.update(user="back"),
        lambda session: session["cart"].append(1),
        lambda session: session.increment("n"),
        lambda session: session.renew(),
        lambda session: (session.renew(), session.update(user="back")),
        lambda session: session.remember(False),
    ],
    ids=["write", "nested", "increment", "renew", "renew-and-write", "remember"],
)
def test_a_session_that_was_ended_elsewhere_is_not_brought_back(face: Face, act: Any) -> None:
    token = face.new(user="alice", cart=[])
    session = face.request(token)
    act(session)
    face.revoke(token)
    set_cookie = face.respond(session)
    assert face.stored(token) is None
    assert face.stored(session.token) is None
    assert set_cookie is not None
    assert "=; Max-Age=0" in set_cookie


def test_a_touch_does_not_bring_back_a_session_that_was_ended_elsewhere(timed: Face, clock: ManualClock) -> None:
    token = timed.new(user="alice")
    clock.advance(timedelta(hours=1))
    session = timed.request(token)
    assert session["user"] == "alice"
    timed.revoke(token)
    assert "=; Max-Age=0" in (timed.respond(session) or "")
    assert timed.stored(token) is None


def test_a_session_that_expired_while_the_request_ran_is_not_brought_back(timed: Face, clock: ManualClock) -> None:
    token = timed.new(user="alice")
    session = timed.request(token)
    session["late"] = True
    clock.advance(timedelta(hours=2, seconds=1))
    assert "=; Max-Age=0" in (timed.respond(session) or "")
    assert timed.stored(token) is None


def test_a_renewal_that_came_too_late_leaves_nothing_behind(face: Face) -> None:
    token = face.new(user="alice")
    session = face.request(token)
    session.renew()
    new_token = session.token
    face.revoke(token)
    face.respond(session)
    assert face.stored(new_token) is None


def test_a_logout_is_not_undone_by_a_renewal_in_the_same_moment(face: Face) -> None:
    token = face.new(user="alice")
    logout, renewal = face.request(token), face.request(token)
    logout.destroy()
    renewal.renew()
    face.respond(renewal)
    assert face.stored(renewal.token) == {"user": "alice"}
    face.respond(logout)
    assert face.stored(renewal.token) is None
    assert face.stored(token) is None


def test_after_a_lost_save_the_request_stores_nothing_more(face: Face) -> None:
    token = face.new(user="alice")
    session = face.request(token)
    face.revoke(token)
    session["a"] = 1
    face.save(session)
    assert dict(session) == {}
    session["b"] = 2
    assert "=; Max-Age=0" in (face.respond(session) or "")
    assert face.stored(session.token) is None


# --- 4. no fixation ---------------------------------------------------------------------------------------------------


def test_an_id_that_the_store_does_not_know_is_never_adopted(face: Face) -> None:
    token = face.new(user="alice")
    face.revoke(token)
    session = face.request(token)
    assert session.is_new
    session["user"] = "mallory"
    face.respond(session)
    assert session.token != token
    assert face.stored(token) is None


def test_an_old_token_sees_nothing_of_what_came_after_the_renewal(face: Face) -> None:
    planted = face.new(cart=[])
    in_flight = face.request(planted)
    victim = face.request(planted)
    victim["user"] = "alice"
    victim.renew()
    face.respond(victim)
    late = face.request(planted)
    assert dict(late) == {}
    in_flight["user"] = "mallory"
    face.respond(in_flight)
    assert face.stored(victim.token) == {"cart": [], "user": "alice"}
    assert face.stored(planted) is None


def test_a_request_that_was_under_way_during_a_login_does_not_take_the_new_cookie_away(face: Face) -> None:
    token = face.new(cart=[])
    writing, reading, login = face.request(token), face.request(token), face.request(token)
    login.renew()
    assert face.respond(login) is not None
    writing["a"] = 1
    assert face.respond(writing) is None
    assert reading.get("cart") == []
    assert face.respond(reading) is None
    late = face.request(token)
    late["a"] = 1
    assert face.respond(late) is None
    assert face.stored(login.token) == {"cart": []}


def test_of_two_simultaneous_renewals_one_wins_and_the_other_leaves_its_cookie_alone(face: Face) -> None:
    token = face.new(user="alice")
    winner, loser = face.request(token), face.request(token)
    winner.renew()
    loser.renew()
    face.respond(winner)
    assert face.respond(loser) is None
    assert face.stored(winner.token) == {"user": "alice"}
    assert face.stored(loser.token) is None


def test_a_login_with_a_token_that_was_just_renewed_starts_a_new_session(face: Face) -> None:
    token = face.new(cart=[])
    first = face.request(token)
    first.renew()
    face.respond(first)  # and the response is lost on its way
    second = face.request(token)
    second.renew()
    second["user"] = "alice"
    assert face.respond(second) is not None
    assert face.stored(second.token) == {"user": "alice"}


def test_the_trace_of_a_renewal_is_forgotten_after_a_minute(timed: Face, clock: ManualClock) -> None:
    token = timed.new(a=1)
    session = timed.request(token)
    session.renew()
    timed.respond(session)
    clock.advance(timedelta(seconds=59))
    assert timed.respond(timed.request(token)) is None
    clock.advance(timedelta(seconds=2))
    assert "=; Max-Age=0" in (timed.respond(timed.request(token)) or "")


# --- 6. no noise ------------------------------------------------------------------------------------------------------


def test_a_client_without_a_session_costs_the_store_nothing_until_something_is_kept(spied: Face, spy: Spy) -> None:
    for act in (
        lambda _session: None,
        lambda session: session.get("user"),
        lambda session: session.flashes(),
        lambda session: session.destroy(),
        lambda session: session.renew(),
        lambda session: session.clear(),
        lambda session: session.remember(True),
        lambda session: (session.update(a=1), session.pop("a")),
    ):
        session = spied.request()
        act(session)
        assert spied.respond(session) is None
    assert spy.calls == []


def test_a_request_that_does_not_use_its_session_writes_nothing_and_sets_no_cookie(
    spied: Face, spy: Spy, clock: ManualClock
) -> None:
    token = spied.new(user="alice")
    clock.advance(timedelta(hours=1))
    spy.calls.clear()
    assert spied.respond(spied.request(token)) is None
    assert spy.calls == ["load"]


def test_reading_costs_one_load_and_writing_one_update(spied: Face, spy: Spy) -> None:
    token = spied.new(user="alice", cart=[1])
    spy.calls.clear()
    session = spied.request(token)
    assert list(session["cart"]) == [1]
    assert spied.respond(session) is None
    assert spy.calls == ["load"]
    spy.calls.clear()
    session = spied.request(token)
    session["cart"].append(2)
    assert spied.respond(session) is None
    assert spy.calls == ["load", "update"]


def test_setting_a_value_to_what_it_is_writes_nothing(spied: Face, spy: Spy) -> None:
    token = spied.new(user="alice", cart=[1], gone=1)
    session = spied.request(token)
    session["user"] = "alice"
    session["cart"].append(2)
    session["cart"].pop()
    session["new"] = 1
    del session["new"]
    spy.calls.clear()
    assert spied.respond(session) is None
    assert spy.calls == []


def test_use_extends_a_session_once_in_a_while_and_not_on_every_request(
    spied: Face, spy: Spy, clock: ManualClock
) -> None:
    token = spied.new(user="alice")
    spy.calls.clear()
    for minutes in (5, 5):
        clock.advance(timedelta(minutes=minutes))
        session = spied.request(token)
        assert session["user"] == "alice"
        assert spied.respond(session) is None
    clock.advance(timedelta(minutes=2))
    session = spied.request(token)
    assert session["user"] == "alice"
    set_cookie = spied.respond(session)
    assert set_cookie is not None
    assert session.token in set_cookie
    assert spy.calls == ["load", "load", "load", "touch"]
    assert spied.respond(spied.request(session.token)) is None


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_session_that_is_not_used_ends_after_the_idle_timeout(timed: Face, clock: ManualClock) -> None:
    token = timed.new(user="alice")
    clock.advance(timedelta(hours=1, minutes=59))
    assert timed.stored(token) == {"user": "alice"}
    timed_out = timed.new(user="bob")
    clock.advance(timedelta(hours=2))
    assert timed.stored(timed_out) is None


def test_use_extends_a_session_but_never_beyond_its_lifetime(timed: Face, clock: ManualClock) -> None:
    token = timed.new(n=0)
    start = clock()
    while clock() - start < timedelta(days=7).total_seconds():
        session = timed.request(token)
        assert not session.is_new
        session.increment("n")
        timed.respond(session)
        token = session.token
        assert session.expires_at.timestamp() <= start + timedelta(days=7).total_seconds()
        clock.advance(timedelta(hours=1))
    assert timed.stored(token) is None


def test_renewing_does_not_extend_the_lifetime(timed: Face, clock: ManualClock) -> None:
    token = timed.new(n=0)
    for _ in range(7 * 24 - 1):
        clock.advance(timedelta(hours=1))
        session = timed.request(token)
        session.renew()
        timed.respond(session)
        token = session.token
    assert timed.stored(token) == {"n": 0}
    clock.advance(timedelta(hours=1))
    assert timed.stored(token) is None


def test_a_shorter_lifetime_holds_for_sessions_that_exist(kind: Kind, spy: Spy) -> None:
    clock = ManualClock()
    before = Face(kind, spy, clock=clock)
    token = before.new(a=1)
    clock.advance(timedelta(hours=1))
    after = Face(  # the store itself knows nothing of the change
        kind,
        spy,
        clock=clock,
        lifetime=timedelta(minutes=30),
        idle_timeout=timedelta(minutes=30),
    )
    spy.calls.clear()
    assert after.stored(token) is None
    assert spy.calls == []
    session = before.request(token)
    assert session["a"] == 1
    before.respond(session)
    assert after.stored(session.token) is None


def test_the_cookie_lives_as_long_as_the_session_can_and_at_most_400_days(kind: Kind) -> None:
    face = Face(kind, "memory://", lifetime=timedelta(days=1000))
    session = face.request()
    session["a"] = 1
    assert f"Max-Age={400 * 86_400};" in (face.respond(session) or "")


def test_a_session_ends_exactly_when_its_time_is_over(timed: Face, clock: ManualClock) -> None:
    token = timed.new(a=1)
    clock.advance(timedelta(hours=2))
    assert timed.stored(token) is None
    token = timed.new(a=1)
    token = timed.use_hourly(token, clock, 7 * 24 - 1)
    clock.advance(timedelta(hours=1) - timedelta(milliseconds=2))
    assert timed.stored(token) == {"a": 1}
    clock.advance(timedelta(milliseconds=2))
    assert timed.stored(token) is None


def test_a_write_extends_a_session_like_any_use(timed: Face, clock: ManualClock) -> None:
    token = timed.new(n=0)
    clock.advance(timedelta(hours=1))
    session = timed.request(token)
    session.increment("n")
    set_cookie = timed.respond(session)
    assert session.token in (set_cookie or "")
    clock.advance(timedelta(hours=1, minutes=59))
    assert timed.stored(session.token) == {"n": 1}


def test_a_token_from_a_clock_that_is_ahead_does_not_keep_a_session_from_being_extended(
    timed: Face, clock: ManualClock
) -> None:
    clock.advance(timedelta(hours=5))
    token = timed.new(n=0)
    clock.advance(-timedelta(hours=5))
    session = timed.request(token)
    session.get("n")
    assert timed.respond(session) is not None


def test_another_requests_choice_of_remember_survives_a_conflict(face: Face) -> None:
    token = face.new(a=1)
    session, other = face.request(token), face.request(token)
    other.remember(False)
    face.respond(other)
    session["a"] = 2
    face.respond(session)
    again = face.request(token)
    again.remember(False)
    assert face.respond(again) is None


def test_a_failed_request_does_not_change_what_remember_says(face: Face) -> None:
    token = face.new(a=1)
    session = face.request(token)
    session.remember(False)
    face.respond(session, status=500)
    session["late"] = 1
    face.save(session)
    again = face.request(token)
    again.remember(False)
    assert face.respond(again) is not None


def test_a_logout_that_the_store_could_not_do_is_done_by_the_next_try(spied: Face, spy: Spy) -> None:
    token = spied.new(a=1)
    session = spied.request(token)
    session.destroy()
    spy.error = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        spied.respond(session)
    spy.error = None
    spied.respond(session)
    assert spied.stored(token) is None


# --- keys that rotate -------------------------------------------------------------------------------------------------


def test_a_session_signed_by_an_older_key_is_accepted_and_gets_a_new_cookie(kind: Kind, spy: Spy) -> None:
    old = Face(kind, spy, secret_keys=[OLD_KEY])
    both = Face(kind, spy, secret_keys=[KEY, OLD_KEY])
    new = Face(kind, spy, secret_keys=[KEY])
    token = old.new(user="alice")
    assert new.stored(token) is None
    session = both.request(token)
    assert session["user"] == "alice"
    set_cookie = both.respond(session)
    assert set_cookie is not None
    assert session.token in set_cookie
    assert new.stored(session.token) == {"user": "alice"}
    session = both.request(session.token)
    assert session["user"] == "alice"
    assert both.respond(session) is None


# --- 8. fail closed, fail clearly -------------------------------------------------------------------------------------


def test_a_record_that_can_not_be_decoded_is_reported_kept_and_the_client_starts_anew(
    spied: Face, spy: Spy, caplog: pytest.LogCaptureFixture
) -> None:
    token = spied.new(user="alice")
    handle = spied.request(token).handle
    records = spy.inner._table._records
    expires_at, good = records[handle]
    for bad in (
        b"",
        b"garbage",
        good[:-1],
        good[:20] + bytes([good[20] ^ 1]) + good[21:],
        b"\x63" + good[1:],
        good + b"\x00",
    ):
        records[handle] = (expires_at, bad)
        caplog.clear()
        session = spied.request(token)
        assert session.is_new
        assert dict(session) == {}
        session["user"] = "somebody"
        assert session.token in (spied.respond(session) or "")
        assert records[handle] == (expires_at, bad)
        assert [entry.levelno for entry in caplog.records] == [logging.ERROR]
        assert handle in caplog.text
        assert token not in caplog.text
        assert "alice" not in caplog.text


def test_a_record_that_became_undecodable_while_the_request_ran_is_not_overwritten(
    spied: Face, spy: Spy, caplog: pytest.LogCaptureFixture
) -> None:
    token = spied.new(user="alice")
    records = spy.inner._table._records
    acts: list[Any] = [lambda session: session.update(a=1), lambda session: session.renew()]
    for act in acts:
        session = spied.request(token)
        handle = session.handle
        good = records[handle]
        records[handle] = (good[0], b"\x63-newer-than-we-know")
        act(session)
        assert "=; Max-Age=0" in (spied.respond(session) or "")
        assert records[handle] == (good[0], b"\x63-newer-than-we-know")
        assert "can't be used" in caplog.text
        records[handle] = good


def test_while_the_store_is_down_nothing_is_answered_as_if_nobody_were_logged_in(spied: Face, spy: Spy) -> None:
    token = spied.new(user="alice")
    spy.error = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        spied.request(token)
    spy.error = None
    session = spied.request(token)
    session["a"] = 1
    spy.error = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        spied.respond(session)
    spy.error = None
    assert spied.stored(token) == {"user": "alice"}


# --- 9. nobody gets another's session ---------------------------------------------------------------------------------


def record_of(spy: Spy, session: AnySession) -> bytes:
    record: bytes = spy.inner._table._records[session.handle][1]
    return record


def test_an_answer_meant_for_another_session_is_refused_and_the_connections_are_dropped(
    spied: Face, spy: Spy, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = spied.new(user="alice"), spied.new(user="bob")
    spy.answers = [record_of(spy, spied.request(bob))]
    spy.calls.clear()
    session = spied.request(alice)
    assert session["user"] == "alice"
    assert spy.calls == ["load", "reset", "load"]
    assert "belongs to" in caplog.text


def test_a_record_that_was_moved_to_another_key_is_nobodys_session(spied: Face, spy: Spy) -> None:
    alice, bob = spied.new(user="alice"), spied.new(user="bob")
    records = spy.inner._table._records
    records[spied.request(alice).handle] = records[spied.request(bob).handle]
    session = spied.request(alice)
    assert session.is_new
    assert "user" not in session


def test_a_conflict_with_a_record_of_another_session_is_an_outage_and_not_a_merge(spied: Face, spy: Spy) -> None:
    alice, bob = spied.new(user="alice"), spied.new(user="bob")
    session = spied.request(alice)
    session["a"] = 1
    records = spy.inner._table._records
    records[session.handle] = records[spied.request(bob).handle]
    spy.calls.clear()
    with pytest.raises(StoreUnavailable, match="another session"):
        spied.respond(session)
    assert spy.calls == ["update", "reset"]


def test_the_store_never_sees_the_id(spied: Face, spy: Spy) -> None:
    token = spied.new(user="alice")
    session = spied.request(token)
    secret = session._work.identity.secret
    for key, (_, record) in spy.inner._table._records.items():
        assert secret not in record
        assert secret.hex() not in key
        assert token.encode() not in record


# --- 10. bounded ------------------------------------------------------------------------------------------------------


def test_a_commit_gives_up_after_a_bounded_number_of_conflicts(
    spied: Face, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coatcheck.operations._LONGEST_PAUSE_S", 0)
    from coatcheck.errors import TooManyConflicts
    from coatcheck.keeper import MAX_CONFLICTS

    token = spied.new(n=0)
    session = spied.request(token)
    update = spy.update  # type: ignore[attr-defined]
    rival = {"busy": False, "rounds": 0}

    def let_another_win() -> None:
        if not rival["busy"]:
            rival["busy"] = True
            rival["rounds"] += 1
            table = spy.inner._table
            other = Face("sync", SyncMemoryStore(share_with=spy.inner))
            other.sessions.config = spied.sessions.config
            other.sessions.lifecycle = spied.sessions.lifecycle
            winner = other.request(token)
            winner.increment("n")
            other.respond(winner)
            assert table is other.sessions.store._table
            rival["busy"] = False

    async def racing(*arguments: Any) -> Any:
        let_another_win()
        return await update(*arguments)

    def sync_racing(*arguments: Any) -> Any:
        let_another_win()
        return update(*arguments)

    spy.update = racing if isinstance(spy.inner, MemoryStore) else sync_racing  # type: ignore[attr-defined]
    session["mine"] = True
    with pytest.raises(TooManyConflicts):
        spied.respond(session)
    assert rival["rounds"] == MAX_CONFLICTS
    assert spied.stored(token) == {"n": MAX_CONFLICTS}
