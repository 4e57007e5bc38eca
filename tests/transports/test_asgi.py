"""The ASGI middleware: what leaves when, for HTTP and WebSockets."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import anyio
import pytest

from coatcheck import CookieConfig, Session, Sessions, SyncSessions
from coatcheck.asgi import SessionMiddleware, request_of, require_login
from coatcheck.errors import (
    ConfigurationError,
    RecordTooLarge,
    ResponseStarted,
    SessionClosed,
    SessionNotFound,
    SessionNotLoaded,
    StoreUnavailable,
    UnsupportedValue,
)
from coatcheck.guard import safe_next
from coatcheck.stores.memory import MemoryStore
from coatcheck.testing import FailingStore, ManualClock

pytestmark = pytest.mark.anyio

KEY = "a secret key for tests, 32 bytes or more"
Handler = Callable[[Session, "Exchange"], Awaitable[None]]


class Exchange:
    """One connection: what the application sends is in `sent`."""

    def __init__(self, incoming: Iterable[dict[str, Any]] = ()) -> None:
        self.sent: list[dict[str, Any]] = []
        self._incoming = iter(incoming)
        self._send: Any = None
        self._receive: Any = None

    async def from_client(self) -> dict[str, Any]:
        return next(self._incoming)

    async def to_client(self, message: Any) -> None:
        self.sent.append(dict(message))

    async def start(self, status: int = 200, headers: list[Any] | None = None) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers or []})

    async def body(self, body: bytes = b"", *, more: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def respond(self, status: int = 200, headers: list[Any] | None = None) -> None:
        await self.start(status, headers)
        await self.body(b"ok")

    async def send(self, message: dict[str, Any]) -> None:
        await self._send(message)

    async def receive(self) -> Any:
        return await self._receive()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    def header(self, name: str) -> list[str]:
        return [value.decode() for key, value in self.sent[0].get("headers", []) if key == name.encode()]

    @property
    def set_cookie(self) -> str | None:
        values = self.header("set-cookie")
        assert len(values) < 2
        return values[0] if values else None


class Site:
    """An application of one handler behind the middleware, and a client that keeps its cookie."""

    def __init__(self, store: Any = None, **options: Any) -> None:
        self.store = FailingStore() if store is None else store
        self.sessions = Sessions(self.store, secret_keys=[KEY])
        self.options = options
        self.cookie: str | None = None
        self.extra_headers: list[tuple[bytes, bytes]] = []

    async def run(self, exchange: Exchange, handler: Handler, kind: str = "http", **scope: Any) -> Exchange:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            exchange._send, exchange._receive = send, receive
            await handler(scope["session"], exchange)

        headers = [(b"host", b"example.test"), *self.extra_headers]
        if self.cookie is not None:
            headers.append((b"cookie", self.cookie.encode()))
        middleware = SessionMiddleware(app, self.sessions, **self.options)
        await middleware(
            {"type": kind, "path": "/", "headers": headers, **scope}, exchange.from_client, exchange.to_client
        )
        self._take_cookie(exchange)
        return exchange

    def _take_cookie(self, exchange: Exchange) -> None:
        for message in exchange.sent[:1]:
            for name, value in message.get("headers", []):
                if name == b"set-cookie":
                    pair = value.decode().split(";")[0]
                    self.cookie = None if pair.endswith("=") else pair

    async def get(self, handler: Handler, **scope: Any) -> Exchange:
        return await self.run(Exchange(), handler, **scope)

    async def socket(self, handler: Handler, incoming: Iterable[dict[str, Any]] = (), **scope: Any) -> Exchange:
        return await self.run(Exchange(incoming), handler, "websocket", **scope)

    async def stored(self) -> dict[str, Any] | None:
        session = self.sessions.begin([] if self.cookie is None else [self.cookie.encode()])
        await session.load()
        return None if session.is_new else dict(session)

    async def log_in(self) -> None:
        async def handler(session: Session, exchange: Exchange) -> None:
            await session.load()
            session["user"] = "alice"
            await exchange.respond()

        await self.get(handler)


@pytest.fixture
def site() -> Site:
    return Site()


# --- headers ----------------------------------------------------------------------------------------------------------


async def test_a_session_is_stored_before_the_headers_leave(site: Site) -> None:
    calls_when_sent: list[list[str]] = []

    class Watched(Exchange):
        async def to_client(self, message: Any) -> None:
            calls_when_sent.append(list(site.store.calls))
            await super().to_client(message)

    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "alice"
        await exchange.respond()

    await site.run(Watched(), handler)
    assert calls_when_sent[0] == ["create"]


async def test_a_new_session_sets_a_cookie_that_no_cache_keeps(site: Site) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "alice"
        await exchange.respond(headers=[(b"cache-control", b"public, max-age=600"), (b"vary", b"Accept")])

    exchange = await site.get(handler)
    assert exchange.set_cookie is not None
    assert exchange.header("cache-control") == ["no-store"]
    assert exchange.header("vary") == ["Accept", "Cookie"]


@pytest.mark.parametrize(
    "access",
    [
        lambda session: session.get("x"),
        lambda session: "x" in session,
        len,
        list,
        bool,
        dict,
        repr,
        lambda session: session.handle,
        lambda session: session.is_new or session.created_at or session.expires_at,
        lambda session: session.flashes(),
        lambda session: session == {},
    ],
    ids=["get", "in", "len", "iterate", "bool", "dict", "repr", "handle", "times", "flashes", "equality"],
)
@pytest.mark.parametrize("logged_in", [False, True])
async def test_every_kind_of_access_makes_the_response_vary_by_cookie(site: Site, access: Any, logged_in: bool) -> None:
    if logged_in:
        await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        access(session)
        await exchange.respond(headers=[(b"cache-control", b"max-age=60")])

    exchange = await site.get(handler)
    assert exchange.header("vary") == ["Cookie"]
    assert exchange.header("cache-control") == ["max-age=60"]
    assert exchange.set_cookie is None


@pytest.mark.parametrize("vary", [b"*", b"Cookie", b"accept, COOKIE", b"Accept,cookie "])
async def test_vary_is_not_repeated(site: Site, vary: bytes) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session.get("x")
        await exchange.respond(headers=[(b"Vary", vary)])

    assert (await site.get(handler)).sent[0]["headers"] == [(b"Vary", vary)]


async def test_a_request_that_leaves_its_session_alone_gets_its_response_unchanged(site: Site) -> None:
    await site.log_in()

    async def handler(_: Session, exchange: Exchange) -> None:
        await exchange.respond(headers=[(b"x", b"y")])

    assert (await site.get(handler)).sent[0]["headers"] == [(b"x", b"y")]


async def test_without_a_cookie_the_store_is_not_asked(site: Site) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session.get("user")
        await exchange.respond()

    site.cookie = "other=1; __Host-session=forged"
    exchange = await site.get(handler)
    assert site.store.calls == []
    assert "Max-Age=0" in (exchange.set_cookie or "")


async def test_a_cookie_that_leads_nowhere_is_cleared_also_when_nobody_uses_the_session(site: Site) -> None:
    async def handler(_: Session, exchange: Exchange) -> None:
        await exchange.respond()

    site.cookie = "__Host-session=forged"
    exchange = await site.get(handler)
    assert "Max-Age=0" in (exchange.set_cookie or "")
    assert (await site.get(handler)).set_cookie is None


async def test_cookies_in_several_headers_are_found(site: Site) -> None:
    await site.log_in()
    cookie = site.cookie or ""
    seen: list[Any] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope["session"].get("user"))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    exchange = Exchange()
    headers = [(b"cookie", b"a=b"), (b"cookie", cookie.encode())]
    await SessionMiddleware(app, site.sessions)(
        {"type": "http", "path": "/", "headers": headers}, exchange.from_client, exchange.to_client
    )
    assert seen == ["alice"]


@pytest.mark.parametrize("status", [200, 201, 204, 302, 303, 304, 400, 403, 404])
async def test_every_answer_below_500_stores_the_session(site: Site, status: int) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "alice"
        await exchange.respond(status)

    assert (await site.get(handler, method="HEAD")).set_cookie is not None
    assert await site.stored() == {"user": "alice"}


async def test_an_answer_of_500_or_more_stores_nothing_even_when_its_body_follows(site: Site) -> None:
    await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "mallory"
        await exchange.respond(500)

    assert (await site.get(handler)).set_cookie is None
    assert await site.stored() == {"user": "alice"}


@pytest.mark.parametrize("used_before", [True, False])
@pytest.mark.parametrize("when", ["in its body", "after it"])
async def test_what_changes_with_an_answer_of_500_or_more_is_not_stored_either(
    site: Site, when: str, used_before: bool
) -> None:
    await site.log_in()
    cookie = site.cookie

    async def handler(session: Session, exchange: Exchange) -> None:
        if used_before:
            assert session["user"] == "alice"
        await exchange.start(500)
        if when == "in its body":
            session["user"] = "mallory"
        await exchange.body(b"sorry")
        session["late"] = True

    assert (await site.get(handler)).set_cookie is None
    site.cookie = cookie
    assert await site.stored() == {"user": "alice"}


@pytest.mark.parametrize("fail", [True, False])
async def test_a_change_after_the_request_that_nothing_would_store_is_an_error_where_it_is_made(
    site: Site, fail: bool
) -> None:
    await site.log_in()
    kept: list[Session] = []

    async def handler(session: Session, exchange: Exchange) -> None:
        kept.append(session)
        await exchange.respond()
        if fail:
            raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        await site.get(handler)
    (session,) = kept
    assert session["user"] == "alice", "it may still be read, by a middleware further out"
    with pytest.raises(SessionClosed, match=r"sessions\.open"):
        session["late"] = True


async def test_an_exception_stores_nothing(site: Site) -> None:
    await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "mallory"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await site.get(handler)
    assert await site.stored() == {"user": "alice"}


@pytest.mark.parametrize("fail", [True, False])
async def test_a_logout_holds_when_the_rest_of_the_request_fails(site: Site, fail: bool) -> None:
    await site.log_in()
    cookie = site.cookie

    async def handler(session: Session, exchange: Exchange) -> None:
        session.destroy()
        if fail:
            raise ZeroDivisionError
        await exchange.respond(500)

    if fail:
        with pytest.raises(ZeroDivisionError):
            await site.get(handler)
    else:
        assert "Max-Age=0" in ((await site.get(handler)).set_cookie or "")
    site.cookie = cookie
    assert await site.stored() is None


class FarStore(MemoryStore):
    """Makes whoever asks it wait, as a server does."""

    async def load(self, *keys: str) -> list[bytes | None]:
        await asyncio.sleep(0)
        return await super().load(*keys)

    async def delete(self, key: str) -> bytes | None:
        await asyncio.sleep(0)
        return await super().delete(key)


@pytest.mark.parametrize("how", ["in the application", "in a middleware of Starlette's kind"])
async def test_a_logout_holds_when_the_request_is_cancelled_again_and_again(how: str) -> None:
    """As anyio does: at whatever is awaited until its scope is left, which is not before the session was given up."""
    site = Site(FarStore())
    await site.log_in()
    token = str(site.cookie).partition("=")[2]

    async def logs_out(session: Session, _exchange: Exchange) -> None:
        session.logout()
        scope.cancel()
        await asyncio.Event().wait()

    with anyio.CancelScope() as scope:
        if how == "in the application":
            await site.get(logs_out)
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(site.get, logs_out)
    await site.sessions.close()  # which waits for what is under way
    with pytest.raises(SessionNotFound):
        async with site.sessions.open(token):
            pass


class BrokenStore(FarStore):
    async def delete(self, key: str) -> bytes | None:
        await super().delete(key)
        raise ZeroDivisionError


async def test_a_logout_that_fails_when_nobody_waits_for_it_any_more_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(BrokenStore())
    await site.log_in()

    async def logs_out(session: Session, _exchange: Exchange) -> None:
        session.logout()
        scope.cancel()
        await asyncio.Event().wait()

    with anyio.CancelScope() as scope:
        await site.get(logs_out)
    await site.sessions.close()
    assert "ZeroDivisionError" in caplog.text


async def test_an_error_of_the_session_reaches_the_application_before_the_response_starts(site: Site) -> None:
    await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        session["cart"] = [1]
        session["cart"].append(object())
        with pytest.raises(UnsupportedValue):
            await exchange.respond(200)
        await exchange.respond(500)

    assert (await site.get(handler)).status == 500
    assert await site.stored() == {"user": "alice"}


# --- streaming --------------------------------------------------------------------------------------------------------


async def test_a_change_in_a_stream_is_stored_before_the_next_chunk_leaves(site: Site) -> None:
    await site.log_in()
    stored: list[Any] = []

    async def handler(session: Session, exchange: Exchange) -> None:
        await exchange.start()
        for chunk in (b"1", b"2"):
            session.append("chunks", chunk)
            await exchange.body(chunk, more=True)
            stored.append((await site.stored() or {})["chunks"])
        session["user"] = "bob"
        await exchange.body()
        stored.append((await site.stored() or {})["user"])
        session["background"] = True

    await site.get(handler)
    assert stored == [[b"1"], [b"1", b"2"], "bob"]
    assert await site.stored() == {"user": "bob", "chunks": [b"1", b"2"], "background": True}


async def test_a_change_in_a_stream_that_needs_a_cookie_is_an_error_where_it_is_made(site: Site) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        await exchange.start()
        with pytest.raises(ResponseStarted):
            session["user"] = "alice"
        with pytest.raises(ResponseStarted):
            session.flash("hi")
        assert session.get("user") is None
        await exchange.body()

    await site.get(handler)
    assert "create" not in site.store.calls


async def test_a_stream_that_fails_stores_nothing_of_what_was_under_way(site: Site) -> None:
    await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        await exchange.start()
        session["user"] = "mallory"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await site.get(handler)
    assert await site.stored() == {"user": "alice"}


# --- the store is down ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["load", "update"])
async def test_while_the_store_is_down_the_answer_is_503_and_nobody_is_logged_out(site: Site, failing: Any) -> None:
    await site.log_in()
    site.store.fail(failing)

    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "bob"
        await exchange.respond()

    exchange = await site.get(handler)
    assert exchange.status == 503
    assert exchange.header("retry-after") == ["5"]
    assert exchange.header("cache-control") == ["no-store"]
    assert exchange.set_cookie is None
    assert len(exchange.sent) == 2
    site.store.recover()
    assert await site.stored() == {"user": "alice"}


@pytest.mark.parametrize("others", [[], [ZeroDivisionError()]])
async def test_an_outage_that_a_group_of_tasks_has_met_is_503_if_nothing_else_went_wrong(
    site: Site, others: list[Exception]
) -> None:
    await site.log_in()
    message = "of two tasks"

    async def handler(_session: Session, _exchange: Exchange) -> None:
        raise ExceptionGroup(message, [ExceptionGroup(message, [StoreUnavailable("down")]), *others])

    if others:
        with pytest.raises(ExceptionGroup):
            await site.get(handler)
    else:
        assert (await site.get(handler)).status == 503


async def test_the_log_says_why_requests_are_answered_by_503_but_not_for_each(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.store.fail("create")

    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "bob"
        await exchange.respond()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange._send = send
        await handler(scope["session"], exchange)

    middleware = SessionMiddleware(app, site.sessions)
    for _ in range(20):
        exchange = Exchange()
        await middleware({"type": "http", "path": "/", "headers": []}, exchange.from_client, exchange.to_client)
        assert exchange.status == 503
    assert [record.getMessage() for record in caplog.records] == [
        "The store can't be used, so a request is answered by 503: the test made create() fail"
    ]


async def test_a_new_session_that_can_not_be_stored_is_503_without_a_cookie(site: Site) -> None:
    site.store.fail("create")

    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "bob"
        await exchange.respond()

    exchange = await site.get(handler)
    assert (exchange.status, exchange.set_cookie) == (503, None)


async def test_a_request_without_a_session_is_answered_while_the_store_is_down(site: Site) -> None:
    site.store.fail("load", "create", "update", "delete")

    async def handler(session: Session, exchange: Exchange) -> None:
        session.get("user")
        await exchange.respond()

    assert (await site.get(handler)).status == 200


async def test_an_application_that_swallows_the_error_still_answers_503(site: Site) -> None:
    site.store.fail("create")

    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "bob"
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await exchange.start(200)

    assert (await site.get(handler)).status == 503


async def test_an_application_that_raises_another_error_in_the_stores_place_still_answers_503(site: Site) -> None:
    site.store.fail("create")

    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "alice"
        try:
            await exchange.respond()
        except StoreUnavailable as error:
            raise RuntimeError from error

    exchange = await site.get(handler)
    assert (exchange.status, exchange.set_cookie) == (503, None)


async def test_a_logout_that_the_store_could_not_do_leaves_the_cookie_to_try_again(site: Site) -> None:
    await site.log_in()
    site.store.fail("delete")

    async def handler(session: Session, exchange: Exchange) -> None:
        session.destroy()
        await exchange.respond()

    exchange = await site.get(handler)
    assert (exchange.status, exchange.set_cookie) == (503, None)
    site.store.recover()
    exchange = await site.get(handler)
    assert exchange.status == 200
    assert "Max-Age=0" in (exchange.set_cookie or "")


async def test_a_logout_holds_when_the_store_fails_elsewhere_in_the_request(site: Site) -> None:
    await site.log_in()
    cookie = site.cookie

    async def handler(session: Session, exchange: Exchange) -> None:
        session["a"] = 1
        site.store.fail("update")
        try:
            await session.save()
        finally:
            session.destroy()

    exchange = await site.get(handler)
    assert exchange.status == 503
    assert "Max-Age=0" in (exchange.set_cookie or "")
    site.store.recover()
    site.cookie = cookie
    assert await site.stored() is None


async def test_a_session_that_was_renewed_and_saved_before_the_store_failed_is_not_lost(site: Site) -> None:
    await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        session.renew()
        await session.save()
        session["a"] = 1
        site.store.fail("update")
        await exchange.respond()

    assert (await site.get(handler)).status == 503
    site.store.recover()
    assert await site.stored() == {"user": "alice"}


async def test_a_store_that_fails_after_the_start_breaks_the_stream_and_starts_no_second_answer(site: Site) -> None:
    await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        await exchange.start()
        session["a"] = 1
        site.store.fail("update")
        await exchange.body(b"1", more=True)

    exchange = Exchange()
    with pytest.raises(StoreUnavailable):
        await site.run(exchange, handler)
    assert [message["type"] for message in exchange.sent] == ["http.response.start"]


async def test_what_the_application_raised_is_not_hidden_by_the_store(site: Site) -> None:
    await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        session.destroy()
        site.store.fail("delete")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await site.get(handler)


async def test_an_application_that_catches_a_session_that_is_too_large_can_answer(site: Site) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session["large"] = "x" * 2_000_000
        with pytest.raises(RecordTooLarge):
            await exchange.start(200)
        del session["large"]
        await exchange.respond(413)

    assert (await site.get(handler)).status == 413


@pytest.mark.parametrize("name", [b"cdn-cache-control", b"Surrogate-Control", b"Cloudflare-CDN-Cache-Control"])
async def test_no_kind_of_cache_may_keep_a_response_with_a_cookie(site: Site, name: bytes) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "alice"
        await exchange.respond(headers=[(name, b"max-age=600")])

    names = [key for key, _ in (await site.get(handler)).sent[0]["headers"]]
    assert names == [b"cache-control", b"set-cookie", b"vary"]


async def test_an_explicit_save_that_fails_is_503_too(site: Site) -> None:
    site.store.fail("create")

    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "bob"
        await session.save()

    assert (await site.get(handler)).status == 503


async def test_a_websocket_is_told_to_try_again_later(site: Site) -> None:
    await site.log_in()
    site.store.fail("load")

    async def handler(_: Session, __: Exchange) -> None:
        pytest.fail("the application must not run")

    exchange = await site.socket(handler)
    assert [message["type"] for message in exchange.sent] == ["websocket.close"]
    assert exchange.sent[0]["code"] == 1013
    exchange = await site.socket(handler, extensions={"websocket.http.response": {}})
    assert exchange.sent[0]["type"] == "websocket.http.response.start"
    assert exchange.status == 503


# --- WebSockets -------------------------------------------------------------------------------------------------------


async def test_a_handshake_can_start_a_session(site: Site) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "alice"
        await exchange.send({"type": "websocket.accept"})

    exchange = await site.socket(handler)
    assert exchange.set_cookie is not None
    assert await site.stored() == {"user": "alice"}


async def test_a_change_over_a_websocket_is_stored_before_the_next_message_and_at_the_end(site: Site) -> None:
    await site.log_in()
    stored: list[Any] = []

    async def handler(session: Session, exchange: Exchange) -> None:
        await exchange.send({"type": "websocket.accept"})
        session.increment("messages")
        await exchange.send({"type": "websocket.send", "text": "hello"})
        stored.append(await site.stored())
        session.increment("messages")

    await site.socket(handler)
    assert stored == [{"user": "alice", "messages": 1}]
    assert await site.stored() == {"user": "alice", "messages": 2}


@pytest.mark.parametrize("used_before", ["not at all", "read", "changed", "a list handed out"])
@pytest.mark.parametrize("change", ["set", "list", "destroy", "logout"])
async def test_nothing_that_happens_after_the_start_is_overlooked(site: Site, used_before: str, change: str) -> None:
    await site.log_in()
    await site.get(_with_list)
    stored: list[Any] = []

    async def handler(session: Session, exchange: Exchange) -> None:
        handed_out: list[str] = []
        if used_before == "read":
            assert session["user"] == "alice"
        elif used_before == "changed":
            session["theme"] = "dark"
        elif used_before == "a list handed out":
            handed_out = session["pages"]
        await exchange.send({"type": "websocket.accept"})
        await exchange.send({"type": "websocket.send", "text": "hello"})
        if change == "set":
            session["late"] = True
        elif change == "list":
            (handed_out if used_before == "a list handed out" else session["pages"]).append("/late")
        elif change == "destroy":
            session.destroy()
        else:
            session.logout()
        await exchange.send({"type": "websocket.send", "text": "changed"})
        stored.append(await site.stored())

    await site.socket(handler)
    expected: dict[str, Any] = {"user": "alice", "pages": ["/", "/late"] if change == "list" else ["/"]}
    if used_before == "changed":
        expected["theme"] = "dark"
    if change == "set":
        expected["late"] = True
    assert stored == [None if change in ("destroy", "logout") else expected]


async def _with_list(session: Session, exchange: Exchange) -> None:
    session["pages"] = ["/"]
    await exchange.respond()


async def test_a_websocket_whose_client_goes_keeps_what_was_changed(site: Site) -> None:
    await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        await exchange.send({"type": "websocket.accept"})
        session["last"] = "kept"
        while (await exchange.receive())["type"] != "websocket.disconnect":
            pass
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await site.socket(handler, [{"type": "websocket.receive"}, {"type": "websocket.disconnect"}])
    assert await site.stored() == {"user": "alice", "last": "kept"}


async def test_a_websocket_that_crashes_stores_nothing_of_what_was_under_way(site: Site) -> None:
    await site.log_in()

    async def handler(session: Session, exchange: Exchange) -> None:
        await exchange.send({"type": "websocket.accept"})
        session["user"] = "mallory"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await site.socket(handler)
    assert await site.stored() == {"user": "alice"}


async def test_a_refused_handshake_stores_nothing(site: Site) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session["user"] = "alice"
        await exchange.send({"type": "websocket.close", "code": 1008})

    await site.socket(handler)
    assert "create" not in site.store.calls


# --- the guard --------------------------------------------------------------------------------------------------------


class Guarded(Site):
    """A site whose only page needs a login."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.guard = options

    async def ask(self, path: str = "/private", kind: str = "http", **headers: str) -> Exchange:
        async def page(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if self.cookie is not None:
            sent.append((b"cookie", self.cookie.encode()))
        path, _, query = path.partition("?")
        exchange = Exchange()
        scope = {"type": kind, "method": "GET", "path": path, "query_string": query.encode(), "headers": sent}
        scope |= {"method": headers.pop("method")} if "method" in headers else {}
        middleware = SessionMiddleware(require_login(page, **self.guard), self.sessions)
        await middleware(scope, exchange.from_client, exchange.to_client)
        return exchange


@pytest.mark.parametrize("raw_path", [None, b"", b"/a%2Fb", b"/a%2Fb?page=2"])
def test_the_target_of_a_request_has_its_query_once(raw_path: bytes | None) -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "path": "/a/b",
        "raw_path": raw_path,
        "query_string": b"page=2",
        "headers": [],
    }
    assert request_of(scope).target == ("/a%2Fb?page=2" if raw_path else "/a/b?page=2")


