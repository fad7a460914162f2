"""Which producers' clocks are off, judged by when their events were signed (each anew when it is published)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_schemas.logs import Action, Log

AHEAD_SECONDS = 300
"""Kerberos' own tolerance (RFC 4120 7.5.1). A signature from the future proves a clock ahead: warned of at once."""
BEHIND_SECONDS = 900
"""A clock behind looks like a long queue: it is told only where not even the quickest event of a period came sooner."""
PERIOD_SECONDS = 3600
"""A producer is looked at, and warned of, anew after so long; what is shown of it is not older."""


@dataclass
class _Period:
    began: float
    ahead: float = float("-inf")
    warned: bool = False


class ProducerClocks:
    """Used by the channel's thread only."""

    def __init__(self, metrics: ConsumerMetrics, log: Log, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._log = log
        self._monotonic = monotonic
        self._periods: dict[str, _Period] = {}

    def signed(self, producer: str, signed_at: datetime, now: datetime) -> None:
        """An authentic event that comes for the first time; `now` by IdM's clock."""
        period = self._periods.get(producer)
        if period is None or self._monotonic() - period.began >= PERIOD_SECONDS:
            if period is not None and period.ahead < -BEHIND_SECONDS:
                self._warn(
                    producer,
                    period.ahead,
                    "none of its events came sooner: its clock is behind, or all of them waited in the queue",
                )
            period = self._periods[producer] = _Period(self._monotonic())
        ahead = (signed_at - now).total_seconds()
        # Once an event is not from the future any more the clock was set right; a queue where it waited as long as the
        # clock is ahead would be a chance, and the next event tells.
        period.ahead = ahead if period.ahead > AHEAD_SECONDS >= ahead else max(period.ahead, ahead)
        self._metrics.producer_clock(producer, period.ahead)
        if period.ahead > AHEAD_SECONDS and not period.warned:
            period.warned = True
            self._warn(producer, period.ahead, "its events are signed in the future")

    def forget(self) -> None:
        """Show nothing any more of a producer that this consumer has had no event from since its period began."""
        for producer, period in self._periods.items():
            if self._monotonic() - period.began >= PERIOD_SECONDS:
                self._metrics.producer_clock(producer, None)

    def _warn(self, producer: str, ahead: float, why: str) -> None:
        self._log.warning(
            Action.CLOCK_OFF,
            producer=producer,
            ahead_seconds=round(ahead),
            why=why,
            repair="set the clock of that producer's host; a domain with order = kvno stays in order meanwhile",
        )
