"""Django's test clients. In a process of their own, because a process has the settings of one Django project.

What the project has in place of `coatcheck.integrations.django` is as much of it as the promises here need.
"""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

PROJECT = """
    import sys
    from datetime import timedelta
    from types import SimpleNamespace

    import pytest
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(
        ALLOWED_HOSTS=["testserver"], ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.middleware"], SECRET_KEY="s" * 32
    )

    import django
    from django.test import AsyncClient, Client

    from coatcheck import SyncSessions
    from coatcheck.testing import ManualClock, alogged_in, logged_in

    django.setup()
    clock = ManualClock()
    shop = SyncSessions("memory://", secret_keys=["k" * 32], clock=clock)
    sys.modules["coatcheck.integrations.django"] = SimpleNamespace(sessions=lambda: shop)
    NAME = "__Host-session"


    def middleware(get_response):
        def handle(request):
            request.coat = session = shop.begin([request.headers.get("Cookie", "").encode()])
            response = get_response(request)
            set_cookie = shop.conclude(session, response.status_code)
            if set_cookie is not None:
                response.cookies.load(set_cookie)
            return response

        return handle


    def greet(request):
        if request.path == "/logout":
            request.coat.logout()
        if request.path == "/renew":
            request.coat.renew()
        return HttpResponse(f"{request.coat.user_id} {request.coat.get('theme')}")


    urlpatterns = [path("", greet), path("logout", greet), path("renew", greet)]


    def test_login_and_logout():
        client = Client()
        assert logged_in(client, "alice", theme="dark") is client
        assert client.get("/").text == "alice dark"
        client.get("/logout")
        assert client.get("/").text == "None None"
        assert len(client.cookies) == 1


    def test_renewal_and_use():
        client = logged_in(Client(), "alice", shop)
        first = client.cookies[NAME].value
        client.get("/renew")
        for _ in range(3):
            clock.advance(timedelta(minutes=90))
            assert client.get("/").text == "alice None"
        assert client.cookies[NAME].value != first
        assert len(client.cookies) == 1
        clock.advance(timedelta(hours=3))
        assert client.get("/").text == "None None"


    @pytest.mark.anyio
    async def test_async_login_and_logout():
        client = AsyncClient()
        assert await alogged_in(client, "alice") is client
        assert (await client.get("/")).text == "alice None"
        await client.get("/logout")
        assert (await client.get("/")).text == "None None"
        logged_in(client, "bob", theme="dark")
        assert (await client.get("/")).text == "bob dark"


    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""


def test_both_clients_of_django_are_logged_in_stay_so_and_are_logged_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_project=PROJECT)
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=3)
