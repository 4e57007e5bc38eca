"""The tokens: a secret in the session, of which every response shows another mask.

What a page is given is not the secret but a MAC by it of who is logged in since when, so a login makes the tokens of
before worthless, whatever else of the session it keeps. Each is masked by random bytes, so that nothing that repeats is
in a compressed response (BREACH).
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import partial
from hmac import compare_digest, digest
from typing import Any, Final

from coatcheck.session import BaseSession

FIELD: Final = "csrf_token"
"""The name of the form field."""

SESSION_KEY: Final = "_csrf"
"""The session's key under which the secrets are kept: a text, as every system that shares sessions can keep one."""

_SECRET_BYTES: Final = 24
_MAC_BYTES: Final = 24
"""Of 32 (RFC 2104, section 5): mask and masked MAC are base64 without padding then."""

_MAX_SECRETS: Final = 8
"""Requests of one session that make its first secret at the same time all keep theirs: their pages are on the way."""


def csrf_token(session: BaseSession) -> str:
    """Give a token for a page's forms and scripts. Another one each time, and all hold until the next login or logout.

    The first call for a session stores a secret in it. A client that has no session, and is not about to get one by
    this response, has nothing to protect: it gets an empty text, and no session for the sake of a token.

    Args:
        session: the request's session, loaded.
    """
    if not session.is_available or has_nothing(session):
        return ""
    known = _secrets_of(session)
    secret = known[-1] if known else secrets.token_urlsafe(_SECRET_BYTES)
    if not known:
        session.modify(SESSION_KEY, partial(_with_secret, secret))
    mask = secrets.token_bytes(_MAC_BYTES)
    return urlsafe_b64encode(mask + _xor(mask, _mac(session, secret))).decode("ascii")


def is_genuine(session: BaseSession, token: str) -> bool:
    """Tell whether a token was made for this session, and nobody has logged in since."""
    try:
        masked = urlsafe_b64decode(token)
    except ValueError:
        return False
    if len(masked) != 2 * _MAC_BYTES:
        return False
    mac = _xor(masked[:_MAC_BYTES], masked[_MAC_BYTES:])
    return any(compare_digest(mac, _mac(session, secret)) for secret in _secrets_of(session))


class HiddenField(str):
    """HTML that templates take as it is: Jinja2 and Django ask for `__html__`."""

    __slots__ = ()

    def __html__(self) -> str:
        """Give the HTML."""
        return str(self)


def csrf_field(session: BaseSession) -> HiddenField:
    """Give the hidden form field with a token: `<form method="post">{{ csrf_field }}…`. See `csrf_token`.

    Put it first into the form: where a file comes before it, the token may be too far from the beginning to be found.
    """
    return HiddenField(f'<input type="hidden" name="{FIELD}" value="{csrf_token(session)}">')


def has_nothing(session: BaseSession) -> bool:
    """Tell whether there is no session to protect: none is stored, and nothing is about to be."""
    return session.is_new and not session


def _secrets_of(session: BaseSession) -> list[str]:
    return _secrets_in(session.get(SESSION_KEY))


def _secrets_in(kept: Any) -> list[str]:
    return kept.split() if isinstance(kept, str) else []  # an application may have put something else there


def _with_secret(secret: str, kept: Any) -> str:
    return " ".join([*_secrets_in(kept), secret][-_MAX_SECRETS:])


def _mac(session: BaseSession, secret: str) -> bytes:
    who = f"{session.user_id or ''}\0{session.authenticated_at or ''}"
    return digest(secret.encode(), b"coatcheck.csrf\0" + who.encode(), "sha256")[:_MAC_BYTES]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
