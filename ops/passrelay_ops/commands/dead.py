"""`passrelay dead`: what could not be delivered, read from the dead stream as often as anybody likes."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from passrelay_ops import dead_letters, letter_pages
from passrelay_ops.commands import dead_acts, dead_export
from passrelay_ops.connection import connect, server_version
from passrelay_ops.dead_letters import Letters
from passrelay_ops.letter_desk import (
    MOST_ACCOUNTS,
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
from passrelay_ops.letter_story import story
from passrelay_ops.options import AsJson, OpsConfig, default_path
from passrelay_ops.report import Report
from passrelay_ops.stream import read
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.topology import DEAD

app = typer.Typer(help="Dead letters.", no_args_is_help=True)
_CONFIG = default_path("ops")


@app.command("list")
def list_(
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
    as_json: AsJson = False,
) -> None:
    """List letters by their first failure. Looking changes nothing."""
    with Report("dead", as_json=as_json) as report:
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
            every, letters = desk.letters(connection, selection, most_accounts=MOST_ACCOUNTS)
        now = utc_now()
        soon = letter_pages.expiring(letters, now)
        report["counts"], report["expiring"] = letter_pages.counts(letters), soon
        report["letters"] = letters
        if letters and not as_json:
            for piece in letter_pages.lists(letters, now):
                report.say(piece)
        for name, count in letter_pages.counts(letters).items():
            report.progress(f"{count} {name}")
        report.progress(f"{len(letters)} of {len(every)} letters")
        if (warning := letter_pages.warning(soon)) is not None:
            report.progress(warning)


@app.command()
def show(
    event_id: Annotated[UUID, typer.Argument(metavar="EVENT_ID")], config: OpsConfig = _CONFIG, as_json: AsJson = False
) -> None:
    """Everything about one letter except the password, which stays sealed; first in plain words."""
    with Report("dead", as_json=as_json) as report:
        desk = Desk.open(config, report)
        with connect(desk.settings.broker) as connection:
            report.servers["rabbitmq"] = server_version(connection)
            matching = [message for message in read(connection, DEAD) if dead_letters.is_of(message, event_id)]
        notes = desk.notes if desk.notes.readable else None
        letters = Letters(notes, report.progress).read(matching).by_first_failure()
        if not letters:
            raise ConfigurationError(f"event {event_id}: no dead letter: see `passrelay dead list --all`")
        entries = [
            letter_pages.entry(message.offset, record, desk.notes)
            for message in matching
            if (record := dead_letters.read_record(message)) is not None
        ]
        told = list(story(letters[0], entries, utc_now()))
        report["letters"] = [{**letter.document(), "story": told, "records": entries} for letter in letters]
        report.say("\n".join(told) + "\n")
        report.say(letter_pages.page(letters[0], entries))


app.command("replay")(dead_acts.replay)
app.command("discard")(dead_acts.discard)
app.command("export")(dead_export.export)
