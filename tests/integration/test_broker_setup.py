"""The broker as ops/rabbitmq sets it up: each user can do its work and nothing else, and nobody else gets in."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from passrelay_ops.doctor import rights
from passrelay_ops.doctor.rights import Answer
from passrelay_schemas.topology import DEAD, EVENTS, JOURNAL, NEWS, RETRY, TIERS, queues
from tests.lab.broker_folder import HOST
from tests.lab.certificates import CertificateAuthority
from tests.lab.enrolment import toml
from tests.lab.folder import LabFolder
from tests.lab.network import Reservations
from tests.lab.process import run_tool, wait_for
from tests.lab.relay import PASSRELAY
from tests.lab.shipped_broker import SHIPPED, ShippedCluster, ShippedNode

pytestmark = pytest.mark.integration

OPS, CONSUMER, PRODUCER, WATCH = "ops", "consumer", "dc1", "watch"
REFUSED = 403
Act = Callable[[BlockingChannel], object]


@contextlib.contextmanager
def running(size: int) -> Iterator[list[ShippedNode]]:
    lab, reservations = LabFolder(), Reservations()
    cluster = ShippedCluster(lab.path / "broker", reservations, CertificateAuthority(lab.path / "ca"), size=size)
    try:
        cluster.start()
        apply_topology(lab.path, cluster.nodes[0])
        yield cluster.nodes
    finally:
        cluster.close()
        reservations.release()
        lab.remove()


def apply_topology(folder: Path, node: ShippedNode) -> None:
    files = node.certificate(OPS)
    broker = {
        "url": node.url(),
        "ca_file": node.ca.ca_file,
        "certificate_file": files.certificate,
        "key_file": files.key,
    }
    path = folder / "ops.toml"
    path.write_text(toml({"broker": broker}))
    run_tool([PASSRELAY, "topology", "apply", "--config", path])


@pytest.fixture(scope="module")
def node() -> Iterator[ShippedNode]:
    with running(1) as (one,):
        yield one


def attempt(node: ShippedNode, user: str, act: Act) -> int | None:
    """The code of the broker's refusal; None when it let the user do it."""
    connection = node.connect(user)
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        act(channel)
    except ChannelClosedByBroker as error:
        return int(error.reply_code)
    finally:
        connection.close()
    return None


def publish(exchange: str, routing_key: str = "") -> Act:
    properties = pika.BasicProperties(delivery_mode=2)
    return lambda channel: channel.basic_publish(exchange, routing_key, b"x", properties, mandatory=True)


def get(queue: str) -> Act:
    return lambda channel: channel.basic_get(queue)


def read_stream(stream: str) -> Act:
    def act(channel: BlockingChannel) -> None:
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(stream, lambda *_: None, arguments={"x-stream-offset": "next"})

    return act


def depth(queue: str) -> Act:
    """RabbitMQ asks for a permission from 4.2.6 on (docs/compatibility.md)."""
    return lambda channel: channel.queue_declare(queue, passive=True)


def declare(name: str) -> Act:
    return lambda channel: channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})


@pytest.mark.parametrize(
    ("user", "act"),
    [
        pytest.param(PRODUCER, publish(EVENTS), id="producer publishes events"),
        pytest.param(PRODUCER, publish(NEWS), id="producer publishes news"),
        pytest.param(CONSUMER, get(EVENTS), id="consumer reads events"),
        *(pytest.param(CONSUMER, publish(RETRY, tier.name), id=f"consumer retries in {tier.name}") for tier in TIERS),
        pytest.param(CONSUMER, publish(DEAD), id="consumer writes a letter"),
        pytest.param(CONSUMER, publish(JOURNAL), id="consumer writes the journal"),
        pytest.param(OPS, publish(EVENTS), id="ops replays"),
        *(pytest.param(OPS, read_stream(name), id=f"ops reads {name}") for name in (DEAD, JOURNAL, NEWS)),
        *(pytest.param(WATCH, read_stream(name), id=f"watch reads {name}") for name in (DEAD, NEWS)),
        *(pytest.param(WATCH, depth(name), id=f"watch asks how full {name} is") for name in (EVENTS, TIERS[0].queue)),
    ],
)
def test_each_user_can_do_its_work(node: ShippedNode, user: str, act: Act) -> None:
    assert attempt(node, user, act) is None


