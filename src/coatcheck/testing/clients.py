"""The test clients of the frameworks: where each keeps its cookies, and how to put one there.

A cookie is kept as if the application had set it, so that what the application sets later takes its place. No
framework is imported. A client is known by its shape, because a test has more than one class of each kind: those that
derive from httpx's, for one, are many.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message
from http.cookiejar import Cookie, CookieJar
from http.cookies import BaseCookie, Morsel, SimpleCookie
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import Request

from coatcheck.config import CookieConfig
from coatcheck.sessions import Sessions, SyncSessions


class KnownClient(Protocol):
    """What `logged_in` needs of a client."""

    def sessions(self) -> Sessions | SyncSessions | None:
        """Give the sessions that the client's application has, if they can be found."""
        ...

    def keep(self, cookie: CookieConfig, token: str) -> None:
        """Keep the cookie of a session, and send it from now on.

        Raises:
            TypeError: the client keeps no cookies.
            ValueError: the cookie is not for the host that the client talks to.
        """
        ...


def client_of(client: Any) -> KnownClient:
    """Give what is known of a client. Raises TypeError for one of an unknown kind."""
    cookies = getattr(client, "cookies", None)
    if isinstance(cookies, BaseCookie):  # before anything else is looked at: Django's `client.session` makes one
        return DjangoClient(client)
    if isinstance(getattr(cookies, "jar", None), CookieJar) and hasattr(client, "base_url"):
        return _Httpx(client)
    if hasattr(client, "cookie_jar") and hasattr(client, "app"):
        return _Quart(client)
    if hasattr(client, "set_cookie") and hasattr(client, "application"):
        return _Werkzeug(client)
    if hasattr(client, "make_url") and hasattr(getattr(client, "session", None), "cookie_jar"):
        return _Aiohttp(client)
    msg = (
        "client: expected a test client of Starlette, FastAPI, Litestar, Flask, Quart, Django or aiohttp, or an httpx "
        f"client, got a {type(client).__module__}.{type(client).__qualname__}. For any other, log in within "
        "`sessions.open()`, and give the client a cookie named `sessions.config.cookie.full_name` whose value is "
        "`session.token`"
    )
    raise TypeError(msg)


class _Httpx:
    """`httpx.Client` and `AsyncClient`, and all that derives from them: Starlette's, FastAPI's, Litestar's."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def sessions(self) -> None:
        return None

    def keep(self, cookie: CookieConfig, token: str) -> None:
        url = str(self._client.base_url)
        host = urlsplit(url).hostname
        if not host:
            msg = (
                "client: it has no base_url, so the cookie's host is not known; give it one, such as https://testserver"
            )
            raise ValueError(msg)
        _check_host(cookie, host)
        jar: CookieJar = self._client.cookies.jar
        if urlsplit(url).scheme != "https":
            jar = _LocalJar(jar)
        _set_in_jar(jar, url, cookie, token)
        self._client.cookies = jar


class _Quart:
    def __init__(self, client: Any) -> None:
        self._client = client

    def sessions(self) -> Sessions | SyncSessions | None:
        return _of_extension(self._client.app)

    def keep(self, cookie: CookieConfig, token: str) -> None:
        if self._client.cookie_jar is None:
            raise _no_cookies()
        host = _server_name(self._client.app)
        _check_host(cookie, host)
        _set_in_jar(self._client.cookie_jar, f"http://{host}", cookie, token)


class _Werkzeug:
    """Flask's client, and Werkzeug's for any WSGI application. They send Secure cookies over http by themselves."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def sessions(self) -> Sessions | SyncSessions | None:
        return _of_extension(self._client.application)

    def keep(self, cookie: CookieConfig, token: str) -> None:
        host = _server_name(self._client.application)
        _check_host(cookie, host)
        self._client.set_cookie(
            cookie.full_name,
            token,
            domain=cookie.domain or host,
            origin_only=cookie.domain is None,
            path=cookie.path,
        )


