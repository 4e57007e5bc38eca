"""What a session does for the application, async and sync, on every store."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from faces import Face

from coatcheck import Flash
from coatcheck.errors import (
    RecordTooLarge,
    ResponseStarted,
    SessionClosed,
    SessionNotFound,
    SessionNotLoaded,
    UnsupportedKey,
    UnsupportedValue,
)
from coatcheck.operations import Create, DeleteOld, FetchOld, Operation, Update
from coatcheck.testing import ManualClock


def test_what_is_kept_is_there_in_the_next_request(face: Face) -> None:
    token = face.new(user="alice", cart=["pen"])
    assert face.stored(token) == {"user": "alice", "cart": ["pen"]}


def test_a_session_behaves_like_a_dict(face: Face) -> None:
    session = face.request(face.new(a=1, b=2, c=3))
    assert list(session) == ["a", "b", "c"]
    assert len(session) == 3
    assert "a" in session
    assert "x" not in session
    assert session.get("x", 7) == 7
    del session["b"]
    session["d"] = 4
    assert session.pop("a") == 1
    assert session.setdefault("c", 9) == 3
    assert session.setdefault("e", 5) == 5
    session.update({"f": 6})
    assert dict(session) == {"c": 3, "d": 4, "e": 5, "f": 6}
    assert session.__eq__({"c": 3, "d": 4, "e": 5, "f": 6})
    assert "b" not in session
    with pytest.raises(KeyError, match="b"):
        session["b"]
    with pytest.raises(KeyError):
        del session["b"]
    face.respond(session)
    assert face.stored(session.token) == {"c": 3, "d": 4, "e": 5, "f": 6}
    session = face.request(session.token)
    session.clear()
    assert not session
    face.respond(session)
    assert face.stored(session.token) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session["cart"].append("ink"),
        lambda session: session["deep"]["a"][0].update(x=1),
        lambda session: session["pair"][1].append(3),
        lambda session: session["tags"].add("new"),
        lambda session: session["cart"].__setitem__(0, "pencil"),
    ],
    ids=["append", "nested", "inside-a-tuple", "set", "item"],
)
def test_a_change_deep_inside_a_value_is_saved_without_being_told(face: Face, change: Any) -> None:
    token = face.new(cart=["pen"], deep={"a": [{}]}, pair=(1, [2]), tags={"old"})
    before = face.stored(token)
    session = face.request(token)
    change(session)
    face.respond(session)
    assert face.stored(token) != before
    assert face.stored(token) == dict(session)


def test_a_value_that_was_assigned_and_then_changed_is_saved_as_it_is_in_the_end(face: Face) -> None:
    token = face.new(a=1)
    session = face.request(token)
    cart: list[str] = []
    session["cart"] = cart
    cart.append("pen")
    face.respond(session)
    assert face.stored(token) == {"a": 1, "cart": ["pen"]}


def test_increments_start_at_zero_and_take_every_number(face: Face) -> None:
    session = face.request(face.new(price=Decimal("1.10"), ratio=0.5))
    assert session.increment("visits") == 1
    assert session.increment("visits", 5) == 6
    assert session.increment("visits", -2) == 4
    assert session.increment("price", Decimal("0.05")) == Decimal("1.15")
    assert session.increment("ratio", 0.25) == 0.75
    face.respond(session)
    assert face.stored(session.token) == {"price": Decimal("1.15"), "ratio": 0.75, "visits": 4}


def test_save_leaves_the_session_with_what_the_store_holds(face: Face) -> None:
    token = face.new(visits=10, cart=["a"])
    session = face.request(token)
    other = face.request(token)
    session.increment("visits")
    session.append("cart", "c")
    other.increment("visits", 5)
    other.append("cart", "b")
    other["new"] = True
    face.respond(other)
    assert session["visits"] == 11
    face.save(session)
    assert dict(session) == {"visits": 16, "cart": ["a", "b", "c"], "new": True}
    session["cart"].append("d")
    face.respond(session)
    assert face.stored(token) == {"visits": 16, "cart": ["a", "b", "c", "d"], "new": True}


def test_modify_is_an_atomic_read_modify_write(face: Face) -> None:
    token = face.new(stock=10)
    session, other = face.request(token), face.request(token)
    assert session.modify("stock", lambda stock: stock * 2) == 20
    other["stock"] = 100
    face.respond(other)
    face.respond(session)
    assert face.stored(token) == {"stock": 200}


def test_modify_calls_the_function_once_unless_there_was_a_conflict(face: Face) -> None:
    token = face.new(stock=10)
    calls: list[int] = []
    session = face.request(token)

    def one_less(stock: int) -> int:
        calls.append(stock)
        return stock - 1

    session.modify("stock", one_less)
    session.modify("seen", lambda seen: [*seen, 1], default=[])
    face.respond(session)
    assert calls == [10]
    assert face.stored(token) == {"stock": 9, "seen": [1]}


def test_operations_mixed_with_assignments_add_up_in_their_order(face: Face) -> None:
    token = face.new(n=1, items=["a"])
    session = face.request(token)
    session["n"] = 5
    session.increment("n")
    session["items"].append("b")
    session.append("items", "c")
    del session["n"]
    session.increment("n", 2)
    session.append("items", "d")
    session["items"].append("e")
    face.respond(session)
    assert face.stored(token) == {"n": 2, "items": ["a", "b", "c", "d", "e"]}


def test_an_operation_on_a_key_that_became_something_else_gives_way_like_an_assignment(face: Face) -> None:
    token = face.new(n=1)
    session, other = face.request(token), face.request(token)
    session.increment("n")
    other["n"] = "a word"
    face.respond(other)
    face.respond(session)
    assert face.stored(token) == {"n": 2}


def test_operations_say_what_they_can_not_work_on(face: Face) -> None:
    most = Decimal("9E+999999")
    session = face.request(face.new(name="alice", yes=True, price=Decimal(1), ratio=0.5, most=most))
    for call in (
        lambda: session.increment("ratio", 10**400),
        lambda: session.increment("most", most),
        lambda: session.increment("name"),
        lambda: session.increment("yes"),
        lambda: session.increment("price", 0.5),
        lambda: session.append("name", 1),
    ):
        with pytest.raises(UnsupportedValue, match="session"):
            call()
    assert face.respond(session) is None


def test_a_flash_message_is_shown_once_on_the_next_page(face: Face) -> None:
    session = face.request(face.new(user="alice"))
    session.flash("Saved.", "success")
    session.flash("Take care.")
    face.respond(session)
    session = face.request(session.token)
    assert session.flashes("success") == [Flash("Saved.", "success")]
    assert session.flashes() == [Flash("Take care.", "message")]
    assert session.flashes() == []
    face.respond(session)
    assert face.stored(session.token) == {"user": "alice"}


def test_a_flash_message_that_arrives_while_others_are_shown_is_not_lost(face: Face) -> None:
    token = face.new(user="alice")
    session = face.request(token)
    session.flash("one")
    face.respond(session)
    session, other = face.request(token), face.request(token)
    assert [flash.message for flash in session.flashes()] == ["one"]
    other.flash("two")
    face.respond(other)
    face.respond(session)
    assert [flash.message for flash in face.request(token).flashes()] == ["two"]


def test_a_value_that_can_not_be_kept_fails_at_the_assignment_and_leaves_the_session_as_it_was(face: Face) -> None:
    token = face.new(cart=["pen"])
    session = face.request(token)
    with pytest.raises(UnsupportedValue, match=r"session\['cart'\].*'object'"):
        session["cart"] = object()
    with pytest.raises(UnsupportedKey):
        session[5] = "x"  # type: ignore[index]
    assert session["cart"] == ["pen"]
    assert face.respond(session) is None
    assert face.stored(token) == {"cart": ["pen"]}


def test_an_object_put_inside_a_value_fails_at_the_commit_and_leaves_the_store_as_it_was(face: Face) -> None:
    token = face.new(cart=["pen"])
    session = face.request(token)
    session["other"] = 1
    session["cart"].append(object())
    with pytest.raises(UnsupportedValue, match=r"session\['cart'\].*'object'"):
        face.respond(session)
    assert face.stored(token) == {"cart": ["pen"]}


def test_a_session_over_the_limits_is_refused_and_the_store_left_as_it_was(kind: Any, store_url: str) -> None:
    face = Face(kind, store_url, max_record_bytes=2_000, max_keys=5)
    token = face.new(a=1)
    session = face.request(token)
    session["text"] = "x" * 2_000
    with pytest.raises(RecordTooLarge, match=r"2\d\d\d bytes.*2000.*'text'"):
        face.respond(session)
    session = face.request(token)
    session.update({str(number): number for number in range(5)})
    with pytest.raises(RecordTooLarge, match=r"6 keys.*5"):
        face.respond(session)
    new = face.request()
    new["text"] = "x" * 2_000
    with pytest.raises(RecordTooLarge):
        face.respond(new)
    assert face.stored(token) == {"a": 1}


def test_renewing_changes_the_id_and_keeps_the_values(face: Face) -> None:
    token = face.new(cart=["pen"])
    session = face.request(token)
    handle = session.handle
    session["user"] = "alice"
    session.renew()
    assert session.handle != handle
    set_cookie = face.respond(session)
    assert set_cookie is not None
    assert session.token in set_cookie
    assert session.token != token
    assert face.stored(session.token) == {"cart": ["pen"], "user": "alice"}
    assert face.stored(token) is None


def test_destroying_ends_the_session_and_clears_the_cookie(face: Face) -> None:
    token = face.new(user="alice")
    session = face.request(token)
    session.destroy()
    assert dict(session) == {}
    assert session.is_new
    set_cookie = face.respond(session)
    assert set_cookie is not None
    assert "=; Max-Age=0" in set_cookie
    assert face.stored(token) is None


def test_what_is_kept_after_destroying_belongs_to_a_new_session(face: Face) -> None:
    token = face.new(user="alice")
    session = face.request(token)
    session.destroy()
    session.flash("Goodbye.")
    set_cookie = face.respond(session)
    assert set_cookie is not None
    assert "Max-Age=0" not in set_cookie
    assert face.stored(token) is None
    assert [flash.message for flash in face.request(session.token).flashes()] == ["Goodbye."]


def test_remember_chooses_between_a_persistent_and_a_browser_session_cookie(face: Face) -> None:
    session = face.request()
    session["user"] = "alice"
    session.remember(False)
    set_cookie = face.respond(session)
    assert set_cookie is not None
    assert "Max-Age" not in set_cookie
    session = face.request(session.token)
    session.remember(True)
    max_age = re.search(r"Max-Age=(\d+)", face.respond(session) or "")
    assert max_age is not None
    assert 604_700 < int(max_age[1]) <= 604_800
    session = face.request(session.token)
    session.remember(True)
    assert face.respond(session) is None


def test_identity_and_times_of_a_session(timed: Face, clock: ManualClock) -> None:
    session = timed.request()
    assert session.is_new
    session["a"] = 1
    timed.respond(session)
    assert not session.is_new
    started = session.created_at
    assert started.timestamp() == clock()
    assert session.expires_at - started == timedelta(hours=2)
    clock.advance(timedelta(hours=1))
    again = timed.request(session.token)
    assert not again.is_new
    assert again.handle == session.handle
    assert again.created_at == started
    assert again.expires_at - started == timedelta(hours=2)
    again.get("a")
    timed.respond(again)
    assert again.expires_at - started == timedelta(hours=3)


def test_a_job_opens_a_session_by_its_token(face: Face) -> None:
    token = face.new(user="alice")

    async def job() -> None:
        async with face.sessions.open(token) as session:
            session["seen"] = session["user"]

    def sync_job() -> None:
        with face.sessions.open(token) as session:
            session["seen"] = session["user"]

    face.run(job()) if hasattr(face.sessions.open(token), "__aenter__") else sync_job()
    assert face.stored(token) == {"user": "alice", "seen": "alice"}


def test_a_job_that_fails_stores_nothing_but_an_end(face: Face) -> None:
    token = face.new(user="alice")
    is_async = hasattr(face.sessions.open(token), "__aenter__")

    async def job(change: Any) -> None:
        async with face.sessions.open(token) as session:
            change(session)
            raise ZeroDivisionError

    def sync_job(change: Any) -> None:
        with face.sessions.open(token) as session:
            change(session)
            raise ZeroDivisionError

    def run(change: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            face.run(job(change)) if is_async else sync_job(change)

    run(lambda session: session.update(user="bob"))
    assert face.stored(token) == {"user": "alice"}
    run(lambda session: session.destroy())
    assert face.stored(token) is None


def test_refreshing_shows_what_others_stored_and_keeps_what_was_changed_here(face: Face) -> None:
    token = face.new(n=1, cart=["a"], mine=0)
    session, other = face.request(token), face.request(token)
    cart = session["cart"]
    session["mine"] = 1
    other["n"] = 2
    other["cart"].append("b")
    face.respond(other)
    face.run(session.refresh())
    assert (session["n"], session["mine"], cart) == (2, 1, ["a", "b"])
    face.respond(session)
    assert face.stored(token) == {"n": 2, "cart": ["a", "b"], "mine": 1}
    face.revoke(token)
    session = face.request(face.new(a=1))
    face.revoke(session.token)
    face.run(session.refresh())
    assert session.has_ended
    assert dict(session) == {}


def test_a_change_after_the_block_of_open_is_an_error(face: Face) -> None:
    async def job() -> Any:
        async with face.sessions.open() as session:
            session["a"] = 1
        return session

    def sync_job() -> Any:
        with face.sessions.open() as session:
            session["a"] = 1
        return session

    session = face.run(job()) if face.kind == "async" else sync_job()
    assert session["a"] == 1
    for change in (
        lambda: session.update(a=2),
        lambda: session.pop("a"),
        lambda: session.increment("a"),
        session.clear,
        session.destroy,
        session.renew,
        lambda: session.login("alice"),
        lambda: session.remember(True),
    ):
        with pytest.raises(SessionClosed):
            change()


def test_a_job_whose_session_ends_in_the_middle_is_told(face: Face) -> None:
    token = face.new(a=1)

    async def job() -> None:
        async with face.sessions.open(token) as session:
            session["a"] = 2
            other = face.sessions.begin([f"__Host-session={token}".encode()])
            await other.load()
            other.destroy()
            await face.sessions.conclude(other, 200)

    def sync_job() -> None:
        with face.sessions.open(token) as session:
            session["a"] = 2
            face.revoke(token)

    with pytest.raises(SessionNotFound, match="ended while"):
        face.run(job()) if face.kind == "async" else sync_job()


@pytest.mark.parametrize("token", [None, "", "x", "x" * 92, "\u20ac" * 92])
def test_opening_by_a_token_that_leads_nowhere_is_an_error(face: Face, token: Any) -> None:
    async def job() -> None:
        async with face.sessions.open(token):
            pass

    def sync_job() -> None:
        with face.sessions.open(token):
            pass

    with pytest.raises(SessionNotFound):
        face.run(job()) if hasattr(face.sessions.open(token), "__aenter__") else sync_job()


def test_neither_repr_nor_errors_show_the_id_or_the_data() -> None:
    face = Face("sync", "memory://")
    token = face.new(password="hunter2")
    session = face.request(token)
    session["x"] = 1
    session.renew()
    shown = f"{session!r} {session} {session._work.identity!r} {face.sessions!r} {face.sessions.config!r}"
    shown += repr(session._work.record)
    for secret in (token, token[:43], session.token[:43], "hunter2", face.sessions.config.secret_keys[0]):
        assert secret not in shown


@pytest.mark.parametrize(
    "step",
    [
        Create("key", b"hunter2", 1),
        Update("key", b"revision", b"hunter2", 1),
        FetchOld(cast("Any", None), "hunter2"),
        DeleteOld(cast("Any", None), "hunter2"),
    ],
    ids=lambda step: type(step).__name__,
)
def test_what_a_store_is_asked_for_does_not_show_what_is_kept_there(step: Operation) -> None:
    assert "hunter2" not in f"{step!r} {step}"


def test_an_unloaded_session_loads_itself_in_sync_code_and_says_what_to_do_in_async_code() -> None:
    sync = Face("sync", "memory://")
    token = sync.new(user="alice")
    session = sync.sessions.begin([f"__Host-session={token}".encode()])
    assert session["user"] == "alice"
    face = Face("async", "memory://")
    token = face.new(user="alice")
    session = face.sessions.begin([f"__Host-session={token}".encode()])
    with pytest.raises(SessionNotLoaded, match=r"await session\.load\(\)"):
        session["user"]
    face.run(session.load())
    assert session["user"] == "alice"


def test_after_the_response_has_started_only_what_needs_no_cookie_can_change(face: Face) -> None:
    new = face.request()
    face.respond(new)
    with pytest.raises(ResponseStarted, match="new session"):
        new["a"] = 1
    token = face.new(a=1)
    session = face.request(token)
    face.respond(session)
    session["late"] = True
    face.save(session)
    assert face.stored(token) == {"a": 1, "late": True}
    with pytest.raises(ResponseStarted, match="new ID"):
        session.renew()
    with pytest.raises(ResponseStarted, match="remember"):
        session.remember(False)
    session.destroy()
    face.save(session)
    assert face.stored(token) is None
    with pytest.raises(ResponseStarted):
        session["a"] = 1


def test_a_failed_response_stores_nothing_but_an_end(face: Face) -> None:
    token = face.new(a=1)
    session = face.request(token)
    session["a"] = 2
    session.renew()
    session.remember(False)
    assert face.respond(session, status=500) is None
    face.save(session)
    assert session.token == token
    assert face.stored(token) == {"a": 1}
    session = face.request(token)
    session.destroy()
    assert "Max-Age=0" in (face.respond(session, status=503) or "")
    assert face.stored(token) is None
    new = face.request()
    new["a"] = 1
    assert face.respond(new, status=500) is None


@pytest.mark.parametrize("status", [200, 204, 301, 303, 304, 400, 401, 404, 499])
def test_every_response_below_500_stores_what_was_changed(face: Face, status: int) -> None:
    token = face.new(a=1)
    session = face.request(token)
    session["a"] = 2
    face.respond(session, status)
    assert face.stored(token) == {"a": 2}
