"""The operator's connection to the broker, with every failure explained."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

from pika.adapters.blocking_connection import BlockingConnection
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from passrelay_schemas.broker import connection_parameters, describe
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.errors import ConfigurationError, PassrelayError, UnavailableError

ACCESS_REFUSED = 403
NOT_FOUND = 404
PRECONDITION_FAILED = 406


@contextlib.contextmanager
def connect(settings: BrokerSettings) -> Iterator[BlockingConnection]:
    """A connection that is closed at the end.

    Raises UnavailableError when the broker cannot be reached (within its connect timeout) or goes away, and
    ConfigurationError when it is there but its certificate, the login or the vhost is wrong.
    """
    try:
        connection = BlockingConnection(connection_parameters(settings, name="passrelay ops"))
    except (AMQPError, AMQPConnectorException, OSError, ValueError) as error:
        # Outside AMQPError: a handshake that is never answered; ValueError: a reset in the moment of connecting.
        raise explain(error, settings) from None
    try:
        yield connection
    except (AMQPError, OSError) as error:
        raise explain(error, settings) from None
    finally:
        with contextlib.suppress(AMQPError, OSError):
            connection.close()


def server_version(connection: BlockingConnection) -> str:
    """What the broker says it is."""
    # pika shows the broker's properties nowhere else.
    properties = connection._impl.server_properties or {}  # noqa: SLF001
    version = properties.get("version", "unknown")
    return version.decode("utf-8", "replace") if isinstance(version, bytes) else str(version)


def explain(error: BaseException, settings: BrokerSettings) -> PassrelayError:
    """The error of ours for one of pika's or the system's."""
    where = f"broker {settings.shown}"
    certificate = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return ConfigurationError(
            f"{where}: its certificate was refused ({certificate.verify_message}): [broker] ca_file must be the "
            "CA that signed it, and url must use a name that stands in it"
        )
    if isinstance(error, ProbableAuthenticationError):
        return ConfigurationError(
            f"{where}: login refused: the client certificate's common name (or the user in url) must be a user there"
        )
    if isinstance(error, ProbableAccessDeniedError):
        return ConfigurationError(f"{where}: no such vhost, or this user has no permission on it")
    if isinstance(error, IncompatibleProtocolError):
        # pika's word also for a broker that hangs up in the middle of its start.
        return UnavailableError(f"{where}: no AMQP 0-9-1 came from there: check the port, and amqps:// for TLS")
    if isinstance(error, ChannelClosedByBroker) and error.reply_code == NOT_FOUND:
        return ConfigurationError(f"{where}: {error.reply_text}: run `passrelay topology apply`")
    if isinstance(error, ChannelClosedByBroker) and error.reply_code == ACCESS_REFUSED:
        return ConfigurationError(f"{where}: {error.reply_text}: give this user the permission (docs/configuration.md)")
    return UnavailableError(f"{where}: cannot be used now ({describe(error)}): start it or repair the way to it")


def _causes(error: BaseException | None, depth: int = 6) -> Iterator[BaseException]:
    if error is None or depth == 0:
        return
    yield error
    nested = [argument for argument in error.args if isinstance(argument, BaseException)]
    inner = getattr(error, "exception", None)
    if isinstance(inner, BaseException):
        nested.append(inner)
    for cause in (*nested, error.__cause__, error.__context__):
        yield from _causes(cause, depth - 1)
