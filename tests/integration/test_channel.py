"""The consumer's shell on a real broker: nothing is acked before its record is safe, and nothing is lost.

The handler is the test's own; everything else is what runs in production.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from pika.adapters.blocking_connection import BlockingConnection
from structlog.testing import capture_logs

from passrelay_consumer import channel as channel_module
from passrelay_consumer import outlet, pauses
from passrelay_consumer import service as service_module
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_consumer.opening import Opened, Trusted
from passrelay_consumer.outcome import Delivery, Hold, Outcome
from passrelay_consumer.progress import Progress
from passrelay_consumer.service import Service
from passrelay_schemas import broker as broker_module
from passrelay_schemas import confirms, topology
from passrelay_schemas.confirms import ConfirmTracker
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.event import Account, PasswordChanged
from passrelay_schemas.filetime import now, utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyUse, generate, write_private, write_public
from passrelay_schemas.logs import Log
from passrelay_schemas.message import envelope_properties
from passrelay_schemas.note import open_note
from passrelay_schemas.record import Record, decode, parse_note
from passrelay_schemas.sealing import seal_event
from passrelay_schemas.secret import Secret
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.verdict import Reason, Verdict
from tests.lab.broker import Broker
from tests.lab.certificates import CertificateAuthority
from tests.lab.deaf import Deaf
from tests.lab.folder import CANARY, LabFolder, canary_password
from tests.lab.network import Reservations
from tests.lab.process import wait_for

pytestmark = pytest.mark.integration

SHORT = {"15s": 300, "2m": 400, "10m": 500, "1h": 600}
Handle = Callable[[Delivery], Outcome | Hold]


# -- the lab ----------------------------------------------------------------------------------------------------------


class Proxy:
    """A TCP relay in front of the broker that can keep the broker's answers back, and cut every connection."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self.refuses = False
        self._flow = threading.Event()
        self._flow.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def keep_answers(self) -> None:
        self._flow.clear()

    def cut(self) -> None:
        """Drop everything, answers that were kept back too; new connections pass."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._sockets.clear()
        self._flow.set()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.refuses:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers:
                    self._flow.wait()
                sink.sendall(data)


class Server:
    """IdM as the channel sees it: up, or to be waited for."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.up.set()
        self.waits = self.returned = 0

    def wait_until_up(self, stop: threading.Event) -> None:
        self.waits += 1
        while not stop.is_set() and not self.up.wait(0.02):
            pass
        self.returned += 1


@dataclass(frozen=True)
class Unread(Trusted):
    """Stands for an opened event: nothing was read, the function gets the delivery itself."""

    delivery: Delivery


class Work:
    """A handler made of one function; remembers what it was given."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.seen: list[Delivery] = []
        self.made = 0
        self.closed = 0

    def make(self) -> Work:
        self.made += 1
        return self

    def open(self, deliveries: Sequence[Delivery]) -> list[Opened]:
        return [Unread(cast("Any", None), cast("Any", None), Progress(), delivery) for delivery in deliveries]

    def deliver(self, opened: Opened) -> Outcome | Hold:
        return self.handle(cast("Unread", opened).delivery)

    def handle(self, delivery: Delivery) -> Outcome | Hold:
        self.seen.append(delivery)
        return self._handle(delivery)

    def close(self) -> None:
        self.closed += 1


class Desk:
    """Publishes events as a producer does, and reads queues and streams as an operator does."""

    def __init__(self, broker: Broker, keys: Path) -> None:
        self.broker = broker
        self.keyring = Keyring(keys)
        self.sent: list[bytes] = []

    def event(self, *, signed_at: datetime | None = None) -> bytes:
        account = Account(guid=uuid4(), sid="S-1-5-21-1-2-3-1105", sam_account_name="anna")
        event = PasswordChanged(
            domain="lab.example", account=account, password=Secret(canary_password()), kvno=3, changed_at=now()
        )
        sealed = seal_event(event, producer="dc1", recipient=self.keyring.recipient())
        return self.keyring.signer("dc1").sign(sealed, signed_at=signed_at or utc_now())

    def publish(self, count: int = 1, *, signed_at: datetime | None = None, attempt: int = 0) -> list[bytes]:
        bodies = [self.event(signed_at=signed_at) for _ in range(count)]
        with self._channel() as channel:
            channel.confirm_delivery()
            for body in bodies:
                properties = envelope_properties(Envelope.parse(body).header, attempt=attempt)
                channel.basic_publish(topology.EVENTS, "", body, properties, mandatory=True)
        self.sent += bodies
        return bodies

    def deliver_in_vain(self, times: int) -> None:
        """Let the first message of the work queue be handed out and given back."""
        with self._channel() as channel:
            for _ in range(times):
                method, _, _ = channel.basic_get(topology.EVENTS)
                assert method is not None
                channel.basic_nack(method.delivery_tag, requeue=True)

    def records(self, stream: str, count: int) -> list[Record]:
        """The stream's records, when there are exactly so many."""
        self.wait_for_depth(stream, count)
        return self.read(stream, lambda found: len(found) == count)

    def read(self, stream: str, enough: Callable[[list[Record]], bool]) -> list[Record]:
        """The stream's records from the first on, until there are enough."""
        found: list[Record] = []
        with self._channel() as channel:
            channel.basic_qos(prefetch_count=100)
            first = {"x-stream-offset": "first"}
            for method, _, body in channel.consume(stream, arguments=first, inactivity_timeout=60):
                assert method is not None, f"{stream} has {len(found)} records"
                found.append(decode(body))
                channel.basic_ack(method.delivery_tag)
                if enough(found):
                    break
        return found

    def depths(self) -> dict[str, int]:
        return self.broker.queue_depths()

    def resource(self, queue: str) -> str:
        """The queue's name as the broker's own code has it."""
        vhost = self.broker.parameters().virtual_host
        return f'rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)'

    def longest_message(self, size: int) -> None:
        """Of RabbitMQ 3.10 and of 4.x, on channels that are opened from now on."""
        old = f"application:set_env(rabbit, max_message_size, {size})"
        self.broker.evaluate(f"{old}, persistent_term:put(max_message_size, {size}).")

    def wait_for_depth(self, queue: str, count: int) -> None:
        wait_for(lambda: self.depths()[queue] == count, what=f"{queue} holds {count}", timeout_seconds=60)

    def bind_journal(self, *, bound: bool) -> None:
        with self._channel() as channel:
            if bound:
                channel.queue_bind(topology.JOURNAL, topology.JOURNAL, "")
            else:
                channel.queue_unbind(topology.JOURNAL, topology.JOURNAL, "")

    def bind_tier(self, tier: str, *, bound: bool) -> None:
        with self._channel() as channel:
            change = channel.queue_bind if bound else channel.queue_unbind
            change(f"{topology.RETRY}.{tier}", topology.RETRY, tier)

    def declare(self) -> None:
        with self._channel() as channel:
            for exchange in topology.EXCHANGES:
                channel.exchange_declare(exchange.name, exchange.type, durable=True)
            for queue in topology.queues(SHORT):
                channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
                channel.queue_bind(queue.name, queue.exchange, queue.routing_key)

    @contextlib.contextmanager
    def _channel(self) -> Iterator[Any]:
        connection = BlockingConnection(self.broker.parameters())
        try:
            yield connection.channel()
        finally:
            connection.close()


