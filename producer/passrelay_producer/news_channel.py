"""The channel of the news: one of their own, because the broker closes a channel that may not do what it tries."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError

from passrelay_schemas import topology
from passrelay_schemas.broker import describe
from passrelay_schemas.fault import Faults
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.message import news_properties

_ACCESS_REFUSED = 403
_NOT_FOUND = 404


class NewsChannel:
    """The channel of the news, on the connection of the events, opened when there are news to send.

    Whatever becomes of it, events go on: a refusal is one warning until news arrive again, and the next news (a minute
    later) are the next attempt.
    """

    def __init__(self, producer: str, *, faults: Faults, log: Log) -> None:
        self._properties = news_properties(producer)
        self._guard = faults.guard
        self._log = log
        self._channel: Channel | None = None
        self._news = b""
        self._returned = False
        self._troubled = False

    def send(self, connection: Any, news: bytes) -> None:
        """Publish `news`, or as soon as the channel is open."""
        self._news = news
        # Only a connection that is closing, or has no channel left, raises: then the next news try again.
        with suppress(AMQPError):
            if self._channel is None or self._channel.is_closed or self._channel.connection is not connection:
                self._channel = connection.channel(on_open_callback=self._guard(self._opened))
            else:
                self._publish(self._channel)

    def _opened(self, channel: Channel) -> None:
        if not channel.is_open:  # the process ends meanwhile
            return
        channel.add_on_close_callback(self._guard(self._closed))
        channel.add_on_return_callback(self._guard(self._came_back))
        channel.confirm_delivery(self._guard(self._confirmed), callback=self._guard(lambda _: self._publish(channel)))

    def _publish(self, channel: Channel) -> None:
        if channel.is_open:
            self._returned = False
            channel.basic_publish(topology.NEWS, "", self._news, self._properties, mandatory=True)

    def _confirmed(self, frame: Any) -> None:
        if self._returned and self._channel is not None and self._channel.is_open:
            # Some brokers lose what follows it on the same channel, see the consumer's `outlet`.
            self._channel.close()
        elif self._troubled and not self._returned and isinstance(frame.method, pika.spec.Basic.Ack):
            self._troubled = False
            self._log.info(Action.RESUMED, exchange=topology.NEWS)

    def _came_back(self, channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        self._returned = True
        self._refused(f"exchange {topology.NEWS} has no stream", "run `passrelay topology apply`")

    def _closed(self, channel: Channel, reason: Exception) -> None:
        code = getattr(reason, "reply_code", None)
        if code == _ACCESS_REFUSED:
            allow = r"give this user write permission on ^passrelay\.(events|news)$ (rabbitmqctl set_permissions)"
            self._refused(describe(reason), allow)
        elif code == _NOT_FOUND:
            self._refused(describe(reason), "run `passrelay topology apply`")

    def _refused(self, why: str, repair: str) -> None:
        if not self._troubled:
            self._log.warning(
                Action.NEWS_FAULT,
                exchange=topology.NEWS,
                why=why,
                repair=f"{repair}; until then `passrelay doctor` cannot say whether this producer lives, events flow",
            )
        self._troubled = True
