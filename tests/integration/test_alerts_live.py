"""Faults that are really caused make the shipped alerts fire in a real Prometheus, and their repair ends them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_schemas import topology
from passrelay_schemas.verdict import Reason
from tests.integration.test_watch import NAME, OK, PRODUCER, Site, ask, becomes, site
from tests.lab.certificates import CertificateAuthority
from tests.lab.dead_mail import DeadMail
from tests.lab.enrolment import DOMAIN, DOMAIN_SID
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.prometheus import Prometheus, quicker
from tests.lab.relay import LineProducer, Service
from tests.lab.samba import DomainController

__all__ = ["site"]  # a fixture

pytestmark = pytest.mark.integration

FACTOR = 60
"""A minute becomes a second."""


class Watched:
    """A producer, a consumer, a watcher, and a Prometheus that sees all three."""

    def __init__(self, site: Site, reservations: Reservations) -> None:
        self.site = site
        site.enrolment.producers.remove("dc2")
        site.prepare()
        self.producer: LineProducer = site.line_producer(PRODUCER)
        self.consumer: Service = site.consumer("consumer")
        self.watcher = site.watcher()
        jobs = {}
        for job, service in (("producer", self.producer), ("consumer", self.consumer), ("watch", self.watcher)):
            service.start()
            becomes(service, "/readyz", OK)
            jobs[f"passrelay-{job}"] = service.lines("metrics_listening")[-1]["address"]
        self.prometheus = Prometheus(site.folder / "prometheus", reservations, jobs, factor=FACTOR)
        self.prometheus.start()
        self._guid = uuid4()
        self._kvno = 0

    def change(self) -> dict[str, Any]:
        """One more change of a user who is in IdM."""
        self._kvno += 1
        return {
            "domain": DOMAIN,
            "account": {"guid": str(self._guid), "sid": f"{DOMAIN_SID}-2001", "sam_account_name": NAME},
            "password": canary_password(),
            "kvno": self._kvno,
            "changed_at": 134 * 10**15 + self._kvno,
        }


@pytest.fixture
def watched(site: Site, reservations: Reservations) -> Iterator[Watched]:
    made = Watched(site, reservations)
    try:
        site.directory.add_user(NAME)
        made.prometheus.wait_until_firing()
        yield made
    finally:
        made.prometheus.stop()
        site.directory.delete_user(NAME)


def test_letters_queues_directory_and_producer(watched: Watched) -> None:
    site, prometheus = watched.site, watched.prometheus

    DeadMail(site.broker, site.enrolment, site.sender, 1, prefix=NAME).write(iter([Reason.POLICY, Reason.USER_MISSING]))
    prometheus.wait_until_firing("PassrelayDeadLetters")
    reason = ("--reason", "policy", "--yes", "--reason-text", "ticket 1")
    site.passrelay("dead", "discard", *reason, "--config", site.ops_config())
    prometheus.wait_until_firing()

    site.directory.stop()
    watched.producer.send([watched.change()])
    prometheus.wait_until_firing("PassrelayDirectoryDown", "PassrelayConsumerPaused")
    site.directory.start()
    prometheus.wait_until_firing()

    # A queue that is bound no more: the producer keeps the event, and nothing else is wrong.
    connection = BlockingConnection(site.broker.parameters())
    connection.channel().queue_unbind(topology.EVENTS, topology.EVENTS, "")
    watched.producer.send([watched.change()])
    prometheus.wait_until_firing("PassrelaySpoolOld")
    connection.channel().queue_bind(topology.EVENTS, topology.EVENTS, "")
    connection.close()
    prometheus.wait_until_firing()

    site.broker.stop()
    prometheus.wait_until_firing("PassrelayBrokerUnreachable", "PassrelayWatchMissing")
    site.broker.start()
    prometheus.wait_until_firing()

    watched.consumer.stop()
    prometheus.wait_until_firing("PassrelayNoConsumer", "PassrelayTargetDown")
    watched.producer.stop()
    prometheus.wait_until_firing("PassrelayNoConsumer", "PassrelayTargetDown", "PassrelayProducerSilent")


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


def test_a_domain_controller_that_cannot_be_read(
    site: Site, controller: DomainController, reservations: Reservations
) -> None:
    samba = {"ldapi_path": controller.ldapi_path, "gpg_key_file": controller.gpg_key_file, "poll_ms": 50}
    producer = site.samba_producer(PRODUCER, samba)
    producer.start()
    page = producer.lines("metrics_listening")[-1]["address"]
    prometheus = Prometheus(site.folder / "prometheus", reservations, {"passrelay-producer": page}, factor=FACTOR)
    prometheus.start()
    try:
        prometheus.wait_until_firing("PassrelayWatchMissing")  # there is none in this test
        becomes(producer, "/readyz", OK)
        controller.kill()
        becomes(producer, "/readyz", (503, "source: cannot be read\n"))
        assert ask(producer, "/healthz") == OK  # a restart would repair nothing
        prometheus.wait_until_firing("PassrelayWatchMissing", "PassrelaySourceDown")
        controller.start()
        # Nobody changes a password: that the source holds is enough.
        becomes(producer, "/readyz", OK)
        prometheus.wait_until_firing("PassrelayWatchMissing")
    finally:
        prometheus.stop()
    assert producer.stop() == 0


def test_every_window_is_divided() -> None:
    text = "for: 2m\n expr: increase(x[70m]) > 0 and y offset 30m\n for: 1h\n for: 30s\n a_oldest_seconds > 900"
    quick = "for: 2s\n expr: increase(x[70s]) > 0 and y offset 30s\n for: 60s\n for: 1s\n a_oldest_seconds > 15"
    assert quicker(text, 60) == quick
