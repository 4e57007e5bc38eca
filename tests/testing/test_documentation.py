"""The tests that docs/testing.md shows are run, on an application that is as the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"

BEFORE = """
import warnings
from datetime import timedelta

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from coatcheck import Sessions
from coatcheck.asgi import SessionMiddleware, require_login
from coatcheck.csrf import csrf_token
from coatcheck.csrf.asgi import CsrfMiddleware
from coatcheck.stores.memory import SyncMemoryStore
from coatcheck.testing import FailingStore, ManualClock, StoreContract, logged_in

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

key = "a secret key for tests, 32 bytes or more"


def create_app(sessions):
    async def page(request):
        return PlainTextResponse(request.session.user_id)

    delete = require_login(Starlette(routes=[Route("/delete", page)]), within=timedelta(minutes=5))
    cart = Route("/cart", page, methods=["POST"])
    guarded = Starlette(routes=[Route("/profile", page), cart, Mount("/account", delete)])
    return SessionMiddleware(CsrfMiddleware(require_login(guarded)), sessions)


def add_to_cart(session, item):
    session.append("cart", item)


class MyStore(SyncMemoryStore):
    pass


"""


def test_what_the_page_shows_passes(pytester: pytest.Pytester) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown = [block for block in blocks if "def test_" in block or "StoreContract" in block or "def coatcheck_" in block]
    assert len(shown) == 6
    pytester.makeconftest('pytest_plugins = ["coatcheck.testing.fixtures"]')
    pytester.makepyfile(**{f"test_block_{number}": BEFORE + block for number, block in enumerate(shown)})
    outcomes = pytester.runpytest_inprocess().parseoutcomes()
    assert outcomes.keys() <= {"passed", "warnings", "warning"}
    assert outcomes["passed"] > 20
