"""The consumer's real decisions and modifies against replicating servers in memory, under any order of events.

What spin does exhaustively with the rule written down a second time (tests/model), this does at random with the code
itself: Handler, decide, Marker, OrderKey, write_changes, finish_changes, unsettled and dispose.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from passrelay_consumer.result_codes import DirectoryError
from passrelay_schemas.message import Counters
from passrelay_schemas.order import Order
from tests.unit.order_world import CrashError, Fate, Message, World


@dataclass
class DrawnFate(Fate):
    """Others get in between, an answer is lost, the consumer dies."""

    machine: OrderMachine | None = None
    data: st.DataObject | None = None
    answers_lost: int = field(default=0)

    def before(self) -> None:
        assert self.machine is not None
        assert self.data is not None
        for _ in range(self.data.draw(st.sampled_from([0, 0, 0, 1, 4]), label="interruptions")):
            self.machine.interruption(self.data)

    def after_modify(self) -> None:
        assert self.data is not None
        fate = self.data.draw(st.sampled_from(["well", "well", "well", "no answer", "dies"]), label="after the modify")
        if fate == "dies":
            raise CrashError
        if fate == "no answer" and not self.answers_lost:
            self.answers_lost += 1
            raise DirectoryError(None, "no answer in time")


class OrderMachine(RuleBasedStateMachine):
    """One AD account and its IdM entry on two or three servers."""

    @initialize(
        order=st.sampled_from(Order),
        ahead=st.lists(st.sampled_from([0, 0, 0, -3, 2, 60]), min_size=2, max_size=3),
        most_events=st.integers(2, 5),
    )
    def begin(self, order: Order, ahead: list[int], most_events: int) -> None:
        self.world = World(*ahead, order=order)
        self.versions = order is Order.KVNO
        self.most_events = most_events
        self.kvno = self.second = 0

    def room(self) -> bool:
        return len(self.world.captured) < self.most_events

    # -- AD and the producers -----------------------------------------------------------------------------------

    def capture(self, *, must: bool, second: int, tick: bool = False) -> None:
        self.world.capture(self.kvno, second=second, must=must, tick=tick)

    @precondition(room)
    @rule(must=st.booleans(), seconds=st.integers(-2, 3), twin=st.sampled_from([None, None, False, True]))
    def password_is_changed(self, must: bool, seconds: int, twin: bool | None) -> None:
        """`seconds`: the DC's clock may be behind the last one's. `twin`: another DC captures it too."""
        self.kvno += self.versions
        self.second = max(0, self.second + (seconds if self.versions else abs(seconds)))
        self.capture(must=must, second=self.second)
        if twin is not None:
            self.capture(must=(twin and self.versions) or must, second=self.second)

    @precondition(lambda self: self.versions and self.room())
    @rule(seconds=st.integers(1, 3))
    def two_dcs_change_it_before_they_replicate(self, seconds: int) -> None:
        self.kvno += 1
        self.capture(must=False, second=self.second + seconds)
        self.capture(must=False, second=self.second)
        self.second += seconds

    @precondition(lambda self: self.kvno > 0 and self.room())
    @rule()
    def must_change_is_ticked(self) -> None:
        self.capture(must=True, second=self.second, tick=True)

    @precondition(lambda self: self.world.captured)
    @rule(data=st.data())
    def an_event_is_published_once_more(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.world.captured) - 1), label="event")
        self.world.messages.append(Message(number, Counters(replays=1)))

    # -- replication and consumers ------------------------------------------------------------------------------

    @rule(data=st.data(), most=st.integers(1, 3))
    def suppliers_replicate(self, data: st.DataObject, most: int) -> None:
        order = data.draw(st.permutations(range(len(self.world.suppliers))), label="from, to")
        self.world.replicate(order[0], order[1], most)

    @precondition(lambda self: self.world.messages)
    @rule(data=st.data(), blind=st.sampled_from([False, False, False, True]))
    def a_consumer_takes_a_message(self, data: st.DataObject, blind: bool) -> None:
        dies = data.draw(st.sampled_from([None, None, None, 0, 1, 2]), label="publishes before it dies")
        fate = DrawnFate(dies_after_publish=dies, machine=self, data=data)
        message, server = self.message_and_server(data)
        try:
            outcome = self.world.work(message, server, fate, blind=blind)
        except CrashError:
            note(f"a consumer dies with {message}")
        else:
            note(f"{message} at {server}: {outcome.verdict} {outcome.reason or outcome.unsettled}")

    def interruption(self, data: st.DataObject) -> None:
        by_consumer = data.draw(st.booleans(), label="by another consumer")
        if by_consumer and self.world.messages:
            self.world.work(*self.message_and_server(data))
        else:
            self.suppliers_replicate(data, 1)

    def message_and_server(self, data: st.DataObject) -> tuple[Message, int]:
        message = data.draw(st.sampled_from(self.world.messages), label="message")
        return message, data.draw(st.integers(0, len(self.world.suppliers) - 1), label="server")

    def teardown(self) -> None:
        if hasattr(self, "world") and self.world.captured:
            self.world.settle_down()


OrderMachine.TestCase.settings = settings(max_examples=500, stateful_step_count=30)
TestOrderMachine = OrderMachine.TestCase
