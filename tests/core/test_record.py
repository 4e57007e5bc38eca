"""A record comes back whole, or it is refused."""

from __future__ import annotations

from contextlib import suppress
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from coatcheck import record as records
from coatcheck import values
from coatcheck.errors import ForeignRecord, UndecodableRecord
from coatcheck.record import AnyRecord, IndexEntry, Limits, Login, Moved, Record, UserEpoch, UserIndex

KEY = "00112233445566778899aabbccddeeff00112233"
RECORD = Record(1, 2, 2, True, None, {"user": Raw(values.encode("user", "alice"))})
LOGGED_IN = Record(1, 2, 3, None, Login("alice", 2, 0, "Firefox", "192.0.2.0"), {})
DATA = records.encode(KEY, b"revision", RECORD)


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        Record(0, 0, 0, None, None, {}),
        Record(0, 0, 0, None, None, {}, Limits(60_000, 5)),
        Moved(KEY, 5, 0),
        LOGGED_IN,
        UserIndex({KEY: IndexEntry(1, 2, 3)}),
        UserEpoch(5),
    ],
)
def test_a_record_comes_back_with_its_revision(record: AnyRecord) -> None:
    assert records.decode(KEY, records.encode(KEY, b"revision", record)) == (b"revision", record)


def test_records_stay_readable_from_version_to_version() -> None:
    # Fixed bytes: were the format to change unnoticed, a deploy would log everybody out.
    without_limits = bytes.fromhex(
        "017265766973696f6ec636ec2700112233445566778899aabbccddeeff0011223396010202c3c081a475736572a5616c696365"
    )
    assert records.decode(KEY, without_limits) == (b"revision", RECORD)
    stored = bytes.fromhex(
        "017265766973696f6e3b482ee200112233445566778899aabbccddeeff0011223397010202c3c081a475736572a5616c696365c0"
    )
    assert stored == DATA
    assert records.decode(KEY, stored) == (b"revision", RECORD)


def test_the_revision_stands_where_stores_look_for_it() -> None:
    assert DATA[records.REVISION] == b"revision"


def test_every_write_has_a_revision_of_its_own() -> None:
    assert len({records.new_revision() for _ in range(1000)}) == 1000


def test_damage_to_any_byte_is_found() -> None:
    for position in range(len(DATA)):
        if records.REVISION.start <= position < records.REVISION.stop:
            continue  # another revision is another write, not damage
        damaged = DATA[:position] + bytes([DATA[position] ^ 1]) + DATA[position + 1 :]
        with pytest.raises(UndecodableRecord):
            records.decode(KEY, damaged)


@given(st.integers(0, len(DATA) - 1))
def test_a_record_that_was_cut_is_found(size: int) -> None:
    with pytest.raises(UndecodableRecord):
        records.decode(KEY, DATA[:size])


@given(st.binary(max_size=200))
def test_no_bytes_raise_another_error(data: bytes) -> None:
    with pytest.raises(UndecodableRecord):
        records.decode(KEY, data)


@given(st.integers(1, 4), st.binary(max_size=60))
def test_no_body_with_a_true_checksum_raises_another_error(format_number: int, body: bytes) -> None:
    checked = bytes.fromhex(KEY) + body
    data = b"%crevision%b%b" % (format_number, crc32(checked).to_bytes(4, "big"), checked)
    with suppress(UndecodableRecord):
        records.decode(KEY, data)


def test_text_that_is_not_utf_8_is_damage() -> None:
    checked = bytes.fromhex(KEY) + b"\x93\xa1\xff\x00\x00"
    with pytest.raises(UndecodableRecord, match="can't be decoded"):
        records.decode(KEY, b"\x02revision%b%b" % (crc32(checked).to_bytes(4, "big"), checked))


def test_what_a_store_sets_aside_is_undecodable_for_the_reason_that_it_gives() -> None:
    with pytest.raises(UndecodableRecord, match=r"^it is of another world\ufffd$"):
        records.decode(KEY, records.set_aside("it is of another world\ufffd"))


def test_a_body_nested_without_end_does_not_overflow_the_stack() -> None:
    record = Record(1, 2, 2, None, None, {"deep": Raw(b"\x91" * 100_000 + b"\x90")})
    with pytest.raises(UndecodableRecord):
        records.decode(KEY, records.encode(KEY, b"revision", record))


def test_a_record_of_another_session_is_refused() -> None:
    with pytest.raises(ForeignRecord, match=KEY):
        records.decode(KEY.replace("0", "f"), DATA)