@pytest.mark.parametrize(
    ("root", "path", "target"),
    [
        ("/api", "/orders", "/api/orders"), ("/api", "/api/orders", "/api/orders"), ("/api", "/apis", "/api/apis"),
        ("/@ann", "/@ann/inbox", "/@ann/inbox"), ("/a b", "/a%20b/c", "/a%20b/c"), ("/caf\xe9", "/c", "/caf%C3%A9/c"),
        ("/caf\xe9", "/caf%c3%a9/c", "/caf%c3%a9/c"),
    ],
)  # fmt: skip
def test_the_target_of_a_request_has_what_a_proxy_took_away_and_the_application_knows_of(
    root: str, path: str, target: str
) -> None:
    scope = {"type": "http", "path": path, "raw_path": path.encode(), "root_path": root, "headers": []}
    assert request_of(scope).target == target


async def log_in_alice(site: Site) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session.login("alice")
        await exchange.respond()

    await site.get(handler)


async def test_the_guard_sends_a_browser_to_the_login_and_back() -> None:
    site = Guarded()
    exchange = await site.ask("/private?page=2&q=a%20b", accept="text/html,application/json;q=0.9")
    assert exchange.status == 303
    assert exchange.header("location") == ["/login?next=%2Fprivate%3Fpage%3D2%26q%3Da%2520b"]
    assert exchange.header("vary") == ["Cookie"]
    await log_in_alice(site)
    assert (await site.ask()).status == 200


