"""Only an exact name in the Cookie header counts, and what leaves is what browsers accept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from faces import KEY, OLD_KEY, Face, Kind
from hypothesis import given
from hypothesis import strategies as st

from coatcheck import CookieConfig
from coatcheck.cookie import CookieReader, CookieWriter
from coatcheck.events import Event, Events
from coatcheck.headers import TEXT
from coatcheck.testing import ManualClock

READER = CookieReader(CookieConfig())


@pytest.mark.parametrize(
    "header",
    [
        b"__Host-session=T", b"a=b; __Host-session=T", b"__Host-session=T; a=b", b"a=b;__Host-session=T;c=d",
        b" \t__Host-session=T \t", b"foo bar=1; __Host-session=T", b"x\x00y=1; __Host-session=T",
        b"x=\xc2\x85; __Host-session=T", b"; ; ;;=;__Host-session=T", b'x="; __Host-session=T',
    ],
)  # fmt: skip
def test_our_cookie_is_found_whatever_stands_around_it(header: bytes) -> None:
    assert READER.find([header]) == [b"T"]


@pytest.mark.parametrize(
    "header",
    [
        b"", b"a=b", b"__host-session=T", b"__HOST-SESSION=T", b"x__Host-session=T", b"__Host-session =T",
        b"%5F%5FHost-session=T", b"=__Host-session=T", b"\xc2\xa0__Host-session=T", b"\x0b__Host-session=T",
        b"$Version=1, __Host-session=T", b"a=__Host-session=T", b"__Host-session", b"\n__Host-session=T",
        b"session=T", b"__Host-session2=T", b"\xe2\x80\x82__Host-session=T",
    ],
)  # fmt: skip
def test_what_is_not_exactly_our_cookie_is_not_taken_for_it(header: bytes) -> None:
    assert READER.find([header]) == []


def test_every_occurrence_is_found_in_all_headers() -> None:
    assert READER.find([b"__Host-session=A; __Host-session=B", b"x=y", b"__Host-session=C"]) == [b"A", b"B", b"C"]


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_no_header_raises_an_error(headers: list[bytes]) -> None:
    READER.find([*headers, *(header + b"__Host-session=" + header for header in headers)])


def attributes(set_cookie: str) -> list[str]:
    return set_cookie.split("; ")


def test_the_default_cookie_is_as_safe_as_browsers_allow() -> None:
    name_and_value, *rest = attributes(CookieWriter(CookieConfig()).issue("TOKEN", 60))
    assert name_and_value == "__Host-session=TOKEN"
    assert sorted(rest) == ["HttpOnly", "Max-Age=60", "Path=/", "SameSite=Lax", "Secure"]


@pytest.mark.parametrize(
    "config",
    [
        CookieConfig(),
        CookieConfig(secure=False),
        CookieConfig(domain="example.com", path="/app"),
        CookieConfig(same_site="none", partitioned=True, http_only=False),
        CookieConfig(prefix="__Host-Http-", same_site="strict"),
    ],
)
def test_a_cookie_is_deleted_with_the_attributes_that_it_was_set_with(config: CookieConfig) -> None:
    writer = CookieWriter(config)
    set_name, *set_rest = attributes(writer.issue("TOKEN", None))
    clear_name, *clear_rest = attributes(writer.clear)
    assert set_name == f"{config.full_name}=TOKEN"
    assert clear_name == f"{config.full_name}="
    assert set(clear_rest) - set(set_rest) == {"Max-Age=0", "Expires=Thu, 01 Jan 1970 00:00:00 GMT"}
    assert set(set_rest) < set(clear_rest)


@pytest.mark.parametrize(
    "cookie",
    [
        "__Host-session=", "__Host-session=A", "__Host-session=" + "A" * 92, "__Host-session=" + "A" * 100_000,
        "__Host-session=\x00", "__Host-session=../../etc/passwd", "{name}={other_name}", "{name}={retired}",
        "{name}={cut}", "__Host-session=" + "*" * 92,
    ],
)  # fmt: skip
def test_a_bad_cookie_is_no_session_costs_the_store_nothing_and_is_cleared_once(
    kind: Kind, cookie: str, caplog: pytest.LogCaptureFixture
) -> None:
    face = Face(kind, "memory://")
    store: Any = face.sessions.store
    good, rival = face.new(user="alice"), face.new(user="mallory")
    retired = Face(kind, store, secret_keys=[OLD_KEY]).new(user="alice")
    other_name = Face(kind, store, secret_keys=[KEY], cookie=CookieConfig(name="other")).new(user="alice")
    filled = cookie.format(
        name="__Host-session", good=good, rival=rival, retired=retired, other_name=other_name, cut=good[:-4]
    )
    calls: list[str] = []
    store.load = calls.append
    session = face.sessions.begin([filled.encode("utf-8")])
    face.run(session.load())
    assert session.is_new
    assert session.get("user") is None
    assert "=; Max-Age=0" in (face.respond(session) or "")
    assert face.respond(session) is None
    assert calls == []
    has_our_form = any(part in cookie for part in ("A" * 92, "other_name", "retired")) and len(cookie) < 1_000
    assert [record.getMessage()[:24] for record in caplog.records] == ["A cookie __Host-session "] * has_our_form
    assert good not in caplog.text


def test_cookies_of_keys_that_a_process_does_not_have_fill_no_log(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """Else nothing would tell that two processes have different keys, and users are logged out now and then."""
    face = Face(kind, "memory://")
    token = Face(kind, "memory://", secret_keys=[OLD_KEY]).new(user="alice")
    for _ in range(3):
        assert face.request(token).is_new
    (line,) = [record.getMessage() for record in caplog.records]
    assert "secret keys" in line
    assert token not in line


@pytest.mark.parametrize(
    "cookie",
    [
        "; ".join(["{name}={good}"] * 20), "{name}={good}; {name}={rival}",
        "{name}={good}; " + "; ".join(["{name}=planted"] * 8),
    ],
)  # fmt: skip
def test_ambiguous_cookies_are_no_session_and_ours_is_not_cleared_for_a_planted_one(kind: Kind, cookie: str) -> None:
    """Only the client's own would go: a sibling's has another domain or path, and would then be the only one."""
    seen: list[Event] = []
    face = Face(kind, "memory://", events=Events(on_refused=seen.append))
    good, rival = face.new(user="alice"), face.new(user="mallory")
    session = face.sessions.begin([cookie.format(name="__Host-session", good=good, rival=rival).encode()])
    face.run(session.load())
    assert session.is_new
    assert session.get("user") is None
    assert face.respond(session) is None
    assert [event.reason for event in seen] == ["ambiguous"]


def test_two_cookies_of_one_session_are_not_ambiguous_and_the_newest_counts(kind: Kind) -> None:
    """A browser has two when the cookie's domain was changed: the old one is never replaced by the new one."""
    clock = ManualClock()
    face = Face(kind, "memory://", clock=clock)
    old = face.new(user="alice")
    clock.advance(timedelta(hours=1))
    session = face.request(old)
    assert session["user"] == "alice"
    new = (face.respond(session) or "").partition("=")[2].partition(";")[0]
    assert new != old
    for both in (f"__Host-session={old}; __Host-session={new}", f"__Host-session={new}; __Host-session={old}"):
        session = face.sessions.begin([both.encode()])
        face.run(session.load())
        assert session["user"] == "alice"
        assert face.respond(session) is None, "by the newest, nothing is due"


