"""Which of two changes is newer: AD's own rule, version before time (docs/adr/0003-order.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from uuid import UUID

from passrelay_schemas.filetime import UNITS_PER_SECOND


class Order(StrEnum):
    """How a domain's changes are ordered; fixed at its enrolment, never mixed."""

    KVNO = "kvno"  # Active Directory: the replication version of unicodePwd decides, then its time
    TIME = "time"  # a source without versions (stdin without AD)


def rank(origin: UUID) -> int:
    """The place of an invocationId among all, below UNITS_PER_SECOND: Samba and AD compare them as numbers."""
    return (origin.int * UNITS_PER_SECOND) >> 128


@dataclass(frozen=True, order=True)
class OrderKey:
    """(epoch, kvno, changed_at, capture), compared in this order.

    AD resolves equal versions by the originating time in whole seconds, and equal seconds by the originating
    invocationId ([MS-DRSR] 5.11, AttributeStampCompare). Where the origin is known the time is therefore cut to its
    second, and the origin's rank stands in the place of the parts of a second: the same replicated change, seen on two
    DCs, has one key, and of two changes in one second the one wins that AD keeps. Without an origin the full FILETIME
    counts. In a domain without versions the later captured of two changes with one time wins, by its event id.
    """

    epoch: int
    kvno: int
    changed_at: int
    capture: int = 0

    @classmethod
    def of(cls, *, epoch: int, kvno: int, changed_at: int, event_id: UUID, origin: UUID | None = None) -> Self:
        """The key of a change or of a marker; `changed_at` in FILETIME units, `event_id` a UUIDv7."""
        if not kvno:
            return cls(epoch, kvno, changed_at, event_id.int)
        if origin is None:
            return cls(epoch, kvno, changed_at)
        return cls(epoch, kvno, changed_at - changed_at % UNITS_PER_SECOND + rank(origin))

    @property
    def place(self) -> tuple[int, int, int]:
        """Without the tie-break: what a floor is compared by."""
        return self.epoch, self.kvno, self.changed_at

    @property
    def order(self) -> Order:
        """The kind of order that it belongs to."""
        return Order.KVNO if self.kvno else Order.TIME
