"""From LSASS's call to a working password: the DLL under wine, the real producer, broker and consumer, and 389-ds.

The lab's Samba controller is the AD: each password is set there, and the hook is called as Windows would call it.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from passrelay_ops.check import Result
from passrelay_ops.doctor import windows
from passrelay_producer.windows.facts import Facts, Role
from passrelay_schemas import keys
from passrelay_schemas.event import Account, PasswordChanged
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.hook_record import HookRecord
from passrelay_schemas.keys import KeyDocument, KeyUse, generate
from passrelay_schemas.source_settings import HookSourceSettings
from passrelay_schemas.verdict import Verdict
from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.changes import AccountState
from tests.lab.directory import Directory
from tests.lab.enrolment import Sender
from tests.lab.folder import CANARY, canary_password, find_canary
from tests.lab.network import Reservations
from tests.lab.organisation import Organisation
from tests.lab.process import MissingServerError, wait_for
from tests.lab.relay import Relay, Service
from tests.lab.samba import DomainController
from tests.windows.harness import Harness
from tests.windows.records import records

StartHarness = Callable[..., Harness]
_LOOKUP = "hook-lookup"
_KILLS = int(os.environ.get("LAB_PRODUCER_KILLS", "10"))


@pytest.fixture(scope="module")
def controller(
    windows_folder: Path, reservations: Reservations, ca: CertificateAuthority, request: pytest.FixtureRequest
) -> Iterator[DomainController]:
    dc = DomainController(windows_folder / f"samba-of-{request.module.__name__}", reservations, ca)
    try:
        dc.start()
    except MissingServerError as error:
        pytest.skip(str(error))
    password = canary_password()
    dc.add_user(_LOOKUP, password)
    file = windows_folder / "lookup-password"
    file.touch(mode=0o600)
    file.write_text(password)
    yield dc
    dc.stop()


class Site:
    """One Windows controller: AD, the hook in LSASS's place, its folder, and the deployment around it."""

    def __init__(self, relay: Relay, dc: DomainController, harness: Harness, spool: Path, lookup: Path) -> None:
        self.relay, self.dc, self.harness, self.spool = relay, dc, harness, spool
        self.sender = relay.enrolment.enrol("dc1")
        self.thief = relay.enrolment.enrol("dc2")
        self.key, private = generate(KeyUse.HOOK)
        keys.write_public(relay.enrolment.consumer_keys, self.key)
        keys.write_private(relay.enrolment.consumer_keys, self.key, private)
        domain = relay.enrolment.domain(relay.directory.search_base, name=dc.dns_domain, sid=dc.sid)
        relay.prepare(domains=[domain])
        self.relay.consumer("consumer").start()
        self._lookup = lookup
        harness.configure(self.key, spool, sid=dc.sid)
        assert harness.initialize(), harness.status("Reason")

    def producer(self) -> Service:
        hook: dict[str, Any] = {
            "folder": self.spool,
            "controller": f"ldaps://{self.dc.address}",
            "ca_file": self.dc.ca_file,
            "bind_user": f"{_LOOKUP}@{self.dc.dns_domain}",
            "password_file": self._lookup,
            "poll_ms": 20,
        }
        return self.relay.hook_producer("dc1", hook)

    def user(self, name: str, password: str | None = None) -> AccountState:
        self.relay.directory.add_user(name, password or canary_password())
        return self.dc.add_user(name, canary_password())

    def change(self, name: str, rid: int) -> str:
        password = canary_password()
        self.dc.ldaps_reset(name, password)
        self.harness.change(rid, password, name)
        return password

    def wait_for(self, finals: int) -> None:
        wait_for(lambda: len(self.relay.outcomes()) >= finals, what=f"{finals} outcomes", timeout_seconds=90)


def _rid(account: AccountState) -> int:
    return int(account["sid"].rpartition("-")[2])


@pytest.fixture
def site(
    tmp_path: Path,
    shared_broker: Broker,
    shared_directory: Directory,
    controller: DomainController,
    start_harness: StartHarness,
    spool: Path,
    windows_folder: Path,
) -> Iterator[Site]:
    relay = Relay(tmp_path / "relay", shared_broker, shared_directory)
    yield Site(relay, controller, start_harness(), spool, windows_folder / "lookup-password")
    relay.close()
    shared_broker.purge_all()


