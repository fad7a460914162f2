"""The hook's record read in Python, as the producer's source and the consumer have to (docs/windows.md)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from passrelay_schemas.sealing import Opener

HEADER, PART, WHOLE = 160, 769, 801
_PLAIN = struct.Struct("<IIQ512s")
_HEADER = struct.Struct("16s48s64s32s")


class TornError(Exception):
    """No whole record."""


@dataclass(frozen=True)
class Captured:
    """What one record says, opened."""

    domain_sid: str
    producer: str
    key_id: str
    rid: int
    filetime: int
    password: str


def is_whole(raw: bytes) -> bool:
    """What the source asks before it takes a file."""
    return len(raw) == WHOLE and hashlib.sha256(raw[:PART]).digest() == raw[PART:]


def open_record(raw: bytes, opener: Opener) -> Captured:
    """The record's content; TornError, or the opener's MalformedError."""
    if not is_whole(raw):
        raise TornError(f"{len(raw)} bytes, or the checksum does not fit")
    header = raw[:HEADER]
    schema, domain_sid, producer, key_id = (field.rstrip(b"\0").decode("ascii") for field in _HEADER.unpack(header))
    assert schema == "passrelay.hook/1"
    rid, length, filetime, field = _PLAIN.unpack(opener.open(raw[HEADER:PART], info=header))
    assert length <= len(field)
    assert not any(field[length:])
    return Captured(domain_sid, producer, key_id, rid, filetime, field[:length].decode("utf-16-le"))


def records(folder: Path) -> list[Path]:
    """The finished records of a folder, in their order."""
    return sorted(folder.glob("*.record"))


def open_all(folder: Path, opener: Opener) -> list[Captured]:
    """Every finished record, opened; each file's name must say what is inside."""
    found = []
    for path in records(folder):
        captured = open_record(path.read_bytes(), opener)
        filetime, rid, _ = path.stem.split("-")
        assert (int(filetime, 16), int(rid, 16)) == (captured.filetime, captured.rid)
        found.append(captured)
    return found
