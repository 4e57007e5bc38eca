"""A Go session's values as one of Coatcheck's records, and back. No I/O.

Go keeps a map. What a record has beyond values (times, the login, the writer's revision) travels in that map under
one key, `METADATA_KEY`, as a string that Go passes through when it saves. Where Go has changed a value since, the
digest in there no longer matches, and the revision follows from the bytes instead: so a write of Go's is a newer
record to Coatcheck, like any other.

That string says who has logged in, and a Go program may let its visitors choose keys and values. So it is signed. One
that is not ours counts for nothing: the session is then one that only Go has written. It is not signed for the ID of
its session, because Go may give a session another one, and its login goes along.

Values of Go's own types (`int64`, structs, times with nanoseconds) keep their types on the way through a request.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol

import msgspec
from msgspec import Raw

from coatcheck import values
from coatcheck.errors import (
    ConfigurationError,
    RecordTooLarge,
    SessionError,
    UndecodableRecord,
    UnsupportedKey,
    UnsupportedValue,
)
from coatcheck.interop import _go_json, gob
from coatcheck.interop._gob_types import TYPED_CLASSES
from coatcheck.interop.gob import GobInt, GobString, GobTime
from coatcheck.record import Limits, Login, Record, Values
from coatcheck.session import FLASH_KEY

METADATA_KEY: Final = "_coatcheck"
"""The session's key that Coatcheck keeps for itself."""

SerializerName = Literal["gob", "json"]

_VERSION: Final = "1."
_DIGEST_BYTES: Final = 8
_MAC_BYTES: Final = 16
_SIGNED_FOR: Final = b"coatcheck: what a session shared with Go keeps beside its values"
_DEFAULT_CATEGORY: Final = "message"
_TYPED_KEY: Final = re.compile(r"(bool|u?int(?:8|16|32|64)?)\((true|false|-?[0-9]{1,20})\)")


class _Metadata(msgspec.Struct, array_like=True, frozen=True):
    """What a record has and Go's map has not. Part of the storage format."""

    revision: Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
    digest: bytes
    """Of the values that were written with it."""
    created_at_ms: int
    updated_at_ms: int
    renewed_at_ms: int
    remember: bool | None
    login: Login | None
    limits: Limits | None = None


_encode_metadata = msgspec.msgpack.Encoder().encode
_decode_metadata = msgspec.msgpack.Decoder(_Metadata).decode
_encode = msgspec.msgpack.Encoder().encode


class GoSession(NamedTuple):
    """A session that was read."""

    revision: bytes
    record: Record
    """Its times are 0 where only Go has written the session so far."""
    is_known: bool
    """Whether Coatcheck has written it before."""
    plain_values: Mapping[str, Any]
    """The values with Go's types."""


class _Serializer(Protocol):
    """How Go turns its map into bytes."""

    def loads(self, data: bytes) -> dict[Any, Any]:
        """Read a map. Raises ValueError."""
        ...

    def dumps(self, pairs: dict[Any, Any]) -> bytes:
        """Write a map. Raises ValueError."""
        ...

    def is_same(self, written: Any, read: Any) -> bool:
        """Tell whether a value has come back as it was."""
        ...

    def name_of(self, key: Any) -> str:
        """Give what a key of Go's map is called in a session. Raises ValueError if it can't have a name."""
        ...

    def key_of(self, name: str) -> Any:
        """Give the key of Go's map that is called so."""
        ...