def test_a_change_in_windows_works_in_idm_and_a_domain_admins_does_not(site: Site) -> None:
    directory, producer = site.relay.directory, site.producer()
    before = canary_password()
    erika, admin = site.user("hook-erika"), site.user("hook-admin", before)
    Organisation(site.dc).join("Domain Admins", "hook-admin")  # Samba sets no adminCount
    first = site.change("hook-erika", _rid(erika))  # nobody runs yet: the files wait
    second = site.change("hook-erika", _rid(erika))
    refused = site.change("hook-admin", _rid(admin))
    producer.start()
    site.wait_for(2)
    third = site.change("hook-erika", _rid(erika))
    site.wait_for(3)
    assert directory.binds("hook-erika", third)
    assert not any(directory.binds("hook-erika", older) for older in (first, second))
    assert directory.binds("hook-admin", before)
    assert not directory.binds("hook-admin", refused)
    wait_for(lambda: records(site.spool) == [], what="an empty folder")
    assert producer.metric("passrelay_events_total", stage="capture", outcome="excluded", reason="denied") == 1
    marker = directory.read("hook-erika")["passrelayMarker"][0].split()
    assert int(marker[2]) == site.dc.account("hook-erika")["kvno"]
    assert UUID(marker[4]) == UUID(site.dc.account("hook-erika")["guid"])
    assert find_canary([site.spool, *site.relay.data_paths, *site.relay.broker.data_paths])[2] == []


def test_a_killed_producer_loses_nothing_and_sends_nothing_twice(site: Site) -> None:
    dice = random.Random(4711)
    names = ["hook-anna", "hook-bert", "hook-carl"]
    rids = {name: _rid(site.user(name)) for name in names}
    newest: dict[str, str] = {}
    producer = site.producer()
    for round_ in range(_KILLS):
        producer.start()
        for name in dice.choices(names, k=3):
            newest[name] = site.change(name, rids[name])
        if dice.random() < 0.5:
            site.wait_for(dice.randrange(3 * round_ + 3))
        producer.kill()
    producer.start()
    site.wait_for(3 * _KILLS)
    wait_for(lambda: records(site.spool) == [], what="an empty folder")
    for name, password in newest.items():
        assert site.relay.directory.binds(name, password), name
    assert len(site.relay.outcomes()) == 3 * _KILLS
    assert {found.verdict for found in site.relay.outcomes().values()} <= {Verdict.APPLIED, Verdict.SUPERSEDED}


