"""The spool: sealed events wait here for the broker, beside the source's cursor, accounts and pending changes.

One SQLite file, one connection behind one lock: every method may be called from any thread. Other processes
(`producer republish`, `producer capture`) may write to the same file.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from uuid import UUID

from passrelay_producer.sources import AccountState, Page, Pending, PendingReason
from passrelay_producer.spool_file import SpoolFullError, explained, open_file
from passrelay_schemas.envelope import SealedEvent
from passrelay_schemas.source_settings import SpoolSettings

__all__ = ["Place", "QueuedEvent", "Spool", "SpoolFullError", "Statistics"]

_CURSOR = "cursor."
_REPUBLISHED = "republished"
"""How often `republish` was called: the round that a row was read in."""
_ROUND = f"SELECT CAST(coalesce(max(value), '0') AS INTEGER) FROM meta WHERE key = '{_REPUBLISHED}'"  # noqa: S608
_LENGTH = struct.Struct(">I")
_SWEEP_ROWS = 1000
_ROW_OVERHEAD = 512
"""Of a row's columns, index entries and page ends beside its sealed bytes; generous."""


class Place(NamedTuple):
    """Where an event stands in the spool's order, and in which round of `republish` it was read there."""

    seq: int
    round: int


@dataclass(frozen=True)
class QueuedEvent:
    """One sealed event and its place."""

    place: Place
    event: SealedEvent

    @property
    def seq(self) -> int:
        """Its number in the order of capture."""
        return self.place.seq


@dataclass(frozen=True)
class Statistics:
    """The spool's state for metrics and `doctor`. Times are Unix seconds."""

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


