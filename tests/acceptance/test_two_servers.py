"""Nothing stale with two IdM servers that replicate: whatever is cut, both end with every user's newest password."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from passrelay_schemas import filetime
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


@pytest.mark.parametrize("settle", [True, False])
def test_a_newer_password_that_one_server_took_alone_is_not_undone(site: Site, settle: bool) -> None:
    """Without settling it is: both servers end with the older password, and nothing ever tells."""
    suppliers = site.suppliers
    a, b = suppliers.a, suppliers.b
    user = "with" if settle else "without"
    a.add_users([user])
    suppliers.wait_in_sync()
    guid = uuid4()
    older, newer = (
        change(user, canary_password(), guid=guid, kvno=kvno, changed_at=filetime.now()) for kvno in (200, 300)
    )
    idm = {"servers": list(suppliers.urls.values()), "probe_seconds": 1, "settle": settle}
    site.relay.consumer("consumer", idm=idm).start()

    suppliers.cut()
    site.relay.publish([site.sender.envelope(newer)])
    wait_for(lambda: len(site.relay.outcomes()) == 1, what="the newer password at a")
    suppliers.overtake(b)
    suppliers.hide(a)
    site.relay.publish([site.sender.envelope(older)])
    wait_for(lambda: len(site.relay.outcomes()) == 2, what="the outcome of the older password")
    suppliers.heal()
    suppliers.show(a)
    wait_until_quiet(site.relay, 2, settle=settle)
    suppliers.wait_in_sync()

    truth = {user: newer}
    if settle:
        assert stale(a, truth) == stale(b, truth) == []
    else:
        assert [found.verdict for found in site.relay.outcomes().values()] == [Verdict.APPLIED] * 2
        assert stale(a, truth) == stale(b, truth) != []
        assert stale(a, {user: older}) == stale(b, {user: older}) == []
