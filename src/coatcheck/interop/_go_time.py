"""Go's `time.Time`: its binary form inside gob and its text form inside JSON.

A `datetime` counts microseconds and Go counts nanoseconds. `GobTime` carries the rest, so that a time which
Python only passes on reaches Go as it was.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Self

from coatcheck.errors import InvalidGob

_YEAR_ONE = datetime(1, 1, 1, tzinfo=UTC)
_SECONDS_PER_DAY = 86_400
_SECONDS_PER_MINUTE = 60
_NANOSECONDS_PER_MICROSECOND = 1_000
_NANOSECONDS_PER_SECOND = 1_000_000_000

# version, seconds since year one, nanoseconds, offset in minutes; version 2 adds the offset's seconds.
_VERSION_1 = struct.Struct(">Bqih")
_VERSION_2 = struct.Struct(">BqihB")
# Stands for UTC in place of an offset, so that an offset of minus one minute can't be written.
_UTC_MINUTES = -1


class GobTime(datetime):
    """A `datetime` with the nanoseconds that a `datetime` has no room for.

    It equals the plain `datetime` of the same microsecond. Arithmetic and `replace` give times without the rest.
    """

    nanosecond: int = 0
    """What goes beyond the microsecond, 0 to 999."""

    @classmethod
    def of(cls, moment: datetime, nanosecond: int) -> Self:
        """The same moment as `moment`, `nanosecond` (0 to 999) later."""
        time = cls(
            moment.year,
            moment.month,
            moment.day,
            moment.hour,
            moment.minute,
            moment.second,
            moment.microsecond,
            moment.tzinfo,
            fold=moment.fold,
        )
        time.nanosecond = nanosecond
        return time

    def to_datetime(self) -> datetime:
        """The plain `datetime` of the same microsecond."""
        return datetime.combine(self.date(), self.timetz())

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        """Copy and pickle with the nanoseconds, which `datetime` would leave behind."""
        return (type(self).of, (self.to_datetime(), self.nanosecond))


def decode_time(raw: bytes, *, keep_nanoseconds: bool) -> datetime:
    """Read what `Time.MarshalBinary` wrote.

    Raises:
        InvalidGob: the bytes are not a time, or one outside of the years 1 to 9999.
    """
    if len(raw) == _VERSION_1.size and raw[0] == 1:
        _, seconds, nanoseconds, minutes = _VERSION_1.unpack(raw)
        offset_seconds = minutes * _SECONDS_PER_MINUTE
    elif len(raw) == _VERSION_2.size and raw[0] == 2:
        _, seconds, nanoseconds, minutes, rest_seconds = _VERSION_2.unpack(raw)
        offset_seconds = minutes * _SECONDS_PER_MINUTE + rest_seconds
    else:
        msg = "A time has an unknown version or the wrong length"
        raise InvalidGob(msg)
    if not 0 <= nanoseconds < _NANOSECONDS_PER_SECOND:
        msg = "A time has nanoseconds beyond a second"
        raise InvalidGob(msg)
    microseconds, nanosecond = divmod(nanoseconds, _NANOSECONDS_PER_MICROSECOND)
    moment = _moment(seconds, microseconds, offset_seconds)
    return GobTime.of(moment, nanosecond) if nanosecond and keep_nanoseconds else moment


def _moment(seconds: int, microseconds: int, offset_seconds: int) -> datetime:
    try:
        moment = _YEAR_ONE + timedelta(seconds=seconds, microseconds=microseconds)
    except OverflowError:
        msg = "A time is outside of the years 1 to 9999"
        raise InvalidGob(msg) from None
    if offset_seconds in {0, _UTC_MINUTES * _SECONDS_PER_MINUTE}:
        return moment
    if abs(offset_seconds) >= _SECONDS_PER_DAY:
        msg = "A time's zone is a day or more from UTC"
        raise InvalidGob(msg)
    try:
        return moment.astimezone(timezone(timedelta(seconds=offset_seconds)))
    except OverflowError:
        # Go's zero time seen from west of Greenwich is in year 0. The moment matters more than the zone.
        return moment


def encode_time(moment: datetime) -> bytes:
    """Write an aware time as `Time.MarshalBinary` does.

    Raises:
        InvalidGob: the time is naive, or its offset is one that Go's format has no room for.
    """
    offset = moment.utcoffset()
    if offset is None:
        msg = "A naive datetime can't be written: Go's times always have a zone"
        raise InvalidGob(msg)
    if offset.microseconds:
        msg = "A datetime's offset has fractions of a second, which Go's times have not"
        raise InvalidGob(msg)
    since_year_one = moment - _YEAR_ONE
    seconds = since_year_one.days * _SECONDS_PER_DAY + since_year_one.seconds
    nanoseconds = since_year_one.microseconds * _NANOSECONDS_PER_MICROSECOND + getattr(moment, "nanosecond", 0)
    if not offset:
        return _VERSION_1.pack(1, seconds, nanoseconds, _UTC_MINUTES)
    # Rounded down, since Go reads the seconds as unsigned.
    minutes, rest_seconds = divmod(offset.days * _SECONDS_PER_DAY + offset.seconds, _SECONDS_PER_MINUTE)
    if rest_seconds:
        return _VERSION_2.pack(2, seconds, nanoseconds, minutes, rest_seconds)
    if minutes == _UTC_MINUTES:
        msg = "An offset of minus one minute can't be written: it stands for UTC in Go's format"
        raise InvalidGob(msg)
    return _VERSION_1.pack(1, seconds, nanoseconds, minutes)


def format_time(moment: datetime) -> str:
    """Write an aware time as Go's JSON does: RFC 3339 with as many digits of a second as needed.

    Raises:
        ValueError: the time is naive.
    """
    offset = moment.utcoffset()
    if offset is None:
        msg = "A naive datetime can't be written: Go's times always have a zone"
        raise ValueError(msg)
    nanoseconds = moment.microsecond * _NANOSECONDS_PER_MICROSECOND + getattr(moment, "nanosecond", 0)
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    date_and_time = moment.replace(tzinfo=None).isoformat(timespec="seconds")
    if not offset:
        return f"{date_and_time}{fraction}Z"
    # Go drops the seconds of an offset, towards zero.
    hours, minutes = divmod(int(abs(offset) / timedelta(minutes=1)), 60)
    sign = "-" if offset < timedelta() else "+"
    return f"{date_and_time}{fraction}{sign}{hours:02d}:{minutes:02d}"
