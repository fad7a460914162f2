"""What became of each event: the journal, read on from where it was read last, without envelopes and notes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from passrelay_consumer.settle import REASON
from passrelay_ops.stream import read
from passrelay_schemas import record, topology
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import FINAL, Verdict
from tests.faults.site import Site


class Outcomes:
    """By event id, every record in the journal's order."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._next: int | None = None
        self.records: defaultdict[str, list[Record]] = defaultdict(list)

    def update(self) -> None:
        """Read what is new; LabError when the broker does not answer."""
        with self._site.connected() as connection:
            for message in read(connection, topology.JOURNAL, since=self._next):
                self._next = message.offset + 1
                found = record.decode(message.body).model_copy(update={"envelope": None, "note": None})
                self.records[str(found.event_id)].append(found)

    def final(self, event_id: str) -> list[Record]:
        """The records that end it; those of its settle copies are none."""
        return [found for found in self.records.get(event_id, ()) if found.verdict in FINAL and found.reason != REASON]

    def undecided(self, event_ids: Iterable[str]) -> list[str]:
        """Those without an outcome."""
        return [event_id for event_id in event_ids if not self.final(event_id)]

    def only_dead(self, event_id: str) -> bool:
        """It was given up, and nothing came of it later."""
        found = self.final(event_id)
        return bool(found) and all(each.verdict is Verdict.DEAD for each in found)

    def contradicts_itself(self, event_id: str, *, repaired: frozenset[str]) -> bool:
        """It is dead for a reason that no repair of ours mends, and it is not dead.

        One outcome it may have several times: applied, and a duplicate or superseded where a copy came again.
        """
        found = self.final(event_id)
        dead = [each for each in found if each.verdict is Verdict.DEAD and each.reason not in repaired]
        return bool(dead) and len(dead) < len(found)

    def unsettled(self) -> list[str]:
        """Events that were written, and whose settle copy has not said yet that it has done its work."""
        return [event_id for event_id, records in self.records.items() if _is_unsettled(records)]

    def counts(self) -> dict[str, int]:
        """How many events by their first outcome, and how many were written, and written again by settling."""
        first = Counter(found[0].verdict.value for event_id in list(self.records) if (found := self.final(event_id)))
        everything = [each for records in self.records.values() for each in records if each.verdict is Verdict.APPLIED]
        again = sum(each.reason == REASON for each in everything)
        return {**first, "writes": len(everything) - again, "written_again": again}

    def history(self, event_id: str) -> list[dict[str, Any]]:
        """All that the journal says of one event."""
        shown = {"verdict", "reason", "server", "attempts", "replays", "captured_at", "received_at", "applied_at"}
        return [
            each.model_dump(mode="json", include=shown, exclude_none=True) for each in self.records.get(event_id, ())
        ]


def _is_unsettled(records: list[Record]) -> bool:
    # Superseded: a newer event's own copy is on its way, and looks after the entry.
    told = [each for each in records if each.reason == REASON or each.verdict in (Verdict.APPLIED, Verdict.SUPERSEDED)]
    return bool(told) and told[-1].verdict is Verdict.APPLIED
