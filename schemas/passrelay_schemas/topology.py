"""Every AMQP name and argument. Declared by `passrelay topology apply`, only checked by the services.

Rules that were paid for: at-least-once dead-lettering needs overflow reject-publish; the delivery limit must be
explicit, since RabbitMQ 3.10 and 4.x disagree on its default; dead letters live in a stream, because looking at a
queue destroys its order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EVENTS = "passrelay.events"
RETRY = "passrelay.retry"
DEAD = "passrelay.dead"
JOURNAL = "passrelay.journal"
NEWS = "passrelay.news"

DELIVERY_LIMIT = 1000
"""Far above what an outage of days can use up; behind it is the dead stream, so that even then nothing is lost."""
_WORK_BYTES = 8_000_000_000
_TIER_BYTES = 4_000_000_000
_STREAM_BYTES = 20_000_000_000
_SEGMENT_BYTES = 100_000_000
_NEWS_BYTES = 200_000_000
"""A producer writes 1.5 to 3 MB a day: a week of ten; of more, as much as fits. Only the newest of each counts."""
_NEWS_SEGMENT_BYTES = 5_000_000
"""Streams expire by whole segments."""


@dataclass(frozen=True)
class Tier:
    """One waiting room: a queue whose messages return to the events exchange after `seconds`."""

    name: str
    seconds: int

    @property
    def queue(self) -> str:
        """The tier's queue."""
        return f"{RETRY}.{self.name}"


TIERS = (Tier("15s", 15), Tier("2m", 120), Tier("10m", 600), Tier("1h", 3600))


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str


@dataclass(frozen=True)
class Queue:
    """A durable queue or stream and the exchange that feeds it."""

    name: str
    exchange: str
    routing_key: str
    arguments: dict[str, Any] = field(default_factory=dict)


EXCHANGES = (
    Exchange(EVENTS, "fanout"),
    Exchange(RETRY, "direct"),
    Exchange(DEAD, "fanout"),
    Exchange(JOURNAL, "fanout"),
    Exchange(NEWS, "fanout"),
)


def _stream(
    name: str, *, days: int = 90, most_bytes: int = _STREAM_BYTES, segment_bytes: int = _SEGMENT_BYTES
) -> Queue:
    return Queue(
        name,
        name,
        "",
        {
            "x-queue-type": "stream",
            "x-max-age": f"{days}D",
            "x-max-length-bytes": most_bytes,
            "x-stream-max-segment-size-bytes": segment_bytes,
        },
    )


def _quorum(dead_letter_exchange: str, most_bytes: int) -> dict[str, Any]:
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": dead_letter_exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-max-length-bytes": most_bytes,
        "x-delivery-limit": DELIVERY_LIMIT,
    }


def queues(tier_milliseconds: dict[str, int] | None = None) -> tuple[Queue, ...]:
    """All queues, streams before what dead-letters into them. Tests may shorten the tiers by name."""
    waits = tier_milliseconds or {}
    return (
        _stream(DEAD),
        _stream(JOURNAL),
        _stream(NEWS, days=7, most_bytes=_NEWS_BYTES, segment_bytes=_NEWS_SEGMENT_BYTES),
        Queue(EVENTS, EVENTS, "", _quorum(DEAD, _WORK_BYTES)),
        *(
            Queue(
                tier.queue,
                RETRY,
                tier.name,
                {**_quorum(EVENTS, _TIER_BYTES), "x-message-ttl": waits.get(tier.name, tier.seconds * 1000)},
            )
            for tier in TIERS
        ),
    )


def tier_for(attempt: int) -> Tier:
    """The tier of the n-th attempt (from 1): twice 15 s, then 2 min, 10 min, and 1 h for ever."""
    return TIERS[(0, 0, 1, 2)[attempt - 1]] if attempt <= 4 else TIERS[3]
