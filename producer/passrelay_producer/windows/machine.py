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

from passrelay_producer.sources.hook_folder import HookFolder
from passrelay_producer.windows import DLL, HOOK, LSA_KEY, PACKAGES, manager, packages, registry
from passrelay_producer.windows.facts import DllFile, Facts, Role, Waiting
from passrelay_schemas import filetime, windows_acl
from passrelay_schemas.errors import ConfigurationError, PassrelayError
from passrelay_schemas.windows_acl import AccessList

_BACKUP, _PRIMARY = 4, 5
"""DsRole_RoleBackupDomainController, DsRole_RolePrimaryDomainController."""
_READ_ONLY = 0x08000000
"""DSROLE_PRIMARY_DS_READONLY."""


def system_folder() -> Path:
    """System32, where LSA looks for packages."""
    return Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"


def look(folder: Path | None, *, also: Path | None = None) -> Facts:
    """Everything; `folder` is where the configuration has the hook's records. ConfigurationError elsewhere.

    `also`: another folder in which records may wait, if it is there.
    """
    if sys.platform != "win32":
        raise ConfigurationError("this is not Windows: `passrelay producer windows` is for Windows domain controllers")
    settings = registry.hook_settings()
    theirs = Path(settings.folder) if settings is not None and settings.folder else None
    where = folder or theirs
    return Facts(
        role=role(),
        build=sys.getwindowsversion().build,
        wide=struct.calcsize("P") == 8,
        elevated=_elevated(),
        domain_sid=_domain_sid(),
        protected=registry.run_as_ppl(),
        packages=packages.parse(*registry.values(LSA_KEY).get(PACKAGES, (None, 0))),
        lsass=registry.lsass(),
        settings=settings,
        configured=folder,
        status=registry.hook_status(),
        dll=dll_file(system_folder() / DLL),
        replaced=next((dll_file(path) for path in replaced_files()), None),
        service=manager.look(),
        waiting=waiting(folder, theirs, also if also is not None and also.is_dir() else None),
        folder=_access(where) if where is not None else None,
        registry=registry.settings_access_list(),
        program=_access(Path(sys.executable).parent),
        account=windows_acl.own_sid(),
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


def waiting(*folders: Path | None) -> Waiting:
    """What waits in these folders together; one that has several names is looked at once."""
    now = filetime.now()
    calls: list[int] = []
    quarantined = 0
    try:
        for folder in {registry.normal(folder): folder for folder in folders if folder is not None}.values():
            calls += [name.filetime for name in HookFolder(folder).look(now).records]
            quarantined += HookFolder(folder).quarantined()
    except PassrelayError as error:
        return Waiting(fault=str(error))
    oldest = (now - min(calls)) / filetime.UNITS_PER_SECOND if calls else 0
    return Waiting(len(calls), max(0.0, oldest), quarantined)


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
