"""Metrics that several services have, each declared once. No label ever holds an account."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

from passrelay_schemas import __version__
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 21600, 86400)


@dataclass(frozen=True)
class Family:
    """One metric as the page and docs/metrics.md have it."""

    name: str
    """As Prometheus stores it: a counter ends in _total."""
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()

    def empty(self) -> GaugeMetricFamily:
        """For a collector that reads it anew each time the page is asked for."""
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels)


class CommonMetrics:
    """Counters and gauges that every service has, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.families: list[Family] = []
        """All that can be on the page, in the order of their making; docs/metrics.md is written from it."""
        self.key_expiry = self.gauge(
            "passrelay_key_expiry_timestamp_seconds",
            "When an enrolled key that is in use (next, active) expires (Unix time)",
            ["key_id"],
        )
        self.certificate_expiry = self.gauge(
            "passrelay_certificate_expiry_timestamp_seconds",
            "When the first certificate of a file of this host expires, and, under the name `broker`, the broker's own "
            "as watch sees it (Unix time)",
            ["name"],
        )
        build = self.gauge("passrelay_build_info", "Always 1; the version is a label", ["version", "python"])
        build.labels(__version__, platform.python_version()).set(1)

    def declare(self, family: Family) -> Family:
        """One more family, whose samples a collector brings."""
        self.families.append(family)
        return family

    def counter(self, name: str, meaning: str, labels: list[str]) -> Counter:
        """One more counter; `name` ends in _total."""
        self.declare(Family(name, "counter", meaning, tuple(labels)))
        return Counter(name, meaning, labels, registry=self.registry)

    def gauge(self, name: str, meaning: str, labels: list[str] | None = None) -> Gauge:
        """One more gauge."""
        self.declare(Family(name, "gauge", meaning, tuple(labels or ())))
        return Gauge(name, meaning, labels or [], registry=self.registry)

    def gauge_of(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A gauge without labels that is read when the page is asked for."""
        self.gauge(name, meaning).set_function(read)

    def histogram(self, name: str, meaning: str, labels: list[str] | None = None) -> Histogram:
        """One more histogram in seconds."""
        self.declare(Family(name, "histogram", meaning, tuple(labels or ())))
        return Histogram(name, meaning, labels or [], buckets=_BUCKETS, registry=self.registry)

    def watch_keys(self, keyring: Keyring) -> None:
        """Set the expiry of every key that is used and has one; what is retired or gone needs nobody."""
        self.key_expiry.clear()
        for document in keyring.documents():
            if document.expires_at is not None and document.status in {KeyStatus.NEXT, KeyStatus.ACTIVE}:
                self.key_expiry.labels(document.key_id).set(document.expires_at.timestamp())

    def watch_certificates(self, broker: BrokerSettings, *others: Path) -> None:
        """Set the expiry of the certificate files that the settings name; of two with one name, the earlier."""
        found: dict[str, float] = {}
        for path in (broker.ca_file, broker.certificate_file, *others):
            if path is None:
                continue
            with contextlib.suppress(OSError, ValueError):
                found[path.name] = min(found.get(path.name, math.inf), _expiry(path).timestamp())
        for name, expires in found.items():
            self.certificate_expiry.labels(name).set(expires)


class RelayMetrics(CommonMetrics):
    """What producer and consumer share: the events on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.events = self.counter(
            "passrelay_events_total", "Events by stage, outcome and reason", ["stage", "outcome", "reason"]
        )
        self.stage_seconds = self.histogram("passrelay_stage_seconds", "Time spent in one stage", ["stage"])


def _expiry(path: Path) -> datetime:
    certificates = x509.load_pem_x509_certificates(path.read_bytes())
    return min(certificate.not_valid_after_utc for certificate in certificates)
