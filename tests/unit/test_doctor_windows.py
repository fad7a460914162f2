"""`passrelay doctor` on a Windows domain controller: each fault is one failed row with its repair, and told once."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from passrelay_ops.check import Result, Row
from passrelay_ops.cli import app
from passrelay_ops.commands.producer_windows import _described
from passrelay_ops.doctor import windows
from passrelay_ops.doctor.catalogue import CHECKS
from passrelay_ops.doctor.examination import Examination
from passrelay_ops.doctor.host import HostFile
from passrelay_producer.windows import ACCOUNT, HOOK
from passrelay_producer.windows.facts import (
    Facts,
    HookSettings,
    HookStatus,
    Role,
    ServiceFacts,
    ServiceState,
    Waiting,
)
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, generate
from passrelay_schemas.windows_acl import ADMINISTRATORS, SYSTEM, AccessList, Grant, virtual_account_sid
from tests.unit.test_windows_plan import KEY, LOADED, OLD, SID, _settings

FULL = 0x1F01FF
CLOSED = AccessList(
    Grant(ADMINISTRATORS, "Administrators", 0),
    (
        Grant(SYSTEM, "SYSTEM", FULL),
        Grant(ADMINISTRATORS, "Administrators", FULL),
        Grant(virtual_account_sid(), "service", 0x1200A9),
    ),
)
KEY_CLOSED = AccessList(
    Grant(ADMINISTRATORS, "Administrators", 0),
    (
        Grant(SYSTEM, "SYSTEM", 0xF003F),
        Grant(ADMINISTRATORS, "Administrators", 0xF003F),
        Grant(virtual_account_sid(), "service", 0x20019),
    ),
)
KEY_OPEN = replace(KEY_CLOSED, grants=(*(KEY_CLOSED.grants or ()), Grant("S-1-5-32-545", "BUILTIN\\Users", 0x2)))


def _key_with(mask: int) -> AccessList:
    """The hook's registry key with this right of the service's."""
    return replace(KEY_CLOSED, grants=(*(KEY_CLOSED.grants or ())[:2], Grant(virtual_account_sid(), "service", mask)))


RUNNING = ServiceFacts(ServiceState.RUNNING, ACCOUNT, "python", automatic=True, exit_code=0)
OTHER: KeyDocument = generate(KeyUse.HOOK)[0]
SETTINGS = HookSettings(KEY.public_bytes, KEY.key_id, "dc1", SID, "C:\\records")
SHORT = bytes([2 + KEY.public_bytes[-1] % 2]) + KEY.public_bytes[1:33]
"""The same point in the form that the hook does not take."""
GOOD = Facts(
    Role.WRITABLE,
    build=20348,
    domain_sid=SID,
    packages=("rassfm", "scecli", HOOK),
    lsass=700,
    settings=SETTINGS,
    configured=Path("c:/Records"),
    status=LOADED,
    dll=OLD,
    service=RUNNING,
    folder=CLOSED,
    registry=KEY_CLOSED,
)
FOLDER_OPEN = replace(CLOSED, grants=(*(CLOSED.grants or ()), Grant("S-1-5-32-545", "BUILTIN\\Users", 0x2)))


def _rows(facts: Facts, producer: str | None = "dc1") -> dict[str, Row]:
    return {row.id: row for row in windows.rows("producer.toml", facts, producer=producer)}


def test_a_good_controller_has_only_good_rows_and_says_which_dll_is_loaded() -> None:
    rows = _rows(GOOD)
    assert {row.result for row in rows.values()} == {Result.OK}
    assert OLD.version in rows["windows.loaded"].detail
    assert OLD.sha256 in rows["windows.loaded"].detail
    assert {*rows, windows.CONTROLLER} == set(windows.ids()) <= set(CHECKS)


@pytest.mark.parametrize(
    ("check", "changes", "detail"),
    [
        ("windows.role", {"role": Role.READ_ONLY}, "read-only"),
        ("windows.ppl", {"protected": 1, "status": HookStatus()}, "hardened"),
        ("windows.listed", {"packages": ("rassfm",)}, "has no passrelay-hook"),
        ("windows.listed", {"dll": None}, "no such DLL"),
        ("windows.settings", {"settings": None}, "missing"),
        ("windows.settings", {"domain_sid": "S-1-5-21-9-9-9"}, "the domain's is S-1-5-21-9-9-9"),
        ("windows.settings", {"settings": HookSettings(producer="dc2", domain_sid=SID)}, "Producer is dc2"),
        ("windows.settings", {"configured": Path("D:/records")}, "Folder is C:\\records"),
        ("windows.registry", {"registry": KEY_OPEN}, "BUILTIN\\Users"),
        ("windows.registry", {"registry": None}, "cannot be read"),
        (
            "windows.registry",
            {"registry": replace(KEY_CLOSED, grants=(KEY_CLOSED.grants or ())[:2])},
            "service may not read",
        ),
        *(
            ("windows.registry", {"registry": _key_with(mask)}, "service may not read")
            for mask in (0x20000, 0x1, 0x8, 0x10, 0x19, 0x20018)
        ),
        (
            "windows.settings",
            {"settings": replace(SETTINGS, recipient_key=OTHER.public_bytes)},
            "but RecipientKey's id is",
        ),
        (
            "windows.settings",
            {"settings": replace(SETTINGS, recipient_key_id="A" * 24)},
            "is AAAAAAAAAAAAAAAAAAAAAAAA, but",
        ),
        ("windows.settings", {"settings": replace(SETTINGS, recipient_key=b"\4" * 65)}, "no point of P-256"),
        ("windows.settings", {"settings": replace(SETTINGS, recipient_key=SHORT)}, "no point of P-256"),
        ("windows.settings", {"settings": replace(SETTINGS, recipient_key=b"")}, "RecipientKeyId is missing"),
        ("windows.settings", {"status": replace(LOADED, key_id="B" * 24)}, "seals to BBBBBBBBBBBBBBBBBBBBBBBB, not to"),
        ("windows.settings", {"status": replace(LOADED, settings_trouble="no key id")}, "because no key id"),
        ("windows.folder", {"folder": FOLDER_OPEN}, "BUILTIN\\Users"),
        ("windows.folder", {"folder": None}, "missing"),
        ("windows.loaded", {"status": HookStatus()}, "no change is captured"),
        ("windows.loaded", {"lsass": 701}, "no change is captured"),
        ("windows.loaded", {"status": HookStatus(state="refused", reason="curve")}, "refused to load: curve"),
        ("windows.lost", {"status": replace(LOADED, lost=2, last_lost_rid=1105)}, "RID 1105"),
        ("windows.lost", {"status": replace(LOADED, slots_left=250)}, "250 of 256 prepared ones"),
        ("windows.service", {"service": None}, "no service"),
        ("windows.service", {"service": replace(RUNNING, state=ServiceState.STOPPED, exit_code=2)}, "exit code 2"),
        (
            "windows.service",
            {"service": replace(RUNNING, state=ServiceState.STOPPED, exit_code=1069)},
            "may not log on",
        ),
        ("windows.service", {"service": replace(RUNNING, account="LocalSystem")}, "LocalSystem"),
        ("windows.service", {"service": replace(RUNNING, automatic=False)}, "does not start with Windows"),
        ("windows.records", {"waiting": Waiting(4, 601.0)}, "4 records wait, the oldest for 601 s"),
        ("windows.records", {"waiting": Waiting(fault="[source.hook] folder: gone: look")}, "gone"),
        ("windows.quarantine", {"waiting": Waiting(quarantined=1)}, "1 files are in quarantine"),
    ],
)
def test_each_fault_is_one_failed_row_with_its_repair(check: str, changes: dict[str, Any], detail: str) -> None:
    rows = _rows(replace(GOOD, **changes))
    failed = [row for row in rows.values() if row.result is Result.FAIL]
    assert [row.id for row in failed] == [check]
    assert detail in failed[0].detail
    assert failed[0].repair


def _settings_row(**changes: Any) -> Row:
    return _rows(replace(GOOD, **changes))["windows.settings"]


def test_the_row_of_the_settings_shows_which_key_lsass_seals_to_as_far_as_the_dll_says_it() -> None:
    told = _settings_row(status=replace(LOADED, key_id=KEY.key_id))
    assert (told.result, told.detail) == (Result.OK, f"the hook seals to {KEY.key_id} for dc1, as it says itself")
    untold = _settings_row()
    assert (untold.result, untold.detail) == (Result.OK, f"the hook seals to {KEY.key_id} for dc1")


def test_a_damaged_key_is_repaired_by_naming_the_document_and_a_new_one_by_a_change() -> None:
    damaged = replace(SETTINGS, recipient_key_id=OTHER.key_id, producer="dc2")
    went_on = replace(LOADED, key_id=KEY.key_id, settings_trouble="no key id")
    assert _settings_row(settings=damaged).repair == "`passrelay producer windows install --hook-key FILE --yes`"
    assert "--hook-key FILE --yes`; it reads" in _settings_row(settings=damaged, status=went_on).repair
    assert _settings_row(status=went_on).repair.startswith("it reads its registry key with the next password change")
    assert f"RecipientKey's id is {KEY.key_id}" in _settings_row(settings=damaged).detail
    both = _settings_row(settings=damaged, status=went_on).detail
    assert f"the hook seals to {KEY.key_id}, not to the registry's {OTHER.key_id}" in both
    rotated = replace(LOADED, key_id=OTHER.key_id)
    assert "next password change on this controller" in _settings_row(status=rotated).repair
    assert _settings_row(status=replace(rotated, process_id=1)).result is Result.OK, "of an LSASS that is gone"


def test_status_says_which_key_the_loaded_hook_seals_to() -> None:
    told = replace(GOOD, status=replace(LOADED, key_id=KEY.key_id))
    assert _described(told)["seals_to"] == KEY.key_id
    assert _described(GOOD)["seals_to"] is None, "an older DLL does not say it"
    assert _described(replace(told, lsass=701))["seals_to"] is None, "of an LSASS that is gone"


def test_a_service_that_may_not_log_on_gets_the_policy_as_its_repair() -> None:
    row = _rows(replace(GOOD, service=replace(RUNNING, state=ServiceState.STOPPED, exit_code=1069)))["windows.service"]
    assert "NT SERVICE\\ALL SERVICES" in row.repair


def test_a_registry_key_that_others_may_write_needs_the_hook_key_again() -> None:
    assert "--hook-key FILE" in _rows(replace(GOOD, registry=KEY_OPEN))["windows.registry"].repair
    # Without the service's own right too: one row, about what is worse.
    alone = replace(GOOD, registry=AccessList(Grant(SYSTEM, "SYSTEM", 0), None))
    assert "everybody" in _rows(alone)["windows.registry"].detail


def test_records_that_just_came_are_no_fault_and_a_stopped_service_explains_old_ones() -> None:
    assert _rows(replace(GOOD, waiting=Waiting(4, 5.0)))["windows.records"].result is Result.OK
    stopped = replace(RUNNING, state=ServiceState.STOPPED)
    rows = _rows(replace(GOOD, waiting=Waiting(4, 9999.0), service=stopped))
    assert rows["windows.records"].result is Result.UNKNOWN
    assert "windows.service failed" in rows["windows.records"].detail


def test_a_hardened_lsass_that_has_loaded_the_hook_is_good() -> None:
    assert _rows(replace(GOOD, protected=2))["windows.ppl"].result is Result.OK


def test_passsync_beside_it_is_said() -> None:
    assert "PassSync" in _rows(replace(GOOD, packages=(*GOOD.packages, "passhook")))["windows.listed"].detail


def test_an_operators_host_needs_the_hook_key_when_a_producer_on_windows_speaks() -> None:
    active, _ = generate(KeyUse.HOOK)
    assert windows.hook_key("keys", [], []).result is Result.OK
    assert windows.hook_key("keys", ["dc1"], [active]).result is Result.OK
    assert windows.hook_key("keys", ["dc1"], []).result is Result.FAIL
    assert windows.hook_key("keys", ["dc1"], [active.with_status(KeyStatus.RETIRED)]).result is Result.FAIL


@pytest.mark.skipif(sys.platform == "win32", reason="what is said elsewhere")
@pytest.mark.parametrize("command", ["install", "remove", "status"])
def test_the_commands_say_that_this_is_not_windows(command: str, tmp_path: Path) -> None:
    said = CliRunner().invoke(
        app, ["producer", "windows", command, "--config", str(tmp_path / "producer.toml"), "--json"]
    )
    assert said.exit_code == 2
    assert "this is not Windows" in json.loads(said.stdout.splitlines()[-1])["failures"][0]["detail"]


def test_a_hook_producers_file_on_another_system_leaves_windows_checks_unknown() -> None:
    examination = Examination([], None, lambda _: None)
    hook = _settings().source.hook
    assert hook is not None
    examination._windows(HostFile(Path("producer.toml"), "producer", None, []), hook, None)
    assert [row.id for row in examination.rows] == list(windows.ids())
    assert {row.result for row in examination.rows} == {Result.UNKNOWN}
