"""Restores and reuse: whatever comes back from a backup or under an old name, each entry ends with the right password.

docs/runbooks/restores.md says the same in words; every case here is one of its sections.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ldap3 import MODIFY_DELETE, MODIFY_REPLACE
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_schemas import filetime, topology
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.filetime import rfc3339, utc_now
from passrelay_schemas.marker import Marker
from passrelay_schemas.verdict import FINAL, Verdict
from tests.lab import clock
from tests.lab.certificates import CertificateAuthority
from tests.lab.changes import AccountState
from tests.lab.directory_tree import Changes, demand, modify
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.process import LabError, wait_for
from tests.lab.relay import Relay
from tests.lab.samba import DomainController
from tests.lab.snapshot import Snapshot, highest_usn, overtake

pytestmark = pytest.mark.acceptance

_PRODUCER = "dc1"


@pytest.fixture(scope="module")
def controller(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[DomainController]:
    dc = DomainController(lab_folder.path, reservations, ca)
    try:
        dc.start()
        yield dc
    finally:
        dc.stop()


class Site:
    """One AD domain, one IdM server, a producer and a consumer."""

    def __init__(self, relay: Relay, controller: DomainController) -> None:
        relay.enrolment.enrol(_PRODUCER)
        domain = {"name": controller.dns_domain, "sid": controller.sid}
        relay.prepare(domains=[relay.enrolment.domain(relay.directory.search_base, **domain)])
        self.relay = relay
        self.dc = controller
        self.directory = relay.directory
        settings = {"ldapi_path": controller.ldapi_path, "gpg_key_file": controller.gpg_key_file, "poll_ms": 20}
        self.producer = relay.samba_producer(_PRODUCER, settings)
        self.consumer = relay.consumer("consumer")

    def start(self) -> Site:
        self.producer.start()
        self.consumer.start()
        return self

    # -- people

    def add(self, *names: str) -> None:
        """New people: one account in AD and one entry in IdM each, with a password that arrived if things run."""
        for name in names:
            self.directory.add_user(name)
            password = canary_password()
            self.dc.add_user(name, password)
            if self.producer.process.running:
                self.arrives(name, password)

    def change(self, name: str) -> str:
        """A new password in AD."""
        password = canary_password()
        self.dc.ldaps_reset(name, password)
        return password

    def carry(self, name: str) -> str:
        """A new password in AD that reached IdM."""
        password = self.change(name)
        self.arrives(name, password)
        return password

    def arrives(self, name: str, password: str) -> None:
        wait_for(
            lambda: self.directory.binds(name, password),
            what=f"the password of {name} at IdM",
            timeout_seconds=60,
            interval_seconds=0.1,
        )

    def account(self, name: str) -> AccountState:
        return self.dc.account(name)

    def marker(self, name: str) -> Marker:
        return Marker.parse(self.directory.read(name)["passrelayMarker"][0])

    # -- what happened

    def verdicts(self, skip: int = 0) -> Counter[str]:
        """How often the journal has each final verdict, with its reason if any, after the first `skip` records."""
        records = [found for found in self.relay.records()[skip:] if found.verdict in FINAL]
        return Counter("/".join(str(part) for part in (found.verdict, found.reason) if part) for found in records)

    def quiet(self) -> None:
        """All that was captured was published and is on record, as a try where AD users have no entry."""
        wait_for(
            lambda: not self.queued() and not self.relay.broker.queue_depths()[topology.EVENTS],
            what="an empty spool and work queue",
            interval_seconds=0.2,
        )
        wait_for(
            lambda: self.relay.captured(_PRODUCER) <= {str(found.event_id) for found in self.relay.records()},
            what="a record of each event",
            interval_seconds=0.2,
        )

    def waits_in_a_tier(self) -> None:
        """An event has no entry yet."""
        tiers = [tier.queue for tier in topology.TIERS]
        wait_for(lambda: any(self.relay.broker.queue_depths()[tier] for tier in tiers), what="an event in a tier")

    def queued(self) -> int:
        """How many events wait in the spool."""
        with closing(sqlite3.connect(self.spool)) as connection:
            return int(connection.execute("SELECT count(*) FROM queued").fetchone()[0])

    @property
    def spool(self) -> Path:
        return self.relay.spool(_PRODUCER)

    # -- the operator

    def on_the_controller(self, *arguments: str) -> str:
        """A command of `passrelay producer`."""
        return self.relay.passrelay("producer", *arguments, "--config", self.producer.config)

    def operator(self, *arguments: str) -> dict[str, Any]:
        """Any other command with --json; its document."""
        out = self.relay.passrelay(*arguments, "--json", "--config", self.relay.ops_config())
        document: dict[str, Any] = json.loads(out.splitlines()[-1])
        return document


@pytest.fixture
def site(relay: Relay, controller: DomainController) -> Site:
    return Site(relay, controller)


# -- a domain controller -------------------------------------------------------------------------------------------


def test_a_controller_is_restored_under_a_running_producer(site: Site, tmp_path: Path) -> None:
    site.start().add("adam", "ada")
    snapshot = Snapshot(site.dc, tmp_path)
    newest = [site.carry("adam") for _ in range(3)][-1]
    seen = highest_usn(site.dc)
    snapshot.restore()
    assert highest_usn(site.dc) < seen
    site.carry("ada")
    assert [line["why"] for line in site.producer.lines("source_restored")] == ["a lower USN"]
    # AD has forgotten adam's password; as long as nobody says that the domain went back, IdM keeps the newer one.
    site.quiet()
    assert site.account("adam")["kvno"] < site.marker("adam").kvno
    assert site.directory.binds("adam", newest)


@pytest.mark.parametrize("new_invocation_id", [False, True], ids=["same", "new"])
def test_a_restored_controller_has_used_its_numbers_again_before_the_producer_looks(
    site: Site, tmp_path: Path, *, new_invocation_id: bool
) -> None:
    first, second = f"bea{new_invocation_id:d}", f"ben{new_invocation_id:d}"
    site.start().add(first, second)
    snapshot = Snapshot(site.dc, tmp_path)
    for _ in range(4):
        site.carry(first)
    site.quiet()
    site.producer.stop()
    seen = highest_usn(site.dc)
    snapshot.restore(new_invocation_id=new_invocation_id)
    hidden = site.change(second)
    overtake(site.dc, seen)
    site.producer.start()
    site.arrives(second, hidden)
    (restored,) = site.producer.lines("source_restored")
    assert restored["usn"] > seen
    assert ("invocation" in restored["why"]) is new_invocation_id


def test_the_domain_is_restored_and_begins_a_new_epoch(site: Site, tmp_path: Path) -> None:
    site.start().add("cara", "cleo")
    site.quiet()
    before = site.marker("cara").kvno
    original = site.carry("cleo")
    snapshot = Snapshot(site.dc, tmp_path)
    for _ in range(2):
        site.carry("cara")
        forgotten = site.carry("cleo")
    # One change is still on its way when the domain is restored: with the highest version of all.
    site.consumer.stop()
    late = site.change("cara")
    wait_for(lambda: site.relay.broker.queue_depths()[topology.EVENTS] == 1, what="the event in the queue")
    envelope = _take(site.relay)
    site.producer.stop()

    snapshot.restore()
    (domain,) = site.relay.domains
    domain |= {"epoch": 1, "epoch_began_at": rfc3339(utc_now())}
    site.consumer = site.relay.consumer("consumer")
    site.consumer.start()
    site.producer.start()
    # IdM follows the restored AD, with lower versions than it has seen.
    site.arrives("cleo", original)
    newest = site.carry("cara")
    assert site.marker("cara").kvno == before + 1
    assert [site.marker(name).epoch for name in ("cara", "cleo")] == [1, 1]
    site.relay.publish([envelope])
    event_id = str(Envelope.parse(envelope).event_id)
    wait_for(lambda: event_id in site.relay.outcomes(), what="the late event's outcome")
    outcome = site.relay.outcomes()[event_id]
    assert (outcome.verdict, outcome.reason) == (Verdict.SUPERSEDED, "newer")
    assert site.directory.binds("cara", newest)
    assert not site.directory.binds("cara", late)
    assert not site.directory.binds("cleo", forgotten)


def _take(relay: Relay) -> bytes:
    """The one message of the work queue, kept back as a slow network would."""
    connection = BlockingConnection(relay.broker.parameters())
    try:
        _, _, body = connection.channel().basic_get(topology.EVENTS, auto_ack=True)
        assert body is not None
        return bytes(body)
    finally:
        connection.close()


# -- a spool -------------------------------------------------------------------------------------------------------


def test_a_spool_is_restored_from_an_older_backup(site: Site, tmp_path: Path) -> None:
    site.start().add("dana", "dean", "dora")
    site.quiet()
    site.producer.stop()
    old = site.change("dana")
    site.on_the_controller("capture", "--user", "dana")  # the copy holds an event that is not published yet
    shutil.copy(site.spool, tmp_path / "spool")
    site.producer.start()
    site.arrives("dana", old)
    newest = {"dana": site.carry("dana"), "dean": site.carry("dean")}
    site.quiet()
    site.producer.stop()

    shutil.copy(tmp_path / "spool", site.spool)
    assert site.queued() == 1
    newest["dora"] = site.change("dora")
    seen = site.relay.journal_depth()
    site.producer.start()
    site.arrives("dora", newest["dora"])
    # dana's old event, dana's and dean's new ones again, and dora's: one write in all.
    wait_for(lambda: site.verdicts(seen).total() >= 4, what="four outcomes", interval_seconds=0.2)
    site.quiet()
    assert site.verdicts(seen) == {"superseded/newer": 1, "duplicate": 2, "applied": 1}
    assert all(site.directory.binds(name, password) for name, password in newest.items())
    assert site.producer.lines("source_restored") == []


def test_a_lost_spool_says_what_it_needs_and_loses_nothing(site: Site) -> None:
    site.start().add("eden", "emma")
    newest = {"eden": site.carry("eden")}
    site.quiet()
    site.producer.stop()
    shutil.rmtree(site.spool.parent)
    newest["emma"] = site.change("emma")
    with pytest.raises(LabError, match="exit 2") as refused:
        site.on_the_controller("run")
    assert re.search(r"init --from now\|all.*all: when the spool was lost", str(refused.value))
    site.on_the_controller("init", "--from", "all")
    site.producer.start()
    site.arrives("emma", newest["emma"])
    site.quiet()
    assert site.directory.binds("eden", newest["eden"])


# -- an IdM entry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repair", ["settle", "capture"])
def test_an_entry_is_restored_from_backup(site: Site, repair: str) -> None:
    name = f"finn-{repair}"
    site.start().add(name)
    old = site.carry(name)
    attributes = ("userPassword", "passrelayMarker", "passrelayProof")
    backup = {key: values for key, values in site.directory.read(name).items() if key in attributes}
    newest = site.carry(name)
    site.quiet()
    with site.directory.manager() as manager:
        changes: Changes = {key: [(MODIFY_REPLACE, values)] for key, values in backup.items()}
        modify(manager, site.directory.user_dn(name), changes)
    assert site.directory.binds(name, old)
    if repair == "settle":
        assert site.operator("settle", "--since", "1h")["behind"] == 1
    else:
        site.on_the_controller("capture", "--user", name)
    site.arrives(name, newest)
    assert not site.directory.binds(name, old)


_DELETED = "cn=deleted users,cn=accounts,cn=provisioning"


def _move(site: Site, name: str, base: str) -> None:
    """As `ipa user-del --preserve` and `ipa user-undel` do it: the marker stays, the password does not."""
    preserved = base != site.directory.search_base
    source = site.directory.search_base if preserved else f"{_DELETED},{site.directory.suffix}"
    with site.directory.manager() as manager:
        if preserved:
            modify(manager, site.directory.user_dn(name), {"userPassword": [(MODIFY_DELETE, [])]})
        manager.modify_dn(f"uid={name},{source}", f"uid={name}", new_superior=base)
        demand(manager, f"move {name}")


def test_a_user_is_preserved_and_undeleted(site: Site) -> None:
    site.start().add("gina", "glen")
    password = site.carry("gina")
    site.quiet()
    for name in ("gina", "glen"):
        _move(site, name, f"{_DELETED},{site.directory.suffix}")
    newest = site.change("glen")
    site.waits_in_a_tier()
    for name in ("gina", "glen"):
        _move(site, name, site.directory.search_base)
    # What changed meanwhile arrives by itself; what did not needs the marker opened once.
    site.operator("idm", "marker", "reset", "gina", "--yes")
    site.on_the_controller("capture", "--user", "gina")
    site.arrives("gina", password)
    site.arrives("glen", newest)
    assert site.relay.records(topology.DEAD) == []


# -- a name --------------------------------------------------------------------------------------------------------


def test_an_account_is_renamed_in_ad_and_then_in_idm(site: Site) -> None:
    site.start().add("hugo")
    site.carry("hugo")
    site.quiet()
    guid = site.marker("hugo").guid
    site.dc.modify_user("hugo", sAMAccountName="hubert")
    newest = site.change("hubert")
    site.waits_in_a_tier()
    with site.directory.manager() as manager:
        manager.modify_dn(site.directory.user_dn("hugo"), "uid=hubert")
        demand(manager, "rename hugo")
    site.arrives("hubert", newest)
    assert site.marker("hubert").guid == guid
    site.carry("hubert")


def test_a_name_is_given_to_another_account(site: Site) -> None:
    site.start().add("ivan")
    old = site.carry("ivan")
    site.quiet()
    before = site.account("ivan")
    site.dc.delete_user("ivan")
    newest = canary_password()
    site.dc.add_user("ivan", newest)
    guid = site.account("ivan")["guid"]
    assert guid != before["guid"]
    wait_for(lambda: site.relay.broker.queue_depths()[topology.DEAD] == 1, what="the dead letter")
    (letter,) = site.operator("dead", "list")["letters"]
    assert letter["reason"] == "identity"
    assert site.directory.binds("ivan", old)

    rebind = ["idm", "marker", "rebind", "ivan", "--guid", guid]
    site.operator(*rebind)  # a plan only
    assert str(site.marker("ivan").guid) == before["guid"]
    site.operator(*rebind, "--yes")
    site.on_the_controller("capture", "--user", "ivan")
    site.arrives("ivan", newest)
    assert str(site.marker("ivan").guid) == guid
    site.carry("ivan")


# -- a domain that is ordered by time ------------------------------------------------------------------------------


def test_a_domain_ordered_by_time_keeps_its_own_order_whatever_clock_and_spool_do(relay: Relay, tmp_path: Path) -> None:
    relay.enrolment.enrol("hr")
    domain = relay.enrolment.domain(relay.directory.search_base, name="hr.example", order="time")
    del domain["sid"]
    relay.prepare(domains=[domain])
    relay.directory.add_user("jane")
    producer = relay.line_producer("hr")
    passwords = [canary_password() for _ in range(6)]
    now = filetime.now()

    def line(number: int, **more: Any) -> dict[str, Any]:
        return {
            "domain": "hr.example",
            "account": {"sam_account_name": "jane"},
            "password": passwords[number],
            **more,
        }

    def newest_is(number: int) -> None:
        wait_for(lambda: relay.directory.binds("jane", passwords[number]), what=f"password {number}")

    # The first two lie in the queue before there is a consumer: four workers may take them in any order.
    producer.start()
    answers = producer.send([line(0, changed_at=now), line(1, changed_at=now), line(2, kvno=3)])
    assert ["error" in answer for answer in answers] == [False, False, True]
    relay.consumer("consumer").start()
    newest_is(1)
    producer.send([line(2)])
    newest_is(2)
    assert producer.stop() == 0
    shutil.copy(relay.spool("hr"), tmp_path / "spool")

    producer.process.env = clock.environment(timedelta(hours=-1))
    producer.start()
    producer.send([line(3), line(4)])
    newest_is(4)
    assert producer.stop() == 0

    shutil.copy(tmp_path / "spool", relay.spool("hr"))
    producer.process.env = None
    relay.passrelay("producer", "republish", "--since", "1h", "--config", producer.config)
    seen = relay.journal_depth()
    producer.start()
    wait_for(lambda: relay.journal_depth() >= seen + 3, what="the outcomes of what was published again")
    assert {found.verdict for found in relay.records()[seen:]} == {Verdict.SUPERSEDED}
    newest_is(4)
    producer.send([line(5)])
    newest_is(5)
