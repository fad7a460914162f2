"""What installing and removing do to this machine, one act each; every act may be repeated."""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from passrelay_producer.windows import (
    DLL,
    HOOK,
    LSA_KEY,
    PACKAGES,
    SETTINGS_KEY,
    STATUS_KEY,
    folders,
    machine,
    manager,
    only_administrators,
    packages,
    registry,
)
from passrelay_producer.windows.facts import HookSettings
from passrelay_schemas.errors import SafetyError, UnavailableError

_EVENT_LOG = r"SYSTEM\CurrentControlSet\Services\EventLog\Application"
_ALL_KINDS = 7
"""EVENTLOG_ERROR_TYPE, _WARNING_TYPE and _INFORMATION_TYPE."""


class Hands(Protocol):
    """The acts. UnavailableError says what could not be done, SafetyError what may not."""

    def make_folder(self, path: Path, sddl: str, *, new: bool = False) -> None:
        """The folder, with exactly this access list. `new`: it was not there, so nobody else may have made it."""

    def mark_folder(self, path: Path) -> None:
        """It is passrelay's own from now on, with everything in it."""

    def close_settings(self, sddl: str) -> None:
        """The hook's registry key, with exactly this access list, and the status below it."""

    def write_settings(self, settings: HookSettings) -> None:
        """The values of the hook's registry key."""

    def remove_settings(self) -> None:
        """Without it the DLL refuses to load."""

    def register_source(self, source: str, messages: Path) -> None:
        """A source of the event log, and the file that has its words."""

    def remove_source(self, source: str) -> None:
        """What the event log has of it loses its words."""

    def place_dll(self, source: Path) -> None:
        """Into System32; one that LSASS has loaded is moved aside until the next start."""

    def remove_dll(self) -> None:
        """Now, or at the next start when LSASS has it."""

    def add_package(self) -> None:
        """The hook at the end of LSA's list, as the list is then."""

    def remove_package(self) -> None:
        """The hook out of LSA's list, as the list is then."""

    def make_service(self, command: str) -> None:
        """Make or change it."""

    def start_service(self) -> None:
        """Start it, or start it anew."""

    def remove_service(self) -> None:
        """Stop and remove it."""

    def remove_tree(self, path: Path) -> None:
        """A folder with all that is in it."""