async def test_the_guard_tells_a_program_by_401() -> None:
    for headers in ({"accept": "application/json"}, {"accept": "*/*", "sec_fetch_mode": "cors"}):
        exchange = await Guarded().ask(**headers)
        assert exchange.status == 401
        assert b'"login_required"' in exchange.sent[1]["body"]
        assert exchange.header("www-authenticate") == []
        assert exchange.header("location") == []


@pytest.mark.parametrize(
    "path",
    [
        *("//evil.test", "/\\evil.test", "/%2Fevil.test", "/a%0d%0aset-cookie:x", "/\tevil"),
        # Without its dot segments, each is //evil.test (RFC 3986, section 5.2.4).
        *("/..//evil.test", "/.//evil.test", "/a/..//evil.test", "/%2e%2e//evil.test", "/..%2Fa/..//evil.test"),
        *("/%3f/../..//evil.test", "/%23/../..//evil.test"),
    ],
)
async def test_the_guard_sends_nobody_to_another_site(path: str) -> None:
    assert (await Guarded().ask(path)).header("location") == ["/login"]


@pytest.mark.parametrize("target", ["/a/../b", "/./b", "/a//b", "/...//b", "/b?from=/..//a", "/b#/..//a", "/b%3Fx"])
def test_a_path_of_this_site_is_kept_as_it_is(target: str) -> None:
    assert safe_next(target) == target


