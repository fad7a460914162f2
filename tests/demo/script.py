"""The demo's plot: who changes what, and which fault strikes when."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

from passrelay_schemas.filetime import rfc3339, utc_now
from passrelay_schemas.marker import Marker
from tests.demo.people import WAYS, People, Person
from tests.lab.lab import Lab
from tests.lab.process import wait_for
from tests.lab.relay import Service

_BURST = 4
_DIRECTORY_DOWN_SECONDS = 4


def plan(people: People, dice: random.Random) -> list[tuple[Person, str]]:
    """Every way once for every user, in random order, and for every fifth user a burst of changes in a row."""
    rounds: list[list[tuple[Person, str]]] = [[(person, way)] for person in people.all for way in WAYS]
    rounds += [[(person, "ldaps-reset")] * _BURST for person in people.all[::5]]
    dice.shuffle(rounds)
    return [step for steps in rounds for step in steps]


class Faults:
    """A consumer killed, the broker restarted, the directory stopped: each while changes go on."""

    def __init__(self, lab: Lab, consumers: list[Service]) -> None:
        self._lab = lab
        self._consumers = consumers
        # One thread for all the faults, alive until the lab is stopped: servers die with the thread that started them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="faults")
        self._running: list[Future[None]] = []
        self.happened: list[dict[str, str]] = []

    def schedule(self, steps: int) -> dict[int, Callable[[], None]]:
        """Which fault strikes before which step."""
        return {
            steps // 4: self._kill_consumer,
            steps // 2: self._restart_broker,
            steps * 3 // 4: self._stop_directory,
        }

    def strike(self, fault: Callable[[], None]) -> None:
        """Let a fault happen beside whatever else goes on."""
        self._running.append(self._thread.submit(fault))

    def wait(self) -> None:
        """Until every fault is over and repaired; raises what went wrong meanwhile."""
        for fault in self._running:
            fault.result()

    def close(self) -> None:
        """To be called after the lab was stopped."""
        self._thread.shutdown()

    def _note(self, kind: str, target: str) -> None:
        self.happened.append({"kind": kind, "target": target, "at": rfc3339(utc_now())})

    def _kill_consumer(self) -> None:
        self._note("sigkill", self._consumers[0].name)
        self._consumers[0].kill()
        self._consumers[0].start()

    def _restart_broker(self) -> None:
        self._note("restart", "broker")
        self._lab.broker.kill()
        self._lab.broker.start()

    def _stop_directory(self) -> None:
        self._note("stop", "directory")
        self._lab.directory.stop()
        end = utc_now().timestamp() + _DIRECTORY_DOWN_SECONDS
        wait_for(lambda: utc_now().timestamp() > end, what="the directory's rest")
        self._lab.directory.start()


def markers(lab: Lab, people: People) -> Iterator[tuple[Person, Marker | None]]:
    """What the directory says of each user."""
    for person in people.all:
        value = lab.directory.read(person.name).get("passrelayMarker")
        yield person, Marker.parse(value[0]) if value else None


def latency_ms(person: Person, marker: Marker) -> float:
    """From the DC's commit to the directory's."""
    applied = datetime.fromisoformat(marker.applied_at).timestamp()
    return round((applied - (person.changed_at / 10_000_000 - 11_644_473_600)) * 1000, 1)
