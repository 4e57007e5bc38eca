"""JSON as Go's `encoding/json` reads and writes it, which gorilla's JSON serializers are made of.

The text is Go's to the byte: keys sorted, `<`, `>` and `&` escaped, numbers in Go's notation. As in Go, bytes
become a base64 string and a time becomes an RFC 3339 string, and neither comes back as what it was.

Numbers come back as floats, as they do in Go's `interface{}`: one session must not be an int here and a float there.

Where it is stricter than Go: invalid UTF-8 and lone surrogates (for which Go puts U+FFFD), and anything after the
value (which Go ignores) are refused.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NoReturn

from coatcheck.interop._go_time import format_time

_MAX_DEPTH = 128
_INT64_MIN = -(1 << 63)
_UINT64_MAX = (1 << 64) - 1
# Where Go changes to the notation with an exponent.
_SMALLEST_WITHOUT_EXPONENT = 1e-6
_SMALLEST_WITH_EXPONENT = 1e21
_SHORT_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile('["\\\\<>&\x00-\x1f\u2028\u2029]')


def loads(data: bytes) -> Any:
    """Read one JSON value.

    Raises:
        ValueError: The bytes are not JSON that Go would read, or are nested too deeply.
    """
    text = data.decode("utf-8")
    try:
        value = json.loads(text, parse_int=_finite, parse_float=_finite, parse_constant=_refuse_constant)
        if "\\u" in text:
            # Lone surrogates are only found where something was escaped.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        msg = "The value is nested too deeply"
        raise ValueError(msg) from None
    return value


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        msg = "A number is out of range for float64"
        raise ValueError(msg)
    return number


def _refuse_constant(_: str) -> NoReturn:
    msg = "NaN and infinities are not JSON"
    raise ValueError(msg)


def dumps(value: Any) -> bytes:
    """Write one JSON value, without a newline at its end.

    Raises:
        ValueError: The value, or something in it, has no equal in JSON.
    """
    try:
        return _text(value, 0).encode("utf-8")
    except RecursionError:
        msg = "The value is nested too deeply"
        raise ValueError(msg) from None


def _text(value: Any, depth: int) -> str:
    if depth > _MAX_DEPTH:
        msg = "The value is nested too deeply, or contains itself"
        raise ValueError(msg)
    for kind, text_of in _TEXTS:
        if isinstance(value, kind):
            return text_of(value, depth)
    msg = f"A value of type {type(value).__qualname__} can't be written"
    raise ValueError(msg)


def _array(elements: list[Any], depth: int) -> str:
    texts: list[str] = []
    for element in elements:
        texts.append(_text(element, depth + 1))  # noqa: PERF401 (a comprehension is a call, and the stack has an end)
    return f"[{','.join(texts)}]"


def _object(pairs: dict[Any, Any], depth: int) -> str:
    if not all(isinstance(key, str) for key in pairs):
        msg = "A key is not a string"
        raise ValueError(msg)
    texts: list[str] = []
    for key in sorted(pairs):
        texts.append(f"{_string(key)}:{_text(pairs[key], depth + 1)}")  # noqa: PERF401
    return f"{{{','.join(texts)}}}"


def _string(text: str) -> str:
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _SHORT_ESCAPES.get(character) or f"\\u{ord(character):04x}"


def _integer(number: int) -> str:
    if not _INT64_MIN <= number <= _UINT64_MAX:
        msg = "A number is out of range for Go's int64 and uint64"
        raise ValueError(msg)
    return int.__repr__(number)


def _number(number: float) -> str:
    if not math.isfinite(number):
        msg = "NaN and infinities are not JSON"
        raise ValueError(msg)
    shortest = float.__repr__(number)
    if number == 0 or _SMALLEST_WITHOUT_EXPONENT <= abs(number) < _SMALLEST_WITH_EXPONENT:
        return format(Decimal(shortest), "f").removesuffix(".0")
    return shortest.replace("e-0", "e-")


# In this order, since a bool is an int.
_TEXTS: Final[tuple[tuple[type, Callable[[Any, int], str]], ...]] = (
    (type(None), lambda _, __: "null"),
    (bool, lambda truth, _: "true" if truth else "false"),
    (str, lambda text, _: _string(text)),
    (int, lambda number, _: _integer(number)),
    (float, lambda number, _: _number(number)),
    (bytes, lambda raw, _: f'"{base64.b64encode(raw).decode("ascii")}"'),
    (datetime, lambda moment, _: f'"{format_time(moment)}"'),
    (list, _array),
    (dict, _object),
)
