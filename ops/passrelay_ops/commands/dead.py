"""`passrelay dead`: what could not be delivered, read from the dead stream as often as anybody likes."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from passrelay_ops import dead_letters, letter_pages
from passrelay_ops.connection import connect, server_version
from passrelay_ops.dead_letters import Selection
from passrelay_ops.notes import Notes
from passrelay_ops.options import AsJson, OpsConfig, default_path, parse_duration
from passrelay_ops.report import Report
from passrelay_ops.stream import read
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.settings_file import load
from passrelay_schemas.topology import DEAD
from passrelay_schemas.verdict import Reason

app = typer.Typer(help="Dead letters.", no_args_is_help=True)
_CONFIG = default_path("ops")
Age = Annotated[str | None, typer.Option(metavar="DURATION", help="Of the first failure: 90s, 15m, 24h, 7d.")]


@app.command("list")
def list_(
    reason: Annotated[Reason | None, typer.Option(metavar="REASON", help="Only this reason.")] = None,
    producer: Annotated[str | None, typer.Option(help="Only from this producer.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only of this AD domain.")] = None,
    user: Annotated[str | None, typer.Option(help="Only of this account (name or guid); needs the ops key.")] = None,
    older_than: Age = None,
    younger_than: Age = None,
    every_state: Annotated[bool, typer.Option("--all", help="Also what was replayed or discarded.")] = False,
    config: OpsConfig = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """List letters by their first failure. Looking changes nothing."""
    with Report("dead", as_json=as_json) as report:
        age = dead_letters.of_age(
            utc_now(),
            older=parse_duration(older_than, option="--older-than") if older_than else None,
            younger=parse_duration(younger_than, option="--younger-than") if younger_than else None,
        )
        selection = Selection(
            reason=reason,
            producer=producer,
            domain=domain.lower().rstrip(".") if domain else None,
            user=user,
            every_state=every_state,
            **age,
        )
        settings = load(OpsSettings, config)
        notes = Notes(Keyring(settings.keys.directory))
        if user is not None and not notes.readable:
            raise ConfigurationError(
                f"--user: accounts are sealed to the ops key, whose private file is not in {settings.keys.directory}"
            )
        with connect(settings.broker) as connection:
            report.servers["rabbitmq"] = server_version(connection)
            every = dead_letters.collect(read(connection, DEAD), notes if notes.readable else None, report.progress)
        letters = [letter for letter in every if selection.takes(letter)]
        report["letters"] = [letter.document() for letter in letters] if as_json else []
        if letters:
            report.say(letter_pages.table(letters))
        report.progress(f"{len(letters)} of {len(every)} letters")


@app.command()
def show(
    event_id: Annotated[UUID, typer.Argument(metavar="EVENT_ID")], config: OpsConfig = _CONFIG, as_json: AsJson = False
) -> None:
    """Everything about one letter except the password, which stays sealed."""
    with Report("dead", as_json=as_json) as report:
        settings = load(OpsSettings, config)
        notes = Notes(Keyring(settings.keys.directory))
        with connect(settings.broker) as connection:
            report.servers["rabbitmq"] = server_version(connection)
            matching = [message for message in read(connection, DEAD) if dead_letters.is_of(message, event_id)]
        letters = dead_letters.collect(matching, notes if notes.readable else None, report.progress)
        if not letters:
            raise ConfigurationError(f"event {event_id}: no dead letter: see `passrelay dead list --all`")
        entries = [
            letter_pages.entry(message.offset, record, notes)
            for message in matching
            if (record := dead_letters.read_record(message)) is not None
        ]
        report["letters"] = [{**letter.document(), "records": entries} for letter in letters]
        report.say(letter_pages.page(letters[0], entries))
