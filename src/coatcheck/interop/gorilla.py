"""The cookies of Go's gorilla/securecookie, which gorilla/sessions and redistore are built on.

A cookie is `base64(date | base64(payload) | MAC)`, where the MAC is an HMAC over `name | date | base64(payload)` and
the payload is a serialized value, encrypted with AES in counter mode if there is a block key. All of it is here but
Go's leniency: this module takes base64 only in the one form that Go writes (no line breaks, no stray bits) and dates
only as plain digits, and a payload only if nothing follows its value.

Two habits of gorilla's worth knowing: a date in the future passes, and key pairs that can't work are passed over as
long as another one can. The latter, and hash keys that are short enough to guess, are logged as warnings.
"""

from __future__ import annotations

import base64
import hmac
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from coatcheck.errors import ConfigurationError, InvalidCookie, InvalidGob, MissingExtra
from coatcheck.interop import _go_json, gob

_logger = logging.getLogger(__name__)

_BLOCK_KEY_BYTES: Final = (16, 24, 32)
_IV_BYTES = 16
# What gorilla's documentation asks for.
_SHORTEST_SAFE_HASH_KEY_BYTES = 32
_LATEST_DATE_SECONDS = (1 << 63) - 1
_LONGEST_DATE_DIGITS = len(str(_LATEST_DATE_SECONDS))

Serializer = Literal["gob", "json", "nop"]
Hash = Literal["sha256", "sha512"]
_Cipher = Callable[[bytes, bytes], bytes]


class OpenedCookie(NamedTuple):
    """A genuine cookie."""

    value: Any
    issued_at: int
    """Seconds since 1970. As in Go, this may be in the future."""
    by_older_key: bool
    """Whether another key pair than the one that signs made it, so that it should be issued anew."""


