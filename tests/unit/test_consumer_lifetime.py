"""The life that a password gets back which a wrong server expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from passrelay_consumer.decide import Entry
from passrelay_consumer.lifetime import expires_at, password_life

SET = datetime(2026, 11, 24, 12, 0, 7, tzinfo=UTC)
PROBE = timedelta(days=90)


@pytest.mark.parametrize("life", [timedelta(days=1), timedelta(days=30), timedelta(days=365)])
def test_a_users_own_policy_shows_in_his_last_password(life: timedelta) -> None:
    before = Entry("uid=anna", last_change=SET, expiration=SET + life)
    assert password_life(before, probe=PROBE) == life
    assert password_life(before, probe=None) == life


@pytest.mark.parametrize(
    "expiration",
    [
        pytest.param(SET + timedelta(seconds=4), id="a must-change step, seconds after the password"),
        pytest.param(SET + timedelta(days=12, seconds=33), id="an administrator's own time"),
        pytest.param(SET, id="expired at once, by a reset in IdM"),
        pytest.param(SET - timedelta(days=1), id="before it was set"),
    ],
)
def test_a_time_that_no_policy_gave_is_nobodys_life(expiration: datetime) -> None:
    assert password_life(Entry("uid=anna", last_change=SET, expiration=expiration), probe=PROBE) == PROBE


def test_never_is_not_unknown() -> None:
    assert password_life(Entry("uid=anna", last_change=SET), probe=PROBE) is None
    assert password_life(Entry("uid=anna"), probe=PROBE) == PROBE, "no password yet: the policy is not known"
    assert password_life(Entry("uid=anna"), probe=None) is None


def test_a_life_beyond_the_last_year_is_for_ever() -> None:
    last = datetime(9999, 12, 31, tzinfo=UTC)
    assert expires_at(last, timedelta(hours=1)) == datetime(9999, 12, 31, 1, tzinfo=UTC)
    assert expires_at(last, timedelta(days=1)) is None
    assert expires_at(last, None) is None
