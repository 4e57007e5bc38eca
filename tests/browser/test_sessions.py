"""What a person sees of their session in a real browser, and what other sites can't do with it."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, Request, expect

from .conftest import NewDevice, Site

LOGIN = re.compile(r"/login(\?.*)?$")

# --- login, settings, devices -----------------------------------------------------------------------------------------


def test_login_leads_to_the_page_that_was_asked_for(page: Page, site: Site) -> None:
    site.log_in(page, "alice", path="/settings")
    expect(page).to_have_url(f"{site.url}/settings")
    expect(page.get_by_role("heading", level=1)).to_have_text("Settings")


def test_wrong_password_is_said_where_a_screen_reader_says_it(page: Page, site: Site) -> None:
    page.goto("/login")
    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill("builder")
    page.get_by_role("main").get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("password")
    assert page.get_by_label("Password").evaluate("input => input.form.querySelector('[aria-describedby]') !== null")
    page.goto("/profile")
    expect(page).to_have_url(LOGIN)


def test_settings_are_seen_at_once_and_kept_for_this_device(new_device: NewDevice, site: Site) -> None:
    one, other = (new_device(color_scheme="light").new_page() for _ in range(2))
    for page in (one, other):
        site.log_in(page, "alice")
    light = _ground(one)
    site.save_theme(one, "Dark")
    assert _ground(one) != light
    one.goto("/settings")
    expect(one.get_by_label("Dark")).to_be_checked()
    expect(one.get_by_role("status")).to_have_count(0)
    other.goto("/settings")
    expect(other.get_by_label("System")).to_be_checked()
    assert _ground(other) == light


def _ground(page: Page) -> str:
    colour: str = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return colour


def test_device_is_listed_and_signed_out_at_its_next_click(new_device: NewDevice, site: Site) -> None:
    here, there = (new_device(user_agent=name).new_page() for name in ("Firefox/1 (Linux)", "Firefox/2 (iPhone)"))
    site.log_in(here, "bob")
    site.log_in(there, "bob")
    here.goto("/devices")
    expect(here.get_by_role("button", name="Sign out this device")).to_have_count(1)
    here.get_by_role("button", name="Sign out everywhere else").click()
    expect(here.get_by_role("button", name="Sign out this device")).to_have_count(0)
    there.goto("/settings")
    expect(there).to_have_url(LOGIN)
    here.goto("/settings")
    expect(here).to_have_url(f"{site.url}/settings")


@pytest.mark.parametrize("site", ["demo"], indirect=True)
def test_page_that_is_open_hears_at_once_that_its_session_has_ended(new_device: NewDevice, site: Site) -> None:
    here, there = new_device().new_page(), new_device().new_page()
    site.log_in(here, "bob")
    with there.expect_websocket(lambda socket: socket.url.endswith("/devices/live")):
        site.log_in(there, "bob")
    here.goto("/devices")
    here.get_by_role("button", name="Sign out everywhere else").click()
    expect(there.get_by_role("alert")).to_contain_text("You were signed out on another device")
    expect(there.get_by_text("Welcome, bob")).to_have_count(0)


# --- the cookie -------------------------------------------------------------------------------------------------------


def test_stranger_who_only_looks_gets_no_cookie(page: Page, site: Site) -> None:
    page.goto("/")
    page.goto("/login")
    assert site.session_cookies(page.context) == []


def test_cookie_is_what_was_promised_as_the_browser_sees_it(page: Page, site: Site) -> None:
    site.log_in(page, "alice")
    (cookie,) = site.session_cookies(page.context)
    assert cookie["httpOnly"]
    assert cookie["secure"] == site.is_secure
    assert cookie["sameSite"] == "Lax"
    assert cookie["path"] == "/"
    assert cookie["domain"] == "127.0.0.1"  # without the dot that a Domain attribute brings
    assert cookie["value"] not in page.evaluate("document.cookie")


@pytest.mark.parametrize("owner", ["bob", "alice"])
def test_session_from_before_the_login_is_dead_after_it(new_device: NewDevice, site: Site, owner: str) -> None:
    """So that nobody gains by planting their own session in a victim's browser, nor by a copy of an earlier one."""
    attacker, victim = new_device(), new_device()
    attackers_page, page = attacker.new_page(), victim.new_page()
    site.log_in(attackers_page, owner)
    planted = site.token(attacker)
    site.plant(victim, planted)
    site.log_in(page, "alice")
    assert site.token(victim) != planted
    attackers_page.goto("/profile")
    expect(attackers_page).to_have_url(LOGIN)
    page.goto("/profile")
    expect(page.get_by_role("heading", level=1)).to_have_text("Welcome, alice")


# --- other sites ------------------------------------------------------------------------------------------------------


def _lured(page: Page, attacker: str, site: Site, path: str, **fields: str) -> Request:
    """Visit a page of another site that sends a form to this one, and give what the browser sent."""
    target = f"{site.url}{path}"
    with page.expect_response(lambda response: response.url == target and response.request.method == "POST") as sent:
        page.goto(attacker + "?" + urlencode({"to": target, **fields}))
    page.wait_for_load_state()
    request: Request = sent.value.request
    return request


CHANGES = pytest.mark.parametrize(("path", "fields"), [("/settings", {"theme": "dark"}), ("/logout", {})])


@CHANGES
def test_form_of_another_site_is_sent_without_the_session(
    page: Page, site: Site, attacker: str, path: str, fields: dict[str, str]
) -> None:
    site.log_in(page, "alice")
    request = _lured(page, attacker, site, path, **fields)
    assert "cookie" not in request.all_headers()
    _assert_nothing_changed(page, site)


@CHANGES
def test_form_of_another_site_is_refused_even_where_the_browser_sends_the_session(
    page: Page, site: Site, attacker: str, path: str, fields: dict[str, str]
) -> None:
    site.log_in(page, "alice")
    token = site.token(page.context)
    site.plant(page.context, token, same_site="None")
    request = _lured(page, attacker, site, path, **fields)
    assert token in request.all_headers()["cookie"]
    answer = request.response()
    assert answer is not None
    assert answer.status == 403
    _assert_nothing_changed(page, site)


def _assert_nothing_changed(page: Page, site: Site) -> None:
    page.goto("/settings")
    expect(page).to_have_url(f"{site.url}/settings")
    expect(page.get_by_label("System")).to_be_checked()


# --- the back button --------------------------------------------------------------------------------------------------


def test_back_button_shows_nothing_private_after_the_logout(page: Page, site: Site) -> None:
    site.log_in(page, "alice")
    page.goto("/profile")
    expect(page.get_by_role("heading", level=1)).to_have_text("Welcome, alice")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log out")).to_have_count(0)
    page.go_back(wait_until="commit")  # a page that the browser has kept is not loaded
    expect(page).to_have_url(LOGIN)
    expect(page.get_by_text("Welcome, alice")).to_have_count(0)
