"""Who may read or change a file or registry key on Windows: what mode bits are elsewhere, its access list is there.

Trusted are SYSTEM, the Administrators, the account of this process and the producer's service; anybody else who is let
in is a fault. The service runs as a virtual account, whose SID is made of its name (MS-DTYP 2.4.2.4, NT SERVICE).
"""

# mypy: no-warn-unreachable
# What is below a check of the platform is checked for that platform.

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICE = "passrelay-producer"
"""The Windows service's name; its account is NT SERVICE\\passrelay-producer."""
SYSTEM = "S-1-5-18"
ADMINISTRATORS = "S-1-5-32-544"
TRUSTED_INSTALLER = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
_NOBODY_ELSE = ("S-1-3-0", "S-1-3-4")
"""CREATOR OWNER and OWNER RIGHTS stand for whoever owns the file, and the owner is looked at by himself."""

_GENERIC_ALL, _GENERIC_WRITE, _GENERIC_READ = 0x10000000, 0x40000000, 0x80000000
_WRITE_DAC, _WRITE_OWNER, _DELETE, _READ_CONTROL = 0x40000, 0x80000, 0x10000, 0x20000
_DELETE_CHILD, _WRITE_DATA, _APPEND_DATA, _READ_DATA = 0x40, 0x2, 0x4, 0x1
WRITE = _GENERIC_ALL | _GENERIC_WRITE | _WRITE_DAC | _WRITE_OWNER | _DELETE | _DELETE_CHILD | _WRITE_DATA | _APPEND_DATA
"""Rights that change a file, or what is in a folder."""
READ = _GENERIC_ALL | _GENERIC_READ | _WRITE_DAC | _WRITE_OWNER | _READ_DATA
"""Rights that show a file's content, or lead to it."""
CREATE = _GENERIC_ALL | _GENERIC_WRITE | _WRITE_DAC | _WRITE_OWNER | _WRITE_DATA
"""Rights that make a new file in a folder, or lead to it."""

CONTROL = _GENERIC_ALL | _WRITE_DAC | _WRITE_OWNER
"""Rights that lead to any other, later too."""
_SET_VALUE, _CREATE_SUB_KEY, _CREATE_LINK = 0x2, 0x4, 0x20
KEY_WRITE = CONTROL | _GENERIC_WRITE | _DELETE | _SET_VALUE | _CREATE_SUB_KEY | _CREATE_LINK
"""Rights that change a registry key, or what is in it."""
KEY_READ = 0x20019
"""All that reading a registry key takes (winnt.h)."""


@dataclass(frozen=True)
class Grant:
    """One account that is let in, and its access mask (winnt.h)."""

    sid: str
    name: str
    mask: int


@dataclass(frozen=True)
class AccessList:
    """A file's, folder's or registry key's owner and grants; `grants` is None without a list: all may everything."""

    owner: Grant
    grants: tuple[Grant, ...] | None


def virtual_account_sid(service: str = SERVICE) -> str:
    """The SID of the service's virtual account, whether the service is there or not."""
    digest = hashlib.sha1(service.upper().encode("utf-16-le"), usedforsecurity=False).digest()
    return "S-1-5-80-" + "-".join(str(part) for part in struct.unpack("<5I", digest))


def strangers(access: AccessList, rights: int, trusted: Collection[str]) -> list[str]:
    """The names of those who have any of `rights` and are not trusted."""
    if access.grants is None:
        return ["everybody: it has no access list"]
    found: Iterable[Grant] = (access.owner, *(grant for grant in access.grants if grant.mask & rights))
    known = {*trusted, *_NOBODY_ELSE}
    return list(dict.fromkeys(grant.name for grant in found if grant.sid not in known))


def trusted_here() -> frozenset[str]:
    """SIDs that may read this host's secrets."""
    return frozenset({SYSTEM, ADMINISTRATORS, virtual_account_sid(), own_sid()})


def read_fault(path: Path, *, service: str = "R") -> str | None:
    """Who else can read the file and how to repair it; None when nobody. `service`: what the service needs (icacls)."""
    return _fault(path, READ, "read it", service, "and change the secret if they did")


