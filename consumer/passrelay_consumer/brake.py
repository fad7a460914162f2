"""The brake: many dead letters of one reason in a row are a fault of the set-up, not of the events."""

from __future__ import annotations

from passrelay_consumer.outcome import Outcome
from passrelay_schemas.verdict import Reason, Verdict


class Brake:
    """Counts final outcomes; pure. Only authentic ones count, so a stranger can neither pull nor release it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reason: str | None = None
        self._accounts: set[object] = set()

    def pulled_by(self, outcome: Outcome) -> bool:
        """Count one outcome; True when it is the `limit`-th account in a row that died of the same reason.

        user_missing says nothing about the set-up (many AD users are not in IdM): it neither counts nor resets.
        """
        if not outcome.authentic or outcome.verdict is Verdict.RETRY or outcome.reason == Reason.USER_MISSING:
            return False
        reason = outcome.reason if outcome.verdict is Verdict.DEAD else None
        if reason != self._reason:
            self._reason = reason
            self._accounts.clear()
        if reason is None:
            return False
        self._accounts.add(outcome.guid or (outcome.header and outcome.header.event_id))
        return len(self._accounts) >= self._limit
