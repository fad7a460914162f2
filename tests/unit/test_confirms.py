"""Publisher confirms against a naive model of the broker: a message counts as safe only when it is."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from passrelay_schemas.confirms import LONGEST_UNCONFIRMED_SECONDS, ConfirmTracker, Settled


class Model(RuleBasedStateMachine):
    """Publishes, returns, acks and nacks in every order that a broker may use; ids may repeat in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker: ConfirmTracker[int] = ConfirmTracker()
        self.ids: dict[int, str] = {}  # token (= delivery tag) -> message id, for everything published
        self.came_back: set[int] = set()
        self.open: set[int] = set()
        self.safe: set[int] = set()
        self.failed: set[int] = set()
        self.blamed: set[int] = set()  # open with the id of a returned message: may fail, too

    @rule(message_id=st.sampled_from("abc"))
    def publish(self, message_id: str) -> None:
        token = len(self.ids) + 1
        self.ids[token] = message_id
        self.open.add(token)
        self.tracker.published(message_id, token)

    @precondition(lambda self: self.open - self.came_back)
    @rule(data=st.data())
    def return_one(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.open - self.came_back)))
        self.came_back.add(token)
        self.blamed |= {other for other in self.open if self.ids[other] == self.ids[token]}
        self.tracker.returned(self.ids[token])

    @rule(message_id=st.sampled_from(["z", ""]))
    def return_of_something_unknown(self, message_id: str) -> None:
        self.tracker.returned(message_id)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), multiple=st.booleans(), ack=st.booleans())
    def confirm(self, data: st.DataObject, multiple: bool, ack: bool) -> None:
        tag = data.draw(st.sampled_from(sorted(self.open)))
        covered = {token for token in self.open if token <= tag} if multiple else {tag}
        settled = self.tracker.confirmed(tag, multiple=multiple, ack=ack)
        assert sorted([*settled.safe, *settled.failed]) == sorted(covered)
        for token in settled.safe:
            assert ack
            assert token not in self.came_back, "a returned message was called safe: it is lost"
        for token in settled.failed:
            assert not ack or token in self.blamed, "a message that the broker took was called failed"
        self.open -= covered
        self.safe |= set(settled.safe)
        self.failed |= set(settled.failed)

    @rule(tag=st.integers(0, 50), ack=st.booleans())
    def confirm_again_or_for_nothing(self, tag: int, ack: bool) -> None:
        if tag not in self.open:
            assert self.tracker.confirmed(tag, multiple=False, ack=ack) == Settled((), ())

    @rule()
    def channel_closes(self) -> None:
        assert set(self.tracker.lost()) == self.open
        assert self.tracker.lost() == ()
        self.failed |= self.open
        self.open.clear()

    @invariant()
    def everything_is_accounted_for_once(self) -> None:
        assert len(self.tracker) == len(self.open)
        assert not self.safe & self.failed
        assert self.safe | self.failed | self.open == set(self.ids)


TestModel: Any = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_multiple_ack_settles_everything_up_to_its_tag() -> None:
    tracker: ConfirmTracker[str] = ConfirmTracker()
    for name in "abcd":
        tracker.published(name, name)
    tracker.returned("b")
    assert tracker.confirmed(3, multiple=True, ack=True) == Settled(("a", "c"), ("b",))
    assert tracker.lost() == ("d",)


def test_two_messages_of_one_event_both_fail_when_one_comes_back() -> None:
    """A record and a retry of one event carry one id: which of them was returned cannot be told."""
    tracker: ConfirmTracker[str] = ConfirmTracker()
    tracker.published("event", "record")
    tracker.published("event", "retry")
    tracker.returned("event")
    assert tracker.confirmed(1, multiple=False, ack=True).failed == ("record",)
    assert tracker.confirmed(2, multiple=False, ack=True).failed == ("retry",)


def test_a_return_does_not_follow_the_id_into_its_next_publish() -> None:
    tracker: ConfirmTracker[int] = ConfirmTracker()
    tracker.published("event", 1)
    tracker.returned("event")
    assert tracker.confirmed(1, multiple=False, ack=True).failed == (1,)
    tracker.published("event", 2)
    assert tracker.confirmed(2, multiple=False, ack=True).safe == (2,)


def test_the_oldest_open_one_tells_that_confirms_no_longer_come() -> None:
    now = 0.0
    tracker: ConfirmTracker[int] = ConfirmTracker(lambda: now)
    seen = [tracker.overdue(0)]
    tracker.published("one", 1)
    now = LONGEST_UNCONFIRMED_SECONDS - 1
    tracker.published("two", 2)
    seen.append(tracker.overdue(0))
    now = LONGEST_UNCONFIRMED_SECONDS + 1
    seen.append(tracker.overdue(0))
    seen += [tracker.overdue(10), tracker.overdue(math.inf)]  # the broker was short of memory until then, and still is
    tracker.confirmed(1, multiple=False, ack=True)
    seen.append(tracker.overdue(0))
    assert seen == [False, False, True, False, False, False]
