"""The WSGI middleware: what leaves when. Every exchange also passes the standard library's validator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from coatcheck import CookieConfig, Sessions, SyncSession, SyncSessions
from coatcheck.errors import ConfigurationError, ResponseStarted, SessionClosed, UnsupportedValue
from coatcheck.testing import SyncFailingStore
from coatcheck.wsgi import ENVIRON_KEY, SessionMiddleware, require_login

KEY = "a secret key for tests, 32 bytes or more"
PLAIN = [("Content-Type", "text/plain")]


class Answer:
    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.exc_info: Any = None
        self.body = b""
        self.written: list[bytes] = []

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        self.status, self.headers, self.exc_info = status, headers, exc_info
        return self.written.append

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def set_cookie(self) -> str | None:
        values = self.header("set-cookie")
        assert len(values) < 2
        return values[0] if values else None


Application = Callable[[SyncSession, Any], Iterable[bytes]]


class Site:
    """An application of one function behind the middleware, and a client that keeps its cookie."""

    def __init__(self, **options: Any) -> None:
        self.store = SyncFailingStore()
        self.sessions = SyncSessions(self.store, secret_keys=[KEY])
        self.options = options
        self.cookie: str | None = None

    def get(self, handler: Application, *, validate: bool = True, **environ: Any) -> Answer:
        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            return handler(environ[ENVIRON_KEY], start_response)

        environ = {"QUERY_STRING": "", **environ}
        setup_testing_defaults(environ)
        if self.cookie is not None:
            environ["HTTP_COOKIE"] = self.cookie
        inner: Any = validator(app) if validate else app
        stack: Any = SessionMiddleware(inner, self.sessions, **self.options)
        stack = validator(stack) if validate else stack
        answer = Answer()
        body = stack(environ, answer.start)
        try:
            answer.body = b"".join(body)
        finally:
            if hasattr(body, "close"):
                body.close()
        for cookie in answer.header("set-cookie"):
            pair = cookie.split(";")[0]
            self.cookie = None if pair.endswith("=") else pair
        return answer

    def stored(self) -> dict[str, Any] | None:
        session = self.sessions.begin([] if self.cookie is None else [self.cookie.encode()])
        session.load()
        return None if session.is_new else dict(session)

    def log_in(self) -> None:
        def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
            session["user"] = "alice"
            start_response("200 OK", PLAIN)
            return [b"ok"]

        self.get(handler)


@pytest.fixture
def site() -> Site:
    return Site()


def writing(status: str = "200 OK", headers: list[tuple[str, str]] | None = None) -> Application:
    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        session["user"] = "bob"
        start_response(status, headers or PLAIN)
        return [b"ok"]

    return handler


def test_a_new_session_sets_a_cookie_that_no_cache_keeps(site: Site) -> None:
    answer = site.get(writing(headers=[*PLAIN, ("Cache-Control", "public"), ("Vary", "Accept")]))
    assert answer.set_cookie is not None
    assert answer.header("cache-control") == ["no-store"]
    assert answer.header("vary") == ["Accept", "Cookie"]
    assert answer.body == b"ok"
    assert site.stored() == {"user": "bob"}


def test_what_is_changed_between_start_response_and_the_body_counts(site: Site) -> None:
    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        session["user"] = "alice"
        return [b"ok"]

    assert site.get(handler).set_cookie is not None
    assert site.stored() == {"user": "alice"}


def test_a_generator_may_start_its_session_until_its_first_chunk(site: Site) -> None:
    def handler(session: SyncSession, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        session["user"] = "alice"
        yield b"1"
        session["late"] = True
        yield b"2"
        session.append("log", "end")

    answer = site.get(handler)
    assert answer.set_cookie is not None
    assert answer.body == b"12"
    assert site.stored() == {"user": "alice", "late": True, "log": ["end"]}


def test_a_session_can_not_start_after_the_first_chunk(site: Site) -> None:
    def handler(session: SyncSession, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"1"
        with pytest.raises(ResponseStarted):
            session["user"] = "alice"
        yield b"2"

    assert site.get(handler).body == b"12"
    assert site.store.calls == []


def test_a_change_in_a_stream_is_stored_before_the_next_chunk_leaves(site: Site) -> None:
    site.log_in()
    stored: list[Any] = []

    def handler(session: SyncSession, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"1"
        session["n"] = 1
        yield b"2"
        stored.append((site.stored() or {}).get("n"))

    site.get(handler)
    assert stored == [1]


def test_the_headers_leave_with_the_first_chunk_that_has_something_in_it(site: Site) -> None:
    def handler(session: SyncSession, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b""
        session["user"] = "alice"
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            start_response("400 Bad Request", PLAIN, sys.exc_info())
        yield b"sorry"

    answer = site.get(handler)
    assert answer.status == "400 Bad Request"
    assert answer.set_cookie is not None


def test_a_logout_holds_when_the_application_gives_no_body(site: Site) -> None:
    site.log_in()

    def handler(session: SyncSession, start_response: Any) -> Any:
        session.destroy()
        start_response("200 OK", PLAIN)

    with pytest.raises(TypeError):
        site.get(handler, validate=False)
    assert site.stored() is None


def test_a_body_that_is_not_sent_is_closed(site: Site) -> None:
    site.log_in()
    closed: list[bool] = []

    class File(BytesIO):
        def close(self) -> None:
            closed.append(True)
            super().close()

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[ENVIRON_KEY]["a"] = 1
        start_response("200 OK", PLAIN)
        return FileWrapper(File(b"content"))

    site.store.fail("update")
    answer = Answer()
    environ: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper, "HTTP_COOKIE": site.cookie}
    setup_testing_defaults(environ)
    list(SessionMiddleware(app, site.sessions)(environ, answer.start))
    assert answer.status.startswith("503")
    assert closed == [True]


def test_an_empty_generator_still_gets_its_headers(site: Site) -> None:
    def handler(session: SyncSession, start_response: Any) -> Iterator[bytes]:
        session["user"] = "alice"
        start_response("204 No Content", [])
        yield from ()

    answer = site.get(handler)
    assert answer.status == "204 No Content"
    assert answer.set_cookie is not None


def test_the_older_write_callable_works(site: Site) -> None:
    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        session["user"] = "alice"
        start_response("200 OK", PLAIN)(b"written")
        return [b""]

    answer = site.get(handler, validate=False)
    assert answer.written == [b"written"]
    assert answer.set_cookie is not None


def test_what_changes_between_two_writes_is_stored_before_the_second_leaves(site: Site) -> None:
    site.log_in()

    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"one")
        session["read"] = 1
        write(b"two")
        assert site.stored() == {"user": "alice", "read": 1}
        session["read"] = 2
        return []

    assert site.get(handler, validate=False).written == [b"one", b"two"]
    assert site.stored() == {"user": "alice", "read": 2}


def test_a_file_reaches_the_server_as_it_is(site: Site) -> None:
    file = FileWrapper(BytesIO(b"content"))

    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        session["user"] = "alice"
        start_response("200 OK", PLAIN)
        return file

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        return handler(environ[ENVIRON_KEY], start_response)

    answer = Answer()
    environ: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)
    assert SessionMiddleware(app, site.sessions)(environ, answer.start) is file
    assert answer.set_cookie is not None


@pytest.mark.parametrize("access", [lambda s: s.get("x"), lambda s: "x" in s, len, list, bool, repr])
def test_every_kind_of_access_makes_the_response_vary_by_cookie(site: Site, access: Any) -> None:
    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        access(session)
        start_response("200 OK", PLAIN)
        return [b"ok"]

    assert site.get(handler).header("vary") == ["Cookie"]


def test_a_request_that_leaves_its_session_alone_gets_its_response_unchanged(site: Site) -> None:
    site.log_in()

    def handler(_: SyncSession, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [b"ok"]

    # Not validated: the validator takes the environ's repr, and with it the session's, which counts as access.
    assert site.get(handler, validate=False).headers == PLAIN


def test_without_a_cookie_the_store_is_not_asked(site: Site) -> None:
    site.cookie = "other=1; __Host-session=forged; caf\xe9=1"

    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        session.get("user")
        start_response("200 OK", PLAIN)
        return [b"ok"]

    assert "Max-Age=0" in (site.get(handler).set_cookie or "")
    assert site.store.calls == []


def test_an_answer_of_500_or_more_stores_nothing(site: Site) -> None:
    site.log_in()
    assert site.get(writing("500 Internal Server Error")).set_cookie is None
    assert site.stored() == {"user": "alice"}


def test_what_changes_with_an_answer_of_500_or_more_is_not_stored_either(site: Site) -> None:
    site.log_in()

    def handler(session: SyncSession, start_response: Any) -> Iterator[bytes]:
        start_response("500 Internal Server Error", PLAIN)
        yield b"sorry"
        session["user"] = "mallory"
        yield b"indeed"
        session["late"] = True

    assert site.get(handler).body == b"sorryindeed"
    assert site.stored() == {"user": "alice"}


@pytest.mark.parametrize("as_stream", [True, False])
def test_a_change_after_the_request_that_nothing_would_store_is_an_error_where_it_is_made(
    site: Site, as_stream: bool
) -> None:
    site.log_in()
    kept: list[SyncSession] = []

    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        kept.append(session)
        start_response("200 OK", PLAIN)
        return iter([b"ok"]) if as_stream else [b"ok"]

    site.get(handler)
    assert kept[0]["user"] == "alice"
    with pytest.raises(SessionClosed):
        kept[0]["late"] = True


@pytest.mark.parametrize("when", ["at-once", "in-the-body"])
def test_an_exception_stores_nothing_but_a_logout(site: Site, when: str) -> None:
    for change, expected in ((lambda s: s.update(user="mallory"), {"user": "alice"}), (lambda s: s.destroy(), None)):
        site.log_in()

        def at_once(session: SyncSession, _: Any, change: Any = change) -> Iterable[bytes]:
            change(session)
            raise ZeroDivisionError

        def in_the_body(session: SyncSession, start_response: Any, change: Any = change) -> Iterator[bytes]:
            start_response("200 OK", PLAIN)
            change(session)
            raise ZeroDivisionError
            yield b""

        with pytest.raises(ZeroDivisionError):
            site.get(at_once if when == "at-once" else in_the_body)
        assert site.stored() == expected


def test_a_stream_that_fails_stores_nothing_of_what_was_under_way(site: Site) -> None:
    site.log_in()

    def handler(session: SyncSession, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"1"
        session["user"] = "mallory"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        site.get(handler)
    assert site.stored() == {"user": "alice"}


def test_an_application_may_replace_its_answer_by_an_error_page_before_the_headers_leave(site: Site) -> None:
    site.log_in()

    def handler(session: SyncSession, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        session["bad"] = [1]
        session["bad"].append(object())
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            start_response("500 Internal Server Error", PLAIN, sys.exc_info())
        yield b"sorry"

    answer = site.get(handler)
    assert answer.status.startswith("500")
    assert answer.exc_info is not None
    assert site.stored() == {"user": "alice"}


def test_a_value_that_can_not_be_stored_fails_the_request(site: Site) -> None:
    site.log_in()

    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        session["cart"] = [1]
        session["cart"].append(object())
        start_response("200 OK", PLAIN)
        return [b"ok"]

    with pytest.raises(UnsupportedValue):
        site.get(handler)
    assert site.stored() == {"user": "alice"}


@pytest.mark.parametrize("failing", ["load", "update"])
@pytest.mark.parametrize("as_stream", [False, True])
def test_while_the_store_is_down_the_answer_is_503_and_nobody_is_logged_out(
    site: Site, failing: Any, as_stream: bool
) -> None:
    site.log_in()
    site.store.fail(failing)

    def stream(session: SyncSession, start_response: Any) -> Iterator[bytes]:
        session["user"] = "bob"
        start_response("200 OK", PLAIN)
        yield b"ok"

    answer = site.get(stream if as_stream else writing())
    assert answer.status == "503 Service Unavailable"
    assert answer.header("retry-after") == ["5"]
    assert answer.set_cookie is None
    assert b"unavailable" in answer.body
    site.store.recover()
    assert site.stored() == {"user": "alice"}


@pytest.mark.parametrize("is_down", [True, False])
def test_an_answer_of_our_own_to_head_has_no_body(site: Site, is_down: bool) -> None:
    site.log_in()

    def page(_environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [b""]

    if is_down:
        site.store.fail()
    environ = {"REQUEST_METHOD": "HEAD", "QUERY_STRING": "", "HTTP_COOKIE": site.cookie}
    setup_testing_defaults(environ)
    answer = Answer()
    answer.body = b"".join(SessionMiddleware(require_login(page), site.sessions)(environ, answer.start))
    assert (answer.status[:3], answer.body) == ("503" if is_down else "303", b"")


def test_a_path_that_is_not_ascii_goes_on_while_the_store_is_down() -> None:
    """PEP 3333 gives its bytes as if they were Latin-1."""
    site = Site(while_down={"/caf\xe9": "continue"})
    site.log_in()
    site.store.fail()

    def page(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [b"for nobody" if not session.is_available else b""]

    assert site.get(page, SCRIPT_NAME="", PATH_INFO="/caf\xc3\xa9").body == b"for nobody"
    assert site.get(page, SCRIPT_NAME="", PATH_INFO="/cafe").status == "503 Service Unavailable"


def test_lazy_loading_reads_when_the_session_is_first_used() -> None:
    site = Site(load="lazy")
    site.log_in()
    site.store.calls.clear()

    def untouched(_: SyncSession, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [b"ok"]

    def reading(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        assert session["user"] == "alice"
        start_response("200 OK", PLAIN)
        return [b"ok"]

    site.get(untouched)
    assert site.store.calls == []
    site.get(reading)
    assert site.store.calls == ["load"]


def test_several_sessions_live_side_by_side_in_one_request() -> None:
    main = SyncSessions("memory://", secret_keys=[KEY])
    cart = SyncSessions("memory://", secret_keys=[KEY], cookie=CookieConfig(name="cart"))

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ[ENVIRON_KEY]["user"] = "alice"
        environ["cart"].append("items", "pen")
        start_response("200 OK", PLAIN)
        return [b"ok"]

    answer = Answer()
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    list(SessionMiddleware(SessionMiddleware(app, cart, environ_key="cart"), main)(environ, answer.start))
    assert [cookie.split("=")[0] for cookie in answer.header("set-cookie")] == ["__Host-cart", "__Host-session"]
    assert answer.header("vary") == ["Cookie"]


def test_the_guard_works_for_wsgi_too(site: Site) -> None:
    def page(_environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [b"private"]

    stack = SessionMiddleware(require_login(page), site.sessions)

    def ask(**environ: Any) -> Answer:
        environ = {"QUERY_STRING": "a=b", "SCRIPT_NAME": "/app", "PATH_INFO": "/caf\xc3\xa9", **environ}
        setup_testing_defaults(environ)
        if site.cookie is not None:
            environ["HTTP_COOKIE"] = site.cookie
        answer = Answer()
        answer.body = b"".join(stack(environ, answer.start))
        return answer

    answer = ask()
    assert answer.status == "303 See Other"
    assert answer.header("location") == ["/login?next=%2Fapp%2Fcaf%25C3%25A9%3Fa%3Db"]
    answer = ask(HTTP_ACCEPT="application/json")
    assert answer.status == "401 Unauthorized"
    assert b"login_required" in answer.body

    def log_in(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        session.login("alice")
        start_response("200 OK", PLAIN)
        return [b"ok"]

    site.get(log_in, HTTP_USER_AGENT="Firefox", REMOTE_ADDR="2001:db8:1:2::3")
    assert ask().body == b"private"
    (info,) = site.sessions.for_user("alice")
    assert (info.user_agent, info.client_address) == ("Firefox", "2001:db8:1::")


def test_wrong_arguments_are_refused_when_the_application_is_built() -> None:
    def app(_environ: Any, _start_response: Any) -> Iterable[bytes]:
        return []

    with pytest.raises(ConfigurationError, match="SyncSessions"):
        SessionMiddleware(app, Sessions("memory://", secret_keys=[KEY]))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="lazy"):
        SessionMiddleware(app, SyncSessions("memory://", secret_keys=[KEY]), load="never")  # type: ignore[arg-type]
    sessions = SyncSessions("memory://", secret_keys=[KEY])
    with pytest.raises(ConfigurationError, match="same cookie"):
        SessionMiddleware(SessionMiddleware(app, sessions, environ_key="other"), sessions)({}, Answer().start)
    with pytest.raises(ConfigurationError, match="environ_key"):
        SessionMiddleware(SessionMiddleware(app, sessions), sessions)({}, Answer().start)


def test_a_cookie_that_save_has_made_due_leaves_with_the_response() -> None:
    site = Site()

    def handler(session: SyncSession, start_response: Any) -> Iterable[bytes]:
        session.login("alice")
        session.save()
        start_response("200 OK", PLAIN)
        return [b"ok"]

    assert site.get(handler).set_cookie is not None
    first = site.cookie
    assert site.get(handler).set_cookie is not None  # a login gives another ID
    assert site.cookie != first
