"""`passrelay watch`: a service that shows letters, tiers and producers as metrics."""

from __future__ import annotations

from passrelay_ops.options import OpsConfig, default_path
from passrelay_ops.report import Report
from passrelay_schemas import logs
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.settings_file import load

_CONFIG = default_path("ops")


def watch(config: OpsConfig = _CONFIG) -> None:
    """Show dead letters, the depths of the queues and the producers' news at [metrics] listen, until SIGTERM.

    Reads only, needs no private key, and any number may run.
    """
    with Report("watch") as report:
        settings = load(OpsSettings, config)
        logs.configure(settings.log.level)
        from passrelay_ops.watch import service

        report.finish(service.run(settings))
