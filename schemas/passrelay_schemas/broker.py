"""Connections to RabbitMQ: parameters from the settings, and a session that comes back by itself."""

from __future__ import annotations

import contextlib
import math
import re
import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pika
from pika.channel import Channel
from pika.credentials import ExternalCredentials
from pika.exceptions import AMQPConnectionError, AMQPError, ChannelClosedByClient
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

from passrelay_schemas.amqp_connection import SSL_OP_ENABLE_KTLS, JoiningConnection
from passrelay_schemas.amqp_decoding import make_total
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.logs import Action, Log

_HEARTBEAT_SECONDS = 30
_CONNECT_SECONDS = 10
_BLOCKED_SECONDS = 300
_CLOSE_SECONDS = 10
"""A channel that hangs in the broker never answers its close, and heartbeats go on: pika alone would wait for ever."""
_LONGEST_WAIT_SECONDS = 15
"""Between attempts to connect: with full jitter the broker's return is noticed within seconds, by thousands too."""
_STABLE_SECONDS = 10
"""A session that lived shorter counts as a failed attempt, so that a missing topology does not make a tight loop."""


make_total()


def connection_parameters(settings: BrokerSettings, *, name: str) -> pika.URLParameters:
    """Pika's parameters: TLS >= 1.2 with a pinned CA and checked host name, EXTERNAL where there is a certificate."""
    parameters = pika.URLParameters(settings.url.reveal())
    if parameters.ssl_options is not None:
        parameters.ssl_options = pika.SSLOptions(_tls_context(settings), parameters.host)
        if settings.certificate_file is not None and urlsplit(settings.url.reveal()).username is None:
            parameters.credentials = ExternalCredentials()
    parameters.heartbeat = _HEARTBEAT_SECONDS
    parameters.blocked_connection_timeout = _BLOCKED_SECONDS
    parameters.socket_timeout = parameters.stack_timeout = _CONNECT_SECONDS
    parameters.connection_attempts = 1
    parameters.client_properties = {"connection_name": name}
    return parameters


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    path = settings.ca_file
    try:
        context = ssl.create_default_context(cafile=str(path))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options &= ~SSL_OP_ENABLE_KTLS
        if settings.certificate_file is not None and settings.key_file is not None:
            path = settings.certificate_file
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"[broker] {path}: not usable as a PEM file ({error.strerror or error})") from None
    return context