@pytest.mark.parametrize(
    ("user", "act"),
    [
        *(pytest.param(PRODUCER, get(name), id=f"producer gets from {name}") for name in (EVENTS, f"{RETRY}.15s")),
        *(pytest.param(PRODUCER, read_stream(name), id=f"producer reads {name}") for name in (DEAD, JOURNAL, NEWS)),
        *(pytest.param(PRODUCER, publish(name), id=f"producer writes {name}") for name in (RETRY, DEAD, JOURNAL)),
        pytest.param(PRODUCER, publish("", EVENTS), id="producer goes round the exchange"),
        pytest.param(PRODUCER, declare("passrelay.mine"), id="producer declares"),
        pytest.param(PRODUCER, lambda channel: channel.queue_purge(EVENTS), id="producer purges"),
        pytest.param(PRODUCER, lambda channel: channel.queue_delete(EVENTS), id="producer deletes"),
        *(pytest.param(CONSUMER, publish(name), id=f"consumer writes {name}") for name in (EVENTS, NEWS)),
        pytest.param(CONSUMER, publish("", EVENTS), id="consumer goes round the exchange"),
        *(pytest.param(CONSUMER, read_stream(name), id=f"consumer reads {name}") for name in (DEAD, JOURNAL, NEWS)),
        pytest.param(CONSUMER, declare("passrelay.mine"), id="consumer declares"),
        pytest.param(CONSUMER, lambda channel: channel.queue_delete(EVENTS), id="consumer deletes"),
        *(pytest.param(WATCH, publish(name), id=f"watch writes {name}") for name in (EVENTS, DEAD, NEWS)),
        pytest.param(WATCH, get(EVENTS), id="watch takes events"),
        pytest.param(WATCH, read_stream(JOURNAL), id="watch reads the journal"),
        pytest.param(OPS, declare("another"), id="ops declares what is not passrelay's"),
    ],
)
def test_no_user_can_do_more(node: ShippedNode, user: str, act: Act) -> None:
    assert attempt(node, user, act) == REFUSED


@pytest.mark.parametrize(("user", "role"), [(PRODUCER, "producer"), (CONSUMER, "consumer"), (OPS, "ops")])
def test_the_shipped_permissions_are_those_that_doctor_wants(node: ShippedNode, user: str, role: str) -> None:
    connection = node.connect(user)
    answers = rights.look(connection)
    connection.close()
    assert {right for right, answer in answers.items() if answer is Answer.PERMITTED} == {
        right for right in answers if rights.needed(role, right)
    }


def hello(node: ShippedNode, context: ssl.SSLContext) -> bytes:
    """What the broker answers to AMQP's first bytes over TLS: its greeting, when it takes the client."""
    with (
        socket.create_connection((HOST, node.ports.tls), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as secure,
    ):
        secure.sendall(b"AMQP\x00\x00\x09\x01")
        return secure.recv(4096)


def client(node: ShippedNode, files: CertificateAuthority | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(node.ca.ca_file))
    if files is not None:
        certificate = files.issue(f"{PRODUCER}-client", common_name=PRODUCER)
        context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def test_only_certificates_log_in(node: ShippedNode) -> None:
    greeting = hello(node, client(node, node.ca))
    assert b"EXTERNAL" in greeting
    assert b"PLAIN" not in greeting


@pytest.mark.parametrize("whose", ["nobody's", "a stranger's"])
def test_without_a_certificate_of_our_ca_nobody_gets_in(node: ShippedNode, whose: str, tmp_path: Path) -> None:
    files = None if whose == "nobody's" else CertificateAuthority(tmp_path)
    greeting = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError):  # as soon as it can, the broker hangs up
        greeting = hello(node, client(node, files))
    assert greeting == b""


def test_a_certificate_for_a_name_that_is_no_user_does_not_log_in(node: ShippedNode) -> None:
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        node.connect("dc9")


def test_tls_before_1_2_is_refused(node: ShippedNode) -> None:
    context = client(node, node.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")  # or our own OpenSSL would not even offer it
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        hello(node, context)


def test_nothing_is_said_in_clear_text(node: ShippedNode) -> None:
    listeners = node.tool("rabbitmq-diagnostics", "listeners", "--silent")
    assert "amqp/ssl" in listeners
    assert "protocol: amqp," not in listeners


def test_three_nodes_lose_nothing_when_one_dies() -> None:
    with running(3) as nodes:
        names = {node.name for node in nodes}
        for queue in queues():
            shown = nodes[0].tool("rabbitmqctl", "list_queues", "-p", "passrelay", "--silent", "name", "members")
            line = next(line for line in shown.splitlines() if line.split("\t")[0] == queue.name)
            assert all(name in line for name in names), line
        assert attempt(nodes[0], PRODUCER, publish(EVENTS)) is None
        nodes[0].kill()
        wait_for(lambda: taken(nodes[1]) == b"x", what="the event on another node", timeout_seconds=60)
        assert attempt(nodes[2], PRODUCER, publish(EVENTS)) is None


def taken(node: ShippedNode) -> bytes | None:
    """The body of one event; None while the queue has no leader."""
    with contextlib.suppress(pika.exceptions.AMQPError, OSError):
        connection = node.connect(CONSUMER)
        try:
            _, _, body = connection.channel().basic_get(EVENTS)
            return bytes(body) if body is not None else None
        finally:
            connection.close()
    return None


def test_the_shipped_files_hold_no_password() -> None:
    text = "".join(path.read_text() for path in SHIPPED.iterdir())
    assert '"password_hash": ""' in text
    assert "PLAIN" not in "".join(line for line in text.splitlines() if not line.startswith("#"))
