"""The producer on a Windows domain controller: its service, its logs, and setting up the hook (docs/windows.md).

Everything that Windows is asked or told is in `machine`, `hands`, `manager` and `service`, below checks of the
platform; what is decided from it is in plain functions. The package can be imported anywhere.
"""

from __future__ import annotations

from pathlib import PureWindowsPath

from passrelay_schemas.windows_acl import SERVICE, virtual_account_sid

HOOK = "passrelay-hook"
"""The DLL's name in `Notification Packages`, and its source in the event log."""
DLL = f"{HOOK}.dll"
ACCOUNT = f"NT SERVICE\\{SERVICE}"
SETTINGS_KEY = r"SOFTWARE\passrelay\hook"
STATUS_KEY = rf"{SETTINGS_KEY}\status"
LSA_KEY = r"SYSTEM\CurrentControlSet\Control\Lsa"
POLICY_KEY = r"SOFTWARE\Policies\Microsoft\Windows\System"
"""Where group policy puts RunAsPPL (LocalSecurityAuthority.admx)."""
PACKAGES = "Notification Packages"
EVENT_SOURCES = (HOOK, SERVICE)
"""Both have their words in the DLL (messages.mc)."""

LEAST_BUILD = 14393
"""Windows Server 2016."""

_SYSTEM_AND_ADMINISTRATORS = "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
_READ, _MODIFY, _LOOK, _TAKE = "0x1200a9", "0x1301bf", "0x1200a9", "0x130089"
"""Read and traverse; that, write and delete; list a folder; read and delete a file (winnt.h, FILE_ACCESS_RIGHTS)."""


def only_administrators() -> str:
    """SDDL of a folder that is SYSTEM's and the Administrators' alone."""
    return _SYSTEM_AND_ADMINISTRATORS


def only_readable(account: str) -> str:
    """SDDL of a folder that SYSTEM and Administrators own, and `account` (a SID) reads."""
    return f"{_SYSTEM_AND_ADMINISTRATORS}(A;OICI;{_READ};;;{account})"


def own(account: str) -> str:
    """SDDL of a folder in which `account` works."""
    return f"{_SYSTEM_AND_ADMINISTRATORS}(A;OICI;{_MODIFY};;;{account})"


def only_taken_from(account: str) -> str:
    """SDDL of the hook's folder: `account` lists it, reads files and deletes them, but can make none."""
    # Inherited through the folder `slots` too: a file that is renamed out of it keeps the list that it got there.
    return f"{_SYSTEM_AND_ADMINISTRATORS}(A;;{_LOOK};;;{account})(A;OICIIO;{_TAKE};;;{account})"


def settings_access(account: str) -> str:
    """SDDL of the hook's registry key."""
    return f"O:BAD:P(A;CI;KA;;;SY)(A;CI;KA;;;BA)(A;CI;KR;;;{account})"


def service_command(python: PureWindowsPath, config: PureWindowsPath) -> str:
    """The service's ImagePath. -I: no PYTHON* variable of the machine and no folder of a user is looked at."""
    return f'"{python}" -I -m passrelay_producer.windows.service --config "{config}"'


__all__ = [
    "ACCOUNT",
    "DLL",
    "EVENT_SOURCES",
    "HOOK",
    "LEAST_BUILD",
    "LSA_KEY",
    "PACKAGES",
    "POLICY_KEY",
    "SERVICE",
    "SETTINGS_KEY",
    "STATUS_KEY",
    "only_administrators",
    "only_readable",
    "only_taken_from",
    "own",
    "service_command",
    "settings_access",
    "virtual_account_sid",
]
