"""Which version a record belongs to: never a newer one than its own, and the newest is AD's current one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from passrelay_producer.sources.hook_version import Version, version_of
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.order import OrderKey
from tests.unit.test_samba_change import FINE, HERE, READING, SECOND, THERE, stamps

LATER = FINE + UNITS_PER_SECOND // 100
"""LSASS calls some milliseconds after the commit."""
TENTH = UNITS_PER_SECOND // 10


def version(*calls: int, given: int | None = None, **fields: Any) -> Version:
    found = version_of(replace(READING, **fields), calls=calls or [LATER], controller=HERE, given=given)
    assert found is not None
    return found


def key(found: Version) -> OrderKey:
    return OrderKey.of(
        epoch=0, kvno=found.kvno, changed_at=found.changed_at, event_id=new_event_id(), origin=found.origin
    )


def test_the_newest_record_is_ads_current_version() -> None:
    assert version() == Version(7, FINE, HERE, current=True)
    assert version(given=6) == Version(7, FINE, HERE, current=True)


def test_a_must_change_reset_has_its_time_in_whole_seconds() -> None:
    assert version(pwd_last_set=0) == Version(7, SECOND * UNITS_PER_SECOND, HERE, current=True)


def test_earlier_records_come_before_it_each_with_its_own_time() -> None:
    calls = [LATER - 2 * n * UNITS_PER_SECOND for n in (3, 2, 1, 0)]
    found = [version(*calls[start:]) for start in range(4)]
    assert [one.kvno for one in found] == [4, 5, 6, 7]
    assert [one.current for one in found] == [False, False, False, True]
    assert sorted(found, key=key) == found
    assert [version(*calls[start:-1]).kvno for start in range(3)] == [4, 5, 6]  # the last one is not here yet


def test_a_record_that_ad_has_moved_past_does_not_get_ads_version() -> None:
    """Its own successor is not in the folder yet, or was lost."""
    called_at = FINE - 2 * UNITS_PER_SECOND
    assert version(called_at) == Version(6, called_at, None, current=False)


def test_a_change_on_another_controller_has_taken_the_current_version() -> None:
    there = stamps(password=(SECOND, THERE, 9), tick=(SECOND, THERE, 9))
    assert version(metadata=there) == Version(6, LATER, None, current=False)
    assert version(LATER, LATER + 1, metadata=there).kvno == 5


def test_a_clock_that_stepped_back_a_little_does_not_cost_the_newest_its_version() -> None:
    assert version(FINE - TENTH) == Version(7, FINE, HERE, current=True)


@pytest.mark.parametrize("gap", [1, TENTH, UNITS_PER_SECOND - 1])
@pytest.mark.parametrize("controller", [HERE, UUID(int=2**128 - 1)])
def test_a_record_looked_up_too_late_for_its_version_never_beats_its_successors(gap: int, controller: UUID) -> None:
    """AD has all three changes when the first is looked up, and each is looked up alone."""
    metadata = stamps(password=(SECOND, controller, 9), tick=(SECOND, controller, 9))
    reading = replace(READING, metadata=metadata)
    given, found = 4, []
    for called_at in (FINE - gap, FINE + 1, FINE + 2):
        one = version_of(reading, calls=[called_at], controller=controller, given=given)
        assert one is not None
        given = max(given, one.kvno)
        found.append(one)
    assert [one.kvno for one in found] == [7, 7, 7]
    assert sorted(found, key=key) == found
    assert len({key(one) for one in found}) == 3


def test_a_record_that_comes_after_its_successor_stays_behind_it() -> None:
    """It was left as a .new file, or moved back out of quarantine."""
    assert version(FINE - TENTH, given=7).kvno == 6


def test_where_the_metadata_cannot_be_seen_version_and_pwd_last_set_count() -> None:
    assert version(metadata=b"", key_version=7) == Version(7, FINE, None, current=True)
    assert version(FINE - 2 * UNITS_PER_SECOND, metadata=b"", key_version=7).kvno == 6
    assert version(metadata=b"", key_version=7, pwd_last_set=0) == Version(7, LATER, None, current=True)


def test_an_account_that_shows_no_version_has_none() -> None:
    reading = replace(READING, metadata=b"")
    assert version_of(reading, calls=[LATER], controller=HERE, given=None) is None


def test_no_version_is_below_one() -> None:
    assert version(*range(LATER, LATER + 20)).kvno == 1
