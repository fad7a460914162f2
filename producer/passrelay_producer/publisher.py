"""The publisher: spooled events, signed now, to the events exchange; nothing else here touches their channel.

An event leaves the queue of the spool only when the broker has confirmed it. A returned or refused event, and
everything that was open on a closed channel, is still there and is tried again. Turns of events are read and signed on
another thread (`turns`), one turn at a time. News go over a channel of their own (`news_channel`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import pika
from pika.channel import Channel
from tenacity import RetryCallState, Retrying, wait_random_exponential

from passrelay_producer.identity import Identity
from passrelay_producer.metrics import ProducerMetrics
from passrelay_producer.news_channel import NewsChannel
from passrelay_producer.queued_event import Place
from passrelay_producer.spool import Spool
from passrelay_producer.turns import SignedEvent, Turn, TurnMaker
from passrelay_schemas import topology
from passrelay_schemas.broker import BrokerSession
from passrelay_schemas.broker_settings import BrokerSettings
from passrelay_schemas.confirms import LONGEST_UNCONFIRMED_SECONDS, ConfirmTracker
from passrelay_schemas.errors import KeyFileError, UnavailableError
from passrelay_schemas.fault import Faults
from passrelay_schemas.health import Pulse
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.message import event_properties

WINDOW = 512
"""Published and not yet confirmed, at most."""
_TURN_EVENTS = 256
"""Read and signed together, on a thread of their own, while those before are published."""
_MARK_ROWS = 512
"""Confirmed events are marked in the spool together, at most this many: each mark is a disk flush."""
_TICK_SECONDS = 1.0
"""How soon events of another process (`producer republish`, `producer capture`) are seen."""
_TURN_SECONDS = 120
"""A tick takes a disk flush and reads of the spool; a lock of another process on it may take 30 s."""
_DRAINED_SECONDS = 60.0
"""An emptied queue is news, but no more often than this."""
_MARK = "mark"
_WAIT = wait_random_exponential(multiplier=0.5, max=60)


def _pause(failures: int) -> float:
    """Seconds to wait after the n-th refusal in a row: tenacity's exponential with full jitter, a minute at most."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = failures
    return _WAIT(state)


