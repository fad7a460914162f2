"""Taking the set-up back: what can go and in which order, what stays and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from passrelay_consumer.directory import MANAGERS
from passrelay_ops.idm import work
from passrelay_ops.idm.carriers import carriers
from passrelay_ops.idm.ldif import Record
from passrelay_ops.idm.plan import Step, home, made, to_take_back
from passrelay_ops.idm.server import Server
from passrelay_ops.idm.site import Site
from passrelay_ops.idm.templates import Wanted
from passrelay_ops.idm.view import View
from passrelay_schemas.distinguished_name import folded
from passrelay_schemas.errors import UnavailableError

_SCHEMA_ROUNDS = 5
LISTED_BEFORE = (
    f"The account goes from {MANAGERS} even if it was listed before setup:\nno entry tells who put it there. "
    "`passrelay idm managers add --yes` lists it again."
)


@dataclass(frozen=True)
class Undo:
    """The steps, and what stays in spite of them."""

    steps: tuple[Step, ...]
    schema_steps: tuple[Step, ...]
    stays: tuple[str, ...]


def all_made(wanted: Wanted, views: Sequence[View]) -> Wanted:
    """What is wanted, and beside it every probe that an earlier list of servers needed."""
    known = {folded(record.dn) for record in wanted.probes}
    found = {folded(dn): dn for view in views for dn in view.probes}
    earlier = tuple(Record(dn, "add") for key, dn in found.items() if key not in known)
    return replace(wanted, probes=wanted.probes + earlier)


def plan(site: Site, wanted: Wanted, views: Sequence[View], *, marked: int, markers_too: bool) -> Undo:
    """What `--undo` does; `marked` entries carry markers, which go with `markers_too` only."""
    usable = [view for view in views if view.unusable is None]
    unusable = [view.server for view in views if view.unusable is not None]
    kept = marked and not markers_too
    stays = []
    if kept:
        stays.append(
            f"{' and '.join(site.markers)} on {marked} entries: passrelay could go on with them one day; --markers "
            "takes them off (stop every consumer first)"
        )
    if kept and wanted.schema:
        stays.append("the schema: those entries use it, and without it nobody could change them any more")
    elif wanted.schema and unusable:
        stays.append(f"the schema: {', '.join(unusable)} cannot be used now and would give it back to the others")
    where = home(wanted, usable)
    stays += [
        f"{record.dn}: passrelay idm setup has not made it"
        for record in wanted.tree
        if record.kind == "add" and where.entry(record.dn) is not None and made(record, where) is None
    ]
    steps, schema_steps = to_take_back(wanted, usable)
    steps = [_with_warning(step) for step in steps]
    return Undo(tuple(steps), () if kept or unusable else tuple(schema_steps), tuple(stays))


def _with_warning(step: Step) -> Step:
    """A value of a list does not tell who put it there, so one from before setup goes too."""
    if not any(change.attribute == MANAGERS for change in step.record.changes):
        return step
    return replace(step, record=replace(step.record, comment=LISTED_BEFORE))


def take_back(
    plan: Undo,
    site: Site,
    wanted: Wanted,
    urls: Sequence[str],
    connection: Callable[[str], Server],
    look: Callable[[str], View],
    *,
    markers_too: bool,
) -> None:
    """Do it: managers, rules and accounts, then markers, and once no server shows any of these, the schema.

    UnavailableError when a server does not come along within REPLICATION_SECONDS; it can be run again.
    """
    work.apply(plan.steps, connection)
    if markers_too:
        removals = find_carriers(urls[0], connection, site)
        work.apply([Step((urls[0],), record) for record in removals], connection)

    def gone(view: View) -> bool:
        return all(made(record, view) is None for record in (*wanted.tree, *wanted.managers))

    late = [view.server for view in work.settle(lambda: [look(url) for url in urls], gone) if not gone(view)]
    if late:
        raise UnavailableError(
            f"{', '.join(late)}: what was removed elsewhere is still there: repair replication, then run it again"
        )
    if plan.schema_steps:
        _take_schema(site, wanted, urls, connection, look)


def find_carriers(url: str, connection: Callable[[str], Server], site: Site) -> list[Record]:
    """What takes the markers off, for every entry that carries one; all are found before the first is changed."""
    with work.explained(url, site.suffix):
        return list(carriers(connection(url), site))


def _take_schema(
    site: Site, wanted: Wanted, urls: Sequence[str], connection: Callable[[str], Server], look: Callable[[str], View]
) -> None:
    for url in urls:
        if work.wait_for(partial(find_carriers, url, connection, site), lambda found: not found):
            raise UnavailableError(f"{url}: entries still carry markers: repair replication, then run it again")
    # A server that still has a definition gives it back to one that has not, when they next replicate (measured): at
    # some moment none may have any.
    for _ in range(_SCHEMA_ROUNDS):
        _, steps = to_take_back(wanted, [look(url) for url in urls])
        if not steps:
            return
        work.apply(steps, connection)
    raise UnavailableError("the schema comes back: an IdM server that is not in [idm] servers gives it to the others")
