"""`passrelay doctor` on what a single plain directory server cannot show: IPA's plugin, and two that replicate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from passrelay_ops.cli import app
from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder
from tests.lab.idm_office import IdmOffice
from tests.lab.ipa_directory import IpaDirectory
from tests.lab.network import Reservations
from tests.lab.process import wait_for
from tests.lab.replication import Suppliers

pytestmark = pytest.mark.integration


def rows(office: IdmOffice, result: str, *, login: bool = True) -> dict[tuple[str, str], dict[str, Any]]:
    """What doctor says of IdM, by check and server; the broker of this office is nowhere."""
    known = ["--bind-password-file", str(office.servers[0].manager_file)] if login else []
    done = CliRunner().invoke(app, ["doctor", "--config", str(office.ops_file), *known, "--json"])
    found = json.loads(done.stdout.splitlines()[-1])["checks"]
    return {
        (row["id"], row["subject"]): row for row in found if row["id"].startswith("idm.") and row["result"] == result
    }


@pytest.mark.ipa
def test_a_dn_with_a_blank_is_one_fault_whoever_looks(shared_ipa_directory: IpaDirectory, tmp_path: Path) -> None:
    server = shared_ipa_directory
    office = IdmOffice(tmp_path, [server], idm={"password_file": str(server.password_file)})
    assert rows(office, "fail") == {}
    assert rows(office, "unknown") == {}
    assert rows(office, "fail", login=False) == {}, "the service account sees itself on the list"
    assert ("idm.managers", server.ldaps_url) in rows(office, "ok", login=False)
    server.set_managers(server.service_dn.replace(",", ", "))
    try:
        [(check, row)] = rows(office, "fail").items()
        assert check == ("idm.managers", server.ldaps_url)
        assert "managers add" in row["repair"]
        assert ("idm.write", server.ldaps_url) in rows(office, "unknown"), "follows from it"
        # Where the service account may not see the list, it sees what its write comes to.
        [row] = rows(office, "fail", login=False).values()
        assert row["id"] in {"idm.managers", "idm.write"}
        assert "managers add" in row["repair"]
    finally:
        server.set_managers(server.service_dn)


@pytest.fixture
def suppliers(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority, tmp_path: Path
) -> Iterator[Suppliers]:
    made = Suppliers(lab_folder.path / tmp_path.name, reservations, ca)
    made.b._root_password = made.a._root_password
    made.start()
    yield made
    made.close()


def test_replication_that_is_cut_and_a_server_that_is_gone(suppliers: Suppliers, tmp_path: Path) -> None:
    a, b = suppliers.a, suppliers.b
    office = IdmOffice(tmp_path, [a, b], idm={"password_file": str(a.password_file)})
    assert rows(office, "fail") == {}
    assert rows(office, "unknown") == {}
    suppliers.cut()
    # Each look writes on the probes, so there is something to replicate.
    wait_for(lambda: bool(rows(office, "fail")), what="an agreement says that it cannot send", timeout_seconds=60)
    failed = rows(office, "fail")
    assert {check for check, _ in failed} == {"idm.replication"}
    assert all("repl-agmt" in row["repair"] for row in failed.values())
    b.kill()
    gone = {check for check in rows(office, "fail") if check[1] == b.ldaps_url}
    assert gone == {("idm.connect", b.ldaps_url)}
    assert {check for check, url in rows(office, "unknown") if url == b.ldaps_url} >= {"idm.write", "idm.bind"}
