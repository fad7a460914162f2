"""One look at this Windows machine: its role, LSA, the hook's registry and files, the service."""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import hashlib
import os
import struct
import sys
from pathlib import Path
from typing import Any

from passrelay_producer.sources.hook_folder import QUARANTINE, HookFolder
from passrelay_producer.windows import DLL, HOOK, LSA_KEY, PACKAGES, SETTINGS_KEY, STATUS_KEY, manager, packages
from passrelay_producer.windows.facts import DllFile, Facts, HookSettings, HookStatus, Role, Waiting
from passrelay_schemas import filetime, windows_acl
from passrelay_schemas.errors import ConfigurationError, PassrelayError, UnavailableError
from passrelay_schemas.windows_acl import AccessList

_BACKUP, _PRIMARY = 4, 5
"""DsRole_RoleBackupDomainController, DsRole_RolePrimaryDomainController."""
_READ_ONLY = 0x08000000
"""DSROLE_PRIMARY_DS_READONLY."""


def system_folder() -> Path:
    """System32, where LSA looks for packages."""
    return Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"


def look(folder: Path | None) -> Facts:
    """Everything; `folder` is where the configuration has the hook's records. ConfigurationError elsewhere."""
    if sys.platform != "win32":
        raise ConfigurationError("this is not Windows: `passrelay producer windows` is for Windows domain controllers")
    status = registry(STATUS_KEY)
    settings = hook_settings()
    where = folder or (Path(settings.folder) if settings is not None and settings.folder else None)
    lsa = registry(LSA_KEY)
    return Facts(
        role=role(),
        build=sys.getwindowsversion().build,
        wide=struct.calcsize("P") == 8,
        elevated=_elevated(),
        domain_sid=_domain_sid(),
        protected=_number(lsa, "RunAsPPL"),
        packages=packages.parse(*lsa.get(PACKAGES, (None, 0))),
        lsass=_number(lsa, "LsaPid"),
        settings=settings,
        status=HookStatus(
            state=_text(status, "State"),
            version=_text(status, "Version"),
            reason=_text(status, "Reason"),
            process_id=_number(status, "ProcessId"),
            lost=_number(status, "Lost"),
            last_lost_rid=_number(status, "LastLostRid"),
            last_lost_reason=_text(status, "LastLostReason"),
            slots_left=_number(status, "SlotsLeft") if "SlotsLeft" in status else None,
        ),
        dll=dll_file(system_folder() / DLL),
        replaced=next((dll_file(path) for path in replaced_files()), None),
        service=manager.look(),
        waiting=Waiting() if where is None else waiting(where),
        folder=_access(where) if where is not None else None,
        program=_access(Path(sys.executable).parent),
    )


def registry(path: str) -> dict[str, tuple[Any, int]]:
    """All values of a key below HKEY_LOCAL_MACHINE with their types; empty when it is not there."""
    if sys.platform != "win32":
        return {}
    import winreg

    found: dict[str, tuple[Any, int]] = {}
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, winreg.KEY_READ | winreg.KEY_WOW64_64KEY) as key:
            for index in range(winreg.QueryInfoKey(key)[1]):
                name, value, kind = winreg.EnumValue(key, index)
                found[name] = (value, kind)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UnavailableError(
            f"registry HKLM\\{path}: cannot be read ({error.strerror}): run as administrator"
        ) from None
    return found


def hook_settings() -> HookSettings | None:
    """The hook's registry key; None when it is not there."""
    values = registry(SETTINGS_KEY)
    if not values:
        return None
    key = values.get("RecipientKey", (b"", 0))[0]
    return HookSettings(
        recipient_key=key if isinstance(key, bytes) else b"",
        recipient_key_id=_text(values, "RecipientKeyId"),
        producer=_text(values, "Producer"),
        domain_sid=_text(values, "DomainSid"),
        folder=_text(values, "Folder"),
    )


