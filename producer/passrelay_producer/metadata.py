"""replPropertyMetaData: which version of an attribute an object has, and where and when that version was written."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.limits import MAX_FILETIME

UNICODE_PWD = 0x9005A
"""attributeID of unicodePwd: its version is the account's kvno (msDS-KeyVersionNumber, [MS-ADTS] 3.1.1.4.5.16)."""
PWD_LAST_SET = 0x90060
"""attributeID of pwdLastSet."""
_HEADER = struct.Struct("<IIII")
_ENTRY = struct.Struct("<IIQ16sQQ")
_VERSION = 1


class MetadataError(PassrelayError):
    """The blob is not a replPropertyMetaData of version 1; the account's order cannot be known."""


@dataclass(frozen=True)
class Stamp:
    """One attribute's last originating write ([MS-DRSR] 5.167 PROPERTY_META_DATA_EXT)."""

    version: int
    changed_at: int
    """Originating time as FILETIME; AD keeps whole seconds only."""
    invocation_id: UUID
    usn: int
    local_usn: int
    """The controller's own USN of the write, be it its own or a replicated one."""

    def same_write(self, other: Stamp) -> bool:
        """True when both attributes were written by one and the same originating transaction."""
        return (self.invocation_id, self.usn) == (other.invocation_id, other.usn)


def parse(blob: bytes) -> Mapping[int, Stamp]:
    """Attribute ids and their stamps in an NDR replPropertyMetaDataBlob (Samba's drsblobs.idl); MetadataError."""
    if len(blob) < _HEADER.size:
        raise MetadataError(f"replPropertyMetaData: {len(blob)} bytes are less than its header")
    version, _, count, _ = _HEADER.unpack_from(blob)
    if version != _VERSION:
        raise MetadataError(f"replPropertyMetaData: version {version} is unknown, {_VERSION} was expected")
    if len(blob) != _HEADER.size + count * _ENTRY.size:
        raise MetadataError(f"replPropertyMetaData: {len(blob)} bytes do not hold the {count} entries it announces")
    stamps: dict[int, Stamp] = {}
    for attribute, version, seconds, invocation, usn, local_usn in _ENTRY.iter_unpack(blob[_HEADER.size :]):
        changed_at = seconds * UNITS_PER_SECOND
        if attribute in stamps or changed_at > MAX_FILETIME:
            raise MetadataError(
                f"replPropertyMetaData: attribute {attribute:#x} stands twice or has an impossible time"
            )
        stamps[attribute] = Stamp(version, changed_at, UUID(bytes_le=invocation), usn, local_usn)
    return stamps


def last_write(blob: bytes) -> int | None:
    """The controller's own USN of the newest write to the password or to pwdLastSet; None when there is none to see."""
    try:
        stamps = parse(blob)
    except MetadataError:
        return None
    return max((stamps[name].local_usn for name in (UNICODE_PWD, PWD_LAST_SET) if name in stamps), default=None)
