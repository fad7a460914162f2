"""docs/install.md by its letter: its blocks are run, in order, on machines that have nothing but a minimal Debian.

They boot systemd. Broker, consumer, watch and producer become services there, and Samba a domain controller; IdM is a
389 Directory Server beside them. What the page tells to do by hand is done here, and nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from ldap3 import MODIFY_ADD

from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.directory_tree import add, modify
from tests.lab.folder import LabFolder, canary_password, find_canary
from tests.lab.machine import Machine, Wire
from tests.lab.machine_base import ROOT, MachineUnavailableError, machine_release, obtain
from tests.lab.network import Reservations
from tests.lab.process import run_tool, wait_for

pytestmark = pytest.mark.acceptance

PAGE = ROOT / "docs" / "install.md"
RELEASES = os.environ.get("PASSRELAY_LAB_RELEASES", machine_release()).split(",")
"""Of Debian: this machine's own, or both by PASSRELAY_LAB_RELEASES=bookworm,trixie."""
HOSTS = {
    "broker": ("127.0.0.11", "broker.example"),
    "consumer": ("127.0.0.12", "consumer.example"),
    "dc1": ("127.0.0.13", "dc1.ad.example"),
}
"""Each machine's address and name. The page's own names, so that nothing has to be replaced for them."""
SERVICES = {
    "broker": ["rabbitmq-server"],
    "consumer": ["passrelay-consumer", "passrelay-watch"],
    "dc1": ["samba-ad-dc", "passrelay-producer"],
}
SUFFIX = "dc=idm,dc=example"
USER = "anna"
# What the page does with ssh, which is not part of the machines: files go through the folder that they share.
COURIER = """#!/bin/bash
[ "$1" = -r ] && shift
to=${@: -1}
to=/shared/${to#root@}
mkdir -p "${to/://}"
cp -rp -t "${to/://}" "${@:1:$#-1}"
"""
# A domain controller is there before the page begins (Samba's wiki, "Setting up Samba as an Active Directory DC").
CONTROLLER = """
systemctl mask smbd nmbd winbind
apt-get install -y samba-ad-dc krb5-user
rm /etc/samba/smb.conf
samba-tool domain provision --realm=AD.EXAMPLE --domain=AD --server-role=dc --host-name=dc1 --host-ip=127.0.0.13
systemctl unmask samba-ad-dc
systemctl enable --now samba-ad-dc
"""


class Act(NamedTuple):
    """One thing that the page tells to do: a block of commands on a host, or something by hand."""

    host: str | None
    text: str


def acts() -> list[Act]:
    """All of them, in order."""
    text = PAGE.read_text()
    found = re.finditer(
        r"^```sh (?P<host>\w+)\n(?P<block>.*?)^```$|^(?P<hand>\*\*By hand:\*\*.*?)\n\n", text, re.MULTILINE | re.DOTALL
    )
    return [Act(act["host"], act["block"] or act["hand"]) for act in found]


