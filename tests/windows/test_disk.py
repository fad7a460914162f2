"""A disk that is full, read-only or gone: what can be kept is kept, and what cannot is named by its RID."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.sealing import Opener
from tests.lab.process import LabError, run_tool
from tests.windows.harness import Harness
from tests.windows.records import open_all, open_record
from tests.windows.wine import windows_path

_SLOTS = 256
_WRITE = "a file could not be written: is the disk full?"
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
