"""What the broker hands out: bodies, properties, streams."""

from __future__ import annotations

import base64
import json
from datetime import timedelta

from passrelay_consumer.disposition import dispose, poison
from passrelay_consumer.journal import wait_message
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_consumer.settle import may_begin
from passrelay_ops.dead_letters import Letters
from passrelay_ops.letter_pages import entry as letter_entry
from passrelay_ops.letter_pages import lists
from passrelay_ops.letter_story import story
from passrelay_ops.news import judge, liveness
from passrelay_ops.replay import envelope_of
from passrelay_ops.report import printable
from passrelay_ops.standing import standing
from passrelay_ops.stream import StreamMessage
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.event_id import captured_at
from passrelay_schemas.filetime import rfc3339, utc_now
from passrelay_schemas.message import Counters, envelope_properties
from passrelay_schemas.record import decode as decode_record
from passrelay_schemas.record import parse_note
from passrelay_schemas.verdict import Reason, Verdict
from tests.hostile import samples
from tests.hostile.setting import IDM_ENTRY, JOURNAL, KEYRING, NOTES, NOW, no_canary, told
from tests.hostile.wire import decoded, encoded
from tests.unit.builders import EVENT_ID


def envelope(raw: bytes) -> None:
    try:
        envelope = Envelope.parse(raw)
    finally:
        poison(raw)  # what is said of an event that nobody opens; never raises
    encoded(envelope_properties(envelope.header, settle_since=envelope.signed_at))
    rfc3339(captured_at(envelope.event_id))
    outcome = Outcome(Verdict.DEAD, Reason.MALFORMED, "why", envelope.header, signed_at=envelope.signed_at)
    delivery = Delivery(raw, Counters(), utc_now())
    for message in JOURNAL.messages(dispose(outcome, Counters(), horizon=timedelta(days=1)), delivery):
        assert decode_record(message.body).envelope_bytes == raw


def properties(raw: bytes) -> None:
    properties = decoded(raw)
    counters = Counters.of(properties)
    delivery = Delivery(samples.ENVELOPE, counters, utc_now())
    encoded(wait_message(delivery).properties)
    header = Envelope.parse(samples.ENVELOPE).header
    for verdict in (Verdict.APPLIED, Verdict.DUPLICATE, Verdict.RETRY, Verdict.DEAD):
        for authentic in (True, False):
            # Without account and diagnostic: to seal a note takes longer than all the rest.
            outcome = Outcome(verdict, Reason.USER_MISSING, header=header, authentic=authentic, unsettled="why")
            disposition = dispose(outcome, counters, horizon=timedelta(days=1), settles=True)
            for message in JOURNAL.messages(disposition, delivery):
                encoded(message.properties)
    may_begin(IDM_ENTRY, counters.settle_since)


def _stream_message(raw: bytes) -> StreamMessage:
    size = int.from_bytes(raw[:2], "big")
    return StreamMessage(7, raw[2 + size :], decoded(raw[2 : 2 + size]))


def dead_stream(raw: bytes) -> None:
    message = _stream_message(raw)
    letters = Letters(NOTES, told).read([message])
    for letter in letters.by_first_failure():
        repr(letter.document())
        record = decode_record(message.body) if message.properties.type == "passrelay.record/1" else None
        entries = [] if record is None else [letter_entry(7, record, NOTES)]
        "".join(story(letter, entries, NOW))
        standing(letter, IDM_ENTRY, idm_newer_wins=True)
    "".join(lists(letters.by_first_failure(), NOW))
    envelope_of(message)


def journal(raw: bytes) -> None:
    record = decode_record(raw)
    record.encode()
    repr(letter_entry(7, record, NOTES))
    repr(record.dead_reason)


def news(raw: bytes) -> None:
    heard = judge([StreamMessage(7, raw, decoded(samples.NEWS_PROPERTIES))], KEYRING, now=NOW)
    for unbelieved in heard.unbelieved:
        no_canary(unbelieved.why)
    for news in heard.news.values():
        repr(liveness(news, NOW))


def signed_news(document: bytes) -> None:
    """News that an enrolled producer signs, whatever they say."""
    text = base64.urlsafe_b64encode(document).rstrip(b"=").decode()
    signature = samples.PARTY.signer.signature(f"passrelay.news/1.{text}".encode())
    signed = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    news(json.dumps({"news": text, "signature": signed}).encode())


def note(raw: bytes) -> None:
    """The text of a note, which anybody can seal who has the ops key's public document."""
    account, guid, diagnostic = parse_note(raw.decode("utf-8", "replace"))
    printable(f"{account} {guid} {diagnostic}")


def sealed_note(raw: bytes) -> None:
    NOTES.open(raw.decode("utf-8", "replace"), EVENT_ID)