class WindowsHands:
    """The acts on the machine itself."""

    def make_folder(self, path: Path, sddl: str, *, new: bool = False) -> None:
        """The folder, with exactly this access list; what it holds inherits it. A new one has it from its beginning.

        SafetyError: since it was looked at somebody else has put something in its place.
        """
        folders.check_again(path, new=new)
        if sys.platform != "win32":
            return
        import pywintypes
        import win32file
        import win32security

        with _explained(f"folder {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            wanted = win32security.ConvertStringSecurityDescriptorToSecurityDescriptor(
                sddl, win32security.SDDL_REVISION_1
            )
            if new or not path.is_dir():
                attributes = pywintypes.SECURITY_ATTRIBUTES()
                attributes.SECURITY_DESCRIPTOR = wanted
                win32file.CreateDirectory(str(path), attributes)
            what = (
                win32security.OWNER_SECURITY_INFORMATION
                | win32security.DACL_SECURITY_INFORMATION
                | win32security.PROTECTED_DACL_SECURITY_INFORMATION
            )
            owner, dacl = wanted.GetSecurityDescriptorOwner(), wanted.GetSecurityDescriptorDacl()
            win32security.SetNamedSecurityInfo(str(path), win32security.SE_FILE_OBJECT, what, owner, None, dacl, None)

    def mark_folder(self, path: Path) -> None:
        """As `folders.look` looks for it. SafetyError: something came into the folder before it was closed."""
        folders.check_again(path)
        found = folders.look(path)
        if not found.free and not found.marked:
            raise SafetyError(
                f"folder {path}: something was put into it while it was closed: look at it, take it away, and run this "
                "again"
            )
        mark = path / folders.MARK
        with _explained(f"folder {mark}"):
            mark.mkdir(exist_ok=True)
        self.make_folder(mark, only_administrators())

    def close_settings(self, sddl: str) -> None:
        """Made if need be. What the DLL keeps below it inherits the list, also what is there already."""
        if sys.platform != "win32":
            return
        import winreg

        import win32security

        wanted = win32security.ConvertStringSecurityDescriptorToSecurityDescriptor(sddl, win32security.SDDL_REVISION_1)
        owner, dacl = wanted.GetSecurityDescriptorOwner(), wanted.GetSecurityDescriptorDacl()
        what = (
            win32security.OWNER_SECURITY_INFORMATION
            | win32security.DACL_SECURITY_INFORMATION
            | win32security.PROTECTED_DACL_SECURITY_INFORMATION
        )
        set_access: Any = win32security.SetSecurityInfo  # winreg's keys are not in its stubs
        with _explained(f"registry HKLM\\{SETTINGS_KEY}"), _key(SETTINGS_KEY, winreg.KEY_ALL_ACCESS) as key:
            set_access(key.handle, win32security.SE_REGISTRY_KEY, what, owner, None, dacl, None)
        if registry.values(STATUS_KEY):
            with _explained(f"registry HKLM\\{STATUS_KEY}"), _key(STATUS_KEY, winreg.KEY_ALL_ACCESS) as key:
                set_access(key.handle, win32security.SE_REGISTRY_KEY, what, owner, None, dacl, None)

    def write_settings(self, settings: HookSettings) -> None:
        """After `close_settings`, so that nobody else ever may write the values."""
        if sys.platform != "win32":
            return
        import winreg

        with _explained(f"registry HKLM\\{SETTINGS_KEY}"), _key(SETTINGS_KEY, winreg.KEY_SET_VALUE) as values:
            winreg.SetValueEx(values, "RecipientKey", 0, winreg.REG_BINARY, settings.recipient_key)
            for name, text in (
                ("RecipientKeyId", settings.recipient_key_id),
                ("Producer", settings.producer),
                ("DomainSid", settings.domain_sid),
                ("Folder", settings.folder),
            ):
                winreg.SetValueEx(values, name, 0, winreg.REG_SZ, text)

    def remove_settings(self) -> None:
        """With the DLL's status below it."""
        _delete_keys([STATUS_KEY, SETTINGS_KEY])

    def register_source(self, source: str, messages: Path) -> None:
        """In the log `Application`."""
        if sys.platform != "win32":
            return
        import winreg

        path = rf"{_EVENT_LOG}\{source}"
        with _explained(f"registry HKLM\\{path}"), _key(path, winreg.KEY_SET_VALUE) as key:
            winreg.SetValueEx(key, "EventMessageFile", 0, winreg.REG_EXPAND_SZ, str(messages))
            winreg.SetValueEx(key, "TypesSupported", 0, winreg.REG_DWORD, _ALL_KINDS)

    def remove_source(self, source: str) -> None:
        """From the log `Application`."""
        _delete_keys([rf"{_EVENT_LOG}\{source}"])

    def place_dll(self, source: Path) -> None:
        """Copied beside first: System32 never has half of one under its name."""
        target = machine.system_folder() / DLL
        with _explained(f"{target}"):
            new = target.with_suffix(".new")
            shutil.copyfile(source, new)
            self._move_aside(target)
            new.replace(target)

    def remove_dll(self) -> None:
        """From System32."""
        with _explained(f"{machine.system_folder() / DLL}"):
            self._move_aside(machine.system_folder() / DLL)

    def add_package(self) -> None:
        """Others may have changed the list since it was looked at."""
        _change_packages(packages.appended)

    def remove_package(self) -> None:
        """Others may have changed the list since it was looked at: stopping the service takes its time."""
        _change_packages(packages.removed)

    def make_service(self, command: str) -> None:
        """Make or change it."""
        manager.make(command)

    def start_service(self) -> None:
        """Start it, or start it anew."""
        manager.start()

    def remove_service(self) -> None:
        """Stop and remove it."""
        manager.remove()

    def remove_tree(self, path: Path) -> None:
        """A folder with all that is in it."""
        with _explained(f"folder {path}"), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)

    def _move_aside(self, target: Path) -> None:
        """A DLL that is loaded cannot be deleted, but it can be renamed."""
        found = machine.dll_file(target)
        if sys.platform != "win32" or found is None:
            return
        import win32con
        import win32file

        aside = next(path for n in range(1000) if not (path := target.with_name(f"{HOOK}.{n:03}.old")).exists())
        target.rename(aside)
        try:
            aside.unlink()
        except OSError:
            move: Any = win32file.MoveFileEx  # None is "delete", which its stubs do not know
            move(str(aside), None, win32con.MOVEFILE_DELAY_UNTIL_REBOOT)


def _change_packages(change: Callable[[Sequence[str], str], list[str]]) -> None:
    """As REG_MULTI_SZ, which it is, or `packages.parse` refuses."""
    if sys.platform != "win32":
        return
    import winreg

    with _explained(f"registry HKLM\\{LSA_KEY}"):
        before = packages.parse(*registry.values(LSA_KEY).get(PACKAGES, (None, 0)))
        after = change(before, HOOK)
        if after != list(before):
            with _key(LSA_KEY, winreg.KEY_SET_VALUE) as key:
                winreg.SetValueEx(key, PACKAGES, 0, winreg.REG_MULTI_SZ, after)


@contextlib.contextmanager
def _key(path: str, rights: int) -> Iterator[Any]:
    if sys.platform != "win32":
        raise UnavailableError("registry: this is not Windows")
    import winreg

    with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, path, 0, rights | winreg.KEY_WOW64_64KEY) as key:
        yield key


def _delete_keys(paths: Sequence[str]) -> None:
    if sys.platform != "win32":
        return
    import winreg

    for path in paths:
        with _explained(f"registry HKLM\\{path}"), contextlib.suppress(FileNotFoundError):
            winreg.DeleteKeyEx(winreg.HKEY_LOCAL_MACHINE, path, winreg.KEY_WOW64_64KEY, 0)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Windows' errors as ours."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"{what}: {error.strerror}: run this as an administrator, and look at it") from None
    except Exception as error:
        if type(error).__name__ != "error":  # pywintypes.error
            raise
        why = getattr(error, "strerror", "")
        raise UnavailableError(f"{what}: {why}: run this as an administrator, and look at it") from None
