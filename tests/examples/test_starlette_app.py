"""The example runs as its users run it."""

from __future__ import annotations

from pathlib import Path

import httpx
from shop_driver import EXAMPLES, ShopProcess


def test_the_example_logs_people_in_shows_their_devices_and_signs_them_out(tmp_path: Path) -> None:
    with (
        ShopProcess(EXAMPLES / "starlette_app.py", tmp_path) as shop,
        httpx.Client(base_url=shop.url) as first,
        httpx.Client(base_url=shop.url, headers={"user-agent": "Second"}) as second,
    ):
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
