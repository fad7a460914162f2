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
        if row.id == "broker.topology" or (theirs and row.id.startswith(("config.", "broker."))):
            yield row.id
    # With one server that is fit they go on.
    servers = {row.subject for row in rows if row.id == "idm.write"}
    unfit = {row.subject: row.id for row in failed if row.id in STOPS_CONSUMERS}
    if servers and servers <= unfit.keys():
        yield from unfit.values()