def test_a_record_stays_until_its_event_is_in_the_spool(site: Site) -> None:
    erika, producer = site.user("hook-locked"), site.producer()
    producer.start()
    lock = sqlite3.connect(site.relay.spool("dc1"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    password = site.change("hook-locked", _rid(erika))
    # A writer waits half a minute for the file, and the capture may stand behind another writer of its own process.
    wait_for(lambda: bool(producer.lines("capture_failed")), what="the spool is held", timeout_seconds=240)
    assert len(records(site.spool)) == 1
    producer.kill()
    lock.execute("ROLLBACK")
    lock.close()
    producer.start()
    site.wait_for(1)
    assert site.relay.directory.binds("hook-locked", password)
    wait_for(lambda: records(site.spool) == [], what="an empty folder")


def test_a_record_under_another_producer_domain_or_account_is_refused(site: Site) -> None:
    victim, other = site.user("hook-victim"), site.user("hook-other")
    password = site.change("hook-victim", _rid(victim))
    (path,) = records(site.spool)
    record = HookRecord.parse(path.read_bytes())

    def wrapped(sender: Sender, account: AccountState, name: str) -> bytes:
        event = PasswordChanged(
            domain=site.dc.dns_domain,
            account=Account(guid=UUID(account["guid"]), sid=account["sid"], sam_account_name=name),
            record=record.text,
            kvno=account["kvno"] + 1,
            changed_at=account["pwdLastSet"],
        )
        return sender.envelope(event)

    site.relay.publish([wrapped(site.thief, victim, "hook-victim"), wrapped(site.sender, other, "hook-other")])
    site.wait_for(2)
    found = [(outcome.verdict, outcome.reason) for outcome in site.relay.outcomes().values()]
    assert found == [(Verdict.DEAD, "foreign_domain")] * 2
    assert not site.relay.directory.binds("hook-victim", password)
    assert not site.relay.directory.binds("hook-other", password)
    # The same record, sent by its own producer for its own account, is good.
    site.relay.publish([wrapped(site.sender, victim, "hook-victim")])
    site.wait_for(3)
    assert site.relay.directory.binds("hook-victim", password)


def test_records_of_another_domain_or_producer_are_moved_away_and_named(site: Site) -> None:
    erika = site.user("hook-foreign")
    site.harness.set_text("DomainSid", "S-1-5-21-1-2-3")
    site.harness.change(_rid(erika), canary_password(), "hook-foreign")
    site.harness.set_text("DomainSid", site.dc.sid)
    site.harness.set_text("Producer", "dc2")
    site.harness.change(_rid(erika), canary_password(), "hook-foreign")
    site.harness.set_text("Producer", "dc1")
    for rid in (999_998, 999_999):
        site.harness.change(rid, canary_password(), "nobody")
    young, old = records(site.spool)[-2:]
    called, _, rest = old.name.partition("-")
    old.rename(old.with_name(f"{int(called, 16) - 3601 * UNITS_PER_SECOND:016x}-{rest}"))
    password = site.change("hook-foreign", _rid(erika))
    producer = site.producer()
    producer.start()
    site.wait_for(1)
    assert site.relay.directory.binds("hook-foreign", password)
    lines = producer.lines("record_quarantined")
    assert sorted(line["reason"] for line in lines) == ["foreign", "foreign", "no_account"]
    assert len(list((site.spool / "quarantine").iterdir())) == 3
    wait_for(lambda: records(site.spool) == [young], what="only the one waits that AD may show within the hour")
    assert [line["file"] for line in producer.lines("record_waits")] == [young.name]
    wait_for(
        lambda: producer.metric("passrelay_events_total", stage="capture", outcome="quarantined") == 3, what="metric"
    )


def test_a_key_that_the_consumer_has_not_yet_makes_the_event_wait(site: Site) -> None:
    late, private = generate(KeyUse.HOOK)
    erika = site.user("hook-late")
    site.harness.set_key(late)
    password = site.change("hook-late", _rid(erika))
    site.producer().start()
    consumer = next(service for service in site.relay.services if service.name == "consumer")
    wait_for(lambda: any(line.get("reason") == "unknown_key" for line in consumer.lines("retry")), what="unknown_key")
    _enrol(site.relay, late, private)
    site.wait_for(1)
    assert site.relay.directory.binds("hook-late", password)
    assert CANARY not in consumer.log.read_text()


def test_doctor_looks_the_controller_up_as_the_source_does(
    controller: DomainController, windows_folder: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "password"
    wrong.touch(mode=0o600)
    wrong.write_text(canary_password())
    good = HookSourceSettings(
        folder=tmp_path,
        controller=f"ldaps://{controller.address}",
        ca_file=controller.ca_file,
        bind_user=f"{_LOOKUP}@{controller.dns_domain}",
        password_file=windows_folder / "lookup-password",
    )
    for settings, result, detail in (
        (good, Result.OK, f"is {controller.name}.{controller.dns_domain}"),
        (good.model_copy(update={"password_file": wrong}), Result.FAIL, "does not let bind_user in"),
        # Nobody listens at this port of the controller's own address.
        (good.model_copy(update={"controller": f"ldaps://{controller.address}:9"}), Result.UNKNOWN, "refused"),
    ):
        row = windows.controller("producer.toml", Facts(Role.WRITABLE), settings)
        assert row.result is result, row.detail
        assert detail in row.detail


def _enrol(relay: Relay, document: KeyDocument, private: bytes) -> None:
    keys.write_private(relay.enrolment.consumer_keys, document, private)
    keys.write_public(relay.enrolment.consumer_keys, document)
