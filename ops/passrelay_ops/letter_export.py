"""Dead letters for other programs: JSON lines, or CSV (RFC 4180) that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

from passrelay_ops.dead_letters import Letter, read_record
from passrelay_ops.letter_pages import recipient_key_id
from passrelay_ops.notes import Notes
from passrelay_ops.report import printable
from passrelay_ops.stream import StreamMessage

FIELDS = (
    "event_id",
    "state",
    "reason",
    "producer",
    "domain",
    "recipient_key_id",
    "account",
    "guid",
    "diagnostic",
    "attempts",
    "replays",
    "failures",
    "captured_at",
    "first_failed_at",
    "last_failed_at",
    "expires_at",
    "repair",
)
_SEALED = "envelope"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take for the beginning of a formula, full-width forms too (OWASP, CSV Injection)."""


def rows(
    messages: Iterable[StreamMessage], letters: Mapping[int, Letter], notes: Notes, *, sealed: bool
) -> Iterator[dict[str, Any]]:
    """One row for each letter whose newest failure is among the messages, its note opened where that can be."""
    left = len(letters)
    for message in messages:
        letter = letters.get(message.offset)
        record = None if letter is None else read_record(message)
        if letter is None or record is None:
            continue
        note = notes.open(record.note, record.event_id)
        document = letter.document() | {
            "account": note.account or letter.account,
            "guid": letter.guid if note.guid is None else note.guid,
            "diagnostic": note.diagnostic,
            "recipient_key_id": recipient_key_id(record),
        }
        row = {name: document[name] for name in FIELDS}
        row["guid"] = None if row["guid"] is None else str(row["guid"])
        if sealed:
            row[_SEALED] = record.envelope
        yield row
        left -= 1
        if not left:
            return


def write_lines(found: Iterable[dict[str, Any]], to: TextIO, *, sealed: bool = False) -> int:
    """One JSON object a line, in ASCII, so that nothing in it can steer a terminal. How many were written."""
    count = 0
    for count, row in enumerate(found, start=1):  # noqa: B007 - counted
        to.write(json.dumps(row) + "\n")
    return count


def write_csv(found: Iterable[dict[str, Any]], to: TextIO, *, sealed: bool = False) -> int:
    """RFC 4180 with a head; a value that could be taken for a formula gets an apostrophe before it."""
    names = (*FIELDS, _SEALED) if sealed else FIELDS
    writer = csv.writer(to, lineterminator="\r\n")
    writer.writerow(names)
    count = 0
    for count, row in enumerate(found, start=1):  # noqa: B007 - counted
        writer.writerow([harmless(row[name]) for name in names])
    return count


def harmless(value: Any) -> str:
    """A cell as text that neither a spreadsheet nor a terminal obeys."""
    text = "" if value is None else printable(str(value))
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
