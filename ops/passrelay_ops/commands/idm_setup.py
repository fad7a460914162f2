"""`passrelay idm setup` and `check`: what consumers need in IdM, written once and looked at as often as one likes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from passrelay_ops.check import Result, Row
from passrelay_ops.idm import password_file, setting_up, undo, work
from passrelay_ops.idm.checks import others_with_access, rows
from passrelay_ops.idm.ldif import Record, render
from passrelay_ops.idm.login import DIRECTORY_MANAGER, Login, ask
from passrelay_ops.idm.plan import Step, missing
from passrelay_ops.idm.site import Site
from passrelay_ops.idm.templates import Wanted, wanted
from passrelay_ops.idm.view import View, look
from passrelay_ops.options import AsJson, OpsConfig, Yes, default_path
from passrelay_ops.report import FAULT, Report
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.settings import OpsSettings
from passrelay_schemas.settings_file import load

_CONFIG = default_path("ops")
BindDn = Annotated[
    str, typer.Option("--bind-dn", metavar="DN", help="Who looks and writes at the IdM servers.", show_default=True)
]
BindPasswordFile = Annotated[
    Path | None,
    typer.Option("--bind-password-file", metavar="PATH", help="File (mode 0600) with that password, else it is asked."),
]
_EXIT_CODES = {"idm.connect": UnavailableError.exit_code, "idm.bind": ConfigurationError.exit_code}


def settings_of(config: Path) -> tuple[IdmSettings, Sequence[DomainSettings]]:
    """[idm] and every [[domain]] of ops.toml; ConfigurationError when [idm] is missing."""
    settings = load(OpsSettings, config)
    if settings.idm is None:
        raise ConfigurationError(
            f"configuration {config}: [idm] is missing: write it with servers, ca_file, bind_dn and password_file "
            "as in the consumers' file"
        )
    return settings.idm, settings.domain


def setup(
    take_back: Annotated[
        bool, typer.Option("--undo", help="Take back what setup made, and nothing else; markers on users stay.")
    ] = False,
    markers: Annotated[
        bool, typer.Option("--markers", help="With --undo: take the markers off users too, and then the schema.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Connect nowhere: print all of it as LDIF, for an IdM that has nothing.")
    ] = False,
    bind_dn: BindDn = DIRECTORY_MANAGER,
    bind_password_file: BindPasswordFile = None,
    config: OpsConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give IdM passrelay's schema, accounts, access rules and its place among the password managers.

    Without --yes it prints what is missing as LDIF, to be read, and to be applied with ldapmodify if you like. What is
    there already is not touched. Accounts and rules are written on one server, and replicate.
    """
    with Report("idm", as_json=as_json) as report:
        if markers and not take_back:
            raise ConfigurationError("--markers belongs to --undo: setup itself never touches a user")
        if offline and (take_back or yes):
            raise ConfigurationError("--offline only prints: leave out --undo and --yes")
        idm, domains = settings_of(config)
        site = Site.of(idm, domains)
        if offline:
            ldif = render(wanted(site).records)
            report["ldif"] = ldif
            report.say(ldif)
            return
        login = ask(bind_dn, bind_password_file)
        views = [look(url, idm, site, login) for url in idm.servers]
        _report_unusable(report, views)
        usable = [view for view in views if view.unusable is None]
        if not usable:
            return
        report.servers["directory"] = usable[0].server
        site = setting_up.seen(site, usable[0])
        needed = wanted(site)
        setting_up.check_possible(site, usable)
        if take_back:
            needed = undo.all_made(needed, usable)
            _take_back(report, idm, site, needed, login, views, markers=markers, yes=yes)
        else:
            _set_up(report, idm, site, needed, login, usable, yes=yes)


