"""From the controller's commit to the working password, idle and loaded, beside what a bare modify takes by itself.

The clock starts when the controller's answer to the change is here (it has committed by then) and stops when the
directory says that the entry is modified; every one of these passwords must then log in. `latency.*.modify` is the
time of one bare modify of userPassword over a connection that is open and bound already, taken in turns with the
changes: the least that anything could take. `latency.*.ldapmodify` is the whole program as a script would call it, its
start, TLS connection and bind included. Loaded means that another producer of a second domain sends changes of other
users through the same broker, consumer and directory at a steady pace meanwhile (`latency.load`): a part of what they
were seen to take of them just before, for a pace above that would only measure how long the queue has become.
Producer and consumer run with every setting at their defaults. p99 of fewer than 100 changes is the slowest one.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ldap3 import MODIFY_REPLACE

from tests.bench.crossing import LOAD, LOAD_DOMAIN, Crossing
from tests.bench.proc import cpu_seconds
from tests.bench.run import Run
from tests.bench.spread import p50, p99
from tests.lab.directory import Directory
from tests.lab.directory_tree import modify
from tests.lab.enrolment import DOMAIN_SID
from tests.lab.folder import canary_password
from tests.lab.lab import Lab
from tests.lab.process import LabError, run_tool
from tests.lab.relay import LineProducer

_MOST_ABOVE_MS = 25.0
_MOST_IDLE_CPU = 0.02


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    changes: int
    """In each run."""
    load_users: int
    idle_seconds: float


_FULL = Sizes(changes=50, load_users=500, idle_seconds=30)
_QUICK = Sizes(changes=4, load_users=10, idle_seconds=2)
_LOAD = 0.4
"""Of the rate at which all the load's users are carried at once."""
_SILENCE_SECONDS = 1.0
_PAUSE_SECONDS = 0.25
"""Between two changes, and a little more each time, so that they fall everywhere between two polls."""


def measure(run: Run) -> None:
    """`latency.{idle,loaded}.{p50,p99}`, the same of `.modify` and `.ldapmodify`, and what else is said above."""
    sizes = _QUICK if run.quick else _FULL
    with Lab() as lab:
        run.servers(lab.versions)
        names = [f"walker{number}" for number in range(sizes.changes)]
        load = [f"{LOAD}{number}" for number in range(sizes.load_users)]
        lab.directory.add_users(["bare", *load])
        with Crossing(lab, names) as crossing:
            producer = lab.relay.line_producer(LOAD)
            crossing.producer.start()
            crossing.consumer.start()
            crossing.warm_up()
            versions = itertools.count(1)
            for number in range(run.runs):
                _walk(run, "latency.idle", crossing)
                pace = _LOAD * _capacity(crossing, producer, load, versions)
                run.add("latency.load", "per_second", pace)
                with _loaded(producer, load, pace, versions):
                    _walk(run, "latency.loaded", crossing)
                _rest(run, crossing, sizes.idle_seconds)
                run.progress(f"latency, run {number + 1}/{run.runs}")
    above = run.median("latency.idle.above")
    run.ratio("latency.idle.above", above, _MOST_ABOVE_MS, above <= _MOST_ABOVE_MS)
    share = run.median("latency.producer.idle_cpu")
    run.ratio("latency.producer.idle_cpu", share, _MOST_IDLE_CPU, share <= _MOST_IDLE_CPU)


def _walk(run: Run, name: str, crossing: Crossing) -> None:
    relayed, bare, program = [], [], []
    with crossing.lab.directory.service() as connection:
        for number, user in enumerate(crossing.users):
            relayed.append(crossing.cross(user))
            bare.append(_modify(connection, crossing.lab.directory))
            if number % 5 == 0:
                program.append(_ldapmodify(crossing.lab.directory))
            time.sleep(_PAUSE_SECONDS + 0.007 * (number % 10))
    crossing.prove(crossing.users)
    for ending, values in {"": relayed, ".modify": bare, ".ldapmodify": program}.items():
        run.add(f"{name}{ending}.p50", "ms", p50(values))
        run.add(f"{name}{ending}.p99", "ms", p99(values))
    run.add(f"{name}.above", "ms", p50(relayed) - p50(bare))


def _modify(connection: Any, directory: Directory) -> float:
    """Milliseconds of one modify over an open connection."""
    password = canary_password()
    began = time.perf_counter()
    modify(connection, directory.user_dn("bare"), {"userPassword": [(MODIFY_REPLACE, [password])]})
    return (time.perf_counter() - began) * 1000


def _ldapmodify(directory: Directory) -> float:
    """Milliseconds of the program."""
    # By address: OpenLDAP takes "localhost" for the machine's own name when it checks the certificate.
    url = f"ldaps://127.0.0.1:{directory.listening.ldaps}"
    command = ["ldapmodify", "-x", "-H", url, "-D", directory.service_dn, "-y", str(directory.password_file)]
    lines = ["changetype: modify", "replace: userPassword", f"userPassword: {canary_password()}", ""]
    text = "\n".join([f"dn: {directory.user_dn('bare')}", *lines])
    environment = {**os.environ, "LDAPTLS_CACERT": str(directory.ca_file), "LDAPTLS_REQCERT": "demand"}
    began = time.perf_counter()
    run_tool(command, env=environment, stdin=text.encode())
    return (time.perf_counter() - began) * 1000


def _capacity(crossing: Crossing, producer: LineProducer, users: list[str], versions: Iterator[int]) -> float:
    """Events per second of one change of each of these users, from the first arrival to the last."""
    seen = {user: crossing.arrivals.count(user) for user in users}
    producer.start()
    producer.write([_line(user, versions) for user in users])
    arrived = sorted(crossing.arrivals.after(user, seen[user]) for user in users)
    producer.finish()
    return (len(users) - 1) / max(arrived[-1] - arrived[0], 0.001)


@contextmanager
def _loaded(producer: LineProducer, users: list[str], per_second: float, versions: Iterator[int]) -> Iterator[None]:
    """Inside, changes of these users are on their way, so many a second."""
    producer.start()
    over, failed = threading.Event(), threading.Event()

    def send() -> None:
        began, sent = time.monotonic(), 0
        while not over.wait(max(0.0, began + sent / per_second - time.monotonic())):
            try:
                producer.write([_line(users[sent % len(users)], versions)])
            except OSError:
                failed.set()
                return
            sent += 1

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()
        producer.finish()
    if failed.is_set() or any("error" in answer for answer in producer.answers):
        raise LabError("the load's producer has failed")


def _line(user: str, versions: Iterator[int]) -> dict[str, Any]:
    number = int(user.removeprefix(LOAD))
    account = {"sam_account_name": user, "guid": str(UUID(int=number + 1)), "sid": f"{DOMAIN_SID}-{5000 + number}"}
    return {"domain": LOAD_DOMAIN, "account": account, "password": canary_password(), "kvno": next(versions)}


def _rest(run: Run, crossing: Crossing, seconds: float) -> None:
    """The producer's share of a core while nobody changes anything."""
    crossing.catch_up(_SILENCE_SECONDS)
    pid = crossing.producer.process.pid
    before, began = cpu_seconds(pid), time.perf_counter()
    time.sleep(seconds)
    run.add("latency.producer.idle_cpu", "ratio", (cpu_seconds(pid) - before) / (time.perf_counter() - began))
