"""Each stage by itself: what the producer's two halves and the consumer's three do alone, interleaved."""

from __future__ import annotations

import base64
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from uuid import uuid4

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_schemas import filetime, topology
from tests.bench.end_to_end import EndToEnd
from tests.bench.run import Run
from tests.lab.broker_folder import HOST, VHOST
from tests.lab.folder import canary_password
from tests.lab.lab import Lab
from tests.lab.load import Change
from tests.lab.process import LabError, run_tool

_ROOT = Path(__file__).resolve().parents[2]
_PRODUCER = "stage"
_CAPTURE_BAR = 2000
"""Events per second with SQLite's synchronous=FULL."""
_PUBLISH_BAR = 0.7
"""Of the bare loop's rate."""
_EVENTS, _QUICK_EVENTS = 20_000, 1100
"""More than two windows of the publisher in the short form too: it marks whole windows as published."""
_WRITES, _QUICK_WRITES = 4000, 40
_WRITE_CONNECTIONS = (1, 8)


def measure(run: Run) -> None:
    """`stage.capture`, `publish`, `publish.bare`, `open`, `write.N`, `journal`, once each in each run.

    The directory hashes cheaply (SSHA512), so that find, decide and write are seen beside it.
    """
    with Lab(samba=False, storage_scheme="SSHA512") as lab:
        run.servers(lab.versions)
        stages = Stages(lab, events=_QUICK_EVENTS if run.quick else _EVENTS)
        users = [f"stage{number}" for number in range(_QUICK_WRITES if run.quick else _WRITES)]
        lab.directory.add_users(users)
        for number in range(run.runs):
            rates = {
                "capture": stages.capture(),
                "publish": stages.publish(),
                "publish.bare": stages.publish_bare(),
                "open": stages.consume("open"),
                "journal": stages.consume("journal"),
                **{f"write.{each}": stages.write(users, connections=each) for each in _WRITE_CONNECTIONS},
            }
            for name, rate in rates.items():
                run.add(f"stage.{name}", "per_second", rate)
            told = ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items())
            run.progress(f"stages, run {number + 1}: {told}")
    capture = run.median("stage.capture")
    run.ratio("stage.capture", capture, _CAPTURE_BAR, capture >= _CAPTURE_BAR)
    publish = run.median("stage.publish") / run.median("stage.publish.bare")
    run.ratio("stage.publish", publish, _PUBLISH_BAR, publish >= _PUBLISH_BAR)


class Stages:
    """One deployment whose stages run one after the other; every method gives events per second."""

    def __init__(self, lab: Lab, *, events: int) -> None:
        self._lab = lab
        self._relay = lab.relay
        self._events = events
        lab.relay.enrolment.enrol(_PRODUCER)
        self._end_to_end = EndToEnd(lab.relay)
        self._nowhere = lab.reservations.port()
        self._bodies = self._end_to_end.envelopes([f"event{number}" for number in range(events)])

    def capture(self) -> float:
        """Lines to a producer without a broker until each is answered, which is after its commit to a new spool."""
        spool = self._relay.spool(_PRODUCER)
        shutil.rmtree(spool.parent)
        producer = self._relay.line_producer(_PRODUCER)
        url = f"amqps://{HOST}:{self._nowhere}/{VHOST}"
        producer.process.env = {**os.environ, "PASSRELAY_BROKER__URL": url}
        lines = [
            Change(f"event{number}", uuid4(), 3000 + number, 1, filetime.now(), canary_password()).line()
            for number in range(self._events)
        ]
        producer.start()
        began = time.perf_counter()
        answers = producer.send(lines, timeout_seconds=600)
        seconds = time.perf_counter() - began
        producer.stop()
        if any("error" in answer for answer in answers):
            raise LabError("the producer refused a line of the benchmark")
        return self._events / seconds

    def publish(self) -> float:
        """What `capture` left in the spool, by the times at which the spool keeps each as confirmed.

        The first ones marked together begin the clock and do not count.
        """
        producer = self._relay.line_producer(_PRODUCER)
        producer.start()
        if producer.finish(600):
            raise LabError("the producer did not end well")
        with closing(sqlite3.connect(self._relay.spool(_PRODUCER))) as spool:
            counts = spool.execute("SELECT published_at, count(*) FROM published GROUP BY 1 ORDER BY 1").fetchall()
        self._empty_queue()
        if sum(count for _, count in counts) != self._events:
            raise LabError("the producer did not publish every event of the benchmark")
        counted, milliseconds = self._events - counts[0][1], counts[-1][0] - counts[0][0]
        return float(counted / max(0.001, milliseconds / 1000))

    def publish_bare(self) -> float:
        """Equal bodies from a bare pipelined loop of pika over the same kind of connection; they stay in the queue."""
        return self._events / self._end_to_end.fill(self._bodies)

    def consume(self, stage: str) -> float:
        """Stage `open` or `journal`: the consumer's own way through a full queue, from its first ack to its last."""
        if not self._queued():
            self._end_to_end.fill(self._bodies)
        rate = self._child(stage, self._events, workers=4)
        if left := self._queued():
            raise LabError(f"stage {stage} left {left} events in the queue")
        return rate

    def write(self, users: Sequence[str], *, connections: int) -> float:
        """Find, decide and write for each user once, by as many threads as connections."""
        lines = b"\n".join(base64.b64encode(raw) for raw in self._end_to_end.envelopes(users))
        return self._child("write", len(users), workers=connections, stdin=lines)

    def _child(self, stage: str, count: int, *, workers: int, stdin: bytes | None = None) -> float:
        service = self._relay.consumer(f"stage-{stage}", workers=workers)
        self._relay.services.remove(service)  # only its configuration is wanted
        command = [sys.executable, "-m", "tests.bench.consumer_stage", stage, str(service.config), str(count)]
        return float(run_tool(command, cwd=_ROOT, stdin=stdin, timeout_seconds=900).split()[-1])

    def _queued(self) -> int:
        with closing(BlockingConnection(self._relay.broker.parameters())) as connection:
            return int(connection.channel().queue_declare(topology.EVENTS, passive=True).method.message_count)

    def _empty_queue(self) -> None:
        with closing(BlockingConnection(self._relay.broker.parameters())) as connection:
            connection.channel().queue_purge(topology.EVENTS)
