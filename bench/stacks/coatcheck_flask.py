"""Coatcheck on Flask."""

from __future__ import annotations

from article import REDIS_URL, SECRET_KEY, SETTINGS, be_ready
from flask import Flask, request
from flask.typing import ResponseReturnValue

from coatcheck import CookieConfig, SyncSession, SyncSessions
from coatcheck.wsgi import SessionMiddleware

app = Flask(__name__)
sessions = SyncSessions(
    REDIS_URL,
    secret_keys=[SECRET_KEY],
    cookie=CookieConfig(secure=False),
    user_agent=False,  # no other stack keeps either
    client_address="none",
)
app.wsgi_app = SessionMiddleware(app.wsgi_app, sessions)


def current_session() -> SyncSession:
    session: SyncSession = request.environ["coatcheck.session"]
    return session


@app.post("/login")
def login() -> ResponseReturnValue:
    current_session().login(request.args["user"])
    current_session().update(SETTINGS)
    return {"ok": True}


@app.get("/profile")
def profile() -> ResponseReturnValue:
    session = current_session()
    if session.user_id is None:
        return {"error": "not logged in"}, 401
    return {"user": session.user_id, "visits": session["visits"]}


@app.get("/visit")
def visit() -> ResponseReturnValue:
    return {"visits": current_session().increment("visits")}


@app.post("/logout")
def logout() -> ResponseReturnValue:
    current_session().logout()
    return {"ok": True}


@app.get("/none")
def none() -> ResponseReturnValue:
    return {"ok": True}


be_ready()
