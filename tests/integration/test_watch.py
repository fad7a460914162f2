"""`passrelay watch` and the health of all services on real servers: what a monitor sees while things break and heal."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika
import pytest
from cryptography import x509
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.stream import read
from passrelay_schemas import keys, topology
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.keys import KeyStatus
from passrelay_schemas.verdict import Reason
from tests.lab.broker import Broker
from tests.lab.dead_mail import DeadMail
from tests.lab.directory import Directory
from tests.lab.enrolment import DOMAIN, DOMAIN_SID, Sender
from tests.lab.folder import canary_password, find_canary
from tests.lab.process import LabError, run_tool, wait_for
from tests.lab.relay import PASSRELAY, Relay, Service

pytestmark = pytest.mark.integration

PRODUCER = "dc1"
NAME = "unsichtbar-einmalig"
"""An account's name that stands nowhere else."""
READER = {"configure": "^$", "write": "^$", "read": r"^passrelay\.(dead|news)$"}
"""As docs/metrics.md says."""


class Site(Relay):
    """One enrolled producer and a watcher."""

    sender: Sender

    def watcher(self) -> Service:
        self.broker.add_user("watch", **READER)
        config = self.write_config(
            "watch",
            {
                "broker": self._broker("watch"),
                "keys": {"directory": self.enrolment.consumer_keys},
                "domain": self.domains,
                "metrics": {"listen": "127.0.0.1:0"},
            },
        )
        return self._add(Service("watch", ["watch"], config, self.folder / "watch.log"))

    def tell(self, body: bytes) -> None:
        connection = BlockingConnection(self.broker.parameters())
        connection.channel().basic_publish(topology.NEWS, "", body, pika.BasicProperties())
        connection.close()

    def told(self) -> list[bytes]:
        connection = BlockingConnection(self.broker.parameters())
        try:
            return [message.body for message in read(connection, topology.NEWS)]
        finally:
            connection.close()


@pytest.fixture
def site(tmp_path: Path, shared_broker: Broker, shared_directory: Directory) -> Iterator[Site]:
    if not shared_broker.running:
        shared_broker.start()
    made = Site(tmp_path / "site", shared_broker, shared_directory)
    made.sender = made.enrolment.enrol(PRODUCER)
    made.enrolment.producers.append("dc2")  # listed, and never heard
    made.prepare()
    shared_broker.purge_all()
    yield made
    made.close()
    if not shared_broker.running:
        shared_broker.start()
    made.prepare()
    shared_broker.purge_all()


def line() -> dict[str, Any]:
    account = {"guid": str(uuid4()), "sid": f"{DOMAIN_SID}-2001", "sam_account_name": NAME}
    return {"domain": DOMAIN, "account": account, "password": canary_password(), "kvno": 1, "changed_at": 134 * 10**15}


def ask(service: Service, path: str) -> tuple[int, str]:
    address = service.lines("metrics_listening")[-1]["address"]
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def becomes(service: Service, path: str, expected: tuple[int, str]) -> None:
    wait_for(lambda: ask(service, path) == expected, what=f"{service.name}{path} says {expected}", timeout_seconds=90)


OK = (200, "ok\n")


