"""How dead letters look: the lines of `dead list`, the page and document of `dead show`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any

from rich.table import Table

from passrelay_ops.dead_letters import NEAR, Letter, State, repair
from passrelay_ops.notes import Notes
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.errors import EventError
from passrelay_schemas.filetime import rfc3339
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import Reason, Verdict

_HEAD = ("event", "state", "reason", "account", "producer", "domain", "tries", "first failed", "last failed", "kept")
_LINES = 1000


def lists(letters: Sequence[Letter], now: datetime) -> Iterator[str]:
    """One line a letter below a head, in pieces: a table of 100,000 rows would take minutes and gigabytes."""
    widths = [len(name) for name in _HEAD]
    for letter in letters:
        widths = [max(width, len(cell)) for width, cell in zip(widths, _cells(letter, now), strict=True)]
    rows = chain([_HEAD], (_cells(letter, now) for letter in letters))
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    while piece := "\n".join(islice(lines, _LINES)):
        yield piece


def _cells(letter: Letter, now: datetime) -> tuple[str, ...]:
    left = max(0, (letter.expires_at - now).days)
    return (
        str(letter.event_id),
        letter.state.value,
        letter.reason,
        letter.account or "-",
        letter.producer or "-",
        letter.domain or "-",
        str(letter.attempts),
        rfc3339(letter.first_failed_at),
        rfc3339(letter.last_failed_at),
        f"{left} days more!" if letter.expires_soon(now) else f"{left} days",
    )


def counts(letters: Iterable[Letter]) -> dict[str, int]:
    """Live letters by their reason, the most first."""
    return dict(Counter(letter.reason for letter in letters if letter.state is State.LIVE).most_common())


def expiring(letters: Iterable[Letter], now: datetime) -> dict[str, int]:
    """Letters that will soon be gone; users who are not in IdM are counted apart, since there are always some."""
    soon = Counter(letter.reason == Reason.USER_MISSING for letter in letters if letter.expires_soon(now))
    return {"letters": soon[False], "user_missing": soon[True]}


def warning(soon: dict[str, int]) -> str | None:
    """What an operator must hear about letters near their end."""
    if not soon["letters"]:
        return None
    return (
        f"warning: {soon['letters']} letters will be gone in less than {NEAR.days} days, their passwords with them: "
        "they are marked with !; repair and replay them, or discard them"
    )


def entry(offset: int, record: Record, notes: Notes) -> dict[str, Any]:
    """One record of a letter's history, its note opened where the ops key is here, its envelope only measured."""
    fields: dict[str, Any] = record.model_dump(mode="json", exclude={"schema_", "envelope", "note", "event_id"})
    note = notes.open(record.note, record.event_id)
    fields["offset"] = offset
    fields["envelope_bytes"] = None if record.envelope is None else len(record.envelope) * 3 // 4
    fields["recipient_key_id"] = recipient_key_id(record)
    if record.verdict is Verdict.DEAD:
        fields["account"] = note.account
        fields["guid"] = None if note.guid is None else str(note.guid)
        fields["diagnostic"] = note.diagnostic
        fields["note_closed"] = note.closed
        fields["repair"] = repair(record.reason or "")
    return fields


def recipient_key_id(record: Record) -> str | None:
    """The key that a record's event is sealed to, as its header says in clear; None where there is none to read."""
    try:
        raw = record.envelope_bytes
        return None if raw is None else Envelope.parse(raw).header.recipient_key_id
    except EventError:
        return None


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
