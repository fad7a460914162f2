"""The messages that outcomes lead to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from passrelay_consumer.disposition import Again, Dropped, Final, Later, Settled
from passrelay_consumer.journal import Journal, made_up_id, wait_message
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_schemas import topology
from passrelay_schemas.envelope import ProtectedHeader
from passrelay_schemas.event_id import captured_at, new_event_id
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyDocument, KeyUse, generate, write_private, write_public
from passrelay_schemas.logs import Log
from passrelay_schemas.message import NOTE, REPLAYS, Counters
from passrelay_schemas.note import open_note
from passrelay_schemas.record import decode, parse_note
from passrelay_schemas.verdict import Reason, Verdict

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
BODY = b"the envelope as it came"


@pytest.fixture
def ops(tmp_path: Path) -> KeyDocument:
    document, private = generate(KeyUse.OPS)
    write_public(tmp_path, document)
    write_private(tmp_path, document, private)
    return document


@pytest.fixture
def keyring(tmp_path: Path, ops: KeyDocument) -> Keyring:
    return Keyring(tmp_path)


@pytest.fixture
def journal(keyring: Keyring) -> Journal:
    return Journal(keyring, Log("consumer"))


def outcome(verdict: Verdict, reason: str | None = None) -> Outcome:
    header = ProtectedHeader(
        suite="s", recipient_key_id="a" * 24, producer="dc1", domain="lab.example", event_id=new_event_id()
    )
    return Outcome(
        verdict,
        reason,
        "the server's words",
        header=header,
        account="anna",
        guid=uuid4(),
        server="ldaps://i:636",
        authentic=True,
    )


def delivery(counters: Counters | None = None) -> Delivery:
    return Delivery(BODY, counters or Counters(attempt=2, replays=1), NOW)


def test_an_applied_event_is_one_record_in_the_journal(journal: Journal, keyring: Keyring, ops: KeyDocument) -> None:
    applied = replace(outcome(Verdict.APPLIED), applied_at=NOW)
    (message,) = journal.messages(Final(applied), delivery())
    record = decode(message.body)
    assert applied.header is not None
    event_id = applied.header.event_id
    assert (message.exchange, message.routing_key) == (topology.JOURNAL, "")
    assert (record.event_id, record.producer, record.domain) == (event_id, "dc1", "lab.example")
    assert (record.verdict, record.server, record.attempts, record.replays) == ("applied", "ldaps://i:636", 3, 1)
    assert (record.captured_at, record.received_at, record.applied_at) == (captured_at(event_id), NOW, NOW)
    assert record.envelope_bytes == BODY
    assert b"anna" not in message.body
    assert record.note is not None
    note = open_note(record.note, event_id=event_id, opener=keyring.opener(ops.key_id, KeyUse.OPS))
    assert parse_note(note) == ("anna", applied.guid, "the server's words")


def test_a_record_of_what_is_not_authentic_never_takes_the_real_events_id(journal: Journal) -> None:
    forged = replace(outcome(Verdict.DEAD, Reason.BAD_SIGNATURE), authentic=False)
    first, second = (decode(message.body) for message in journal.messages(Final(forged), delivery()))
    assert forged.header is not None
    assert first.event_id == second.event_id == made_up_id(BODY) != forged.header.event_id
    assert first.captured_at is None
    poison = replace(forged, reason=Reason.POISON)
    assert decode(journal.messages(Final(poison), delivery())[0].body).event_id == forged.header.event_id


def test_a_dead_event_goes_to_the_dead_stream_before_the_journal(journal: Journal) -> None:
    messages = journal.messages(Final(outcome(Verdict.DEAD, "policy")), delivery())
    assert [message.exchange for message in messages] == [topology.DEAD, topology.JOURNAL]
    assert messages[0].body == messages[1].body
    assert decode(messages[0].body).reason == "policy"


def test_a_later_one_is_recorded_and_then_its_envelope_with_properties_built_anew(journal: Journal) -> None:
    retry = outcome(Verdict.RETRY, "user_missing")
    _, message = journal.messages(Later(retry, topology.TIERS[2], 3), delivery())
    assert (message.exchange, message.routing_key, message.body) == (topology.RETRY, "10m", BODY)
    counters = Counters.of(message.properties)
    assert (counters.attempt, counters.replays, counters.reason, counters.deliveries) == (3, 1, "user_missing", 0)
    assert counters.note is not None
    assert "anna" not in counters.note
    assert retry.header is not None
    assert message.properties.message_id == str(retry.header.event_id)


def test_a_try_is_on_record_with_its_reason_but_without_the_envelope(
    journal: Journal, keyring: Keyring, ops: KeyDocument
) -> None:
    retry = outcome(Verdict.RETRY, "user_missing")
    assert retry.header is not None
    message, _ = journal.messages(Later(retry, topology.TIERS[2], 3), delivery())
    assert (message.exchange, message.routing_key) == (topology.JOURNAL, "")
    record = decode(message.body)
    assert (record.event_id, record.verdict, record.reason) == (retry.header.event_id, Verdict.RETRY, "user_missing")
    assert (record.attempts, record.replays, record.envelope) == (3, 1, None)
    assert record.note is not None
    note = open_note(record.note, event_id=record.event_id, opener=keyring.opener(ops.key_id, KeyUse.OPS))
    assert parse_note(note) == ("anna", retry.guid, "the server's words")


def test_later_tries_for_the_same_reason_are_small_and_the_note_goes_on_with_the_event(journal: Journal) -> None:
    retry = outcome(Verdict.RETRY, "user_missing")
    records, counters = [], Counters()
    for attempt in range(1, 29):
        record, waits = journal.messages(Later(retry, topology.TIERS[0], attempt), delivery(counters))
        counters = Counters.of(waits.properties)
        records.append(record.body)
        assert counters.note is not None
    noted = [number for number, body in enumerate(records, 1) if decode(body).note]
    assert noted == [1, 25], "a day of tries is named twice"
    assert sum(map(len, records)) < 15_000


@pytest.mark.parametrize(
    ("before", "now", "noted"),
    [
        ("user_missing", {}, False),
        ("ambiguous", {}, True),
        # The event may have been refused, or its key missed, before anybody knew whose it is.
        ("refused", {"reason": "refused"}, True),
        ("unknown_key", {"reason": "unknown_key"}, True),
        ("unknown_key", {"reason": "unknown_key", "account": None, "guid": None}, False),
    ],
)
def test_a_try_has_a_note_where_an_earlier_one_may_say_less(
    journal: Journal, ops: KeyDocument, before: str, now: dict[str, Any], noted: bool
) -> None:
    retry = replace(outcome(Verdict.RETRY, "user_missing"), **now)
    counters = Counters(attempt=2, reason=before, note=f"{ops.key_id}.earlier")
    record, waits = journal.messages(Later(retry, topology.TIERS[0], 3), delivery(counters))
    note = decode(record.body).note
    assert (note is not None) is noted
    assert Counters.of(waits.properties).note == (note or counters.note)


@pytest.mark.parametrize("note", [None, "of-another-ops-key.earlier", "garbage"])
def test_a_note_that_todays_ops_key_does_not_open_is_written_anew(journal: Journal, note: str | None) -> None:
    counters = Counters(attempt=2, reason="user_missing", note=note)
    later = Later(outcome(Verdict.RETRY, "user_missing"), topology.TIERS[0], 3)
    record, waits = journal.messages(later, delivery(counters))
    assert decode(record.body).note == Counters.of(waits.properties).note != note


def test_a_strangers_try_never_takes_the_real_events_id(journal: Journal, keyring: Keyring, ops: KeyDocument) -> None:
    stranger = replace(outcome(Verdict.RETRY, Reason.UNTRUSTED), authentic=False)
    assert stranger.header is not None
    record, waits = journal.messages(Later(stranger, topology.TIERS[0], 1), delivery())
    assert decode(record.body).event_id == made_up_id(BODY)
    assert waits.properties.message_id == str(stranger.header.event_id)
    carried = Counters.of(waits.properties).note
    assert carried is not None
    opener = keyring.opener(ops.key_id, KeyUse.OPS)
    assert open_note(carried, event_id=stranger.header.event_id, opener=opener), "it opens under the message's id"


def test_what_cannot_be_parsed_has_the_same_made_up_id_each_time(journal: Journal) -> None:
    garbage = replace(outcome(Verdict.DEAD, "malformed"), header=None)
    first, second = (decode(journal.messages(Final(garbage), delivery())[0].body) for _ in range(2))
    assert first.event_id == second.event_id == made_up_id(BODY)
    assert first.event_id.version == 4
    assert made_up_id(BODY + b"x") != first.event_id
    assert (first.producer, first.domain, first.captured_at) == (None, None, None)
    assert first.envelope_bytes == BODY


def test_waiting_out_an_outage_is_no_attempt_and_carries_only_what_is_allowed() -> None:
    message = wait_message(delivery(Counters(attempt=1, replays=2, deliveries=7, reason="refused", note="k.n")))
    assert (message.exchange, message.routing_key) == (topology.RETRY, "15s")
    assert Counters.of(message.properties) == Counters(attempt=1, replays=2, reason="refused", note="k.n")
    assert set(message.properties.headers) <= {"x-passrelay-attempt", "x-passrelay-reason", REPLAYS, NOTE}


def test_without_an_ops_key_there_is_one_warning_and_no_note(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    with capture_logs() as lines:
        journal = Journal(Keyring(folder), Log("consumer"))
        (message,) = journal.messages(Final(outcome(Verdict.APPLIED)), delivery())
    assert decode(message.body).note is None
    assert [(line["log_level"], line["action"]) for line in lines] == [("warning", "keyring_fault")]


def test_a_write_that_is_to_be_settled_is_recorded_before_its_copy_waits(journal: Journal) -> None:
    applied = replace(outcome(Verdict.APPLIED), applied_at=NOW, written_at=NOW)
    record, copy = journal.messages(Final(applied, settle=True), delivery())
    assert record.exchange == topology.JOURNAL
    assert (copy.exchange, copy.routing_key, copy.body) == (topology.RETRY, "15s", BODY)
    assert Counters.of(copy.properties) == Counters(settle=1, settle_since=NOW, replays=1)


def test_a_settle_copy_leaves_small_records_and_its_next_round(journal: Journal) -> None:
    since = NOW - timedelta(hours=1)
    copy = delivery(Counters(settle=2, settle_since=since))
    unsettled = replace(outcome(Verdict.DUPLICATE), unsettled="ldaps://b cannot be asked")
    (message,) = journal.messages(Again(unsettled, 3), copy)
    assert (message.exchange, message.routing_key, message.body) == (topology.RETRY, "2m", BODY)
    assert Counters.of(message.properties) == Counters(settle=3, settle_since=since)
    behind = replace(outcome(Verdict.APPLIED), applied_at=NOW)
    written, again = journal.messages(Again(behind, 3), copy)
    assert (written.exchange, again.exchange) == (topology.JOURNAL, topology.RETRY)
    (settled,) = journal.messages(Settled(outcome(Verdict.DUPLICATE)), copy)
    for message, verdict in ((written, "applied"), (settled, "duplicate")):
        record = decode(message.body)
        assert (record.verdict, record.reason, record.envelope, record.note) == (verdict, "settle", None, None)
    assert journal.messages(Dropped(outcome(Verdict.RETRY, "user_missing")), copy) == ()


def test_a_copy_that_waits_out_an_outage_stays_a_copy() -> None:
    message = wait_message(delivery(Counters(settle=4, settle_since=NOW, deliveries=7)))
    assert Counters.of(message.properties) == Counters(settle=4, settle_since=NOW)
