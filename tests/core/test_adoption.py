"""Sessions of another system become ours: once, without loss, and never again after their end."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from faces import KEY, OLD_KEY, AnySession, Face, Kind
from old_shop import OldShop, Shelf

from coatcheck import CookieConfig, Events
from coatcheck.devices import Device
from coatcheck.errors import ConfigurationError, RecentLoginRequired, RecordTooLarge, StoreUnavailable
from coatcheck.guard import require_recent_login
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.testing import ManualClock

CLEARS_OLD = "old=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=Lax"


def user(values: Any) -> Any:
    return values.get("user")


def shop(**settings: Any) -> OldShop:
    defaults: dict[str, Any] = {"user_id": user}
    return OldShop(**defaults | settings)


def come(face: Face, *cookies: str) -> AnySession:
    """Begin a request that carries these cookies, and load its session."""
    session: AnySession = face.sessions.begin(["; ".join(cookies).encode()], lambda: Device("Firefox", "192.0.2.7"))
    face.run(session.load())
    return session


def old_cookie(face: Face, session: AnySession) -> str | None:
    """What the response takes away, after `face.respond`."""
    given: str | None = face.sessions.old_cookie(session)
    return given


def visit(face: Face, *cookies: str) -> tuple[dict[str, Any], str | None]:
    """A request that only reads, from beginning to end. Gives what it saw, and the cookie for its client."""
    session = come(face, *cookies)
    seen = dict(session)
    return seen, face.respond(session)


def browser_cookie(set_cookie: str | None) -> str:
    assert set_cookie is not None
    return set_cookie.partition(";")[0]


@pytest.fixture
def old() -> OldShop:
    return shop()


@pytest.fixture
def adopting(kind: Kind, store_url: str, old: OldShop) -> Face:
    """Each façade on each store."""
    return Face(kind, store_url, adopt=[old])


@pytest.fixture
def timed_adopting(kind: Kind, clock: ManualClock, old: OldShop) -> Face:
    """Each façade on the memory store, with a clock to move."""
    return Face(kind, "memory://", clock=clock, adopt=[old])


# --- what is carried over -------------------------------------------------------------------------------------------


def test_an_old_session_is_carried_over_with_its_values_and_its_user(adopting: Face, old: OldShop) -> None:
    cookie = old.put("s1", user="alice", cart=["hat", {"size": 7}])
    session = come(adopting, cookie)
    assert dict(session) == {"user": "alice", "cart": ["hat", {"size": 7}]}
    assert session.user_id == "alice"
    set_cookie = adopting.respond(session)
    assert visit(adopting, browser_cookie(set_cookie)) == ({"user": "alice", "cart": ["hat", {"size": 7}]}, None)
    (device,) = adopting.run(adopting.sessions.for_user("alice"))
    assert (device.handle, device.user_agent, device.client_address) == (session.handle, "Firefox", "192.0.2.0")


def test_the_old_cookie_and_the_old_record_go_when_the_response_leaves_and_not_before(
    adopting: Face, old: OldShop
) -> None:
    session = come(adopting, old.put("s1", user="alice"))
    assert old.shelf.records
    adopting.respond(session)
    assert old.shelf.records == {}
    assert old_cookie(adopting, session) == CLEARS_OLD


@pytest.mark.parametrize("status", [500, 503])
def test_a_failed_response_leaves_the_old_cookie_and_the_old_record(adopting: Face, old: OldShop, status: int) -> None:
    cookie = old.put("s1", user="alice")
    session = come(adopting, cookie)
    assert adopting.respond(session, status) is None
    assert old_cookie(adopting, session) is None
    assert old.shelf.records
    seen, set_cookie = visit(adopting, cookie)
    assert seen == {"user": "alice"}
    assert set_cookie is not None
    assert old.shelf.records == {}


def test_a_response_that_could_not_be_stored_leaves_the_old_cookie_and_the_old_record(kind: Kind, old: OldShop) -> None:
    face = Face(kind, "memory://", adopt=[old], max_keys=1)
    session = come(face, old.put("s1", user="alice"))
    session["more"] = True
    with pytest.raises(RecordTooLarge):
        face.respond(session)
    face.respond(session, 500)
    assert old_cookie(face, session) is None
    assert old.shelf.records


def test_what_is_to_be_kept_is_left_as_it_is(kind: Kind, store_url: str) -> None:
    old = shop(old="keep")
    face = Face(kind, store_url, adopt=[old])
    session = come(face, old.put("s1", user="alice"))
    assert face.respond(session) is not None
    assert old_cookie(face, session) is None
    assert old.shelf.records.keys() == {"s1"}
    assert "delete" not in old.shelf.calls


def test_convert_says_what_is_carried_over(kind: Kind) -> None:
    old = shop(convert=lambda values: {"basket": values["cart"]})
    face = Face(kind, "memory://", adopt=[old])
    session = come(face, old.put("s1", user="alice", cart=[1]))
    assert (dict(session), session.user_id) == ({"basket": [1]}, "alice")


def test_a_number_is_a_user_id_as_text(adopting: Face, old: OldShop) -> None:
    assert come(adopting, old.put("s1", user=7)).user_id == "7"


def test_without_a_user_nobody_is_logged_in(adopting: Face, old: OldShop) -> None:
    session = come(adopting, old.put("s1", cart=[1]))
    assert (dict(session), session.user_id) == ({"cart": [1]}, None)


def test_an_adopted_login_does_not_pass_for_a_recent_one(adopting: Face, old: OldShop) -> None:
    session = come(adopting, old.put("s1", user="alice"))
    assert session.authenticated_at is None
    with pytest.raises(RecentLoginRequired):
        require_recent_login(session, within=timedelta(days=36_500))
    adopting.respond(session)
    assert adopting.run(adopting.sessions.for_user("alice"))[0].authenticated_at is None


def test_an_adoption_is_an_event(kind: Kind, old: OldShop) -> None:
    heard: list[Any] = []
    face = Face(kind, "memory://", adopt=[old], events=Events(on_adopted=heard.append))
    cookie = old.put("s1", user="alice")
    session = come(face, cookie)
    visit(face, cookie)
    assert [(event.handle, event.user_id, event.reason) for event in heard] == [(session.handle, "alice", "old shop")]


def test_an_adoption_ends_no_other_session_of_the_user(kind: Kind, old: OldShop) -> None:
    face = Face(kind, "memory://", adopt=[old], max_sessions_per_user=1)
    first = come(face, old.put("s1", user="alice"))
    second = come(face, old.put("s2", user="alice"))
    assert first.handle != second.handle
    assert len(face.run(face.sessions.for_user("alice"))) == 2


# --- which old session ----------------------------------------------------------------------------------------------


def test_with_a_genuine_cookie_of_ours_the_old_one_is_not_looked_at(adopting: Face, old: OldShop) -> None:
    token = adopting.new(mine=True)
    seen, set_cookie = visit(adopting, f"__Host-session={token}", old.put("s1", user="alice"))
    assert (seen, set_cookie) == ({"mine": True}, None)
    assert old.shelf.calls == []


@pytest.mark.parametrize("ours", ["", "forged", "A" * 92])
def test_a_cookie_of_ours_that_is_not_genuine_is_not_in_the_way(adopting: Face, old: OldShop, ours: str) -> None:
    session = come(adopting, f"__Host-session={ours}", old.put("s1", user="alice"))
    assert session.user_id == "alice"
    assert browser_cookie(adopting.respond(session)) == f"__Host-session={session.token}"


@pytest.mark.parametrize("cookie", ["old=s1.forged", "old=", "older=s1.genuine", "old=" + "s" * 9_000 + ".genuine"])
def test_a_forged_old_cookie_asks_nobody(adopting: Face, old: OldShop, cookie: str) -> None:
    old.put("s1", user="alice")
    session = come(adopting, cookie)
    assert session.is_new
    assert adopting.respond(session) is None
    assert old_cookie(adopting, session) is None
    assert (old.shelf.calls, adopting.everything()) == ([], b"")


def test_of_two_genuine_old_cookies_neither_counts(adopting: Face, old: OldShop) -> None:
    cookies = old.put("s1", user="alice"), old.put("s2", user="mallory")
    assert come(adopting, *cookies).is_new
    assert come(adopting, *reversed(cookies)).is_new
    assert come(adopting, cookies[0], cookies[0]).user_id == "alice"
    assert come(adopting, cookies[0], "old=s2.forged").user_id == "alice"


def test_an_old_session_that_is_no_more_takes_its_cookie_along(adopting: Face) -> None:
    session = come(adopting, "old=s1.genuine")
    assert session.is_new
    adopting.respond(session)
    assert old_cookie(adopting, session) == CLEARS_OLD
    assert adopting.everything() == b""


def test_an_old_session_whose_time_is_over_is_not_adopted(adopting: Face, old: OldShop) -> None:
    assert come(adopting, old.put("s1", user="alice", **{"is over": True})).is_new
    assert adopting.everything() == b""


def test_several_old_systems_are_adopted_side_by_side(kind: Kind) -> None:
    first, second = shop(), shop(cookie_name="older")
    face = Face(kind, "memory://", adopt=[first, second])
    first.put("s1", user="alice")
    second.put("s1", user="bob")
    assert come(face, "old=s1.genuine").user_id == "alice"
    assert come(face, "older=s1.genuine").user_id == "bob"


# --- once -----------------------------------------------------------------------------------------------------------


def test_a_second_request_with_the_old_cookie_finds_the_same_session(adopting: Face, old: OldShop) -> None:
    cookie = old.put("s1", user="alice")
    first = come(adopting, cookie)
    first["cart"] = ["hat"]
    adopting.respond(first)
    second = come(adopting, cookie)
    assert (dict(second), second.handle) == ({"user": "alice", "cart": ["hat"]}, first.handle)
    assert old.shelf.calls.count("get") == 1
    assert adopting.listed(adopting.sessions.iterate())[0].handle == first.handle


def test_requests_at_the_same_time_adopt_one_session_and_lose_no_change(adopting: Face, old: OldShop) -> None:
    cookie = old.put("s1", user="alice", n=0)

    def work(number: int) -> Any:
        return adopting.sessions.begin([cookie.encode()]), number

    visits = [work(number) for number in range(12)]
    outcomes = together(adopting, visits)
    assert {outcome for outcome in outcomes if isinstance(outcome, Exception)} == set()
    assert len({session.handle for session, _ in visits}) == 1
    (info,) = adopting.listed(adopting.sessions.iterate())
    assert [device.handle for device in adopting.run(adopting.sessions.for_user("alice"))] == [info.handle]
    seen, _ = visit(adopting, browser_cookie(outcomes[0]))
    assert seen == {"user": "alice", "n": 12} | {f"by {number}": True for number in range(12)}


def together(face: Face, visits: list[Any]) -> list[Any]:
    """Load, change and store many sessions at the same time, in tasks or in threads."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    def change(session: Any, number: int) -> None:
        session.increment("n")
        session[f"by {number}"] = True

    async def go(session: Any, number: int) -> Any:
        await session.load()
        change(session, number)
        return await face.sessions.conclude(session, 200)

    async def go_all() -> list[Any]:
        return list(await asyncio.gather(*(go(*each) for each in visits), return_exceptions=True))

    if face.kind == "async":
        return list(face.run(go_all()))

    def go_sync(each: Any) -> Any:
        try:
            each[0].load()
            change(*each)
            return face.sessions.conclude(each[0], 200)
        except Exception as error:  # noqa: BLE001
            return error

    with ThreadPoolExecutor(len(visits)) as threads:
        return list(threads.map(go_sync, visits))


