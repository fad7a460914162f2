"""Why nothing is consumed at the moment: consuming goes on when no reason is left."""

from __future__ import annotations

from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_schemas.logs import Action, Log

DIRECTORY = "directory"
"""No IdM server takes writes; ends when one passes its probe."""
BROKER = "broker"
"""A publish was returned or refused; ends after a while or with a new channel."""
BRAKE = "brake"
"""Too many dead letters of one reason in a row; ends with the process."""


class Pauses:
    """The reasons that hold now; each beginning and end is logged once and shown as a metric."""

    def __init__(self, metrics: ConsumerMetrics, log: Log) -> None:
        self._metrics = metrics
        self._log = log
        self._reasons: set[str] = set()
        for reason in (DIRECTORY, BROKER, BRAKE):
            metrics.paused(reason, on=False)

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def begin(self, reason: str, why: str) -> bool:
        """False when it holds already."""
        if reason in self._reasons:
            return False
        self._reasons.add(reason)
        self._metrics.paused(reason, on=True)
        self._log.warning(Action.PAUSED, reason=reason, why=why)
        return True

    def end(self, reason: str) -> bool:
        """False when it did not hold."""
        if reason not in self._reasons:
            return False
        self._reasons.discard(reason)
        self._metrics.paused(reason, on=False)
        self._log.info(Action.RESUMED, reason=reason)
        return True
