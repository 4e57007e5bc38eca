"""Several tasks at work on one session, and a store that fails in the middle: nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faces import KEY, Face, Kind

from coatcheck import CookieConfig, Session, Sessions, SyncSessions
from coatcheck.errors import StoreUnavailable
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore

pytestmark = pytest.mark.anyio


class SlowStore(MemoryStore):
    """A memory store that lets other tasks run in the middle of each call, counts calls, and can lose answers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.loses_answer_of: set[str] = set()
        self.meanwhile: Callable[[], None] | None = None
        self.under_way: list[str] = []
        self.most_at_once: Counter[str] = Counter()

    async def _pass(self, name: str, key: str, result: Any) -> Any:
        self.calls[name] += 1
        self.under_way.append(key)
        for place in ("anywhere", key):
            now = len(self.under_way) if place == "anywhere" else self.under_way.count(key)
            self.most_at_once[place] = max(self.most_at_once[place], now)
        try:
            return await self._answer(name, result)
        finally:
            self.under_way.remove(key)

    async def _answer(self, name: str, result: Any) -> Any:
        for _ in range(3):
            await asyncio.sleep(0)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        answer = await result
        if name in self.loses_answer_of:
            self.loses_answer_of.discard(name)
            message = "the answer was lost"
            raise StoreUnavailable(message)
        return answer

    async def create(self, key: str, record: bytes, ttl_ms: int) -> bool:
        return bool(await self._pass("create", key, super().create(key, record, ttl_ms)))

    async def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> Any:
        return await self._pass("update", key, super().update(key, revision, record, ttl_ms))


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def sessions(store: SlowStore) -> Sessions:
    return Sessions(store, secret_keys=[KEY])


async def new(sessions: Sessions, **values: Any) -> str:
    async with sessions.open() as session:
        session.update(values)
    return session.token


async def begin(sessions: Sessions, token: str) -> Session:
    session = sessions.begin([f"__Host-session={token}".encode()])
    await session.load()
    return session


async def stored(sessions: Sessions, token: str) -> dict[str, Any]:
    return dict(await begin(sessions, token))


async def test_what_is_changed_while_a_save_is_under_way_is_saved_by_the_next(
    sessions: Sessions, store: SlowStore
) -> None:
    token = await new(sessions, a=1, gone=1, cart=["x"], n=0)
    session = await begin(sessions, token)
    session["a"] = 2
    session["gone"] = 2
    session.increment("n")
    session["cart"].append("y")

    def change() -> None:
        session["b"] = "new"
        del session["gone"]
        session.increment("n", 10)
        session["cart"].append("z")

    store.meanwhile = change
    await session.save()
    await sessions.conclude(session, 200)
    assert await stored(sessions, token) == {"a": 2, "n": 11, "cart": ["x", "y", "z"], "b": "new"} == dict(session)


async def test_operations_made_while_a_save_meets_a_conflict_are_applied_to_the_newer_value(
    sessions: Sessions, store: SlowStore
) -> None:
    token = await new(sessions, n=0, log=[])
    session, rival = await begin(sessions, token), await begin(sessions, token)
    rival.increment("n", 100)
    rival.append("log", "rival")
    await rival.save()
    session.increment("n")

    def change() -> None:
        session.increment("n", 10)
        session.append("log", "late")

    store.meanwhile = change
    await session.save()
    await session.save()
    assert await stored(sessions, token) == {"n": 111, "log": ["rival", "late"]} == dict(session)


async def test_two_tasks_that_save_at_once_commit_each_change_once(sessions: Sessions) -> None:
    session = sessions.begin([])
    session.increment("n")
    session.append("log", "x")
    await asyncio.gather(session.save(), session.save())
    session.increment("n")
    await asyncio.gather(session.save(), sessions.conclude(session, 200), session.save())
    assert await stored(sessions, session.token) == {"n": 2, "log": ["x"]}


async def test_a_value_that_was_handed_out_shows_what_the_store_holds_after_a_save(sessions: Sessions) -> None:
    token = await new(sessions, cart=["a"], options={"x": 1}, tags={1})
    session, rival = await begin(sessions, token), await begin(sessions, token)
    cart, options, tags = session["cart"], session["options"], session["tags"]
    rival["cart"].append("b")
    rival["options"]["y"] = 2
    rival["tags"].add(2)
    await rival.save()
    session["other"] = 1
    await session.save()
    assert (cart, options, tags) == (["a", "b"], {"x": 1, "y": 2}, {1, 2})
    cart.append("c")
    await session.save()
    assert (await stored(sessions, token))["cart"] == ["a", "b", "c"]


