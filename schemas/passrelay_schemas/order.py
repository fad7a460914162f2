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


@dataclass(frozen=True, order=True)
class OrderKey:
    """(epoch, kvno, changed_at, capture), compared in this order.

    AD resolves equal versions by the originating time in whole seconds ([MS-DRSR] 4.1.10.6.11), so with a version the
    time is cut to its second: the same replicated change, seen on two DCs, has one key. Without a version the full
    FILETIME counts, and of two changes with one time the later captured one, by its event id.
    """

    epoch: int
    kvno: int
    changed_at: int
    capture: int = 0

    @classmethod
    def of(cls, *, epoch: int, kvno: int, changed_at: int, event_id: UUID) -> Self:
        """The key of a change or of a marker; `changed_at` in FILETIME units, `event_id` a UUIDv7."""
        if kvno:
            return cls(epoch, kvno, changed_at - changed_at % UNITS_PER_SECOND)
        return cls(epoch, kvno, changed_at, event_id.int)

    @property
    def place(self) -> tuple[int, int, int]:
        """Without the tie-break: what a floor is compared by."""
        return self.epoch, self.kvno, self.changed_at

    @property
    def order(self) -> Order:
        """The kind of order that it belongs to."""
        return Order.KVNO if self.kvno else Order.TIME
