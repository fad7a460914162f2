"""Alerts on a Samba domain controller, really caused and repaired: a key that does not open, a controller killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_watch import OK, PRODUCER, ask, becomes
from tests.integration.watched import MonitoredSite, monitored
from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.openpgp import make_key
from tests.lab.process import wait_for
from tests.lab.prometheus import Prometheus
from tests.lab.samba import DomainController

__all__ = ["monitored"]  # a fixture

pytestmark = pytest.mark.integration


@pytest.fixture
def controller(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[DomainController]:
    dc = DomainController(lab_folder.path / "samba", reservations, ca)
    try:
        dc.start()
        yield dc
    finally:
        dc.stop()


def test_a_key_that_does_not_open_and_a_controller_that_cannot_be_read(
    monitored: MonitoredSite, controller: DomainController, tmp_path: Path
) -> None:
    key_file = tmp_path / "samba-gpg.key"
    _put(make_key(tmp_path / "another").file, key_file)
    samba = {"ldapi_path": controller.ldapi_path, "gpg_key_file": key_file, "poll_ms": 50}
    producer = monitored.samba_producer(PRODUCER, samba)
    producer.start()
    becomes(producer, "/readyz", OK)
    watcher = monitored.watcher()  # not scraped: PassrelaySourceDown must not need it
    watcher.start()
    page = {"passrelay-producer": monitored.pages[PRODUCER]}
    prometheus = Prometheus(monitored.folder / "prometheus", monitored.reservations, page)
    no_watch = "PassrelayWatchMissing"

    def heard(value: int) -> bool:
        return f'passrelay_producer_source_up{{producer="{PRODUCER}"}} {value}.0\n' in watcher.metrics()

    with prometheus.running(), prometheus.quiet(no_watch):
        controller.add_user("anna", canary_password())
        prometheus.wait_until_firing(no_watch, "PassrelayCapturePending")
        [sample] = prometheus.query("passrelay_capture_pending > 0")
        assert (sample["metric"]["reason"], sample["value"][1]) == ("key_missing", "1")
        _put(controller.gpg_key_file, key_file)
        prometheus.wait_until_firing(no_watch)
        wait_for(lambda: producer.metric("passrelay_events_total", outcome="published") == 1, what="it is on its way")

        wait_for(lambda: heard(1), what="its news say that all is well", timeout_seconds=120)
        controller.kill()
        becomes(producer, "/readyz", (503, "source: cannot be read\n"))
        assert ask(producer, "/healthz") == OK  # a restart would repair nothing
        prometheus.wait_until_firing(no_watch, "PassrelaySourceDown")
        wait_for(lambda: heard(0), what="the next news tell it to who scrapes no controller", timeout_seconds=120)
        # Nobody changes a password: that the source holds is enough.
        controller.start()
        becomes(producer, "/readyz", OK)
    assert [producer.stop(), watcher.stop()] == [0, 0]


def _put(key: Path, place: Path) -> None:
    new = place.with_suffix(".new")
    shutil.copy(key, new)
    new.chmod(0o600)
    new.replace(place)
