"""CSRF protection: the rules and the tokens, with sessions of both façades."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from faces import Face, Kind
from hypothesis import given
from hypothesis import strategies as st

from coatcheck import log_lines
from coatcheck.csrf import Attempt, CsrfPolicy, CsrfRefused, csrf_field, csrf_token
from coatcheck.errors import ConfigurationError
from coatcheck.guard import Request
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore

OWN = "https://shop.test"


@pytest.fixture(params=get_args(Kind))
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    yield Face(request.param, "memory://")
    Face.close_all()


def attempt(**differences: str) -> Attempt:
    usual = {"method": "POST", "path": "/", "scheme": "https", "host": "shop.test", "origin": "", "sec_fetch_site": ""}
    return Attempt(**usual | differences)


def logged_in(face: Face, user: str = "alice") -> tuple[Any, str]:
    """Give a stored session of a user, and a token that its page was given."""
    session = face.request()
    session.login(user)
    token = csrf_token(session)
    face.respond(session)
    return face.request(session.token), token


@cache
def a_session() -> Any:
    session, _ = logged_in(Face("sync", "memory://"))
    return session


def accepts(session: Any, token: str | None) -> bool:
    try:
        CsrfPolicy().check_token(session, token)
    except CsrfRefused:
        return False
    return True


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_every_token_of_a_session_looks_different_and_all_are_accepted(face: Face) -> None:
    session, first = logged_in(face)
    tokens = [first, *(csrf_token(session) for _ in range(20))]
    assert len({token[:4] for token in tokens}) > 15
    assert len({token[-6:] for token in tokens}) == 21
    assert all(accepts(session, token) for token in tokens)


def test_a_token_of_another_session_is_refused_also_of_the_same_user(face: Face) -> None:
    mine, _ = logged_in(face)
    _, of_another_device = logged_in(face)
    _, of_another_user = logged_in(face, "bob")
    assert not accepts(mine, of_another_device)
    assert not accepts(mine, of_another_user)


def test_a_token_with_any_character_changed_is_refused(face: Face) -> None:
    session, token = logged_in(face)
    for position in range(len(token)):
        other = "A" if token[position] != "A" else "B"
        assert not accepts(session, token[:position] + other + token[position + 1 :])


@pytest.mark.parametrize(
    "token", [None, "", "x", "A" * 64, "A" * 65, "=" * 64, "é" * 64, "\x00" * 64, "🙂" * 64, "!" * 64]
)
def test_what_is_no_token_is_refused(face: Face, token: str | None) -> None:
    session, _ = logged_in(face)
    assert not accepts(session, token)


def test_a_session_without_secret_accepts_nothing(face: Face) -> None:
    session = face.request()
    session.login("alice")
    for token in ("", "A" * 64):
        assert not accepts(session, token)


def test_a_login_makes_tokens_of_before_worthless(face: Face) -> None:
    session = face.request()
    session["cart"] = ["book"]
    before = csrf_token(session)
    face.respond(session)
    session = face.request(session.token)
    assert accepts(session, before)
    session.login("alice")
    assert session["cart"] == ["book"]
    assert not accepts(session, before)
    after = csrf_token(session)
    face.respond(session)
    assert accepts(face.request(session.token), after)


def test_a_login_of_the_same_user_again_makes_tokens_of_before_worthless() -> None:
    from coatcheck.testing import ManualClock

    clock = ManualClock()
    face = Face("sync", SyncMemoryStore(clock=clock), clock=clock)
    session, before = logged_in(face)
    clock.now += 1
    session.login("alice")
    assert not accepts(session, before)
    Face.close_all()


def test_a_logout_makes_tokens_worthless(face: Face) -> None:
    session, token = logged_in(face)
    session.logout(keep=["theme"])
    session["theme"] = "dark"
    csrf_token(session)
    assert not accepts(session, token)


def test_a_new_id_leaves_open_forms_valid(face: Face) -> None:
    session, token = logged_in(face)
    session.renew()
    face.respond(session)
    assert accepts(face.request(session.token), token)


def test_a_token_starts_no_session(face: Face) -> None:
    session = face.request()
    assert csrf_token(session) == ""
    assert face.respond(session) is None


def test_a_session_that_begins_with_this_response_has_tokens(face: Face) -> None:
    session = face.request()
    session["cart"] = ["book"]
    token = csrf_token(session)
    face.respond(session)
    assert accepts(face.request(session.token), token)


def test_only_the_first_token_of_a_session_writes(face: Face) -> None:
    session, _ = logged_in(face)
    csrf_token(session)
    assert not session._work.patch()


@given(token=st.text(max_size=80) | st.text("AZaz09-_=+/!\n é", min_size=64, max_size=64))
def test_no_text_that_a_client_may_send_breaks_the_check(token: str) -> None:
    assert not accepts(a_session(), token)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_pages_that_are_made_at_the_same_time_all_have_valid_tokens(kind: Kind) -> None:
    face = Face(kind, MemoryStore() if kind == "async" else SyncMemoryStore())
    session = face.request()
    session.login("alice")
    face.respond(session)
    requests = [face.request(session.token) for _ in range(3)]
    tokens = [csrf_token(request) for request in requests]
    for request in requests:
        face.respond(request)
    last = face.request(session.token)
    assert all(accepts(last, token) for token in tokens)
    Face.close_all()


def test_a_secret_that_the_application_overwrote_is_replaced(face: Face) -> None:
    session, token = logged_in(face)
    session["_csrf"] = 7
    assert not accepts(session, token)
    assert accepts(session, csrf_token(session))


def test_the_session_does_not_hold_what_pages_are_given(face: Face) -> None:
    session, token = logged_in(face)
    assert session["_csrf"] not in token
    assert token not in session["_csrf"]


def test_the_field_is_html_that_templates_take_as_it_is(face: Face) -> None:
    session, _ = logged_in(face)
    field: Any = csrf_field(session)
    assert field.__html__() == field
    before, _, rest = field.partition('value="')
    assert before == '<input type="hidden" name="csrf_token" '
    token, _, end = rest.partition('"')
    assert end == ">"
    assert accepts(session, token)


# --- where it comes from ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "differences",
    [
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "same-origin", "origin": "https://behind-a-proxy.test"},
        {"origin": OWN},
        {"origin": "HTTPS://SHOP.test"},
        {"origin": "https://shop.test:8443", "host": "shop.test:8443"},
        {"origin": "https://shop.test", "host": "shop.test:443"},
        {"origin": "http://shop.test", "scheme": "http"},
        {"origin": OWN, "scheme": "http"},  # a proxy ends TLS
        {"origin": "http://[::1]:8000", "host": "[::1]:8000", "scheme": "http"},
        {"origin": "https://partner.test", "sec_fetch_site": "cross-site"},
        {"origin": "https://partner.test"},
    ],
)
def test_a_page_of_this_site_or_a_trusted_one_may_send(differences: dict[str, str]) -> None:
    assert CsrfPolicy(trusted_origins=["https://Partner.test:443"]).check_origin(attempt(**differences))


@pytest.mark.parametrize(
    "differences",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "something new"},
        {"sec_fetch_site": "same-origin, cross-site"},
        {"sec_fetch_site": "cross-site", "origin": OWN},
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": "https://sub.shop.test"},
        {"origin": "https://shop.test.evil.test"},
        {"origin": "https://shop.test@evil.test"},
        {"origin": "https://evil.test/https://shop.test"},
        {"origin": "http://shop.test"},  # whoever can change plain http must not reach https
        {"origin": "https://shop.test:8443"},
        {"origin": "https://shop.test", "host": "shop.test:8443"},
        {"origin": "ftp://shop.test"},
        {"origin": "shop.test"},
        {"origin": "https://", "host": ""},
        {"origin": "https://shop.test, https://evil.test"},
    ],
)
def test_a_page_of_another_site_is_refused(differences: dict[str, str]) -> None:
    with pytest.raises(CsrfRefused) as refused:
        CsrfPolicy().check_origin(attempt(**differences))
    assert refused.value.code == "csrf_origin"


def test_without_word_from_a_browser_nothing_is_known() -> None:
    assert not CsrfPolicy().check_origin(attempt())


# --- what is looked at ------------------------------------------------------------------------------------------------


def test_only_methods_that_change_something_are_looked_at() -> None:
    policy = CsrfPolicy()
    assert not any(policy.concerns(method, "/") for method in ("GET", "HEAD", "OPTIONS", "TRACE"))
    assert all(policy.concerns(method, "/") for method in ("POST", "PUT", "PATCH", "DELETE", "get", "PURGE", ""))


def test_a_path_is_exempt_with_all_that_is_below_it_and_nothing_beside_it() -> None:
    policy = CsrfPolicy(exempt=["/webhooks"])
    assert not policy.concerns("POST", "/webhooks")
    assert not policy.concerns("POST", "/webhooks/stripe")
    assert policy.concerns("POST", "/webhooks-admin")
    assert policy.concerns("POST", "/")


@pytest.mark.parametrize(
    "path",
    [
        *("/webhooks/../pay", "/webhooks/..", "/webhooks/./../pay", "/webhooks/stripe/../../pay", "/webhooks/."),
        *("/webhooks/%2e%2e/pay", "/webhooks/.%2E/pay", "/webhooks/..%2fpay"),
    ],
)
def test_a_path_that_may_lead_elsewhere_is_never_exempt(path: str) -> None:
    assert CsrfPolicy(exempt=["/webhooks"]).concerns("POST", path)
    assert CsrfPolicy(exempt=["/webhooks/"]).concerns("POST", path)


def test_a_name_with_dots_in_it_is_exempt_like_any_other() -> None:
    policy = CsrfPolicy(exempt=["/webhooks"])
    assert not any(policy.concerns("POST", f"/webhooks/{name}") for name in ("...", "..a", "a.", ".well-known", "v1.2"))


def test_a_token_is_needed_where_there_is_something_to_protect(face: Face) -> None:
    policy = CsrfPolicy()
    nobody = face.request()
    assert not policy.needs_token(nobody, is_own_page=False)
    cart = face.request()
    cart["cart"] = ["book"]
    assert policy.needs_token(cart, is_own_page=False)  # as a session is that was just adopted
    face.respond(cart)
    cart = face.request(cart.token)
    assert policy.needs_token(cart, is_own_page=False)
    assert not policy.needs_token(cart, is_own_page=True)
    alice, _ = logged_in(face)
    assert policy.needs_token(alice, is_own_page=True)
    assert policy.needs_token(alice, is_own_page=False)


def test_what_a_client_sends_breaks_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    hostile = "/\x1b[2J\n2026-01-01 all is well"
    CsrfPolicy().answer(CsrfRefused("No", "csrf_origin"), Request(hostile, hostile, "", ""))
    (line,) = caplog.messages
    assert line.isprintable()


def test_refused_requests_fill_no_log_and_are_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(log_lines, "time", SimpleNamespace(monotonic=lambda: now[0]))
    policy = CsrfPolicy()
    for _ in range(1000):
        assert policy.answer(CsrfRefused("No", "csrf_origin"), Request("POST", "/buy", "", "")).status == 403
    (line,) = caplog.messages
    assert line.startswith("A 'POST' request for '/buy' was refused: csrf_origin (it comes from another site's page")
    now[0] += 5
    policy.answer(CsrfRefused("No", "csrf_origin"), Request("POST", "/buy", "", ""))
    assert caplog.messages == [line, f"{line} (999 more since the last line)"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_a_query_with_a_secret_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    CsrfPolicy().answer(CsrfRefused("No", "csrf_origin"), Request("POST", "/password?token=s3cret", "", ""))
    (line,) = caplog.messages
    assert "'/password'" in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    "settings",
    [
        {"trusted_origins": "https://shop.test"},
        {"trusted_origins": ["shop.test"]},
        {"trusted_origins": ["https://shop.test/"]},
        {"trusted_origins": ["https://"]},
        {"trusted_origins": ["*"]},
        {"trusted_origins": ["https://["]},
        {"exempt": "/webhooks"},
        {"exempt": ["webhooks"]},
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        CsrfPolicy(**settings)
