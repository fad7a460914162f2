"""The demo's users: the same person in AD and in IdM, and four ways to change a password."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.lab.directory import Directory
from tests.lab.folder import canary_password
from tests.lab.samba import DomainController

WAYS = ("samba-tool", "ldaps-reset", "ldaps-change", "kpasswd")


@dataclass
class Person:
    """One user and all passwords so far, oldest first."""

    name: str
    passwords: list[str]
    ways: list[str] = field(default_factory=list)
    kvno: int = 0
    changed_at: int = 0
    """FILETIME of the newest change, as the DC has it."""

    @property
    def changes(self) -> int:
        """How often the password was changed since the relay runs."""
        return len(self.passwords) - 1


class People:
    """Makes the users and changes their passwords."""

    def __init__(self, dc: DomainController, directory: Directory, names: list[str]) -> None:
        self._dc = dc
        self._directory = directory
        self.all = [Person(name, [canary_password()]) for name in names]

    def create(self) -> None:
        """The users in both directories; IdM's start with another password than AD's."""
        for person in self.all:
            account = self._dc.add_user(person.name, person.passwords[0])
            person.kvno = account["kvno"]
            self._directory.add_user(person.name, canary_password())

    def change(self, person: Person, way: str) -> None:
        """Change one password in one of the four ways."""
        old, new = person.passwords[-1], canary_password()
        ways: dict[str, Callable[[], None]] = {
            "samba-tool": lambda: self._dc.samba_tool_set(person.name, new),
            "ldaps-reset": lambda: self._dc.ldaps_reset(person.name, new),
            "ldaps-change": lambda: self._dc.ldaps_change(person.name, old, new),
            "kpasswd": lambda: self._dc.kpasswd(person.name, old, new),
        }
        ways[way]()
        person.passwords.append(new)
        if way not in person.ways:
            person.ways.append(way)
        account = self._dc.account(person.name)
        person.kvno, person.changed_at = account["kvno"], account["pwdLastSet"]
