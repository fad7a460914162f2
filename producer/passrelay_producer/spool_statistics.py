"""The spool in numbers, for metrics, news and `doctor`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from passrelay_producer.sources import PendingReason

ROW_OVERHEAD = 800
"""What an event takes in the file beside its header and sealed bytes: the rest of its page, and a narrow row. Measured
with the default suite: 717 and 711 for the two sizes of an event."""


@dataclass(frozen=True)
class Statistics:
    """The spool's state. Times are Unix seconds."""

    events: Mapping[tuple[str, str], int]
    """How many by (state, recipient_key_id)."""
    oldest_queued_by_key: Mapping[str, float]
    """By recipient_key_id, of those that have queued events."""
    used_bytes: int
    """What max_bytes is compared with: the file's pages in use."""
    free_bytes: int
    """How much more can be captured: free disk space, or what unpublished events leave of max_bytes."""
    pending: Mapping[PendingReason, int]

    @property
    def oldest_queued_at(self) -> float | None:
        """When the oldest queued event was queued."""
        return min(self.oldest_queued_by_key.values(), default=None)


def used_bytes(connection: sqlite3.Connection) -> int:
    """The file's pages in use."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def read_statistics(connection: sqlite3.Connection, *, disk_free: int, max_bytes: int) -> Statistics:
    """The numbers of a spool, within one view of the file; `disk_free` is in bytes as well."""
    events: dict[tuple[str, str], int] = {}
    oldest: dict[str, float] = {}
    queued_bytes = 0
    # A scan of the narrow rows for each key, and there are few keys: quicker than to group (and sort) them.
    for number, key_id in connection.execute("SELECT id, recipient_key_id FROM recipient").fetchall():
        queued, size, first = connection.execute(
            "SELECT count(*), sum(bytes), min(queued_at) FROM queued WHERE recipient = ?", (number,)
        ).fetchone()
        (published,) = connection.execute("SELECT count(*) FROM published WHERE recipient = ?", (number,)).fetchone()
        if queued:
            events["queued", key_id] = queued
            oldest[key_id] = first / 1000
            queued_bytes += size + queued * ROW_OVERHEAD
        if published:
            events["published", key_id] = published
    pending = connection.execute("SELECT reason, count(*) FROM pending GROUP BY reason").fetchall()
    return Statistics(
        events=events,
        oldest_queued_by_key=oldest,
        used_bytes=used_bytes(connection),
        free_bytes=max(0, min(disk_free, max_bytes - queued_bytes)),
        pending={PendingReason(reason): count for reason, count in pending},
    )
