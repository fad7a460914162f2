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
from typing import Any, Self
from uuid import UUID

from passrelay_consumer.journal import made_up_id
from passrelay_ops.notes import Notes
from passrelay_ops.stream import StreamMessage
from passrelay_schemas import record as records
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.errors import EventError
from passrelay_schemas.event_id import captured_at
from passrelay_schemas.filetime import later, rfc3339
from passrelay_schemas.message import Counters
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import REPAIRS, Reason, Verdict

_REPAIRS = {reason.value: text for reason, text in REPAIRS.items()}
_ACTS = frozenset({Verdict.REPLAYED, Verdict.DISCARDED})
_CAPTURED = 7
"""The version of UUIDs that hold their time of capture; made-up ones have version 4."""
KEPT = timedelta(days=90)
"""How long the dead stream keeps a letter: its x-max-age (passrelay_schemas.topology)."""
NEAR = timedelta(days=14)
"""Letters with less time left are told aloud: afterwards the change can only be captured again."""
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
    failed_replay: int = 0
    """Which of its replays the newest failure is of; 0: of the event as its producer sent it."""

    def take(self, act: Record) -> None:
        """An operator's record: he replayed or discarded the letter.

        A replayed event can fail again before the record of that replay is written: that failure is of this replay, so
        it stays live. What was replayed cannot be discarded any more, since it is on its way.
        """
        if act.verdict is Verdict.REPLAYED:
            self.replays = max(self.replays, act.replays)
        if ends(act, failed_replay=self.failed_replay) and not (
            act.verdict is Verdict.DISCARDED and self.state is State.REPLAYED
        ):
            self.state = State(act.verdict.value)

    @property
    def captured_at(self) -> datetime | None:
        """When its producer captured the change; None where the event has no readable id."""
        return captured_at(self.event_id) if self.event_id.version == _CAPTURED else None

    @property
    def expires_at(self) -> datetime:
        """When the stream drops it, and the sealed password with it."""
        return later(self.last_failed_at, KEPT)

    def expires_soon(self, now: datetime) -> bool:
        """It waits for a person and will be gone in less than NEAR."""
        return self.state is State.LIVE and self.expires_at - now < NEAR

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
            "captured_at": None if self.captured_at is None else rfc3339(self.captured_at),
            "first_failed_at": rfc3339(self.first_failed_at),
            "last_failed_at": rfc3339(self.last_failed_at),
            "expires_at": rfc3339(self.expires_at),
            "repair": repair(self.reason),
        }


def repair(reason: str) -> str:
    """What a person does about a reason."""
    return _REPAIRS.get(reason, "")


def ends(act: Record, *, failed_replay: int) -> bool:
    """An operator's record ends a letter whose newest failure is of this replay (0: of none).

    A replay's record has that replay's number and ends what failed before it; without a number, all that stands before
    it. A discard's record has the number that the operator saw.
    """
    if act.verdict is Verdict.REPLAYED:
        return not act.replays or failed_replay < act.replays
    return act.verdict is Verdict.DISCARDED and failed_replay <= act.replays


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


class Letters:
    """The letters that a dead stream tells of, as far as it was read, and what became of each."""

    def __init__(
        self, notes: Notes | None, report: Callable[[str], None], *, opens: Callable[[Record], bool] = lambda _: True
    ) -> None:
        """`opens` says which notes are worth opening (a tenth of a millisecond each); without `notes` none is."""
        self._notes = notes
        self._report = report
        self._opens = opens
        self._letters: dict[UUID, Letter] = {}
        self.end: int | None = None
        """The offset of the last message that was read."""

    def __len__(self) -> int:
        return len(self._letters)

    def get(self, event_id: UUID) -> Letter | None:
        """The letter of this event."""
        return self._letters.get(event_id)

    def read(self, messages: Iterable[StreamMessage]) -> Self:
        """Take what the stream tells next."""
        for message in messages:
            self.end = message.offset
            record = read_record(message)
            if record is None:
                self._report(f"dead stream, offset {message.offset}: not a record, though it says so: it is left out")
            elif record.verdict is Verdict.DEAD:
                self._failed(message.offset, record)
            elif record.verdict in _ACTS and record.event_id in self._letters:
                self._letters[record.event_id].take(record)
        return self

    def by_first_failure(self) -> list[Letter]:
        """All of them, whatever their state."""
        return sorted(self._letters.values(), key=lambda letter: (letter.first_failed_at, letter.offset))

    def _failed(self, offset: int, record: Record) -> None:
        letter = self._letters.get(record.event_id)
        if letter is None:
            letter = self._letters[record.event_id] = Letter(
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
        letter.reason = sys.intern(record.reason or Reason.REFUSED.value)
        letter.attempts, letter.failed_replay = record.attempts, record.replays
        letter.replays = max(letter.replays, record.replays)
        letter.failures += 1
        letter.last_failed_at = record.received_at
        letter.state = State.LIVE
        if self._notes is not None and record.note and self._opens(record):
            note = self._notes.open(record.note, record.event_id)
            if note.closed is None:
                letter.account, letter.guid = note.account, note.guid


def _shared(text: str | None) -> str | None:
    return None if text is None else sys.intern(text)


def is_of(message: StreamMessage, event_id: UUID) -> bool:
    """The message is about this event."""
    record = read_record(message)
    return record is not None and record.event_id == event_id