def test_a_lost_response_loses_no_session(adopting: Face, old: OldShop) -> None:
    """The browser never got the new cookie, and the old record is gone."""
    cookie = old.put("s1", user="alice")
    visit(adopting, cookie)
    assert old.shelf.records == {}
    assert visit(adopting, cookie)[0] == {"user": "alice"}


def test_after_a_change_of_the_secret_key_the_same_session_is_found(kind: Kind, old: OldShop) -> None:
    cookie = old.put("s1", user="alice")
    store = MemoryStore() if kind == "async" else SyncMemoryStore()
    before = come(Face(kind, store, secret_keys=[OLD_KEY], adopt=[old]), cookie)
    after = come(Face(kind, store, secret_keys=[KEY, OLD_KEY], adopt=[old]), cookie)
    assert after.handle == before.handle
    assert come(Face(kind, store, secret_keys=[KEY], adopt=[old]), cookie).is_new


# --- never again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["keep", "remove"])
@pytest.mark.parametrize("end", ["logout", "logout at once", "revoke", "revoke_user", "revoke_all", "erase"])
def test_after_its_end_the_old_cookie_brings_nothing_back(kind: Kind, store_url: str, end: str, kept: Any) -> None:
    old = shop(old=kept)
    face = Face(kind, store_url, adopt=[old])
    cookie = old.put("s1", user="alice")
    record = dict(old.shelf.records)
    session = come(face, cookie)
    if end == "logout at once":
        session.logout()
    set_cookie = face.respond(session)
    if end == "logout":
        face.revoke(browser_cookie(set_cookie).partition("=")[2])
    elif end == "revoke":
        assert face.run(face.sessions.revoke(session.handle))
    elif end == "revoke_user":
        assert face.run(face.sessions.revoke_user("alice")) == 1
    elif end == "erase":
        assert face.run(face.sessions.erase_user("alice")) == 1
    elif end == "revoke_all":
        assert face.run(face.sessions.revoke_all()) == 1
    old.shelf.records.update(record)  # as if deleting it had failed
    assert visit(face, cookie) == ({}, None)
    assert face.listed(face.sessions.iterate()) == []


