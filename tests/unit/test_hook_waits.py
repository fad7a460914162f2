"""One file, one account or one controller that cannot be used now: it waits, and nothing else does."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from passrelay_producer.sources import hook_reader
from passrelay_schemas import filetime
from passrelay_schemas.filetime import UNITS_PER_SECOND
from tests.unit.hook_records import RID, hook_record, name, put
from tests.unit.test_hook_source import CALL, KEY, Rig, kvnos, rig
from tests.unit.test_samba_change import READING

__all__ = ["rig"]  # a fixture


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def lines(rig: Rig) -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with capture_logs() as found:
        yield found


def _waited(lines: list[MutableMapping[str, Any]]) -> list[str]:
    return [line["file"] for line in lines if line["action"] == "record_waits"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of files that a scanner holds: they can be neither opened nor renamed."""
    names: set[str] = set()
    opened, renamed = Path.open, Path.rename

    def open_(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name in names:
            raise PermissionError(13, "a scanner holds it")
        return opened(path, *arguments, **named)

    def rename(path: Path, target: Any) -> Path:
        if path.name in names:
            raise PermissionError(13, "a scanner holds it")
        return renamed(path, target)

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.setattr(Path, "rename", rename)
    return names


def test_a_record_that_cannot_be_read_waits_with_its_account_and_holds_nobody_up(
    rig: Rig, clock: Clock, held: set[str], lines: list[MutableMapping[str, Any]]
) -> None:
    rig.controller.add(2000)
    put(rig.folder, hook_record(KEY), filetime=CALL)
    put(rig.folder, hook_record(KEY), filetime=CALL + 1, sequence=2)
    put(rig.folder, hook_record(KEY, rid=2000), filetime=CALL + 2, rid=2000)
    held.add(name(CALL))
    source = rig.source()
    rig.drain(source)
    rig.drain(source)
    clock.now += hook_reader.WAIT_SECONDS
    rig.drain(source)
    assert [event.account.sam_account_name for event in rig.spool.events] == ["user2000"]
    assert rig.files() == [name(CALL), name(CALL + 1, sequence=2)]
    held.clear()
    rig.drain(source)
    assert len(rig.spool.events) == 1, "it is left alone for its time"
    clock.now += hook_reader.WAIT_SECONDS
    rig.drain(source)
    assert kvnos(rig.spool.events[1:]) == [6, 7]
    assert rig.files() == []
    assert _waited(lines) == [name(CALL)]


@pytest.mark.parametrize("file", ["desktop.ini", name(CALL)])
def test_what_cannot_be_moved_away_waits_and_holds_nobody_up(
    rig: Rig, clock: Clock, monkeypatch: pytest.MonkeyPatch, lines: list[MutableMapping[str, Any]], file: str
) -> None:
    (rig.folder / file).write_bytes(b"torn")
    put(rig.folder, hook_record(KEY), filetime=CALL + 1, sequence=2)
    source = rig.source()
    tried: list[str] = []

    def refuse(path: Path, target: Any) -> Path:
        tried.append(path.name)
        raise PermissionError(13, "a scanner holds it")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        rig.drain(source)
        rig.drain(source)
    assert kvnos(rig.spool.events) == [7]
    assert (rig.files(), tried) == ([file], [file])
    assert _waited(lines) == [file]
    clock.now += hook_reader.WAIT_SECONDS
    rig.drain(source)
    assert (rig.files(), rig.moved()) == ([], [file])


def test_a_file_that_comes_again_is_told_again(
    rig: Rig, clock: Clock, held: set[str], lines: list[MutableMapping[str, Any]]
) -> None:
    held.add("desktop.ini")
    source = rig.source()
    for _ in range(2):
        (rig.folder / "desktop.ini").touch()
        rig.drain(source)
        (rig.folder / "desktop.ini").unlink()
        rig.drain(source)
    assert _waited(lines) == ["desktop.ini"] * 2


def test_a_record_whose_account_ad_does_not_show_yet_waits_for_an_hour(rig: Rig, clock: Clock) -> None:
    rig.controller.accounts.clear()
    now = filetime.now()
    young = put(rig.folder, hook_record(KEY), filetime=now - 3590 * UNITS_PER_SECOND)
    old = put(rig.folder, hook_record(KEY, rid=2000), filetime=now - 3601 * UNITS_PER_SECOND, rid=2000)
    source = rig.source()
    (page,) = rig.drain(source)
    assert page.quarantined == ["no_account"]
    assert (rig.files(), rig.moved()) == ([young.name], [old.name])
    rig.controller.accounts[RID] = READING
    clock.now += hook_reader.WAIT_SECONDS
    rig.drain(source)
    assert len(rig.spool.events) == 1
    assert rig.files() == []
