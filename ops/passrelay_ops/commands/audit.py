"""`passrelay audit`: the proof that no password was lost between AD and IdM, and the repair of what can be repaired."""

from __future__ import annotations

import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from passrelay_ops.audit import comparison, healing, sheet
from passrelay_ops.audit import repair as repairing
from passrelay_ops.audit.result import Result
from passrelay_ops.audit.row import Row
from passrelay_ops.audit.sides import sides
from passrelay_ops.audit.state import State
from passrelay_ops.options import AsJson, OpsConfig, default_path
from passrelay_ops.report import Report, printable
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.order import Order
from passrelay_schemas.settings import OpsSettings, ProducerSettings
from passrelay_schemas.settings_file import load

_CONFIG = default_path("ops")
_PRODUCER = default_path("producer")
_MOST_SHOWN = 500
"""Rows for people; the documents have all."""


def audit(
    repair: Annotated[bool, typer.Option("--repair", help="Capture again and replay what that can heal.")] = False,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Look at one AD user only.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only this AD domain.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Also list who is in sync or left out.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="AD users who are not in IdM are a fault too.")] = False,
    csv: Annotated[str | None, typer.Option(metavar="PATH", help="Write the rows as CSV; - is stdout.")] = None,
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long to wait for repairs.")] = 60,
    producer_config: Annotated[
        Path | None, typer.Option(metavar="PATH", help=f"The producer of this host, if not {_PRODUCER}.")
    ] = None,
    overwrite_idm: Annotated[
        bool, typer.Option("--overwrite-idm", help="Repair also where a younger password was set, or tried, in IdM.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do --overwrite-idm; no other repair needs it.")] = False,
    config: OpsConfig = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """Compare AD's password version of every user with IdM's entry. Exit code 1 when IdM lacks one."""
    with Report("audit", as_json=as_json) as report:
        report["users"], report["counts"] = [], {}
        if csv == "-" and as_json:
            raise ConfigurationError("--csv -: stdout belongs to the --json document: give a file")
        if overwrite_idm and not repair:
            raise ConfigurationError("--overwrite-idm: says what --repair may do: give both")
        settings = load(OpsSettings, config)
        idm = settings.idm
        chosen = _domains(report, settings, domain)
        if idm is None:
            raise ConfigurationError(f"{config}: [idm] is missing: an audit reads both sides")
        producer = _producer(producer_config) if repair else None
        results = []
        for one in chosen:
            result = Result(one.name, everybody=everybody)
            results.append(result)
            with sides(report, one, idm) as compared:
                with _bar(one.name) as seen:
                    result.compare(compared, user, seen)
                if overwrite_idm:
                    repairing.let_in(report, result, compared, one, idm, captures=producer is not None, yes=yes)
                repairing.trace(report, settings, result)
                if repair and result.curable():
                    repairing.repair(report, settings, result, compared, producer, wait)
        if user is not None and not any(result.counts.total() for result in results):
            raise ConfigurationError(f"--user {user!r:.60}: AD has no such user: give his sAMAccountName or UPN")
        _tell(report, results, csv)
        _judge(report, results, strict=strict)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[], None]]:
    """A line on a terminal that counts; how many there are AD does not tell before."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed} users"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(printable(what), total=None)
        yield lambda: bar.advance(task)


def _tell(report: Report, results: list[Result], csv: str | None) -> None:
    rows = [row for result in results for row in result.rows()]
    counts: Counter[State] = sum((result.counts for result in results), Counter())
    report["users"] = [row.document() for row in rows] if report.as_json else []
    report["counts"] = {state.value: counts[state] for state in State}
    report["repaired"] = [{"domain": result.domain, "user": name} for result in results for name in result.repaired]
    if csv == "-":
        sheet.write(sys.stdout, rows)
        return
    if csv is not None:
        _save(csv, rows)
    if rows:
        report.say(_table(rows[:_MOST_SHOWN]))
    if len(rows) > _MOST_SHOWN:
        report.say(f"{len(rows) - _MOST_SHOWN} more: --csv PATH or --json has them all")
    report.say(f"{counts.total()} users: " + ", ".join(f"{counts[state]} {state.value}" for state in State))


def _save(path: str, rows: list[Row]) -> None:
    try:
        # Names of accounts: for the operator alone, like everything that he keeps.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.fchmod(descriptor, 0o600)  # it may have been there before
            sheet.write(file, rows)
    except OSError as error:
        raise ConfigurationError(f"--csv {path}: {error.strerror}: name a file that can be written") from None


def _judge(report: Report, results: list[Result], *, strict: bool) -> None:
    for result in results:
        found = result.drift
        if strict and result.counts[State.NOT_IN_IDM]:
            found[State.NOT_IN_IDM] = result.counts[State.NOT_IN_IDM]
        if found:
            words = ", ".join(f"{count} {state.value}" for state, count in found.items())
            report.fail("audit", result.domain, f"{words}: do what each row says (docs/runbooks/audit.md)")


def _table(rows: list[Row]) -> Table:
    table = Table("user", "state", "AD", "changed in AD", "written in IdM", "where", "why", "repair")
    for row in rows:
        table.add_row(
            row.user,
            row.state.value,
            str(row.ad_kvno or "-"),
            row.ad_changed_at or "-",
            row.applied_at or "-",
            row.where or "-",
            row.detail or "-",
            row.repair or "-",
        )
    return table


def _domains(report: Report, settings: OpsSettings, name: str | None) -> list[DomainSettings]:
    """The domains that can be audited; ConfigurationError when the one that was named, or all, cannot be.

    Of the others is told that nothing is proven there: a fault, unless no AD stands behind them.
    """
    wanted = [domain for domain in settings.domain if name is None or domain.name == name.lower().rstrip(".")]
    if not wanted:
        raise ConfigurationError(f"--domain {name}: no such [[domain]]" if name else "ops.toml has no [[domain]]")
    faults = {domain.name: fault for domain in wanted if (fault := comparison.fault(domain)) is not None}
    if len(faults) == len(wanted):
        raise ConfigurationError("; ".join(f"[[domain]] {where}: {fault}" for where, fault in faults.items()))
    report["not_compared"] = [{"domain": where, "why": fault} for where, fault in faults.items()]
    for domain in wanted:
        if domain.name in faults and domain.order is Order.TIME:
            report.progress(f"[[domain]] {domain.name}: not compared: {faults[domain.name]}")
        elif domain.name in faults:
            report.fail("audit", domain.name, faults[domain.name], exit_code=ConfigurationError.exit_code)
    return [domain for domain in wanted if domain.name not in faults]


def _producer(path: Path | None) -> ProducerSettings | None:
    return healing.local_producer(path or _PRODUCER, chosen=path is not None)
