"""A Django project for tests: contrib.auth, the admin, messages, and views that use sessions in every way.

Settings can be set up once in a process, which importing this module does. Tests override them (`override_settings`).
"""

from __future__ import annotations

import atexit
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from tempfile import TemporaryDirectory
from threading import Barrier, Event
from typing import Any

import django
from django.conf import settings

_folder = TemporaryDirectory(prefix="coatcheck-django-")
atexit.register(_folder.cleanup)

OURS = "coatcheck.integrations.django.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
SHARED_LOGIN = "coatcheck.integrations.django.SharedLogin"
MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


def middleware(of_sessions: str) -> list[str]:
    return [
        of_sessions,
        "django.middleware.common.CommonMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]


if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        COATCHECK={"store": "memory://"},
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{_folder.name}/db",
                "OPTIONS": {"timeout": 30},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
        ],
        LOGGING_CONFIG=None,
        LOGIN_URL="/login",
        MIDDLEWARE=middleware(OURS),
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="django_project",
        SECRET_KEY="test-secret-key-of-more-than-32-bytes",
        SESSION_ENGINE="coatcheck.integrations.django",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        USE_TZ=True,
    )
    django.setup()

from django.contrib import admin, messages  # noqa: E402
from django.contrib.auth import aauthenticate, alogin, alogout, authenticate, login, logout  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils.decorators import async_only_middleware  # noqa: E402

from coatcheck.guard import require_login, require_recent_login  # noqa: E402
from coatcheck.integrations.django import async_sessions, sessions  # noqa: E402


def make_users() -> None:
    """Make the database's tables, and alice, bob and the admin's root."""
    call_command("migrate", verbosity=0)
    if not User.objects.exists():
        User.objects.create_user("alice", password="wonderland")
        User.objects.create_user("bob", password="builder")
        User.objects.create_superuser("root", password="of all evil")


