"""A visitor of a stack: logs in, keeps its cookie, and checks that the answers are right before they are counted."""

from __future__ import annotations

import http.client
import json
import time
from email.utils import parsedate_to_datetime
from typing import Any, Final

from bench.peers.stacks import Stack

USER_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
"""As long as those of browsers are, since sessions may keep it."""


class WrongAnswer(Exception):
    """A stack does not do what the comparison is about."""


class Visitor:
    """One client with its cookies."""

    def __init__(self, port: int, cookie: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._cookies: dict[str, str] = {}
        if cookie:
            self._keep(cookie)

    @property
    def cookie(self) -> str:
        """What goes into the Cookie header."""
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Send a request; give the status and the decoded body."""
        headers = {"User-Agent": USER_AGENT} | ({"Cookie": self.cookie} if self._cookies else {})
        self._connection.request(method, path, headers=headers)
        response = self._connection.getresponse()
        body = response.read()
        for header in response.msg.get_all("Set-Cookie", []):
            self._keep(header)
        return response.status, json.loads(body) if body.startswith(b"{") else body

    def _keep(self, header: str) -> None:
        """Do with a cookie what a browser does: keep it, or drop it when it has expired."""
        pair, *attributes = header.split(";")
        name, _, value = pair.partition("=")
        terms = {key.strip().lower(): text.strip() for key, _, text in (each.partition("=") for each in attributes)}
        expires = parsedate_to_datetime(terms["expires"]).timestamp() if "expires" in terms else None
        left = int(terms["max-age"]) if "max-age" in terms else expires and expires - time.time()
        if left is not None and left <= 0:
            self._cookies.pop(name, None)
        else:
            self._cookies[name] = value

    def expect(self, method: str, path: str, status: int, **body: object) -> None:
        """Send a request and compare the answer. Raises WrongAnswer."""
        got_status, got = self.ask(method, path)
        if got_status != status or (body and got != body):
            msg = f"{method} {path}: expected {status} {body or ''}, got {got_status} {got!r:.300}"
            raise WrongAnswer(msg)

    def log_in(self, user: str) -> None:
        """Start a session for a user. Raises WrongAnswer."""
        status, body = self.ask("POST", f"/login?user={user}")
        if status not in {200, 201} or not self._cookies:
            msg = f"login: got {status} {body!r:.300} and the cookies {list(self._cookies)}"
            raise WrongAnswer(msg)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def check(stack: Stack, port: int) -> None:
    """Walk through the application with two users and a stranger. Raises WrongAnswer."""
    stranger, alice, bob = Visitor(port), Visitor(port), Visitor(port)
    stranger.expect("GET", "/none", 200, ok=True)
    if not stack.has_sessions:
        stranger.expect("GET", "/profile", 200, user="nobody", visits=0)
        return
    stranger.expect("GET", "/profile", 401)
    alice.log_in("alice")
    bob.log_in("bob")
    alice.expect("GET", "/visit", 200, visits=1)
    alice.expect("GET", "/visit", 200, visits=2)
    alice.expect("GET", "/profile", 200, user="alice", visits=2)
    bob.expect("GET", "/profile", 200, user="bob", visits=0)
    alice.ask("POST", "/logout")
    alice.expect("GET", "/profile", 401)
    bob.expect("GET", "/profile", 200, user="bob", visits=0)
    for visitor in (stranger, alice, bob):
        visitor.close()


def logged_in(port: int, count: int) -> list[str]:
    """Start sessions for so many users; give their Cookie headers."""
    cookies = []
    for number in range(count):
        visitor = Visitor(port)
        visitor.log_in(f"user-{number:06}")
        visitor.expect("GET", "/profile", 200, user=f"user-{number:06}", visits=0)
        cookies.append(visitor.cookie)
        visitor.close()
    return cookies
