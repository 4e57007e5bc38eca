"""Sessions in redistore's layout, on a real Valkey. What Go does to them is in `test_side_by_side.py`."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
import redis
from clusters import Cluster
from faces import KEY, Face, Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck import record as records
from coatcheck.errors import (
    ConfigurationError,
    RecordTooLarge,
    StoreUnavailable,
    UndecodableRecord,
    UnsupportedKey,
    UnsupportedValue,
)
from coatcheck.interop import _go_json, gob
from coatcheck.interop._go_sessions import GoSessions, _Metadata
from coatcheck.interop.gob import GobInt, GobList, GobType
from coatcheck.interop.gorilla import SecureCookie
from coatcheck.interop.gorilla_sessions import GorillaSessions
from coatcheck.interop.redistore import RedistoreStore, SyncRedistoreStore
from coatcheck.record import Login, Moved, Record
from coatcheck.stores.protocol import AsyncStore, Outcome, SyncStore
from coatcheck.testing import ManualClock, StoreContract

HASH_KEY = bytes(range(32))
NAME = "session-name"
HOUR_MS = 3_600_000
MONTH = timedelta(days=30)
OTHER_ID = base64.b32encode(bytes(range(100, 132))).decode().rstrip("=")


@pytest.fixture(autouse=True)
def _close_faces() -> Iterator[None]:
    yield
    Face.close_all()


@pytest.fixture
def server(running_servers: dict[str, Server]) -> Server:
    return running_servers["valkey"]


@pytest.fixture
def database(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


class Shop:
    """Both façades on redistore's layout, and the Go side of it done by hand."""

    def __init__(self, kind: Kind, server: Server, database: redis.Redis, serializer: Any = "gob") -> None:
        self.database = database
        self.serializer = serializer
        self._kind: Kind = kind
        self._url = server.url

    def face(self, clock: Any = None, **settings: Any) -> Face:
        names = ("key_pairs", "max_age", "max_length", "flash_categories", "key_prefix", "prefix")
        of_store: dict[str, Any] = {name: settings.pop(name) for name in names if name in settings}
        of_store = {"key_pairs": [HASH_KEY], "serializer": self.serializer, **of_store}
        if clock is not None:
            of_store["clock"] = settings["clock"] = clock
        store = (RedistoreStore if self._kind == "async" else SyncRedistoreStore)(self._url, **of_store)
        settings = {"idle_timeout": MONTH, "lifetime": MONTH, "cookie": CookieConfig(name=NAME, prefix=""), **settings}
        return Face(self._kind, store, secret_keys=None, **settings)

    @property
    def keys(self) -> list[bytes]:
        return sorted(self.database.scan_iter())

    @property
    def key(self) -> bytes:
        """The key of the one session that there is."""
        (key,) = self.database.scan_iter(b"session_*")
        return bytes(key)

    def data(self, key: bytes) -> bytes:
        """What is stored under a key; nothing for none."""
        data = self.database.get(key)
        return data if isinstance(data, bytes) else b""

    @property
    def values(self) -> dict[Any, Any]:
        """What Go would find in it, apart from Coatcheck's own."""
        data = self.data(self.key)
        values = gob.loads(data, target="map") if self.serializer == "gob" else _go_json.loads(data)
        return {key: value for key, value in values.items() if key != "_coatcheck"}

    def save_as_go(self, key: bytes | None = None, ttl: timedelta = MONTH, **changes: Any) -> None:
        """Save a session as Go does: read the map, change it, write it whole."""
        key = key or self.key
        data = self.data(key)
        if self.serializer == "gob":
            values = gob.loads(data, target="map", keep_types=True) if data else {}
            data = gob.dumps(values | changes)
        else:
            data = _go_json.dumps((_go_json.loads(data) if data else {}) | changes)
        self.database.set(key, data, ex=ttl)


@pytest.fixture(params=["gob", "json"])
def shop(request: pytest.FixtureRequest, kind: Kind, server: Server, database: redis.Redis) -> Shop:
    return Shop(kind, server, database, request.param)


@pytest.fixture
def gob_shop(kind: Kind, server: Server, database: redis.Redis) -> Shop:
    return Shop(kind, server, database)


def new_go_session(shop: Shop, clock: Any = time.time, **values: Any) -> str:
    """Make a session as Go does. Gives its cookie."""
    shop.save_as_go(b"session_" + OTHER_ID.encode(), **values)
    return SecureCookie([HASH_KEY], clock=clock).encode(NAME, OTHER_ID)


# --- the layout -------------------------------------------------------------------------------------------------------


def test_a_session_is_kept_where_and_as_redistore_keeps_it(shop: Shop) -> None:
    face = shop.face()
    token = face.new(username="alice", authenticated=True)
    text = SecureCookie([HASH_KEY]).decode(NAME, token, target="string")
    assert len(base64.b32decode(text + "====")) == 32
    assert shop.keys == [b"session_" + text.encode()]
    assert face.request(token).handle == base64.b32decode(text + "====").hex()  # Go's key has the ID, and so has ours
    assert shop.values == {"username": "alice", "authenticated": True}
    assert MONTH.total_seconds() - 60 < shop.database.ttl(shop.key) <= MONTH.total_seconds()
    assert face.stored(token) == {"username": "alice", "authenticated": True}


