"""Replicating directory servers in memory: last writer wins by CSN, attribute by attribute, and IPA's expiry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import ldap3

from passrelay_consumer.directory import Directory, generalized_time, parse_generalized_time
from passrelay_consumer.ldap_messages import Changes, Scope
from passrelay_consumer.result_codes import DirectoryError
from passrelay_schemas.idm_settings import IdmSettings

DN = "uid=alice,cn=users,cn=accounts,dc=idm,dc=test"
BEGIN = datetime(2026, 11, 24, 12, tzinfo=UTC)
LIFE = timedelta(days=90)
"""What IPA's password policy gives a new password (krbMaxPwdLife)."""

Csn = tuple[int, int]
"""Seconds and server: a total order as in 389-ds, whose CSN also has a sequence number within the second."""
Operation = tuple[Csn, Mapping[str, list[bytes]]]


@dataclass
class Supplier:
    """One server with the one entry. `ahead`: how far its clock is ahead, in seconds."""

    number: int
    ahead: int
    peers: list[Supplier] = field(default_factory=list)
    values: dict[str, list[bytes]] = field(default_factory=dict)
    csns: dict[str, Csn] = field(default_factory=dict)
    arriving: dict[int, deque[Operation]] = field(default_factory=dict)
    """From each other server, in the order in which that one made them."""
    seen: int = 0
    time: int = 0

    def __post_init__(self) -> None:
        self.values = {
            "objectClass": [b"person", b"krbPrincipalAux", b"passrelayAccount"],
            "krbPrincipalName": [b"alice@IDM.TEST"],
            "createTimestamp": [b"20260101000000Z"],
        }

    @property
    def url(self) -> str:
        return f"ldaps://{'abc'[self.number]}.idm.test"

    @property
    def now(self) -> datetime:
        """Never the same as on another server: a marker's text must name one write (docs/order.md, assumptions)."""
        return BEGIN + timedelta(seconds=self.time + self.ahead, milliseconds=self.number)

    def modify(self, changes: Changes) -> None:
        """All or nothing, as one operation with one CSN. DirectoryError 16 and 20 as 389-ds gives them."""
        new = {name: self._changed(name, steps) for name, steps in changes.items()}
        if "userPassword" in new:
            new["krbLastPwdChange"] = [generalized_time(self.now)]
            new["krbPasswordExpiration"] = [generalized_time(self.now + LIFE)]
        self.seen = max(self.seen + 1, self.time + self.ahead)
        operation = ((self.seen, self.number), new)
        self._take(operation)
        for peer in self.peers:
            peer.arriving.setdefault(self.number, deque()).append(operation)

    def _changed(self, name: str, steps: list[tuple[str, list[bytes]]]) -> list[bytes]:
        values = list(self.values.get(name, []))
        for kind, given in steps:
            if kind == ldap3.MODIFY_REPLACE:
                values = list(given)
            elif kind == ldap3.MODIFY_DELETE:
                if not set(given) <= set(values):
                    raise DirectoryError(16, "no such value")
                values = [value for value in values if value not in given]
            else:
                if values:
                    raise DirectoryError(20, "type or value exists")
                values = list(given)
        return values

    def _take(self, operation: Operation) -> None:
        csn, new = operation
        for name, values in new.items():
            if csn > self.csns.get(name, (0, 0)):
                self.csns[name], self.values[name] = csn, list(values)

    def receive(self, source: int) -> bool:
        """The next operation from another server; False when there is none."""
        waiting = self.arriving.get(source)
        if not waiting:
            return False
        operation = waiting.popleft()
        self.seen = max(self.seen, operation[0][0])
        self._take(operation)
        return True

    @property
    def password(self) -> str:
        return self.values["userPassword"][0].decode()

    @property
    def expired(self) -> bool:
        """The must-change step was done: the password has not the life that the policy gives."""
        times = [parse_generalized_time(self.values[name][0]) for name in ("krbLastPwdChange", "krbPasswordExpiration")]
        changed, expires = [moment for moment in times if moment is not None]
        return expires - changed < LIFE / 2


class MemoryDirectory(Directory):
    """The consumer's own Directory, on a server in memory; what happens before and after each call is the test's."""

    def __init__(
        self, supplier: Supplier, idm: IdmSettings, *, before: Callable[[], None], after_modify: Callable[[], None]
    ) -> None:
        super().__init__(supplier.url, idm)
        self._supplier = supplier
        self._before = before
        self._after_modify = after_modify

    def lists_us(self) -> bool:
        """Always, and no event of the model lies between this look and the write."""
        return True

    def _search(
        self, base: str, search_filter: bytes, scope: Scope, attributes: tuple[str, ...], *, most: int
    ) -> list[tuple[str, dict[str, list[bytes]]]]:
        self._before()
        found = {name: values for name, values in self._supplier.values.items() if name in attributes and values}
        return [(DN, found)]

    def modify(self, dn: str, changes: Changes) -> None:
        self._before()
        self._supplier.modify(changes)
        self._after_modify()
