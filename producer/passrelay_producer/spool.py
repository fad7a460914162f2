"""The spool: sealed events wait here for the broker, beside the source's cursor, accounts and pending changes.

One SQLite file, one connection behind one lock: every method may be called from any thread. Other processes
(`producer republish`, `producer capture`) may write to the same file.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from passrelay_producer.queued_event import CapturedRow, Place, QueuedEvent, split_parts
from passrelay_producer.sources import AccountState, Page, Pending, PendingReason
from passrelay_producer.spool_file import SpoolFullError, explained, one_view, open_file, writing
from passrelay_producer.spool_statistics import ROW_OVERHEAD, Statistics, read_statistics, used_bytes
from passrelay_schemas.envelope import SealedEvent
from passrelay_schemas.source_settings import SpoolSettings

__all__ = ["Spool", "SpoolFullError"]

_CURSOR = "cursor."
_REPUBLISHED = "republished"
_EVER = 2**63 - 1
_SWEEP_ROWS = 1000


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
        rows = [CapturedRow.of(event, now) for event in sealed]
        if rows:
            self._make_room(sum(row.size + ROW_OVERHEAD for row in rows))
        with self._writing() as connection:
            (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM captured").fetchone()
            connection.executemany(
                "INSERT INTO captured (event_id, recipient_key_id, protected, sealed, bytes, captured_at, queued_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            recipients = {(row.recipient_key_id,) for row in rows}
            connection.executemany("INSERT OR IGNORE INTO recipient (recipient_key_id) VALUES (?)", recipients)
            connection.execute(
                "INSERT INTO queued SELECT seq, recipient.id, bytes, queued_at FROM captured"
                " CROSS JOIN recipient USING (recipient_key_id) WHERE seq > ?",
                (last,),
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
            if self._delete(_EVER) > 0:
                continue
            # A page larger than max_bytes itself must pass some time: it does when nothing else waits.
            if not self.has_queued():
                return
            raise SpoolFullError(
                f"spool {self.path}: {used} bytes of unpublished events, [spool] max_bytes is {self._max_bytes}"
            )

    # -- publishing -------------------------------------------------------------------------------------------------

    def queued(self, after_seq: int, limit: int) -> list[QueuedEvent]:
        """The first `limit` unpublished events after a place, in the order of capture."""
        with self._reading() as connection:
            # Before the rows: where a round begins in between, they are published once more.
            number = _round(connection)
            # CROSS: only what waits is looked at, however much was published and is kept.
            rows = connection.execute(
                "SELECT seq, event_id, protected, sealed FROM queued CROSS JOIN captured USING (seq)"
                " WHERE queued.seq > ? ORDER BY queued.seq LIMIT ?",
                (after_seq, limit),
            ).fetchall()
        return [
            QueuedEvent(Place(seq, number), event_id, SealedEvent(protected, split_parts(sealed)))
            for seq, event_id, protected, sealed in rows
        ]

    def queued_count(self) -> int:
        """How many events are not published yet; takes time with many."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM queued").fetchone()[0])

    def has_queued(self) -> bool:
        """True while an event is not published yet."""
        with self._reading() as connection:
            return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM queued)").fetchone()[0])

    def mark_published(self, places: Sequence[Place]) -> None:
        """The broker confirmed these. What was read before `republish` was called stays queued: it has to go again."""
        now = _now_ms()
        with self._writing() as connection:
            number = _round(connection)
            marked = [place.seq for place in places if place.round == number]
            connection.executemany(
                "INSERT OR IGNORE INTO published SELECT ?, seq, recipient, bytes FROM queued WHERE seq = ?",
                [(now, seq) for seq in marked],
            )
            connection.executemany("DELETE FROM queued WHERE seq = ?", [(seq,) for seq in marked])
        self._changed()

    def republish(self, since: datetime) -> int:
        """Queue every event again that was published at or after `since`, or is being published; how many. Safe always.

        What is on its way to the broker is not counted: it was signed with the key of before.
        """
        since_ms = int(since.timestamp() * 1000)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO meta VALUES (?, '1') ON CONFLICT (key) DO UPDATE SET value = value + 1", (_REPUBLISHED,)
            )
            connection.execute(
                "INSERT INTO queued SELECT seq, recipient, bytes, ? FROM published WHERE published_at >= ?",
                (_now_ms(), since_ms),
            )
            count = connection.execute("DELETE FROM published WHERE published_at >= ?", (since_ms,)).rowcount
        self._changed()
        return count

    def sweep(self) -> int:
        """Remove published events whose retention is over, or which max_bytes has no room for; how many."""
        before = _now_ms() - self._retention_ms
        swept = 0
        while count := self._delete(before):
            swept += count
        while self._used_bytes() > self._max_bytes and (count := self._delete(_EVER)):
            swept += count
        return swept

    def _delete(self, until: int) -> int:
        """Remove the oldest of what was published until then, a batch of them; how many."""
        oldest = "FROM published WHERE published_at <= ? ORDER BY published_at, seq LIMIT ?"
        with self._writing() as connection:
            connection.execute(
                f"DELETE FROM captured WHERE seq IN (SELECT seq {oldest})",  # noqa: S608
                (until, _SWEEP_ROWS),
            )
            return connection.execute(
                f"DELETE FROM published WHERE (published_at, seq) IN (SELECT published_at, seq {oldest})",  # noqa: S608
                (until, _SWEEP_ROWS),
            ).rowcount

    # -- numbers ----------------------------------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """Counts for metrics."""
        disk_free = shutil.disk_usage(self.path.parent).free
        with self._reading() as connection, one_view(connection):
            return read_statistics(connection, disk_free=disk_free, max_bytes=self._max_bytes)

    def last_captured_at(self) -> float | None:
        """When the youngest event in the spool was captured, Unix seconds."""
        with self._reading() as connection:
            row = connection.execute("SELECT captured_at FROM captured ORDER BY seq DESC LIMIT 1").fetchone()
        return None if row is None else row[0] / 1000

    def _used_bytes(self) -> int:
        with self._reading() as connection:
            return used_bytes(connection)

    # -- the connection ---------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self.path):
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self.path), writing(self._connection):
            yield self._connection

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _round(connection: sqlite3.Connection) -> int:
    """How often `republish` was called: the round that rows are read and marked in."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_REPUBLISHED,)).fetchone()
    return 0 if row is None else int(row[0])
