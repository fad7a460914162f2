"""Metrics that both sides have, and the page that shows them. No label ever holds an account."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from passrelay_schemas import __version__
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.settings import BrokerSettings, MetricsSettings

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 21600, 86400)


class CommonMetrics:
    """Counters and gauges that producer and consumer share, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "passrelay_events",
            "Events by stage, outcome and reason",
            ["stage", "outcome", "reason"],
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "passrelay_stage_seconds", "Time spent in one stage", ["stage"], buckets=_BUCKETS, registry=self.registry
        )
        self.key_expiry = Gauge(
            "passrelay_key_expiry_timestamp_seconds",
            "When an enrolled key expires (Unix time)",
            ["key_id"],
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "passrelay_certificate_expiry_timestamp_seconds",
            "When a certificate file of this host expires (Unix time)",
            ["name"],
            registry=self.registry,
        )
        build = Gauge(
            "passrelay_build_info", "Always 1; the version is a label", ["version", "python"], registry=self.registry
        )
        build.labels(__version__, platform.python_version()).set(1)

    def gauge(self, name: str, meaning: str, labels: list[str] | None = None) -> Gauge:
        """One more gauge in the same registry."""
        return Gauge(name, meaning, labels or [], registry=self.registry)

    def gauge_of(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A gauge without labels that is read when the page is asked for."""
        Gauge(name, meaning, registry=self.registry).set_function(read)

    def histogram(self, name: str, meaning: str) -> Histogram:
        """One more histogram in seconds."""
        return Histogram(name, meaning, buckets=_BUCKETS, registry=self.registry)

    def watch_keys(self, keyring: Keyring) -> None:
        """Set the expiry of every key that has one."""
        for document in keyring.documents():
            if document.expires_at is not None:
                self.key_expiry.labels(document.key_id).set(document.expires_at.timestamp())

    def watch_certificates(self, broker: BrokerSettings, *others: Path) -> None:
        """Set the expiry of the certificate files that the settings name."""
        for path in (broker.ca_file, broker.certificate_file, *others):
            if path is None:
                continue
            with contextlib.suppress(OSError, ValueError):
                self.certificate_expiry.labels(path.name).set(_expiry(path).timestamp())

    def serve(self, settings: MetricsSettings, log: Log) -> Callable[[], None]:
        """Start the metrics page if one is configured; returns what stops it. ConfigurationError for a taken port."""
        if settings.listen is None:
            return lambda: None
        host, _, port = settings.listen.rpartition(":")
        try:
            server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=self.registry)
        except OSError as error:
            raise ConfigurationError(
                f"[metrics] listen {settings.listen}: {error.strerror}: take another port"
            ) from None
        log.info(Action.METRICS_LISTENING, address=f"{host}:{server.server_port}")

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join(timeout=5)

        return stop


def _expiry(path: Path) -> datetime:
    certificates = x509.load_pem_x509_certificates(path.read_bytes())
    return min(certificate.not_valid_after_utc for certificate in certificates)