class Publisher:
    """Publishes what the spool has queued, on the thread that calls `run`, until `stop`."""

    def __init__(
        self,
        settings: BrokerSettings,
        spool: Spool,
        identity: Identity,
        *,
        metrics: ProducerMetrics,
        faults: Faults,
        log: Log,
        ask_for_news: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._identity = identity
        self._metrics = metrics
        self._log = log
        # pika turns an exception of a callback into a closed connection, and the session would come back for ever.
        self._guard = faults.guard
        self._session = BrokerSession(
            settings,
            name=f"passrelay producer {identity.producer}",
            on_open=faults.guard(self._opened),
            on_close=faults.guard(self._closed),
            log=log,
        )
        self._channel: Channel | None = None
        self._news = NewsChannel(identity.producer, faults=faults, log=log)
        self._ask_for_news = ask_for_news  # of another thread: to put them together takes a look at the whole spool
        self._drained_at = -_DRAINED_SECONDS
        self._tracker: ConfirmTracker[Place] = ConfirmTracker()
        self._turns = TurnMaker(spool, identity)
        self._desk: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()  # turns to make; None: the end
        self._asked = 0  # how many turns
        self._making: int | None = None  # the number of the one that is not made yet
        self._look = False  # there may be events that were not read
        self._aside = False  # some were set aside, and the end was not seen since
        self._ready: deque[SignedEvent] = deque()  # signed, not published
        self._safe: list[Place] = []  # confirmed, not marked
        self._held: set[int] = set()  # all of the above and what is in flight: not to be read again
        self._after = 0
        self._rewinds = 0
        self._failures = 0
        self._pausing = False
        self._troubles: set[str] = set()  # what does not work now, by step (signing: by producer name)
        self._woken = threading.Event()
        self._pulse = Pulse("broker session", most_seconds=_TURN_SECONDS)
        spool.watch(self._wake)

    def run(self) -> None:
        """Serve until `stop`."""
        # A daemon: the interpreter waits for an executor's threads at its end, however long a disk takes to answer one.
        desk = threading.Thread(target=self._sign, name="sign", daemon=True)
        desk.start()
        try:
            self._session.run()
        finally:
            self._desk.put(None)
            desk.join(_TURN_SECONDS)

    def _sign(self) -> None:
        while (make := self._desk.get()) is not None:
            make()

    def stop(self) -> None:
        """From any thread. What is in flight stays queued and is published again at the next start."""
        self._session.stop()

    @property
    def connected(self) -> bool:
        """From any thread: the broker's channel is open."""
        channel = self._channel
        return channel is not None and bool(channel.is_open)

    def troubles(self) -> list[str]:
        """From any thread: that an open channel's thread does not turn."""
        return self._pulse.troubles() if self.connected else []

    def tell(self, news: bytes) -> None:
        """From any thread: publish the news once. Dropped when there is no connection, for the next ones say it all."""

        def send() -> None:
            if self._channel is not None:
                self._news.send(self._channel.connection, news)

        self._session.call(self._guard(send))

    def _wake(self) -> None:
        # One callback at a time is enough, however many events arrive meanwhile.
        if not self._woken.is_set():
            self._woken.set()
            self._session.call(self._guard(self._woke))

    # -- the session's callbacks, all on its thread -----------------------------------------------------------------

    def _opened(self, channel: Channel) -> None:
        self._pulse.beat()
        self._woken.clear()  # a call that was made while there was no connection has been dropped
        settling = [pika.spec.Basic.Ack, pika.spec.Basic.Nack]
        channel.add_callback(self._guard(self._confirmed), settling, one_shot=False)
        channel.add_on_return_callback(self._guard(self._returned))
        self._channel = channel
        self._pausing = False
        self._rewind()
        self._tick()
        self._ask_for_news()

    def _closed(self) -> None:
        self._mark()
        self._channel = None
        self._tracker = ConfirmTracker()
        self._making = None
        self._ready.clear()
        self._held = {place.seq for place in self._safe}

    def _returned(self, channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        self._tracker.returned(properties.message_id or "")
        self._metrics.published("returned", 1)
        self._refused(
            Action.PUBLISH_RETURNED,
            why=f"exchange {topology.EVENTS} has no queue",
            repair="run `passrelay topology apply`; events wait in the spool",
        )

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        ack = isinstance(method, pika.spec.Basic.Ack)
        settled = self._tracker.confirmed(method.delivery_tag, multiple=method.multiple, ack=ack)
        if not ack:
            self._metrics.published("refused", len(settled.failed))
            self._refused(
                Action.PUBLISH_REFUSED,
                why=f"the broker refused an event for {topology.EVENTS}: its queue is full or has no majority",
                repair="start consumers or the broker's other nodes; events wait in the spool",
            )
        self._held.difference_update(place.seq for place in settled.failed)
        if settled.safe:
            self._safe.extend(settled.safe)
            self._metrics.published("published", len(settled.safe))
            if self._failures and not self._pausing:
                self._failures = 0
                self._log.info(Action.RESUMED, exchange=topology.EVENTS)
        if (len(self._safe) >= _MARK_ROWS or not len(self._tracker)) and _MARK not in self._troubles:
            self._mark()
        self._work()
        if not len(self._tracker) and time.monotonic() - self._drained_at >= _DRAINED_SECONDS:
            self._drained_at = time.monotonic()
            self._session.call_later(_TICK_SECONDS, self._guard(self._ask_for_news))

    def _tick(self) -> None:
        if self._making is None:  # otherwise it beats when the turn has been made
            self._pulse.beat()
        if self._channel is not None and self._channel.is_open:
            if self._tracker.overdue(self._session.takes_since):
                why = f"the broker has not confirmed an event after {LONGEST_UNCONFIRMED_SECONDS} s"
                self._log.error(Action.BROKER_LOST, why=why, repair="look at the broker's queues and disk")
                self._session.leave()
                return
            self._session.call_later(_TICK_SECONDS, self._guard(self._tick))
            self._mark()
            self._let_go()
            if not self._aside:  # or what lies behind many that have no key would never be reached
                self._rewind()
            self._work()

    # -- the work ---------------------------------------------------------------------------------------------------

    def _woke(self) -> None:
        self._woken.clear()
        self._look = True
        self._work()

    def _work(self) -> None:
        """Publish as much as the window takes, and have the next turn made meanwhile."""
        channel = self._channel
        if channel is None or not channel.is_open or self._pausing:
            return
        # After a refusal one event at a time tries whether the way is free again.
        window = 1 if self._failures else WINDOW
        while self._ready and len(self._tracker) < window and len(self._safe) < 2 * _MARK_ROWS:
            self._publish(channel, self._ready.popleft())
        if self._look and self._making is None and len(self._ready) < window:
            self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        self._look = False
        self._asked += 1
        self._making = self._asked
        make = self._guard(self._make_turn)
        self._desk.put(partial(make, self._asked, self._rewinds, self._after, frozenset(self._held)))

    def _make_turn(self, number: int, rewinds: int, after: int, held: Collection[int]) -> None:
        """On the desk's thread."""
        turn = self._turns.make(after, held, _TURN_EVENTS)
        self._session.call(self._guard(partial(self._made, number, rewinds, turn)))

    def _made(self, number: int, rewinds: int, turn: Turn) -> None:
        if number != self._making:
            return  # asked for by a connection before
        self._pulse.beat()
        self._making = None
        for step, error in turn.steps.items():
            self._tried(step, error)
        if self._pausing:
            return  # all of it is read again then
        if rewinds == self._rewinds:
            self._after = turn.after
        # Also after a turn that is read again: where each takes longer than a tick, every one would be.
        self._aside = turn.more and (self._aside or any(turn.steps.values()))
        self._look = self._look or turn.more
        self._ready.extend(turn.events)
        self._held.update(signed.place.seq for signed in turn.events)
        self._work()

    def _publish(self, channel: Channel, signed: SignedEvent) -> None:
        properties = event_properties(signed.event_id, signed.producer)
        channel.basic_publish(topology.EVENTS, "", signed.body, properties, mandatory=True)
        self._tracker.published(signed.event_id, signed.place)

    def _rewind(self) -> None:
        """Look at the whole queue again: events that failed, were set aside or queued again have low numbers."""
        self._after = 0
        self._rewinds += 1
        self._aside = False
        self._look = True

    def _let_go(self) -> None:
        """What was signed a while ago and could not be published is read again and signed anew, in its order."""
        if self._ready and time.monotonic() - self._ready[0].signed_at > _TICK_SECONDS:
            self._held.difference_update(signed.place.seq for signed in self._ready)
            self._ready.clear()
            self._making = None  # the turn that is being made comes after these
            self._rewind()

    def _mark(self) -> None:
        if not self._safe:
            return
        try:
            self._spool.mark_published(self._safe)
        except UnavailableError as error:
            # They stay in `_safe`, and the next tick tries again: they are on the broker, not to be repeated.
            self._tried(_MARK, error)
        else:
            self._tried(_MARK, None)
            self._held.difference_update(place.seq for place in self._safe)
            self._safe = []

    def _tried(self, step: str, error: KeyFileError | UnavailableError | None) -> None:
        """A key or spool that cannot be used now is reported once per episode; the next tick tries again."""
        if error is None:
            self._troubles.discard(step)
        elif step not in self._troubles:
            action = Action.KEYRING_FAULT if isinstance(error, KeyFileError) else Action.SPOOL_FULL
            self._log.error(action, why=str(error), repair="events wait in the spool until that is repaired")
            self._troubles.add(step)

    def _refused(self, action: Action, *, why: str, repair: str) -> None:
        """Pause after a return or nack, once for all that are in flight; logged once per episode."""
        if not self._failures:
            self._log.error(action, why=why, repair=repair)
        if not self._pausing:
            self._failures += 1
            self._pausing = True
            self._session.call_later(_pause(self._failures), self._guard(self._resume))

    def _resume(self) -> None:
        self._pausing = False
        self._rewind()
        self._work()
