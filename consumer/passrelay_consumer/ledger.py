"""What is told of an outcome that is on record and acked: metrics, a log line without any account, the brake."""

from __future__ import annotations

from typing import Any

from passrelay_consumer.brake import Brake
from passrelay_consumer.decide import AHEAD, IDM_NEWER, VERSION_BACK
from passrelay_consumer.disposition import Again, Disposition, Dropped, Later, Settled
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_consumer.outcome import Outcome
from passrelay_consumer.producer_clocks import ProducerClocks
from passrelay_consumer.settle import REASON
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.message import Counters
from passrelay_schemas.verdict import REPAIRS, Reason, Verdict

_PATIENT_ROUNDS = 4
"""Replication needs a moment, a restart some minutes: what is unsettled after this round is worth a look."""

_IDM_NEWER_REPAIR = (
    "IdM's password is younger than AD's change and stays: check the domain controller's clock if that is a change of "
    "just now; where AD's is the one that counts: `passrelay idm marker rebind USER --guid GUID --yes`, then "
    "`passrelay producer capture --user USER`"
)
"""Without the rebind the change would only come again with the same time."""

_VERSION_BACK_REPAIR = (
    "AD's version of the password is lower than IdM has, its time is later: if AD, or its only controller, was "
    "restored, raise the [[domain]] epoch (docs/runbooks/restores.md), or nobody's new password will count; if a "
    "controller's clock was ahead, nothing"
)

_AHEAD_REPAIR = (
    "an earlier change of this account has a time in the future, so nothing counts until then: set the source's clock, "
    "`passrelay idm marker reset USER --changed-at T --yes` with a T before this change, and send the line again"
)

_SHUT_OUT = {
    IDM_NEWER: (Action.IDM_NEWER, _IDM_NEWER_REPAIR),
    VERSION_BACK: (Action.VERSION_BACK, _VERSION_BACK_REPAIR),
    AHEAD: (Action.AHEAD, _AHEAD_REPAIR),
}
"""Superseded for a reason that may shut an account out for long: told, never a debug line only."""


class Ledger:
    """Used by the channel's thread only."""

    def __init__(self, metrics: ConsumerMetrics, brake: Brake, log: Log) -> None:
        self._metrics = metrics
        self._brake = brake
        self._log = log
        self._clocks = ProducerClocks(metrics, log)

    def enter(self, disposition: Disposition, counters: Counters) -> bool:
        """Account for one outcome; True when it pulls the brake.

        A settle copy never does: its event was applied. Nor does a replay: one person's slip must not stop what is new.
        """
        if counters.first:
            self._look_at_clock(disposition.outcome)
        if isinstance(disposition, Again | Settled | Dropped):
            self._look_again(disposition)
            return False
        outcome = disposition.outcome
        self._metrics.settled(outcome)
        fields: dict[str, Any] = {**_fields(outcome), "reason": outcome.reason}
        if isinstance(disposition, Later):
            self._log.info(Action.RETRY, **fields, tier=disposition.tier.name, attempt=disposition.attempt)
        elif outcome.verdict is Verdict.DEAD:
            self._log.warning(Action.DEAD, **fields, repair=_repair(outcome.reason))
        elif outcome.reason in _SHUT_OUT:
            action, repair = _SHUT_OUT[outcome.reason]
            self._log.warning(action, **fields, repair=repair)
        else:
            self._log.debug(Action.OUTCOME, **fields, verdict=outcome.verdict.value, server=outcome.server)
        if counters.replays or not self._brake.pulled_by(outcome):
            return False
        repair = f"{_repair(outcome.reason)}; then start this consumer again"
        self._log.error(Action.BRAKE, reason=outcome.reason, repair=repair)
        return True

    def forget(self) -> None:
        """Now and then: what was learnt of producers' clocks long ago is not shown any more."""
        self._clocks.forget()

    def _look_at_clock(self, outcome: Outcome) -> None:
        if outcome.authentic and outcome.header and outcome.signed_at and outcome.decided_at:
            self._clocks.signed(outcome.header.producer, outcome.signed_at, outcome.decided_at)

    def _look_again(self, disposition: Again | Settled | Dropped) -> None:
        outcome = disposition.outcome
        self._metrics.looked_at_again(outcome)
        fields = _fields(outcome)
        match disposition:
            case Dropped():
                repair = f"{_repair(outcome.reason)}; then `passrelay settle` of that time"
                self._log.warning(Action.UNSETTLED, **fields, why=outcome.reason, repair=repair)
            case Again() if outcome.verdict is Verdict.APPLIED:
                self._log.warning(Action.BEHIND, **fields, server=outcome.server, why="written again there")
            case Again() if disposition.round > _PATIENT_ROUNDS:
                self._metrics.unsettled()
                self._log.warning(
                    Action.UNSETTLED,
                    **fields,
                    why=outcome.unsettled or outcome.reason,
                    tier=disposition.tier.name,
                    repair="make every server in [idm] servers reachable and look at their replication; a server that "
                    "is gone for good must leave the list",
                )
            case _:
                self._log.debug(Action.OUTCOME, **fields, verdict=outcome.verdict.value, reason=REASON)


def _fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "event_id": str(outcome.header.event_id) if outcome.header else None,
        "producer": outcome.header.producer if outcome.header else None,
    }


def _repair(reason: str | None) -> str:
    if reason in REPAIRS:
        return REPAIRS[Reason(reason)]
    return "read the record with `passrelay dead show` or `passrelay status USER`"