class _Gob:
    def loads(self, data: bytes) -> dict[Any, Any]:
        pairs: dict[Any, Any] = gob.loads(data, target="map", keep_types=True)
        return pairs

    def dumps(self, pairs: dict[Any, Any]) -> bytes:
        return gob.dumps(pairs)

    def is_same(self, written: Any, read: Any) -> bool:
        try:
            # What has a type of Go's may be nested more deeply than what has none.
            is_same_to_go = _encoded("", written) == _encoded("", read)
            return is_same_to_go or _encoded("", gob.plain(written)) == _encoded("", gob.plain(read))
        except UnsupportedValue:
            return False

    def name_of(self, key: Any) -> str:
        if isinstance(key, str):
            if type(key) is not str or self.key_of(key) != key:
                msg = "it has a key that would be taken for one of another type"
                raise ValueError(msg)
            return key
        if isinstance(key, bool):
            return "bool(true)" if key else "bool(false)"
        if isinstance(key, int):
            kind = key.gob_type.name if isinstance(key, GobInt) else "int"
            if _TYPED_KEY.fullmatch(f"{kind}(0)"):
                return f"{kind}({int(key)})"
        msg = f"it has a key of type {type(key).__name__}; keys are strings, whole numbers and booleans"
        raise ValueError(msg)

    def key_of(self, name: str) -> Any:
        match = _TYPED_KEY.fullmatch(name)
        if match is None:
            return name
        kind, literal = match.groups()
        if (kind == "bool") is not (literal in {"true", "false"}):
            return name
        if kind == "bool":
            return literal == "true"
        number = int(literal)
        return number if kind == "int" else GobInt(number, kind)


class _JSON:
    def loads(self, data: bytes) -> dict[Any, Any]:
        try:
            pairs = _go_json.loads(data)
        except ValueError:
            # A text of the JSON decoder's may have parts of the values in it.
            msg = "it is not JSON"
            raise ValueError(msg) from None
        if not isinstance(pairs, dict):
            msg = "it is JSON, but not an object"
            raise ValueError(msg)  # noqa: TRY004 (it is the bytes that are wrong)
        return pairs

    def dumps(self, pairs: dict[Any, Any]) -> bytes:
        return _go_json.dumps(pairs)

    def is_same(self, written: Any, read: Any) -> bool:
        # All numbers come back as floats, equal as long as a float can hold them.
        return bool(written == read)

    def name_of(self, key: Any) -> str:
        return str(key)

    def key_of(self, name: str) -> Any:
        return name


_SERIALIZERS: Final[Mapping[str, _Serializer]] = {"gob": _Gob(), "json": _JSON()}


