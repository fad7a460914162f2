"""The one module that acks: takes deliveries from the work queue and settles them once everything is confirmed.

All of it runs on the broker session's thread, except `stop`, `abandon` and what is handed over through the inbox.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import pika
from pika.channel import Channel

from passrelay_consumer.disposition import waits_in_tier
from passrelay_consumer.gate import Gate
from passrelay_consumer.inbox import Inbox
from passrelay_consumer.journal import wait_message
from passrelay_consumer.ledger import Ledger
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_consumer.outcome import Delivery
from passrelay_consumer.outlet import Outlet
from passrelay_consumer.pauses import BRAKE, BROKER, DIRECTORY, Pauses
from passrelay_consumer.pool import Job, Pool
from passrelay_schemas import topology
from passrelay_schemas.broker import BrokerSession
from passrelay_schemas.confirms import LONGEST_UNCONFIRMED_SECONDS, Settled
from passrelay_schemas.fault import Faults
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.health import Pulse
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.message import Counters
from passrelay_schemas.settings import ConsumerSettings

_SHORTEST_PAUSE_SECONDS = 1
"""Giving back and taking again counts as a delivery: servers whose probe lies must not use up an event's count."""
_BACKOFF_SECONDS = 5
_LONGEST_HELD_SECONDS = 600
"""The broker closes a channel after 30 minutes without an ack; long before, one whose worker is stuck is left."""
_LONGEST_REFUSED_SECONDS = 1500
"""A delivery whose publish is refused again and again is held nearly as long as the broker allows."""
_SURVIVED_EVENTS = 10_000
"""Of so many events it is remembered how often this process gave them back or lost them with a channel."""
_LOOK_SECONDS = 10


class WaitsForServers(Protocol):
    """What knows when IdM takes writes again."""

    def wait_until_up(self, stop: threading.Event) -> None:
        """Return when a server passes its probe, or at `stop`."""


