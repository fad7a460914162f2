"""How dead letters look: the table of `dead list`, the page and document of `dead show`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from passrelay_ops.dead_letters import Letter, repair
from passrelay_ops.notes import Notes
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import Verdict


def table(letters: list[Letter]) -> Table:
    """One row a letter."""
    result = Table("event", "state", "reason", "account", "producer", "domain", "tries", "first failed", "last failed")
    for letter in letters:
        result.add_row(
            str(letter.event_id),
            letter.state.value,
            letter.reason,
            letter.account or "-",
            letter.producer or "-",
            letter.domain or "-",
            str(letter.attempts),
            rfc3339(letter.first_failed_at),
            rfc3339(letter.last_failed_at),
        )
    return result


def entry(offset: int, record: Record, notes: Notes) -> dict[str, Any]:
    """One record of a letter's history, its note opened where the ops key is here, its envelope only measured."""
    fields: dict[str, Any] = record.model_dump(mode="json", exclude={"schema_", "envelope", "note", "event_id"})
    note = notes.open(record.note, record.event_id)
    fields["offset"] = offset
    fields["envelope_bytes"] = None if record.envelope is None else len(record.envelope) * 3 // 4
    if record.verdict is Verdict.DEAD:
        fields["account"] = note.account
        fields["guid"] = None if note.guid is None else str(note.guid)
        fields["diagnostic"] = note.diagnostic
        fields["note_closed"] = note.closed
        fields["repair"] = repair(record.reason or "")
    return fields


def page(letter: Letter, entries: list[dict[str, Any]]) -> Table:
    """All that is known of one letter."""
    result = Table(show_header=False, box=None)
    result.add_row("event", str(letter.event_id))
    result.add_row("state", letter.state.value)
    for number, fields in enumerate(entries, start=1):
        result.add_row("", "")
        result.add_row(f"record {number}", f"offset {fields['offset']}")
        for name, value in fields.items():
            if value not in (None, "") and name != "offset":
                result.add_row(f"  {name}", str(value))
    return result
