"""`passrelay topology`: exchanges, queues, streams and bindings on the broker."""

from __future__ import annotations

from collections.abc import Callable

import typer
from pika.adapters.blocking_connection import BlockingConnection
from rich.table import Table

from passrelay_ops import topology
from passrelay_ops.connection import connect, server_version
from passrelay_ops.options import AsJson, OpsConfig, default_path
from passrelay_ops.report import Report
from passrelay_ops.topology import Finding, State
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.settings_file import load

app = typer.Typer(help="Exchanges, queues, streams and bindings on the broker.", no_args_is_help=True)
_CONFIG = default_path("ops")


@app.command()
def apply(config: OpsConfig = _CONFIG, as_json: AsJson = False) -> None:
    """Declare all that is missing; what is there stays as it is, and what differs is named."""
    with Report("topology", as_json=as_json) as report:
        _work(report, config, topology.apply)


@app.command()
def check(config: OpsConfig = _CONFIG, as_json: AsJson = False) -> None:
    """Compare without creating; exit code 1 when something is missing or different."""
    with Report("topology", as_json=as_json) as report:
        _work(report, config, topology.check)


def _work(report: Report, config: OpsConfig, work: Callable[[BlockingConnection], list[Finding]]) -> None:
    settings = load(OpsSettings, config)
    with connect(settings.broker) as connection:
        report.servers["rabbitmq"] = server_version(connection)
        findings = work(connection)
    report["topology"] = [
        {"kind": finding.kind, "name": finding.name, "state": finding.state.value, "detail": finding.detail}
        for finding in findings
    ]
    table = Table("kind", "name", "state")
    for finding in findings:
        table.add_row(finding.kind, finding.name, finding.state.value)
        if not finding.good:
            code = ConfigurationError.exit_code if finding.state is State.REFUSED else 1
            report.fail("topology", f"{finding.kind} {finding.name}", finding.detail, exit_code=code)
    report.say(table)
