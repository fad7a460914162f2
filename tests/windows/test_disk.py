"""A disk that is full, read-only or gone: what can be kept is kept, and what cannot is named by its RID."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.sealing import Opener
from tests.lab.folder import CANARY
from tests.lab.process import LabError, run_tool, wait_for
from tests.windows.harness import Harness
from tests.windows.records import open_all, open_record
from tests.windows.wine import windows_path

_SLOTS = 256
_WRITE = "a file could not be written: is the disk full?"
_GONE = "a new file was gone before it had its final name: does a scanner take files out of that folder?"
_CREATE = "a file in the folder that value Folder names could not be created"


def _fill(disk: Path) -> Path:
    """Take all room but not the last bytes of files that are there."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as sink:
        for size in (65536, 4096):
            try:
                while sink.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return filler


def _slots(folder: Path) -> int:
    return len(list((folder / "slots").iterdir()))


@pytest.fixture
def on_small_disk(
    start_harness: Callable[[], Harness], recipient: tuple[KeyDocument, Opener], small_disk: Path
) -> Harness:
    harness = start_harness()
    harness.configure(recipient[0], small_disk)
    assert harness.initialize()
    return harness


def test_a_full_disk_loses_nothing_while_there_are_slots_and_nothing_in_silence_after(
    on_small_disk: Harness, small_disk: Path, opener: Opener
) -> None:
    harness = on_small_disk
    filler = _fill(small_disk)
    harness.ask("many", 4, _SLOTS // 4, 2000)
    assert len(open_all(small_disk, opener)) == _SLOTS
    assert harness.lost == 0
    assert harness.status("SlotsLeft") == "0"
    harness.wait_for_event(_WRITE, "0x00000070", "0")  # ERROR_DISK_FULL

    harness.change(1105, "too much")
    harness.change(1106, "too much")
    assert len(open_all(small_disk, opener)) == _SLOTS
    harness.wait_for_event("1105", _WRITE, "0x00000070", "1")
    harness.wait_for_event("1106", _WRITE, "0x00000070", "2")
    assert not list(small_disk.glob("*.new"))

    filler.unlink()
    harness.ask("many", 1, 20, 3000)
    assert len(open_all(small_disk, opener)) == _SLOTS + 20
    assert _slots(small_disk) == 20  # each change that found room made a new one
    assert harness.status("SlotsLeft") == "20"


def test_after_there_is_room_again_all_slots_come_back_and_it_says_so(on_small_disk: Harness, small_disk: Path) -> None:
    filler = _fill(small_disk)
    on_small_disk.ask("many", 8, 3, 2000)
    assert on_small_disk.status("SlotsLeft") == str(_SLOTS - 24)
    filler.unlink()
    on_small_disk.ask("many", 8, 10, 3000)
    assert _slots(small_disk) == _SLOTS
    assert on_small_disk.status("SlotsLeft") == str(_SLOTS)


def test_a_start_with_a_full_disk_is_told_and_captures_into_the_slots(
    on_small_disk: Harness,
    start_harness: Callable[[], Harness],
    small_disk: Path,
    opener: Opener,
) -> None:
    """LSASS asks once, at its start, and never calls a DLL that refused."""
    _fill(small_disk)
    on_small_disk.kill()
    again = start_harness()
    assert again.initialize()
    assert again.status("State") == "loaded"
    assert again.status("SlotsLeft") == str(_SLOTS)
    again.wait_for_event(_WRITE, "0x00000070", str(_SLOTS))
    again.change(1105, "kept")
    assert [captured.password for captured in open_all(small_disk, opener)] == ["kept"]
    assert again.status("SlotsLeft") == str(_SLOTS - 1)


def test_a_start_with_a_full_disk_and_no_slot_is_refused(
    start_harness: Callable[[], Harness], recipient: tuple[KeyDocument, Opener], small_disk: Path
) -> None:
    _fill(small_disk)
    harness = start_harness()
    harness.configure(recipient[0], small_disk)
    assert not harness.initialize()
    assert harness.status("Reason") == _WRITE
    assert [path.name for path in small_disk.iterdir() if path.is_file()] == ["filler"]


def test_a_start_without_room_for_all_slots_says_how_many_there_are(
    start_harness: Callable[[], Harness], recipient: tuple[KeyDocument, Opener], small_disk: Path
) -> None:
    filler = _fill(small_disk)
    os.truncate(filler, filler.stat().st_size - 8 * 4096)
    harness = start_harness()
    harness.configure(recipient[0], small_disk)
    assert harness.initialize()
    made = _slots(small_disk)
    assert 0 < made <= 8
    assert harness.status("SlotsLeft") == str(made)
    harness.wait_for_event(_WRITE, "0x00000070", str(made))


def test_a_folder_for_slots_that_could_not_be_made_at_the_start_is_made_later(hook: Harness, spool: Path) -> None:
    other = spool / "other"
    other.mkdir()
    (other / "slots").touch()
    hook.set_text("Folder", windows_path(other))
    assert hook.initialize()
    assert hook.status("SlotsLeft") == "0"
    (other / "slots").unlink()
    hook.change(1105, "makes one")
    assert (_slots(other), hook.status("SlotsLeft")) == (1, "1")


@pytest.mark.parametrize("share", [0, 1, 3, 7])  # FILE_SHARE_READ 1, WRITE 2, DELETE 4
def test_a_prepared_file_that_another_program_holds_is_passed_over(
    on_small_disk: Harness, small_disk: Path, opener: Opener, share: int
) -> None:
    harness = on_small_disk
    _fill(small_disk)
    harness.hold(small_disk / "slots" / f"{_SLOTS - 1}.slot", share)
    for rid in (1105, 1106, 1107):
        harness.change(rid, "kept")
    assert [captured.rid for captured in open_all(small_disk, opener)] == [1105, 1106, 1107]
    assert harness.lost == 0
    harness.ask("release")
    assert list(small_disk.glob("*.new")) == []
    assert int(harness.status("SlotsLeft")) == _slots(small_disk)


def test_when_all_prepared_files_are_held_the_change_is_named_and_later_ones_are_kept(
    on_small_disk: Harness, small_disk: Path, opener: Opener
) -> None:
    harness = on_small_disk
    _fill(small_disk)
    for slot in range(_SLOTS):
        harness.hold(small_disk / "slots" / f"{slot:03}.slot", 1)
    harness.change(1105, "too much")
    assert (harness.lost, harness.status("LastLostRid"), harness.status("LastLostReason")) == (1, "1105", _WRITE)
    harness.ask("release")
    harness.change(1106, "kept")
    assert [captured.rid for captured in open_all(small_disk, opener)] == [1106]
    assert harness.status("SlotsLeft") == str(_SLOTS - 1)


def test_a_prepared_file_that_is_held_keeps_no_other_from_coming_back(
    on_small_disk: Harness, start_harness: Callable[[], Harness], small_disk: Path
) -> None:
    on_small_disk.hold(small_disk / "slots" / "000.slot", 1)
    again = start_harness()
    assert again.initialize()
    assert again.status("SlotsLeft") == str(_SLOTS - 1)
    filler = _fill(small_disk)
    again.ask("many", 1, 3, 2000)
    assert again.status("SlotsLeft") == str(_SLOTS - 4)
    filler.unlink()
    again.ask("many", 1, 4, 3000)
    assert again.status("SlotsLeft") == str(_SLOTS - 1)


def test_another_folder_gets_its_prepared_files_without_a_further_change(hook: Harness, spool: Path) -> None:
    other = spool / "other"
    other.mkdir()
    hook.set_text("Folder", windows_path(other))
    hook.change(1105, "elsewhere")
    wait_for(lambda: _there(other) == _SLOTS, what="the slots are there", alive=hook.process)
    wait_for(lambda: hook.status("SlotsLeft") == str(_SLOTS), what="the DLL says so", alive=hook.process)


def _there(folder: Path) -> int:
    return _slots(folder) if (folder / "slots").exists() else 0


@contextmanager
def _scanner(folder: Path, *, once: bool) -> Iterator[list[str]]:
    """Takes new files away as soon as it sees one, `once` only the first of each change; the names that it took."""
    stop, taken, seen = threading.Event(), list[str](), set[str]()

    def scan() -> None:
        while not stop.is_set():
            for path in folder.glob("*.new"):
                change = path.name.rpartition("-")[0]
                if once and change in seen:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                    taken.append(path.name)
                    seen.add(change)

    thread = threading.Thread(target=scan)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()


def test_a_new_file_that_a_scanner_takes_away_is_written_once_more(hook: Harness, spool: Path, opener: Opener) -> None:
    with _scanner(spool, once=True) as taken:
        hook.ask("many", 2, 100, 2000)
    assert taken
    assert hook.lost == 0
    passwords = [captured.password for captured in open_all(spool, opener)]
    assert sorted(passwords) == sorted(f"{CANARY}-{rid}-{number}" for rid, number in hook.made)


def test_what_a_scanner_takes_away_again_and_again_is_named_as_lost(hook: Harness, spool: Path, opener: Opener) -> None:
    with _scanner(spool, once=False) as taken:
        for turn in range(100):
            hook.ask("many", 2, 10, 2000 + 2 * turn)
            if hook.lost or len(taken) > 100:
                break
    assert taken
    assert hook.lost
    assert len(hook.made) == len(open_all(spool, opener)) + hook.lost
    assert list(spool.glob("*.new")) == []
    assert hook.status("LastLostReason") == _GONE


def test_a_disk_that_becomes_read_only_loses_nothing_in_silence(
    on_small_disk: Harness, small_disk: Path, opener: Opener
) -> None:
    harness = on_small_disk
    run_tool(["mount", "-o", "remount,ro", small_disk])
    harness.change(1105, "refused")
    assert harness.lost == 1
    assert harness.status("LastLostRid") == "1105"
    assert harness.status("LastLostReason") == _CREATE
    run_tool(["mount", "-o", "remount,rw", small_disk])
    harness.change(1106, "kept")
    assert [captured.rid for captured in open_all(small_disk, opener)] == [1106]


def test_a_read_only_disk_at_the_start_is_refused(on_small_disk: Harness, small_disk: Path) -> None:
    run_tool(["mount", "-o", "remount,ro", small_disk])
    assert not on_small_disk.initialize()
    assert on_small_disk.status("Reason") == _CREATE


def test_a_folder_that_goes_and_comes_back(hook: Harness, spool: Path, opener: Opener) -> None:
    away = spool.with_name(spool.name + "-away")
    spool.rename(away)
    hook.change(1105, "lost")
    assert hook.lost == 1
    assert hook.status("LastLostRid") == "1105"
    away.rename(spool)
    hook.change(1106, "kept")
    assert [captured.rid for captured in open_all(spool, opener)] == [1106]


def test_a_record_that_cannot_be_renamed_is_kept_whole_under_its_temporary_name(
    hook: Harness, spool: Path, opener: Opener
) -> None:
    try:
        run_tool(["chattr", "+a", spool])  # files may be made there, none renamed or removed
    except LabError as error:
        pytest.skip(f"this file system has no append-only folders: {error}")
    try:
        hook.change(1105, "kept")
    finally:
        run_tool(["chattr", "-a", spool])
    (path,) = spool.glob("*.new")
    assert open_record(path.read_bytes(), opener).password == "kept"
    assert hook.lost == 0
    hook.wait_for_event("a file could not be renamed", "0x00000005")  # ERROR_ACCESS_DENIED
