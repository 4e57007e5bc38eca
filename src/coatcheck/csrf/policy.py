"""The rules: which requests are looked at, where they may come from, and which of them need a token. No I/O."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from coatcheck.csrf.tokens import has_nothing, is_genuine
from coatcheck.errors import ConfigurationError, CsrfRefused
from coatcheck.guard import Refusal, Request, text_headers
from coatcheck.log_lines import RareLine
from coatcheck.mounting import has_dot_segment, is_below
from coatcheck.session import BaseSession

Csrf: TypeAlias = bool | Literal["origin"]
"""What adapters are told: True asks for tokens, "origin" only looks at where requests come from, False does neither."""

HEADER: Final = "x-csrf-token"
"""The name of the header, for scripts."""

SEARCHED_BYTES: Final = 65_536
"""The token is looked for in so much of a form. What comes before it should be short fields."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""They change nothing (RFC 9110, section 9.2.1)."""

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

_FOREIGN: Final = "This request was sent by a page of another site"
_NO_TOKEN: Final = "This request carries no CSRF token"  # noqa: S105 (a message)
_WRONG_TOKEN: Final = "The CSRF token of this request is not valid, or no longer"  # noqa: S105
_ADVICE: Final = "Go back, reload the page, and send it again."

_TO_DO: Final = {
    "csrf_origin": "it comes from another site's page, or a proxy changed its Host header: see trusted_origins",
    "csrf_token_missing": "put csrf_field() into the form, or send csrf_token() as X-CSRF-Token",
    "csrf_token_wrong": "the page may be from before a login or logout; it has to be loaded anew",
}
"""What a log line says besides the code of a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a policy has to know of a request. Headers that the request does not have are empty texts."""

    method: str
    path: str
    scheme: str
    """http or https, as the server sees it: behind a proxy that ends TLS, http where the browser sees https."""
    host: str
    origin: str
    sec_fetch_site: str


class CsrfPolicy:
    """Decides which requests may change something.

    A request by POST or another method that is not safe is refused when a browser says that another site's page sent
    it (Fetch Metadata: Sec-Fetch-Site; RFC 6454: Origin), session or not: nobody is to be logged in by another site
    either. Then it needs a token, if there is a session to protect; unless nobody is logged in and the browser says
    that a page of this very origin sent it, so that forms of before the first session work.

    Args:
        trusted_origins: other origins whose pages may send requests here, such as "https://shop.example". Also this
            site's own, where a proxy changes the Host header and browsers send no Sec-Fetch-Site (over plain http).
        exempt: paths that need no check, with all that is below them: where no browser sends requests, and something
            else proves who does, such as the signature of a webhook.
        tokens: False only looks at where requests come from. Forms and scripts then need nothing, and browsers of
            before 2020 are not protected.

    Raises:
        ConfigurationError: an origin or a path is none.
    """

    def __init__(self, trusted_origins: Iterable[str] = (), exempt: Iterable[str] = (), *, tokens: bool = True) -> None:
        self.has_tokens = tokens
        self._trusted = frozenset(map(_checked_origin, several("trusted_origins", trusted_origins)))
        self._exempt = tuple(map(_checked_path, several("exempt", exempt)))
        self._log = RareLine(logging.WARNING, "A %.20r request for %.200r was refused: %s (%s)")

    def concerns(self, method: str, path: str) -> bool:
        """Tell whether a request has to be looked at."""
        return method not in _SAFE_METHODS and not self._is_exempt(path)

    def _is_exempt(self, path: str) -> bool:
        # Not every server and framework agree on where a path with dot segments leads.
        return any(is_below(path, start) for start in self._exempt) and not has_dot_segment(path)

    def check_origin(self, attempt: Attempt) -> bool:
        """Give whether the browser says that a page of this origin sent the request; False if nobody says anything.

        For WebSockets as well, whose handshakes browsers let every site's pages make.

        Raises:
            CsrfRefused: another site's page did.
        """
        origin = attempt.origin.lower()
        if origin in self._trusted:
            return True
        if attempt.sec_fetch_site:  # beyond any doubt, also where a proxy has changed the host
            is_own = attempt.sec_fetch_site in ("same-origin", "none")  # none: it is the user's own doing
        elif origin:
            is_own = _is_own(origin, attempt)
        else:
            return False  # not a browser, or one of before 2020
        if not is_own:
            raise CsrfRefused(_FOREIGN, "csrf_origin")
        return True

    def needs_token(self, session: BaseSession, *, is_own_page: bool) -> bool:
        """Tell whether there is something to protect that needs more than what `check_origin` gave."""
        if has_nothing(session):
            return False
        return session.user_id is not None or not is_own_page

    def check_token(self, session: BaseSession, token: str | None) -> None:
        """Let a request pass that carries a token of the session.

        Raises:
            CsrfRefused: it does not.
        """
        if not token:
            raise CsrfRefused(_NO_TOKEN, "csrf_token_missing")
        if not is_genuine(session, token):
            raise CsrfRefused(_WRONG_TOKEN, "csrf_token_wrong")

    def answer(self, error: CsrfRefused, request: Request) -> Refusal:
        """Give the answer to a request that was refused: 403, as a page for people and as JSON for programs."""
        path = request.target.partition("?")[0]  # in a query there may be secrets, such as a new password's token
        self._log.write(request.method, path, error.code, _TO_DO[error.code])
        if request.is_browsing():
            advice = "" if error.code == "csrf_origin" else f"<p>{_ADVICE}</p>"  # which would not help there
            body = _PAGE.replace("MESSAGE", escape(str(error))).replace("ADVICE", advice).encode()
            return Refusal(403, text_headers("text/html; charset=utf-8", body), body)
        body = json.dumps({"error": error.code, "message": str(error)}).encode()
        return Refusal(403, text_headers("application/json", body), body)


