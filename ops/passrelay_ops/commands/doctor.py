"""`passrelay doctor`: every step of the set-up as a check, with its repair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from passrelay_ops import config_check
from passrelay_ops.check import Result, Row
from passrelay_ops.commands.idm_setup import BindDn, BindPasswordFile
from passrelay_ops.doctor import host
from passrelay_ops.doctor.examination import Examination
from passrelay_ops.idm.login import DIRECTORY_MANAGER, ask
from passrelay_ops.options import AsJson
from passrelay_ops.report import FAULT, Report
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.settings_section import DEFAULT_DIRECTORY

Configs = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", metavar="PATH", help="A configuration of any role; may be given again.", show_default=False
    ),
]


def doctor(
    configs: Configs = None,
    bind_dn: BindDn = DIRECTORY_MANAGER,
    bind_password_file: BindPasswordFile = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything that the configurations of this host name: hosts, keys, broker, IdM, AD, producers.

    Without --bind-password-file IdM is looked at as the service account, which does not see all. Nothing is changed
    but the password of IdM's disabled probe entry. Exit code 1 when a check fails, 2 when a file cannot be read.
    """
    with Report("doctor", as_json=as_json) as report:
        paths = configs or config_check.files(DEFAULT_DIRECTORY)
        login = None if bind_password_file is None else ask(bind_dn, bind_password_file)
        examination = Examination([host.examine(path) for path in paths], login, report.progress)
        rows = examination.run()
        report.servers.update(examination.versions)
        report["files"] = [str(path) for path in paths]
        report["checks"] = [row.document() for row in rows]
        report.say(_table(rows))
        report.say(_summary(rows))
        for row in rows:
            if row.result is Result.FAIL:
                code = ConfigurationError.exit_code if row.id == host.FILE else FAULT
                report.fail(row.id, row.subject, f"{row.id}: {row.detail}: {row.repair}", exit_code=code)


def _table(rows: Sequence[Row]) -> Table:
    table = Table("about", "check", "result", "what was found")
    for subject, group in itertools.groupby(rows, key=lambda row: row.subject):
        shown = subject
        for row in group:
            failed = row.result is Result.FAIL
            table.add_row(shown, row.id, "FAIL" if failed else row.result.value, row.detail)
            if row.repair and row.result is not Result.OK:
                table.add_row("", "", "repair", row.repair)
            shown = ""
        table.add_section()
    return table


def _summary(rows: Sequence[Row]) -> str:
    counts = {result: sum(row.result is result for row in rows) for result in Result}
    return f"{counts[Result.OK]} ok, {counts[Result.FAIL]} failed, {counts[Result.UNKNOWN]} unknown"
