"""Records as the Windows hook writes them, made in Python."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from passrelay_schemas.keys import KeyDocument
from passrelay_schemas.sealing import seal
from tests.unit.builders import CHANGED_AT, DOMAIN_SID, PASSWORD, PRODUCER

RID = 1105


def hook_record(
    key: KeyDocument,
    *,
    rid: int = RID,
    password: bytes = PASSWORD.encode("utf-16-le"),
    length: int | None = None,
    filetime: int = CHANGED_AT,
    sid: str = DOMAIN_SID,
    producer: str = PRODUCER,
    schema: bytes = b"passrelay.hook/1",
    key_id: str | None = None,
) -> bytes:
    """A whole record; `length` lies about the password's."""
    header = struct.pack("<16s48s64s32s", schema, sid.encode(), producer.encode(), (key_id or key.key_id).encode())
    plain = struct.pack("<IIQ512s", rid, len(password) if length is None else length, filetime, password)
    part = header + seal(plain, info=header, recipient=key)
    return part + hashlib.sha256(part).digest()


def name(filetime: int = CHANGED_AT, rid: int = RID, sequence: int = 1, suffix: str = "record") -> str:
    """A file's name."""
    return f"{filetime:016x}-{rid:08x}-{sequence:08x}.{suffix}"


def put(folder: Path, raw: bytes, **parts: object) -> Path:
    """One file in the hook's folder."""
    path = folder / name(**parts)  # type: ignore[arg-type]  # the parts are name's own
    path.write_bytes(raw)
    return path
