"""When the write of an event is settled, and what becomes of its settle copies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pika
import pytest

from passrelay_consumer.decide import Entry
from passrelay_consumer.disposition import Again, Dropped, Final, Later, Settled, dispose
from passrelay_consumer.outcome import Outcome
from passrelay_consumer.settle import Sight, Unreachable, may_begin, unsettled
from passrelay_schemas.marker import MUST_CHANGE_DONE, Marker
from passrelay_schemas.message import SETTLE_SINCE, Counters, envelope_properties
from passrelay_schemas.verdict import Reason, Verdict
from tests.unit.builders import CHANGED_AT, EVENT_ID, GUID

WRITE = Marker(0, 300, CHANGED_AT, GUID, EVENT_ID, "2026-11-24T22:42:33.120Z")
OURS = Entry("uid=a", WRITE, WRITE)
B = "ldaps://b.idm.test"
C = "ldaps://c.idm.test"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(hours=24)


def test_the_same_write_on_every_server_is_settled() -> None:
    assert unsettled(OURS, {B: replace(OURS), C: replace(OURS)}) == ""
    assert unsettled(OURS, {}) == ""


@pytest.mark.parametrize(
    "sight",
    [
        replace(OURS, marker=replace(WRITE, kvno=200)),
        replace(OURS, marker=replace(WRITE, kvno=400)),  # newer: an older one could still come in between
        replace(OURS, marker=replace(WRITE, applied_at="2026-11-24T22:42:33.121Z")),  # the same event, another write
        replace(OURS, marker=replace(WRITE, event_id=UUID(int=1))),
        replace(OURS, marker=WRITE.with_flag(MUST_CHANGE_DONE)),
        replace(OURS, proof=replace(WRITE, kvno=200)),  # another write's password beside our marker
        replace(OURS, marker=None),
        None,
        Unreachable("no answer"),
    ],
)
def test_anything_else_on_one_server_is_not(sight: Sight) -> None:
    why = unsettled(OURS, {C: OURS, B: sight})
    assert B in why
    assert C not in why


WRITTEN = Outcome(Verdict.APPLIED, applied_at=NOW, authentic=True)


@pytest.mark.parametrize(
    ("outcome", "settle"),
    [
        (WRITTEN, True),
        (Outcome(Verdict.DUPLICATE, applied_at=NOW), True),  # its own write, found again after a crash
        (Outcome(Verdict.DUPLICATE), True),  # another event's write: that one may have found this one's, elsewhere
        (Outcome(Verdict.SUPERSEDED, "newer"), False),
        (Outcome(Verdict.DEAD, "policy"), False),
    ],
)
def test_a_copy_begins_for_every_write_and_every_duplicate(outcome: Outcome, settle: bool) -> None:
    assert dispose(outcome, Counters(), horizon=DAY, settles=True) == Final(outcome, settle=settle)
    assert dispose(outcome, Counters(), horizon=DAY, settles=False) == Final(outcome)


@pytest.mark.parametrize(
    ("settle_round", "tier"), [(1, "15s"), (2, "2m"), (3, "10m"), (4, "1h"), (5, "1h"), (4000, "1h")]
)
@pytest.mark.parametrize(
    "outcome",
    [
        WRITTEN,  # a server was behind: look whether the repair holds
        Outcome(Verdict.DUPLICATE, unsettled="ldaps://b cannot be asked", authentic=True),
    ],
)
def test_what_is_not_settled_has_another_round_for_ever(outcome: Outcome, settle_round: int, tier: str) -> None:
    again = dispose(outcome, Counters(settle=settle_round), horizon=DAY, settles=True)
    assert isinstance(again, Again)
    assert (again.round, again.tier.name) == (settle_round + 1, tier)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [(Verdict.DUPLICATE, None), (Verdict.SUPERSEDED, "newer"), (Verdict.SUPERSEDED, "version_back")],
)
def test_what_is_settled_or_superseded_ends(verdict: Verdict, reason: str | None) -> None:
    outcome = Outcome(verdict, reason, authentic=True)
    assert dispose(outcome, Counters(settle=3), horizon=DAY, settles=True) == Settled(outcome)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (Verdict.RETRY, "user_missing"),
        (Verdict.DEAD, "policy"),
        (Verdict.SUPERSEDED, "idm_newer"),  # no newer event of AD, only a server that has no marker yet
    ],
)
def test_a_copy_is_never_a_dead_letter_and_ends_at_the_horizon(verdict: Verdict, reason: str) -> None:
    outcome = Outcome(verdict, reason, authentic=True)
    ends = [dispose(outcome, Counters(settle=number), horizon=DAY, settles=True) for number in range(1, 60)]
    assert {type(end) for end in ends} == {Again, Dropped}
    assert isinstance(ends[0], Again)
    assert isinstance(ends[-1], Dropped)


def test_a_copy_for_an_entry_that_was_rebound_ends() -> None:
    outcome = Outcome(Verdict.DEAD, Reason.IDENTITY, authentic=True)
    end = dispose(outcome, Counters(settle=1), horizon=DAY)
    assert isinstance(end, Settled)
    assert end.outcome.verdict is Verdict.SUPERSEDED


def test_a_strangers_header_makes_nothing_a_settle_copy() -> None:
    forged = Outcome(Verdict.DEAD, Reason.BAD_SIGNATURE)
    assert dispose(forged, Counters(settle=1), horizon=DAY) == Final(forged)
    unknown = Outcome(Verdict.RETRY, Reason.UNTRUSTED)
    assert isinstance(dispose(unknown, Counters(settle=1), horizon=DAY), Later)


@pytest.mark.parametrize(
    ("created_at", "since", "may"),
    [(NOW, NOW, True), (NOW, NOW - timedelta(seconds=1), False), (None, NOW, False), (NOW, None, False)],
)
def test_a_copy_begins_only_where_the_entry_is_as_old_as_the_write(
    created_at: datetime | None, since: datetime | None, may: bool
) -> None:
    assert may_begin(Entry("uid=a", created_at=created_at), since) is may


def test_round_and_time_travel_in_headers_of_their_own() -> None:
    sent = Counters.of(envelope_properties(None, settle=3, settle_since=NOW))
    assert (sent.settle, sent.settle_since) == (3, NOW)
    assert Counters.of(envelope_properties(None)) == Counters()
    for rubbish in (7, "yesterday", "2026-11-24T12:00:00", b"\xff"):
        assert Counters.of(pika.BasicProperties(headers={SETTLE_SINCE: rubbish})).settle_since is None
