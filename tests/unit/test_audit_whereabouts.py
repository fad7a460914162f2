"""Where a missing password is, by what the streams tell; and what a row then advises."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from passrelay_consumer.settle import REASON
from passrelay_ops.audit import sheet
from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.row import COLUMNS, Row
from passrelay_ops.audit.state import Cause, Finding, State
from passrelay_ops.audit.whereabouts import Trace, Whereabouts
from passrelay_ops.notes import Notes
from passrelay_ops.stream import StreamMessage
from passrelay_schemas.event import Account
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import from_datetime, rfc3339
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyUse, generate, write_private, write_public
from passrelay_schemas.marker import Marker
from passrelay_schemas.message import record_properties
from passrelay_schemas.note import NoteSealer
from passrelay_schemas.record import Record, note_text
from passrelay_schemas.verdict import Reason, Verdict
from tests.unit.builders import DOMAIN, GUID

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
STRANGER = UUID(int=9)


class Office:
    """An ops key, and records of events that consumers have seen."""

    def __init__(self, folder: Path) -> None:
        document, private = generate(KeyUse.OPS)
        write_public(folder, document)
        write_private(folder, document, private)
        self.notes = Notes(Keyring(folder))
        self._key = document

    def record(self, event_id: UUID, verdict: Verdict, reason: str | None = None, **more: Any) -> Record:
        guid = more.pop("guid", GUID)
        acts = verdict in {Verdict.REPLAYED, Verdict.DISCARDED}
        text = note_text(account="alice", guid=guid, diagnostic="")
        note = None if acts else NoteSealer().seal(text, event_id=event_id, ops_key=self._key)
        return Record(event_id=event_id, verdict=verdict, reason=reason, received_at=NOW, note=note, **more)

    def trace(
        self,
        *,
        dead: list[Record] | None = None,
        journal: list[Record] | None = None,
        waiting: int = 0,
        marker: Marker | None = None,
        age: timedelta = timedelta(days=1),
    ) -> Trace:
        found = Whereabouts({GUID: marker}, self.notes)
        found.waiting = waiting
        found.read_dead(_messages(dead or []))
        found.read_journal(_messages(journal or []))
        return found.trace(user(age), NOW)


def _messages(records: list[Record]) -> list[StreamMessage]:
    return [StreamMessage(number, found.encode(), record_properties(found)) for number, found in enumerate(records)]


def user(age: timedelta = timedelta(days=1), name: str = "alice") -> AdAccount:
    return AdAccount(Account(guid=GUID, sam_account_name=name), 7, from_datetime(NOW - age), None)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_what_no_consumer_has_seen_was_not_captured(office: Office) -> None:
    others = [office.record(new_event_id(), Verdict.APPLIED, guid=STRANGER)]
    assert office.trace(journal=others).where == "not_captured"


def test_what_may_be_among_the_waiting_is_not_called_lost(office: Office) -> None:
    assert office.trace(waiting=3).where == "unknown"
    assert office.trace(waiting=3, age=timedelta(seconds=20)).where == "in_flight"
    assert office.trace(age=timedelta(seconds=20)).where == "not_captured"


def test_a_dead_letter_lives_until_an_operator_acts(office: Office) -> None:
    event = new_event_id()
    died = office.record(event, Verdict.DEAD, Reason.POLICY)
    journal = [office.record(event, Verdict.RETRY, Reason.REFUSED), died]
    found = office.trace(dead=[died], journal=journal)
    assert (found.where, found.reason, found.event_id) == ("dead:policy", Reason.POLICY, event)
    replayed = office.record(event, Verdict.REPLAYED, by="ann", replays=1)
    assert office.trace(dead=[died, replayed]).where == "in_flight"
    again = office.record(event, Verdict.DEAD, Reason.IDENTITY, replays=1)
    assert office.trace(dead=[died, replayed, again]).where == "dead:identity"
    # A replay can fail before the record of the replay stands there.
    assert office.trace(dead=[died, again, replayed]).where == "dead:identity"
    assert "replayed 1 times" in office.trace(dead=[died, again, replayed]).detail
    discarded = office.trace(dead=[died, office.record(event, Verdict.DISCARDED, by="ann")])
    assert discarded.where == "dead:policy"
    assert "discarded by ann" in discarded.detail


def test_what_is_tried_again_is_in_flight_until_its_end(office: Office) -> None:
    event = new_event_id()
    tried = office.record(event, Verdict.RETRY, Reason.USER_MISSING, attempts=3)
    found = office.trace(journal=[tried])
    assert (found.where, found.reason) == ("in_flight", Reason.USER_MISSING)
    again = tried.model_copy(update={"note": None, "attempts": 4})  # the note stands in the first try
    assert office.trace(journal=[tried, again]).detail == "tried 4 times, last: user_missing"
    applied = office.record(event, Verdict.APPLIED, applied_at=NOW, server="idm1")
    assert office.trace(journal=[tried, applied]).where == "unknown"
    assert "idm1" in office.trace(journal=[tried, applied]).detail


def test_of_several_events_the_newest_that_is_open_counts(office: Office) -> None:
    old, new = new_event_id(), new_event_id()
    died = [office.record(event, Verdict.DEAD, Reason.POLICY) for event in (old, new)]
    assert office.trace(dead=died).event_id == new
    assert office.trace(dead=died[::-1]).event_id == new
    # What is tried again is an older password: the newest waits for a person.
    tried = office.record(old, Verdict.RETRY, Reason.USER_MISSING)
    assert office.trace(dead=died[1:], journal=[tried]).where == "dead:policy"
    # An end that nobody waits for any more explains nothing while another event is open.
    done = office.record(new, Verdict.SUPERSEDED, "newer")
    assert office.trace(dead=died[:1], journal=[done]).where == "dead:policy"


def test_an_older_letter_never_stands_for_what_was_applied_after_it(office: Office) -> None:
    older, restored_away = new_event_id(), new_event_id()
    died = office.record(older, Verdict.DEAD, Reason.POLICY)
    applied = office.record(restored_away, Verdict.APPLIED, applied_at=NOW, server="idm1")
    found = office.trace(dead=[died], journal=[applied])
    assert (found.where, found.applied, found.event_id) == ("unknown", True, None)
    # Replayed, the letter would put the older password back; captured again, the newer one comes.
    assert "capture --user alice" in row(State.BEHIND, found).repair
    # While its repair is waited for, the dead stream alone is read: the old letter is no news, a later one is.
    again = office.record(new_event_id(), Verdict.DEAD, Reason.POLICY)
    assert not office.trace(dead=[died]).is_new_letter(found)
    assert office.trace(dead=[died, again]).is_new_letter(found)
    assert office.trace(dead=[died]).is_new_letter(None)


def test_events_before_the_one_in_the_entry_explain_nothing(office: Office) -> None:
    older, written, newer = new_event_id(), new_event_id(), new_event_id()
    marker = Marker(0, 6, 0, GUID, written, rfc3339(NOW))
    records = [office.record(event, Verdict.DEAD, Reason.POLICY) for event in (older, written)]
    assert office.trace(dead=records, marker=marker).where == "not_captured"
    assert office.trace(journal=[office.record(newer, Verdict.RETRY)], marker=marker).where == "in_flight"


def test_what_settling_recorded_is_no_news_of_a_password(office: Office) -> None:
    event = new_event_id()
    copy = Record(event_id=event, verdict=Verdict.DUPLICATE, reason=REASON, received_at=NOW)
    assert office.trace(journal=[copy]).where == "not_captured"
    applied = office.record(event, Verdict.APPLIED, applied_at=NOW, server="idm1")
    assert office.trace(journal=[applied, copy]).detail.startswith("applied")


def test_without_the_ops_key_it_is_unknown(tmp_path: Path) -> None:
    assert Whereabouts({GUID: None}, Notes(Keyring(tmp_path))).trace(user(), NOW).where == "unknown"


def row(state: State, trace: Trace | None = None, cause: Cause = Cause.NONE, name: str = "alice") -> Row:
    return Row.of(DOMAIN, user(name=name), Finding(state, cause=cause), trace)


@pytest.mark.parametrize(
    ("state", "trace", "cause", "advice"),
    [
        (State.BEHIND, Trace("not_captured"), Cause.NONE, "producer capture --user alice"),
        (State.BEHIND, Trace("in_flight"), Cause.NONE, "nothing: it comes by itself"),
        (State.BEHIND, Trace("dead:policy", reason=Reason.POLICY), Cause.NONE, "choose another password in AD"),
        (State.BEHIND, Trace("dead:user_missing", reason=Reason.USER_MISSING), Cause.NONE, "capture --user alice"),
        (State.BEHIND, Trace("not_captured"), Cause.ONE_SERVER, "passrelay settle"),
        (State.NEVER_SYNCED, Trace("not_captured"), Cause.IDM_NEWER, f"marker rebind alice --guid {GUID}"),
        (State.BEHIND, Trace("not_captured"), Cause.IDM_NEWER, "his next change in AD wins"),
        (State.NOT_IN_IDM, Trace("in_flight"), Cause.NONE, "create the user in IdM"),
        (State.NOT_IN_IDM, Trace("not_captured"), Cause.NONE, "create the user in IdM"),
        (State.CHANGED_IN_IDM, None, Cause.NONE, "marker reset alice --yes"),
        (State.UNEXPLAINED, Trace("unknown"), Cause.AHEAD, "raise the [[domain]] epoch"),
        (State.UNEXPLAINED, Trace("unknown"), Cause.SAME_VERSION, "if AD's password works in IdM, nothing"),
        (State.UNEXPLAINED, Trace("unknown"), Cause.IDENTITY, f"marker rebind alice --guid {GUID} --yes"),
        (State.BEHIND, Trace("unknown"), Cause.RENAMED, "ipa user-mod OLD --rename=NEW"),
        (State.UNEXPLAINED, Trace("unknown"), Cause.AMBIGUOUS, "match filter"),
    ],
)
def test_every_row_says_what_to_do(state: State, trace: Trace | None, cause: Cause, advice: str) -> None:
    assert advice in row(state, trace, cause).repair


def test_what_was_applied_and_is_gone_says_which_of_the_two_is_gone() -> None:
    applied = Trace("unknown", "applied at T on idm1", applied=True)
    assert row(State.BEHIND, applied).detail == "applied at T on idm1: the entry may be an older copy"
    assert row(State.NOT_IN_IDM, applied).detail == "applied at T on idm1: no entry has it any more"


def test_nothing_to_do_is_said_by_nothing() -> None:
    assert row(State.IN_SYNC).repair == row(State.EXCLUDED).repair == ""


def test_a_row_has_the_public_names() -> None:
    document = row(State.BEHIND, Trace("not_captured")).document()
    public = {"domain", "user", "state", "ad_kvno", "ad_changed_at", "applied_at", "where", "repair"}
    assert public <= set(document)
    assert (document["state"], document["ad_kvno"], document["where"]) == ("behind", 7, "not_captured")


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "\ta"])
def test_a_spreadsheet_never_sees_a_formula(name: str) -> None:
    stream = io.StringIO(newline="")
    sheet.write(stream, [row(State.BEHIND, name=name.replace("\t", "=")), row(State.BEHIND, name='a "b", c')])
    assert stream.getvalue().count("\r\n") == 3
    first, second = csv.DictReader(io.StringIO(stream.getvalue(), newline=""))
    assert list(first) == list(COLUMNS)
    assert first["user"].startswith("'")
    assert second["user"] == 'a "b", c'