def write_fault(path: Path) -> str | None:
    """Who else can write the file or folder and how to repair it; None when nobody."""
    return _fault(path, WRITE, "write there", "RX", "and look at what they wrote")


def _fault(path: Path, rights: int, what: str, service_rights: str, then: str) -> str | None:
    others = strangers(access_list(path), rights, trusted_here())
    if not others:
        return None
    inherit = "(OI)(CI)" if path.is_dir() else ""
    # The owner may always give himself any right; icacls takes /setowner alone only.
    own = f'`icacls "{path}" /setowner *{ADMINISTRATORS}` and '
    return (
        f"its access list lets others {what} ({', '.join(others)}): "
        f'{own}`icacls "{path}" /inheritance:r /grant:r *{SYSTEM}:{inherit}F *{ADMINISTRATORS}:{inherit}F '
        f'"NT SERVICE\\{SERVICE}:{inherit}{service_rights}"`, {then}'
    )


def own_sid() -> str:
    """The SID of this process's account."""
    if sys.platform != "win32":
        raise OSError("access lists are looked at on Windows only")
    import win32api
    import win32con
    import win32security

    token = win32security.OpenProcessToken(win32api.GetCurrentProcess(), win32con.TOKEN_QUERY)
    sid, _attributes = win32security.GetTokenInformation(token, win32security.TokenUser)
    return str(win32security.ConvertSidToStringSid(sid))


def access_list(path: Path) -> AccessList:
    """A file's or folder's list. OSError when it cannot be read."""
    if sys.platform != "win32":
        raise OSError("access lists are looked at on Windows only")
    import pywintypes
    import win32security

    wanted = win32security.OWNER_SECURITY_INFORMATION | win32security.DACL_SECURITY_INFORMATION
    try:
        descriptor = win32security.GetFileSecurity(str(path), wanted)
    except pywintypes.error as error:
        raise OSError(error.winerror, error.strerror, str(path)) from None
    return _listed(descriptor)


def key_access_list(path: str) -> AccessList:
    """The list of a registry key below HKEY_LOCAL_MACHINE. OSError when it is not there or cannot be read."""
    if sys.platform != "win32":
        raise OSError("access lists are looked at on Windows only")
    import winreg

    import pywintypes
    import win32security

    wanted = win32security.OWNER_SECURITY_INFORMATION | win32security.DACL_SECURITY_INFORMATION
    read: Any = win32security.GetSecurityInfo  # winreg's keys are not in its stubs
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, _READ_CONTROL | winreg.KEY_WOW64_64KEY) as key:
        try:
            descriptor = read(key.handle, win32security.SE_REGISTRY_KEY, wanted)
        except pywintypes.error as error:
            raise OSError(error.winerror, error.strerror, path) from None
    return _listed(descriptor)


def _listed(descriptor: Any) -> AccessList:
    if sys.platform != "win32":
        raise OSError("access lists are looked at on Windows only")
    import win32security

    owner = _grant(descriptor.GetSecurityDescriptorOwner(), 0)
    dacl = descriptor.GetSecurityDescriptorDacl()
    if dacl is None:
        return AccessList(owner, None)
    grants = []
    for index in range(dacl.GetAceCount()):
        ace = dacl.GetAce(index)
        (kind, flags), mask, sid = ace[0], ace[1], ace[-1]
        allows = kind in (win32security.ACCESS_ALLOWED_ACE_TYPE, win32security.ACCESS_ALLOWED_OBJECT_ACE_TYPE)
        if allows and not flags & win32security.INHERIT_ONLY_ACE:
            grants.append(_grant(sid, mask))
    return AccessList(owner, tuple(grants))


def _grant(sid: Any, mask: int) -> Grant:
    if sys.platform != "win32":
        raise OSError("access lists are looked at on Windows only")
    import pywintypes
    import win32security

    text = win32security.ConvertSidToStringSid(sid)
    try:
        name, domain, _kind = win32security.LookupAccountSid(None, sid)
    except pywintypes.error:
        return Grant(text, text, mask & 0xFFFFFFFF)
    return Grant(text, f"{domain}\\{name}" if domain else name, mask & 0xFFFFFFFF)
