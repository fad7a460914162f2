"""News: what a producer says of itself; nothing that its own key has not signed is believed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_ops.news import Heard, State, judge, liveness
from passrelay_ops.stream import StreamMessage
from passrelay_schemas import keys, limits
from passrelay_schemas import news as documents
from passrelay_schemas.errors import (
    BadSignatureError,
    EventError,
    MalformedError,
    RevokedError,
    TooLargeError,
    UntrustedError,
)
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyStatus
from passrelay_schemas.news import News, SpooledFor
from passrelay_schemas.strict_json import b64url, from_b64url
from passrelay_schemas.verdict import Reason
from tests.unit.builders import PRODUCER, SIGNED_AT, Party, changed, flipped

PARTY = Party()
OTHER = Party(producer="dc2")
KEY = PARTY.recipient.key_id


def news(**changes: Any) -> News:
    fields: dict[str, Any] = {
        "signing_key_id": PARTY.signing.key_id,
        "producer": PRODUCER,
        "source": "samba",
        "domains": ("lab.example",),
        "controller": "dc1.lab.example",
        "openpgp_fingerprints": ("AB" * 20,),
        "version": "1.0",
        "sent_at": SIGNED_AT,
        "started_at": SIGNED_AT - timedelta(hours=1),
        "last_capture_at": SIGNED_AT - timedelta(minutes=1),
        "pending": {"no_clear_text": 2},
        "spool": (SpooledFor(recipient_key_id=KEY, queued=3, oldest_at=SIGNED_AT, retained=9),),
    }
    return News.model_validate(fields | changes)


RAW = documents.encode(news(), PARTY.signer)
OUTER: dict[str, str] = json.loads(RAW)


def enrolled(folder: Path, *parties: Party, status: KeyStatus = KeyStatus.ACTIVE) -> Keyring:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    for party in parties:
        keys.write_public(folder, party.signing.model_copy(update={"status": status}))
    return Keyring(folder)


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return enrolled(tmp_path_factory.mktemp("keys"), PARTY, OTHER)


def with_fields(**fields: Any) -> bytes:
    """News with other fields, signed by their own producer all the same: the shape alone is wrong."""
    text = b64url(changed(from_b64url(OUTER["news"], what="news"), **fields))
    return signed(text, PARTY)


def signed(text: str, party: Party) -> bytes:
    signature = party.signer.signature(f"passrelay.news/1.{text}".encode())
    return json.dumps({"news": text, "signature": b64url(signature)}).encode()


def test_news_come_back_as_they_were_sent(keyring: Keyring) -> None:
    assert documents.decode(RAW, keyring) == news()
    assert documents.decode(with_fields(), keyring) == news()
    assert set(OUTER) == {"news", "signature"}


def test_a_spool_tells_what_can_still_come_for_a_key() -> None:
    assert news().queued == 3
    assert news().spooled_for(KEY).retained == 9
    nothing = news().spooled_for("otherkey")
    assert (nothing.queued, nothing.oldest_at, nothing.retained) == (0, None, 0)


def row(**changes: Any) -> list[dict[str, Any]]:
    fields = {"recipient_key_id": KEY, "queued": 0, "retained": 1} | changes
    return [{name: value for name, value in fields.items() if value is not ...}]


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "cut": RAW[:-1],
    "list": b"[" + RAW + b"]",
    "doubled field": RAW[:-1] + b',"news":"' + OUTER["news"].encode() + b'"}',
    "unknown field": changed(RAW, alg="none"),
    **{f"no {name}": changed(RAW, **{name: ...}) for name in OUTER},
    **{f"{name} not base64url": changed(RAW, **{name: "Q+Q"}) for name in OUTER},
    **{f"{name} number": changed(RAW, **{name: 1}) for name in OUTER},
    "no JSON inside": signed(b64url(b"ABC"), PARTY),
    "doubled inside": signed(b64url(b'{"schema":"passrelay.news/1","schema":"passrelay.news/1"}'), PARTY),
    "an account": with_fields(account="alice"),
    "an algorithm": with_fields(alg="Ed25519"),
    "version 2": with_fields(schema="passrelay.news/2"),
    "no version": with_fields(schema=...),
    "source": with_fields(source="windows"),
    "producer with a newline": with_fields(producer="dc1\n"),
    "controller no name": with_fields(controller="dc 1"),
    "fingerprint lower case": with_fields(openpgp_fingerprints=["ab" * 20]),
    "fingerprint short": with_fields(openpgp_fingerprints=["AB" * 8]),
    "time without a zone": with_fields(sent_at="2026-11-24T22:42:33"),
    "time a number": with_fields(sent_at=5),
    "no time": with_fields(sent_at=...),
    "stopping a number": with_fields(stopping=1),
    "source_up a number": with_fields(source_up=1),
    "pending a name": with_fields(pending={"alice@lab.example": 1}),
    "pending below zero": with_fields(pending={"unreadable": -1}),
    "pending a text": with_fields(pending={"unreadable": "1"}),
    "spool: queued without a time": with_fields(spool=row(queued=1)),
    "spool: a time without queued": with_fields(spool=row(oldest_at="2026-11-24T22:42:33Z")),
    "spool: true for a count": with_fields(spool=row(retained=True)),
    "spool: no count": with_fields(spool=row(retained=...)),
    "spool: unknown field": with_fields(spool=row(user="alice")),
    "spool: a key twice": with_fields(spool=row() * 2),
    "too many keys": with_fields(spool=[row(recipient_key_id=f"key{n:05}")[0] for n in range(65)]),
    "too many domains": with_fields(domains=["lab.example"] * (limits.MAX_NEWS_DOMAINS + 1)),
    "too many fingerprints": with_fields(openpgp_fingerprints=["AB" * 20] * (limits.MAX_NEWS_FINGERPRINTS + 1)),
    "too many reasons": with_fields(pending=dict.fromkeys((f"r{'x' * n}" for n in range(33)), 1)),
    "version too long": with_fields(version="1" * (limits.MAX_NEWS_VERSION + 1)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_news_are_malformed_whoever_signed_them(case: str, keyring: Keyring) -> None:
    with pytest.raises(MalformedError) as caught:
        documents.decode(BROKEN[case], keyring)
    assert "alice" not in str(caught.value)


def test_the_whole_and_the_signature_have_limits(keyring: Keyring) -> None:
    assert documents.decode(RAW.ljust(limits.MAX_NEWS_BYTES), keyring) == news()
    with pytest.raises(TooLargeError, match="65537 bytes"):
        documents.decode(RAW.ljust(limits.MAX_NEWS_BYTES + 1), keyring)
    with pytest.raises(TooLargeError, match="signature"):
        documents.decode(changed(RAW, signature=b64url(b"x" * (limits.MAX_SIGNATURE_BYTES + 1))), keyring)


def test_the_fullest_news_fit() -> None:
    label = "x" * 63
    full = news(
        domains=[f"{label}.{label}.{label}.{n:061}" for n in range(limits.MAX_NEWS_DOMAINS)],
        openpgp_fingerprints=["AB" * 32] * limits.MAX_NEWS_FINGERPRINTS,
        pending={f"{'x' * n:_<32}": 10**9 for n in range(limits.MAX_NEWS_REASONS)},
        spool=[
            {"recipient_key_id": f"{n:064}", "queued": 10**9, "oldest_at": SIGNED_AT, "retained": 10**9}
            for n in range(limits.MAX_NEWS_KEYS)
        ],
    )
    assert len(documents.encode(full, PARTY.signer)) < limits.MAX_NEWS_BYTES


def test_only_its_own_key_speaks_for_a_producer(tmp_path: Path, keyring: Keyring) -> None:
    with pytest.raises(UntrustedError):
        documents.decode(RAW, enrolled(tmp_path / "stranger", OTHER))
    with pytest.raises(RevokedError):
        documents.decode(RAW, enrolled(tmp_path / "revoked", PARTY, status=KeyStatus.REVOKED))
    assert documents.decode(RAW, enrolled(tmp_path / "retired", PARTY, status=KeyStatus.RETIRED)) == news()
    # dc2 is enrolled and speaks of dc1: under its own key, and under dc1's
    for key in (OTHER.signing, PARTY.signing):
        with pytest.raises(BadSignatureError):
            documents.decode(documents.encode(news(signing_key_id=key.key_id), OTHER.signer), keyring)


def test_a_recipient_key_signs_nothing(tmp_path: Path) -> None:
    directory = enrolled(tmp_path / "keys", PARTY).directory
    keys.write_public(directory, PARTY.recipient)
    with pytest.raises(UntrustedError):
        documents.decode(with_fields(signing_key_id=KEY), Keyring(directory))


def test_a_signature_without_the_prefix_does_not_fit(keyring: Keyring) -> None:
    # What signs envelopes signs base64url text joined by dots: news must not be made of that.
    signature = PARTY.signer.signature(OUTER["news"].encode())
    with pytest.raises(BadSignatureError):
        documents.decode(changed(RAW, signature=b64url(signature)), keyring)


@given(position=st.integers(0, len(RAW) - 1), byte=st.integers(0, 255))
def test_no_changed_byte_is_believed(keyring: Keyring, position: int, byte: int) -> None:
    mutated = RAW[:position] + bytes([byte]) + RAW[position + 1 :]
    if mutated != RAW:
        with pytest.raises(EventError):
            documents.decode(mutated, keyring)


@given(position=st.integers(0), mask=st.integers(1, 255), part=st.sampled_from(["news", "signature"]))
def test_no_changed_byte_of_a_part_is_believed(keyring: Keyring, part: str, position: int, mask: int) -> None:
    raw = from_b64url(OUTER[part], what=part)
    with pytest.raises(EventError):
        documents.decode(changed(RAW, **{part: b64url(flipped(raw, position % len(raw), mask))}), keyring)


@given(raw=st.binary(max_size=200))
def test_no_bytes_raise_anything_but_event_errors(keyring: Keyring, raw: bytes) -> None:
    for body in (raw, signed(b64url(raw), PARTY)):
        with pytest.raises(EventError):
            documents.decode(body, keyring)


# -- what the operator's host makes of a stream ---------------------------------------------------------------------


def heard(keyring: Keyring, *bodies: bytes) -> Heard:
    messages = (StreamMessage(at, body, pika.BasicProperties()) for at, body in enumerate(bodies))
    return judge(messages, keyring, now=SIGNED_AT)


def said(seconds: float = 0, party: Party = PARTY, key: KeyDocument | None = None, **changes: Any) -> bytes:
    key = key or party.signing
    fields = {"signing_key_id": key.key_id, "producer": key.producer, "sent_at": SIGNED_AT + timedelta(seconds=seconds)}
    return documents.encode(news(**fields | changes), party.signer)


def test_the_newest_of_each_producer_counts_and_an_old_one_sent_again_does_not(keyring: Keyring) -> None:
    old = said(-60, version="old")
    found = heard(keyring, old, said(0, version="new"), said(party=OTHER, version="other"), old)
    assert {name: item.version for name, item in found.news.items()} == {"dc1": "new", "dc2": "other"}
    assert not found.unbelieved


def test_after_a_clock_was_set_right_its_producer_is_heard_again(keyring: Keyring) -> None:
    ahead, right, replayed = said(3600, version="ahead"), said(0, version="right"), said(-60, version="old")
    assert heard(keyring, right, ahead).news["dc1"].version == "ahead"
    assert heard(keyring, ahead, right, replayed).news["dc1"].version == "right"


def test_what_is_not_believed_is_told_and_takes_nobodys_place(keyring: Keyring) -> None:
    stranger = Party()
    forged = said(60, party=OTHER, key=PARTY.signing)
    found = heard(keyring, b"{}", said(0), forged, said(60, party=stranger))
    assert found.news["dc1"].sent_at == SIGNED_AT
    assert [(item.offset, item.reason, item.producer, item.signing_key_id) for item in found.unbelieved] == [
        (0, Reason.MALFORMED, None, None),
        (2, Reason.BAD_SIGNATURE, "dc1", PARTY.signing.key_id),
        (3, Reason.UNTRUSTED, "dc1", stranger.signing.key_id),
    ]
    assert all(item.why for item in found.unbelieved)


@pytest.mark.parametrize(
    ("age", "stopping", "state", "words"),
    [
        (0, False, State.ALIVE, "last news at"),
        (300, False, State.ALIVE, "last news at"),
        (301, False, State.SILENT, "no news since"),
        (-300, False, State.ALIVE, "last news at"),
        (-301, False, State.SILENT, "ahead of this host's clock"),
        (1, True, State.SILENT, "was stopped"),
        (900, True, State.SILENT, "was stopped"),
    ],
)
def test_a_producer_that_does_not_speak_is_silent(age: float, stopping: bool, state: State, words: str) -> None:
    said_once = liveness(news(stopping=stopping), SIGNED_AT + timedelta(seconds=age))
    assert said_once.state is state
    assert words in said_once.detail


def test_a_producer_that_was_never_heard_is_not_called_silent() -> None:
    assert liveness(None, SIGNED_AT).state is State.NEVER
