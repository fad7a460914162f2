"""What one look at the broker has shown: pure values, made from letters, news and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from passrelay_ops.dead_letters import Letter, State
from passrelay_ops.news import State as Life
from passrelay_ops.news import liveness
from passrelay_schemas.news import News


@dataclass(frozen=True)
class Depth:
    """Of one queue, as the broker counts it."""

    messages: int
    """Ready to be handed out; what consumers hold is not among them."""
    consumers: int


@dataclass(frozen=True)
class Voice:
    """One producer, as its newest news show it."""

    alive: bool
    sent_at: datetime | None = None
    """By its own clock; None: never heard."""
    queued: int = 0
    oldest_at: datetime | None = None
    pending: int = 0
    source_up: bool | None = None
    """None: it does not say; so do producers of older versions."""


@dataclass(frozen=True)
class Sight:
    """One look."""

    live: Mapping[str, int]
    """Live letters by reason."""
    expiring: Mapping[str, int]
    """Those among them that the stream will soon drop."""
    work: Depth
    tiers: Mapping[str, Depth]
    voices: Mapping[str, Voice]
    at: datetime


def live(letters: Iterable[Letter], now: datetime) -> tuple[dict[str, int], dict[str, int]]:
    """Live letters by reason, and those that expire soon. What the stream has dropped by its age is not counted."""
    kept = [letter for letter in letters if letter.state is State.LIVE and letter.expires_at > now]
    soon = (letter for letter in kept if letter.expires_soon(now))
    return dict(Counter(letter.reason for letter in kept)), dict(Counter(letter.reason for letter in soon))


def voices(expected: Iterable[str], heard: Mapping[str, News], now: datetime) -> dict[str, Voice]:
    """Every producer that should be heard. Numbers are shown of those that live: others' are of the past."""
    return {name: _voice(heard.get(name), now) for name in expected}


def _voice(news: News | None, now: datetime) -> Voice:
    if news is None:
        return Voice(alive=False)
    if liveness(news, now).state is not Life.ALIVE:
        return Voice(alive=False, sent_at=news.sent_at)
    oldest = [item.oldest_at for item in news.spool if item.oldest_at is not None]
    return Voice(
        alive=True,
        sent_at=news.sent_at,
        queued=news.queued,
        oldest_at=min(oldest, default=None),
        pending=sum(news.pending.values()),
        source_up=news.source_up,
    )
