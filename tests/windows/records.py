"""The hook's records in a folder, opened as the consumer does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from passrelay_schemas.errors import MalformedError
from passrelay_schemas.hook_record import HookRecord
from passrelay_schemas.sealing import Opener

HEADER, PART = 160, 769
"""Where the header and the sealed part end."""


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
    try:
        HookRecord.parse(raw)
    except MalformedError:
        return False
    return True


def open_record(raw: bytes, opener: Opener) -> Captured:
    """The record's content; MalformedError."""
    record = HookRecord.parse(raw)
    inside, header = record.open(opener), record.header
    return Captured(
        header.domain_sid, header.producer, header.key_id, inside.rid, inside.filetime, inside.password.reveal()
    )


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
