"""What the store keeps under a store key: a record, and its bytes.

    format 1 byte | revision 8 bytes | CRC-32 4 bytes | store key 20 bytes | MessagePack body

The revision stands at a fixed place (`REVISION`), so that a store compares it without knowing anything else of a
record. It is random: revisions are only ever compared for equality, and a counter could repeat after a failover.
The checksum makes a damaged record known when it is loaded, although its values are decoded only when they are read.
The store key inside the record makes a record that arrives under another key known (a connection that mixes up
replies once handed one user's data to the next: CVE-2023-28858).
"""

from __future__ import annotations

import os
import struct
from datetime import datetime
from typing import Final, TypeAlias
from zlib import crc32

import msgspec
from msgspec import Raw
from msgspec.msgpack import Decoder, Encoder

from coatcheck.errors import ForeignRecord, UndecodableRecord
from coatcheck.session_info import moment

REVISION: Final = slice(1, 9)
"""Where in a record's bytes its revision stands. The scripts and queries of the stores use the same place."""

_HEADER: Final = struct.Struct(">B8sI20s")
_CHECKED: Final = slice(13, None)
"""What the checksum covers: the store key and the body."""
_BODY: Final = slice(_HEADER.size, None)

_DIGITS: Final = slice(-40, None)
"""The hexadecimal digits that end every store key; before them may stand what kind of record it is, as in `user-`."""

Values: TypeAlias = dict[str, Raw]
"""A session's keys, each with its value still encoded."""


class Login(msgspec.Struct, array_like=True, frozen=True):
    """Whose session it is, since when, and from which device."""

    user_id: str
    authenticated_at_ms: int
    """0 for a login of another system's, whose time is not known."""
    epoch: int
    """The user's epoch at the login. When all sessions of a user are ended the epoch rises above it."""
    user_agent: str | None
    client_address: str | None

    @property
    def authenticated_at(self) -> datetime | None:
        """When the user proved who they are; None if that is not known."""
        return moment(self.authenticated_at_ms) if self.authenticated_at_ms else None


class Limits(msgspec.Struct, array_like=True, frozen=True):
    """Times of one session's own, within the configured lifetime."""

    idle_ms: int | None
    """Its idle timeout; None for the configured one."""
    ends_at_ms: int | None
    """When it ends whatever its use; None for the end of its lifetime."""


class Record(msgspec.Struct, array_like=True, frozen=True):
    """A session as it is stored. Times are milliseconds since the epoch."""

    created_at_ms: int
    updated_at_ms: int
    renewed_at_ms: int
    """When the session got the ID that it has now."""
    remember: bool | None
    """Whether the cookie outlives the browser's session; None for what the configuration says."""
    login: Login | None
    values: Values
    limits: Limits | None = None
    """Times of its own. Records from before there were any end before this."""

    @property
    def user_id(self) -> str | None:
        """Whose session it is; None for nobody's."""
        return None if self.login is None else self.login.user_id


class Moved(msgspec.Struct, array_like=True, frozen=True):
    """What stands in a session's place for a while after it was renewed.

    By it, requests that were under way with the old ID are told from those of a session that has ended.
    """

    successor: str
    """The store key that the session has now; empty if it ended before it was stored."""
    until_ms: int
    """From when on this counts as nothing at all."""
    grace_until_ms: int
    """Until when requests with the old ID still reach the session. 0 after a login."""


class IndexEntry(msgspec.Struct, array_like=True, frozen=True, order=True):
    """What a user's index says of one session, in milliseconds since the epoch."""

    since_ms: int
    """When the session began. It keeps this through renewals, so that the oldest is known."""
    ends_at_ms: int
    """When its lifetime ends."""
    entered_at_ms: int
    """When this key of it was entered. It may not be stored yet."""


class UserIndex(msgspec.Struct, array_like=True, frozen=True):
    """Which sessions a user has, by store key.

    A session is entered before it is stored, so there may be keys here that lead nowhere, but no session that is not
    here.
    """

    entries: dict[str, IndexEntry]


class UserEpoch(msgspec.Struct, array_like=True, frozen=True):
    """A user's sessions from before this epoch have ended."""

    epoch: int


class Adopted(msgspec.Struct, array_like=True, frozen=True):
    """Marks a session of another system as adopted, under a key that is a hash of the old one's. See `adoption`."""

    handle: str
    """The store key that the native session was given; empty if there must be none."""
    nonce: bytes
    """What the native session's ID was made from, together with the secret key and the old session's name."""
    user_tag: bytes
    """Whose session it was then; empty for nobody's."""


AnyRecord: TypeAlias = Record | Moved | UserIndex | UserEpoch | Adopted

_FORMATS: Final[dict[type[AnyRecord], int]] = {Record: 1, Moved: 2, UserIndex: 3, UserEpoch: 4, Adopted: 5}
"""The first byte. Part of the storage format."""

_SET_ASIDE: Final = _HEADER.pack(0, b"", 0, b"")

_encode_body = Encoder().encode
_DECODERS: Final = {number: Decoder(kind).decode for kind, number in _FORMATS.items()}


_spare_revisions: Final[list[bytes]] = []
"""Fetched in advance, because a system call for each write costs more than the rest of making a record."""

_FETCHED: Final = 128

os.register_at_fork(after_in_child=_spare_revisions.clear)  # no two processes may use the same


def new_revision() -> bytes:
    """Make a revision that no other write has."""
    try:
        return _spare_revisions.pop()
    except IndexError:
        random = os.urandom(8 * _FETCHED)
        first, *rest = [random[start : start + 8] for start in range(0, len(random), 8)]
        _spare_revisions.extend(rest)
        return first


def encode(store_key: str, revision: bytes, record: AnyRecord) -> bytes:
    """Give the bytes to store under `store_key`."""
    owner_key, body = bytes.fromhex(store_key[_DIGITS]), _encode_body(record)
    return _HEADER.pack(_FORMATS[type(record)], revision, crc32(body, crc32(owner_key)), owner_key) + body


def set_aside(reason: str) -> bytes:
    """Give what a store hands over in place of something that it can't make a record of. `decode` says why."""
    return _SET_ASIDE + reason.encode("utf-8", "replace")


def decode(store_key: str, data: bytes) -> tuple[bytes, AnyRecord]:
    """Read what was found under `store_key`. Gives its revision and the record.

    Raises:
        UndecodableRecord: the bytes are not a record, are damaged, or have a format this version does not know.
        ForeignRecord: it is a sound record of another session.
    """
    try:
        format_number, revision, checksum, owner_key = _HEADER.unpack_from(data)
    except struct.error:
        msg = f"{len(data)} bytes are too few for a record"
        raise UndecodableRecord(msg) from None
    decode_body = _DECODERS.get(format_number)
    if decode_body is None:
        if data.startswith(_SET_ASIDE):
            raise UndecodableRecord(data[_BODY].decode("utf-8", "replace"))
        msg = f"it has format {format_number}, which this version of Coatcheck does not know"
        raise UndecodableRecord(msg)
    if crc32(data[_CHECKED]) != checksum:
        msg = "its checksum is wrong, so it is damaged"
        raise UndecodableRecord(msg)
    if owner_key.hex() != store_key[_DIGITS]:
        msg = f"it belongs to {owner_key.hex()}"
        raise ForeignRecord(msg)
    try:
        return revision, decode_body(data[_BODY])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"its body can't be decoded: {error}"
        raise UndecodableRecord(msg) from error