class EventChannel:
    """Consumes until `stop`. A delivery is held from its arrival until it is acked, given back or lost."""

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        name: str,
        pool: Pool,
        servers: WaitsForServers,
        ledger: Ledger,
        metrics: ConsumerMetrics,
        faults: Faults,
        log: Log,
    ) -> None:
        self._prefetch = settings.consumer.held
        self._pool = pool
        self._gate = Gate(pool)
        self._servers = servers
        self._ledger = ledger
        self._metrics = metrics
        self._faults = faults
        self._log = log
        self._session = BrokerSession(
            settings.broker, name=name, on_open=faults.guard(self._opened), on_close=faults.guard(self._closed), log=log
        )
        self._stopping = threading.Event()
        self._pauses = Pauses(metrics, log)
        self._channel: Any = None
        self._consumer_tag: str | None = None
        self._outlets = {
            exchange: Outlet(
                self._session,
                stream=exchange != topology.RETRY,
                opened=self._consume,
                settled=self._published,
                returned=self._returned,
                faults=faults,
            )
            for exchange in (topology.JOURNAL, topology.DEAD, topology.RETRY)
        }
        self._held: dict[int, Job] = {}
        self._inbox: Inbox[Job | str] = Inbox(
            self._session,
            self._taken,
            # Or else workers might run out of deliveries; and while a suspect is alone in work all others wait for it.
            most=lambda: 0 if self._gate.one_alone else self._prefetch // 2,
            faults=faults,
        )
        self._refused: list[Job] = []
        self._survived: OrderedDict[bytes, int] = OrderedDict()
        self._pulse = Pulse("broker session", most_seconds=12 * _LOOK_SECONDS)

    # -- life ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve on this thread until `stop` or `abandon`."""
        self._pool.start(self._inbox.put, self._faults)
        self._session.run()

    def stop(self) -> None:
        """From any thread: take nothing more, settle what workers have begun, give back the rest, then end."""
        self._stopping.set()
        self._session.call(self._faults.guard(self._begin_stop))
        if self._channel is None:
            self._session.stop()

    def abandon(self) -> None:
        """From any thread: end at once; the broker hands out again what is held."""
        self._stopping.set()
        self._session.stop()

    @property
    def connected(self) -> bool:
        """From any thread: the broker's channel is open."""
        return self._usable

    @property
    def paused(self) -> bool:
        """From any thread: nothing is consumed at the moment."""
        return bool(self._pauses)

    def troubles(self) -> list[str]:
        """From any thread: that an open channel's thread does not turn."""
        return self._pulse.troubles() if self._usable else []

    def _begin_stop(self) -> None:
        self._withdraw()
        for job in self._take_refused() if self._usable else ():
            self._requeue(job)
        self._end_if_stopped()

    def _end_if_stopped(self) -> None:
        if self._stopping.is_set() and not self._held:
            self._session.stop()

    def _opened(self, channel: Channel) -> None:
        self._pulse.beat()
        self._channel = channel
        # The broker cancels a consumer whose queue was deleted: begin anew, which reports what is missing.
        channel.add_on_cancel_callback(lambda _: self._session.leave())
        channel.basic_qos(prefetch_count=self._prefetch)
        for outlet in self._outlets.values():
            outlet.open()
        self._resume(BROKER)
        self._inbox.open()
        self._look_at_age(channel)
        self._end_if_stopped()

    def _closed(self) -> None:
        for job in self._held.values():
            job.lost = True
            self._survive(job)
        self._held.clear()
        self._refused.clear()
        self._gate.lost()
        for outlet in self._outlets.values():
            outlet.lost()
        self._channel = self._consumer_tag = None
        self._end_if_stopped()

    @property
    def _usable(self) -> bool:
        return self._channel is not None and bool(self._channel.is_open)

    def _look_at_age(self, channel: Channel) -> None:
        if channel is not self._channel or not self._usable:
            return
        self._pulse.beat()
        self._ledger.forget()
        if any(outlet.overdue for outlet in self._outlets.values()):
            self._leave(f"the broker has not confirmed a publish after {LONGEST_UNCONFIRMED_SECONDS} s or more")
            return
        now, refused = time.monotonic(), set(self._refused)
        for job in self._held.values():
            most = _LONGEST_REFUSED_SECONDS if job in refused else _LONGEST_HELD_SECONDS
            if now - job.since > most:
                self._leave(f"a delivery is not settled after {most} s: a publish is refused or a worker is stuck")
                return
        self._session.call_later(_LOOK_SECONDS, self._faults.guard(lambda: self._look_at_age(channel)))

    def _leave(self, why: str) -> None:
        self._log.error(Action.BROKER_LOST, why=why, repair="look at the broker's queues, streams and disk")
        self._session.leave()

    # -- in -----------------------------------------------------------------------------------------------------

    def _consume(self) -> None:
        ready = self._usable and all(outlet.is_open for outlet in self._outlets.values())
        if ready and self._consumer_tag is None and not self._pauses and not self._stopping.is_set():
            self._consumer_tag = self._channel.basic_consume(topology.EVENTS, self._faults.guard(self._message))

    def _message(self, channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        counters = Counters.of(properties)
        if counters.deliveries:
            counters = replace(counters, survived=self._survived.get(_digest(body), 0))
        job = Job(method.delivery_tag, Delivery(body, counters, utc_now()))
        self._held[job.tag] = job
        self._gate.arrived(job)

    def _taken(self, items: Sequence[Job | str]) -> None:
        """Jobs that workers are done with, and pauses that may end."""
        for item in items:
            if isinstance(item, str):
                self._resume(item)
            else:
                self._answered(item)
        if self._usable:
            self._gate.feed()

    def _answered(self, job: Job) -> None:
        self._gate.answered(job)
        if job.lost or not self._usable:
            return
        self._metrics.handled(job.seconds)
        if job.hold is None:
            self._advance(job)
            return
        begins = self._pause(DIRECTORY, job.hold.why)
        self._give_back(job)  # after the cancel, or it would come straight back
        if begins and not self._stopping.is_set():
            wait = self._faults.guard(self._await_directory)
            threading.Thread(target=wait, name="await-directory", daemon=True).start()

    # -- out ----------------------------------------------------------------------------------------------------

    def _advance(self, job: Job) -> None:
        """Publish the job's next message, or ack it when all are confirmed."""
        if job.messages:
            self._outlets[job.messages[0].exchange].publish(job.messages[0], job)
            return
        self._channel.basic_ack(job.tag)
        if job.disposition is not None and self._ledger.enter(job.disposition, job.delivery.counters):
            self._pause(BRAKE, "too many dead letters of one reason in a row")
        self._forget(job)

    def _published(self, settled: Settled[Job]) -> None:
        if not self._usable:
            return
        for job in settled.safe:
            del job.messages[0]
            self._advance(job)
        for job in settled.failed:
            self._keep_refused(job)
        self._gate.feed()

    def _returned(self, exchange: str, routing_key: str) -> None:
        self._log.error(
            Action.PUBLISH_RETURNED,
            exchange=exchange,
            routing_key=routing_key,
            repair="no queue is bound there: run `passrelay topology apply`",
        )

    def _keep_refused(self, job: Job) -> None:
        """A message of this job is not safe: hold the delivery and publish the message again after a while.

        Giving it back instead would count as a delivery: a full journal must not make an event look like poison.
        """
        if self._stopping.is_set():
            self._requeue(job)
            return
        self._refused.append(job)
        if self._pause(BROKER, "a publish was returned or refused: is a queue or stream missing or full?"):
            self._session.call_later(_BACKOFF_SECONDS, self._faults.guard(self._publish_refused))

    def _publish_refused(self) -> None:
        jobs = self._take_refused()
        self._resume(BROKER)
        if self._usable:
            for job in jobs:
                self._advance(job)

    def _take_refused(self) -> list[Job]:
        jobs, self._refused = self._refused, []
        return jobs

    def _survive(self, job: Job) -> None:
        digest = _digest(job.delivery.body)
        self._survived[digest] = self._survived.pop(digest, 0) + 1
        if len(self._survived) > _SURVIVED_EVENTS:
            self._survived.popitem(last=False)

    def _give_back(self, job: Job) -> None:
        if waits_in_tier(job.delivery.counters):
            job.messages, job.disposition = [wait_message(job.delivery)], None
            self._advance(job)
        else:
            self._requeue(job)

    def _requeue(self, job: Job) -> None:
        self._channel.basic_nack(job.tag, requeue=True)
        self._survive(job)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        del self._held[job.tag]
        self._gate.settled(job)
        self._end_if_stopped()

    # -- pause and resume ---------------------------------------------------------------------------------------

    def _pause(self, reason: str, why: str) -> bool:
        """Stop consuming for a reason; False when it is a reason already."""
        if not self._pauses.begin(reason, why):
            return False
        self._withdraw()
        return True

    def _withdraw(self) -> None:
        """Cancel the consumer and give back what no worker has begun."""
        if not self._usable:
            return
        if self._consumer_tag is not None:
            # Without waiting for the answer: pika itself gives back what still arrives.
            self._channel.basic_cancel(self._consumer_tag)
            self._consumer_tag = None
        for job in self._gate.withdraw():
            self._give_back(job)

    def _resume(self, reason: str) -> None:
        if self._pauses.end(reason):
            self._consume()

    def _await_directory(self) -> None:
        if not self._stopping.wait(_SHORTEST_PAUSE_SECONDS):
            self._servers.wait_until_up(self._stopping)
        if not self._stopping.is_set():
            self._inbox.put(DIRECTORY)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
