"""`passrelay idm setup` and `check` on real directory servers: done once, nothing the second time, and taken back."""

from __future__ import annotations

import itertools
import os
import pty
import re
import select
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE

from passrelay_ops.commands import idm_setup
from passrelay_ops.idm import view as view_module
from passrelay_ops.idm import work
from passrelay_ops.idm.view import View
from passrelay_schemas.idm_settings import own_probe
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.directory_tree import Changes, add, delete, modify
from tests.lab.folder import LabFolder, canary_password
from tests.lab.idm_office import IdmOffice, ldif
from tests.lab.network import Reservations
from tests.lab.process import run_tool, wait_for
from tests.lab.replication import Suppliers

pytestmark = pytest.mark.integration

PASSRELAY = Path(sys.executable).with_name("passrelay")
MARKER = "1 0 7 134000000000000000 0190a1b2-0000-4000-8000-000000000001 "
MARKER += "01940000-0000-7000-8000-000000000007 2026-11-24T12:00:00.000Z -"


class Plain(Directory):
    """A 389 Directory Server as it comes, without the Kerberos schema and without IdM's tree below the suffix."""

    def configure(self) -> None:
        super().configure()
        (self.layout.config / "schema" / "60kerberos.ldif").unlink()


@pytest.fixture
def bare(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority, tmp_path: Path
) -> Iterator[Directory]:
    """A new server with IdM's containers, of which nobody has made anything for passrelay."""
    directory = Directory(lab_folder.path / tmp_path.name, reservations, ca, set_up=False)
    directory.start()
    yield directory
    directory.kill()


@pytest.fixture
def office(bare: Directory, tmp_path: Path) -> IdmOffice:
    return IdmOffice(tmp_path, [bare])


def change(directory: Directory, dn: str, **changes: list[tuple[str, list[str]]]) -> None:
    given: Changes = dict(changes)
    with directory.manager() as manager:
        modify(manager, dn, given)


# --- once, twice, and back


def test_the_second_time_changes_nothing_and_undo_leaves_the_directory_as_before(
    office: IdmOffice, bare: Directory
) -> None:
    bare.add_user("anna", canary_password())
    before = ldif(bare)
    plan = office.run("setup")
    assert plan["written"] is False
    assert "passrelayMarker" in plan["ldif"]
    assert ldif(bare) == before
    assert not office.password_file.exists()

    done = office.run("setup", "--yes")
    password = office.password_file.read_text()
    assert (done["written"], done["password_file"]["made"]) == (True, True)
    assert stat.S_IMODE(office.password_file.stat().st_mode) == 0o600
    assert password not in office.output
    assert office.not_good(done) == {}
    assert office.probe(bare).ok

    after = ldif(bare, operational=True)
    again = office.run("setup", "--yes")
    assert (again["written"], again["changes"], again["ldif"]) == (False, [], "")
    assert ldif(bare, operational=True) == after
    assert office.password_file.read_text() == password

    plan = office.run("setup", "--undo")
    assert plan["written"] is False
    assert ldif(bare, operational=True) == after
    undone = office.run("setup", "--undo", "--yes")
    assert (undone["written"], undone["stays"]) == (True, [])
    assert ldif(bare) == before
    assert office.run("setup", "--undo", "--yes")["written"] is False
    assert set(office.not_good(office.run("check", exit_code=1))) == {
        "idm.schema",
        "idm.account",
        "idm.probe",
        "idm.access",
        "idm.login",
    }


def test_the_printed_ldif_does_the_same_by_ldapmodify(office: IdmOffice, bare: Directory) -> None:
    office.password_file.touch(mode=0o600)
    office.password_file.write_text(canary_password())
    bare.apply_ldif(office.run("setup")["ldif"])
    assert office.not_good(office.run("check")) == {}
    assert office.run("setup", "--yes")["written"] is False
    assert office.probe(bare).ok


