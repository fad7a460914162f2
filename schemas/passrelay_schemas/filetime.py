"""FILETIME: 100-nanosecond units since 1601-01-01 UTC ([MS-DTYP] 2.3.3), AD's clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

UNITS_PER_SECOND = 10_000_000
_EPOCH_DIFFERENCE = 11_644_473_600
_START = datetime(1601, 1, 1, tzinfo=UTC)


def now() -> int:
    """The current time as FILETIME."""
    return time.time_ns() // 100 + _EPOCH_DIFFERENCE * UNITS_PER_SECOND


def to_datetime(filetime: int) -> datetime:
    """A FILETIME as an aware datetime (microseconds; the last digit is cut)."""
    return _START + timedelta(microseconds=filetime // 10)


def from_datetime(moment: datetime) -> int:
    """An aware datetime as FILETIME."""
    delta = moment.astimezone(UTC) - _START
    return (delta.days * 86_400 + delta.seconds) * UNITS_PER_SECOND + delta.microseconds * 10


def to_unix_seconds(filetime: int) -> float:
    """A FILETIME as seconds since 1970, for metrics."""
    return filetime / UNITS_PER_SECOND - _EPOCH_DIFFERENCE


def rfc3339(moment: datetime) -> str:
    """A datetime as RFC 3339 in UTC with milliseconds, the form of every time that passrelay prints."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def later(moment: datetime, by: timedelta) -> datetime:
    """`moment` and so much more, or the end of the year 9999: what others have written may name any time."""
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def utc_now() -> datetime:
    """The current time, aware."""
    return datetime.now(UTC)
