"""Two replicating IdM servers and two consumers under load, cut apart as scheduled: what is left when all is healed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from passrelay_consumer.settle import REASON
from passrelay_schemas import topology
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import FINAL, Verdict
from tests.faults.late_load import LateLoad
from tests.faults.schedule import Schedule, Step
from tests.faults.stale import stale
from tests.lab.enrolment import Sender
from tests.lab.process import wait_for
from tests.lab.relay import Relay
from tests.lab.replication import Suppliers

PER_SECOND = 20
"""Deliveries."""
_CONSUMERS, _WORKERS = 2, 4
_STREAMS = {topology.DEAD, topology.JOURNAL, topology.NEWS}


@dataclass(frozen=True)
class Result:
    """What a campaign found: what is stale at each server, and how often settling had to write again."""

    users: int
    events: int
    deliveries: int
    written_again: int
    dead: int
    stale: dict[str, list[str]]


class Campaign:
    """One deployment of two consumers on one broker and two suppliers; every cut, then what is left."""

    def __init__(self, relay: Relay, suppliers: Suppliers, sender: Sender, *, settle: bool) -> None:
        self._relay = relay
        self._suppliers = suppliers
        self._sender = sender
        self._settle = settle

    def run(self, plan: Schedule, dice: random.Random) -> Result:
        """Deliver 20 changes a second while cutting; when all is healed and quiet, look at both servers."""
        a, b = self._suppliers.a, self._suppliers.b
        load = LateLoad(a, dice, plan.deliveries)
        self._suppliers.wait_in_sync()
        idm = {"servers": [self._suppliers.urls[a], self._suppliers.urls[b]], "probe_seconds": 1}
        consumers = [
            self._relay.consumer(f"consumer{number}", workers=_WORKERS, idm={**idm, "settle": self._settle})
            for number in range(_CONSUMERS)
        ]
        for consumer in consumers:
            consumer.start()
        self._relay.publish(self._paced(load, plan.steps))
        events = len({id(event) for event in load.deliveries})
        wait_until_quiet(self._relay, events, settle=self._settle)
        for consumer in consumers:
            consumer.stop()
        self._suppliers.wait_in_sync()
        records = self._relay.records()
        return Result(
            users=len(load.newest),
            events=events,
            deliveries=len(load.deliveries),
            written_again=sum(found.reason == REASON and found.verdict is Verdict.APPLIED for found in records),
            dead=sum(found.verdict is Verdict.DEAD for found in records),
            stale={"a": stale(a, load.newest), "b": stale(b, load.newest)},
        )

    def _paced(self, load: LateLoad, steps: dict[int, Step]) -> Iterator[bytes]:
        envelopes: dict[int, bytes] = {}
        began = time.monotonic()
        for number, event in enumerate(load.deliveries):
            time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            if number in steps:
                self._take(steps[number])
            if id(event) not in envelopes:
                envelopes[id(event)] = self._sender.envelope(event)
            yield envelopes[id(event)]

    def _take(self, step: Step) -> None:
        a = self._suppliers.a
        match step:
            case Step.CUT:
                self._suppliers.cut()
            case Step.HEAL:
                self._suppliers.heal()
            case Step.HIDE:
                self._suppliers.hide(a)
            case Step.SHOW:
                self._suppliers.show(a)
            case Step.CRASH:
                self._suppliers.crash(a)
            case Step.REVIVE:
                self._suppliers.revive(a)


def wait_until_quiet(relay: Relay, events: int, *, settle: bool, timeout_seconds: float = 180) -> None:
    """Return when no queue or tier holds anything, every event has its outcome, and every write is settled."""

    def quiet() -> bool:
        depths = relay.broker.queue_depths()
        if any(depth for name, depth in depths.items() if name not in _STREAMS):
            return False
        records = relay.records()
        finished = {found.event_id for found in records if found.verdict in FINAL}
        return len(finished) >= events and not (settle and unsettled(records))

    wait_for(quiet, what=f"{events} events settled", timeout_seconds=timeout_seconds, interval_seconds=0.5)


def unsettled(records: Iterable[Record]) -> set[str]:
    """Ids of events that were written and whose settle copy has not said yet that it has done its work."""
    last: dict[str, Record] = {}
    for found in records:
        if found.reason == REASON or found.verdict is Verdict.APPLIED:
            last[str(found.event_id)] = found
    return {event_id for event_id, found in last.items() if found.verdict is Verdict.APPLIED}
