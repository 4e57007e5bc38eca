"""What a request does while its session is at work in the store, and renewals that meet other renewals."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from faces import KEY, Face, Kind
from meetings import MeetingStore, begin, new, token_in

from coatcheck import Event, Events, Session, Sessions
from coatcheck.operations import Create, Load, Update
from coatcheck.testing import ManualClock
from coatcheck.users import epoch_key, index_key, user_tag

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(clock: ManualClock) -> MeetingStore:
    return MeetingStore(clock)


@pytest.fixture
def sessions(store: MeetingStore, clock: ManualClock) -> Sessions:
    return Sessions(store, secret_keys=[KEY], clock=clock, renew_every=timedelta(minutes=15))


# --- renewals that meet renewals --------------------------------------------------------------------------------------


async def test_a_renewal_that_was_asked_for_is_not_lost_to_one_by_the_clock(
    sessions: Sessions, clock: ManualClock
) -> None:
    planted = await new(sessions, cart=1)
    clock.advance(timedelta(minutes=16))
    victim, attacker = await begin(sessions, planted), await begin(sessions, planted)
    attacker.get("cart")
    stolen = token_in(await sessions.conclude(attacker, 200))
    victim.renew()
    victim["is_admin"] = True
    renewed = token_in(await sessions.conclude(victim, 200))
    assert dict(await begin(sessions, renewed)) == {"cart": 1, "is_admin": True}
    clock.advance(timedelta(minutes=5))
    assert dict(await begin(sessions, stolen)) == {}


async def test_a_login_is_not_lost_to_a_renewal_by_the_clock(sessions: Sessions, clock: ManualClock) -> None:
    token = await new(sessions, cart=1)
    clock.advance(timedelta(minutes=16))
    login, other = await begin(sessions, token), await begin(sessions, token)
    other.get("cart")
    await sessions.conclude(other, 200)
    login.login("alice")
    logged_in = await begin(sessions, token_in(await sessions.conclude(login, 200)))
    assert (logged_in.user_id, dict(logged_in)) == ("alice", {"cart": 1})
    assert len(await sessions.for_user("alice")) == 1


async def test_a_late_request_does_not_take_the_cookie_of_a_login_after_a_renewal(
    sessions: Sessions, clock: ManualClock
) -> None:
    old = await new(sessions, cart=1)
    clock.advance(timedelta(minutes=16))
    renewing = await begin(sessions, old)
    renewing.get("cart")
    login = await begin(sessions, token_in(await sessions.conclude(renewing, 200)))
    login.login("alice")
    await sessions.conclude(login, 200)
    late = await begin(sessions, old)
    assert late.user_id is None
    assert await sessions.conclude(late, 200) is None


async def test_a_save_in_the_middle_renews_nothing_by_the_clock(sessions: Sessions, clock: ManualClock) -> None:
    token = await new(sessions, n=0)
    clock.advance(timedelta(minutes=16))
    session = await begin(sessions, token)
    session.increment("n")
    await session.save()
    await sessions.abandon(session)  # the request fails, so no cookie would reach the client
    clock.advance(timedelta(minutes=2))
    assert dict(await begin(sessions, token)) == {"n": 1}


# --- all sessions but one ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["renew", "login"])
async def test_the_session_that_asks_is_kept_also_when_it_gets_a_new_id_in_the_same_request(
    sessions: Sessions, act: str
) -> None:
    other, token = await new(sessions, "alice"), await new(sessions, "alice", n=1)
    session = await begin(sessions, token)
    if act == "renew":
        session.renew()
    else:
        session.login("alice")
    assert await sessions.revoke_user("alice", keep=session) == 1
    kept = await begin(sessions, token_in(await sessions.conclude(session, 200)))
    assert (kept.user_id, dict(kept)) == ("alice", {"n": 1})
    assert (await begin(sessions, other)).user_id is None


async def test_the_session_that_asks_is_kept_when_another_request_of_it_has_just_renewed_it(
    sessions: Sessions, clock: ManualClock
) -> None:
    token = await new(sessions, "alice")
    clock.advance(timedelta(minutes=16))
    asking, renewing = await begin(sessions, token), await begin(sessions, token)
    renewing.get("x")
    renewed = token_in(await sessions.conclude(renewing, 200))
    await sessions.revoke_user("alice", keep=asking)
    assert (await begin(sessions, renewed)).user_id == "alice"


async def test_the_session_that_asks_is_kept_in_the_middle_of_its_renewal(
    sessions: Sessions, store: MeetingStore
) -> None:
    token = await new(sessions, "alice")
    session, asking = await begin(sessions, token), await begin(sessions, token)
    session.renew()

    async def revoke_others() -> None:
        store.before.clear()
        await sessions.revoke_user("alice", keep=asking)

    async def before_second_step() -> None:
        store.before["update"] = revoke_others

    store.before["create"] = before_second_step
    renewed = token_in(await sessions.conclude(session, 200))
    assert (await begin(sessions, renewed)).user_id == "alice"
    assert len(await sessions.for_user("alice")) == 1


def test_ending_all_forgets_no_login_that_is_about_to_be_stored(kind: Kind, clock: ManualClock) -> None:
    face = Face(kind, "memory://", clock=clock)
    session = face.request()  # a login that knows the new epoch, and is in the index, and not yet stored
    session.login("alice")
    login: Any = None
    step: Any = None
    ending = face.sessions.lifecycle.users.end_all("alice", None)
    result: Any = None
    while True:
        try:
            operation = ending.send(result)
        except StopIteration:
            break
        result = face.run(operation.perform(face.sessions.store))
        if isinstance(operation, Create | Update) and operation.key == epoch_key(user_tag("alice")):
            login = face.sessions.lifecycle.commit(session._work)
            while not (isinstance(step, Create) and step.key == session.handle):
                step = login.send(None if step is None else face.run(step.perform(face.sessions.store)))
    with pytest.raises(StopIteration):
        finish(face, login, step)
    assert face.request(session.token).user_id == "alice"
    assert [info.handle for info in face.run(face.sessions.for_user("alice"))] == [session.handle]


def finish(face: Face, steps: Any, operation: Any) -> None:
    while True:
        operation = steps.send(face.run(operation.perform(face.sessions.store)))


# --- what is done to a session while the store is at work -------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("act", ["login", "renew", "destroy", "logout and keep", "remember"])
async def test_what_is_done_while_a_save_is_under_way_counts_afterwards(
    sessions: Sessions, store: MeetingStore, stored: bool, act: str
) -> None:
    token = await new(sessions, x=1) if stored else None
    session = await begin(sessions, token)
    session["x"] = 2
    acts: dict[str, Any] = {
        "login": lambda: session.login("alice"),
        "renew": session.renew,
        "destroy": session.destroy,
        "logout and keep": lambda: session.logout(keep=["x"]),
        "remember": lambda: session.remember(False),
    }
    store.before["update" if stored else "create"] = acts[act]
    await session.save()
    set_cookie = await sessions.conclude(session, 200)
    old = None if token is None else await begin(sessions, token)
    if act == "destroy":
        assert "Max-Age=0" in (set_cookie or "")
        assert await sessions.count() == 0
        return
    again = await begin(sessions, token_in(set_cookie))
    assert dict(again) == {"x": 2}
    assert await sessions.count() == 1
    assert again.user_id == ("alice" if act == "login" else None)
    assert act != "remember" or "Max-Age" not in (set_cookie or "")
    assert old is None or act == "remember" or dict(old) == {}


async def test_a_failed_request_waits_for_the_save_that_is_under_way(sessions: Sessions, store: MeetingStore) -> None:
    token = await new(sessions, x=1)
    session = await begin(sessions, token)
    session.renew()
    saving = asyncio.create_task(session.save())
    await asyncio.sleep(0)
    set_cookie = await sessions.conclude(session, 500)
    await saving
    assert dict(await begin(sessions, token_in(set_cookie))) == {"x": 1}


async def test_tasks_that_save_in_turns_commit_each_change_once(sessions: Sessions) -> None:
    session = await begin(sessions, await new(sessions, n=0, log=[]))
    session.increment("n")
    session.append("log", 1)

    async def save_twice() -> None:
        await session.save()
        session.increment("n")
        await session.save()

    await asyncio.gather(save_twice(), session.save(), session.save())
    assert dict(await begin(sessions, session.token)) == {"n": 2, "log": [1]}


async def test_operations_left_over_from_a_save_are_applied_though_their_result_is_what_was_found(
    sessions: Sessions, store: MeetingStore
) -> None:
    token = await new(sessions, n=0)
    session, rival = await begin(sessions, token), await begin(sessions, token)
    session.increment("n")
    rival.increment("n")
    await rival.save()
    store.before["update"] = lambda: session.increment("n")
    await session.save()
    await session.save()
    assert dict(await begin(sessions, token)) == {"n": 3} == dict(session)


async def test_a_handler_may_use_the_session_that_it_is_told_of(store: MeetingStore) -> None:
    open_sessions: list[Session] = []

    async def remember_login(event: Event) -> None:
        open_sessions[0]["greeted"] = event.user_id
        await open_sessions[0].save()

    sessions = Sessions(store, secret_keys=[KEY], events=Events(on_login=remember_login))
    open_sessions.append(await begin(sessions))
    open_sessions[0].login("alice")
    async with asyncio.timeout(30):
        await sessions.conclude(open_sessions[0], 200)
    assert dict(await begin(sessions, open_sessions[0].token)) == {"greeted": "alice"}


async def test_one_object_under_two_keys_does_not_carry_a_change_from_one_to_the_other(sessions: Sessions) -> None:
    session = await begin(sessions)
    shared = [1]
    session["a"], session["b"] = shared, shared
    await session.save()
    other = await begin(sessions, session.token)
    other.append("a", 99)
    await sessions.conclude(other, 200)
    await session.refresh()
    await session.save()
    assert dict(await begin(sessions, session.token)) == {"a": [1, 99], "b": [1]}


async def test_clearing_does_not_bring_back_what_was_deleted_before(sessions: Sessions) -> None:
    session = await begin(sessions, await new(sessions, a=1, b=2))
    del session["a"]
    session.clear()
    assert dict(session) == {}
    await session.save()
    assert dict(await begin(sessions, session.token)) == {}


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_of", [index_key, epoch_key])
async def test_a_damaged_record_of_a_user_locks_nobody_out(
    sessions: Sessions, store: MeetingStore, key_of: Any
) -> None:
    before = await new(sessions, "alice")
    key = key_of(user_tag("alice"))
    await store.delete(key)
    await store.create(key, b"damaged", 3_600_000)
    token = await new(sessions, "alice")
    assert (await begin(sessions, token)).user_id == "alice"
    await sessions.revoke_user("alice")
    assert [(await begin(sessions, each)).user_id for each in (before, token)] == [None, None]
    assert (await begin(sessions, await new(sessions, "alice"))).user_id == "alice"


def test_a_session_that_is_being_renewed_counts_once(kind: Kind) -> None:
    face = Face(kind, "memory://", max_sessions_per_user=2, when_full="refuse")
    session = face.request()
    session.login("alice")
    face.respond(session)
    renewal = face.request(session.token)
    renewal.renew()
    steps = face.sessions.lifecycle.commit(renewal._work)
    operation = steps.send(None)
    while not (isinstance(operation, Create) and operation.key == renewal.handle):
        operation = steps.send(face.run(operation.perform(face.sessions.store)))
    second = face.request()
    second.login("alice")
    face.respond(second)
    with pytest.raises(StopIteration):
        finish(face, steps, operation)
    assert len(face.run(face.sessions.for_user("alice"))) == 2


# --- two tasks of one request that load the session at the same time --------------------------------------------------


async def test_no_task_takes_a_session_before_its_users_epoch_is_known(sessions: Sessions, store: MeetingStore) -> None:
    """A token that does not say whose session it is, as Go's: each task that has learned it asks for the epoch."""
    token = await new(sessions, "alice")
    session = sessions.begin([f"__Host-session={token}".encode()])
    work = session._work
    work.user_tag = None
    (record,) = await store.load(work.store_key)
    await sessions.revoke_user("alice")
    epoch = await store.load(epoch_key(user_tag("alice")))
    first, second = sessions.lifecycle.load(work), sessions.lifecycle.load(work)
    assert next(first) == next(second)
    for loading in (first, second):
        assert loading.send([record]) == Load((epoch_key(user_tag("alice")),))
    for loading in (first, second):
        with pytest.raises(StopIteration):
            loading.send(epoch)
        assert session.is_new
