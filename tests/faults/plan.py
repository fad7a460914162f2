"""Which fault happens to whom, when and for how long: drawn from a seed, pure, before anything starts."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

PRODUCERS = ("dc1", "dc2", "dc3")
"""Simulated controllers: lines on standard input, a spool each."""
SAMBA_PRODUCER = "ad1"
"""On the real domain controller."""
CONSUMERS = ("c1", "c2", "c3")
ALL_PRODUCERS = (*PRODUCERS, SAMBA_PRODUCER)
CLIENTS = (*ALL_PRODUCERS, *CONSUMERS)
DIRECTORIES = ("a", "b")
ODD_CLOCKS = ("dc3", "c3")
"""Whose clocks can be moved while they run."""
FAR = "c3"
"""Has a key directory of its own."""


class Kind(StrEnum):
    """What is done."""

    PRODUCER_KILLED = "producer_killed"
    PRODUCER_ABORTED = "producer_aborted"
    """By SIGABRT, after which a system may keep a core file."""
    PRODUCER_STOPPED = "producer_stopped"
    """SIGSTOP, later SIGCONT; so are the others of this name."""
    PRODUCER_RESTARTED = "producer_restarted"
    CONSUMER_KILLED = "consumer_killed"
    CONSUMER_ABORTED = "consumer_aborted"
    CONSUMER_STOPPED = "consumer_stopped"
    CONSUMER_RESTARTED = "consumer_restarted"
    DIRECTORY_KILLED = "directory_killed"
    DIRECTORY_STOPPED = "directory_stopped"
    DIRECTORY_READ_ONLY = "directory_read_only"
    DIRECTORY_SLOW = "directory_slow"
    DIRECTORY_NO_CONNECTIONS = "directory_no_connections"
    DIRECTORY_HIDDEN = "directory_hidden"
    """From all consumers, who fail over; it still replicates."""
    DIRECTORIES_APART = "directories_apart"
    DIRECTORIES_APART_AND_HIDDEN = "directories_apart_and_hidden"
    """The first takes writes alone, then the second: the cut that can undo a newer password."""
    DIRECTORY_AWAY = "directory_away"
    """From one consumer only: two consumers write to different servers."""
    DIRECTORY_LATE = "directory_late"
    """What one consumer writes arrives seconds after it has given up waiting, and after others have written."""
    BROKER_KILLED = "broker_killed"
    BROKER_STOPPED = "broker_stopped"
    BROKER_RESTARTED = "broker_restarted"
    BROKER_AWAY = "broker_away"
    """From one client: connections are reset and refused."""
    BROKER_SILENT = "broker_silent"
    """From one client: what it sends is swallowed, and nobody tells it."""
    SAMBA_KILLED = "samba_killed"
    SAMBA_STOPPED = "samba_stopped"
    SPOOL_FULL = "spool_full"
    BROKER_FULL = "broker_full"
    CLOCK_AHEAD = "clock_ahead"
    CLOCK_BEHIND = "clock_behind"
    REPEATED = "repeated"
    """Copies of recent envelopes are published again, shuffled."""
    STRANGERS = "strangers"
    """Somebody with a producer's broker login publishes forged, altered and broken envelopes."""
    CERTIFICATE_RENEWED = "certificate_renewed"
    SIGNING_ROTATED = "signing_rotated"
    SIGNING_REVOKED = "signing_revoked"
    RECIPIENT_ROTATED = "recipient_rotated"
    OLD_KEYRING = "old_keyring"
    """A recipient key is rotated and used before the far consumer has it."""
    LATE_USERS = "late_users"
    """Changes of users who are not in IdM yet: retries, then dead letters."""
    REPLAYED = "replayed"
    """`passrelay dead replay` of whatever is dead."""
    NODE_LOST = "node_lost"
    """One of the cluster's nodes, long enough for the others to elect."""
    NODES_APART = "nodes_apart"
    """One of the cluster's nodes runs, and neither reaches the others nor is reached by them."""


CLUSTER_ONLY = frozenset({Kind.NODE_LOST, Kind.NODES_APART})


@dataclass(frozen=True)
class Fault:
    """One fault; times in seconds from the beginning of the load."""

    number: int
    kind: Kind
    target: str
    at: float
    seconds: float
    dice: int
    """The seed of its own choices."""

    @property
    def until(self) -> float:
        """When it is undone."""
        return self.at + self.seconds

    def document(self) -> dict[str, str | float]:
        """For the document's schedule."""
        return {"kind": self.kind.value, "target": self.target, "at": self.at, "seconds": self.seconds}


@dataclass(frozen=True)
class _Way:
    targets: tuple[str, ...]
    seconds: tuple[float, float]
    holds: str = "{target}"
    """What no other fault may touch meanwhile, names separated by blanks."""


