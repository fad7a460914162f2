"""Dead letters as the dead stream tells them: each message read once, grouped by event, with the operators' acts.

A letter is live until a later record in the same stream says that it was replayed or discarded. Sealed events are never
opened here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from passrelay_consumer.journal import made_up_id
from passrelay_ops.notes import Note, Notes
from passrelay_ops.stream import StreamMessage
from passrelay_schemas import record as records
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.errors import EventError
from passrelay_schemas.event_id import captured_at
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.message import Counters
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import REPAIRS, Reason, Verdict

_ACTS = frozenset({Verdict.REPLAYED, Verdict.DISCARDED})
_START = datetime.fromtimestamp(0, UTC)


class State(StrEnum):
    """What became of a letter."""

    LIVE = "live"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


@dataclass(slots=True)
class Letter:
    """One event's letter, without its envelope: many thousands fit into memory."""

    event_id: UUID
    offset: int
    """Of its newest failure in the stream: where its envelope can be read again."""
    producer: str | None
    domain: str | None
    reason: str
    attempts: int
    replays: int
    failures: int
    first_failed_at: datetime
    last_failed_at: datetime
    state: State = State.LIVE
    account: str | None = None
    guid: UUID | None = None

    def document(self) -> dict[str, Any]:
        """The letter in a JSON document."""
        return {
            "event_id": str(self.event_id),
            "state": self.state.value,
            "reason": self.reason,
            "producer": self.producer,
            "domain": self.domain,
            "account": self.account,
            "guid": None if self.guid is None else str(self.guid),
            "attempts": self.attempts,
            "replays": self.replays,
            "failures": self.failures,
            "captured_at": _captured(self.event_id),
            "first_failed_at": rfc3339(self.first_failed_at),
            "last_failed_at": rfc3339(self.last_failed_at),
            "repair": repair(self.reason),
        }


@dataclass(frozen=True)
class Selection:
    """Which letters are wanted; what is None does not matter."""

    reason: Reason | None = None
    producer: str | None = None
    domain: str | None = None
    user: str | None = None
    failed_before: datetime | None = None
    failed_after: datetime | None = None
    every_state: bool = False

    def takes(self, letter: Letter) -> bool:
        """The letter is wanted."""
        return (
            (self.every_state or letter.state is State.LIVE)
            and self.reason in (None, letter.reason)
            and self.producer in (None, letter.producer)
            and self.domain in (None, letter.domain)
            and (self.failed_before is None or letter.first_failed_at <= self.failed_before)
            and (self.failed_after is None or letter.first_failed_at >= self.failed_after)
            and (self.user is None or Note(letter.account, letter.guid).speaks_of(self.user))
        )


def of_age(now: datetime, *, older: timedelta | None, younger: timedelta | None) -> dict[str, datetime | None]:
    """The two bounds of a Selection from ages."""

    def ago(age: timedelta | None) -> datetime | None:
        try:
            return None if age is None else now - age
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)

    return {"failed_before": ago(older), "failed_after": ago(younger)}


def repair(reason: str) -> str:
    """What a person does about a reason."""
    return REPAIRS.get(Reason(reason), "") if reason in set(Reason) else ""


def _captured(event_id: UUID) -> str | None:
    return rfc3339(captured_at(event_id)) if event_id.version == 7 else None


def read_record(message: StreamMessage) -> Record | None:
    """A message of the dead stream as a record; None when it calls itself one and is none.

    Everything else is a letter that the broker itself moved here when the work queue's delivery limit was used up,
    whatever its sender wrote into its properties.
    """
    if message.properties.type != records.SCHEMA:
        return _from_envelope(message)
    try:
        return records.decode(message.body)
    except EventError:
        return None


def _from_envelope(message: StreamMessage) -> Record:
    counters = Counters.of(message.properties)
    try:
        envelope = Envelope.parse(message.body)
    except EventError:
        event_id, producer, domain, failed_at = made_up_id(message.body), None, None, _START
    else:
        event_id, producer, domain = envelope.event_id, envelope.header.producer, envelope.header.domain
        failed_at = envelope.signed_at
    return Record(
        event_id=event_id,
        producer=producer,
        domain=domain,
        verdict=Verdict.DEAD,
        reason=Reason.DELIVERY_LIMIT,
        attempts=counters.attempt,
        replays=counters.replays,
        received_at=_died_at(message) or failed_at,
        note=counters.note,
        envelope=records.envelope_text(message.body),
    )


def _died_at(message: StreamMessage) -> datetime | None:
    """When the broker gave it up: the youngest entry of its x-death header (AMQP times are UTC, without saying so)."""
    deaths = (message.properties.headers or {}).get("x-death")
    times = [
        death["time"].replace(tzinfo=UTC)
        for death in (deaths if isinstance(deaths, list) else [])
        if isinstance(death, dict) and isinstance(death.get("time"), datetime)
    ]
    return max(times, default=None)


def collect(messages: Iterable[StreamMessage], notes: Notes | None, report: Callable[[str], None]) -> list[Letter]:
    """All letters of the stream, whatever their state, by their first failure."""
    letters: dict[UUID, Letter] = {}
    for message in messages:
        record = read_record(message)
        if record is None:
            report(f"dead stream, offset {message.offset}: not a record, though it says so: it is left out")
        elif record.verdict is Verdict.DEAD:
            _failed(letters, message.offset, record, notes)
        elif record.verdict in _ACTS and record.event_id in letters:
            letters[record.event_id].state = State(record.verdict.value)
    return sorted(letters.values(), key=lambda letter: (letter.first_failed_at, letter.offset))


def _failed(letters: dict[UUID, Letter], offset: int, record: Record, notes: Notes | None) -> None:
    letter = letters.get(record.event_id)
    if letter is None:
        letter = letters[record.event_id] = Letter(
            event_id=record.event_id,
            offset=offset,
            producer=_shared(record.producer),
            domain=_shared(record.domain),
            reason="",
            attempts=0,
            replays=0,
            failures=0,
            first_failed_at=record.received_at,
            last_failed_at=record.received_at,
        )
    letter.offset = offset
    letter.reason = sys.intern(record.reason or Reason.REFUSED)
    letter.attempts, letter.replays = record.attempts, record.replays
    letter.failures += 1
    letter.last_failed_at = record.received_at
    letter.state = State.LIVE
    note = notes.open(record.note, record.event_id) if notes is not None and record.note else None
    if note is not None and note.closed is None:
        letter.account, letter.guid = note.account, note.guid


def _shared(text: str | None) -> str | None:
    return None if text is None else sys.intern(text)


def is_of(message: StreamMessage, event_id: UUID) -> bool:
    """The message is about this event."""
    record = read_record(message)
    return record is not None and record.event_id == event_id
