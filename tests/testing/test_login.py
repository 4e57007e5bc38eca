"""What a test client can rely on that was logged in by the helper, for the client of every framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from greeting_sites import SITES, GreetingSite, QuartSite

from coatcheck import CookieConfig
from coatcheck.testing import ManualClock, alogged_in, logged_in

KEY = "a secret key for tests, 32 bytes or more"

Opener = Callable[..., GreetingSite]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=SITES)
def open_site(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Opener]:
    """Open a site of each kind in turn."""
    kind = SITES[request.param]
    opened: list[GreetingSite] = []

    def open_site(store: str = "memory://", **settings: Any) -> GreetingSite:
        site = kind(kind.makes(store, secret_keys=[KEY], clock=clock, **settings))
        opened.append(site)
        return site

    yield open_site
    for site in opened:
        site.close()


@pytest.fixture
def site(open_site: Opener) -> GreetingSite:
    """A site with the settings that Coatcheck has by itself, among them a cookie that is Secure."""
    return open_site()


def test_the_client_is_logged_in_and_the_session_holds_what_was_given(site: GreetingSite) -> None:
    assert site.visit() == "None None"
    assert site.call(logged_in, site.client, "alice", site.sessions, theme="dark") is site.client
    assert site.visit() == "alice dark"


def test_an_async_test_can_do_the_same_in_its_own_event_loop(site: GreetingSite) -> None:
    assert site.call(alogged_in, site.client, "alice", site.sessions, theme="dark") is site.client
    assert site.visit() == "alice dark"


def test_a_logout_by_the_application_logs_the_client_out(site: GreetingSite) -> None:
    site.call(logged_in, site.client, "alice", site.sessions)
    site.visit("/logout")
    assert site.visit() == "None None"
    assert site.tokens == []


def test_a_renewal_by_the_application_takes_the_place_of_the_cookie(site: GreetingSite) -> None:
    site.call(logged_in, site.client, "alice", site.sessions)
    first = site.tokens
    assert site.visit("/renew") == "alice None"
    assert site.visit() == "alice None"
    assert len(first) == len(site.tokens) == 1
    assert site.tokens != first


def test_use_keeps_the_client_logged_in_and_the_idle_timeout_ends_it(site: GreetingSite, clock: ManualClock) -> None:
    site.call(logged_in, site.client, "alice", site.sessions)
    for _ in range(3):
        clock.advance(timedelta(minutes=90))
        assert site.visit() == "alice None"
    clock.advance(timedelta(hours=3))
    assert site.visit() == "None None"


def test_who_is_logged_in_last_is_who_the_client_is(site: GreetingSite) -> None:
    site.call(logged_in, site.client, "alice", site.sessions, theme="dark")
    site.call(logged_in, site.client, "bob", site.sessions)
    assert site.visit() == "bob None"
    assert len(site.tokens) == 1


def test_a_cookie_for_plain_http_works_as_well(open_site: Opener) -> None:
    site = open_site(cookie=CookieConfig(secure=False))
    site.call(logged_in, site.client, "alice", site.sessions)
    site.visit("/renew")
    assert site.visit() == "alice None"
    site.visit("/logout")
    assert (site.visit(), site.tokens) == ("None None", [])


def test_a_cookie_for_another_host_is_refused_rather_than_never_sent(open_site: Opener) -> None:
    site = open_site(cookie=CookieConfig(domain="example.com"))
    with pytest.raises(ValueError, match=r"the cookie's domain is 'example\.com'"):
        site.call(logged_in, site.client, "alice", site.sessions)


def test_a_cookie_for_a_part_of_the_site_is_kept_for_this_part(open_site: Opener) -> None:
    site = open_site(cookie=CookieConfig(path="/renew"))
    site.call(logged_in, site.client, "alice", site.sessions)
    assert [site.visit("/renew"), site.visit("/renew")] == ["alice None"] * 2
    assert len(site.tokens) == 1
    if not isinstance(site, QuartSite):  # its client sends every cookie to every path
        assert site.visit("/") == "None None"
