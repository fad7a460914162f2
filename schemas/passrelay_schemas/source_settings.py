"""The sections [source] and [spool]: where a producer's events come from, and where they wait."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from passrelay_schemas.setting_values import ldap_url
from passrelay_schemas.settings_section import STATE_DIRECTORY, Section


class SambaSourceSettings(Section):
    """Capture on a Samba AD domain controller."""

    ldapi_path: Path = Path("/var/lib/samba/private/ldap_priv/ldapi")
    """The DC's private LDAP socket; only root can open it."""
    gpg_key_file: Path = Path("/etc/passrelay/samba-gpg.key")
    """The secret OpenPGP key (exported, mode 0600) whose public half is in smb.conf `password hash gpg key ids`."""
    smb_conf: Path = Path("/etc/samba/smb.conf")
    """Samba's own configuration; only `doctor` reads it."""
    poll_ms: Annotated[int, Field(ge=5, le=60_000)] = 50
    """How often the DC is asked for changes, in milliseconds; on Linux also at once when it has committed something."""


class StdinSourceSettings(Section):
    """Events from another program, one JSON object a line."""

    batch: Annotated[int, Field(ge=1, le=10_000)] = 256
    """At most this many lines are committed together; a line is answered after its commit."""


class HookSourceSettings(Section):
    """Records of the Windows hook on this domain controller (docs/windows.md)."""

    folder: Path
    """Where the hook writes: its registry value Folder. What is not the hook's is moved to `quarantine` in it."""
    controller: Annotated[str, AfterValidator(ldap_url)]
    """This domain controller itself: ldaps://HOST[:PORT], or ldap://HOST[:PORT] with StartTLS; HOST may be an alias or
    an address. Another one may not know the change yet: when the first part of the dnsHostName of what answers is not
    this machine's host name, the producer ends."""
    ca_file: Path
    """PEM file with the CA that signed its certificate; nothing else is trusted."""
    bind_user: Annotated[str, Field(min_length=1)]
    """An ordinary account without rights of its own, for looking accounts up: user@domain, or its DN."""
    password_file: Path
    """File (mode 0600) with its password; read again at every connection."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """For every LDAP call."""
    poll_ms: Annotated[int, Field(ge=5, le=60_000)] = 200
    """How often the folder is looked at, in milliseconds."""


class SourceSettings(Section):
    """Where events come from: exactly one source."""

    samba: SambaSourceSettings | None = None
    """Samba AD on this host."""
    stdin: StdinSourceSettings | None = None
    """Lines on standard input."""
    hook: HookSourceSettings | None = None
    """Windows AD on this host."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if [self.samba, self.stdin, self.hook].count(None) != 2:
            raise ValueError("give exactly one of [source.samba], [source.stdin] and [source.hook]")
        return self


class SpoolSettings(Section):
    """Where captured events wait for the broker."""

    path: Path = STATE_DIRECTORY / "spool.sqlite"
    """The SQLite file; its directory must belong to the producer alone."""
    retention_hours: Annotated[float, Field(ge=0)] = 72
    """How long published events stay for `producer republish`."""
    max_bytes: Annotated[int, Field(ge=1_000_000)] = 2_000_000_000
    """Published events are removed early to stay below this; unpublished ones never are: then capturing waits."""
