"""What stands on the metrics page, and what /healthz and /readyz answer."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from prometheus_client import CollectorRegistry

from passrelay_ops import metrics_reference
from passrelay_schemas import metrics_page
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.health import Health, Pulse, dead
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, write_public
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.metrics import CommonMetrics
from passrelay_schemas.process_settings import MetricsSettings
from passrelay_schemas.secret import Secret
from tests.unit.builders import Party

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = metrics_reference.families()
NAMES_MD = [
    "passrelay_events_total",
    "passrelay_stage_seconds",
    "passrelay_end_to_end_seconds",
    "passrelay_spool_events",
    "passrelay_spool_oldest_seconds",
    "passrelay_spool_bytes",
    "passrelay_spool_free_bytes",
    "passrelay_capture_pending",
    "passrelay_dead_letters",
    "passrelay_retry_messages",
    "passrelay_directory_up",
    "passrelay_directory_probe",
    "passrelay_consumer_paused",
    "passrelay_last_capture_timestamp_seconds",
    "passrelay_last_apply_timestamp_seconds",
    "passrelay_key_expiry_timestamp_seconds",
    "passrelay_certificate_expiry_timestamp_seconds",
    "passrelay_build_info",
]
"""Dashboards and alerts of others use these."""
LABELS = frozenset(
    [
        "stage",
        "outcome",
        "reason",
        "state",
        "recipient_key_id",
        "tier",
        "server",
        "check",
        "producer",
        "key_id",
        "name",
        "version",
        "python",
    ]
)
"""What a label may say. None of these is an account."""


def test_the_metrics_page_of_the_documentation_is_current() -> None:
    written = (ROOT / "docs/metrics.md").read_text()
    assert written == metrics_reference.page(), "run: python -m passrelay_ops.metrics_reference docs/metrics.md"


def test_every_agreed_name_is_shown_by_some_service() -> None:
    assert set(NAMES_MD) <= {family.name for families in FAMILIES.values() for family in families}


@pytest.mark.parametrize("service", FAMILIES)
def test_no_label_can_hold_an_account(service: str) -> None:
    assert {label for family in FAMILIES[service] for label in family.labels} <= LABELS


def test_one_name_means_the_same_wherever_it_is_shown() -> None:
    different = {family for families in FAMILIES.values() for family in families}
    assert len(different) == len({family.name for family in different})


class Page:
    """A page of a service whose troubles the test sets."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.dead: list[str] = []
        self.lacking: list[str] = []
        self.capsys = capsys
        registry = CommonMetrics().registry
        self.stop = metrics_page.serve(registry, self.health(), MetricsSettings(listen="127.0.0.1:0"), self.log())

    def health(self) -> Health:
        return Health(lambda: self.dead, lambda: self.lacking)

    def log(self) -> Log:
        page = self

        class Listening(Log):
            def info(self, action: Action, **fields: object) -> None:
                page.address = fields["address"]

        return Listening("test")

    address: object = None

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def page(capsys: pytest.CaptureFixture[str]) -> Page:
    return Page(capsys)


def test_health_is_200_and_ok_or_503_and_what_is_wrong(page: Page) -> None:
    try:
        assert page.get("/healthz") == (200, "ok\n")
        assert page.get("/readyz") == (200, "ok\n")
        page.lacking = ["broker: not connected", "IdM: no server passes its probe"]
        assert page.get("/healthz") == (200, "ok\n")
        assert page.get("/readyz") == (503, "broker: not connected\nIdM: no server passes its probe\n")
        page.dead = ["thread worker-0: not running"]
        assert page.get("/healthz") == (503, "thread worker-0: not running\n")
        assert "passrelay_build_info" in page.get("/metrics")[1]
    finally:
        page.stop()


def test_an_address_that_is_taken_is_named_with_its_repair(page: Page) -> None:
    try:
        with pytest.raises(ConfigurationError, match=r"\[metrics\] listen .*take another port"):
            metrics_page.serve(
                CollectorRegistry(), page.health(), MetricsSettings(listen=str(page.address)), Log("test")
            )
    finally:
        page.stop()


def test_no_page_without_an_address(page: Page) -> None:
    page.stop()
    metrics_page.serve(CollectorRegistry(), page.health(), MetricsSettings(), Log("test"))()


def test_a_loop_that_hangs_is_told() -> None:
    pulse = Pulse("main thread", most_seconds=60)
    assert pulse.troubles() == []
    late = Pulse("main thread", most_seconds=-1)
    assert late.troubles() == ["main thread: has not turned for 0 s"]


def test_a_thread_that_ended_is_told() -> None:
    ended = threading.Thread(target=lambda: None, name="worker-0")
    ended.start()
    ended.join()
    assert dead([ended, threading.main_thread()]) == ["thread worker-0: not running"]


def test_of_two_certificate_files_with_one_name_the_earlier_end_is_shown(tmp_path: Path) -> None:
    soon, late = tmp_path / "soon" / "ca.pem", tmp_path / "late" / "ca.pem"
    for path, ends in ((soon, datetime(2027, 1, 1, tzinfo=UTC)), (late, datetime(2030, 1, 1, tzinfo=UTC))):
        path.parent.mkdir()
        trustme.CA().issue_cert("rabbit", not_after=ends).cert_chain_pems[0].write_to_path(str(path))
    for first, second in ((soon, late), (late, soon)):
        metrics = CommonMetrics()
        metrics.watch_certificates(BrokerSettings(url=Secret("amqp://guest:guest@localhost"), ca_file=first), second)
        shown = metrics.registry.get_sample_value("passrelay_certificate_expiry_timestamp_seconds", {"name": "ca.pem"})
        assert shown == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def test_only_keys_in_use_have_an_expiry(tmp_path: Path) -> None:
    expiry = datetime(2027, 1, 1, tzinfo=UTC)
    document = Party().signing.model_copy(update={"expires_at": expiry})
    write_public(tmp_path, document)
    metrics, labels = CommonMetrics(), {"key_id": document.key_id}

    def shown() -> float | None:
        metrics.watch_keys(Keyring(tmp_path))
        return metrics.registry.get_sample_value("passrelay_key_expiry_timestamp_seconds", labels)

    assert shown() == expiry.timestamp()
    write_public(tmp_path, document.with_status(KeyStatus.RETIRED))
    assert shown() is None
