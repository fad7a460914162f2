"""When a write is settled: every listed server shows the same one (docs/order.md, docs/adr/0009-settling.md).

IdM's servers are suppliers of each other and the last writer wins, so a compare-and-set at one server can be undone by
an older one at another. A settle copy of each applied event is therefore looked at again until this is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from passrelay_schemas.marker import Marker

REASON = "settle"
"""The reason in every record of a settle copy, whatever its verdict."""


@dataclass(frozen=True)
class Unreachable:
    """A server that could not be asked."""

    why: str


Sight = Marker | Unreachable | None
"""What one server shows of the entry: its marker, or that it has none (None: also when the entry is missing)."""


def unsettled(ours: Marker, elsewhere: Mapping[str, Sight]) -> str:
    """Why a write that the current server shows as `ours` is not settled yet; empty when it is.

    The text of a marker names one write (event id and time). Where all servers show that very write, every older one
    is behind it in each server's replication order and can never come back. "Not older than ours" would not be enough.
    """
    reasons = [reason for url, sight in elsewhere.items() if (reason := _differs(ours, url, sight))]
    return "; ".join(reasons)


def _differs(ours: Marker, url: str, sight: Sight) -> str:
    match sight:
        case Unreachable(why):
            return f"{url} cannot be asked: {why}"
        case None:
            return f"{url} has no marker there"
        case _ if str(sight) != str(ours):
            behind = "an older" if sight.key < ours.key else "another"
            return f"{url} shows {behind} write: replication has not brought them together"
        case _:
            return ""
