"""Which folders are passrelay's: nothing else is closed to others, or deleted."""

from __future__ import annotations

import json
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from typer.testing import CliRunner

from passrelay_ops.cli import app
from passrelay_ops.commands import producer_windows
from passrelay_producer.spool import Spool
from passrelay_producer.windows import folders, machine
from passrelay_producer.windows.facts import Facts, Role
from passrelay_producer.windows.folders import FolderFacts
from passrelay_producer.windows.hands import WindowsHands
from passrelay_schemas.errors import SafetyError
from passrelay_schemas.source_settings import SpoolSettings

ENVIRONMENT = {
    "SystemRoot": r"C:\Windows",
    "ProgramFiles": r"C:\Program Files",
    "ProgramFiles(x86)": r"C:\Program Files (x86)",
    "ProgramData": r"C:\ProgramData",
    "PUBLIC": r"C:\Users\Public",
    "USERPROFILE": r"E:\profiles\anna",
}
OCCUPIED = folders.occupied(ENVIRONMENT)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("D:\\", "whole drive"),
        ("D:\\passrelay\\..", "whole drive"),
        ("\\\\server\\share\\", "whole drive"),
        ("c:/windows", "Windows' or a user's"),
        (r"C:\Windows\System32\passrelay", "Windows' or a user's"),
        (r"C:\Program Files\passrelay", "Windows' or a user's"),
        (r"C:\Program Files (x86)", "Windows' or a user's"),
        (r"C:\Users", "Windows' or a user's"),
        (r"C:\Users\bob\passrelay", "Windows' or a user's"),
        (r"E:\profiles", "Windows' or a user's"),
        (r"E:\profiles\anna\passrelay", "Windows' or a user's"),
        (r"C:\ProgramData", "Windows' or a user's"),
        ("records", "no whole path"),
        (r"\passrelay", "no whole path"),
    ],
)
def test_drives_and_folders_of_windows_programs_and_users_are_never_passrelays(path: str, why: str) -> None:
    # Not even with the mark, and not when they are empty.
    assert why in folders.why_not(FolderFacts(Path(path), free=True, marked=True), OCCUPIED)


@pytest.mark.parametrize("path", [r"C:\ProgramData\passrelay", r"D:\passrelay", r"C:\Windows2"])
def test_its_own_is_what_it_marked_or_what_was_free(path: str) -> None:
    assert not folders.why_not(FolderFacts(Path(path), free=True, marked=False), OCCUPIED)
    assert not folders.why_not(FolderFacts(Path(path), free=False, marked=True), OCCUPIED)
    why = folders.why_not(FolderFacts(Path(path), free=False, marked=False), OCCUPIED)
    assert "make a folder .passrelay in it" in why


def test_a_link_or_a_folder_that_belongs_to_others_is_never_passrelays() -> None:
    # Anybody may make folders in ProgramData, with the mark in them too.
    path = Path(r"C:\ProgramData\passrelay")
    for free, marked in ((True, False), (False, True)):
        found = FolderFacts(path, free=free, marked=marked, others=["LAB\\bob"])
        why = folders.why_not(found, OCCUPIED)
        assert "belongs to others (LAB\\bob)" in why
        assert ("delete it" in why) == free, "never what may hold keys and unsent events"
        assert "is a link" in folders.why_not(FolderFacts(path, free=free, marked=marked, link=True), OCCUPIED)


def test_the_mark_holds_for_all_below_it(tmp_path: Path) -> None:
    base = tmp_path / "passrelay"
    assert folders.look(base) == FolderFacts(base, free=True, marked=False, missing=True)
    base.mkdir()
    assert folders.look(base).free
    WindowsHands().mark_folder(base)
    assert folders.look(base) == FolderFacts(base, free=False, marked=True)
    WindowsHands().mark_folder(base)
    assert folders.look(base).marked
    assert folders.look(base / "spool" / "deeper").marked
    assert not folders.look(tmp_path).marked
    (base / "file").touch()
    assert not folders.look(base / "file").free, "what cannot be looked into is another's"