def test_after_its_expiry_the_old_cookie_brings_nothing_back(
    timed_adopting: Face, old: OldShop, clock: ManualClock
) -> None:
    cookie = old.put("s1", user="alice")
    record = dict(old.shelf.records)
    visit(timed_adopting, cookie)
    old.shelf.records.update(record)
    clock.advance(timedelta(hours=2, seconds=1))
    session = come(timed_adopting, cookie)
    assert session.is_new
    timed_adopting.respond(session)
    assert old.shelf.records == {}
    assert old_cookie(timed_adopting, session) == CLEARS_OLD


def test_while_an_old_cookie_is_used_it_stays_remembered(kind: Kind, clock: ManualClock) -> None:
    old = shop(old="keep", lifetime=timedelta(days=30))
    face = Face(kind, "memory://", clock=clock, adopt=[old])
    cookie = old.put("s1", user="alice")
    visit(face, cookie)
    for _ in range(4):
        clock.advance(timedelta(days=29))
        assert visit(face, cookie) == ({}, None)


def test_revoking_a_user_ends_the_sessions_too_that_are_still_to_come(kind: Kind, store_url: str, old: OldShop) -> None:
    heard: list[Any] = []
    face = Face(kind, store_url, adopt=[old], events=Events(on_adopted=heard.append))
    cookies = [old.put(key, user="alice") for key in ("s1", "s2")]
    visit(face, cookies[0])
    face.run(face.sessions.revoke_user("alice"))
    session = come(face, cookies[1])
    assert (dict(session), session.user_id) == ({}, None)
    face.respond(session)
    assert old.shelf.records == {}
    assert face.run(face.sessions.for_user("alice")) == []
    assert come(face, old.put("s3", user="bob")).user_id == "bob"
    assert [event.user_id for event in heard] == ["alice", "bob"]


