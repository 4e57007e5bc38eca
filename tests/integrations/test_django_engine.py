"""The session engine by itself: all that Django's documentation and its own tests expect of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import django_project
import pytest
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.core import management
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils import timezone

from coatcheck.errors import UnsupportedKey, UnsupportedValue
from coatcheck.integrations.django import SessionStore, sessions
from coatcheck.testing import ManualClock

assert django_project.OURS


@pytest.fixture(autouse=True)
def _store(store_url: str) -> Iterator[None]:
    with override_settings(COATCHECK={"store": store_url}):
        yield


@pytest.fixture
def session() -> SessionStore:
    return SessionStore()


def stored(**values: Any) -> SessionStore:
    session = SessionStore()
    session.update(values)
    session.save()
    return session


def untouched(session: SessionStore) -> SessionStore:
    session.accessed = session.modified = False
    return session


def test_a_new_session_is_neither_accessed_nor_modified_and_has_no_key(session: SessionStore) -> None:
    assert (session.accessed, session.modified, session.session_key) == (False, False, None)
    assert session.is_empty()


def test_reading_marks_it_accessed_and_not_modified(session: SessionStore) -> None:
    for read in (
        lambda: session.get("cat"),
        lambda: "cat" in session,
        lambda: session.has_key("cat"),
        lambda: list(session.keys()),
        lambda: list(session.values()),
        lambda: list(session.items()),
        lambda: session.pop("cat", None),
    ):
        untouched(session)
        read()
        assert (session.accessed, session.modified) == (True, False)


def test_changing_marks_it_accessed_and_modified(session: SessionStore) -> None:
    for change in (
        lambda: session.__setitem__("cat", 1),
        lambda: session.update({"dog": 2}),
        lambda: session.setdefault("cow", 3),
        lambda: session.pop("cat"),
        lambda: session.__delitem__("dog"),
        session.clear,
        session.cycle_key,
        session.flush,
    ):
        untouched(session)
        change()
        assert (session.accessed, session.modified) == (True, True)


def test_it_is_a_mapping(session: SessionStore) -> None:
    session["cat"] = "dog"
    assert session["cat"] == session.get("cat") == session.setdefault("cat", "cow") == "dog"
    assert list(session.items()) == [("cat", "dog")]
    assert session.pop("cat") == "dog"
    assert session.pop("cat", "none") == "none"
    with pytest.raises(KeyError):
        session.pop("cat")
    with pytest.raises(KeyError):
        session["cat"]


def test_what_is_saved_is_there_for_who_has_the_key() -> None:
    now, key = timezone.now(), uuid4()
    saved = stored(when=now, key=key, pair=(1, 2), by_number={1: "one"}, tags={"a"})
    found = SessionStore(saved.session_key)
    assert found.load() == {"when": now, "key": key, "pair": (1, 2), "by_number": {1: "one"}, "tags": {"a"}}


def test_what_would_not_come_back_as_it_is_is_refused_where_it_is_set(session: SessionStore) -> None:
    with pytest.raises(UnsupportedValue, match="'user'"):
        session["user"] = object()
    with pytest.raises(UnsupportedKey):
        session[1] = "one"  # type: ignore[index]


def test_an_empty_session_is_stored_when_it_is_saved(session: SessionStore) -> None:
    session.save()
    assert session.exists(session.session_key)
    assert not session.is_empty()


def test_saving_keeps_the_key_and_the_data() -> None:
    session = stored(cat=1)
    handle = session.handle
    session["dog"] = 2
    session.save()
    again = SessionStore(session.session_key)
    assert (again.handle, again.load()) == (handle, {"cat": 1, "dog": 2})


def test_create_stores_what_was_set(session: SessionStore) -> None:
    session["last_login"] = 1376587691
    session.create()
    assert SessionStore(session.session_key).load() == {"last_login": 1376587691}


def test_create_stores_another_session_and_leaves_the_stored_one_as_it_is() -> None:
    session = stored(cat=1)
    session["dog"] = 2
    first_key = session.session_key
    session.create()
    assert session.session_key not in (None, first_key)
    assert session.exists(session.session_key)
    assert session.load() == {}
    assert SessionStore(first_key).load() == {"cat": 1}


def test_create_copies_no_login_into_a_second_session() -> None:
    session = stored(**{SESSION_KEY: "1", "cat": 1})
    session.create()
    assert session.coatcheck.user_id is None
    assert len(sessions().for_user("1")) == 1


def test_must_create_refuses_a_session_that_is_stored() -> None:
    session = stored(cat=1)
    with pytest.raises(CreateError):
        session.save(must_create=True)


def test_delete_ends_a_session_by_key_and_by_itself() -> None:
    one, other = stored(cat=1), stored(cat=2)
    key = other.session_key
    one.delete(key)
    assert not one.exists(key)
    key = one.session_key
    one.delete()
    assert not one.exists(key)
    one.delete()  # and again, which does nothing


def test_flush_ends_the_session_at_once_and_forgets_its_data() -> None:
    session = stored(foo="bar")
    key = session.session_key
    session.flush()
    assert not session.exists(key)
    assert session.session_key is None
    assert session.is_empty()
    assert session.get("foo") is None


def test_cycle_key_keeps_the_data_under_another_key_and_kills_the_old_one_when_saved() -> None:
    session = stored(a="c", b="d")
    old_key = session.session_key
    session.cycle_key()
    session.save()
    assert session.session_key != old_key
    assert list(session.items()) == [("a", "c"), ("b", "d")]
    assert SessionStore(session.session_key).load() == {"a": "c", "b": "d"}
    assert not session.exists(old_key)


def test_cycle_key_works_before_anything_was_read() -> None:
    key = stored(a="c").session_key
    session = SessionStore(key)
    session.cycle_key()
    session.save()
    assert SessionStore(session.session_key).load() == {"a": "c"}


@pytest.mark.parametrize("key", ["1", "", "x" * 92, "A" * 92, "A" * 112, "ä" * 92, "x" * 10_000, "a;b=" + "c" * 88])
def test_a_key_that_was_not_issued_here_is_never_adopted(key: str) -> None:
    session = SessionStore(key)
    assert session.session_key is None
    assert not session.exists(key)
    assert session.load() == {}
    session["cat"] = 1
    session.save()
    assert session.session_key != key
    assert not SessionStore().exists(key)


def test_a_handle_is_not_a_key() -> None:
    handle = stored(cat=1).handle
    assert SessionStore(handle).session_key is None
    assert SessionStore(handle).load() == {}


def test_a_key_signed_with_another_secret_is_not_adopted() -> None:
    with override_settings(SECRET_KEY="another-secret-key-of-more-than-32-bytes"):
        key = stored(cat=1).session_key
    assert SessionStore(key).session_key is None


def test_keys_of_an_earlier_secret_are_honoured_while_it_is_a_fallback() -> None:
    key = stored(cat=1).session_key
    with override_settings(SECRET_KEY="another-secret-key-of-more-than-32-bytes"):
        if settings.COATCHECK["store"] != "memory://":
            assert SessionStore(key).load() == {}
        with override_settings(SECRET_KEY_FALLBACKS=["test-secret-key-of-more-than-32-bytes"]):
            assert SessionStore(key).load() == {"cat": 1}


def test_the_key_of_an_ended_session_starts_a_new_one() -> None:
    key = stored(cat=1).session_key
    SessionStore().delete(key)
    session = SessionStore(key)
    assert session.session_key == key  # nobody has asked the store yet
    assert session.load() == {}
    assert session.session_key is None
    session["dog"] = 2
    session.save()
    assert session.session_key != key
    assert SessionStore(key).load() == {}


def test_a_session_that_was_ended_elsewhere_is_not_resurrected() -> None:
    session = stored(test_data="value1")
    SessionStore(session.session_key).delete()
    session["test_data"] = "value2"
    with pytest.raises(UpdateError):
        session.save()
    assert session.load() == {}
    assert session.session_key is None


def test_saving_without_a_change_tells_as_well_that_the_session_was_ended() -> None:
    session = stored(cat=1)
    SessionStore(session.session_key).delete()
    with pytest.raises(UpdateError):
        session.save()


def test_two_stores_that_change_different_keys_both_win() -> None:
    key = stored(cat=1).session_key
    one, other = SessionStore(key), SessionStore(key)
    one["a"], other["b"] = 1, 2
    one.save()
    other.save()
    assert SessionStore(key).load() == {"cat": 1, "a": 1, "b": 2}


def test_the_key_is_read_only_and_secret(session: SessionStore) -> None:
    with pytest.raises(AttributeError):
        session.session_key = "another"
    session.save()
    assert session.session_key not in repr(session.__dict__)


def test_the_test_cookie(session: SessionStore) -> None:
    assert not session.test_cookie_worked()
    session.set_test_cookie()
    assert session.test_cookie_worked()
    session.delete_test_cookie()
    assert not session.test_cookie_worked()


def test_a_session_lasts_as_long_as_the_settings_say(session: SessionStore) -> None:
    assert session.get_expiry_age() == settings.SESSION_COOKIE_AGE
    session.set_expiry(0)
    assert session.get_expiry_age() == settings.SESSION_COOKIE_AGE
    with override_settings(SESSION_COOKIE_AGE=300):
        assert SessionStore().get_expiry_age() == 300
        assert sessions().config.idle_timeout == timedelta(minutes=5)
        assert sessions().config.lifetime == timedelta(days=7)


def test_expiry_can_be_set_in_seconds_as_a_time_and_as_a_span(session: SessionStore) -> None:
    modification = timezone.now()
    session.set_expiry(10)
    assert session.get_expiry_date(modification=modification) == modification + timedelta(seconds=10)
    assert session.get_expiry_age(modification=modification) == 10
    session.set_expiry(modification + timedelta(seconds=20))
    assert session.get_expiry_date(modification=modification) == modification + timedelta(seconds=20)
    session.set_expiry(timedelta(seconds=30))
    assert 29 <= session.get_expiry_age() <= 30
    session.set_expiry(None)
    assert session.get_expiry_age() == settings.SESSION_COOKIE_AGE


def test_expiry_at_browser_close(session: SessionStore) -> None:
    for by_default in (False, True):
        with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=by_default):
            session.set_expiry(10)
            assert not session.get_expire_at_browser_close()
            session.set_expiry(0)
            assert session.get_expire_at_browser_close()
            session.set_expiry(None)
            assert session.get_expire_at_browser_close() is by_default


@pytest.mark.parametrize("past", [-10, -timedelta(seconds=10), "an hour ago"])
def test_an_expiry_in_the_past_ends_the_session(past: Any) -> None:
    session = stored(foo="bar")
    session.set_expiry(timezone.now() - timedelta(hours=1) if isinstance(past, str) else past)
    try:
        session.save()
    except UpdateError:
        pytest.fail("it has to be stored that it is over")
    assert "foo" not in SessionStore(session.session_key) or _is_gone_soon(session.session_key)


def _is_gone_soon(key: str | None) -> bool:
    """A store's clock may be a millisecond behind."""
    deadline = timezone.now() + timedelta(seconds=10)
    while timezone.now() < deadline:
        if not SessionStore().exists(key):
            return True
    return False