class GoSessions:
    """Translates between the two.

    Args:
        serializer: "gob" or "json", as in the Go program.
        max_length: bytes that a session may have; 0 for no limit.
        flash_categories: the keys that the Go program gives to `AddFlash` and `Flashes`.
        secrets: what Coatcheck's own part is signed with: the first signs, all are tried. None, where only `values`
            is asked for.

    Raises:
        ConfigurationError: an argument can't work.
    """

    def __init__(
        self,
        serializer: SerializerName,
        max_length: int,
        flash_categories: Iterable[str],
        secrets: Sequence[bytes] = (),
    ) -> None:
        if serializer not in _SERIALIZERS:
            msg = f"serializer: expected 'gob' or 'json', got {serializer!r}"
            raise ConfigurationError(msg)
        length: object = max_length
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            msg = f"max_length: expected a number of bytes, or 0 for no limit, got {max_length!r}"
            raise ConfigurationError(msg)
        self._serializer = _SERIALIZERS[serializer]
        self._serializer_name = serializer
        self._max_length = max_length
        self._flash_keys = {_DEFAULT_CATEGORY: FLASH_KEY, **_checked_categories(flash_categories)}
        self._reserved = {METADATA_KEY, *self._flash_keys.values()} - {FLASH_KEY}
        self._signing_keys = [hmac.digest(secret, _SIGNED_FOR, "sha256") for secret in secrets]

    # --- reading --------------------------------------------------------------------------------------------------

    def read(self, data: bytes) -> GoSession:
        """Read what Go or `write` has stored.

        Raises:
            UndecodableRecord: it can't be read, or holds what a session of Coatcheck's can't hold.
        """
        try:
            pairs = self._serializer.loads(data)
            metadata = self._read_metadata(pairs.pop(METADATA_KEY, None))
            plain_values = self._named(pairs)
            native = self._native(plain_values)
        except (ValueError, SessionError) as error:
            msg = f"it is not a session that can be shared with Go: {error}"
            raise UndecodableRecord(msg) from error
        revision = sha256(data).digest()[:8]
        if metadata is None:
            return GoSession(revision, Record(0, 0, 0, None, None, native), False, plain_values)
        if metadata.digest == _digest(native):  # nobody has changed a value since
            revision = metadata.revision
        record = Record(
            metadata.created_at_ms,
            metadata.updated_at_ms,
            metadata.renewed_at_ms,
            metadata.remember,
            metadata.login,
            native,
            metadata.limits,
        )
        return GoSession(revision, record, True, plain_values)

    def values(self, pairs: Mapping[Any, Any]) -> Values:
        """Give the values of a session that Go keeps elsewhere than in bytes of its own.

        Raises:
            ValueError, SessionError: they can't be those of a session of Coatcheck's.
        """
        return self._native(self._named(pairs))

    def _read_metadata(self, text: Any) -> _Metadata | None:
        """Read what Coatcheck keeps for itself. None if there is nothing, or somebody else wrote it."""
        if text is None:
            return None
        try:
            if not isinstance(text, str) or not text.startswith(_VERSION):
                raise ValueError  # noqa: TRY301
            signed = b64decode(text.removeprefix(_VERSION), altchars="-_", validate=True)
            mac, encoded = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
            if not any(hmac.compare_digest(mac, _mac(key, encoded)) for key in self._signing_keys):
                return None
            return _decode_metadata(encoded)
        except (ValueError, msgspec.MsgspecError):
            msg = f"its {METADATA_KEY!r} was not written by this version of Coatcheck, or is damaged"
            raise ValueError(msg) from None

    def _named(self, pairs: Mapping[Any, Any]) -> dict[str, Any]:
        return {self._serializer.name_of(key): value for key, value in pairs.items()}

    def _native(self, plain_values: Mapping[str, Any]) -> Values:
        native = {
            name: _encoded(name, value)
            for name, value in plain_values.items()
            if name not in self._reserved and name != FLASH_KEY
        }
        flashes = [
            [message, category]
            for category, key in self._flash_keys.items()
            for message in _flash_list(key, plain_values.get(key))
        ]
        if flashes:
            native[FLASH_KEY] = _encoded(FLASH_KEY, flashes)
        return native

    # --- writing --------------------------------------------------------------------------------------------------

    def write(self, revision: bytes, record: Record, replacing: GoSession | None = None) -> bytes:
        """Give the bytes to store, which Go can read.

        Args:
            revision: what the record has to be known by.
            record: what to store.
            replacing: what is there now. A new value gets the Go type of the one that it replaces, if it fits.

        Raises:
            UnsupportedValue: a value would not come back as it is. Names its key and type.
            UnsupportedKey: a key is one that is kept for other purposes.
            RecordTooLarge: there are more bytes than `max_length`.
        """
        pairs = self._go_pairs(record.values, {} if replacing is None else replacing.plain_values)
        read_back = self._read_back(pairs)
        for key, value in pairs.items():
            if not self._serializer.is_same(value, read_back[key]):
                raise self._refusal(key, value, "it would come back as something else")
        native = self.values(read_back)
        times = (record.created_at_ms, record.updated_at_ms, record.renewed_at_ms)
        metadata = _Metadata(revision, _digest(native), *times, record.remember, record.login, record.limits)
        encoded = _encode_metadata(metadata)
        signed = _mac(self._signing_keys[0], encoded) + encoded
        pairs[METADATA_KEY] = _VERSION + urlsafe_b64encode(signed).decode("ascii")
        data = self._serializer.dumps(pairs)
        self._check_length(data, pairs)
        return data

    def _go_pairs(self, native: Values, replaced: Mapping[str, Any]) -> dict[Any, Any]:
        pairs: dict[Any, Any] = {}
        for name, encoded in native.items():
            value = values.decode(name, encoded)
            if name == FLASH_KEY:
                pairs.update(self._go_flashes(value))
            elif name in self._reserved:
                purpose = "Coatcheck's own data" if name == METADATA_KEY else "flash messages"
                msg = f"session[{name!r}] is kept for {purpose} in sessions that are shared with Go; use another key"
                raise UnsupportedKey(msg)
            else:
                pairs[self._serializer.key_of(name)] = gob.retype(value, like=replaced.get(name))
        return pairs

    def _go_flashes(self, flashes: Any) -> dict[str, list[Any]]:
        pairs: dict[str, list[Any]] = {}
        for flash in flashes if isinstance(flashes, list) else [flashes]:
            message, category = flash if isinstance(flash, list) and len(flash) == 2 else (None, None)
            key = self._flash_keys.get(category) if isinstance(category, str) else None
            if key is None:
                msg = (
                    f"session.flash(…, {category!r}): Go knows these categories: {', '.join(self._flash_keys)}; "
                    "name others in flash_categories"
                )
                raise UnsupportedValue(msg)
            pairs.setdefault(key, []).append(message)
        return pairs

    def _read_back(self, pairs: dict[Any, Any]) -> dict[Any, Any]:
        try:
            return self._serializer.loads(self._serializer.dumps(pairs))
        except ValueError as error:
            for key, value in pairs.items():
                try:
                    self._serializer.loads(self._serializer.dumps({key: value}))
                except ValueError as own_error:
                    raise self._refusal(key, value, str(own_error.__cause__ or own_error)) from own_error
            msg = f"The session can't be written as {self._serializer_name}: {error}"
            raise UnsupportedValue(msg) from error

    def _refusal(self, key: Any, value: Any, reason: str) -> UnsupportedValue:
        name = key if isinstance(key, str) else self._serializer.name_of(key)
        return UnsupportedValue(
            f"session[{name!r:.80}] can't keep a value of type {type(value).__qualname__!r} as Go's "
            f"{self._serializer_name}: {reason}"
        )

    def _check_length(self, data: bytes, pairs: dict[Any, Any]) -> None:
        if self._max_length and len(data) > self._max_length:
            largest = max(pairs, key=lambda key: len(self._serializer.dumps({key: pairs[key]})))
            msg = (
                f"The session would take {len(data)} bytes as Go's {self._serializer_name}; max_length allows "
                f"{self._max_length}. Nothing was stored. Its largest value is session[{largest!r:.80}]"
            )
            raise RecordTooLarge(msg)


