"""Scale: long backlogs, many producers, several consumers, a large domain; what each passrelay process holds.

- `scale.backlog.<events>`: a spool filled with so many events by the product's own spool (one sealed body under
  headers of their own, see spooled.py), then a real producer process that publishes them, confirmed, to a real broker,
  and a bare consumer that discards them. `.start`: from the process's start to the first event at the consumer.
  `.steady`: pace of the last fifth by that of the first. `.flat`: peak memory at the end by that after a tenth.
- `scale.end_to_end.<events>`: the same with real consumers and a directory with a cheap scheme, to the journal's
  applied records; every event sealed by itself.
- `scale.consumers.<n>`: end to end, with so many consumer processes of four workers each.
- `scale.producers.<n>`: so many producers with the same number of events in all, captured, sealed, spooled, signed,
  published, confirmed and discarded. At most ten processes play them, each many, with a real service, spool, signing
  key and TLS connection for each: a thousand processes would take some 60 GB. `.connect`: until all are connected.
- `scale.producer.idle_cpu`, `.idle_memory`: one producer with nothing to do and a spool of published events behind it.
- `scale.audit.<users>`: `passrelay audit` over so many users, see audited.py.

The long ones are measured less often: a million events once, a hundred thousand three times at most.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.stream import last_offset, read
from passrelay_schemas import record, topology
from passrelay_schemas.envelope import SealedEvent
from passrelay_schemas.verdict import Verdict
from tests.bench import audited
from tests.bench.crowd import Crowd
from tests.bench.proc import cpu_seconds, peak_bytes, resident_bytes
from tests.bench.run import Run
from tests.bench.spooled import MAX_BYTES, Discard, fill, sealed, spool_bytes, unopened
from tests.bench.spread import pace
from tests.lab.enrolment import Sender
from tests.lab.lab import Lab
from tests.lab.process import LabError, wait_for
from tests.lab.relay import LineProducer, Relay, Service

MOST_BYTES = 150_000_000
_LEAST_STEADY, _MOST_FLAT = 0.9, 1.1
_SPOOLED = "spooled"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    backlogs: dict[int, int]
    """How often at most, by events."""
    end_to_end: int
    consumers: Sequence[int]
    consumed: int
    people: int
    producers: Sequence[int]
    produced: int
    idle_seconds: float
    audited: int


_FULL = Sizes(
    backlogs={10_000: 1000, 100_000: 3, 1_000_000: 1},
    end_to_end=20_000,
    consumers=(1, 2, 4, 8),
    consumed=4_000,
    people=4_000,
    producers=(10, 100, 1_000),
    produced=20_000,
    idle_seconds=60,
    audited=100_000,
)
_QUICK = Sizes(
    backlogs={500: 1},
    end_to_end=40,
    consumers=(2,),
    consumed=20,
    people=20,
    producers=(3,),
    produced=60,
    idle_seconds=1,
    audited=50,
)


def measure(run: Run) -> None:
    """Everything above; ratios for the rate's steadiness and for the memory."""
    sizes = _QUICK if run.quick else _FULL
    _allow_files()
    with Lab(samba=False, storage_scheme="SSHA512") as lab:
        run.servers(lab.versions)
        rig = _Rig(lab, sizes)
        for number in range(run.runs):
            run.progress(f"scale, run {number + 1}/{run.runs}")
            for place, (events, most) in enumerate(sizes.backlogs.items()):
                if number < most:
                    rig.backlog(run, events)
                if place == 0:
                    rig.idle(run, sizes.idle_seconds)
            for count in sizes.producers:
                rig.crowd(run, count, sizes.produced)
            for count in sizes.consumers:
                rig.carry(run, f"scale.consumers.{count}", sizes.consumed, count)
            rig.carry(run, f"scale.end_to_end.{sizes.end_to_end}", sizes.end_to_end, 2)
        audited.measure(run, lab, sizes.audited)
    _judge(run, sizes)


def _judge(run: Run, sizes: Sizes) -> None:
    """Steadiness and memory of the longest of each kind."""
    long = max(sizes.backlogs)
    names = [f"scale.backlog.{long}", f"scale.end_to_end.{sizes.end_to_end}"]
    for name in names:
        steady = run.median(f"{name}.steady")
        run.ratio(f"{name}.steady", steady, _LEAST_STEADY, steady >= _LEAST_STEADY)
        for peak in ("producer_peak", "consumer_peak"):
            if run.has(f"{name}.{peak}"):
                _hold_memory(run, f"{name}.{peak}")
    flat = run.median(f"{names[0]}.flat")
    run.ratio(f"{names[0]}.flat", flat, _MOST_FLAT, flat <= _MOST_FLAT)
    for name in [f"scale.consumers.{max(sizes.consumers)}.consumer_peak", f"scale.audit.{sizes.audited}.peak"]:
        _hold_memory(run, name)


