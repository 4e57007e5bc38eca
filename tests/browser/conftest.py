"""A real browser, and what it visits over https: the demo and the examples, each as a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qsl

import pytest
from command_line import ENVIRONMENT
from https_front import HttpsFront
from playwright.sync_api import Browser, BrowserContext, Cookie, Page, expect, sync_playwright
from serving import serve_wsgi
from shop_driver import EXAMPLES, PASSWORDS, ShopProcess

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")

_OPTIONS: Final = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP evil.test 127.0.0.1",  # another site than 127.0.0.1, on this machine
]  # fmt: skip

SITES: Final = ["demo", "fastapi_app", "django_app"]

SCREENSHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"


# --- the browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium. Where it could have been installed, it is a failure that it is missing."""
    with sync_playwright() as playwright:
        system_wide = next(filter(None, map(shutil.which, _BROWSERS)), None)
        executable = system_wide or playwright.chromium.executable_path
        if not Path(executable).exists():
            message = "There is no Chromium: install Debian's package, or run `.venv/bin/playwright install chromium`"
            if "CI" in os.environ or os.geteuid() == 0:
                pytest.fail(message)
            pytest.skip(message)
        running = playwright.chromium.launch(
            executable_path=executable,
            args=[*_OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
            # People's browsers keep a page for the back button, and so must this one.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        with running:
            yield running


class NewDevice(Protocol):
    def __call__(self, **options: Any) -> BrowserContext: ...


@pytest.fixture
def new_device(browser: Browser, site: Site) -> Iterator[NewDevice]:
    """Make devices, each with its own cookies: contexts of the browser, with Playwright's options."""
    with ExitStack() as stack:

        def make(**options: Any) -> BrowserContext:
            return stack.enter_context(
                browser.new_context(base_url=site.url, ignore_https_errors=True, reduced_motion="reduce", **options)
            )

        yield make


@pytest.fixture
def page(new_device: NewDevice) -> Page:
    """A page of a device that has not been here before."""
    return new_device().new_page()


# --- what is visited --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """An application, as a browser reaches it."""

    name: str
    url: str
    cookie: str
    """The name of its session cookie."""
    is_secure: bool
    """Whether that cookie is for https only."""

    def log_in(self, page: Page, user_id: str, path: str = "/login") -> None:
        """Log in, by a page that is the login or leads there."""
        page.goto(path)
        page.get_by_label("Username").fill(user_id)
        page.get_by_label("Password").fill(PASSWORDS[user_id])
        page.get_by_role("main").get_by_role("button", name="Log in").click()
        expect(page.get_by_role("button", name="Log out")).to_be_visible()

    def save_theme(self, page: Page, theme: str) -> None:
        """Choose a theme on the settings page."""
        page.goto("/settings")
        page.get_by_label(theme).check()
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("status")).to_be_visible()

    def session_cookies(self, device: BrowserContext) -> list[Cookie]:
        """Give the session cookies that a device has of this site: none or one."""
        return [cookie for cookie in device.cookies(self.url) if cookie["name"] == self.cookie]

    def token(self, device: BrowserContext) -> str:
        """Give the session cookie's value."""
        (cookie,) = self.session_cookies(device)
        return cookie["value"]

    def plant(self, device: BrowserContext, token: str, same_site: Literal["Lax", "None"] = "Lax") -> None:
        """Put a session cookie into a device."""
        device.add_cookies(
            [{"name": self.cookie, "value": token, "url": self.url, "secure": True, "sameSite": same_site}]
        )


@contextmanager
def _demo(folder: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "coatcheck", "demo", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            banner = iter(process.stdout.readline, "")
            address = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in banner)))
            next(line for line in banner if line.startswith("Stop"))
            yield int(address[1])
        finally:
            process.terminate()


@contextmanager
def _example(name: str, folder: Path) -> Iterator[int]:
    with ShopProcess(EXAMPLES / f"{name}.py", folder, COOKIE_SECURE="1") as process:
        yield process.port


@pytest.fixture(scope="package", params=SITES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    is_demo = name == "demo"  # which is for plain http, so its cookie can be no __Host- one
    with ExitStack() as stack:
        port = stack.enter_context(_demo(folder) if is_demo else _example(name, folder))
        front = stack.enter_context(HttpsFront(port, folder))
        cookie = "session" if is_demo else "__Host-session"
        yield Site(name, f"https://127.0.0.1:{front.port}", cookie, is_secure=not is_demo)


@pytest.fixture(scope="package")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of another site, whose page sends a form at once: to `to` of the query, with its other fields."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [_luring_page(dict(parse_qsl(environ["QUERY_STRING"]))).encode()]

    with serve_wsgi(app) as url, HttpsFront(int(url.rpartition(":")[2]), tmp_path_factory.mktemp("attacker")) as front:
        yield f"https://evil.test:{front.port}/"


def _luring_page(fields: dict[str, str]) -> str:
    target = fields.pop("to")
    inputs = "".join(f'<input name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items())
    return f'<form method="post" action="{escape(target)}">{inputs}</form><script>document.forms[0].submit()</script>'