def test_letters_queues_and_producers_are_seen_with_read_rights_alone(site: Site) -> None:
    mail = DeadMail(site.broker, site.enrolment, site.sender, 3, prefix=NAME)
    mail.write(iter([Reason.USER_MISSING, Reason.POLICY, Reason.POLICY]))
    mail.write(iter([Reason.REFUSED]), began=utc_now() - timedelta(days=80))
    watcher, producer = site.watcher(), site.line_producer(PRODUCER)
    watcher.start()
    becomes(watcher, "/readyz", OK)
    assert watcher.metric("passrelay_dead_letters", reason="policy") == 2
    assert watcher.metric("passrelay_dead_letters", reason="user_missing") == 1
    assert watcher.metric("passrelay_dead_letters_expiring") == 1
    assert watcher.metric("passrelay_dead_letters_expiring", reason="refused") == 1
    assert watcher.metric("passrelay_work_consumers") == 0
    server = (site.broker.ca.folder / "broker.lab.example.pem").read_bytes()
    ends = x509.load_pem_x509_certificates(server)[0].not_valid_after_utc.timestamp()
    assert watcher.metric("passrelay_certificate_expiry_timestamp_seconds", name="broker") == ends
    producer.start()
    producer.send([line() for _ in range(3)])
    wait_for(lambda: watcher.metric("passrelay_producer_up", producer=PRODUCER) == 1, what="the producer is heard")
    assert 'passrelay_producer_up{producer="dc2"} 0.0' in watcher.metrics()
    wait_for(lambda: watcher.metric("passrelay_work_messages") == 3, what="three events wait")

    # An operator discards two letters: the metric follows, since that is in the stream too.
    reason = ("--reason", "policy", "--yes", "--reason-text", "ticket 1")
    site.passrelay("dead", "discard", *reason, "--config", site.ops_config())
    wait_for(lambda: watcher.metric("passrelay_dead_letters", reason="policy") == 0, what="they are gone")

    # A revoked key still speaks: its producer is no longer believed, and that is counted.
    news = site.told()[-1]
    assert watcher.metric("passrelay_news_refused_total") == 0
    revoked = site.sender.signer.document.with_status(KeyStatus.REVOKED)
    keys.write_public(site.enrolment.consumer_keys, revoked)
    wait_for(lambda: bool(watcher.lines("keyring_read")), what="the keyring is read again")
    site.tell(news)
    wait_for(lambda: watcher.metric("passrelay_news_refused_total", reason="revoked") >= 1, what="it is counted")

    page = "".join(ask(service, path)[1] for service in (watcher, producer) for path in ("/metrics", "/readyz"))
    assert NAME not in page + watcher.log.read_text()
    assert find_canary([watcher.log])[2] == []
    assert watcher.stop() == 0
    assert producer.stop() == 0


def test_readiness_follows_the_servers_and_liveness_does_not(site: Site) -> None:
    watcher, producer, consumer = site.watcher(), site.line_producer(PRODUCER), site.consumer("consumer")
    services = (watcher, producer, consumer)
    for service in services:
        service.start()
        becomes(service, "/readyz", OK)
    wait_for(lambda: watcher.metric("passrelay_work_consumers") == 1, what="the consumer is seen")

    site.directory.stop()
    try:
        producer.send([line()])  # a worker finds out, or the next probe
        wait_for(lambda: ask(consumer, "/readyz")[0] == 503, what="the consumer is not ready", timeout_seconds=90)
        assert "IdM: no server passes its probe" in ask(consumer, "/readyz")[1]
        wait_for(lambda: watcher.metric("passrelay_work_consumers") == 0, what="it takes nothing")
        assert consumer.metric("passrelay_consumer_paused", reason="directory") == 1
        assert consumer.metric("passrelay_directory_up") == 0
    finally:
        site.directory.start()
    becomes(consumer, "/readyz", OK)

    site.broker.stop()
    try:
        for service in (watcher, consumer):
            wait_for(lambda: ask(service, "/readyz")[0] == 503, what=f"{service.name} is not ready")  # noqa: B023
        assert "passrelay_dead_letters{" not in watcher.metrics()  # better no number than a false one
        for service in services:
            assert service.metric("passrelay_broker_up") == 0
        producer.send([line()])
        assert ask(producer, "/readyz") == OK
        assert [ask(service, "/healthz") for service in services] == [OK, OK, OK]
    finally:
        site.broker.start()
    for service in services:
        becomes(service, "/readyz", OK)
        wait_for(lambda: service.metric("passrelay_broker_up") == 1, what="it is connected again")  # noqa: B023
        assert service.stop() == 0


def test_without_an_address_watch_says_what_to_set(site: Site) -> None:
    with pytest.raises(LabError, match=r"\[metrics\] listen is not set"):
        run_tool([PASSRELAY, "watch", "--config", site.ops_config()])
