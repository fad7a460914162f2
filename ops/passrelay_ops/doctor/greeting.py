"""The broker before anybody logs in: the way there, its certificate, and what it says to ours.

pika hides what TLS says behind its own errors, and with TLS 1.3 a refused client certificate shows only at the first
read (RFC 8446 4.6.2). So one connection is made by hand: TLS, AMQP's first eight bytes, and the first of the answer.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

from passrelay_schemas.broker import connection_parameters
from passrelay_schemas.broker_settings import BrokerSettings

_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = 1
_SECONDS = 10
_NAME_CODES = frozenset({62, 63, 64})
_TIME_CODES = frozenset({9, 10})
"""X509_V_ERR_... of OpenSSL (x509_vfy.h): host name, e-mail and address mismatch; not yet valid and expired."""
_HUNG_UP = "it ends the connection right after TLS"
_ABOUT_CLIENT = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")
"""Words in the alerts (RFC 8446 6.2) with which a server refuses a client's certificate."""


@dataclass(frozen=True)
class Greeting:
    """How far a connection came; the first fault is the one that counts."""

    secure: bool
    unreachable: str = ""
    certificate_fault: str = ""
    certificate_repair: str = ""
    expires_at: datetime | None = None
    """When the broker's certificate ends."""
    client_fault: str = ""


def greet(settings: BrokerSettings) -> Greeting:
    """Connect as a service does, without logging in. ConfigurationError when the files of [broker] cannot be used."""
    greeting = _attempt(settings)
    if greeting.client_fault == _HUNG_UP:
        # TLS 1.2 tells within the handshake why a certificate is refused; RabbitMQ's TLS 1.3 just hangs up.
        again = _attempt(settings, ssl.TLSVersion.TLSv1_2)
        return again if again.client_fault else greeting
    return greeting


def certificate_end(settings: BrokerSettings) -> datetime | None:
    """When the certificate ends that the broker shows now; None: it has none, or cannot be asked.

    TLS alone: RabbitMQ logs nothing about a connection that ends before AMQP's first bytes.
    """
    parameters = connection_parameters(settings, name="passrelay")
    options = parameters.ssl_options
    if options is None:
        return None
    with (
        contextlib.suppress(OSError),
        socket.create_connection((parameters.host, parameters.port), timeout=_SECONDS) as connection,
        options.context.wrap_socket(connection, server_hostname=options.server_hostname) as secured,
    ):
        return _end(secured)
    return None


def _attempt(settings: BrokerSettings, newest: ssl.TLSVersion | None = None) -> Greeting:
    parameters = connection_parameters(settings, name="passrelay doctor")
    options = parameters.ssl_options
    secure, expires_at, shaken = options is not None, None, False
    try:
        connection = socket.create_connection((parameters.host, parameters.port), timeout=_SECONDS)
    except OSError as error:
        return Greeting(secure, unreachable=_words(error))
    with contextlib.ExitStack() as stack:
        stack.enter_context(connection)
        try:
            if options is not None:
                if newest is not None:
                    options.context.maximum_version = newest
                wrapped = options.context.wrap_socket(connection, server_hostname=options.server_hostname)
                connection = stack.enter_context(wrapped)
                expires_at, shaken = _end(wrapped), True
            connection.sendall(_PROTOCOL_HEADER)
            answer = connection.recv(8)
        except ssl.SSLCertVerificationError as error:
            fault, repair = certificate_words(error.verify_code, error.verify_message)
            return Greeting(secure, certificate_fault=fault, certificate_repair=repair)
        except OSError as error:
            reason = getattr(error, "reason", None) or ""
            if "ALERT" in reason and any(word in reason for word in _ABOUT_CLIENT):
                return Greeting(secure, expires_at=expires_at, client_fault=reason.replace("_", " ").lower())
            if shaken and isinstance(error, ssl.SSLEOFError | ConnectionError):
                return Greeting(secure, expires_at=expires_at, client_fault=_HUNG_UP)
            return Greeting(secure, unreachable=f"no TLS came from there ({reason})" if reason else _words(error))
    if shaken and not answer:
        return Greeting(secure, expires_at=expires_at, client_fault=_HUNG_UP)
    if not answer or answer[0] != _METHOD_FRAME:
        return Greeting(secure, unreachable="no AMQP 0-9-1 came from there: is it the right port?")
    return Greeting(secure, expires_at=expires_at)


def _words(error: OSError) -> str:
    return f"{type(error).__name__}: {error.strerror or error}"


def certificate_words(code: int, message: str) -> tuple[str, str]:
    """What OpenSSL found wrong with the broker's certificate, and the repair."""
    if code in _TIME_CODES:
        return message, "renew the broker's certificate, or set the clock that is wrong"
    if code in _NAME_CODES:
        return message, "write the broker in [broker] url by a name that stands in its certificate"
    return message, "[broker] ca_file must hold the CA that signed the broker's certificate: copy it again"


def _end(connection: ssl.SSLSocket) -> datetime | None:
    presented = connection.getpeercert() or {}
    end = presented.get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(end), UTC) if isinstance(end, str) else None
