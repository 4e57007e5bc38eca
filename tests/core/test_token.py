"""A token is genuine, or it is nothing."""

from __future__ import annotations

import base64
import gc
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coatcheck.token import TOKEN_CHARACTERS, SessionID, TokenSigner

KEY, OTHER = b"k" * 32, b"o" * 32
SIGNER = TokenSigner([KEY], "__Host-session")
SESSION_ID = SessionID(bytes(range(32)))
TOKEN = SIGNER.sign(SESSION_ID, 1_800_000_000).encode()


def test_a_token_gives_back_what_was_signed() -> None:
    verified = SIGNER.verify(TOKEN)
    assert verified is not None
    assert verified.session_id.secret == SESSION_ID.secret
    assert verified.issued_at == 1_800_000_000
    assert verified.by_older_key is False
    assert len(TOKEN) == TOKEN_CHARACTERS


def test_tokens_stay_valid_from_version_to_version() -> None:
    # Fixed bytes: were the format to change unnoticed, a deploy would log everybody out.
    assert TOKEN == (b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8Aa0nSADUmYcIV-KhYi2_TED_bqEOM8mJfx7vF8NVZF80hs_xp")
    assert SESSION_ID.store_key == "630dcd2966c4336691125448bbb25b4ff412a49c"


@pytest.mark.parametrize("position", range(TOKEN_CHARACTERS))
def test_a_token_with_any_character_changed_is_refused(position: int) -> None:
    for replacement in (b"A", b"B", b"-", b"_", b"+", b"/", b"=", b" ", b"\x00", b"\xff", b"."):
        forged = TOKEN[:position] + replacement + TOKEN[position + 1 :]
        assert forged == TOKEN or SIGNER.verify(forged) is None


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"=",
        TOKEN[:-1],
        TOKEN + b"A",
        TOKEN + b"=",
        TOKEN[:-4],
        b" " + TOKEN,
        TOKEN + b"\n",
        TOKEN * 2,
        b'"' + TOKEN + b'"',
    ],
)
def test_a_token_that_was_cut_or_added_to_is_refused(forged: bytes) -> None:
    assert SIGNER.verify(forged) is None


def test_each_token_has_exactly_one_spelling() -> None:
    for number in range(64):
        token = SIGNER.sign(SessionID(bytes([number]) * 32), number).encode()
        standard = token.translate(bytes.maketrans(b"-_", b"+/"))
        assert standard == token or SIGNER.verify(standard) is None
        assert base64.urlsafe_b64encode(base64.urlsafe_b64decode(token)) == token


@given(st.binary(max_size=200) | st.binary(min_size=TOKEN_CHARACTERS, max_size=TOKEN_CHARACTERS))
def test_no_bytes_at_all_raise_an_error(data: bytes) -> None:
    assert SIGNER.verify(data) is None


def test_a_token_for_one_cookie_name_is_worthless_under_another() -> None:
    assert TokenSigner([KEY], "session").verify(TOKEN) is None


def test_the_first_key_signs_and_all_keys_verify() -> None:
    rotated = TokenSigner([OTHER, KEY], "__Host-session")
    verified = rotated.verify(TOKEN)
    assert verified is not None
    assert verified.by_older_key
    assert TokenSigner([OTHER], "__Host-session").verify(rotated.sign(SESSION_ID, 5).encode()) is not None
    assert TokenSigner([OTHER], "__Host-session").verify(TOKEN) is None


def test_the_secret_key_itself_signs_nothing() -> None:
    import hmac

    signed = SESSION_ID.secret + (5).to_bytes(5, "big")
    forged = base64.urlsafe_b64encode(signed + hmac.digest(KEY, signed, "sha256"))
    assert SIGNER.verify(forged) is None


@given(st.binary(min_size=32, max_size=200), st.binary(min_size=32, max_size=32), st.sampled_from([b"", b"u" * 15]))
def test_the_signature_is_the_standard_librarys_hmac(key: bytes, secret: bytes, user_tag: bytes) -> None:
    import hmac

    token = TokenSigner([key], "name").sign(SessionID(secret), 5, user_tag)
    decoded = base64.urlsafe_b64decode(token)
    derived = hmac.digest(key, b"coatcheck token 1\x00name", "sha256")
    assert decoded[-32:] == hmac.digest(derived, decoded[:-32], "sha256")


