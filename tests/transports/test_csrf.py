"""CSRF protection in front of applications, ASGI and WSGI: what reaches them, and that bodies arrive whole."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from serving import serve_wsgi

from coatcheck import CookieConfig, Sessions, SyncSessions
from coatcheck.asgi import SessionMiddleware as ASGISessions
from coatcheck.csrf import CsrfRefused, csrf_token
from coatcheck.csrf.asgi import CsrfMiddleware as ASGICsrf
from coatcheck.csrf.policy import SEARCHED_BYTES
from coatcheck.csrf.wsgi import CsrfMiddleware as WSGICsrf
from coatcheck.errors import ConfigurationError
from coatcheck.wsgi import ENVIRON_KEY
from coatcheck.wsgi import SessionMiddleware as WSGISessions

KEY = "a secret key for tests, 32 bytes or more"
URL = "https://shop.test"


class ASGIShop:
    """Logs people in at /login, gives tokens at /token, and says how many bytes a POST had."""

    def __init__(self, **options: Any) -> None:
        self.sessions = Sessions("memory://", secret_keys=[KEY])
        self.reached: list[str] = []
        self.app: Any = ASGISessions(ASGICsrf(self._answer, **options), self.sessions)
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=URL)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **options))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["path"])
        body = await _whole_body(receive)
        answer = _act(scope["session"], scope["path"], body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})


async def _whole_body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


class WSGIShop:
    """The same."""

    def __init__(self, **options: Any) -> None:
        self.sessions = SyncSessions("memory://", secret_keys=[KEY])
        self.reached: list[str] = []
        self.app: Any = WSGISessions(WSGICsrf(self._answer, **options), self.sessions)
        self._client = httpx.Client(transport=httpx.WSGITransport(self.app), base_url=URL)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._client.request(method, path, **options)

    def close(self) -> None:
        self._client.close()

    def _answer(self, environ: Any, start_response: Any) -> list[bytes]:
        self.reached.append(environ["PATH_INFO"])
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        answer = _act(environ[ENVIRON_KEY], environ["PATH_INFO"], body)
        start_response("200 OK", [("content-length", str(len(answer)))])
        return [answer]


def _act(session: Any, path: str, body: bytes) -> bytes:
    if path == "/login":
        session.login("alice")
    if path == "/cart":
        session["cart"] = ["book"]
    return csrf_token(session).encode() if path == "/token" else str(len(body)).encode()


Shop = ASGIShop | WSGIShop


@pytest.fixture(params=[ASGIShop, WSGIShop])
def shops(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Shop] = []

    def make(**options: Any) -> Shop:
        made.append(request.param(**options))
        return made[-1]

    yield make
    for shop in made:
        shop.close()


@pytest.fixture
def shop(shops: Any) -> Any:
    return shops()


def log_in(shop: Any) -> str:
    assert shop.request("POST", "/login").status_code == 200
    token = shop.request("GET", "/token").text
    assert token
    return str(token)


def test_a_form_with_the_sessions_token_passes(shop: Any) -> None:
    token = log_in(shop)
    assert shop.request("POST", "/buy", data={"csrf_token": token, "item": "book"}).status_code == 200
    assert shop.request("POST", "/buy", data={"item": "x" * 40_000, "csrf_token": token}).status_code == 200


def test_a_multipart_form_with_the_sessions_token_passes(shop: Any) -> None:
    token = log_in(shop)
    answer = shop.request("POST", "/buy", data={"csrf_token": token}, files={"photo": b"x" * 300_000})
    assert answer.status_code == 200


def test_a_script_with_the_token_in_a_header_passes_whatever_its_body(shop: Any) -> None:
    token = log_in(shop)
    assert shop.request("PUT", "/buy", json={}, headers={"X-CSRF-Token": token}).status_code == 200
    assert shop.request("DELETE", "/buy", headers={"X-CSRF-Token": token}).status_code == 200


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "csrf_token_missing"),
        ({"data": {"item": "book"}}, "csrf_token_missing"),
        ({"data": {"csrf_token": ""}}, "csrf_token_missing"),
        ({"data": {"csrf_token": "A" * 64}}, "csrf_token_wrong"),
        ({"headers": {"x-csrf-token": "A" * 64}}, "csrf_token_wrong"),
        ({"files": {"csrf_token": b"A" * 64}}, "csrf_token_missing"),
        ({"json": {"csrf_token": "A" * 64}}, "csrf_token_missing"),
        ({"content": b"\xff\xfe", "headers": {"content-type": "multipart/form-data"}}, "csrf_token_missing"),
        ({"content": b"\xff", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "csrf_token_missing"),
        (
            {"content": b"&&=&%&", "headers": {"content-type": "application/x-www-form-urlencoded"}},
            "csrf_token_missing",
        ),
        ({"headers": {"sec-fetch-site": "cross-site"}}, "csrf_origin"),
        ({"headers": {"origin": "https://evil.test"}}, "csrf_origin"),
    ],
)
def test_what_lacks_the_token_does_not_reach_the_application(shop: Any, options: Any, code: str) -> None:
    log_in(shop)
    options = {**options, "headers": {"accept": "application/json", **options.get("headers", {})}}
    answer = shop.request("POST", "/buy", **options)
    assert answer.status_code == 403
    assert answer.json()["error"] == code
    assert answer.headers["cache-control"] == "no-store"
    assert "/buy" not in shop.reached


def test_another_site_is_refused_even_with_the_token(shop: Any) -> None:
    token = log_in(shop)
    headers = {"x-csrf-token": token, "origin": "https://evil.test"}
    assert shop.request("POST", "/buy", headers=headers).status_code == 403


def test_another_site_can_log_nobody_in(shop: Any) -> None:
    answer = shop.request("POST", "/login", headers={"origin": "https://evil.test"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert shop.reached == []


def test_a_visitor_without_session_may_log_in(shop: Any) -> None:
    assert shop.request("GET", "/token").text == ""
    assert shop.request("POST", "/login", data={"csrf_token": ""}).status_code == 200


def test_a_login_form_from_before_the_first_session_works_in_a_browser(shop: Any) -> None:
    shop.request("POST", "/cart")
    form = {"data": {"csrf_token": ""}}
    assert shop.request("POST", "/login", **form).status_code == 403
    assert shop.request("POST", "/login", **form, headers={"origin": URL}).status_code == 200


def test_safe_methods_need_nothing(shop: Any) -> None:
    log_in(shop)
    for method in ("GET", "HEAD", "OPTIONS"):
        assert shop.request(method, "/profile", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_exempt_paths_and_trusted_origins_pass(shops: Any) -> None:
    shop = shops(exempt=["/webhooks"], trusted_origins=["https://partner.test"])
    token = log_in(shop)
    assert shop.request("POST", "/webhooks/paid", headers={"origin": "https://evil.test"}).status_code == 200
    headers = {"origin": "https://partner.test", "sec-fetch-site": "cross-site"}
    assert shop.request("POST", "/buy", headers=headers).status_code == 403  # the token is asked for all the same
    assert shop.request("POST", "/buy", headers={**headers, "x-csrf-token": token}).status_code == 200


def test_without_tokens_only_where_it_comes_from_counts(shops: Any) -> None:
    shop = shops(tokens=False)
    assert shop.request("POST", "/login").status_code == 200
    assert shop.request("POST", "/buy", data={"item": "book"}).text == "9"
    assert shop.request("POST", "/buy", headers={"origin": URL}).status_code == 200
    assert shop.request("POST", "/buy", headers={"origin": "https://evil.test"}).status_code == 403


@pytest.mark.parametrize("size", [0, 1, 8_191, 8_192, 8_193, SEARCHED_BYTES - 1, SEARCHED_BYTES, 200_000])
@pytest.mark.parametrize("kind", ["urlencoded", "multipart", "urlencoded, token last"])
def test_the_application_reads_the_body_as_it_was_sent(shop: Any, size: int, kind: str) -> None:
    token = log_in(shop)
    form: dict[str, Any] = {"data": {"csrf_token": token, "item": "x" * size}}
    if kind == "multipart":
        form = {"data": {"csrf_token": token}, "files": {"photo": b"x" * size}}
    elif kind == "urlencoded, token last":
        form = {"data": {"item": "x" * size, "csrf_token": token}}
    length = httpx.Request("POST", URL, **form).headers["content-length"]
    answer = shop.request("POST", "/buy", **form)
    if kind == "urlencoded, token last" and size >= SEARCHED_BYTES - 100:
        assert answer.status_code == 403
    else:
        assert (answer.status_code, answer.text) == (200, length)


def test_of_several_fields_the_first_counts(shop: Any) -> None:
    token = log_in(shop)
    assert shop.request("POST", "/buy", data={"csrf_token": [token, "A" * 64, "A" * 64]}).status_code == 200
    assert shop.request("POST", "/buy", data={"csrf_token": ["A" * 64, token, token]}).status_code == 403


def test_an_upload_is_not_read_to_its_end_for_a_token() -> None:
    shop = ASGIShop()
    token = log_in(shop)
    part = b'--here\r\ncontent-disposition: form-data; name="'
    body = part + b'photo"; filename="a"\r\n\r\n' + b"x" * 500_000 + b"\r\n"
    body += part + b'csrf_token"\r\n\r\n' + token.encode() + b"\r\n--here--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=here"}
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]
            sent += 50_000

    assert shop.request("POST", "/buy", content=pieces(), headers=headers).status_code == 403
    assert sent <= 2 * (SEARCHED_BYTES + 50_000)
    assert shop.request("POST", "/buy", content=body, headers=headers).status_code == 403
    whole = {**headers, "x-csrf-token": token}
    assert shop.request("POST", "/buy", content=body, headers=whole).text == str(len(body))
    short = body.replace(b"x" * 500_000, b"x" * 5_000)
    assert shop.request("POST", "/buy", content=short, headers=headers).status_code == 200
    shop.close()


@pytest.mark.parametrize("headers", [{"origin": "https://evil.test"}, {"x-csrf-token": "A" * 64}, {}])
def test_a_refused_form_is_read_to_its_end_if_it_is_short(headers: dict[str, str]) -> None:
    """Else some servers close the connection, and the client's next request fails."""
    shop = ASGIShop()
    log_in(shop)
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10):
            yield b"x=y&" * 100
            sent += 1

    form = {"content-type": "application/x-www-form-urlencoded"}
    assert shop.request("POST", "/buy", content=pieces(), headers={**form, **headers}).status_code == 403
    assert sent == 10
    shop.close()


