"""The watcher's metrics: of its last look at the broker, and none when that is too old to be true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from passrelay_ops.watch.sight import Sight
from passrelay_schemas.metrics import CommonMetrics, Family
from passrelay_schemas.verdict import Reason

_DEAD = Family("passrelay_dead_letters", "gauge", "Letters that wait for a person, by reason", ("reason",))
_EXPIRING = Family(
    "passrelay_dead_letters_expiring", "gauge", "Those that the stream drops in less than 14 days", ("reason",)
)
_TIER = Family("passrelay_retry_messages", "gauge", "Events that wait in a tier, settle copies included", ("tier",))
_WORK = Family("passrelay_work_messages", "gauge", "Events in the work queue that no consumer has taken")
_CONSUMERS = Family("passrelay_work_consumers", "gauge", "Consumers that take events; a paused one does not")
_UP = Family(
    "passrelay_producer_up", "gauge", "1 when the producer's signed news are at most 5 minutes old", ("producer",)
)
_HEARD = Family(
    "passrelay_producer_last_news_timestamp_seconds",
    "gauge",
    "When the producer spoke last, by its own clock (Unix time); absent: never",
    ("producer",),
)
_QUEUED = Family(
    "passrelay_producer_queued", "gauge", "Events in the spool of a living producer, not published", ("producer",)
)
_OLDEST = Family(
    "passrelay_producer_oldest_seconds",
    "gauge",
    "Age of the oldest of these when the producer spoke last; 0: none",
    ("producer",),
)
_PENDING = Family(
    "passrelay_producer_pending",
    "gauge",
    "Accounts, or records of the Windows hook, whose change a living producer cannot capture now",
    ("producer",),
)
_SOURCE_UP = Family(
    "passrelay_producer_source_up",
    "gauge",
    "1 when a living producer could read its source when it spoke last (Windows: the hook was loaded, its settings and "
    "folder good); absent: too old",
    ("producer",),
)
_SEEN = (_DEAD, _EXPIRING, _TIER, _WORK, _CONSUMERS, _UP, _HEARD, _QUEUED, _OLDEST, _PENDING, _SOURCE_UP)

Samples = Mapping[tuple[str, ...], float]


class WatchMetrics(CommonMetrics):
    """What the watcher shows; `sight` gives the last look while it is true, else None."""

    def __init__(self, sight: Callable[[], Sight | None]) -> None:
        super().__init__()
        for family in _SEEN:
            self.declare(family)
        self.registry.register(_SightCollector(sight))
        self.gauge_of("passrelay_broker_up", "1 while the broker is connected", lambda: float(sight() is not None))
        self._refused = self.counter(
            "passrelay_news_refused_total",
            "Messages in the news stream that were not believed, since this process started",
            ["reason"],
        )
        for reason in (Reason.BAD_SIGNATURE, Reason.UNTRUSTED, Reason.REVOKED, Reason.MALFORMED, Reason.TOO_LARGE):
            self._refused.labels(reason.value)

    def show_broker_certificate(self, expires_at: datetime | None) -> None:
        """When the broker's own certificate ends; None, it could not be seen now: what was shown stays."""
        if expires_at is not None:
            self.certificate_expiry.labels("broker").set(expires_at.timestamp())

    def refused(self, reason: Reason) -> None:
        """One that was not believed. Whom it claims to be from is no label: anybody may have written it."""
        self._refused.labels(reason.value).inc()


class _SightCollector(Collector):
    def __init__(self, sight: Callable[[], Sight | None]) -> None:
        self._sight = sight

    def describe(self) -> list[Metric]:
        """The names."""
        return [family.empty() for family in _SEEN]

    def collect(self) -> Iterator[Metric]:
        """Everything of the last look."""
        sight = self._sight()
        if sight is None:
            return
        for family, samples in _samples(sight):
            metric = family.empty()
            for labels, value in samples.items():
                metric.add_metric(labels, value)
            yield metric


def _samples(sight: Sight) -> Iterator[tuple[Family, Samples]]:
    alive = {name: voice for name, voice in sight.voices.items() if voice.alive}
    # Every reason, also without letters, so that an alert ends and a first letter is seen as an increase.
    yield _DEAD, {(reason.value,): sight.live.get(reason.value, 0) for reason in Reason}
    yield _EXPIRING, {(reason.value,): sight.expiring.get(reason.value, 0) for reason in Reason}
    yield _TIER, {(name,): depth.messages for name, depth in sight.tiers.items()}
    yield _WORK, {(): sight.work.messages}
    yield _CONSUMERS, {(): sight.work.consumers}
    yield _UP, {(name,): float(voice.alive) for name, voice in sight.voices.items()}
    yield _HEARD, {(name,): voice.sent_at.timestamp() for name, voice in sight.voices.items() if voice.sent_at}
    yield _QUEUED, {(name,): voice.queued for name, voice in alive.items()}
    yield (
        _OLDEST,
        {
            (name,): (voice.sent_at - voice.oldest_at).total_seconds() if voice.sent_at and voice.oldest_at else 0.0
            for name, voice in alive.items()
        },
    )
    yield _PENDING, {(name,): voice.pending for name, voice in alive.items()}
    yield _SOURCE_UP, {(name,): voice.source_up for name, voice in alive.items() if voice.source_up is not None}
