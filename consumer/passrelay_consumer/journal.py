"""The messages that an outcome leads to: its record for the journal or dead stream, and its envelope for a tier."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

import pika

from passrelay_consumer import settle
from passrelay_consumer.disposition import Again, Disposition, Dropped, Final, Later, Settled
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_schemas import topology
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.errors import EventError
from passrelay_schemas.event_id import captured_at
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyUse
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.message import envelope_properties, record_properties
from passrelay_schemas.note import NoteSealer, note_key_id
from passrelay_schemas.record import Record, envelope_text, note_text
from passrelay_schemas.topology import tier_for
from passrelay_schemas.verdict import Reason, Verdict

_NOT_LOOKED_AT = frozenset({Reason.POISON})
_ALSO_UNOPENED = frozenset({Reason.REFUSED, Reason.UNKNOWN_KEY})
"""Reasons that events also wait for whose account is not known yet: an earlier note may not name it."""
_NOTED_EVERY = 24
"""Tries: one an hour, so a day. Readers look back a week, and horizon_hours can be months."""
_CAPTURED = 7
"""The version of UUIDs that hold their time of capture; made-up ones have version 4."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message to be published with a confirm."""

    exchange: str
    routing_key: str
    properties: pika.BasicProperties
    body: bytes


class Journal:
    """Builds messages; safe for any number of threads. Without an enrolled ops key records have no notes."""

    def __init__(self, keyring: Keyring, log: Log) -> None:
        self._keyring = keyring
        self._notes = NoteSealer()
        if keyring.newest(KeyUse.OPS) is None:
            log.warning(
                Action.KEYRING_FAULT,
                why=f"key directory {keyring.directory}: no active ops key, so records have no account names",
                repair="make one with `passrelay keys init` on the operator's host and enroll its document here",
            )

    def messages(self, disposition: Disposition, delivery: Delivery) -> tuple[Message, ...]:
        """What is to be published, one confirmed before the next is sent, before the delivery may be acked."""
        outcome = disposition.outcome
        match disposition:
            case Later():
                return self._later(disposition, delivery)
            case Again():
                written = outcome.verdict is Verdict.APPLIED
                copy = _settle_copy(outcome, delivery, disposition.round)
                return (_settle_record(outcome, delivery), copy) if written else (copy,)
            case Dropped():
                return ()
            case Settled():
                return (_settle_record(outcome, delivery),)
            case Final():
                return self._final(disposition, delivery)

    def _final(self, disposition: Final, delivery: Delivery) -> tuple[Message, ...]:
        outcome = disposition.outcome
        event_id = _event_id(outcome, delivery)
        record = _record(outcome, delivery, event_id, self._note(outcome, event_id))
        properties, body = record_properties(record), record.encode()
        journal = Message(topology.JOURNAL, "", properties, body)
        if outcome.verdict is Verdict.DEAD:
            # The letter first: a journal that calls an event dead must never be all that is left of it.
            return Message(topology.DEAD, "", properties, body), journal
        return (journal, _settle_copy(outcome, delivery, 1)) if disposition.settle else (journal,)

    def _later(self, later: Later, delivery: Delivery) -> tuple[Message, Message]:
        """The record of the try, small: the envelope is in the tier; and the tier's message.

        A note tells whose password waits, and for what. It is twelve times as long as the rest, so it stands in the
        first record with its reason, then once a day; the tier's message carries it on.
        """
        outcome, event_id = later.outcome, _event_id(later.outcome, delivery)
        noted = self._noted(outcome, delivery)
        note = None if noted else self._note(outcome, event_id)
        record = _record(outcome, delivery, event_id, note).model_copy(update={"envelope": None})
        claimed = outcome.header.event_id if outcome.header else event_id
        # A note opens under its own event's id only: the message's, which may be another than an unproven event's.
        carried = noted or (note if claimed == event_id else self._note(outcome, claimed))
        properties = envelope_properties(
            outcome.header,
            attempt=later.attempt,
            replays=delivery.counters.replays,
            reason=outcome.reason,
            note=carried,
        )
        # The record first: after a crash between the two the event is still in the queue, and is tried again.
        return (
            Message(topology.JOURNAL, "", record_properties(record), record.encode()),
            Message(topology.RETRY, later.tier.name, properties, delivery.body),
        )

    def _noted(self, outcome: Outcome, delivery: Delivery) -> str | None:
        """The note of an earlier try, where it says all that this one's would; None: a new one is due."""
        counters, ops_key = delivery.counters, self._keyring.newest(KeyUse.OPS)
        if counters.note is None or ops_key is None or note_key_id(counters.note) != ops_key.key_id:
            return None
        if counters.attempt % _NOTED_EVERY == 0 or counters.reason != outcome.reason:
            return None
        return None if outcome.account is not None and outcome.reason in _ALSO_UNOPENED else counters.note

    def _note(self, outcome: Outcome, event_id: UUID) -> str | None:
        ops_key = self._keyring.newest(KeyUse.OPS)
        if ops_key is None or (outcome.account is None and outcome.guid is None and not outcome.diagnostic):
            return None
        text = note_text(account=outcome.account, guid=outcome.guid, diagnostic=outcome.diagnostic)
        return self._notes.seal(text, event_id=event_id, ops_key=ops_key)