class Consumer:
    """A running service; what it logged is in `lines`."""

    def __init__(self, settings: ConsumerSettings, work: Work, server: Server) -> None:
        self.work = work
        self.server = server
        self.threads = settings.consumer.threads
        self.metrics = ConsumerMetrics()
        self.lines: list[Any] = []
        self.code: int | None = None
        self._service = Service(
            settings,
            keyring=Keyring(settings.keys.directory),
            make_handler=work.make,
            servers=server,
            metrics=self.metrics,
            log=Log("consumer"),
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with capture_logs() as self.lines:
            self.code = self._service.serve()

    def ask_to_stop(self) -> None:
        self._service.stop()

    def stop(self) -> int | None:
        self._service.stop()
        return self.wait()

    def wait(self) -> int | None:
        self._thread.join(90)
        assert not self._thread.is_alive()
        return self.code

    def events(self, outcome: Verdict, reason: str = "") -> float:
        labels = {"stage": "consume", "outcome": outcome.value, "reason": reason}
        return self.metrics.registry.get_sample_value("passrelay_events_total", labels) or 0

    def paused(self, reason: str) -> bool:
        value = self.metrics.registry.get_sample_value("passrelay_consumer_paused", {"reason": reason})
        return value == 1

    def wait_for(self, ready: Callable[[], bool], what: str) -> None:
        wait_for(ready, what=f"{what}; log: {self.lines}", timeout_seconds=90)

    def logged(self, action: str) -> list[Any]:
        return [line for line in self.lines if line["action"] == action]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    lab = LabFolder()
    yield lab.path
    lab.remove()


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[Broker]:
    reservations = Reservations()
    node = Broker(folder / "broker", reservations, CertificateAuthority(folder / "ca"))
    try:
        node.start()
        yield node
    finally:
        node.close()
        reservations.release()


@pytest.fixture(scope="module")
def keys(folder: Path) -> Path:
    directory = folder / "keys"
    directory.mkdir()
    for use, producer in ((KeyUse.OPS, None), (KeyUse.RECIPIENT, None), (KeyUse.SIGNING, "dc1")):
        document, private = generate(use, producer=producer)
        write_public(directory, document)
        write_private(directory, document, private)
    return directory


@pytest.fixture(scope="module")
def declared(broker: Broker, keys: Path) -> Desk:
    desk = Desk(broker, keys)
    desk.declare()
    return desk


@pytest.fixture
def desk(declared: Desk) -> Desk:
    declared.bind_journal(bound=True)
    declared.broker.purge_all()
    declared.sent.clear()
    return declared


@pytest.fixture
def settings(broker: Broker, keys: Path, folder: Path) -> ConsumerSettings:
    return _settings(broker.plain_url, keys, folder)


def _settings(url: str, keys: Path, folder: Path, **consumer: int) -> ConsumerSettings:
    document: dict[str, Any] = {
        "broker": {"url": url},
        "keys": {"directory": keys},
        "idm": {
            "servers": ["ldaps://127.0.0.1:1"],
            "ca_file": folder / "ca.pem",
            "bind_dn": "uid=passrelay,cn=sysaccounts,cn=etc,dc=idm,dc=test",
            "password_file": folder / "password",
        },
        "domain": [
            {
                "name": "lab.example",
                "sid": "S-1-5-21-1-2-3",
                "producers": ["dc1"],
                "search_base": "cn=users,cn=accounts,dc=idm,dc=test",
            }
        ],
        "consumer": {"workers": 4, "prefetch": 16, **consumer},
    }
    return ConsumerSettings(**document)


Start = Callable[..., Consumer]


@pytest.fixture
def start(desk: Desk, settings: ConsumerSettings) -> Iterator[Start]:
    running: list[Consumer] = []

    def begin(handle: Handle, *, server: Server | None = None, proxy: Proxy | None = None, **consumer: int) -> Consumer:
        chosen = settings.model_copy(update={"consumer": settings.consumer.model_copy(update=consumer)})
        if proxy is not None:
            url = desk.broker.plain_url.replace(f":{desk.broker.parameters().port}/", f":{proxy.port}/")
            chosen = chosen.model_copy(update={"broker": chosen.broker.model_copy(update={"url": Secret(url)})})
        running.append(Consumer(chosen, Work(handle), server or Server()))
        return running[-1]

    yield begin
    for consumer in running:
        consumer.server.up.set()
        consumer.stop()


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    relay = Proxy(broker.parameters().port)
    yield relay
    relay.close()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "_BACKOFF_SECONDS", 0.3)
    monkeypatch.setattr(channel_module, "_SHORTEST_PAUSE_SECONDS", 0.1)


