"""What the publisher does when it cannot send, step by step: its session, its desk and its clock are the test."""

from __future__ import annotations

import concurrent.futures.thread
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pika.spec import Basic

from passrelay_producer import publisher as publisher_module
from passrelay_producer.metrics import ProducerMetrics
from passrelay_producer.publisher import WINDOW, Publisher
from passrelay_producer.sources import Page
from passrelay_producer.turns import Turn
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.fault import Faults
from passrelay_schemas.logs import Log
from tests.unit.test_spool import sealed
from tests.unit.test_turns import Desk

TURN = publisher_module._TURN_EVENTS


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def utc(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


class Channel:
    """A broker's channel that is always open and answers when it is told to."""

    is_open = True

    def __init__(self) -> None:
        self.published: list[str] = []
        self.bodies: list[bytes] = []
        self.answered = 0
        self.on_confirm: Any = None

    def add_callback(self, callback: Any, *_: object, **__: object) -> None:
        self.on_confirm = callback

    def add_on_return_callback(self, callback: Any) -> None:
        pass

    def basic_publish(self, *message: Any, mandatory: bool) -> None:
        assert mandatory
        self.bodies.append(message[2])
        self.published.append(message[3].message_id)

    def answer(self, kind: type[Basic.Ack | Basic.Nack] = Basic.Ack) -> None:
        """One answer to all that came since the last one."""
        self.answered = len(self.published)
        self.on_confirm(SimpleNamespace(method=kind(self.answered, multiple=True)))


class Session:
    """A session with the broker whose calls and timers wait until the test makes them."""

    takes_since = math.inf

    def __init__(self, settings: Any, *, on_open: Callable[[Any], None], **_: object) -> None:
        self.on_open = on_open
        self.channel = Channel()
        self.calls: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.stopped = threading.Event()

    def call(self, function: Callable[[], None]) -> None:
        self.calls.append(function)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        self.timers.append((time.monotonic() + seconds, function))

    def run(self) -> None:
        self.on_open(self.channel)
        self.stopped.wait(60)

    def stop(self) -> None:
        self.stopped.set()


class Rig(Desk):
    """A publisher with the spool and the keys of dc1."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(folder)
        self.clock = clock
        self.faults = Faults(Log("test"), lambda: None)
        self.publisher = Publisher(
            cast("Any", None),
            self.spool,
            self.identity,
            metrics=ProducerMetrics(self.spool),
            faults=self.faults,
            log=Log("test"),
        )
        self.session = cast("Session", self.publisher._session)
        self.channel = self.session.channel

    def add(self, count: int, producer: str = "dc1") -> list[str]:
        """As `Desk.add`; nobody opens what is inside."""
        events = [sealed(b"x", producer=producer) for _ in range(count)]
        self.spool.commit(Page(), events)
        return [str(event.header.event_id) for event in events]

    def open(self) -> None:
        self.session.on_open(self.channel)

    def calls(self) -> None:
        """What other threads asked for."""
        while self.session.calls:
            self.session.calls.popleft()()

    def later(self, seconds: float) -> None:
        """Let time pass, with its ticks."""
        until = self.clock.seconds + seconds
        timers = self.session.timers
        while timers and (first := min(timers, key=itemgetter(0)))[0] <= until:
            timers.remove(first)
            self.clock.seconds, function = first
            function()
        self.clock.seconds = until

    def make_turns(self, most: int = 1000, *, seconds: float = 0) -> None:
        """Make what turns are asked for; each takes so long."""
        self.calls()
        while most and not self.publisher._desk.empty():
            make = self.publisher._desk.get()
            assert make is not None
            self.later(seconds)
            make()
            self.calls()
            most -= 1

    def answer_all(self) -> None:
        while self.channel.answered < len(self.channel.published):
            self.channel.answer()
            self.make_turns()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[Rig]:
    monkeypatch.setattr(publisher_module, "BrokerSession", Session)
    monkeypatch.setattr(publisher_module, "_pause", lambda failures: 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("passrelay_producer.publisher.time.monotonic", clock)
        patch.setattr("passrelay_producer.turns.utc_now", clock.utc)
        made = Rig(tmp_path, clock)
        yield made
        made.spool.close()
    assert made.faults.error is None


@pytest.mark.parametrize("refusals", [0, 1])
def test_thousands_of_events_without_a_key_stop_no_others(rig: Rig, refusals: int) -> None:
    gone, sent = rig.add(3000, "gone"), rig.add(1)
    turns = math.ceil((len(gone) + len(sent)) / TURN) + 1  # a tick may have the first one made again
    rig.open()
    for _ in range(refusals):
        rig.make_turns(turns, seconds=1)  # as slow as the ticks are apart
        rig.channel.answer(Basic.Nack)
        rig.later(0)
    rig.make_turns(turns, seconds=1)
    rig.channel.answer()
    assert rig.channel.published == sent * (refusals + 1)
    assert rig.spool.queued_count() == len(gone)


def test_what_waits_is_signed_anew_whatever_comes_behind_it(rig: Rig) -> None:
    sent = rig.add(WINDOW + 100)
    rig.open()
    rig.make_turns()
    assert rig.channel.published == sent[:WINDOW]
    for _ in range(12):  # each is younger than a second while the oldest is not
        sent += rig.add(1)
        rig.make_turns()
        rig.later(0.5)
    rig.make_turns()
    now = rig.clock.utc()
    rig.answer_all()
    assert rig.channel.published == sent
    oldest = min(Envelope.parse(body).signed_at for body in rig.channel.bodies[WINDOW:])
    assert now - oldest <= timedelta(seconds=2 * publisher_module._TICK_SECONDS)


def test_a_turn_that_was_made_while_older_events_were_let_go_does_not_overtake_them(rig: Rig) -> None:
    sent = rig.add(WINDOW + 100)
    rig.open()
    rig.make_turns()
    sent += rig.add(1)
    rig.make_turns(1, seconds=2)
    rig.make_turns()
    rig.answer_all()
    assert rig.channel.published == sent


def test_events_that_were_let_go_are_read_before_newer_ones_also_beside_one_without_a_key(rig: Rig) -> None:
    first, _, rest = rig.add(WINDOW), rig.add(1, "gone"), rig.add(4 * TURN)
    rig.open()
    rig.make_turns()
    rig.later(2)
    rig.make_turns()
    rig.answer_all()
    assert rig.channel.published == first + rest


def test_a_turn_that_hangs_does_not_keep_the_process_from_ending(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, goes_on = threading.Event(), threading.Event()

    def make(*_: object) -> Turn:
        hangs.set()
        goes_on.wait(60)
        return Turn(0, more=False)

    monkeypatch.setattr(rig.publisher._turns, "make", make)
    before = {*threading.enumerate()}
    service = threading.Thread(target=rig.publisher.run, daemon=True)  # as in the service
    service.start()
    try:
        assert hangs.wait(60)
        rig.publisher.stop()
        # The interpreter waits at its end for a thread that is no daemon, and for an executor's though it is one.
        (desk,) = {*threading.enumerate()} - before - {service}
        assert desk.daemon
        assert desk not in concurrent.futures.thread._threads_queues
    finally:
        goes_on.set()
        service.join(60)
    assert not service.is_alive()