async def test_a_session_that_is_destroyed_while_a_save_is_under_way_stays_destroyed(
    sessions: Sessions, store: SlowStore
) -> None:
    token = await new(sessions, a=1)
    session = await begin(sessions, token)
    session["a"] = 2
    store.meanwhile = session.destroy
    await session.save()
    assert dict(session) == {}
    await sessions.conclude(session, 200)
    assert await stored(sessions, token) == {}


async def test_many_requests_of_one_session_are_not_in_each_others_way(sessions: Sessions, store: SlowStore) -> None:
    token = await new(sessions, n=0)
    requests = [await begin(sessions, token) for _ in range(200)]
    for session in requests:
        session.increment("n")
    store.calls.clear()
    await asyncio.gather(*(sessions.conclude(session, 200) for session in requests))
    assert await stored(sessions, token) == {"n": 200}
    assert store.calls["update"] <= 2 * 200


def test_many_threads_with_one_session_are_not_in_each_others_way() -> None:
    calls: list[int] = []

    class Counting(SyncMemoryStore):
        def update(self, key: str, revision: bytes, record: bytes, ttl_ms: int) -> Any:
            calls.append(threading.get_ident())
            return super().update(key, revision, record, ttl_ms)

    sessions = SyncSessions(Counting(), secret_keys=[KEY])
    with sessions.open() as session:
        session["n"] = 0
    requests = [sessions.begin([f"__Host-session={session.token}".encode()]) for _ in range(50)]
    for request in requests:
        request.increment("n")
    calls.clear()
    with ThreadPoolExecutor(50) as threads:
        list(threads.map(lambda request: sessions.conclude(request, 200), requests))
    assert len(calls) <= 100
    with sessions.open(session.token) as session:
        assert session["n"] == 50


# --- answers that were lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["create", "update"])
@pytest.mark.parametrize("renewed", [False, True])
async def test_a_save_whose_answer_was_lost_can_be_tried_again_and_counts_once(
    sessions: Sessions, store: SlowStore, lost: str, renewed: bool
) -> None:
    if renewed or lost == "update":
        session = await begin(sessions, await new(sessions, n=0))
    else:
        session = sessions.begin([])
    session.increment("n")
    if renewed:
        session.renew()
    store.loses_answer_of = {lost}
    with pytest.raises(StoreUnavailable):
        await session.save()
    session.increment("n", 10)
    set_cookie = await sessions.conclude(session, 200)
    assert await stored(sessions, session.token) == {"n": 11}
    assert renewed is False or session.token in (set_cookie or "")


# --- a logout is a logout ---------------------------------------------------------------------------------------------


def test_a_logout_with_a_token_that_was_just_renewed_ends_the_session_where_it_is(kind: Kind) -> None:
    face = Face(kind, "memory://")
    token = face.new(user="alice")
    renewal, in_flight = face.request(token), face.request(token)
    renewal.renew()
    face.respond(renewal)
    late = face.request(token)
    late.destroy()
    assert "Max-Age=0" in (face.respond(late) or "")
    assert face.stored(renewal.token) is None

    token = face.new(user="alice")
    renewal, in_flight = face.request(token), face.request(token)
    renewal.renew()
    face.respond(renewal)
    in_flight["x"] = 1
    face.save(in_flight)  # finds that the session was renewed
    in_flight.destroy()
    assert "Max-Age=0" in (face.respond(in_flight) or "")
    assert face.stored(renewal.token) is None


def test_renewing_twice_and_destroying_after_a_renewal_reach_the_stored_session(kind: Kind) -> None:
    face = Face(kind, "memory://")
    token = face.new(user="alice")
    session = face.request(token)
    session.renew()
    session.renew()
    face.respond(session)
    assert face.stored(token) is None
    assert face.stored(session.token) == {"user": "alice"}
    again = face.request(session.token)
    again.renew()
    again.destroy()
    face.respond(again)
    assert face.stored(session.token) is None