async def test_the_guard_does_not_send_anybody_back_to_a_form_that_was_lost() -> None:
    site = Guarded(login_path="/sign-in")
    exchange = Exchange()
    scope = {"type": "http", "method": "POST", "path": "/pay", "headers": []}

    async def page(_scope: Any, _receive: Any, _send: Any) -> None:
        pytest.fail("must not run")

    middleware = SessionMiddleware(require_login(page, login_path="/sign-in"), site.sessions)
    await middleware(scope, exchange.from_client, exchange.to_client)
    assert exchange.header("location") == ["/sign-in"]


async def test_the_guard_refuses_a_websocket() -> None:
    exchange = await Guarded().ask(kind="websocket")
    assert exchange.sent == [{"type": "websocket.close", "code": 1008, "reason": "Log in first"}]


async def test_the_guard_for_pages_that_matter_asks_again_after_a_while() -> None:
    site = Guarded(within=timedelta(minutes=5))
    clock = ManualClock()
    site.sessions = Sessions(MemoryStore(clock=clock), secret_keys=[KEY], clock=clock)
    await log_in_alice(site)
    assert (await site.ask()).status == 200
    clock.advance(timedelta(minutes=6))
    assert (await site.ask()).status == 303
    exchange = await site.ask(accept="application/json")
    assert b'"recent_login_required"' in exchange.sent[1]["body"]


