"""Flask-Session with Redis."""

from __future__ import annotations

from datetime import timedelta

from article import REDIS_URL, be_ready, content
from flask import Flask, request, session
from flask.typing import ResponseReturnValue
from flask_session import Session
from redis import Redis

app = Flask(__name__)
app.config.update(
    SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(REDIS_URL), PERMANENT_SESSION_LIFETIME=timedelta(days=7)
)
Session(app)


@app.post("/login")
def login() -> ResponseReturnValue:
    app.session_interface.regenerate(session)
    session.update(content(request.args["user"]))
    return {"ok": True}


@app.get("/profile")
def profile() -> ResponseReturnValue:
    if not session.get("authenticated"):
        return {"error": "not logged in"}, 401
    return {"user": session["user"], "visits": session["visits"]}


@app.get("/visit")
def visit() -> ResponseReturnValue:
    session["visits"] += 1
    return {"visits": session["visits"]}


@app.post("/logout")
def logout() -> ResponseReturnValue:
    session.clear()
    return {"ok": True}


@app.get("/none")
def none() -> ResponseReturnValue:
    return {"ok": True}


be_ready()
