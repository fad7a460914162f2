"""A spool of the version before becomes one of this version when it is opened: whole, once, or not at all."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import structlog

from passrelay_producer import spool_file, spool_schema
from passrelay_producer.sources import AccountState, Page, Pending, PendingReason
from passrelay_producer.spool import Spool, SpoolFullError
from passrelay_producer.spool_lock import alone
from passrelay_schemas.envelope import SealedEvent
from passrelay_schemas.errors import SafetyError
from passrelay_schemas.source_settings import SpoolSettings
from tests.unit.test_spool import KEY, sealed

# As passrelay.spool/1 made it.
_FORMER = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    recipient_key_id TEXT NOT NULL,
    protected BLOB NOT NULL,
    sealed BLOB NOT NULL,       -- each part after its length (4 bytes, big-endian)
    bytes INTEGER NOT NULL,
    captured_at INTEGER NOT NULL,   -- these three: milliseconds since 1970
    queued_at INTEGER NOT NULL,     -- captured_at, or when it was republished
    published_at INTEGER,
    state TEXT AS (CASE WHEN published_at IS NULL THEN 'queued' ELSE 'published' END) VIRTUAL
);
CREATE INDEX event_by_publication ON event (published_at);
CREATE INDEX event_counts ON event (state, recipient_key_id, bytes, queued_at);
CREATE TABLE account (
    guid TEXT PRIMARY KEY, kvno INTEGER NOT NULL, must_change INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE pending (
    guid TEXT PRIMARY KEY, reason TEXT NOT NULL, since INTEGER NOT NULL, attempts INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema', 'passrelay.spool/1'), ('cursor.cookie', 'abc'), ('republished', '3');
"""
_FILTERED = "CREATE TABLE excluded (seq INTEGER PRIMARY KEY AUTOINCREMENT, guid TEXT NOT NULL UNIQUE)"
OTHER = "B" * 24
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))
_INSERT = (
    "INSERT INTO event (seq, event_id, recipient_key_id, protected, sealed, bytes, captured_at, queued_at,"
    " published_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    return folder / "spool.sqlite"


def former(path: Path, rows: list[tuple[SealedEvent, int, int | None]], *, filtered: bool = True) -> None:
    """A file of the form before with these events: (event, queued_at, published_at), numbered from 11."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.executescript(_FORMER)
        made.execute("BEGIN")
        for seq, (event, queued_at, published_at) in enumerate(rows, 11):
            header = event.header
            parts = b"".join(len(part).to_bytes(4, "big") + part for part in event.sealed)
            size = len(event.protected) + len(parts)
            values = (header.recipient_key_id, event.protected, parts, size, 1000 + seq, queued_at, published_at)
            made.execute(_INSERT, (seq, str(header.event_id), *values))
        made.execute("INSERT INTO account VALUES (?, 7, 1)", (str(ONE),))
        made.execute("INSERT INTO pending VALUES (?, 'key_missing', 5, 2)", (str(TWO),))
        if filtered:
            made.execute(_FILTERED)
            made.execute("INSERT INTO excluded (guid) VALUES (?)", (str(THREE),))
        made.execute("COMMIT")


def holds(path: Path) -> list[tuple[object, ...]]:
    """Every row of every table, read as SQLite alone sees them."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [
            (table, *row)
            for table in sorted(tables)
            for row in connection.execute(f"SELECT * FROM {table}")  # noqa: S608
        ]


def test_a_spool_of_the_form_before_is_brought_over_with_all_that_it_holds(path: Path) -> None:
    events = [sealed(b"one", b"two"), sealed(), sealed(key=OTHER), sealed(key=OTHER), sealed()]
    # The third was published before the second one, and the first one was queued again.
    former(path, list(zip(events, [9000, 12, 13, 14, 15], [None, 5000, 4000, None, None], strict=True)))
    with structlog.testing.capture_logs() as log, Spool(SpoolSettings(path=path, retention_hours=10**6)) as spool:
        assert [entry["action"] for entry in log] == ["spool_converted"]
        found = spool.queued(0, 10)
        assert [(item.seq, item.event) for item in found] == [(11, events[0]), (14, events[3]), (15, events[4])]
        assert [item.event_id for item in found] == [str(item.event.header.event_id) for item in found]
        assert {item.place.round for item in found} == {3}
        statistics = spool.statistics()
        assert statistics.events == {
            ("queued", KEY): 2,
            ("queued", OTHER): 1,
            ("published", KEY): 1,
            ("published", OTHER): 1,
        }
        assert statistics.oldest_queued_by_key == {KEY: 0.015, OTHER: 0.014}
        assert spool.cursor() == {"cookie": "abc"}
        assert spool.account(ONE) == AccountState(ONE, 7, must_change=True)
        assert spool.pending() == [Pending(TWO, PendingReason.KEY_MISSING)]
        assert spool.excluded() == [THREE]
        assert spool.last_captured_at() == 1.015
        # And it goes on as any other: new events come behind the old ones, old ones are marked, swept and republished.
        new = sealed()
        spool.commit(Page(cursor={"cookie": "next"}), [new])
        (place,) = (item.place for item in spool.queued(15, 10))
        assert place.seq == 16
        spool.mark_published([found[0].place, place])
        assert [item.seq for item in spool.queued(0, 10)] == [14, 15]
        assert spool.republish(datetime.fromtimestamp(4.5, UTC)) == 3
        assert [item.event for item in spool.queued(0, 10)] == [events[0], events[1], *events[3:], new]
        spool._retention_ms = 0
        assert spool.sweep() == 1
    with structlog.testing.capture_logs() as log, Spool(SpoolSettings(path=path)) as spool:
        assert log == []
        assert spool.queued_count() == 5


