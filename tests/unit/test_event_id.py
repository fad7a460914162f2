"""Event ids: UUIDv7 that tell the time of capture and never go back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122

import pytest

from passrelay_schemas import event_id
from passrelay_schemas.event_id import captured_at, new_event_id


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_id, "_last_tick", 0)


def test_it_is_a_uuid_of_version_7_and_tells_when() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    found = new_event_id()
    assert (found.version, found.variant) == (7, RFC_4122)
    assert before <= captured_at(found) <= datetime.now(UTC)


def test_ids_increase_within_one_tick_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    ids = [new_event_id() for _ in range(10_000)]
    assert ids == sorted(ids)
    assert len({found.int >> 64 for found in ids}) == len(ids)  # by the time, not by the random bits
    assert all(found.version == 7 for found in ids)


def test_ids_increase_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([2_000_000_000_000_000_000, 1_000_000_000_000_000_000, 2_000_000_000_000_000_001])
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    first, second, third = (new_event_id() for _ in range(3))
    assert first < second < third
    assert captured_at(second) == captured_at(first)


def test_a_process_started_later_in_the_same_millisecond_goes_on_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_000_000_000)
    first = new_event_id()
    monkeypatch.setattr(event_id, "_last_tick", 0)
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_000_000_300)
    assert new_event_id() > first
    assert new_event_id().int >> 80 == first.int >> 80


def test_threads_never_get_one_tick_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_000_000_000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: [new_event_id() for _ in range(2000)], range(8)))
    assert len({made.int >> 64 for part in found for made in part}) == 16_000
    assert all(part == sorted(part) for part in found)
