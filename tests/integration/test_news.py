"""News on a real broker, from real producer processes: what an operator can rely on, and what news must never do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika
import pytest
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops import connection as operator
from passrelay_ops.news import EVERYTHING, Heard, State, hear, latest, liveness
from passrelay_ops.stream import read
from passrelay_schemas import __version__, topology
from passrelay_schemas import news as documents
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.news import News
from passrelay_schemas.secret import Secret
from passrelay_schemas.strict_json import b64url
from passrelay_schemas.verdict import Reason
from tests.lab.broker import Broker
from tests.lab.directory import Directory
from tests.lab.enrolment import DOMAIN, DOMAIN_SID, Sender
from tests.lab.folder import canary_password, find_canary
from tests.lab.process import wait_for
from tests.lab.relay import LineProducer, Relay

pytestmark = pytest.mark.integration

PRODUCER = "dc1"
OLD_PERMISSION = r"^passrelay\.events$"
PERMISSION = r"^passrelay\.(events|news)$"
NAME = "namenlos-einmalig"
"""An account's name that stands nowhere else."""


class Site(Relay):
    """One enrolled producer, and the operator's view of its news."""

    sender: Sender

    @property
    def keyring(self) -> Keyring:
        return Keyring(self.enrolment.consumer_keys)

    def connect(self) -> BlockingConnection:
        return BlockingConnection(self.broker.parameters())

    def heard(self) -> Heard:
        connection = self.connect()
        try:
            return hear(connection, self.keyring)
        finally:
            connection.close()

    def news(self) -> News | None:
        return self.heard().news.get(PRODUCER)

    def bodies(self) -> list[bytes]:
        connection = self.connect()
        try:
            return [message.body for message in read(connection, topology.NEWS)]
        finally:
            connection.close()

    def tell(self, *bodies: bytes) -> None:
        """Publish to the exchange of the news, whatever it is."""
        connection = self.connect()
        channel = connection.channel()
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish(topology.NEWS, "", body, pika.BasicProperties(), mandatory=True)
        connection.close()

    def warnings(self, producer: LineProducer) -> list[dict[str, Any]]:
        return producer.lines("news_fault")


@pytest.fixture
def site(tmp_path: Path, shared_broker: Broker, shared_directory: Directory) -> Iterator[Site]:
    if not shared_broker.running:
        shared_broker.start()
    made = Site(tmp_path / "site", shared_broker, shared_directory)
    made.sender = made.enrolment.enrol(PRODUCER)
    made.prepare()
    shared_broker.purge_all()
    yield made
    made.close()
    made.prepare()
    shared_broker.purge_all()


def line(number: int) -> dict[str, Any]:
    return {
        "domain": DOMAIN,
        "account": {
            "guid": str(uuid4()),
            "sid": f"{DOMAIN_SID}-{2000 + number}",
            "sam_account_name": f"{NAME}{number}",
        },
        "password": canary_password(),
        "kvno": 1,
        "changed_at": 134_000_000_000_000_000,
    }


def drained(producer: LineProducer) -> None:
    wait_for(lambda: producer.metric("passrelay_spool_events", state="queued") == 0, what="everything is published")


def test_a_producer_tells_what_it_holds_and_a_killed_one_falls_silent(site: Site) -> None:
    before = utc_now() - timedelta(seconds=1)
    producer = site.line_producer(PRODUCER)
    producer.start()
    wait_for(lambda: site.news() is not None, what="news of the connection")
    producer.send([line(number) for number in range(3)])
    drained(producer)
    key_id = site.enrolment.recipient.key_id

    def told() -> bool:
        news = site.news()
        return news is not None and news.spooled_for(key_id).retained == 3

    wait_for(told, what="news of the drained queue")
    news = site.news()
    assert news is not None
    assert (news.producer, news.source, news.domains, news.version) == (PRODUCER, "stdin", (DOMAIN,), __version__)
    assert (news.controller, news.openpgp_fingerprints, news.pending, news.stopping) == (None, (), {}, False)
    assert [(item.recipient_key_id, item.queued) for item in news.spool] == [(key_id, 0)]
    assert news.last_capture_at is not None
    assert news.source_up is True
    assert before <= news.started_at <= news.last_capture_at <= news.sent_at <= utc_now()
    assert liveness(news, utc_now()).state is State.ALIVE

    producer.kill()
    last = site.news()
    assert last is not None
    assert not last.stopping
    later = liveness(last, last.sent_at + timedelta(minutes=6))
    assert later.state is State.SILENT
    assert "no news since" in later.detail
    assert liveness(site.heard().news.get("dc2"), utc_now()).state is State.NEVER

    for body in site.bodies():
        assert NAME.encode() not in body
        assert NAME not in repr(documents.decode(body, site.keyring))
    found = find_canary([*site.data_paths, *site.broker.data_paths])[2]
    assert found == []


