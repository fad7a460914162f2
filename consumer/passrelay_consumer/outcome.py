"""What the handler says of one delivery: a value; only the channel turns it into acks and messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from passrelay_schemas.envelope import ProtectedHeader
from passrelay_schemas.message import Counters
from passrelay_schemas.verdict import Verdict


@dataclass(frozen=True)
class Delivery:
    """One message as the broker handed it out."""

    body: bytes
    counters: Counters
    received_at: datetime


@dataclass(frozen=True)
class Outcome:
    """The verdict on one delivery and what the records need. Account and diagnostic leave only in a sealed note."""

    verdict: Verdict
    reason: str | None = None
    diagnostic: str = ""
    header: ProtectedHeader | None = None
    account: str | None = None
    guid: UUID | None = None
    server: str | None = None
    applied_at: datetime | None = None
    signed_at: datetime | None = None
    decided_at: datetime | None = None
    """When, by the clock of `server`."""
    changed_at: int | None = None
    """FILETIME of the change, for the end-to-end time."""
    written_at: datetime | None = None
    """When the write that the entry shows was made, this event's or an equal one's, by its server's clock."""
    unsettled: str = ""
    """Of a settle copy: why its write is not the same on every server yet."""
    authentic: bool = False
    """The signature was good: only such outcomes count for the brake, so that a stranger cannot stop a consumer."""


@dataclass(frozen=True)
class Hold:
    """No server can take writes now: give the delivery back and wait. Says nothing about the event."""

    why: str
