"""What wakes the Samba source: a write to a file of the database's folder, and nothing else before its time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from passrelay_producer.sources.samba import _Watch
from passrelay_producer.sources.samba_commits import Commits, database_folder
from passrelay_producer.supplemental import OpenPgpKeyFile

_LONG = 3600.0


@pytest.fixture
def stop() -> threading.Event:
    """Set when a wait that ought to be over goes on and on."""
    event = threading.Event()
    timer = threading.Timer(20, event.set)
    timer.daemon = True
    timer.start()
    return event


def test_the_database_lies_beside_the_folder_of_the_socket() -> None:
    socket = Path("/var/lib/samba/private/ldap_priv/ldapi")
    assert database_folder(socket) == Path("/var/lib/samba/private/sam.ldb.d")


@pytest.mark.parametrize("write", [os.utime, lambda path: path.write_bytes(b"more")], ids=["tdb", "lmdb"])
def test_a_write_ends_the_wait_also_when_it_came_before(
    tmp_path: Path, stop: threading.Event, write: Callable[[Path], object]
) -> None:
    path = tmp_path / "DC=LAB.ldb"
    path.touch()
    with Commits(tmp_path) as commits:
        write(path)
        commits.wait(_LONG, stop)
        assert not stop.is_set()
        later = threading.Thread(target=write, args=(path,))
        later.start()
        commits.wait(_LONG, stop)
        later.join()
    assert not stop.is_set()


def test_reading_ends_no_wait(tmp_path: Path) -> None:
    path = tmp_path / "DC=LAB.ldb"
    path.write_bytes(b"x")
    with Commits(tmp_path) as commits:
        path.read_bytes()
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        commits.wait(_LONG, stop)
        assert stop.is_set()


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_wait_ends_after_its_time_and_by_stop(tmp_path: Path, stop: threading.Event, folder: str) -> None:
    with Commits(tmp_path / folder) as commits:
        commits.wait(0.01, stop)
        assert not stop.is_set()
        stop.set()
        commits.wait(_LONG, stop)


class Clock(threading.Event):
    """Time that passes only in waits; `stop` and `Commits` in one."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.woken = 0

    def wait(self, seconds: float | None = None, stop: object = None) -> bool:
        self.now += seconds or 0
        self.woken += stop is not None
        return False


def test_what_is_committed_during_a_rest_is_due_when_it_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock()
    monkeypatch.setattr("passrelay_producer.sources.samba.time.monotonic", lambda: clock.now)
    watch = _Watch(OpenPgpKeyFile(tmp_path / "key"))
    assert watch.due(moved=True)
    watch.rest(0.5)  # two seconds
    clock.now += 0.25
    assert not watch.due(moved=True)
    watch.wait(clock, clock, 10)  # type: ignore[arg-type]
    assert (clock.now, clock.woken) == (102.0, 0)  # commits wake nobody meanwhile: one is enough
    assert watch.due(moved=False)
    watch.rest(0)
    watch.wait(clock, clock, 10)  # type: ignore[arg-type]
    assert (clock.now, clock.woken) == (112.0, 1)
    assert not watch.due(moved=False)