def outcome(delivery: Delivery, verdict: Verdict = Verdict.APPLIED, reason: str | None = None) -> Outcome:
    envelope = Envelope.parse(delivery.body)
    return Outcome(
        verdict,
        reason,
        "words of the server",
        header=envelope.header,
        account="anna",
        guid=uuid4(),
        server="ldaps://idm1.test",
        applied_at=utc_now() if verdict is Verdict.APPLIED else None,
        signed_at=envelope.signed_at,
        changed_at=now(),
        authentic=True,
    )


def ids(bodies: list[bytes]) -> set[UUID]:
    return {Envelope.parse(body).event_id for body in bodies}


# -- records and acks -------------------------------------------------------------------------------------------------


def test_every_event_ends_in_one_record_and_leaves_the_queue(desk: Desk, start: Start) -> None:
    sent = desk.publish(50)
    consumer = start(outcome)
    records = desk.records(topology.JOURNAL, 50)
    assert {record.event_id for record in records} == ids(sent)
    assert {record.envelope_bytes for record in records} == set(sent)
    consumer.wait_for(lambda: consumer.events(Verdict.APPLIED) == 50, "all settled")
    assert consumer.stop() == 0
    expected = {**dict.fromkeys(desk.depths(), 0), topology.JOURNAL: 50}
    wait_for(lambda: desk.depths() == expected, what="one record for each event")
    ops = desk.keyring.newest(KeyUse.OPS)
    assert ops is not None
    note = records[0].note
    assert note is not None
    opener = desk.keyring.opener(ops.key_id, KeyUse.OPS)
    account, _, diagnostic = parse_note(open_note(note, event_id=records[0].event_id, opener=opener))
    assert (account, diagnostic) == ("anna", "words of the server")
    assert "anna" not in json.dumps(consumer.lines, default=str)


def test_a_record_whose_confirm_never_arrives_acks_nothing(desk: Desk, start: Start, proxy: Proxy) -> None:
    decided, go = threading.Event(), threading.Event()

    def handle(delivery: Delivery) -> Outcome:
        decided.set()
        assert go.wait(90)
        return outcome(delivery, Verdict.DUPLICATE if delivery.counters.deliveries else Verdict.APPLIED)

    consumer = start(handle, proxy=proxy)
    sent = desk.publish()
    assert decided.wait(90)
    proxy.keep_answers()
    go.set()
    desk.wait_for_depth(topology.JOURNAL, 1)
    assert consumer.events(Verdict.APPLIED) == 0
    proxy.cut()
    first, second = desk.records(topology.JOURNAL, 2)
    assert {first.event_id, second.event_id} == ids(sent)
    assert [first.verdict, second.verdict] == [Verdict.APPLIED, Verdict.DUPLICATE]
    assert [delivery.counters.deliveries for delivery in consumer.work.seen] == [0, 1]
    consumer.wait_for(lambda: consumer.events(Verdict.DUPLICATE) == 1, "settled")
    assert consumer.stop() == 0
    assert desk.depths()[topology.EVENTS] == 0


def test_what_a_worker_decides_for_a_lost_channel_is_dropped(desk: Desk, start: Start, proxy: Proxy) -> None:
    begun, go = threading.Event(), threading.Event()

    def handle(delivery: Delivery) -> Outcome:
        if delivery.body != first:
            everybody.wait()
        elif not delivery.counters.deliveries:
            begun.set()
            assert go.wait(90)
            return outcome(delivery, Verdict.DEAD, Reason.POLICY)
        return outcome(delivery)

    consumer = start(handle, proxy=proxy, workers=1)
    everybody = threading.Barrier(consumer.threads, timeout=90)
    (first,) = desk.publish()
    assert begun.wait(90)
    proxy.cut()
    (record,) = desk.records(topology.JOURNAL, 1)
    assert record.verdict is Verdict.APPLIED
    go.set()
    desk.publish(consumer.threads)  # needs all workers, so the late one has handed its outcome over
    consumer.wait_for(lambda: consumer.events(Verdict.APPLIED) == 1 + consumer.threads, "settled")
    assert consumer.stop() == 0
    assert consumer.events(Verdict.DEAD, Reason.POLICY) == 0
    assert len(consumer.logged("broker_connected")) == 2
    desk.wait_for_depth(topology.JOURNAL, 1 + consumer.threads)
    assert (desk.depths()[topology.DEAD], desk.depths()[topology.EVENTS]) == (0, 0)