def test_a_plain_directory_server_with_a_tree_of_its_own(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority, tmp_path: Path
) -> None:
    directory = Plain(lab_folder.path / "plain", reservations, ca, set_up=False)
    directory.search_base = f"ou=people,{directory.suffix}"
    directory.service_dn = f"uid=passrelay,ou=services,{directory.suffix}"
    office = IdmOffice(tmp_path, [directory])
    directory.start()
    try:
        assert "there is no entry ou=services" in office.complaint("setup", "--yes", exit_code=2)
        with directory.manager() as manager:
            for name in ("people", "services"):
                add(manager, f"ou={name},{directory.suffix}", {"objectClass": ["organizationalUnit"], "ou": [name]})
            ben = {"objectClass": ["top", "inetOrgPerson"], "uid": ["ben"], "cn": ["Ben"], "sn": ["Ben"]}
            add(manager, directory.user_dn("ben"), ben)
        before = ldif(directory)
        assert office.not_good(office.run("setup", "--yes")) == {}
        assert "krb" not in "".join(directory.read_entry(directory.search_base)["aci"])
        assert office.probe(directory).ok
        directory.password_file = office.password_file
        first: Changes = {
            "userPassword": [(MODIFY_REPLACE, [password := canary_password()])],
            "objectClass": [(MODIFY_ADD, ["passrelayAccount"])],
            "passrelayMarker": [(MODIFY_ADD, [MARKER])],
        }
        with directory.service() as service:
            modify(service, directory.user_dn("ben"), first)
        assert directory.binds("ben", password)
        office.run("setup", "--undo", "--markers", "--yes")
        ours = [line for line in ldif(directory) if "userPassword" not in line]
        assert ours == [line for line in before if "userPassword" not in line]
    finally:
        directory.kill()


def test_attributes_of_the_sites_own_hold_the_marker(office: IdmOffice, bare: Directory) -> None:
    before = ldif(bare)
    unfit_ones = {"mail": "SINGLE-VALUE", "noSuchThing": "not in the schema", "modifyTimestamp": "by the server alone"}
    for unfit, why in unfit_ones.items():
        office.idm = {"marker_attribute": unfit}
        assert why in office.complaint("setup", "--yes", exit_code=2)
        assert office.not_good(office.run("check", exit_code=1))["idm.schema"] == "fail"
    assert ldif(bare) == before

    office.idm = {"marker_attribute": "employeeNumber", "proof_attribute": "preferredLanguage"}
    done = office.run("setup", "--yes")
    assert office.not_good(done) == {}
    assert "cn=schema" not in {change["dn"] for change in done["changes"]}
    bare.password_file = office.password_file
    mine, other = bare.add_user("mine"), bare.add_user("other", employeeNumber="4711")
    with bare.service() as service:
        modify(
            service, mine, {"employeeNumber": [(MODIFY_ADD, [MARKER])], "preferredLanguage": [(MODIFY_ADD, [MARKER])]}
        )
        service.modify(mine, {"objectClass": [(MODIFY_ADD, ["passrelayAccount"])]})
        assert service.result["result"] != 0, "its class is neither there nor needed"
    assert office.run("setup", "--undo")["marked_entries"] == 1
    office.run("setup", "--undo", "--markers", "--yes")
    assert "employeeNumber" not in bare.read("mine")
    assert bare.read_entry(other)["employeeNumber"] == ["4711"]


# --- what is broken, is named and repaired


def _an_older_rule(office: IdmOffice, directory: Directory) -> None:
    rules = directory.read_entry(directory.probe_dn)["aci"]
    old = next(rule for rule in rules if "modifyTimestamp" in rule)
    replaced = old.replace(" || modifyTimestamp", "")
    change(directory, directory.probe_dn, aci=[(MODIFY_DELETE, [old]), (MODIFY_ADD, [replaced])])


def _a_lost_rule(office: IdmOffice, directory: Directory) -> None:
    rules = directory.read_entry(directory.search_base)["aci"]
    lost = next(rule for rule in rules if "nobody writes his own marker" in rule)
    change(directory, directory.search_base, aci=[(MODIFY_DELETE, [lost])])


def _an_enabled_probe(office: IdmOffice, directory: Directory) -> None:
    change(directory, directory.probe_dn, nsAccountLock=[(MODIFY_DELETE, [])])


def _an_older_schema(office: IdmOffice, directory: Directory) -> None:
    definitions = directory.read_entry("cn=schema")["objectClasses"]
    ours = next(one for one in definitions if "passrelayAccount" in one)
    older = ours.replace("( passrelayMarker $ passrelayProof )", "passrelayMarker")
    assert older != ours
    change(directory, "cn=schema", objectClasses=[(MODIFY_ADD, [older])])


def _a_lost_probe(office: IdmOffice, directory: Directory) -> None:
    with directory.manager() as manager:
        delete(manager, directory.probe_dn)


BROKEN = {
    _an_older_rule: {"idm.access"},
    _a_lost_rule: {"idm.access"},
    _an_enabled_probe: {"idm.probe"},
    _an_older_schema: {"idm.schema"},
    _a_lost_probe: {"idm.probe", "idm.access"},
}


