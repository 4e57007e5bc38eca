"""Django with cache-backed sessions in Redis, in one file."""

from __future__ import annotations

from article import REDIS_URL, SECRET_KEY, WEEK_S, be_ready, content
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY=SECRET_KEY,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SESSION_COOKIE_AGE=WEEK_S,
    CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}},
)


def login(request: HttpRequest) -> HttpResponseBase:
    request.session.cycle_key()
    request.session.update(content(request.GET["user"]))
    return JsonResponse({"ok": True})


def profile(request: HttpRequest) -> HttpResponseBase:
    session = request.session
    if not session.get("authenticated"):
        return JsonResponse({"error": "not logged in"}, status=401)
    return JsonResponse({"user": session["user"], "visits": session["visits"]})


def visit(request: HttpRequest) -> HttpResponseBase:
    request.session["visits"] += 1
    return JsonResponse({"visits": request.session["visits"]})


def logout(request: HttpRequest) -> HttpResponseBase:
    request.session.flush()
    return JsonResponse({"ok": True})


def none(_request: HttpRequest) -> HttpResponseBase:
    return JsonResponse({"ok": True})


urlpatterns = [
    path("login", login),
    path("profile", profile),
    path("visit", visit),
    path("logout", logout),
    path("none", none),
]
app = get_wsgi_application()

be_ready()
