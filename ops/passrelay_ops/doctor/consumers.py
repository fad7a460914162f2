"""Nobody reads the work queue: a fault of its own, unless another one keeps every consumer from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from passrelay_ops.check import Result, Row
from passrelay_ops.doctor.broker import CONSUMERS
from passrelay_ops.doctor.directory import STOPS_CONSUMERS


def explained(rows: Sequence[Row], files: Sequence[Path]) -> list[Row]:
    """The rows; `broker.consumers` is unknown where it rests on another. `files`: those of this host's consumers."""
    cause = next(_causes(rows, files), None)
    if cause is None:
        return list(rows)
    return [
        Row(row.id, row.subject, Result.UNKNOWN, f"{cause} failed; {row.detail}")
        if row.id == CONSUMERS and row.result is Result.FAIL
        else row
        for row in rows
    ]


def _causes(rows: Sequence[Row], files: Sequence[Path]) -> Iterator[str]:
    failed = [row for row in rows if row.result is Result.FAIL]
    for row in failed:
        theirs = any(row.subject == str(path) or row.subject.endswith(f"({path.name})") for path in files)
        # Rights beyond those needed (broker.permissions) keep nobody away; who has too few, says so himself.
        theirs = theirs and row.id.startswith(("config.", "broker.")) and row.id != "broker.permissions"
        if row.id == "broker.topology" or theirs:
            yield row.id
    # With one server that is fit they go on, and where a write on the probe holds, nothing else matters.
    servers = {row.subject: row.result for row in rows if row.id == "idm.write"}
    fit = {server for server, result in servers.items() if result is Result.OK}
    unfit = {row.subject: row.id for row in failed if row.id in STOPS_CONSUMERS and row.subject not in fit}
    if servers and servers.keys() <= unfit.keys():
        yield from unfit.values()
