"""What a hook's source says from any thread: that the hook is off, which files wait or lie aside, what was lost."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest
import structlog

from passrelay_producer.news import Newsroom
from passrelay_producer.service import Service
from passrelay_producer.sources import REPAIRS, PendingReason
from passrelay_producer.sources.hook import HookSource
from passrelay_producer.sources.samba_account import GroupsError, UnreadableError
from passrelay_producer.windows import LSA_KEY, SETTINGS_KEY, STATUS_KEY, machine, registry
from passrelay_producer.windows.facts import Waiting
from passrelay_producer.windows.registry import Values
from passrelay_schemas import filetime
from passrelay_schemas import news as documents
from passrelay_schemas.errors import UnavailableError
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Log
from passrelay_schemas.settings import ProducerSettings
from tests.unit.hook_records import RID, hook_record, name, put
from tests.unit.test_capture import ListedSource, actions
from tests.unit.test_capture import Rig as CaptureRig
from tests.unit.test_capture import rig as capture_rig
from tests.unit.test_hook_source import CALL, KEY, Rig, rig
from tests.unit.test_hook_waits import Clock, clock, held
from tests.unit.test_samba_change import GUID, READING

__all__ = ["capture_rig", "clock", "held", "rig"]  # fixtures

LOADED: Values = {"State": ("loaded", 1), "ProcessId": (700, 4), "Lost": (0, 4)}
Keys = dict[str, Values | Exception]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """A Windows whose LSASS has loaded the hook; its registry may be changed, or refuse."""
    found: Keys = {STATUS_KEY: dict(LOADED), LSA_KEY: {"LsaPid": (700, 4)}}

    def values(path: str) -> Values:
        content = found.get(path, {})
        if isinstance(content, Exception):
            raise content
        return content

    monkeypatch.setattr(registry, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(registry, "values", values)
    return found


def waiting(source: HookSource) -> dict[str, int]:
    return {reason.value: count for reason, count in source.waiting().items() if count}


# -- the hook is off ---------------------------------------------------------------------------------------------------


def test_a_loaded_hook_is_no_fault_also_where_windows_does_not_tell_lsass_number(rig: Rig, windows: Keys) -> None:
    assert rig.source().fault() == ""
    windows[STATUS_KEY] = LOADED | {"SettingsTrouble": ("", 1), "KeyId": ("k" * 24, 1)}
    assert rig.source().fault() == ""
    windows[LSA_KEY] = {}
    assert rig.source().fault() == ""
    windows[LSA_KEY] = UnavailableError("denied")
    assert rig.source().fault() == ""


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({}, "LSASS has not loaded the hook since it started"),
        (LOADED | {"ProcessId": (4711, 4)}, "LSASS has not loaded the hook since it started"),
        (LOADED | {"State": ("refused", 1), "Reason": ("no folder", 1)}, "the hook refused to load (no folder)"),
        (LOADED | {"SettingsTrouble": ("no key id", 1), "KeyId": ("k" * 24, 1)}, f"sealing to the key {'k' * 24}"),
        (LOADED | {"SettingsTrouble": ("no key id", 1)}, "the hook cannot use its registry settings (no key id)"),
        (UnavailableError("denied"), "cannot be told"),
    ],
)
def test_a_hook_that_is_off_or_soon_will_be_is_a_fault_and_what_lies_there_is_taken_all_the_same(
    rig: Rig, windows: Keys, status: Values | Exception, told: str
) -> None:
    windows[STATUS_KEY] = status
    put(rig.folder, hook_record(KEY), filetime=CALL)
    source = rig.source()
    rig.drain(source)
    assert told in source.fault()
    assert (len(rig.spool.events), rig.files()) == (1, [])


GOOD: Values = {
    "RecipientKey": (KEY.public_bytes, 3),
    "RecipientKeyId": (KEY.key_id, 1),
    "Producer": ("dc1", 1),
    "DomainSid": ("S-1-5-21-0-4294967295-3", 1),
}
# As windows_hook/settings.c and record.c have it.
BAD: dict[str, list[Any]] = {
    "RecipientKeyId": ["k" * 24],
    "RecipientKey": [KEY.public_bytes[:64], b"\4" * 65],
    "Producer": ["", "-dc1", "dc 1", "dc1 ", "d" * 65, "d\u00e91"],
    "DomainSid": [
        *("S-1-5-21-1-2-3 ", "s-1-5-21-1-2-3", "S-1-5-21-1-2", "S-1-5-21-1-2-3-4", "S-1-5-21-1-2-"),
        *("S-1-5-21-01-2-3", "S-1-5-21-1-2-4294967296", "S-1-5-32-1-2-3", "S-1-5-21-1-2-\u0663"),
    ],
    "Folder": ["records", "C:\\", "C:/records", r"\\server\share", "C:\\" + "r" * 177],
}


def test_settings_that_are_good_again_are_no_fault_though_the_hook_reads_them_with_the_next_change_only(
    rig: Rig, windows: Keys
) -> None:
    windows[STATUS_KEY] = LOADED | {"SettingsTrouble": ("no key id", 1)}
    good = GOOD | {"Folder": (r"c:\records", 1)}
    windows[SETTINGS_KEY] = good
    assert registry.hook_fault() == ""
    bad: list[Values] = [{name: value for name, value in good.items() if name != missing} for missing in good]
    bad += [good | {name: (value, 1)} for name, values in BAD.items() for value in values]
    contents: list[Values | Exception] = [*bad, UnavailableError("denied")]
    for content in contents:
        windows[SETTINGS_KEY] = content
        assert "the hook cannot use its registry settings (no key id)" in registry.hook_fault(), content
    # One that is bad since the last change is not told here: the hook says so when it has read it.
    windows[STATUS_KEY] = LOADED
    assert registry.hook_fault() == ""


def test_a_hook_that_writes_elsewhere_since_the_service_started_is_a_fault(rig: Rig, windows: Keys) -> None:
    windows[SETTINGS_KEY] = {"Folder": (str(rig.folder), 1)}
    source = rig.source()
    assert source.fault() == ""
    windows[SETTINGS_KEY] = {"Folder": (r"D:\records", 1)}
    assert "but the hook writes to D:" in source.fault()
    windows[STATUS_KEY] = {}
    assert source.fault().startswith("LSASS has not loaded the hook")
    assert "but the hook writes to D:" in source.fault()


def test_elsewhere_than_on_windows_there_is_no_hook_to_be_off(rig: Rig) -> None:
    assert (rig.source().fault(), waiting(rig.source())) == ("", {})


# -- what waits --------------------------------------------------------------------------------------------------------


def test_a_held_file_counts_with_those_behind_it_until_it_is_taken(rig: Rig, clock: Clock, held: set[str]) -> None:
    rig.controller.add(2000)
    put(rig.folder, hook_record(KEY), filetime=CALL)
    put(rig.folder, hook_record(KEY), filetime=CALL + 1, sequence=2)
    put(rig.folder, hook_record(KEY, rid=2000), filetime=CALL + 2, rid=2000)
    (rig.folder / "desktop.ini").touch()
    held |= {name(CALL), "desktop.ini"}
    source = rig.source()
    rig.drain(source)
    assert waiting(source) == {"held": 3}
    clock.now += 61  # its time is over, and nobody has tried it again
    assert waiting(source) == {"held": 3}
    held.clear()
    rig.drain(source)
    assert waiting(source) == {"quarantined": 1}  # desktop.ini
    (rig.folder / "quarantine" / "desktop.ini").unlink()
    assert waiting(source) == {}


def test_a_file_that_is_let_go_counts_by_what_keeps_it_then(rig: Rig, clock: Clock, held: set[str]) -> None:
    put(rig.folder, hook_record(KEY), filetime=CALL)
    held.add(name(CALL))
    source = rig.source()
    rig.drain(source)
    held.clear()
    rig.controller.tokens[GUID] = GroupsError("it shows none")
    clock.now += 61
    rig.drain(source)
    assert waiting(source) == {"no_groups": 1}


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (None, "no_account"),
        (UnreadableError("ValueError"), "unreadable"),
        (GroupsError("it shows none"), "no_groups"),
    ],
)
def test_records_of_an_account_that_waits_count_by_why_until_they_are_taken_or_gone(
    rig: Rig, clock: Clock, trouble: Exception | None, reason: str
) -> None:
    if isinstance(trouble, GroupsError):
        rig.controller.tokens[GUID] = trouble
    elif trouble is None:
        rig.controller.accounts.clear()
    else:
        rig.controller.accounts[RID] = trouble
    now = filetime.now() - UNITS_PER_SECOND
    first = put(rig.folder, hook_record(KEY), filetime=now)
    put(rig.folder, hook_record(KEY), filetime=now + 1, sequence=2)
    source = rig.source()
    rig.drain(source)
    assert waiting(source) == {reason: 2}
    put(rig.folder, hook_record(KEY), filetime=now + 2, sequence=3)
    assert waiting(source) == {reason: 3}, "one that came later waits too"
    first.unlink()
    assert waiting(source) == {reason: 2}
    rig.controller.tokens.clear()
    rig.controller.accounts[RID] = READING
    clock.now += 61
    rig.drain(source)
    assert (waiting(source), len(rig.spool.events)) == ({}, 2)


def test_what_was_moved_away_counts_until_a_person_has_taken_it_away(rig: Rig) -> None:
    (rig.folder / name(CALL)).write_bytes(b"torn")
    put(rig.folder, hook_record(KEY, rid=4711), filetime=CALL, rid=4711)
    assert machine.waiting(rig.folder) == Waiting(2, ANY, 0), "there is no quarantine yet"
    source = rig.source()
    rig.drain(source)
    assert waiting(source) == waiting(rig.source()) == {"quarantined": 2}  # also after a restart
    for path in (rig.folder / "quarantine").iterdir():
        path.unlink()
    assert waiting(source) == {}


def test_a_folder_that_is_away_and_a_registry_that_refuses_count_nothing(rig: Rig, windows: Keys) -> None:
    rig.settings = rig.settings.model_copy(update={"folder": rig.folder / "missing"})
    windows[STATUS_KEY] = LOADED | {"Lost": (3, 4)}
    assert waiting(rig.source()) == {"hook_lost": 3}
    windows[STATUS_KEY] = UnavailableError("denied")
    assert waiting(rig.source()) == {}


def test_every_reason_has_its_repair() -> None:
    assert set(REPAIRS) == set(PendingReason)


# -- who tells it ------------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def test_a_fault_is_told_by_health_and_logged_once_and_so_is_its_end(capture_rig: CaptureRig, log: list[Any]) -> None:
    source = ListedSource()
    capture = capture_rig.capture(source)
    capture.report_fault()
    assert (capture.source_is_up, capture.troubles(), log) == (True, [], [])
    for source.trouble in ("off", "off", "refused"):
        capture.report_fault()
        assert (capture.source_is_up, capture.troubles()) == (False, [f"source: {source.trouble}"])
    source.trouble = ""
    capture.report_fault()
    assert capture.source_is_up
    assert actions(log) == ["source_down", "source_down", "source_up"]
    assert [entry.get("why") for entry in log] == ["off", "refused", None]


def test_page_and_news_count_what_waits_outside_the_spool(capture_rig: CaptureRig) -> None:
    source = ListedSource()
    source.outside = {PendingReason.QUARANTINED: 2, PendingReason.HELD: 0}
    metrics = type(capture_rig.metrics)(capture_rig.spool, source.waiting)
    of = metrics.registry.get_sample_value
    found = {reason: of("passrelay_capture_pending", {"reason": reason}) for reason in ("quarantined", "held")}
    assert found == {"quarantined": 2, "held": 0}
    newsroom = Newsroom(
        source, capture_rig.spool, capture_rig.identity, metrics=metrics, source_is_up=lambda: True, log=Log("test")
    )
    raw = newsroom.write()
    assert raw is not None
    assert documents.decode(raw, Keyring(capture_rig.enrolment.consumer_keys)).pending == {"quarantined": 2}


def test_a_service_shows_and_logs_what_its_source_says(capture_rig: CaptureRig, log: list[Any]) -> None:
    source = ListedSource()
    source.trouble, source.outside = "off", {PendingReason.HOOK_LOST: 2}
    given = {"broker": {"url": "amqp://127.0.0.1/"}, "source": {"stdin": {}}}
    keys = {"directory": capture_rig.enrolment.producer_keys("dc1")}
    settings = ProducerSettings.model_validate(given | {"keys": keys})
    service = Service(settings, capture_rig.spool, source, Log("test"))
    service._housekeep()
    assert actions(log) == ["source_down"]
    assert service.health().ready() == ["source: off"]
    of = service._metrics.registry.get_sample_value
    assert of("passrelay_capture_pending", {"reason": "hook_lost"}) == 2
