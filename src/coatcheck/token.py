"""Session IDs, and the tokens that carry them: sign and verify, key rotation.

A token is the cookie's value: session ID (32 bytes), time of issue (5 bytes, seconds), once somebody has logged in the
user tag (15 bytes), and HMAC-SHA256 (32 bytes), in URL-safe base64. It says nothing but "this server issued this ID at
that time, to the user of this tag", and it is checked without the store. The tag is there so that the user's epoch can
be loaded together with the session, in one round trip.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Final, Protocol

from msgspec import Struct

from coatcheck.log_lines import RareLine

_ID_BYTES: Final = 32
_TIME_BYTES: Final = 5
_TAG_FROM: Final = _ID_BYTES + _TIME_BYTES
_MAC_BYTES: Final = 32
_BLOCK_BYTES: Final = 64
USER_TAG_BYTES: Final = 15
_MAX_TIME: Final = 2 ** (8 * _TIME_BYTES) - 1

# 69 and 84 bytes are 92 and 112 characters of base64, with neither padding nor unused bits: each token has exactly one
# spelling.
TOKEN_CHARACTERS: Final = 92
USER_TOKEN_CHARACTERS: Final = 112
_FROM_URL_SAFE: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")

REMEMBERED: Final = 4_096
"""So many tokens at least are known again after they were verified once, and at most twice as many."""

_LENGTHS: Final = frozenset({TOKEN_CHARACTERS, USER_TOKEN_CHARACTERS})

_STORE_KEY_DIGITS: Final = 40
FOREIGN_STORE_KEY_DIGITS: Final = 64
"""Of a store that keeps sessions under IDs of another system's, of 32 bytes."""


def is_store_key(text: str) -> bool:
    """Tell whether a text has the form of a session's store key."""
    is_long_enough = len(text) in (_STORE_KEY_DIGITS, FOREIGN_STORE_KEY_DIGITS)
    return is_long_enough and all(character in "0123456789abcdef" for character in text)


class SessionID:
    """The secret that a client proves its session with. Shows its store key, never itself."""

    __slots__ = ("_secret", "store_key")

    _secret: bytes
    store_key: str
    """The first 160 bits of the ID's SHA-256, in hexadecimal: the name of the session in stores, lists and logs.
    It can't be turned back into the ID, and is also the session's handle."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.store_key = sha256(secret).hexdigest()[:_STORE_KEY_DIGITS]

    @property
    def secret(self) -> bytes:
        """The ID itself."""
        return self._secret

    @classmethod
    def generate(cls) -> SessionID:
        """Make a new one: 256 bits from the operating system's generator."""
        return cls(secrets.token_bytes(_ID_BYTES))

    def __repr__(self) -> str:
        return f"<SessionID of {self.store_key}>"


class _PresentedID(SessionID):
    """The ID in a token that was found to be genuine. It is read out of the token only when a new one is to be made."""

    __slots__ = ("_token",)

    def __init__(self, token: bytes, store_key: str) -> None:
        self._token = token
        self.store_key = store_key

    @property
    def secret(self) -> bytes:
        """The ID itself."""
        return _decoded(self._token)[:_ID_BYTES]


_FOREIGN: Final = (
    "A cookie %s has the form of ours, and is signed by none of this process's secret keys. If it is not forged, "
    "another process has other keys, or a key was taken away while its cookies were in use"
)


class VerifiedToken(Struct, frozen=True):
    """What a genuine token says."""

    session_id: SessionID
    issued_at: int
    """Seconds since the epoch."""
    user_tag: bytes | None
    """Whose session it is; empty before a login. None where tokens don't say it, and only the record knows."""
    by_older_key: bool
    """Signed by a key that only verifies any more, so the token should be issued anew."""


class Tokens(Protocol):
    """A form of token: how a session ID becomes a cookie's value, and back. `TokenSigner` is Coatcheck's own."""

    @property
    def carry_sessions(self) -> bool:
        """Whether a token has the whole session in it: each change of it needs a new one, and no store forgets it."""
        ...

    def new_id(self) -> SessionID:
        """Make the ID of a new session."""
        ...

    def sign(self, session_id: SessionID, issued_at: int, user_tag: bytes = b"") -> str:
        """Make a token. `issued_at` is in seconds since the epoch."""
        ...

    def verify(self, token: bytes) -> VerifiedToken | None:
        """Give what the token says, or None for anything that was not made with these keys."""
        ...


