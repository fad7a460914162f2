"""What `audit --repair` does: AD's current passwords are captured again, dead letters replayed, and both waited for.

Both may be done at any time and any number of times: an older password never overwrites a newer one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pika.adapters.blocking_connection import BlockingConnection
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from passrelay_ops import replay as replaying
from passrelay_ops.audit.comparison import Comparison
from passrelay_ops.audit.result import Result
from passrelay_ops.dead_letters import Letters
from passrelay_ops.operator_act import Act
from passrelay_ops.selection import Selection
from passrelay_ops.standing import Standing
from passrelay_ops.stream import read
from passrelay_producer import service
from passrelay_schemas.settings import ProducerSettings
from passrelay_schemas.settings_file import load
from passrelay_schemas.topology import DEAD

_LOOK_SECONDS = 1.0
_WHY = "passrelay audit --repair"


def local_producer(path: Path, *, chosen: bool) -> ProducerSettings | None:
    """The producer of this host, if it has one that captures on a domain controller.

    ConfigurationError for a file that was `chosen` by the operator, or that is there, and cannot be used.
    """
    if not chosen and not path.exists():
        return None
    settings = load(ProducerSettings, path)
    return settings if settings.source.samba is not None else None


def recapture(result: Result, producer: ProducerSettings) -> int:
    """Capture whoever that heals, over one connection to the controller on this host; how many.

    Who cannot be captured says so in his row. Errors as in `passrelay_producer.service.recapture`.
    """
    guids = result.curable()
    if guids:
        for guid, why in service.recapture(producer, result.domain, guids).items():
            result.say(guid, f"AD's password could not be captured: {why}; else he changes it in AD once more")
    return len(guids)


def replay(result: Result, connection: BlockingConnection, notice: Callable[[str], None]) -> int:
    """Replay the dead letters of whoever that heals; how many. UnavailableError when the broker does not take them.

    Which of these users has a younger password in IdM the audit has seen already.
    """
    ids = result.letters()
    if not ids:
        return 0
    letters = Letters(None, notice).read(read(connection, DEAD))
    selection = Selection(ids=ids)
    plan = replaying.plan((one for one in letters.by_first_failure() if selection.takes(one)), lambda _: Standing.DUE)
    done = replaying.Done()
    replaying.run(connection, letters, plan.letters, Act.of(_WHY), done=done)
    return done.replayed


def wait(result: Result, comparison: Comparison, seconds: float) -> None:
    """Look at whoever can be healed until all are in sync, or the time is over."""
    guids = result.curable()
    before = {guid: name for guid in guids if (name := result.name(guid)) is not None}

    def left() -> bool:
        result.again(comparison, [guid for guid in guids if result.name(guid) is not None])
        return not set(guids).isdisjoint(result.curable())

    Retrying(
        retry=retry_if_result(bool),
        wait=wait_fixed(_LOOK_SECONDS),
        stop=stop_after_delay(seconds),
        retry_error_callback=lambda _: True,
    )(left)
    result.repaired = sorted(name for guid, name in before.items() if result.name(guid) is None)
