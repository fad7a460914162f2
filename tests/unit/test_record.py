"""Records: read again and again by operators for 90 days, so none may stop a reader."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_schemas import limits
from passrelay_schemas.errors import EventError, MalformedError, TooLargeError
from passrelay_schemas.keys import KeyUse, generate
from passrelay_schemas.note import NoteSealer
from passrelay_schemas.record import Record, decode, envelope_text, note_text, parse_note
from passrelay_schemas.verdict import REPAIRS, Reason, Verdict
from tests.unit.builders import EVENT_ID, GUID, PRODUCER, SIGNED_AT, changed

RECORD = Record(
    event_id=EVENT_ID,
    producer=PRODUCER,
    domain="lab.example",
    verdict=Verdict.DEAD,
    reason=Reason.USER_MISSING,
    server="idm1.example",
    attempts=3,
    captured_at=SIGNED_AT,
    received_at=SIGNED_AT,
    note="key.note",
    envelope=envelope_text(b"{}"),
)
RAW = RECORD.encode()


def test_round_trip() -> None:
    assert decode(RAW) == RECORD
    assert decode(RAW).envelope_bytes == b"{}"
    assert decode(RAW).dead_reason is Reason.USER_MISSING
    assert json.loads(RAW)["received_at"] == "2026-11-24T22:42:33.120Z"
    assert "applied_at" not in json.loads(RAW)


def test_the_largest_envelope_and_note_fit_one_record() -> None:
    key, _ = generate(KeyUse.OPS)
    record = RECORD.model_copy(
        update={
            "envelope": envelope_text(b"x" * limits.MAX_ENVELOPE_BYTES),
            "note": NoteSealer().seal("x" * 2000, event_id=EVENT_ID, ops_key=key),
        }
    )
    assert decode(record.encode()) == record


def test_an_envelope_beyond_its_limit_is_cut_and_not_lost() -> None:
    record = RECORD.model_copy(update={"envelope": envelope_text(b"x" * 1_000_000)})
    assert decode(record.encode()).envelope_bytes == b"x" * limits.MAX_ENVELOPE_BYTES


BROKEN: dict[str, dict[str, Any]] = {
    "no schema": {"schema": ...},
    "version 2": {"schema": "passrelay.record/2"},
    "no event id": {"event_id": ...},
    "event id text": {"event_id": "x"},
    "no verdict": {"verdict": ...},
    "verdict unknown": {"verdict": "fine"},
    "no received_at": {"received_at": ...},
    "received_at number": {"received_at": 5},
    "received_at out of range": {"received_at": "0001-01-01T00:00:00+14:00"},
    "attempts true": {"attempts": True},
    "attempts text": {"attempts": "3"},
    "attempts negative": {"attempts": -1},
    "replays float": {"replays": 1.0},
    "unknown field": {"account": "alice"},
    "reason number": {"reason": 1},
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_record_is_malformed(case: str) -> None:
    with pytest.raises(MalformedError, match="record: "):
        decode(changed(RAW, **BROKEN[case]))


def test_an_oversize_record_is_refused() -> None:
    with pytest.raises(TooLargeError):
        decode(RAW.ljust(limits.MAX_RECORD_BYTES + 1))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_event_errors(raw: bytes) -> None:
    with pytest.raises(EventError):
        decode(raw)


def test_an_envelope_field_that_is_none_is_malformed() -> None:
    with pytest.raises(MalformedError):
        _ = decode(changed(RAW, envelope="+++")).envelope_bytes
    assert decode(changed(RAW, envelope=...)).envelope_bytes is None


@pytest.mark.parametrize("reason", ["of_a_later_version", "", None])
def test_a_reason_of_a_later_version_does_not_stop_the_reader(reason: str | None) -> None:
    assert decode(changed(RAW, reason=reason)).dead_reason is None


def test_only_dead_letters_have_a_dead_reason() -> None:
    assert decode(changed(RAW, verdict="superseded", reason="idm_newer")).dead_reason is None


def test_every_reason_has_a_repair() -> None:
    assert set(REPAIRS) == set(Reason)
    assert all(REPAIRS.values())


# -- notes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ["alice", None])
@pytest.mark.parametrize("guid", [GUID, None])
@pytest.mark.parametrize("diagnostic", ["", "one line", "two\nlines"])
def test_a_note_round_trip(account: str | None, guid: Any, diagnostic: str) -> None:
    assert parse_note(note_text(account=account, guid=guid, diagnostic=diagnostic)) == (account, guid, diagnostic)


@given(st.text())
def test_no_text_of_a_note_stops_the_reader(text: str) -> None:
    account, _, diagnostic = parse_note(text)
    assert diagnostic in text
    assert account is None or account in text


def test_times_are_kept_in_utc() -> None:
    local = datetime.fromisoformat("2026-11-24T23:42:33.120+01:00")
    record = Record(event_id=EVENT_ID, verdict=Verdict.APPLIED, received_at=local)
    assert record.received_at.tzinfo is UTC
    assert decode(record.encode()).received_at == SIGNED_AT