@pytest.mark.parametrize("headers", [{"origin": "https://evil.test"}, {"x-csrf-token": "A" * 64}, {}], ids=str)
def test_nobody_keeps_a_refusal_waiting_by_a_body_that_never_comes(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("READS_ON_S", "SEARCHES_S"):
        monkeypatch.setattr(f"coatcheck.csrf.asgi.{limit}", 0.0)
    shop = ASGIShop()
    log_in(shop)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    form = {"content-type": "application/x-www-form-urlencoded", "content-length": "60000"}
    assert shop.request("POST", "/buy", content=pieces(), headers={**form, **headers}).status_code == 403
    shop.close()


def test_people_get_a_page_that_says_what_to_do(shop: Any) -> None:
    log_in(shop)
    answer = shop.request("POST", "/buy", headers={"accept": "text/html", "sec-fetch-mode": "navigate"})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "carries no CSRF token" in answer.text
    assert "reload the page" in re.sub(r"\s+", " ", answer.text)


def test_a_refusal_is_logged_without_the_token(shop: Any, caplog: pytest.LogCaptureFixture) -> None:
    token = log_in(shop)
    shop.request("POST", "/buy%1B", headers={"x-csrf-token": token[::-1], "accept": "application/json"})
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "csrf_token_wrong" in line
    assert "/buy" in line
    assert token[::-1] not in line
    assert line.isprintable()


def test_the_application_may_answer_refused_requests_itself(shops: Any) -> None:
    why: list[Any] = []

    async def asgi_page(scope: Any, _receive: Any, send: Any) -> None:
        why.append(scope["coatcheck.csrf"])
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b"ours"})

    def wsgi_page(environ: Any, start_response: Any) -> list[bytes]:
        why.append(environ["coatcheck.csrf"])
        start_response("403 Forbidden", [])
        return [b"ours"]

    shop = shops(refusal=asgi_page) if isinstance(shops(), ASGIShop) else shops(refusal=wsgi_page)
    log_in(shop)
    assert shop.request("POST", "/buy").text == "ours"
    assert isinstance(why[0], CsrfRefused)
    assert why[0].code == "csrf_token_missing"


