"""Every example that has pages, as its users run and visit it: the same promises whatever the framework."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import pytest
from shop_driver import ShopProcess, Visitor, shops

GUARDED = ("/profile", "/settings", "/devices")
CHANGES = {
    "/settings": {"theme": "dark"},
    "/devices/revoke": {},
    "/devices/revoke-others": {},
    "/logout": {},
}


@pytest.fixture(scope="module", params=shops(), ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def shop(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopProcess]:
    with ShopProcess(example, tmp_path_factory.mktemp(example.stem)) as process:
        yield process


class NewVisitor(Protocol):
    def __call__(self, user_id: str = "", user_agent: str = "Firefox") -> Visitor: ...


@pytest.fixture
def new_visitor(shop: ShopProcess) -> Iterator[NewVisitor]:
    """Make visitors, logged in if they are given a user ID. All are logged out at the end."""
    with ExitStack() as stack:

        def make(user_id: str = "", user_agent: str = "Firefox") -> Visitor:
            visitor = Visitor(shop, user_agent)
            stack.callback(visitor.leave)
            if user_id:
                assert visitor.log_in(user_id).status == 303
            return visitor

        yield make


def handles_shown_to(visitor: Visitor) -> list[str]:
    """Give the handles of the user's other sessions, from the devices page."""
    return [form.fields["handle"] for form in visitor.get("/devices").forms_to("/devices/revoke")]


# --- login ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("username", "password"), [("alice", "builder"), ("mallory", ""), ("", ""), ("alice", "")])
def test_wrong_password_is_answered_with_the_form_and_401(
    new_visitor: NewVisitor, username: str, password: str
) -> None:
    visitor = new_visitor()
    page = visitor.submit("/login?next=/devices", "/login", username=username, password=password)
    assert page.status == 401
    assert next(page.forms_to("/login")).fields["next"] == "/devices"
    assert not visitor.is_logged_in()


@pytest.mark.parametrize("path", GUARDED)
def test_guarded_page_sends_a_browser_to_the_login_and_the_login_sends_it_back(
    new_visitor: NewVisitor, path: str
) -> None:
    visitor = new_visitor()
    refused = visitor.get(path)
    location = urlsplit(refused.headers["location"])
    assert (refused.status, location.path, parse_qs(location.query)) == (303, "/login", {"next": [path]})
    welcomed = visitor.log_in("alice", following=path)
    assert (welcomed.status, welcomed.headers["location"]) == (303, path)
    assert visitor.get(path).status == 200


@pytest.mark.parametrize("path", CHANGES)
def test_guarded_change_is_refused_to_strangers(new_visitor: NewVisitor, path: str) -> None:
    visitor = new_visitor()
    token = next(visitor.get("/login").forms_to("/login")).fields
    refused = visitor.post(path, token | CHANGES[path])
    assert refused.status == 303
    assert urlsplit(refused.headers["location"]).path in {"/login", "/"}
    assert not visitor.is_logged_in()


@pytest.mark.parametrize("target", ["//evil.test/", "https://evil.test/", "/\\evil.test"])
def test_login_leads_to_no_other_site(new_visitor: NewVisitor, target: str) -> None:
    page = new_visitor().submit("/login", "/login", username="alice", password="wonderland", next=target)
    assert (page.status, page.headers["location"]) == (303, "/profile")


def test_login_gives_the_session_a_new_id(new_visitor: NewVisitor) -> None:
    visitor = new_visitor()
    form = next(visitor.get("/login").forms_to("/login"))
    before = dict(visitor.cookies)
    visitor.post("/login", form.fields | {"username": "alice", "password": "wonderland"})
    assert visitor.is_logged_in()
    assert visitor.cookies["session"] != before.get("session")
    attacker = new_visitor()
    attacker.cookies = before
    assert not attacker.is_logged_in()


def test_logout_ends_the_session_even_for_a_copied_cookie(new_visitor: NewVisitor) -> None:
    visitor, thief = new_visitor("alice"), new_visitor()
    thief.cookies = dict(visitor.cookies)
    assert thief.is_logged_in()
    page = visitor.submit("/profile", "/logout")
    assert (page.status, page.headers["location"]) == (303, "/")
    assert not visitor.is_logged_in()
    assert not thief.is_logged_in()


# --- what a session keeps ---------------------------------------------------------------------------------------------


def test_start_page_says_who_it_is(new_visitor: NewVisitor) -> None:
    assert "Hello, alice" in new_visitor("alice").get("/").lines
    assert "Hello" in new_visitor().get("/").lines


def test_visits_are_counted_for_each_session_by_itself(new_visitor: NewVisitor) -> None:
    one, other = new_visitor("alice"), new_visitor("alice")
    assert "1" in one.get("/profile").lines
    assert "2" in one.get("/profile").lines
    assert "1" in other.get("/profile").lines


def test_settings_are_kept_and_said_once(new_visitor: NewVisitor) -> None:
    visitor, other = new_visitor("alice"), new_visitor("alice")
    assert visitor.get("/settings").theme == "system"
    saved = visitor.submit("/settings", "/settings", theme="dark")
    assert (saved.status, saved.headers["location"]) == (303, "/settings")
    told = visitor.get("/settings")
    assert (told.theme, "Saved." in told.lines) == ("dark", True)
    assert next(told.forms_to("/settings")).fields["theme"] == "dark"
    again = visitor.get("/profile")
    assert (again.theme, "Saved." in again.lines) == ("dark", False)
    assert other.get("/settings").theme == "system"


