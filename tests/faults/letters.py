"""Dead letters in numbers: listed, filtered, replayed with a kill -9 in the middle, while another operator is at work.

    python -m tests.faults.letters --count 100000

writes that many real letters of six reasons (a few thousand users, everything sealed as consumers seal it) into a real
RabbitMQ, a tenth of them of one reason. These are replayed with two consumers running against a 389 Directory Server
with a cheap password scheme; the replay is killed half-way and run again. It ends with exit code 1 when a letter was
lost, applied twice or touched without being asked for, when the stream alone does not tell who replayed what and why,
when listing took more than 30 s or 200 MB, or when less than nine tenths of the asked --rate was reached. Directory,
consumers and colleague run at the lowest priority meanwhile: in production they are other machines than the operator's.
tests/acceptance/test_replay.py is its short form, which judges no time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self
from uuid import UUID

import typer

from passrelay_ops.replay import MOST_AT_ONCE
from passrelay_ops.report import Report
from passrelay_schemas import topology
from passrelay_schemas.marker import Marker
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import FINAL, Reason, Verdict
from tests.lab.dead_mail import REASONS, Dead, DeadMail
from tests.lab.lab import Lab
from tests.lab.process import LabError, wait_for
from tests.lab.relay import PASSRELAY, Relay

TARGET = Reason.ACCESS_DENIED
OTHERS = tuple(reason for reason in REASONS if reason is not TARGET)
DISCARDED = Reason.POLICY
WHY = "ticket 4711: the access rules are repaired"
MOST_SECONDS, MOST_BYTES = 30.0, 200_000_000
LEAST_OF_RATE = 0.9
_LOWEST = 19
"""The nice value of what is another machine in production."""


def reasons(count: int) -> Iterator[Reason]:
    """Every tenth letter is of the reason that is replayed."""
    others = itertools.cycle(OTHERS)
    return (TARGET if number % 10 == 0 else next(others) for number in range(count))


def rate_reached(acts: Sequence[Record], *, at_once: int) -> float | None:
    """Letters a second, by their records of one replay; None when there are no two batches.

    A batch of `at_once` is on record at one moment; between the first and the last lie all batches but one.
    """
    moments = [act.received_at for act in acts]
    if len(moments) <= at_once or min(moments) == max(moments):
        return None
    return (len(moments) - at_once) / (max(moments) - min(moments)).total_seconds()


def replay_options(rate: int) -> list[str]:
    """What the operator asks for."""
    return ["--reason", TARGET.value, "--rate", str(rate), "--reason-text", WHY, "--yes"]


@dataclass(frozen=True)
class Ran:
    """One command: what it said and what it took."""

    document: dict[str, Any]
    exit_code: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as to:
    print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, file=to)
sys.exit(code)
"""
"""A small process between us and the command: a child's peak memory counts its parent's size at the fork (Linux)."""