def test_an_expiry_beyond_the_lifetime_is_a_clear_error(session: SessionStore) -> None:
    for value in (15 * 86_400, timedelta(days=15), timezone.now() + timedelta(days=15)):
        with pytest.raises(ImproperlyConfigured, match=r"COATCHECK\['lifetime'\]"):
            session.set_expiry(value)
    with override_settings(COATCHECK={"store": "memory://", "lifetime": timedelta(days=30)}):
        SessionStore().set_expiry(15 * 86_400)


@pytest.mark.parametrize("serializer", ["django.contrib.sessions.serializers.PickleSerializer", "shop.Serializer"])
def test_another_serializer_is_refused(serializer: str) -> None:
    with (
        override_settings(SESSION_SERIALIZER=serializer),
        pytest.raises(ImproperlyConfigured, match="take the setting"),
    ):
        sessions()


def test_clearsessions_has_nothing_to_do() -> None:
    management.call_command("clearsessions")


class Clocked:
    """A store in memory with a clock to move, and Django's clock with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = ManualClock()
        monkeypatch.setattr(
            timezone, "now", lambda: datetime.fromtimestamp(self.clock(), timezone.get_default_timezone())
        )

    def settings(self, **more: Any) -> Any:
        return override_settings(COATCHECK={"store": "memory://", "clock": self.clock, **more})


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Clocked:
    return Clocked(monkeypatch)


@pytest.mark.parametrize("expiry", [60, timedelta(seconds=60)])
def test_what_set_expiry_says_is_enforced_by_the_store(clocked: Clocked, expiry: Any) -> None:
    with clocked.settings():
        session = stored(cat=1)
        session.set_expiry(expiry)
        session.save()
        clocked.clock.advance(timedelta(seconds=59))
        assert SessionStore().exists(session.session_key)
        clocked.clock.advance(timedelta(seconds=2))
        assert not SessionStore().exists(session.session_key)


def test_create_keeps_what_set_expiry_has_said(clocked: Clocked) -> None:
    with clocked.settings():
        session = SessionStore()
        session.set_expiry(60)
        session.create()
        assert SessionStore().exists(session.session_key)
        clocked.clock.advance(timedelta(seconds=61))
        assert not SessionStore().exists(session.session_key)


def test_set_expiry_none_and_clear_take_an_expiry_back(clocked: Clocked) -> None:
    with clocked.settings():
        ways: list[Callable[[SessionStore], None]] = [lambda one: one.set_expiry(None), lambda one: one.clear()]
        for take_back in ways:
            session = stored(cat=1)
            session.set_expiry(60)
            session.save()
            take_back(session)
            session.save()
            clocked.clock.advance(timedelta(hours=1))
            assert SessionStore().exists(session.session_key)


def test_set_expiry_may_be_longer_than_session_cookie_age(clocked: Clocked) -> None:
    with clocked.settings(lifetime=timedelta(days=30)):
        session = stored(cat=1)
        session.set_expiry(25 * 86_400)
        session.save()
        clocked.clock.advance(timedelta(days=24))
        assert SessionStore().exists(session.session_key)
