"""A channel on which a message did not arrive is left, and nothing that was on its way over it counts as arrived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pika
import pytest
from pika.spec import Basic

from passrelay_consumer import outlet as outlet_module
from passrelay_consumer.journal import Message
from passrelay_consumer.outcome import Delivery
from passrelay_consumer.outlet import Outlet
from passrelay_consumer.pool import Job
from passrelay_schemas import topology
from passrelay_schemas.broker import BrokerSession
from passrelay_schemas.confirms import ConfirmTracker, Settled
from passrelay_schemas.fault import Faults
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.logs import Log
from passrelay_schemas.message import Counters


@dataclass
class Channel:
    """A broker's channel that remembers what was published, and answers when it is told to."""

    is_open: bool = True
    published: list[str] = field(default_factory=list)
    on_confirm: Callable[[Any], None] = lambda _: None
    on_return: Callable[..., None] = lambda *_: None

    def add_callback(self, callback: Callable[[Any], None], _: object, *, one_shot: bool) -> None:
        assert not one_shot
        self.on_confirm = callback

    def add_on_return_callback(self, callback: Callable[..., None]) -> None:
        self.on_return = callback

    def basic_publish(self, *message: Any, mandatory: bool) -> None:
        assert self.is_open
        assert mandatory
        self.published.append(message[3].message_id)

    def close(self) -> None:
        assert self.is_open
        self.is_open = False

    def refuse(self, tag: int) -> None:
        self.on_confirm(SimpleNamespace(method=Basic.Nack(tag)))

    def confirm(self, tag: int) -> None:
        self.on_confirm(SimpleNamespace(method=Basic.Ack(tag)))

    def give_back(self, name: str) -> None:
        self.on_return(self, Basic.Return(312, "", topology.DEAD, ""), pika.BasicProperties(message_id=name), b"")


class Session:
    """Opens a channel when it is told to."""

    takes_since = 0.0

    def __init__(self) -> None:
        self.asked: list[Callable[[Channel], None]] = []

    def open_channel(self, ready: Callable[[Channel], None]) -> None:
        self.asked.append(ready)

    def opens(self) -> Channel:
        channel = Channel()
        self.asked.pop(0)(channel)
        return channel


class Rig:
    """An outlet and what it told."""

    def __init__(self, *, stream: bool = True) -> None:
        self.session = Session()
        self.faults = Faults(Log("consumer"), lambda: None)
        self.safe: list[Job] = []
        self.failed: list[Job] = []
        self.returned: list[str] = []
        self.opened = 0
        self.outlet = Outlet(
            cast("BrokerSession", self.session),
            stream=stream,
            opened=self._opened,
            settled=self._settled,
            returned=lambda exchange, _: self.returned.append(exchange),
            faults=self.faults,
        )
        self.outlet.open()

    def _opened(self) -> None:
        self.opened += 1

    def _settled(self, settled: Settled[Job]) -> None:
        self.safe += settled.safe
        self.failed += settled.failed

    def publish(self, name: str) -> Job:
        job = Job(1, Delivery(b"", Counters(), utc_now()))
        self.outlet.publish(Message(topology.DEAD, "", pika.BasicProperties(message_id=name), b""), job)
        return job


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_messages_wait_for_the_channel(rig: Rig) -> None:
    job = rig.publish("a")
    assert not rig.outlet.is_open
    channel = rig.session.opens()
    assert (channel.published, rig.opened, rig.outlet.is_open) == (["a"], 1, True)
    channel.confirm(1)
    assert (rig.safe, rig.failed) == ([job], [])


def test_after_a_return_nothing_more_goes_over_that_channel(rig: Rig) -> None:
    first = rig.session.opens()
    back, beside = rig.publish("a"), rig.publish("b")
    first.give_back("a")
    first.confirm(1)
    assert (rig.returned, rig.safe, rig.failed) == ([topology.DEAD], [], [back, beside])
    assert not first.is_open
    later = rig.publish("c")
    first.confirm(2)  # on its way already: it is published anew all the same, and a duplicate harms nobody
    assert rig.safe == []
    second = rig.session.opens()
    assert (first.published, second.published) == (["a", "b"], ["c"])
    second.confirm(1)
    assert rig.safe == [later]


def test_a_tier_that_is_full_leaves_what_goes_to_another_alone() -> None:
    rig = Rig(stream=False)
    channel = rig.session.opens()
    full, beside = rig.publish("a"), rig.publish("b")
    channel.refuse(1)
    assert (rig.failed, channel.is_open, rig.session.asked) == ([full], True, [])
    channel.confirm(2)
    assert rig.safe == [beside]


def test_a_channel_that_closes_already_is_not_left_once_more(rig: Rig) -> None:
    # The connection ends, for what another channel was closed for or at a stop, and this came before its answer.
    channel = rig.session.opens()
    rig.publish("a")
    channel.close()
    channel.give_back("a")
    channel.confirm(1)
    assert (rig.safe, rig.session.asked, rig.faults.error) == ([], [], None)


def test_a_lost_connection_takes_what_was_on_its_way(rig: Rig) -> None:
    rig.session.opens()
    rig.publish("a")
    rig.outlet.lost()
    rig.publish("b")
    rig.outlet.lost()
    rig.outlet.open()
    assert rig.session.opens().published == []
    assert (rig.safe, rig.failed) == ([], [])


def test_a_channel_that_opens_while_the_session_ends_is_not_used(rig: Rig) -> None:
    ready = rig.session.asked.pop()
    ready(Channel(is_open=False))
    assert not rig.outlet.is_open


def test_while_nothing_is_confirmed_each_connection_is_kept_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each one that is left counts as a delivery, and other consumers do not know that it was for this.
    clock, waits = 0, []
    monkeypatch.setattr(outlet_module, "ConfirmTracker", lambda: ConfirmTracker(lambda: clock))
    rig = Rig()
    for confirmed in (False, False, False, False, False, True, False):
        began, channel = clock, rig.session.opens()
        rig.publish("a")
        if confirmed:
            channel.confirm(1)
            rig.publish("b")
        while not rig.outlet.overdue:
            clock += 30
        waits.append(clock - began)
        rig.outlet.lost()
        rig.outlet.open()
    assert waits == [90, 150, 270, 510, 510, 90, 150]
