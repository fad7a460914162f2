"""When the brake is pulled."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from passrelay_consumer.brake import Brake
from passrelay_consumer.disposition import Final
from passrelay_consumer.ledger import Ledger
from passrelay_consumer.metrics import ConsumerMetrics
from passrelay_consumer.outcome import Outcome
from passrelay_schemas.logs import Log
from passrelay_schemas.message import Counters
from passrelay_schemas.verdict import Verdict


def dead(reason: str = "policy", guid: UUID | None = None, *, authentic: bool = True) -> Outcome:
    return Outcome(Verdict.DEAD, reason, guid=guid or uuid4(), authentic=authentic)


def test_the_last_of_so_many_different_accounts_pulls_it() -> None:
    brake = Brake(3)
    assert [brake.pulled_by(dead()) for _ in range(3)] == [False, False, True]


def test_one_account_that_dies_again_and_again_does_not() -> None:
    brake, guid = Brake(3), uuid4()
    assert not any(brake.pulled_by(dead(guid=guid)) for _ in range(30))


@pytest.mark.parametrize(
    "between",
    [Outcome(verdict, authentic=True) for verdict in (Verdict.APPLIED, Verdict.DUPLICATE, Verdict.SUPERSEDED)],
)
def test_a_success_releases_it(between: Outcome) -> None:
    brake = Brake(3)
    assert [brake.pulled_by(o) for o in (dead(), dead(), between, dead(), dead())] == [False] * 5
    assert brake.pulled_by(dead())


def test_another_reason_begins_a_row_of_its_own() -> None:
    brake = Brake(3)
    row = [dead(), dead(), dead("refused"), dead(), dead(), dead()]
    assert [brake.pulled_by(outcome) for outcome in row] == [False] * 5 + [True]


@pytest.mark.parametrize(
    "between",
    [
        Outcome(Verdict.DEAD, "user_missing", authentic=True),
        Outcome(Verdict.RETRY, "access_denied", authentic=True),
        Outcome(Verdict.DEAD, "malformed", authentic=False),
        Outcome(Verdict.APPLIED, authentic=False),
    ],
)
def test_missing_users_retries_and_strangers_neither_count_nor_release(between: Outcome) -> None:
    brake = Brake(3)
    assert not any(brake.pulled_by(between) for _ in range(30))
    row = [dead(), between, dead(), between, dead()]
    assert [brake.pulled_by(outcome) for outcome in row] == [False] * 4 + [True]


def test_a_replay_that_fails_again_stops_no_consumer_and_one_that_succeeds_hides_no_fault() -> None:
    """One operator's slip must not keep fresh changes waiting; the brake goes on counting what is fresh."""
    ledger = Ledger(ConsumerMetrics(), Brake(3), Log("test"))

    def pulls(outcome: Outcome, replays: int = 0) -> bool:
        return ledger.enter(Final(outcome), Counters(replays=replays))

    assert not any(pulls(dead(), replays=1) for _ in range(30))
    applied = Outcome(Verdict.APPLIED, authentic=True)
    row = [(dead(), 0), (applied, 1), (dead(), 0), (dead(), 2), (dead(), 0)]
    assert [pulls(outcome, replays) for outcome, replays in row] == [False] * 4 + [True]