def test_a_revocation_is_remembered_for_as_long_as_old_sessions_may_come(kind: Kind, clock: ManualClock) -> None:
    old = shop(lifetime=timedelta(days=30))
    face = Face(kind, "memory://", clock=clock, adopt=[old], lifetime=timedelta(days=7))
    cookie = old.put("s1", user="alice")
    face.run(face.sessions.revoke_user("alice"))
    clock.advance(timedelta(days=29))
    assert visit(face, cookie)[0] == {}


def test_a_login_after_the_adoption_leaves_the_old_cookie_nothing(
    timed_adopting: Face, old: OldShop, clock: ManualClock
) -> None:
    cookie = old.put("s1", cart=[1])
    session = come(timed_adopting, cookie)
    session.login("alice")
    timed_adopting.respond(session)
    assert visit(timed_adopting, cookie) == ({}, None)  # requests that were under way are told apart, and see nothing
    clock.advance(timedelta(minutes=2))
    assert visit(timed_adopting, cookie) == ({}, None)


def test_an_old_cookie_that_was_kept_is_no_sign_of_a_theft(kind: Kind, clock: ManualClock) -> None:
    heard: list[Any] = []
    old = shop(old="keep")
    events = Events(on_reused=heard.append)
    face = Face(
        kind,
        "memory://",
        clock=clock,
        adopt=[old],
        renew_every=timedelta(minutes=15),
        end_on_reuse=True,
        events=events,
    )
    cookie = old.put("s1", user="alice")
    ours = browser_cookie(visit(face, cookie)[1])
    clock.advance(timedelta(minutes=20))
    renewed = browser_cookie(visit(face, ours)[1])
    assert visit(face, cookie)[0] == {"user": "alice"}  # in the grace
    clock.advance(timedelta(minutes=2))
    assert visit(face, cookie)[0] == {}
    assert heard == []
    assert visit(face, renewed)[0] == {"user": "alice"}


