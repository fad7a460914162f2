"""A deployment as a monitor sees it: producer, consumer, watcher, and a Prometheus with the shipped alerts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from passrelay_schemas import filetime
from tests.integration.test_watch import NAME, OK, PRODUCER, Site, becomes
from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.enrolment import DOMAIN, DOMAIN_SID
from tests.lab.folder import canary_password
from tests.lab.network import Reservations
from tests.lab.process import wait_for
from tests.lab.prometheus import Prometheus
from tests.lab.relay import LineProducer, Service
from tests.lab.small_disk import small_disk

DISK_MEGABYTES = 300
"""Of the producer's spool: enough for the alert on its room to be quiet."""


class MonitoredSite(Site):
    """Each service keeps the address of its metrics page over a restart, as Prometheus's configuration needs it."""

    def __init__(self, folder: Path, broker: Broker, directory: Directory, reservations: Reservations) -> None:
        super().__init__(folder, broker, directory)
        self.reservations = reservations
        self.pages: dict[str, str] = {}

    def write_config(self, name: str, document: dict[str, Any]) -> Path:
        """The address in place of "any free port"."""
        if "metrics" in document:
            page = self.pages.setdefault(name, f"127.0.0.1:{self.reservations.port()}")
            document = {**document, "metrics": {"listen": page}}
        return super().write_config(name, document)


class Watched:
    """What stands; `run` starts it. The user NAME is in IdM."""

    def __init__(self, site: MonitoredSite, *, idm: dict[str, Any] | None = None, **consumer: Any) -> None:
        self.site = site
        self.producer: LineProducer = site.line_producer(PRODUCER)
        # IdM's servers are probed once a minute as shipped.
        self.consumer: Service = site.consumer("consumer", idm={"probe_seconds": 1, **(idm or {})}, **consumer)
        self.watcher = site.watcher()
        jobs = {
            f"passrelay-{job}": page for job, page in zip(("producer", "consumer", "watch"), self._pages, strict=True)
        }
        self.prometheus = Prometheus(site.folder / "prometheus", site.reservations, jobs)
        self._guids: dict[str, UUID] = {}
        self.sent: set[str] = set()
        """The ids of all events."""
        self._kvno = 0

    @property
    def _pages(self) -> list[str]:
        return [self.site.pages[service.name] for service in (self.producer, self.consumer, self.watcher)]

    @contextmanager
    def run(self) -> Iterator[None]:
        """All of it runs, and Prometheus sees all of it."""
        self.site.directory.add_user(NAME)
        try:
            for service in (self.producer, self.consumer, self.watcher):
                service.start()
                becomes(service, "/readyz", OK)
            with self.prometheus.running():
                yield
        finally:
            self.site.directory.delete_user(NAME)

    def change(self, name: str = NAME) -> str:
        """Captured: the user's password changes once more. The new one."""
        self._kvno += 1
        password = canary_password()
        account = {
            "guid": str(self._guids.setdefault(name, uuid4())),
            "sid": f"{DOMAIN_SID}-{2001 + len(self._guids)}",
            "sam_account_name": name,
        }
        line = {"domain": DOMAIN, "account": account, "password": password, "kvno": self._kvno}
        [answer] = self.producer.send([{**line, "changed_at": filetime.now()}])
        self.sent.add(answer["event_id"])
        return password

    def wait_until_all_ended(self) -> None:
        """Every event has its outcome."""
        wait_for(lambda: self.sent <= self.site.outcomes().keys(), what="every outcome", interval_seconds=0.5)

    def rotate_signing_key(self) -> None:
        """As docs/keys.md says; what is left of the old one, retired, is carried to the consumers too."""
        old, directory = self.site.sender.signer.document.key_id, self.site.enrolment.producer_keys(PRODUCER)
        before = set(directory.glob("*.pub.json"))
        there: tuple[str | Path, ...] = ("--directory", directory, "--role", "producer")
        self.site.passrelay("keys", "rotate", "signing", *there)
        [new] = set(directory.glob("*.pub.json")) - before
        self.site.passrelay("keys", "enroll", new, *self.at_consumers, "--yes")
        self.site.passrelay("keys", "rotate", "signing", "--activate", *there, "--yes")
        self.site.passrelay("keys", "enroll", directory / f"{old}.pub.json", *self.at_consumers, "--yes")

    @property
    def at_consumers(self) -> tuple[str | Path, ...]:
        """For `passrelay keys`: the directory that consumer and watcher read."""
        return ("--directory", self.site.enrolment.consumer_keys, "--role", "consumer")

    def dead(self, *arguments: str) -> str:
        """What an operator does to dead letters."""
        done = ("--yes", "--reason-text", "ticket 1", "--config", self.site.ops_config())
        return self.site.passrelay("dead", *arguments, *done)


@contextmanager
def prepared(folder: Path, broker: Broker, directory: Directory, reservations: Reservations) -> Iterator[MonitoredSite]:
    """A site with one enrolled producer, whose spool has a small disk of its own, and empty queues."""
    if not broker.running:
        broker.start()
    site = MonitoredSite(folder, broker, directory, reservations)
    site.sender = site.enrolment.enrol(PRODUCER)
    site.prepare()
    broker.purge_all()
    with small_disk(site.spool(PRODUCER).parent, DISK_MEGABYTES):
        try:
            yield site
        finally:
            site.close()
    if not broker.running:
        broker.start()
    broker.purge_all()


@pytest.fixture(scope="module")
def monitored(
    tmp_path_factory: pytest.TempPathFactory,
    shared_broker: Broker,
    shared_directory: Directory,
    reservations: Reservations,
) -> Iterator[MonitoredSite]:
    """One for the tests of a module: each leaves it as it was."""
    folder = tmp_path_factory.mktemp("alerts") / "site"
    with prepared(folder, shared_broker, shared_directory, reservations) as site:
        yield site