_KEYS = "keys {target}"
_WAYS: dict[Kind, _Way] = {
    Kind.PRODUCER_KILLED: _Way(ALL_PRODUCERS, (0, 4)),
    Kind.PRODUCER_ABORTED: _Way(ALL_PRODUCERS, (0, 2)),
    Kind.PRODUCER_STOPPED: _Way(ALL_PRODUCERS, (2, 10)),
    Kind.PRODUCER_RESTARTED: _Way(ALL_PRODUCERS, (0, 2)),
    Kind.CONSUMER_KILLED: _Way(CONSUMERS, (0, 4)),
    Kind.CONSUMER_ABORTED: _Way(CONSUMERS, (0, 2)),
    Kind.CONSUMER_STOPPED: _Way(CONSUMERS, (2, 12)),
    Kind.CONSUMER_RESTARTED: _Way(CONSUMERS, (0, 2)),
    Kind.DIRECTORY_KILLED: _Way(DIRECTORIES, (1, 6), "{target} link"),
    Kind.DIRECTORY_STOPPED: _Way(DIRECTORIES, (2, 12)),
    Kind.DIRECTORY_READ_ONLY: _Way(DIRECTORIES, (2, 8)),
    Kind.DIRECTORY_SLOW: _Way(DIRECTORIES, (3, 10), "{target} doors"),
    Kind.DIRECTORY_NO_CONNECTIONS: _Way(DIRECTORIES, (3, 10), "{target} doors"),
    Kind.DIRECTORY_HIDDEN: _Way(DIRECTORIES, (3, 10), "doors"),
    Kind.DIRECTORIES_APART: _Way(("a+b",), (3, 8), "link"),
    Kind.DIRECTORIES_APART_AND_HIDDEN: _Way(("a",), (4, 8), "link doors a b"),
    Kind.DIRECTORY_AWAY: _Way(CONSUMERS, (4, 10), "doors"),
    Kind.DIRECTORY_LATE: _Way(CONSUMERS, (7, 10), "doors {target}"),
    Kind.BROKER_KILLED: _Way(("broker",), (0, 4)),
    Kind.BROKER_STOPPED: _Way(("broker",), (2, 8)),
    Kind.BROKER_RESTARTED: _Way(("broker",), (0, 2)),
    Kind.BROKER_AWAY: _Way(CLIENTS, (2, 10)),
    Kind.BROKER_SILENT: _Way(CLIENTS, (3, 10)),
    Kind.SAMBA_KILLED: _Way(("samba",), (1, 4)),
    Kind.SAMBA_STOPPED: _Way(("samba",), (2, 8)),
    Kind.SPOOL_FULL: _Way(ALL_PRODUCERS, (3, 8)),
    Kind.BROKER_FULL: _Way(("broker",), (4, 10)),
    Kind.CLOCK_AHEAD: _Way(ODD_CLOCKS, (4, 12), "clock-{target}"),
    Kind.CLOCK_BEHIND: _Way(ODD_CLOCKS, (4, 12), "clock-{target}"),
    Kind.REPEATED: _Way(("queue",), (0, 1)),
    Kind.STRANGERS: _Way(("queue",), (0, 1)),
    Kind.CERTIFICATE_RENEWED: _Way((*PRODUCERS, *CONSUMERS), (0, 1)),
    Kind.SIGNING_ROTATED: _Way(PRODUCERS, (1, 4), _KEYS),
    Kind.SIGNING_REVOKED: _Way(PRODUCERS, (1, 4), _KEYS),
    Kind.RECIPIENT_ROTATED: _Way(("recipient",), (0, 3), _KEYS),
    Kind.OLD_KEYRING: _Way((FAR,), (3, 8), _KEYS),
    Kind.LATE_USERS: _Way(("users",), (35, 45)),
    Kind.REPLAYED: _Way(("letters",), (0, 1)),
    Kind.NODE_LOST: _Way(("broker",), (6, 15)),
    Kind.NODES_APART: _Way(("broker",), (6, 15)),
}
_FIRST_AT, _LONGEST_GAP = 4.0, 4.0
AT_ONCE = 4
_PAUSE = 1.0
"""Between two faults at one place."""


@dataclass(frozen=True)
class Plan:
    """All faults, in the order of their beginnings."""

    seed: int
    faults: tuple[Fault, ...]

    @property
    def ends_at(self) -> float:
        """When the last one is undone."""
        return max((fault.until for fault in self.faults), default=0.0)


def draw(
    seed: int,
    *,
    seconds: float | None = None,
    count: int | None = None,
    kinds: Sequence[Kind] = tuple(Kind),
    at_once: int = AT_ONCE,
    nodes: int = 1,
) -> Plan:
    """The faults of so many seconds, or so many faults; in every round each kind comes once, in another order.

    At most `at_once` overlap, and two that touch the same thing never do. Without a limit ValueError.
    """
    if seconds is None and count is None:
        raise ValueError("seconds or count")
    usable = [kind for kind in kinds if nodes > 1 or kind not in CLUSTER_ONLY]
    faults = _faults(random.Random(f"passrelay faults {seed}"), usable, at_once)
    found: list[Fault] = []
    for fault in islice(faults, count):
        if seconds is not None and fault.at >= seconds:
            break
        found.append(fault)
    return Plan(seed, tuple(found))


def _faults(dice: random.Random, kinds: Collection[Kind], at_once: int) -> Iterator[Fault]:
    busy: list[tuple[float, frozenset[str]]] = []
    at, number = _FIRST_AT, 0
    while kinds:
        for kind in dice.sample(list(kinds), len(kinds)):
            way = _WAYS[kind]
            target = dice.choice(way.targets)
            holds = frozenset(way.holds.format(target=target).split())
            seconds = round(dice.uniform(*way.seconds), 1)
            at = _free(at + dice.uniform(0.2, _LONGEST_GAP), holds, busy, at_once)
            number += 1
            yield Fault(number, kind, target, round(at, 1), seconds, dice.getrandbits(32))
            busy = [(end, held) for end, held in busy if end > at] + [(at + seconds + _PAUSE, holds)]


def _free(at: float, holds: frozenset[str], busy: list[tuple[float, frozenset[str]]], at_once: int) -> float:
    """The first moment from `at` on when nothing of `holds` is in use and a place is left."""
    while True:
        now = [(end, held) for end, held in busy if end > at]
        against = [end for end, held in now if held & holds]
        if against:
            at = max(against)
        elif len(now) >= at_once:
            at = min(end for end, _ in now)
        else:
            return at
