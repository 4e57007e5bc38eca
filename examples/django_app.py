"""Login, guarded pages, devices and logout with Django, in one file. `python examples/django_app.py` runs it.

A project of yours has all this in its settings, urls and views. What belongs to Coatcheck is SESSION_ENGINE, COATCHECK,
the first line of MIDDLEWARE, and the views of devices.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

IS_SECURE = os.environ.get("COOKIE_SECURE") == "1"

if not settings.configured:
    settings.configure(
        SESSION_ENGINE="coatcheck.integrations.django",
        COATCHECK={"store": os.environ.get("STORE", "sqlite:///example.sqlite3"), "max_sessions_per_user": 5},
        MIDDLEWARE=[
            "coatcheck.integrations.django.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32),  # without one, a restart logs people out
        SESSION_COOKIE_NAME="__Host-session" if IS_SECURE else "session",
        SESSION_COOKIE_SECURE=IS_SECURE,
        CSRF_COOKIE_SECURE=IS_SECURE,
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https") if IS_SECURE else None,
        AUTHENTICATION_BACKENDS=[
            "django.contrib.auth.backends.ModelBackend",
            "coatcheck.integrations.django.SharedLogin",  # for one_login_api.py, where people log in as well
        ],
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        INSTALLED_APPS=[
            "coatcheck.integrations.django",  # for `manage.py check`
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
        ],
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path("example-users.sqlite3").absolute()}
        },
        ROOT_URLCONF=__name__,
        USE_TZ=True,
    )
    django.setup()

# Django's models can be imported when it is set up.
from django.contrib import messages  # noqa: E402
from django.contrib.auth import authenticate  # noqa: E402
from django.contrib.auth import login as auth_login  # noqa: E402
from django.contrib.auth import logout as auth_logout  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.auth.views import redirect_to_login  # noqa: E402
from django.middleware.csrf import get_token  # noqa: E402
from django.utils.html import format_html  # noqa: E402
from django.views.decorators.cache import never_cache  # noqa: E402
from django.views.decorators.http import require_POST  # noqa: E402

import pages  # noqa: E402
from coatcheck.guard import safe_next  # noqa: E402
from coatcheck.integrations.django import sessions  # noqa: E402

View = Callable[[HttpRequest], HttpResponse]


def see(location: str) -> HttpResponse:
    """Send the browser on, to be asked for by GET."""
    return HttpResponse(status=303, headers={"Location": location})


def page(request: HttpRequest, name: str, status: int = 200, **context: object) -> HttpResponse:
    """Give one of the examples' pages."""
    html = pages.render(
        name,
        user=request.user.get_username() or None,
        csrf=format_html('<input type="hidden" name="csrfmiddlewaretoken" value="{}">', get_token(request)),
        messages=[str(message) for message in messages.get_messages(request)],
        theme=request.session.get("theme", "system"),
        **context,
    )
    return HttpResponse(html, status=status)


def guarded(view: View) -> View:
    """Let only those who are logged in see a page. As `login_required`, but by 303."""

    @wraps(view)
    def guard(request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            return view(request)
        following = request.get_full_path() if request.method == "GET" else "/profile"
        return see(redirect_to_login(following, "/login").url)

    return guard


@never_cache
def home(request: HttpRequest) -> HttpResponse:
    return page(request, "home")


@never_cache
def login(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return page(request, "login", error=None, next=request.GET.get("next", ""))
    user = authenticate(request, username=request.POST.get("username"), password=request.POST.get("password"))
    following = request.POST.get("next", "")
    if user is None:
        return page(request, "login", 401, error="That is not the password.", next=following)
    auth_login(request, user)
    return see(safe_next(following, "/profile"))


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    auth_logout(request)
    return see("/")


@never_cache
@guarded
def profile(request: HttpRequest) -> HttpResponse:
    visits = request.session.coatcheck.increment("visits")  # concurrent visits lose nothing
    return page(request, "profile", visits=visits)


@never_cache
@guarded
def preferences(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return page(request, "settings")
    if request.POST.get("theme") in pages.THEMES:
        request.session["theme"] = request.POST["theme"]
        messages.success(request, "Saved.")
    return see("/settings")


@never_cache
@guarded
def devices(request: HttpRequest) -> HttpResponse:
    found = sessions().for_user(str(request.user.pk), current=request.session.coatcheck)
    return page(request, "devices", devices=found)


@require_POST
@guarded
def revoke(request: HttpRequest) -> HttpResponse:
    sessions().revoke(request.POST.get("handle", ""), user_id=str(request.user.pk))
    return see("/devices")


@require_POST
@guarded
def revoke_others(request: HttpRequest) -> HttpResponse:
    sessions().revoke_user(str(request.user.pk), keep=request.session.coatcheck)
    return see("/devices")


urlpatterns = [
    path("", home),
    path("login", login),
    path("logout", logout),
    path("profile", profile),
    path("settings", preferences),
    path("devices", devices),
    path("devices/revoke", revoke),
    path("devices/revoke-others", revoke_others),
]


def make_users() -> None:
    """Make the users' tables, and alice and bob."""
    call_command("migrate", verbosity=0)
    for name, password in (("alice", "wonderland"), ("bob", "builder")):
        if not User.objects.filter(username=name).exists():
            User.objects.create_user(name, password=password)


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """A thread for each request."""

    daemon_threads = True


if __name__ == "__main__":
    make_users()
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    with make_server("127.0.0.1", port, get_wsgi_application(), ThreadingServer) as server:
        print(f"http://127.0.0.1:{port}", flush=True)
        server.serve_forever()
