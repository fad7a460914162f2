"""The portable parts of the DLL: HPKE, the recipient key, the record's layout and names, the filter."""

from __future__ import annotations

import re
import string

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from passrelay_schemas.deny import denied
from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.sealing import Opener
from tests.lab.folder import canary_password
from tests.windows import vectors
from tests.windows.native_hook import Identity, KeyPair, NativeHook
from tests.windows.records import open_record
from tests.windows.vectors import A_3_1, P256_AES256, vector

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1


def _pair(which: dict[str, str]) -> KeyPair:
    pair = KeyPair()
    pair.point[:] = vector(which, "enc")
    pair.scalar[:] = vector(which, "skEm")
    return pair


def test_the_published_vector_comes_out_byte_for_byte(native: NativeHook) -> None:
    sealed, work = native.seal(
        vector(P256_AES256, "pkRm"), _pair(P256_AES256), vectors.INFO, vectors.ASSOCIATED, vectors.PLAIN
    )
    assert bytes(work.shared_secret) == vector(P256_AES256, "shared_secret")
    assert bytes(work.key) == vector(P256_AES256, "key")
    assert bytes(work.nonce) == vector(P256_AES256, "base_nonce")
    assert sealed == vector(P256_AES256, "enc") + vector(P256_AES256, "ct")


def test_the_kem_is_that_of_rfc_9180_appendix_a_3(native: NativeHook) -> None:
    _, work = native.seal(vector(A_3_1, "pkRm"), _pair(A_3_1), vectors.INFO, vectors.ASSOCIATED, vectors.PLAIN)
    assert bytes(work.shared_secret) == vector(A_3_1, "shared_secret")


@given(scalar=st.integers(1, 2**255))
@example(scalar=1)
def test_a_point_of_the_curve_is_known_and_a_damaged_one_is_not(native: NativeHook, scalar: int) -> None:
    point = (
        ec.derive_private_key(scalar, ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )
    assert native.on_curve(point)
    damaged = bytearray(point)
    damaged[1 + scalar % 64] ^= 1 << scalar % 8
    assert not native.on_curve(bytes(damaged))
    assert not native.on_curve(b"\x02" + point[1:])
    x, y = int.from_bytes(point[1:33], "big"), point[33:]
    if x + _P < 2**256:
        assert not native.on_curve(b"\x04" + (x + _P).to_bytes(32, "big") + y)


@pytest.mark.parametrize("point", [b"\x04" + bytes(64), b"\x04" + b"\xff" * 64, bytes(65)])
def test_infinity_and_numbers_beyond_the_field_are_no_points(native: NativeHook, point: bytes) -> None:
    assert not native.on_curve(point)


def test_the_key_id_is_that_of_the_key_document(native: NativeHook, recipient: tuple[KeyDocument, Opener]) -> None:
    assert native.key_id(recipient[0].public_bytes) == recipient[0].key_id


@pytest.mark.parametrize(
    "password",
    ["x", canary_password(), canary_password(" ä 漢字 😀"), "p" * 256],
    ids=["one letter", "usual", "beyond ASCII", "longest"],
)
def test_the_consumers_suite_opens_a_record_and_finds_the_very_fields(
    native: NativeHook, recipient: tuple[KeyDocument, Opener], password: str
) -> None:
    document, opener = recipient
    identity = Identity(b"S-1-5-21-1-2-3", b"dc1", document.key_id.encode())
    record = native.record(
        document.public_bytes, identity, rid=1105, filetime=133_000_000_000_000_000, password=password
    )
    captured = open_record(record, opener)
    assert captured.domain_sid == "S-1-5-21-1-2-3"
    assert captured.producer == "dc1"
    assert captured.key_id == document.key_id
    assert (captured.rid, captured.filetime, captured.password) == (1105, 133_000_000_000_000_000, password)


def test_every_record_has_the_same_length_and_shows_nothing_of_the_account(
    native: NativeHook, recipient: tuple[KeyDocument, Opener]
) -> None:
    document, _ = recipient
    identity = Identity(b"S-1-5-21-1-2-3", b"dc1", document.key_id.encode())
    short = native.record(document.public_bytes, identity, rid=1105, filetime=1, password="x")
    long = native.record(document.public_bytes, identity, rid=4_000_000_000, filetime=2**62, password="p" * 256)
    assert len(short) == len(long)
    assert short[:160] == long[:160]


_TIMES = st.integers(0, 2**64 - 1)
_SMALL = st.integers(0, 2**32 - 1)


@given(one=st.tuples(_TIMES, _SMALL, _SMALL), other=st.tuples(_TIMES, _SMALL, _SMALL))
def test_names_in_order_are_records_in_order(
    native: NativeHook, one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{8}-[0-9a-f]{8}", native.name(*one))
    assert (native.name(*one) < native.name(*other)) == (one < other)


_GOOD_SID = re.compile(r"S-1-5-21(-(0|[1-9][0-9]{0,9})){3}")


@given(
    text=st.from_regex(r"S-1-5-2[01](-[0-9]{0,11}){2,4}x?", fullmatch=True).filter(lambda text: len(text) <= 48),
)
@example(text="S-1-5-21-1004336348-1177238915-682003330")
@example(text="S-1-5-21-4294967295-4294967295-4294967295")
@example(text="S-1-5-21-4294967296-1-1")
@example(text="S-1-5-21-01-1-1")
@example(text="S-1-5-21-1-2-3-500")
@example(text="")
def test_a_domain_sid_has_one_spelling(native: NativeHook, text: str) -> None:
    good = bool(_GOOD_SID.fullmatch(text)) and all(int(part) < 2**32 for part in text.split("-")[4:])
    assert native.domain_sid_good(text) is good


@given(text=st.text(string.ascii_letters + string.digits + "._-/ \x01", max_size=64))
@example(text="x" * 64)
@example(text=".dc1")
@example(text="")
def test_a_producers_name_is_good_where_the_envelope_takes_it(native: NativeHook, text: str) -> None:
    good = bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text))
    assert native.producer_good(text) is good


@given(
    name=st.text(st.characters(max_codepoint=0x2FF), max_size=20)
    | st.from_regex(r"[kK][rR][bB][tT][gG][tT](_[0-9]{1,5})?\$?", fullmatch=True),
    rid=st.sampled_from([499, 500, 501, 502, 503, 1000, 1105, 2**32 - 1]),
)
@example(name="krbtg", rid=1105)
@example(name="$", rid=1105)
def test_the_filter_keeps_out_what_the_deny_rules_do(native: NativeHook, name: str, rid: int) -> None:
    why = denied(sam_account_name=name, sid=f"S-1-5-21-1-2-3-{rid}")
    assert native.captures(name, rid) is (why is None)


def test_an_unknown_name_excludes_nobody_and_no_password_is_nothing_to_carry(native: NativeHook) -> None:
    assert native.captures(None, 1105)
    assert not native.captures(None, 500)
    assert not native.captures("erika", 1105, password_bytes=0)
