"""How far an event has come through the steps: what is known of it so far, and the outcome made of that."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from passrelay_consumer.outcome import Outcome
from passrelay_schemas.envelope import ProtectedHeader
from passrelay_schemas.errors import EventError
from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.verdict import WAITING_REASONS, Verdict


@dataclass
class Progress:
    """What is known of the event so far, for the outcome."""

    header: ProtectedHeader | None = None
    signed_at: datetime | None = None
    authentic: bool = False
    event: PasswordChanged | None = None
    server: str | None = None
    now: datetime = field(default_factory=utc_now)
    """By the clock of `server`, once there is one."""
    settling: bool = False
    """It is a settle copy: applied before, and looked at again until every server shows it."""
    settle_since: datetime | None = None
    """When it was applied."""
    wrote: bool = False
    """Our modify succeeded, or its answer was lost, so that it may have."""
    written_at: datetime | None = None
    """When the write was made that the entry shows."""

    def outcome(
        self,
        verdict: Verdict,
        reason: str | None = None,
        diagnostic: str = "",
        applied_at: datetime | None = None,
    ) -> Outcome:
        """The outcome with this verdict and all that is known."""
        account = self.event.account if self.event else None
        return Outcome(
            verdict=verdict,
            reason=reason,
            diagnostic=diagnostic,
            header=self.header,
            account=account.sam_account_name if account else None,
            guid=account.guid if account else None,
            server=self.server,
            applied_at=applied_at,
            signed_at=self.signed_at,
            decided_at=self.now if self.server else None,
            changed_at=self.event.changed_at if self.event else None,
            written_at=self.written_at,
            authentic=self.authentic,
        )

    def refused(self, error: EventError) -> Outcome:
        """The outcome of an event that breaks a rule: what a repair may still make good waits."""
        waits = error.reason in WAITING_REASONS
        return self.outcome(Verdict.RETRY if waits else Verdict.DEAD, error.reason, str(error))
