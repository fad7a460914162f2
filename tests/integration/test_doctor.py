"""`passrelay doctor` on real servers: all is well, then one thing after another is broken, found, and mended."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingConnection
from typer.testing import CliRunner

from passrelay_ops import topology
from passrelay_ops.cli import app
from passrelay_ops.doctor.catalogue import CHECKS
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, KeyUse, write_public
from passrelay_schemas.topology import EVENTS, NEWS, queues
from tests.lab import clock
from tests.lab.broker import Broker
from tests.lab.broker_folder import VHOST
from tests.lab.certificates import CertificateAuthority
from tests.lab.changes import replace_values
from tests.lab.directory import Directory
from tests.lab.directory_tree import Changes, modify
from tests.lab.enrolment import toml
from tests.lab.folder import CANARY, LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.openpgp import make_key
from tests.lab.process import wait_for
from tests.lab.relay import _PERMISSIONS, Relay, Service
from tests.lab.samba import DomainController

pytestmark = pytest.mark.integration

Document = dict[str, Any]
Changed = dict[str, Document]
"""By role: tables of its file, as a fault changes them."""


class Site:
    """One host with every role, and the servers that its three files name."""

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        directory: Directory,
        dc: DomainController,
        reservations: Reservations,
    ) -> None:
        self.folder = folder
        self.ca = broker.ca
        self.reservations = reservations
        self.broker = broker
        self.directory = directory
        self.dc = dc
        self.relay = Relay(folder / "relay", broker, directory)
        self.output = ""
        self.relay.enrolment.enrol("dc1")
        domain = {"name": dc.dns_domain, "sid": dc.sid, "search_base": directory.search_base, "producers": ["dc1"]}
        self.relay.prepare(domains=[domain])
        dc.add_user("anna", canary_password())
        self.samba = {
            "ldapi_path": dc.ldapi_path,
            "gpg_key_file": dc.gpg_key_file,
            "smb_conf": dc.smb_conf,
            "poll_ms": 50,
        }
        self.producer: Service = self.relay.samba_producer("dc1", self.samba)
        self.producer.start()
        self.consumer = self.relay.consumer("reader", idm={"probe_seconds": 1, "timeout_seconds": 5})
        self.consumer.start()
        reader = folder / "reader.password"
        reader.touch(mode=0o600)
        reader.write_text(password := canary_password())
        dc.add_user("reader", password)
        self.ad = {
            "servers": [f"ldaps://{dc.address}"],
            "ca_file": dc.ca_file,
            "bind_user": f"reader@{dc.dns_domain}",
            "password_file": reader,
        }
        self.documents: dict[str, Document] = {
            "producer": self._role("dc1", source={"samba": self.samba}, spool={"path": self.relay.spool("dc1")}),
            "consumer": self._role("consumer", idm=self.relay.idm(timeout_seconds=5)),
            "ops": self._role("ops", idm=self.relay.idm(timeout_seconds=5)),
        }
        self.documents["producer"]["domain"] = [{"name": dc.dns_domain, "sid": dc.sid}]
        self.documents["ops"]["domain"] = [{**domain, "ad": self.ad}]

    def _role(self, user: str, **tables: Document) -> Document:
        keys = self.relay.enrolment.producer_keys("dc1") if user == "dc1" else self.relay.enrolment.consumer_keys
        document = {"broker": self.relay._broker(user), "keys": {"directory": keys}, **tables}
        return {**document, "domain": self.relay.domains}

    def doctor(self, *roles: str, login: bool = True, changes: Changed | None = None) -> Document:
        """The document of `passrelay doctor` for these roles, with their files as they are changed."""
        arguments = self.arguments(*roles, login=login, changes=changes or {})
        result = CliRunner().invoke(app, [*arguments, "--json"])
        self.output = result.output
        assert CANARY not in self.output
        document: Document = json.loads(result.stdout.splitlines()[-1])
        assert document["ok"] is (result.exit_code == 0)
        return document

    def arguments(self, *roles: str, login: bool, changes: Changed) -> list[str]:
        files = []
        for role in roles or ("producer", "consumer", "ops"):
            path = self.folder / f"{role}.toml"
            path.touch(mode=0o600)
            path.write_text(toml(merged(self.documents[role], changes.get(role, {}))))
            files += ["--config", str(path)]
        known = ["--bind-password-file", str(self.directory.manager_file)] if login else []
        return ["doctor", *files, *known]


def consuming(site: Site) -> None:
    """Wait until the work queue is read again, whatever the fault before did to its consumer."""
    if not site.consumer.process.running:
        site.consumer.start()
    with BlockingConnection(site.broker.parameters()) as connection:
        channel = connection.channel()

        def read() -> bool:
            return bool(channel.queue_declare(EVENTS, passive=True).method.consumer_count)

        wait_for(read, what="a consumer is subscribed", timeout_seconds=120)


def merged(document: Document, changes: Document) -> Document:
    """The document with tables changed key by key, and lists replaced."""
    result = dict(document)
    for name, value in changes.items():
        result[name] = {**result.get(name, {}), **value} if isinstance(value, dict) else value
    return result


def of(document: Document, result: str) -> set[tuple[str, str]]:
    return {(row["id"], row["subject"]) for row in document["checks"] if row["result"] == result}


def failed(document: Document) -> set[str]:
    return {check for check, _ in of(document, "fail")}


@pytest.fixture(scope="module")
def controller(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority
) -> Iterator[DomainController]:
    dc = DomainController(lab_folder.path / "doctor", reservations, ca)
    dc.start()
    yield dc
    dc.stop()


@pytest.fixture(scope="module")
def directory(lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority) -> Iterator[Directory]:
    server = Directory(lab_folder.path / "doctor-idm", reservations, ca)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def site(
    lab_folder: LabFolder,
    shared_broker: Broker,
    directory: Directory,
    controller: DomainController,
    reservations: Reservations,
) -> Iterator[Site]:
    folder = lab_folder.path / "doctor-host"
    folder.mkdir()
    made = Site(folder, shared_broker, directory, controller, reservations)
    try:
        wait_for(
            lambda: not failed(made.doctor("ops")), what="the producer's first news are there", timeout_seconds=300
        )
        yield made
    finally:
        made.relay.close()


@pytest.fixture(autouse=True)
def subscribed(site: Site) -> None:
    consuming(site)


# --- good


def test_all_is_well(site: Site) -> None:
    document = site.doctor()
    assert {row["result"] for row in document["checks"]} == {"ok"}, [
        row for row in document["checks"] if row["result"] != "ok"
    ]
    assert document["failures"] == []
    elsewhere = {check for check in CHECKS if check.startswith("windows.")}
    assert {row["id"] for row in document["checks"]} == CHECKS.keys() - elsewhere, "the runbook has them all"


def test_the_service_account_sees_less_and_that_is_no_fault(site: Site) -> None:
    document = site.doctor(login=False)
    assert of(document, "fail") == set()
    assert {check for check, _ in of(document, "unknown")} <= {"idm.unhashed", "idm.replication", "idm.managers"} | {
        "idm.account",
        "idm.probe",
        "idm.access",
    }


def test_nothing_is_published_or_taken(site: Site) -> None:
    site.consumer.stop()
    with BlockingConnection(site.broker.parameters()) as connection:
        channel = connection.channel()
        channel.queue_purge(EVENTS)
        channel.basic_publish(EVENTS, "", b"waits", BasicProperties(delivery_mode=2))
        wait_for(lambda: site.broker.queue_depths()[EVENTS] == 1, what="a message waits")
        before = site.broker.queue_depths()
        site.doctor()
        # The producer tells its news whenever it likes.
        assert site.broker.queue_depths() | {NEWS: before[NEWS]} == before
        method, properties, _ = channel.basic_get(EVENTS, auto_ack=True)
        assert method is not None
        handed_out = (properties.headers or {}).get("x-delivery-count", 0)
        assert (handed_out, method.redelivered) == (0, False), "nobody else was given it"


# --- one fault at a time; each breaks something, gives what the files say differently, and mends


def everywhere(table: str, **values: Any) -> Changed:
    """The same change in the consumer's and the operator's file."""
    return {role: {table: values} for role in ("consumer", "ops")}


@contextlib.contextmanager
def entry(directory: Directory, dn: str, broken: Changes, mended: Changes) -> Iterator[None]:
    with directory.manager() as manager:
        modify(manager, dn, broken)
    try:
        yield
    finally:
        with directory.manager() as manager:
            modify(manager, dn, mended)


def stranger(site: Site) -> CertificateAuthority:
    return CertificateAuthority(site.folder / "stranger")


def unreadable_file(site: Site) -> Iterator[Changed]:
    yield {"ops": {"brokr": {"url": "amqp://127.0.0.1/"}}}


def expired_client_certificate(site: Site) -> Iterator[Changed]:
    old = trustme.CA().issue_cert("ops", common_name="ops", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    certificate, key = site.folder / "old.pem", site.folder / "old.key"
    old.cert_chain_pems[0].write_to_path(str(certificate))
    key.touch(mode=0o600)
    old.private_key_pem.write_to_path(str(key))
    yield {"ops": {"broker": {"certificate_file": certificate, "key_file": key}}}


def client_certificate_of_a_stranger(site: Site) -> Iterator[Changed]:
    files = stranger(site).issue("ops", common_name="ops")
    yield {"ops": {"broker": {"certificate_file": files.certificate, "key_file": files.key}}}


def broker_out_of_reach(site: Site) -> Iterator[Changed]:
    yield {"ops": {"broker": {"url": f"amqps://127.0.0.1:9/{VHOST}"}}}


def broker_with_another_ca(site: Site) -> Iterator[Changed]:
    yield {"ops": {"broker": {"ca_file": stranger(site).ca_file}}}


def broker_by_another_name(site: Site) -> Iterator[Changed]:
    yield {"ops": {"broker": {"url": site.broker.url().replace("127.0.0.1", "127.1")}}}


def broker_whose_certificate_expired(site: Site) -> Iterator[Changed]:
    """Nobody logs in there: it is refused before. A node takes minutes to notice a new certificate file."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(site.folder / "old-ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", not_after=datetime(2020, 1, 1, tzinfo=UTC)).configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    with accepted, contextlib.suppress(OSError):
                        context.wrap_socket(accepted, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"amqps://localhost:{listener.getsockname()[1]}/{VHOST}"
        yield {"ops": {"broker": {"url": url, "ca_file": site.folder / "old-ca.pem"}}}
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def broker_user_unknown(site: Site) -> Iterator[Changed]:
    files = site.broker.certificate("nobody")
    yield {"ops": {"broker": {"certificate_file": files.certificate, "key_file": files.key}}}


def permissions(user: str, **given: str) -> Callable[[Site], Iterator[Changed]]:
    def broken(site: Site) -> Iterator[Changed]:
        right = _PERMISSIONS.get(user, _PERMISSIONS["producer"])
        site.broker.add_user(user, **{**right, **given})
        yield {}
        site.broker.add_user(user, **right)

    return broken


def broker_without_a_queue(site: Site) -> Iterator[Changed]:
    connection = BlockingConnection(site.broker.parameters())
    connection.channel().queue_delete("passrelay.retry.1h")
    yield {}
    topology.apply(connection)
    connection.close()


def broker_with_another_delivery_limit(site: Site) -> Iterator[Changed]:
    connection = BlockingConnection(site.broker.parameters())
    channel = connection.channel()
    tier = next(queue for queue in queues() if queue.name == "passrelay.retry.1h")
    channel.queue_delete(tier.name)
    channel.queue_declare(tier.name, durable=True, arguments={**tier.arguments, "x-delivery-limit": 3})
    yield {}
    channel.queue_delete(tier.name)
    topology.apply(connection)
    connection.close()


def consumer_stopped(site: Site) -> Iterator[Changed]:
    site.consumer.stop()
    yield {}
    site.consumer.start()


def signing_key_revoked(site: Site) -> Iterator[Changed]:
    document = next(key for key in Keyring(site.relay.enrolment.consumer_keys).documents(KeyUse.SIGNING))
    write_public(site.relay.enrolment.consumer_keys, document.model_copy(update={"status": KeyStatus.REVOKED}))
    yield {}
    write_public(site.relay.enrolment.consumer_keys, document)


def own_signing_key_revoked(site: Site) -> Iterator[Changed]:
    directory = site.folder / "own-keys"
    shutil.copytree(site.relay.enrolment.producer_keys("dc1"), directory)
    document = next(key for key in Keyring(directory).documents(KeyUse.SIGNING))
    write_public(directory, document.model_copy(update={"status": KeyStatus.REVOKED}))
    yield {"producer": {"keys": {"directory": directory}}}


def recipient_key_expired(site: Site) -> Iterator[Changed]:
    directory = site.relay.enrolment.producer_keys("dc1")
    document = next(key for key in Keyring(directory).documents(KeyUse.RECIPIENT))
    write_public(directory, document.model_copy(update={"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}))
    yield {}
    write_public(directory, document)


def producer_stopped(site: Site) -> Iterator[Changed]:
    site.producer.stop()
    yield {}
    site.producer.start()
    wait_for(lambda: not failed(site.doctor("ops")), what="the producer has spoken again", timeout_seconds=60)


def nothing_begun(site: Site) -> Iterator[Changed]:
    yield {"producer": {"spool": {"path": site.relay.spool("new")}}}


def cleartext_off(site: Site) -> Iterator[Changed]:
    good = site.dc.smb_conf.read_text()
    site.dc.smb_conf.write_text(good.replace("password hash gpg key ids", "# password hash gpg key ids"))
    yield {}
    site.dc.smb_conf.write_text(good)


def another_openpgp_key(site: Site) -> Iterator[Changed]:
    yield {"producer": {"source": {"samba": {**site.samba, "gpg_key_file": make_key(site.folder / "other").file}}}}


def a_change_made_without_openpgp(site: Site) -> Iterator[Changed]:
    plain = site.folder / "plain.conf"
    plain.write_text(site.dc.smb_conf.read_text().replace("password hash gpg key ids", "# password hash gpg key ids"))
    right = site.dc.smb_conf
    site.dc.smb_conf = plain
    site.dc.samba_tool_set("anna", canary_password())
    site.dc.smb_conf = right
    yield {}
    site.dc.samba_tool_set("anna", canary_password())


def filter_of_a_missing_group(site: Site) -> Iterator[Changed]:
    yield {"producer": {"filter": {"include_groups": ["no such group"]}}}


def controller_of_another_domain(site: Site) -> Iterator[Changed]:
    yield {"producer": {"domain": [{"name": "other.example", "sid": site.dc.sid}]}}


def socket_of_nobody(site: Site) -> Iterator[Changed]:
    path = site.folder / "dead.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
    yield {"producer": {"source": {"samba": {**site.samba, "ldapi_path": path}}}}


def ad_with(**values: Any) -> Callable[[Site], Iterator[Changed]]:
    def broken(site: Site) -> Iterator[Changed]:
        given = {name: value(site) if callable(value) else value for name, value in values.items()}
        domain = site.documents["ops"]["domain"][0]
        yield {"ops": {"domain": [{**domain, "ad": {**site.ad, **given}}]}}

    return broken


def another_sid(site: Site) -> Iterator[Changed]:
    domain = site.documents["ops"]["domain"][0]
    yield {"ops": {"domain": [{**domain, "sid": "S-1-5-21-1-2-3"}]}}


def a_wrong_password(site: Site) -> Path:
    path = site.folder / "wrong.password"
    path.touch(mode=0o600)
    path.write_text(canary_password())
    return path


def an_empty_password(site: Site) -> Path:
    path = site.folder / "empty.password"
    path.touch(mode=0o600)
    return path


def complexity_off(site: Site) -> Iterator[Changed]:
    for value in ("0", "1"):
        with site.dc.local_connection() as connection:
            replace_values(connection, site.dc.base_dn, {"pwdProperties": value})
        if value == "0":
            yield {}


def idm_out_of_reach(site: Site) -> Iterator[Changed]:
    yield everywhere("idm", servers=["ldaps://localhost:9"])


def idm_with_another_ca(site: Site) -> Iterator[Changed]:
    yield everywhere("idm", ca_file=stranger(site).ca_file)


def idm_by_another_name(site: Site) -> Iterator[Changed]:
    yield everywhere("idm", servers=[site.directory.ldaps_url.replace("localhost", "127.1")])


def idm_with_another_password(site: Site) -> Iterator[Changed]:
    yield everywhere("idm", password_file=a_wrong_password(site))


def idm_with_a_mistyped_account(site: Site) -> Iterator[Changed]:
    yield everywhere("idm", bind_dn=site.directory.service_dn.replace("passrelay", "pasrelay"))


def idm_account_locked(site: Site) -> Iterator[Changed]:
    on: Changes = {"nsAccountLock": [(MODIFY_ADD, ["true"])]}
    off: Changes = {"nsAccountLock": [(MODIFY_DELETE, [])]}
    with entry(site.directory, site.directory.service_dn, on, off):
        yield {}


def probe_gone(site: Site) -> Iterator[Changed]:
    yield everywhere("idm", probe_dn=site.directory.probe_dn.replace("probe", "prob"))


def idm_whose_clock_is_ahead(site: Site) -> Iterator[Changed]:
    folder = site.folder / "late"
    late = Directory(folder, site.reservations, site.ca, environment=clock.environment(timedelta(minutes=2)))
    late._root_password = site.directory._root_password
    late.start()
    yield everywhere("idm", servers=[late.ldaps_url], password_file=late.password_file)
    late.kill()


def an_access_rule_missing(site: Site) -> Iterator[Changed]:
    directory = site.directory
    rules = directory.read_entry(directory.probe_dn)["aci"]
    gone: Changes = {"aci": [(MODIFY_DELETE, rules)]}
    with entry(directory, directory.probe_dn, gone, {"aci": [(MODIFY_ADD, rules)]}):
        yield {}


def schema_missing(site: Site) -> Iterator[Changed]:
    kinds = ("objectClasses", "attributeTypes")
    shown = site.directory.read_entry("cn=schema")
    ours = {kind: [text for text in shown[kind] if "'passrelay" in text] for kind in kinds}
    gone: Changes = {kind: [(MODIFY_DELETE, ours[kind])] for kind in kinds}
    back: Changes = {kind: [(MODIFY_ADD, ours[kind])] for kind in reversed(kinds)}
    with entry(site.directory, "cn=schema", gone, back):
        yield {}


def probe_enabled(site: Site) -> Iterator[Changed]:
    off: Changes = {"nsAccountLock": [(MODIFY_DELETE, [])]}
    on: Changes = {"nsAccountLock": [(MODIFY_ADD, ["true"])]}
    with entry(site.directory, site.directory.probe_dn, off, on):
        yield {}


def changelog_with_clear_text(site: Site) -> Iterator[Changed]:
    switch = "nsslapd-unhashed-pw-switch"
    on: Changes = {switch: [(MODIFY_REPLACE, ["on"])]}
    with entry(site.directory, "cn=config", on, {switch: [(MODIFY_REPLACE, ["nolog"])]}):
        yield {}


def database_read_only(site: Site) -> Iterator[Changed]:
    site.directory.read_only(on=True)
    yield {}
    site.directory.read_only(on=False)


FAULTS: list[tuple[Callable[[Site], Iterator[Changed]], str, str]] = [
    (unreadable_file, "config.file", "did you mean broker"),
    (expired_client_certificate, "config.broker", "renew it"),
    (client_certificate_of_a_stranger, "broker.client", "certificate of a CA that the broker trusts"),
    (broker_out_of_reach, "broker.connect", "start the broker"),
    (broker_with_another_ca, "broker.certificate", "ca_file must hold the CA"),
    (broker_by_another_name, "broker.certificate", "a name that stands in its certificate"),
    (broker_whose_certificate_expired, "broker.certificate", "renew the broker's certificate"),
    (broker_user_unknown, "broker.login", "must be a user there"),
    (permissions("dc1", write="^$"), "broker.permissions", "set_permissions -p passrelay dc1"),
    (permissions("dc1", read=".*"), "broker.permissions", "set_permissions -p passrelay dc1"),
    (permissions("consumer", read="^$"), "broker.permissions", "set_permissions -p passrelay consumer"),
    (permissions("consumer", configure=".*"), "broker.permissions", "set_permissions -p passrelay consumer"),
    (permissions("ops", write=r"^passrelay\.dead$"), "broker.permissions", "set_permissions -p passrelay ops"),
    (broker_without_a_queue, "broker.topology", "passrelay topology apply"),
    (broker_with_another_delivery_limit, "broker.limits", "passrelay topology apply"),
    (consumer_stopped, "broker.consumers", "passrelay consumer run"),
    (signing_key_revoked, "keys.signing", "passrelay keys init producer dc1"),
    (own_signing_key_revoked, "config.keys", "passrelay keys rotate signing"),
    (recipient_key_expired, "keys.expiry", "passrelay keys rotate"),
    (producer_stopped, "producer.running", "passrelay producer run"),
    (nothing_begun, "producer.initialised", "passrelay producer init"),
    (socket_of_nobody, "producer.socket", "is samba running"),
    (controller_of_another_domain, "producer.domain", 'name = "lab.example"'),
    (filter_of_a_missing_group, "producer.filter", "Correct the name"),
    (cleartext_off, "producer.cleartext", "password hash gpg key ids"),
    (another_openpgp_key, "producer.gpg_key", "gpg --export-secret-keys"),
    (a_change_made_without_openpgp, "producer.proof", "password hash gpg key ids"),
    (ad_with(servers=["ldaps://127.0.0.1:9"]), "ad.connect", "start or reach"),
    (ad_with(ca_file=lambda site: stranger(site).ca_file), "ad.certificate", "the CA that issued it"),
    (ad_with(servers=lambda site: [f"ldaps://{long_form(site.dc.address)}"]), "ad.certificate", "by such a name"),
    (ad_with(password_file=a_wrong_password), "ad.bind", "password_file"),
    (ad_with(password_file=an_empty_password), "config.domain", "password"),
    (ad_with(ca_file="/nowhere/ca.pem"), "config.domain", "check path"),
    (another_sid, "ad.sid", "sid ="),
    (complexity_off, "ad.complexity", "--complexity=on"),
    (idm_out_of_reach, "idm.connect", "start or reach"),
    (idm_with_another_ca, "idm.certificate", "passrelay idm ca"),
    (idm_by_another_name, "idm.certificate", "a name that stands in its certificate"),
    (idm_with_another_password, "idm.login", "ldappasswd"),
    (idm_with_a_mistyped_account, "idm.account", "correct [idm] bind_dn"),
    (idm_account_locked, "idm.login", "delete: nsAccountLock"),
    (probe_gone, "idm.probe", "passrelay idm setup"),
    (idm_whose_clock_is_ahead, "idm.clock", "chronyc"),
    (an_access_rule_missing, "idm.access", "passrelay idm setup"),
    (schema_missing, "idm.schema", "passrelay idm setup"),
    (probe_enabled, "idm.probe", "passrelay idm setup"),
    (changelog_with_clear_text, "idm.unhashed", "dsconf"),
    (database_read_only, "idm.write", "passrelay idm setup"),
]


def long_form(address: str) -> str:
    """The same address by a name that no certificate has: its last number is written with a zero in front of it."""
    first, _, rest = address.partition(".")
    return f"{first}.{int.from_bytes(bytes(map(int, rest.split('.'))))}"


@pytest.mark.parametrize(("broken", "check", "repair"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_one_fault_is_one_failed_check_with_its_repair(
    site: Site, broken: Callable[[Site], Iterator[Changed]], check: str, repair: str
) -> None:
    with contextlib.contextmanager(broken)(site) as changes:
        document = site.doctor(changes=changes)
    assert failed(document) == {check}, document["failures"]
    assert any(repair in failure["detail"] for failure in document["failures"]), document["failures"]


def test_a_locked_account_that_looks_itself_is_told_how_to_unlock(site: Site) -> None:
    with contextlib.contextmanager(idm_account_locked)(site):
        document = site.doctor(login=False)
    assert failed(document) == {"idm.bind"}
    assert "delete: nsAccountLock" in document["failures"][0]["detail"]


def test_an_operator_elsewhere_sees_a_silent_producer(site: Site) -> None:
    with contextlib.contextmanager(producer_stopped)(site):
        document = site.doctor("ops")
    assert of(document, "fail") == {("producer.alive", "dc1")}
    assert "passrelay producer run" in document["failures"][0]["detail"]


def test_what_was_mended_is_good_again(site: Site) -> None:
    assert not failed(site.doctor())