def test_prefixes_are_those_that_were_asked_for(gob_shop: Shop) -> None:
    face = gob_shop.face(key_prefix="app:", prefix="py:")
    session = face.request()
    session.login("alice")
    face.respond(session)
    assert {key.split(b":")[0] for key in gob_shop.keys} == {b"app", b"py"}


def test_the_cookie_has_gos_name_and_no_prefix(gob_shop: Shop) -> None:
    face = gob_shop.face()
    session = face.request()
    session["a"] = 1
    set_cookie = face.respond(session) or ""
    assert set_cookie.startswith(f"{NAME}={session.token}; Max-Age=2592000; Path=/; Secure; HttpOnly")


def test_without_max_age_a_session_lives_for_gos_default_and_its_cookie_with_the_browser(gob_shop: Shop) -> None:
    twenty = timedelta(minutes=20)
    cookie = CookieConfig(name=NAME, prefix="", persistent=False)
    face = gob_shop.face(max_age=twenty, idle_timeout=twenty, cookie=cookie)
    session = face.request()
    session["a"] = 1
    assert "Max-Age" not in (face.respond(session) or "")
    assert 1_140 < gob_shop.database.ttl(gob_shop.key) <= 1_200


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        "../../etc/passwd",
        "A" * 12,
        "A" * 51,
        "A" * 53,
        base64.b32encode(bytes(32)).decode().rstrip("=").lower(),
        "A" * 51 + "B",  # bits that no byte has
        "0" * 52,
        "A" * 51 + "\n",
    ],
)
def test_an_id_that_redistore_would_not_make_is_refused(gob_shop: Shop, text: str) -> None:
    for planted in (text, "A" * 52):
        gob_shop.save_as_go(b"session_" + planted.encode(), user="planted")
    face = gob_shop.face()
    cookie = SecureCookie([HASH_KEY]).encode(NAME, text)
    assert face.sessions.lifecycle._tokens.verify(cookie.encode()) is None
    session = face.request(cookie)
    assert session.is_new
    assert dict(session) == {}
    assert "Max-Age=0" in (face.respond(session) or "")


def test_a_cookie_of_another_key_or_name_or_none_at_all_is_refused(gob_shop: Shop) -> None:
    face = gob_shop.face()
    face.new(user="alice")
    text = gob_shop.key.removeprefix(b"session_").decode()
    for forged in (
        SecureCookie([bytes(32)]).encode(NAME, text),
        SecureCookie([HASH_KEY]).encode("other", text),
        SecureCookie([HASH_KEY]).encode(NAME, {"user": "alice"}),
        text,
        "\u00ff",
    ):
        assert face.request(forged).is_new


def test_an_id_that_is_not_there_is_not_adopted(gob_shop: Shop) -> None:
    face = gob_shop.face()
    token = face.new(user="alice")
    old_key = gob_shop.key
    gob_shop.database.delete(old_key)
    session = face.request(token)
    session["a"] = 1
    face.respond(session)
    assert gob_shop.key != old_key


def test_older_key_pairs_are_read_and_the_cookie_is_signed_anew(gob_shop: Shop) -> None:
    token = gob_shop.face().new(user="alice")
    face = gob_shop.face(key_pairs=[bytes(32), bytes(16), HASH_KEY, None])
    session = face.request(token)
    assert session["user"] == "alice"
    assert face.respond(session) is not None
    assert gob_shop.face(key_pairs=[bytes(32), bytes(16)]).stored(session.token) == {"user": "alice"}


def test_a_cookie_older_than_max_age_is_refused(gob_shop: Shop) -> None:
    clock = ManualClock()
    face = gob_shop.face(clock=clock, max_age=timedelta(hours=1), idle_timeout=timedelta(hours=1))
    token = face.new(user="alice")
    gob_shop.database.expire(gob_shop.key, 100_000)  # Go has saved it meanwhile
    clock.advance(timedelta(hours=1))
    assert face.stored(token) == {"user": "alice"}
    clock.advance(timedelta(seconds=1))
    assert face.stored(token) is None


# --- concurrency ------------------------------------------------------------------------------------------------------


def test_python_requests_lose_nothing_to_each_other(shop: Shop) -> None:
    faces = [shop.face() for _ in range(3)]  # as many processes, as far as locks are concerned
    token = faces[0].new(n=0)
    for face in faces:
        sessions = [face.request(token) for _ in range(4)]
        for number, session in enumerate(sessions):
            session.increment("n")
            session[f"key {id(face)} {number}"] = number
        results = face.conclude_together(sessions)
        assert [result for result in results if isinstance(result, Exception)] == []
    stored = faces[0].stored(token) or {}
    assert stored["n"] == 12
    assert len(stored) == 13