@dataclass(frozen=True, slots=True)
class _KeyPair:
    hash_key: bytes = field(repr=False)
    # Encrypts and decrypts, given an IV: the two are one in counter mode. None where cookies are only signed.
    cipher: _Cipher | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A cookie taken apart, before anything in it is known to be true."""

    date: bytes
    payload: bytes
    mac: bytes = field(repr=False)


class SecureCookie:
    """Encodes and decodes cookies as `securecookie.CodecsFromPairs` does in Go.

    Args:
        key_pairs: Hash key, block key, hash key, block key and so on, as in Go. None for a block key leaves the
            cookie readable; the last one may be left out. The first pair that can work signs, and all are tried for
            reading, so new keys go in front. Hash keys should have 32 or 64 bytes; block keys have 16, 24 or 32,
            for AES-128, AES-192 or AES-256.
        serializer: How values become bytes: `"gob"` as is Go's default, `"json"`, or `"nop"` for values that are
            bytes already. redistore's cookies are gob even where the values in Redis are JSON.
        max_age: Seconds after which a cookie is refused, whatever the browser thinks. 0 for never.
        min_age: Seconds before which a cookie is refused. 0 for none.
        max_length: Characters that a cookie may have. 0 for no limit.
        hash: The hash function of the MAC, `"sha256"` or `"sha512"`.
        clock: Gives the time in seconds since 1970.

    Raises:
        ConfigurationError: A setting is of the wrong type or unknown, or no key pair can work.
        MissingExtra: There is a block key, and the `cryptography` package is not installed.

    Example:
        >>> cookies = SecureCookie([bytes(32)], clock=lambda: 1_700_000_000)
        >>> cookies.decode("session-name", cookies.encode("session-name", "ABC"))
        'ABC'
    """

    def __init__(  # noqa: PLR0913 (the settings are Go's)
        self,
        key_pairs: Sequence[bytes | None],
        *,
        serializer: Serializer = "gob",
        max_age: int = 2_592_000,
        min_age: int = 0,
        max_length: int = 4096,
        hash: Hash = "sha256",  # noqa: A002
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Check the settings. See the class."""
        if serializer not in {"gob", "json", "nop"}:
            msg = f"serializer is {serializer!r}; it must be 'gob', 'json' or 'nop'"
            raise ConfigurationError(msg)
        if hash not in {"sha256", "sha512"}:
            msg = f"hash is {hash!r}; it must be 'sha256' or 'sha512'"
            raise ConfigurationError(msg)
        _check_numbers(max_age=max_age, min_age=min_age, max_length=max_length)
        self._pairs = _usable_pairs(key_pairs)
        self._serializer = serializer
        self._max_age = max_age
        self._min_age = min_age
        self._max_length = max_length
        self._hash = hash
        self._clock = clock

    def __repr__(self) -> str:
        """Without the keys."""
        return f"<SecureCookie {self._serializer}, {len(self._pairs)} key pairs>"

    @property
    def hash_keys(self) -> tuple[bytes, ...]:
        """The hash keys that can work, the one that signs first."""
        return tuple(pair.hash_key for pair in self._pairs)

    def encode(self, name: str, value: Any, *, issued_at: int | None = None) -> str:
        """Make the value of a cookie, signed with the first key pair.

        Args:
            name: The cookie's name. The cookie can't be passed off as one of another name.
            value: What to put in.
            issued_at: The date to put in, in seconds since 1970; None for now.

        Returns:
            The cookie's value: URL-safe base64.

        Raises:
            InvalidCookie: The value can't be serialized, or the cookie would be longer than `max_length`.
        """
        payload = self._serialize(value)
        pair = self._pairs[0]
        if pair.cipher is not None:
            initial = os.urandom(_IV_BYTES)
            payload = initial + pair.cipher(initial, payload)
        date = int(self._clock()) if issued_at is None else issued_at
        signed = b"%d|%b" % (date, base64.urlsafe_b64encode(payload))
        mac = hmac.digest(pair.hash_key, _with_name(name, signed), self._hash)
        cookie = base64.urlsafe_b64encode(b"%b|%b" % (signed, mac)).decode("ascii")
        if self._max_length and len(cookie) > self._max_length:
            msg = f"The cookie has {len(cookie)} characters; at most {self._max_length} are allowed"
            raise InvalidCookie(msg)
        return cookie

    def decode(self, name: str, cookie: str, *, target: gob.Target | None = None, keep_types: bool = False) -> Any:
        """Read the value of a cookie.

        Args:
            name: The cookie's name.
            cookie: The cookie's value, as the browser sent it.
            target: What a gob payload must hold; see `gob.loads`.
            keep_types: Whether gob values remember their Go types; see `gob.loads`.

        Returns:
            The value that was put in.

        Raises:
            InvalidCookie: The cookie is too long, damaged, forged, of another name, too old, too new, or holds
                something else than it should.
        """
        return self.open(name, cookie, target=target, keep_types=keep_types).value

    def open(
        self, name: str, cookie: str, *, target: gob.Target | None = None, keep_types: bool = False
    ) -> OpenedCookie:
        """Read a cookie as `decode` does, and give also when it was made, and by which key.

        Raises:
            InvalidCookie: See `decode`.
        """
        parts = self._take_apart(cookie)
        signed = _with_name(name, b"%b|%b" % (parts.date, parts.payload))
        refusals: list[InvalidCookie] = []
        for position, pair in enumerate(self._pairs):
            if not hmac.compare_digest(hmac.digest(pair.hash_key, signed, self._hash), parts.mac):
                continue
            try:
                self._check_date(parts.date)
                value = self._deserialize(_decrypt(pair, parts.payload), target, keep_types=keep_types)
                return OpenedCookie(value, int(parts.date), position > 0)
            except InvalidCookie as error:
                # The same hash key may stand beside another block key.
                refusals.append(error)
        if refusals:
            raise refusals[0]
        msg = "The cookie's signature is not one of these keys for this name"
        raise InvalidCookie(msg)

    def _take_apart(self, cookie: str) -> _Parts:
        if self._max_length and len(cookie) > self._max_length:
            msg = f"The cookie has {len(cookie)} characters; at most {self._max_length} are read"
            raise InvalidCookie(msg)
        try:
            raw = cookie.encode("ascii")
        except UnicodeEncodeError:
            msg = "The cookie has characters that are not ASCII"
            raise InvalidCookie(msg) from None
        # The MAC is bytes and may have pipes in it.
        parts = _decode_base64(raw).split(b"|", 2)
        if len(parts) != len(("date", "payload", "mac")):
            msg = "The cookie lacks a date, a payload or a signature"
            raise InvalidCookie(msg)
        return _Parts(*parts)

    def _check_date(self, date: bytes) -> None:
        if not date.isdigit() or len(date) > _LONGEST_DATE_DIGITS or int(date) > _LATEST_DATE_SECONDS:
            msg = "The cookie's date is not a number of seconds"
            raise InvalidCookie(msg)
        issued = int(date)
        now = int(self._clock())
        if self._min_age and issued > now - self._min_age:
            msg = "The cookie is too new"
            raise InvalidCookie(msg)
        if self._max_age and issued < now - self._max_age:
            msg = "The cookie has expired"
            raise InvalidCookie(msg)

    def _serialize(self, value: Any) -> bytes:
        try:
            if self._serializer == "gob":
                return gob.dumps(value)
            if self._serializer == "json":
                # Go's encoder for streams ends each value so.
                return _go_json.dumps(value) + b"\n"
            return _bytes(value)
        except ValueError as error:
            msg = f"The value can't be serialized as {self._serializer}: {error}"
            raise InvalidCookie(msg) from error

    def _deserialize(self, payload: bytes, target: gob.Target | None, *, keep_types: bool) -> Any:
        try:
            if self._serializer == "gob":
                return gob.loads(payload, target=target, keep_types=keep_types)
            return _go_json.loads(payload) if self._serializer == "json" else payload
        except InvalidGob as error:
            msg = f"The cookie's payload is not the expected gob: {error}"
            raise InvalidCookie(msg) from error
        except ValueError:
            # A text of the JSON decoder's may have parts of the payload in it.
            msg = "The cookie's payload is not JSON"
            raise InvalidCookie(msg) from None


