"""Wrong clocks: the final passwords are right, and nobody is shut out in silence.

A domain controller an hour ahead or a year back, with its producer, and consumers ten minutes ahead and behind; the
clocks of single processes are moved by libfaketime.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from passrelay_consumer.directory import generalized_time, parse_generalized_time
from passrelay_schemas import filetime, topology
from passrelay_schemas.marker import MUST_CHANGE_DONE, Marker
from tests.lab.certificates import CertificateAuthority
from tests.lab.clock import environment
from tests.lab.enrolment import change
from tests.lab.folder import LabFolder, canary_password
from tests.lab.load import Population
from tests.lab.network import Reservations
from tests.lab.process import LabError, run_tool, wait_for
from tests.lab.relay import PASSRELAY, Relay, Service
from tests.lab.samba import DomainController

pytestmark = pytest.mark.acceptance

HOUR, YEAR, TEN_MINUTES = timedelta(hours=1), timedelta(days=365), timedelta(minutes=10)
BEFORE_THE_CERTIFICATES = timedelta(days=-10_000)
"""Last century, like a host whose clock has lost its battery; the lab's certificates begin in the year 2000."""
NO_TIME = timedelta()


class Site:
    """A domain controller and its producer on one host: they share a clock."""

    def __init__(self, dc: DomainController, relay: Relay) -> None:
        self.dc = dc
        self.name = dc.name
        samba = {"ldapi_path": dc.ldapi_path, "gpg_key_file": dc.gpg_key_file}
        self.producer = relay.samba_producer(dc.name, samba)
        self._true_time = dc.env
        self.producer.start()

    def set_clock(self, ahead: timedelta) -> None:
        """Both are stopped and started with the new clock."""
        self.producer.stop()
        self.dc.stop()
        self.dc.env = environment(ahead, self._true_time) if ahead else self._true_time
        self.producer.process.env = environment(ahead) if ahead else None
        self.dc.start()
        self.producer.start()

    def close(self) -> None:
        """Leave the controller with the true time."""
        self.producer.stop()
        if self.dc.env is not self._true_time:
            self.dc.stop()
            self.dc.env = self._true_time
            self.dc.start()


