"""The envelope: only one shape is taken, every part has its limit, and no changed byte means something else."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_schemas import limits
from passrelay_schemas.envelope import Envelope, ProtectedHeader, SealedEvent, SignedHeader, assemble
from passrelay_schemas.errors import EventError, MalformedError, TooLargeError
from passrelay_schemas.event import encode
from passrelay_schemas.strict_json import b64url, from_b64url
from passrelay_schemas.suites import P256
from tests.unit.builders import EVENT_ID, PRODUCER, SIGNED_AT, Party, changed, event

PARTY = Party()
RAW = PARTY.envelope()
OUTER: dict[str, Any] = json.loads(RAW)
PLAIN = encode(event())


def with_header(part: str, **fields: Any) -> bytes:
    """The envelope with fields of one of its headers replaced or dropped; its signature no longer fits."""
    return changed(RAW, **{part: b64url(changed(from_b64url(OUTER[part], what=part), **fields))})


def of_size(size: int) -> str:
    return b64url(b"x" * size)


def test_an_envelope_gives_back_what_was_sealed_and_signed() -> None:
    envelope = Envelope.parse(RAW)
    assert envelope.event_id == EVENT_ID
    assert envelope.signed_at == SIGNED_AT
    assert envelope.header.producer == PRODUCER
    assert envelope.header == PARTY.seal().header
    assert PARTY.open(RAW) == PLAIN
    assert assemble(SealedEvent(envelope.protected, envelope.sealed), envelope.signed, envelope.signature) == RAW


def test_the_broker_sees_no_account_and_one_size() -> None:
    assert b"alice" not in RAW
    assert b"1105" not in RAW
    sizes = {len(PARTY.envelope("x" * length)) for length in (1, 2, 50, 255, 256)}
    assert len(sizes) == 1


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "cut": RAW[:-1],
    "trailing text": RAW + b"x",
    "second envelope": RAW + RAW,
    "list": b"[" + RAW + b"]",
    "doubled field": RAW[:-1] + b',"signed":"' + OUTER["signed"].encode() + b'"}',
    "doubled by an escape": RAW[:-1] + b',"s\\u0069gned":"' + OUTER["signed"].encode() + b'"}',
    "unknown field": changed(RAW, extra=1),
    **{f"no {name}": changed(RAW, **{name: ...}) for name in OUTER},
    **{f"{name} null": changed(RAW, **{name: None}) for name in OUTER},
    **{f"{name} number": changed(RAW, **{name: 1}) for name in OUTER},
    **{f"{name} true": changed(RAW, **{name: True}) for name in OUTER},
    **{f"{name} object": changed(RAW, **{name: {"x": "QQ"}}) for name in OUTER},
    **{f"{name} list": changed(RAW, **{name: ["QQ"]}) for name in OUTER if name != "sealed"},
    **{f"{name} empty": changed(RAW, **{name: ""}) for name in OUTER},
    **{f"{name} not base64url": changed(RAW, **{name: "Q+Q"}) for name in OUTER if name != "sealed"},
    "sealed text": changed(RAW, sealed=OUTER["sealed"][0]),
    "sealed no part": changed(RAW, sealed=[]),
    "sealed empty part": changed(RAW, sealed=[""]),
    "sealed number": changed(RAW, sealed=[1]),
    "sealed nested": changed(RAW, sealed=[[OUTER["sealed"][0]]]),
    "sealed too many": changed(RAW, sealed=["QQ"] * (limits.MAX_SEALED_PARTS + 1)),
    "sealed standard base64": changed(RAW, sealed=[OUTER["sealed"][0].replace("-", "+").replace("_", "/")]),
    "sealed padded": changed(RAW, sealed=["QQ=="]),
    "sealed with a dot": changed(RAW, sealed=["QQ.QQ"]),
    "nesting": b"[" * limits.MAX_ENVELOPE_BYTES,
    "nesting in a field": b'{"protected":' + b"[" * 20_000,
    "closed nesting": b'{"protected":' + b"[" * 400 + b"]" * 400 + b"}",
    "huge number": b'{"protected":' + b"9" * 40_000 + b"}",
    "protected is no JSON": changed(RAW, protected="QUJD"),
    "signed is no JSON": changed(RAW, signed="QUJD"),
    "headers exchanged": changed(RAW, protected=OUTER["signed"], signed=OUTER["protected"]),
    **{
        f"protected without {name}": with_header("protected", **{name: ...})
        for name in ("schema", "suite", "recipient_key_id", "producer", "domain", "event_id")
    },
    **{f"signed without {name}": with_header("signed", **{name: ...}) for name in SignedHeader.model_fields},
    "version 2": with_header("protected", schema="passrelay.envelope/2"),
    "version as a number": with_header("protected", schema=1),
    "unknown field in protected": with_header("protected", kid="x"),
    "unknown field in signed": with_header("signed", jwk={"kty": "OKP"}),
    "suite empty": with_header("protected", suite=""),
    "suite too long": with_header("protected", suite="x" * 65),
    "key id with a path": with_header("protected", recipient_key_id="../../etc/passwd"),
    "key id too long": with_header("protected", recipient_key_id="x" * 65),
    "key id too short": with_header("protected", recipient_key_id="x" * 7),
    "key id with a newline": with_header("protected", recipient_key_id="abcdefgh\n"),
    "producer with a blank": with_header("protected", producer="dc 1"),
    "producer with a newline": with_header("protected", producer="dc1\n"),
    "producer too long": with_header("protected", producer="x" * 65),
    "producer number": with_header("protected", producer=1),
    "domain not a name": with_header("protected", domain="lab example"),
    "event id version 4": with_header("protected", event_id=str(uuid4())),
    "event id nil": with_header("protected", event_id=str(UUID(int=0))),
    "event id text": with_header("protected", event_id="x"),
    "event id number": with_header("protected", event_id=7),
    "event id true": with_header("protected", event_id=True),
    "alg empty": with_header("signed", alg=""),
    "alg true": with_header("signed", alg=True),
    "signed_at number": with_header("signed", signed_at=5),
    "signed_at true": with_header("signed", signed_at=True),
    "signed_at number as text": with_header("signed", signed_at="5"),
    "signed_at without a zone": with_header("signed", signed_at="2026-11-24T22:42:33"),
    "signed_at a day": with_header("signed", signed_at="2026-11-24"),
    "signed_at before year 1": with_header("signed", signed_at="0001-01-01T00:00:00+14:00"),
    "signed_at after year 9999": with_header("signed", signed_at="9999-12-31T23:59:59-14:00"),
    "signed_at infinite": with_header("signed", signed_at=float("inf")),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_envelope_is_malformed(case: str) -> None:
    with pytest.raises(MalformedError) as caught:
        Envelope.parse(BROKEN[case])
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("protected", limits.MAX_PROTECTED_BYTES),
        ("signed", limits.MAX_SIGNED_BYTES),
        ("signature", limits.MAX_SIGNATURE_BYTES),
        ("sealed", limits.MAX_SEALED_PART_BYTES),
    ],
)
@pytest.mark.parametrize("beyond", [1, 2, 3, 4, 1000])
def test_each_part_has_its_limit_to_the_byte(name: str, most: int, beyond: int) -> None:
    text = of_size(most + beyond)
    with pytest.raises(TooLargeError, match=rf"{name} has more than {most} bytes"):
        Envelope.parse(changed(RAW, **{name: [text] if name == "sealed" else text}))


@pytest.mark.parametrize(
    ("name", "most"), [("signature", limits.MAX_SIGNATURE_BYTES), ("sealed", limits.MAX_SEALED_PART_BYTES)]
)
def test_a_part_of_exactly_its_limit_is_taken(name: str, most: int) -> None:
    text = of_size(most)
    Envelope.parse(changed(RAW, **{name: [text] if name == "sealed" else text}))


def test_the_whole_has_a_limit() -> None:
    full = RAW.ljust(limits.MAX_ENVELOPE_BYTES)
    assert Envelope.parse(full).event_id == EVENT_ID
    with pytest.raises(TooLargeError, match="49153 bytes"):
        Envelope.parse(full + b" ")


def _outcome(raw: bytes) -> bytes | None:
    try:
        return PARTY.open(raw)
    except EventError:
        return None


@given(position=st.integers(0, len(RAW) - 1), byte=st.integers(0, 255))
def test_no_changed_byte_opens_to_anything(position: int, byte: int) -> None:
    mutated = RAW[:position] + bytes([byte]) + RAW[position + 1 :]
    if mutated != RAW:
        assert _outcome(mutated) is None


@given(start=st.integers(0, len(RAW)), length=st.integers(0, 40), insert=st.binary(max_size=5))
def test_no_cut_or_insertion_opens_to_anything_else(start: int, length: int, insert: bytes) -> None:
    mutated = RAW[:start] + insert + RAW[start + length :]
    assert _outcome(mutated) in {None, PLAIN}  # blanks between JSON tokens change nothing


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_event_errors(raw: bytes) -> None:
    with pytest.raises(EventError):
        Envelope.parse(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(part=st.sampled_from(["protected", "signed"]), data=st.data())
def test_no_value_in_a_header_raises_anything_but_event_errors(part: str, data: st.DataObject) -> None:
    header = json.loads(from_b64url(OUTER[part], what=part))
    name = data.draw(st.sampled_from(sorted(header)))
    value = data.draw(json_values)
    if value == header[name]:
        return
    with pytest.raises(EventError):
        PARTY.open(with_header(part, **{name: value}))


def test_the_headers_say_their_version_and_keep_it() -> None:
    header = ProtectedHeader(
        suite=P256, recipient_key_id="abcdefgh", producer=PRODUCER, domain="lab.example", event_id=EVENT_ID
    )
    assert json.loads(header.encode())["schema"] == "passrelay.envelope/1"
    assert len(header.encode()) < limits.MAX_PROTECTED_BYTES


def test_the_longest_names_still_fit() -> None:
    label = "x" * 63
    header = ProtectedHeader(
        suite="x" * limits.MAX_SUITE,
        recipient_key_id="k" * limits.MAX_KEY_ID,
        producer="p" * limits.MAX_PRODUCER,
        domain=f"{label}.{label}.{label}.{'x' * 61}",
        event_id=EVENT_ID,
    )
    assert len(header.encode()) <= limits.MAX_PROTECTED_BYTES
