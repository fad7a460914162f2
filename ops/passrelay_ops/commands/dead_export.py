"""`passrelay dead export`: letters as JSON lines or CSV, for a ticket, a spreadsheet or another program."""

from __future__ import annotations

import contextlib
import sys
from enum import StrEnum
from typing import Annotated

import typer

from passrelay_ops.connection import connect
from passrelay_ops.letter_desk import (
    Desk,
    OfAttempts,
    OfDomain,
    OfId,
    OfProducer,
    OfReason,
    OfUser,
    OlderThan,
    YoungerThan,
    selection_of,
)
from passrelay_ops.letter_export import rows, write_csv, write_lines
from passrelay_ops.options import OpsConfig, default_path
from passrelay_ops.report import Report
from passrelay_ops.stream import read
from passrelay_schemas.topology import DEAD

_CONFIG = default_path("ops")


class Format(StrEnum):
    """What is written."""

    LINES = "jsonl"
    CSV = "csv"


def export(
    form: Annotated[Format, typer.Option("--format", help="JSON lines, or CSV as in RFC 4180.")] = Format.LINES,
    sealed: Annotated[bool, typer.Option("--sealed", help="With the sealed envelope, as base64url.")] = False,
    reason: OfReason = None,
    producer: OfProducer = None,
    domain: OfDomain = None,
    user: OfUser = None,
    ids: OfId = None,
    attempts: OfAttempts = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    every_state: Annotated[bool, typer.Option("--all", help="Also what was replayed or discarded.")] = False,
    config: OpsConfig = _CONFIG,
) -> None:
    """Write letters to standard output, in the stream's order; what it says of people is for few eyes.

    Accounts and diagnostics are opened where the ops key is here. Passwords stay sealed, also with --sealed.
    """
    with Report("dead") as report:
        selection = selection_of(
            reason=reason,
            producer=producer,
            domain=domain,
            user=user,
            ids=ids,
            attempts=attempts,
            older_than=older_than,
            younger_than=younger_than,
            every_state=every_state,
        )
        desk = Desk.open(config, report)
        with connect(desk.settings.broker) as connection:
            _, letters = desk.letters(connection, selection, most_accounts=0)
            by_offset = {letter.offset: letter for letter in letters}
            messages = read(connection, DEAD, since=min(by_offset)) if by_offset else iter(())
            with contextlib.suppress(BrokenPipeError):  # whoever reads has seen enough
                found = rows(messages, by_offset, desk.notes, sealed=sealed)
                count = (write_csv if form is Format.CSV else write_lines)(found, sys.stdout, sealed=sealed)
                sys.stdout.flush()
                report.progress(f"{count} letters")