def test_a_guard_with_a_login_page_elsewhere_is_refused() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="login_path"):
        require_login(app, login_path="https://evil.test/login")


async def test_a_login_remembers_the_device_as_the_request_tells_it(site: Site) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session.login("alice")
        await exchange.respond()

    site.extra_headers = [(b"user-agent", b"Firefox\x00")]
    await site.get(handler, client=("192.0.2.7", 1234))
    (info,) = await site.sessions.for_user("alice")
    assert (info.user_agent, info.client_address) == ("Firefox\ufffd", "192.0.2.0")


# --- options ----------------------------------------------------------------------------------------------------------


async def test_lazy_loading_reads_when_asked_and_not_before() -> None:
    site = Site(load="lazy")
    await site.log_in()
    site.store.calls.clear()

    async def handler(session: Session, exchange: Exchange) -> None:
        await exchange.respond()

    assert (await site.get(handler)).header("vary") == []
    assert site.store.calls == []

    async def forgetful(session: Session, exchange: Exchange) -> None:
        with pytest.raises(SessionNotLoaded):
            session.get("user")
        await exchange.respond()

    await site.get(forgetful)
    cookie, site.cookie = site.cookie, None
    await site.get(forgetful)  # also for a client without a session, or the mistake is found too late
    site.cookie = cookie

    async def reading(session: Session, exchange: Exchange) -> None:
        await session.load()
        await session.load()
        assert session["user"] == "alice"
        await exchange.respond()

    assert (await site.get(reading)).header("vary") == ["Cookie"]
    assert site.store.calls == ["load"]