class _Genuine(Struct, frozen=True, gc=False):
    """What is remembered of a token that was verified. Nobody can use a session with it."""

    store_key: str
    issued_at: int
    user_tag: bytes
    by_older_key: bool


class TokenSigner:
    """Signs tokens for one cookie name with the newest secret key, and verifies those of all keys given.

    Every key signs under a key derived for this purpose and this cookie name, so a token is worthless under another
    cookie name, and a secret key that is also used elsewhere signs nothing that passes for a token.

    Browsers send a token with every request, so what was verified is remembered, by the token's SHA-256: neither
    tokens nor IDs stay in memory, nothing of what a forger sends is kept, and whether a session lives is for the store
    to say in any case.
    """

    __slots__ = ("_cookie_name", "_foreign", "_keys", "_older", "_recent")

    carry_sessions = False

    def __init__(self, secret_keys: Sequence[bytes], cookie_name: str) -> None:
        self._cookie_name = cookie_name
        self._foreign = RareLine(logging.WARNING, _FOREIGN)
        purpose = b"coatcheck token 1\x00" + cookie_name.encode()
        self._keys = tuple(_Key(hmac.digest(key, purpose, "sha256")) for key in secret_keys)
        self._recent: dict[bytes, _Genuine] = {}
        self._older: dict[bytes, _Genuine] = {}

    def new_id(self) -> SessionID:
        """See `Tokens.new_id`."""
        return SessionID.generate()

    def sign(self, session_id: SessionID, issued_at: int, user_tag: bytes = b"") -> str:
        """See `Tokens.sign`."""
        signed = session_id.secret + min(max(issued_at, 0), _MAX_TIME).to_bytes(_TIME_BYTES, "big") + user_tag
        token = b2a_base64(signed + self._keys[0].mac(signed), newline=False)
        return token.translate(_TO_URL_SAFE).decode("ascii")

    def verify(self, token: bytes) -> VerifiedToken | None:
        """See `Tokens.verify`."""
        if len(token) not in _LENGTHS:
            return None
        digest = sha256(token).digest()
        genuine = self._recent.get(digest)
        if genuine is None:
            genuine = self._older.get(digest) or self._genuine(token)
            if genuine is None:
                return None
            if len(self._recent) >= REMEMBERED:
                self._recent, self._older = {}, self._recent  # whichever is used again comes back
            self._recent[digest] = genuine
        session_id = _PresentedID(token, genuine.store_key)
        return VerifiedToken(session_id, genuine.issued_at, genuine.user_tag, genuine.by_older_key)

    def _genuine(self, token: bytes) -> _Genuine | None:
        try:
            decoded = _decoded(token)
        except (Base64Error, ValueError):
            return None
        signed, mac = decoded[:-_MAC_BYTES], decoded[-_MAC_BYTES:]
        by_older_key = False
        for key in self._keys:
            if compare_digest(key.mac(signed), mac):
                issued_at = int.from_bytes(signed[_ID_BYTES:_TAG_FROM], "big")
                return _Genuine(SessionID(signed[:_ID_BYTES]).store_key, issued_at, signed[_TAG_FROM:], by_older_key)
            by_older_key = True
        self._foreign.write(self._cookie_name)
        return None


def _decoded(token: bytes) -> bytes:
    return a2b_base64(token.translate(_FROM_URL_SAFE), strict_mode=True)


class _Key:
    """HMAC-SHA256 (RFC 2104) for one key, with the key worked in once: half of the work for a message of this size.

    The same as `hmac.HMAC.copy()`, whose three methods around OpenSSL's took a tenth of a request's time.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        assert len(key) <= _BLOCK_BYTES  # noqa: S101 (a longer one would have to be hashed first)
        padded = key.ljust(_BLOCK_BYTES, b"\x00")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in padded))

    def mac(self, message: bytes) -> bytes:
        """Give the message's authentication code."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()
