"""Bytes from anybody: no error but the documented one, no hang, no memory beyond what the bytes are worth.

The streams are made of what gob is made of (definitions, counts, names), put together without regard to what it
means, so that they get further than random bytes do. `make fuzz` looks for the same with guidance, and for longer.
"""

from __future__ import annotations

import base64
import hmac
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.errors import InvalidCookie, InvalidGob, UndecodableRecord
from coatcheck.interop import gob
from coatcheck.interop._go_sessions import GoSessions
from coatcheck.interop.gorilla import SecureCookie

KEY = bytes(range(32))
BYTES_PER_BYTE = 2_000
"""An interpreted value costs this much memory at most for each byte of a small stream: a dict or two, and some text."""
BYTES_IN_ANY_CASE = 300_000

# A hang is what this is for, not slowness.
patient = settings(max_examples=400, deadline=timedelta(seconds=10))


def uint(number: int) -> bytes:
    if number < 128:
        return bytes((number,))
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes((256 - len(raw),)) + raw


def name(text: str) -> bytes:
    return uint(len(text)) + text.encode()


def definition(type_id: int, kind: int, *parts: int) -> bytes:
    fields = b"".join(b"\x01" + uint(part << 1) for part in parts)
    return uint(~-type_id << 1 | 1) + uint(kind) + b"\x01\x02" + uint(type_id << 1) + b"\x00" + fields + b"\x00\x00"


ids = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 64, 65, 66, 67])
numbers = st.integers(0, 5) | st.sampled_from(
    [127, 128, 255, 65_536, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]
)
names = st.sampled_from(
    ["string", "int", "uint8", "[]uint8", "[]string", "[]interface {}", "[9999999]bool", "[3]int", "time.Time",
     "map[string]interface {}", "map[string][]map[string]int64", "main.Profile", "*main.Node", "complex128", ""]
)  # fmt: skip
pieces = (
    numbers.map(uint)
    | names.map(name)
    | ids.map(lambda number: uint(number << 1))
    | st.builds(definition, ids, st.integers(1, 5), ids)
    | st.builds(definition, ids, st.integers(1, 5), ids, ids)
    | st.builds(definition, ids, st.sampled_from([1, 2]), ids, numbers.filter(lambda number: number < 1 << 62))
    | st.binary(max_size=4)
)
messages = st.lists(pieces, max_size=12).map(b"".join).map(lambda body: uint(len(body)) + body)
maps = st.just(b"\x0e\xff\x81\x04\x01\x02\xff\x82\x00\x01\x10\x01\x10\x00\x00")  # a session's type, under number 65
streams = st.lists(messages, max_size=5).map(b"".join) | st.tuples(
    maps, st.lists(messages, max_size=5).map(b"".join)
).map(b"".join)


def cost_of(read: Callable[[], Any]) -> int:
    """Give the most memory that it took at a time."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@patient
@given(streams, st.sampled_from(["map", "string", "any", None]), st.booleans())
def test_streams_of_gobs_parts_are_read_or_refused(stream: bytes, target: Any, keep_types: bool) -> None:
    def read() -> None:
        try:
            gob.loads(stream, target=target, keep_types=keep_types)
        except InvalidGob:
            return

    assert cost_of(read) < BYTES_IN_ANY_CASE + BYTES_PER_BYTE * len(stream)


@patient
@given(streams, st.integers(1, 40))
def test_streams_that_repeat_themselves_are_read_or_refused(stream: bytes, times: int) -> None:
    repeated = stream * times

    def read() -> None:
        try:
            gob.loads(repeated, target="any", keep_types=True)
        except InvalidGob:
            return

    assert cost_of(read) < BYTES_IN_ANY_CASE + BYTES_PER_BYTE * len(repeated)


@patient
@given(streams, st.booleans())
def test_cookies_with_a_true_signature_around_such_streams_are_read_or_refused(stream: bytes, is_long: bool) -> None:
    signed = b"1700000000|" + base64.urlsafe_b64encode(stream * (40 if is_long else 1))
    mac = hmac.digest(KEY, b"sid|" + signed, "sha256")
    cookie = base64.urlsafe_b64encode(signed + b"|" + mac).decode()
    codec = SecureCookie([KEY], max_age=0)

    def read() -> None:
        try:
            codec.decode("sid", cookie)
        except InvalidCookie:
            return

    assert cost_of(read) < BYTES_IN_ANY_CASE + BYTES_PER_BYTE * len(cookie)


@patient
@given(streams)
def test_sessions_of_such_streams_are_read_or_refused(stream: bytes) -> None:
    sessions = GoSessions("gob", 0, ["errors"])

    def read() -> None:
        try:
            sessions.read(stream)
        except UndecodableRecord:
            return

    assert cost_of(read) < BYTES_IN_ANY_CASE + BYTES_PER_BYTE * len(stream)


@patient
@given(st.text(st.sampled_from('{}[]",:0123456789eE+-.\\u/_flash errorstn\ufffd\x00'), max_size=200))
def test_json_of_jsons_parts_is_read_or_refused(text: str) -> None:
    sessions = GoSessions("json", 0, ["errors"])

    def read() -> None:
        try:
            sessions.read(text.encode())
        except UndecodableRecord:
            return

    assert cost_of(read) < BYTES_IN_ANY_CASE + BYTES_PER_BYTE * len(text)
