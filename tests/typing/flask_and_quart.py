"""Never run: the type checkers read it, and say whether the types of these adapters are what users are promised."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from flask import Flask
from quart import Quart

from coatcheck import Flash, SessionInfo, Sessions, SyncSessions
from coatcheck.integrations import flask, quart

flask_extension = flask.Coatcheck(Flask("shop"))
flask.Coatcheck().init_app(Flask("shop"))
assert_type(flask_extension.sessions, SyncSessions)
assert_type(flask_extension.sessions.for_user("alice", current=flask.session), list[SessionInfo])
assert_type(flask.session, flask.FlaskSession)
assert_type(flask.session["key"], Any)
assert_type(flask.session.user_id, str | None)
assert_type(flask.session.flashes(), list[Flash])
flask.session.permanent = True
flask.session.save()

quart_extension = quart.Coatcheck(sessions=Sessions("memory://", secret_keys=["key"]))
quart_extension.init_app(Quart("shop"))
assert_type(quart_extension.sessions, Sessions)
assert_type(quart.session, quart.QuartSession)
assert_type(quart.session.user_id, str | None)

flask.Coatcheck(Quart("shop"))  # type: ignore[arg-type]
quart.Coatcheck(Flask("shop"))  # type: ignore[arg-type]
flask.Coatcheck(sessions=Sessions("memory://"))  # type: ignore[arg-type]


@flask.login_required
def view(number: int) -> str:
    return str(number)


@flask.recent_login_required(within=timedelta(minutes=10))
async def async_view(number: int) -> str:
    return str(number)


@quart.login_required
@quart.recent_login_required(timedelta(minutes=10))
async def quart_view() -> int:
    await quart.session.save()
    return len(await quart_extension.sessions.for_user("alice"))


assert_type(view(1), str)
view("1")  # type: ignore[arg-type]
flask.recent_login_required(10)  # type: ignore[arg-type]
flask.session.remember("yes")  # type: ignore[arg-type]


async def use() -> None:
    assert_type(await async_view(1), str)
    assert_type(await quart_view(), int)
