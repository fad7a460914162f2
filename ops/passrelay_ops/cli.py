"""The command `passrelay`: one sub-command for each thing an operator or service manager does."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_group

from passrelay_ops.report import INTERRUPTED, internal_error, printable
from passrelay_schemas import __version__, logs
from passrelay_schemas.errors import PassrelayError

_GROUPS = ("producer", "consumer", "topology", "config", "keys", "dead", "idm", "ad")
_COMMANDS = ("status", "settle", "audit", "doctor", "watch")


class _OnDemand(TyperGroup):
    """Imports a sub-command's module when it is asked for: importing all of them is most of what a start costs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the help page, which needs them all."""
        return [*_COMMANDS, *_GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """All of them for a name that there is not: typer suggests the nearest of those it knows."""
        known = self.list_commands(ctx)
        for name in [cmd_name] if cmd_name in known else known:
            if name not in self.commands:
                self.commands[name] = _load(name)
        return super().get_command(ctx, cmd_name)


def _load(name: str) -> Any:
    module = import_module(f"passrelay_ops.commands.{name}")
    part = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    if name in _GROUPS:
        part.add_typer(module.app, name=name)
    else:
        part.command(name)(getattr(module, name))
    return get_group(part).commands[name]


app = typer.Typer(
    cls=_OnDemand,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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