def dll_file(path: Path) -> DllFile | None:
    """A DLL on the disk; None when it is not there."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return DllFile(path, file_version(path), hashlib.sha256(content).hexdigest())


def file_version(path: Path) -> str:
    """As its version resource says; empty without one."""
    if sys.platform != "win32":
        return ""
    import pywintypes
    import win32api

    try:
        info = win32api.GetFileVersionInfo(str(path), "\\")
    except pywintypes.error:
        return ""
    high, low = info["FileVersionMS"], info["FileVersionLS"]
    return f"{high >> 16}.{high & 0xFFFF}.{low >> 16}"


def replaced_files() -> list[Path]:
    """DLLs that were moved aside because LSASS has them; the oldest is the loaded one. They go at the next start."""
    return sorted(system_folder().glob(f"{HOOK}.*.old"))


def waiting(folder: Path) -> Waiting:
    """What waits in the hook's folder."""
    now = filetime.now()
    try:
        names, _strangers = HookFolder(folder).names(now)
        quarantine = folder / QUARANTINE
        quarantined = len(list(quarantine.iterdir())) if quarantine.is_dir() else 0
    except (PassrelayError, OSError) as error:
        return Waiting(fault=str(error))
    oldest = (now - names[0].filetime) / filetime.UNITS_PER_SECOND if names else 0
    return Waiting(len(names), max(0.0, oldest), quarantined)


def role() -> Role:
    """What this machine is to its domain."""
    if sys.platform != "win32":
        return Role.NONE
    import ctypes

    class Information(ctypes.Structure):
        """DSROLE_PRIMARY_DOMAIN_INFO_BASIC."""

        _fields_ = (
            ("role", ctypes.c_int),
            ("flags", ctypes.c_uint32),
            ("flat", ctypes.c_wchar_p),
            ("dns", ctypes.c_wchar_p),
            ("forest", ctypes.c_wchar_p),
            ("guid", ctypes.c_byte * 16),
        )

    netapi = ctypes.WinDLL("netapi32")
    found = ctypes.POINTER(Information)()
    if netapi.DsRoleGetPrimaryDomainInformation(None, 1, ctypes.byref(found)) or not found:
        return Role.NONE
    kind, flags = found.contents.role, found.contents.flags
    netapi.DsRoleFreeMemory(found)
    if kind not in (_BACKUP, _PRIMARY):
        return Role.NONE
    return Role.READ_ONLY if flags & _READ_ONLY else Role.WRITABLE


def _domain_sid() -> str:
    """The SID of the machine's domain; empty when it is in none."""
    if sys.platform != "win32":
        return ""
    import pywintypes
    import win32security

    security: Any = win32security  # its stubs are wrong about all three
    try:
        policy = security.LsaOpenPolicy(None, win32security.POLICY_VIEW_LOCAL_INFORMATION)
        found = security.LsaQueryInformationPolicy(policy, win32security.PolicyDnsDomainInformation)
        security.LsaClose(policy)
    except pywintypes.error:
        return ""
    return str(win32security.ConvertSidToStringSid(found[-1])) if found and found[-1] is not None else ""


def _elevated() -> bool:
    if sys.platform != "win32":
        return False
    import win32security

    security: Any = win32security  # None is this thread's token, which its stubs do not know
    administrators = win32security.ConvertStringSidToSid(windows_acl.ADMINISTRATORS)
    return bool(security.CheckTokenMembership(None, administrators))


def _access(path: Path) -> AccessList | None:
    try:
        return windows_acl.access_list(path)
    except OSError:
        return None


def _text(values: dict[str, tuple[Any, int]], name: str) -> str:
    value = values.get(name, ("", 0))[0]
    return value if isinstance(value, str) else ""


def _number(values: dict[str, tuple[Any, int]], name: str) -> int:
    value = values.get(name, (0, 0))[0]
    return value if isinstance(value, int) else 0
