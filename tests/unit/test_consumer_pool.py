"""What workers do with the jobs that wait: opened together, delivered one by one, each handed back once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from passrelay_consumer import pool as pool_module
from passrelay_consumer.disposition import POISON_AFTER
from passrelay_consumer.journal import Journal
from passrelay_consumer.opening import Opened, Trusted
from passrelay_consumer.outcome import Delivery, Hold, Outcome
from passrelay_consumer.pool import Job, Pool
from passrelay_consumer.progress import Progress
from passrelay_schemas.fault import Faults
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Log
from passrelay_schemas.message import Counters
from passrelay_schemas.verdict import Reason, Verdict
from tests.lab.process import wait_for

PATIENCE_SECONDS = 20


def job(number: int, deliveries: int = 0) -> Job:
    return Job(number, Delivery(b"%d" % number, Counters(deliveries=deliveries), datetime.now(UTC)))


@dataclass(frozen=True)
class Body(Trusted):
    """What the handler below finds in a delivery: its bytes."""

    raw: bytes


@dataclass
class Rig:
    """A pool whose handler remembers, and waits, where a test says so, before each opening."""

    folder: Path
    broken: frozenset[bytes] = frozenset()
    """Bodies that a bug fails for."""
    refused: frozenset[bytes] = frozenset()
    together: list[list[bytes]] = field(default_factory=list)
    delivered: list[bytes] = field(default_factory=list)
    closed: int = 0
    may_open: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1000))
    opens: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    may_deliver: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1000))
    delivers: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    back: queue.SimpleQueue[Job] = field(default_factory=queue.SimpleQueue)

    def open(self, deliveries: Sequence[Delivery]) -> list[Opened]:
        self.opens.put(len(deliveries))
        assert self.may_open.acquire(timeout=PATIENCE_SECONDS)
        bodies = [delivery.body for delivery in deliveries]
        self.together.append(bodies)
        if not self.broken.isdisjoint(bodies):
            raise RuntimeError("a bug")
        return [self._opened(body) for body in bodies]

    def _opened(self, body: bytes) -> Opened:
        if body in self.refused:
            return Progress().outcome(Verdict.DEAD, Reason.MALFORMED)
        return Body(cast("Any", None), cast("Any", None), Progress(), body)

    def deliver(self, opened: Opened) -> Outcome | Hold:
        if isinstance(opened, Outcome):
            return opened
        self.delivers.put(1)
        assert self.may_deliver.acquire(timeout=PATIENCE_SECONDS)
        self.delivered.append(cast("Body", opened).raw)
        return opened.progress.outcome(Verdict.APPLIED)

    def handle(self, delivery: Delivery) -> Outcome | Hold:
        (opened,) = self.open([delivery])
        return self.deliver(opened)

    def close(self) -> None:
        self.closed += 1

    def pool(self, workers: int) -> Pool:
        log = Log("test")
        pool = Pool(
            lambda: self,
            workers,
            journal=Journal(Keyring(self.folder), log),
            horizon=timedelta(hours=1),
            settles=False,
            log=log,
        )
        pool.start(self.back.put, Faults(log, lambda: None))
        return pool

    def returned(self, count: int) -> list[Job]:
        return [self.back.get(timeout=PATIENCE_SECONDS) for _ in range(count)]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


Start = Callable[[int], Pool]


@pytest.fixture
def start(rig: Rig) -> Iterator[Start]:
    pools: list[Pool] = []

    def start(workers: int) -> Pool:
        pools.append(rig.pool(workers))
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


def hold_back(rig: Rig, start: Start, workers: int, jobs: Sequence[Job]) -> Pool:
    """The first job is being opened, and the others wait behind it."""
    rig.may_open = threading.Semaphore(0)
    pool = start(workers)
    pool.submit(jobs[0])
    assert rig.opens.get(timeout=PATIENCE_SECONDS) == 1
    for one in jobs[1:]:
        pool.submit(one)
    return pool


def test_what_waits_is_opened_together_and_each_comes_back_once(rig: Rig, start: Start) -> None:
    jobs = [job(number) for number in range(6)]
    hold_back(rig, start, 3, jobs)
    rig.may_open.release(100)
    back = rig.returned(6)
    assert sorted(one.tag for one in back) == list(range(6))
    assert rig.together == [[b"0"], [b"1", b"2", b"3", b"4", b"5"]]
    assert sorted(rig.delivered) == [one.delivery.body for one in jobs]
    assert all(one.disposition and one.messages and one.opened is None and one.seconds > 0 for one in back)
    assert rig.back.empty()


def test_never_more_than_sixteen_at_once(rig: Rig, start: Start) -> None:
    hold_back(rig, start, 2, [job(number) for number in range(40)])
    rig.may_open.release(100)
    rig.returned(40)
    assert [len(bodies) for bodies in rig.together] == [1, 16, 16, 7]


def test_while_one_is_delivered_another_worker_opens_the_next(rig: Rig, start: Start) -> None:
    rig.may_deliver = threading.Semaphore(0)
    pool = start(2)
    for number in range(2):
        pool.submit(job(number))
        rig.delivers.get(timeout=PATIENCE_SECONDS)
    rig.may_deliver.release(2)
    rig.returned(2)


def test_a_bug_costs_only_the_event_that_it_is_met_with(rig: Rig, start: Start) -> None:
    rig.broken = frozenset({b"2"})
    hold_back(rig, start, 2, [job(number) for number in range(5)])
    with capture_logs() as logs:
        rig.may_open.release(100)
        back = {one.tag: one for one in rig.returned(5)}
    assert sorted(rig.delivered) == [b"0", b"1", b"3", b"4"]
    verdicts = {tag: one.disposition.outcome.verdict for tag, one in back.items() if one.disposition}
    assert verdicts == {
        0: Verdict.APPLIED,
        1: Verdict.APPLIED,
        2: Verdict.RETRY,
        3: Verdict.APPLIED,
        4: Verdict.APPLIED,
    }
    assert [line["error"] for line in logs if line["action"] == "internal_error"] == ["RuntimeError"]
    assert rig.closed == 1, "the handler that failed in an unknown way"


def test_poison_is_not_opened_and_what_is_refused_is_not_delivered(rig: Rig, start: Start) -> None:
    rig.refused = frozenset({b"2"})
    hold_back(rig, start, 1, [job(0), job(1, deliveries=POISON_AFTER + 1), job(2), job(3)])
    rig.may_open.release(100)
    back = {one.tag: one.disposition.outcome for one in rig.returned(4) if one.disposition}
    assert rig.together == [[b"0"], [b"2", b"3"]]
    assert rig.delivered == [b"0", b"3"]
    assert (back[1].verdict, back[1].reason) == (Verdict.DEAD, Reason.POISON)
    assert (back[2].verdict, back[2].reason) == (Verdict.DEAD, Reason.MALFORMED)


def test_what_is_opened_and_not_begun_is_taken_back_without_its_clear_text(rig: Rig, start: Start) -> None:
    rig.may_deliver = threading.Semaphore(0)
    jobs = [job(number) for number in range(5)]
    pool = hold_back(rig, start, 1, jobs)
    rig.may_open.release(100)
    rig.may_deliver.release(1)
    assert rig.returned(1) == [jobs[0]]
    for _ in range(2):  # the second one is being delivered now, so all others are opened
        rig.delivers.get(timeout=PATIENCE_SECONDS)
    recalled = pool.recall()
    assert recalled == jobs[2:]
    assert all(one.opened is None for one in recalled)
    rig.may_deliver.release(100)
    assert rig.returned(1) == [jobs[1]]
    assert rig.back.empty()


def test_what_was_lost_is_not_delivered_and_leaves_no_clear_text(rig: Rig, start: Start) -> None:
    rig.may_deliver = threading.Semaphore(0)
    jobs = [job(number) for number in range(3)]
    hold_back(rig, start, 1, jobs)
    rig.may_open.release(100)
    rig.may_deliver.release(1)
    rig.returned(1)
    for _ in range(2):
        rig.delivers.get(timeout=PATIENCE_SECONDS)
    jobs[2].lost = True
    rig.may_deliver.release(100)
    assert rig.returned(2) == jobs[1:]
    assert rig.delivered == [b"0", b"1"]
    assert all(one.opened is None for one in jobs)


def test_an_opening_that_hangs_is_told(rig: Rig, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = hold_back(rig, start, 3, [job(0)])
    assert pool.troubles() == []
    monkeypatch.setattr(pool_module, "_STUCK_SECONDS", -1)
    (trouble,) = pool.troubles()
    assert "on one event for more than" in trouble
    rig.may_open.release(1)
    rig.returned(1)
    wait_for(lambda: not pool.troubles(), what="nobody is busy", timeout_seconds=PATIENCE_SECONDS)


def test_an_end_in_the_midst_of_an_opening_ends_every_worker(rig: Rig, start: Start) -> None:
    pool = hold_back(rig, start, 4, [job(number) for number in range(3)])
    closing = threading.Thread(target=pool.close)
    closing.start()
    rig.may_open.release(100)
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive()
    assert rig.closed == 4
    assert len(pool.troubles()) == 4
