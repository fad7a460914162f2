"""What the broker can tell about a key's use: the producers' news, the depth of each queue, the youngest records."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.dead_letters import Letters, State, read_record
from passrelay_ops.stream import StreamMessage, read
from passrelay_schemas import news as documents
from passrelay_schemas import record, topology
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.errors import EventError, UntrustedError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.news import News
from passrelay_schemas.note import note_key_id

_LOOK_SECONDS = 10
"""How long the work queue may take to be seen empty: under load it holds some events at any moment."""
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Spoken:
    """What one producer has said within a time."""

    newest: News
    held_at: datetime | None
    """When it last said that it seals to the key, or that its spool holds something sealed to it; by its clock."""


@dataclass(frozen=True)
class Heard:
    """The news of a time, as far as they bear on one key."""

    spoken: Mapping[str, Spoken]
    strangers: frozenset[str]
    """Who speaks as a producer with a key that is not enrolled on this host."""


def holds(news: News, key_id: str) -> bool:
    """By these news something sealed to the key can still come from there."""
    held = news.spooled_for(key_id)
    return news.seals_to == key_id or held.queued > 0 or held.retained > 0


def judge(messages: Iterable[StreamMessage], keyring: Keyring, key_id: str) -> Heard:
    """What these news tell of a key; only signed ones count, and the newest by its producer's clock."""
    newest: dict[str, News] = {}
    held_at: dict[str, datetime] = {}
    strangers = set()
    for message in messages:
        try:
            news = documents.decode(message.body, keyring)
        except UntrustedError:
            strangers.add(documents.peek(message.body).producer)
            continue
        except EventError:
            continue
        who = news.producer
        if who not in newest or news.sent_at >= newest[who].sent_at:
            newest[who] = news
        if holds(news, key_id):
            held_at[who] = max(news.sent_at, held_at.get(who, news.sent_at))
    spoken = {who: Spoken(news, held_at.get(who)) for who, news in newest.items()}
    return Heard(spoken, frozenset(strangers))


def hear(connection: BlockingConnection, keyring: Keyring, key_id: str, *, window: timedelta) -> Heard:
    """The news of the last `window`, by the broker's clock."""
    return judge(read(connection, topology.NEWS, since=utc_now() - window), keyring, key_id)


def depths(connection: BlockingConnection) -> dict[str, int]:
    """Messages that wait, by queue. The work queue is looked at again for some seconds, until it is empty once."""
    channel = connection.channel()

    def depth(name: str) -> int:
        return int(channel.queue_declare(name, passive=True).method.message_count)

    deadline = time.monotonic() + _LOOK_SECONDS
    while (waiting := depth(topology.EVENTS)) and time.monotonic() < deadline:
        connection.sleep(_PAUSE_SECONDS)
    found = {topology.EVENTS: waiting, **{tier.queue: depth(tier.queue) for tier in topology.TIERS}}
    channel.close()
    return found


def letters(messages: Iterable[StreamMessage], key_id: str) -> int:
    """How many letters of the dead stream are live and sealed to the recipient key."""
    sealed: set[UUID] = set()

    def noted() -> Iterator[StreamMessage]:
        for message in messages:
            found = read_record(message)
            if found is not None and _sealed_to(found, key_id):
                sealed.add(found.event_id)
            yield message

    told = Letters(None, lambda _: None).read(noted())
    return sum(letter.state is State.LIVE and letter.event_id in sealed for letter in told.by_first_failure())


def _sealed_to(found: record.Record, key_id: str) -> bool:
    try:
        raw = found.envelope_bytes
        return raw is not None and Envelope.parse(raw).header.recipient_key_id == key_id
    except EventError:
        return False


def last_note(connection: BlockingConnection, key_id: str, *, window: timedelta) -> datetime | None:
    """When the youngest record of this time was written whose note is sealed to the key; None: there is none."""
    found = None
    for message in read(connection, topology.JOURNAL, since=utc_now() - window):
        try:
            entry = record.decode(message.body)
        except EventError:
            continue
        if entry.note and note_key_id(entry.note) == key_id:
            found = entry.received_at
    return found
