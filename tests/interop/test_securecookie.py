"""Cookies against what Go's securecookie wrote and refused, and what redistore keeps in Redis."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.errors import ConfigurationError, InvalidCookie, MissingExtra
from coatcheck.interop import _go_json, gob
from coatcheck.interop.gob import GobInt, GobTime
from coatcheck.interop.gorilla import SecureCookie

PythonValue = Callable[[dict[str, Any]], Any]
Same = Callable[[Any, Any], bool]

# What we do where Go is lax. Parts of the names that say under which keys are left out.
EDGES = {
    "base64/newline-inserted": "refused",
    "base64/crlf-appended": "refused",
    "signed/date-plus": "refused",
    "signed/date-leading-zeros": "as Go",
    "signed/date-max-int64-ok": "as Go",
    "signed/date-negative-no-max-age": "refused",
    "signed/value-trailing-bytes": "refused",
    "signed/value-two-strings": "refused",
    "signed-json/trailing-garbage": "refused",
    "signed-json/duplicate-keys": "as Go",
    "signed-json/lone-surrogate": "refused",
    "signed-json/bad-utf8": "refused",
    "target/gob-cookie-json-reader": "refused",
}

KEY = bytes(range(32))
NOW = 1_700_000_000


def load(name: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / f"{name}_public.json").read_text())
    return records


def parameters(records: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(each, id=f"{each['case']}-{each.get('keyset', each.get('serializer'))}") for each in records]


COOKIES, ROTATION, NEGATIVE, REDIS, LIFECYCLE = map(load, ("cookies", "rotation", "negative", "redis", "lifecycle"))
UNREADABLE = "gob-map/binary-marshaler"
COOKIES, UNSAFE = (
    [each for each in COOKIES if (each["keyset"] == "hash-empty") is is_unsafe] for is_unsafe in (False, True)
)


def keys_of(record: dict[str, Any], field: str = "key_pairs_hex") -> list[bytes | None]:
    return [None if key is None else bytes.fromhex(key) for key in record[field]]


def cookies_of(record: dict[str, Any], now: float | None = None) -> SecureCookie:
    return SecureCookie(
        keys_of(record),
        serializer=record["serializer"],
        max_age=record.get("max_age", 0),
        min_age=record.get("min_age", 0),
        max_length=record.get("max_length", 4096),
        hash=record["hash"],
        clock=lambda: record["now"] if now is None else now,
    )


def decode(record: dict[str, Any]) -> Any:
    target = record["target"] if record["target"] in {"string", "map"} else None
    return cookies_of(record).decode(record["name"], record["cookie"], target=target)


def expected(record: dict[str, Any], python_value: PythonValue) -> Any:
    expect = record["expect"]
    if "value" in expect:
        return python_value(expect["value"])
    return {python_value(pair["key"]): python_value(pair["value"]) for pair in expect["values"]}


def is_about_keys(record: dict[str, Any]) -> bool:
    outcome = record.get("encode_error") or record["expect"]
    return bool(outcome.get("error_class") == "usage")


# -- what Go wrote and refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record", parameters([each for each in COOKIES if "cookie" in each and each["case"] != UNREADABLE])
)
def test_cookie_is_read_as_go_reads_it(record: dict[str, Any], python_value: PythonValue, same: Same) -> None:
    assert same(decode(record), expected(record, python_value))


@pytest.mark.parametrize("record", parameters([each for each in COOKIES if each["case"] == UNREADABLE]))
def test_type_that_encodes_itself_is_refused_by_name_unless_types_are_kept(record: dict[str, Any]) -> None:
    with pytest.raises(InvalidCookie, match=r"\*url\.URL"):
        decode(record)
    values = cookies_of(record).decode(record["name"], record["cookie"], keep_types=True)
    assert values == {"u": b"https://example.test/a"}


@pytest.mark.parametrize("record", parameters([each for each in ROTATION if not is_about_keys(each)]))
def test_rotated_keys_read_and_refuse_as_in_go(record: dict[str, Any], python_value: PythonValue, same: Same) -> None:
    if record["expect"]["ok"]:
        assert same(decode(record), expected(record, python_value))
    else:
        with pytest.raises(InvalidCookie):
            decode(record)


@pytest.mark.parametrize("record", parameters([each for each in NEGATIVE if each["support"] != "edge"]))
def test_damaged_forged_and_stale_cookies_are_refused_as_in_go(
    record: dict[str, Any], python_value: PythonValue, same: Same
) -> None:
    if record["expect"]["ok"]:
        assert same(decode(record), expected(record, python_value))
    else:
        with pytest.raises(InvalidCookie):
            decode(record)


@pytest.mark.parametrize("record", parameters([each for each in NEGATIVE if each["support"] == "edge"]))
def test_edge_is_decided_as_documented(record: dict[str, Any], python_value: PythonValue, same: Same) -> None:
    if EDGES[record["case"].split("@")[0]] == "refused":
        with pytest.raises(InvalidCookie):
            decode(record)
    else:
        assert same(decode(record), expected(record, python_value))


def is_exact(record: dict[str, Any]) -> bool:
    # A datetime has no nanoseconds; the test below has one that carries them.
    return bool(record.get("encode_exact")) and record["case"] != "json/time"


@pytest.mark.parametrize("record", parameters(UNSAFE))
def test_an_empty_key_is_refused_though_go_takes_it(record: dict[str, Any]) -> None:
    """It is what a variable gives that is not set, and everybody has it. Newer versions of that library refuse it."""
    with pytest.raises(ConfigurationError, match="empty"):
        cookies_of(record)


@pytest.mark.parametrize("record", parameters([each for each in COOKIES if is_exact(each)]))
def test_cookie_is_written_to_the_byte_as_go_writes_it(
    record: dict[str, Any], python_value: PythonValue, monkeypatch: pytest.MonkeyPatch
) -> None:
    initial = record["iv_hex"]
    if initial:
        monkeypatch.setattr("os.urandom", lambda _: bytes.fromhex(initial))
    value = expected(record, python_value) if record["serializer"] == "nop" else python_value(record["input"])
    assert cookies_of(record, now=record["issued_at"]).encode(record["name"], value) == record["cookie"]


def test_time_in_json_is_written_as_go_writes_it() -> None:
    record = next(each for each in COOKIES if each["case"] == "json/time")
    time = GobTime.of(datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC), 789)
    assert (_go_json.dumps(time) + b"\n").hex() == record["payload_hex"]


def is_rewritable(record: dict[str, Any]) -> bool:
    # The keys of mixed-keys are equal in Python.
    return "cookie" in record and record["target"] == "map" and not record["case"].endswith("mixed-keys")


@pytest.mark.parametrize("record", parameters([each for each in COOKIES if is_rewritable(each)]))
def test_map_is_written_so_that_it_is_read_as_go_read_it(record: dict[str, Any], same: Same) -> None:
    values = cookies_of(record).decode(record["name"], record["cookie"], keep_types=True)
    codec = cookies_of(record, now=record["issued_at"])
    again = codec.decode(record["name"], codec.encode(record["name"], values), keep_types=True)
    assert same(again, values)


@pytest.mark.parametrize("record", parameters([each for each in COOKIES + ROTATION if is_about_keys(each)]))
def test_keys_that_can_not_work_are_refused_at_once(record: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SecureCookie(keys_of(record))


@pytest.mark.parametrize(
    "record", parameters([each for each in COOKIES if "encode_error" in each and not is_about_keys(each)])
)
def test_what_go_would_not_encode_is_refused(record: dict[str, Any], python_value: PythonValue) -> None:
    values = {
        "encode-error/json-of-map-any-any": {1: "Go knows JSON of string keys only"},
        "encode-error/unregistered-type": {"x": object()},
    }
    codec = SecureCookie(keys_of(record), serializer=record["serializer"], clock=lambda: NOW)
    value = values.get(record["case"]) or python_value(record["input"])
    with pytest.raises(InvalidCookie):
        codec.encode(record["name"], value)


def test_every_edge_of_the_vectors_is_decided() -> None:
    assert {each["case"].split("@")[0] for each in NEGATIVE if each["support"] == "edge"} == EDGES.keys()


# -- what redistore keeps -------------------------------------------------------------------------------------------


def read_redis_value(record: dict[str, Any], base64_text: str, **options: Any) -> Any:
    raw = base64.b64decode(base64_text)
    return gob.loads(raw, target="map", **options) if record["serializer"] == "gob" else _go_json.loads(raw)


def plain(pairs: list[dict[str, Any]], python_value: PythonValue) -> dict[Any, Any]:
    return {python_value(pair["key"]): python_value(pair["value"]) for pair in pairs}


def is_readable(record: dict[str, Any]) -> bool:
    # The keys of mixed-keys are equal in Python, and which one wins depends on Go's order.
    is_opaque = record["case"] == "binary-marshaler" and record["serializer"] == "gob"
    return "redis_value_base64" in record and record["case"] != "mixed-keys" and not is_opaque


@pytest.mark.parametrize("record", parameters([each for each in REDIS if is_readable(each)]))
def test_redis_value_is_read_as_go_reads_it(record: dict[str, Any], python_value: PythonValue, same: Same) -> None:
    values = read_redis_value(record, record["redis_value_base64"])
    assert same(values, plain(record["go_reads"], python_value))


@pytest.mark.parametrize(
    "record", parameters([each for each in REDIS if each["serializer"] == "gob" and is_readable(each)])
)
def test_redis_value_of_gob_is_read_as_go_saved_it(
    record: dict[str, Any], python_value: PythonValue, same: Same
) -> None:
    values = read_redis_value(record, record["redis_value_base64"], keep_types=True)
    assert same(values, plain(record["values"], python_value))


def is_exact_in_json(record: dict[str, Any]) -> bool:
    """Not where Go's JSON depends on what a plain Python value has not: nanoseconds, a float's width, raw bytes."""
    has_nanoseconds = ".123456789Z" in json.dumps(record) or ".999999999Z" in json.dumps(record)
    is_lossy = has_nanoseconds or record["case"] in {"float32", "not-utf8"} or record["support"] == "unsupported"
    return record["serializer"] == "json" and "redis_value_base64" in record and not is_lossy


@pytest.mark.parametrize("record", parameters([each for each in REDIS if is_exact_in_json(each)]))
def test_json_value_is_written_to_the_byte_as_go_writes_it(record: dict[str, Any], python_value: PythonValue) -> None:
    values = plain(record["values"], python_value)
    assert _go_json.dumps(values) == base64.b64decode(record["redis_value_base64"])


def is_refused_by_type(record: dict[str, Any]) -> bool:
    is_for_python = record["case"] not in {"refused/unregistered-type", "map-any-any"}
    return "save_error" in record and "too big" not in record["save_error"] and is_for_python


@pytest.mark.parametrize("record", parameters([each for each in REDIS if is_refused_by_type(each)]))
def test_values_that_go_would_not_save_as_json_are_refused(record: dict[str, Any], python_value: PythonValue) -> None:
    with pytest.raises(ValueError, match=r"not a string|not JSON"):
        _go_json.dumps(plain(record["values"], python_value))


def redistore_steps() -> list[dict[str, Any]]:
    new_keys = {each["serializer"]: each["new,old"] for each in LIFECYCLE if each["case"] == "key-rotation/keys"}
    steps: list[dict[str, Any]] = []
    for record in LIFECYCLE:
        for step in record.get("steps", []):
            is_rotated = "under [new,old]" in step["step"]
            keys = new_keys[record["serializer"]] if is_rotated else record["key_pairs_hex"]
            steps.append({**record, **step, "key_pairs_hex": keys, "case": f"{record['case']}/{step['step']}"})
    return steps


def redistore_cookies() -> list[dict[str, Any]]:
    return [each for each in REDIS + redistore_steps() if each.get("cookie") and each["issued_at"]]


def is_saved(step: dict[str, Any]) -> bool:
    return bool(step.get("values_to_save") and step["redis"].get("redis_value_base64") and "save_error" not in step)


@pytest.mark.parametrize("step", parameters([each for each in redistore_steps() if is_saved(each)]))
def test_redis_holds_what_a_step_of_a_sessions_life_saved(
    step: dict[str, Any], python_value: PythonValue, same: Same
) -> None:
    values = plain(step["values_to_save"], python_value)
    raw = base64.b64decode(step["redis"]["redis_value_base64"])
    # One serializer may have saved over the other's. JSON has no ints.
    if raw.startswith(b"{"):
        assert _go_json.loads(raw) == values
    else:
        assert same(gob.loads(raw, target="map"), values)


@pytest.mark.parametrize("record", parameters(redistore_cookies()))
def test_cookie_of_redistore_holds_the_session_id_whatever_the_serializer(record: dict[str, Any]) -> None:
    codec = SecureCookie(
        keys_of(record), max_age=record["codec_max_age"], clock=lambda: record.get("now") or record["issued_at"]
    )
    assert codec.decode(record["name"], record["cookie"], target="string") == record["session_id"]


# -- promises -------------------------------------------------------------------------------------------------------


def sign(date: bytes, payload: bytes, name: bytes = b"sid", key: bytes = KEY) -> str:
    signed = date + b"|" + base64.urlsafe_b64encode(payload)
    mac = hmac.digest(key, name + b"|" + signed, hashlib.sha256)
    return base64.urlsafe_b64encode(signed + b"|" + mac).decode()


def codec_at(seconds: float, **settings: Any) -> SecureCookie:
    return SecureCookie([KEY], clock=lambda: seconds, **settings)


def test_cookie_lives_to_the_second_of_its_max_age() -> None:
    cookie = codec_at(NOW).encode("sid", "x")
    assert codec_at(NOW + 100, max_age=100).decode("sid", cookie) == "x"
    with pytest.raises(InvalidCookie, match="expired"):
        codec_at(NOW + 101, max_age=100).decode("sid", cookie)


def test_cookie_is_refused_until_its_min_age() -> None:
    cookie = codec_at(NOW).encode("sid", "x")
    assert codec_at(NOW + 60, min_age=60).decode("sid", cookie) == "x"
    with pytest.raises(InvalidCookie, match="too new"):
        codec_at(NOW + 59, min_age=60).decode("sid", cookie)


@pytest.mark.parametrize("date", [b"9223372036854775808", b"9999999999999999999", b"", b"1_0", b"-1", b" 1"])
def test_cookie_with_a_date_that_go_could_not_have_written_is_refused(date: bytes) -> None:
    with pytest.raises(InvalidCookie, match="date"):
        codec_at(NOW, max_age=0).decode("sid", sign(date, b"\x04\x0c\x00\x01x"))


def test_cookie_that_is_only_an_initial_vector_is_refused() -> None:
    codec = SecureCookie([KEY, bytes(16)], serializer="nop", clock=lambda: NOW)
    with pytest.raises(InvalidCookie, match="too short"):
        codec.decode("sid", sign(b"%d" % NOW, bytes(16)))
    assert codec.decode("sid", sign(b"%d" % NOW, bytes(17))) != b""


def test_cookie_of_another_name_is_refused() -> None:
    with pytest.raises(InvalidCookie, match="signature"):
        codec_at(NOW).decode("sid", codec_at(NOW).encode("csrf", "x"))


def test_cookie_signed_with_another_key_is_refused() -> None:
    with pytest.raises(InvalidCookie, match="signature"):
        SecureCookie([b"k" * 32], clock=lambda: NOW).decode("sid", codec_at(NOW).encode("sid", "x"))


def test_date_is_bound_into_the_signature() -> None:
    date, payload, mac = base64.urlsafe_b64decode(codec_at(NOW).encode("sid", "x")).split(b"|", 2)
    younger = base64.urlsafe_b64encode(b"|".join((b"%d" % (int(date) + 1), payload, mac))).decode()
    with pytest.raises(InvalidCookie, match="signature"):
        codec_at(NOW).decode("sid", younger)


def test_cookie_is_limited_in_both_directions() -> None:
    length = len(codec_at(NOW).encode("sid", "x" * 100))
    cookie = codec_at(NOW, max_length=length).encode("sid", "x" * 100)
    assert codec_at(NOW, max_length=length).decode("sid", cookie) == "x" * 100
    with pytest.raises(InvalidCookie, match="at most"):
        codec_at(NOW, max_length=length - 1).encode("sid", "x" * 100)
    with pytest.raises(InvalidCookie, match="at most"):
        codec_at(NOW, max_length=length - 1).decode("sid", cookie)
    assert len(codec_at(NOW, max_length=0).encode("sid", "x" * 9000)) > 4096


def test_new_keys_sign_and_old_ones_still_read() -> None:
    old, new = [KEY, bytes(16)], [b"n" * 32, b"b" * 32]
    cookie = SecureCookie(old, clock=lambda: NOW).encode("sid", "x")
    both = SecureCookie([*new, *old], clock=lambda: NOW)
    assert both.decode("sid", cookie) == "x"
    assert SecureCookie(new, clock=lambda: NOW).decode("sid", both.encode("sid", "x")) == "x"


def test_encrypted_cookie_shows_nothing_and_never_repeats() -> None:
    codec = SecureCookie([KEY, bytes(32)], clock=lambda: NOW)
    cookies = {codec.encode("sid", "SECRET" * 4) for _ in range(8)}
    assert len(cookies) == 8
    for cookie in cookies:
        payload = base64.urlsafe_b64decode(base64.urlsafe_b64decode(cookie).split(b"|")[1])
        assert b"SECRET" not in payload


def test_keys_are_only_shown_to_those_who_have_them(caplog: pytest.LogCaptureFixture) -> None:
    short, broken = b"short-secret", b"ten-bytes!"
    with caplog.at_level(logging.DEBUG):
        codec = SecureCookie([KEY, broken, short, b"0123456789abcdef"], clock=lambda: NOW)
        shown = repr(codec) + caplog.text
    with pytest.raises(ConfigurationError) as caught:
        SecureCookie([KEY, broken])
    shown += str(caught.value)
    for key in (short, broken, b"0123456789abcdef"):
        assert repr(key)[2:-1] not in shown


def test_short_hash_keys_and_pairs_passed_over_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    SecureCookie([b"secret-key", None, KEY, b"ten-bytes!"])
    assert "key_pairs[0] has 10 bytes" in caplog.text
    assert "key_pairs[3] has 10 bytes; block keys have 16, 24 or 32" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"serializer": "pickle"},
        {"hash": "md5"},
        {"max_age": "3600"},
        {"min_age": 1.5},
        {"max_length": True},
        {"max_length": -1},
        {"key_pairs": []},
        {"key_pairs": [None]},
        {"key_pairs": ["text"]},
        {"key_pairs": b"one key"},
        {"key_pairs": [KEY, b""]},
        {"key_pairs": [KEY, bytes(33)]},
    ],
    ids=str,
)
def test_settings_that_can_not_work_are_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SecureCookie(**{"key_pairs": [KEY], **settings})


def test_missing_cryptography_names_the_extra_and_signing_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    assert codec_at(NOW).decode("sid", codec_at(NOW).encode("sid", "x")) == "x"
    with pytest.raises(MissingExtra, match=r"coatcheck\[gorilla\]"):
        SecureCookie([KEY, bytes(16)])


def test_cookie_with_stray_bits_in_its_base64_is_refused() -> None:
    cookie = next(c for n in range(9) if (c := codec_at(NOW).encode("sid", "x" * n)).endswith("=") and c[-2] != "=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    stray = cookie[:-2] + alphabet[alphabet.index(cookie[-2]) + 1] + "="
    assert base64.urlsafe_b64decode(stray) == base64.urlsafe_b64decode(cookie)
    with pytest.raises(InvalidCookie, match="base64"):
        codec_at(NOW).decode("sid", stray)


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (1e-6, b"0.000001"),
        (1.5e-7, b"1.5e-7"),
        (-0.0, b"-0"),
        (5.0, b"5"),
        (123456789.125, b"123456789.125"),
        (GobInt(5, "int64"), b"5"),
        ("\b\f\x1f\x7f", b'"\\u0008\\u000c\\u001f\x7f"'),
        (datetime(2024, 5, 6, 7, 8, 9, 120_000, tzinfo=UTC), b'"2024-05-06T07:08:09.12Z"'),
        (datetime(1890, 1, 1, tzinfo=timezone(-timedelta(seconds=7297))), b'"1890-01-01T00:00:00-02:01"'),
        ({"b": 1, "a": [None, True]}, b'{"a":[null,true],"b":1}'),
    ],
)
def test_json_is_written_in_gos_notation(value: Any, payload: bytes) -> None:
    assert _go_json.dumps(value) == payload


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1 << 64, {1: 2}, "\ud800", (1,), datetime(2024, 5, 6)])  # noqa: DTZ001
def test_what_json_has_no_equal_for_is_refused(value: Any) -> None:
    with pytest.raises(InvalidCookie):
        codec_at(NOW, serializer="json").encode("sid", value)


@pytest.mark.parametrize(
    "payload",
    [b"[" * 100_000, b'{"a":' * 5000, b"1e400", b"9" * 400, b'"\\ud800"', b"Infinity", b"\xef\xbb\xbf1", b"1 2"],
)
def test_json_that_go_would_read_otherwise_or_not_at_all_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidCookie, match="not JSON"):
        codec_at(NOW, serializer="json", max_length=0).decode("sid", sign(b"%d" % NOW, payload))


def test_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for serializer in ("gob", "json"):
        with pytest.raises(InvalidCookie, match="deeply"):
            codec_at(NOW, serializer=serializer).encode("sid", {"loop": loop})


# -- properties -----------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
block_keys = st.sampled_from([None, bytes(16), bytes(24), bytes(32)])


@given(json_values, st.text(max_size=20), block_keys)
def test_any_value_that_is_written_as_json_is_read_back_the_same(
    value: Any, name: str, block_key: bytes | None
) -> None:
    codec = SecureCookie([KEY, block_key], serializer="json", max_length=0, clock=lambda: NOW)
    assert codec.decode(name, codec.encode(name, value)) == value


@given(st.binary(min_size=1, max_size=60), st.text(max_size=20), block_keys)
def test_any_bytes_come_back_the_same(value: bytes, name: str, block_key: bytes | None) -> None:
    codec = SecureCookie([KEY, block_key], serializer="nop", clock=lambda: NOW)
    assert codec.decode(name, codec.encode(name, value)) == value


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_random_text_is_refused(cookie: str) -> None:
    with pytest.raises(InvalidCookie):
        codec_at(NOW).decode("sid", cookie)


@settings(max_examples=300)
@given(st.sampled_from(["gob", "json", "nop"]), st.binary(max_size=12), st.binary(max_size=100), block_keys)
def test_cookies_with_a_true_signature_and_any_content_are_read_or_refused(
    serializer: Any, date: bytes, payload: bytes, block_key: bytes | None
) -> None:
    codec = SecureCookie([KEY, block_key], serializer=serializer, max_age=0, clock=lambda: NOW)
    for each in (date, b"%d" % NOW):
        try:
            codec.decode("sid", sign(each, payload))
        except InvalidCookie:
            continue


@given(st.data())
def test_a_cookie_with_any_character_changed_is_refused(data: st.DataObject) -> None:
    codec = SecureCookie([KEY, bytes(16)], clock=lambda: NOW)
    cookie = codec.encode("sid", {"user": "alice"})
    at = data.draw(st.integers(0, len(cookie) - 1))
    other = data.draw(st.characters().filter(lambda character: character != cookie[at]))
    with pytest.raises(InvalidCookie):
        codec.decode("sid", cookie[:at] + other + cookie[at + 1 :])
