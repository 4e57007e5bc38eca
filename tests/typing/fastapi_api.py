"""Never run: the type checkers read it, and say whether handlers get what their annotations promise."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, assert_type

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.templating import Jinja2Templates

from coatcheck import Session, Sessions, SyncSessions
from coatcheck.integrations import starlette
from coatcheck.integrations.fastapi import (
    CurrentSession,
    CurrentUser,
    FromSession,
    OptionalUser,
    RequireLogin,
    RequireRecentLogin,
    add_sessions,
    current_session,
    current_user,
)
from coatcheck.typed import SessionSchema

sessions = Sessions("redis://localhost:6379/0", secret_keys=["newest"])
app = FastAPI()

add_sessions(app, sessions)
add_sessions(app, sessions, login_path="/login", csrf=True, trusted_origins=["https://shop.example"], load="lazy")
add_sessions(app, sessions, while_down={"/": "refuse", "/products": "continue"}, csrf_exempt=["/webhooks"])
add_sessions(app, SyncSessions("memory://", secret_keys=["newest"]))  # type: ignore[arg-type]
add_sessions(app, sessions, load="never")  # type: ignore[arg-type]
add_sessions(Starlette(), sessions)  # type: ignore[arg-type]
starlette.add_sessions(Starlette(), sessions, login_path="/login")
starlette.add_sessions(app, sessions)

router = APIRouter(dependencies=[RequireLogin(), RequireRecentLogin(within=timedelta(minutes=10))])
RequireRecentLogin()  # type: ignore[call-arg]
app.dependency_overrides = {current_user: lambda: "alice", current_session: lambda: None}


@dataclass
class Basket:
    items: list[str]


async def name_of(user_id: CurrentUser) -> str:
    assert_type(user_id, str)
    return user_id


@router.get("/")
async def show(
    *,
    session: CurrentSession,
    user_id: CurrentUser,
    anybody: OptionalUser,
    lately: Annotated[str, RequireRecentLogin(within=timedelta(minutes=10))],
    name: Annotated[str, Depends(name_of)],
    basket: Annotated[Basket, FromSession(SessionSchema(Basket))],
) -> None:
    assert_type(basket, Basket)
    assert_type(session, Session)
    assert_type(user_id, str)
    assert_type(anybody, str | None)
    assert_type(lately, str)
    await session.save()


@router.websocket("/ws")
async def socket(websocket: WebSocket, session: CurrentSession) -> None:
    await session.revoked()


@starlette.login_required
async def guarded(request: Request) -> Response:
    assert_type(starlette.session_of(request), Session)
    return Response()


@starlette.login_required
def guarded_sync(_request: Request) -> Response:
    return Response()


@starlette.recent_login_required(within=timedelta(minutes=10))
async def guarded_lately(_request: Request) -> Response:
    return Response()


@starlette.login_required
async def guarded_socket(websocket: WebSocket) -> None:
    assert_type(starlette.session_of(websocket), Session)


class Page(HTTPEndpoint):
    @starlette.login_required
    async def get(self, _request: Request) -> Response:
        return Response()


async def call(request: Request) -> None:
    assert_type(await guarded(request), Response)
    assert_type(await guarded_sync(request), Response)
    assert_type(await guarded_lately(request), Response)
    await guarded("request")  # type: ignore[arg-type]


routes = [Route("/", guarded), Route("/s", guarded_sync), Route("/p", Page), WebSocketRoute("/ws", guarded_socket)]
Jinja2Templates("templates", context_processors=[starlette.template_context])