async def test_a_lazy_session_can_be_destroyed_unread() -> None:
    site = Site(load="lazy")
    await site.log_in()
    cookie = site.cookie

    async def handler(session: Session, exchange: Exchange) -> None:
        session.destroy()
        await exchange.respond()

    await site.get(handler)
    assert site.cookie is None
    site.cookie = cookie
    assert await site.stored() is None


async def test_several_sessions_live_side_by_side_in_one_request() -> None:
    main = Sessions("memory://", secret_keys=[KEY])
    cart = Sessions("memory://", secret_keys=[KEY], cookie=CookieConfig(name="cart", same_site="strict"))

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["session"]["user"] = "alice"
        scope["cart"].append("items", "pen")
        await send({"type": "http.response.start", "status": 200, "headers": []})

    stack = SessionMiddleware(SessionMiddleware(app, cart, name="cart"), main)
    exchange = Exchange()
    await stack({"type": "http", "path": "/", "headers": []}, exchange.from_client, exchange.to_client)
    cookies = exchange.header("set-cookie")
    assert [cookie.split("=")[0] for cookie in cookies] == ["__Host-cart", "__Host-session"]
    assert exchange.header("vary") == ["Cookie"]
    assert exchange.header("cache-control") == ["no-store"]
    header = "; ".join(cookie.split(";")[0] for cookie in cookies)
    async with main.open(cookies[1].split(";")[0].split("=", 1)[1]) as session:
        assert dict(session) == {"user": "alice"}
    session = cart.begin([header.encode()])
    await session.load()
    assert dict(session) == {"items": ["pen"]}


