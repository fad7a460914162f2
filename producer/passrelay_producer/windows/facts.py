"""What a Windows machine shows of itself, of the hook and of the service; `machine` gathers it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from passrelay_schemas.keys import key_id_of
from passrelay_schemas.suites import P256, SUITES
from passrelay_schemas.windows_acl import ADMINISTRATORS, KEY_WRITE, SYSTEM, AccessList, strangers

_POINT_BYTES = 65
"""An uncompressed point of P-256, the only form that the hook takes."""
_PRODUCER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DOMAIN_SID = re.compile(r"S-1-5-21(-(0|[1-9][0-9]{0,9})){3}")
_FOLDER = re.compile(r"[A-Za-z]:\\.{1,176}")


class Role(StrEnum):
    """What the machine is to its domain (DSROLE_MACHINE_ROLE and its flags, dsrole.h)."""

    NONE = "no domain controller"
    READ_ONLY = "a read-only domain controller"
    WRITABLE = "a writable domain controller"


@dataclass(frozen=True)
class HookSettings:
    """The hook's registry key; a value of another type counts as missing."""

    recipient_key: bytes = b""
    recipient_key_id: str = ""
    producer: str = ""
    domain_sid: str = ""
    folder: str = ""

    @property
    def key_fault(self) -> str:
        """Why the hook cannot seal to this key, by its own rules (windows_hook/settings.c); empty when it can."""
        if not self.recipient_key or not self.recipient_key_id:
            return "RecipientKey or RecipientKeyId is missing"
        if not _is_point(self.recipient_key):
            return "RecipientKey is no point of P-256"
        own = key_id_of(P256, self.recipient_key)
        if own != self.recipient_key_id:
            return f"RecipientKeyId is {self.recipient_key_id}, but RecipientKey's id is {own}"
        return ""

    @property
    def fault(self) -> str:
        """Why the hook would refuse these settings, by its own rules (record.c too); empty when it takes them."""
        if self.key_fault:
            return self.key_fault
        if not _PRODUCER.fullmatch(self.producer):
            return f"Producer is {self.producer or 'missing'}"
        if not _DOMAIN_SID.fullmatch(self.domain_sid) or any(
            int(part) >= 1 << 32 for part in self.domain_sid.split("-")[4:]
        ):
            return f"DomainSid is {self.domain_sid or 'missing'}"
        if not _FOLDER.fullmatch(self.folder):
            return f"Folder is {self.folder or 'missing'}"
        return ""


def _is_point(raw: bytes) -> bool:
    with suppress(ValueError):
        SUITES[P256].public_key(raw)
        return len(raw) == _POINT_BYTES
    return False


@dataclass(frozen=True)
class HookStatus:
    """What the DLL itself said since it was loaded: its volatile registry key, gone after a restart."""

    state: str = ""
    """`loaded`, `refused`; empty: it has not been loaded since the start."""
    version: str = ""
    reason: str = ""
    process_id: int = 0
    lost: int = 0
    last_lost_rid: int = 0
    last_lost_reason: str = ""
    slots_left: int | None = None
    """None before the hook has looked at its folder."""
    key_id: str = ""
    """Of the key that it sealed to last, or would have; empty: an older DLL, which does not say."""
    settings_trouble: str = ""
    """Why it could not use its registry key when it read it last; empty: it could, or does not say."""

    def old_settings(self) -> str:
        """Why the hook goes on with settings that are not the registry's, and the repair; empty: it does not."""
        if not self.settings_trouble:
            return ""
        key = f", sealing to the key {self.key_id}," if self.key_id else ""
        return (
            f"the hook cannot use its registry settings ({self.settings_trouble}): it goes on with those from before"
            f"{key} until the next restart, at which it would refuse to load: run `passrelay producer windows install "
            "--hook-key FILE --yes`; it reads them again with the next password change on this controller"
        )

    def why_off(self, lsass: int) -> str:
        """Why no change is captured, and the repair; empty: the LSASS of this process id (0: unknown) has the hook."""
        if self.state == "refused":
            return f"the hook refused to load ({self.reason}): repair that, then restart this controller"
        if self.state == "loaded" and lsass in (0, self.process_id):  # it said so in this LSASS's life
            return ""
        return (
            "LSASS has not loaded the hook since it started, no change is captured: restart this controller; after "
            "that look at the event log (source passrelay-hook)"
        )


@dataclass(frozen=True)
class DllFile:
    """A DLL on the disk."""

    path: Path
    version: str
    sha256: str


class ServiceState(StrEnum):
    """SERVICE_STATUS dwCurrentState (winsvc.h)."""

    STOPPED = "stopped"
    STARTING = "starting"
    STOPPING = "stopping"
    RUNNING = "running"
    OTHER = "paused"


@dataclass(frozen=True)
class ServiceFacts:
    """The producer's service."""

    state: ServiceState
    account: str
    command: str
    automatic: bool
    exit_code: int
    """Why it is not running: ours, or Windows' error; 0 when it was stopped or never ran."""


@dataclass(frozen=True)
class Waiting:
    """What lies in the hook's folder, and in the configured one if that is another; `fault`: it cannot be told."""

    records: int = 0
    oldest_seconds: float = 0
    quarantined: int = 0
    fault: str = ""


@dataclass(frozen=True)
class Facts:
    """One look at the machine."""

    role: Role
    build: int = 0
    """Windows' build number: 14393 is Server 2016."""
    wide: bool = True
    """This Python is a 64-bit one."""
    elevated: bool = True
    domain_sid: str = ""
    protected: int = 0
    """RunAsPPL, LSA's own or a policy's: above 0 LSASS loads only what Microsoft has signed."""
    packages: tuple[str, ...] = ()
    lsass: int = 0
    """LSASS's process id; 0 when Windows does not tell."""
    settings: HookSettings | None = None
    configured: Path | None = None
    """The folder that the source reads; None when no configuration says it."""
    status: HookStatus = field(default_factory=HookStatus)
    dll: DllFile | None = None
    """The one in System32."""
    replaced: DllFile | None = None
    """The one that LSASS has loaded while a newer one lies in its place already."""
    service: ServiceFacts | None = None
    waiting: Waiting = field(default_factory=Waiting)
    folder: AccessList | None = None
    """Of the hook's folder; None when it is not there."""
    registry: AccessList | None = None
    """Of the hook's registry key; None when it is not there, or its list cannot be read."""
    program: AccessList | None = None
    """Of the folder of this Python, which the service runs."""
    account: str = ""
    """The SID of who looks."""

    @property
    def settings_open(self) -> list[str]:
        """Who else may write the hook's registry key, and so have passwords sealed to himself.

        Not the administrator who looks: he could anyway. The service is one: it is never to see a password.
        """
        if self.registry is None:
            return []
        own = {self.account} if self.elevated else set()
        return strangers(self.registry, KEY_WRITE, {SYSTEM, ADMINISTRATORS, *own})

    @property
    def loaded(self) -> bool:
        """LSASS has the hook in it."""
        return not self.status.why_off(self.lsass)

    @property
    def loaded_dll(self) -> DllFile | None:
        """The file that LSASS has loaded."""
        return (self.replaced or self.dll) if self.loaded else None
