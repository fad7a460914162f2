"""Event ids: UUIDv7 (RFC 9562 5.7), whose first 48 bits are the time of capture in milliseconds.

They increase strictly within a process, because in a time-ordered domain they break the tie of two changes with one
time. The 12 bits behind the milliseconds are a fraction of a millisecond (RFC 9562 6.2, method 3), so that a process
started within the same millisecond goes on above as well.
"""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime
from uuid import UUID

_NS_PER_MS = 1_000_000
_MAX_DATETIME_MS = 253_402_300_799_999
_lock = threading.Lock()
_last_tick = 0


def new_event_id() -> UUID:
    """A fresh id for a change captured now, above every earlier one of this process, even if its clock was set back."""
    global _last_tick  # noqa: PLW0603 - a promise of the process, not of an object
    milliseconds, rest = divmod(time.time_ns(), _NS_PER_MS)
    with _lock:
        _last_tick = max(milliseconds << 12 | (rest << 12) // _NS_PER_MS, _last_tick + 1)
        tick = _last_tick & (2**60 - 1)
    value = (tick >> 12) << 80 | 0x7 << 76 | (tick & 0xFFF) << 64 | 0b10 << 62 | secrets.randbits(62)
    return UUID(int=value)


def captured_at(event_id: UUID) -> datetime:
    """When the event was captured, as its producer's clock had it."""
    return datetime.fromtimestamp(min(event_id.int >> 80, _MAX_DATETIME_MS) / 1000, UTC)