def test_what_was_set_before_a_login_with_a_token_that_was_just_renewed_is_kept(kind: Kind) -> None:
    face = Face(kind, "memory://")
    token = face.new(cart=[])
    first = face.request(token)
    first.renew()
    face.respond(first)
    second = face.request(token)
    second["user"] = "alice"
    second.renew()
    assert face.respond(second) is not None
    assert face.stored(second.token) == {"user": "alice"}


def test_an_operation_that_fails_leaves_the_value_as_it_was(kind: Kind) -> None:
    face = Face(kind, "memory://")
    token = face.new(items=[1], deep={"a": [1]})
    session = face.request(token)
    deep = 0
    value: Any = deep
    for _ in range(63):
        value = [value]

    def begin_and_fail(current: Any) -> Any:
        current["a"].append(object())
        raise ZeroDivisionError

    with pytest.raises(TypeError):
        session.append("items", [value])
    with pytest.raises(ZeroDivisionError):
        session.modify("deep", begin_and_fail)
    session["ok"] = True
    face.respond(session)
    assert face.stored(token) == {"items": [1], "deep": {"a": [1]}, "ok": True}


def test_a_session_can_be_cleared_though_a_value_in_it_can_not_be_decoded(kind: Kind) -> None:
    face = Face(kind, "memory://", cookie=CookieConfig(name="x"))
    session = face.request(face.new(a=1, b=2))
    from msgspec import Raw

    session._work._base = {**session._work._base, "bad": Raw(b"\xd4\x63\x00")}
    session.clear()
    face.respond(session)
    assert face.stored(session.token) == {}


def test_a_cookie_of_a_session_in_its_last_second_is_not_deleted_by_its_own_max_age(kind: Kind) -> None:
    from datetime import timedelta

    face = Face(kind, "memory://", lifetime=timedelta(seconds=1), idle_timeout=timedelta(seconds=1))
    session = face.request()
    session["a"] = 1
    assert "Max-Age=1;" in (face.respond(session) or "")


async def test_what_changes_while_a_request_waits_for_another_is_committed_with_the_rest(
    store: SlowStore, sessions: Sessions
) -> None:
    async with sessions.open() as session:
        session["user"] = "alice"
    header = f"{sessions.config.cookie.full_name}={session.token}".encode()
    first, second = sessions.begin([header]), sessions.begin([header])
    await first.load()
    await second.load()
    first["a"] = 1
    second["b"] = 2
    store.meanwhile = lambda: second.update(late=3)  # while the first commits, and the second waits for its turn
    await asyncio.gather(sessions.conclude(first, 200), sessions.conclude(second, 200))
    async with sessions.open(session.token) as found:
        assert dict(found) == {"user": "alice", "a": 1, "b": 2, "late": 3}


async def test_nothing_is_kept_of_who_waited_for_whom(store: SlowStore, sessions: Sessions) -> None:
    async def request(number: int) -> None:
        async with sessions.open(token) as session:
            session[f"key {number}"] = number

    async with sessions.open() as session:
        session["user"] = "alice"
    token = session.token
    tasks = [asyncio.create_task(request(number)) for number in range(5)]
    for _ in range(6):
        await asyncio.sleep(0)
    tasks[2].cancel()  # in the middle of the queue
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(sessions._turns) == 0


async def test_who_has_waited_for_a_renewal_goes_on_where_the_session_is_now(
    store: SlowStore, sessions: Sessions
) -> None:
    session = await begin(sessions, await new(sessions, a=0))
    session.renew()
    renewal = asyncio.create_task(session.save())
    await asyncio.sleep(0)
    session["a"] = 1
    late = asyncio.create_task(session.save())
    await renewal
    rival = await begin(sessions, session.token)
    rival["b"] = 1
    await asyncio.gather(late, rival.save())
    assert await stored(sessions, session.token) == {"a": 1, "b": 1}
    assert store.most_at_once[session.handle] == 1


async def test_tasks_of_a_request_wait_for_each_other_also_when_it_has_begun_another_session(
    store: SlowStore, sessions: Sessions
) -> None:
    session = await begin(sessions, await new(sessions, a=0))
    session["a"] = 1
    first = asyncio.create_task(session.save())
    await asyncio.sleep(0)
    session.destroy()
    session["b"] = 1
    await asyncio.gather(first, session.save())
    assert await stored(sessions, session.token) == {"b": 1}
    assert store.most_at_once["anywhere"] == 1
