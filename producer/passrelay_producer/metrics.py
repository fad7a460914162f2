"""The producer's metrics; the spool is read when the page is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from passrelay_producer.sources import PendingReason
from passrelay_producer.spool import Spool
from passrelay_schemas.errors import UnavailableError
from passrelay_schemas.metrics import CommonMetrics


class ProducerMetrics(CommonMetrics):
    """Counters of capture and publishing, and what the spool holds."""

    def __init__(self, spool: Spool) -> None:
        super().__init__()
        self._last_capture = spool.last_captured_at()
        self.registry.register(_SpoolCollector(spool, self))

    @property
    def last_capture(self) -> float | None:
        """When an event was captured last, Unix seconds; None when that is not known."""
        return self._last_capture

    def captured(self, outcome: str, count: int, reason: str = "") -> None:
        """`count` events of a page were captured (committed), refused, or left pending."""
        if count:
            self.events.labels("capture", outcome, reason).inc(count)
        if count and outcome == "captured":
            self._last_capture = time.time()

    def published(self, outcome: str, count: int) -> None:
        """`count` events were published (confirmed), returned or refused by the broker."""
        if count:
            self.events.labels("publish", outcome, "").inc(count)


class _SpoolCollector(Collector):
    def __init__(self, spool: Spool, metrics: ProducerMetrics) -> None:
        self._spool = spool
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not read the spool."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The spool's gauges; none while another process holds the file."""
        try:
            found = self._spool.statistics()
        except UnavailableError:
            return
        events = GaugeMetricFamily(
            "passrelay_spool_events", "Events in the spool", labels=["state", "recipient_key_id"]
        )
        for (state, key_id), count in sorted(found.events.items()):
            events.add_metric([state, key_id], count)
        yield events
        oldest = found.oldest_queued_at
        age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        yield GaugeMetricFamily("passrelay_spool_oldest_seconds", "Age of the oldest unpublished event", age)
        yield GaugeMetricFamily("passrelay_spool_bytes", "Bytes of the spool in use", found.used_bytes)
        yield GaugeMetricFamily(
            "passrelay_spool_free_bytes",
            "How much more can be captured: the disk's or max_bytes' rest",
            found.free_bytes,
        )
        pending = GaugeMetricFamily(
            "passrelay_capture_pending", "Accounts whose newest change cannot be captured now", labels=["reason"]
        )
        for reason in PendingReason:
            pending.add_metric([reason.value], found.pending.get(reason, 0))
        yield pending
        if self._metrics.last_capture is not None:
            yield GaugeMetricFamily(
                "passrelay_last_capture_timestamp_seconds",
                "When an event was captured last",
                self._metrics.last_capture,
            )
