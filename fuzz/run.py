"""Coverage-guided fuzzing of everything that decodes bytes from outside: `make fuzz`.

Each target may raise its documented error and nothing else. A hang of ten seconds, or more than half a gigabyte of
memory, is a finding too. What was interesting is kept in `fuzz/corpus`, so that the next run goes on from there; a
finding is written to `fuzz/findings` and repeated by `run.py TARGET FILE`.

    run.py TARGET SECONDS
    run.py TARGET FILE
"""

from __future__ import annotations

import base64
import hmac
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zlib import crc32

import atheris
from msgspec import Raw

with atheris.instrument_imports(include=["coatcheck"]):
    from coatcheck import record as records
    from coatcheck import values
    from coatcheck.config import CookieConfig, SessionConfig
    from coatcheck.errors import ForeignRecord, InvalidCookie, InvalidGob, UndecodableRecord, UndecodableValue
    from coatcheck.interop import gob
    from coatcheck.interop._go_sessions import GoSessions
    from coatcheck.interop.gorilla import SecureCookie
    from coatcheck.record import Login, Moved, Record, UserEpoch, UserIndex
    from coatcheck.stores.cookie import SyncCookieStore
    from coatcheck.token import TokenSigner

HERE: Final = Path(__file__).parent
VECTORS: Final = HERE.parent / "tests" / "interop" / "vectors"
KEY: Final = bytes(range(32))
STORE_KEY: Final = "0123456789" * 4

COOKIES: Final = {
    serializer: SecureCookie([KEY], serializer=serializer, max_age=0, max_length=0)
    for serializer in ("gob", "json", "nop")
}
SIGNER: Final = TokenSigner([KEY], "__Host-session")
SEALED: Final = SyncCookieStore([KEY], gorilla_key_pairs=[KEY]).tokens(
    SessionConfig(secret_keys=None, cookie=CookieConfig(), store_has_tokens=True)
)
GO_SESSIONS: Final = [GoSessions("gob", 0, ["errors"], [KEY]), GoSessions("json", 0, ["errors"], [KEY])]


def fuzz_gob(data: bytes) -> None:
    """Go's values."""
    targets: tuple[gob.Target | None, ...] = (None, "any")
    for target in targets:
        for keep_types in (False, True):
            try:
                value = gob.loads(data, target=target, keep_types=keep_types)
            except InvalidGob:
                continue
            if keep_types:
                gob.plain(value)


def fuzz_cookie(data: bytes) -> None:
    """Go's cookies: as they come, and with a true signature around what comes."""
    date, _, payload = data.partition(b"|")
    signed = date + b"|" + base64.urlsafe_b64encode(payload)
    mac = hmac.digest(KEY, b"sid|" + signed, "sha256")
    for cookie in (data.decode("latin-1"), base64.urlsafe_b64encode(signed + b"|" + mac).decode()):
        for codec in COOKIES.values():
            try:
                codec.decode("sid", cookie)
            except InvalidCookie:
                continue


def fuzz_go_session(data: bytes) -> None:
    """What Redis holds of a session that is shared with Go. What was read can be written."""
    for sessions in GO_SESSIONS:
        try:
            read = sessions.read(data)
        except UndecodableRecord:
            continue
        again = sessions.read(sessions.write(b"revision", read.record, read))
        if again.record != read.record:
            message = f"{read.record} came back as {again.record}"
            raise AssertionError(message)


def fuzz_token(data: bytes) -> None:
    """Coatcheck's own cookies, of both kinds."""
    SIGNER.verify(data)
    SEALED.verify(data)


def fuzz_record(data: bytes) -> None:
    """What a store holds: as it comes, and with a true checksum around what comes."""
    sound = bytearray(records.encode(STORE_KEY, b"revision", Moved("", 0, 0)))
    sound[33:] = data[1:]
    sound[:1] = data[:1] or b"\x01"
    sound[9:13] = crc32(sound[13:]).to_bytes(4, "big")
    for each in (data, bytes(sound)):
        try:
            _, record = records.decode(STORE_KEY, each)
        except (UndecodableRecord, ForeignRecord):
            continue
        for key, value in record.values.items() if isinstance(record, Record) else ():
            try:
                values.decode(key, value)
            except UndecodableValue:
                continue


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "gob": fuzz_gob,
    "cookie": fuzz_cookie,
    "go_session": fuzz_go_session,
    "token": fuzz_token,
    "record": fuzz_record,
}


def seeds(target: str) -> list[bytes]:
    """Give something to begin with."""
    streams = [bytes.fromhex(each["payload_hex"]) for each in json.loads((VECTORS / "gob_public.json").read_text())]
    go_sessions = [gob.dumps({"_flash": ["a"], "n": 1}), b'{"_flash":["a"],"n":1}']
    return {
        "gob": streams,
        "cookie": [b"1700000000|" + stream for stream in streams[:50]] + [b'1700000000|{"a":[1]}'],
        "go_session": [
            *streams,
            *go_sessions,
            *(GO_SESSIONS[0].write(b"revision", made) for made in _records()),
        ],
        "token": [SIGNER.sign(SIGNER.new_id(), 5).encode(), SEALED.sign(SEALED.new_id(), 5).encode()],
        "record": [records.encode(STORE_KEY, b"revision", made) for made in _all_kinds()],
    }[target]


def _all_kinds() -> list[records.AnyRecord]:
    return [*_records(), Moved("", 0, 0), UserIndex({}), UserEpoch(5)]


def _records() -> list[Record]:
    plain = {"n": 1, "cart": ["a", {"b": None}], "_flash": [["Saved", "message"]]}
    encoded = {key: Raw(values.encode(key, value)) for key, value in plain.items()}
    return [Record(1, 2, 3, None, Login("alice", 5, 0, None, None), encoded)]


def main(target: str, what: str) -> None:
    """Run one target, for some seconds or on one file."""
    options = ["-rss_limit_mb=512", "-timeout=10", "-max_len=4096"]
    if what.isdigit():
        corpus, findings = HERE / "corpus" / target, HERE / "findings"
        for folder in (corpus, findings):
            folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds(target)):
            (corpus / f"seed-{number}").write_bytes(seed)
        options += [f"-max_total_time={what}", f"-artifact_prefix={findings}/{target}-", "-print_final_stats=1"]
        options.append(str(corpus))
    else:
        options.append(what)
    atheris.Setup([sys.argv[0], *options], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
