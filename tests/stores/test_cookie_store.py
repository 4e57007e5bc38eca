"""Sessions that are kept in the browser: what they promise, and what they can't."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from faces import KEY, OLD_KEY, Face, Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck import CookieConfig, SyncSessions
from coatcheck.errors import ConfigurationError, MissingExtra, RecordTooLarge, ResponseStarted, StoreIncapable
from coatcheck.events import Event, Events
from coatcheck.interop.gob import GobInt, GobStruct, GobType
from coatcheck.interop.gorilla import SecureCookie
from coatcheck.stores.cookie import MAX_COOKIE_BYTES, CookieStore, SyncCookieStore
from coatcheck.testing import ManualClock

GORILLA_KEYS = [bytes(range(32)), bytes(range(32, 64))]


@pytest.fixture(autouse=True)
def _close_faces() -> Iterator[None]:
    yield
    Face.close_all()


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make_face(kind: Kind, keys: list[Any] | None = None, gorilla: Any = (), **settings: Any) -> Face:
    store = (CookieStore if kind == "async" else SyncCookieStore)(keys or [KEY], gorilla_key_pairs=gorilla)
    return Face(kind, store, secret_keys=None, **settings)


@pytest.fixture
def face(kind: Kind, clock: ManualClock) -> Face:
    return make_face(kind, clock=clock)


# --- what it promises -------------------------------------------------------------------------------------------------


def test_the_cookie_is_the_whole_session(kind: Kind, clock: ManualClock) -> None:
    values: dict[str, Any] = {
        "name": "Zoë", "n": 1 << 70, "price": Decimal("1.10"), "at": datetime(2024, 5, 6, tzinfo=UTC), "raw": b"\x00",
        "set": {1, 2}, "pair": (1, None), "id": UUID(int=5), "nested": {"a": [1.5, True]},
    }  # fmt: skip
    token = make_face(kind, clock=clock).new(**values)
    assert make_face(kind, clock=clock).stored(token) == values  # another process, which shares nothing but the key


def test_a_session_can_be_changed_logged_in_and_ended(face: Face) -> None:
    session = face.request(face.new(cart=["A-1"]))
    session["cart"].append("B-2")
    assert face.respond(session) is not None
    session = face.request(session.token)
    before = session.handle
    session.login("alice")
    session.flash("Welcome")
    assert face.respond(session) is not None
    session = face.request(session.token)
    assert session.handle != before
    assert session.user_id == "alice"
    assert session["cart"] == ["A-1", "B-2"]
    assert [flash.message for flash in session.flashes()] == ["Welcome"]
    session.logout()
    assert "Max-Age=0" in (face.respond(session) or "")


def test_every_change_needs_a_new_cookie_and_reading_none(face: Face) -> None:
    session = face.request(face.new(n=1))
    assert session["n"] == 1
    assert face.respond(session) is None
    session = face.request(session.token)
    session.increment("n")
    set_cookie = face.respond(session) or ""
    assert face.stored(set_cookie.split("=", 1)[1].split(";")[0]) == {"n": 2}


def test_nothing_of_it_can_be_read_and_no_cookie_is_made_twice(face: Face) -> None:
    session = face.request(face.new(secret="attack at dawn", other="attack at dawn"))
    first, second = session.token, session.token
    assert first != second
    assert "attack" not in repr(session)
    common = sum(1 for one, other in zip(first[8:], second[8:], strict=True) if one == other)
    assert common < len(first) / 8


def test_a_cookie_that_was_tampered_with_is_refused(face: Face) -> None:
    token = face.new(user="alice")
    for position in range(len(token) - 1):  # the last character may have bits that no byte has
        other = "A" if token[position] != "A" else "B"
        assert face.request(token[:position] + other + token[position + 1 :]).is_new
    for cut in (token[:-4], token[4:], token + "AAAA", token + "=", "", "A" * 92):
        assert face.request(cut).is_new


def test_a_cookie_of_another_key_or_name_is_refused(kind: Kind, face: Face, clock: ManualClock) -> None:
    token = face.new(user="alice")
    assert make_face(kind, [OLD_KEY], clock=clock).stored(token) is None
    assert make_face(kind, clock=clock, cookie=CookieConfig(name="admin")).stored(token) is None
    native = Face(kind, "memory://", clock=clock).new(user="alice")
    assert face.stored(native) is None


def test_an_older_key_is_accepted_and_its_cookies_are_replaced(kind: Kind, clock: ManualClock) -> None:
    token = make_face(kind, [OLD_KEY], clock=clock).new(user="alice")
    face = make_face(kind, [KEY, OLD_KEY], clock=clock)
    session = face.request(token)
    assert session["user"] == "alice"
    assert face.respond(session) is not None
    assert make_face(kind, [KEY], clock=clock).stored(session.token) == {"user": "alice"}


def test_a_cookie_that_is_not_used_for_the_idle_timeout_is_refused(face: Face, clock: ManualClock) -> None:
    token = face.new(user="alice")
    clock.advance(timedelta(hours=2) - timedelta(seconds=1))
    assert face.stored(token) == {"user": "alice"}
    clock.advance(timedelta(seconds=1))
    session = face.request(token)
    assert session.is_new
    assert "Max-Age=0" in (face.respond(session) or "")


def test_use_extends_a_session_but_not_beyond_its_lifetime(face: Face, clock: ManualClock) -> None:
    token = face.use_hourly(face.new(user="alice"), clock, hours=7 * 24 - 1)
    assert face.stored(token) == {"user": "alice"}
    clock.advance(timedelta(hours=1))
    assert face.stored(token) is None


def test_an_idle_timeout_of_its_own_holds_whether_shorter_or_longer(face: Face, clock: ManualClock) -> None:
    for own in (timedelta(seconds=1), timedelta(minutes=5), timedelta(hours=12)):
        session = face.request(face.new(user="alice"))
        session.limit(idle_timeout=own)
        face.respond(session)
        clock.advance(own - timedelta(milliseconds=1))
        assert face.stored(session.token) == {"user": "alice"}
        clock.advance(timedelta(milliseconds=1))
        ended = face.request(session.token)
        assert ended.is_new
        assert "Max-Age=0" in (face.respond(ended) or "")


def test_use_extends_a_session_by_the_idle_timeout_of_its_own(face: Face, clock: ManualClock) -> None:
    session = face.request(face.new(user="alice"))
    session.limit(idle_timeout=timedelta(hours=12))
    for _ in range(3):
        face.respond(session)
        clock.advance(timedelta(hours=11))
        session = face.request(session.token)
        assert session["user"] == "alice"


def test_a_cookie_of_exactly_the_size_that_browsers_keep_is_made_and_none_beyond(face: Face) -> None:
    def respond_with(size: int) -> int:
        session = face.request()
        session["letter"] = "x" * size
        set_cookie = face.respond(session) or ""
        assert face.stored(session.token) == {"letter": "x" * size}
        return len(set_cookie)

    largest = 2_000 + (MAX_COOKIE_BYTES - respond_with(2_000)) * 3 // 4
    assert MAX_COOKIE_BYTES - 4 <= respond_with(largest) <= MAX_COOKIE_BYTES
    with pytest.raises(RecordTooLarge, match="browsers keep 4096"):
        respond_with(largest + 4)


def test_a_session_that_would_become_too_large_stays_as_it_was(face: Face) -> None:
    token = face.new(user="alice")
    session = face.request(token)
    session["letter"] = "x" * 5_000
    with pytest.raises(RecordTooLarge):
        face.respond(session)
    assert face.stored(token) == {"user": "alice"}


def test_a_change_after_the_headers_have_left_is_refused_where_it_is_made(face: Face) -> None:
    session = face.request(face.new(cart=[]))
    cart = session["cart"]
    face.respond(session)
    with pytest.raises(ResponseStarted):
        session["a"] = 1
    cart.append("A-1")
    with pytest.raises(ResponseStarted):
        face.save(session)


def test_a_handle_that_is_passed_on_is_only_a_name(face: Face) -> None:
    session = face.request(face.new(user="alice"))
    assert type(session.handle) is str
    assert face.stored(face.new(other=session.handle)) == {"other": session.handle}
    copied = pickle.loads(pickle.dumps(session._work.store_key))
    assert copied == session.handle
    assert type(copied) is str


def test_handlers_of_events_are_given_names_only(kind: Kind) -> None:
    seen: list[Event] = []
    face = make_face(kind, events=Events(on_created=seen.append, on_login=seen.append, on_logout=seen.append))
    session = face.request(face.new(user="alice"))
    session.login("alice")
    face.respond(session)
    face.revoke(session.token)
    assert [event.kind for event in seen] == ["created", "login", "logout"]
    assert {type(handle) for event in seen for handle in (event.handle, event.previous_handle)} == {str}


def test_neither_keys_nor_contents_are_shown(face: Face) -> None:
    session = face.request(face.new(user="alice"))
    shown = repr(face.sessions) + repr(face.sessions.store) + repr(session._work.session_id) + repr(session)
    assert KEY not in shown
    assert "alice" not in shown


@settings(max_examples=300)
@given(
    st.binary(max_size=200) | st.text(st.characters(max_codepoint=255), max_size=200).map(lambda t: t.encode("latin-1"))
)
def test_any_bytes_for_a_cookie_are_refused(cookie: bytes) -> None:
    sessions = SyncSessions(SyncCookieStore([KEY], gorilla_key_pairs=GORILLA_KEYS))
    assert sessions.lifecycle._tokens.verify(cookie) is None


# --- gorilla's CookieStore --------------------------------------------------------------------------------------------


def test_sessions_of_gorillas_cookie_store_are_taken_over(kind: Kind, clock: ManualClock) -> None:
    cookie = CookieConfig(name="session-name", prefix="")
    face = make_face(kind, gorilla=GORILLA_KEYS, clock=clock, cookie=cookie)
    go = SecureCookie(GORILLA_KEYS, clock=clock)
    profile = GobStruct({"Level": 5}, GobType.struct("main.Profile", {"Level": "int8"}))
    go_values = {"user": "alice", "_flash": ["hello"], 42: True, "n": GobInt(1, "int64"), "profile": profile}
    session = face.request(go.encode("session-name", go_values))
    assert session["user"] == "alice"
    assert session["int(42)"] is True
    assert [flash.message for flash in session.flashes()] == ["hello"]
    assert face.respond(session) is not None
    alone = make_face(kind, clock=clock, cookie=cookie)
    stored = alone.stored(session.token) or {}
    assert stored == {"user": "alice", "int(42)": True, "n": 1, "profile": {"Level": 5}}
    assert type(stored["n"]) is int
    assert type(stored["profile"]) is dict


def test_cookies_of_gorillas_that_are_old_or_hold_something_else_are_refused(kind: Kind, clock: ManualClock) -> None:
    face = make_face(kind, gorilla=GORILLA_KEYS, clock=clock, cookie=CookieConfig(name="session-name", prefix=""))
    go = SecureCookie(GORILLA_KEYS, clock=clock)
    for value in ("an ID", {1.5: "x"}, {"_flash": "no list"}, {"\udcff": 1}, {"a": "\udcff"}):
        assert face.request(go.encode("session-name", value)).is_new
    future = face.request(go.encode("session-name", {"user": "alice"}, issued_at=(1 << 63) - 1))
    assert future["user"] == "alice"
    assert future.created_at == datetime.fromtimestamp(clock(), UTC)
    token = go.encode("session-name", {"user": "alice"})
    clock.advance(timedelta(hours=2))
    assert face.request(token).is_new


# --- what it can't promise --------------------------------------------------------------------------------------------


def test_a_cookie_from_before_a_logout_works_on(face: Face) -> None:
    """Whoever has copied it has the session until it is too old."""
    token = face.new(user="alice")
    face.revoke(token)
    assert face.stored(token) == {"user": "alice"}


def test_of_two_requests_at_the_same_time_one_is_forgotten(face: Face) -> None:
    """The browser keeps the cookie that arrives last."""
    token = face.new(n=0)
    one, other = face.request(token), face.request(token)
    one.increment("n")
    other["colour"] = "green"
    face.respond(one)
    face.respond(other)
    assert face.stored(one.token) == {"n": 1}
    assert face.stored(other.token) == {"n": 0, "colour": "green"}


def test_what_can_not_be_done_to_sessions_from_the_servers_side_is_said(face: Face) -> None:
    session = face.request()
    session.login("alice")
    face.respond(session)
    with pytest.raises(StoreIncapable):
        face.run(face.sessions.revoke(session.handle))
    assert face.stored(session.token) == {}
    with pytest.raises(StoreIncapable):
        face.run(face.sessions.revoke_user("alice"))
    with pytest.raises(StoreIncapable):
        face.run(face.sessions.revoke_all())
    with pytest.raises(StoreIncapable):
        face.listed(face.sessions.iterate())
    assert face.run(face.sessions.for_user("alice")) == []
    assert not face.run(face.sessions.revoke(session.handle, user_id="alice"))


@pytest.mark.parametrize("setting", [{"max_sessions_per_user": 5}, {"end_on_reuse": True}], ids=repr)
def test_settings_that_could_not_be_kept_are_refused(kind: Kind, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        make_face(kind, **setting)


def test_keys_are_checked(kind: Kind) -> None:
    with pytest.raises(ConfigurationError, match="32 are needed"):
        make_face(kind, ["short"])
    with pytest.raises(ConfigurationError, match="leave secret_keys out"):
        SyncSessions(SyncCookieStore([KEY]), secret_keys=[KEY])


def test_missing_cryptography_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "coatcheck.stores.cookie")
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(MissingExtra, match=r"coatcheck\[cookie\]"):
        import coatcheck.stores.cookie  # noqa: F401
