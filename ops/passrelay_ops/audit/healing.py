"""What `audit --repair` does: AD's current passwords are captured again, dead letters replayed, and both waited for.

Both may be done at any time and any number of times: an older password never overwrites a newer one.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from uuid import UUID

from pika.adapters.blocking_connection import BlockingConnection
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from passrelay_ops import floors, markers
from passrelay_ops import replay as replaying
from passrelay_ops import replay_plan as planning
from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.comparison import Comparison
from passrelay_ops.audit.result import Result
from passrelay_ops.audit.state import Finding, State
from passrelay_ops.dead_letters import Letters
from passrelay_ops.markers import Whose
from passrelay_ops.operator_act import Act
from passrelay_ops.selection import Selection
from passrelay_ops.standing import Standing
from passrelay_ops.stream import read
from passrelay_producer import service
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import PassrelayError, SafetyError
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.settings import ProducerSettings
from passrelay_schemas.settings_file import load
from passrelay_schemas.topology import DEAD

_LOOK_SECONDS = 1.0
_LOOKS_BETWEEN = 5
"""So many looks at IdM are between two at the dead stream, which is read as a whole."""
_WHY = "passrelay audit --repair"


def local_producer(path: Path, *, chosen: bool) -> ProducerSettings | None:
    """The producer of this host, if it has one that captures on a domain controller.

    ConfigurationError for a file that was `chosen` by the operator, or that is there, and cannot be used.
    """
    if not chosen and not path.exists():
        return None
    settings = load(ProducerSettings, path)
    return settings if settings.source.samba is not None else None


def recapture(result: Result, producer: ProducerSettings) -> set[UUID]:
    """Capture whoever that heals, over one connection to the controller on this host; who was captured.

    Who cannot be captured says so in his row. Errors as in `passrelay_producer.service.recapture`.
    """
    guids = result.curable()
    failed = service.recapture(producer, result.domain, guids) if guids else {}
    for guid, why in failed.items():
        result.say(guid, f"AD's password could not be captured: {why}; else he changes it in AD once more")
    return set(guids) - failed.keys()


def replay(result: Result, connection: BlockingConnection, notice: Callable[[str], None]) -> set[UUID]:
    """Replay the newest dead letter of whoever that heals; whose were replayed.

    Which of these users has a younger password in IdM the audit has seen already. UnavailableError when the broker
    does not take them.
    """
    owners = {trace.event_id: guid for guid, trace in result.traces().items() if trace.event_id is not None}
    if not owners:
        return set()
    letters = Letters(None, notice).read(read(connection, DEAD))
    selection = Selection(ids=frozenset(owners))
    plan = planning.plan((one for one in letters.by_first_failure() if selection.takes(one)), lambda _: Standing.DUE)
    for out in plan.left_out:
        result.say(owners[out.letter.event_id], f"its dead letter {out.why}: {out.repair}")
    done = replaying.Done()
    replaying.run(connection, letters, plan.letters, Act.of(_WHY), done=done)
    return {owners[letter.event_id] for letter in plan.letters} - {owners[one.event_id] for one in done.unreadable}


def let_in(result: Result, comparison: Comparison, domain: DomainSettings, idm: IdmSettings, *, captures: bool) -> int:
    """Let AD's password over whatever is younger in IdM; how many users. Who cannot be let in says so in his row.

    An entry whose marker has AD's version, or none, gets a floor below it, as `idm marker reset` and `rebind` put it;
    only where this host also `captures`, or nothing would come over the floor.
    """
    younger = result.younger_in_idm()
    result.overwrite_idm = True
    for user, finding in younger:
        if finding.state is not State.BEHIND and captures:
            try:
                _put_floor(user, finding, domain, idm)
            except PassrelayError as error:
                result.say(user.guid, str(error))
    result.again(comparison, [user.guid for user, _ in younger])
    return len({user.guid for user, _ in younger}.intersection(result.curable()))


def _put_floor(user: AdAccount, finding: Finding, domain: DomainSettings, idm: IdmSettings) -> None:
    whose = Whose(user.name, account=user.account)
    views = markers.look(whose, idm, domain, idm.servers)
    server, entry = markers.first(views)
    floors.check_allowed(whose, entry, idm.protected_groups)
    if not markers.identical(views) or entry.marker != finding.marker:
        raise SafetyError(f"{entry.dn}: its marker is changing, or {markers.REPLICATION}")
    if entry.marker is None:
        floor = floors.rebound(None, user.guid, domain)
    else:
        floor = floors.lowered_or_raised(entry.marker, domain)
    floors.write(server, entry, floor, idm)


def wait(
    result: Result,
    comparison: Comparison,
    seconds: float,
    *,
    coming: set[UUID],
    died: Callable[[], set[UUID]] = set,
) -> None:
    """Look at whoever can be healed until all who are `coming` have come, or the time is over.

    `died` is asked now and then: whose event became a dead letter meanwhile does not come any more.
    """
    before = {guid: name for guid in result.curable() if (name := result.name(guid)) is not None}
    left, looks = set(coming), count(1)

    def more() -> bool:
        result.again(comparison, [guid for guid in before if result.name(guid) is not None])
        left.intersection_update(result.curable())
        if left and next(looks) % _LOOKS_BETWEEN == 0:
            left.difference_update(died())
        return bool(left)

    Retrying(
        retry=retry_if_result(bool),
        wait=wait_fixed(_LOOK_SECONDS),
        stop=stop_after_delay(seconds),
        retry_error_callback=lambda _: True,
    )(more)
    result.repaired = sorted(name for guid, name in before.items() if result.name(guid) is None)