def test_interleaved_python_requests_of_two_processes_lose_nothing(shop: Shop) -> None:
    first, second = shop.face(), shop.face()
    token = first.new(n=0)
    one, other = first.request(token), second.request(token)
    one.increment("n")
    one["a"] = 1
    other.increment("n")
    other["b"] = 2
    first.respond(one)
    second.respond(other)
    assert first.stored(token) == {"n": 2, "a": 1, "b": 2}


def test_what_go_wrote_meanwhile_is_merged_and_not_overwritten(shop: Shop) -> None:
    face = shop.face()
    token = new_go_session(shop, colour="red", size="S")
    session = face.request(token)
    session["colour"] = "green"
    shop.save_as_go(size="L", weight="heavy")
    face.respond(session)
    assert shop.values == {"colour": "green", "size": "L", "weight": "heavy"}


def test_what_go_wrote_meanwhile_is_merged_into_a_session_that_coatcheck_knows(shop: Shop) -> None:
    face = shop.face()
    token = face.new(visits=1, colour="red")
    session = face.request(token)
    session.increment("visits")
    shop.save_as_go(visits=5, size="L")
    face.respond(session)
    assert shop.values == {"visits": 6, "colour": "red", "size": "L"}


def test_a_save_of_gos_that_changes_nothing_is_no_conflict(gob_shop: Shop) -> None:
    sessions = GoSessions("gob", 0, [], [HASH_KEY])
    record = Record(1, 2, 3, None, None, gob_values(a=1, b=["x"]))
    written = sessions.write(b"revision", record)
    by_go = gob.dumps(dict(reversed(gob.loads(written, target="map").items())))
    assert by_go != written
    assert sessions.read(by_go).revision == sessions.read(written).revision == b"revision"
    changed = gob.dumps(gob.loads(written, target="map") | {"a": 2})
    assert sessions.read(changed).revision not in (b"revision", sessions.read(written).revision)


def test_a_session_that_ended_is_not_brought_back_by_a_request_under_way(shop: Shop) -> None:
    face = shop.face()
    token = face.new(user="alice")
    session = face.request(token)
    session["late"] = True
    face.revoke(token)
    assert shop.keys == []
    face.respond(session)
    assert session.has_ended
    assert shop.keys == []


