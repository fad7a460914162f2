"""Password changes of many users that arrive late, twice and in any order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from uuid import uuid4

from passrelay_schemas import filetime
from passrelay_schemas.event import PasswordChanged
from tests.lab.directory import Directory
from tests.lab.enrolment import change
from tests.lab.folder import canary_password

_SERIAL = itertools.count(1)
_USERS_AT_ONCE = 8
_CHANGES_OF_ONE = 5
_WINDOW = _USERS_AT_ONCE * _CHANGES_OF_ONE
"""So many deliveries in a row are of the same users; afterwards they are left alone, so that what is stale stays so."""
_TWICE = 0.2
_MUST_CHANGE = 0.1


class LateLoad:
    """`deliveries` changes from a seed; some of them are repeats of an earlier one."""

    def __init__(self, directory: Directory, dice: random.Random, deliveries: int) -> None:
        self.newest: dict[str, PasswordChanged] = {}
        self.deliveries: list[PasswordChanged] = []
        while len(self.deliveries) < deliveries:
            self.deliveries += self._window(dice)
        directory.add_users(self.newest)

    def _window(self, dice: random.Random) -> list[PasswordChanged]:
        names = [f"late{next(_SERIAL)}" for _ in range(_USERS_AT_ONCE)]
        made = [event for name in names for event in self._changes(name, dice)]
        made += dice.sample(made, int(_TWICE * _WINDOW))
        dice.shuffle(made)
        return made

    def _changes(self, name: str, dice: random.Random) -> Iterator[PasswordChanged]:
        guid, rid = uuid4(), 2000 + next(_SERIAL)
        for number in range(1, _CHANGES_OF_ONE + 1):
            self.newest[name] = change(
                name,
                canary_password(),
                guid=guid,
                rid=rid,
                kvno=number,
                changed_at=filetime.now(),
                must_change=dice.random() < _MUST_CHANGE,
            )
            yield self.newest[name]
