"""How connections to RabbitMQ are made: verified TLS, EXTERNAL only with a certificate, every wait bounded."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed
from pika.credentials import ExternalCredentials, PlainCredentials
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ConnectionClosedByBroker

from passrelay_schemas.broker import connection_parameters, describe
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.secret import Secret
from tests.lab.certificates import Certificate, CertificateAuthority
from tests.lab.folder import CANARY


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def client(ca: CertificateAuthority) -> Certificate:
    return ca.issue("dc1", common_name="dc1")


def tls(ca: CertificateAuthority, url: str, client: Certificate | None = None) -> BrokerSettings:
    return BrokerSettings(
        url=Secret(url),
        ca_file=ca.ca_file,
        certificate_file=client.certificate if client else None,
        key_file=client.key if client else None,
    )


def test_tls_verifies_the_certificate_and_the_host_name(ca: CertificateAuthority) -> None:
    parameters = connection_parameters(tls(ca, "amqps://broker.example:5671/passrelay"), name="x")
    context = parameters.ssl_options.context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is True
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert parameters.ssl_options.server_hostname == "broker.example"
    assert [dict(part[0] for part in found["subject"]) for found in context.get_ca_certs()]
    assert len(context.get_ca_certs()) == 1  # nothing but the pinned CA
    assert (parameters.host, parameters.port, parameters.virtual_host) == ("broker.example", 5671, "passrelay")


def test_every_wait_is_bounded(ca: CertificateAuthority) -> None:
    for settings in (tls(ca, "amqps://broker.example/x"), BrokerSettings(url=Secret("amqp://127.0.0.1/x"))):
        parameters = connection_parameters(settings, name="passrelay producer")
        assert 0 < parameters.heartbeat <= 60
        assert 0 < parameters.socket_timeout <= 30
        assert 0 < parameters.stack_timeout <= 30
        assert 0 < parameters.blocked_connection_timeout <= 600
        assert parameters.connection_attempts == 1  # waiting between attempts is the session's own
        assert parameters.client_properties == {"connection_name": "passrelay producer"}


def test_there_is_no_tls_on_loopback_without_amqps() -> None:
    assert connection_parameters(BrokerSettings(url=Secret("amqp://[::1]/x")), name="x").ssl_options is None


@pytest.mark.parametrize("vhost", ["passrelay", "a%40b", "a@b"])
def test_a_certificate_means_external(ca: CertificateAuthority, client: Certificate, vhost: str) -> None:
    parameters = connection_parameters(tls(ca, f"amqps://broker.example/{vhost}", client), name="x")
    assert isinstance(parameters.credentials, ExternalCredentials)


def test_a_user_in_the_url_wins_over_external(ca: CertificateAuthority, client: Certificate) -> None:
    parameters = connection_parameters(tls(ca, f"amqps://relay:{CANARY}@broker.example/x", client), name="x")
    assert parameters.credentials == PlainCredentials("relay", CANARY)


def test_no_certificate_means_no_external(ca: CertificateAuthority) -> None:
    for url in ("amqps://relay:x@broker.example/x", "amqps://broker.example/x"):
        parameters = connection_parameters(tls(ca, url), name="x")
        assert not isinstance(parameters.credentials, ExternalCredentials)


def test_no_external_without_tls(client: Certificate) -> None:
    settings = BrokerSettings(
        url=Secret("amqp://localhost/x"), certificate_file=client.certificate, key_file=client.key
    )
    assert not isinstance(connection_parameters(settings, name="x").credentials, ExternalCredentials)


@pytest.mark.parametrize("which", ["ca_file", "certificate_file", "key_file"])
@pytest.mark.parametrize("content", [None, b"", b"no PEM", b"\xff\x00"])
def test_an_unusable_pem_file_is_a_configuration_error(
    ca: CertificateAuthority, client: Certificate, tmp_path: Path, which: str, content: bytes | None
) -> None:
    path = tmp_path / "broken.pem"
    if content is not None:
        path.write_bytes(content)
    settings = tls(ca, "amqps://broker.example/x", client).model_copy(update={which: path})
    with pytest.raises(ConfigurationError, match=r"\[broker\] .*: not usable as a PEM file"):
        connection_parameters(settings, name="x")


# -- describe --------------------------------------------------------------------------------------------------------


def test_an_empty_pika_error_is_described_by_its_cause() -> None:
    error = AMQPConnectionError(OSError(111, "Connection refused"))
    assert "Connection refused" in describe(error)
    chained = AMQPConnectionError()
    chained.__cause__ = ChannelClosedByBroker(404, "NOT_FOUND - no exchange")
    assert describe(chained) == "AMQPConnectionError < ChannelClosedByBroker: (404, 'NOT_FOUND - no exchange')"
    assert describe(None) == "closed"
    workflow = AMQPConnectionWorkflowFailed([OSError("first address"), OSError("certificate is not yet valid")])
    assert describe(workflow).endswith("certificate is not yet valid")


URL = f"amqps://relay:{CANARY}@broker.example:5671/x"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"bad url {URL}"),
        ValueError(f"bad url amqps://relay:{CANARY}/with/slash@broker.example/x"),
        ValueError(f"bad url amqps://relay:{CANARY}@with@at@broker.example/x"),
        AMQPConnectionError(ValueError(URL)),
        ConnectionClosedByBroker(403, f"ACCESS_REFUSED {URL}"),
        AMQPConnectionError(AMQPConnectionError(AMQPConnectionError(URL))),
    ],
)
def test_credentials_of_a_url_are_never_described(error: Exception) -> None:
    shown = describe(error)
    assert CANARY not in shown
    assert "broker.example" in shown


def test_a_description_is_one_bounded_line() -> None:
    error: Any = AMQPConnectionError("x\ny" * 1000)
    error.__cause__ = error
    shown = describe(error)
    assert "\n" not in shown
    assert len(shown) < 1000


def test_a_real_refused_connection_shows_no_credentials() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        port = taken.getsockname()[1]
        settings = BrokerSettings(url=Secret(f"amqp://relay:{CANARY}@127.0.0.1:{port}/x"))
        with pytest.raises(AMQPConnectionError) as caught:
            pika.BlockingConnection(connection_parameters(settings, name="x"))
    assert CANARY not in describe(caught.value)
    assert "refused" in describe(caught.value).lower()
    assert settings.shown == f"amqp://127.0.0.1:{port}/x"


@pytest.mark.parametrize(
    "value",
    [
        b"T" + (2**62).to_bytes(8, "big"),  # a time that no datetime holds
        b"?",  # no such type
        b"F" + (0).to_bytes(4, "big"),
        b"S" + (2**31).to_bytes(4, "big"),
    ],
)
def test_headers_that_pika_cannot_decode_do_not_cost_the_connection(value: bytes) -> None:
    table = b"\x01x" + value
    flags = pika.BasicProperties.FLAG_HEADERS.to_bytes(2, "big")
    properties = pika.BasicProperties().decode(flags + len(table).to_bytes(4, "big") + table)
    assert properties.headers in (None, {}, {"x": {}}, {"x": b""}, {"x": ""})


def test_headers_that_pika_can_decode_arrive() -> None:
    table = b"\x01x" + b"I" + (7).to_bytes(4, "big")
    flags = pika.BasicProperties.FLAG_HEADERS.to_bytes(2, "big")
    properties = pika.BasicProperties().decode(flags + len(table).to_bytes(4, "big") + table)
    assert properties.headers == {"x": 7}
