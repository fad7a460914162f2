"""The consumer's metrics. No label ever holds an account."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from passrelay_consumer.directory import ProbeResult
from passrelay_consumer.outcome import Outcome
from passrelay_schemas.filetime import to_unix_seconds
from passrelay_schemas.metrics import RelayMetrics
from passrelay_schemas.verdict import FINAL, WAITING_REASONS, Reason, Verdict

STAGE = "consume"
SETTLE_STAGE = "settle"
UNSETTLED = "unsettled"
"""The outcome of a settle copy that needs a person."""
CHECKS = ("connect", "bind", "write", "expiry")
"""What a probe looks at, in this order."""


class ConsumerMetrics(RelayMetrics):
    """RelayMetrics and what only a consumer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.end_to_end = self.histogram(
            "passrelay_end_to_end_seconds", "From the change in AD to its write in IdM, as the two clocks have it"
        )
        self.directory_up = self.gauge("passrelay_directory_up", "1 when the server takes writes", ["server"])
        self.directory_probe = self.gauge(
            "passrelay_directory_probe", "1 when the server passed this check of its last probe", ["server", "check"]
        )
        self.consumer_paused = self.gauge(
            "passrelay_consumer_paused", "1 while nothing is consumed for this reason", ["reason"]
        )
        self.last_apply = self.gauge(
            "passrelay_last_apply_timestamp_seconds",
            "When a password was last written to IdM (Unix time); 0: not yet by this process",
        )
        self.clock_offset = self.gauge(
            "passrelay_clock_offset_seconds", "How far an IdM server's clock is ahead of this host's", ["server"]
        )
        self.clock_ahead = self.gauge(
            "passrelay_clock_ahead_seconds",
            "How far a producer's clock is ahead of IdM's: signing time less arrival, the most within an hour",
            ["producer"],
        )
        self._handle_seconds = self.stage_seconds.labels("handle")
        self._up: dict[str, bool] = {}
        # From the start, so that an increase from nothing to one is seen as one.
        for verdict in FINAL - {Verdict.DEAD}:
            self.events.labels(STAGE, verdict.value, "")
        for verdict, reasons in ((Verdict.DEAD, Reason), (Verdict.RETRY, WAITING_REASONS)):
            for reason in reasons:
                self.events.labels(STAGE, verdict.value, reason.value)
        self.events.labels(SETTLE_STAGE, UNSETTLED, "")

    @property
    def server_is_up(self) -> bool:
        """The last probe of at least one server was good."""
        return any(list(self._up.values()))

    def watch(self, *, broker: Callable[[], bool]) -> None:
        """Show whether the broker is connected, as a running service knows it."""
        self.gauge_of("passrelay_broker_up", "1 while the broker is connected", broker)

    def handled(self, seconds: float) -> None:
        """One delivery's time on a worker."""
        self._handle_seconds.observe(seconds)

    def settled(self, outcome: Outcome) -> None:
        """One outcome that is on record (or in its tier) and acked."""
        self.events.labels(STAGE, outcome.verdict.value, outcome.reason or "").inc()
        if outcome.verdict is Verdict.APPLIED and outcome.applied_at is not None:
            applied = outcome.applied_at.timestamp()
            self.last_apply.set(applied)
            if outcome.changed_at is not None:
                self.end_to_end.observe(max(0.0, applied - to_unix_seconds(outcome.changed_at)))

    def looked_at_again(self, outcome: Outcome) -> None:
        """One round of a settle copy."""
        unsettled = Verdict.RETRY.value if outcome.unsettled else outcome.verdict.value
        self.events.labels(SETTLE_STAGE, unsettled, outcome.reason or "").inc()

    def unsettled(self) -> None:
        """A settle copy waits longer than replication or a restart explains: a server lacks what was written."""
        self.events.labels(SETTLE_STAGE, UNSETTLED, "").inc()

    def probed(self, server: str, result: ProbeResult) -> None:
        """One probe; a check that was not reached was not passed."""
        self._up[server] = result.ok
        self.directory_up.labels(server).set(1 if result.ok else 0)
        passed = len(CHECKS) if result.check is None else CHECKS.index(result.check)
        for number, check in enumerate(CHECKS):
            self.directory_probe.labels(server, check).set(1 if number < passed else 0)

        if result.clock_offset is not None:
            self.clock_offset.labels(server).set(result.clock_offset.total_seconds())

    def producer_clock(self, producer: str, ahead_seconds: float | None) -> None:
        """The quickest event of a producer; far below zero its clock is behind, or everything waits in the queue.

        None: nothing is known of it any more.
        """
        if ahead_seconds is not None:
            self.clock_ahead.labels(producer).set(ahead_seconds)
        else:
            with contextlib.suppress(KeyError):  # of older versions, where there is none
                self.clock_ahead.remove(producer)

    def paused(self, reason: str, *, on: bool) -> None:
        """Consuming stopped or went on."""
        self.consumer_paused.labels(reason).set(1 if on else 0)
