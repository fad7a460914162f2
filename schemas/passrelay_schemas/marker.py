"""The marker: what passrelay last wrote to an entry, in one attribute of that entry.

`1 <epoch> <kvno> <changed_at> <guid> <event_id> <applied_at> <flags>`, for example
`1 0 7 134084736000000000 0b6f...e1 0199...7a 2026-11-24T22:42:33.120Z -`. Replacing it is every write's
compare-and-set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self
from uuid import UUID

from passrelay_schemas.errors import MarkerError
from passrelay_schemas.limits import MAX_FILETIME
from passrelay_schemas.order import OrderKey

MUST_CHANGE_DONE = "x"
"""Flag: the after-write step that expires the password (must change at next login) was done."""
FLOOR = "f"
"""Flag: no event wrote this; an operator set it so that only newer changes pass."""
_FLAGS = frozenset({MUST_CHANGE_DONE, FLOOR})
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_NUMBER = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)


@dataclass(frozen=True)
class Marker:
    """One parsed marker value."""

    epoch: int
    kvno: int
    changed_at: int
    """The order key's: a FILETIME whose parts of a second may rank the controller of origin."""
    guid: UUID
    event_id: UUID
    applied_at: str
    flags: frozenset[str] = frozenset()

    @property
    def key(self) -> OrderKey:
        """Its place in the order."""
        return OrderKey.of(epoch=self.epoch, kvno=self.kvno, changed_at=self.changed_at, event_id=self.event_id)

    def with_flag(self, flag: str) -> Self:
        """The same marker with one more flag."""
        return replace(self, flags=self.flags | {flag})

    def __str__(self) -> str:
        flags = "".join(sorted(self.flags)) or "-"
        return f"1 {self.epoch} {self.kvno} {self.changed_at} {self.guid} {self.event_id} {self.applied_at} {flags}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The marker in an attribute value; MarkerError says what is wrong with it."""
        fields = text.split(" ")
        if len(fields) != 8 or fields[0] != "1":
            raise MarkerError("not a marker of version 1: 8 fields and a leading 1 were expected")
        _, epoch, kvno, changed_at, guid, event_id, applied_at, flags = fields
        for name, value in (("epoch", epoch), ("kvno", kvno), ("changed_at", changed_at)):
            if not _NUMBER.fullmatch(value):
                raise MarkerError(f"marker: {name} is not a number")
        if int(changed_at) > MAX_FILETIME:
            raise MarkerError("marker: changed_at lies beyond the year 9999")
        if not _TIME.fullmatch(applied_at) or not _is_time(applied_at):
            raise MarkerError("marker: applied_at is not an RFC 3339 time")
        letters = frozenset() if flags == "-" else frozenset(flags)
        if not letters <= _FLAGS or (flags != "-" and len(letters) != len(flags)):
            raise MarkerError("marker: unknown flags")
        try:
            marker = cls(int(epoch), int(kvno), int(changed_at), UUID(guid), UUID(event_id), applied_at, letters)
        except ValueError:
            raise MarkerError("marker: guid or event_id is not a UUID") from None
        if str(marker) != text:  # the compare-and-set deletes this text: it must be the one that the entry holds
            raise MarkerError("marker: a field is not written as passrelay writes it (UUIDs, order of flags)")
        return marker


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