def test_a_write_whose_answer_was_lost_is_not_applied_twice(gob_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    face = gob_shop.face()
    token = face.new(n=0)
    session = face.request(token)
    session.increment("n")
    layout = face.sessions.store._layout
    update = layout.update

    def lose_the_answer(*arguments: Any) -> Any:
        yield from update(*arguments)
        message = "the answer was lost"
        raise StoreUnavailable(message)

    monkeypatch.setattr(layout, "update", lose_the_answer)
    with pytest.raises(StoreUnavailable):
        face.save(session)
    monkeypatch.setattr(layout, "update", update)
    face.save(session)
    assert session["n"] == 1
    assert face.stored(token) == {"n": 1}


def test_a_write_that_was_sent_twice_is_known_by_its_revision(kind: Kind, gob_shop: Shop) -> None:
    face = gob_shop.face()
    session = face.request()
    session["n"] = 1
    face.respond(session)
    store, key, revision = face.sessions.store, session.handle, session._work.revision
    record = records.encode(key, b"revisn-2", Record(1, 1, 1, None, None, gob_values(n=2)))
    assert face.run(store.update(key, revision, record, HOUR_MS)) is Outcome.DONE
    again = face.run(store.update(key, revision, record, HOUR_MS))
    assert again[records.REVISION] == b"revisn-2"
    assert face.run(store.update(key, b"revisn-2", record, HOUR_MS)) is Outcome.DONE
    face.run(store.delete(key))
    assert face.run(store.update(key, b"revisn-2", record, HOUR_MS)) is Outcome.GONE
    assert gob_shop.keys == []


@pytest.mark.parametrize("rival", ["a value of Go's", "a renewal", "a logout"])
def test_what_happens_between_the_two_commands_of_an_update_is_seen(shop: Shop, rival: str) -> None:
    face = shop.face()
    session = face.request(face.new(n=1))
    store, key, revision = face.sessions.store, session.handle, session._work.revision
    record = records.encode(key, b"revisn-2", Record(1, 1, 1, None, None, gob_values(n=2)))
    moved = records.encode(key, b"revisn-3", Moved("", 1 << 60, 0))
    steps = store._layout.update(key, revision, record, HOUR_MS)
    go_key = shop.key
    answer = face.run(asked(store, next(steps)))
    if rival == "a value of Go's":
        shop.save_as_go(n=5.0)
    elif rival == "a renewal":
        before = shop.data(go_key)
        assert face.run(store.update(key, revision, moved, HOUR_MS)) is Outcome.DONE
        shop.database.set(go_key, before, ex=1_000)  # Go's late request
    else:
        face.run(store.delete(key))
    answer = face.run(asked(store, steps.send(answer)))
    with pytest.raises(StopIteration) as stop:
        steps.send(answer)
    result = stop.value.value
    if rival == "a value of Go's":
        assert isinstance(records.decode(key, result)[1], Record)
        assert shop.values == {"n": 5.0}
    elif rival == "a renewal":
        assert result == moved
        assert shop.values == {"n": 1}
    else:
        assert result is Outcome.GONE
        assert shop.keys == []


def asked(store: Any, question: Any) -> Any:
    """Ask Redis, as the store's driver does."""

    async def ask() -> Any:
        return await question.perform(store._here())

    return ask() if isinstance(store, RedistoreStore) else question.perform(store._here())


def test_a_session_that_is_ended_before_it_is_stored_is_not_stored(shop: Shop) -> None:
    face = shop.face()
    session = face.request()
    session["a"] = 1
    face.run(face.sessions.revoke(session.handle))
    face.respond(session)
    assert session.has_ended
    assert [key for key in shop.keys if key.startswith(b"session_")] == []


# --- logins, renewals, users ------------------------------------------------------------------------------------------


def test_a_login_survives_what_go_saves(shop: Shop) -> None:
    face = shop.face()
    session = face.request()
    session.login("alice")
    session.remember(False)
    face.respond(session)
    before = session.created_at, session.authenticated_at
    shop.save_as_go(colour="green")
    again = face.request(session.token)
    assert again.user_id == "alice"
    assert again["colour"] == "green"
    assert (again.created_at, again.authenticated_at) == before
    assert "Max-Age" not in (face.respond(again) or "")


def test_after_a_renewal_only_the_new_id_leads_to_the_session(shop: Shop) -> None:
    face = shop.face()
    token = new_go_session(shop, cart="A-1")
    old_key = shop.key
    session = face.request(token)
    session.login("alice")
    face.respond(session)
    assert shop.key != old_key
    assert shop.values == {"cart": "A-1"}
    assert face.stored(token) is None
    assert face.stored(session.token) == {"cart": "A-1"}
    listed, cursor = face.run(face.sessions.store.scan("", 100))
    assert cursor == ""
    assert {handle_of(old_key), session.handle} <= set(listed)


def test_an_id_that_go_brings_back_stays_dead_while_it_is_known_to_have_moved(shop: Shop) -> None:
    face = shop.face()
    token = new_go_session(shop, cart="A-1")
    old_key = shop.key
    session = face.request(token)
    session.login("alice")
    face.respond(session)
    shop.save_as_go(old_key, cart="planted")
    assert face.stored(token) is None
    assert face.stored(session.token) == {"cart": "A-1"}
    # Its end ends what has moved, and what Go has brought back, and leaves no trace.
    assert face.run(face.sessions.revoke(handle_of(old_key)))
    assert [key for key in shop.keys if b"session_" in key] == []


def handle_of(key: bytes) -> str:
    return base64.b32decode(key.removeprefix(b"session_") + b"====").hex()


def test_requests_with_the_old_id_reach_a_session_renewed_by_the_clock_in_its_grace(shop: Shop) -> None:
    clock = ManualClock()
    face = shop.face(clock=clock, renew_every=timedelta(minutes=15))
    session = face.request()
    session.login("alice")
    face.respond(session)
    clock.advance(timedelta(minutes=15))
    one, other = face.request(session.token), face.request(session.token)
    one["a"] = 1
    face.respond(one)
    assert one.token != session.token
    other["b"] = 2
    face.respond(other)
    third = face.request(session.token)
    assert third.user_id == "alice"
    assert dict(third) == {"a": 1, "b": 2}
    clock.advance(timedelta(seconds=11))
    assert face.stored(session.token) is None
    assert face.stored(one.token) == {"a": 1, "b": 2}


def test_every_session_of_a_user_is_listed_and_ended_also_for_go(shop: Shop) -> None:
    face = shop.face()
    tokens = []
    for _ in range(3):
        session = face.request()
        session.login("alice")
        face.respond(session)
        tokens.append(session.token)
    listed = face.run(face.sessions.for_user("alice"))
    assert [info.user_id for info in listed] == ["alice"] * 3
    assert face.run(face.sessions.revoke(listed[0].handle, user_id="alice"))
    assert len([key for key in shop.keys if key.startswith(b"session_")]) == 2
    assert face.run(face.sessions.revoke_user("alice")) == 2
    assert [key for key in shop.keys if key.startswith(b"session_")] == []
    assert [face.stored(token) for token in tokens] == [None] * 3


@pytest.mark.parametrize("why", ["the list was lost", "Go has changed the ID"])
def test_a_session_that_no_list_knows_ends_for_python_with_its_users_others(shop: Shop, why: str) -> None:
    """For Go it goes on: redistore knows nothing of users."""
    face = shop.face()
    session = face.request()
    session.login("alice")
    face.respond(session)
    token = session.token
    if why == "the list was lost":
        shop.database.delete(*shop.database.scan_iter(b"coatcheck:user-*"))
    else:
        shop.database.rename(shop.key, b"session_" + OTHER_ID.encode())
        token = SecureCookie([HASH_KEY]).encode(NAME, OTHER_ID)
    assert face.request(token).user_id == "alice"
    face.run(face.sessions.revoke_user("alice"))
    assert face.request(token).is_new
    assert shop.database.exists(shop.key)


def test_a_value_under_the_key_of_another_session_is_not_told_from_its_own(shop: Shop) -> None:
    """In Coatcheck's own layout, a record names its session."""
    face = shop.face()
    face.new(user="alice")
    of_alice = shop.data(shop.key)
    shop.database.flushall()
    token = face.new(user="bob")
    shop.database.set(shop.key, of_alice, ex=1_000)
    assert face.stored(token) == {"user": "alice"}


def test_sessions_of_go_are_counted_and_ended_with_all_others(shop: Shop) -> None:
    face = shop.face()
    new_go_session(shop, user="alice")
    face.new(user="bob")
    shop.database.set(b"session_something-else", b"of another program")
    assert face.run(face.sessions.count() if face.kind == "sync" else count(face)) == 2
    assert face.run(face.sessions.revoke_all()) == 2
    assert shop.keys == [b"session_something-else"]


async def count(face: Face) -> int:
    return int(await face.sessions.count())


# --- times ------------------------------------------------------------------------------------------------------------


def test_a_session_of_gos_began_when_go_last_saved_it(shop: Shop) -> None:
    clock = ManualClock()
    face = shop.face(clock=clock)
    token = new_go_session(shop, clock, user="alice")
    shop.database.pexpire(shop.key, MONTH - timedelta(hours=5))
    now = datetime.fromtimestamp(clock(), UTC)
    began = face.request(token).created_at
    assert abs(now - timedelta(hours=5) - began) < timedelta(minutes=1)


def test_the_lifetime_of_a_session_of_gos_runs_from_its_first_use_on_python(shop: Shop) -> None:
    clock = ManualClock()
    face = shop.face(clock=clock, idle_timeout=timedelta(hours=2), lifetime=timedelta(days=1), refresh_after=0.0)
    token = new_go_session(shop, clock, user="alice")
    face.request(token)
    reader = face.request(token)
    assert reader["user"] == "alice"
    face.respond(reader)  # extends it, and changes no value
    assert shop.values == {"user": "alice"}
    assert shop.database.ttl(shop.key) <= 7_200
    shop.save_as_go()
    clock.advance(timedelta(hours=23, minutes=59))
    token = SecureCookie([HASH_KEY], clock=clock).encode(NAME, shop.key.removeprefix(b"session_").decode())
    assert face.stored(token) == {"user": "alice"}
    clock.advance(timedelta(minutes=2))
    assert face.stored(token) is None


def test_use_extends_a_session(shop: Shop) -> None:
    face = shop.face(refresh_after=0.0, lifetime=2 * MONTH)  # so that it is only touched
    token = face.new(user="alice")
    before = shop.data(shop.key)
    shop.database.expire(shop.key, 1_000)
    session = face.request(token)
    assert session["user"] == "alice"
    assert face.respond(session) is not None
    assert MONTH.total_seconds() - 60 < shop.database.ttl(shop.key)
    assert shop.data(shop.key) == before


def test_a_session_of_gos_with_no_room_for_more_can_be_read_and_extended(shop: Shop) -> None:
    face = shop.face(refresh_after=0.0, lifetime=2 * MONTH)
    token = new_go_session(shop, letter="x" * 4_020)
    before = shop.data(shop.key)
    assert 4_000 < len(before) < 4_096
    shop.database.expire(shop.key, 1_000)
    session = face.request(token)
    assert session["letter"] == "x" * 4_020
    face.respond(session)
    assert shop.data(shop.key) == before
    assert MONTH.total_seconds() - 60 < shop.database.ttl(shop.key)


def test_a_request_that_only_reads_writes_nothing_and_sets_no_cookie(gob_shop: Shop) -> None:
    face = gob_shop.face()
    token = new_go_session(gob_shop, roles=GobList(["admin"], "[]string"), n=GobInt(5, "int64"), cart=["a", {"b": 1}])
    before = gob_shop.database.get(gob_shop.key)
    session = face.request(token)
    assert session.copy() == {"roles": ["admin"], "n": 5, "cart": ["a", {"b": 1}]}
    assert face.respond(session) is None
    assert gob_shop.database.get(gob_shop.key) == before


# --- values -----------------------------------------------------------------------------------------------------------

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1, 2},
        Decimal(1),
        MOMENT.replace(tzinfo=None),
        MOMENT.astimezone(ZoneInfo("Europe/Vienna")),
        MOMENT.astimezone(timezone(timedelta(hours=1), "CET")),
        1 << 63,
        [(1, 2)],
        {"a": {"b": {1}}},
    ],
    ids=repr,
)
def test_what_gob_can_not_bring_back_is_refused_by_key_and_type(gob_shop: Shop, value: Any) -> None:
    check_is_refused(gob_shop, value)