async def test_two_middlewares_of_one_cookie_are_an_error() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        pytest.fail("must not run")

    stack = SessionMiddleware(
        SessionMiddleware(app, Sessions("memory://", secret_keys=[KEY]), name="admin"),
        Sessions("memory://", secret_keys=[KEY]),
    )
    exchange = Exchange()
    with pytest.raises(ConfigurationError, match="same cookie '__Host-session'"):
        await stack({"type": "http", "path": "/", "headers": []}, exchange.from_client, exchange.to_client)


async def test_two_middlewares_of_one_name_are_an_error() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        pytest.fail("must not run")

    sessions = Sessions("memory://", secret_keys=[KEY])
    stack = SessionMiddleware(SessionMiddleware(app, sessions), sessions)
    exchange = Exchange()
    with pytest.raises(ConfigurationError, match="same name"):
        await stack({"type": "http", "path": "/", "headers": []}, exchange.from_client, exchange.to_client)


def test_wrong_arguments_are_refused_when_the_application_is_built() -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="Sessions"):
        SessionMiddleware(app, SyncSessions("memory://", secret_keys=[KEY]))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="lazy"):
        SessionMiddleware(app, Sessions("memory://", secret_keys=[KEY]), load="never")  # type: ignore[arg-type]


async def test_the_store_is_closed_at_shutdown_before_the_server_is_told() -> None:
    events: list[str] = []

    class Closing(MemoryStore):
        async def close(self) -> None:
            events.append("closed")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: Any) -> None:
        events.append(message["type"])

    middleware = SessionMiddleware(app, Sessions(Closing(), secret_keys=[KEY]))
    await middleware({"type": "lifespan"}, Exchange().from_client, send)
    assert events == ["lifespan.startup.complete", "closed", "lifespan.shutdown.complete"]


