"""The producer's metrics; the spool is read when the page is asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from passrelay_producer.sources import PendingReason
from passrelay_producer.spool import Spool
from passrelay_schemas.errors import UnavailableError
from passrelay_schemas.metrics import Family, RelayMetrics

CAPTURE = "capture"
PUBLISH = "publish"
_EVENTS = Family("passrelay_spool_events", "gauge", "Events in the spool", ("state", "recipient_key_id"))
_OLDEST = Family("passrelay_spool_oldest_seconds", "gauge", "Age of the oldest event that is not published; 0: none")
_USED = Family("passrelay_spool_bytes", "gauge", "Bytes of the spool in use")
_FREE = Family("passrelay_spool_free_bytes", "gauge", "How much more can be captured: the disk's or max_bytes' rest")
_PENDING = Family(
    "passrelay_capture_pending",
    "gauge",
    "Accounts, or records of the Windows hook, whose change cannot be captured now",
    ("reason",),
)
_LAST_CAPTURE = Family(
    "passrelay_last_capture_timestamp_seconds",
    "gauge",
    "When an event was captured last (Unix time); absent: never, as far as the spool remembers",
)
_OF_THE_SPOOL = (_EVENTS, _OLDEST, _USED, _FREE, _PENDING, _LAST_CAPTURE)


class ProducerMetrics(RelayMetrics):
    """Counters of capture and publishing, and what the spool holds."""

    def __init__(self, spool: Spool, waiting: Callable[[], Mapping[PendingReason, int]] = dict) -> None:
        """`waiting`: what waits outside the spool, as the source says."""
        super().__init__()
        self._last_capture = spool.last_captured_at()
        for family in _OF_THE_SPOOL:
            self.declare(family)
        self.registry.register(_SpoolCollector(spool, waiting, self))
        # From the start, so that an increase from nothing to one is seen as one.
        self.events.labels(CAPTURE, "captured", "")
        for outcome in ("published", "returned", "refused"):
            self.events.labels(PUBLISH, outcome, "")

    @property
    def last_capture(self) -> float | None:
        """When an event was captured last, Unix seconds; None when that is not known."""
        return self._last_capture

    def watch(self, *, source: Callable[[], bool], broker: Callable[[], bool]) -> None:
        """Show whether the source gives and the broker is connected, as a running service knows it."""
        self.gauge_of(
            "passrelay_source_up",
            "1 when the source can be read and, on Windows, the hook is loaded, its settings and folder good",
            source,
        )
        self.gauge_of("passrelay_broker_up", "1 while the broker is connected", broker)

    def captured(self, outcome: str, count: int, reason: str = "") -> None:
        """`count` events of a page were captured (committed), refused, or left pending."""
        if count:
            self.events.labels(CAPTURE, outcome, reason).inc(count)
        if count and outcome == "captured":
            self._last_capture = time.time()

    def published(self, outcome: str, count: int) -> None:
        """`count` events were published (confirmed), returned or refused by the broker."""
        if count:
            self.events.labels(PUBLISH, outcome, "").inc(count)


class _SpoolCollector(Collector):
    def __init__(
        self, spool: Spool, waiting: Callable[[], Mapping[PendingReason, int]], metrics: ProducerMetrics
    ) -> None:
        self._spool = spool
        self._waiting = waiting
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        """The names, without reading the spool."""
        return [family.empty() for family in _OF_THE_SPOOL]

    def collect(self) -> Iterator[Metric]:
        """The spool's gauges; none while another process holds the file."""
        try:
            found = self._spool.statistics()
        except UnavailableError:
            return
        oldest = found.oldest_queued_at
        pending = Counter(found.pending) + Counter(self._waiting())
        values: dict[Family, dict[tuple[str, ...], float]] = {
            _EVENTS: {key: float(count) for key, count in sorted(found.events.items())},
            _OLDEST: {(): 0.0 if oldest is None else max(0.0, time.time() - oldest)},
            _USED: {(): found.used_bytes},
            _FREE: {(): found.free_bytes},
            _PENDING: {(reason.value,): pending[reason] for reason in PendingReason},
        }
        if self._metrics.last_capture is not None:
            values[_LAST_CAPTURE] = {(): self._metrics.last_capture}
        for family, samples in values.items():
            metric = family.empty()
            for labels, value in samples.items():
                metric.add_metric(labels, value)
            yield metric
