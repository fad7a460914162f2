"""From a real domain controller to the directory: who changes, when the controller has answered, when it arrived."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from tests.bench.arrivals import Arrivals
from tests.bench.spread import p50, p99
from tests.lab.changes import replace_values, unicode_pwd
from tests.lab.directory_connection import refused_logins
from tests.lab.directory_tree import add, user
from tests.lab.enrolment import DOMAIN_SID
from tests.lab.folder import canary_password
from tests.lab.lab import Lab
from tests.lab.process import LabError, wait_for
from tests.lab.relay import Service
from tests.lab.samba import DomainController

PRODUCER, LOAD = "dc1", "load"
LOAD_DOMAIN = "load.example"
_SENTINEL = "sentinel"


class Passage:
    """How long one run's changes took, in milliseconds, and how many of them a second."""

    def __init__(self, milliseconds: Sequence[float], seconds: float) -> None:
        self.milliseconds = milliseconds
        self.per_second = len(milliseconds) / max(seconds, 1e-9)

    @property
    def p50(self) -> float:
        """Milliseconds."""
        return p50(self.milliseconds)

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return p99(self.milliseconds)


class Crossing:
    """A context around a lab with a controller: users on both sides, and passrelay's two processes, not started.

    A change is made over one LDAPS connection of an administrator that stays open, and counts from the moment when the
    controller's answer is here: it has committed by then. It has arrived when the directory says that the entry is
    modified, and after each run every user must be able to log in with his newest password.
    """

    def __init__(self, lab: Lab, users: Sequence[str]) -> None:
        if lab.dc is None:
            raise LabError("a crossing begins at a domain controller")
        self.lab = lab
        self.dc: DomainController = lab.dc
        self.users = list(users)
        self.passwords: dict[str, str] = {}
        self._stack = ExitStack()
        self._dns: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            self._add_users()
            self.arrivals = self._stack.enter_context(Arrivals(self.lab.directory))
            self.producer, self.consumer = self._services()
            self.reconnect()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _add_users(self) -> None:
        with self.lab.directory.manager() as manager:
            for number, name in enumerate([*self.users, _SENTINEL]):
                self.passwords[name] = canary_password()
                self._dns[name] = self.dc.add_user(name, self.passwords[name])["dn"]
                entry = user(name, number, {"userPassword": [canary_password()]})
                add(manager, self.lab.directory.user_dn(name), entry)

    def _services(self) -> tuple[Service, Service]:
        """With every setting at its default."""
        relay, base = self.lab.relay, self.lab.directory.search_base
        for name in (PRODUCER, LOAD):
            relay.enrolment.enrol(name)
        relay.prepare(
            domains=[
                {"name": self.dc.dns_domain, "sid": self.dc.sid, "producers": [PRODUCER], "search_base": base},
                {"name": LOAD_DOMAIN, "sid": DOMAIN_SID, "producers": [LOAD], "search_base": base},
            ]
        )
        samba = {"ldapi_path": self.dc.ldapi_path, "gpg_key_file": self.dc.gpg_key_file}
        return relay.samba_producer(PRODUCER, samba), relay.consumer("consumer")

    def reconnect(self) -> None:
        """After a start of the controller."""
        self._administrator: Any = self._stack.enter_context(
            self.dc._ldaps("Administrator", self.dc.administrator_password)
        )

    def change(self, name: str) -> float:
        """One more password of a user; the moment when the controller had answered."""
        made = canary_password()
        replace_values(self._administrator, self._dns[name], {"unicodePwd": unicode_pwd(made)})
        answered = time.time()
        self.passwords[name] = made
        return answered

    def cross(self, name: str) -> float:
        """One change, waited for: milliseconds."""
        seen = self.arrivals.count(name)
        answered = self.change(name)
        return (self.arrivals.after(name, seen) - answered) * 1000

    def warm_up(self) -> None:
        """One change, for processes that have nothing to catch up with."""
        self.cross(_SENTINEL)

    def catch_up(self, silence: float) -> None:
        """Wait until whoever carries now has carried all that was changed before, and what is changed now.

        Every newest password logs in, and nothing more was written for so many seconds: a peer that has begun anew may
        write passwords again that another one has brought.
        """
        self.change(_SENTINEL)
        wait_for(
            lambda: not self._refused([*self.users, _SENTINEL]) and self.arrivals.silence > silence,
            what="the backlog of changes in the directory",
            timeout_seconds=600,
            interval_seconds=0.2,
        )

    def pass_all(self) -> Passage:
        """One change of every user, one after the other as fast as the controller makes them."""
        seen = {name: self.arrivals.count(name) for name in self.users}
        began = time.time()
        answered = {name: self.change(name) for name in self.users}
        arrived = {name: self.arrivals.after(name, seen[name]) for name in self.users}
        self.prove(self.users)
        times = [(arrived[name] - answered[name]) * 1000 for name in self.users]
        return Passage(times, max(arrived.values()) - began)

    def prove(self, names: Sequence[str]) -> None:
        """LabError unless each of them logs in with his newest password."""
        if refused := self._refused(names):
            raise LabError(f"the newest passwords of {', '.join(refused)} do not bind")

    def _refused(self, names: Sequence[str]) -> list[str]:
        directory = self.lab.directory
        passwords = {directory.user_dn(name): self.passwords[name] for name in names}
        refused = refused_logins(directory.listening.ldaps, directory.ca_file, passwords)
        return [dn.partition(",")[0] for dn in refused]
