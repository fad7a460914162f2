"""`passrelay ad check` on a real Samba domain: all good, and what goes wrong fails its own row and no other."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pika.adapters.blocking_connection import BlockingConnection
from typer.testing import CliRunner

from passrelay_ops.cli import app
from passrelay_schemas import __version__
from passrelay_schemas import news as documents
from passrelay_schemas.message import news_properties
from passrelay_schemas.news import News
from passrelay_schemas.topology import NEWS
from tests.lab import clock
from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.enrolment import Enrolment, Sender, toml
from tests.lab.folder import CANARY, LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.process import run_tool, wait_for
from tests.lab.relay import Service
from tests.lab.samba import DomainController

pytestmark = pytest.mark.integration

PASSRELAY = Path(sys.executable).with_name("passrelay")
OPERATOR = "ad-operator"
READER = "passrelay-reader"
OF_A_SERVER = ("ad.connect", "ad.certificate", "ad.bind", "ad.clock", "ad.sid", "ad.groups")


class Office:
    """Where an operator works: an ops.toml for the lab's domain, and the keys of its producers."""

    def __init__(self, folder: Path, controller: DomainController, broker: Broker) -> None:
        self.folder = folder
        self.controller = controller
        self.broker = broker
        self.enrolment = Enrolment(folder)
        self.enrolment.enrol("dc1")
        self.password = canary_password()
        controller.add_user(READER, self.password)
        self.url = f"ldaps://{controller.address}"
        self.subject = f"dc1.{controller.dns_domain}"
        self.ad = {
            "servers": [self.url],
            "ca_file": controller.ca_file,
            "bind_user": f"{READER}@{controller.dns_domain}",
            "password_file": self.secret("ad.password", self.password),
            "timeout_seconds": 10,
        }

    def secret(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text + "\n")
        return path

    def check(
        self, *, exit_code: int = 0, broker: str | None = None, domain: dict[str, Any] | None = None, **ad: Any
    ) -> dict[str, dict[str, str]]:
        """Every row by its check and subject, after a run with these changes of the settings."""
        return self.run(self.write(broker=broker, domain=domain, **ad), exit_code=exit_code)

    def write(self, *, broker: str | None = None, domain: dict[str, Any] | None = None, **ad: Any) -> Path:
        """His ops.toml with these changes."""
        table = {"name": self.controller.dns_domain, "sid": self.controller.sid, **(domain or {}), "ad": self.ad | ad}
        document = {
            "broker": self.broker_table(OPERATOR) | ({"url": broker} if broker else {}),
            "keys": {"directory": self.enrolment.consumer_keys},
            "domain": [table],
        }
        path = self.folder / "ops.toml"
        path.write_text(toml(document))
        return path

    def run(self, path: Path, *, exit_code: int, env: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
        command: list[str | Path] = [PASSRELAY, "ad", "check", "--config", path, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
        assert done.returncode == exit_code, done.stdout + done.stderr
        assert CANARY not in done.stdout + done.stderr
        document = json.loads(done.stdout.splitlines()[-1])
        assert (document["schema"], document["ok"]) == ("passrelay.ad/1", exit_code == 0)
        return {f"{row['id']} {row['subject']}": row for row in document["checks"]}

    def broker_table(self, user: str) -> dict[str, Any]:
        certificate = self.broker.certificate(user)
        pair = {"certificate_file": certificate.certificate, "key_file": certificate.key}
        return {"url": self.broker.url(), "ca_file": self.controller.ca_file, **pair}

    def producer(self) -> Service:
        """The controller's producer, not started."""
        samba = {"ldapi_path": self.controller.ldapi_path, "gpg_key_file": self.controller.gpg_key_file}
        spool = self.folder / "spool"
        spool.mkdir(mode=0o700)
        document = {
            "broker": self.broker_table("dc1"),
            "keys": {"directory": self.enrolment.producer_keys("dc1")},
            "spool": {"path": spool / "spool.sqlite"},
            "source": {"samba": samba},
            "domain": [{"name": self.controller.dns_domain, "sid": self.controller.sid}],
        }
        path = self.folder / "producer.toml"
        path.write_text(toml(document))
        run_tool([PASSRELAY, "producer", "init", "--from", "now", "--config", path])
        return Service("dc1", ["producer", "run"], path, self.folder / "producer.log")

    def producer_is_heard(self) -> bool:
        done = subprocess.run(
            [PASSRELAY, "ad", "check", "--config", self.write()], capture_output=True, timeout=120, check=False
        )
        return done.returncode == 0

    def publish_news(self, sender: Sender, *, controller: str, age: timedelta = timedelta()) -> None:
        now = datetime.now(UTC)
        news = News.model_validate(
            {
                "signing_key_id": sender.signer.document.key_id,
                "producer": sender.name,
                "source": "samba",
                "controller": controller,
                "version": __version__,
                "sent_at": now - age,
                "started_at": now - age - timedelta(hours=1),
            }
        )
        connection = BlockingConnection(self.broker.parameters())
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish(
                NEWS, "", documents.encode(news, sender.signer), news_properties(sender.name), mandatory=True
            )
        finally:
            connection.close()


def not_good(rows: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: row["result"] for name, row in rows.items() if row["result"] != "ok"}


@pytest.fixture(scope="module")
def controller(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[DomainController]:
    dc = DomainController(lab_folder.path / "ad-check", reservations, ca)
    try:
        dc.start()
        yield dc
    finally:
        dc.stop()


@pytest.fixture(scope="module")
def office(
    tmp_path_factory: pytest.TempPathFactory, controller: DomainController, shared_broker: Broker
) -> Iterator[Office]:
    """With a producer that runs on the controller."""
    shared_broker.add_user(OPERATOR, configure="^passrelay\\.", write="^passrelay\\.", read="^passrelay\\.")
    shared_broker.add_user("dc1", configure="^$", write="^passrelay\\.(events|news)$", read="^$")
    made = Office(tmp_path_factory.mktemp("office"), controller, shared_broker)
    run_tool([PASSRELAY, "topology", "apply", "--config", made.write()])
    producer = made.producer()
    producer.start()
    wait_for(made.producer_is_heard, what="the producer's first news")
    yield made
    producer.stop()


@pytest.fixture
def tls(controller: DomainController) -> Iterator[Path]:
    """The controller's own TLS files, to be replaced; they come back."""
    folder = controller.folder / "tls"
    kept = folder.with_name("tls.kept")
    shutil.copytree(folder, kept)
    yield folder
    shutil.rmtree(folder)
    kept.rename(folder)
    restart(controller)


def restart(controller: DomainController) -> None:
    controller.stop()
    controller.start()


def present(controller: DomainController, leaf: trustme.LeafCert) -> None:
    """Let the controller present this certificate."""
    key, certificate = controller.folder / "tls" / "key.pem", controller.folder / "tls" / "cert.pem"
    key.write_bytes(leaf.private_key_pem.bytes())
    certificate.write_bytes(leaf.cert_chain_pems[0].bytes())
    restart(controller)


# --- all is good


def test_a_domain_that_is_set_up_passes_every_check(office: Office) -> None:
    rows = office.check()
    assert not_good(rows) == {}
    assert set(rows) == {
        *(f"{check} {office.url}" for check in OF_A_SERVER),
        "ad.complexity lab.example",
        f"ad.producers {office.subject}",
    }
    assert office.controller.address in rows[f"ad.certificate {office.url}"]["detail"]
    assert "until 3000-01-01" in rows[f"ad.certificate {office.url}"]["detail"]
    assert rows[f"ad.sid {office.url}"]["detail"] == f"lab.example, {office.controller.sid}"
    assert "producer dc1" in rows[f"ad.producers {office.subject}"]["detail"]


# --- one thing wrong, one row


def behind(office: Office, *failed: str, servers: tuple[str, ...] = OF_A_SERVER) -> dict[str, str]:
    """What is not good when these checks of the only server failed: what stands behind them is unknown."""
    first = servers.index(failed[0])
    rows = {f"{check} {office.url}": "fail" if check in failed else "unknown" for check in servers[first:]}
    return rows | {"ad.complexity lab.example": "unknown", "ad.producers lab.example": "unknown"}


def test_a_controller_that_is_away(office: Office, reservations: Reservations) -> None:
    url = f"ldaps://127.0.0.1:{reservations.port()}"
    rows = office.check(exit_code=3, servers=[url])
    assert {name: result for name, result in not_good(rows).items() if result == "fail"} == {
        f"ad.connect {url}": "fail"
    }
    assert "csr" in rows[f"ad.connect {url}"]["repair"]


def test_one_of_two_servers_away_leaves_the_domain_known(office: Office, reservations: Reservations) -> None:
    away = f"ldaps://127.0.0.1:{reservations.port()}"
    rows = office.check(exit_code=3, servers=[away, office.url])
    assert {name.split()[1] for name in not_good(rows)} == {away}


def test_a_ca_that_did_not_sign_it(office: Office, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path / "other")
    rows = office.check(exit_code=1, ca_file=other.ca_file)
    assert not_good(rows) == behind(office, "ad.certificate")
    row = rows[f"ad.certificate {office.url}"]
    assert "not issued by the CA in ca_file" in row["detail"]
    assert "[domain.ad] ca_file" in row["repair"]
    assert not_good(office.check(exit_code=1, ca_file=tmp_path / "none")) == behind(office, "ad.certificate")


def test_a_certificate_for_another_name(office: Office, tls: Path) -> None:
    authority = trustme.CA()
    ca_file = office.folder / "own-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    present(office.controller, authority.issue_cert("dc9.lab.example"))
    rows = office.check(exit_code=1, ca_file=ca_file)
    assert not_good(rows) == behind(office, "ad.certificate")
    assert "it is for dc9.lab.example" in rows[f"ad.certificate {office.url}"]["detail"]


def test_a_certificate_that_is_over_or_soon_will_be(office: Office, tls: Path) -> None:
    authority = trustme.CA()
    ca_file = office.folder / "own-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    now = datetime.now(UTC)
    address = office.controller.address
    present(office.controller, authority.issue_cert(address, not_after=now + timedelta(days=12, hours=1)))
    rows = office.check(ca_file=ca_file)
    assert "12 days are left: renew it" in rows[f"ad.certificate {office.url}"]["detail"]

    present(
        office.controller,
        authority.issue_cert(address, not_before=now - timedelta(days=9), not_after=now - timedelta(days=1)),
    )
    rows = office.check(exit_code=1, ca_file=ca_file)
    assert not_good(rows) == behind(office, "ad.certificate")
    assert "expired" in rows[f"ad.certificate {office.url}"]["detail"]
    assert "passrelay ad csr" in rows[f"ad.certificate {office.url}"]["repair"]


def test_a_wrong_password(office: Office) -> None:
    wrong = office.secret("wrong.password", canary_password())
    rows = office.check(exit_code=1, password_file=wrong)
    assert not_good(rows) == behind(office, "ad.bind")
    assert "wrong password" in rows[f"ad.bind {office.url}"]["detail"]
    assert "password_file" in rows[f"ad.bind {office.url}"]["repair"]
    rows = office.check(exit_code=1, password_file=office.folder / "none")
    assert not_good(rows) == behind(office, "ad.bind")


def test_complexity_off_and_its_repair(office: Office) -> None:
    command = ["samba-tool", "domain", "passwordsettings", "set"]
    run_tool([*command, "--complexity=off", "-s", office.controller.smb_conf], env=office.controller.env)
    rows = office.check(exit_code=1)
    assert not_good(rows) == {"ad.complexity lab.example": "fail"}
    repair = rows["ad.complexity lab.example"]["repair"].split("`")[1].split()
    assert repair[:4] == command
    run_tool([*repair, "-s", office.controller.smb_conf], env=office.controller.env)
    assert not_good(office.check()) == {}


def test_another_sid_or_name_than_the_configured_one(office: Office) -> None:
    rows = office.check(exit_code=1, domain={"sid": "S-1-5-21-1-2-3"})
    assert not_good(rows) == {f"ad.sid {office.url}": "fail"}
    assert f'sid = "{office.controller.sid}"' in rows[f"ad.sid {office.url}"]["repair"]

    rows = office.check(exit_code=1, domain={"name": "other.example"})
    assert not_good(rows) == {
        f"ad.sid {office.url}": "fail",
        "ad.complexity other.example": "unknown",
        "ad.producers other.example": "unknown",
    }


def test_a_clock_that_is_off(office: Office) -> None:
    rows = office.run(office.write(), exit_code=1, env=clock.environment(timedelta(minutes=2)))
    assert not_good(rows) == {f"ad.clock {office.url}": "fail"}
    assert "behind ours" in rows[f"ad.clock {office.url}"]["detail"]


def test_without_the_broker_the_producers_are_unknown(office: Office, reservations: Reservations) -> None:
    rows = office.check(exit_code=3, broker=f"amqps://127.0.0.1:{reservations.port()}")
    assert not_good(rows) == {f"ad.producers {office.subject}": "unknown"}
    assert "cannot be read: broker" in rows[f"ad.producers {office.subject}"]["detail"]


# --- a certificate by `ad csr`


def signed(csr: x509.CertificateSigningRequest) -> tuple[bytes, bytes]:
    """The certificate that a CA makes of a request, and the CA's own; both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AD CA")])
    now = datetime.now(UTC)

    def builder(subject: x509.Name) -> x509.CertificateBuilder:
        dates = x509.CertificateBuilder().not_valid_before(now).not_valid_after(now + timedelta(days=90))
        return dates.serial_number(x509.random_serial_number()).issuer_name(name).subject_name(subject)

    is_ca = x509.BasicConstraints(ca=True, path_length=None)
    authority = builder(name).public_key(key.public_key()).add_extension(is_ca, critical=True).sign(key, SHA256())
    leaf = builder(csr.subject).public_key(csr.public_key())
    for extension in csr.extensions:
        leaf = leaf.add_extension(extension.value, critical=extension.critical)
    return leaf.sign(key, SHA256()).public_bytes(Encoding.PEM), authority.public_bytes(Encoding.PEM)


def test_a_request_that_a_ca_has_signed_gives_a_good_certificate(
    office: Office, tls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tool([PASSRELAY, "ad", "csr", "--controller", office.subject, "--pkcs10", "--yes", "--directory", tmp_path])
    certificate, authority = signed(x509.load_pem_x509_csr((tmp_path / f"{office.subject}.csr").read_bytes()))
    shutil.copy(tmp_path / f"{office.subject}.key", tls / "key.pem")
    (tls / "cert.pem").write_bytes(certificate)
    (tmp_path / "ca.pem").write_bytes(authority)
    restart(office.controller)

    # The lab has no DNS, and a request names no address.
    resolve = socket.getaddrinfo

    def answer(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve(office.controller.address if host == office.subject else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    path = office.write(servers=[f"ldaps://{office.subject}"], ca_file=tmp_path / "ca.pem")
    result = CliRunner().invoke(app, ["ad", "check", "--config", str(path), "--json"])
    assert result.exit_code == 0, result.output


# --- who needs a producer


class ReadOnlyController(DomainController):
    """A read-only controller that has joined and was never started."""

    def join_only(self) -> None:
        self._prepare()

    def _join(self, first: DomainController) -> None:
        command = ["samba-tool", "domain", "join", self.dns_domain, "RODC", "-s", str(self.smb_conf)]
        run_tool(
            [*command, f"--server={first.address}", "--dns-backend=NONE", "-U", "Administrator"],
            env={**self.env, "PASSWD_FD": "0"},
            stdin=f"{self.administrator_password}\n".encode(),
            timeout_seconds=300,
        )


def test_every_writable_controller_needs_a_producer_that_lives(
    office: Office, lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> None:
    second = DomainController.join(office.controller, lab_folder.path / "ad-check", reservations, ca)
    try:
        second.start()
    finally:
        second.stop()
    row = "ad.producers dc2.lab.example"
    rows = office.check(exit_code=1)
    assert not_good(rows) == {row: "fail"}
    assert "no producer" in rows[row]["detail"]

    stranger = Enrolment(office.folder / "elsewhere").enrol("dc2-stranger")
    office.publish_news(stranger, controller="dc2.lab.example")
    rows = office.check(exit_code=1)
    assert "dc2-stranger" in rows[row]["detail"]
    assert "keys enroll" in rows[row]["repair"]

    sender = office.enrolment.enrol("dc2")
    office.publish_news(sender, controller="DC2.lab.example", age=timedelta(minutes=6))
    rows = office.check(exit_code=1)
    assert not_good(rows) == {row: "fail"}
    assert "silent: producer dc2" in rows[row]["detail"]

    office.publish_news(sender, controller="dc2.lab.example")
    assert not_good(office.check()) == {}

    read_only = ReadOnlyController.join(office.controller, lab_folder.path / "ad-check", reservations, ca, name="dc3")
    assert isinstance(read_only, ReadOnlyController)
    read_only.join_only()
    rows = office.check()
    assert not_good(rows) == {}
    assert "read-only" in rows["ad.producers dc3.lab.example"]["detail"]
