"""`passrelay idm`: what an operator does at the IdM servers; here, markers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from passrelay_ops import floors, markers
from passrelay_ops.commands import idm_ca, idm_managers, idm_setup
from passrelay_ops.commands.idm_setup import settings_of
from passrelay_ops.markers import View, Whose
from passrelay_ops.options import AsJson, OpsConfig, Yes, default_path, parse_moment
from passrelay_ops.report import FAULT, Report
from passrelay_ops.user_status import describe_marker, in_words
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filetime import from_datetime
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.limits import MAX_KVNO
from passrelay_schemas.marker import Marker

app = typer.Typer(help="What is done at the IdM servers.", no_args_is_help=True)
marker_app = typer.Typer(help="The marker: which AD change an entry's password came from.", no_args_is_help=True)
app.command("setup")(idm_setup.setup)
app.command("check")(idm_setup.check)
app.command("ca")(idm_ca.ca)
app.add_typer(idm_managers.app, name="managers")
app.add_typer(marker_app, name="marker")
_CONFIG = default_path("ops")

_TORN = "marker and password are of two writes: `passrelay settle --since T` of that time writes the newer again"

User = Annotated[str, typer.Argument(metavar="USER", help="sAMAccountName in AD, or the DN of the IdM entry.")]
Domain = Annotated[str | None, typer.Option(metavar="NAME", help="The AD domain, where ops.toml has several.")]


@marker_app.command()
def show(user: User, domain: Domain = None, config: OpsConfig = _CONFIG, as_json: AsJson = False) -> None:
    """Show the entry's marker on every IdM server, and whether it is the same one."""
    with Report("idm", as_json=as_json) as report:
        idm, of_domain = _settings(config, domain)
        views = markers.look(Whose.parse(user), idm, of_domain, idm.servers)
        report["user"], report["domain"] = user, of_domain.name
        report.servers["directory"], _ = markers.first(views)
        _say(report, views)


@marker_app.command()
def reset(
    user: User,
    kvno: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=MAX_KVNO, help="Shut out every change up to this password version."),
    ] = None,
    changed_at: Annotated[
        str | None,
        typer.Option(metavar="T", help="RFC 3339: what was changed until then; for a domain that is ordered by time."),
    ] = None,
    domain: Domain = None,
    config: OpsConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put a floor in the marker's place: only newer changes pass. Without N and T the marker's own may come again.

    Do it while every listed server is reachable and shows the same marker.
    """
    with Report("idm", as_json=as_json) as report:
        moment = None if changed_at is None else _filetime(parse_moment(changed_at, option="--changed-at"))

        def floor(old: Marker | None, of_domain: DomainSettings) -> Marker:
            return floors.lowered_or_raised(old, of_domain, kvno=kvno, changed_at=moment)

        _put(report, user, domain, config, floor, yes=yes)


@marker_app.command()
def rebind(
    user: User,
    guid: Annotated[UUID, typer.Option(metavar="GUID", help="objectGUID of the AD account whose entry it is now.")],
    domain: Domain = None,
    config: OpsConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give the entry to another AD account: for one that was deleted and made again under the same name.

    Do it while every listed server is reachable and shows the same marker.
    """
    with Report("idm", as_json=as_json) as report:
        _put(report, user, domain, config, lambda old, of_domain: floors.rebound(old, guid, of_domain), yes=yes)


def _settings(config: Path, name: str | None) -> tuple[IdmSettings, DomainSettings]:
    idm, listed = settings_of(config)
    domains = {domain.name: domain for domain in listed if domain.search_base}
    known = ", ".join(domains) or "none"
    if name is not None and name.lower().rstrip(".") not in domains:
        raise ConfigurationError(f"--domain {name}: no such [[domain]] with search_base in {config}: known: {known}")
    if name is None and len(domains) != 1:
        what = "say which with --domain" if domains else "write the consumers' [[domain]] with its search_base"
        raise ConfigurationError(f"configuration {config}: [[domain]] with search_base: {known}: {what}")
    return idm, domains[name.lower().rstrip(".")] if name is not None else next(iter(domains.values()))


def _filetime(moment: datetime) -> int:
    units = from_datetime(moment)
    if units < 0:
        raise ConfigurationError("--changed-at: before 1601, where AD's time begins")
    return units


def _put(
    report: Report,
    user: str,
    name: str | None,
    config: Path,
    floor: Callable[[Marker | None, DomainSettings], Marker],
    *,
    yes: bool,
) -> None:
    """Look at every server, plan the floor for the first one, and with `yes` put it there."""
    idm, domain = _settings(config, name)
    whose = Whose.parse(user)
    views = markers.look(whose, idm, domain, idm.servers)
    server, entry = markers.first(views)
    report.servers["directory"] = server
    floors.check_allowed(whose, entry, idm.protected_groups)
    old, new = entry.marker, floor(entry.marker, domain)
    report["user"], report["domain"], report["dn"] = user, domain.name, entry.dn
    report["old"], report["new"] = describe_marker(old), describe_marker(new)
    report["written"] = False
    if new == old:
        report.say(f"{entry.dn}: {in_words(new)}: nothing to do")
        _say(report, views)
        return
    report.say(f"{entry.dn} at {server}\n  now:  {_words(old)}\n  then: {in_words(new)}")
    if not yes:
        _say(report, views, fault=False)
        report.say("nothing was written: add --yes to do it")
        return
    floors.write(server, entry, new, idm)
    report["written"] = True
    views = markers.wait_until_alike(entry.dn, old, idm, domain)
    _say(report, views)
    for view in views:
        if view.entry is not None and view.marker == old:
            after = f"{markers.REPLICATION_SECONDS:.0f} s"
            report.fail("marker", view.server, f"the marker of before is still, or again, there after {after}")


def _say(report: Report, views: list[View], *, fault: bool = True) -> None:
    """Every server's marker; what is wrong with it is a failure, or with `fault` off a line."""
    table = Table("server", "marker")
    for view in views:
        if view.fault is None:
            table.add_row(view.server, _words(view.marker))
            if view.entry is not None and view.entry.torn:
                _note(report, view.server, _TORN, FAULT if fault else None)
        else:
            table.add_row(view.server, "-")
            _note(report, view.server, str(view.fault), view.fault.exit_code if fault else None)
    report.say(table)
    alike = markers.identical(views)
    if not alike:
        _note(
            report,
            "markers differ",
            f"{markers.REPLICATION}, then `passrelay settle --since T`",
            FAULT if fault else None,
        )
    report["identical"] = alike
    report["entries"] = [_document(view) for view in views]


def _note(report: Report, subject: str, detail: str, exit_code: int | None) -> None:
    if exit_code is None:
        report.progress(f"{subject}: {detail}")
    else:
        report.fail("marker", subject, detail, exit_code=exit_code)


def _words(marker: Marker | None) -> str:
    return "none: nothing came from AD yet" if marker is None else in_words(marker)


def _document(view: View) -> dict[str, Any]:
    return {
        "server": view.server,
        "dn": view.entry.dn if view.entry else None,
        "marker": describe_marker(view.marker),
        "torn": view.entry.torn if view.entry else None,
        "fault": str(view.fault) if view.fault else None,
    }
