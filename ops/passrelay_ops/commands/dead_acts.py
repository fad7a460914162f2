"""`passrelay dead replay` and `discard`: a plan first; with --yes it is done, and recorded in the letters' stream."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from passrelay_ops import discard as discarding
from passrelay_ops import replay as replaying
from passrelay_ops import replay_plan as planning
from passrelay_ops.connection import connect
from passrelay_ops.dead_letters import Letter
from passrelay_ops.interrupt import interruptible
from passrelay_ops.letter_desk import (
    Desk,
    OfAttempts,
    OfDomain,
    OfId,
    OfProducer,
    OfReason,
    OfUser,
    OlderThan,
    ReasonText,
    YoungerThan,
    selection_of,
)
from passrelay_ops.operator_act import Act
from passrelay_ops.options import AsJson, OpsConfig, Yes, default_path
from passrelay_ops.report import INTERRUPTED, Report
from passrelay_ops.selection import Selection
from passrelay_ops.standing import Standing, Standings
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filetime import rfc3339

_CONFIG = default_path("ops")
_SHOWN = 20
"""So many of the letters that are left out are shown one by one; --json has all."""
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many, the oldest first.")]


def replay(
    reason: OfReason = None,
    producer: OfProducer = None,
    domain: OfDomain = None,
    user: OfUser = None,
    ids: OfId = None,
    attempts: OfAttempts = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    limit: Limit = None,
    rate: Annotated[
        int, typer.Option("--rate", metavar="N", min=1, max=5000, help="So many a second.")
    ] = replaying.DEFAULT_RATE,
    overwrite_idm: Annotated[
        bool,
        typer.Option(
            "--overwrite-idm", help="Also where the password was changed in IdM itself since, or nobody can say."
        ),
    ] = False,
    reason_text: ReasonText = None,
    config: OpsConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send letters once more, after their repair. Safe to repeat, also after a crash: consumers know what they wrote.

    Without --yes only the plan is shown. --yes needs --reason-text. Ctrl-C stops after what is on its way.
    """
    with Report("dead", as_json=as_json) as report:
        selection = selection_of(
            reason=reason,
            producer=producer,
            domain=domain,
            user=user,
            ids=ids,
            attempts=attempts,
            older_than=older_than,
            younger_than=younger_than,
        )
        act = Act.of(reason_text) if yes else None
        desk = Desk.open(config, report)
        with connect(desk.settings.broker) as connection, _standings(desk) as standings:
            letters, chosen = desk.letters(connection, selection, most_accounts=None)
            with _bar(report, "looked at in IdM", len(chosen)) as advance:
                plan = planning.plan(chosen, _told(standings, advance), overwrite_idm=overwrite_idm, limit=limit)
            report["plan"], report["replayed"] = plan.document(), 0
            _say_plan(report, plan, rate)
            if act is None:
                report.progress("nothing was replayed: add --yes and --reason-text to do it")
                return
            done, least = replaying.Done(), "at least "
            try:
                with interruptible() as asked, _bar(report, "replayed", len(plan.letters)) as advance:
                    replaying.run(
                        connection, letters, plan.letters, act, done=done, rate=rate, stop=asked, advance=advance
                    )
                least = ""
            finally:
                report["replayed"], report["changed"] = done.replayed, done.changed
                report.progress(f"{least}{done.replayed} of {len(plan.letters)} letters were replayed")
            if done.changed:
                report.progress(f"{done.changed} were replayed, discarded or dead anew meanwhile, and left alone")
            for letter in done.unreadable if not asked() else ():
                repair = "capture the user again: `passrelay producer capture --user USER`"
                report.fail("dead", f"event {letter.event_id}", f"its sealed event is not in the stream: {repair}")
            if asked():
                report.progress("stopped: what was replayed is on record; the same command goes on with the others")
                report.finish(INTERRUPTED)


