"""Which of two changes is newer: AD's own rule, version before time (docs/adr/0003-order.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from passrelay_schemas.filetime import UNITS_PER_SECOND


class Order(StrEnum):
    """How a domain's changes are ordered; fixed at its enrolment, never mixed."""

    KVNO = "kvno"  # Active Directory: the replication version of unicodePwd decides, then its time
    TIME = "time"  # a source without versions (stdin without AD)


@dataclass(frozen=True, order=True)
class OrderKey:
    """(epoch, kvno, changed_at), compared in this order.

    AD resolves equal versions by the originating time in whole seconds ([MS-DRSR] 4.1.10.6.11), so with a version the
    time is cut to its second: the same replicated change, seen on two DCs, has one key. Without a version the full
    FILETIME counts.
    """

    epoch: int
    kvno: int
    changed_at: int

    @classmethod
    def of(cls, *, epoch: int, kvno: int, changed_at: int) -> Self:
        """The key of a change or of a marker; `changed_at` in FILETIME units."""
        if kvno:
            changed_at -= changed_at % UNITS_PER_SECOND
        return cls(epoch, kvno, changed_at)
