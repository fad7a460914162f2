"""Two IdM servers with IPA's plugin, of which one lacks our DN: nobody is expired at any moment, and it comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from passrelay_schemas.process_settings import ConsumerTableSettings
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import Verdict
from tests.faults.campaign import wait_until_quiet
from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.expiry_sampler import ExpirySampler
from tests.lab.folder import LabFolder
from tests.lab.ipa_directory import PLUGIN_DN, IpaDirectory
from tests.lab.ipa_plugin import Plugin
from tests.lab.ipa_suppliers import IpaSuppliers
from tests.lab.load import Population
from tests.lab.network import Reservations
from tests.lab.process import wait_for
from tests.lab.relay import LineProducer, Relay, Service
from tests.lab.tiers import short_tiers

pytestmark = [pytest.mark.acceptance, pytest.mark.ipa]

USERS = 48
"""More than consumers can have in work while a server is taken off the list, so that the bound says something."""
PAUSE_SECONDS = 0.1
"""Between changes: what two servers with IPA's plugin on a small machine can take for a while."""
WORKERS = 2
IN_WORK = ConsumerTableSettings(workers=WORKERS).threads
TIMES = 3
_TURNS = ("directory_expires", "directory_up")
REPAIR = "passrelay idm managers add"


@pytest.fixture(scope="module")
def suppliers(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority, ipa_plugin: Plugin
) -> Iterator[IpaSuppliers]:
    pair = IpaSuppliers(lab_folder.path / "ipa-two", reservations, ca, ipa_plugin)
    # One Directory Manager's password for both, as the operator's command needs it.
    pair.b._root_password = pair.a._root_password
    try:
        pair.start()
        yield pair
    finally:
        pair.close()


class Flow:
    """Changes of random users, one after the other, until it is stopped."""

    def __init__(self, producer: LineProducer, population: Population) -> None:
        self._producer = producer
        self._population = population
        self._stop = threading.Event()
        self._fault: BaseException | None = None
        self.sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        names = list(self._population.history)
        try:
            while not self._stop.wait(PAUSE_SECONDS):
                made = self._population.change(self._population.random.choice(names))
                self._producer.send([made.line()])
                self.sent += 1
        except BaseException as error:  # noqa: BLE001 - raised where the flow is stopped
            self._fault = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault


@dataclass
class Site:
    """Two consumers, a producer that reads lines, and both servers watched."""

    relay: Relay
    suppliers: IpaSuppliers
    consumers: list[Service]
    producer: LineProducer
    population: Population

    def url(self, server: IpaDirectory) -> str:
        """Where consumers reach it."""
        return self.suppliers.urls[server]

    def wait_for_applied(self, server: IpaDirectory, count: int = 10) -> None:
        """Until some more writes were made at this server."""
        before = self._applied(server)
        wait_for(
            lambda: self._applied(server) >= before + count,
            what=f"{count} writes at {self.url(server)}",
            timeout_seconds=180,
            interval_seconds=1,
        )

    def _applied(self, server: IpaDirectory) -> int:
        return len([found for found in self.written() if found.server == self.url(server)])

    def written(self) -> list[Record]:
        """Every write on record, the oldest first."""
        return [found for found in self.relay.records() if found.verdict is Verdict.APPLIED]

    def wait_for_alarm(self, server: IpaDirectory) -> None:
        """Until each consumer says that this server expires passwords, and what to do."""
        url = self.url(server)
        for consumer in self.consumers:
            alarm = partial(_alarm, consumer, url)
            wait_for(partial(_raised, alarm), what=f"{consumer.name}'s alarm", interval_seconds=0.2)
            assert REPAIR in alarm()
            assert consumer.metric("passrelay_directory_probe", server=url, check="expiry") == 0
            assert consumer.metric("passrelay_directory_up", server=url) == 0

    def repair(self) -> None:
        """What the alarm asks for, as an operator does it."""
        config = self.relay.write_config("repair", {**self._ops()})
        key = self.suppliers.a.manager_file
        self.relay.passrelay(*REPAIR.split()[1:], "--yes", "--bind-password-file", key, "--config", config)

    def _ops(self) -> dict[str, Any]:
        servers = [server.ldaps_url for server in (self.suppliers.a, self.suppliers.b)]
        return {
            "broker": {"url": "amqp://127.0.0.1/"},
            "idm": self.relay.idm(servers=servers),
            "domain": self.relay.domains,
        }

    def faults(self) -> list[str]:
        """What is wrong at either server at the end."""
        found = []
        for server in (self.suppliers.a, self.suppliers.b):
            self.population.directory = server
            found += [f"{self.url(server)}: {fault}" for fault in self.population.faults()]
        return found


