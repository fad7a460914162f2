"""Settling again: the journal's writes are published once more as settle copies, and followed to their end.

A consumer that gets such a copy compares the entry on every IdM server with it, and writes what is behind
(passrelay_consumer.settle). Sealed events are never opened here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from pika.adapters.blocking_connection import BlockingConnection
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

from passrelay_consumer.settle import REASON
from passrelay_ops.connection import NOT_FOUND
from passrelay_ops.dead_letters import read_record
from passrelay_ops.stream import StreamMessage, read
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.errors import ConfigurationError, EventError, UnavailableError
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.message import envelope_properties
from passrelay_schemas.record import Record
from passrelay_schemas.topology import EVENTS, JOURNAL
from passrelay_schemas.verdict import Verdict

CLOCKS_APART = timedelta(minutes=5)
"""A stream is searched by the broker's clock; what is settled once too often does no harm."""


def check_topology(connection: BlockingConnection) -> None:
    """UnavailableError when the journal or the exchange of events is missing."""
    channel = connection.channel()
    try:
        channel.queue_declare(JOURNAL, passive=True)
        channel.exchange_declare(EVENTS, passive=True)
    except ChannelClosedByBroker as error:
        if error.reply_code != NOT_FOUND:
            raise
        raise UnavailableError(f"broker: {error.reply_text}: run `passrelay topology apply`") from None
    channel.close()


@dataclass(frozen=True)
class Beginning:
    """Where the journal begins."""

    at: datetime
    whole: bool
    """Nothing has been dropped from it yet: its very first record is there."""


def beginning(connection: BlockingConnection) -> Beginning | None:
    """The journal's first record; None when it is empty."""
    for message in read(connection, JOURNAL):
        record = read_record(message)
        if record is not None:
            return Beginning(record.received_at, whole=message.offset == 0)
    return None


def check_reach(since: datetime, now: datetime, begins: Beginning | None) -> None:
    """ConfigurationError when the journal cannot tell what was written since then."""
    if since > now:
        raise ConfigurationError(f"--since {rfc3339(since)}: lies in the future: give the time of the backup or outage")
    if begins is not None and not begins.whole and since < begins.at:
        raise ConfigurationError(
            f"--since {rfc3339(since)}: the journal reaches back to {rfc3339(begins.at)} only: give that time, and for "
            "what is older run `passrelay producer capture --all` on a domain controller"
        )


def is_write(record: Record) -> bool:
    """The record of an event whose password stood in IdM under its own id: a settle copy can be made of it.

    A Duplicate with a time of writing is an event whose first answer was lost, for example in a consumer's crash.
    """
    if record.envelope is None or record.reason == REASON:
        return False
    return record.verdict is Verdict.APPLIED or (record.verdict is Verdict.DUPLICATE and record.applied_at is not None)


def writes(messages: Iterable[StreamMessage]) -> Iterator[Record]:
    """The first record of each event that was written."""
    seen: set[UUID] = set()
    for message in messages:
        record = read_record(message)
        if record is not None and record.event_id not in seen and is_write(record):
            seen.add(record.event_id)
            yield record


def publish(connection: BlockingConnection, records: Iterable[Record]) -> Iterator[tuple[Record, str | None]]:
    """Publish a settle copy of each, confirmed, and give it back with what kept it from being published.

    UnavailableError when the broker does not take it.
    """
    channel = connection.channel()
    channel.confirm_delivery()
    for record in records:
        try:
            raw = record.envelope_bytes or b""
            header = Envelope.parse(raw).header
        except EventError as error:
            yield record, str(error)
            continue
        try:
            channel.basic_publish(
                EVENTS, "", raw, envelope_properties(header, settle=1, settle_since=record.applied_at), mandatory=True
            )
        except UnroutableError:
            raise UnavailableError(
                f"exchange {EVENTS}: no queue is bound to it: run `passrelay topology apply`, then repeat the command"
            ) from None
        except NackError:
            raise UnavailableError(
                f"queue {EVENTS}: full: let the consumers work it off, then repeat the command"
            ) from None
        yield record, None


@dataclass
class Progress:
    """What became of the settle copies so far, from the journal's records."""

    waiting: set[UUID] = field(default_factory=set)
    behind: set[UUID] = field(default_factory=set)
    """A server did not have this write, so it was written again; it is looked at again until it is settled."""
    superseded: set[UUID] = field(default_factory=set)
    """The entry has a newer password."""
    settled: set[UUID] = field(default_factory=set)
    """Every listed server shows this very write."""

    @property
    def events(self) -> int:
        """How many are followed."""
        return len(self.waiting) + len(self.superseded) + len(self.settled)

    def take(self, record: Record) -> None:
        """Account for one record; whatever is not the first end of a followed copy changes nothing."""
        if record.reason != REASON or record.event_id not in self.waiting:
            return
        match record.verdict:
            case Verdict.APPLIED:
                self.behind.add(record.event_id)
            case Verdict.DUPLICATE:
                self.waiting.discard(record.event_id)
                self.settled.add(record.event_id)
            case Verdict.SUPERSEDED:
                self.waiting.discard(record.event_id)
                self.superseded.add(record.event_id)


def waiting_because(progress: Progress, seconds: float) -> str:
    """What an operator looks at when copies still wait."""
    silent = not (progress.behind or progress.superseded or progress.settled)
    look = (
        "no consumer has recorded one: see that a consumer runs and that its IdM servers pass their probe"
        if silent
        else "a listed IdM server cannot be reached, or replication does not bring the servers together: see the "
        "consumers' log (action unsettled) and `passrelay idm marker show USER`"
    )
    return (
        f"not settled within {seconds:g} s: {look}; the copies go on by themselves: repair it, then run the "
        "same command again to see the end"
    )