def describe(error: BaseException | None) -> str:
    """One line about an AMQP failure and its causes (pika hides many in empty messages), no URL's credentials in it."""
    parts: list[str] = []
    while error is not None and len(parts) < 4:
        text = re.sub(r"//\S*@", "//***@", " ".join(str(error).split()))
        parts.append(f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__)
        # pika keeps the cause as first argument, or (connector errors) as attribute `exception` or `exceptions`
        several = getattr(error, "exceptions", ())
        inner = several[-1] if several else error.args[0] if error.args else getattr(error, "exception", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__
    return " < ".join(parts) or "closed"


class BrokerSession:
    """One connection with one confirming channel, on the thread that calls `run`, until `stop`.

    `on_open(channel)` is called on that thread when the channel confirms; `on_close()` when it is gone, whatever the
    cause. A lost connection comes back with exponential backoff and full jitter, for ever.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        name: str,
        on_open: Callable[[Channel], None],
        on_close: Callable[[], None],
        log: Log,
    ) -> None:
        self._settings = settings
        self._parameters = connection_parameters(settings, name=name)
        self._on_open = on_open
        self._on_close = on_close
        self._log = log
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._connection: pika.SelectConnection | None = None
        self._opened_at: float | None = None
        self._takes_since = math.inf
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping.is_set():
            with contextlib.suppress(UnavailableError):
                Retrying(
                    retry=retry_if_exception_type(UnavailableError),
                    wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_SECONDS),
                    stop=stop_when_event_set(self._stopping),
                    sleep=sleep_using_event(self._stopping),
                    before_sleep=self._report,
                    reraise=True,
                )(self._serve)

    def stop(self) -> None:
        """Close from any thread; `run` returns soon after."""
        self._stopping.set()
        self.call(self._close)

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` soon on the session's thread; dropped when there is no connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.ioloop.add_callback_threadsafe(function)

    def leave(self) -> None:
        """End this connection for a new one; only to be called on the session's thread."""
        self._close()

    @property
    def takes_since(self) -> float:
        """When the broker began to take messages (time.monotonic); infinite while its memory or disk is short."""
        return self._takes_since

    def open_channel(self, ready: Callable[[Channel], None]) -> None:
        """One more confirming channel on this connection; only to be called on the session's thread.

        When the broker closes it, the session ends as with the first; closing it oneself does nothing else.
        """

        def opened(channel: Channel) -> None:
            channel.add_on_close_callback(self._further_closed)
            channel.confirm_delivery(lambda _: None, callback=lambda _: ready(channel))

        if self._connection is not None:
            self._connection.channel(on_open_callback=opened)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run `function` on the session's thread after a while; only to be called on that thread."""
        if self._connection is not None:
            self._connection.ioloop.call_later(seconds, function)

    def _serve(self) -> None:
        self._begin()
        try:
            connection = JoiningConnection(
                self._parameters,
                on_open_callback=self._connection_open,
                on_open_error_callback=self._connection_failed,
                on_close_callback=self._connection_closed,
            )
        except (AMQPError, OSError) as error:
            raise UnavailableError(describe(error)) from None
        with self._lock:
            self._connection = connection
        if self._stopping.is_set():
            self._close()
        try:
            connection.ioloop.start()
        except ValueError as error:
            # pika's word, out of its event loop, for a connection that is reset in the moment when it is made. Once it
            # is open every callback is ours, and guarded.
            if self._opened_at is not None:
                raise
            self._failure = error
        finally:
            with self._lock:
                self._connection = None
            if self._opened_at is not None:
                self._on_close()
            connection.ioloop.close()
        lived = 0.0 if self._opened_at is None else time.monotonic() - self._opened_at
        if not self._stopping.is_set():
            if lived < _STABLE_SECONDS:
                raise UnavailableError(describe(self._failure))
            self._log.warning(Action.BROKER_LOST, broker=self._settings.shown, why=describe(self._failure))

    def _begin(self) -> None:
        self._failure, self._opened_at = None, None

    def _report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._log.warning(Action.BROKER_LOST, broker=self._settings.shown, why=str(error), attempt=state.attempt_number)

    def _connection_open(self, connection: pika.SelectConnection) -> None:
        self._takes_since = time.monotonic()
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        connection.channel(on_open_callback=self._channel_open)

    def _blocked(self, *_: object) -> None:
        self._takes_since = math.inf
        self._log.error(Action.BROKER_BLOCKED, broker=self._settings.shown, repair="free memory or disk on the broker")

    def _unblocked(self, *_: object) -> None:
        self._takes_since = time.monotonic()
        self._log.info(Action.BROKER_UNBLOCKED, broker=self._settings.shown)

    def _channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.confirm_delivery(lambda _: None, callback=lambda _: self._ready(channel))

    def _ready(self, channel: Channel) -> None:
        self._opened_at = time.monotonic()
        self._log.info(Action.BROKER_CONNECTED, broker=self._settings.shown)
        self._on_open(channel)

    def _further_closed(self, channel: Channel, reason: Exception) -> None:
        if not isinstance(reason, ChannelClosedByClient):
            self._channel_closed(channel, reason)

    def _channel_closed(self, channel: Channel, reason: Exception) -> None:
        self._failure = self._failure or reason  # the first: the other channels are closed because of it
        code = getattr(reason, "reply_code", None)
        if code in {403, 404}:
            self._log.error(
                Action.TOPOLOGY_MISSING,
                broker=self._settings.shown,
                why=describe(reason),
                repair="run `passrelay topology apply`" if code == 404 else "give this user its permissions",
            )
        self._close()

    def _connection_failed(self, connection: pika.SelectConnection, error: Exception | str) -> None:
        self._failure = error if isinstance(error, Exception) else AMQPConnectionError(error)
        connection.ioloop.stop()

    def _connection_closed(self, connection: pika.SelectConnection, reason: Exception) -> None:
        if self._failure is None:
            self._failure = reason
        connection.ioloop.stop()

    def _close(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if connection.is_open:
            connection.close()
            connection.ioloop.call_later(_CLOSE_SECONDS, lambda: self._hang_up(connection))
        elif not connection.is_closing:
            connection.ioloop.stop()

    def _hang_up(self, connection: pika.SelectConnection) -> None:
        if not connection.is_closed:
            connection._terminate_stream(None)  # noqa: SLF001 - pika ends a connection in no other way