def test_check_names_what_is_broken_and_setup_repairs_just_that(office: IdmOffice, bare: Directory) -> None:
    office.run("setup", "--yes")
    good = ldif(bare)
    for break_it, checks in BROKEN.items():
        break_it(office, bare)
        assert ldif(bare) != good
        document = office.run("check", exit_code=1)
        assert set(office.not_good(document)) == checks, break_it.__name__
        assert all("passrelay idm setup" in failure["detail"] for failure in document["failures"])
        repaired = office.run("setup", "--yes")
        assert office.not_good(repaired) == {}
        assert without_passwords(ldif(bare)) == without_passwords(good), break_it.__name__


def without_passwords(lines: list[str]) -> list[str]:
    return [line for line in lines if "userPassword" not in line]


def _run_repair(repair: str, directory: Directory) -> None:
    """The command that check names, as an administrator runs it: only that nobody types the password."""
    command = shlex.split(repair.replace("-W", f"-y {directory.manager_file}").replace("localhost", "127.0.0.1"))
    run_tool(command, env={**os.environ, "LDAPTLS_CACERT": str(directory.ca_file)})


def test_a_password_file_that_does_not_fit_the_account(office: IdmOffice, bare: Directory) -> None:
    office.run("setup", "--yes")
    office.password_file.write_text(canary_password())
    document = office.run("check", exit_code=1)
    assert office.not_good(document) == {"idm.login": "fail"}
    repair = document["failures"][0]["detail"].partition("`")[2].rpartition("`")[0]
    _run_repair(repair, bare)
    assert office.not_good(office.run("check")) == {}
    right = office.password_file.read_text()
    office.password_file.unlink()
    assert "missing, but" in office.complaint("setup", "--yes", exit_code=2)
    assert not office.password_file.exists()
    office.password_file.touch(mode=0o644)
    office.password_file.write_text(right)
    assert "chmod 600" in office.complaint("check", exit_code=1)
    office.password_file.chmod(0o600)
    office.run("check")


def test_a_locked_account_is_unlocked_and_not_given_a_new_password(office: IdmOffice, bare: Directory) -> None:
    office.run("setup", "--yes")
    change(bare, bare.service_dn, nsAccountLock=[(MODIFY_ADD, ["true"])])
    document = office.run("check", exit_code=1)
    assert office.not_good(document) == {"idm.login": "fail"}
    repair = document["failures"][0]["detail"].partition("`")[2].rpartition("`")[0]
    _run_repair(shlex.join(["sh", "-c", repair.replace("-W", f"-y {bare.manager_file}")]), bare)
    assert office.not_good(office.run("check")) == {}


def test_a_mistyped_account_is_one_fault_and_not_a_second_account(office: IdmOffice, bare: Directory) -> None:
    office.run("setup", "--yes")
    office.idm = {"bind_dn": bare.service_dn.replace("passrelay", "pasrelay")}
    document = office.run("check", exit_code=1)
    [failure] = document["failures"]
    assert failure["check"] == "idm.account"
    assert f"correct [idm] bind_dn: {bare.service_dn}" in failure["detail"]
    assert office.run("setup")["written"] is False
    assert f"a second account: the access rules there are for {bare.service_dn}" in office.output


# --- what undo leaves


def test_undo_keeps_markers_until_it_is_told_and_then_takes_the_schema_too(office: IdmOffice, bare: Directory) -> None:
    before = ldif(bare)
    office.run("setup", "--yes")
    bare.add_user("carl", passrelayMarker=MARKER, passrelayProof=MARKER)
    undone = office.run("setup", "--undo", "--yes")
    assert undone["marked_entries"] == 1
    assert "1 entries" in undone["stays"][0]
    assert "schema" in undone["stays"][1]
    assert bare.read("carl")["passrelayMarker"] == [MARKER]
    change(bare, bare.user_dn("carl"), mail=[(MODIFY_ADD, ["carl@idm.test"])])
    assert office.run("check", exit_code=1)["checks"][2] == {
        "id": "idm.schema",
        "subject": bare.ldaps_url,
        "result": "ok",
        "detail": "there, as it should be",
        "repair": "",
    }
    plan = office.run("setup", "--undo", "--markers")
    assert (plan["written"], bare.read("carl")["passrelayMarker"]) == (False, [MARKER])
    office.run("setup", "--undo", "--markers", "--yes")
    entry = bare.read("carl")
    assert "passrelayMarker" not in entry
    assert "passrelayAccount" not in entry["objectClass"]
    bare.delete_user("carl")
    assert ldif(bare) == before