@pytest.mark.parametrize(
    "value", [b"x", MOMENT, (1 << 53) + 1, (1, 2), float("nan"), {1: 2}, [b"x"], {"a": MOMENT}], ids=repr
)
def test_what_json_can_not_bring_back_is_refused_by_key_and_type(
    kind: Kind, server: Server, database: redis.Redis, value: Any
) -> None:
    check_is_refused(Shop(kind, server, database, "json"), value)


def check_is_refused(shop: Shop, value: Any) -> None:
    face = shop.face()
    session = face.request(face.new(user="alice"))
    session["kept"] = "no"
    session["thing"] = value
    with pytest.raises(UnsupportedValue, match=rf"session\['thing'\].*{type(value).__name__}"):
        face.respond(session)
    assert shop.values == {"user": "alice"}


def test_what_gob_carries_comes_back_the_same(gob_shop: Shop) -> None:
    values: dict[str, Any] = {
        "none": None, "bool": True, "int": -(1 << 63), "float": -0.0, "str": "Zoë", "bytes": b"\x00\xff",
        "list": [1, [None, "x"]], "dict": {"a": {"b": 1.5}}, "utc": MOMENT,
        "zone": MOMENT.astimezone(timezone(timedelta(hours=-3))), "empty": [{}, [], ""],
    }  # fmt: skip
    face = gob_shop.face()
    stored = face.stored(face.new(**values)) or {}
    assert stored == values
    assert {key: type(value) for key, value in stored.items()} == {key: type(value) for key, value in values.items()}


