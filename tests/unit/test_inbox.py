"""The inbox of the session's thread: one wake-up for many, and nothing is forgotten."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import pytest

from passrelay_consumer.inbox import GATHER_SECONDS, Inbox
from passrelay_schemas.fault import Faults
from passrelay_schemas.logs import Log


class Session:
    """A loop that the test turns."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], None]] = deque()
        self.timers: deque[Callable[[], None]] = deque()

    def call(self, function: Callable[[], None]) -> None:
        self.calls.append(function)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        assert seconds == GATHER_SECONDS
        self.timers.append(function)

    def turn(self) -> None:
        for _ in range(len(self.calls)):
            self.calls.popleft()()

    def time_passes(self) -> None:
        for _ in range(len(self.timers)):
            self.timers.popleft()()


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def taken() -> list[list[int]]:
    return []


@pytest.fixture
def inbox(session: Session, taken: list[list[int]]) -> Inbox[int]:
    def take(items: Sequence[int]) -> None:
        if items:
            taken.append(list(items))

    return Inbox(session, take, most=lambda: 4, faults=Faults(Log("test"), lambda: None))


def test_the_first_is_taken_at_once_and_what_follows_together(
    session: Session, taken: list[list[int]], inbox: Inbox[int]
) -> None:
    inbox.put(1)
    session.turn()
    assert taken == [[1]]
    for number in (2, 3, 4):
        inbox.put(number)
    assert not session.calls
    session.time_passes()
    assert taken == [[1], [2, 3, 4]]
    session.time_passes()
    assert not session.timers, "an idle inbox has nothing that runs"
    inbox.put(5)
    session.turn()
    assert taken[2:] == [[5]]


def test_many_do_not_wait_and_do_not_multiply_the_timers(
    session: Session, taken: list[list[int]], inbox: Inbox[int]
) -> None:
    for number in range(30):
        inbox.put(number)
        session.turn()
    assert len(session.timers) == 1
    assert [number for items in taken for number in items] == list(range(25 + 1))
    session.time_passes()
    assert [number for items in taken for number in items] == list(range(30))


def test_what_came_without_a_connection_is_taken_when_there_is_one(
    session: Session, taken: list[list[int]], inbox: Inbox[int]
) -> None:
    inbox.put(1)
    session.calls.clear()  # dropped: no connection
    inbox.put(2)
    inbox.open()
    assert taken == [[1, 2]]
    inbox.put(3)
    session.timers.clear()  # the connection ended, and its timers with it
    inbox.open()
    assert taken == [[1, 2], [3]]


def test_nothing_is_forgotten_between_threads(session: Session) -> None:
    """The loop turns as fast as it can while others put in: at the end all was taken."""
    seen: list[int] = []
    inbox: Inbox[int] = Inbox(session, seen.extend, most=lambda: 1000, faults=Faults(Log("test"), lambda: None))

    def put(start: int) -> None:
        for number in range(start, start + 2000):
            inbox.put(number)

    threads = [threading.Thread(target=put, args=(start,)) for start in (0, 2000, 4000)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        session.turn()
        session.time_passes()
    for _ in range(3):
        session.turn()
        session.time_passes()
    assert sorted(seen) == list(range(6000))


def test_what_is_put_in_between_the_last_look_and_the_next_wakes_again(session: Session) -> None:
    seen: list[int] = []
    inbox: Inbox[int] = Inbox(session, seen.extend, most=lambda: 1000, faults=Faults(Log("test"), lambda: None))

    class Late(deque[int]):
        """Another thread puts something in right after the loop has found it empty for the last time."""

        looks = 0

        def __bool__(self) -> bool:
            if len(self) or not seen:
                return bool(len(self))
            self.looks += 1
            if self.looks == 2:  # the first is for the timer
                inbox.put(2)
            return False

    inbox._items = Late()
    inbox.put(1)
    session.turn()
    session.time_passes()
    for _ in range(3):
        session.turn()
        session.time_passes()
    assert seen == [1, 2]


def test_a_timer_of_before_ends_nothing(session: Session, taken: list[list[int]], inbox: Inbox[int]) -> None:
    inbox.put(1)
    session.turn()
    inbox.put(2)
    inbox.open()  # with the first timer still running
    assert len(session.timers) == 2
    inbox.put(3)
    session.timers.popleft()()
    assert taken == [[1], [2]]
    session.time_passes()
    assert taken == [[1], [2], [3]]
    session.time_passes()
    assert not session.timers