def test_a_genuine_cookie_beside_forged_ones_is_accepted(kind: Kind) -> None:
    face = Face(kind, "memory://")
    token = face.new(user="alice")
    session = face.sessions.begin([b"__Host-session=" + b"A" * 92 + b"; __Host-session=" + token.encode()])
    face.run(session.load())
    assert session["user"] == "alice"


def test_a_cookie_is_not_cleared_that_an_application_further_in_has_just_set() -> None:
    """One that is mounted may have the same sessions, by a middleware of its own framework, and log somebody in."""
    writer = CookieWriter(CookieConfig())
    set_further_in = ("Set-Cookie", writer.issue("A" * 92, 60))
    headers = [set_further_in]
    TEXT.add(headers, accessed=True, set_cookie=writer.clear)
    assert [value for name, value in headers if name.lower() == "set-cookie"] == [set_further_in[1]]
    for others in ([], [("set-cookie", "__Host-session-2=A; Path=/")]):
        headers = list(others)
        TEXT.add(headers, accessed=True, set_cookie=writer.clear)
        assert ("set-cookie", writer.clear) in headers
    headers = [set_further_in]
    renewed = writer.issue("B" * 92, 60)
    TEXT.add(headers, accessed=True, set_cookie=renewed)
    assert headers[-2:] == [("set-cookie", renewed), ("vary", "Cookie")]
