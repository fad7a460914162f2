"""Records whose files cannot be deleted: sent once for ever, told, and never so many that the cursor grows on."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from passrelay_producer.sources import hook, hook_leftovers
from passrelay_producer.sources.hook_folder import HookFolder
from passrelay_producer.sources.samba_account import GroupsError
from passrelay_schemas import filetime
from passrelay_schemas.filetime import UNITS_PER_SECOND
from tests.unit.hook_records import hook_record, name, put
from tests.unit.test_hook_source import CALL, KEY, Rig, kvnos, rig
from tests.unit.test_hook_visible import waiting
from tests.unit.test_hook_waits import Clock, clock, lines
from tests.unit.test_samba_change import GUID

__all__ = ["clock", "lines", "rig"]  # fixtures


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether nothing can be deleted."""
    found = {"kept": True}
    unlink = Path.unlink

    def keep(path: Path, **options: Any) -> None:
        if found["kept"] and path.exists():
            raise PermissionError(13, "a scanner holds it")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", keep)
    return found


def _put(rig: Rig, number: int) -> None:
    rig.controller.add(2000 + number)
    put(rig.folder, hook_record(KEY, rid=2000 + number), filetime=CALL + number, rid=2000 + number)


def _told(log: list[MutableMapping[str, Any]]) -> list[str]:
    return [f"{line['file']}: {line['why']}: {line['repair']}" for line in log if line["action"] == "record_waits"]


def test_what_cannot_be_deleted_is_never_sent_twice_by_this_source_or_one_that_starts_anew(
    rig: Rig, clock: Clock, kept: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "PAGE_RECORDS", 4)
    for number in range(8):
        _put(rig, number)
    source = rig.source()
    assert [len(page.events) for page in rig.drain(source)] == [4, 4]
    assert (rig.drain(source), len(rig.files())) == ([], 8)
    for _ in range(2):
        assert rig.drain() == []  # another process
    _put(rig, 8)
    (page,) = rig.drain()
    assert [len(page.events), len(page.cursor["taken"].split())] == [1, 9]
    assert rig.drain() == []
    kept["kept"] = False
    assert (rig.drain(), rig.files(), len(rig.spool.events)) == ([], [], 9)
    _put(rig, 9)
    (page,) = rig.drain()
    assert page.cursor["taken"] == name(CALL + 9, rid=2009), "names of files that are gone are forgotten"


def test_a_crash_before_the_deletion_leaves_the_older_ones_known_too(
    rig: Rig, clock: Clock, kept: dict[str, bool]
) -> None:
    _put(rig, 0)
    rig.drain()
    _put(rig, 1)
    rig.drain(crash=True)
    assert rig.drain() == []
    assert len(rig.spool.events) == 2


def test_they_are_tried_again_every_second_and_counted_as_held_meanwhile(
    rig: Rig, clock: Clock, kept: dict[str, bool]
) -> None:
    _put(rig, 0)
    source = rig.source()
    rig.drain(source)
    assert waiting(source) == {"held": 1}
    kept["kept"] = False
    _put(rig, 1)
    rig.drain(source)
    assert rig.files() == [name(CALL, rid=2000)], "the new one goes at once"
    clock.now += hook_leftovers.AGAIN_SECONDS
    rig.drain(source)
    assert (rig.files(), waiting(source)) == ([], {})


def test_one_that_is_in_the_spool_holds_up_nobody(rig: Rig, clock: Clock, kept: dict[str, bool]) -> None:
    put(rig.folder, hook_record(KEY), filetime=CALL)
    source = rig.source()
    rig.drain(source)
    put(rig.folder, hook_record(KEY), filetime=CALL + 1, sequence=2)
    rig.drain(source)
    assert kvnos(rig.spool.events) == [7, 7]
    rig.controller.tokens[GUID] = GroupsError("it shows none")
    put(rig.folder, hook_record(KEY), filetime=CALL + 2, sequence=3)
    rig.drain(source)
    assert waiting(source) == {"held": 2, "no_groups": 1}