def test_an_account_that_setup_has_not_made_is_used_and_never_removed(office: IdmOffice, bare: Directory) -> None:
    office.password_file.touch(mode=0o600)
    office.password_file.write_text(password := canary_password())
    account = {"objectClass": ["top", "account", "simpleSecurityObject"], "uid": ["passrelay"]}
    with bare.manager() as manager:
        add(manager, bare.service_dn, {**account, "userPassword": [password]})
    before = ldif(bare)
    done = office.run("setup", "--yes")
    assert (office.not_good(done), done["password_file"]["made"]) == ({}, False)
    undone = office.run("setup", "--undo", "--yes")
    assert undone["stays"] == [f"{bare.service_dn}: passrelay idm setup has not made it"]
    assert ldif(bare) == before


# --- who binds, and what cannot be done


def test_wrong_logins_addresses_and_certificates_are_told_apart(
    office: IdmOffice, bare: Directory, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.password"
    wrong.touch(mode=0o600)
    wrong.write_text(canary_password())
    for command in (("check",), ("setup", "--yes"), ("managers", "list")):
        refused = office.complaint(*command, "--bind-password-file", str(wrong), exit_code=2, login=False)
        assert "--bind-dn" in refused
        assert "Kanarie7" not in office.output
    wrong.chmod(0o640)
    assert "chmod 600" in office.complaint("check", "--bind-password-file", str(wrong), exit_code=2, login=False)
    assert "no terminal" in office.complaint("check", exit_code=2, login=False)
    assert "not a DN" in office.complaint("check", "--bind-dn", "admin", exit_code=2)

    stranger = CertificateAuthority(tmp_path / "stranger")
    for idm, repair in (
        ({"servers": ["ldaps://127.0.0.1:9"]}, "start or reach"),
        # The same address by another name.
        ({"servers": [bare.ldaps_url.replace("localhost", "127.1")]}, "a name that stands in its certificate"),
        ({"ca_file": str(stranger.ca_file)}, "passrelay idm ca"),
        ({"ca_file": str(tmp_path / "nowhere.pem")}, "ca_file is missing"),
    ):
        office.idm = idm
        document = office.run("check", exit_code=3)
        results = office.not_good(document)
        assert results.pop("idm.connect") == "fail"
        assert set(results.values()) == {"unknown"}
        assert [repair in failure["detail"] for failure in document["failures"]] == [True], document["failures"]
        assert office.run("setup", "--yes", exit_code=3)["failures"][0]["check"] == "idm.connect"


def test_who_cannot_see_everything_learns_that_and_changes_nothing(office: IdmOffice, bare: Directory) -> None:
    office.run("setup", "--yes")
    as_service = ("--bind-dn", bare.service_dn, "--bind-password-file", str(office.password_file))
    document = office.run("check", *as_service, exit_code=1, login=False)
    assert office.not_good(document) == dict.fromkeys(("idm.account", "idm.access", "idm.managers"), "unknown")
    before = ldif(bare, operational=True)
    for command in (("setup", "--yes"), ("setup", "--undo", "--yes"), ("managers", "remove", "--yes")):
        assert "Directory Manager" in office.complaint(*command, *as_service, exit_code=2, login=False)
    assert ldif(bare, operational=True) == before


def test_a_server_that_refuses_is_quoted_and_the_next_run_goes_on(office: IdmOffice, bare: Directory) -> None:
    bare.read_only(on=True)
    try:
        refused = office.complaint("setup", "--yes", exit_code=3)
        assert bare.service_dn in refused
        assert "run the same command again" in refused
    finally:
        bare.read_only(on=False)
    assert office.not_good(office.run("setup", "--yes")) == {}


def test_the_password_is_asked_on_a_terminal_and_not_shown(office: IdmOffice, bare: Directory) -> None:
    """A real terminal, because a prompt that echoes shows it to whoever looks over the shoulder."""
    password = bare.manager_file.read_text()
    leader, follower = pty.openpty()
    command = [str(PASSRELAY), "idm", "check", "--config", str(office.ops_file)]
    with subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True, close_fds=True
    ) as process:
        os.close(follower)
        seen = b""

        def read() -> bool:
            nonlocal seen
            if select.select([leader], [], [], 0)[0]:
                try:
                    seen += os.read(leader, 4096)
                except OSError:  # the other side is closed
                    return True
            return b"Password of cn=Directory Manager:" in seen

        wait_for(read, what="the prompt")
        os.write(leader, password.encode() + b"\n")
        wait_for(lambda: read() and process.poll() is not None, what="the end of the command")
        while select.select([leader], [], [], 0)[0]:
            try:
                seen += os.read(leader, 4096)
            except OSError:
                break
    os.close(leader)
    assert process.returncode == 1
    assert re.search(rb"idm.bind\s+\S+\s+ok", seen)
    assert password.encode() not in seen