def test_a_returned_record_is_held_and_sent_again_until_the_topology_is_repaired(desk: Desk, start: Start) -> None:
    desk.bind_journal(bound=False)
    sent = desk.publish(6)
    consumer = start(outcome)
    consumer.wait_for(lambda: consumer.paused(pauses.BROKER), "backs off")
    consumer.wait_for(lambda: len(consumer.logged("publish_returned")) > 12, "tried again")
    assert consumer.events(Verdict.APPLIED) == 0
    desk.bind_journal(bound=True)
    records = desk.records(topology.JOURNAL, 6)
    assert {record.event_id for record in records} == ids(sent)
    consumer.wait_for(lambda: consumer.events(Verdict.APPLIED) == 6, "settled")
    consumer.wait_for(lambda: not consumer.paused(pauses.BROKER), "goes on")
    assert consumer.stop() == 0
    assert len(consumer.work.seen) == 6, "none was handled again: what was refused is held, not given back"
    assert desk.depths()[topology.EVENTS] == 0
    assert consumer.logged("publish_returned")[0]["exchange"] == topology.JOURNAL


def test_dead_letters_lie_in_both_streams_with_record_and_envelope(desk: Desk, start: Start) -> None:
    (sent,) = desk.publish()
    consumer = start(lambda delivery: outcome(delivery, Verdict.DEAD, Reason.POLICY))
    (letter,), (entry,) = desk.records(topology.DEAD, 1), desk.records(topology.JOURNAL, 1)
    assert letter == entry
    assert (letter.verdict, letter.reason, letter.envelope_bytes) == (Verdict.DEAD, "policy", sent)
    consumer.wait_for(lambda: consumer.events(Verdict.DEAD, "policy") == 1, "settled")
    assert consumer.logged("dead")[0]["repair"]


def test_a_letter_that_the_journal_does_not_take_is_not_acked(desk: Desk, start: Start) -> None:
    desk.bind_journal(bound=False)
    desk.publish()
    consumer = start(lambda delivery: outcome(delivery, Verdict.DEAD, Reason.POLICY))
    consumer.wait_for(lambda: len(consumer.logged("publish_returned")) > 1, "the journal's record is tried again")
    assert consumer.events(Verdict.DEAD, "policy") == 0
    desk.bind_journal(bound=True)
    assert desk.records(topology.JOURNAL, 1)[0].reason == "policy"
    wait_for(lambda: desk.depths()[topology.DEAD] == 1, what="one letter, however often the journal refused")


def test_a_retry_goes_through_the_tiers_with_properties_built_anew(desk: Desk, start: Start) -> None:
    (sent,) = desk.publish()

    def handle(delivery: Delivery) -> Outcome:
        if delivery.counters.attempt < 5:
            return outcome(delivery, Verdict.RETRY, Reason.USER_MISSING)
        return outcome(delivery)

    consumer = start(handle)
    *tries, record = desk.records(topology.JOURNAL, 6)
    assert [(found.verdict, found.reason, found.attempts, found.envelope) for found in tries] == [
        (Verdict.RETRY, "user_missing", number, None) for number in range(1, 6)
    ]
    assert (record.verdict, record.attempts, record.envelope_bytes) == (Verdict.APPLIED, 6, sent)
    seen = [delivery.counters for delivery in consumer.work.seen]
    assert [counters.attempt for counters in seen] == [0, 1, 2, 3, 4, 5]
    assert [counters.deliveries for counters in seen] == [0] * 6
    assert [counters.reason for counters in seen] == [None, *["user_missing"] * 5]
    assert all(counters.note and "anna" not in counters.note for counters in seen[1:])
    consumer.wait_for(lambda: consumer.events(Verdict.APPLIED) == 1, "settled")
    assert [line["tier"] for line in consumer.logged("retry")] == ["15s", "15s", "2m", "10m", "1h"]
    assert consumer.stop() == 0
    assert sum(desk.depths().values()) == 6


def test_a_try_whose_record_is_not_confirmed_is_in_no_tier_and_tried_again(
    desk: Desk, start: Start, proxy: Proxy
) -> None:
    decided, go = threading.Event(), threading.Event()

    def handle(delivery: Delivery) -> Outcome:
        if delivery.counters.attempt:
            return outcome(delivery)
        decided.set()
        assert go.wait(90)
        return outcome(delivery, Verdict.RETRY, Reason.USER_MISSING)

    consumer = start(handle, proxy=proxy)
    sent = desk.publish()
    assert decided.wait(90)
    proxy.keep_answers()
    go.set()
    desk.wait_for_depth(topology.JOURNAL, 1)
    assert {depth for name, depth in desk.depths().items() if name.startswith(topology.RETRY)} == {0}
    proxy.cut()
    records = desk.records(topology.JOURNAL, 3)
    assert {record.event_id for record in records} == ids(sent)
    assert [(record.verdict, record.attempts) for record in records] == [
        (Verdict.RETRY, 1),
        (Verdict.RETRY, 1),
        (Verdict.APPLIED, 2),
    ]
    consumer.wait_for(lambda: consumer.events(Verdict.APPLIED) == 1, "settled")
    assert consumer.stop() == 0
    assert sum(desk.depths().values()) == 3


def test_a_try_that_no_tier_takes_is_not_acked(desk: Desk, start: Start) -> None:
    desk.bind_tier("15s", bound=False)

    def handle(delivery: Delivery) -> Outcome:
        if delivery.counters.attempt:
            return outcome(delivery)
        return outcome(delivery, Verdict.RETRY, Reason.USER_MISSING)

    try:
        desk.publish()
        consumer = start(handle)
        consumer.wait_for(lambda: len(consumer.logged("publish_returned")) > 1, "the tier is tried again")
        assert consumer.events(Verdict.RETRY, "user_missing") == 0
    finally:
        desk.bind_tier("15s", bound=True)
    # One record of the try, however often the tier refused it.
    assert [record.verdict for record in desk.records(topology.JOURNAL, 2)] == [Verdict.RETRY, Verdict.APPLIED]


