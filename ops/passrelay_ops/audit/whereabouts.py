"""Where the passwords are that have not arrived: what the dead and journal streams tell about some accounts.

Each stream is read once, and only what concerns the wanted accounts is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Self
from uuid import UUID

from passrelay_consumer.settle import REASON
from passrelay_ops.audit.account import AdAccount
from passrelay_ops.dead_letters import ends, read_record
from passrelay_ops.notes import Notes
from passrelay_ops.stream import StreamMessage
from passrelay_schemas.event_id import captured_at
from passrelay_schemas.filetime import rfc3339, to_datetime
from passrelay_schemas.marker import Marker
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import FINAL, Reason, Verdict

IN_FLIGHT: Final = "in_flight"
NOT_CAPTURED: Final = "not_captured"
UNKNOWN: Final = "unknown"
JOURNAL_REACH = timedelta(days=7)
"""How far back the journal is read: while a consumer runs, what waits is tried and recorded at least once an hour, and
its account is named in a record at least once a day."""
_JUST_NOW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Trace:
    """Where one account's newest password is."""

    where: str
    detail: str = ""
    reason: Reason | None = None
    """Of a dead letter, or of the last try."""
    event_id: UUID | None = None
    """The dead letter."""
    applied: bool = False
    """A consumer has written it, so that the entry must have lost it, or be gone."""
    told_of: UUID | None = None
    """The event that this is told of."""

    def is_new_letter(self, before: Self | None) -> bool:
        """Whether it is a dead letter that died after `before` was told, by the dead stream alone.

        Without the journal an older letter shows where a newer event was told of.
        """
        if self.event_id is None or before is None or before.told_of is None:
            return self.event_id is not None
        return self != before and self.event_id.int >= before.told_of.int


@dataclass(slots=True)
class _Event:
    """What is recorded of one event."""

    outcome: Record | None = None
    """Its final record in the journal that is no dead letter."""
    retry: Record | None = None
    letter: Record | None = None
    """The last record in the dead stream: dead, replayed or discarded."""
    reason: str | None = None
    """Why it is a dead letter."""


@dataclass(slots=True)
class _Wanted:
    newer_than: int
    """Only events captured after this one concern the missing password."""
    events: dict[UUID, _Event] = field(default_factory=dict)


class Whereabouts:
    """What is recorded of some accounts' missing passwords."""

    def __init__(self, markers: Mapping[UUID, Marker | None], notes: Notes) -> None:
        """`markers`: the wanted accounts by guid, with the marker that their entries show."""
        self._wanted = {
            guid: _Wanted(-1 if marker is None else marker.event_id.int) for guid, marker in markers.items()
        }
        self._accounts: dict[UUID, UUID] = {}
        self._notes = notes
        self.waiting = 0
        """How many events no consumer has looked at yet: whose they are is sealed."""
        self.readable = notes.readable
        """Without the ops key, or without a broker, nothing can be told."""

    def read_dead(self, messages: Iterable[StreamMessage]) -> None:
        """Take the dead stream, from its beginning."""
        for record, event in self._concerning(messages):
            if record.verdict is Verdict.DEAD:
                event.letter, event.reason = record, record.reason
            elif event.letter is not None and ends(record, failed_replay=event.letter.replays):
                event.letter = record

    def read_journal(self, messages: Iterable[StreamMessage]) -> None:
        """Take the journal."""
        for record, event in self._concerning(messages):
            if record.verdict is Verdict.RETRY:
                event.retry = record
            elif record.verdict in FINAL and record.verdict is not Verdict.DEAD:
                event.outcome = record

    def _concerning(self, messages: Iterable[StreamMessage]) -> Iterable[tuple[Record, _Event]]:
        for message in messages:
            record = read_record(message)
            if record is None or record.reason == REASON:
                continue
            guid = self._accounts.get(record.event_id) or self._notes.open(record.note, record.event_id).guid
            wanted = self._wanted.get(guid) if guid is not None else None
            if wanted is not None and guid is not None and record.event_id.int > wanted.newer_than:
                self._accounts[record.event_id] = guid  # an operator's act, and a later try, name the event only
                yield record, wanted.events.setdefault(record.event_id, _Event())

    def trace(self, user: AdAccount, now: datetime) -> Trace:
        """Where the newest password of a wanted account is."""
        if not self.readable or user.guid not in self._wanted:
            return Trace(UNKNOWN)
        # The newest event first: an older one brings an older password, also than the one that was applied and is gone.
        events = sorted(self._wanted[user.guid].events.items(), key=lambda item: item[0].int, reverse=True)
        traces = [_of(event_id, event) for event_id, event in events]
        if traces:
            return next((trace for trace in traces if trace.where != UNKNOWN or trace.applied), traces[0])
        if self.waiting and user.changed_at and now - to_datetime(user.changed_at) < _JUST_NOW:
            return Trace(IN_FLIGHT, "changed within the last minute")
        if self.waiting:
            return Trace(UNKNOWN, f"{self.waiting} events wait for a consumer: it may be one of them")
        return Trace(NOT_CAPTURED, "no consumer has seen it")


def _of(event_id: UUID, event: _Event) -> Trace:
    if event.outcome is not None:
        found = event.outcome
        at = rfc3339(found.applied_at or found.received_at)
        because = f" ({found.reason})" if found.reason else ""
        text = f"{found.verdict.value}{because} at {at} on {found.server or 'no server'}"
        return Trace(UNKNOWN, text, applied=found.verdict is Verdict.APPLIED, told_of=event_id)
    if event.letter is not None and event.letter.verdict is Verdict.REPLAYED:
        return Trace(IN_FLIGHT, f"replayed by {event.letter.by or 'somebody'}", _reason(event.reason), told_of=event_id)
    if event.letter is not None:
        by = f", discarded by {event.letter.by or 'somebody'}" if event.letter.verdict is Verdict.DISCARDED else ""
        captured = f"captured {rfc3339(captured_at(event_id))}" if event_id.version == 7 else "of unknown age"
        replays = f", replayed {event.letter.replays} times" if event.letter.replays else ""
        text = f"a dead letter, {captured}{replays}{by}"
        return Trace(f"dead:{event.reason}", text, _reason(event.reason), event_id, told_of=event_id)
    if event.retry is not None:
        reason = _reason(event.retry.reason)
        tried = f"tried {event.retry.attempts} times, last: {event.retry.reason}"
        return Trace(IN_FLIGHT, tried, reason, told_of=event_id)
    return Trace(UNKNOWN)


def _reason(text: str | None) -> Reason | None:
    return next((reason for reason in Reason if reason == text), None)