def run(arguments: list[str | Path], folder: Path, *, nice: int = 0) -> Ran:
    """Run `passrelay` and measure what it takes."""
    out, cost = (folder / f"{threading.get_ident()}.{name}" for name in ("out", "cost"))
    polite = ["nice", "-n", str(nice)]
    command: list[str | Path] = [*polite, sys.executable, "-c", _LAUNCHER, cost, PASSRELAY, *arguments, "--json"]
    began = time.monotonic()
    with out.open("wb") as stdout:
        exit_code = subprocess.call(command, stdout=stdout, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    cpu_seconds, peak_bytes = cost.read_text().split()
    lines = out.read_text().splitlines()
    document = json.loads(lines[-1]) if lines else {}
    return Ran(document, exit_code, seconds, float(cpu_seconds), int(peak_bytes))


@dataclass
class Findings:
    """What went wrong, and the numbers."""

    faults: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def demand(self, good: bool, fault: str) -> None:
        """Note a fault unless it is good."""
        if not good:
            self.faults.append(fault)


class Trial:
    """One deployment with its letters."""

    def __init__(self, relay: Relay, *, count: int, people: int, prefix: str, in_time: bool) -> None:
        self.relay = relay
        self.in_time = in_time
        self.sender = relay.enrolment.enrol("dc1")
        relay.prepare()
        self.config = relay.ops_config()
        self.mail = DeadMail(relay.broker, relay.enrolment, self.sender, people, prefix=prefix)
        relay.directory.add_users(person.name for person in self.mail.people)
        self.letters = self.mail.write(reasons(count))
        self.targets = {dead.event_id: dead for dead in self.letters if dead.reason is TARGET}
        self.found = Findings()

    def dead(self, command: str, *arguments: str | Path, nice: int = 0) -> Ran:
        """Run `passrelay dead ...`."""
        return run(["dead", command, *arguments, "--config", self.config], self.relay.folder, nice=nice)

    def listing(self, name: str, *arguments: str) -> list[dict[str, Any]]:
        """List, and note what it took."""
        ran = self.dead("list", *arguments)
        self.found.numbers[name] = _cost(ran)
        self.found.demand(ran.exit_code == 0, f"{name}: exit {ran.exit_code}")
        self.found.demand(not self.in_time or ran.seconds < MOST_SECONDS, f"{name}: took {ran.seconds:.1f} s")
        self.found.demand(ran.peak_bytes < MOST_BYTES, f"{name}: took {ran.peak_bytes / 1e6:.0f} MB")
        letters: list[dict[str, Any]] = ran.document.get("letters", [])
        return letters

    def killed_replay(self, *, rate: int) -> None:
        """Start the replay and kill -9 it when half of the letters are on record."""
        half = len(self.letters) + len(self.targets) // 2
        command: list[str | Path] = [PASSRELAY, "dead", "replay", *replay_options(rate), "--config", self.config]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(
                lambda: self.relay.broker.queue_depths()[topology.DEAD] >= half or child.poll() is not None,
                what="half of the letters replayed",
                timeout_seconds=300,
                interval_seconds=0.05,
            )
        finally:
            child.kill()
        if child.wait() != -9:
            raise LabError("the replay ended before it was killed: more letters, or a lower rate")

    def finish(self, *, rate: int) -> Ran:
        """Run it again, to its end, and wait until every letter has its outcome."""
        ran = self.dead("replay", *replay_options(rate))
        self.found.demand(ran.exit_code == 0, f"replay: exit {ran.exit_code}: {ran.document.get('failures')}")
        self.found.numbers["second_replay"] = {"letters": ran.document.get("replayed"), **_cost(ran)}
        wait_for(self._all_decided, what="an outcome for every letter", timeout_seconds=900, interval_seconds=1)
        return ran

    def check_rate(self, ran: Ran, *, rate: int) -> None:
        """The replay that came to its end was as fast as it was asked to be; a fault only where time counts."""
        acts = [record for record in self.relay.records(topology.DEAD) if record.verdict is Verdict.REPLAYED]
        own = acts[len(acts) - int(ran.document.get("replayed", 0)) :]
        reached = rate_reached(own, at_once=max(1, min(MOST_AT_ONCE, rate // 4)))
        self.found.numbers["rate"] = {"asked": rate, "reached": None if reached is None else round(reached)}
        too_slow = reached is None or reached < LEAST_OF_RATE * rate
        self.found.demand(not (self.in_time and too_slow), f"replay: {reached} letters a second, {rate} were asked for")

    def _all_decided(self) -> bool:
        if self.relay.journal_depth() < len(self.targets):
            return False
        return self.targets.keys() <= {record.event_id for record in self.relay.records() if record.verdict in FINAL}

    def check_effect(self, *, binds: int) -> None:
        """Applied exactly once in effect: no event written twice, every user at his newest replayed password."""
        written = Counter(record.event_id for record in self.relay.records() if record.verdict is Verdict.APPLIED)
        twice = [str(event_id) for event_id, times in written.items() if times > 1]
        self.found.demand(not twice, f"applied twice: {twice[:5]}")
        foreign = [str(event_id) for event_id in written if event_id not in self.targets]
        self.found.demand(not foreign, f"applied without being replayed: {foreign[:5]}")
        repeats = sum(record.verdict is Verdict.DUPLICATE for record in self.relay.records())
        self.found.numbers["outcomes"] = {"applied": len(written), "repeated": repeats}
        newest: dict[str, Dead] = {}
        for dead in self.targets.values():
            newest[dead.person.name] = max(dead, newest.get(dead.person.name, dead), key=lambda one: one.kvno)
        for number, (name, dead) in enumerate(newest.items()):
            [marker] = self.relay.directory.read(name).get("passrelayMarker") or [""]
            kvno = Marker.parse(marker).kvno if marker else None
            self.found.demand(kvno == dead.kvno, f"{name}: marker at {kvno}, newest is {dead.kvno}")
            if number < binds:
                self.found.demand(self.relay.directory.binds(name, dead.password), f"{name}: newest does not bind")

    def check_trail(self) -> None:
        """The stream alone tells who replayed what and why, and each letter once."""
        acts = [record for record in self.relay.records(topology.DEAD) if record.verdict is Verdict.REPLAYED]
        times = Counter(record.event_id for record in acts)
        self.found.demand(times.keys() == self.targets.keys(), f"{len(times)} letters on record as replayed")
        self.found.demand(set(times.values()) == {1}, "a letter stands twice as replayed")
        self.found.demand(all(_speaks(record) for record in acts), "a record does not say who and why")

    def check_others(self, before: list[dict[str, Any]], after: list[dict[str, Any]], gone: set[UUID]) -> None:
        """All other letters are untouched and in their order."""
        kept = [one for one in before if one["reason"] != TARGET and UUID(one["event_id"]) not in gone]
        self.found.demand(after == kept, f"the other letters are not as they were: {len(after)} of {len(kept)}")


def _cost(ran: Ran) -> dict[str, float]:
    return {
        "seconds": round(ran.seconds, 1),
        "cpu_seconds": round(ran.cpu_seconds, 1),
        "peak_mb": round(ran.peak_bytes / 1e6),
    }


def _speaks(record: Record) -> bool:
    return record.why == WHY and bool(record.by) and record.reason == TARGET and record.replays == 1


class Colleague:
    """Another operator, who lists and discards in a thread until the context ends."""

    def __init__(self, trial: Trial, *, at_once: int, most: int) -> None:
        self._trial = trial
        self._at_once = at_once
        self._rounds = most // at_once
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.faults: list[str] = []
        self.lists = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            if self._rounds:
                self._rounds -= 1
                options = ["--reason", DISCARDED.value, "--limit", str(self._at_once), "--reason-text", "left", "--yes"]
                self._note(self._trial.dead("discard", *options, nice=_LOWEST))
            self._note(self._trial.dead("list", "--reason", OTHERS[-1].value, nice=_LOWEST))
            self.lists += 1

    def _note(self, ran: Ran) -> None:
        if ran.exit_code:
            self.faults.append(f"colleague: exit {ran.exit_code}: {ran.document.get('failures')}")

    def discarded(self) -> set[UUID]:
        """What the stream says was discarded."""
        records = self._trial.relay.records(topology.DEAD)
        return {record.event_id for record in records if record.verdict is Verdict.DISCARDED}


def _make_way(pid: int) -> None:
    """Give this process and its group the processor only when nobody else wants it."""
    os.setpriority(os.PRIO_PGRP, os.getpgid(pid), _LOWEST)
    with contextlib.suppress(OSError):  # where the kernel shares by session, a nice value counts only within one
        Path(f"/proc/{pid}/autogroup").write_text(str(_LOWEST))


def trial(
    relay: Relay, *, count: int, people: int, rate: int, binds: int, prefix: str, in_time: bool = False
) -> Findings:
    """All of it once, beside a colleague who lists and discards; `in_time`: listing must be fast too."""
    made = Trial(relay, count=count, people=people, prefix=prefix, in_time=in_time)
    before = made.listing("list")
    made.found.demand([one["event_id"] for one in before] == [str(d.event_id) for d in made.letters], "list: not all")
    filtered = made.listing("filter", "--reason", TARGET.value)
    made.found.demand(len(filtered) == len(made.targets), f"filter: {len(filtered)} of {len(made.targets)}")
    name = made.mail.people[0].name
    of_one = made.listing("user", "--user", name, "--reason", TARGET.value)
    mine = [str(dead.event_id) for dead in made.targets.values() if dead.person.name == name]
    made.found.demand([one["event_id"] for one in of_one] == mine, "user: not his letters")
    consumers = [relay.consumer(f"consumer{number}") for number in range(2)]
    for consumer in consumers:
        consumer.start()
    if in_time:
        for pid in (relay.directory.pid, *(consumer.process.pid for consumer in consumers)):
            _make_way(pid)
    with Colleague(made, at_once=max(1, count // 1000), most=count // 100) as other:
        made.killed_replay(rate=rate)
        ran = made.finish(rate=rate)
    made.check_rate(ran, rate=rate)
    made.found.faults += other.faults
    gone = other.discarded()
    made.found.numbers["colleague"] = {"lists": other.lists, "discarded": len(gone)}
    made.found.demand(other.lists > 0 and len(gone) > 0, "the colleague did nothing")
    made.check_effect(binds=binds)
    made.check_trail()
    made.check_others(before, made.listing("list_after"), gone)
    return made.found


def main(
    count: Annotated[int, typer.Option(min=1000, help="Letters; a tenth of them is replayed.")] = 100_000,
    people: Annotated[int, typer.Option(min=10, help="Users that they are of.")] = 3000,
    rate: Annotated[int, typer.Option(min=1, help="Letters replayed a second.")] = 500,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document as the last line of stdout.")] = False,
) -> None:
    """Exit code 1 when anything was found."""
    with Report("faults", as_json=as_json) as report, Lab(samba=False, storage_scheme="SSHA512") as lab:
        report.servers.update(lab.versions)
        found = trial(lab.relay, count=count, people=people, rate=rate, binds=300, prefix="letters", in_time=True)
        report["numbers"] = found.numbers
        report.say(json.dumps(found.numbers, indent=2))
        for fault in found.faults:
            report.fail("letters", "", fault)


if __name__ == "__main__":
    typer.run(main)