def test_a_mark_that_belongs_to_others_or_leads_elsewhere_is_none(tmp_path: Path) -> None:
    base = tmp_path / "passrelay"
    (base / folders.MARK).mkdir(parents=True)
    assert folders.look(base).marked
    theirs = folders.look(base, lambda path, rights: ["bob"] if path.name == folders.MARK else [])
    assert (theirs.marked, theirs.others) == (False, ())
    assert folders.look(base, lambda path, rights: ["bob"] if path == base else []).others == ("bob",)
    # Who was let in later, into a folder that was closed once, goes again; before, he could have come to stay.
    assert folders.look(base, lambda path, rights: ["bob"] if path == base and rights else []).others == ()
    (tmp_path / "new").mkdir()
    assert folders.look(tmp_path / "new", lambda path, rights: ["bob"] if rights else []).others == ("bob",)
    (base / folders.MARK).rename(tmp_path / "elsewhere")
    (base / folders.MARK).symlink_to(tmp_path / "elsewhere")
    assert not folders.look(base).marked
    (tmp_path / "link").symlink_to(base)
    assert folders.look(tmp_path / "link").link


def test_what_came_into_a_folder_while_it_was_closed_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "producer.toml").touch()
    with pytest.raises(SafetyError, match="while it was closed"):
        WindowsHands().mark_folder(tmp_path)
    assert not folders.look(tmp_path).marked


@pytest.mark.parametrize("planted", ["folder", "file", "link", "link to nowhere"])
def test_what_took_the_folders_place_before_it_was_closed_is_not_taken_over(tmp_path: Path, planted: str) -> None:
    # Anybody may make folders and junctions in ProgramData.
    base, elsewhere = tmp_path / "passrelay", tmp_path / "elsewhere"
    hands = WindowsHands()
    hands.make_folder(base, "", new=True)
    if planted == "folder":
        base.mkdir()
    elif planted == "file":
        base.touch()
    else:
        base.symlink_to(elsewhere)
    if planted == "link":
        elsewhere.mkdir()
    with pytest.raises(SafetyError, match="while this ran"):
        hands.make_folder(base, "", new=True)
    if "link" in planted:
        with pytest.raises(SafetyError, match="became a link"):
            hands.make_folder(base, "")
        with pytest.raises(SafetyError, match="became a link"):
            hands.mark_folder(base)
        assert not (elsewhere / folders.MARK).exists()


def test_a_folder_that_came_to_belong_to_others_is_neither_closed_nor_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = folders.look
    monkeypatch.setattr(folders, "look", lambda path, others=None: look(path, lambda path, rights: ["LAB\\bob"]))
    with pytest.raises(SafetyError, match="belong to others"):
        WindowsHands().make_folder(tmp_path, "")
    with pytest.raises(SafetyError, match="belong to others"):
        WindowsHands().mark_folder(tmp_path)
    assert not (tmp_path / folders.MARK).exists()


def test_only_folders_that_lie_in_no_other_need_a_mark() -> None:
    closed = [PureWindowsPath(path) for path in ("C:/x", "c:/X/keys", "D:/records", "d:/records/")]
    assert [folders.top(path, closed) for path in closed] == [True, False, True, True]


def test_without_its_settings_an_unsent_event_still_keeps_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "passrelay"
    WindowsHands().make_folder(base, "")
    (base / "spool").mkdir(parents=True, mode=0o700)
    Spool(SpoolSettings(path=base / "spool" / "spool.sqlite")).close()
    monkeypatch.setattr(Spool, "queued_count", lambda self: 2)
    seen: list[Any] = []

    def look(folder: Path | None, *, also: Path | None = None) -> Facts:
        seen.append((folder, also))
        return Facts(Role.WRITABLE)

    monkeypatch.setattr(machine, "look", look)
    command = ["producer", "windows", "remove", "--config", str(base / "producer.toml"), "--json", "--yes"]
    said = CliRunner().invoke(app, [*command, "--remove-data"])
    assert said.exit_code == 4
    refused = json.loads(said.stdout.splitlines()[-1])["refused"][0]
    assert "2 events wait in the spool" in refused
    assert seen == [(None, base / "records")]
    assert (base / "spool" / "spool.sqlite").exists()


def test_a_configuration_by_a_roundabout_name_is_looked_at_by_its_real_one(tmp_path: Path) -> None:
    assert producer_windows._absolute(tmp_path / "x" / ".." / "p.toml") == tmp_path / "p.toml"
