"""Publishing many messages at once with confirms: every one of them is safe on the broker, or known not to be."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from passrelay_schemas.confirms import ConfirmTracker, Settled
from passrelay_schemas.errors import UnavailableError

_PATIENCE_SECONDS = 60
"""A broker that confirms nothing for so long is out of order."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message; all of them are mandatory."""

    exchange: str
    body: bytes
    properties: pika.BasicProperties


@dataclass(eq=False, slots=True)
class Sent:
    """Messages that were published together, by their places."""

    open: set[int] = field(default_factory=set)
    """Not confirmed yet."""
    safe: set[int] = field(default_factory=set)
    """The others came back (no queue is bound) or were refused (the queue is full): nobody will get them."""


class Channel(Protocol):
    """Where messages are published and confirmed."""

    def send(self, messages: Iterable[Outgoing]) -> Sent:
        """Publish all and wait for none."""

    def settle(self, sent: Sent) -> set[int]:
        """Wait for every confirm of these, and tell the places of those that are safe."""


class ConfirmingChannel:
    """A channel of its own in confirm mode: pika's blocking one waits for each single confirm, this one for many."""

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection
        self._tracker: ConfirmTracker[tuple[Sent, int]] = ConfirmTracker()
        self._ready = False
        self._channel: BlockingChannel = connection.channel()
        # Below the blocking channel, which would tell of a return only after the confirm that follows it.
        inner = self._channel._impl  # noqa: SLF001
        inner.add_on_return_callback(lambda _, __, properties, ___: self._tracker.returned(_id(properties)))
        inner.confirm_delivery(self._confirmed, callback=self._begin)
        self._wait(lambda: self._ready)

    def send(self, messages: Iterable[Outgoing]) -> Sent:
        """Publish all and wait for none: confirms come in while anything is read on this connection."""
        sent = Sent()
        for place, message in enumerate(messages):
            sent.open.add(place)
            # First: the confirm may come within the next call.
            self._tracker.published(_id(message.properties), (sent, place))
            self._channel.basic_publish(message.exchange, "", message.body, message.properties, mandatory=True)
        return sent

    def settle(self, sent: Sent) -> set[int]:
        """Wait for every confirm of these, and tell the places of those that are safe.

        UnavailableError when the broker stops confirming.
        """
        self._wait(lambda: not sent.open)
        return sent.safe

    def publish(self, messages: Iterable[Outgoing]) -> set[int]:
        """Both in one."""
        return self.settle(self.send(messages))

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        # process_data_events would sleep through confirms that no blocking channel waits for. This looks at whatever
        # comes, a heartbeat at the latest, and raises what the broker closed the channel for.
        self._channel._flush_output(lambda: done() or time.monotonic() > deadline)  # noqa: SLF001
        if not done():
            raise UnavailableError(f"broker: confirmed nothing for {_PATIENCE_SECONDS} s: look at its log and disk")

    def _begin(self, _: Any) -> None:
        self._ready = True

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        settled: Settled[tuple[Sent, int]] = self._tracker.confirmed(
            method.delivery_tag, multiple=method.multiple, ack=isinstance(method, pika.spec.Basic.Ack)
        )
        for sent, place in settled.safe:
            sent.safe.add(place)
        for sent, place in (*settled.safe, *settled.failed):
            sent.open.discard(place)


def _id(properties: pika.BasicProperties) -> str:
    return str(properties.message_id)
