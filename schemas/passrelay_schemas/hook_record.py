"""The Windows hook's record (docs/windows.md): 801 bytes of header, sealed part and checksum, read by both ends."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from passrelay_schemas.envelope import KeyId, ProducerName
from passrelay_schemas.errors import MalformedError
from passrelay_schemas.event import Sid, check_password
from passrelay_schemas.sealing import Opener
from passrelay_schemas.secret import Secret
from passrelay_schemas.strict_json import b64url, from_b64url

BYTES: Final = 801
_HEADER = struct.Struct("<16s48s64s32s")
_PART_END = BYTES - hashlib.sha256().digest_size
_PLAIN = struct.Struct("<IIQ512s")
_SCHEMA = "passrelay.hook/1"


class TornError(MalformedError):
    """Not a whole record: its length or its checksum is wrong."""


@checked(frozen=True, config=ConfigDict(hide_input_in_errors=True))
class RecordHeader:
    """Whose record it is; HPKE binds the password to these bytes."""

    domain_sid: Sid
    producer: ProducerName
    key_id: KeyId


_HEADERS = TypeAdapter(RecordHeader)


@dataclass(frozen=True)
class Captured:
    """What is inside."""

    rid: int
    filetime: int
    """When LSASS called, just after AD's commit."""
    password: Secret


@dataclass(frozen=True)
class HookRecord:
    """A whole record. Its checksum proves nothing about who wrote it."""

    raw: bytes
    header: RecordHeader

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """TornError; MalformedError when it is whole, but not a record of this version."""
        if len(raw) != BYTES:
            raise TornError(f"hook record: {len(raw)} bytes, not {BYTES}")
        if hashlib.sha256(raw[:_PART_END]).digest() != raw[_PART_END:]:
            raise TornError("hook record: its checksum does not fit")
        try:
            schema, *texts = (field.rstrip(b"\0").decode("ascii") for field in _HEADER.unpack(raw[: _HEADER.size]))
            header = _HEADERS.validate_python(dict(zip(("domain_sid", "producer", "key_id"), texts, strict=True)))
        except (UnicodeDecodeError, ValidationError):
            raise MalformedError("hook record: its header has no domain SID, producer and key id") from None
        if schema != _SCHEMA:
            raise MalformedError(f"hook record: it is not of the version {_SCHEMA}")
        return cls(raw, header)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The record in an event; MalformedError."""
        return cls.parse(from_b64url(text, what="hook record"))

    @property
    def text(self) -> str:
        """As an event carries it."""
        return b64url(self.raw)

    def open(self, opener: Opener) -> Captured:
        """What the hook sealed; EventError when it cannot be opened or is nobody's password."""
        plain = opener.open(self.raw[_HEADER.size : _PART_END], info=self.raw[: _HEADER.size])
        if len(plain) != _PLAIN.size:
            raise MalformedError(f"hook record: {len(plain)} bytes inside, not {_PLAIN.size}")
        rid, length, filetime, field = _PLAIN.unpack(plain)
        if length > len(field) or any(field[length:]):
            raise MalformedError("hook record: the password has another length than it says")
        password = _password(field[:length])
        check_password(password)
        return Captured(rid, filetime, password)


def _password(field: bytes) -> Secret:
    try:
        return Secret(field.decode("utf-16-le"))
    except UnicodeDecodeError:
        pass
    # Raised out here: the decoder's error holds the bytes.
    raise MalformedError("hook record: the password is not UTF-16 text")
