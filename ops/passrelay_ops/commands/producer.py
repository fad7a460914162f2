"""`passrelay producer`: the process on a domain controller, and what is done to its spool by hand."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from passrelay_ops.commands import producer_windows
from passrelay_ops.options import AsJson, ProducerConfig, default_path, parse_moment
from passrelay_ops.report import Report
from passrelay_schemas import logs
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.settings import ProducerSettings
from passrelay_schemas.settings_file import load

app = typer.Typer(help="Capture password changes on this domain controller.", no_args_is_help=True)
app.add_typer(producer_windows.app, name="windows")
_CONFIG = default_path("producer")


class Start(StrEnum):
    """Where capturing begins."""

    NOW = "now"
    ALL = "all"


def _load(path: ProducerConfig) -> ProducerSettings:
    settings = load(ProducerSettings, path)
    logs.configure(settings.log.level)
    return settings


@app.command()
def run(config: ProducerConfig = _CONFIG) -> None:
    """Capture, seal, spool and publish until SIGTERM."""
    with Report("producer") as report:
        from passrelay_producer import service

        report.finish(service.run(_load(config)))


@app.command()
def init(
    start: Annotated[Start, typer.Option("--from", help="now: only changes from here on; all: every password first.")],
    config: ProducerConfig = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """Choose where capturing begins; needed once, before the first run."""
    with Report("producer", as_json=as_json) as report:
        from passrelay_producer import service

        service.init(_load(config), everything=start is Start.ALL)
        report["from"] = start.value
        report.say(f"capturing begins with {'every current password' if start is Start.ALL else 'the next change'}")


@app.command()
def capture(
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="The account's sAMAccountName.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Every user whom [filter] lets in.")] = False,
    config: ProducerConfig = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """Capture the current password of one user, or of all, again; safe at any time, because it is idempotent."""
    with Report("producer", as_json=as_json) as report:
        if (user is None) is not everybody:
            raise ConfigurationError("capture: give exactly one of --user USER and --all")
        from passrelay_producer import service

        count, excluded = service.capture(_load(config), user)
        report["user"] = user
        report["events"] = count
        report["excluded"] = excluded
        report.say(f"{count} events were captured: a running producer publishes them now, a stopped one at its start")
        if excluded:
            report.say(f"{excluded} accounts were left out: the filter, or never captured (`--user USER` says why)")


@app.command()
def republish(
    since: Annotated[str, typer.Option("--since", metavar="T", help="RFC 3339, or 24h for a day ago.")],
    config: ProducerConfig = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """Publish everything again that was captured since T and is still in the spool; always safe."""
    with Report("producer", as_json=as_json) as report:
        moment = parse_moment(since, option="--since")
        from passrelay_producer import service

        count = service.republish(_load(config), moment)
        report["since"] = moment
        report["events"] = count
        report.say(f"{count} events will be published again")