@dataclass
class Site:
    """The three machines and the directory."""

    machines: dict[str, Machine]
    wire: Wire
    directory: Directory
    ca: CertificateAuthority

    def follow(self) -> None:
        """Do what the page says."""
        by_hand = iter(BY_HAND.items())
        for act in acts():
            if act.host is not None:
                self.machines[act.host].run(self._answered(act.text))
                self._deliver()
                continue
            words, do = next(by_hand)
            assert words in act.text, f"the page tells something else to do by hand than this test does: {act.text}"
            do(self)
        assert next(by_hand, None) is None

    def _answered(self, block: str) -> str:
        """A password that is asked for comes from a file, as the page says it may."""
        asks = r"^passrelay idm (setup|check).*$"
        return re.sub(asks, r"\g<0> --bind-password-file /root/manager.password", block, flags=re.MULTILINE)

    def _deliver(self) -> None:
        for name, machine in self.machines.items():
            machine.run(f"[ ! -d /shared/{HOSTS[name][1]} ] || cp -rp /shared/{HOSTS[name][1]}/. /")
        machine.run("rm -rf /shared/*")

    # --- what the page says is done by hand

    def edit_the_consumers_files(self) -> None:
        sid = self.domain_sid()
        consumer = self.machines["consumer"]
        for name in ("ops", "consumer"):
            path = f"/etc/passrelay/{name}.toml"
            text = self._edited(consumer.read(path), sid)
            text = re.sub(
                r"^servers = .*ldaps://idm1.*$", f'servers = ["{self.directory.ldaps_url}"]', text, flags=re.MULTILINE
            )
            text = text.replace("/etc/ipa/ca.crt", "/etc/passrelay/idm-ca.pem")
            consumer.write(path, re.sub(r"^\[domain\.ad\].*?^\n", "", text, flags=re.MULTILINE | re.DOTALL))

    def edit_the_producers_file(self) -> None:
        path = "/etc/passrelay/producer.toml"
        self.machines["dc1"].write(path, self._edited(self.machines["dc1"].read(path), self.domain_sid()))

    def _edited(self, text: str, sid: str) -> str:
        assert '"amqps://broker.example:5671/passrelay"' in text
        return text.replace("S-1-5-21-1111111111-2222222222-3333333333", sid)

    def domain_sid(self) -> str:
        return self.machines["dc1"].run("net getlocalsid AD").split()[-1]

    def compare_the_ca(self) -> None:
        known = run_tool(["openssl", "x509", "-in", self.ca.ca_file, "-noout", "-fingerprint", "-sha256"])
        shown = self.machines["consumer"].run("passrelay idm ca 2>&1")
        assert known.strip().partition("=")[2] in shown

    def compare_the_consumers_keys(self) -> None:
        assert len(self._fingerprints("dc1", "enroll /root/*.pub.json") & self._fingerprints("consumer", "list")) == 2

    def compare_the_signing_key(self) -> None:
        assert self._fingerprints("dc1", "list") <= self._fingerprints("consumer", "enroll /root/*.pub.json")

    def _fingerprints(self, host: str, command: str) -> set[str]:
        shown = self.machines[host].run(f"passrelay keys {command} --json 2>/dev/null | tail -n1")
        return set(re.findall(r'"fingerprint": "([^"]+)"', shown))

    def change_a_password(self) -> None:
        """Set one in AD, and wait until the user logs in with it at the directory and `status` shows the change."""
        password = canary_password()
        twice = f"{password}\n{password}\n"
        self.machines["dc1"].run(f"samba-tool user setpassword {USER} 2>/dev/null", stdin=twice)
        with self.wire.entered():
            wait_for(lambda: self.directory.binds(USER, password), what="the password logs in at the directory")
        assert "applied" in self.machines["consumer"].run(f"passrelay status {USER} 2>&1")


BY_HAND: dict[str, Callable[[Site], None]] = {
    "edit /etc/passrelay/ops.toml and consumer.toml": Site.edit_the_consumers_files,
    "compare the fingerprint that `idm ca` shows": Site.compare_the_ca,
    "edit /etc/passrelay/producer.toml": Site.edit_the_producers_file,
    "compare the fingerprints with those on the consumer": Site.compare_the_consumers_keys,
    "compare the signing key's fingerprint": Site.compare_the_signing_key,
    "set a user's password in AD": Site.change_a_password,
}


