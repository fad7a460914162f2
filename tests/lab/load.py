"""Load of known outcome: users, their changes in any order, and what must be true at the end."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from passrelay_schemas import filetime
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.marker import Marker
from tests.lab.directory import Directory
from tests.lab.enrolment import DOMAIN, DOMAIN_SID, change
from tests.lab.folder import canary_password

_SERIAL = itertools.count(1)


@dataclass(frozen=True)
class Change:
    """One password of one user."""

    sam: str
    guid: UUID
    rid: int
    kvno: int
    changed_at: int
    password: str

    def event(self) -> PasswordChanged:
        """As an event."""
        return change(self.sam, self.password, guid=self.guid, kvno=self.kvno, changed_at=self.changed_at, rid=self.rid)

    def line(self) -> dict[str, Any]:
        """As a line of the stdin source."""
        return {
            "domain": DOMAIN,
            "account": {"guid": str(self.guid), "sid": f"{DOMAIN_SID}-{self.rid}", "sam_account_name": self.sam},
            "password": self.password,
            "kvno": self.kvno,
            "changed_at": self.changed_at,
        }


class Population:
    """Some users in the directory and the history of their passwords."""

    def __init__(self, directory: Directory, users: int, *, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.history: dict[str, list[Change]] = {}
        self._identity: dict[str, tuple[UUID, int]] = {}
        for _ in range(users):
            number = next(_SERIAL)
            name = f"population{number}"  # long: megabytes of base64 have each word of five letters now and then
            directory.add_user(name, canary_password())
            self.history[name] = []
            self._identity[name] = (uuid4(), 2000 + number)

    def changes(self, count: int) -> list[Change]:
        """Some more changes, oldest first, spread over the users at random; every user has at least one."""
        names = list(self.history)
        chosen = names + [self.random.choice(names) for _ in range(count - len(names))]
        return [self.change(name) for name in chosen[:count]]

    def change(self, name: str) -> Change:
        """One more change of one user."""
        guid, rid = self._identity[name]
        earlier = self.history[name]
        made = Change(name, guid, rid, len(earlier) + 1, filetime.now(), canary_password())
        earlier.append(made)
        return made

    def newest(self) -> dict[str, Change]:
        """Each user's newest change."""
        return {name: made[-1] for name, made in self.history.items() if made}

    def faults(self, *, older: int = 3) -> list[str]:
        """Everything that is wrong at the directory now: newest binds, older ones do not, marker at the newest kvno."""
        with ThreadPoolExecutor(4) as pool:
            return [
                fault for faults in pool.map(lambda name: self._faults(name, older), self.history) for fault in faults
            ]

    def _faults(self, name: str, older: int) -> list[str]:
        made = self.history[name]
        if not made:
            return []
        faults = []
        marker = self.directory.read(name).get("passrelayMarker")
        kvno = Marker.parse(marker[0]).kvno if marker else None
        if kvno != made[-1].kvno:
            faults.append(f"{name}: marker at kvno {kvno}, newest is {made[-1].kvno}")
        if not self.directory.binds(name, made[-1].password):
            faults.append(f"{name}: the newest password (kvno {made[-1].kvno}) does not bind")
        faults += [
            f"{name}: the older password of kvno {old.kvno} still binds"
            for old in made[-1 - older : -1]
            if self.directory.binds(name, old.password)
        ]
        return faults