def discard(
    reason: OfReason = None,
    producer: OfProducer = None,
    domain: OfDomain = None,
    user: OfUser = None,
    ids: OfId = None,
    attempts: OfAttempts = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    limit: Limit = None,
    reason_text: ReasonText = None,
    config: OpsConfig = _CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give letters up: they are no longer listed or replayed. Without --yes only the plan is shown.

    --yes needs --reason-text. The stream keeps a discarded letter, sealed, until its age is reached.
    """
    with Report("dead", as_json=as_json) as report:
        selection = selection_of(
            reason=reason,
            producer=producer,
            domain=domain,
            user=user,
            ids=ids,
            attempts=attempts,
            older_than=older_than,
            younger_than=younger_than,
        )
        if selection == Selection():
            raise ConfigurationError("dead discard: nothing is selected: say which (--reason, --user, --id ...)")
        act = Act.of(reason_text) if yes else None
        desk = Desk.open(config, report)
        with connect(desk.settings.broker) as connection:
            letters, selected = desk.letters(connection, selection, most_accounts=0)
            chosen = selected[:limit]
            report["plan"], report["discarded"] = {"letters": len(chosen)}, 0
            report.say(_reasons(chosen))
            if act is None:
                report.progress(f"nothing was discarded: add --yes and --reason-text to discard {len(chosen)} letters")
                return
            done = discarding.Done()
            try:
                with interruptible() as asked, _bar(report, "discarded", len(chosen)) as advance:
                    discarding.run(connection, letters, chosen, act, done=done, stop=asked, advance=advance)
            finally:
                report["discarded"] = len(done.discarded)
                report.progress(f"{len(done.discarded)} of {len(chosen)} letters were discarded")
            for letter in done.changed:
                why = f"was {letter.state.value if letter.state.value != 'live' else 'dead anew'} meanwhile"
                report.fail("dead", f"event {letter.event_id}", f"{why}: not discarded")
            if asked():
                report.finish(INTERRUPTED)


@contextlib.contextmanager
def _standings(desk: Desk) -> Iterator[Standings | None]:
    """The look into IdM, or None with a word where ops.toml or the keys do not allow one."""
    domains = [domain for domain in desk.settings.domain if domain.search_base]
    if desk.settings.idm is None or not domains or not desk.notes.readable:
        what = "no ops key" if not desk.notes.readable else "no [idm], or no [[domain]] with search_base,"
        desk.report.progress(
            f"IdM is not asked: {what} here; who changed his password in IdM itself since is not known, so letters are "
            "only replayed with --overwrite-idm"
        )
        yield None
        return
    standings = Standings(desk.settings.idm, desk.settings.domain)
    try:
        yield standings
        desk.report.servers["directory"] = standings.server
    finally:
        standings.close()


def _told(standings: Standings | None, advance: Callable[[int], None]) -> Callable[[Letter], Standing]:
    def ask(letter: Letter) -> Standing:
        advance(1)
        return Standing.NOT_KNOWN if standings is None else standings(letter)

    return ask


@contextlib.contextmanager
def _bar(report: Report, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=report.as_json or not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def _reasons(letters: list[Letter]) -> Table:
    table = Table("reason", "letters", "oldest", "newest")
    for reason in sorted({letter.reason for letter in letters}):
        failed = [letter.first_failed_at for letter in letters if letter.reason == reason]
        table.add_row(reason, str(len(failed)), rfc3339(min(failed)), rfc3339(max(failed)))
    return table


_WORDS = {
    Standing.SUPERSEDED: "already superseded: the entry has this change or a newer one, and nothing will be written",
    Standing.FAILS_AGAIN: "will fail again as things stand: no entry, or another AD account's",
    Standing.NOT_KNOWN: "whose entry is not known here: a password that was set in IdM since may be overwritten",
    Standing.CHANGED_IN_IDM: "whose user changed the password in IdM itself since: it will be overwritten",
}


def _say_plan(report: Report, plan: planning.Plan, rate: int) -> None:
    report.say(_reasons(list(plan.letters)))
    for standing, words in _WORDS.items():
        if plan.standings[standing]:
            report.say(f"{plan.standings[standing]} {words}")
    told = [one for one in plan.left_out if one.why != planning.NOBODY_KNOWS]
    for one in told[:_SHOWN]:
        whose = one.letter.account or "-"
        report.say(f"left out: event {one.letter.event_id} of {whose}: {one.why}: {one.repair}")
    unknown = [one for one in plan.left_out if one.why == planning.NOBODY_KNOWS]
    for one in unknown[:1]:  # often thousands, and nothing to say of the single one
        report.say(f"left out: {len(unknown)} letters; of each: {one.why}: {one.repair}")
    if len(told) > _SHOWN:
        report.say(f"left out: {len(plan.left_out)} in all; --json shows each")
    if plan.beyond_limit:
        report.say(f"{plan.beyond_limit} more are beyond --limit")
    report.say(f"{len(plan.letters)} letters, about {len(plan.letters) / rate:.0f} s at {rate} a second")
