"""A disk that is full, read-only or gone: what can be kept is kept, and what cannot is named by its RID."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.sealing import Opener
from tests.lab.process import LabError, run_tool
from tests.windows.harness import Harness
from tests.windows.records import open_all, open_record

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
    assert len(list((small_disk / "slots").iterdir())) == 20  # each change that found room made a new one


def test_a_restart_with_a_full_disk_still_has_its_slots(
    on_small_disk: Harness,
    start_harness: Callable[[], Harness],
    small_disk: Path,
    opener: Opener,
) -> None:
    _fill(small_disk)
    on_small_disk.kill()
    again = start_harness()
    assert not again.initialize(), "a full disk is told at the start"
    (small_disk / "filler").unlink()
    assert again.initialize()
    _fill(small_disk)
    again.change(1105, "kept")
    assert [captured.password for captured in open_all(small_disk, opener)] == ["kept"]


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
