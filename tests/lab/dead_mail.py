"""Dead letters of known content, as consumers would have written them: real envelopes, notes sealed to the ops key."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.confirmed import ConfirmingChannel, Outgoing
from passrelay_schemas import filetime
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.message import record_properties
from passrelay_schemas.note import NoteSealer
from passrelay_schemas.record import Record, envelope_text, note_text
from passrelay_schemas.topology import DEAD
from passrelay_schemas.verdict import Reason, Verdict
from tests.lab.broker import Broker
from tests.lab.enrolment import DOMAIN, Enrolment, Sender, change
from tests.lab.folder import canary_password

REASONS = (
    Reason.USER_MISSING,
    Reason.POLICY,
    Reason.REFUSED,
    Reason.UNKNOWN_KEY,
    Reason.UNTRUSTED,
    Reason.ACCESS_DENIED,
)
_PAGE = 500


@dataclass(frozen=True)
class Person:
    """A user of the lab and the history that the letters give him."""

    name: str
    guid: UUID
    rid: int


@dataclass(frozen=True)
class Dead:
    """What is known of one letter that was written."""

    event_id: UUID
    reason: Reason
    person: Person
    kvno: int
    password: str


class DeadMail:
    """Writes letters into a dead stream; each is one more change of one of the people."""

    def __init__(self, broker: Broker, enrolment: Enrolment, sender: Sender, people: int, *, prefix: str) -> None:
        self._broker = broker
        self._ops_key = enrolment.ops
        self._sender = sender
        self.people = [Person(f"{prefix}{number}", uuid4(), 5000 + number) for number in range(people)]
        self._kvno = dict.fromkeys(self.people, 0)
        self._next = itertools.cycle(self.people)

    def write(self, reasons: Iterator[Reason], *, began: datetime | None = None, envelopes: bool = True) -> list[Dead]:
        """One letter for each reason, in this order, one millisecond apart from `began` on (now)."""
        moment = began or datetime.now(UTC)
        made: list[Dead] = []
        connection = BlockingConnection(self._broker.parameters())
        try:
            channel = ConfirmingChannel(connection)
            while page := list(itertools.islice(reasons, _PAGE)):
                outgoing = []
                for reason in page:
                    dead, record = self._letter(reason, moment + timedelta(milliseconds=len(made)))
                    made.append(dead)
                    outgoing.append(Outgoing(DEAD, record.encode(), record_properties(record)))
                assert len(channel.publish(outgoing)) == len(outgoing)
        finally:
            connection.close()
        return made

    def _letter(self, reason: Reason, failed_at: datetime) -> tuple[Dead, Record]:
        person = next(self._next)
        self._kvno[person] += 1
        dead = Dead(new_event_id(), reason, person, self._kvno[person], canary_password())
        event = change(
            person.name,
            dead.password,
            guid=person.guid,
            rid=person.rid,
            kvno=dead.kvno,
            changed_at=filetime.now(),
        )
        text = note_text(account=person.name, guid=person.guid, diagnostic=f"{reason}: made by a test")
        record = Record(
            event_id=dead.event_id,
            producer=self._sender.name,
            domain=DOMAIN,
            verdict=Verdict.DEAD,
            reason=reason,
            attempts=30,
            received_at=failed_at,
            note=NoteSealer().seal(text, event_id=dead.event_id, ops_key=self._ops_key),
            envelope=envelope_text(self._sender.envelope(event, event_id=dead.event_id)),
        )
        return dead, record
