"""What becomes of an outcome: recorded now, or sent to a tier and tried again. Pure; publishes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from passrelay_consumer.decide import OUTDATED
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
    """To be recorded, then acked; a dead one goes to the dead stream first. `settle`: and a settle copy begins."""

    outcome: Outcome
    settle: bool = False


@dataclass(frozen=True)
class Later:
    """To be recorded as a try, republished to a tier as its n-th attempt, then acked."""

    outcome: Outcome
    tier: Tier
    attempt: int


@dataclass(frozen=True)
class Again:
    """A settle copy that needs its n-th round; recorded first where a server had to be written again."""

    outcome: Outcome
    round: int

    @property
    def tier(self) -> Tier:
        """Where it waits."""
        return tier_for(self.round)


@dataclass(frozen=True)
class Settled:
    """A settle copy that has done its work: recorded without envelope and note, which the first record has."""

    outcome: Outcome


@dataclass(frozen=True)
class Dropped:
    """A settle copy that cannot be settled: its entry is in trouble for longer than the horizon. Only acked."""

    outcome: Outcome


Disposition = Final | Later | Again | Settled | Dropped


def dispose(outcome: Outcome, counters: Counters, *, horizon: timedelta, settles: bool = False) -> Disposition:
    """The disposition of an outcome; entry trouble becomes dead, reason unchanged, when it has waited `horizon`.

    `settles`: there are several servers, so a write of this event is looked at again.
    """
    if counters.settle and outcome.authentic:  # the header is not signed: what is not an event of ours is no copy
        return _settling(outcome, counters, horizon)
    if outcome.verdict is not Verdict.RETRY:
        # Every duplicate, also of another event's write: that event may have found this one's write at another server,
        # after a crash, and then neither would be looked at again (docs/order.md).
        return Final(outcome, settle=settles and outcome.verdict in {Verdict.APPLIED, Verdict.DUPLICATE})
    if outcome.reason in WAITING_REASONS and _waited_in_tiers(counters.attempt) >= horizon:
        return Final(replace(outcome, verdict=Verdict.DEAD))
    attempt = counters.attempt + 1
    return Later(outcome, tier_for(attempt), attempt)


def _settling(outcome: Outcome, counters: Counters, horizon: timedelta) -> Disposition:
    again = Again(outcome, counters.settle + 1)
    match outcome.verdict:
        case Verdict.APPLIED:
            return again
        case Verdict.DUPLICATE:
            return again if outcome.unsettled else Settled(outcome)
        case Verdict.SUPERSEDED if outcome.reason in OUTDATED:
            # The newer event's own copy is on its way, or that event is not acked yet.
            return Settled(outcome)
        case Verdict.DEAD if outcome.reason == Reason.IDENTITY:
            # An operator has given the entry to another AD account: nothing of the old one is to come back.
            return Settled(replace(outcome, verdict=Verdict.SUPERSEDED))
        case _:
            # No letter: the event itself was applied and is on record.
            return Dropped(outcome) if _waited_in_tiers(counters.settle) >= horizon else again


def _waited_in_tiers(attempts: int) -> timedelta:
    # Not its age: producers' clocks differ, and after a long outage everything is old without ever having been tried.
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
