"""Signed texts as itsdangerous and Django write them: `value separator base64url(HMAC of value)`. Only verified here.

Both derive their keys by a hash of a salt and the secret key; the functions below say how.
"""

from __future__ import annotations

import hmac
import zlib
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from hashlib import sha1, sha256
from typing import Final, Literal

from coatcheck.errors import ConfigurationError, UnreadableSession
from coatcheck.interop.old_system import MAX_BYTES

MAX_COOKIE_BYTES: Final = 65_536
"""What a cookie may hold once it is inflated. Whoever has one that was made of "aaaa…" can send it again and again."""

Secret = str | bytes

_FROM_URL_SAFE: Final = bytes.maketrans(b"-_+/=", b"+/!!!")


class SignedText:
    """Verifies signatures by one of several keys."""

    __slots__ = ("_digest", "_keys", "_separator")

    def __init__(self, keys: Iterable[bytes], digest: Literal["sha1", "sha256"], separator: bytes) -> None:
        self._keys = tuple(keys)
        self._digest = digest
        self._separator = separator

    def value(self, text: bytes) -> bytes | None:
        """Give what was signed, or None for anything that these keys did not sign."""
        value, separator, signature = text.rpartition(self._separator)
        mac = from_base64(signature)
        if not separator or mac is None:
            return None
        for key in self._keys:
            if hmac.compare_digest(hmac.digest(key, value, self._digest), mac):
                return value
        return None


def secrets_of(secrets: Secret | Sequence[Secret]) -> list[bytes]:
    """Give secret keys as bytes. Raises ConfigurationError when there is none, or an empty one."""
    given = [secrets] if isinstance(secrets, str | bytes) else list(secrets)
    keys = [secret.encode() if isinstance(secret, str) else secret for secret in given]
    if not keys or not all(keys):
        msg = "the old system's secret keys: expected at least one, and none that is empty"
        raise ConfigurationError(msg)
    return keys


def itsdangerous_keys(secrets: Secret | Sequence[Secret], salt: bytes, derivation: str) -> list[bytes]:
    """Derive the keys of `itsdangerous.Signer` with the key derivation "django-concat" or "hmac"."""
    if derivation == "hmac":
        return [hmac.digest(secret, salt, "sha1") for secret in secrets_of(secrets)]
    return [sha1(salt + b"signer" + secret).digest() for secret in secrets_of(secrets)]  # noqa: S324 (its choice)


def django_keys(secrets: Secret | Sequence[Secret], salt: bytes) -> list[bytes]:
    """Derive the keys of `django.core.signing.Signer`."""
    return [sha256(salt + b"signer" + secret).digest() for secret in secrets_of(secrets)]


def from_base64(text: bytes) -> bytes | None:
    """Decode URL-safe base64 without padding, or give None for anything else."""
    try:
        return a2b_base64(text.translate(_FROM_URL_SAFE) + b"=" * (-len(text) % 4), strict_mode=True)
    except (Base64Error, ValueError):
        return None


def unpacked(text: bytes, limit: int = MAX_BYTES) -> bytes:
    """Give the data in base64 that was compressed if it begins with a dot.

    Args:
        text: the data.
        limit: how many bytes it may be then.

    Raises:
        UnreadableSession: it is no such thing, or would be too large.
    """
    data = from_base64(text.removeprefix(b"."))
    if data is None:
        msg = "it is not base64"
        raise UnreadableSession(msg)
    if not text.startswith(b"."):
        return data
    try:
        inflated = zlib.decompressobj().decompress(data, limit + 1)
    except zlib.error:
        msg = "it is not compressed as it says"
        raise UnreadableSession(msg) from None
    if len(inflated) > limit:
        msg = f"it is compressed, and has more than {limit} bytes; no more are read"
        raise UnreadableSession(msg)
    return inflated