def test_what_waits_is_told_by_key_and_a_clean_stop_says_so(site: Site) -> None:
    connection = site.connect()
    connection.channel().queue_unbind(topology.EVENTS, topology.EVENTS, "")
    producer = site.line_producer(PRODUCER)
    producer.start()
    wait_for(lambda: site.news() is not None, what="news of the connection")
    producer.send([line(number) for number in range(4)])
    assert producer.stop() == 0
    wait_for(lambda: (news := site.news()) is not None and news.stopping, what="the last news")
    news = site.news()
    assert news is not None
    assert liveness(news, utc_now()).state is State.SILENT
    assert news.queued == 4
    (waiting,) = news.spool
    assert (waiting.recipient_key_id, waiting.retained) == (site.enrolment.recipient.key_id, 0)
    assert waiting.oldest_at is not None
    assert news.started_at <= waiting.oldest_at <= news.sent_at
    # The next process speaks for itself: alive again, and the same events still wait.
    producer.start()
    wait_for(lambda: (news := site.news()) is not None and not news.stopping, what="news of the new process")
    news = site.news()
    assert news is not None
    assert news.queued == 4
    connection.channel().queue_bind(topology.EVENTS, topology.EVENTS, "")
    connection.close()
    assert producer.finish() == 0


def test_a_spool_folder_that_was_moved_costs_the_news_and_nothing_else(site: Site) -> None:
    producer = site.line_producer(PRODUCER)
    producer.start()
    wait_for(lambda: site.news() is not None, what="news of the connection")
    told = len(site.bodies())
    folder = site.spool(PRODUCER).parent
    folder.rename(folder.with_name("moved"))
    for number in range(2):  # each emptied queue is news
        producer.send([line(number)])
        wait_for(lambda: site.broker.queue_depths()[topology.EVENTS] > number, what="the event")  # noqa: B023
        wait_for(lambda: bool(site.warnings(producer)), what="the warning")
    folder.with_name("moved").rename(folder)
    producer.send([line(3)])
    wait_for(lambda: len(site.bodies()) > told, what="news again")
    assert producer.finish() == 0
    (warning,) = site.warnings(producer)
    assert "No such file" in warning["why"]
    assert not producer.lines("internal_error")
    assert site.broker.queue_depths()[topology.EVENTS] == 3


def test_without_the_permission_events_flow_and_one_warning_says_what_to_do(site: Site) -> None:
    site.broker.add_user(PRODUCER, configure="^$", write=OLD_PERMISSION, read="^$")
    producer = site.line_producer(PRODUCER)
    producer.start()
    wait_for(lambda: bool(site.warnings(producer)), what="the warning")
    producer.send([line(number) for number in range(3)])
    drained(producer)
    assert producer.finish() == 0  # its news of the drained queue and of its end are refused too
    (warning,) = site.warnings(producer)
    assert warning["level"] == "warning"
    assert PERMISSION in warning["repair"]
    assert len(producer.lines("broker_connected")) == 1
    assert not producer.lines("internal_error")
    assert site.bodies() == []
    assert site.broker.queue_depths()[topology.EVENTS] == 3


def test_a_broker_without_the_stream_is_the_same(site: Site) -> None:
    connection = site.connect()
    connection.channel().exchange_delete(topology.NEWS)
    producer = site.line_producer(PRODUCER)
    producer.start()
    producer.send([line(1)])
    wait_for(lambda: bool(site.warnings(producer)), what="the warning")
    assert producer.finish() == 0
    (warning,) = site.warnings(producer)
    assert "passrelay topology apply" in warning["repair"]
    assert site.broker.queue_depths()[topology.EVENTS] == 1
    # the operator's side names the same repair
    connection.channel().queue_delete(topology.NEWS)
    connection.close()
    settings = BrokerSettings(url=Secret(site.broker.plain_url))
    with pytest.raises(ConfigurationError, match="passrelay topology apply"), operator.connect(settings) as opened:
        latest(opened, site.keyring)


def test_only_what_a_producers_own_key_signed_is_believed(site: Site) -> None:
    stranger = site.enrolment.enrol("dc2")
    now = utc_now()

    def news(sender: Sender, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "signing_key_id": sender.signer.document.key_id,
            "producer": sender.name,
            "source": "samba",
            "version": "1",
            "sent_at": now,
            "started_at": now,
        }
        return documents.encode(News.model_validate(fields | changes), sender.signer)

    good = news(site.sender)
    other = json.loads(news(site.sender, version="2"))
    mixed = json.dumps(json.loads(good) | {"signature": other["signature"]}).encode()
    later = now + timedelta(seconds=30)
    foreign = news(stranger, producer=PRODUCER, sent_at=later)
    assumed = news(stranger, producer=PRODUCER, signing_key_id=site.sender.signer.document.key_id, sent_at=later)
    site.tell(good, foreign, assumed, mixed, b64url(b"x").encode(), news(stranger))
    found = site.heard()
    assert {name: item.version for name, item in found.news.items()} == {PRODUCER: "1", "dc2": "1"}
    assert found.news[PRODUCER].sent_at < later
    assert [item.reason for item in found.unbelieved] == [Reason.BAD_SIGNATURE] * 3 + [Reason.MALFORMED]
    connection = site.connect()
    assert latest(connection, site.keyring, since=EVERYTHING) == found.news
    assert latest(connection, site.keyring, since=utc_now() + timedelta(hours=1)).keys() <= found.news.keys()
    connection.close()
