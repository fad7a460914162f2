"""`passrelay idm ca`: IdM's CA is fetched from a real directory server, compared by a person, and only then pinned."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from ldap3 import MODIFY_ADD, MODIFY_REPLACE

from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.directory_tree import add, modify
from tests.lab.folder import LabFolder
from tests.lab.idm_office import IdmOffice
from tests.lab.network import Reservations
from tests.lab.process import run_tool

pytestmark = pytest.mark.integration

READABLE = (
    '(targetattr = "cACertificate || objectClass")(version 3.0; acl "anyone reads the CA"; '
    'allow (read, search, compare) userdn = "ldap:///anyone";)'
)


@pytest.fixture(scope="module")
def directory(lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority) -> Iterator[Directory]:
    server = Directory(lab_folder.path / "with-ca", reservations, ca, set_up=False)
    server.start()
    dn = f"cn=ipa,cn=etc,{server.suffix}"
    with server.manager() as manager:
        add(manager, dn, {"objectClass": ["top", "nsContainer"], "cn": ["ipa"]})
    yield server
    server.kill()


@pytest.fixture
def office(directory: Directory, tmp_path: Path) -> IdmOffice:
    """The first thing that an administrator does: ca_file is not there yet."""
    return IdmOffice(tmp_path, [directory], idm={"ca_file": str(tmp_path / "ca.pem")})


def publish(directory: Directory, ca: CertificateAuthority) -> None:
    """As IPA does it: DER in cn=CAcert, for anyone to read."""
    der = x509.load_pem_x509_certificate(ca.ca_file.read_bytes()).public_bytes(Encoding.DER)
    dn = f"cn=CAcert,cn=ipa,cn=etc,{directory.suffix}"
    with directory.manager() as manager:
        manager.add(dn, ["top", "nsContainer", "pkiCA"], {"cn": "CAcert", "cACertificate;binary": der})
        if manager.result["result"] == 0:
            modify(manager, dn, {"aci": [(MODIFY_ADD, [READABLE])]})
        else:
            manager.modify(dn, {"cACertificate;binary": [(MODIFY_REPLACE, [der])]})


def by_openssl(path: Path) -> str:
    """What the administrator sees on the IdM server."""
    text = run_tool(["openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256"])
    return text.strip().partition("=")[2]


def test_the_ca_is_shown_compared_and_pinned(office: IdmOffice, directory: Directory, ca: CertificateAuthority) -> None:
    ca_file = Path(office.settings["ca_file"])
    publish(directory, ca)
    fingerprint = by_openssl(ca.ca_file)
    shown = office.run("ca", login=False)
    assert [one["certificates"][0]["sha256"] for one in shown["authorities"]] == [fingerprint]
    assert f"--fingerprint {fingerprint}" in office.output
    assert shown["written"] is False
    assert not ca_file.exists()

    other = fingerprint[:-2] + ("00" if fingerprint[-2:] != "00" else "01")
    assert fingerprint in office.complaint("ca", "--yes", "--fingerprint", other, exit_code=4, login=False)
    assert not ca_file.exists()
    assert office.run("ca", "--yes", "--fingerprint", fingerprint.lower(), login=False)["written"] is True
    assert stat.S_IMODE(ca_file.stat().st_mode) == 0o644
    assert by_openssl(ca_file) == fingerprint
    # With it every other command reaches the server.
    assert office.not_good(office.run("check", exit_code=1))["idm.schema"] == "fail"
    assert office.run("ca", "--yes", login=False)["written"] is False


def test_another_ca_is_never_written_over_the_pinned_one(
    office: IdmOffice, directory: Directory, ca: CertificateAuthority, tmp_path: Path
) -> None:
    stranger = CertificateAuthority(tmp_path / "stranger")
    ca_file = Path(office.settings["ca_file"])
    ca_file.write_bytes(stranger.ca_file.read_bytes())
    publish(directory, ca)
    assert "another CA" in office.complaint("ca", "--yes", exit_code=4, login=False)
    assert ca_file.read_bytes() == stranger.ca_file.read_bytes()


def test_a_ca_that_has_not_signed_the_servers_certificate_is_not_pinned(
    office: IdmOffice, directory: Directory, tmp_path: Path
) -> None:
    stranger = CertificateAuthority(tmp_path / "stranger")
    publish(directory, stranger)
    assert "/etc/ipa/ca.crt" in office.complaint("ca", "--yes", exit_code=1, login=False)
    assert not Path(office.settings["ca_file"]).exists()


def test_servers_that_show_none_or_do_not_answer_are_named(
    office: IdmOffice, directory: Directory, ca: CertificateAuthority
) -> None:
    publish(directory, ca)
    office.idm |= {"servers": ["ldaps://127.0.0.1:9", directory.ldap_url]}
    document = office.run("ca", "--yes", exit_code=3, login=False)
    assert [failure["subject"] for failure in document["failures"]] == ["ldaps://127.0.0.1:9"]
    assert len(document["authorities"]) == 1
    assert document["written"] is True, "over StartTLS too"
    office.search_base = f"cn=users,cn=accounts,dc=other,{directory.suffix}"
    office.idm |= {"servers": [directory.ldaps_url], "bind_dn": "uid=x,cn=etc,dc=other," + directory.suffix}
    assert "/etc/ipa/ca.crt" in office.complaint("ca", exit_code=2, login=False)
