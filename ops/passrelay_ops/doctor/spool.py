"""The producer's process and spool on this host: begun, running, with room, and nothing that waits for long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from passrelay_ops.check import Result, Row
from passrelay_producer.spool import Spool
from passrelay_producer.spool_statistics import Statistics
from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.settings import ProducerSettings
from passrelay_schemas.source_settings import SpoolSettings

LEAST_FREE_BYTES = 100_000_000
"""Some 20,000 changes: below it there is time to make room before capturing waits."""
LONGEST_WAIT_SECONDS = 600
_LOCKS = Path("/proc/locks")
IDS = ("producer.spool", "producer.initialised", "producer.running", "producer.published")


@dataclass(frozen=True)
class SpoolView:
    """What the spool holds; `statistics` is None while there is no spool yet."""

    fault: str = ""
    initialised: bool = False
    statistics: Statistics | None = None
    running: bool | None = None
    """A producer holds the spool's directory; None where the system does not tell."""


def look(settings: SpoolSettings) -> SpoolView:
    """Look once. A spool that is not there is not made."""
    running = _held(settings.path.parent)
    if not settings.path.exists():
        return SpoolView(running=running)
    try:
        with Spool(settings) as spool:
            return SpoolView("", bool(spool.cursor()), spool.statistics(), running)
    except PassrelayError as error:
        return SpoolView(str(error), running=running)


def _held(directory: Path) -> bool | None:
    """Somebody has locked the directory; asked of the kernel, since a lock of our own could stop a producer's start."""
    try:
        inode = directory.stat().st_ino
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    # The sixth field is major:minor:inode (proc_locks(5)).
    return any(" FLOCK " in line and line.split()[5].rpartition(":")[2] == str(inode) for line in lines)


def rows(subject: str, settings: ProducerSettings, view: SpoolView, *, broker_good: bool, now: float) -> list[Row]:
    """Every check of the spool; `now` in Unix seconds."""
    if view.fault:
        what, _, repair = view.fault.rpartition(": ")
        rest = (Row(check, subject, Result.UNKNOWN, "producer.spool failed") for check in IDS[1:])
        return [Row(IDS[0], subject, Result.FAIL, what, repair), *rest]
    initialised = _initialised(subject, settings, view)
    running = _running(subject, settings, view)
    if initialised.result is Result.FAIL:
        running = Row(running.id, subject, Result.UNKNOWN, "producer.initialised failed")
    return [
        _room(subject, settings, view),
        initialised,
        running,
        _published(subject, view, running, broker_good=broker_good, now=now),
    ]


def _room(subject: str, settings: ProducerSettings, view: SpoolView) -> Row:
    check, path = "producer.spool", settings.spool.path
    if view.statistics is None:
        return Row(check, subject, Result.OK, f"{path}: not made yet")
    free = view.statistics.free_bytes
    waiting = ", ".join(f"{count} {reason}" for reason, count in view.statistics.pending.items())
    detail = f"{path}: room for {free // 1_000_000} MB" + (f"; accounts that wait: {waiting}" if waiting else "")
    if free < min(LEAST_FREE_BYTES, settings.spool.max_bytes // 10):
        repair = "free space on its disk, or raise [spool] max_bytes; when it is full capturing waits"
        return Row(check, subject, Result.FAIL, detail, repair)
    return Row(check, subject, Result.OK, detail)


def _initialised(subject: str, settings: ProducerSettings, view: SpoolView) -> Row:
    check = "producer.initialised"
    if settings.source.samba is None:
        return Row(check, subject, Result.OK, "its source has no beginning to choose")
    if view.initialised:
        return Row(check, subject, Result.OK, "capturing has begun")
    return Row(
        check,
        subject,
        Result.FAIL,
        "nobody has said where capturing begins",
        "`passrelay producer init --from now`, or `--from all` for every password that AD can show",
    )


def _running(subject: str, settings: ProducerSettings, view: SpoolView) -> Row:
    check = "producer.running"
    if view.running is None:
        return Row(check, subject, Result.UNKNOWN, "this system does not tell who holds the spool")
    if view.running:
        return Row(check, subject, Result.OK, "a producer holds the spool")
    if settings.source.stdin is not None:
        return Row(check, subject, Result.OK, "not now: it runs when another program starts it")
    return Row(check, subject, Result.FAIL, "no producer runs on this spool", "start it: `passrelay producer run`")


def _published(subject: str, view: SpoolView, running: Row, *, broker_good: bool, now: float) -> Row:
    check = "producer.published"
    oldest = view.statistics.oldest_queued_at if view.statistics is not None else None
    if oldest is None:
        return Row(check, subject, Result.OK, "nothing waits for the broker")
    age = f"the oldest of what waits for the broker has waited {now - oldest:.0f} s"
    if now - oldest <= LONGEST_WAIT_SECONDS:
        return Row(check, subject, Result.OK, age)
    if not broker_good:
        return Row(check, subject, Result.UNKNOWN, f"a check of the broker failed; {age}")
    if running.result is not Result.OK:
        return Row(check, subject, Result.UNKNOWN, f"{running.id} failed; {age}")
    return Row(check, subject, Result.FAIL, age, "look at the producer's log (broker_lost, broker_blocked)")