def _checked_categories(categories: Iterable[str]) -> dict[str, str]:
    if isinstance(categories, str):
        msg = "flash_categories: expected a list of keys, got a single str; put it into a list"
        raise ConfigurationError(msg)
    checked = {category: category for category in categories}
    if taken := checked.keys() & {_DEFAULT_CATEGORY, FLASH_KEY, METADATA_KEY}:
        msg = f"flash_categories: {min(taken)!r} is taken; name only the keys that Go gives to AddFlash"
        raise ConfigurationError(msg)
    return checked


def _flash_list(key: str, messages: Any) -> list[Any]:
    if messages is None:
        return []
    if not isinstance(messages, list):
        msg = f"its {key!r:.80} is not a list of flash messages"
        raise ValueError(msg)  # noqa: TRY004 (it is the bytes that are wrong)
    return messages


def _mac(key: bytes, encoded: bytes) -> bytes:
    return hmac.digest(key, encoded, "sha256")[:_MAC_BYTES]


def _encoded(name: str, value: Any) -> Raw:
    try:
        return Raw(values.encode(values.check_key(name), value))
    except UnsupportedValue:
        return Raw(values.encode(name, _with_escapes(value)))


def _with_escapes(value: Any) -> Any:
    """Mark strings that are not UTF-8, which only Go's strings can be, as values of Go's."""
    if type(value) is str and not values.is_text(value):
        return GobString(value, "string")
    if type(value) is list:
        return [_with_escapes(each) for each in value]
    if type(value) is dict:
        return {_with_escapes(key): _with_escapes(each) for key, each in value.items()}
    return value


def _digest(native: Values) -> bytes:
    return sha256(_encode(sorted(native.items(), key=lambda pair: pair[0]))).digest()[:_DIGEST_BYTES]


# --- values of Go's types, within a request ---------------------------------------------------------------------------


def _write_typed(value: Any) -> bytes:
    return gob.dumps({"": value})


def _read_typed(data: bytes) -> Any:
    value = gob.loads(data, target="map", keep_types=True)[""]
    return GobString(value, "string") if type(value) is str else value


for _kind in (*TYPED_CLASSES, GobTime):
    values.add_type(_kind, values.Code.GO, _write_typed, _read_typed)
