"""`passrelay settle`: see that every IdM server has each write of some time, and give it to those that do not."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Annotated

import typer
from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops import settle as settling
from passrelay_ops import unsettled
from passrelay_ops.connection import connect, server_version
from passrelay_ops.dead_letters import read_record
from passrelay_ops.notes import Notes
from passrelay_ops.options import AsJson, OpsConfig, default_path, parse_moment
from passrelay_ops.report import Report
from passrelay_ops.settle import Progress
from passrelay_ops.stream import follow, last_offset, read
from passrelay_schemas.filetime import rfc3339, utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.settings_file import load
from passrelay_schemas.topology import JOURNAL

_CONFIG = default_path("ops")


def settle(
    since: Annotated[str, typer.Option("--since", metavar="T", help="RFC 3339, or 24h for a day ago.")],
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long to wait for the end.")] = 120,
    config: OpsConfig = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """Look at every write since T on all IdM servers again, write what is behind, and wait until all are the same.

    Always safe: a newer password stays. Exit code 1 when some still wait.
    """
    with Report("settle", as_json=as_json) as report:
        moment = parse_moment(since, option="--since")
        settling.check_reach(moment, utc_now(), None)
        settings = load(OpsSettings, config)
        with connect(settings.broker) as connection:
            report.servers["rabbitmq"] = server_version(connection)
            settling.check_topology(connection)
            begins = settling.beginning(connection)
            settling.check_reach(moment, utc_now(), begins)
            report["since"], report["journal_begins_at"] = moment, begins and begins.at
            if begins is None or moment < begins.at:
                report.progress(
                    f"the journal begins {'now' if begins is None else rfc3339(begins.at)} and nothing was dropped "
                    "from it; if the broker was lost since then: `passrelay producer capture --all`"
                )
            progress = Progress()
            # None: from the first record on, whatever the clock was of the consumer that wrote it.
            start = None if begins is None or moment < begins.at else moment - settling.CLOCKS_APART
            _settle(report, connection, start, progress, wait)
            _tell(report, progress, wait)
            if progress.waiting:
                _explain(report, connection, start, progress, settings)


def _settle(
    report: Report, connection: BlockingConnection, since: datetime | None, progress: Progress, wait: float
) -> None:
    # Only what is recorded from here on counts: an earlier record of a copy tells about the time before.
    end = last_offset(connection, JOURNAL)
    records = settling.writes(read(connection, JOURNAL, since=since))
    for record, fault in settling.publish(connection, records):
        if fault is None:
            progress.waiting.add(record.event_id)
        else:
            repair = "its user is not settled: `passrelay producer capture --user USER`"
            report.fail("settle", f"event {record.event_id}", f"{fault}: {repair}")
    report.progress(f"{progress.events} events are settled again")
    if progress.waiting:
        for message in follow(connection, JOURNAL, after=end, seconds=wait):
            taken = read_record(message)
            if taken is not None:
                progress.take(taken)
            if not progress.waiting:
                break


def _tell(report: Report, progress: Progress, wait: float) -> None:
    report["events"] = progress.events
    report["behind"] = len(progress.behind)
    report["superseded"] = len(progress.superseded)
    report["settled"] = len(progress.settled)
    report["waiting"] = len(progress.waiting)
    report["waiting_events"] = sorted(progress.waiting)
    report.say(
        f"{progress.events} events: {len(progress.settled)} settled, {len(progress.superseded)} superseded, "
        f"{len(progress.waiting)} waiting; {len(progress.behind)} were behind and were written again"
    )
    if progress.waiting:
        why = settling.waiting_because(progress, wait)
        report.fail("settle", f"{len(progress.waiting)} of {progress.events} events", why)


def _explain(
    report: Report, connection: BlockingConnection, since: datetime | None, progress: Progress, settings: OpsSettings
) -> None:
    """Look at the entries of some that wait, where the ops key and [idm] are at hand."""
    records = settling.writes(read(connection, JOURNAL, since=since))
    waiting = itertools.islice((record for record in records if record.event_id in progress.waiting), unsettled.MOST)
    for finding in unsettled.look(list(waiting), Notes(Keyring.of(settings.keys)), settings):
        report.fail("settle", finding.subject, finding.detail)
