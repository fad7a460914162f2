"""`passrelay config`: is a configuration right, before a service finds out."""

from __future__ import annotations

import typer

from passrelay_ops import config_check
from passrelay_ops.options import AnyConfig, AsJson, RoleName
from passrelay_ops.report import Report
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.settings_section import DEFAULT_DIRECTORY

app = typer.Typer(help="Configuration files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Without it, typer would make the only command the group itself."""


@app.command()
def check(config: AnyConfig = None, role: RoleName = None, as_json: AsJson = False) -> None:
    """Check every configuration file of this host, or one, with the files it names; exit code 2 on any fault."""
    with Report("config", as_json=as_json) as report:
        paths = [config] if config is not None else config_check.files(DEFAULT_DIRECTORY)
        hints = []
        for path in paths:
            faults = config_check.check(path, role)
            for fault in faults:
                if fault.hint:
                    hints.append({"file": str(path), "subject": fault.subject, "detail": fault.detail})
                    report.progress(f"hint: {path}: {fault.subject}: {fault.detail}")
                else:
                    subject = str(path) if fault.subject == str(path) else f"{path}: {fault.subject}"
                    report.fail("config", subject, fault.detail, exit_code=ConfigurationError.exit_code)
            if all(fault.hint for fault in faults):
                report.say(f"{path}: good")
        report["files"] = [str(path) for path in paths]
        report["hints"] = hints
