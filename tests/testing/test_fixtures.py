"""The fixtures for pytest, in a test suite of their own as a user has it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SUITE = """
    import asyncio
    from datetime import timedelta

    import pytest

    from coatcheck.errors import StoreUnavailable


    def test_sessions_live_by_the_clock(coatcheck_sync_sessions, coatcheck_clock):
        with coatcheck_sync_sessions.open() as session:
            session.login("alice")
        assert [each.user_id for each in coatcheck_sync_sessions.for_user("alice")] == ["alice"]
        coatcheck_clock.advance(timedelta(hours=3))
        assert coatcheck_sync_sessions.for_user("alice") == []


    def test_every_test_begins_with_nothing(coatcheck_sync_sessions):
        assert coatcheck_sync_sessions.count() == 0


    def test_sync_code_sees_the_sessions_of_async_code(coatcheck_sessions, coatcheck_sync_sessions):
        async def log_in():
            async with coatcheck_sessions.open() as session:
                session.login("alice")
            return session.token

        with coatcheck_sync_sessions.open(asyncio.run(log_in())) as session:
            assert session.user_id == "alice"


    def test_the_stores_fail_when_they_are_told_to(
        coatcheck_sessions, coatcheck_store, coatcheck_sync_sessions, coatcheck_sync_store
    ):
        with coatcheck_store.failing(), pytest.raises(StoreUnavailable):
            asyncio.run(coatcheck_sessions.count())
        with coatcheck_sync_store.failing("scan"), pytest.raises(StoreUnavailable):
            coatcheck_sync_sessions.count()
        assert coatcheck_sync_sessions.count() == asyncio.run(coatcheck_sessions.count()) == 0


    def test_the_cookie_is_one_for_plain_http(coatcheck_sessions, coatcheck_sync_sessions):
        assert coatcheck_sessions.config.cookie == coatcheck_sync_sessions.config.cookie
        assert coatcheck_sessions.config.cookie.full_name == "session"
"""

OVERRIDDEN = """
    from datetime import timedelta

    import pytest

    from coatcheck import SyncSessions


    @pytest.fixture
    def coatcheck_sync_sessions(coatcheck_sync_store, coatcheck_clock):
        keys = ["a secret key for tests, 32 bytes or more"]
        idle_timeout = timedelta(minutes=1)
        return SyncSessions(coatcheck_sync_store, secret_keys=keys, idle_timeout=idle_timeout, clock=coatcheck_clock)


    def test_settings_of_the_applications_own(coatcheck_sync_sessions, coatcheck_sync_store, coatcheck_clock):
        with coatcheck_sync_sessions.open() as session:
            session["a"] = 1
        assert coatcheck_sync_store.calls == ["create"]
        coatcheck_clock.advance(timedelta(minutes=2))
        assert coatcheck_sync_sessions.count() == 0
"""


def test_the_fixtures_do_what_they_say(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["coatcheck.testing.fixtures"]')
    pytester.makepyfile(SUITE)
    pytester.runpytest_inprocess().assert_outcomes(passed=5)


def test_a_suite_can_have_settings_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["coatcheck.testing.fixtures"]')
    pytester.makepyfile(OVERRIDDEN)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_each_fixture_says_what_it_is(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["coatcheck.testing.fixtures"]')
    listing = pytester.runpytest_inprocess("--fixtures").stdout.str()
    listing = listing.partition("from coatcheck.testing.fixtures")[2].partition("--- fixtures defined from")[0]
    names = [line.split(" ")[0] for line in listing.splitlines() if line.startswith("coatcheck_")]
    assert sorted(names) == [
        "coatcheck_clock",
        "coatcheck_sessions",
        "coatcheck_store",
        "coatcheck_sync_sessions",
        "coatcheck_sync_store",
    ]
    assert "no docstring available" not in listing


def test_without_being_asked_for_they_are_not_there(pytester: pytest.Pytester) -> None:
    assert "coatcheck" not in pytester.runpytest_subprocess("--fixtures").stdout.str()
