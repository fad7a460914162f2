"""Installing, running, looking and removing, for real as far as wine goes: registry, System32, services, DPAPI.

wine is no domain controller, and keeps access lists as mode bits: who else may is told from everybody, not from whom.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from passrelay_schemas import __version__
from passrelay_schemas.keys import KeyDocument, KeyUse, generate, write_public
from tests.lab.certificates import CertificateAuthority
from tests.lab.enrolment import toml
from tests.lab.folder import CANARY, canary_password, find_canary
from tests.lab.network import Reservations
from tests.lab.process import MissingServerError, wait_for
from tests.windows.hook_build import Built
from tests.windows.windows_python import WindowsPython, linked
from tests.windows.wine import windows_path

_SOMEBODY = 65534
WINDOWS_OWN = ["rassfm", "scecli", "passhook"]
_SHOW = """
import json, winreg
with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\\CurrentControlSet\\Control\\Lsa") as key:
    print(json.dumps(winreg.QueryValueEx(key, "Notification Packages")))
"""
_POLICY = """
import sys, winreg
with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\\Policies\\Microsoft\\Windows\\System") as key:
    winreg.SetValueEx(key, "RunAsPPL", 0, winreg.REG_DWORD, int(sys.argv[1]))
"""
_LISTS = """
import json, winreg, win32security
from passrelay_ops.doctor import windows
from passrelay_producer.windows import SETTINGS_KEY, STATUS_KEY, registry, settings_access, virtual_account_sid
from passrelay_producer.windows.facts import Facts, HookSettings, Role
from passrelay_producer.windows.hands import WindowsHands
from passrelay_schemas.windows_acl import key_access_list

def show(access):
    facts = Facts(Role.WRITABLE, settings=HookSettings(), registry=access)
    (row,) = (row for row in windows.rows("", facts, producer=None) if row.id == "windows.registry")
    print(json.dumps([row.result.value, facts.settings_open]))

def allow(sddl, path=SETTINGS_KEY):
    wanted = win32security.ConvertStringSecurityDescriptorToSecurityDescriptor(sddl, 1)
    with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, path, 0, winreg.KEY_ALL_ACCESS) as key:
        winreg.SetValueEx(key, "Any", 0, winreg.REG_DWORD, 1)
        win32security.SetSecurityInfo(key.handle, 4, 4, None, None, wanted.GetSecurityDescriptorDacl(), None)

hands, wanted, own = WindowsHands(), settings_access(virtual_account_sid()), "D:P(A;CI;KA;;;SY)(A;CI;KA;;;BA)"
hands.close_settings(wanted)
show(registry.settings_access_list())
for sddl in (own, own + "(A;CI;KA;;;WD)"):
    allow(sddl)
    show(registry.settings_access_list())
allow(own, STATUS_KEY)
hands.close_settings(wanted)
show(registry.settings_access_list())
show(key_access_list(STATUS_KEY))
hands.remove_settings()
"""
_ANOTHER_COMES = """
import sys, winreg
from passrelay_ops.cli import main
from passrelay_producer.windows import manager
def another(act):
    def with_another(*arguments):
        act(*arguments)
        path = r"SYSTEM\\CurrentControlSet\\Control\\Lsa"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, winreg.KEY_ALL_ACCESS) as key:
            listed, _ = winreg.QueryValueEx(key, "Notification Packages")
            winreg.SetValueEx(key, "Notification Packages", 0, winreg.REG_MULTI_SZ, ["newcomer", *listed])
    return with_another
manager.remove = another(manager.remove)
sys.argv[0] = "passrelay"
main()
"""
_STOP = """
import time, win32service, win32serviceutil
win32serviceutil.StopService("passrelay-producer")
while win32serviceutil.QueryServiceStatus("passrelay-producer")[1] != win32service.SERVICE_STOPPED:
    time.sleep(0.05)
"""
_SET = """
import sys, winreg
with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\\CurrentControlSet\\Control\\Lsa") as key:
    winreg.SetValueEx(key, "Notification Packages", 0, winreg.REG_MULTI_SZ, sys.argv[1:])