def _with_name(name: str, signed: bytes) -> bytes:
    return b"%b|%b" % (name.encode("utf-8", "surrogatepass"), signed)


def _decode_base64(raw: bytes) -> bytes:
    try:
        decoded = base64.urlsafe_b64decode(raw)
    except ValueError:
        msg = "The cookie is not base64"
        raise InvalidCookie(msg) from None
    # The decoder passes over characters that it doesn't know.
    if base64.urlsafe_b64encode(decoded) != raw:
        msg = "The cookie is not base64 in its only valid form"
        raise InvalidCookie(msg)
    return decoded


def _decrypt(pair: _KeyPair, payload: bytes) -> bytes:
    decoded = _decode_base64(payload)
    if pair.cipher is None:
        return decoded
    if len(decoded) <= _IV_BYTES:
        msg = "The cookie's payload is too short to be encrypted"
        raise InvalidCookie(msg)
    return pair.cipher(decoded[:_IV_BYTES], decoded[_IV_BYTES:])


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    msg = f"a value of type {type(value).__qualname__} is not bytes"
    raise ValueError(msg)


def _check_numbers(*, max_length: object, **ages: object) -> None:
    for setting, number in {"max_length": max_length, **ages}.items():
        if not isinstance(number, int) or isinstance(number, bool):
            msg = f"{setting} is {number!r}; it must be a whole number"
            raise ConfigurationError(msg)
    if isinstance(max_length, int) and max_length < 0:
        msg = f"max_length is {max_length}; it must be 0 (no limit) or more"
        raise ConfigurationError(msg)


def _check_keys(keys: Sequence[object]) -> None:
    if isinstance(keys, (str, bytes)):
        msg = "key_pairs is a single key; it must be a list of them"
        raise ConfigurationError(msg)
    for position, key in enumerate(keys):
        if key is not None and not isinstance(key, bytes):
            msg = f"key_pairs[{position}] is of type {type(key).__qualname__}; keys are bytes"
            raise ConfigurationError(msg)


def _usable_pairs(keys: Sequence[bytes | None]) -> tuple[_KeyPair, ...]:
    """The key pairs that can work. As in Go, others are passed over while one is left."""
    _check_keys(keys)
    pairs: list[_KeyPair] = []
    problem = "key_pairs is empty; there must be at least one hash key"
    for position in range(0, len(keys), 2):
        hash_key, block_key = keys[position], keys[position + 1] if position + 1 < len(keys) else None
        if not hash_key:
            problem = f"key_pairs[{position}] is {'None' if hash_key is None else 'empty'}; it must be a hash key"
        elif block_key is not None and len(block_key) not in _BLOCK_KEY_BYTES:
            problem = f"key_pairs[{position + 1}] has {len(block_key)} bytes; block keys have 16, 24 or 32"
        else:
            pairs.append(_KeyPair(hash_key, None if block_key is None else _counter_mode(block_key)))
            _warn_of_short_key(position, hash_key)
            continue
        _logger.warning("A key pair is passed over: %s", problem)
    if not pairs:
        raise ConfigurationError(problem)
    return tuple(pairs)


def _warn_of_short_key(position: int, hash_key: bytes) -> None:
    if len(hash_key) < _SHORTEST_SAFE_HASH_KEY_BYTES:
        _logger.warning(
            "key_pairs[%d] has %d bytes; cookies signed with fewer than %d may be forged by guessing the key",
            position,
            len(hash_key),
            _SHORTEST_SAFE_HASH_KEY_BYTES,
        )


def _counter_mode(block_key: bytes) -> _Cipher:
    """AES in counter mode with a key, as a function of an IV and a text."""
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError as error:
        msg = "Encrypted gorilla cookies"
        raise MissingExtra(msg, "gorilla") from error
    algorithm = algorithms.AES(block_key)

    def apply(initial: bytes, text: bytes) -> bytes:
        return Cipher(algorithm, modes.CTR(initial)).encryptor().update(text)

    return apply
