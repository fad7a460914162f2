"""Signatures: they cover every part, and the keyring's entry decides, never what the header says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from passrelay_schemas.envelope import Envelope, SealedEvent, SignedHeader, assemble, signing_input
from passrelay_schemas.errors import BadSignatureError, EventError, RevokedError
from passrelay_schemas.keys import ED25519, KeyDocument, KeyStatus, KeyUse, generate
from passrelay_schemas.signing import Signer, verify
from passrelay_schemas.strict_json import b64url, from_b64url
from tests.unit.builders import EVENT_ID, PRODUCER, SIGNED_AT, Party, changed, flipped

PARTY = Party()
SEALED = SealedEvent(PARTY.seal().protected, (b"first part!!", b"second part!"))
RAW = PARTY.signer.sign(SEALED, signed_at=SIGNED_AT)
SECOND = PARTY.envelope(event_id=None)
OUTER: dict[str, Any] = json.loads(RAW)
SECOND_OUTER: dict[str, Any] = json.loads(SECOND)
FIRST, LAST = OUTER["sealed"]


def check(raw: bytes, key: KeyDocument = PARTY.signing) -> None:
    verify(Envelope.parse(raw), key)


def test_a_fresh_signature_verifies_with_active_and_retired_keys() -> None:
    check(RAW)
    check(SECOND)
    check(RAW, PARTY.signing.model_copy(update={"status": KeyStatus.RETIRED}))


CHANGES: dict[str, dict[str, Any]] = {
    "protected of another envelope": {"protected": SECOND_OUTER["protected"]},
    "sealed of another envelope": {"sealed": SECOND_OUTER["sealed"]},
    "first part of another envelope": {"sealed": [SECOND_OUTER["sealed"][0], LAST]},
    "signed of another envelope": {
        "signed": json.loads(PARTY.signer.sign(SEALED, signed_at=SIGNED_AT.replace(year=2027)))["signed"]
    },
    "signature of another envelope": {"signature": SECOND_OUTER["signature"]},
    "parts reordered": {"sealed": [LAST, FIRST]},
    "first part dropped": {"sealed": [LAST]},
    "last part dropped": {"sealed": [FIRST]},
    "part added": {"sealed": [FIRST, LAST, "QQ"]},
    "part doubled": {"sealed": [FIRST, FIRST, LAST]},
    "parts joined": {"sealed": [FIRST + LAST]},
    "parts split elsewhere": {"sealed": [FIRST[:4], FIRST[4:] + LAST]},
    "signature cut": {"signature": b64url(from_b64url(OUTER["signature"], what="signature")[:-1])},
    "signature longer": {"signature": b64url(from_b64url(OUTER["signature"], what="signature") + b"\0")},
    "signature zero": {"signature": b64url(b"\0" * 64)},
}


@pytest.mark.parametrize("case", CHANGES)
def test_the_signature_covers_every_part(case: str) -> None:
    with pytest.raises(BadSignatureError):
        check(changed(RAW, **CHANGES[case]))


@given(part=st.sampled_from(["protected", "signed", "signature", "sealed"]), data=st.data())
def test_no_changed_byte_of_a_part_verifies(part: str, data: st.DataObject) -> None:
    text = FIRST if part == "sealed" else OUTER[part]
    raw = from_b64url(text, what=part)
    mutated = b64url(flipped(raw, data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(1, 255))))
    with pytest.raises(EventError):
        check(changed(RAW, **{part: [mutated, LAST] if part == "sealed" else mutated}))


def test_the_signing_input_has_one_reading() -> None:
    text = signing_input(SEALED, b"signed").split(b".")
    assert text == [b64url(part).encode() for part in (SEALED.protected, *SEALED.sealed, b"signed")]


def _forged(alg: str, sign: Callable[[bytes], bytes]) -> bytes:
    signed = SignedHeader(signing_key_id=PARTY.signing.key_id, alg=alg, signed_at=SIGNED_AT).encode()
    return assemble(SEALED, signed, sign(signing_input(SEALED, signed)))


def _hmac_with_public(message: bytes) -> bytes:
    import hmac

    return hmac.digest(PARTY.signing.public_bytes, message, "sha256")


@pytest.mark.parametrize("alg", ["none", "HS256", "ed25519", "EdDSA", "ML-DSA-65", " Ed25519"])
def test_the_header_cannot_choose_the_algorithm(alg: str) -> None:
    private = ed25519.Ed25519PrivateKey.from_private_bytes(PARTY.signing_private)
    for sign in (_hmac_with_public, lambda _: b"x", private.sign):
        with pytest.raises(BadSignatureError, match="another algorithm"):
            check(_forged(alg, sign))
    with pytest.raises(BadSignatureError):
        check(_forged(ED25519, _hmac_with_public))


def test_a_producer_cannot_speak_as_another() -> None:
    other = Party(producer="dc2")
    raw = other.signer.sign(PARTY.seal(), signed_at=SIGNED_AT)  # its header says dc1
    with pytest.raises(BadSignatureError, match="another producer"):
        check(raw, other.signing)


def test_another_key_of_the_same_producer_does_not_fit() -> None:
    with pytest.raises(BadSignatureError, match="does not fit"):
        check(RAW, Party(producer=PRODUCER).signing)


def test_a_revoked_key_is_refused_before_the_signature_is_looked_at() -> None:
    revoked = PARTY.signing.model_copy(update={"status": KeyStatus.REVOKED})
    for raw in (RAW, changed(RAW, sealed=[FIRST])):
        with pytest.raises(RevokedError):
            check(raw, revoked)


def test_a_key_of_another_use_verifies_nothing() -> None:
    recipient, _ = generate(KeyUse.RECIPIENT)
    with pytest.raises(BadSignatureError):
        check(RAW, recipient)
    with pytest.raises(BadSignatureError):
        check(RAW, recipient.model_copy(update={"producer": PRODUCER, "algorithm": ED25519}))


def test_a_republished_event_keeps_its_sealed_bytes() -> None:
    again = Envelope.parse(PARTY.signer.sign(PARTY.seal(), signed_at=SIGNED_AT.replace(year=2027)))
    assert again.event_id == EVENT_ID
    assert again.signed_at.year == 2027


def test_a_signer_shows_only_its_id() -> None:
    signer = Signer(PARTY.signing, PARTY.signing_private)
    assert repr(signer) == f"Signer({PARTY.signing.key_id})"
