"""Rows as CSV (RFC 4180) that a spreadsheet opens without obeying it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any, TextIO

from passrelay_ops.audit.row import COLUMNS, Row

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a cell a formula (OWASP, CSV Injection); an account may be named so."""


def write(stream: TextIO, rows: Iterable[Row]) -> None:
    """A header and one record for each row, with CRLF."""
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        document = row.document()
        writer.writerow([_cell(document[name]) for name in COLUMNS])


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
