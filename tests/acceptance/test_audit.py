"""The proof that nothing was lost, on real servers: what an audit finds, what it heals, and what only a person can."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ldap3 import MODIFY_DELETE, MODIFY_REPLACE

from passrelay_consumer.directory import generalized_time
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory_tree import Changes, modify
from tests.lab.enrolment import DOMAIN_SID
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.process import wait_for
from tests.lab.relay import PASSRELAY, Relay
from tests.lab.samba import DomainController

pytestmark = pytest.mark.acceptance

READER = "auditor"
"""An ordinary account of AD without any right of its own."""


def _reader_file(controller: DomainController) -> Path:
    return controller.folder / "reader.password"


@pytest.fixture(scope="module")
def controller(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[DomainController]:
    dc = DomainController(lab_folder.path / "audit", reservations, ca)
    try:
        dc.start()
        secret = _reader_file(dc)
        secret.touch(mode=0o600)
        secret.write_text(canary_password())
        dc.add_user(READER, secret.read_text())
        yield dc
    finally:
        dc.stop()


class Office:
    """An operator's host beside the domain controller."""

    def __init__(self, relay: Relay, controller: DomainController, *others: DomainController) -> None:
        self.relay = relay
        self.controller = controller
        self.passwords: dict[str, str] = {}
        relay.enrolment.enrol("dc1")
        ad = {
            "servers": [f"ldaps://{one.address}" for one in (controller, *others)],
            "ca_file": controller.ca_file,
            "bind_user": f"{READER}@{controller.dns_domain}",
            "password_file": _reader_file(controller),
        }
        domain = {"name": controller.dns_domain, "sid": controller.sid, "ad": ad}
        relay.prepare(domains=[relay.enrolment.domain(relay.directory.search_base, **domain)])
        samba = {"ldapi_path": controller.ldapi_path, "gpg_key_file": controller.gpg_key_file, "poll_ms": 20}
        self.producer = relay.samba_producer("dc1", samba)
        self.consumer = relay.consumer("consumer")

    def reset(self, name: str) -> None:
        self.passwords[name] = canary_password()
        self.controller.ldaps_reset(name, self.passwords[name])

    def arrived(self, *names: str) -> None:
        for name in names:
            wait_for(
                lambda name=name: self.relay.directory.binds(name, self.passwords[name]),  # type: ignore[misc]
                what=f"{name} at IdM",
                timeout_seconds=60,
            )

    def run(self, *arguments: str | Path) -> tuple[int, str]:
        command = [PASSRELAY, "audit", *arguments, "--config", self.relay.ops_config()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        print(done.stderr)
        return done.returncode, done.stdout

    def audit(self, *arguments: str | Path) -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
        """Exit code, document, and the rows by user."""
        code, said = self.run("--json", *arguments)
        document = json.loads(said.splitlines()[-1])
        assert document["schema"] == "passrelay.audit/1"
        assert document["ok"] is (code == 0)
        return code, document, {row["user"]: row for row in document["users"]}


def test_an_audit_finds_every_kind_of_loss_and_repairs_what_can_be(relay: Relay, controller: DomainController) -> None:
    office = Office(relay, controller)
    people = ("steady", "-off", "dead", "direct")
    for name in people:
        relay.directory.add_user(name)
        controller.add_user(name, canary_password())
    controller.add_user("missing", canary_password())
    office.producer.start()
    office.consumer.start()
    for name in people:
        office.reset(name)
    office.arrived(*people)
    code, document, rows = office.audit()
    assert code == 0
    assert document["counts"]["in_sync"] == len(people)
    assert document["counts"]["excluded"] >= 3  # Administrator, Guest, krbtgt
    assert {row["state"] for row in rows.values()} == {"not_in_idm"}
    assert {"missing", READER} <= set(rows)

    # A password that becomes a dead letter at once, for a reason that goes away later.
    relay.directory.add_to_group("dead", "admins")
    office.reset("dead")
    wait_for(lambda: relay.broker.queue_depths()["passrelay.dead"] == 1, what="a dead letter")
    with relay.directory.manager() as manager:
        group = f"cn=admins,cn=groups,cn=accounts,{relay.directory.suffix}"
        modify(manager, group, {"member": [(MODIFY_DELETE, [relay.directory.user_dn("dead")])]})
        # As IPA's plugin does it when somebody sets a password in IdM.
        later = generalized_time(datetime.now(UTC) + timedelta(minutes=1)).decode()
        changes = {"userPassword": [canary_password()], "krbLastPwdChange": [later]}
        direct: Changes = {name: [(MODIFY_REPLACE, values)] for name, values in changes.items()}
        modify(manager, relay.directory.user_dn("direct"), direct)
    # And one that is set while the producer is off, whose spool is lost then, cursor and all.
    office.producer.stop()
    office.reset("-off")
    for file in relay.spool("dc1").parent.iterdir():
        file.unlink()
    relay.passrelay("producer", "init", "--from", "now", "--config", office.producer.config)
    office.producer.start()

    code, document, rows = office.audit()
    assert code == 1
    found = {name: (row["state"], row["where"]) for name, row in rows.items()}
    assert (
        found.items()
        >= {
            "-off": ("behind", "not_captured"),
            "dead": ("behind", "dead:protected"),
            "direct": ("changed_in_idm", None),
            "missing": ("not_in_idm", "in_flight"),
        }.items()
    )
    assert "steady" not in rows
    assert document["counts"]["in_sync"] == 1
    assert rows["-off"]["ad_kvno"] == controller.account("-off")["kvno"]
    assert "producer capture --user -off" in rows["-off"]["repair"]
    assert "idm marker reset direct" in rows["direct"]["repair"]
    assert "set (or tried to be set)" in rows["direct"]["detail"]
    assert "create the user in IdM" in rows["missing"]["repair"]
    assert "last: user_missing" in rows["missing"]["detail"]
    assert office.run("--user", "steady")[0] == 0
    assert office.run("--user", "nobody-of-that-name")[0] == 2

    # The helpdesk sees the same about one user.
    said = relay.passrelay("status", "direct", "--json", "--config", relay.ops_config(), check=False)
    status = json.loads(said.splitlines()[-1])
    assert [(row["state"], row["ad_kvno"]) for row in status["audit"]] == [("changed_in_idm", 2)]
    assert [fault["check"] for fault in status["failures"]] == ["audit"]

    # A spreadsheet must not take a name for a formula.
    code, sheet = office.run("--csv", "-", "--user", "-off")
    assert code == 1
    assert next(csv.DictReader(io.StringIO(sheet)))["user"] == "'-off"
    # Names of accounts are for the operator alone, also in a file that was there before.
    kept = relay.folder / "kept.csv"
    kept.touch(mode=0o644)
    kept.chmod(0o644)
    assert office.run("--csv", kept, "--user", "-off")[0] == 1
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.read_bytes().decode() == sheet.replace("\n", "\r\n")

    # Whose entry still has his old name is no stranger to IdM.
    controller.modify_user("steady", sAMAccountName="renamed")
    _, document, rows = office.audit()
    assert rows["renamed"]["state"] == "unexplained"
    assert f"{relay.directory.user_dn('steady')} is his by its marker" in rows["renamed"]["detail"]
    assert document["counts"]["in_sync"] == 0
    controller.modify_user("renamed", sAMAccountName="steady")

    code, document, rows = office.audit("--repair", "--producer-config", office.producer.config)
    assert code == 1  # what is left is for a person
    assert {row["user"] for row in document["repaired"]} == {"-off", "dead"}
    assert {"-off", "dead"}.isdisjoint(rows)
    letters = json.loads(relay.passrelay("dead", "list", "--json", "--config", relay.ops_config()).splitlines()[-1])
    assert letters["letters"] == []
    assert rows["direct"]["state"] == "changed_in_idm"
    assert rows["missing"]["state"] == "not_in_idm"
    office.arrived("-off", "dead", "steady")

    # A password of the user's own in IdM is overwritten only when that is asked for, twice.
    overwrite = ("--repair", "--overwrite-idm", "--producer-config", office.producer.config, "--user", "direct")
    assert office.run("--overwrite-idm")[0] == 2
    assert office.run(*overwrite)[0] == 1
    assert not relay.directory.binds("direct", office.passwords["direct"])
    assert office.run(*overwrite, "--yes", "--wait", "0")[0] == 1
    office.arrived("direct")
    with relay.directory.manager() as manager:  # IPA's plugin would have renewed it with the write
        modify(manager, relay.directory.user_dn("direct"), {"krbLastPwdChange": [(MODIFY_REPLACE, [])]})
    relay.directory.add_user("missing")
    office.reset("missing")
    code, document, rows = office.audit("--repair", "--producer-config", office.producer.config)
    assert (code, document["counts"]["changed_in_idm"], document["counts"]["behind"]) == (0, 0, 0)
    office.arrived("direct", "missing")
    assert office.audit("--strict")[0] == 1  # the auditor himself is not in IdM
    for name in (*people, "missing"):
        relay.directory.delete_user(name)


def test_a_password_that_one_controller_alone_has_is_missing(
    relay: Relay,
    controller: DomainController,
    lab_folder: LabFolder,
    reservations: Reservations,
    ca: CertificateAuthority,
) -> None:
    second = DomainController.join(controller, lab_folder.path / "audit", reservations, ca)
    second.start()
    try:
        office = Office(relay, controller, second)
        for name in ("roamer", "stayer"):
            relay.directory.add_user(name)
            controller.add_user(name, canary_password())
        office.producer.start()
        office.consumer.start()
        for name in ("roamer", "stayer"):
            office.reset(name)
        office.arrived("roamer", "stayer")
        second.replicate(controller)
        assert office.audit()[0] == 0
        second.ldaps_reset("roamer", canary_password())
        code, document, rows = office.audit()
        assert (code, rows["roamer"]["state"]) == (1, "behind")
        assert rows["roamer"]["ad_kvno"] == controller.account("roamer")["kvno"] + 1
        assert document["counts"]["in_sync"] == 1
        # What it alone knows is not known while it is down; the others are compared all the same.
        second.stop()
        code, document, rows = office.audit()
        assert code == 3
        assert [fault["subject"] for fault in document["failures"]] == [f"ldaps://{second.address}"]
        assert document["counts"]["in_sync"] == 2
        said = relay.passrelay("status", "stayer", "--json", "--config", relay.ops_config(), check=False)
        assert json.loads(said.splitlines()[-1])["failures"][0]["subject"] == f"ldaps://{second.address}"
    finally:
        second.stop()
        for name in ("roamer", "stayer"):
            relay.directory.delete_user(name)


def test_a_domain_that_is_left_out_is_told(relay: Relay, controller: DomainController) -> None:
    office = Office(relay, controller)
    assert office.audit()[0] == 0
    timed = {**relay.domains[0], "name": "timed.example", "sid": DOMAIN_SID, "order": "time"}
    timed.pop("ad")
    relay.domains = [*relay.domains, timed]
    code, document, _ = office.audit()
    assert code == 0
    assert [one["domain"] for one in document["not_compared"]] == ["timed.example"]
    relay.domains = [relay.domains[0], {**timed, "order": "kvno"}]
    code, document, _ = office.audit()
    assert code == 2
    assert [(one["subject"], one["detail"][:11]) for one in document["failures"]] == [("timed.example", "[domain.ad]")]
    assert document["counts"]["excluded"] >= 3


def test_a_side_that_cannot_be_read_is_no_proof(relay: Relay, controller: DomainController) -> None:
    office = Office(relay, controller)
    relay.directory.stop()
    try:
        code, document, _ = office.audit()
        assert code == 3
        assert "no IdM server can be read" in document["failures"][0]["detail"]
    finally:
        relay.directory.start()
    controller.stop()
    try:
        code, document, _ = office.audit()
        assert code == 3
        assert controller.address in document["failures"][0]["detail"]
    finally:
        controller.start()