def test_theme_that_there_is_not_is_not_kept(new_visitor: NewVisitor) -> None:
    visitor = new_visitor("alice")
    assert visitor.submit("/settings", "/settings", theme='purple"><script>').status < 500
    assert visitor.get("/settings").theme == "system"


# --- devices ----------------------------------------------------------------------------------------------------------


def test_devices_are_listed_and_the_own_one_is_marked(new_visitor: NewVisitor) -> None:
    one = new_visitor("alice", user_agent="Laptop <1>")
    new_visitor("alice", user_agent="Phone")
    new_visitor("bob", user_agent="Stranger")
    lines = one.get("/devices").lines
    assert [line for line in lines if line in {"Laptop <1>", "Phone", "Stranger"}] in (
        ["Laptop <1>", "Phone"],
        ["Phone", "Laptop <1>"],
    )
    assert (lines.count("This device"), lines.count("Another device")) == (1, 1)


def test_device_that_is_signed_out_is_out_and_no_other(new_visitor: NewVisitor) -> None:
    one, second, third = (new_visitor("alice", user_agent=name) for name in ("One", "Second", "Third"))
    (in_second_only,) = set(handles_shown_to(one)) - set(handles_shown_to(second))
    assert one.submit("/devices", "/devices/revoke", handle=in_second_only).status == 303
    assert (one.is_logged_in(), second.is_logged_in(), third.is_logged_in()) == (True, False, True)


def test_signing_out_everywhere_else_leaves_this_device_and_other_users(new_visitor: NewVisitor) -> None:
    one, second, third, bob = *(new_visitor("alice") for _ in range(3)), new_visitor("bob")
    assert one.submit("/devices", "/devices/revoke-others").status == 303
    assert not second.is_logged_in()
    assert not third.is_logged_in()
    assert one.is_logged_in()
    assert bob.is_logged_in()
    assert handles_shown_to(one) == []


def test_handle_of_another_user_gives_no_power(new_visitor: NewVisitor) -> None:
    alice, second, bob = new_visitor("alice"), new_visitor("alice"), new_visitor("bob")
    new_visitor("bob")  # so that his page has the form
    (handle,) = handles_shown_to(alice)
    for foreign in (handle, "", "x" * 43, "'"):
        assert bob.submit("/devices", "/devices/revoke", handle=foreign).status < 500
    assert alice.is_logged_in()
    assert second.is_logged_in()


# --- other sites ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHANGES)
def test_change_without_the_pages_token_is_refused(new_visitor: NewVisitor, path: str) -> None:
    one, second = new_visitor("alice"), new_visitor("alice")
    handle = next(iter(handles_shown_to(one)))
    assert one.post(path, {"handle": handle} | CHANGES[path]).status == 403
    assert one.get("/settings").theme == "system"
    assert second.is_logged_in()


@pytest.mark.parametrize("path", CHANGES)
def test_change_from_another_site_is_refused_even_with_the_token(new_visitor: NewVisitor, path: str) -> None:
    one, second = new_visitor("alice"), new_visitor("alice")
    token = next(one.get("/devices").forms_to("/devices/revoke")).fields
    assert one.post(path, token | CHANGES[path], origin="https://evil.test").status == 403
    assert one.get("/settings").theme == "system"
    assert second.is_logged_in()


def test_login_from_another_site_is_refused(new_visitor: NewVisitor) -> None:
    visitor = new_visitor()
    right = {"username": "bob", "password": "builder"}
    assert visitor.post("/login", right).status == 403
    form = next(visitor.get("/login").forms_to("/login"))
    assert visitor.post("/login", form.fields | right, origin="https://evil.test").status == 403
    assert not visitor.is_logged_in()


def test_token_of_somebody_else_is_refused(new_visitor: NewVisitor) -> None:
    alice, bob = new_visitor("alice"), new_visitor("bob")
    token = next(bob.get("/settings").forms_to("/settings")).fields
    assert alice.post("/settings", token | {"theme": "dark"}).status == 403
    assert alice.get("/settings").theme == "system"


# --- cookies and caches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GUARDED)
def test_private_pages_are_kept_by_no_cache(new_visitor: NewVisitor, path: str) -> None:
    assert "no-store" in new_visitor("alice").get(path).headers["cache-control"]


def test_cookie_is_hidden_from_scripts_and_from_other_sites_forms(new_visitor: NewVisitor) -> None:
    cookie = new_visitor("alice").attributes["session"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert (cookie["secure"], cookie["domain"]) == ("", "")


def test_cookie_is_bound_to_the_host_and_to_https_where_that_is_asked_for(example: Path, tmp_path: Path) -> None:
    with ShopProcess(example, tmp_path, COOKIE_SECURE="1") as shop:
        visitor = Visitor(shop)
        assert visitor.log_in("alice").status == 303
        cookie = visitor.attributes["__Host-session"]
        assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax")
        assert (cookie["path"], cookie["domain"]) == ("/", "")
        assert "session" not in visitor.cookies
        assert visitor.is_logged_in()
        visitor.leave()


def test_restart_leaves_everybody_logged_in(example: Path, tmp_path: Path) -> None:
    with ShopProcess(example, tmp_path) as shop:
        visitor = Visitor(shop)
        visitor.log_in("alice")
        visitor.submit("/settings", "/settings", theme="light")
        shop.stop()
        shop.start()
        assert visitor.is_logged_in()
        assert visitor.get("/settings").theme == "light"
        visitor.leave()
