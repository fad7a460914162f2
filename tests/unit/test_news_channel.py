"""The channel of the news: after a message that came back nothing more goes over it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pika
from pika.spec import Basic

from passrelay_producer.news_channel import NewsChannel
from passrelay_schemas import topology
from passrelay_schemas.fault import Faults
from passrelay_schemas.logs import Log


class Channel:
    """A broker's channel that opens at once and answers when it is told to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_open = True
        self.published: list[bytes] = []
        self.on_confirm: Any = None
        self.on_return: Any = None

    @property
    def is_closed(self) -> bool:
        return not self.is_open

    def add_on_close_callback(self, callback: Any) -> None:
        pass

    def add_on_return_callback(self, callback: Any) -> None:
        self.on_return = callback

    def confirm_delivery(self, confirmed: Any, *, callback: Any) -> None:
        self.on_confirm = confirmed
        callback(None)

    def basic_publish(self, *message: Any, mandatory: bool) -> None:
        assert self.is_open
        assert mandatory
        self.published.append(message[2])

    def close(self) -> None:
        assert self.is_open
        self.is_open = False

    def confirm(self) -> None:
        self.on_confirm(SimpleNamespace(method=Basic.Ack(1)))

    def give_back(self) -> None:
        self.on_return(self, Basic.Return(312, "", topology.NEWS, ""), pika.BasicProperties(), b"")


class Connection:
    """Where channels are opened."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []

    def channel(self, *, on_open_callback: Any) -> Channel:
        self.channels.append(Channel(self))
        on_open_callback(self.channels[-1])
        return self.channels[-1]


def test_news_that_came_back_are_the_last_on_their_channel() -> None:
    # A stream's new leader would take the next ones for repetitions (RabbitMQ before 4.0.1, see docs/adr/0020).
    faults, connection = Faults(Log("producer"), lambda: None), Connection()
    news = NewsChannel("dc1", faults=faults, log=Log("producer"))
    news.send(connection, b"one")
    (first,) = connection.channels
    first.confirm()
    news.send(connection, b"two")
    first.give_back()
    first.confirm()
    news.send(connection, b"three")
    second = connection.channels[-1]
    second.confirm()
    news.send(connection, b"four")
    assert [channel.published for channel in connection.channels] == [[b"one", b"two"], [b"three", b"four"]]
    assert faults.error is None
