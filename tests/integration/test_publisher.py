"""The publisher and the whole producer process against a real RabbitMQ node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.stream import read
from passrelay_producer import publisher as publisher_module
from passrelay_producer.capture import seal_page
from passrelay_producer.identity import Identity
from passrelay_producer.metrics import ProducerMetrics
from passrelay_producer.publisher import WINDOW, Publisher
from passrelay_producer.queued_event import Place
from passrelay_producer.sources import Page
from passrelay_producer.spool import Spool, SpoolFullError
from passrelay_schemas import broker as broker_module
from passrelay_schemas import confirms, keys, topology
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.fault import Faults
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus, KeyUse
from passrelay_schemas.logs import Log
from passrelay_schemas.secret import Secret
from passrelay_schemas.signing import Signer, verify
from passrelay_schemas.source_settings import SpoolSettings
from tests.lab.broker import Broker
from tests.lab.deaf import Deaf
from tests.lab.enrolment import DOMAIN_SID, Enrolment, change, toml
from tests.lab.folder import CANARY, canary_password, find_canary
from tests.lab.process import Process, wait_for

pytestmark = pytest.mark.integration

PRODUCER = "dc1"
OLD = datetime(2000, 1, 1, tzinfo=UTC)


def declare(broker: Broker, *, bind: bool = True) -> None:
    connection = BlockingConnection(broker.parameters())
    channel = connection.channel()
    for exchange in topology.EXCHANGES:
        channel.exchange_declare(exchange.name, exchange.type, durable=True)
    for queue in topology.queues():
        channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
        if bind:
            channel.queue_bind(queue.name, queue.exchange, queue.routing_key)
        else:
            channel.queue_unbind(queue.name, queue.exchange, queue.routing_key)
    connection.close()


def take(broker: Broker) -> list[tuple[Any, bytes]]:
    """Everything in the work queue: properties and body."""
    connection = BlockingConnection(broker.parameters())
    channel = connection.channel()
    waiting = channel.queue_declare(topology.EVENTS, passive=True).method.message_count
    found: list[tuple[Any, bytes]] = []
    if waiting:
        for method, properties, body in channel.consume(topology.EVENTS, inactivity_timeout=30):
            assert method is not None, f"only {len(found)} of {waiting} messages came"
            found.append((properties, body))
            channel.basic_ack(method.delivery_tag)
            if len(found) == waiting:
                break
    connection.close()
    return found


@pytest.fixture
def broker(shared_broker: Broker) -> Broker:
    if not shared_broker.running:
        shared_broker.start()
    declare(shared_broker)
    shared_broker.purge_all()
    shared_broker.add_user(PRODUCER, configure="^$", write=r"^passrelay\.(events|news)$", read="^$")
    return shared_broker


class Rig:
    """A publisher on its thread, with the spool and keys of one producer."""

    def __init__(self, folder: Path, broker: Broker, spool: Spool | None = None) -> None:
        self.enrolment = Enrolment(folder)
        self.enrolment.enrol(PRODUCER)
        self.keys = self.enrolment.producer_keys(PRODUCER)
        self.broker = broker
        self.identity = Identity(self.keys, log=Log("test"))
        self.spool = spool or Spool(SpoolSettings(path=folder / "spool" / "spool.sqlite"))
        self.metrics = ProducerMetrics(self.spool)
        self.faults = Faults(Log("test"), lambda: None)
        self.publisher = self.make()
        self.thread = threading.Thread(target=self.faults.guard(self.publisher.run))

    def make(self) -> Publisher:
        certificate = self.broker.certificate(PRODUCER)
        settings = BrokerSettings(
            url=Secret(self.broker.url()),
            ca_file=self.broker.ca.ca_file,
            certificate_file=certificate.certificate,
            key_file=certificate.key,
        )
        return Publisher(
            settings, self.spool, self.identity, metrics=self.metrics, faults=self.faults, log=Log("publisher")
        )

    def start(self) -> None:
        self.thread.start()

    def end(self) -> None:
        self.publisher.stop()
        if self.thread.ident is not None:
            self.thread.join(90)
            assert not self.thread.is_alive()

    def add(self, count: int, *, producer: str = PRODUCER) -> list[str]:
        """Spool events; their ids in order."""
        events = [
            change("anna", canary_password(), guid=uuid4(), kvno=1, changed_at=134_000_000_000_000_000)
            for _ in range(count)
        ]
        page = seal_page(Page(events=events), producer=producer, recipient=self.identity.recipient())
        self.spool.commit(page.page, page.sealed)
        return [str(result) for result in page.results]

    def drained(self) -> None:
        wait_for(lambda: self.spool.queued_count() == 0, what="the spool has nothing queued")

    def count(self, outcome: str) -> float:
        labels = {"stage": "publish", "outcome": outcome, "reason": ""}
        return self.metrics.registry.get_sample_value("passrelay_events_total", labels) or 0.0


@pytest.fixture
def rig(tmp_path: Path, broker: Broker) -> Iterator[Rig]:
    made = Rig(tmp_path / "rig", broker)
    yield made
    made.end()
    made.spool.close()
    assert made.faults.error is None


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def ids(found: Sequence[tuple[Any, bytes]]) -> list[str]:
    return [properties.message_id for properties, _ in found]


def actions(log: list[Any]) -> list[str]:
    return [entry["action"] for entry in log]


def test_events_arrive_in_order_signed_now_and_with_nothing_beside_the_envelope(rig: Rig) -> None:
    sent = rig.add(3 * WINDOW + 7)
    before = datetime.now(UTC)
    rig.start()
    rig.drained()
    found = take(rig.broker)
    assert ids(found) == sent
    keyring = Keyring(rig.enrolment.consumer_keys)
    for properties, body in found:
        envelope = Envelope.parse(body)
        verify(envelope, keyring.signing_key(envelope.signer.signing_key_id))
        assert before <= envelope.signed_at <= datetime.now(UTC)
        assert (properties.app_id, properties.delivery_mode, properties.type) == (PRODUCER, 2, "passrelay.envelope/1")
        assert set(properties.headers or ()) <= {"x-delivery-count"}  # the broker's own
        assert properties.user_id is None
    assert len({len(body) for _, body in found}) == 1
    assert rig.count("published") == len(sent)


def test_a_new_event_wakes_the_publisher_and_is_marked_at_once(rig: Rig) -> None:
    rig.start()
    for _ in range(3):
        sent = rig.add(1)
        rig.drained()
        assert ids(take(rig.broker)) == sent


def test_events_of_another_process_and_republished_ones_are_seen(rig: Rig) -> None:
    rig.start()
    first = rig.add(5)
    rig.drained()
    assert ids(take(rig.broker)) == first
    with Spool(SpoolSettings(path=rig.spool.path)) as other:  # its changes call no watcher of ours
        assert other.republish(OLD) == 5
        rig.drained()
        assert ids(take(rig.broker)) == first


def test_without_a_queue_events_stay_and_are_published_after_the_repair(rig: Rig, log: list[Any]) -> None:
    declare(rig.broker, bind=False)
    sent = rig.add(40)
    rig.start()
    wait_for(lambda: rig.count("returned") >= 41, what="more than one attempt came back")
    assert rig.spool.queued_count() == 40
    assert rig.count("published") == 0
    assert actions(log).count("publish_returned") == 1  # once per episode, not per event or attempt
    assert "passrelay topology apply" in next(entry for entry in log if entry["action"] == "publish_returned")["repair"]
    declare(rig.broker)
    rig.drained()
    assert sorted(ids(take(rig.broker))) == sorted(sent)
    assert actions(log).count("resumed") == 1


@pytest.fixture
def _small_queue(broker: Broker) -> Iterator[None]:
    """The work queue, full after ten messages; as in ours, overflow reject-publish answers with nacks."""
    connection = BlockingConnection(broker.parameters())
    channel = connection.channel()
    queue = next(queue for queue in topology.queues() if queue.name == topology.EVENTS)
    channel.queue_delete(queue.name)
    channel.queue_declare(queue.name, durable=True, arguments={**queue.arguments, "x-max-length": 10})
    channel.queue_bind(queue.name, queue.exchange)
    yield
    channel.queue_delete(queue.name)
    connection.close()


@pytest.mark.usefixtures("_small_queue")
def test_a_queue_that_refuses_keeps_events_in_the_spool(rig: Rig, log: list[Any]) -> None:
    # Many, because a quorum queue tells its publishers of the limit only after it was passed.
    sent = rig.add(4 * WINDOW)
    rig.start()
    wait_for(lambda: rig.count("refused") > 0, what="the broker refused")
    assert rig.spool.queued_count() > 0
    found: list[str] = []

    def everything_came() -> bool:
        found.extend(ids(take(rig.broker)))
        return rig.spool.queued_count() == 0

    wait_for(everything_came, what="all came while the queue was emptied")
    found.extend(ids(take(rig.broker)))
    assert set(found) == set(sent)
    assert "publish_refused" in actions(log)


def test_an_event_whose_confirm_never_comes_is_published_again(
    rig: Rig, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirms, "LONGEST_UNCONFIRMED_SECONDS", 2)
    monkeypatch.setattr(publisher_module, "ConfirmTracker", Deaf)
    monkeypatch.setattr(Deaf, "heard", False)
    rig.publisher = rig.make()
    rig.thread = threading.Thread(target=rig.faults.guard(rig.publisher.run))
    sent = rig.add(1)
    rig.start()
    rig.drained()
    assert ids(take(rig.broker))[:2] == sent * 2
    assert "broker_lost" in actions(log)


def test_a_broker_that_confirms_nothing_and_reads_nothing_is_left(
    rig: Rig, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With so many on their way to a queue that does not answer RabbitMQ stops reading: it never sees the close.
    monkeypatch.setattr(confirms, "LONGEST_UNCONFIRMED_SECONDS", 2)
    monkeypatch.setattr(broker_module, "_CLOSE_SECONDS", 1)
    first = rig.add(1)
    rig.start()
    rig.drained()
    queue = f'rabbit_misc:r(<<"{rig.broker.parameters().virtual_host}">>, queue, <<"{topology.EVENTS}">>)'
    leader = rig.broker.evaluate(
        f"L = amqqueue:get_pid(element(2, rabbit_amqqueue:lookup({queue}))), ok = sys:suspend(L), L."
    )
    try:
        sent = rig.add(2 * WINDOW)
        wait_for(lambda: actions(log).count("broker_connected") > 1, what="another connection")
    finally:
        rig.broker.evaluate(f"sys:resume({leader}).")
    rig.drained()
    assert {*ids(take(rig.broker))} == {*first, *sent}


def test_a_missing_exchange_is_named_and_waited_for(rig: Rig, log: list[Any]) -> None:
    connection = BlockingConnection(rig.broker.parameters())
    connection.channel().exchange_delete(topology.EVENTS)
    connection.close()
    sent = rig.add(5)
    rig.start()
    wait_for(lambda: "topology_missing" in actions(log), what="the missing exchange was reported")
    assert rig.spool.queued_count() == 5
    declare(rig.broker)
    rig.drained()
    assert set(ids(take(rig.broker))) == set(sent)


def test_a_killed_broker_loses_nothing(rig: Rig) -> None:
    sent = rig.add(4000)
    rig.start()
    wait_for(lambda: rig.count("published") > WINDOW, what="some were published")
    rig.broker.kill()
    more = rig.add(100)
    rig.broker.restart()
    rig.drained()
    found = ids(take(rig.broker))
    assert set(found) == set(sent) | set(more)


def test_confirmed_events_are_not_repeated_while_the_spool_cannot_be_marked(
    rig: Rig, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = rig.spool.mark_published, threading.Event()

    def mark(places: Sequence[Place]) -> None:
        if not full.is_set():
            raise SpoolFullError("spool: its disk is full")
        real(places)

    monkeypatch.setattr(rig.spool, "mark_published", mark)
    sent = rig.add(20)
    rig.start()
    wait_for(lambda: rig.count("published") == 20, what="all were confirmed")
    sent += rig.add(5)
    wait_for(lambda: rig.count("published") == 25, what="publishing goes on")
    full.set()
    rig.drained()
    assert ids(take(rig.broker)) == sent
    assert actions(log).count("spool_full") == 1


def test_a_rotated_signing_key_is_used_for_what_was_spooled_before(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passrelay_producer.identity._REFRESH_SECONDS", 0.0)
    rig.add(3)
    (old,) = Keyring(rig.keys).documents(KeyUse.SIGNING)
    new, private = keys.generate(KeyUse.SIGNING, producer=PRODUCER)
    keys.write_private(rig.keys, new, private)
    keys.write_public(rig.keys, new)
    keys.write_public(rig.keys, old.model_copy(update={"status": KeyStatus.RETIRED}))
    rig.start()
    rig.drained()
    assert {Envelope.parse(body).signer.signing_key_id for _, body in take(rig.broker)} == {new.key_id}


def test_what_was_signed_and_could_not_be_published_is_signed_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    # Or what waits would be published with a key that was taken away, and a moment long ago.
    monkeypatch.setattr("passrelay_producer.identity._REFRESH_SECONDS", 0.0)
    real_mark, real_signer, full = rig.spool.mark_published, rig.identity.signer, threading.Event()
    used: list[str] = []

    def mark(places: Sequence[Place]) -> None:
        if not full.is_set():
            raise SpoolFullError("spool: its disk is full")
        real_mark(places)

    def signer(producer: str) -> Signer:
        found = real_signer(producer)
        used.append(found.document.key_id)
        return found

    monkeypatch.setattr(rig.spool, "mark_published", mark)
    monkeypatch.setattr(rig.identity, "signer", signer)
    sent = rig.add(4 * WINDOW)
    (old,) = Keyring(rig.keys).documents(KeyUse.SIGNING)
    publisher = rig.publisher
    rig.start()
    wait_for(
        lambda: (
            rig.count("published") >= 2 * WINDOW and not len(publisher._tracker) and len(publisher._ready) >= WINDOW
        ),
        what="no more was published than can be remembered, and the next ones were signed",
    )
    new, private = keys.generate(KeyUse.SIGNING, producer=PRODUCER)
    keys.write_private(rig.keys, new, private)
    keys.write_public(rig.keys, new)
    keys.write_public(rig.keys, old.model_copy(update={"status": KeyStatus.RETIRED}))
    wait_for(lambda: used.count(new.key_id) >= 2, what="they were signed anew")
    full.set()
    rig.drained()
    found = take(rig.broker)
    assert ids(found) == sent
    signers = [Envelope.parse(body).signer.signing_key_id for _, body in found]
    assert signers[: 2 * WINDOW] == [old.key_id] * 2 * WINDOW
    assert set(signers[-WINDOW:]) == {new.key_id}


def test_without_a_signing_key_of_the_events_own_name_they_wait(
    rig: Rig, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Signed by another producer's key they would all be dead letters.
    monkeypatch.setattr("passrelay_producer.identity._REFRESH_SECONDS", 0.0)
    rig.add(3)
    (mine,) = Keyring(rig.keys).documents(KeyUse.SIGNING)
    keys.write_public(rig.keys, mine.model_copy(update={"status": KeyStatus.REVOKED}))
    other, private = keys.generate(KeyUse.SIGNING, producer="renamed")
    keys.write_private(rig.keys, other, private)
    keys.write_public(rig.keys, other)
    rig.start()
    wait_for(lambda: "keyring_fault" in actions(log), what="the missing key was reported")
    assert rig.spool.queued_count() == 3
    keys.write_public(rig.keys, mine)
    rig.drained()
    assert actions(log).count("keyring_fault") == 1


def test_events_whose_key_is_gone_stop_no_others(rig: Rig, log: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passrelay_producer.identity._REFRESH_SECONDS", 0.0)
    asked: list[str] = []
    real = rig.identity.signer

    def signer(producer: str) -> Signer:
        asked.append(producer)
        return real(producer)

    monkeypatch.setattr(rig.identity, "signer", signer)
    gone = rig.add(WINDOW + 1, producer="gone")
    lost = rig.add(1, producer="lost")
    sent = rig.add(3)
    rig.start()
    wait_for(lambda: rig.spool.queued_count() == len(gone) + len(lost), what="the others were published")
    assert ids(take(rig.broker)) == sent
    wait_for(lambda: asked.count("lost") >= 3, what="the tick tried again")
    assert actions(log).count("keyring_fault") == 2  # once per name, not per event or attempt
    for name in ("gone", "lost"):
        document, private = keys.generate(KeyUse.SIGNING, producer=name)
        keys.write_private(rig.keys, document, private)
        keys.write_public(rig.keys, document)
    rig.drained()
    assert sorted(ids(take(rig.broker))) == sorted(gone + lost)
    assert actions(log).count("keyring_fault") == 2


def test_news_are_wanted_at_the_connection_and_soon_after_the_queue_was_emptied(rig: Rig) -> None:
    asked: list[int] = []  # how many events were published before
    rig.publisher._ask_for_news = lambda: asked.append(int(rig.count("published")))
    rig.start()
    wait_for(lambda: asked == [0], what="news of the connection")
    rig.add(WINDOW + 1)
    wait_for(lambda: asked[1:] == [WINDOW + 1], what="news of the emptied queue")


def test_refused_news_are_one_warning_and_arrive_after_the_repair(rig: Rig, log: list[Any]) -> None:
    def faults() -> list[Any]:
        return [entry for entry in log if entry["action"] == "news_fault"]

    def news() -> list[bytes]:
        connection = BlockingConnection(rig.broker.parameters())
        found = [message.body for message in read(connection, topology.NEWS)]
        connection.close()
        return found

    def refused_again() -> None:
        before = rig.publisher._news._channel
        rig.publisher.tell(b"refused")
        wait_for(
            lambda: (now := rig.publisher._news._channel) is not None and now is not before and now.is_closed,
            what="the channel of the news was closed",
        )

    rig.broker.add_user(PRODUCER, configure="^$", write=r"^passrelay\.events$", read="^$")
    asked = threading.Event()
    rig.publisher._ask_for_news = asked.set
    rig.start()
    assert asked.wait(90)  # the connection is up
    for _ in range(3):
        refused_again()
        sent = rig.add(2)
        rig.drained()
        assert ids(take(rig.broker)) == sent
    assert [entry["log_level"] for entry in faults()] == ["warning"]
    assert r"^passrelay\.(events|news)$" in faults()[0]["repair"]

    rig.broker.add_user(PRODUCER, configure="^$", write=r"^passrelay\.(events|news)$", read="^$")
    for body in (b"one", b"two"):
        rig.publisher.tell(body)
        wait_for(lambda body=body: news()[-1:] == [body], what="news arrive")  # type: ignore[misc]
    assert news() == [b"one", b"two"]
    assert [entry["exchange"] for entry in log if entry["action"] == "resumed"] == [topology.NEWS]

    declare(rig.broker, bind=False)
    for _ in range(2):
        rig.publisher.tell(b"returned")
    wait_for(lambda: len(faults()) == 2, what="news without a stream are told, too")
    assert "passrelay topology apply" in faults()[1]["repair"]
    declare(rig.broker)
    rig.publisher.tell(b"three")
    wait_for(lambda: news()[-1:] == [b"three"], what="news arrive again")
    assert actions(log).count("broker_connected") == 1  # whatever became of the news, the connection stayed
    assert len(faults()) == 2


def test_a_fault_in_a_callback_ends_the_thread_and_is_not_swallowed(tmp_path: Path, broker: Broker) -> None:
    # pika alone would close the connection and the session would come back for ever.
    rig = Rig(tmp_path / "rig", broker)
    ended = threading.Event()
    rig.faults._on_fault = ended.set

    def broken(message_id: str, token: Place) -> None:
        raise ZeroDivisionError(CANARY)

    rig.publisher._tracker.published = broken  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as log:
        rig.add(1)
        rig.start()
        assert ended.wait(90)
        rig.end()
    assert rig.faults.exit_code() == 1
    (entry,) = [entry for entry in log if entry["action"] == "internal_error"]
    assert entry["error"] == "ZeroDivisionError"
    assert CANARY not in repr(log)
    rig.spool.close()


# -- the whole process ----------------------------------------------------------------------------------------------

_RUN = (
    "import sys; from pathlib import Path\n"
    "from passrelay_producer import service; from passrelay_schemas import logs\n"
    "from passrelay_schemas.errors import PassrelayError\n"
    "from passrelay_schemas.settings import ProducerSettings\n"
    "from passrelay_schemas.settings_file import load\n"
    "settings = load(ProducerSettings, Path(sys.argv[1])); logs.configure()\n"
    "try: sys.exit(service.run(settings))\n"
    "except PassrelayError as error: print(error, file=sys.stderr); sys.exit(error.exit_code)\n"
)


class Producer:
    """A producer process that reads lines."""

    def __init__(self, folder: Path, broker: Broker, **source: Any) -> None:
        enrolment = Enrolment(folder)
        enrolment.enrol(PRODUCER)
        certificate = broker.certificate(PRODUCER)
        self.spool = folder / "spool" / "spool.sqlite"
        self.config = folder / "producer.toml"
        self.config.write_text(
            toml(
                {
                    "broker": {
                        "url": broker.url(),
                        "ca_file": broker.ca.ca_file,
                        "certificate_file": certificate.certificate,
                        "key_file": certificate.key,
                    },
                    "spool": {"path": self.spool},
                    "keys": {"directory": enrolment.producer_keys(PRODUCER)},
                    "source": source or {"stdin": {"batch": 256}},
                    "domain": [
                        {"name": "lab.example", "sid": DOMAIN_SID}
                        if "samba" in source
                        else {"name": "hr.example", "order": "time"}
                    ],
                }
            )
        )
        self.process = self.make()

    def make(self) -> Process:
        return Process(
            "producer",
            [sys.executable, "-c", _RUN, self.config],
            log=self.config.parent / "log",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def pipes(self) -> tuple[Any, Any]:
        assert self.process.child is not None
        return self.process.child.stdin, self.process.child.stdout


def lines(count: int) -> bytes:
    return b"".join(
        json.dumps(
            {"domain": "hr.example", "account": {"sam_account_name": f"user{n}"}, "password": canary_password()}
        ).encode()
        + b"\n"
        for n in range(count)
    )


@pytest.fixture
def producer(tmp_path: Path, broker: Broker) -> Iterator[Producer]:
    made = Producer(tmp_path / "producer", broker)
    yield made
    made.process.kill()
    if made.process.child is not None:
        for stream in made.pipes():
            stream.close()


def test_the_process_publishes_its_input_and_ends_with_it(producer: Producer, broker: Broker) -> None:
    producer.process.start()
    assert producer.process.child is not None
    out, _ = producer.process.child.communicate(lines(300) + b"nonsense\n" + lines(1), timeout=60)
    assert producer.process.child.returncode == 0, producer.process.tail()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["line"] for answer in answers] == list(range(1, 303))
    assert answers[300] == {"line": 301, "error": "line: not UTF-8 JSON"}
    assert sorted(ids(take(broker))) == sorted(answer["event_id"] for answer in answers if "event_id" in answer)
    assert find_canary([producer.config.parent, *broker.data_paths])[2] == []


def test_a_line_is_answered_without_waiting_for_the_next(producer: Producer) -> None:
    producer.process.start()
    stdin, stdout = producer.pipes()
    for number in (1, 2):
        stdin.write(lines(1))
        stdin.flush()
        assert json.loads(stdout.readline())["line"] == number


def test_sigterm_is_a_clean_end_while_input_is_open_and_the_broker_away(producer: Producer, broker: Broker) -> None:
    broker.kill()
    producer.process.start()
    stdin, stdout = producer.pipes()
    stdin.write(lines(3))
    stdin.flush()
    answered = {json.loads(stdout.readline())["event_id"] for _ in range(3)}
    producer.process.signal(signal.SIGTERM)
    assert producer.process.child is not None
    assert producer.process.child.wait(90) == 0, producer.process.tail()
    assert '"action": "stopped"' in producer.process.tail()
    for stream in (stdin, stdout):
        stream.close()
    # What was answered is published by the next run.
    broker.restart()
    producer.process = producer.make()
    producer.process.start()
    assert producer.process.child is not None
    producer.process.child.communicate(b"", timeout=60)
    assert producer.process.child.returncode == 0
    assert set(ids(take(broker))) == answered


def test_a_killed_process_has_lost_no_answered_line(producer: Producer, broker: Broker) -> None:
    producer.process.start()
    stdin, stdout = producer.pipes()
    stdin.write(lines(200))
    stdin.flush()
    answered = {json.loads(stdout.readline())["event_id"] for _ in range(20)}
    producer.process.kill()
    answered |= {json.loads(line)["event_id"] for line in stdout.read().splitlines()}
    stdin.close()
    stdout.close()
    producer.process = producer.make()
    producer.process.start()
    assert producer.process.child is not None
    producer.process.child.communicate(b"", timeout=60)
    assert answered <= set(ids(take(broker)))


def test_two_producers_never_share_a_spool(producer: Producer) -> None:
    producer.process.start()
    stdin, stdout = producer.pipes()
    stdin.write(lines(1))
    stdin.flush()
    stdout.readline()
    second = subprocess.run(
        [sys.executable, "-c", _RUN, str(producer.config)], input=b"", capture_output=True, check=False, timeout=60
    )
    assert second.returncode == 4
    assert b"another producer is running" in second.stderr


def test_a_samba_source_without_init_says_what_to_run(tmp_path: Path, broker: Broker) -> None:
    key = tmp_path / "gpg.key"
    key.touch(mode=0o600)
    producer = Producer(tmp_path / "producer", broker, samba={"gpg_key_file": key})
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(producer.config)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert b"passrelay producer init --from now|all" in done.stderr


def test_the_process_leaves_no_core_file(producer: Producer) -> None:
    producer.process.start()
    stdin, stdout = producer.pipes()
    stdin.write(lines(1))
    stdin.flush()
    stdout.readline()
    limits = Path(f"/proc/{producer.process.pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]
    # Files of an undumpable process belong to root (proc(5)); as root, the kernel's refusal to be read is the sign.
    if os.geteuid() != 0:
        assert Path(f"/proc/{producer.process.pid}/environ").stat().st_uid == 0