async def test_other_kinds_of_scope_pass_through() -> None:
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    exchange = Exchange()
    middleware = SessionMiddleware(app, Sessions("memory://", secret_keys=[KEY]))
    await middleware({"type": "custom"}, exchange.from_client, exchange.to_client)
    assert seen == ["custom"]


# --- cost -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["none", "read", "change"])
async def test_a_request_leaves_nothing_for_the_garbage_collector(use: str) -> None:
    """Objects that hold each other are freed late, and looking for them costs every request."""
    sessions = Sessions(MemoryStore(), secret_keys=[KEY])
    async with sessions.open() as session:
        session["user"] = "alice"
    cookie = f"{sessions.config.cookie.full_name}={session.token}".encode()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if use == "read":
            assert scope["session"]["user"] == "alice"
        elif use == "change":
            scope["session"].increment("visits")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None: ...

    async def request() -> None:
        headers = [] if use == "none" else [(b"cookie", cookie)]
        await SessionMiddleware(app, sessions)({"type": "http", "path": "/", "headers": headers}, receive, send)

    await request()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await request()
        gc.collect()
        ours = [each for each in gc.garbage if type(each).__module__.startswith("coatcheck")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert ours == []


async def test_a_cookie_that_save_has_made_due_leaves_with_the_response(site: Site) -> None:
    async def handler(session: Session, exchange: Exchange) -> None:
        session.login("alice")
        await session.save()
        await exchange.respond()

    exchange = await site.get(handler)
    assert exchange.set_cookie is not None
    first = site.cookie
    assert (await site.get(handler)).set_cookie is not None  # a login gives another ID
    assert site.cookie != first


async def test_what_is_read_is_seen_by_caches_and_the_applications_message_is_left_alone(site: Site) -> None:
    await site.log_in()
    message = {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]}

    async def handler(session: Session, exchange: Exchange) -> None:
        assert session["user"] == "alice"
        await exchange.send(message)
        await exchange.body(b"ok")

    exchange = await site.get(handler)
    assert exchange.header("vary") == ["Cookie"]
    assert exchange.set_cookie is None
    assert message == {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]}
