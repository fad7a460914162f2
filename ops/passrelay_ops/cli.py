"""The command `passrelay`: one sub-command for each thing an operator or service manager does."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from passrelay_ops.commands import (
    ad,
    audit,
    config,
    consumer,
    dead,
    doctor,
    idm,
    keys,
    producer,
    settle,
    status,
    topology,
    watch,
)
from passrelay_ops.report import INTERRUPTED, internal_error, printable
from passrelay_schemas import __version__, logs
from passrelay_schemas.errors import PassrelayError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(producer.app, name="producer")
app.add_typer(consumer.app, name="consumer")
app.add_typer(topology.app, name="topology")
app.add_typer(config.app, name="config")
app.add_typer(keys.app, name="keys")
app.add_typer(dead.app, name="dead")
app.add_typer(idm.app, name="idm")
app.add_typer(ad.app, name="ad")
app.command("status")(status.status)
app.command("settle")(settle.settle)
app.command("audit")(audit.audit)
app.command("doctor")(doctor.doctor)
app.command("watch")(watch.watch)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"passrelay {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Carries every password change made in Active Directory into Red Hat IdM over RabbitMQ.

    Exit codes: 0 good, 1 a fault was found, 2 usage or configuration, 3 a server is unavailable, 4 refused for safety.
    """
    # Before anything else, because pika and ldap3 would print what they see to standard error.
    logs.configure()


def main() -> NoReturn:
    """The console script; ends with an exit code and never shows a traceback."""
    try:
        app(prog_name="passrelay")
    except PassrelayError as error:
        code, text = error.exit_code, str(error)
    except KeyboardInterrupt:
        code, text = INTERRUPTED, "interrupted"
    except Exception as error:  # noqa: BLE001 - a traceback could show what must not be shown
        code, text = 1, internal_error(error)
    else:
        code, text = 0, ""
    if text:
        typer.echo(printable(f"passrelay: {text}"), err=True)
    sys.exit(code)