def _set_up(
    report: Report, idm: IdmSettings, site: Site, needed: Wanted, login: Login, views: list[View], *, yes: bool
) -> None:
    steps = setting_up.plan(site, needed, views)
    made = False
    if setting_up.needs_password(site, views) and (others := others_with_access(site, needed, views[0])):
        names = ", ".join(others)
        report.progress(f"a second account: the access rules there are for {names}: is [idm] bind_dn right?")
    say_plan(report, steps, nothing="nothing is missing")
    if yes and steps:
        made = setting_up.needs_password(site, views) and password_file.ensure(site.password_file)
        if made:
            report.progress(f"made {site.password_file} with the service account's new password; consumers need a copy")
            report.progress(
                "leave a copy to root (mode 0600) where the shipped unit hands it over (LoadCredential); a consumer "
                "that reads the file itself must own it"
            )
        with work.servers(idm, login) as connection:
            work.apply(steps, connection)
        urls = [view.server for view in views]
        views = work.settle(
            lambda: [look(url, idm, site, login) for url in urls],
            lambda view: all(missing(record, view) is None for record in needed.records),
        )
    report["written"] = bool(yes and steps)
    report["password_file"] = {"path": str(site.password_file), "made": made}
    if yes or not steps:
        say_rows(report, [row for view in views for row in rows(site, needed, view)])
    else:
        report.progress("nothing was written: add --yes to do it, or give the LDIF to ldapmodify")


def _take_back(
    report: Report,
    idm: IdmSettings,
    site: Site,
    needed: Wanted,
    login: Login,
    views: list[View],
    *,
    markers: bool,
    yes: bool,
) -> None:
    urls = [view.server for view in views if view.unusable is None]
    with work.servers(idm, login) as connection:
        marked = len(undo.find_carriers(urls[0], connection, site))
        plan = undo.plan(site, needed, views, marked=marked, markers_too=markers)
        steps = (*plan.steps, *plan.schema_steps)
        say_plan(report, steps, nothing="there is nothing that setup made")
        for reason in plan.stays:
            report.progress(f"stays: {reason}")
        if markers and marked:
            report.progress(f"markers go from {marked} entries: any older password could then be written again")
        report["stays"] = list(plan.stays)
        report["marked_entries"] = marked
        report["written"] = bool(yes and (steps or (markers and marked)))
        if not yes:
            report.progress("nothing was written: add --yes to do it")
            return
        undo.take_back(
            plan, site, needed, urls, connection, lambda url: look(url, idm, site, login), markers_too=markers
        )
    if site.password_file.exists() and any(step.record == Record(site.service_dn, "delete") for step in steps):
        report.progress(f"stays: {site.password_file}, whose password opens nothing any more: remove it")


def check(
    bind_dn: BindDn = DIRECTORY_MANAGER,
    bind_password_file: BindPasswordFile = None,
    config: OpsConfig = _CONFIG,
    as_json: AsJson = False,
) -> None:
    """Look at the set-up on every IdM server; nothing is written. Exit code 1 when something is missing or not seen."""
    with Report("idm", as_json=as_json) as report:
        idm, domains = settings_of(config)
        site = Site.of(idm, domains)
        login = ask(bind_dn, bind_password_file)
        found: list[Row] = []
        for url in idm.servers:
            view = look(url, idm, site, login)
            seen = setting_up.seen(site, view)
            found += rows(seen, wanted(seen), view)
        say_rows(report, found)


def say_rows(report: Report, found: Sequence[Row]) -> None:
    """A table of checks, and a failure for each that is not good. What only follows from another is left out."""
    table = Table("server", "check", "result")
    for row in found:
        table.add_row(row.subject, row.id, row.result.value)
    report.say(table)
    report["checks"] = [row.document() for row in found]
    failed = {row.subject for row in found if row.result is Result.FAIL}
    for row in found:
        if row.result is Result.FAIL or (row.result is Result.UNKNOWN and row.subject not in failed):
            fail(report, row)


def _report_unusable(report: Report, views: Sequence[View]) -> None:
    for view in views:
        if view.unusable is not None:
            fail(report, view.unusable)


def fail(report: Report, row: Row) -> None:
    """A check that is not good, as a failure with its repair and the exit code of its kind."""
    report.fail(row.id, row.subject, f"{row.detail}: {row.repair}", exit_code=_EXIT_CODES.get(row.id, FAULT))


def say_plan(report: Report, steps: Sequence[Step], *, nothing: str) -> None:
    """The steps as LDIF, by server; `nothing` says that there are none."""
    report["changes"] = [
        {"servers": list(step.servers), "dn": step.record.dn, "kind": step.record.kind} for step in steps
    ]
    text = "\n".join(
        f"# --- at {' and at '.join(servers)}\n\n{render(step.record for step in group)}"
        for servers, group in itertools.groupby(steps, key=lambda step: step.servers)
    )
    report["ldif"] = text
    if steps:
        report.say(text)
    else:
        report.progress(nothing)