def _raised(alarm: Callable[[], str]) -> bool:
    return bool(alarm())


def _alarm(consumer: Service, url: str) -> str:
    """The repair that the consumer's log names for this server now; empty when none."""
    alarms, ups = ([line["timestamp"] for line in consumer.lines(action) if line["server"] == url] for action in _TURNS)
    if not alarms or (ups and ups[-1] > alarms[-1]):
        return ""
    return str(consumer.lines("directory_expires")[-1]["repair"])


@pytest.fixture
def site(tmp_path: Path, shared_broker: Broker, suppliers: IpaSuppliers) -> Iterator[Site]:
    relay = Relay(tmp_path / "relay", shared_broker, suppliers.a)
    try:
        relay.enrolment.enrol("dc1")
        relay.prepare()
        population = Population(suppliers.a, USERS, seed=3)
        suppliers.wait_in_sync()
        idm = {"servers": list(suppliers.urls.values()), "probe_seconds": 1}
        consumers = [relay.consumer(f"consumer{number}", workers=WORKERS, idm=idm) for number in range(2)]
        with short_tiers(shared_broker):
            yield Site(relay, suppliers, consumers, relay.line_producer("dc1"), population)
            relay.close()
    finally:
        relay.close()
        suppliers.show(suppliers.a)
        for server in (suppliers.a, suppliers.b):
            server.set_managers(server.service_dn)
        shared_broker.purge_all()


def _finish(site: Site, flow: Flow) -> None:
    flow.stop()
    wait_until_quiet(site.relay, flow.sent, settle=True)
    site.suppliers.wait_in_sync(timeout_seconds=180)


def _start(site: Site) -> Flow:
    for consumer in site.consumers:
        consumer.start()
    site.producer.start()
    return Flow(site.producer, site.population)


def test_the_first_server_of_the_list_lacks_our_dn(site: Site) -> None:
    a, b = site.suppliers.a, site.suppliers.b
    a.set_managers()
    with ExpirySampler([a, b]) as sampler:
        flow = _start(site)
        site.wait_for_alarm(a)
        site.wait_for_applied(b)
        site.repair()
        # Again the first one, and no consumer was started anew.
        site.wait_for_applied(a)
        _finish(site, flow)
    assert sampler.expired == []
    assert min(sampler.looks.values()) > 20, "hardly looked"
    assert site.faults() == []


def test_the_server_that_would_take_over_lacks_our_dn(site: Site) -> None:
    a, b = site.suppliers.a, site.suppliers.b
    b.set_managers()
    with ExpirySampler([a, b]) as sampler:
        flow = _start(site)
        site.wait_for_applied(a)
        site.suppliers.hide(a)
        site.wait_for_alarm(b)
        site.repair()
        site.wait_for_applied(b)
        site.suppliers.show(a)
        site.wait_for_applied(a)
        _finish(site, flow)
    assert sampler.expired == []
    assert min(sampler.looks.values()) > 20, "hardly looked"
    assert site.faults() == []


@pytest.mark.parametrize("sees_the_list", [True, False])
def test_taken_off_the_list_in_the_midst_of_it(site: Site, sees_the_list: bool) -> None:
    """Without a look at the list before each write some are expired, but only until the look after it."""
    a, b = site.suppliers.a, site.suppliers.b
    rules = a.read_entry(PLUGIN_DN)["aci"]
    if not sees_the_list:
        a.change_rules(PLUGIN_DN, delete=rules)
    try:
        with ExpirySampler([a, b]) as sampler:
            flow = _start(site)
            for _ in range(TIMES):
                site.wait_for_applied(a)
                a.set_managers()
                site.wait_for_alarm(a)
                site.repair()
            site.wait_for_applied(a)
            _finish(site, flow)
    finally:
        if not sees_the_list:
            a.change_rules(PLUGIN_DN, add=rules)
    seen = [(sight.user, sight.server, f"{sight.seconds * 1000:.0f} ms") for sight in sampler.expired]
    print(f"taken off {TIMES} times, seen expired: {seen}")
    assert len({sight.user for sight in sampler.expired}) <= TIMES * len(site.consumers) * IN_WORK
    with ExpirySampler([a, b]) as afterwards:
        wait_for(lambda: min(afterwards.looks.values()) > 0, what="one more look at each")
    assert afterwards.expired == []
    assert site.faults() == []