"""


class Controller:
    """A Windows machine with its folder and configuration; nobody answers there at its broker's and AD's address."""

    def __init__(self, python: WindowsPython, folder: Path, hook_key: KeyDocument, ca: Path, port: int) -> None:
        self.python, self.folder, self.hook_key, self._ca, self._port = python, folder, hook_key, ca, port
        self.config = folder / "producer.toml"
        self.records = folder / "records"
        self.secret = canary_password()
        self.installed = False

    def passrelay(self, *arguments: str, check: bool = True) -> dict[str, Any]:
        said = self.python.passrelay(*arguments, "--config", windows_path(self.config), "--json", check=check)
        found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
        return found

    def install(self, *arguments: str, check: bool = True) -> dict[str, Any]:
        self.installed = self.installed or "--hook-key" in arguments
        return self.passrelay("producer", "windows", "install", *arguments, check=check)

    def ready(self, folder: Path) -> list[str]:
        """As installed by windows.md: folders, configuration, keys, everything; the option with the hook key."""
        assert self.install("--yes")["ok"]
        self.configure()
        self.passrelay("keys", "init", "producer", "dc1")
        (recipient,) = (path for path in folder.glob("*.pub.json") if self.hook_key.key_id not in path.name)
        self.passrelay("keys", "enroll", windows_path(recipient), "--yes", "--role", "producer")
        hook = ["--hook-key", windows_path(folder / f"{self.hook_key.key_id}.pub.json")]
        assert self.install(*hook, "--yes")["ok"]
        return hook

    def configure(self) -> None:
        lookup = self.folder / "lookup-password"
        lookup.write_text(self.secret)
        lookup.chmod(0o600)
        self.config.write_text(
            toml(
                {
                    "broker": {"url": f"amqp://127.0.0.1:{self._port}/%2F"},
                    "keys": {"directory": windows_path(self.folder / "keys")},
                    "spool": {"path": windows_path(self.folder / "spool" / "spool.sqlite")},
                    "source": {
                        "hook": {
                            "folder": windows_path(self.records),
                            "controller": f"ldaps://127.0.0.1:{self._port}",
                            "ca_file": windows_path(self._ca),
                            "bind_user": "lookup@lab.example",
                            "password_file": windows_path(lookup),
                        }
                    },
                }
            )
        )

    def packages(self) -> list[Any]:
        found: list[Any] = json.loads(self.python.run("-c", _SHOW).strip().splitlines()[-1])
        return found

    def log(self) -> list[dict[str, Any]]:
        path = self.folder / "log" / "producer.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def python(windows_folder: Path, built: Built) -> Iterator[WindowsPython]:
    try:
        made = WindowsPython(windows_folder / "python")
    except MissingServerError as error:
        pytest.skip(str(error))
    made.start()
    made.install_dll(built.dll)
    made.run("-c", _SET, *WINDOWS_OWN)
    yield made
    made.stop()


@pytest.fixture
def controller(
    python: WindowsPython, tmp_path: Path, ca: CertificateAuthority, reservations: Reservations
) -> Iterator[Controller]:
    key, _private = generate(KeyUse.HOOK)
    write_public(tmp_path, key)
    recipient, _private = generate(KeyUse.RECIPIENT)
    write_public(tmp_path, recipient)
    found = Controller(python, tmp_path / "passrelay", key, ca.ca_file, reservations.port())
    yield found
    if found.installed:
        found.passrelay("producer", "windows", "remove", "--yes")


def test_install_run_look_and_remove(controller: Controller, tmp_path: Path) -> None:
    # First only the folders; then configuration and keys are made in them.
    first = controller.install("--yes")
    assert len(first["steps"]) == 6
    assert "keys init producer" not in str(first["steps"])
    controller.configure()
    made = controller.passrelay("keys", "init", "producer", "dc1")["keys"][0]
    private = json.loads((controller.folder / "keys" / f"{made['key_id']}.key").read_text())
    assert private["protected"]["cipher"] == "dpapi-machine"
    assert "private" not in private
    (recipient,) = (path for path in tmp_path.glob("*.pub.json") if controller.hook_key.key_id not in path.name)
    controller.passrelay("keys", "enroll", windows_path(recipient), "--yes", "--role", "producer")

    hook = ["--hook-key", windows_path(tmp_path / f"{controller.hook_key.key_id}.pub.json")]
    plan = controller.install(*hook)
    assert not plan["done"]
    assert controller.packages() == [WINDOWS_OWN, 7]
    done = controller.install(*hook, "--yes")
    assert done["steps"] == plan["steps"]
    assert controller.packages() == [[*WINDOWS_OWN, "passrelay-hook"], 7]
    assert (controller.python.system_folder / "passrelay-hook.dll").exists()
    wait_for(lambda: any(line["action"] == "started" for line in controller.log()), what="the service's first line")

    status = controller.passrelay("producer", "windows", "status", check=False)
    found = {row["id"]: row["result"] for row in status["checks"]}
    # wine has no LSASS, the folder belongs to whoever runs the test, and nobody answers for AD.
    assert {check: result for check, result in found.items() if result != "ok"} == {
        "windows.folder": "fail",
        "windows.loaded": "fail",
        "windows.controller": "unknown",
    }
    assert status["facts"]["service"] == "running"
    assert len(status["facts"]["installed_sha256"]) == 64

    # The source would read another folder than the hook writes to.
    good = controller.config.read_text()
    controller.config.write_text(good.replace("records", "records2"))
    found = {row["id"]: row for row in controller.passrelay("producer", "windows", "status", check=False)["checks"]}
    assert "where the hook writes" in found["windows.settings"]["detail"]
    controller.config.write_text(good)

    # Again: nothing but what may always be done.
    again = controller.install("--yes")
    (registry,) = (step for step in again["steps"] if step.startswith(("registry", "passrelay-hook.dll")))
    assert registry.endswith("may read")
    assert controller.packages() == [[*WINDOWS_OWN, "passrelay-hook"], 7]

    removed = controller.passrelay("producer", "windows", "remove", "--yes")
    assert "kept" in removed["after"][-1]
    assert controller.packages() == [WINDOWS_OWN, 7]
    assert not (controller.python.system_folder / "passrelay-hook.dll").exists()
    assert (controller.folder / "spool" / "spool.sqlite").exists()
    assert [line["action"] for line in controller.log()][-1] == "stopped", "the service ended cleanly"
    assert find_canary([controller.folder / "log", controller.folder / "spool"])[2] == []
    assert CANARY in controller.secret


def test_whoever_may_write_the_hooks_key_is_told_of_and_shut_out_again(python: WindowsPython) -> None:
    found = [json.loads(line) for line in python.run("-c", _LISTS).splitlines() if line.startswith("[")]
    closed, no_service, everyone, again, status = found
    assert closed == again == status == ["ok", []]
    assert no_service == ["fail", []]
    assert everyone == ["fail", ["Everyone"]]


def test_what_another_product_lists_meanwhile_stays(controller: Controller, tmp_path: Path) -> None:
    controller.ready(tmp_path)
    try:
        command = ["producer", "windows", "remove", "--config", windows_path(controller.config), "--yes"]
        controller.python.run("-c", _ANOTHER_COMES, *command)
        assert controller.packages() == [["newcomer", *WINDOWS_OWN], 7]
    finally:
        controller.python.run("-c", _SET, *WINDOWS_OWN)


def test_an_upgrade_by_its_page_takes_the_new_program_and_dll_and_keeps_the_rest(
    controller: Controller, tmp_path: Path
) -> None:
    controller.ready(tmp_path)
    home = controller.python.home
    old, new = home.with_name("passrelay.old"), home.with_name("passrelay.new")
    shutil.copytree(home, new, copy_function=linked)
    dll = new / "passrelay-hook.dll"
    content = dll.read_bytes()
    dll.unlink()
    dll.write_bytes(content + b"newer")
    before = controller.passrelay("producer", "windows", "status", check=False)["facts"]
    controller.python.run("-c", _STOP)
    home.rename(old)
    new.rename(home)
    controller.passrelay("config", "check")
    done = controller.install("--yes")
    assert any("in the place of" in step for step in done["steps"])
    after = controller.passrelay("producer", "windows", "status", check=False)
    assert after["facts"]["service"] == "running"
    assert after["facts"]["installed_sha256"] != before["installed_sha256"]
    assert (controller.python.system_folder / "passrelay-hook.dll").read_bytes().endswith(b"newer")
    assert {row["id"]: row["result"] for row in after["checks"]}["windows.settings"] == "ok"
    wait_for(
        lambda: [line["action"] for line in controller.log()].count("started") == 2, what="the new program's first line"
    )


def test_the_command_beside_the_scripts_is_passrelay_with_its_exit_codes(python: WindowsPython, tmp_path: Path) -> None:
    command = Path(__file__).resolve().parents[2] / "producer" / "windows_hook" / "install" / "passrelay.cmd"
    shutil.copy(command, python.home)
    folder = tmp_path / "with a space"
    folder.mkdir()

    def run(*arguments: str) -> tuple[int, str]:
        said = python.tool("cmd", "/c", windows_path(python.home / command.name), *arguments)
        return said.returncode, said.stdout.decode(errors="replace")

    code, said = run("--version")
    assert code == 0
    assert __version__ in said
    code, said = run("config", "check", "--config", windows_path(folder / "producer.toml"), "--json")
    assert code == 2
    assert "with a space" in json.loads(said.splitlines()[-1])["failures"][0]["subject"]


def test_a_service_that_cannot_start_says_why_in_its_log(controller: Controller, tmp_path: Path) -> None:
    controller.install("--yes")
    controller.configure()
    controller.passrelay("keys", "init", "producer", "dc1")
    hook = ["--hook-key", windows_path(tmp_path / f"{controller.hook_key.key_id}.pub.json")]
    # No recipient key is enrolled.
    failed = controller.install(*hook, "--yes", check=False)
    assert controller.python.exit_code == 3
    assert "exit code 2" in failed["failures"][0]["detail"]
    (line,) = (line for line in controller.log() if line["action"] == "not_started")
    assert "no active recipient key" in line["why"]


@pytest.mark.parametrize(("role", "why"), [("NONE", "no domain controller"), ("READ_ONLY", "read-only")])
def test_only_a_writable_controller(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, role: str, why: str
) -> None:
    monkeypatch.setitem(controller.python.wine.environment, "LAB_ROLE", role)
    refused = controller.install("--yes", check=False)
    assert controller.python.exit_code == 4
    assert why in refused["refused"][0]
    assert not controller.folder.exists()


def test_a_policy_that_hardens_lsass_counts_before_lsa_has_taken_it_over(controller: Controller) -> None:
    controller.python.run("-c", _POLICY, "2")
    try:
        refused = controller.install("--yes", check=False)
        assert controller.python.exit_code == 4
    finally:
        controller.python.run("-c", _POLICY, "0")
    assert "RunAsPPL is 2" in refused["refused"][0]
    assert not controller.folder.exists()


def test_a_folder_with_other_things_is_neither_closed_nor_deleted(controller: Controller) -> None:
    others = controller.folder / "theirs.txt"
    controller.folder.mkdir(mode=0o755)
    others.touch()
    for command in (["install"], ["remove", "--remove-data"]):
        refused = controller.passrelay("producer", "windows", *command, "--yes", check=False)
        assert controller.python.exit_code == 4
        assert "was there before passrelay" in refused["refused"][0]
    assert controller.folder.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in controller.folder.iterdir()] == ["theirs.txt"]
    # What it made itself, it takes away again, also without the configuration.
    others.unlink()
    controller.install("--yes")
    controller.configure()
    controller.config.unlink()
    controller.passrelay("producer", "windows", "remove", "--remove-data", "--yes")
    assert not controller.folder.exists()


@pytest.mark.parametrize("planted", ["nothing", "mark", "mark in an own folder"])
def test_a_folder_that_somebody_else_has_made_is_not_taken_over(controller: Controller, planted: str) -> None:
    """As anybody may in ProgramData, before the first installation."""
    mark = controller.folder / ".passrelay"
    controller.folder.mkdir(mode=0o755)
    if planted != "nothing":
        mark.mkdir(mode=0o755)
        os.chown(mark, _SOMEBODY, _SOMEBODY)
    if planted != "mark in an own folder":
        os.chown(controller.folder, _SOMEBODY, _SOMEBODY)
    for command in (["install"], ["remove", "--remove-data"]):
        refused = controller.passrelay("producer", "windows", *command, "--yes", check=False)
        assert controller.python.exit_code == 4
        why = "was there before passrelay" if planted == "mark in an own folder" else "belongs to others"
        assert why in refused["refused"][0]
    assert controller.folder.stat().st_mode & 0o777 == 0o755
    assert not (controller.folder / "keys").exists()
    shutil.rmtree(controller.folder)
    controller.install("--yes")
    assert {path.name for path in controller.folder.iterdir()} == {".passrelay", "keys", "log", "records", "spool"}


def test_wine_itself_is_no_controller(controller: Controller) -> None:
    said = controller.python.run("-m", "passrelay_ops", "producer", "windows", "install", "--yes", check=False)
    assert controller.python.exit_code == 4
    assert "this is no domain controller" in said


def test_a_key_that_others_may_read_or_of_another_machine_is_refused(controller: Controller) -> None:
    controller.install("--yes")
    controller.configure()
    made = controller.passrelay("keys", "init", "producer", "dc1")["keys"][0]
    path = controller.folder / "keys" / f"{made['key_id']}.key"
    path.chmod(0o644)
    said = controller.python.passrelay("config", "check", "--config", windows_path(controller.config), check=False)
    assert controller.python.exit_code == 2
    assert "lets others read it (Everyone)" in said
    assert "icacls" in said
    path.chmod(0o600)
    content = json.loads(path.read_text())
    sealed = content["protected"]["sealed"]
    content["protected"]["sealed"] = sealed[:-8] + ("A" * 8 if sealed[-8:] != "A" * 8 else "B" * 8)
    path.write_text(json.dumps(content))
    said = controller.python.passrelay("config", "check", "--config", windows_path(controller.config), check=False)
    assert controller.python.exit_code == 2
    assert "only the Windows machine where it was made can open it" in said
