"""`audit --repair`, told step by step: who is let in, what is set in motion, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from passrelay_ops.audit import broker, healing
from passrelay_ops.audit.comparison import Comparison
from passrelay_ops.audit.result import Result
from passrelay_ops.audit.whereabouts import IN_FLIGHT, Trace, Whereabouts
from passrelay_ops.connection import connect, server_version
from passrelay_ops.notes import Notes
from passrelay_ops.report import Report
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.settings import OpsSettings, ProducerSettings

_NAMED = 10
"""So many of those whom --overwrite-idm concerns are named."""


def trace(report: Report, settings: OpsSettings, result: Result) -> None:
    """Where the missing passwords are; without broker or ops key that is unknown, and the comparison stands."""
    notes = Notes(Keyring.of(settings.keys))
    wanted = result.wanted()
    if not wanted:
        return
    if not notes.readable:
        report.progress(f"no private ops key in {settings.keys.directory}: where a password waits is not known")
        result.trace(Whereabouts({}, notes))
        return
    try:
        with connect(settings.broker) as connection:
            report.servers["rabbitmq"] = server_version(connection)
            result.trace(broker.look(connection, wanted, notes))
    except PassrelayError as error:
        report.progress(f"{error}; where a password waits is not known")
        result.trace(Whereabouts({}, notes))


def repair(
    report: Report,
    settings: OpsSettings,
    result: Result,
    compared: Comparison,
    producer: ProducerSettings | None,
    seconds: float,
) -> None:
    """Do what can be done from here, wait for it, and look again where the rest is."""
    coming = {guid for guid, trace in result.traces().items() if trace.where == IN_FLIGHT}
    before = result.traces()
    try:
        if any(trace.event_id is not None for trace in before.values()):
            with connect(settings.broker) as connection:
                replayed = healing.replay(result, connection, report.progress)
            coming |= replayed
            report.progress(f"{len(replayed)} dead letters were replayed")
        if producer is None:
            report.progress("this host has no producer of a domain controller: nothing is captured again from here")
        else:
            captured = healing.recapture(result, producer)
            coming |= captured
            report.progress(f"{len(captured)} users of {result.domain} were captured again")
    except PassrelayError as error:
        report.fail("repair", result.domain, str(error), exit_code=error.exit_code)
    healing.wait(result, compared, seconds, coming=coming, died=lambda: _died(settings, result, before))
    report.progress(f"{len(result.repaired)} users were repaired, {result.drift.total()} are not in sync")
    trace(report, settings, result)


def _died(settings: OpsSettings, result: Result, before: Mapping[UUID, Trace]) -> set[UUID]:
    """Who has a dead letter that was none before the repair; nobody when the broker cannot be asked."""
    try:
        with connect(settings.broker) as connection:
            wanted = result.wanted()
            found = broker.look(connection, wanted, Notes(Keyring.of(settings.keys)), journal=False)
    except PassrelayError:
        return set()
    result.trace(found)
    return {guid for guid, trace in result.traces().items() if trace.is_new_letter(before.get(guid))}


def let_in(
    report: Report,
    result: Result,
    compared: Comparison,
    domain: DomainSettings,
    idm: IdmSettings,
    *,
    captures: bool,
    yes: bool,
) -> None:
    """--overwrite-idm: AD's password also for whoever has, or tried to set, a younger one in IdM."""
    younger = result.younger_in_idm()
    if not yes:
        names = ", ".join(user.name for user, _ in younger[:_NAMED]) + (", ..." if len(younger) > _NAMED else "")
        report.progress(
            f"--overwrite-idm: {len(younger)} users of {domain.name} would lose their own password in IdM to AD's: "
            f"{names or 'nobody'}: add --yes to do it"
        )
    elif younger:
        count = healing.let_in(result, compared, domain, idm, captures=captures)
        if captures:
            report.progress(f"{count} users of {domain.name} get AD's password over a younger one in IdM")
        else:
            report.progress(
                f"{count} users of {domain.name} may get AD's password over a younger one in IdM, by their dead "
                "letters alone: a host without a producer of a domain controller captures nothing again"
            )
