"""Drives the examples as their users do: each as a process of its own, its forms as a browser fills them in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Self

import httpx
from servers import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
PASSWORDS = {"alice": "wonderland", "bob": "builder"}
SECRET_KEY = "a secret key for tests, 32 bytes or more"


def shops() -> list[Path]:
    """Give the examples that have the pages which `Visitor` knows."""
    return sorted(EXAMPLES.glob("*_app.py"))


class ShopProcess:
    """An example as its users start it, in `folder`, where it keeps its sessions."""

    def __init__(self, example: Path, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, str(example), str(self.port)]
        self._folder = folder
        unwanted = ("STORE", "SECRET_KEY", "COOKIE_SECURE")
        inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
        self._environment = inherited | {"SECRET_KEY": SECRET_KEY} | environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the same port and with the same folder every time, and wait until it answers."""
        log = self._folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with suppress(httpx.TransportError):
                httpx.get(self.url, timeout=30)
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, kindly first."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass
class Form:
    """What a page's form sends when nothing is changed in it."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """What a visitor sees and can do on a page."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self.status = response.status_code
        self.headers = response.headers
        self.theme = ""
        self.forms: list[Form] = []
        self.lines: list[str] = []
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note forms and their fields."""
        attributes = {name: value or "" for name, value in attrs}
        if tag == "html":
            self.theme = attributes.get("data-theme", "")
        elif tag == "form":
            self.forms.append(Form(attributes["action"]))
        elif tag == "input" and (attributes["type"] != "radio" or "checked" in attributes):
            self.forms[-1].fields[attributes["name"]] = attributes.get("value", "")

    def handle_data(self, data: str) -> None:
        """Note the text."""
        if data.strip():
            self.lines.append(data.strip())

    def forms_to(self, action: str) -> Iterator[Form]:
        """Give the forms that are sent there."""
        return (form for form in self.forms if form.action == action)


class Visitor:
    """A browser with its own cookies, that follows no redirect by itself and takes http for as good as https."""

    def __init__(self, shop: ShopProcess, user_agent: str = "Firefox") -> None:
        self.cookies: dict[str, str] = {}
        self.attributes: dict[str, Morsel[str]] = {}
        """How each cookie was set last."""
        self._url = shop.url
        self._client = httpx.Client(
            base_url=shop.url,
            headers={"Accept": "text/html,*/*;q=0.8", "User-Agent": user_agent},
            # Servers close a connection on which they have answered a form before they read it. Browsers try again.
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=30,
        )

    def get(self, path: str) -> Page:
        """Visit a page."""
        return Page(self._send(self._client.build_request("GET", path)))

    def post(self, path: str, fields: dict[str, str], origin: str | None = None) -> Page:
        """Send a form, from a page of `origin` or of the shop itself."""
        headers = {"Origin": origin or self._url}
        return Page(self._send(self._client.build_request("POST", path, data=fields, headers=headers)))

    def submit(self, page: str, action: str, **filled_in: str) -> Page:
        """Visit a page, fill in its first form that goes to `action`, and send that."""
        form = next(self.get(page).forms_to(action))
        return self.post(action, form.fields | filled_in)

    def log_in(self, user_id: str, following: str = "") -> Page:
        """Log in by the login page, which was reached with `?next=following`."""
        page = f"/login?next={following}" if following else "/login"
        return self.submit(page, "/login", username=user_id, password=PASSWORDS[user_id])

    def is_logged_in(self) -> bool:
        """Tell whether guarded pages are shown."""
        return self.get("/profile").status == 200

    def leave(self) -> None:
        """Log out if need be, and close the browser."""
        if any(self.get("/").forms_to("/logout")):
            self.submit("/", "/logout")
        self._client.close()

    def _send(self, request: httpx.Request) -> httpx.Response:
        if self.cookies:
            request.headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = self._client.send(request)
        self._client.cookies.clear()  # a jar would keep Secure cookies from http
        for header in response.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(header).items():
                self.attributes[name] = morsel
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return response
