"""What installing and removing would do on a Windows controller, and when they refuse: decided from facts alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from passrelay_producer.windows import ACCOUNT, HOOK, plan, service_command, virtual_account_sid
from passrelay_producer.windows.facts import (
    DllFile,
    Facts,
    HookSettings,
    HookStatus,
    Role,
    ServiceFacts,
    ServiceState,
    Waiting,
)
from passrelay_producer.windows.folders import FolderFacts, Occupied
from passrelay_producer.windows.plan import Plan, Wanted
from passrelay_schemas.keys import KeyDocument, KeyStatus, KeyUse, generate
from passrelay_schemas.settings import ProducerSettings
from passrelay_schemas.windows_acl import ADMINISTRATORS, SYSTEM, AccessList, Grant

SID = "S-1-5-21-1-2-3"
OTHERS = ("rassfm", "scecli", "passhook")
OLD = DllFile(Path("C:/Windows/System32/passrelay-hook.dll"), "0.1.0", "a" * 64)
NEW = DllFile(Path("C:/Program Files/passrelay/passrelay-hook.dll"), "0.2.0", "b" * 64)
KEY: KeyDocument = generate(KeyUse.HOOK)[0]
CONFIG = Path("C:/ProgramData/passrelay/producer.toml")
FRESH = Facts(Role.WRITABLE, build=20348, domain_sid=SID, packages=OTHERS, lsass=700)
SETTINGS = HookSettings(KEY.public_bytes, KEY.key_id, "dc1", SID, "C:\\ProgramData\\passrelay\\records")
LOADED = HookStatus(state="loaded", version="0.1.0", process_id=700)


OCCUPIED = Occupied((PureWindowsPath("C:/Windows"), PureWindowsPath("C:/Users")), (PureWindowsPath("C:/ProgramData"),))
OURS = FolderFacts(CONFIG.parent, free=False, marked=True)


class Hands:
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        self.acts: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self.acts.append((name, *arguments, *options.values()))


def _settings(folder: str = "C:\\ProgramData\\passrelay\\records", sid: str = SID) -> ProducerSettings:
    return ProducerSettings.model_validate(
        {
            "broker": {"url": "amqp://127.0.0.1/%2F"},
            "keys": {"directory": "C:/ProgramData/passrelay/keys"},
            "spool": {"path": "C:/ProgramData/passrelay/spool/spool.sqlite"},
            "domain": [{"name": "lab.example", "sid": sid}],
            "source": {
                "hook": {
                    "folder": folder,
                    "controller": "ldaps://dc1.lab.example",
                    "ca_file": "ca.pem",
                    "bind_user": "lookup@lab.example",
                    "password_file": "lookup-password",
                }
            },
        }
    )


def _wanted(**changes: Any) -> Wanted:
    config, settings = changes.get("config", CONFIG), changes.get("settings", _settings())
    wanted = Wanted(
        config=config,
        settings=settings,
        producer="dc1",
        hook_key=KEY,
        dll=NEW,
        python=Path("C:/Program Files/passrelay/python.exe"),
        folders=[FolderFacts(path, free=True, marked=False) for path in plan.own_folders(config, settings)],
        occupied=OCCUPIED,
        trusted=frozenset({SYSTEM, ADMINISTRATORS, virtual_account_sid()}),
    )
    return replace(wanted, **changes)


def _installed(**changes: Any) -> Facts:
    wanted = _wanted()
    command = service_command(PureWindowsPath(wanted.python), PureWindowsPath(wanted.config))
    service = ServiceFacts(ServiceState.RUNNING, ACCOUNT, command, automatic=True, exit_code=0)
    facts = replace(FRESH, packages=(*OTHERS, HOOK), settings=SETTINGS, dll=NEW, service=service)
    return replace(facts, status=replace(LOADED, version="0.2.0"), **changes)


def _acts(chosen: Plan) -> list[tuple[Any, ...]]:
    assert not chosen.refused
    hands = Hands()
    for step in chosen.steps:
        step.act(hands)
    return hands.acts


def test_everything_is_set_up_in_an_order_in_which_nothing_is_open_or_half_there() -> None:
    chosen = plan.install(FRESH, _wanted())
    acts = _acts(chosen)
    names = [act[0] for act in acts]
    assert names == [
        "make_folder", "mark_folder", *["make_folder"] * 5, "close_settings", "write_settings",
        "place_dll", "add_package", *["register_source"] * 2,
        "make_service", "start_service",
    ]  # fmt: skip
    assert acts[0][1] == CONFIG.parent, "the folder above all others is closed first"
    assert any("becomes [rassfm, scecli, passhook, passrelay-hook]" in step.text for step in chosen.steps)
    assert ("place_dll", NEW.path) in acts
    settings = next(act[1] for act in acts if act[0] == "write_settings")
    assert settings == SETTINGS


def test_before_there_is_a_configuration_only_folders_are_made() -> None:
    for missing in ({"settings": None}, {"producer": None}):
        chosen = plan.install(FRESH, _wanted(**missing, hook_key=None))
        assert {act[0] for act in _acts(chosen)} == {"make_folder", "mark_folder"}
        assert "run this again" in chosen.after[0]


def test_the_second_time_list_registry_and_dll_are_left_alone() -> None:
    chosen = plan.install(_installed(), _wanted(hook_key=None))
    always = {"make_folder", "mark_folder", "close_settings", "register_source", "make_service", "start_service"}
    assert {act[0] for act in _acts(chosen)} == always
    assert chosen.after == []


def test_a_damaged_hook_key_is_not_kept() -> None:
    other = generate(KeyUse.HOOK)[0]
    damaged = _installed(settings=replace(SETTINGS, recipient_key=other.public_bytes))
    (why,) = plan.install(damaged, _wanted(hook_key=None)).refused
    assert f"RecipientKey's id is {other.key_id}" in why
    assert "--hook-key" in why
    acts = _acts(plan.install(damaged, _wanted()))
    assert next(act[1] for act in acts if act[0] == "write_settings") == SETTINGS


def test_a_new_key_and_a_new_dll() -> None:
    key = generate(KeyUse.HOOK)[0]
    facts = _installed(dll=OLD)
    facts = replace(facts, status=LOADED)
    chosen = plan.install(facts, _wanted(hook_key=key))
    acts = _acts(chosen)
    assert next(act[1] for act in acts if act[0] == "write_settings").recipient_key_id == key.key_id
    assert ("place_dll", NEW.path) in acts
    assert "LSASS goes on with 0.1.0" in chosen.after[0]


def test_records_in_the_hooks_folder_of_before_are_not_forgotten() -> None:
    chosen = plan.install(_installed(), _wanted(settings=_settings("D:\\records")))
    assert next(act[1] for act in _acts(chosen) if act[0] == "write_settings").folder == "D:\\records"
    assert "wrote to C:\\ProgramData\\passrelay\\records until now" in chosen.after[-1]


def test_the_loaded_dll_is_the_one_that_was_moved_aside() -> None:
    facts = replace(_installed(), status=LOADED, replaced=OLD)
    assert facts.loaded_dll == OLD
    assert "LSASS goes on with 0.1.0" in plan.install(facts, _wanted()).after[0]
    # What an earlier LSASS said is not about this one.
    assert replace(facts, lsass=701).loaded_dll is None


def test_a_folder_outside_of_the_base_gets_its_own_mark() -> None:
    acts = _acts(plan.install(FRESH, _wanted(settings=_settings("D:\\passrelay\\records"))))
    assert [act[1] for act in acts if act[0] == "mark_folder"] == [CONFIG.parent, Path("D:\\passrelay\\records")]


@pytest.mark.parametrize("place", range(5))
def test_no_folder_of_somebody_else_is_taken_over(place: int) -> None:
    wanted = _wanted()
    found = list(wanted.folders)
    found[place] = replace(found[place], free=False)
    for folders in (found, found[:place] + found[place + 1 :]):
        chosen = plan.install(FRESH, replace(wanted, folders=folders))
        (why,) = chosen.refused
        assert str(found[place].path) in why
        assert "was there before passrelay" in why
        assert not chosen.steps
    found[place] = replace(found[place], marked=True)
    assert not plan.install(FRESH, replace(wanted, folders=found)).refused


@pytest.mark.parametrize(("config", "why"), [("D:/producer.toml", "whole drive"), ("C:/Users/a/p.toml", "a user's")])
def test_the_folder_of_the_configuration_must_be_passrelays(config: str, why: str) -> None:
    chosen = plan.install(FRESH, _wanted(config=Path(config), settings=None, producer=None))
    assert why in chosen.refused[0]
    assert not chosen.steps


def test_a_folder_that_was_not_there_is_made_new_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own_folders = plan.own_folders
    # Windows' own paths: C:\ProgramData and C:/ProgramData are equal.
    monkeypatch.setattr(plan, "own_folders", lambda *of: [PureWindowsPath(str(path)) for path in own_folders(*of)])
    wanted = _wanted()
    folders = [replace(folder, missing=True) for folder in wanted.folders]

    def new(chosen: Plan) -> list[bool]:
        return [act[3] for act in _acts(chosen) if act[0] == "make_folder"]

    assert new(plan.install(FRESH, replace(wanted, folders=folders))) == [*[True] * 5, False]
    assert new(plan.install(FRESH, wanted)) == [False] * 6
    # An earlier step makes the folder of the records: it is the spool's, or on the way to all others.
    for records in (r"C:\ProgramData\passrelay\spool", r"c:\programdata"):
        settings = _settings(records)
        folders = [
            FolderFacts(path, free=True, marked=False, missing=True) for path in plan.own_folders(CONFIG, settings)
        ]
        wanted = _wanted(settings=settings, folders=folders, occupied=Occupied())
        assert new(plan.install(FRESH, wanted)) == [*[True] * 4, False, False]


OWN = virtual_account_sid()
ADMIN = "S-1-5-21-1-2-3-1000"
USERS = "BUILTIN\\Users"
KEY_FULL, KEY_READ, KEY_SET = 0xF003F, 0x20019, 0x2


def _key_list(*grants: Grant, owner: str = ADMINISTRATORS) -> AccessList:
    own = (Grant(SYSTEM, "SYSTEM", KEY_FULL), Grant(ADMINISTRATORS, "Administrators", KEY_FULL))
    return AccessList(Grant(owner, owner, 0), (*own, Grant(OWN, "service", KEY_READ), *grants))


@pytest.mark.parametrize(
    ("access", "who"),
    [
        # WRITE_DAC, WRITE_OWNER, DELETE, GENERIC_ALL, GENERIC_WRITE, KEY_SET_VALUE, _CREATE_SUB_KEY, _CREATE_LINK
        *(
            (_key_list(Grant("S-1-5-32-545", USERS, mask)), USERS)
            for mask in (0x40000, 0x80000, 0x10000, 0x10000000, 0x40000000, KEY_SET, 0x4, 0x20)
        ),
        (_key_list(Grant(OWN, "service", KEY_SET)), "service"),
        (_key_list(owner=OWN), OWN),
        (_key_list(owner=ADMIN), ADMIN),
        (AccessList(Grant(SYSTEM, "SYSTEM", 0), None), "everybody"),
    ],
)
def test_a_recipient_key_that_others_could_have_written_is_not_kept(access: AccessList, who: str) -> None:
    facts = _installed(registry=access)
    chosen = plan.install(facts, _wanted(hook_key=None))
    assert who in chosen.refused[0]
    assert "--hook-key" in chosen.refused[0]
    acts = [act[0] for act in _acts(plan.install(facts, _wanted()))]
    assert "close_settings" in acts
    assert not plan.install(_installed(registry=_key_list()), _wanted(hook_key=None)).refused


def test_the_hooks_key_may_be_the_administrators_own_who_installs() -> None:
    own = _key_list(Grant(ADMIN, ADMIN, KEY_FULL), owner=ADMIN)
    assert not plan.install(_installed(registry=own, account=ADMIN), _wanted(hook_key=None)).refused
    for other in (_installed(registry=own, account=f"{ADMIN}1"), _installed(registry=own)):
        assert ADMIN in plan.install(other, _wanted(hook_key=None)).refused[0]
    assert _installed(registry=own, account=ADMIN, elevated=False).settings_open == [ADMIN]
    # Reading is nobody's secret there.
    users = _key_list(*(Grant("S-1-5-32-545", USERS, mask) for mask in (KEY_READ, 0x80000000)))
    assert not _installed(registry=users).settings_open


USERS_WRITE = AccessList(
    Grant(ADMINISTRATORS, "Administrators", 0), (Grant("S-1-5-32-545", "BUILTIN\\Users", 0x1301BF),)
)


@pytest.mark.parametrize(
    ("facts", "wanted", "why"),
    [
        ({"role": Role.NONE}, {}, "no domain controller"),
        ({"role": Role.READ_ONLY}, {}, "read-only domain controller"),
        ({"build": 9600}, {}, "Server 2016"),
        ({"wide": False}, {}, "32-bit"),
        ({"elevated": False}, {}, "no administrator"),
        ({"protected": 1}, {}, "only DLLs that Microsoft has signed"),
        ({"protected": 2}, {}, "only DLLs that Microsoft has signed"),
        ({"program": USERS_WRITE}, {}, "can be written by BUILTIN\\Users"),
        ({}, {"in_environment": True}, "virtual environment"),
        ({}, {"dll": None}, "passrelay-hook.dll is missing"),
        ({}, {"hook_key": None}, "no hook key yet"),
        ({}, {"hook_key": generate(KeyUse.RECIPIENT)[0]}, "name the active hook key's document"),
        ({}, {"hook_key": KEY.with_status(KeyStatus.NEXT)}, "name the active hook key's document"),
        ({}, {"settings": _settings(folder="\\\\server\\share\\records")}, "a folder on a local disk"),
        ({}, {"settings": _settings(folder="C:\\" + "x" * 200)}, "at most 179 characters"),
        ({}, {"settings": _settings(sid="S-1-5-21-9-9-9")}, "this controller's domain is"),
        ({"domain_sid": ""}, {}, "does not tell the domain's SID"),
    ],
)
def test_it_refuses_and_says_why(facts: dict[str, Any], wanted: dict[str, Any], why: str) -> None:
    chosen = plan.install(replace(FRESH, **facts), _wanted(**wanted))
    assert any(why in reason for reason in chosen.refused), chosen.refused
    assert not chosen.steps


def test_a_hardened_controller_takes_a_dll_that_microsoft_has_signed() -> None:
    assert _acts(plan.install(replace(FRESH, protected=1), _wanted(signed_by_microsoft=True)))


def _remove(facts: Facts, *, queued: int = 0, with_data: bool = False) -> Plan:
    return plan.remove(facts, data=[OURS], occupied=OCCUPIED, queued=queued, with_data=with_data)


def test_removing_leaves_what_a_loaded_hook_still_needs() -> None:
    chosen = _remove(_installed(waiting=Waiting(3, 5.0)), queued=2)
    acts = _acts(chosen)
    assert [act[0] for act in acts] == ["remove_service", "remove_package", "remove_dll"]
    assert "becomes [rassfm, scecli, passhook]" in chosen.steps[1].text
    assert "run this again afterwards" in chosen.after[0]
    assert "3 records wait" in chosen.after[1]
    assert "2 events wait" in chosen.after[1]


def test_after_the_restart_the_rest_goes_and_data_only_when_asked() -> None:
    facts = replace(FRESH, settings=SETTINGS)
    assert [act[0] for act in _acts(_remove(facts))] == ["remove_source", "remove_source", "remove_settings"]
    assert _acts(_remove(facts, with_data=True))[-1] == ("remove_tree", CONFIG.parent)


@pytest.mark.parametrize(
    ("facts", "queued"),
    [
        (_installed(), 0),
        (replace(FRESH, waiting=Waiting(1, 1.0)), 0),
        (replace(FRESH, waiting=Waiting(quarantined=1)), 0),
        (replace(FRESH, waiting=Waiting(fault="cannot be read")), 0),
        (FRESH, 1),
    ],
)
def test_data_is_never_removed_while_a_password_waits_in_it(facts: Facts, queued: int) -> None:
    chosen = _remove(facts, queued=queued, with_data=True)
    assert "--remove-data" in chosen.refused[0]
    assert not chosen.steps


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        (FolderFacts(Path("D:/"), free=False, marked=True), "whole drive"),
        (FolderFacts(Path("C:/Windows/passrelay"), free=False, marked=True), "Windows' or a user's"),
        (FolderFacts(Path("D:/data"), free=False, marked=False), "was there before passrelay"),
    ],
)
def test_a_folder_that_is_not_passrelays_is_never_removed(folder: FolderFacts, why: str) -> None:
    chosen = plan.remove(FRESH, data=[OURS, folder], occupied=OCCUPIED, queued=0, with_data=True)
    assert why in chosen.refused[0]
    assert not chosen.steps
    kept = plan.remove(FRESH, data=[OURS, folder], occupied=OCCUPIED, queued=0, with_data=False)
    assert "remove_tree" not in {act[0] for act in _acts(kept)}


def test_removing_what_was_never_there_does_nothing() -> None:
    acts = _acts(_remove(FRESH))
    assert {act[0] for act in acts} <= {"remove_source"}
