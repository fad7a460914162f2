"""Which writes are settled again, how far back, and what came of them: without a broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pika
import pytest

from passrelay_consumer.decide import Entry
from passrelay_consumer.settle import REASON
from passrelay_ops.markers import View
from passrelay_ops.notes import Note
from passrelay_ops.settle import Beginning, Progress, check_reach, is_write, waiting_because, writes
from passrelay_ops.stream import StreamMessage
from passrelay_ops.unsettled import why
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.marker import Marker
from passrelay_schemas.message import record_properties
from passrelay_schemas.record import Record, envelope_text
from passrelay_schemas.verdict import Verdict

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ENVELOPE = envelope_text(b"sealed")


def record(verdict: Verdict, event_id: UUID | None = None, **fields: Any) -> Record:
    given = {"received_at": NOW, "envelope": ENVELOPE, **fields}
    return Record.model_validate({"event_id": event_id or new_event_id(), "verdict": verdict, **given})


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (record(Verdict.APPLIED, applied_at=NOW), True),
        # The answer to its write was lost with the consumer; the redelivered event found its own marker.
        (record(Verdict.DUPLICATE, applied_at=NOW), True),
        (record(Verdict.DUPLICATE), False),
        (record(Verdict.SUPERSEDED, reason="newer"), False),
        (record(Verdict.DEAD, reason="policy"), False),
        (record(Verdict.APPLIED, applied_at=NOW, reason=REASON), False),
        (record(Verdict.APPLIED, applied_at=NOW, envelope=None), False),
    ],
)
def test_what_was_written_is_settled_again(found: Record, wanted: bool) -> None:
    assert is_write(found) is wanted


def test_each_event_once_in_the_journals_order() -> None:
    first, second = record(Verdict.APPLIED), record(Verdict.APPLIED)
    found = [first, second, record(Verdict.DUPLICATE, first.event_id, applied_at=NOW), record(Verdict.SUPERSEDED)]
    messages = [StreamMessage(number, each.encode(), record_properties(each)) for number, each in enumerate(found)]
    rubbish = StreamMessage(9, b"rubbish", pika.BasicProperties(type="passrelay.record/1"))
    assert [each.event_id for each in writes([rubbish, *messages])] == [first.event_id, second.event_id]


def test_the_journal_must_reach_back_to_the_time() -> None:
    hour, dropped = timedelta(hours=1), Beginning(NOW - timedelta(days=90), whole=False)
    check_reach(NOW - hour, NOW, dropped)
    check_reach(NOW - hour, NOW, None)
    # Nothing was ever dropped: what is older was never recorded.
    check_reach(NOW - hour, NOW, Beginning(NOW, whole=True))
    with pytest.raises(ConfigurationError, match=r"2026-08-26T12:00:00.000Z only.*producer capture --all"):
        check_reach(NOW - timedelta(days=91), NOW, dropped)
    with pytest.raises(ConfigurationError, match="future"):
        check_reach(NOW + hour, NOW, None)


def test_an_event_ends_with_its_first_final_settle_record() -> None:
    behind, newer, same, waits = (new_event_id() for _ in range(4))
    progress = Progress(waiting={behind, newer, same, waits})
    for verdict, event_id, reason in [
        (Verdict.APPLIED, behind, REASON),
        (Verdict.APPLIED, behind, REASON),  # another server was behind in the next round
        (Verdict.DUPLICATE, behind, REASON),
        (Verdict.SUPERSEDED, newer, REASON),
        (Verdict.DUPLICATE, newer, REASON),  # a second copy of it, from the time before
        (Verdict.DUPLICATE, same, REASON),
        (Verdict.DUPLICATE, waits, None),  # the event itself, delivered again
        (Verdict.SUPERSEDED, waits, "newer"),
        (Verdict.DUPLICATE, new_event_id(), REASON),  # somebody else's
    ]:
        progress.take(record(verdict, event_id, reason=reason))
    assert (progress.behind, progress.superseded, progress.settled) == ({behind}, {newer}, {behind, same})
    assert (progress.waiting, progress.events) == ({waits}, 4)


def test_the_repair_tells_a_missing_consumer_from_a_missing_server() -> None:
    assert "a consumer runs" in waiting_because(Progress(waiting={new_event_id()}), 120)
    seen = Progress(waiting={new_event_id()}, settled={new_event_id()})
    assert "replication" in waiting_because(seen, 120)


GUID = uuid4()
OURS = Marker(0, 7, 134_084_736_000_000_000, GUID, new_event_id(), "2026-11-24T12:00:00.000Z")
OTHER = Marker(0, 6, 134_084_736_000_000_000, GUID, new_event_id(), "2026-11-24T11:00:00.000Z")


def view(*shown: Marker | None) -> list[View]:
    """A server for each marker; None is a server without the entry."""
    missing = ConfigurationError("no such entry")
    return [
        View(f"ldaps://{number}", Entry("uid=a", each, each) if each else None, None if each else missing)
        for number, each in enumerate(shown)
    ]


@pytest.mark.parametrize(
    ("views", "guid", "words"),
    [
        (view(None, None), GUID, "gone for good"),
        (view(OURS, None), GUID, "replication"),
        (view(OURS, OTHER), GUID, "replication"),
        (view(OURS, OURS), uuid4(), "belongs to AD account"),
        (view(OURS, OURS), GUID, "its next round will say so"),
        (view(OTHER, OTHER), GUID, "not with this write"),
    ],
)
def test_why_an_event_waits(views: list[View], guid: UUID, words: str) -> None:
    assert words in why(views, Note("alice", guid), OURS.event_id)
