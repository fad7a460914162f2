"""What becomes of an outcome: recorded now, or sent to a tier and tried again. Pure; publishes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from passrelay_consumer.outcome import Outcome
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.errors import EventError
from passrelay_schemas.message import Counters
from passrelay_schemas.topology import TIERS, Tier, tier_for
from passrelay_schemas.verdict import WAITING_REASONS, Reason, Verdict

ALONE_AFTER = 5
"""An event handed out more often than this may have killed consumers: nothing else is in work beside it."""
POISON_AFTER = 20
"""An event handed out more often than this is not opened any more."""
OUTAGE_MOST = 5
"""From so many deliveries on an event waits out an outage in the first tier, where its count starts anew: giving back
counts as a delivery, and an outage must never make an event look like poison."""


@dataclass(frozen=True)
class Final:
    """To be recorded, then acked; a dead one goes to the dead stream first."""

    outcome: Outcome


@dataclass(frozen=True)
class Later:
    """To be republished to a tier as its n-th attempt, then acked."""

    outcome: Outcome
    tier: Tier
    attempt: int


Disposition = Final | Later


def dispose(
    outcome: Outcome, counters: Counters, *, received_at: datetime, now: datetime, horizon: timedelta
) -> Disposition:
    """The disposition of an outcome; entry trouble becomes dead, reason unchanged, when it has waited `horizon`."""
    if outcome.verdict is not Verdict.RETRY:
        return Final(outcome)
    if outcome.reason in WAITING_REASONS and _waited_out(outcome, counters, received_at, now, horizon):
        return Final(replace(outcome, verdict=Verdict.DEAD))
    attempt = counters.attempt + 1
    return Later(outcome, tier_for(attempt), attempt)


def _waited_out(outcome: Outcome, counters: Counters, received_at: datetime, now: datetime, horizon: timedelta) -> bool:
    """True when the event is older than the horizon *and* was really tried over some minutes.

    Its age alone says nothing: after an outage longer than the horizon everything in the queue is that old, and a
    must-change tick that is handled a moment before its own password only needs the next tier.
    """
    in_tiers = _waited_in_tiers(counters.attempt)
    tried = min(horizon, timedelta(seconds=sum(tier.seconds for tier in TIERS[:3])))
    old_enough = now - (outcome.signed_at or received_at) >= horizon and in_tiers >= tried
    return old_enough or in_tiers >= horizon


def _waited_in_tiers(attempts: int) -> timedelta:
    # The signing time may be unknown or a stranger's fancy (in the far future); what the tiers add up to is not.
    first = sum(tier_for(number).seconds for number in range(1, min(attempts, 4) + 1))
    return timedelta(seconds=first + max(0, attempts - 4) * TIERS[-1].seconds)


def is_suspect(counters: Counters) -> bool:
    """To be processed alone."""
    return counters.deliveries - counters.survived > ALONE_AFTER


def is_poison(counters: Counters) -> bool:
    """Dead before it is opened."""
    return counters.deliveries - counters.survived > POISON_AFTER


def waits_in_tier(counters: Counters) -> bool:
    """To be republished to the first tier, instead of given back to the queue, when this consumer stops consuming."""
    return counters.deliveries >= OUTAGE_MOST


def unopened(body: bytes, *, verdict: Verdict, reason: Reason, diagnostic: str) -> Outcome:
    """An outcome that no handler gave; header and signing time as far as the envelope can be parsed."""
    try:
        envelope = Envelope.parse(body)
    except EventError:
        return Outcome(verdict, reason, diagnostic)
    return Outcome(verdict, reason, diagnostic, header=envelope.header, signed_at=envelope.signed_at)


def poison(body: bytes) -> Outcome:
    """The outcome of an event that consumers died on."""
    return unopened(
        body, verdict=Verdict.DEAD, reason=Reason.POISON, diagnostic=f"handed out more than {POISON_AFTER} times"
    )
