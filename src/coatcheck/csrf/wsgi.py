"""CSRF protection for WSGI applications: a middleware that goes inside `coatcheck.wsgi.SessionMiddleware`."""

from __future__ import annotations

from collections.abc import Iterable
from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING, Any, Final

from coatcheck.csrf.policy import HEADER, Attempt, CsrfPolicy
from coatcheck.errors import ConfigurationError, CsrfRefused
from coatcheck.sessions import SyncSession
from coatcheck.wsgi import ENVIRON_KEY, path_of, request_of, start_refusal

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REFUSED_KEY: Final = "coatcheck.csrf"
"""Where the application that answers finds out why a request was refused: a `CsrfRefused`."""

_HEADER: Final = "HTTP_" + HEADER.upper().replace("-", "_")
_CHUNK_BYTES: Final = 8_192


class CsrfMiddleware:
    """Refuses requests that other sites' pages send, and those that lack a token.

    See `coatcheck.csrf.asgi.CsrfMiddleware`; here it is `environ["coatcheck.csrf"]` that tells why.

    Args:
        app: the application.
        trusted_origins: see `CsrfPolicy`.
        exempt: see `CsrfPolicy`.
        tokens: see `CsrfPolicy`.
        environ_key: where the session is, see `coatcheck.wsgi.SessionMiddleware`.
        refusal: answers refused requests instead of the plain 403.

    Raises:
        ConfigurationError: an argument can't work.
        MissingExtra: there are to be tokens, and the extra `csrf` is not installed.
    """

    def __init__(  # noqa: PLR0913 (they are the settings)
        self,
        app: WSGIApplication,
        *,
        trusted_origins: Iterable[str] = (),
        exempt: Iterable[str] = (),
        tokens: bool = True,
        environ_key: str = ENVIRON_KEY,
        refusal: WSGIApplication | None = None,
    ) -> None:
        self._app = app
        self._policy = CsrfPolicy(trusted_origins, exempt, tokens=tokens)
        if tokens:
            import coatcheck.csrf.forms  # noqa: F401 (so that it fails now if it can't work)
        self._environ_key = environ_key
        self._refusal = refusal

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application for one request, if it may be reached."""
        try:
            if self._policy.concerns(environ["REQUEST_METHOD"], path_of(environ)):
                self._check(environ)
            elif environ.get("HTTP_UPGRADE", "").lower() == "websocket":  # some servers let WSGI applications have them
                self._policy.check_origin(_attempt(environ))
        except CsrfRefused as error:
            if self._refusal is not None:
                environ[REFUSED_KEY] = error
                return self._refusal(environ, start_response)
            return start_refusal(self._policy.answer(error, request_of(environ)), environ, start_response)
        return self._app(environ, start_response)

    def _check(self, environ: WSGIEnvironment) -> None:
        is_own_page = self._policy.check_origin(_attempt(environ))
        if not self._policy.has_tokens:
            return
        session = environ.get(self._environ_key)
        if not isinstance(session, SyncSession):
            msg = f"CsrfMiddleware found no session under {self._environ_key!r}: put it inside of SessionMiddleware"
            raise ConfigurationError(msg)
        if self._policy.needs_token(session, is_own_page=is_own_page):
            self._policy.check_token(session, environ.get(_HEADER) or _token_in_form(environ))


def _token_in_form(environ: WSGIEnvironment) -> str | None:
    """Look into the beginning of the body, and put it back for the application."""
    from coatcheck.csrf.forms import FormSearch

    search = FormSearch(environ.get("CONTENT_TYPE", ""))
    if search.is_over:
        return None
    body = _Body(environ)
    read: list[bytes] = []
    while not search.is_over:
        chunk = body.take(_CHUNK_BYTES)
        read.append(chunk)
        search.feed(chunk, is_last=not chunk)
    body.put_back(b"".join(read))
    environ["wsgi.input"] = BufferedReader(body)
    return search.token


class _Body(RawIOBase):
    """A request's body. Never asks the server for more than there is: at some, that waits for the next request."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        super().__init__()
        self._input: Any = environ["wsgi.input"]
        self._read = b""
        length = environ.get("CONTENT_LENGTH") or ""
        # Without a length there is a body only where the server says that its stream ends by itself.
        self._left = int(length) if length.isdecimal() else None
        if self._left is None and not environ.get("wsgi.input_terminated"):
            self._left = 0

    def take(self, size: int) -> bytes:
        """Read up to `size` bytes; none at the end."""
        if self._read:
            chunk, self._read = self._read[:size], self._read[size:]
            return chunk
        chunk = self._input.read(size if self._left is None else min(size, self._left))
        if self._left is not None:
            self._left -= len(chunk)
        return bytes(chunk)

    def put_back(self, chunk: bytes) -> None:
        """Let what was taken be read again."""
        self._read = chunk + self._read

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into a buffer. See `RawIOBase.readinto`."""
        view = memoryview(buffer)
        chunk = self.take(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)


def _attempt(environ: WSGIEnvironment) -> Attempt:
    return Attempt(
        method=environ["REQUEST_METHOD"],
        path=path_of(environ),
        scheme=environ["wsgi.url_scheme"],
        host=environ.get("HTTP_HOST", ""),
        origin=environ.get("HTTP_ORIGIN", ""),
        sec_fetch_site=environ.get("HTTP_SEC_FETCH_SITE", ""),
    )
