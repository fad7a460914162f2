"""What installing and removing do to this machine, one act each; every act may be repeated."""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
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
)
from passrelay_producer.windows.facts import HookSettings
from passrelay_schemas.errors import SafetyError, UnavailableError

_EVENT_LOG = r"SYSTEM\CurrentControlSet\Services\EventLog\Application"
_ALL_KINDS = 7
"""EVENTLOG_ERROR_TYPE, _WARNING_TYPE and _INFORMATION_TYPE."""


class Hands(Protocol):
    """The acts. UnavailableError says what could not be done, SafetyError what may not."""

    def make_folder(self, path: Path, sddl: str) -> None:
        """The folder, with exactly this access list."""

    def mark_folder(self, path: Path) -> None:
        """It is passrelay's own from now on, with everything in it."""

    def write_settings(self, settings: HookSettings, sddl: str) -> None:
        """The hook's registry key, with exactly this access list."""

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

    def write_packages(self, packages: Sequence[str]) -> None:
        """LSA's whole list."""

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

    def make_folder(self, path: Path, sddl: str) -> None:
        """The folder, with exactly this access list; what it holds inherits it. A new one has it from its beginning."""
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
            if not path.is_dir():
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

    def write_settings(self, settings: HookSettings, sddl: str) -> None:
        """The access list first, so that nobody else ever may write the values."""
        if sys.platform != "win32":
            return
        import winreg

        import win32security

        with _explained(f"registry HKLM\\{SETTINGS_KEY}"):
            wanted = win32security.ConvertStringSecurityDescriptorToSecurityDescriptor(
                sddl, win32security.SDDL_REVISION_1
            )
            what = win32security.DACL_SECURITY_INFORMATION | win32security.PROTECTED_DACL_SECURITY_INFORMATION
            with _key(SETTINGS_KEY, winreg.KEY_ALL_ACCESS) as key:
                set_access: Any = win32security.SetSecurityInfo  # winreg's keys are not in its stubs
                dacl = wanted.GetSecurityDescriptorDacl()
                set_access(key.handle, win32security.SE_REGISTRY_KEY, what, None, None, dacl, None)
            with _key(SETTINGS_KEY, winreg.KEY_SET_VALUE) as values:
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

    def write_packages(self, packages: Sequence[str]) -> None:
        """As REG_MULTI_SZ, which it was."""
        if sys.platform != "win32":
            return
        import winreg

        with _explained(f"registry HKLM\\{LSA_KEY}"), _key(LSA_KEY, winreg.KEY_SET_VALUE) as key:
            winreg.SetValueEx(key, PACKAGES, 0, winreg.REG_MULTI_SZ, list(packages))

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