@pytest.fixture(scope="module", params=RELEASES)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    try:
        base = obtain(request.param)
    except MachineUnavailableError as error:
        pytest.skip(str(error))
    with ExitStack() as stack:
        lab, reservations = LabFolder(), Reservations()
        stack.callback(lab.remove)
        stack.callback(reservations.release)
        wire = Wire(lab.path)
        stack.callback(wire.stop)
        wire.start()
        ca = CertificateAuthority(lab.path / "ca")
        with wire.entered():
            directory = Directory(lab.path / "directory", reservations, ca, suffix=SUFFIX, set_up=False)
            stack.callback(directory.stop)
            directory.start()
            directory.add_user(USER)
            publish_ca(directory, ca)
        shared, checkout = lab.path / "shared", lab.path / "checkout"
        shared.mkdir()
        shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".git", ".venv*", ".*cache", ".hypothesis"))
        mounts = {base.wheels: "/root/wheels", checkout: "/root/passrelay"}
        machines = {name: Machine(name, base, wire, lab.path / name, mounts=mounts, shared=shared) for name in HOSTS}
        for machine in machines.values():
            stack.callback(machine.close)
            machine.prepare("/etc/pip.conf", "[global]\nno-index = true\nfind-links = /root/wheels\n")
            machine.prepare("/etc/hosts", hosts())
            machine.prepare("/etc/hostname", f"{machine.name}\n")
            machine.boot()
            machine.write("/usr/local/bin/scp", COURIER, mode=0o755)
        machines["dc1"].run(CONTROLLER)
        machines["dc1"].run(f"samba-tool user create {USER} --random-password")
        machines["consumer"].write("/root/manager.password", directory.manager_file.read_text(), mode=0o600)
        yield Site(machines, wire, directory, ca)


def hosts() -> str:
    """What DNS would tell."""
    lines = [f"{address} {name} {name.partition('.')[0]}" for address, name in HOSTS.values()]
    return "\n".join(["127.0.0.1 localhost", *lines]) + "\n"


def publish_ca(directory: Directory, ca: CertificateAuthority) -> None:
    """As IdM does it: in cn=CAcert, for anybody to read."""
    der = x509.load_pem_x509_certificate(ca.ca_file.read_bytes()).public_bytes(Encoding.DER)
    rule = '(targetattr = "cACertificate || objectClass")(version 3.0; acl "CA"; allow (read, search) userdn = "ldap:///anyone";)'
    with directory.manager() as manager:
        add(manager, f"cn=ipa,cn=etc,{SUFFIX}", {"objectClass": ["top", "nsContainer"], "cn": ["ipa"]})
        entry: dict[str, Any] = {
            "objectClass": ["top", "nsContainer", "pkiCA"],
            "cn": ["CAcert"],
            "cACertificate;binary": [der],
        }
        add(manager, f"cn=CAcert,cn=ipa,cn=etc,{SUFFIX}", entry)
        modify(manager, f"cn=CAcert,cn=ipa,cn=etc,{SUFFIX}", {"aci": [(MODIFY_ADD, [rule])]})


def test_the_page_makes_services_that_carry_passwords_and_come_back_after_a_reboot(site: Site) -> None:
    site.follow()
    running(site)
    only_tls_listens(site)
    for machine in site.machines.values():
        machine.reboot()
    running(site)
    site.change_a_password()
    written = [path for machine in site.machines.values() for path in machine.data_paths]
    files, _, hits = find_canary([path / part for path in written for part in ("etc", "root", "tmp", "var")])
    assert files > 100
    assert hits == []


def test_pipx_puts_the_command_where_the_units_look_for_it(site: Site) -> None:
    broker = site.machines["broker"]  # passrelay is on it in no other way
    (block,) = re.findall(r"^```sh with-pipx\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    broker.run(block)
    assert broker.run("/opt/passrelay/bin/passrelay --version").startswith("passrelay ")
    # As the services see it.
    broker.run(
        "systemd-run --wait --quiet -p ProtectHome=yes -p ProtectSystem=strict /opt/passrelay/bin/passrelay --version"
    )


def running(site: Site) -> None:
    for name, services in SERVICES.items():
        for service in services:
            wait_for(
                lambda: site.machines[name].run(f"systemctl is-active {service}", check=False).strip() == "active",  # noqa: B023
                what=f"{service} on {name}",
            )
        assert site.machines[name].run("systemctl list-units --failed --plain --no-legend") == ""


def only_tls_listens(site: Site) -> None:
    """Of what the page installs nothing but 5671 can be reached from elsewhere, and RabbitMQ's own two ports."""
    shown = site.machines["broker"].run("ss -Hltnp")
    ports = {
        line.split()[3].rpartition(":")[::2] for line in shown.splitlines() if re.search("beam|epmd|passrelay", line)
    }
    assert {int(port) for address, port in ports if not address.startswith("127.")} <= {5671, 4369, 25672}
