"""Whatever a cookie or a record holds, an adopter gives an answer or says why not, and nothing else happens."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from coatcheck.errors import ConfigurationError, UnreadableSession
from coatcheck.interop.django import DjangoCacheSessions, DjangoCookieSessions, DjangoSessions, DjangoTable
from coatcheck.interop.express import ExpressSessions
from coatcheck.interop.flask import FlaskCookieSessions
from coatcheck.interop.flask_session import FlaskSessions
from coatcheck.interop.gorilla_sessions import GorillaSessions
from coatcheck.interop.starlette import StarletteSessions

SECRET = "the old secret"
REDIS = "redis://user:password@127.0.0.1:1/0"

ADOPTERS: list[Any] = [
    DjangoCacheSessions(store=REDIS),
    DjangoCookieSessions(secret_key=SECRET, user_id=None),
    DjangoSessions(secret_key=SECRET, store=DjangoTable(connect=lambda: sqlite3.connect("nowhere?password"))),
    ExpressSessions(secrets=SECRET, store=REDIS),
    FlaskCookieSessions(secret_key=SECRET, user_id=None),
    FlaskSessions(store=REDIS, secret_key=SECRET),
    FlaskSessions(store=REDIS),
    GorillaSessions(cookie_name="session-name", key_pairs=[SECRET.encode() * 3], store=REDIS),
    StarletteSessions(secret_key=SECRET, user_id=None),
]
NAMES = [f"{number}-{type(adopter).__name__}" for number, adopter in enumerate(ADOPTERS)]

pieces = st.sampled_from(
    [
        b".",
        b":",
        b"s:",
        b"%",
        b"%2",
        b"%00",
        b'"',
        b"{}",
        b'{"a":',
        b"[" * 5_000,
        b"\x80",
        b"\x81\xa1",
        b"e30",
        b"=",
        b"\xff",
    ]
)
hostile = st.lists(pieces | st.binary(max_size=12), max_size=8).map(b"".join)


@pytest.mark.parametrize("adopter", ADOPTERS, ids=NAMES)
@settings(max_examples=150)
@given(cookie=hostile)
def test_no_cookie_does_harm(adopter: Any, cookie: bytes) -> None:
    claim = adopter.claim(cookie)
    assert claim is None or isinstance(claim.key, str)


@pytest.mark.parametrize("adopter", ADOPTERS, ids=NAMES)
@settings(max_examples=150)
@given(data=hostile)
def test_no_record_does_harm(adopter: Any, data: bytes) -> None:
    with suppress(UnreadableSession):
        old = adopter.decode(data)
        assert old is None or isinstance(old.values, dict)


tagged = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([" t", " b", " m", " u", " d", " di", "a"]), inner)
    ),
)


@settings(max_examples=200)
@given(values=tagged)
def test_no_tags_of_flasks_do_harm(values: Any) -> None:
    signer = URLSafeTimedSerializer(SECRET, salt="cookie-session", signer_kwargs={"key_derivation": "hmac"})
    adopter = FlaskCookieSessions(secret_key=SECRET, user_id=None)
    claim = adopter.claim(signer.dumps(values).encode())
    assert claim is not None
    with suppress(UnreadableSession):
        adopter.decode(claim.data or b"")


@pytest.mark.parametrize("time_text", [b"", b"\xff" * 20, b"AAAA", b"!"])
def test_a_genuine_signature_of_something_else_is_no_session(time_text: bytes) -> None:
    signer = TimestampSigner(SECRET)
    signed = super(TimestampSigner, signer).sign(b"e30=." + time_text)
    assert StarletteSessions(secret_key=SECRET, user_id=None).claim(signed) is None
    assert (
        StarletteSessions(secret_key=SECRET, user_id=None).claim(super(TimestampSigner, signer).sign(b"e30=")) is None
    )


@pytest.mark.parametrize("adopter", ADOPTERS, ids=NAMES)
def test_no_adopter_shows_a_secret(adopter: Any) -> None:
    assert "secret" not in repr(adopter)
    assert "password" not in repr(adopter)


@pytest.mark.parametrize("secret", ["", [], [SECRET, ""]])
def test_an_old_secret_key_that_anybody_knows_is_refused(secret: Any) -> None:
    for make in (
        lambda: StarletteSessions(secret_key=secret, user_id=None),
        lambda: FlaskCookieSessions(secret_key=secret, user_id=None),
        lambda: FlaskSessions(store=REDIS, secret_key=secret),
        lambda: ExpressSessions(secrets=secret, store=REDIS),
        lambda: DjangoCookieSessions(secret_key=secret, user_id=None),
    ):
        with pytest.raises(ConfigurationError, match="expected at least one, and none that is empty"):
            make()


def test_a_store_of_the_wrong_kind_is_refused_at_once() -> None:
    import redis
    import redis.asyncio

    sync, wrong = redis.Redis(port=1), redis.Redis(port=1, decode_responses=True)
    for store, is_async in ((sync, True), (redis.asyncio.Redis(port=1), False), (wrong, False), (object(), True)):
        with pytest.raises(ConfigurationError):
            FlaskSessions(store=store).records(is_async=is_async)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        FlaskSessions(store="http://localhost").records(is_async=True)


def test_old_records_of_the_other_kind_are_refused_at_once() -> None:
    class Records:
        def get(self, key: str) -> bytes | None: ...
        def delete(self, key: str) -> None: ...
        def close(self) -> None: ...

    class AsyncRecords:
        async def get(self, key: str) -> bytes | None: ...
        async def delete(self, key: str) -> None: ...
        async def close(self) -> None: ...

    for store, is_async in ((Records(), False), (AsyncRecords(), True)):
        adopter = ExpressSessions(secrets=SECRET, store=store)
        assert adopter.records(is_async=is_async) is store
        with pytest.raises(ConfigurationError, match="needs"):
            adopter.records(is_async=not is_async)
