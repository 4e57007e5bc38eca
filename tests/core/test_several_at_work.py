"""Requests of one session that meet, and tasks of one request that go on while another is at work in the store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from faces import KEY
from meetings import MeetingStore, begin, new, token_in

from coatcheck import Session, Sessions, SyncSessions
from coatcheck.adopters import Claim, OldSession
from coatcheck.asgi import SessionMiddleware
from coatcheck.errors import ResponseStarted, StoreUnavailable
from coatcheck.stores.memory import SyncMemoryStore
from coatcheck.testing import ManualClock

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


def lose_answer() -> None:
    message = "the answer was lost"
    raise StoreUnavailable(message)


@pytest.fixture
def store(clock: ManualClock) -> MeetingStore:
    return MeetingStore(clock)


def sessions_at(store: MeetingStore, clock: ManualClock, **settings: Any) -> Sessions:
    """Give another process's sessions; they are renewed every quarter of an hour."""
    return Sessions(store, secret_keys=[KEY], clock=clock, renew_every=15 * MINUTE, **settings)


@pytest.fixture
def sessions(store: MeetingStore, clock: ManualClock) -> Sessions:
    return sessions_at(store, clock)


Handler = Callable[[Session], Awaitable[int | None]]


async def respond(sessions: Sessions, handler: Handler, cookie: str | None = None, **options: Any) -> list[str]:
    """Have the middleware serve one request, whose handler gives the status. Gives the cookies that are set."""

    async def application(scope: Any, _receive: Any, send: Any) -> None:
        status = await handler(scope["session"])
        await send({"type": "http.response.start", "status": status or 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return await serve(application, sessions, cookie, **options)


async def serve(application: Any, sessions: Sessions, cookie: str | None, **options: Any) -> list[str]:
    """Have the middleware serve one request by an application. Gives the cookies that are set."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if cookie is None else [(b"cookie", cookie.encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": None}
    await SessionMiddleware(application, sessions, **options)(scope, None, send)  # type: ignore[arg-type]
    return [value.decode() for name, value in sent[0]["headers"] if name == b"set-cookie"]


def with_token(token: str) -> str:
    return f"__Host-session={token}"


# --- renewals by the clock ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("user_id", [None, "alice"])
async def test_requests_that_meet_at_a_renewal_keep_the_session_and_all_changes(
    sessions: Sessions, clock: ManualClock, user_id: str | None
) -> None:
    token = await new(sessions, user_id, n=0)
    clock.advance(16 * MINUTE)

    async def count(session: Session) -> None:
        session.increment("n")

    answers = await asyncio.gather(*(respond(sessions, count, with_token(token)) for _ in range(3)))
    (cookie,) = [each for cookies in answers for each in cookies]
    session = await begin(sessions, token_in(cookie))
    assert (session.user_id, dict(session)) == (user_id, {"n": 3})
    assert await sessions.count() == 1


def test_requests_in_threads_that_meet_at_a_renewal_keep_the_session(clock: ManualClock) -> None:
    sessions = SyncSessions(SyncMemoryStore(clock=clock), secret_keys=[KEY], clock=clock, renew_every=15 * MINUTE)
    with sessions.open() as first:
        first["n"] = 0
    clock.advance(16 * MINUTE)
    outer, inner = (sessions.begin([with_token(first.token).encode()]) for _ in range(2))
    outer.increment("n")
    inner.increment("n")
    cookie = sessions.conclude(inner, 200)
    sessions.conclude(outer, 200)
    sessions.save_rest(outer)
    with sessions.open(token_in(cookie)) as session:
        assert dict(session) == {"n": 2}


async def test_what_another_request_limited_while_it_renewed_the_session_stays_so(
    sessions: Sessions, clock: ManualClock
) -> None:
    token = await new(sessions, "alice", x=0)
    clock.advance(16 * MINUTE)
    reader = await begin(sessions, token)
    reader["x"] = 1
    other = await begin(sessions, token)
    other.limit(idle_timeout=5 * MINUTE)
    other.remember(False)
    cookie = token_in(await sessions.conclude(other, 200))
    await sessions.conclude(reader, 200)
    record = (await begin(sessions, cookie))._work.stored
    assert (record.remember, record.limits and record.limits.idle_ms) == (False, 300_000)
    clock.advance(6 * MINUTE)
    assert (await begin(sessions, cookie)).is_new


async def test_what_is_only_limited_reaches_a_session_that_was_renewed(sessions: Sessions, clock: ManualClock) -> None:
    token = await new(sessions, "alice", x=0)
    clock.advance(16 * MINUTE)
    limiter = await begin(sessions, token)
    limiter.limit(idle_timeout=5 * MINUTE)
    other = await begin(sessions, token)
    other.get("x")
    cookie = token_in(await sessions.conclude(other, 200))
    await sessions.conclude(limiter, 200)
    limits = (await begin(sessions, cookie))._work.limits
    assert limits is not None


@pytest.mark.parametrize("renewals", [1, 2])
async def test_a_websocket_goes_on_after_renewals_whose_grace_is_over(
    sessions: Sessions, clock: ManualClock, renewals: int
) -> None:
    token = await new(sessions, "alice", n=0)
    clock.advance(14 * MINUTE)
    reading, writing = await begin(sessions, token), await begin(sessions, token)
    for websocket in (reading, writing):
        await sessions.conclude(websocket, 101)
    for _ in range(renewals):
        clock.advance(16 * MINUTE)
        page = await begin(sessions, token)
        page.get("n")
        token = token_in(await sessions.conclude(page, 200))
    clock.advance(MINUTE)
    await reading.refresh()
    assert (reading.has_ended, reading.user_id) == (False, "alice")
    writing["n"] = 5
    await writing.save()
    assert (await begin(sessions, token))["n"] == 5


async def test_a_websocket_does_not_go_on_after_a_login(sessions: Sessions) -> None:
    token = await new(sessions, n=0)
    websocket = await begin(sessions, token)
    login = await begin(sessions, token)
    login.login("alice")
    await sessions.conclude(login, 200)
    await websocket.refresh()
    assert websocket.has_ended


# --- refresh ------------------------------------------------------------------------------------------------------


async def test_operations_are_applied_to_what_a_refresh_has_found(sessions: Sessions) -> None:
    token = await new(sessions, n=0, log=["first"])
    session = await begin(sessions, token)
    session.increment("n", 2)
    session.append("log", "ours")
    session.flash("saved")
    other = await begin(sessions, token)
    other.increment("n")
    other.append("log", "theirs")
    other.flash("saved")
    await sessions.conclude(other, 200)
    await session.refresh()
    assert (session["n"], session["log"]) == (3, ["first", "theirs", "ours"])
    await session.save()
    await session.save()  # which must not write again what was handed out before
    stored = await begin(sessions, token)
    assert (stored["n"], stored["log"], len(stored.flashes())) == (3, ["first", "theirs", "ours"], 2)


async def test_what_is_done_while_a_refresh_reads_is_not_undone(sessions: Sessions, store: MeetingStore) -> None:
    session = await begin(sessions, await new(sessions, "alice", secret="alice's"))
    store.after["load"] = lambda: session.login("bob")
    await session.refresh()
    assert (session.user_id, dict(session)) == ("bob", {})
    again = await begin(sessions, token_in(await sessions.conclude(session, 200)))
    assert again.user_id == "bob"

    session = await begin(sessions, await new(sessions, "alice", secret="alice's"))
    store.after["load"] = session.logout
    await session.refresh()
    assert (session.user_id, dict(session)) == (None, {})
    session["theme"] = "dark"
    again = await begin(sessions, token_in(await sessions.conclude(session, 200)))
    assert dict(again) == {"theme": "dark"}


async def test_a_login_while_a_refresh_finds_the_session_revoked_counts(
    sessions: Sessions, store: MeetingStore
) -> None:
    session = await begin(sessions, await new(sessions, "alice"))
    await sessions.revoke_user("alice")
    store.after["load"] = lambda: session.login("alice")
    await session.refresh()
    again = await begin(sessions, token_in(await sessions.conclude(session, 200)))
    assert again.user_id == "alice"


async def test_a_login_while_a_commit_looks_for_the_renewed_session_counts(
    sessions: Sessions, store: MeetingStore, clock: ManualClock
) -> None:
    token = await new(sessions, "alice", secret=1)
    clock.advance(16 * MINUTE)
    session, other = await begin(sessions, token), await begin(sessions, token)
    session["x"] = 1
    other.get("x")
    await sessions.conclude(other, 200)

    def log_in() -> None:
        session.login("bob")
        session["mine"] = 1

    store.after["load"] = log_in
    await session.save()
    assert (session.user_id, dict(session)) == ("bob", {"mine": 1})
    again = await begin(sessions, token_in(await sessions.conclude(session, 200)))
    assert (again.user_id, dict(again)) == ("bob", {"mine": 1})


# --- what is done while the response leaves -----------------------------------------------------------------------


@pytest.mark.parametrize("act", ["login", "renew"])
async def test_the_cookie_of_what_another_task_does_meanwhile_leaves_with_the_response(
    sessions: Sessions, store: MeetingStore, act: str
) -> None:
    async def handler(session: Session) -> None:
        session["n"] = 1
        store.before["update"] = (lambda: session.login("alice")) if act == "login" else session.renew

    (cookie,) = await respond(sessions, handler, with_token(await new(sessions, cart=[1])))
    session = await begin(sessions, token_in(cookie))
    assert (session.user_id, dict(session)) == ("alice" if act == "login" else None, {"cart": [1], "n": 1})


async def test_a_session_that_begins_while_the_old_one_ends_gets_its_cookie(
    sessions: Sessions, store: MeetingStore
) -> None:
    async def handler(session: Session) -> None:
        session.logout()
        store.before["delete"] = lambda: session.update(theme="dark")

    (cookie,) = await respond(sessions, handler, with_token(await new(sessions, "alice")))
    assert dict(await begin(sessions, token_in(cookie))) == {"theme": "dark"}


@pytest.mark.parametrize("act", ["login", "renew"])
async def test_the_id_that_a_failed_request_has_stored_is_told(
    sessions: Sessions, store: MeetingStore, act: str
) -> None:
    async def handler(session: Session) -> int:
        session.renew()
        store.before["create"] = (lambda: session.login("alice")) if act == "login" else session.renew
        await session.save()
        return 500

    (cookie,) = await respond(sessions, handler, with_token(await new(sessions, cart=[1])))
    session = await begin(sessions, token_in(cookie))
    assert (session.user_id, dict(session)) == (None, {"cart": [1]})


async def test_an_id_that_the_client_has_is_not_told_again_by_a_failed_request(
    sessions: Sessions, store: MeetingStore
) -> None:
    async def handler(session: Session) -> int:
        session["n"] = 1
        store.before["update"] = session.renew
        await session.save()
        return 500

    assert await respond(sessions, handler, with_token(await new(sessions, cart=[1]))) == []


# --- logout -------------------------------------------------------------------------------------------------------


async def test_a_logout_after_a_login_ends_the_new_session_and_not_what_took_the_place_of_the_old_one(
    sessions: Sessions,
) -> None:
    token = await new(sessions, "alice")
    other = await begin(sessions, token)
    other.renew()
    others_token = token_in(await sessions.conclude(other, 200))
    session = await begin(sessions, token)  # with a cookie that was renewed meanwhile
    session.login("alice")
    await session.save()
    handle = session.handle
    session.destroy()
    await session.save()
    assert [info.handle for info in await sessions.for_user("alice")] == [(await begin(sessions, others_token)).handle]
    assert handle != (await begin(sessions, others_token)).handle


@pytest.mark.parametrize("way", ["revoke", "logout"])
async def test_an_end_that_failed_half_way_ends_the_session_when_it_is_tried_again(
    sessions: Sessions, store: MeetingStore, clock: ManualClock, way: str
) -> None:
    token = await new(sessions, "alice")
    old = await begin(sessions, token)
    clock.advance(16 * MINUTE)
    page = await begin(sessions, token)
    page.get("x")
    renewed = token_in(await sessions.conclude(page, 200))

    def fail_at_the_next() -> None:
        store.before["delete"] = lose_answer

    async def end() -> None:
        if way == "revoke":
            await sessions.revoke(old.handle)
        else:
            await sessions.conclude(old, 200)

    if way == "logout":
        old.logout()
    for store.before["delete"] in (lose_answer, fail_at_the_next):
        with suppress(StoreUnavailable):
            await end()
    await end()
    assert (await begin(sessions, renewed)).is_new


# --- answers that were lost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_changed", [False, True])
async def test_a_lost_answer_after_a_conflict_does_not_undo_what_the_rival_wrote(
    sessions: Sessions, store: MeetingStore, clock: ManualClock, is_changed: bool
) -> None:
    token = await new(sessions, log=["x"])
    session = await begin(sessions, token)
    assert session["log"] == ["x"]
    if is_changed:
        session.append("log", "ours")
    session["n"] = 1

    async def rival() -> None:
        other = await begin(sessions_at(store, clock), token)
        other.append("log", "theirs")

        def lose_the_second() -> None:
            store.after["update"] = lose_answer

        store.after["update"] = lambda: None
        await other.save()
        store.after["update"] = lose_the_second  # not this session's first attempt, which meets the conflict

    store.before["update"] = rival
    with suppress(StoreUnavailable):
        await session.save()
    await sessions.conclude(session, 200)
    log = ["x", "theirs", "ours"] if is_changed else ["x", "theirs"]
    assert dict(await begin(sessions, token)) == {"log": log, "n": 1}


async def test_what_follows_a_renewal_whose_answer_was_lost_is_stored(sessions: Sessions, store: MeetingStore) -> None:
    session = await begin(sessions, await new(sessions, "alice", x=0))
    session.renew()
    session["x"] = 1

    def lose_the_last() -> None:
        store.after["update"] = lose_answer

    store.after["create"] = lose_the_last
    with pytest.raises(StoreUnavailable):
        await session.save()
    await sessions.revoke_user("alice", keep=session)  # which writes to the session where it is now
    session["y"] = 2
    again = await begin(sessions, token_in(await sessions.conclude(session, 200)))
    assert (again.user_id, dict(again)) == ("alice", {"x": 1, "y": 2})


# --- sessions that are lost ---------------------------------------------------------------------------------------


async def test_nothing_of_a_revoked_session_but_what_was_set_goes_on_into_the_login(
    sessions: Sessions, store: MeetingStore
) -> None:
    session = await begin(sessions, await new(sessions, "alice", roles=["admin"]))
    assert session["roles"] == ["admin"]
    session["x"] = 1

    async def meanwhile() -> None:
        await sessions.revoke_user("alice")
        session.login("alice")

    store.before["update"] = meanwhile
    await session.save()
    await session.save()
    assert dict(await begin(sessions, session.token)) == {"x": 1}


async def test_a_failed_request_whose_new_session_was_revoked_is_answered(
    sessions: Sessions, store: MeetingStore
) -> None:
    async def handler(session: Session) -> int:
        session["cart"] = [1]
        await session.save()
        session["x"] = 1

        async def meanwhile() -> None:
            await sessions.revoke(session.handle)
            session.login("alice")

        store.before["update"] = meanwhile
        await session.save()
        return 500

    assert await respond(sessions, handler) == []


# --- without the store --------------------------------------------------------------------------------------------


async def test_a_load_that_fails_does_not_take_the_session_from_the_task_that_has_loaded_it(
    sessions: Sessions, store: MeetingStore
) -> None:
    token = await new(sessions, x=0)
    session = sessions.begin([with_token(token).encode()], may_go_on=True)

    async def load_and_change() -> None:
        await session.load()
        session["x"] = 1
        lose_answer()

    store.after["load"] = load_and_change
    await session.load()
    assert session.is_available
    await sessions.conclude(session, 200)
    assert (await begin(sessions, token))["x"] == 1


async def test_a_request_that_may_go_on_does_so_when_its_renewal_by_the_clock_fails(
    sessions: Sessions, store: MeetingStore, clock: ManualClock
) -> None:
    token = await new(sessions, x=0)
    clock.advance(16 * MINUTE)
    session = await begin(sessions, token, may_go_on=True)
    assert session["x"] == 0
    store.before["create"] = lose_answer
    assert await sessions.conclude(session, 200) is None
    assert (await begin(sessions, token))["x"] == 0


# --- clients without a session ------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["repr", "refresh", "for_user"])
async def test_looking_at_a_session_that_is_not_there_costs_nothing_and_clears_no_cookie(
    sessions: Sessions, store: MeetingStore, act: str
) -> None:
    async def handler(session: Session) -> None:
        if act == "repr":
            assert "Session" in repr(session)
        elif act == "refresh":
            await session.refresh()
        else:
            await sessions.for_user("alice", session)
        store.calls.clear()
        await session.load()
        assert "x" not in session

    assert await respond(sessions, handler, load="lazy") == []
    assert store.calls == []


# --- sessions of another system -----------------------------------------------------------------------------------


class _OldRecords:
    def __init__(self) -> None:
        self.records = {"7": b"uid 7"}

    async def get(self, key: str) -> bytes | None:
        return self.records.get(key)

    async def delete(self, key: str) -> None:
        self.records.pop(key, None)

    async def close(self) -> None:
        pass


class _OldSystem:
    """Sessions of one value: in a store, or in the cookie."""

    name = cookie_name = "old"
    cookie_path, cookie_domain, removes_old, lifetime = "/", None, True, timedelta(days=1)

    def __init__(self, *, in_cookie: bool) -> None:
        self.in_cookie = in_cookie
        self.old = _OldRecords()

    def claim(self, cookie: bytes) -> Claim:
        return Claim(cookie.decode(), cookie if self.in_cookie else None)

    def decode(self, data: bytes) -> OldSession:
        return OldSession({"old": data.decode()}, None if self.in_cookie else "alice")

    def records(self, *, is_async: bool) -> Any:
        return None if self.in_cookie else self.old


async def test_the_old_cookie_stays_until_the_adopted_session_was_loaded(
    store: MeetingStore, clock: ManualClock
) -> None:
    system = _OldSystem(in_cookie=False)
    sessions = sessions_at(store, clock, adopt=[system])

    async def handler(session: Session) -> None:
        store.after["create"] = lambda: store.before.update(load=lose_answer)  # adopted, and then not to be had
        with suppress(StoreUnavailable):
            await session.load()

    assert await respond(sessions, handler, "old=7", load="lazy") == []
    assert system.old.records

    async def reads(session: Session) -> None:
        await session.load()
        assert session.user_id == "alice"

    cookies = await respond(sessions, reads, "old=7", load="lazy")
    assert len(cookies) == 2


async def test_a_logout_takes_away_the_old_cookie_that_holds_the_session_also_if_the_request_fails(
    store: MeetingStore, clock: ManualClock
) -> None:
    sessions = sessions_at(store, clock, adopt=[_OldSystem(in_cookie=True)])

    async def handler(session: Session) -> int:
        session.logout()
        return 500

    (cookie,) = await respond(sessions, handler, "old=anything")
    assert cookie.startswith("old=; Max-Age=0")

    async def fails(session: Session) -> int:
        assert session["old"] == "anything"
        return 500

    assert await respond(sessions, fails, "old=anything") == []


# --- at random ----------------------------------------------------------------------------------------------------

SEEDS = range(250)


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_change_is_lost_or_made_twice_whoever_meets_whom(
    store: MeetingStore, clock: ManualClock, seed: int
) -> None:
    """Some requests of one session, some with several tasks, in two processes, when it may be time for a new ID."""
    chance = store.random = random.Random(seed)
    processes = [sessions_at(store, clock) for _ in range(2)]
    token = await new(processes[0], chance.choice([None, "alice"]), n=0, log=[], other=[0])
    clock.advance(chance.choice([1, 16]) * MINUTE)
    added: list[int] = []
    own: list[str] = []

    async def work(session: Session) -> None:
        for _ in range(chance.randrange(1, 4)):
            act = chance.choice(["increment", "append", "set", "read", "refresh", "save"])
            if act in ("increment", "append"):
                added.append(len(added))
                session.increment("n")
                session.append("log", added[-1])
            elif act == "set":
                own.append(f"own{len(own)}")
                session[own[-1]] = True
            elif act == "read":
                assert session["other"] == [0]
                session.get("log")
            else:
                await (session.refresh() if act == "refresh" else session.save())

    async def handler(session: Session) -> None:
        await asyncio.gather(*(work(session) for _ in range(chance.randrange(1, 3))))

    async def request() -> list[str]:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        return await respond(chance.choice(processes), handler, with_token(token))

    answers = await asyncio.gather(*(request() for _ in range(chance.randrange(2, 5))))
    cookies = [token_in(each) for cookies in answers for each in cookies] or [token]
    session = await begin(processes[0], cookies[-1])
    assert session["n"] == len(added)
    assert sorted(session["log"]) == added
    assert sorted(key for key in session if key.startswith("own")) == sorted(own)
    assert await processes[0].count() == 1


@pytest.mark.parametrize("seed", SEEDS)
async def test_nobody_sees_what_is_anothers_and_the_last_word_of_a_request_holds(
    store: MeetingStore, clock: ManualClock, sessions: Sessions, seed: int
) -> None:
    """Tasks of one request log in and out, also while its response leaves, and somebody revokes meanwhile."""
    chance = store.random = random.Random(seed)
    user_id = chance.choice([None, "alice"])
    token = await new(sessions, user_id, **({"of": user_id} if user_id else {"anonymous": True}))
    clock.advance(chance.choice([1, 16]) * MINUTE)
    last_word: list[str | None] = []
    is_revoked = chance.random() < 0.3
    status = chance.choice([200, 200, 200, 500])

    async def late(session: Session) -> None:
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        with suppress(ResponseStarted):
            await _log_in_and_out(session, chance)

    async def application(scope: Any, _receive: Any, send: Any) -> None:
        session = scope["session"]
        await asyncio.gather(*(_log_in_and_out(session, chance) for _ in range(chance.randrange(1, 4))))
        follower = asyncio.create_task(late(session))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await follower
        await send({"type": "http.response.body", "body": b""})
        last_word.append(session.user_id)

    async def revoke() -> None:
        for _ in range(chance.randrange(25)):
            await asyncio.sleep(0)
        if is_revoked:
            await sessions.revoke_user("alice")

    cookies, _ = await asyncio.gather(serve(application, sessions, with_token(token)), revoke())
    known: str | None = token
    for cookie in cookies:
        known = None if "Max-Age=0" in cookie else token_in(cookie)
    session = await begin(sessions, known)
    if status == 200 and not is_revoked:
        assert [session.user_id] == last_word
    live = [info.handle async for info in sessions.iterate()]
    assert live == ([] if session.is_new else [session.handle])


async def _log_in_and_out(session: Session, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 4)):
        act = chance.choice(["alice", "bob", "logout", "renew", "refresh", "save"])
        if act in ("alice", "bob"):
            session.login(act)
            session["of"] = act
        elif act == "logout":
            session.logout(keep=["anonymous"])
        elif act == "renew":
            session.renew()
        else:
            await (session.refresh() if act == "refresh" else session.save())
        assert session.get("of") == session.user_id