class Users:
    """AD users and their entries in IdM; the newest password of each as AD itself has it in the end."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.newest: dict[str, str] = {}
        self.older: dict[str, list[str]] = {}

    def add(self, dc: DomainController, name: str, **idm: str) -> None:
        self.newest[name] = canary_password()
        self.older[name] = []
        self.relay.directory.add_user(name, canary_password(), **idm)
        dc.add_user(name, self.newest[name])

    def reset(self, dc: DomainController, name: str, *, final: bool = True, must_change: bool = False) -> None:
        """One more password; `final` is False where AD itself will decide for another one."""
        made = canary_password()
        dc.ldaps_reset(name, made, must_change=must_change)
        if final:
            self.older[name].append(self.newest[name])
            self.newest[name] = made
        else:
            self.older[name].append(made)

    def wait(self, *names: str) -> None:
        """Until the newest password of these, or of all, works in IdM."""
        for name in names or self.newest:
            wait_for(
                lambda name=name: self.relay.directory.binds(name, self.newest[name]),  # type: ignore[misc]
                what=f"the newest password of {name} in IdM",
                timeout_seconds=60,
                interval_seconds=0.2,
            )

    def faults(self) -> list[str]:
        """What does not work in IdM although it should, and what works although it should not."""
        binds = self.relay.directory.binds
        faults = [f"{name}: the newest is refused" for name, newest in self.newest.items() if not binds(name, newest)]
        return faults + [
            f"{name}: an older one works"
            for name, passwords in self.older.items()
            for old in passwords
            if binds(name, old)
        ]


def _quiet(relay: Relay, *producers: Service) -> None:
    """Nothing is on its way any more: no spool and no queue holds anything, and every event has its outcome."""
    for producer in producers:
        wait_for(
            lambda producer=producer: producer.metric("passrelay_spool_events", state="queued") == 0,  # type: ignore[misc]
            what=f"the spool of {producer.name} is empty",
        )
    names = {topology.EVENTS, *(tier.queue for tier in topology.TIERS)}
    wait_for(lambda: not any(relay.broker.queue_depths()[name] for name in names), what="empty queues")
    for producer in producers:
        wait_for(
            lambda name=producer.name: relay.captured(name) <= relay.outcomes().keys(),  # type: ignore[misc]
            what=f"an outcome of each event of {producer.name}",
        )


def _clock_lines(service: Service, **fields: str) -> list[dict[str, Any]]:
    lines = service.lines("clock_off")
    return [line for line in lines if all(line.get(name) == value for name, value in fields.items())]


@pytest.fixture(scope="module")
def controllers(ca: CertificateAuthority) -> Iterator[tuple[DomainController, DomainController]]:
    """Two of one domain, both with the true time."""
    folder, reservations = LabFolder(), Reservations()
    first = DomainController(folder.path, reservations, ca)
    second = DomainController.join(first, folder.path, reservations, ca)
    try:
        first.start()
        second.start()
        yield first, second
    finally:
        second.stop()
        first.stop()
        reservations.release()
        folder.remove()


def _prepare(relay: Relay, *dcs: DomainController) -> None:
    for dc in dcs:
        relay.enrolment.enrol(dc.name)
    base = relay.directory.search_base
    relay.prepare(domains=[relay.enrolment.domain(base, name=dcs[0].dns_domain, sid=dcs[0].sid)])


def test_a_domain_controller_an_hour_ahead(
    relay: Relay, controllers: tuple[DomainController, DomainController]
) -> None:
    """Versions decide in AD and here, so a later change with an earlier time wins; at equal versions AD's own rule."""
    first, second = controllers
    _prepare(relay, first, second)
    consumer = relay.consumer("consumer")
    consumer.start()
    users = Users(relay)
    for name in ("ahead-only", "true-time-only", "same-version", "higher-version", "taken-over"):
        users.add(first, name)
    second.replicate()
    one, two = Site(first, relay), Site(second, relay)
    try:
        one.set_clock(HOUR)
        # The controllers do not replicate meanwhile, so that equal versions meet.
        for _ in range(2):
            users.reset(first, "ahead-only")
            users.reset(second, "true-time-only")
        users.reset(first, "same-version")
        users.reset(second, "same-version", final=False)
        users.reset(first, "higher-version")
        users.reset(second, "higher-version")
        users.reset(second, "higher-version")
        users.reset(first, "taken-over")
        users.wait("ahead-only", "taken-over")
        (line,) = _clock_lines(consumer, producer=one.name)
        assert line["ahead_seconds"] > 3000
        assert "clock" in line["repair"]
        assert consumer.metric("passrelay_clock_ahead_seconds", producer=one.name) > 3000
        one.set_clock(NO_TIME)
        second.replicate(first)
        first.replicate(second)
        users.reset(second, "taken-over")  # the next version, with a time an hour before the last one's
        for dc in controllers:
            assert dc.binds("same-version", users.newest["same-version"])
            assert dc.binds("higher-version", users.newest["higher-version"])
        users.wait()
        _quiet(relay, one.producer, two.producer)
        assert users.faults() == []
        assert _clock_lines(consumer, producer=two.name) == []
        assert relay.records(topology.DEAD) == []
    finally:
        one.close()
        two.close()


def test_a_domain_controller_a_year_back(relay: Relay, controllers: tuple[DomainController, DomainController]) -> None:
    """Right, or told: only IdM's own younger password stays, where passrelay has never written before."""
    dc, _ = controllers
    _prepare(relay, dc)
    consumer = relay.consumer("consumer")
    consumer.start()
    site = Site(dc, relay)
    users = Users(relay)
    now = generalized_time(datetime.now(UTC)).decode()
    users.add(dc, "marked", krbLastPwdChange=generalized_time(datetime.now(UTC) - HOUR).decode())
    users.wait("marked")
    try:
        site.set_clock(-YEAR)
        users.add(dc, "new-in-ad")
        users.add(dc, "young-in-idm", krbLastPwdChange=now)
        for _ in range(2):
            users.reset(dc, "marked")
        users.reset(dc, "new-in-ad", must_change=True)
        users.wait("marked", "new-in-ad")
        wait_for(lambda: bool(consumer.lines("idm_newer")), what="the warning")
        _quiet(relay, site.producer)
        lost = {record.event_id for record in relay.records() if record.reason == "idm_newer"}
        lines = consumer.lines("idm_newer")
        assert {line["event_id"] for line in lines} == {str(event_id) for event_id in lost}
        assert {(line["level"], line["producer"]) for line in lines} == {("warning", dc.name)}
        assert all("passrelay idm marker rebind" in line["repair"] for line in lines)
        assert consumer.metric("passrelay_events_total", outcome="superseded", reason="idm_newer") == len(lines)
        assert "young-in-idm" not in consumer.log.read_text()
        entry = relay.directory.read("new-in-ad")
        assert entry["krbPasswordExpiration"][0] <= entry["modifyTimestamp"][0]
        # The repair that the warning names; the clock itself may wait.
        guid = dc.account("young-in-idm")["guid"]
        ops, producer = relay.ops_config(), site.producer.config
        relay.passrelay("idm", "marker", "rebind", "young-in-idm", "--guid", guid, "--yes", "--config", ops)
        relay.passrelay("producer", "capture", "--user", "young-in-idm", "--config", producer)
        users.wait("young-in-idm")
        site.set_clock(NO_TIME)
        users.reset(dc, "young-in-idm")
        users.reset(dc, "marked")
        users.wait()
        _quiet(relay, site.producer)
        assert users.faults() == []
        assert relay.records(topology.DEAD) == []
    finally:
        site.close()


