"""Nothing stale with two IdM servers that replicate: whatever is cut, both end with every user's newest password."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from passrelay_schemas import filetime
from passrelay_schemas.event import Kind, PasswordChanged
from passrelay_schemas.verdict import Verdict
from tests.faults.campaign import Campaign, wait_until_quiet
from tests.faults.schedule import schedule
from tests.faults.stale import stale
from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.enrolment import Sender, change
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.process import wait_for
from tests.lab.relay import Relay
from tests.lab.replication import Suppliers
from tests.lab.tiers import short_tiers

pytestmark = pytest.mark.acceptance

CUTS = 10
"""`python -m tests.faults.cuts` makes fifty, or as many as you like."""


@dataclass(frozen=True)
class Site:
    """A deployment with an empty broker and no consumer yet."""

    relay: Relay
    suppliers: Suppliers
    sender: Sender


@pytest.fixture(scope="module")
def suppliers(lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority) -> Iterator[Suppliers]:
    pair = Suppliers(lab_folder.path / "two", reservations, ca, storage_scheme="SSHA512")
    try:
        pair.start()
        yield pair
    finally:
        pair.close()


@pytest.fixture
def site(tmp_path: Path, shared_broker: Broker, suppliers: Suppliers) -> Iterator[Site]:
    relay = Relay(tmp_path / "relay", shared_broker, suppliers.a)
    try:
        sender = relay.enrolment.enrol("dc1")
        relay.prepare()
        with short_tiers(shared_broker):
            yield Site(relay, suppliers, sender)
            relay.close()
    finally:
        relay.close()
        suppliers.heal()
        suppliers.show(suppliers.a)
        shared_broker.purge_all()


def test_both_hold_every_newest_password_after_cuts_at_random_moments(site: Site) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    plan = schedule(dice, CUTS)
    result = Campaign(site.relay, site.suppliers, site.sender, settle=True).run(plan, dice)
    print(f"{result.users} users, {result.events} changes, {result.written_again} written again")
    assert result.stale == {"a": [], "b": []}
    assert result.dead == 0


class Conflict:
    """One user, an older and a newer password, and one consumer; the suppliers are cut apart."""

    def __init__(self, site: Site, user: str, *, settle: bool) -> None:
        self.site = site
        self.suppliers = site.suppliers
        self.events = 0
        self._user = user
        self._guid = uuid4()
        self.older, self.newer = (self._change(canary_password(), kvno) for kvno in (200, 300))
        self.suppliers.a.add_users([user])
        self.suppliers.wait_in_sync()
        self.start_consumer(settle=settle)
        self.suppliers.cut()

    def start_consumer(self, *, settle: bool) -> None:
        """One more consumer."""
        idm = {"servers": list(self.suppliers.urls.values()), "probe_seconds": 1, "settle": settle}
        self.site.relay.consumer(f"consumer{len(self.site.relay.services)}", idm=idm).start()

    def _change(self, password: str | None, kvno: int, **more: Any) -> PasswordChanged:
        return change(self._user, password, guid=self._guid, kvno=kvno, changed_at=filetime.now(), **more)

    def deliver(self, event: PasswordChanged) -> None:
        """Publish, and wait for the outcome."""
        self.site.relay.publish([self.site.sender.envelope(event)])
        self.events += 1
        wait_for(lambda: len(self.site.relay.outcomes()) == self.events, what=f"the outcome of {event.kvno}")

    def stage(self) -> None:
        """A alone takes the newer password; the older one comes late, to B, which counts as the last writer."""
        self.deliver(self.newer)
        self.suppliers.overtake(self.suppliers.b)
        self.suppliers.hide(self.suppliers.a)
        self.deliver(self.older)
        self.suppliers.show(self.suppliers.a)

    def tear(self) -> None:
        """A alone takes the must-change step of the newer password, as the last writer: of the marker only."""
        self.suppliers.overtake(self.suppliers.a)
        self.deliver(self._change(None, self.newer.kvno, kind=Kind.EXPIRE, must_change=True))

    def heal(self, *, settle: bool) -> None:
        """Until nothing more happens."""
        self.suppliers.heal()
        wait_until_quiet(self.site.relay, self.events, settle=settle)
        self.suppliers.wait_in_sync()

    def stale(self) -> list[list[str]]:
        """What either server does not have as the newer password has it."""
        truth = {self._user: self.newer}
        return [stale(self.suppliers.a, truth), stale(self.suppliers.b, truth)]


def test_a_newer_password_that_one_server_took_alone_is_not_undone(site: Site) -> None:
    conflict = Conflict(site, "alone", settle=True)
    conflict.stage()
    conflict.heal(settle=True)
    assert conflict.stale() == [[], []]


@pytest.mark.parametrize(
    ("torn", "shows"),
    [
        (False, "marker at kvno 200, newest is 300"),
        (True, "marker of kvno 300 and proof of kvno 200 are of two changes"),
    ],
)
def test_without_settling_it_is_undone_and_settling_afterwards_mends_it(site: Site, torn: bool, shows: str) -> None:
    conflict = Conflict(site, f"afterwards{torn}", settle=False)
    conflict.stage()
    if torn:
        conflict.tear()
    conflict.heal(settle=False)
    assert [found.verdict for found in site.relay.outcomes().values()] == [Verdict.APPLIED] * conflict.events
    fault = f"afterwards{torn}: {shows}, the newest password does not bind"
    assert conflict.stale() == [[fault], [fault]]

    site.relay.services.pop().stop()
    conflict.start_consumer(settle=True)
    site.relay.passrelay("settle", "--since", "1h", "--config", site.relay.ops_config())
    conflict.heal(settle=True)
    assert conflict.stale() == [[], []]