def test_without_session_middleware_around_it_it_says_so() -> None:
    client = httpx.Client(transport=httpx.WSGITransport(WSGICsrf(lambda *_: [])), base_url=URL)
    with client, pytest.raises(ConfigurationError, match="inside of SessionMiddleware"):
        client.post("/")

    async def post() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(ASGICsrf(_unreachable)), base_url=URL) as client:
            await client.post("/")

    with pytest.raises(ConfigurationError, match="inside of SessionMiddleware"):
        asyncio.run(post())


async def _unreachable(*_: Any) -> None:
    raise AssertionError


@pytest.mark.parametrize("load", ["eager", "lazy"])
def test_sessions_that_are_loaded_late_are_checked_as_well(load: Any) -> None:
    shop = ASGIShop()
    token = log_in(shop)
    shop.app = ASGISessions(ASGICsrf(shop._answer), shop.sessions, load=load)
    shop._client._transport = httpx.ASGITransport(shop.app)
    assert shop.request("POST", "/buy").status_code == 403
    assert shop.request("POST", "/buy", headers={"x-csrf-token": token}).status_code == 200
    shop.close()


# --- WebSockets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("origin", "is_accepted"), [(URL, True), ("https://evil.test", False), (None, True)])
def test_a_websocket_is_refused_to_other_sites_pages(origin: str | None, is_accepted: bool) -> None:
    sent: list[str] = []
    headers = [(b"host", b"shop.test")] + ([] if origin is None else [(b"origin", origin.encode())])
    scope = {"type": "websocket", "path": "/", "scheme": "wss", "headers": headers, "query_string": b""}

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": "websocket.disconnect"}

    sessions = Sessions("memory://", secret_keys=[KEY])
    asyncio.run(ASGISessions(ASGICsrf(application), sessions)(scope, receive, send))
    assert ("websocket.accept" in sent) is is_accepted


