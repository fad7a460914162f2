"""Publishing to one exchange, on a channel that carries nothing else.

For the sake of the exchanges that end in a stream. Before RabbitMQ 4.0.1 (rabbitmq-server pull request 12236) a channel
whose stream gets a new leader sends what is not confirmed once more under the channel's numbers instead of the
stream's. Where these differ, because the channel published elsewhere too or a message came back, the stream takes the
next ones for duplicates: confirmed, and lost. So a stream's channel is left, too, when a message did not arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pika
from pika.channel import Channel

from passrelay_consumer.journal import Message
from passrelay_consumer.pool import Job
from passrelay_schemas.broker import BrokerSession
from passrelay_schemas.confirms import ConfirmTracker, Settled
from passrelay_schemas.fault import Faults

_MOST_TIMES = 8
"""Each connection that is left counts as a delivery: a stream that confirms nothing for an hour must not make the
events that wait for it look like poison. Below what a delivery may be held for."""


class Outlet:
    """Messages to one exchange, on the session's thread; `stream`: that is where it leads.

    `opened` is called when its channel takes messages; `settled` gets jobs whose message is safe or is not; `returned`
    the exchange and routing key that have no queue.
    """

    def __init__(
        self,
        session: BrokerSession,
        *,
        stream: bool,
        opened: Callable[[], None],
        settled: Callable[[Settled[Job]], None],
        returned: Callable[[str, str], None],
        faults: Faults,
    ) -> None:
        self._session = session
        self._stream = stream
        self._ready = opened
        self._settled = settled
        self._report = returned
        self._guard = faults.guard
        self._channel: Channel | None = None
        self._waiting: deque[tuple[Message, Job]] = deque()
        self._confirms: ConfirmTracker[Job] = ConfirmTracker()
        self._times = 1
        """The longest wait for a confirm, as often; twice as long after each time that it was in vain."""

    @property
    def is_open(self) -> bool:
        """Messages go out at once."""
        return self._channel is not None

    @property
    def overdue(self) -> bool:
        """A confirm has not come for so long that it will not come."""
        return self._confirms.overdue(self._session.takes_since, times=self._times)

    def open(self) -> None:
        """When the connection is there."""
        self._session.open_channel(self._guard(self._opened))

    def publish(self, message: Message, job: Job) -> None:
        """Now, or as soon as the channel is open; `settled` tells what became of it."""
        if self._channel is None:
            self._waiting.append((message, job))
        else:
            self._send(self._channel, message, job)

    def lost(self) -> None:
        """The connection is gone, and with it all that was on its way."""
        if self.overdue:
            self._times = min(2 * self._times, _MOST_TIMES)
        self._channel = None
        self._waiting.clear()
        self._confirms = ConfirmTracker()

    def _opened(self, channel: Channel) -> None:
        if not channel.is_open:  # the session ends meanwhile
            return
        self._channel = channel
        confirmed = self._guard(lambda frame: self._confirmed(channel, frame))
        channel.add_callback(confirmed, [pika.spec.Basic.Ack, pika.spec.Basic.Nack], one_shot=False)
        channel.add_on_return_callback(self._guard(self._returned))
        while self._waiting:
            self._send(channel, *self._waiting.popleft())
        self._ready()

    def _send(self, channel: Channel, message: Message, job: Job) -> None:
        channel.basic_publish(message.exchange, message.routing_key, message.body, message.properties, mandatory=True)
        self._confirms.published(str(message.properties.message_id), job)

    def _returned(self, channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        if channel is self._channel:
            self._confirms.returned(str(properties.message_id))
            self._report(method.exchange, method.routing_key)

    def _confirmed(self, channel: Channel, frame: Any) -> None:
        if self._channel is None or channel is not self._channel:
            return  # left already; what was open then counts as failed
        method = frame.method
        settled = self._confirms.confirmed(
            method.delivery_tag, multiple=method.multiple, ack=isinstance(method, pika.spec.Basic.Ack)
        )
        if settled.safe:
            self._times = 1
        # Not a tier's: the messages for other tiers that are on their way would be published once more each time, for
        # as long as one tier is full. And not when the session ends: a channel that closes is not to be closed.
        if settled.failed and self._stream and channel.is_open:
            self._channel = None
            channel.close()
            settled = Settled(settled.safe, (*settled.failed, *self._confirms.lost()))
            self._confirms = ConfirmTracker()
            self.open()
        self._settled(settled)
