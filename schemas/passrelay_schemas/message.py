"""AMQP messages, built anew from an allow-list each time.

Copied x-death headers make the broker see a cycle and drop the message without a word, so no received property is
ever passed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import pika

from passrelay_schemas.envelope import CONTENT_TYPE, ProtectedHeader
from passrelay_schemas.envelope import SCHEMA as ENVELOPE_SCHEMA
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.news import SCHEMA as NEWS_SCHEMA
from passrelay_schemas.record import SCHEMA as RECORD_SCHEMA
from passrelay_schemas.record import Record

ATTEMPT = "x-passrelay-attempt"
REASON = "x-passrelay-reason"
REPLAYS = "x-passrelay-replays"
NOTE = "x-passrelay-note"
SETTLE = "x-passrelay-settle"
SETTLE_SINCE = "x-passrelay-settle-since"
_DELIVERY_COUNT = "x-delivery-count"
_MOST_COUNT = 2**31 - 1
_MOST_TEXT = 4096
"""A sealed note takes 2,990; the headers of a message are not signed, so more is somebody else's and dropped."""
PERSISTENT = 2


@dataclass(frozen=True)
class Counters:
    """What travels beside an envelope: how often it was tried, replayed, and handed out by the broker."""

    attempt: int = 0
    replays: int = 0
    deliveries: int = 0
    survived: int = 0
    """So many of these deliveries went to this very process, which lives: no sign of an event that kills consumers."""
    settle: int = 0
    """Above 0 it is a settle copy in this round: its event was applied already."""
    settle_since: datetime | None = None
    """When it was applied, by the clock of that IdM server."""
    reason: str | None = None
    note: str | None = None

    @property
    def first(self) -> bool:
        """Never tried, replayed or handed out before: it came as its producer has sent it."""
        return not (self.attempt or self.replays or self.deliveries or self.settle)

    @classmethod
    def of(cls, properties: pika.BasicProperties) -> Self:
        """The counters in received properties; anything of the wrong kind counts as absent."""
        headers = properties.headers or {}
        return cls(
            attempt=_count(headers.get(ATTEMPT)),
            replays=_count(headers.get(REPLAYS)),
            deliveries=_count(headers.get(_DELIVERY_COUNT)),
            settle=_count(headers.get(SETTLE)),
            settle_since=_moment(headers.get(SETTLE_SINCE)),
            reason=_text(headers.get(REASON)),
            note=_text(headers.get(NOTE)),
        )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNT else 0


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and len(value) <= _MOST_TEXT else None


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(_text(value) or "")
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):  # a zone can move a time out of the years 1 to 9999
        return None


def event_properties(event_id: str, producer: str) -> pika.BasicProperties:
    """Properties of an envelope that its producer publishes."""
    return pika.BasicProperties(
        message_id=event_id, app_id=producer, type=ENVELOPE_SCHEMA, content_type=CONTENT_TYPE, delivery_mode=PERSISTENT
    )


def envelope_properties(
    header: ProtectedHeader | None,
    *,
    attempt: int = 0,
    replays: int = 0,
    settle: int = 0,
    settle_since: datetime | None = None,
    reason: str | None = None,
    note: str | None = None,
) -> pika.BasicProperties:
    """Properties of an envelope; `header` is None only where it could not be parsed."""
    headers: dict[str, Any] = {}
    if attempt:
        headers[ATTEMPT] = attempt
    if replays:
        headers[REPLAYS] = replays
    if settle:
        headers[SETTLE] = settle
        if settle_since is not None:
            headers[SETTLE_SINCE] = rfc3339(settle_since)
    if reason:
        headers[REASON] = reason
    if note:
        headers[NOTE] = note
    return pika.BasicProperties(
        message_id=str(header.event_id) if header else None,
        app_id=header.producer if header else None,
        type=ENVELOPE_SCHEMA,
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        headers=headers or None,
    )


def record_properties(record: Record) -> pika.BasicProperties:
    """Properties of a record in the journal or dead stream."""
    return pika.BasicProperties(
        message_id=str(record.event_id),
        app_id=record.producer,
        type=RECORD_SCHEMA,
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        headers={REASON: record.reason} if record.reason else None,
    )


def news_properties(producer: str) -> pika.BasicProperties:
    """Properties of a producer's news."""
    return pika.BasicProperties(app_id=producer, type=NEWS_SCHEMA, content_type=CONTENT_TYPE, delivery_mode=PERSISTENT)