def test_a_tier_that_takes_nothing_does_not_fill_the_others(desk: Desk, start: Start) -> None:
    # Each of these would be published once more for every try of the one that comes back.
    together = threading.Barrier(4, timeout=90)

    def handle(delivery: Delivery) -> Outcome:
        if delivery.counters.attempt not in {0, 2}:
            return outcome(delivery)
        together.wait()
        return outcome(delivery, Verdict.RETRY, Reason.USER_MISSING)

    desk.publish(3)
    desk.publish(attempt=2)
    desk.bind_tier("2m", bound=False)
    try:
        consumer = start(handle)
        consumer.wait_for(lambda: len(consumer.logged("publish_returned")) > 5, "the tier is tried again")
        assert consumer.events(Verdict.RETRY, "user_missing") == 3
    finally:
        desk.bind_tier("2m", bound=True)
    assert len(ids(desk.sent)) == 4
    consumer.wait_for(lambda: consumer.events(Verdict.APPLIED) == 4, "applied")
    desk.wait_for_depth(topology.EVENTS, 0)
    assert sorted(delivery.counters.attempt for delivery in consumer.work.seen) == [0, 0, 0, 1, 1, 1, 2, 3]


def test_entry_trouble_is_dead_with_its_reason_at_the_horizon(desk: Desk, start: Start) -> None:
    desk.publish(signed_at=utc_now() - timedelta(hours=25))
    start(lambda delivery: outcome(delivery, Verdict.RETRY, Reason.USER_MISSING))
    (letter,) = desk.records(topology.DEAD, 1)
    assert (letter.verdict, letter.reason) == (Verdict.DEAD, "user_missing")


# -- events that kill consumers ---------------------------------------------------------------------------------------


def test_an_event_that_was_handed_out_too_often_is_never_opened(desk: Desk, start: Start) -> None:
    (sent,) = desk.publish()
    desk.deliver_in_vain(21)
    consumer = start(outcome)
    (letter,) = desk.records(topology.DEAD, 1)
    assert (letter.reason, letter.envelope_bytes, letter.producer) == ("poison", sent, "dc1")
    assert consumer.work.seen == []


def test_a_suspect_is_processed_alone(desk: Desk, start: Start) -> None:
    (suspect,) = desk.publish()
    desk.deliver_in_vain(6)
    desk.publish(8)
    lock = threading.Lock()
    busy, company = 0, threading.Event()

    def handle(delivery: Delivery) -> Outcome:
        nonlocal busy
        with lock:
            busy += 1
            if busy > 1 and suspect in [one.body for one in consumer.work.seen[-busy:]]:
                company.set()
        if delivery.body == suspect:
            assert not company.wait(0.5), "another event was in work beside the suspect"
        with lock:
            busy -= 1
        return outcome(delivery)

    ready = threading.Event()

    def gated(delivery: Delivery) -> Outcome:
        assert ready.wait(90)
        return handle(delivery)

    consumer = start(gated)
    ready.set()
    assert {record.verdict for record in desk.records(topology.JOURNAL, 9)} == {Verdict.APPLIED}
    assert not company.is_set()


def test_a_handler_that_raises_costs_one_event_a_tier_and_tells_no_secret(desk: Desk, start: Start) -> None:
    def handle(delivery: Delivery) -> Outcome:
        if not delivery.counters.attempt:
            secret = canary_password()
            raise LookupError(secret)
        return outcome(delivery)

    consumer = start(handle)
    consumer.wait_for(lambda: consumer.work.made == consumer.threads, "every worker has its handler")
    (sent,) = desk.publish()
    tried, record = desk.records(topology.JOURNAL, 2)
    assert (tried.verdict, tried.reason, tried.envelope) == (Verdict.RETRY, Reason.REFUSED, None)
    assert (record.verdict, record.envelope_bytes) == (Verdict.APPLIED, sent)
    counters = consumer.work.seen[1].counters
    assert (counters.attempt, counters.reason) == (1, "refused")
    ops = desk.keyring.newest(KeyUse.OPS)
    assert ops is not None
    assert counters.note is not None
    opener = desk.keyring.opener(ops.key_id, KeyUse.OPS)
    assert parse_note(open_note(counters.note, event_id=record.event_id, opener=opener))[2] == "LookupError"
    (line,) = consumer.logged("internal_error")
    assert (line["error"], line["event_id"]) == ("LookupError", str(record.event_id))
    assert line["at"].rpartition(":")[0].endswith("test_channel")
    assert CANARY not in json.dumps(consumer.lines, default=str)
    assert consumer.work.made == consumer.threads + 1, "the worker goes on with a fresh handler"
    assert consumer.stop() == 0
    assert consumer.work.closed == consumer.threads + 1


def test_an_unexpected_exception_in_a_callback_ends_the_process_and_loses_nothing(
    desk: Desk, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ConsumerMetrics, seconds: float) -> None:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr(ConsumerMetrics, "handled", broken)
    desk.publish(3)
    consumer = start(outcome)
    assert consumer.wait() == 1
    (line,) = consumer.logged("internal_error")
    assert line["error"] == "ZeroDivisionError"
    assert CANARY not in json.dumps(consumer.lines, default=str)
    desk.wait_for_depth(topology.EVENTS, 3)


def test_an_unexpected_exception_in_a_thread_ends_the_process(desk: Desk, start: Start) -> None:
    class Broken(Server):
        def wait_until_up(self, stop: threading.Event) -> None:
            raise ZeroDivisionError

    desk.publish()
    consumer = start(lambda delivery: Hold("down"), server=Broken())
    assert consumer.wait() == 1
    desk.wait_for_depth(topology.EVENTS, 1)