def wants_tokens(csrf: Csrf) -> bool:
    """Tell what an adapter's setting says of tokens. Raises ConfigurationError for one that says nothing."""
    if not isinstance(csrf, bool) and csrf != "origin":  # 1 is equal to True, and would ask for nothing
        msg = f"csrf: expected True, 'origin' or False, got {csrf!r:.80}"
        raise ConfigurationError(msg)
    return csrf is True


def _is_own(origin: str, attempt: Attempt) -> bool:
    scheme, separator, host = origin.partition("://")
    if not separator or scheme not in _DEFAULT_PORTS:
        return False  # "null", or no page of the web
    if scheme == "http" and attempt.scheme == "https":
        return False  # whoever can change plain http must not reach https
    port = _DEFAULT_PORTS[scheme]
    return host.removesuffix(port) == attempt.host.lower().removesuffix(port) != ""


def several(name: str, texts: Iterable[str]) -> list[str]:
    """Give the texts of a setting. Raises ConfigurationError for a single one, which would be taken for its letters."""
    if isinstance(texts, str):
        msg = f"{name}: expected a list, got the text {texts!r:.80}; put it into a list"
        raise ConfigurationError(msg)
    return list(texts)


def _checked_origin(origin: str) -> str:
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc or f"{parts.scheme}://{parts.netloc}" != origin.lower():
        msg = f"trusted_origins: expected an origin such as 'https://shop.example', got {origin!r:.80}"
        raise ConfigurationError(msg)
    return origin.lower().removesuffix(_DEFAULT_PORTS[parts.scheme])  # as browsers write it


def _checked_path(path: str) -> str:
    if not path.startswith("/"):
        msg = f"exempt: expected a path such as '/webhooks', got {path!r:.80}"
        raise ConfigurationError(msg)
    return path


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Not accepted</title>
<style>
:root { color-scheme: light dark; font: 1.05rem/1.6 system-ui, sans-serif }
main { max-width: 34rem; margin: 18vh auto 0; padding: 0 1.5rem }
h1 { font-size: 1.5rem }
</style>
</head>
<body>
<main>
<h1>This was not accepted</h1>
<p>MESSAGE. Nothing was changed.</p>
ADVICE
</main>
</body>
</html>
"""
