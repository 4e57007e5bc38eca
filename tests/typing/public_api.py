"""Never run: the type checkers read it, and say whether the public types are what users are promised."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, assert_type

import redis.asyncio

from coatcheck import CookieConfig, Flash, Session, Sessions, SyncSession, SyncSessions
from coatcheck.adopters import Adopter
from coatcheck.asgi import SessionMiddleware
from coatcheck.csrf import CsrfPolicy, csrf_field, csrf_token
from coatcheck.csrf.asgi import CsrfMiddleware
from coatcheck.interop.django import DjangoCacheSessions, DjangoCookieSessions, DjangoSessions, DjangoTable
from coatcheck.interop.express import ExpressSessions
from coatcheck.interop.flask import FlaskCookieSessions
from coatcheck.interop.flask_session import FlaskSessions
from coatcheck.interop.gorilla_sessions import GorillaSessions
from coatcheck.interop.redistore import RedistoreStore, SyncRedistoreStore
from coatcheck.interop.starlette import StarletteSessions
from coatcheck.stores.cookie import CookieStore, SyncCookieStore
from coatcheck.stores.memory import MemoryStore, SyncMemoryStore
from coatcheck.stores.protocol import AsyncStore, HasTokens, SyncStore
from coatcheck.stores.redis import RedisStore, SyncRedisStore
from coatcheck.stores.sqlite import SQLiteStore, SyncSQLiteStore
from coatcheck.testing import ManualClock

sessions = Sessions(
    "redis://localhost:6379/0",
    secret_keys=["newest", b"older"],
    idle_timeout=timedelta(hours=2),
    lifetime=timedelta(days=7),
    cookie=CookieConfig(name="session", same_site="lax"),
    clock=ManualClock(),
)
sync_sessions = SyncSessions(SyncMemoryStore(), secret_keys=["newest"])

adopters: list[Adopter] = [
    ExpressSessions(secrets=["newest", "older"], store="redis://localhost", user_id=lambda values: values.get("id")),
    DjangoSessions(secret_key="secret", store=DjangoTable(connect=lambda: None, placeholder="?")),
    DjangoCacheSessions(store="redis://localhost", old="keep"),
    DjangoCookieSessions(secret_key=b"secret", user_id=None, max_age=timedelta(days=14)),
    FlaskSessions(store="redis://localhost", convert=lambda values: {"cart": values["cart"]}),
    FlaskCookieSessions(secret_key="secret", user_id=None, cookie_domain="example.com"),
    GorillaSessions(cookie_name="session-name", key_pairs=[b"hash key", None], store="redis://localhost"),
    StarletteSessions(secret_key="secret", user_id=lambda values: values.get("id"), max_age=None),
]
Sessions("memory://", secret_keys=["newest"], adopt=adopters)
SyncSessions("memory://", secret_keys=["newest"], adopt=adopters)
StarletteSessions(secret_key="secret", user_id=None, old="forget")  # type: ignore[arg-type]
StarletteSessions(secret_key="secret")  # type: ignore[call-arg]
Sessions("memory://", secret_keys=["newest"], adopt=[object()])  # type: ignore[list-item]

CookieConfig(same_site="Lax")  # type: ignore[arg-type]
Sessions(SyncMemoryStore(), secret_keys=[])  # type: ignore[arg-type]
SyncSessions(MemoryStore(), secret_keys=[])  # type: ignore[arg-type]

async_stores: list[AsyncStore] = [MemoryStore(), SQLiteStore("file"), RedisStore("redis://localhost")]
sync_stores: list[SyncStore] = [SyncMemoryStore(), SyncSQLiteStore("file"), SyncRedisStore("redis://localhost")]

shared, sync_shared = RedistoreStore("redis://localhost", key_pairs=[b"key"]), SyncRedistoreStore("", key_pairs=[None])
in_cookies, sync_in_cookies = CookieStore(["key"]), SyncCookieStore([b"key"])
async_stores += [shared, in_cookies]
sync_stores += [sync_shared, sync_in_cookies]
with_tokens: list[HasTokens] = [shared, sync_shared, in_cookies, sync_in_cookies]
RedistoreStore("redis://localhost")  # type: ignore[call-arg]
SyncRedistoreStore(redis.asyncio.Redis(), key_pairs=[b"key"])  # type: ignore[arg-type]
Sessions(shared)
SyncSessions(shared)  # type: ignore[arg-type]


async def use(session: Session) -> None:
    assert_type(session["key"], Any)
    assert_type(session.handle, str)
    assert_type(session.token, str)
    assert_type(session.is_new, bool)
    assert_type(session.created_at, datetime)
    assert_type(session.expires_at, datetime)
    assert_type(session.increment("visits"), int)
    assert_type(session.increment("price", Decimal("0.10")), Decimal)
    assert_type(session.flashes(), list[Flash])
    await session.save()
    async with sessions.open("token") as other:
        assert_type(other, Session)


def use_sync(session: SyncSession) -> None:
    session.save()
    with sync_sessions.open() as other:
        assert_type(other, SyncSession)


async def app(_scope: Any, _receive: Any, _send: Any) -> None: ...


SessionMiddleware(app, sessions, load="lazy")
SessionMiddleware(app, sync_sessions)  # type: ignore[arg-type]
CsrfMiddleware(app, trusted_origins=["https://partner.example"], exempt=("/webhooks",), refusal=app)
CsrfMiddleware(app, exempt=7)  # type: ignore[arg-type]
CsrfPolicy(["https://partner.example"])


def use_tokens(session: Session, sync_session: SyncSession) -> None:
    assert_type(csrf_token(session), str)
    field: str = csrf_field(sync_session)
    csrf_field(field)  # type: ignore[arg-type]
