"""What each kind of fault does, and how it is undone: a context for each."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from tests.faults import envelopes
from tests.faults.key_acts import Key
from tests.faults.plan import CONSUMERS, DIRECTORIES, Fault, Kind
from tests.faults.site import Site
from tests.faults.traffic import Traffic

HOUR = timedelta(hours=1)
_SLOW_SECONDS, _SLOW_FOR_SECONDS = 0.3, 1.5
_LATE_SECONDS = 6.0
"""Longer than consumers wait for an answer here."""
_MOST_SOCKETS = 300
_LATE = 3
FILLER = "filler"

Act = Callable[[], AbstractContextManager[None]]


class Acts:
    """The faults at one site. An act that cannot be done raises LabError."""

    def __init__(self, site: Site, traffic: Traffic) -> None:
        self._site = site
        self._traffic = traffic

    def act(self, fault: Fault) -> AbstractContextManager[None]:
        """The context of one fault: begun when it is entered, undone when it is left."""
        dice = random.Random(fault.dice)
        at, keys = fault.target, Key(self._site, dice)
        ways: dict[Kind, Act] = {
            Kind.PRODUCER_KILLED: lambda: self._ended(at, signal.SIGKILL),
            Kind.PRODUCER_ABORTED: lambda: self._ended(at, signal.SIGABRT),
            Kind.PRODUCER_STOPPED: lambda: self._stopped(at),
            Kind.PRODUCER_RESTARTED: lambda: self._ended(at, signal.SIGTERM),
            Kind.CONSUMER_KILLED: lambda: self._ended(at, signal.SIGKILL),
            Kind.CONSUMER_ABORTED: lambda: self._ended(at, signal.SIGABRT),
            Kind.CONSUMER_STOPPED: lambda: self._stopped(at),
            Kind.CONSUMER_RESTARTED: lambda: self._ended(at, signal.SIGTERM),
            Kind.DIRECTORY_KILLED: lambda: self._directory_killed(at),
            Kind.DIRECTORY_STOPPED: lambda: self._directory_stopped(at),
            Kind.DIRECTORY_READ_ONLY: lambda: self._read_only(at),
            Kind.DIRECTORY_SLOW: lambda: self._slow(at),
            Kind.DIRECTORY_NO_CONNECTIONS: lambda: self._no_connections(at),
            Kind.DIRECTORY_HIDDEN: lambda: self._hidden([(consumer, at) for consumer in CONSUMERS]),
            Kind.DIRECTORIES_APART: self._apart,
            Kind.DIRECTORIES_APART_AND_HIDDEN: lambda: self._apart_and_hidden(at, dice, fault.seconds),
            Kind.DIRECTORY_AWAY: lambda: self._hidden([(at, DIRECTORIES[0])]),
            Kind.DIRECTORY_LATE: lambda: self._late(at),
            Kind.BROKER_KILLED: lambda: self._node_ended(dice, signal.SIGKILL),
            Kind.NODE_LOST: lambda: self._node_ended(dice, signal.SIGKILL),
            Kind.NODES_APART: lambda: self._node_apart(dice),
            Kind.BROKER_RESTARTED: lambda: self._node_ended(dice, signal.SIGTERM),
            Kind.BROKER_STOPPED: lambda: self._node_stopped(dice),
            Kind.BROKER_AWAY: lambda: self._broker_away(at),
            Kind.BROKER_SILENT: lambda: self._broker_silent(at),
            Kind.SAMBA_KILLED: self._samba_killed,
            Kind.SAMBA_STOPPED: self._samba_stopped,
            Kind.SPOOL_FULL: lambda: _full(self._site.spool(at).parent, spare=0),
            Kind.BROKER_FULL: lambda: _full(dice.choice(self._site.cluster.nodes).disk, spare=20_000_000),
            Kind.CLOCK_AHEAD: lambda: self._odd_clock(at, HOUR),
            Kind.CLOCK_BEHIND: lambda: self._odd_clock(at, -HOUR),
            Kind.REPEATED: lambda: envelopes.repeated(self._site, dice),
            Kind.STRANGERS: lambda: envelopes.strangers(self._site, self._traffic, dice),
            Kind.CERTIFICATE_RENEWED: lambda: self._certificate_renewed(at),
            Kind.SIGNING_ROTATED: lambda: keys.signing_rotated(at),
            Kind.SIGNING_REVOKED: lambda: keys.signing_revoked(at),
            Kind.RECIPIENT_ROTATED: lambda: keys.recipient_rotated(late=False),
            Kind.OLD_KEYRING: lambda: keys.recipient_rotated(late=True),
            Kind.LATE_USERS: lambda: self._late_users(fault.number),
            Kind.REPLAYED: self._replayed,
        }
        return ways[fault.kind]()

    # -- passrelay's own processes ----------------------------------------------------------------------------------

    @contextmanager
    def _ended(self, name: str, number: signal.Signals) -> Iterator[None]:
        service = self._site.service(name)
        self._site.expect_end(service)
        if number is signal.SIGTERM:
            service.stop()
        else:
            service.process.signal(number)
            child = service.process.child
            assert child is not None
            child.wait(30)
            service.process.kill()  # nothing is left to be killed, only what libfaketime leaves behind to be removed
        yield
        service.start()

    @contextmanager
    def _stopped(self, name: str) -> Iterator[None]:
        process = self._site.service(name).process
        process.signal(signal.SIGSTOP)
        yield
        process.signal(signal.SIGCONT)

    @contextmanager
    def _certificate_renewed(self, name: str) -> Iterator[None]:
        user = "consumer" if name in CONSUMERS else name
        self._site.ca.issue(user, common_name=user)
        with self._ended(name, signal.SIGTERM):
            yield

    @contextmanager
    def _odd_clock(self, name: str, ahead: timedelta) -> Iterator[None]:
        self._site.set_clock(name, ahead)
        yield
        self._site.set_clock(name, timedelta())

    # -- IdM --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _directory_killed(self, name: str) -> Iterator[None]:
        server = self._site.directories[name]
        self._site.suppliers.crash(server)
        yield
        self._site.suppliers.revive(server)

    @contextmanager
    def _directory_stopped(self, name: str) -> Iterator[None]:
        self._site.directories[name].pause()
        yield
        self._site.directories[name].resume()

    @contextmanager
    def _read_only(self, name: str) -> Iterator[None]:
        self._site.directories[name].read_only(on=True)
        yield
        self._site.directories[name].read_only(on=False)

    @contextmanager
    def _slow(self, name: str) -> Iterator[None]:
        doors = [self._site.directory_doors[consumer, name] for consumer in CONSUMERS]
        for door in doors:
            door.slow_down(_SLOW_SECONDS)
        yield
        for door in doors:
            door.slow_down(0)

    @contextmanager
    def _no_connections(self, name: str) -> Iterator[None]:
        """Somebody else has taken all that the server has; consumers must come again."""
        port = self._site.directories[name].listening.ldaps
        with ExitStack() as held:
            with suppress(OSError):
                for _ in range(_MOST_SOCKETS):
                    held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
            for consumer in CONSUMERS:
                self._site.directory_doors[consumer, name].reset()
            yield

    @contextmanager
    def _hidden(self, places: list[tuple[str, str]]) -> Iterator[None]:
        doors = [self._site.directory_doors[place] for place in places]
        for door in doors:
            door.cut()
        yield
        for door in doors:
            door.heal()

    @contextmanager
    def _late(self, consumer: str) -> Iterator[None]:
        """Slow at first, so that some have read an entry and have not written it when it becomes very slow."""
        door = self._site.directory_doors[consumer, DIRECTORIES[0]]
        door.slow_down(_SLOW_SECONDS)
        self._site.pause(_SLOW_FOR_SECONDS)
        door.slow_down(_LATE_SECONDS)
        yield
        door.slow_down(0)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        self._site.suppliers.cut()
        yield
        self._site.suppliers.heal()

    @contextmanager
    def _apart_and_hidden(self, name: str, dice: random.Random, seconds: float) -> Iterator[None]:
        """Cut off the first server while it takes writes; then only the second one can be reached."""
        other = next(server for place, server in self._site.directories.items() if place != name)
        with self._apart():
            self._site.pause(seconds / 2)
            with self._hidden([(consumer, name) for consumer in CONSUMERS]):
                # What the second one writes from now on is newer for replication, whatever it is for AD.
                if dice.random() < 0.5:
                    self._site.suppliers.overtake(other)
                yield

    # -- broker and Samba -------------------------------------------------------------------------------------------

    @contextmanager
    def _node_ended(self, dice: random.Random, number: signal.Signals) -> Iterator[None]:
        node = dice.choice(self._site.cluster.nodes)
        if number is signal.SIGTERM:
            node.stop()
        else:
            node.kill()
        yield
        node.start()

    @contextmanager
    def _node_stopped(self, dice: random.Random) -> Iterator[None]:
        process = dice.choice(self._site.cluster.nodes).process
        process.signal(signal.SIGSTOP)
        yield
        process.signal(signal.SIGCONT)

    @contextmanager
    def _node_apart(self, dice: random.Random) -> Iterator[None]:
        node = dice.choice(self._site.cluster.nodes)
        node.cut_off()
        yield
        node.join()

    @contextmanager
    def _broker_away(self, client: str) -> Iterator[None]:
        door = self._site.broker_doors[client]
        door.cut()
        yield
        door.heal()

    @contextmanager
    def _broker_silent(self, client: str) -> Iterator[None]:
        door = self._site.broker_doors[client]
        door.swallow()
        yield
        door.mend()

    @contextmanager
    def _samba_killed(self) -> Iterator[None]:
        self._site.dc.kill()
        yield
        self._site.dc.start()

    @contextmanager
    def _samba_stopped(self) -> Iterator[None]:
        self._site.signal_samba(signal.SIGSTOP)
        yield
        self._site.signal_samba(signal.SIGCONT)

    # -- people and operators ---------------------------------------------------------------------------------------

    @contextmanager
    def _late_users(self, number: int) -> Iterator[None]:
        late = [person.name for person in self._traffic.strangers(f"late{number}-", _LATE)]
        yield
        self._site.add_users(late)

    @contextmanager
    def _replayed(self) -> Iterator[None]:
        self._site.operate("dead", "replay", "--yes", "--reason-text", "drill")
        yield


@contextmanager
def _full(folder: Path, *, spare: int) -> Iterator[None]:
    """Nothing more can be written to the disk of this folder than `spare` bytes."""
    filler = folder / FILLER
    try:
        with filler.open("wb") as file, suppress(OSError):
            state = os.statvfs(folder)
            wanted = state.f_bavail * state.f_frsize - spare
            if wanted > 0:
                os.posix_fallocate(file.fileno(), 0, wanted)
        yield
    finally:
        filler.unlink(missing_ok=True)
