"""Which dead letters an operator means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from passrelay_ops.dead_letters import Letter, State
from passrelay_ops.notes import Note
from passrelay_schemas.record import Record
from passrelay_schemas.verdict import Reason


@dataclass(frozen=True)
class Selection:
    """Which letters are wanted; what is None or empty does not matter."""

    reason: Reason | None = None
    producer: str | None = None
    domain: str | None = None
    user: str | None = None
    ids: frozenset[UUID] = frozenset()
    attempts: int | None = None
    """At least so many."""
    failed_before: datetime | None = None
    failed_after: datetime | None = None
    every_state: bool = False

    def may_take(self, record: Record) -> bool:
        """The record of a failure could be of a wanted letter by what it tells in clear: its note is worth opening."""
        return self._fits(record.event_id, record.reason, record.producer, record.domain, record.attempts)

    def takes(self, letter: Letter) -> bool:
        """The letter is wanted."""
        return (
            (self.every_state or letter.state is State.LIVE)
            and self._fits(letter.event_id, letter.reason, letter.producer, letter.domain, letter.attempts)
            and (self.failed_before is None or letter.first_failed_at <= self.failed_before)
            and (self.failed_after is None or letter.first_failed_at >= self.failed_after)
            and (self.user is None or Note(letter.account, letter.guid).speaks_of(self.user))
        )

    def _fits(
        self, event_id: UUID, reason: str | None, producer: str | None, domain: str | None, attempts: int
    ) -> bool:
        return (
            (not self.ids or event_id in self.ids)
            and self.reason in (None, reason)
            and self.producer in (None, producer)
            and self.domain in (None, domain)
            and (self.attempts is None or attempts >= self.attempts)
        )


def of_age(now: datetime, *, older: timedelta | None, younger: timedelta | None) -> dict[str, datetime | None]:
    """The two bounds of a Selection from ages."""

    def ago(age: timedelta | None) -> datetime | None:
        try:
            return None if age is None else now - age
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)

    return {"failed_before": ago(older), "failed_after": ago(younger)}
