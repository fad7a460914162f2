"""The spool: all or nothing, in order, never removed before it is published, full disks, damaged files."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from passrelay_producer.filters import Rule
from passrelay_producer.sources import AccountState, Excluded, Page, Pending, PendingReason
from passrelay_producer.spool import Spool, SpoolFullError
from passrelay_schemas.envelope import ProtectedHeader, SealedEvent
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.source_settings import SpoolSettings

KEY = "A" * 24
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def sealed(*parts: bytes, key: str = KEY, producer: str = "dc1") -> SealedEvent:
    header = ProtectedHeader(
        suite="X", recipient_key_id=key, producer=producer, domain="lab.example", event_id=new_event_id()
    )
    return SealedEvent(header.encode(), parts or (os.urandom(3200),))


def fill(spool: Spool, number: int) -> str:
    """Commit pages of 100 events with the cursors `number`, `number` + 1, ... until the spool is full; its message."""
    try:
        for at in range(number, 1000):
            spool.commit(Page(cursor={"at": str(at)}), [sealed() for _ in range(100)])
    except SpoolFullError as error:
        return str(error)
    raise AssertionError("the spool never became full")


def read_all(path: Path) -> None:
    with Spool(SpoolSettings(path=path)) as spool:
        spool.statistics()
        spool.queued(0, 1000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "spool.sqlite"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    with Spool(SpoolSettings(path=path)) as opened:
        yield opened


def test_file_and_directory_are_for_the_owner_alone(spool: Spool, path: Path) -> None:
    spool.commit(Page(), [sealed()])
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o750, 0o705])
def test_a_directory_that_others_may_enter_is_refused(path: Path, mode: int) -> None:
    path.parent.mkdir(mode=0o700)
    path.parent.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 700 {path.parent}"):
        Spool(SpoolSettings(path=path))
    assert not path.exists()


def test_a_file_that_others_may_read_is_refused(path: Path) -> None:
    Spool(SpoolSettings(path=path)).close()
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        Spool(SpoolSettings(path=path))


def test_synchronous_is_full_and_the_journal_is_a_wal(spool: Spool) -> None:
    # The promise "durable on return" is these two settings.
    assert spool._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert spool._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_page_is_one_transaction_and_survives_reopening(path: Path) -> None:
    first, second, account = sealed(b"one", b"two"), sealed(), uuid4()
    page = Page(
        cursor={"cookie": "abc", "usn": "7"},
        accounts=[AccountState(account, 3, must_change=True)],
        pending=[Pending(account, PendingReason.KEY_MISSING)],
    )
    with Spool(SpoolSettings(path=path)) as spool:
        spool.commit(page, [first, second])
    with Spool(SpoolSettings(path=path)) as spool:
        assert [queued.event for queued in spool.queued(0, 10)] == [first, second]
        assert spool.cursor() == {"cookie": "abc", "usn": "7"}
        assert spool.account(account) == AccountState(account, 3, must_change=True)
        assert spool.account(uuid4()) is None
        assert spool.pending() == [Pending(account, PendingReason.KEY_MISSING)]


def test_a_page_that_fails_half_way_leaves_nothing(spool: Spool) -> None:
    spool.commit(Page(cursor={"cookie": "old"}), [])
    bad = Page(cursor={"cookie": "new"}, accounts=[AccountState(uuid4(), 2**70, must_change=False)])
    with pytest.raises(OverflowError):
        spool.commit(bad, [sealed()])
    assert spool.queued_count() == 0
    assert spool.cursor() == {"cookie": "old"}
    spool.commit(Page(), [sealed()])
    assert spool.queued_count() == 1


def test_a_cursor_replaces_the_old_one_and_an_empty_one_leaves_it(spool: Spool) -> None:
    spool.commit(Page(cursor={"a": "1", "b": "2"}), [])
    spool.commit(Page(), [sealed()])
    assert spool.cursor() == {"a": "1", "b": "2"}
    spool.commit(Page(cursor={"a": "3"}), [])
    assert spool.cursor() == {"a": "3"}


def test_pending_keeps_its_time_counts_attempts_and_is_resolved(spool: Spool) -> None:
    one, two = uuid4(), uuid4()
    spool.commit(Page(pending=[Pending(one, PendingReason.KEY_MISSING), Pending(two, PendingReason.UNREADABLE)]), [])
    since = spool._connection.execute("SELECT since FROM pending WHERE guid = ?", (str(one),)).fetchone()
    spool.commit(Page(pending=[Pending(one, PendingReason.NO_CLEAR_TEXT)], resolved=[two]), [])
    row = spool._connection.execute("SELECT reason, since, attempts FROM pending").fetchall()
    assert row == [("no_clear_text", *since, 2)]
    spool.commit(Page(pending=[Pending(two, PendingReason.TOO_LARGE)], resolved=[one, two]), [])
    assert spool.pending() == [Pending(two, PendingReason.TOO_LARGE)]


def test_whom_the_filter_left_out_is_remembered_until_resolved_the_latest_first(path: Path) -> None:
    one, two, three = uuid4(), uuid4(), uuid4()

    def left_out(*guids: UUID) -> Page:
        return Page(excluded=[Excluded(Rule.NOT_INCLUDED, guid) for guid in guids])

    with Spool(SpoolSettings(path=path)) as spool:
        spool.commit(left_out(one, two, three), [])
        spool.commit(left_out(one), [])
        spool.commit(Page(excluded=[Excluded(Rule.EXCLUDE_PATTERN)]), [])  # a line of standard input has no account
    with Spool(SpoolSettings(path=path)) as spool:
        assert spool.excluded() == [one, three, two]
        assert spool.excluded(2) == [one, three]
        assert spool.is_excluded(two)
        spool.commit(Page(resolved=[two]), [])
        assert not spool.is_excluded(two)
        # Let in, but not to be opened now: it waits as pending alone. Pending, and then left out: the other way round.
        spool.commit(Page(pending=[Pending(one, PendingReason.KEY_MISSING)]), [])
        assert spool.excluded() == [three]
        spool.commit(Page(resolved=[one], excluded=[Excluded(Rule.EXCLUDE_OU, one)]), [])
        assert (spool.excluded(), spool.pending()) == ([one, three], [])


def test_published_events_leave_the_queue_and_republish_brings_them_back(spool: Spool) -> None:
    events = [sealed() for _ in range(5)]
    spool.commit(Page(), events)
    places = [queued.place for queued in spool.queued(0, 10)]
    seqs = [place.seq for place in places]
    spool.mark_published(places[1:4])
    assert [queued.seq for queued in spool.queued(0, 10)] == [seqs[0], seqs[4]]
    assert [queued.seq for queued in spool.queued(seqs[0], 10)] == [seqs[4]]
    assert spool.republish(datetime.now(UTC) + timedelta(hours=1)) == 0
    assert spool.republish(LONG_AGO) == 3
    assert [queued.event for queued in spool.queued(0, 10)] == events


def test_republish_also_takes_what_is_on_its_way(spool: Spool) -> None:
    # It was signed with the key of before: what is confirmed now may be refused by every consumer.
    event = sealed()
    spool.commit(Page(), [event])
    (sent,) = spool.queued(0, 10)
    spool.republish(LONG_AGO)
    spool.mark_published([sent.place])
    (again,) = spool.queued(0, 10)
    assert again.event == event
    spool.mark_published([again.place])
    assert spool.queued_count() == 0


def test_sequence_numbers_are_never_used_again(spool: Spool, path: Path) -> None:
    # The publisher remembers numbers: one that came back would be skipped as already held.
    spool.commit(Page(), [sealed()])
    (last,) = spool.queued(0, 1)
    spool.mark_published([last.place])
    spool._retention_ms = 0
    assert spool.sweep() == 1
    spool.commit(Page(), [sealed()])
    assert spool.queued(0, 1)[0].seq > last.seq


def test_sweep_removes_only_published_events_after_their_retention(path: Path) -> None:
    with Spool(SpoolSettings(path=path, retention_hours=1)) as spool:
        spool.commit(Page(), [sealed() for _ in range(3)])
        old, young, _ = (queued.place for queued in spool.queued(0, 3))
        spool.mark_published([old, young])
        spool._connection.execute(
            "UPDATE published SET published_at = published_at - 3700000 WHERE seq = ?", (old.seq,)
        )
        assert spool.sweep() == 1
        assert spool.republish(LONG_AGO) == 1
        assert spool.queued_count() == 2


def test_sweep_never_removes_what_is_not_published(path: Path) -> None:
    with Spool(SpoolSettings(path=path, retention_hours=0, max_bytes=1_000_000)) as spool:
        spool.commit(Page(), [sealed() for _ in range(400)])
        assert spool.statistics().used_bytes > 1_000_000
        assert spool.sweep() == 0
        assert spool.queued_count() == 400


def test_max_bytes_evicts_published_events_and_then_refuses(path: Path) -> None:
    with Spool(SpoolSettings(path=path, max_bytes=1_000_000)) as spool:
        page = [sealed() for _ in range(100)]
        spool.commit(Page(cursor={"at": "1"}), page)
        spool.mark_published([queued.place for queued in spool.queued(0, 100)])
        spool.commit(Page(cursor={"at": "2"}), [sealed() for _ in range(200)])
        assert spool.republish(LONG_AGO) < 100
        assert "max_bytes" in fill(spool, 3)
        waiting = spool.queued_count()
        cursor = spool.cursor()
        spool.mark_published([queued.place for queued in spool.queued(0, 1000)])
        spool.commit(Page(cursor={"at": "more"}), page)  # goes on by itself once the broker took some
        assert waiting >= 200
        assert cursor != {"at": "9"}


def test_a_page_larger_than_max_bytes_passes_an_empty_queue(path: Path) -> None:
    with Spool(SpoolSettings(path=path, max_bytes=1_000_000)) as spool:
        spool.commit(Page(), [sealed() for _ in range(400)])
        assert spool.queued_count() == 400


def test_a_full_disk_changes_nothing_and_heals(spool: Spool) -> None:
    # SQLite's own limit on the file's pages ends in the same error path as ENOSPC.
    spool.commit(Page(cursor={"at": "1"}), [sealed()])
    pages = spool._connection.execute("PRAGMA page_count").fetchone()[0]
    spool._connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(SpoolFullError, match="SQLITE_FULL"):
        spool.commit(Page(cursor={"at": "2"}), [sealed() for _ in range(50)])
    assert spool.queued_count() == 1
    assert spool.cursor() == {"at": "1"}
    spool._connection.execute("PRAGMA max_page_count = 1000000")
    spool.commit(Page(cursor={"at": "2"}), [sealed() for _ in range(50)])
    assert spool.queued_count() == 51


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "disk"
    mounted.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False, timeout=60).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root and a kernel that permits it")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True, timeout=60)


def test_a_really_full_disk(small_disk: Path) -> None:
    with Spool(SpoolSettings(path=small_disk / "spool.sqlite")) as spool:
        assert "disk is full" in fill(spool, 0)
        committed = spool.queued_count()
        assert committed == 100 * (int(spool.cursor()["at"]) + 1)
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True, timeout=60)
        spool.commit(Page(cursor={"at": "healed"}), [sealed() for _ in range(20)])
        assert spool.queued_count() == committed + 20
        assert spool.cursor() == {"at": "healed"}


def test_committed_events_survive_a_killed_process(path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from passrelay_producer.sources import Page; from passrelay_producer.spool import Spool\n"
        "from passrelay_schemas.source_settings import SpoolSettings; from tests.unit.test_spool import sealed\n"
        "spool = Spool(SpoolSettings(path=Path(sys.argv[1])))\n"
        "spool.commit(Page(cursor={'at': '1'}), [sealed(), sealed()])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    assert done.returncode == -9
    with Spool(SpoolSettings(path=path)) as spool:
        assert spool.queued_count() == 2
        assert spool.cursor() == {"at": "1"}


def test_a_file_that_is_no_database_is_named_and_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"not a database at all" * 100)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=rf"{path}.*move the file.*producer init"):
        Spool(SpoolSettings(path=path))
    assert path.read_bytes() == b"not a database at all" * 100


def test_another_sqlite_file_and_another_version_are_refused(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE something (x)")
    other.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another SQLite file"):
        Spool(SpoolSettings(path=path))
    assert path.read_bytes() == before

    second = tmp_path / "two" / "spool.sqlite"
    with Spool(SpoolSettings(path=second)) as spool:
        spool._connection.execute("UPDATE meta SET value = 'passrelay.spool/9' WHERE key = 'schema'")
    with pytest.raises(ConfigurationError, match=r"passrelay\.spool/9"):
        Spool(SpoolSettings(path=second))


def test_damage_inside_the_file_is_a_configuration_error(path: Path) -> None:
    with Spool(SpoolSettings(path=path)) as spool:
        spool.commit(Page(), [sealed() for _ in range(200)])
    content = bytearray(path.read_bytes())
    content[8192:-4096] = os.urandom(len(content) - 12288)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="damaged"):
        read_all(path)


def test_a_lock_held_too_long_by_another_process_is_unavailable(spool: Spool, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    spool._connection.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(UnavailableError, match="another process"):
        spool.commit(Page(), [sealed()])
    other.execute("ROLLBACK")
    other.close()
    spool.commit(Page(), [sealed()])


def test_two_processes_may_write(spool: Spool, path: Path) -> None:
    with Spool(SpoolSettings(path=path)) as other:
        spool.commit(Page(), [sealed()])
        other.commit(Page(), [sealed()])
        assert spool.queued_count() == other.queued_count() == 2


def test_watchers_hear_of_every_change_of_the_queue(spool: Spool) -> None:
    heard: list[int] = []
    spool.watch(lambda: heard.append(spool.queued_count()))
    spool.commit(Page(cursor={"at": "1"}), [])
    assert heard == []
    spool.commit(Page(), [sealed()])
    spool.mark_published([spool.queued(0, 1)[0].place])
    spool.republish(LONG_AGO)
    assert heard == [1, 0, 1]


def test_threads_share_one_spool(spool: Spool) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                spool.commit(Page(cursor={"at": "x"}), [sealed()])
                spool.mark_published([spool.queued(0, 1)[0].place])
                spool.statistics()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(spool.statistics().events.values()) == 80


def test_statistics(spool: Spool) -> None:
    spool.commit(
        Page(pending=[Pending(uuid4(), PendingReason.KEY_MISSING)]), [sealed(), sealed(), sealed(key="B" * 24)]
    )
    spool.mark_published([spool.queued(0, 1)[0].place])
    found = spool.statistics()
    assert found.events == {("published", KEY): 1, ("queued", KEY): 1, ("queued", "B" * 24): 1}
    assert found.pending == {PendingReason.KEY_MISSING: 1}
    assert found.used_bytes > 0
    assert 0 < found.free_bytes <= 2_000_000_000 - 2 * 3200
    assert found.oldest_queued_at is not None
    assert spool.last_captured_at() is not None


def test_statistics_miss_nothing_that_another_process_moves_meanwhile(spool: Spool, path: Path) -> None:
    # `keys retire` believes them: an event that is nowhere for a moment would have lost its key.
    spool.commit(Page(), [sealed(), sealed()])
    spool.mark_published([queued.place for queued in spool.queued(0, 2)])
    with Spool(SpoolSettings(path=path)) as other:

        def between(statement: str) -> None:
            if "FROM published" in statement:
                spool._connection.set_trace_callback(None)
                other.republish(LONG_AGO)

        spool._connection.set_trace_callback(between)
        assert spool.statistics().events == {("published", KEY): 2}
    assert spool.statistics().events == {("queued", KEY): 2}


def test_an_event_that_was_queued_again_counts_its_age_from_then(spool: Spool) -> None:
    # Or `republish` would raise the alert for a broker that has been away for days.
    spool.commit(Page(), [sealed()])
    spool.mark_published([spool.queued(0, 1)[0].place])
    assert spool.statistics().oldest_queued_at is None
    spool._connection.execute("UPDATE captured SET captured_at = 1000, queued_at = 1000")
    spool.republish(LONG_AGO)
    oldest = spool.statistics().oldest_queued_at
    assert oldest is not None
    assert oldest > datetime(2020, 1, 1, tzinfo=UTC).timestamp()