def _event_id(outcome: Outcome, delivery: Delivery) -> UUID:
    """The event's id where its signature was good (or was never looked at), else one made up from the bytes.

    Otherwise a stranger who has seen an id could put records under it: over the outcome of the real event.
    """
    if outcome.header is not None and (outcome.authentic or outcome.reason in _NOT_LOOKED_AT):
        return outcome.header.event_id
    return made_up_id(delivery.body)


def _record(outcome: Outcome, delivery: Delivery, event_id: UUID, note: str | None) -> Record:
    header = outcome.header
    return Record(
        event_id=event_id,
        producer=header.producer if header else None,
        domain=header.domain if header else None,
        verdict=outcome.verdict,
        reason=outcome.reason,
        server=outcome.server,
        attempts=delivery.counters.attempt + 1,
        replays=delivery.counters.replays,
        captured_at=captured_at(event_id) if event_id.version == _CAPTURED else None,
        received_at=delivery.received_at,
        applied_at=outcome.applied_at,
        note=note,
        envelope=envelope_text(delivery.body),
    )


def _settle_record(outcome: Outcome, delivery: Delivery) -> Message:
    """Small: envelope and note stand in the event's first record."""
    full = _record(outcome, delivery, _event_id(outcome, delivery), note=None)
    record = full.model_copy(update={"reason": settle.REASON, "envelope": None})
    return Message(topology.JOURNAL, "", record_properties(record), record.encode())


def _settle_copy(outcome: Outcome, delivery: Delivery, number: int) -> Message:
    counters = delivery.counters
    since = counters.settle_since or outcome.written_at
    properties = envelope_properties(outcome.header, replays=counters.replays, settle=number, settle_since=since)
    return Message(topology.RETRY, tier_for(number).name, properties, delivery.body)


def made_up_id(body: bytes) -> UUID:
    """The id of what has none: shaped like a random one, but the same each time, so that records stay idempotent."""
    return UUID(bytes=hashlib.sha256(body).digest()[:16], version=4)


def wait_message(delivery: Delivery) -> Message:
    """The delivery as it came, for the first tier: it was not tried, so its attempt stays."""
    counters = delivery.counters
    try:
        header = Envelope.parse(delivery.body).header
    except EventError:
        header = None
    properties = envelope_properties(
        header,
        attempt=counters.attempt,
        replays=counters.replays,
        settle=counters.settle,
        settle_since=counters.settle_since,
        reason=counters.reason,
        note=counters.note,
    )
    return Message(topology.RETRY, topology.TIERS[0].name, properties, delivery.body)