def _allow_files() -> None:
    """As many open files as this user may have, for the broker and the crowd too: a connection is one at each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _hold_memory(run: Run, name: str) -> None:
    """A share of what a process may hold at most."""
    share = run.median(name) / MOST_BYTES
    run.ratio(f"{name}.of_150_MB", share, 1.0, share <= 1)


class _Rig:
    """The deployment: one producer with a spool to be filled, the crowd, consumers, people in the directory."""

    def __init__(self, lab: Lab, sizes: Sizes) -> None:
        self._broker = lab.broker
        self._relay: Relay = lab.relay
        enrolment = lab.relay.enrolment
        self._sender: Sender = enrolment.enrol(_SPOOLED)
        self._crowd = [f"crowd{number}" for number in range(max(sizes.producers))]
        for name in self._crowd:
            enrolment.enrol(name)
        lab.relay.prepare()
        self._producer: LineProducer = lab.relay.line_producer(_SPOOLED)
        # As an administrator would raise it for so long a backlog.
        self._producer.process.env = {**os.environ, "PASSRELAY_SPOOL__MAX_BYTES": str(MAX_BYTES)}
        self._spool = lab.relay.spool(_SPOOLED)
        self._people = [(f"scale{number}", UUID(int=number + 1), 3000 + number) for number in range(sizes.people)]
        lab.directory.add_users(name for name, _, _ in self._people)
        self._consumers: list[Service] = [
            lab.relay.consumer(f"consumer{number}") for number in range(max([2, *sizes.consumers]))
        ]
        self._kvno = 0

    def backlog(self, run: Run, events: int) -> None:
        """From a full spool to nowhere."""
        name = f"scale.backlog.{events}"
        began = time.perf_counter()
        fill(self._spool, unopened(self._sender, events))
        run.add(f"{name}.fill", "per_second", events / (time.perf_counter() - began))
        run.add(f"{name}.spool", "bytes", spool_bytes(self._spool))
        with Discard(self._broker) as discard:
            started = time.perf_counter()
            self._producer.start()
            pid = self._producer.process.pid
            discard.wait(events // 10)
            early = peak_bytes(pid)
            discard.wait(events)
            peak = peak_bytes(pid)
            self._finish()
            moments = discard.moments
        run.add(name, "per_second", pace(moments, 0, 1))
        run.add(f"{name}.start", "ms", (moments[0] - started) * 1000)
        run.add(f"{name}.steady", "ratio", _steady(moments))
        run.add(f"{name}.producer_peak", "bytes", peak)
        run.add(f"{name}.flat", "ratio", peak / early)
        run.progress(f"backlog of {events}: {pace(moments, 0, 1):.0f}/s, peak {peak / 1e6:.0f} MB")

    def idle(self, run: Run, seconds: float) -> None:
        """A producer whose spool holds what it published."""
        connected = len(self._producer.lines("broker_connected"))
        self._producer.start()
        pid = self._producer.process.pid
        wait_for(lambda: len(self._producer.lines("broker_connected")) > connected, what="the producer connected")
        before, began = cpu_seconds(pid), time.perf_counter()
        time.sleep(seconds)
        run.add("scale.producer.idle_cpu", "ratio", (cpu_seconds(pid) - before) / (time.perf_counter() - began))
        run.add("scale.producer.idle_memory", "bytes", resident_bytes(pid))
        self._finish()

    def crowd(self, run: Run, count: int, events: int) -> None:
        """So many producers, with so many events together."""
        each = events // count
        with Discard(self._broker) as discard:
            began = time.perf_counter()
            with Crowd(self._relay, self._crowd[:count], each) as crowd:
                run.add(f"scale.producers.{count}.connect", "ms", (time.perf_counter() - began) * 1000)
                began = time.perf_counter()
                crowd.go()
                discard.wait(each * count)
                seconds = time.perf_counter() - began
                run.add(f"scale.producers.{count}", "per_second", each * count / seconds)
                run.add(f"scale.producers.{count}.memory_each", "bytes", crowd.peak_bytes / count)
        run.progress(f"{count} producers: {each * count / seconds:.0f}/s")

    def carry(self, run: Run, name: str, events: int, consumers: int) -> None:
        """From a full spool to applied."""
        rounds = -(-events // len(self._people))
        fill(self._spool, (event for _ in range(rounds) for event in self._round(events // rounds)))
        connection = BlockingConnection(self._broker.parameters())
        running = self._consumers[:consumers]
        try:
            newest = last_offset(connection, topology.JOURNAL)
            for consumer in running:
                consumer.start()
            self._producer.start()
            total = events // rounds * rounds
            seen = _depth(connection)
            wait_for(
                lambda: _depth(connection) >= seen + total,
                what=f"{total} events applied",
                timeout_seconds=1800,
                interval_seconds=0.2,
                alive=running[0].process,
            )
            peaks = [peak_bytes(consumer.process.pid) for consumer in running]
            run.add(f"{name}.consumer_peak", "bytes", max(peaks))
            run.add(f"{name}.producer_peak", "bytes", peak_bytes(self._producer.process.pid))
            moments = _applied(connection, 0 if newest is None else newest + 1, total)
        finally:
            for consumer in running:
                consumer.stop()
            self._finish()
            connection.close()
        run.add(name, "per_second", pace(moments, 0, 1))
        run.add(f"{name}.steady", "ratio", _steady(moments))
        run.progress(f"{events} events, {consumers} consumers: {pace(moments, 0, 1):.0f}/s")

    def _round(self, events: int) -> Iterator[SealedEvent]:
        self._kvno += 1
        return sealed(self._sender, self._people[:events], self._kvno)

    def _finish(self) -> None:
        if self._producer.process.running:
            self._producer.finish()


def _steady(moments: Sequence[float]) -> float:
    """The pace at the end by that at the start."""
    return pace(moments, 0.8, 1) / pace(moments, 0, 0.2)


def _depth(connection: BlockingConnection) -> int:
    channel = connection.channel()
    count: int = channel.queue_declare(topology.JOURNAL, passive=True).method.message_count
    channel.close()
    return count


def _applied(connection: BlockingConnection, after: int, expected: int) -> list[float]:
    found = [record.decode(message.body) for message in read(connection, topology.JOURNAL, since=after)]
    moments = [one.applied_at.timestamp() for one in found if one.verdict is Verdict.APPLIED and one.applied_at]
    if len(moments) != expected:
        verdicts = sorted({one.verdict.value for one in found})
        raise LabError(f"{expected} events led to {len(moments)} applied records; verdicts: {', '.join(verdicts)}")
    return moments
