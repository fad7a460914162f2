"""`passrelay status USER`: one answer for a helpdesk call."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from passrelay_ops import user_status
from passrelay_ops.audit import broker, comparison
from passrelay_ops.audit.result import DRIFT, Result
from passrelay_ops.audit.sides import sides
from passrelay_ops.audit.state import WORDS
from passrelay_ops.audit.whereabouts import JOURNAL_REACH
from passrelay_ops.connection import connect, server_version
from passrelay_ops.notes import Notes
from passrelay_ops.options import AsJson, OpsConfig, default_path, parse_moment
from passrelay_ops.report import Report
from passrelay_ops.stream import read
from passrelay_ops.user_status import Outcomes
from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.marker import Marker
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.settings_file import load
from passrelay_schemas.topology import DEAD, JOURNAL

_CONFIG = default_path("ops")
_CLOCKS_APART = timedelta(minutes=5)


def status(
    user: Annotated[str, typer.Argument(metavar="USER", help="sAMAccountName or user principal name.")],
    since: Annotated[str, typer.Option(metavar="T", help="How far back outcomes are read.")] = "7d",
    most: Annotated[int, typer.Option("--last", min=1, max=1000, help="How many outcomes are shown.")] = 20,
    config: OpsConfig = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show what AD and IdM's entry have, and what became of the user's last changes."""
    with Report("status", as_json=as_json) as report:
        moment = parse_moment(since, option="--since")
        settings = load(OpsSettings, config)
        notes = Notes(Keyring.of(settings.keys))
        report["user"] = user
        markers = _entries(report, user, settings)
        compared = _compared(report, user, settings)
        if not notes.readable:
            report.progress(f"no private ops key in {settings.keys.directory}: only what the marker names is found")
        outcomes = Outcomes(user, markers, notes, most=most, since=moment)
        try:
            with connect(settings.broker) as connection:
                report.servers["rabbitmq"] = server_version(connection)
                # A later try names the event only: whose it is stands in one before it.
                first = min(moment - _CLOCKS_APART, utc_now() - JOURNAL_REACH)
                outcomes.read(read(connection, JOURNAL, since=first), "journal")
                outcomes.read(read(connection, DEAD), "dead")
                for result in compared:
                    result.trace(broker.look(connection, result.wanted(), notes))
        except PassrelayError as error:
            report.fail("broker", "outcomes", str(error), exit_code=error.exit_code)
        _in_ad(report, compared)
        report["outcomes"] = outcomes.last
        report.say(_table(outcomes.last))
        for letter in outcomes.live_letters:
            report.fail("dead", f"event {letter['event_id']}", f"dead letter, {letter['reason']}: {letter['repair']}")


def _compared(report: Report, user: str, settings: OpsSettings) -> list[Result]:
    """AD's own password version against the entry, for every domain whose controllers can be read."""
    results = []
    for domain in settings.domain:
        fault = comparison.fault(domain)
        if settings.idm is None or fault is not None:
            if fault is not None:
                report.progress(f"[[domain]] {domain.name}: not compared with AD: {fault}")
            continue
        result = Result(domain.name, everybody=True)
        try:
            with sides(report, domain, settings.idm) as compared:
                result.compare(compared, user, lambda: None)
        except PassrelayError as error:
            report.fail("ad", domain.name, str(error), exit_code=error.exit_code)
            continue
        results.append(result)
    return results


def _in_ad(report: Report, results: list[Result]) -> None:
    """Say how the user stands in every domain that was compared."""
    rows = [row for result in results for row in result.rows()]
    report["audit"] = [row.document() for row in rows]
    if results and not rows:
        report.say(f"no such user in AD {', '.join(result.domain for result in results)}")
    for row in rows:
        report.say(row.in_words)
        if row.state in DRIFT:
            report.fail("audit", f"{row.user} in {row.domain}", f"{WORDS[row.state]}: {row.repair}")


def _entries(report: Report, user: str, settings: OpsSettings) -> list[Marker]:
    """Report the user's entry in every enrolled domain; its markers."""
    entries: list[dict[str, Any]] = []
    markers = []
    asked_in_vain = []
    report["entries"] = entries
    domains = [domain for domain in settings.domain if domain.search_base]
    if settings.idm is None or not domains:
        report.progress("IdM is not asked: ops.toml has no [idm] or no [[domain]] with search_base")
        return []
    for domain in domains:
        try:
            found = user_status.find(user, settings.idm, domain)
        except PassrelayError as error:
            report.fail("directory", domain.name, str(error), exit_code=error.exit_code)
            continue
        report.servers["directory"] = found.server
        if found.fault:
            report.fail("directory", f"{user} in {domain.name}", found.fault)
        elif len(found.entries) > 1:
            report.fail("directory", f"{user} in {domain.name}", "several IdM entries match: repair the match filter")
        elif not found.entries:
            asked_in_vain.append(domain)
        for entry in found.entries:
            entries.append(user_status.describe(found, entry))
            text = user_status.in_words(entry.marker) if entry.marker else "nothing from AD yet (no marker)"
            report.say(f"{entry.dn}: {text}")
            if entry.marker is not None:
                markers.append(entry.marker)
    if len(asked_in_vain) == len(domains):
        bases = ", ".join(str(domain.search_base) for domain in domains)
        report.fail("directory", user, f"no IdM entry below {bases}: create the user there, or check [[domain]] match")
    return markers


def _table(outcomes: list[dict[str, Any]]) -> Table:
    table = Table("at", "verdict", "reason", "server", "tries", "event", "diagnostic")
    for outcome in outcomes:
        table.add_row(
            outcome["at"],
            outcome["verdict"],
            outcome["reason"] or "-",
            outcome["server"] or "-",
            str(outcome["attempts"]),
            outcome["event_id"],
            outcome["diagnostic"] or outcome["why"] or "",
        )
    return table