class Pause:
    """Holds a request in the middle of its view, until the test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.may_go_on = Event(), Event()
        self.together: Barrier | None = None

    def wait(self) -> None:
        self.reached.set()
        assert self.may_go_on.wait(30)


pause = Pause()


def _done(**more: Any) -> HttpResponse:
    return JsonResponse({"done": True, **more})


def untouched(request: Any) -> HttpResponse:
    return _done()


def read(request: Any) -> HttpResponse:
    return _done(values={key: value for key, value in request.session.items() if not key.startswith("_")})


def put(request: Any) -> HttpResponse:
    for key, value in request.GET.items():
        request.session[key] = value
    return HttpResponse(status=int(request.GET.get("status", "200")))


def fill_cart(request: Any) -> HttpResponse:
    request.session.setdefault("cart", {"items": []})
    return _done()


def nested(request: Any) -> HttpResponse:
    request.session["cart"]["items"].append(request.GET["item"])
    return _done()


def put_and_wait(request: Any) -> HttpResponse:
    request.session.get("anything")
    if pause.together is not None:
        pause.together.wait(30)
    else:
        pause.wait()
    return put(request)


def log_in(request: Any) -> HttpResponse:
    user = authenticate(request, username=request.GET["username"], password=request.GET["password"])
    if user is None:
        return HttpResponse(status=401)
    login(request, user)
    return HttpResponseRedirect("/who")


def log_out(request: Any) -> HttpResponse:
    logout(request)
    return _done()


def switch(request: Any) -> HttpResponse:
    request.session.coatcheck.login(request.GET["to"])
    return _done()


def who(request: Any) -> HttpResponse:
    return _done(user=request.user.get_username(), key=request.session.session_key is not None)


def expire(request: Any) -> HttpResponse:
    request.session["cart"] = "full"
    value = request.GET["after"]
    request.session.set_expiry(None if value == "none" else int(value))
    return _done()


def fail(request: Any) -> HttpResponse:
    request.session["lost"] = True
    msg = "the view fails"
    raise ValueError(msg)


def save_now(request: Any) -> HttpResponse:
    request.session["saved"] = "early"
    request.session.save()
    return _done()


def create(request: Any) -> HttpResponse:
    """What applications do that use the key of an anonymous session."""
    if "pet" in request.GET:
        request.session["pet"] = request.GET["pet"]
    if request.session.session_key is None or "anew" in request.GET:
        request.session.create()
    request.session["cart"] = "full"
    return _done()


def increment(request: Any) -> HttpResponse:
    request.session.coatcheck.increment("visits")
    request.session.coatcheck.save()
    return _done()


def devices(request: Any) -> HttpResponse:
    return _done(devices=len(sessions().for_user("1")))


def account(request: Any) -> HttpResponse:
    return _done(user=require_login(request.session.coatcheck))


def password(request: Any) -> HttpResponse:
    return _done(user=require_recent_login(request.session.coatcheck, within=timedelta(minutes=10)))


OK = HttpResponse("OK")


def same(request: Any) -> HttpResponse:
    """A view that gives one object to everybody."""
    request.session.update(request.GET.dict())
    return OK


def say(request: Any) -> HttpResponse:
    messages.success(request, request.GET["text"])
    return _done()


def hear(request: Any) -> HttpResponse:
    return _done(heard=[str(message) for message in messages.get_messages(request)])


def stream(request: Any) -> StreamingHttpResponse:
    def body() -> Iterator[bytes]:
        request.session["seen"] = "in the stream"
        yield b"first"
        pause.wait()
        yield b"last"

    request.session["before"] = "the stream"
    return StreamingHttpResponse(body())


def stream_and_fail(request: Any) -> StreamingHttpResponse:
    def body() -> Iterator[bytes]:
        yield b"first"
        request.session.coatcheck.destroy()
        msg = "the body fails"
        raise ValueError(msg)

    return StreamingHttpResponse(body())


def stream_an_error(request: Any) -> StreamingHttpResponse:
    def body() -> Iterator[bytes]:
        request.session["lost"] = "before the first chunk"
        yield b"first"
        if "log_out" in request.GET:
            request.session.coatcheck.logout()
        else:
            request.session["lost"] = "before the last"
        yield b"last"

    return StreamingHttpResponse(body(), status=500)


async def astream_an_error(request: Any) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[bytes]:
        await request.session.aset("lost", "before the first chunk")
        yield b"first"
        if "log_out" in request.GET:
            request.session.coatcheck.logout()
        else:
            await request.session.aset("lost", "before the last")
        yield b"last"

    return StreamingHttpResponse(body(), status=500)


async def astream(request: Any) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[bytes]:
        await request.session.aset("seen", "in the stream")
        yield b"first"
        yield b"last"
        if "after" in request.GET:
            await request.session.aset("after", "the last")

    return StreamingHttpResponse(body())


async def astream_and_fail(request: Any) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        request.session.coatcheck.destroy()
        msg = "the body fails"
        raise ValueError(msg)

    return StreamingHttpResponse(body())


async def aread(request: Any) -> HttpResponse:
    return _done(values={key: value for key, value in await request.session.aitems() if not key.startswith("_")})


async def aput(request: Any) -> HttpResponse:
    await request.session.aupdate(request.GET.dict())
    return _done()


async def anested(request: Any) -> HttpResponse:
    (await request.session.aget("cart"))["items"].append(request.GET["item"])
    return _done()


async def alog_in(request: Any) -> HttpResponse:
    user = await aauthenticate(request, username=request.GET["username"], password=request.GET["password"])
    if user is None:
        return HttpResponse(status=401)
    await alogin(request, user)
    return HttpResponseRedirect("/awho")


async def alog_out(request: Any) -> HttpResponse:
    await alogout(request)
    return _done()


async def awho(request: Any) -> HttpResponse:
    return _done(user=(await request.auser()).get_username())


async def aaccount(request: Any) -> HttpResponse:
    return account(request)


async def adevices(request: Any) -> HttpResponse:
    return _done(devices=len(await async_sessions().for_user("1")))


async def asave(request: Any) -> HttpResponse:
    await request.session.aset("saved", "early")
    await request.session.asave()
    return _done()


async def acreate(request: Any) -> HttpResponse:
    if "pet" in request.GET:
        await request.session.aset("pet", request.GET["pet"])
    if request.session.session_key is None or "anew" in request.GET:
        await request.session.acreate()
    await request.session.aset("cart", "full")
    return _done()


def look_for_devices(get_response: Any) -> Any:
    """A middleware that uses the store."""

    def respond(request: Any) -> HttpResponse:
        devices(request)
        response: HttpResponse = get_response(request)
        return response

    return respond


@async_only_middleware  # type: ignore[untyped-decorator]
def alook_for_devices(get_response: Any) -> Any:
    async def respond(request: Any) -> HttpResponse:
        await adevices(request)
        response: HttpResponse = await get_response(request)
        return response

    return respond


urlpatterns = [
    path("admin/", admin.site.urls),
    *(
        path(view.__name__, view)
        for view in (
            untouched, read, put, fill_cart, nested, put_and_wait, log_in, log_out, switch, who, expire, fail,
            save_now, create, increment, devices, account, password, same, say, hear, stream, stream_and_fail,
            stream_an_error, astream_an_error, astream, astream_and_fail, aread, aput, anested, alog_in, alog_out,
            awho, aaccount, adevices, asave, acreate,
        )
    ),
]  # fmt: skip


async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Django's ASGI application, and a lifespan, which it has not, to close the store's connections at its end."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            if kind == "shutdown":
                await async_sessions().close()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    await _asgi()(scope, receive, send)


def _asgi() -> Any:
    from django.core.handlers.asgi import ASGIHandler

    if _handlers.get("for") != (key := json.dumps(settings.MIDDLEWARE)):
        _handlers.update({"for": key, "handler": ASGIHandler()})
    return _handlers["handler"]


_handlers: dict[str, Any] = {}
