"""Which change is newer: version before time, seconds for equal versions, epoch before all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_schemas import limits
from passrelay_schemas.filetime import UNITS_PER_SECOND, from_datetime, now, rfc3339, to_datetime, to_unix_seconds
from passrelay_schemas.order import OrderKey, rank
from tests.unit.builders import CHANGED_AT

IN_1601 = 0
IN_2200 = from_datetime(datetime(2200, 1, 1, tzinfo=UTC))
SECOND = UNITS_PER_SECOND
START = CHANGED_AT - CHANGED_AT % SECOND


EARLIER, LATER = UUID("01999999-0000-7000-8000-000000000001"), UUID("01999999-0001-7000-8000-000000000000")


DC1, DC2 = UUID("11111111-0000-4000-8000-000000000000"), UUID("22222222-0000-4000-8000-000000000000")


def key(epoch: int, kvno: int, changed_at: int, event_id: UUID = EARLIER, origin: UUID | None = DC1) -> OrderKey:
    return OrderKey.of(epoch=epoch, kvno=kvno, changed_at=changed_at, event_id=event_id, origin=origin)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (key(0, 7, IN_2200), key(0, 8, IN_1601)),  # version before time, also with a must-change reset (pwdLastSet 0)
        (key(0, 7, START), key(0, 7, START + SECOND)),
        (key(0, 7, START + SECOND - 1), key(0, 7, START + SECOND)),
        (key(0, 7, START + 9, origin=DC1), key(0, 7, START, origin=DC2)),  # in one second AD takes the greater origin
        (key(0, 7, START, origin=DC2), key(0, 7, START + SECOND, origin=DC1)),  # which is less than a second
        (key(0, 7, START, origin=UUID(int=2**128 - 1)), key(0, 7, START + SECOND, origin=UUID(int=0))),
        (key(0, 7, START, origin=None), key(0, 7, START + 1, origin=None)),  # without an origin each part counts
        (key(0, limits.MAX_KVNO, IN_2200), key(1, 1, IN_1601)),  # epoch before version
        (key(0, 9, START), key(0, 10, START)),  # numbers, not texts
        (key(0, 0, START), key(0, 0, START + 1)),  # without versions the full FILETIME counts
        (key(0, 0, IN_1601), key(0, 0, IN_2200)),
        (key(0, 0, IN_2200), key(1, 0, IN_1601)),
        (key(0, 0, START, EARLIER), key(0, 0, START, LATER)),  # the later captured of two with one time
        (key(0, 0, START, LATER), key(0, 0, START + 1, EARLIER)),
    ],
)
def test_newer_is_newer(older: OrderKey, newer: OrderKey) -> None:
    assert older < newer
    assert not newer <= older


@pytest.mark.parametrize("fraction", [0, 1, SECOND // 2, SECOND - 1])
def test_one_replicated_change_has_one_key_on_every_dc(fraction: int) -> None:
    one = key(0, 7, START + fraction)
    assert one == key(0, 7, START)
    assert (one.epoch, one.kvno, one.changed_at) == (0, 7, START + rank(DC1))
    assert 0 <= rank(DC1) < SECOND


def test_one_replicated_change_is_the_same_whoever_captured_it() -> None:
    assert key(0, 7, START, EARLIER) == key(0, 7, START, LATER)


@given(
    one=st.tuples(st.integers(0, 2), st.integers(1, 5), st.integers(0, 3 * SECOND)),
    other=st.tuples(st.integers(0, 2), st.integers(1, 5), st.integers(0, 3 * SECOND)),
)
def test_the_order_is_total_and_is_ads_own_rule(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    def rule(epoch: int, kvno: int, changed_at: int) -> tuple[int, int, int]:
        return epoch, kvno, changed_at // SECOND

    assert (key(*one) < key(*other)) == (rule(*one) < rule(*other))
    assert (key(*one) == key(*other)) == (rule(*one) == rule(*other))


# -- the clock it stands on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filetime", "moment"),
    [
        (0, datetime(1601, 1, 1, tzinfo=UTC)),
        (116_444_736_000_000_000, datetime(1970, 1, 1, tzinfo=UTC)),
        (IN_2200, datetime(2200, 1, 1, tzinfo=UTC)),
        (limits.MAX_FILETIME // 10 * 10, datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_filetime_and_datetime_agree(filetime: int, moment: datetime) -> None:
    assert to_datetime(filetime) == moment
    assert from_datetime(moment) == filetime
    assert to_unix_seconds(filetime) == pytest.approx(moment.timestamp())


@given(st.datetimes(datetime(1601, 1, 1), datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001
def test_every_microsecond_survives(moment: datetime) -> None:
    assert to_datetime(from_datetime(moment)) == moment


def test_now_is_now() -> None:
    assert abs(to_datetime(now()) - datetime.now(UTC)) < timedelta(minutes=1)


def test_times_are_printed_in_utc_with_milliseconds() -> None:
    assert rfc3339(datetime.fromisoformat("2026-11-24T23:42:33.1209+01:00")) == "2026-11-24T22:42:33.120Z"
    assert rfc3339(datetime(2026, 11, 24, tzinfo=UTC)) == "2026-11-24T00:00:00.000Z"
