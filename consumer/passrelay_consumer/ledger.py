"""What is told of an outcome that is on record and acked: metrics, a log line without any account, the brake."""

from __future__ import annotations

from typing import Any

from passrelay_consumer.brake import Brake
from passrelay_consumer.disposition import Disposition, Later
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.verdict import REPAIRS, Reason, Verdict


class Ledger:
    """Used by the channel's thread only."""

    def __init__(self, metrics: ConsumerMetrics, brake: Brake, log: Log) -> None:
        self._metrics = metrics
        self._brake = brake
        self._log = log

    def settled(self, disposition: Disposition) -> bool:
        """Account for one outcome; True when it pulls the brake."""
        outcome = disposition.outcome
        self._metrics.settled(outcome)
        fields: dict[str, Any] = {
            "event_id": str(outcome.header.event_id) if outcome.header else None,
            "producer": outcome.header.producer if outcome.header else None,
            "reason": outcome.reason,
        }
        if isinstance(disposition, Later):
            self._log.info(Action.RETRY, **fields, tier=disposition.tier.name, attempt=disposition.attempt)
        elif outcome.verdict is Verdict.DEAD:
            self._log.warning(Action.DEAD, **fields, repair=_repair(outcome.reason))
        else:
            self._log.debug(Action.OUTCOME, **fields, verdict=outcome.verdict.value, server=outcome.server)
        if not self._brake.pulled_by(outcome):
            return False
        repair = f"{_repair(outcome.reason)}; then start this consumer again"
        self._log.error(Action.BRAKE, reason=outcome.reason, repair=repair)
        return True


def _repair(reason: str | None) -> str:
    return REPAIRS[Reason(reason)] if reason else "read the letter with `passrelay dead show`"
