"""An event that waits in the spool, and the row that holds it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from passrelay_schemas.envelope import SealedEvent

_LENGTH = struct.Struct(">I")


class Place(NamedTuple):
    """Where an event stands in the spool's order, and in which round of `republish` it was read there."""

    seq: int
    round: int


class QueuedEvent(NamedTuple):
    """One sealed event and its place."""

    place: Place
    event_id: str
    event: SealedEvent

    @property
    def seq(self) -> int:
        """Its number in the order of capture."""
        return self.place.seq


class CapturedRow(NamedTuple):
    """A row of the table `captured` without its number, in the order of the columns."""

    event_id: str
    recipient_key_id: str
    protected: bytes
    sealed: bytes
    size: int
    captured_at: int
    queued_at: int

    @classmethod
    def of(cls, event: SealedEvent, now_ms: int) -> CapturedRow:
        """The row of an event that is captured now."""
        header = event.header
        sealed = b"".join(_LENGTH.pack(len(part)) + part for part in event.sealed)
        size = len(event.protected) + len(sealed)
        return cls(str(header.event_id), header.recipient_key_id, event.protected, sealed, size, now_ms, now_ms)


def split_parts(sealed: bytes) -> tuple[bytes, ...]:
    """The parts of the column `sealed`."""
    parts, start = [], 0
    while start < len(sealed):
        (length,) = _LENGTH.unpack_from(sealed, start)
        start += _LENGTH.size
        parts.append(sealed[start : start + length])
        start += length
    return tuple(parts)