def test_a_logout_before_loading_ends_the_old_session(adopting: Face, old: OldShop) -> None:
    cookie = old.put("s1", user="alice")
    record = dict(old.shelf.records)
    session: AnySession = adopting.sessions.begin([cookie.encode()])
    repr(session)
    session.destroy()
    adopting.respond(session)
    assert old.shelf.records == {}
    assert old_cookie(adopting, session) == CLEARS_OLD
    old.shelf.records.update(record)
    assert visit(adopting, cookie) == ({}, None)


def test_a_lazy_session_that_is_not_used_is_not_adopted(adopting: Face, old: OldShop) -> None:
    session: AnySession = adopting.sessions.begin([old.put("s1", user="alice").encode()])
    assert adopting.respond(session) is None
    assert old_cookie(adopting, session) is None
    assert (old.shelf.calls, adopting.everything()) == ([], b"")


# --- what the store and the log say ---------------------------------------------------------------------------------


def test_neither_the_store_nor_the_log_holds_a_secret(
    adopting: Face, old: OldShop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session = come(adopting, old.put("a-secret-old-id", user="alice"))
    adopting.respond(session)
    held = adopting.everything()
    secret = session._work.identity.secret
    assert held != b""
    assert secret not in held
    assert secret.hex().encode() not in held
    assert b"a-secret-old-id" not in held
    assert "a-secret-old-id" not in caplog.text + repr(session) + repr(session._work.claimed)
    assert session.token not in caplog.text


def test_the_new_id_is_known_to_nobody_without_the_secret_key(kind: Kind, old: OldShop) -> None:
    cookie = old.put("s1", user="alice")
    handles = {come(Face(kind, "memory://", secret_keys=[key], adopt=[old]), cookie).handle for key in (KEY, OLD_KEY)}
    handles |= {come(Face(kind, "memory://", secret_keys=[KEY], adopt=[old]), cookie).handle}
    assert len(handles) == 3


# --- what can't be adopted ------------------------------------------------------------------------------------------


def fail(_: Any) -> Any:
    message = "the secret value"
    raise KeyError(message)


@pytest.mark.parametrize(
    ("settings", "record", "reason"),
    [
        ({}, b"{not JSON the secret value", "it is not JSON"),
        ({}, b'["the secret value"]', "does not hold a mapping"),
        ({}, b"\x80\x04\x95pickle the secret value", "it is pickled"),
        ({}, b"[" * 100_000, "it is not JSON"),
        ({}, b'{"a":"' + b"x" * 1_048_576 + b'"}', "at most 1048576 are read"),
        ({}, b'{"a":' + b"[" * 70 + b"]" * 70 + b"}", "nested deeper"),
        ({"user_id": fail}, b"{}", "KeyError in line"),
        ({"convert": fail}, b"{}", "KeyError in line"),
        ({"convert": lambda _: [1]}, b"{}", "convert gave a list"),
        ({"convert": lambda _: {1: 1}}, b"{}", "keys are strings"),
        ({"convert": lambda _: {"a": object()}}, b"{}", "'object'"),
        ({"user_id": lambda _: 1.5}, b"{}", "user_id gave a float"),
        ({"user_id": lambda _: True}, b"{}", "user_id gave a bool"),
        ({"user_id": lambda _: ""}, b"{}", "A user ID has 1 to"),
    ],
)
def test_what_cannot_be_adopted_is_reported_and_left_as_it_is(
    kind: Kind, settings: Any, record: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    old = shop(**settings)
    old.shelf.records["s1"] = record
    face = Face(kind, "memory://", adopt=[old])
    session = come(face, "old=s1.genuine")
    assert session.is_new
    session["begins"] = "anew"
    face.respond(session)
    assert old.shelf.records == {"s1": record}
    assert old_cookie(face, session) is None
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert line.startswith("An old session of old shop can't be adopted and is left as it is")
    assert reason in line
    assert "the secret value" not in caplog.text


@pytest.mark.parametrize("in_cookie", [False, True])
@pytest.mark.parametrize("user_id", [user, None])
def test_a_session_beyond_our_limits_is_reported_and_left_as_it_is(
    kind: Kind, caplog: pytest.LogCaptureFixture, in_cookie: bool, user_id: Any
) -> None:
    old = shop(in_cookie=in_cookie, user_id=user_id)
    face = Face(kind, "memory://", adopt=[old], max_keys=2)
    session = come(face, old.put("s1", user="alice", a=1, b=2))
    assert session.is_new
    face.respond(session)
    assert in_cookie or old.shelf.records
    assert old_cookie(face, session) is None
    assert "max_keys allows 2" in caplog.text
    assert face.everything() == b""


# --- outages and damage ---------------------------------------------------------------------------------------------


def test_while_the_old_records_are_out_of_reach_nobody_is_logged_out(adopting: Face, old: OldShop) -> None:
    cookie = old.put("s1", user="alice")
    old.shelf.fails.add("get")
    with pytest.raises(StoreUnavailable):
        come(adopting, cookie)
    old.shelf.fails.clear()
    assert visit(adopting, cookie)[0] == {"user": "alice"}


def test_an_old_record_that_cannot_be_deleted_is_reported_and_not_adopted_again(
    adopting: Face, old: OldShop, caplog: pytest.LogCaptureFixture
) -> None:
    cookie = old.put("s1", user="alice")
    old.shelf.fails.add("delete")
    set_cookie = visit(adopting, cookie)[1]
    assert "its old record could not be deleted" in caplog.text
    adopting.revoke(browser_cookie(set_cookie).partition("=")[2])
    assert visit(adopting, cookie)[0] == {}


def test_a_damaged_marker_keeps_the_old_session_from_being_adopted_again(
    adopting: Face, old: OldShop, caplog: pytest.LogCaptureFixture
) -> None:
    cookie = old.put("s1", user="alice")
    record = dict(old.shelf.records)
    set_cookie = visit(adopting, cookie)[1]
    store = adopting.sessions.store
    (key,) = [key for key in adopting.run(store.scan("", 100))[0] if key.startswith("adopted-")]
    adopting.run(store.delete(key))
    adopting.run(store.create(key, b"\x05damaged", 60_000))
    adopting.revoke(browser_cookie(set_cookie).partition("=")[2])
    old.shelf.records.update(record)
    for _ in range(2):
        assert visit(adopting, cookie)[0] == {}
    assert f"The record of {key} can't be used" in caplog.text


def test_closing_the_sessions_closes_the_old_records(adopting: Face, old: OldShop) -> None:
    adopting.run(adopting.sessions.close())
    assert old.shelf.calls == ["close"]


# --- sessions that are all in their cookie ---------------------------------------------------------------------------


@pytest.fixture
def in_cookie() -> OldShop:
    return shop(in_cookie=True)


def test_a_cookie_of_a_user_is_adopted_once(kind: Kind, store_url: str, in_cookie: OldShop) -> None:
    face = Face(kind, store_url, adopt=[in_cookie])
    cookie = in_cookie.put("", user="alice", n=1)
    first, second = come(face, cookie), come(face, cookie)
    assert first.handle == second.handle
    assert first.user_id == "alice"
    set_cookie = face.respond(first)
    assert old_cookie(face, first) == CLEARS_OLD
    face.revoke(browser_cookie(set_cookie).partition("=")[2])
    assert visit(face, cookie) == ({}, None)


def test_two_clients_with_the_same_cookie_of_nobody_share_no_session(
    kind: Kind, store_url: str, in_cookie: OldShop
) -> None:
    """Both were given `{"lang": "de"}` in the same second, so their cookies are equal to the byte."""
    face = Face(kind, store_url, adopt=[in_cookie])
    cookie = in_cookie.put("", lang="de")
    first, second = come(face, cookie), come(face, cookie)
    first["cart"] = ["hat"]
    assert second["lang"] == "de"
    tokens = [browser_cookie(face.respond(session)) for session in (first, second)]
    assert first.handle != second.handle
    assert visit(face, tokens[0])[0] == {"lang": "de", "cart": ["hat"]}
    assert visit(face, tokens[1])[0] == {"lang": "de"}
    assert old_cookie(face, first) == CLEARS_OLD


def test_a_request_that_does_not_use_what_is_in_a_cookie_of_nobody_leaves_nothing_behind(
    kind: Kind, in_cookie: OldShop
) -> None:
    """Anybody who has one could fill the store by it, for no marker says that it was adopted."""
    face = Face(kind, "memory://", adopt=[in_cookie])
    cookie = in_cookie.put("", lang="de" * 500)
    for _ in range(3):
        session = come(face, cookie)
        assert face.respond(session) is None
        assert old_cookie(face, session) is None
        assert face.everything() == b""
    session = come(face, cookie)
    assert session["lang"] == "de" * 500
    assert face.respond(session) is not None
    assert old_cookie(face, session) == CLEARS_OLD


def test_a_failed_response_leaves_a_cookie_of_nobody(kind: Kind, in_cookie: OldShop) -> None:
    face = Face(kind, "memory://", adopt=[in_cookie])
    session = come(face, in_cookie.put("", lang="de"))
    assert face.respond(session, 500) is None
    assert old_cookie(face, session) is None
    assert face.everything() == b""


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_cookie_of_the_same_name_as_ours_is_replaced_and_not_deleted(kind: Kind) -> None:
    old = shop(cookie_name="session")
    face = Face(kind, "memory://", adopt=[old], cookie=CookieConfig(secure=False))
    old.put("s1", user="alice")
    session = come(face, "session=s1.genuine")
    assert session.user_id == "alice"
    assert browser_cookie(face.respond(session)) == f"session={session.token}"
    assert old_cookie(face, session) is None


@pytest.mark.parametrize(
    ("adopt", "reason"),
    [
        ([{"cookie_name": "session", "old": "keep"}], "ours has the same name"),
        ([{}, {}], "two adopters have the same cookie 'old'"),
        ([{"cookie_name": "a b"}], "cookie name"),
        ([{"cookie_path": "nowhere"}], "cookie path"),
        ([{"lifetime": timedelta(0)}], "lifetime: expected one second or more"),
        ([{"old": "forget"}], "old: expected 'remove' or 'keep', got 'forget'"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(kind: Kind, adopt: list[Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Face(kind, "memory://", adopt=[shop(**each) for each in adopt], cookie=CookieConfig(secure=False))


def test_adopters_come_in_a_list(kind: Kind) -> None:
    with pytest.raises(ConfigurationError, match="adopt: expected a list of adopters, got a OldShop"):
        Face(kind, "memory://", adopt=shop())


def test_the_old_cookie_is_deleted_where_it_was_set(kind: Kind) -> None:
    old = OldShop(shelf=Shelf(), cookie_path="/app", cookie_domain="example.com")
    face = Face(kind, "memory://", adopt=[old])
    session = come(face, "old=gone.genuine")
    face.respond(session)
    cleared = old_cookie(face, session)
    assert cleared is not None
    assert "; Path=/app; Domain=example.com;" in cleared