@pytest.mark.parametrize(("origin", "status"), [(URL, 200), ("https://evil.test", 403)])
def test_a_websocket_of_a_wsgi_server_is_refused_to_other_sites_pages(origin: str, status: int) -> None:
    shop = WSGIShop()
    headers = {"upgrade": "WebSocket", "connection": "upgrade", "origin": origin}
    assert shop.request("GET", "/live", headers=headers).status_code == status
    assert shop.request("GET", "/live", headers={"origin": origin}).status_code == 200
    shop.close()


# --- bodies as servers give them --------------------------------------------------------------------------------------


def test_a_body_in_small_pieces_reaches_an_asgi_application_whole() -> None:
    shop = ASGIShop()
    token = log_in(shop)
    body = f"item=book&csrf_token={token}&more=".encode() + b"x" * 10

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 3):
            yield body[start : start + 3]

    answer = shop.request(
        "POST", "/buy", content=pieces(), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert (answer.status_code, answer.text) == (200, str(len(body)))
    shop.close()


def purchase(shop: ASGIShop) -> dict[str, Any]:
    """The scope of a form that is sent to /buy."""
    cookie = "; ".join(f"{name}={value}" for name, value in shop._client.cookies.items())
    headers = [
        (b"cookie", cookie.encode()),
        (b"content-type", b"application/x-www-form-urlencoded"),
        (b"host", b"shop.test"),
    ]
    return {
        "type": "http",
        "method": "POST",
        "path": "/buy",
        "scheme": "https",
        "headers": headers,
        "query_string": b"",
    }


def test_very_many_small_and_empty_pieces_are_not_kept_as_so_many_messages() -> None:
    """With HTTP/2, a client can send empty ones without end."""
    shop = ASGIShop()
    looked_at = f"csrf_token={log_in(shop)}&"
    pieces = [b""] * 1_000 + [character.encode() for character in looked_at] + [b"more"]
    incoming = iter([{"type": "http.request", "body": piece, "more_body": True} for piece in pieces])
    received: list[bytes] = []

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        received.extend([(await receive())["body"], (await receive())["body"]])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return next(incoming)

    async def send(_: Any) -> None: ...

    shop._runner.run(ASGISessions(ASGICsrf(application), shop.sessions)(purchase(shop), receive, send))
    assert received == [looked_at.encode(), b"more"]
    shop.close()


def test_a_client_that_leaves_while_it_sends_is_refused() -> None:
    shop = ASGIShop()
    log_in(shop)
    scope = purchase(shop)
    incoming = iter([{"type": "http.request", "body": b"csrf_", "more_body": True}, {"type": "http.disconnect"}])
    statuses: list[int] = []

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    shop._runner.run(shop.app(scope, receive, send))
    assert statuses[0] == 403
    assert "/buy" not in shop.reached
    shop.close()


def test_a_real_wsgi_server_is_never_asked_for_more_than_the_body_has() -> None:
    """The stream of wsgiref has no end: whoever reads too far waits for the next request."""
    shop = WSGIShop()
    shop.sessions = SyncSessions("memory://", secret_keys=[KEY], cookie=CookieConfig(secure=False))
    shop.app = WSGISessions(WSGICsrf(shop._answer), shop.sessions)
    with serve_wsgi(shop.app) as url, httpx.Client(base_url=url, timeout=10) as client:
        client.post("/login")
        token = client.get("/token").text
        for form in ({"item": "x" * 20_000}, {"csrf_token": token, "item": "x" * 20_000}, {}):
            answer = client.post("/buy", data=form)
            assert answer.status_code == (200 if "csrf_token" in form else 403)
