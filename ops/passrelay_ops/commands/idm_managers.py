"""`passrelay idm managers`: who may set passwords in IdM that do not expire at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from passrelay_consumer.directory import MANAGERS, PLUGIN_DN
from passrelay_ops.commands.idm_setup import BindDn, BindPasswordFile, fail, say_plan, settings_of
from passrelay_ops.idm import managers, work
from passrelay_ops.idm.login import DIRECTORY_MANAGER, ask
from passrelay_ops.idm.plan import Step
from passrelay_ops.idm.view import View
from passrelay_ops.options import AsJson, OpsConfig, Yes, default_path
from passrelay_ops.report import Report
from passrelay_schemas.distinguished_name import canonical
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.idm_settings import IdmSettings

app = typer.Typer(help=f"{MANAGERS} on every IdM server. {managers.WARNING}", no_args_is_help=True)
_CONFIG = default_path("ops")
Dn = Annotated[str | None, typer.Argument(metavar="[DN]", help="The account; without, [idm] bind_dn.")]


@app.command("list")
def list_(
    bind_dn: BindDn = DIRECTORY_MANAGER,
    bind_password_file: BindPasswordFile = None,
    config: OpsConfig = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show the list of every server, and which entries give no right because of their spelling."""
    with Report("idm", as_json=as_json) as report:
        idm, _ = settings_of(config)
        login = ask(bind_dn, bind_password_file)
        _show(report, _seen(report, [managers.look(url, idm, login) for url in idm.servers]))


@app.command()
def add(
    dn: Dn = None,
    bind_dn: BindDn = DIRECTORY_MANAGER,
    bind_password_file: BindPasswordFile = None,
    config: OpsConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put an account on the list of every server, in the spelling that counts there. It takes effect at once."""
    with Report("idm", as_json=as_json) as report:
        report.progress(managers.WARNING)
        _change(report, managers.to_add, dn, bind_dn, bind_password_file, config, yes=yes)


@app.command()
def remove(
    dn: Dn = None,
    bind_dn: BindDn = DIRECTORY_MANAGER,
    bind_password_file: BindPasswordFile = None,
    config: OpsConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take an account off the list of every server, however it is spelled there.

    Without passrelay's own account consumers use no server any more: their probe finds out before a user is written.
    """
    with Report("idm", as_json=as_json) as report:
        _change(report, managers.to_remove, dn, bind_dn, bind_password_file, config, yes=yes)


def _change(
    report: Report,
    plan: Callable[[str, Sequence[View]], list[Step]],
    dn: str | None,
    bind_dn: str,
    bind_password_file: Path | None,
    config: Path,
    *,
    yes: bool,
) -> None:
    idm, _ = settings_of(config)
    whom = _whom(dn, idm)
    login = ask(bind_dn, bind_password_file)
    views = _seen(report, [managers.look(url, idm, login) for url in idm.servers])
    steps = plan(whom, views)
    say_plan(report, steps, nothing=f"{whom}: nothing to do")
    report["dn"], report["written"] = whom, bool(yes and steps)
    if steps and not yes:
        report.progress("nothing was written: add --yes to do it")
        return
    with work.servers(idm, login) as connection:
        work.apply(steps, connection)
    _show(report, [managers.look(view.server, idm, login) for view in views])


def _whom(dn: str | None, idm: IdmSettings) -> str:
    try:
        return canonical(dn or idm.bind_dn)
    except ValueError as error:
        raise ConfigurationError(f"DN {error}") from None


def _seen(report: Report, views: Sequence[View]) -> list[View]:
    """The views that show a list; why the others do not is told."""
    for view in views:
        if view.unusable is not None:
            fail(report, view.unusable)
        elif view.entry(PLUGIN_DN) is None and view.sees_all:
            report.progress(f"{view.server}: has no IPA password plugin, and needs no list")
        elif view.entry(PLUGIN_DN) is None:
            why = f"{view.bound_as} does not see {PLUGIN_DN}: use Directory Manager (--bind-dn)"
            report.fail("idm.managers", view.server, why, exit_code=ConfigurationError.exit_code)
    return [view for view in views if view.entry(PLUGIN_DN) is not None]


def _show(report: Report, views: Sequence[View]) -> None:
    found = [manager for view in views for manager in managers.listed(view)]
    table = Table("server", MANAGERS, "counts")
    for manager in found:
        table.add_row(manager.server, manager.dn, "yes" if manager.counts else "no: spelled with blanks")
    empty = [view.server for view in views if not managers.listed(view)]
    for server in empty:
        table.add_row(server, "nobody", "")
    report.say(table)
    report["empty"] = empty
    report["managers"] = [{"server": one.server, "dn": one.dn, "counts": one.counts} for one in found]
