"""The example runs as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from servers import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "starlette_app.py"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(port)],
        cwd=tmp_path,
        env={**os.environ, "SECRET_KEY": "a secret key for tests, 32 bytes or more"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(url)
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                break
        yield url
    finally:
        process.terminate()
        process.wait()


def test_the_example_logs_people_in_shows_their_devices_and_signs_them_out(url: str) -> None:
    with httpx.Client(base_url=url) as first, httpx.Client(base_url=url, headers={"user-agent": "Second"}) as second:
        refused = first.get("/account/")
        assert (refused.status_code, refused.headers["location"]) == (303, "/login?next=%2Faccount%2F")
        wrong = first.post("/login", data={"username": "alice", "password": "builder"})
        assert wrong.status_code == 401
        for client in (first, second):
            answer = client.post("/login?next=//evil.test", data={"username": "alice", "password": "wonderland"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/account/")
        assert first.get("/account/").json() == {"user": "alice", "visits": 1, "messages": ["Welcome back."]}
        assert first.get("/account/").json() == {"user": "alice", "visits": 2, "messages": []}
        devices = first.get("/account/devices").json()
        assert [(device["device"], device["this"]) for device in devices][1] == ("Second", False)
        assert first.post("/account/sign-out-others").json() == {"ended": 1}
        assert second.get("/").json() == {"user": None}
        assert first.post("/logout").status_code == 303
        assert first.get("/").json() == {"user": None}