# -- pause, brake, end ------------------------------------------------------------------------------------------------


def test_an_outage_gives_everything_back_and_no_event_becomes_a_dead_letter(desk: Desk, start: Start) -> None:
    server = Server()
    server.up.clear()
    desk.publish()
    desk.deliver_in_vain(5)
    desk.publish(19)

    def handle(delivery: Delivery) -> Outcome | Hold:
        if server.up.is_set():
            return outcome(delivery)
        if len(consumer.work.seen) > 1:  # all but the first are busy until the consumer has paused and given back
            consumer.wait_for(lambda: server.waits > 0, "IdM is waited for")
        return Hold("no server passes its probe")

    ready = threading.Event()

    def gated(delivery: Delivery) -> Outcome | Hold:
        assert ready.wait(90)
        return handle(delivery)

    consumer = start(gated, server=server)
    ready.set()
    consumer.wait_for(lambda: consumer.paused(pauses.DIRECTORY), "paused")
    # The event of many deliveries waits in the first tier and comes back with a count that starts anew.
    desk.wait_for_depth(topology.EVENTS, 20)
    seen = len(consumer.work.seen)
    assert seen <= consumer.threads + 1, "one for each worker and the next of the first, the rest was given back"
    desk.publish()
    desk.wait_for_depth(topology.EVENTS, 21)
    assert (len(consumer.work.seen), server.waits) == (seen, 1)
    server.up.set()
    records = desk.records(topology.JOURNAL, 21)
    assert {record.verdict for record in records} == {Verdict.APPLIED}
    consumer.wait_for(lambda: not consumer.paused(pauses.DIRECTORY), "resumed")
    assert (len(consumer.logged("paused")), len(consumer.logged("resumed"))) == (1, 1)
    assert max(delivery.counters.deliveries for delivery in consumer.work.seen[seen:]) == 1
    assert desk.depths()[topology.DEAD] == 0


def test_an_outage_of_many_rounds_never_looks_like_poison(desk: Desk, start: Start) -> None:
    holds = 0

    def handle(delivery: Delivery) -> Outcome | Hold:
        nonlocal holds
        holds += 1
        return Hold("flapping") if holds <= 30 else outcome(delivery)

    desk.publish()
    consumer = start(handle)
    (record,) = desk.records(topology.JOURNAL, 1)
    assert (record.verdict, record.attempts) == (Verdict.APPLIED, 1)
    assert max(delivery.counters.deliveries for delivery in consumer.work.seen) <= 5


def test_a_pause_outlives_a_lost_connection_and_ends_without_one(desk: Desk, start: Start, proxy: Proxy) -> None:
    server = Server()
    server.up.clear()
    desk.publish(3)
    consumer = start(lambda d: outcome(d) if server.up.is_set() else Hold("down"), server=server, proxy=proxy)
    consumer.wait_for(lambda: consumer.paused(pauses.DIRECTORY), "paused")
    proxy.cut()
    consumer.wait_for(lambda: len(consumer.logged("broker_connected")) == 2, "connected again")
    desk.wait_for_depth(topology.EVENTS, 3)
    proxy.refuses = True
    proxy.cut()
    consumer.wait_for(lambda: len(consumer.logged("broker_lost")) >= 4, "waits for the broker")
    server.up.set()
    wait_for(lambda: server.returned == 1, what="the directory is up")
    proxy.refuses = False
    assert len(desk.records(topology.JOURNAL, 3)) == 3


def test_the_brake_stops_consuming_until_a_restart(desk: Desk, start: Start) -> None:
    desk.publish(3)
    consumer = start(lambda delivery: outcome(delivery, Verdict.DEAD, Reason.POLICY), brake=3)
    consumer.wait_for(lambda: consumer.paused(pauses.BRAKE), "brake")
    assert len(desk.records(topology.DEAD, 3)) == 3
    (line,) = consumer.logged("brake")
    assert (line["reason"], line["log_level"]) == ("policy", "error")
    assert line["repair"]
    desk.publish(2)
    desk.wait_for_depth(topology.EVENTS, 2)
    assert consumer.stop() == 0
    start(outcome)
    assert [record.verdict for record in desk.records(topology.JOURNAL, 5)][3:] == [Verdict.APPLIED] * 2


def test_the_brake_still_settles_what_was_decided(desk: Desk, start: Start) -> None:
    desk.publish(40)
    together = threading.Barrier(4, timeout=90)
    first = iter(range(4))

    def handle(delivery: Delivery) -> Outcome:
        if next(first, None) is not None:
            together.wait()
        return outcome(delivery, Verdict.DEAD, Reason.POLICY)

    consumer = start(handle, brake=2)
    consumer.wait_for(lambda: consumer.paused(pauses.BRAKE), "brake")
    assert consumer.stop() == 0
    decided = len(consumer.work.seen)
    desk.wait_for_depth(topology.DEAD, decided)
    desk.wait_for_depth(topology.JOURNAL, decided)
    assert desk.depths()[topology.EVENTS] == 40 - decided
    assert consumer.events(Verdict.DEAD, "policy") == len(consumer.work.seen)


