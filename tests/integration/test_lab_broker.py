"""The lab's RabbitMQ node keeps what it promises: logins, permissions, survival of a crash, nothing left behind."""

from __future__ import annotations

import http.client
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker

from tests.lab.broker import Broker
from tests.lab.broker_folder import HOST
from tests.lab.certificates import CertificateAuthority
from tests.lab.folder import LabFolder
from tests.lab.network import Reservations
from tests.lab.process import wait_for

pytestmark = pytest.mark.integration

QUORUM = {"x-queue-type": "quorum"}
STREAM = {"x-queue-type": "stream"}
PERSISTENT = pika.BasicProperties(delivery_mode=2)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    lab = LabFolder()
    yield lab.path
    lab.remove()


@pytest.fixture(scope="module")
def reservations() -> Iterator[Reservations]:
    held = Reservations()
    yield held
    held.release()


@pytest.fixture(scope="module")
def broker(folder: Path, reservations: Reservations) -> Iterator[Broker]:
    node = Broker(folder / "broker", reservations, CertificateAuthority(folder / "ca"))
    try:
        node.start()
        node.add_user("producer-1", configure="^$", write="^events$", read="^$")
        yield node
    finally:
        node.close()


@contextmanager
def channel_of(broker: Broker, user: str | None = None) -> Iterator[BlockingChannel]:
    connection = BlockingConnection(broker.parameters(user))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel
    finally:
        if connection.is_open:
            connection.close()


def declare(broker: Broker) -> None:
    """A fanout exchange `events` with a quorum queue and a stream behind it, both empty."""
    with channel_of(broker) as channel:
        channel.exchange_declare("events", "fanout", durable=True)
        for name, arguments in (("work", QUORUM), ("letters", STREAM)):
            channel.queue_declare(name, durable=True, arguments=arguments)
            channel.queue_bind(name, "events")
    broker.purge_all()


def processes_of(folder: Path) -> list[str]:
    """Command lines of the live processes whose environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def test_certificate_user_publishes_and_the_message_survives_a_crash(broker: Broker) -> None:
    declare(broker)
    with channel_of(broker, "producer-1") as channel:
        channel.basic_publish("events", "", b"sealed", PERSISTENT, mandatory=True)
    broker.kill()
    assert not broker.running
    broker.start()

    wait_for(lambda: broker.queue_depths() == {"work": 1, "letters": 1}, what="both copies are still there")
    with channel_of(broker) as channel:
        method, _, body = channel.basic_get("work", auto_ack=True)
    assert method is not None
    assert body == b"sealed"
    with channel_of(broker, "producer-1") as channel:
        channel.basic_publish("events", "", b"sealed again", PERSISTENT, mandatory=True)


def test_permissions_refuse_what_was_not_granted(broker: Broker) -> None:
    declare(broker)
    with channel_of(broker, "producer-1") as channel, pytest.raises(ChannelClosedByBroker) as refused:
        channel.basic_get("work")
    assert refused.value.reply_code == 403
    with channel_of(broker, "producer-1") as channel, pytest.raises(ChannelClosedByBroker) as refused:
        channel.queue_declare("mine", durable=True)
    assert refused.value.reply_code == 403


def test_certificate_user_has_no_password(broker: Broker) -> None:
    for password in ("", "producer-1"):
        parameters = broker.parameters()
        parameters.credentials = pika.PlainCredentials("producer-1", password)
        with pytest.raises(AMQPConnectionError):
            BlockingConnection(parameters)


def test_certificate_of_an_unknown_user_is_refused(broker: Broker) -> None:
    with pytest.raises(AMQPConnectionError):
        BlockingConnection(broker.parameters("nobody-1"))


def test_purge_empties_queues_and_streams_and_keeps_bindings(broker: Broker) -> None:
    declare(broker)
    for _ in range(2):
        with channel_of(broker) as channel:
            channel.basic_publish("events", "", b"sealed", PERSISTENT, mandatory=True)
        wait_for(lambda: broker.queue_depths() == {"work": 1, "letters": 1}, what="one message in each")
        broker.purge_all()
        wait_for(lambda: broker.queue_depths() == {"work": 0, "letters": 0}, what="both empty")


def test_addresses_and_version(broker: Broker) -> None:
    assert broker.version[0] in "34"
    assert broker.url() == f"amqps://{HOST}:{broker.ports.tls}/passrelay"
    with BlockingConnection(pika.URLParameters(broker.plain_url)) as connection:
        assert connection.is_open
    metrics = http.client.HTTPConnection(HOST, broker.ports.metrics, timeout=30)
    metrics.request("GET", "/metrics")
    response = metrics.getresponse()
    assert response.status == 200
    assert b"rabbitmq_build_info" in response.read()
    metrics.close()


def test_administrator_password_is_in_no_file_and_no_command_line(broker: Broker, folder: Path) -> None:
    password = broker._admin_password
    assert not any(password in line for line in processes_of(folder))
    for path in broker.folder.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode):
            assert password.encode() not in path.read_bytes(), path


def test_second_node_beside_the_first_leaves_nothing_running(
    broker: Broker, folder: Path, reservations: Reservations
) -> None:
    other = Broker(folder / "other", reservations, CertificateAuthority(folder / "other-ca"))
    try:
        other.start()
        assert other.queue_depths() == {}
        assert all(Path(f"/proc/{pid}").exists() for pid in other.pids)
        other.stop()
        assert not any(Path(f"/proc/{pid}").exists() for pid in other.pids)
        wait_for(lambda: processes_of(folder / "other") == [], what="no process of the second node is left")
    finally:
        other.close()
    assert broker.running
    broker.queue_depths()