def test_a_new_value_gets_the_go_type_of_the_one_that_it_replaces(gob_shop: Shop) -> None:
    face = gob_shop.face()
    session = face.request(new_go_session(gob_shop, n=GobInt(5, "int64"), small=GobInt(5, "int8"), roles=["x"]))
    session.increment("n")
    session["small"] = 1_000  # does not fit
    session["new"] = GobInt(1, "uint16")
    face.respond(session)
    values = gob.loads(gob_shop.data(gob_shop.key), target="map", keep_types=True)
    assert values["n"].gob_type.name == "int64"
    assert values["n"] == 6
    assert type(values["small"]) is int
    assert values["new"].gob_type.name == "uint16"


@pytest.mark.parametrize(
    "value",
    [GobInt(5, "int64"), [{"a": GobInt(5, "int64")}], {GobInt(5, "int64"): 1}, (GobList([], "[]string"),)],
    ids=repr,
)
def test_stores_of_our_own_keep_nothing_of_gos_types(kind: Kind, value: Any) -> None:
    """They would have to be read by programs that know nothing of Go."""
    face = Face(kind, "memory://")
    token = face.new(user="alice", bell="\x0c")
    session = face.request(token)
    session["thing"] = value
    with pytest.raises(UnsupportedValue, match=r"session\['thing'\] can't keep a value of type 'Gob"):
        face.respond(session)
    assert face.stored(token) == {"user": "alice", "bell": "\x0c"}


@pytest.mark.parametrize("key", ["_coatcheck", "errors"])
def test_keys_that_serve_other_purposes_are_refused(gob_shop: Shop, key: str) -> None:
    face = gob_shop.face(flash_categories=["errors"])
    session = face.request()
    session[key] = "mine"
    with pytest.raises(UnsupportedKey, match=key):
        face.respond(session)
    assert gob_shop.keys == []


def test_a_flash_of_a_category_that_go_does_not_know_is_refused(gob_shop: Shop) -> None:
    face = gob_shop.face(flash_categories=["errors"])
    session = face.request()
    session.flash("Saved", "success")
    with pytest.raises(UnsupportedValue, match=r"'success'.*message, errors.*flash_categories"):
        face.respond(session)


def test_flash_messages_are_gos(shop: Shop) -> None:
    face = shop.face(flash_categories=["errors"])
    session = face.request()
    session.flash("wrong", "errors")
    session.flash("hello")
    face.respond(session)
    assert shop.values == {"_flash": ["hello"], "errors": ["wrong"]}
    shop.save_as_go(_flash=["hello", "from Go"])
    taken = face.request(session.token)
    assert taken.flashes() == [("hello", "message"), ("from Go", "message"), ("wrong", "errors")]
    face.respond(taken)
    assert shop.values == {}


def test_a_session_longer_than_redistore_takes_is_refused_and_its_largest_value_named(shop: Shop) -> None:
    face = shop.face()
    token = face.new(user="alice")
    session = face.request(token)
    session["letter"] = "x" * 4_000
    with pytest.raises(RecordTooLarge, match=r"max_length allows 4096.*'letter'"):
        face.respond(session)
    assert face.stored(token) == {"user": "alice"}
    roomy = shop.face(max_length=0)
    assert len((roomy.stored(roomy.new(letter="x" * 100_000)) or {})["letter"]) == 100_000