def test_it_is_logged_once_for_as_long_as_it_lasts(
    rig: Rig, clock: Clock, kept: dict[str, bool], lines: list[MutableMapping[str, Any]]
) -> None:
    source = rig.source()
    for number in range(4):
        assert len(_told(lines)) == (number > 1), "what may be a passing touch is not told"
        _put(rig, number)
        rig.drain(source)
        clock.now += hook_leftovers.AGAIN_SECONDS
    (line,) = _told(lines)
    assert f"{name(CALL, rid=2000)}: its event is in the spool, but it cannot be deleted (a scanner holds it)" in line
    assert "let the service delete there" in line
    kept["kept"] = False
    rig.drain(source)
    kept["kept"] = True
    _put(rig, 4)
    for told in (1, 2, 2):
        rig.drain(source)
        assert len(_told(lines)) == told
        clock.now += hook_leftovers.AGAIN_SECONDS


def test_a_scanner_that_touches_each_file_for_a_moment_is_no_line(
    rig: Rig, clock: Clock, kept: dict[str, bool], lines: list[MutableMapping[str, Any]]
) -> None:
    source = rig.source()
    rig.drain(source)
    for number in range(20):
        _put(rig, number)
        kept["kept"] = True
        rig.drain(source)
        # Also where it is tried again sooner than a second after it failed first.
        clock.now += hook_leftovers.AGAIN_SECONDS * 0.7
        rig.drain(source)
        kept["kept"] = False
        clock.now += hook_leftovers.AGAIN_SECONDS
        rig.drain(source)
    assert (_told(lines), rig.files(), len(rig.spool.events)) == ([], [], 20)


def test_a_new_file_that_a_clock_set_back_makes_young_again_is_not_sent_twice(
    rig: Rig, clock: Clock, kept: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(rig.folder, hook_record(KEY), filetime=CALL, suffix="new")
    source = rig.source()
    for number, seconds in enumerate((61, 30, 61)):
        now = CALL + seconds * UNITS_PER_SECOND
        monkeypatch.setattr(filetime, "now", lambda now=now: now)
        _put(rig, number)  # what is committed has its name on
        rig.drain(source)
        rig.drain()  # another process
        clock.now += hook_leftovers.AGAIN_SECONDS
    assert (len(rig.spool.events), len(rig.files())) == (4, 4)


def test_where_nothing_can_be_deleted_no_more_is_taken_until_it_can_and_a_fault_says_so(
    rig: Rig, clock: Clock, kept: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "PAGE_RECORDS", 4)
    monkeypatch.setattr(hook_leftovers, "MOST", 10)
    for number in range(30):
        _put(rig, number)
    source = rig.source()
    assert source.fault() == ""
    rig.drain(source)
    assert len(rig.spool.events) == 12, "the page that reached the bound was the last"
    assert len(rig.spool.cursors["taken"].split()) == 12
    assert "cannot be deleted: until they can, no new ones are taken" in source.fault()
    again = rig.source()
    assert rig.drain(again) == []
    assert again.fault() == source.fault()
    assert waiting(again) == {"held": 12}
    kept["kept"] = False
    clock.now += hook_leftovers.AGAIN_SECONDS
    rig.drain(again)
    assert (again.fault(), rig.files()) == ("", [])
    accounts = [event.account.sam_account_name for event in rig.spool.events]
    assert sorted(accounts) == sorted(f"user{2000 + number}" for number in range(30)), "each once"


def test_a_folder_that_is_away_for_a_moment_makes_nothing_new(
    rig: Rig, clock: Clock, kept: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are then not there to be deleted, and that is no proof."""
    _put(rig, 0)
    source = rig.source()
    rig.drain(source)
    clock.now += hook_leftovers.AGAIN_SECONDS
    elsewhere, delete, times = rig.folder.with_name("elsewhere"), HookFolder.delete, iter([True])

    def away(folder: Any, names: Any) -> Any:
        if not next(times, False):
            return delete(folder, names)
        rig.folder.rename(elsewhere)
        left = delete(folder, names)
        elsewhere.rename(rig.folder)
        return left

    monkeypatch.setattr(HookFolder, "delete", away)
    assert rig.drain(source) == []
    clock.now += hook_leftovers.AGAIN_SECONDS
    assert (rig.drain(source), len(rig.spool.events), len(rig.files())) == ([], 1, 1)