@pytest.mark.parametrize("time", [-5, 0, 2**40 - 1, 2**60])
def test_a_clock_that_is_far_off_makes_a_token_all_the_same(time: int) -> None:
    verified = SIGNER.verify(SIGNER.sign(SESSION_ID, time).encode())
    assert verified is not None
    assert 0 <= verified.issued_at < 2**40


def test_an_id_is_new_each_time_and_shows_only_its_store_key() -> None:
    ids = [SessionID.generate() for _ in range(100)]
    assert len({session_id.secret for session_id in ids}) == 100
    assert all(len(session_id.secret) == 32 for session_id in ids)
    assert ids[0].secret.hex() not in repr(ids[0])
    assert ids[0].store_key in repr(ids[0])


def test_a_token_that_comes_again_gives_the_same_without_being_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rotated = TokenSigner([OTHER, KEY], "__Host-session")
    token = SIGNER.sign(SESSION_ID, 1_800_000_000, b"u" * 15).encode()
    first = rotated.verify(token)
    monkeypatch.setattr("coatcheck.token._Key.mac", None)
    again = rotated.verify(bytes(bytearray(token)))  # another object, as every request has its own
    assert first is not None
    assert again is not None
    assert again.session_id.secret == first.session_id.secret == SESSION_ID.secret
    assert again.session_id.store_key == first.session_id.store_key == SESSION_ID.store_key
    assert (again.issued_at, again.user_tag, again.by_older_key) == (1_800_000_000, b"u" * 15, True)
    assert (first.issued_at, first.user_tag, first.by_older_key) == (1_800_000_000, b"u" * 15, True)


@pytest.mark.parametrize("position", range(TOKEN_CHARACTERS))
def test_a_token_that_is_known_does_not_vouch_for_one_that_is_like_it(position: int) -> None:
    signer = TokenSigner([KEY], "__Host-session")
    assert signer.verify(TOKEN) is not None
    for replacement in (b"A", b"_", b"+", b"\x00"):
        forged = TOKEN[:position] + replacement + TOKEN[position + 1 :]
        assert forged == TOKEN or signer.verify(forged) is None
    assert signer.verify(TOKEN) is not None


def test_what_is_remembered_of_a_token_is_of_no_use_to_anybody() -> None:
    signer = TokenSigner([KEY], "__Host-session")
    token = signer.sign(SESSION_ID, 1_800_000_000, b"u" * 15).encode()
    verified = signer.verify(token)
    assert verified is not None
    remembered = [*reachable(signer._recent)]
    assert SESSION_ID.store_key in remembered  # so it is there that one has to look
    assert verified not in remembered
    assert verified.session_id not in remembered
    signature = base64.urlsafe_b64decode(token)[-32:]
    for thing in remembered:
        if isinstance(thing, bytes):
            assert not any(secret in thing for secret in (SESSION_ID.secret, signature, token))
            assert not any(thing in secret for secret in (SESSION_ID.secret, signature))


def test_nothing_is_remembered_of_what_is_forged() -> None:
    signer = TokenSigner([KEY], "__Host-session")
    for number in range(100):
        assert signer.verify(TokenSigner([OTHER], "__Host-session").sign(SESSION_ID, number).encode()) is None
    assert not signer._recent
    assert not signer._older


def test_the_tokens_of_late_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coatcheck.token.REMEMBERED", 10)
    signer = TokenSigner([KEY], "__Host-session")
    tokens = [signer.sign(SESSION_ID, number).encode() for number in range(100)]
    favourite = signer.sign(SESSION_ID, 1_000_000).encode()
    for token in tokens:
        assert signer.verify(token) is not None
        assert signer.verify(favourite) is not None  # so it is never one of the oldest
        assert len(signer._recent) + len(signer._older) <= 20
    monkeypatch.setattr(signer, "_keys", ())  # from here on, only what is remembered is genuine
    assert all(signer.verify(token) is not None for token in (favourite, *tokens[-9:]))
    assert not any(signer.verify(token) is not None for token in tokens[:-20])


def reachable(thing: object) -> Iterator[object]:
    """Give all that something leads to, but for classes."""
    found, waiting = {id(thing)}, [thing]
    while waiting:
        here = waiting.pop()
        yield here
        # Of structs that the garbage collector leaves alone it knows nothing.
        for each in msgspec.structs.astuple(here) if isinstance(here, msgspec.Struct) else gc.get_referents(here):
            if id(each) not in found and not isinstance(each, type):
                found.add(id(each))
                waiting.append(each)