def test_consumers_ten_minutes_ahead_and_behind(relay: Relay) -> None:
    """Each writes IdM's time: a must-change holds at once, nothing lies in the future, and both say what is off."""
    sender = relay.enrolment.enrol("dc1")
    relay.prepare()
    directory = relay.directory
    consumers = {
        ahead: relay.consumer(f"consumer{ahead.total_seconds():+.0f}") for ahead in (TEN_MINUTES, -TEN_MINUTES)
    }
    for ahead, consumer in consumers.items():
        consumer.process.env = environment(ahead)
        consumer.start()
    names = [f"clocks{number}" for number in range(24)]
    directory.add_users(names)
    newest: dict[str, str] = {}
    envelopes = []
    for number, name in enumerate(names):
        guid = uuid4()
        for kvno in (1, 2):
            newest[name] = canary_password()
            event = change(
                name,
                newest[name],
                guid=guid,
                kvno=kvno,
                changed_at=filetime.now(),
                must_change=kvno == 2 and number % 2 == 0,
            )
            envelopes.append(sender.envelope(event))
    random.Random(7).shuffle(envelopes)
    for consumer in consumers.values():
        wait_for(lambda service=consumer: service.lines("broker_connected"), what="both connected")  # type: ignore[misc]
    relay.publish(envelopes)
    wait_for(lambda: relay.journal_depth() >= len(envelopes), what="every outcome", timeout_seconds=60)
    for number, name in enumerate(names):
        entry = directory.read(name)
        marker = Marker.parse(entry["passrelayMarker"][0])
        assert marker.kvno == 2
        assert directory.binds(name, newest[name])
        # By the server's own clock, which wrote modifyTimestamp: GeneralizedTime sorts as text.
        written = entry["modifyTimestamp"][0]
        assert entry["krbLastAdminUnlock"][0] <= written
        stamp = parse_generalized_time(written.encode())
        assert stamp is not None
        assert abs(datetime.fromisoformat(marker.applied_at) - stamp) < timedelta(minutes=1)
        assert (MUST_CHANGE_DONE in marker.flags) is (number % 2 == 0)
        if number % 2 == 0:
            assert entry["krbPasswordExpiration"][0] <= written
    for ahead, consumer in consumers.items():
        assert consumer.metric("passrelay_events_total", stage="consume", outcome="applied") > 0
        off = -ahead.total_seconds()
        (line,) = _clock_lines(consumer, server=directory.ldaps_url)
        assert abs(line["ahead_seconds"] - off) < 30
        assert "clock" in line["repair"]
        assert abs(consumer.metric("passrelay_clock_offset_seconds", server=directory.ldaps_url) - off) < 30
        # The producer's clock is right, whatever this consumer's own says.
        assert _clock_lines(consumer, producer="dc1") == []


def test_a_producer_with_a_clock_from_before_the_certificates(relay: Relay) -> None:
    """It cannot reach the broker and says why; what it captures waits, and arrives once its clock is right."""
    relay.enrolment.enrol("dc1")
    relay.prepare()
    population = Population(relay.directory, 3, seed=6)
    relay.consumer("consumer").start()
    producer = relay.line_producer("dc1")
    producer.process.env = environment(BEFORE_THE_CERTIFICATES)
    producer.start()
    answers = producer.send([made.line() for made in population.changes(6)])
    wait_for(lambda: bool(producer.lines("broker_lost")), what="the refusal")
    assert "certificate is not yet valid" in producer.lines("broker_lost")[0]["why"]
    assert producer.metric("passrelay_spool_events", state="queued") == 6
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    command = (PASSRELAY, "producer", "republish", "--since", yesterday, "--config", producer.config)
    with pytest.raises(LabError, match=r"(?s)exit 2.*set it right"):
        run_tool(command, env=producer.process.env)
    producer.stop()
    producer.process.env = None
    producer.start()
    wait_for(lambda: set(relay.outcomes()) == {answer["event_id"] for answer in answers}, what="every outcome")
    assert population.faults() == []
    assert relay.records(topology.DEAD) == []
