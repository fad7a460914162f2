"""What becomes of an outcome, without a broker."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_consumer.disposition import Final, Later, dispose, is_poison, is_suspect, poison, waits_in_tier
from passrelay_consumer.outcome import Outcome
from passrelay_schemas.message import Counters
from passrelay_schemas.topology import TIERS
from passrelay_schemas.verdict import WAITING_REASONS, Reason, Verdict

DAY = timedelta(hours=24)


def retry(reason: str | None) -> Outcome:
    return Outcome(Verdict.RETRY, reason)


@pytest.mark.parametrize("verdict", [Verdict.APPLIED, Verdict.DUPLICATE, Verdict.SUPERSEDED, Verdict.DEAD])
def test_a_final_verdict_stays_what_it_is_however_often_it_was_tried(verdict: Verdict) -> None:
    outcome = Outcome(verdict)
    assert dispose(outcome, Counters(attempt=40), horizon=DAY) == Final(outcome)


@pytest.mark.parametrize("reason", sorted(WAITING_REASONS))
def test_entry_trouble_is_dead_with_its_reason_after_the_horizon_in_tiers(reason: Reason) -> None:
    ends = [dispose(retry(reason), Counters(attempt=attempt), horizon=DAY) for attempt in range(60)]
    dead = [end for end in ends if isinstance(end, Final)]
    # 15 + 15 + 120 + 600 seconds, then an hour each: no clock, of whatever host, has a say.
    assert ends.index(dead[0]) == 4 + 24
    assert len(dead) == 60 - 28
    assert {(end.outcome.verdict, end.outcome.reason) for end in dead} == {(Verdict.DEAD, reason)}


def test_a_retry_for_any_other_reason_is_never_given_up() -> None:
    later = dispose(retry(None), Counters(attempt=700), horizon=DAY)
    assert isinstance(later, Later)


@pytest.mark.parametrize(
    ("attempt", "tier"), [(0, "15s"), (1, "15s"), (2, "2m"), (3, "10m"), (4, "1h"), (5, "1h"), (900, "1h")]
)
def test_tiers_grow_with_the_attempts(attempt: int, tier: str) -> None:
    later = dispose(retry(None), Counters(attempt=attempt), horizon=DAY)
    assert isinstance(later, Later)
    assert (later.tier.name, later.attempt) == (tier, attempt + 1)


@given(st.integers(min_value=0, max_value=2**31 - 1))
def test_any_attempt_count_can_be_disposed_of(attempt: int) -> None:
    result = dispose(retry("refused"), Counters(attempt=attempt), horizon=DAY)
    assert isinstance(result, Final) or (isinstance(result, Later) and result.tier in TIERS)


def test_the_three_thresholds_of_deliveries() -> None:
    of = [Counters(deliveries=number) for number in range(25)]
    assert [c.deliveries for c in of if not waits_in_tier(c)] == list(range(5))
    assert [c.deliveries for c in of if not is_suspect(c)] == list(range(6))
    assert [c.deliveries for c in of if not is_poison(c)] == list(range(21))


def test_poison_of_unreadable_bytes_has_no_header_and_never_counts_for_the_brake() -> None:
    outcome = poison(b"\x00 not an envelope")
    assert (outcome.verdict, outcome.reason, outcome.header, outcome.authentic) == (
        Verdict.DEAD,
        Reason.POISON,
        None,
        False,
    )


def test_what_this_process_itself_gave_back_or_lost_alive_is_no_sign_of_poison() -> None:
    assert is_poison(Counters(deliveries=21))
    assert not is_poison(Counters(deliveries=40, survived=20))
    assert is_suspect(Counters(deliveries=26, survived=20))
    assert not is_suspect(Counters(deliveries=25, survived=20))