@pytest.mark.parametrize(
    "data",
    [b"", b"not a session", gob.dumps("a string"), gob.dumps({"_coatcheck": "1.?"}), gob.dumps({"_coatcheck": 5}),
     gob.dumps({"_flash": "no list"}), gob.dumps({1.5: "a key"}), gob.dumps({"int(5)": "a key"})],
    ids=repr,
)  # fmt: skip
def test_what_can_not_be_read_is_reported_and_left_as_it_is(
    gob_shop: Shop, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    face = gob_shop.face()
    token = new_go_session(gob_shop)
    key = gob_shop.key
    gob_shop.database.set(key, data, ex=1_000)
    session = face.request(token)
    assert session.is_new
    assert "can't be used and is left as it is" in caplog.text
    session["a"] = 1
    face.respond(session)
    assert gob_shop.data(key) == data
    assert len(gob_shop.keys) == 2


@pytest.mark.parametrize("change", [("1.", ""), ("1.", "2."), ("1.", "1.."), ("1.", "1. ")], ids=repr)
def test_what_another_version_may_have_written_is_not_guessed_at(change: tuple[str, str]) -> None:
    sessions = GoSessions("gob", 0, [], [HASH_KEY])
    written = gob.loads(sessions.write(b"revision", Record(1, 2, 3, None, None, gob_values(a=1))), target="map")
    assert sessions.read(gob.dumps(written)).is_known
    written["_coatcheck"] = written["_coatcheck"].replace(*change, 1)
    with pytest.raises(UndecodableRecord, match="not written by this version"):
        sessions.read(gob.dumps(written))


# --- what says who has logged in --------------------------------------------------------------------------------------


def test_a_visitor_who_can_choose_a_key_of_gos_map_logs_in_as_nobody(gob_shop: Shop) -> None:
    """A Go program may keep what a form says under the name that the form says: settings, for instance."""
    kept = _Metadata(b"revision", b"", 1, 1, 1, None, Login("admin", 1, 1 << 53, None, None))
    encoded = msgspec.msgpack.encode(kept)
    forged = [
        encoded,
        bytes(16) + encoded,
        hmac.digest(HASH_KEY, encoded, "sha256")[:16] + encoded,
        hmac.digest(b"", encoded, "sha256")[:16] + encoded,
    ]
    for each in forged:
        token = new_go_session(gob_shop, _coatcheck="1." + base64.urlsafe_b64encode(each).decode(), colour="red")
        session = gob_shop.face().request(token)
        assert (session.user_id, dict(session)) == (None, {"colour": "red"})
        gob_shop.database.flushall()


def test_a_login_outlives_the_rotation_of_keys_until_the_old_one_is_gone(gob_shop: Shop) -> None:
    old = gob_shop.face()
    session = old.request(old.new())
    session.login("alice")
    old.respond(session)
    rotated = gob_shop.face(key_pairs=[bytes(32), None, HASH_KEY])
    again = rotated.request(session.token)
    assert again.user_id == "alice"
    again["a"] = 1
    rotated.respond(again)
    assert gob_shop.face(key_pairs=[bytes(32)]).request(again.token).user_id == "alice", "written, it is signed anew"


def test_the_reason_why_something_can_not_be_read_is_told(gob_shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    token = new_go_session(gob_shop)
    gob_shop.database.set(gob_shop.key, gob.dumps({"_flash": "no list"}), ex=1_000)
    gob_shop.face().request(token)
    assert "its '_flash' is not a list of flash messages" in caplog.text


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"serializer": "pickle"}, "serializer"),
        ({"max_length": -1}, "max_length"),
        ({"max_length": True}, "max_length"),
        ({"max_age": timedelta(0)}, "max_age"),
        ({"max_age": 5}, "max_age"),
        ({"key_pairs": []}, "key_pairs"),
        ({"key_pairs": [HASH_KEY, b"short"]}, "block keys"),
        ({"key_prefix": ""}, "prefix"),
        ({"key_prefix": "coatcheck:"}, "prefix"),
        ({"key_prefix": "coatcheck:go:"}, "prefix"),
        ({"prefix": "session_"}, "prefix"),
        ({"flash_categories": "errors"}, "flash_categories"),
        ({"flash_categories": ["message"]}, "flash_categories"),
        ({"flash_categories": ["_flash"]}, "flash_categories"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("store", [RedistoreStore, SyncRedistoreStore])
def test_settings_that_can_not_work_are_refused_at_once(store: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        store("redis://localhost", **{"key_pairs": [HASH_KEY], **settings})


def test_a_store_with_keys_of_its_own_takes_no_secret_keys() -> None:
    with pytest.raises(ConfigurationError, match="leave secret_keys out"):
        Sessions(RedistoreStore("redis://localhost", key_pairs=[HASH_KEY]), secret_keys=[KEY])
    with pytest.raises(ConfigurationError, match="leave secret_keys out"):
        SyncSessions(SyncRedistoreStore("redis://localhost", key_pairs=[HASH_KEY]), secret_keys=[])


def test_nothing_is_adopted_into_a_store_with_ids_of_its_own() -> None:
    old = GorillaSessions(cookie_name="old", key_pairs=[HASH_KEY], store="redis://localhost", user_id=None)
    with pytest.raises(ConfigurationError, match="adopt"):
        Sessions(RedistoreStore("redis://localhost", key_pairs=[HASH_KEY]), adopt=[old])


def test_neither_keys_nor_ids_are_shown(gob_shop: Shop) -> None:
    face = gob_shop.face()
    session = face.request(face.new(user="alice"))
    shown = repr(face.sessions) + repr(face.sessions.store) + repr(session._work.session_id)
    assert HASH_KEY.hex() not in shown
    assert gob_shop.key.removeprefix(b"session_").decode() not in shown
    assert session.handle not in shown


# --- any values -------------------------------------------------------------------------------------------------------


def gob_values(**plain: Any) -> Any:
    from msgspec import Raw

    from coatcheck import values

    return {key: Raw(values.encode(key, value)) for key, value in plain.items()}


scalars = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False)
moments = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0))
leaves = scalars | st.text(max_size=9) | st.binary(max_size=9) | moments
nested = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
texts, times = st.text(min_size=1, max_size=9), st.integers(0, 1 << 50)
logins = st.none() | st.builds(Login, texts, times, st.integers(0, 9), st.none() | texts, st.none())


