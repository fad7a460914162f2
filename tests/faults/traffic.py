"""The load: people who change their passwords again and again for a while, then never again.

A few are active at a time, so that whatever goes wrong with one of them is not covered up by his next change.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from ldap3.core.exceptions import LDAPException

from passrelay_schemas import filetime
from tests.faults.source import Source
from tests.lab.folder import canary_password
from tests.lab.load import Change
from tests.lab.process import LabError
from tests.lab.samba import DomainController

ACTIVE, CHANGES = 24, 8
"""People at a time, and changes of each."""
_TWICE = 0.2
"""So many changes are captured on two controllers, as every replicated one is."""
SAMBA_SECONDS = 1.0
"""Between two changes at the real controller."""


@dataclass
class Person:
    """One user of the simulated domain and all his passwords, oldest first."""

    name: str
    rid: int
    guid: UUID = field(default_factory=uuid4)
    history: list[Change] = field(default_factory=list)

    def change(self) -> Change:
        """One more."""
        number = len(self.history) + 1
        made = Change(self.name, self.guid, self.rid, number, filetime.now(), canary_password())
        self.history.append(made)
        return made


class Traffic:
    """`per_second` changes, from `start` to `stop`, spread over the controllers."""

    def __init__(self, sources: list[Source], dice: random.Random, *, per_second: float, seconds: float) -> None:
        self._sources = sources
        self._dice = dice
        self._per_second = per_second
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        # A campaign lasts longer than planned: its last faults are still being undone.
        people = int(2 * per_second * seconds / CHANGES) + ACTIVE
        self._crowd = [self._person("u") for _ in range(people)]
        self.people: list[Person] = []
        """Who has made at least one change."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def names(self) -> list[str]:
        """Everybody who will take part."""
        return [person.name for person in self._crowd]

    def _person(self, prefix: str) -> Person:
        number = next(self._numbers)
        return Person(f"{prefix}{number}", 2000 + number)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more changes."""
        self._over.set()
        self._thread.join()

    def strangers(self, prefix: str, count: int) -> list[Person]:
        """People who are not in IdM yet, each with three changes on the way."""
        made = [self._person(prefix) for _ in range(count)]
        for person in made * 3:
            self._change(person)
        return made

    def _run(self) -> None:
        began, waiting = time.monotonic(), iter(self._crowd)
        active = list(itertools.islice(waiting, ACTIVE))
        for number in itertools.count(1):
            if self._over.wait(max(0.0, began + number / self._per_second - time.monotonic())) or not active:
                return
            place = self._dice.randrange(len(active))
            self._change(active[place])
            if len(active[place].history) >= CHANGES:
                del active[place]
                active += itertools.islice(waiting, 1)

    def _change(self, person: Person) -> None:
        with self._lock:
            if not person.history:
                self.people.append(person)
            made = person.change()
            chosen = self._dice.sample(self._sources, 2 if self._dice.random() < _TWICE else 1)
        for source in chosen:
            source.take(made)


class SambaTraffic:
    """Resets at the real controller; one that failed may have been done or not, so AD itself is asked at the end."""

    def __init__(self, dc: DomainController, dice: random.Random, people: int) -> None:
        self._dc = dc
        self._dice = dice
        self.names = [f"ad{number}" for number in range(1, people + 1)]
        self.passwords: dict[str, list[str]] = {}
        """Every password that was asked for, oldest first."""
        self.made = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def prepare(self) -> None:
        """Make the users, before the producer begins."""
        for name in self.names:
            self.passwords[name] = [canary_password()]
            self._dc.add_user(name, self.passwords[name][0])

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """No more changes."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(SAMBA_SECONDS):
            self.reset(self._dice.choice(self.names))

    def reset(self, name: str) -> bool:
        """One more password of a user; False when the controller did not say that it was done."""
        made = canary_password()
        self.passwords[name].append(made)
        try:
            self._dc.ldaps_reset(name, made)
        except (LabError, LDAPException, OSError):
            return False
        self.made += 1
        return True

    def newest(self, name: str) -> str:
        """The one that AD has."""
        for password in reversed(self.passwords[name]):
            if self._dc.binds(name, password):
                return password
        raise LabError(f"{name}: AD takes none of his passwords")
