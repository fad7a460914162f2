"""What `status USER` finds of a user's events in the journal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from passrelay_consumer.settle import REASON
from passrelay_ops.notes import Notes
from passrelay_ops.stream import StreamMessage
from passrelay_ops.user_status import Outcomes
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyUse, generate, write_private, write_public
from passrelay_schemas.message import record_properties
from passrelay_schemas.note import NoteSealer
from passrelay_schemas.record import Record, note_text
from passrelay_schemas.verdict import Verdict
from tests.unit.builders import GUID

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def outcomes(tmp_path: Path) -> Outcomes:
    document, private = generate(KeyUse.OPS)
    write_public(tmp_path, document)
    write_private(tmp_path, document, private)
    return Outcomes("alice", [], Notes(Keyring(tmp_path)), most=20, since=NOW - timedelta(days=1))


def test_what_settling_recorded_stands_beside_the_users_own_events(outcomes: Outcomes, tmp_path: Path) -> None:
    ops_key = Keyring(tmp_path).newest(KeyUse.OPS)
    assert ops_key is not None
    hers, others = new_event_id(), new_event_id()
    records: list[Record] = []
    for event_id, account in ((hers, "alice"), (others, "bob")):
        note = NoteSealer().seal(
            note_text(account=account, guid=GUID, diagnostic=""), event_id=event_id, ops_key=ops_key
        )
        records.append(Record(event_id=event_id, verdict=Verdict.APPLIED, received_at=NOW, note=note))
    records += [
        Record(event_id=event_id, verdict=verdict, reason=REASON, received_at=NOW + timedelta(minutes=number))
        for number, verdict in enumerate((Verdict.APPLIED, Verdict.DUPLICATE), 1)
        for event_id in (others, hers)
    ]
    outcomes.read(
        [StreamMessage(number, found.encode(), record_properties(found)) for number, found in enumerate(records)],
        "journal",
    )
    assert [(found["event_id"], found["verdict"], found["diagnostic"]) for found in outcomes.last] == [
        (str(hers), "applied", ""),
        (str(hers), "applied", "a server was behind: written again"),
        (str(hers), "duplicate", "every listed server has it"),
    ]


def test_a_letter_that_failed_again_before_the_record_of_its_replay_still_waits(
    outcomes: Outcomes, tmp_path: Path
) -> None:
    ops_key = Keyring(tmp_path).newest(KeyUse.OPS)
    assert ops_key is not None
    event_id = new_event_id()
    note = NoteSealer().seal(note_text(account="alice", guid=GUID, diagnostic=""), event_id=event_id, ops_key=ops_key)
    dead = Record(event_id=event_id, verdict=Verdict.DEAD, reason="identity", received_at=NOW, note=note)
    again = dead.model_copy(update={"replays": 1})
    act = Record(event_id=event_id, verdict=Verdict.REPLAYED, replays=1, received_at=NOW, by="eva", why="repaired")

    def take(record: Record) -> None:
        outcomes.read([StreamMessage(0, record.encode(), record_properties(record))], "dead")

    for record in (dead, again, act):
        take(record)
    assert len(outcomes.live_letters) == 1
    assert [outcome["verdict"] for outcome in outcomes.last] == ["dead", "dead", "replayed"]
    take(act.model_copy(update={"replays": 2}))
    assert outcomes.live_letters == []


class Stream:
    """Writes records of alice's events and lets the outcomes read them."""

    def __init__(self, outcomes: Outcomes, folder: Path) -> None:
        self._outcomes = outcomes
        self._ops_key = Keyring(folder).newest(KeyUse.OPS)

    def take(self, event_id: UUID, verdict: Verdict, where: str = "journal", **fields: Any) -> None:
        assert self._ops_key is not None
        text = note_text(account="alice", guid=GUID, diagnostic="no entry matches")
        note = NoteSealer().seal(text, event_id=event_id, ops_key=self._ops_key)
        record = Record(event_id=event_id, verdict=verdict, **{"received_at": NOW, "note": note, **fields})
        self._outcomes.read([StreamMessage(0, record.encode(), record_properties(record))], where)


@pytest.fixture
def stream(outcomes: Outcomes, tmp_path: Path) -> Stream:
    return Stream(outcomes, tmp_path)


def test_what_waits_is_told_in_words_by_its_last_try(outcomes: Outcomes, stream: Stream) -> None:
    event_id = new_event_id()
    for attempts in (1, 2, 3):
        stream.take(event_id, Verdict.RETRY, reason="user_missing", attempts=attempts)
    [waits] = outcomes.last
    assert (waits["verdict"], waits["attempts"]) == ("retry", 3)
    assert waits["repair"] == "create the user in IdM"
    assert waits["diagnostic"] == (
        "waits, and is tried again by itself within 2m; no entry matches; repair: create the user in IdM"
    )
    assert outcomes.live_letters == []


def test_a_try_without_a_note_is_still_the_users_and_keeps_the_words(outcomes: Outcomes, stream: Stream) -> None:
    event_id = new_event_id()
    long_ago = NOW - timedelta(days=3)  # before the time that is asked for
    stream.take(event_id, Verdict.RETRY, reason="user_missing", attempts=1, received_at=long_ago)
    assert outcomes.last == []
    for attempts in (2, 3):
        stream.take(event_id, Verdict.RETRY, reason="user_missing", attempts=attempts, note=None)
    stream.take(new_event_id(), Verdict.RETRY, reason="user_missing", attempts=2, note=None)
    [waits] = outcomes.last
    assert (waits["event_id"], waits["attempts"]) == (str(event_id), 3)
    assert "no entry matches" in waits["diagnostic"]


@pytest.mark.parametrize("end", [Verdict.APPLIED, Verdict.DUPLICATE, Verdict.SUPERSEDED, Verdict.DEAD])
def test_what_has_ended_waits_no_more(outcomes: Outcomes, stream: Stream, end: Verdict) -> None:
    event_id = new_event_id()
    stream.take(event_id, Verdict.RETRY, reason="user_missing", attempts=1)
    stream.take(event_id, end, attempts=2)
    if end is Verdict.DEAD:
        stream.take(event_id, end, "dead", attempts=2)
    assert [found["verdict"] for found in outcomes.last] == [end.value]


def test_a_replayed_letter_that_waits_again_is_not_ended_by_the_letter(outcomes: Outcomes, stream: Stream) -> None:
    event_id = new_event_id()
    stream.take(event_id, Verdict.RETRY, reason="user_missing", attempts=1)
    stream.take(event_id, Verdict.DEAD, reason="user_missing", attempts=30)
    stream.take(event_id, Verdict.RETRY, reason="user_missing", attempts=1, replays=1)
    stream.take(event_id, Verdict.DEAD, "dead", reason="user_missing", attempts=30)
    stream.take(event_id, Verdict.REPLAYED, "dead", replays=1, by="eva", why="made the user")
    assert [found["verdict"] for found in outcomes.last] == ["dead", "replayed", "retry"]
    assert outcomes.live_letters == []