@settings(max_examples=200)
@given(st.dictionaries(st.text(max_size=9), nested, max_size=5), logins, st.binary(min_size=8, max_size=8))
def test_any_session_is_read_as_it_was_written(session: dict[str, Any], login: Any, revision: bytes) -> None:
    session.pop("_flash", None)
    session.pop("_coatcheck", None)
    record = Record(1, 2, 3, True, login, gob_values(**session))
    sessions = GoSessions("gob", 0, [], [HASH_KEY])
    read = sessions.read(sessions.write(revision, record))
    assert (read.revision, read.record, read.is_known) == (revision, record, True)


def deep(levels: int) -> list[Any]:
    return [] if levels == 0 else [deep(levels - 1)]


@pytest.mark.parametrize(
    "odd",
    [
        {"not UTF-8": "\udcff", "nan": float("nan"), "n": GobInt(5, "int64")},
        GobList(deep(100), GobType.named("main.Tree", "[]interface {}")),
    ],
    ids=["what no text can be, beside what does not equal itself", "deeper than plain values may be"],
)
def test_what_go_may_have_written_can_be_written_back(odd: Any) -> None:
    """Found by fuzzing."""
    sessions = GoSessions("gob", 0, [], [HASH_KEY])
    read = sessions.read(gob.dumps({"odd": odd}))
    assert sessions.read(sessions.write(b"revision", read.record, read)).record.values == read.record.values


@settings(max_examples=300)
@given(st.sampled_from(["gob", "json"]), st.binary(max_size=60), st.data())
def test_any_bytes_are_read_or_refused(serializer: Any, noise: bytes, data: st.DataObject) -> None:
    sessions = GoSessions(serializer, 0, ["errors"], [HASH_KEY])
    record = Record(1, 2, 3, True, Login("alice", 5, 0, None, None), gob_values(a="x", _flash=[["hi", "message"]]))
    stream = bytearray(sessions.write(b"revision", record))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at : at + data.draw(st.integers(0, 3))] = noise[:3]
    for damaged in (noise, bytes(stream)):
        try:
            sessions.read(damaged)
        except UndecodableRecord:
            continue


# --- the contract -----------------------------------------------------------------------------------------------------


class _OnServer(StoreContract):
    @pytest.fixture(autouse=True)
    def _store_on_server(self, server: Server, database: redis.Redis) -> None:
        self._server, self._database = server, database
        super().setup_method()

    def setup_method(self) -> None:
        """Wait for the server."""

    def advance(self, by: timedelta) -> None:
        """The server's clock can't be moved, so its keys are moved closer to their end."""
        for key in self._database.scan_iter():
            self._database.pexpire(key, self._database.pttl(key) - int(by.total_seconds() * 1000))


class TestRedistoreStore(_OnServer):
    def make_store(self) -> AsyncStore:
        return RedistoreStore(self._server.url, key_pairs=[HASH_KEY])


class TestSyncRedistoreStore(_OnServer):
    def make_store(self) -> SyncStore:
        return SyncRedistoreStore(self._server.url, key_pairs=[HASH_KEY])


# --- a Cluster --------------------------------------------------------------------------------------------------------


def test_in_a_cluster_a_session_and_its_trace_are_on_one_node(kind: Kind) -> None:
    """Redistore itself knows no Cluster; what stands in front of one may do that for it."""
    with Cluster() as cluster:
        store = (RedistoreStore if kind == "async" else SyncRedistoreStore)(cluster.url, key_pairs=[HASH_KEY])
        face = Face(kind, store, secret_keys=None)
        for number in range(9):
            session = face.request(face.new(n=number))
            session.login("alice")
            face.respond(session)
            assert face.stored(session.token) == {"n": number}
        assert len(face.run(face.sessions.for_user("alice"))) == 9
        assert face.run(face.sessions.revoke_all()) == 9
        Face.close_all()
