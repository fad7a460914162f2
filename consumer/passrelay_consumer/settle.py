"""When a write is settled: every listed server shows the same one (docs/order.md, docs/adr/0009-settling.md).

IdM's servers are suppliers of each other and the last writer wins, so a compare-and-set at one server can be undone by
an older one at another. A settle copy of each applied event is therefore looked at again until this is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from passrelay_consumer.decide import Entry

REASON = "settle"
"""The reason in every record of a settle copy, whatever its verdict."""


@dataclass(frozen=True)
class Unreachable:
    """A server that could not be asked."""

    why: str


Sight = Entry | Unreachable | None
"""What one server shows: the entry, or that it is missing there."""


def unsettled(ours: Entry, elsewhere: Mapping[str, Sight]) -> str:
    """Why a write that the current server shows in `ours` is not settled yet; empty when it is.

    The text of marker and proof names one write (event id and time). Where all servers show that very write, every
    older one is behind it in each server's replication order and can never come back. "Not older than ours" would not
    be enough.
    """
    reasons = [reason for url, sight in elsewhere.items() if (reason := _differs(ours, url, sight))]
    return "; ".join(reasons)


def may_begin(entry: Entry, since: datetime | None) -> bool:
    """Whether a settle copy may write to an entry that has no marker here: only to one that was there at its write.

    A younger entry of the same name may be another person's, who came after the first one left.
    """
    return since is not None and entry.created_at is not None and entry.created_at <= since


def _differs(ours: Entry, url: str, sight: Sight) -> str:
    match sight:
        case Unreachable(why):
            return f"{url} cannot be asked: {why}"
        case None:
            return f"{url} has no such entry"
        case Entry(marker=marker, proof=proof) if (marker, proof) != (ours.marker, ours.proof):
            return f"{url} shows another write: replication has not brought them together"
        case _:
            return ""
