"""What other threads hand to the session's thread: the first after a pause at once, what follows it together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from passrelay_schemas.fault import Faults

GATHER_SECONDS = 0.4
"""What workers finish in this time is recorded and acked together: what it costs the broker, and us, is by the batch.
Nobody waits for it: the password is written already. Where much is finished in it, half of what is held ends it."""

Item = TypeVar("Item")


class RunsCalls(Protocol):
    """A thread with a loop: the broker session."""

    def call(self, function: Callable[[], None]) -> None:
        """Run it soon; dropped when there is no connection."""

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run it after a while, on the thread that calls this."""


class Inbox(Generic[Item]):
    """Nothing is forgotten: whatever is put in without a wake-up is taken at the end of the time that gathers it."""

    def __init__(
        self, session: RunsCalls, taken: Callable[[Sequence[Item]], None], *, most: Callable[[], int], faults: Faults
    ) -> None:
        """`taken` gets the items on the session's thread; more than `most()`, asked on any thread, do not wait."""
        self._session = session
        self._taken = taken
        self._most = most
        self._items: deque[Item] = deque()
        self._awake = False
        self._gathering: object | None = None
        """The timer that ends it: one of a connection before, or of before `open`, ends nothing."""
        self._guard = faults.guard
        self._take: Callable[[], None] = faults.guard(self._take_now)

    def put(self, item: Item) -> None:
        """From any thread. One wake-up serves many."""
        self._items.append(item)
        if not self._awake or len(self._items) > self._most():
            self._awake = True
            self._session.call(self._take)

    def open(self) -> None:
        """On the session's thread: take what came while nobody could be woken."""
        self._gathering = None
        self._take_now()

    def _take_now(self) -> None:
        if self._items and self._gathering is None:
            timer = self._gathering = object()
            self._session.call_later(GATHER_SECONDS, self._guard(lambda: self._end(timer)))
        # Before the first look, so that nothing put in from now on goes unnoticed.
        self._awake = self._gathering is not None
        items: list[Item] = []
        while self._items:
            items.append(self._items.popleft())
        self._taken(items)

    def _end(self, timer: object) -> None:
        if timer is self._gathering:
            self._gathering = None
            self._take_now()
