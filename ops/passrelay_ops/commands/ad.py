"""`passrelay ad`: the AD domain as passrelay needs it."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.table import Table

from passrelay_ops.ad import checks
from passrelay_ops.ad.view import look
from passrelay_ops.check import Result, Row
from passrelay_ops.commands import ad_csr
from passrelay_ops.connection import connect
from passrelay_ops.news import Heard, hear
from passrelay_ops.options import AsJson, OpsConfig, default_path
from passrelay_ops.report import FAULT, Report
from passrelay_schemas.errors import ConfigurationError, PassrelayError, UnavailableError
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.settings_file import load

app = typer.Typer(help="What is needed of the AD domain.", no_args_is_help=True)
app.command("csr")(ad_csr.csr)
_CONFIG = default_path("ops")


@app.command()
def check(config: OpsConfig = _CONFIG, as_json: AsJson = False) -> None:
    """Look at every server of [domain.ad], at the domain, and whether each controller has a producer.

    Nothing is written. Exit code 1 when something is wrong or not seen, 3 when all that is wrong is that servers cannot
    be reached.
    """
    with Report("ad", as_json=as_json) as report:
        settings = load(OpsSettings, config)
        domains = [(domain, domain.ad) for domain in settings.domain if domain.ad is not None]
        if not domains:
            raise ConfigurationError(
                f"configuration {config}: no [[domain]] has [domain.ad]: write it with servers, ca_file, bind_user and "
                "password_file (docs/configuration.md)"
            )
        heard, broker_error = _heard(settings)
        found: list[Row] = []
        for domain, ad in domains:
            views = [look(url, ad) for url in ad.servers]
            found += checks.rows(domain, views, heard, utc_now())
        _say(report, found, broker_error)


def _heard(settings: OpsSettings) -> tuple[Heard | str, PassrelayError | None]:
    """The producers' news, or why they cannot be read."""
    try:
        with connect(settings.broker) as connection:
            return hear(connection, Keyring.of(settings.keys)), None
    except PassrelayError as error:
        return str(error), error


def exit_code(found: Sequence[Row], broker_error: PassrelayError | None) -> int:
    """0 when all is good, 3 when servers that are away are all that is wrong, the broker's own where only that is."""
    bad = {(row.id, row.result) for row in found if row.result is not Result.OK}
    failed = {check for check, result in bad if result is Result.FAIL}
    if failed:
        return UnavailableError.exit_code if failed == {"ad.connect"} else FAULT
    if broker_error is not None and {check for check, _ in bad} <= {"ad.producers"}:
        return broker_error.exit_code
    return FAULT if bad else 0


def _say(report: Report, found: Sequence[Row], broker_error: PassrelayError | None) -> None:
    """A table of checks, and a failure for each that is not good. What only follows from another is left out."""
    table = Table("subject", "check", "result", "detail")
    for row in found:
        table.add_row(row.subject, row.id, row.result.value, row.detail)
    report.say(table)
    report["checks"] = [row.document() for row in found]
    code = exit_code(found, broker_error)
    failed = any(row.result is Result.FAIL for row in found)
    for row in found:
        if row.result is Result.FAIL or (row.result is Result.UNKNOWN and not failed):
            detail = f"{row.detail}: {row.repair}" if row.repair else row.detail
            report.fail(row.id, row.subject, detail, exit_code=code)
