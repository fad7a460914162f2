"""Event ids: UUIDv7 (RFC 9562 5.7), whose first 48 bits are the time of capture in milliseconds."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from uuid import UUID

_MAX_DATETIME_MS = 253_402_300_799_999


def new_event_id() -> UUID:
    """A fresh id for a change captured now."""
    milliseconds = time.time_ns() // 1_000_000
    value = (
        (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    )
    return UUID(int=value)


def captured_at(event_id: UUID) -> datetime:
    """When the event was captured, as its producer's clock had it."""
    return datetime.fromtimestamp(min(event_id.int >> 80, _MAX_DATETIME_MS) / 1000, UTC)