def test_a_clean_stop_settles_what_is_in_hand_and_gives_back_the_rest(desk: Desk, start: Start) -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def handle(delivery: Delivery) -> Outcome:
        begun.release()
        assert go.wait(90)
        return outcome(delivery)

    desk.publish(30)
    consumer = start(handle)
    in_hand = consumer.threads
    for _ in range(in_hand):
        assert begun.acquire(timeout=90)
    consumer.ask_to_stop()
    desk.wait_for_depth(topology.EVENTS, 30 - in_hand)
    go.set()
    assert consumer.wait() == 0
    assert len(consumer.work.seen) == in_hand
    assert (consumer.events(Verdict.APPLIED), consumer.work.closed) == (in_hand, in_hand)
    desk.wait_for_depth(topology.JOURNAL, in_hand)
    assert desk.depths()[topology.EVENTS] == 30 - in_hand


def test_a_damaged_keyring_is_reported_once_and_the_keys_read_before_count(
    desk: Desk, start: Start, settings: ConsumerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_REFRESH_SECONDS", 0.05)
    damaged = settings.keys.directory / "damaged.pub.json"
    consumer = start(outcome)
    damaged.write_text("{")
    try:
        consumer.wait_for(lambda: bool(consumer.logged("keyring_fault")), "reported")
        desk.publish()
        assert desk.records(topology.JOURNAL, 1)[0].note is not None
        assert len(consumer.logged("keyring_fault")) == 1
    finally:
        damaged.unlink()
    write_public(settings.keys.directory, generate(KeyUse.RECIPIENT)[0])
    consumer.wait_for(lambda: bool(consumer.logged("keyring_read")), "read again")


def test_a_confirm_that_never_comes_is_waited_for_a_minute_and_the_event_is_delivered_again(
    desk: Desk, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirms, "LONGEST_UNCONFIRMED_SECONDS", 2)
    monkeypatch.setattr(channel_module, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(outlet, "ConfirmTracker", Deaf)
    monkeypatch.setattr(Deaf, "heard", False)
    desk.publish()
    consumer = start(outcome)
    first, second = desk.read(topology.JOURNAL, lambda found: len(found) == 2)
    assert first.event_id == second.event_id
    assert [delivery.counters.deliveries for delivery in consumer.work.seen][:2] == [0, 1]
    desk.wait_for_depth(topology.EVENTS, 0)
    assert consumer.logged("broker_lost")


class HeldBack:
    """A handler that is busy with its event until it may go on."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, delivery: Delivery) -> Outcome:
        self.begun.set()
        assert self.go.wait(90)
        return outcome(delivery)


def test_a_channel_that_hangs_in_the_broker_is_waited_for_no_longer_than_the_confirm(
    desk: Desk, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirms, "LONGEST_UNCONFIRMED_SECONDS", 1)
    monkeypatch.setattr(channel_module, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(broker_module, "_CLOSE_SECONDS", 1)
    held = HeldBack()
    consumer = start(held)
    desk.publish()
    assert held.begun.wait(90)
    confirms_alone = "rabbit_channel:info(C, [confirm, consumer_count]) == [{confirm, true}, {consumer_count, 0}]"
    hung = desk.broker.evaluate(
        f"Hung = [C || C <- rabbit_channel:list(), {confirms_alone}], [sys:suspend(C) || C <- Hung],"
        " [pid_to_list(C) || C <- Hung]."
    )
    try:
        held.go.set()
        desk.records(topology.JOURNAL, 1)
        desk.wait_for_depth(topology.EVENTS, 0)
    finally:
        desk.broker.evaluate(f"[catch sys:resume(list_to_pid(C)) || C <- {hung}].")
    assert [delivery.counters.deliveries for delivery in consumer.work.seen] == [0, 1]
    assert consumer.logged("broker_lost")


class Patient(ConfirmTracker[Any]):
    """Counts how often it was asked and a confirm was overdue."""

    found = 0

    def overdue(self, takes_since: float, *, times: int = 1) -> bool:
        Patient.found += super().overdue(0)
        return super().overdue(takes_since, times=times)


def test_a_broker_short_of_memory_is_waited_for_and_hands_nothing_out_again(
    desk: Desk, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each time that the connection is left counts as a delivery: an hour of it would look like poison.
    monkeypatch.setattr(confirms, "LONGEST_UNCONFIRMED_SECONDS", 0.5)
    monkeypatch.setattr(channel_module, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(outlet, "ConfirmTracker", Patient)
    held = HeldBack()
    consumer = start(held)
    desk.publish()
    assert held.begun.wait(90)
    alarm = "{{resource_limit, memory, node()}, []}"
    desk.broker.evaluate(f"rabbit_alarm:set_alarm({alarm}).")
    try:
        held.go.set()
        consumer.wait_for(lambda: bool(consumer.logged("broker_blocked")), "blocked")
        before = Patient.found
        consumer.wait_for(lambda: Patient.found > before + 10, "a confirm that is overdue")
    finally:
        desk.broker.evaluate("rabbit_alarm:clear_alarm({resource_limit, memory, node()}).")
    desk.records(topology.JOURNAL, 1)
    desk.wait_for_depth(topology.EVENTS, 0)
    assert [delivery.counters.deliveries for delivery in consumer.work.seen] == [0]
    assert not consumer.logged("broker_lost")


def test_a_stream_that_gets_a_new_leader_has_every_letter_that_it_confirmed(desk: Desk, start: Start) -> None:
    # RabbitMQ before 4.0.1 then takes the next messages of a channel that also published elsewhere for duplicates.
    start(lambda delivery: outcome(delivery, Verdict.DEAD, Reason.POLICY))
    desk.publish(10)
    desk.records(topology.JOURNAL, 10)
    leader = f"amqqueue:get_pid(element(2, rabbit_amqqueue:lookup({desk.resource(topology.DEAD)})))"
    writer = desk.broker.evaluate(f"P = {leader}, ok = sys:suspend(P), pid_to_list(P).").strip('"')
    desk.publish()
    waiting = f'element(2, process_info(list_to_pid("{writer}"), message_queue_len)).'
    wait_for(lambda: desk.broker.evaluate(waiting) != "0", what="a letter that is not confirmed")
    desk.broker.evaluate(f'exit(list_to_pid("{writer}"), kill).')
    desk.records(topology.JOURNAL, 11)
    desk.publish(6)
    desk.records(topology.JOURNAL, 17)
    assert ids(desk.sent) == {record.event_id for record in desk.read(topology.DEAD, lambda found: len(found) == 17)}


def test_two_exchanges_that_fail_at_once_are_no_fault_of_ours(desk: Desk, start: Start) -> None:
    # The journal's channel is closed by the broker while letters come back on theirs.
    together = threading.Barrier(16, timeout=90)

    def handle(delivery: Delivery) -> Outcome:
        if not repaired.is_set():
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait()
        dead = delivery.body in desk.sent[::2]
        return outcome(delivery, Verdict.DEAD, Reason.POLICY) if dead else outcome(delivery)

    repaired = threading.Event()
    with desk._channel() as channel:
        channel.queue_unbind(topology.DEAD, topology.DEAD, "")
        channel.exchange_delete(topology.JOURNAL)
    try:
        desk.publish(16)
        consumer = start(handle, workers=16)
        consumer.wait_for(lambda: len(consumer.logged("topology_missing")) > 3, "several attempts")
    finally:
        together.abort()
        repaired.set()
        desk.declare()
    desk.wait_for_depth(topology.EVENTS, 0)
    consumer.wait_for(lambda: consumer.events(Verdict.APPLIED) == 8, "settled")
    assert not consumer.logged("internal_error")
    assert consumer.stop() == 0


def test_what_the_broker_closed_one_channel_for_is_told(desk: Desk, start: Start) -> None:
    desk.publish()
    desk.longest_message(64)
    try:
        consumer = start(outcome)
        consumer.wait_for(lambda: bool(consumer.logged("broker_lost")), "left")
    finally:
        desk.longest_message(16_777_216)
    assert "max size" in consumer.logged("broker_lost")[0]["why"]
    desk.wait_for_depth(topology.EVENTS, 0)


def test_a_delivery_that_is_never_settled_does_not_hold_the_channel(
    desk: Desk, start: Start, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "_LONGEST_HELD_SECONDS", 0.5)
    monkeypatch.setattr(channel_module, "_LOOK_SECONDS", 0.1)
    stuck = threading.Event()

    def handle(delivery: Delivery) -> Outcome:
        if not delivery.counters.deliveries:
            assert stuck.wait(90)
        return outcome(delivery)

    desk.publish()
    consumer = start(handle)
    (record,) = desk.records(topology.JOURNAL, 1)
    stuck.set()
    assert record.verdict is Verdict.APPLIED
    assert [delivery.counters.deliveries for delivery in consumer.work.seen] == [0, 1]


def test_a_crash_of_the_broker_loses_nothing(desk: Desk, start: Start) -> None:
    sent = desk.publish(300)
    halfway = threading.Event()

    def handle(delivery: Delivery) -> Outcome:
        if len(consumer.work.seen) == 150:
            halfway.set()
        time.sleep(0.002)
        return outcome(delivery)

    ready = threading.Event()

    def gated(delivery: Delivery) -> Outcome:
        assert ready.wait(90)
        return handle(delivery)

    consumer = start(gated)
    ready.set()
    assert halfway.wait(90)
    desk.broker.kill()
    desk.broker.start()
    # The consumer comes back after a backoff that has grown meanwhile.
    desk.read(topology.JOURNAL, lambda found: {record.event_id for record in found} == ids(sent))
    assert consumer.stop() == 0
    assert desk.depths()[topology.EVENTS] == 0


def test_the_real_process_waits_for_idm_and_ends_cleanly_on_sigterm(
    desk: Desk, settings: ConsumerSettings, folder: Path, reservations_port: int
) -> None:
    """`run` itself: with no IdM server it gives everything back, and SIGTERM ends it with 0."""
    password = folder / "password"
    password.write_text(canary_password())
    password.chmod(0o600)
    CertificateAuthority(folder / "idm-ca")
    document = {
        "broker": {"url": settings.broker.url.reveal()},
        "keys": {"directory": str(settings.keys.directory)},
        "idm": {
            "servers": [f"ldaps://127.0.0.1:{reservations_port}"],
            "ca_file": str(next((folder / "idm-ca").glob("*.pem"))),
            "bind_dn": settings.idm.bind_dn,
            "password_file": str(password),
        },
        "domain": [settings.domain[0].model_dump(mode="json")],
        "consumer": {"workers": 2},
    }
    program = (
        "import json, sys\n"
        "from passrelay_consumer.service import run\n"
        "from passrelay_schemas.logs import configure\n"
        "from passrelay_schemas.settings import ConsumerSettings\n"
        "configure('info')\n"
        "sys.exit(run(ConsumerSettings(**json.load(sys.stdin))))\n"
    )
    desk.publish(3)
    log = folder / "consumer.log"
    with log.open("wb") as sink:
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=sink)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(document).encode())
        process.stdin.close()
        wait_for(lambda: '"action": "paused"' in log.read_text(), what="paused", timeout_seconds=90)
        desk.wait_for_depth(topology.EVENTS, 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["exit_code"] for line in lines if line["action"] == "stopped"] == [0]
    assert CANARY not in log.read_text()
    desk.wait_for_depth(topology.EVENTS, 3)


@pytest.fixture
def reservations_port() -> Iterator[int]:
    held = Reservations()
    yield held.port()
    held.release()