class Spool:
    """The open spool; implements `sources.Memory`.

    Methods raise SpoolFullError (wait and try again: nothing was changed), UnavailableError (another process holds
    the file) and ConfigurationError (damaged).
    """

    def __init__(self, settings: SpoolSettings) -> None:
        self.path: Path = settings.path
        self._retention_ms = int(settings.retention_hours * 3_600_000)
        self._max_bytes = settings.max_bytes
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self._connection = open_file(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; its WAL is folded in."""
        with self._lock:
            self._connection.close()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after every change of the queue by this process, on the thread that made it."""
        self._watchers.append(watcher)

    # -- sources.Memory ---------------------------------------------------------------------------------------------

    def cursor(self) -> Mapping[str, str]:
        """The cursor of the last committed page that had one."""
        with self._reading() as connection:
            rows = connection.execute("SELECT key, value FROM meta WHERE key GLOB ?", (_CURSOR + "*",))
            return {key.removeprefix(_CURSOR): value for key, value in rows}

    def account(self, guid: UUID) -> AccountState | None:
        """What was captured last of an account."""
        with self._reading() as connection:
            row = connection.execute("SELECT kvno, must_change FROM account WHERE guid = ?", (str(guid),)).fetchone()
        return None if row is None else AccountState(guid, row[0], bool(row[1]))

    def pending(self) -> Sequence[Pending]:
        """All accounts that wait to be read again, longest waiting first."""
        with self._reading() as connection:
            rows = connection.execute("SELECT guid, reason FROM pending ORDER BY since, guid").fetchall()
        return [Pending(UUID(guid), PendingReason(reason)) for guid, reason in rows]

    def excluded(self, limit: int | None = None) -> Sequence[UUID]:
        """The accounts of which the filter left something out, the latest first; all, or so many."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT guid FROM excluded ORDER BY seq DESC LIMIT ?", (-1 if limit is None else limit,)
            ).fetchall()
        return [UUID(guid) for (guid,) in rows]

    def is_excluded(self, guid: UUID) -> bool:
        """True when the filter left out something of this account."""
        with self._reading() as connection:
            return connection.execute("SELECT 1 FROM excluded WHERE guid = ?", (str(guid),)).fetchone() is not None

    # -- capture ----------------------------------------------------------------------------------------------------

    def commit(self, page: Page, sealed: Sequence[SealedEvent]) -> None:
        """Events, cursor, accounts, pending and excluded rows of a page, all or nothing, durable on return.

        A cursor without keys leaves the old one; otherwise it replaces the old one. An account both resolved and
        pending, or excluded, ends so. SpoolFullError when the disk or max_bytes is full: nothing was changed.
        """
        now = _now_ms()
        rows = [_row(event, now) for event in sealed]
        if rows:
            self._make_room(sum(row[4] + _ROW_OVERHEAD for row in rows))
        with self._writing() as connection:
            connection.executemany(
                "INSERT INTO event (event_id, recipient_key_id, protected, sealed, bytes, captured_at, queued_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            if page.cursor:
                connection.execute("DELETE FROM meta WHERE key GLOB ?", (_CURSOR + "*",))
                connection.executemany(
                    "INSERT INTO meta VALUES (?, ?)", [(_CURSOR + key, value) for key, value in page.cursor.items()]
                )
            connection.executemany(
                "INSERT OR REPLACE INTO account VALUES (?, ?, ?)",
                [(str(account.guid), account.kvno, account.must_change) for account in page.accounts],
            )
            resolved = [(str(guid),) for guid in page.resolved]
            waiting = [(str(pending.guid),) for pending in page.pending]
            connection.executemany("DELETE FROM pending WHERE guid = ?", resolved)
            connection.executemany("DELETE FROM excluded WHERE guid = ?", [*resolved, *waiting])
            connection.executemany(
                "INSERT OR REPLACE INTO excluded (guid) VALUES (?)",
                [(str(excluded.guid),) for excluded in page.excluded if excluded.guid is not None],
            )
            connection.executemany(
                "INSERT INTO pending VALUES (?, ?, ?, 1)"
                " ON CONFLICT (guid) DO UPDATE SET reason = excluded.reason, attempts = attempts + 1",
                [(str(pending.guid), pending.reason.value, now) for pending in page.pending],
            )
        if rows:
            self._changed()

    def _make_room(self, needed: int) -> None:
        """Remove the oldest published events until `needed` bytes fit below max_bytes."""
        while (used := self._used_bytes()) + needed > self._max_bytes:
            if self._delete("published_at IS NOT NULL") > 0:
                continue
            # A page larger than max_bytes itself must pass some time: it does when nothing else waits.
            if self.queued_count() == 0:
                return
            raise SpoolFullError(
                f"spool {self.path}: {used} bytes of unpublished events, [spool] max_bytes is {self._max_bytes}"
            )

    # -- publishing -------------------------------------------------------------------------------------------------

    def queued(self, after_seq: int, limit: int) -> list[QueuedEvent]:
        """The first `limit` unpublished events after a place, in the order of capture."""
        with self._reading() as connection:
            # Before the rows: where a round begins in between, they are published once more.
            number = connection.execute(_ROUND).fetchone()[0]
            rows = connection.execute(
                "SELECT seq, protected, sealed FROM event WHERE published_at IS NULL AND seq > ? ORDER BY seq LIMIT ?",
                (after_seq, limit),
            ).fetchall()
        return [
            QueuedEvent(Place(seq, number), SealedEvent(protected, _split(sealed))) for seq, protected, sealed in rows
        ]

    def queued_count(self) -> int:
        """How many events are not published yet."""
        with self._reading() as connection:
            row = connection.execute("SELECT count(*) FROM event WHERE published_at IS NULL").fetchone()
        return int(row[0])

    def mark_published(self, places: Sequence[Place]) -> None:
        """The broker confirmed these. What was read before `republish` was called stays queued: it has to go again."""
        now = _now_ms()
        with self._writing() as connection:
            connection.executemany(
                f"UPDATE event SET published_at = ? WHERE seq = ? AND ({_ROUND}) = ?",  # noqa: S608
                [(now, place.seq, place.round) for place in places],
            )
        self._changed()

    def republish(self, since: datetime) -> int:
        """Queue every event again that was published at or after `since`, or is being published; how many. Safe always.

        What is on its way to the broker is not counted: it was signed with the key of before.
        """
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO meta VALUES (?, '1') ON CONFLICT (key) DO UPDATE SET value = value + 1", (_REPUBLISHED,)
            )
            count = connection.execute(
                "UPDATE event SET published_at = NULL, queued_at = ? WHERE published_at >= ?",
                (_now_ms(), int(since.timestamp() * 1000)),
            ).rowcount
        self._changed()
        return count

    def sweep(self) -> int:
        """Remove published events whose retention is over, or which max_bytes has no room for; how many."""
        before = _now_ms() - self._retention_ms
        swept = 0
        while count := self._delete(f"published_at <= {before:d}"):
            swept += count
        while self._used_bytes() > self._max_bytes and (count := self._delete("published_at IS NOT NULL")):
            swept += count
        return swept

    def _delete(self, condition: str) -> int:
        # Conditions are made above, and each one excludes unpublished events: NULL compares with nothing.
        with self._writing() as connection:
            return connection.execute(
                f"DELETE FROM event WHERE seq IN (SELECT seq FROM event WHERE {condition}"  # noqa: S608
                f" ORDER BY published_at LIMIT {_SWEEP_ROWS})"
            ).rowcount

    # -- numbers ----------------------------------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """Counts for metrics."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT state, recipient_key_id, count(*), sum(bytes), min(queued_at) FROM event GROUP BY 1, 2"
            ).fetchall()
            pending = connection.execute("SELECT reason, count(*) FROM pending GROUP BY reason").fetchall()
        queued = [row for row in rows if row[0] == "queued"]
        queued_bytes = sum(row[3] + row[2] * _ROW_OVERHEAD for row in queued)
        return Statistics(
            events={(state, key_id): count for state, key_id, count, _, _ in rows},
            oldest_queued_by_key={row[1]: row[4] / 1000 for row in queued},
            used_bytes=self._used_bytes(),
            free_bytes=max(0, min(shutil.disk_usage(self.path.parent).free, self._max_bytes - queued_bytes)),
            pending={PendingReason(reason): count for reason, count in pending},
        )

    def last_captured_at(self) -> float | None:
        """When the youngest event in the spool was captured, Unix seconds."""
        with self._reading() as connection:
            row = connection.execute("SELECT captured_at FROM event ORDER BY seq DESC LIMIT 1").fetchone()
        return None if row is None else row[0] / 1000

    def _used_bytes(self) -> int:
        with self._reading() as connection:
            pages, free, size = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - free) * size

    # -- the connection ---------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self.path):
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # After some errors SQLite has already rolled back by itself; only the first error counts.
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _row(event: SealedEvent, now: int) -> tuple[str, str, bytes, bytes, int, int, int]:
    header = event.header
    sealed = b"".join(_LENGTH.pack(len(part)) + part for part in event.sealed)
    size = len(event.protected) + len(sealed)
    return str(header.event_id), header.recipient_key_id, event.protected, sealed, size, now, now


def _split(sealed: bytes) -> tuple[bytes, ...]:
    parts, start = [], 0
    while start < len(sealed):
        (length,) = _LENGTH.unpack_from(sealed, start)
        start += _LENGTH.size
        parts.append(sealed[start : start + length])
        start += length
    return tuple(parts)
