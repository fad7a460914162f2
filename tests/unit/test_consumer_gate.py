"""Which deliveries the workers get, in which company."""

from __future__ import annotations

from datetime import UTC, datetime

from passrelay_consumer.gate import Gate
from passrelay_consumer.outcome import Delivery
from passrelay_consumer.pool import Job
from passrelay_schemas.message import Counters


class Bench:
    """Stands where the pool stands; jobs begin when the test says so."""

    def __init__(self) -> None:
        self.submitted: list[Job] = []
        self.begun: list[Job] = []

    def submit(self, job: Job) -> None:
        self.submitted.append(job)

    def recall(self) -> list[Job]:
        jobs, self.submitted = [job for job in self.submitted if job not in self.begun], []
        return jobs


def job(tag: int, deliveries: int = 0) -> Job:
    return Job(tag, Delivery(b"", Counters(deliveries=deliveries), datetime.now(UTC)))


def finish(gate: Gate, done: Job) -> None:
    gate.answered(done)
    gate.settled(done)
    gate.feed()


def test_ordinary_jobs_go_straight_through() -> None:
    bench = Bench()
    gate = Gate(bench)
    jobs = [job(tag) for tag in range(5)]
    for one in jobs:
        gate.arrived(one)
    assert bench.submitted == jobs


def test_a_suspect_waits_for_what_is_in_work_and_everything_else_waits_for_it() -> None:
    bench = Bench()
    gate = Gate(bench)
    before, suspect, after = job(1), job(2, deliveries=6), job(3)
    for one in (before, suspect, after):
        gate.arrived(one)
    assert bench.submitted == [before]
    gate.answered(before)
    gate.feed()
    assert bench.submitted == [before], "answered, but its record is not confirmed yet"
    gate.settled(before)
    gate.feed()
    assert bench.submitted == [before, suspect]
    finish(gate, suspect)
    assert bench.submitted == [before, suspect, after]


def test_suspects_go_one_by_one_and_not_always_in_the_same_order() -> None:
    orders = set()
    for _ in range(40):
        bench = Bench()
        gate = Gate(bench)
        for tag in range(4):
            gate.arrived(job(tag, deliveries=6))
        for number in range(4):
            assert len(bench.submitted) == number + 1
            finish(gate, bench.submitted[-1])
        orders.add(tuple(one.tag for one in bench.submitted))
    assert len(orders) > 1


def test_a_suspect_of_a_lost_channel_stays_alone_until_its_worker_is_done() -> None:
    bench = Bench()
    gate = Gate(bench)
    old, new = job(1, deliveries=6), job(1)
    gate.arrived(old)
    old.lost = True
    gate.lost()
    gate.arrived(new)
    assert bench.submitted == [old]
    gate.answered(old)
    gate.feed()
    assert bench.submitted == [old, new]


def test_what_waited_for_a_confirm_on_a_lost_channel_is_out_of_work() -> None:
    bench = Bench()
    gate = Gate(bench)
    old, suspect = job(1), job(1, deliveries=6)
    gate.arrived(old)
    gate.answered(old)
    old.lost = True
    gate.lost()
    gate.arrived(suspect)
    assert bench.submitted == [old, suspect]


def test_withdrawing_returns_what_has_not_begun_and_forgets_lost_ones() -> None:
    bench = Bench()
    gate = Gate(bench)
    begun, queued, lost, suspect, waiting = job(1), job(2), job(3), job(4, deliveries=6), job(5)
    for one in (begun, queued, lost, suspect, waiting):
        gate.arrived(one)
    bench.begun.append(begun)
    lost.lost = True
    assert gate.withdraw() == [queued, waiting, suspect]
    finish(gate, begun)
    again = job(6, deliveries=6)
    gate.arrived(again)
    assert bench.submitted[-1] is again, "nothing is left in work"
