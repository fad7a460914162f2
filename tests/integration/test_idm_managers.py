"""`passrelay idm` on a server with IPA's own password plugin: who is on its list, in a spelling that counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder, canary_password
from tests.lab.idm_office import IdmOffice, ldif
from tests.lab.ipa_directory import PLUGIN_DN, IpaDirectory
from tests.lab.ipa_plugin import Plugin
from tests.lab.network import Reservations

pytestmark = [pytest.mark.integration, pytest.mark.ipa]

OTHER = "uid=passsync,cn=sysaccounts,cn=etc,dc=idm,dc=test"


@pytest.fixture
def new(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority, ipa_plugin: Plugin, tmp_path: Path
) -> Iterator[IpaDirectory]:
    """A server with IPA's realm, on which nobody has set passrelay up."""
    directory = IpaDirectory(lab_folder.path / tmp_path.name, reservations, ca, ipa_plugin, set_up=False)
    directory.start()
    yield directory
    directory.kill()


@pytest.fixture
def office(new: IpaDirectory, tmp_path: Path) -> IdmOffice:
    return IdmOffice(tmp_path, [new])


def listed(office: IdmOffice) -> dict[str, bool]:
    """Every DN of the list, and whether the plugin takes it for that account."""
    return {one["dn"]: one["counts"] for one in office.run("managers", "list")["managers"]}


def test_setup_makes_a_server_fit_for_consumers_and_undo_leaves_it_as_before(
    office: IdmOffice, new: IpaDirectory
) -> None:
    new.set_managers(OTHER)
    before = ldif(new)
    office.idm = {"bind_dn": new.service_dn.replace(",", ", ")}
    done = office.run("setup", "--yes")
    assert office.not_good(done) == {}
    assert listed(office) == {OTHER: True, new.service_dn: True}
    probe = office.probe(new)
    assert (probe.ok, probe.expires_passwords) == (True, True)
    after = ldif(new, operational=True)
    # The probe's password has changed its entry since.
    assert office.run("setup", "--yes")["written"] is False
    assert ldif(new, operational=True) == after
    office.run("setup", "--undo", "--yes")
    assert ldif(new) == before


def test_undo_says_that_whoever_was_listed_before_goes_too(office: IdmOffice, new: IpaDirectory) -> None:
    new.set_managers(OTHER, new.service_dn)
    office.run("setup", "--yes")
    plan = office.run("setup", "--undo")
    assert "even if it was listed before setup" in plan["ldif"]
    office.run("setup", "--undo", "--yes")
    assert listed(office) == {OTHER: True}


def test_the_service_account_sees_its_place_on_the_list_and_that_is_good(office: IdmOffice, new: IpaDirectory) -> None:
    office.run("setup", "--yes")
    as_service = ("--bind-dn", new.service_dn, "--bind-password-file", str(office.password_file))

    def seen() -> str:
        found = office.run("check", *as_service, exit_code=1, login=False)
        return office.not_good(found).get("idm.managers", "ok")

    assert seen() == "ok"
    new.set_managers(OTHER)
    assert seen() == "fail"
    new.set_managers(OTHER, new.service_dn)
    rules = new.read_entry(PLUGIN_DN)["aci"]
    new.change_rules(PLUGIN_DN, delete=[rule for rule in rules if "passrelay" in rule])
    assert seen() == "unknown"
    assert office.not_good(office.run("check", exit_code=1)) == {"idm.managers": "fail"}


def test_all_of_it_can_be_printed_without_a_connection_and_applied_by_ldapmodify(
    office: IdmOffice, new: IpaDirectory
) -> None:
    office.password_file.touch(mode=0o600)
    office.password_file.write_text(canary_password())
    new.apply_ldif(office.run("setup", "--offline", login=False)["ldif"])
    assert office.not_good(office.run("check")) == {}
    assert office.run("setup", "--yes")["written"] is False
    assert office.probe(new).ok


def test_a_dn_with_blanks_gives_no_right_and_is_put_right(office: IdmOffice, new: IpaDirectory) -> None:
    office.run("setup", "--yes")
    spelled = new.service_dn.replace(",", ", ")
    new.set_managers(OTHER, spelled)
    assert listed(office) == {OTHER: True, spelled: False}
    assert office.probe(new).check == "expiry"
    document = office.run("check", exit_code=1)
    assert office.not_good(document) == {"idm.managers": "fail"}
    assert "spelling" in document["failures"][0]["detail"]
    assert "passrelay idm managers add" in document["failures"][0]["detail"]

    plan = office.run("managers", "add", spelled)
    assert "no policy checks" in office.output
    assert (plan["dn"], plan["written"]) == (new.service_dn, False)
    assert listed(office) == {OTHER: True, spelled: False}
    office.run("managers", "add", "--yes")
    assert listed(office) == {OTHER: True, new.service_dn: True}
    assert office.probe(new).ok
    assert office.run("managers", "add", "--yes")["written"] is False


def test_a_manager_goes_however_he_is_spelled_and_only_he(office: IdmOffice, new: IpaDirectory) -> None:
    spelled = OTHER.replace(",", " , ").upper()
    new.set_managers(OTHER, spelled, new.service_dn)
    plan = office.run("managers", "remove", OTHER)
    assert (plan["written"], len(listed(office))) == (False, 3)
    office.run("managers", "remove", OTHER, "--yes")
    assert listed(office) == {new.service_dn: True}
    assert office.run("managers", "remove", OTHER, "--yes")["written"] is False
    assert "not a DN" in office.complaint("managers", "add", "passsync", "--yes", exit_code=2)
    assert listed(office) == {new.service_dn: True}


def test_every_server_has_its_own_list(
    office: IdmOffice,
    new: IpaDirectory,
    lab_folder: LabFolder,
    reservations: Reservations,
    ca: CertificateAuthority,
    ipa_plugin: Plugin,
) -> None:
    second = IpaDirectory(lab_folder.path / "managers-second", reservations, ca, ipa_plugin)
    second._root_password = new._root_password
    second.start()
    second.set_managers()
    try:
        office.servers = [new, second]
        new.set_managers(new.service_dn)
        assert office.run("managers", "list")["empty"] == [second.ldaps_url]
        added = office.run("managers", "add", "--yes")
        assert [change["servers"] for change in added["changes"]] == [[second.ldaps_url]]
        assert [one["server"] for one in added["managers"]] == [new.ldaps_url, second.ldaps_url]
        second.stop()
        removed = office.run("managers", "remove", "--yes", exit_code=3)
        assert [failure["subject"] for failure in removed["failures"]] == [second.ldaps_url]
        office.servers = [new]
        assert listed(office) == {}
    finally:
        second.kill()