# --- two servers


@pytest.fixture
def suppliers(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority, tmp_path: Path
) -> Iterator[Suppliers]:
    pair = Suppliers(lab_folder.path / tmp_path.name, reservations, ca)
    pair.a._set_up = False
    pair.b._root_password = pair.a._root_password
    pair.start()
    yield pair
    pair.close()


def test_two_servers_are_set_up_and_taken_back_together(
    suppliers: Suppliers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = suppliers.a, suppliers.b
    office = IdmOffice(tmp_path, [a, b])
    before = _without_touches(a), _without_touches(b)
    looks = itertools.count(1)

    def look(*arguments: Any) -> View:
        """Replication comes back only when the command has looked again, and seen b without accounts."""
        view = view_module.look(*arguments)
        if next(looks) == 4:
            suppliers.heal()
        return view

    monkeypatch.setattr(idm_setup, "look", look)
    suppliers.cut()
    done = office.run("setup", "--yes")
    assert office.not_good(done) == {}
    assert {change["dn"]: len(change["servers"]) for change in done["changes"]} == {
        "cn=schema": 2,
        a.service_dn: 1,
        **{own_probe(a.probe_dn, server.ldaps_url): 1 for server in (a, b)},
        a.search_base: 1,
    }
    assert office.probe(a).ok
    assert office.probe(b).ok
    a.add_user("dora", passrelayMarker=MARKER)
    suppliers.wait_in_sync()
    assert office.run("setup", "--undo", "--markers", "--yes")["stays"] == []
    a.delete_user("dora")
    suppliers.wait_in_sync()
    # Each side has talked to the other since: none of them brought the schema back.
    b.add_user("emil")
    suppliers.wait_in_sync()
    b.delete_user("emil")
    suppliers.wait_in_sync()
    assert (_without_touches(a), _without_touches(b)) == before


def _without_touches(server: Directory) -> list[str]:
    """Without what the lab itself writes when replication begins: whose touch wins may be decided later.

    A 389 Directory Server that takes another one's schema writes 'user defined' to every definition's origin.
    """
    lines = (line for line in ldif(server) if not line.startswith(f"{server.suffix}: description:"))
    return sorted(re.sub(r" X-ORIGIN (?:\\?'[^']*'|\([^)]*\))", "", line) for line in lines)


def test_a_server_that_replication_does_not_reach_is_named(
    suppliers: Suppliers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "REPLICATION_SECONDS", 1.0)
    a, b = suppliers.a, suppliers.b
    office = IdmOffice(tmp_path, [a, b])
    suppliers.cut()
    office.idm = {"servers": [b.ldaps_url]}
    assert office.not_good(office.run("setup", "--yes")) == {}
    # The accounts stand on b alone. A second pair on a, the first of the list, would end as a replication conflict.
    office.idm = {}
    document = office.run("setup", "--yes", exit_code=1)
    changes = [(change["dn"], change["servers"]) for change in document["changes"]]
    # With two servers each needs a probe of its own, an account and its rules.
    probes = [own_probe(a.probe_dn, server.ldaps_url) for server in (a, b)]
    assert changes == [("cn=schema", [a.ldaps_url])] * 2 + [(dn, [b.ldaps_url]) for dn in probes * 2]
    late = {(row["subject"], row["id"]) for row in document["checks"] if row["result"] == "fail"}
    assert late == {(a.ldaps_url, "idm.account")}, "the others rest on it"
    monkeypatch.setattr(work, "REPLICATION_SECONDS", 30.0)
    suppliers.heal()
    suppliers.wait_in_sync()
    assert office.run("setup", "--yes")["written"] is False
    assert not [line for line in (*ldif(a), *ldif(b)) if ": nsds5ReplConflict: " in line]

    office.idm = {"servers": [a.ldaps_url, "ldaps://127.0.0.1:9"]}
    undone = office.run("setup", "--undo", "--yes", exit_code=3)
    assert "would give it back" in undone["stays"][0]
    # Also the probe of the time when b was alone.
    assert {a.probe_dn, *probes} <= {change["dn"] for change in undone["changes"]}
    suppliers.wait_in_sync()
    office.idm = {}
    assert office.run("setup", "--undo", "--yes")["written"] is True
    assert set(office.not_good(office.run("check", exit_code=1))) >= {"idm.schema", "idm.account"}