class DjangoClient:
    """Django's `Client` and `AsyncClient`, which send every cookie to every host."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def log_in(self, user_id: str, values: Mapping[str, Any]) -> None:
        """Log a user in as `django.contrib.auth` does, by the application's settings."""
        from django.contrib.auth import get_user_model

        self._client.force_login(get_user_model()._default_manager.get(pk=user_id))
        session = self._client.session
        session.update(values)
        session.save()

    async def alog_in(self, user_id: str, values: Mapping[str, Any]) -> None:
        """See `log_in`."""
        from django.contrib.auth import get_user_model

        await self._client.aforce_login(await get_user_model()._default_manager.aget(pk=user_id))
        session = await self._client.asession()
        await session.aupdate(values)
        await session.asave()

    def sessions(self) -> None:
        """Give nothing: without sessions, it logs in by itself."""

    def keep(self, cookie: CookieConfig, token: str) -> None:
        """See `KnownClient`."""
        self._client.cookies[cookie.full_name] = _morsel(cookie, token)


class _Aiohttp:
    def __init__(self, client: Any) -> None:
        self._client = client

    def sessions(self) -> None:
        return None

    def keep(self, cookie: CookieConfig, token: str) -> None:
        url = self._client.make_url("/")
        _check_host(cookie, url.host)
        jar = self._client.session.cookie_jar
        if url.scheme != "https":
            _send_secure_cookies(jar)
        jar.update_cookies({cookie.full_name: _morsel(cookie, token)}, url)


# --- what is missing --------------------------------------------------------------------------------------------------


def _of_extension(app: Any) -> Sessions | SyncSessions | None:
    """Give the sessions of a Flask or Quart application."""
    extension = getattr(app, "extensions", {}).get("coatcheck")
    found: Sessions | SyncSessions | None = getattr(extension, "sessions", None)
    return found


def _no_cookies() -> TypeError:
    return TypeError("client: it keeps no cookies; make it with use_cookies=True")


# --- hosts ------------------------------------------------------------------------------------------------------------


def _server_name(app: Any) -> str:
    """Give the host that a client of Flask or Quart talks to, without its port."""
    name: str = getattr(app, "config", {}).get("SERVER_NAME") or "localhost"
    return name.partition(":")[0]


def _check_host(cookie: CookieConfig, host: str) -> None:
    """Raise ValueError if a client would not send the cookie to the host."""
    domain = (cookie.domain or host).removeprefix(".")
    if not f".{host}".endswith(f".{domain}"):
        msg = (
            f"client: it talks to {host!r}, and the cookie's domain is {domain!r}; let it talk to a host of this domain"
        )
        raise ValueError(msg)


# --- cookies ----------------------------------------------------------------------------------------------------------


def _set_in_jar(jar: CookieJar, url: str, cookie: CookieConfig, token: str) -> None:
    """Let a jar take a cookie as from an answer of the application, which alone knows what it calls the host."""
    domain = "" if cookie.domain is None else f"; Domain={cookie.domain}"
    jar.extract_cookies(_Answer(f"{cookie.full_name}={token}; Path={cookie.path}{domain}"), Request(url))  # type: ignore[arg-type]  # noqa: S310


class _Answer:
    """As much of an answer as a jar wants to see."""

    def __init__(self, set_cookie: str) -> None:
        self._headers = Message()
        self._headers["Set-Cookie"] = set_cookie

    def info(self) -> Message:
        return self._headers


class _LocalJar(CookieJar):
    """Sends Secure cookies over http, as browsers do at localhost."""

    def __init__(self, cookies: CookieJar) -> None:
        super().__init__()
        for cookie in cookies:
            self.set_cookie(cookie)

    def set_cookie(self, cookie: Cookie) -> None:
        """Keep a cookie."""
        cookie.secure = False
        super().set_cookie(cookie)


def _send_secure_cookies(jar: Any) -> None:
    """Let a jar of aiohttp give its cookies as if for https. It can be told so only when it is made."""
    filter_cookies = type(jar).filter_cookies

    def filter_as_if_secure(request_url: Any) -> SimpleCookie:
        found: SimpleCookie = filter_cookies(jar, request_url.with_scheme("https"))
        return found

    jar.filter_cookies = filter_as_if_secure


def _morsel(cookie: CookieConfig, token: str) -> Morsel[str]:
    morsel: Morsel[str] = Morsel()
    morsel.set(cookie.full_name, token, token)
    morsel["path"] = cookie.path
    morsel["domain"] = cookie.domain or ""
    return morsel