def test_a_number_that_was_used_up_before_does_not_come_back(path: Path) -> None:
    former(path, [(sealed(), 1, 2)])
    with Spool(SpoolSettings(path=path, retention_hours=0)) as spool:
        assert spool.sweep() == 1
        spool.commit(Page(), [sealed()])
        assert spool.queued(0, 1)[0].seq == 12


def test_a_spool_from_before_there_were_filters_is_brought_over_too(path: Path) -> None:
    former(path, [(sealed(), 1, None)], filtered=False)
    with Spool(SpoolSettings(path=path)) as spool:
        assert (spool.excluded(), spool.queued_count()) == ([], 1)


def test_a_process_of_the_version_before_can_add_nothing_that_nobody_would_publish(path: Path) -> None:
    former(path, [(sealed(), 1, None)])
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("SELECT count(*) FROM event").fetchone()  # it has the file open, and knows its tables
        with Spool(SpoolSettings(path=path)) as spool:
            with pytest.raises(sqlite3.OperationalError, match="no such table: event"):
                old.execute(_INSERT, (20, "", "", b"", b"", 0, 0, 0, None))
            assert spool.queued_count() == 1


def test_under_a_running_producer_nothing_is_changed(path: Path) -> None:
    former(path, [(sealed(), 1, None)])
    before = holds(path)
    with alone(path.parent), pytest.raises(SafetyError, match=r"spool/1, and a producer of the version before runs"):
        Spool(SpoolSettings(path=path))
    assert holds(path) == before


def test_who_opens_it_while_another_one_brings_it_over_waits_and_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former(path, [(sealed(), 1, None)])
    real, converted, refused = spool_schema.bring_over, threading.Event(), threading.Event()

    def bring_over(connection: sqlite3.Connection) -> None:
        real(connection)
        converted.set()
        assert refused.wait(60)

    @contextmanager
    def lock(directory: Path) -> Iterator[None]:
        try:
            with alone(directory):
                yield
        except SafetyError:
            refused.set()
            raise

    monkeypatch.setattr(spool_schema, "bring_over", bring_over)
    monkeypatch.setattr(spool_file, "alone", lock)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(Spool, SpoolSettings(path=path))
        assert converted.wait(60)
        with Spool(SpoolSettings(path=path)) as second, first.result(60):
            assert second.queued_count() == 1


def test_a_conversion_that_is_cut_off_leaves_the_file_as_it_was(path: Path) -> None:
    former(path, [(sealed(), 1, number % 2 or None) for number in range(50)])
    before = holds(path)
    script = (
        "import os, sys; from pathlib import Path; from passrelay_producer import spool_schema\n"
        "from passrelay_producer.spool import Spool; from passrelay_schemas.source_settings import SpoolSettings\n"
        "real = spool_schema.bring_over\n"
        "spool_schema.bring_over = lambda connection: (real(connection), os.kill(os.getpid(), 9))\n"
        "Spool(SpoolSettings(path=Path(sys.argv[1])))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    assert holds(path) == before
    with Spool(SpoolSettings(path=path)) as spool:
        assert spool.queued_count() == 25


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A spool of the form before on a disk with room for one page."""
    mounted = tmp_path / "disk"
    mounted.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False, timeout=60).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root and a kernel that permits it")
    former(mounted / "spool.sqlite", [(sealed(b"x" * 500), 1, number % 2 or None) for number in range(1000)])
    with Path(mounted / "ballast").open("wb", buffering=0) as ballast:
        free = os.statvfs(mounted)
        # Opening alone takes a -shm file of 32 KiB.
        ballast.write(bytes(max(0, free.f_bavail * free.f_bsize - 40_960)))
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True, timeout=60)


def test_a_full_disk_leaves_the_file_as_it_was_and_says_so(full_disk: Path) -> None:
    path = full_disk / "spool.sqlite"
    wanted = r"spool/1, cannot be brought to passrelay\.spool/2 .*disk is full.*as it was: make room"
    with pytest.raises(SpoolFullError, match=wanted):
        Spool(SpoolSettings(path=path))
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as left:
        assert spool_schema.form(left) == spool_schema.FORMER
        assert left.execute("SELECT count(*), count(published_at) FROM event").fetchone() == (1000, 500)
    (full_disk / "ballast").unlink()
    with Spool(SpoolSettings(path=path)) as spool:
        assert spool.queued_count() == 500
