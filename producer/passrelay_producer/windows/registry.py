"""What the registry has of the hook and of LSA: read only, and told apart by type."""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import contextlib
import ntpath
import sys
from pathlib import PurePath
from typing import Any

from passrelay_producer.windows import LSA_KEY, POLICY_KEY, SETTINGS_KEY, STATUS_KEY
from passrelay_producer.windows.facts import HookSettings, HookStatus
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.windows_acl import AccessList, key_access_list

Values = dict[str, tuple[Any, int]]
"""A key's values by name, each with its type."""


def values(path: str) -> Values:
    """All values of a key below HKEY_LOCAL_MACHINE with their types; empty when it is not there."""
    if sys.platform != "win32":
        return {}
    import winreg

    found: Values = {}
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
    found = values(SETTINGS_KEY)
    if not found:
        return None
    key = found.get("RecipientKey", (b"", 0))[0]
    return HookSettings(
        recipient_key=key if isinstance(key, bytes) else b"",
        recipient_key_id=text(found, "RecipientKeyId"),
        producer=text(found, "Producer"),
        domain_sid=text(found, "DomainSid"),
        folder=text(found, "Folder"),
    )


def settings_access_list() -> AccessList | None:
    """Who may change the hook's registry key; None when it is not there, or its list cannot be read."""
    try:
        return key_access_list(SETTINGS_KEY)
    except OSError:
        return None


def hook_status() -> HookStatus:
    """What the DLL said since it was loaded; empty when it was not. UnavailableError."""
    found = values(STATUS_KEY)
    return HookStatus(
        state=text(found, "State"),
        version=text(found, "Version"),
        reason=text(found, "Reason"),
        process_id=number(found, "ProcessId"),
        lost=number(found, "Lost"),
        last_lost_rid=number(found, "LastLostRid"),
        last_lost_reason=text(found, "LastLostReason"),
        slots_left=number(found, "SlotsLeft") if "SlotsLeft" in found else None,
        key_id=text(found, "KeyId"),
        settings_trouble=text(found, "SettingsTrouble"),
    )


def hook_fault() -> str:
    """Why LSASS gives the hook no changes, or will not after a restart, or why that cannot be told.

    Empty when all is well, and where no Windows is.
    """
    if sys.platform != "win32":
        return ""
    try:
        status = hook_status()
        return status.why_off(lsass()) or (status.old_settings() if _settings_refused() else "")
    except UnavailableError:
        return (
            f"whether LSASS has loaded the hook cannot be told: the service may not read HKLM\\{STATUS_KEY}: run "
            "`passrelay producer windows install --yes` again"
        )


def _settings_refused() -> bool:
    """The hook would not take its registry key as it is now; what it says of it is of the last change."""
    settings = None
    with contextlib.suppress(UnavailableError):
        settings = hook_settings()
    return settings is None or bool(settings.fault)


def lsass() -> int:
    """LSASS's process id; 0 when Windows does not tell."""
    with contextlib.suppress(UnavailableError):
        return number(values(LSA_KEY), "LsaPid")
    return 0


def run_as_ppl() -> int:
    """Whether LSASS is hardened at its next start: by its own key, or by a policy, which LSA takes over then."""
    return max(number(values(path), "RunAsPPL") for path in (LSA_KEY, POLICY_KEY))


def same_folder(one: str | PurePath, other: str | PurePath) -> bool:
    """The two names are of one folder, in whatever case and with whatever slashes."""
    return normal(one) == normal(other)


def normal(path: str | PurePath) -> str:
    """One name for a path: Windows takes any case and both slashes."""
    return ntpath.normcase(ntpath.normpath(str(path)))


def hook_domain_sid() -> str:
    """The domain that the hook seals for; empty where that cannot be told."""
    with contextlib.suppress(UnavailableError):
        settings = hook_settings()
        return "" if settings is None else settings.domain_sid
    return ""


def folder_fault(folder: PurePath) -> str:
    """Why the hook writes elsewhere than the source reads, and the repair; empty: it does not, or nobody can tell."""
    settings = None
    with contextlib.suppress(UnavailableError):
        settings = hook_settings()
    if settings is None or not settings.folder or same_folder(settings.folder, folder):
        return ""
    return (
        f"[source.hook] folder is {folder}, but the hook writes to {settings.folder} (registry, Folder): name that "
        "one, or run `passrelay producer windows install --yes`, which tells the hook"
    )


def check_folder(folder: PurePath) -> None:
    """ConfigurationError when the hook writes elsewhere than the source reads; nothing where that cannot be told."""
    fault = folder_fault(folder)
    if fault:
        raise ConfigurationError(fault)


def text(found: Values, name: str) -> str:
    """A string value; empty when there is none."""
    value = found.get(name, ("", 0))[0]
    return value if isinstance(value, str) else ""


def number(found: Values, name: str) -> int:
    """A number; 0 when there is none."""
    value = found.get(name, (0, 0))[0]
    return value if isinstance(value, int) else 0
