"""What every command on dead letters does first: read its options, open the dead stream, select."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.connection import server_version
from passrelay_ops.dead_letters import Letter, Letters
from passrelay_ops.notes import Notes
from passrelay_ops.options import parse_duration
from passrelay_ops.report import Report
from passrelay_ops.selection import Selection, of_age
from passrelay_ops.stream import read
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.record import Record
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.settings_file import load
from passrelay_schemas.topology import DEAD
from passrelay_schemas.verdict import Reason

MOST_ACCOUNTS = 10_000
"""So many notes are opened for a list, at a tenth of a millisecond or more each; --user opens as many as it takes."""

OfReason = Annotated[Reason | None, typer.Option("--reason", metavar="REASON", help="Only this reason.")]
OfProducer = Annotated[str | None, typer.Option("--producer", help="Only from this producer.")]
OfDomain = Annotated[str | None, typer.Option("--domain", help="Only of this AD domain.")]
OfUser = Annotated[str | None, typer.Option("--user", help="Only of this account (name or guid); needs the ops key.")]
OfId = Annotated[list[UUID] | None, typer.Option("--id", metavar="EVENT_ID", help="Only this event; may be repeated.")]
OfAttempts = Annotated[
    int | None, typer.Option("--attempts", metavar="N", min=1, help="Only what was tried so often or more.")
]
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="DURATION", help="Of the first failure: 90s, 15m, 24h, 7d.")
]
YoungerThan = Annotated[
    str | None, typer.Option("--younger-than", metavar="DURATION", help="Of the first failure: 90s, 15m, 24h, 7d.")
]
ReasonText = Annotated[
    str | None,
    typer.Option("--reason-text", metavar="TEXT", help="Why: kept in clear with your name, so name no account."),
]


def selection_of(
    *,
    reason: Reason | None,
    producer: str | None,
    domain: str | None,
    user: str | None,
    ids: list[UUID] | None,
    attempts: int | None,
    older_than: str | None,
    younger_than: str | None,
    every_state: bool = False,
) -> Selection:
    """The selection that the options say; ConfigurationError for an age that is none, and for an empty value.

    An empty value is a script's variable that was not set: taken for "not asked", it would select every letter.
    """
    age = of_age(
        utc_now(),
        older=parse_duration(older_than, option="--older-than") if older_than is not None else None,
        younger=parse_duration(younger_than, option="--younger-than") if younger_than is not None else None,
    )
    return Selection(
        reason=reason,
        producer=_filled(producer, option="--producer"),
        domain=_filled(None if domain is None else domain.lower().rstrip("."), option="--domain"),
        user=_filled(user, option="--user"),
        ids=frozenset(ids or ()),
        attempts=attempts,
        every_state=every_state,
        **age,
    )


def _filled(value: str | None, *, option: str) -> str | None:
    if value is not None and not value.strip():
        raise ConfigurationError(f"{option} {value!r}: is empty: name what is meant, or leave the option out")
    return value


@dataclass
class Desk:
    """An operator's settings and keys, and what is said to him."""

    settings: OpsSettings
    notes: Notes
    report: Report

    @classmethod
    def open(cls, config: Path, report: Report) -> Desk:
        """ConfigurationError when ops.toml is not good."""
        settings = load(OpsSettings, config)
        return cls(settings, Notes(Keyring.of(settings.keys)), report)

    def letters(
        self, connection: BlockingConnection, selection: Selection, *, most_accounts: int | None
    ) -> tuple[Letters, list[Letter]]:
        """All letters as the stream tells them, and the selected ones by their first failure.

        Accounts are opened for at most so many (None: for all) that may be selected; for any number where a user is
        asked for. ConfigurationError when that needs an ops key that is not here.
        """
        if selection.user is not None and not self.notes.readable:
            raise ConfigurationError(
                "--user: accounts are sealed to the ops key, whose private file is not in "
                f"{self.settings.keys.directory}"
            )
        opened = itertools.count()

        def opens(record: Record) -> bool:
            if not selection.may_take(record) or (most_accounts == 0 and selection.user is None):
                return False
            return selection.user is not None or most_accounts is None or next(opened) < most_accounts

        self.report.servers["rabbitmq"] = server_version(connection)
        notes = self.notes if self.notes.readable else None
        letters = Letters(notes, self.report.progress, opens=opens).read(read(connection, DEAD))
        chosen = [letter for letter in letters.by_first_failure() if selection.takes(letter)]
        if most_accounts and notes is not None and next(opened) > most_accounts:
            self.report.progress(
                f"accounts are shown of the first {most_accounts} letters only: select fewer, or use --user"
            )
        return letters, chosen
