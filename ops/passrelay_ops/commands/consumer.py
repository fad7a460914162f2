"""`passrelay consumer`: the process near IdM."""

from __future__ import annotations

import typer

from passrelay_ops.options import ConsumerConfig, default_path
from passrelay_ops.report import Report
from passrelay_schemas import logs
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.settings_file import load

app = typer.Typer(help="Write password changes to IdM.", no_args_is_help=True)
_CONFIG = default_path("consumer")


@app.callback()
def _group() -> None:
    """Without it, typer would make the only command the group itself."""


@app.command()
def run(config: ConsumerConfig = _CONFIG) -> None:
    """Consume, open, decide and write until SIGTERM; any number may run."""
    with Report("consumer") as report:
        settings = load(ConsumerSettings, config)
        logs.configure(settings.log.level)
        from passrelay_consumer import service

        report.finish(service.run(settings))
