"""Redis's own sessions for FastAPI. The URL of Redis comes from REDIS_URL, which its settings read by themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from article import be_ready, content
from fastapi import Depends, FastAPI
from redis_fastapi import FastAPIRedis, SessionDep, valid_session

app = FastAPI()
FastAPIRedis(app).lifespan().sessions(
    principal_keys=["user"], subject_of=lambda session: session.get("user"), absolute_ttl=timedelta(days=7)
)


@app.post("/login")
async def login(user: str, session: SessionDep) -> dict[str, Any]:
    session.update(content(user))
    return {"ok": True}


@app.get("/profile", dependencies=[Depends(valid_session())])
async def profile(session: SessionDep) -> dict[str, Any]:
    return {"user": session["user"], "visits": session["visits"]}


@app.get("/visit", dependencies=[Depends(valid_session())])
async def visit(session: SessionDep) -> dict[str, Any]:
    session["visits"] += 1
    return {"visits": session["visits"]}


@app.post("/logout")
async def logout(session: SessionDep) -> dict[str, Any]:
    session.clear()
    return {"ok": True}


@app.get("/none")
async def none() -> dict[str, Any]:
    return {"ok": True}


be_ready()
