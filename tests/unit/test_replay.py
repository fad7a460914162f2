"""Which letters a replay takes, what becomes of a letter, and how letters look: values in, values out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from passrelay_consumer.decide import Entry, own_write
from passrelay_ops import letter_pages
from passrelay_ops.confirmed import Outgoing, Sent
from passrelay_ops.dead_letters import KEPT, Letter, Letters, State
from passrelay_ops.letter_desk import selection_of
from passrelay_ops.letter_export import FIELDS, harmless, write_csv
from passrelay_ops.letter_story import MEANINGS, story
from passrelay_ops.operator_act import MOST_WORDS, Act
from passrelay_ops.replay import Course, Done, Sealed
from passrelay_ops.replay_plan import MOST_REPLAYS, plan
from passrelay_ops.selection import Selection
from passrelay_ops.standing import Standing, standing
from passrelay_ops.stream import StreamMessage
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import from_datetime, rfc3339
from passrelay_schemas.marker import FLOOR, Marker
from passrelay_schemas.message import REPLAYS, record_properties
from passrelay_schemas.record import Record, decode
from passrelay_schemas.topology import DEAD, EVENTS, queues
from passrelay_schemas.verdict import Reason, Verdict
from tests.faults.letters import rate_reached

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
GUID = uuid4()
RUNBOOK = Path(__file__).parents[2] / "docs/runbooks/dead-letters.md"


def letter(event_id: UUID | None = None, **changes: object) -> Letter:
    fields: dict[str, object] = {
        "event_id": event_id or new_event_id(),
        "offset": 1,
        "producer": "dc1",
        "domain": "lab.example",
        "reason": "policy",
        "attempts": 3,
        "replays": 0,
        "failures": 1,
        "first_failed_at": NOW,
        "last_failed_at": NOW,
        "account": "alice",
        "guid": GUID,
    }
    return Letter(**(fields | changes))  # type: ignore[arg-type]


# --- what became of a letter


def told(*records: Record) -> Letter:
    """The one letter that a stream of these records tells of."""
    messages = [
        StreamMessage(offset, record.encode(), record_properties(record)) for offset, record in enumerate(records)
    ]
    [found] = Letters(None, print).read(messages).by_first_failure()
    return found


def dead(event_id: UUID, replays: int = 0) -> Record:
    return Record(event_id=event_id, verdict=Verdict.DEAD, reason="policy", replays=replays, received_at=NOW)


def act(event_id: UUID, verdict: Verdict, replays: int) -> Record:
    return Act("eva@office", "repaired").record(letter(event_id), verdict, replays=replays)


ID = new_event_id()
REPLAYED, DISCARDED = Verdict.REPLAYED, Verdict.DISCARDED


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ([dead(ID), act(ID, REPLAYED, 1)], State.REPLAYED),
        ([dead(ID), act(ID, DISCARDED, 0)], State.DISCARDED),
        ([dead(ID), act(ID, REPLAYED, 1), dead(ID, 1)], State.LIVE),
        # It failed again before the record of its replay was written: it must not vanish behind that record.
        ([dead(ID), dead(ID, 1), act(ID, REPLAYED, 1)], State.LIVE),
        ([dead(ID), dead(ID, 1), act(ID, REPLAYED, 1), act(ID, REPLAYED, 2)], State.REPLAYED),
        # Two operators at once: what was replayed is on its way, whoever else wrote what.
        ([dead(ID), act(ID, DISCARDED, 0), act(ID, REPLAYED, 1)], State.REPLAYED),
        ([dead(ID), act(ID, REPLAYED, 1), act(ID, DISCARDED, 0)], State.REPLAYED),
        # The discard is of the failure that its operator saw, not of a later one.
        ([dead(ID), dead(ID, 1), act(ID, DISCARDED, 0)], State.LIVE),
        ([dead(ID), act(ID, DISCARDED, 0), dead(ID)], State.LIVE),
    ],
)
def test_the_state_follows_from_the_stream_alone(records: list[Record], state: State) -> None:
    assert told(*records).state is state


def test_replays_are_counted_by_their_records_too() -> None:
    assert told(dead(ID), act(ID, REPLAYED, 3), dead(ID)).replays == 3


# --- the letter and its entry


def entry(marker: Marker | None = None, last_change: datetime | None = None, proof: Marker | None = None) -> Entry:
    return Entry("uid=alice", marker=marker, proof=proof, last_change=last_change)


def marker(changed: datetime, *, applied: datetime = NOW, event_id: UUID | None = None, **fields: object) -> Marker:
    known = Marker(0, 7, from_datetime(changed), GUID, event_id or new_event_id(), rfc3339(applied))
    return replace(known, **fields)  # type: ignore[arg-type]


THIS = letter()


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (entry(), Standing.DUE),
        (entry(marker(NOW - HOUR)), Standing.DUE),
        (entry(marker(NOW - HOUR, event_id=THIS.event_id)), Standing.SUPERSEDED),
        (entry(marker(NOW + HOUR)), Standing.SUPERSEDED),
        (entry(marker(NOW + HOUR, flags=frozenset({FLOOR}))), Standing.DUE),
        (entry(marker(NOW - HOUR, guid=uuid4())), Standing.FAILS_AGAIN),
        (entry(None, NOW - HOUR), Standing.DUE),
        (entry(None, NOW + HOUR), Standing.NEVER_WRITTEN),
        (entry(marker(NOW - HOUR), NOW + HOUR), Standing.CHANGED_IN_IDM),
        # IdM's time of the password is that of our own write: nobody else has changed it.
        (entry(marker(NOW - HOUR, applied=NOW + HOUR), NOW + HOUR), Standing.DUE),
        (
            entry(
                marker(NOW - HOUR, applied=NOW + 2 * HOUR, flags=frozenset({FLOOR})),
                NOW + HOUR,
                proof=marker(NOW - HOUR, applied=NOW + HOUR),
            ),
            Standing.DUE,
        ),
    ],
)
def test_standing(of: Entry, expected: Standing) -> None:
    assert standing(THIS, of, idm_newer_wins=True) is expected


def test_a_write_that_a_slow_server_answered_late_is_our_own() -> None:
    late = entry(marker(NOW - HOUR, applied=NOW + HOUR), NOW + HOUR + timedelta(seconds=20))
    assert standing(THIS, late, idm_newer_wins=True, ours_within=own_write(20)) is Standing.DUE
    assert standing(THIS, late, idm_newer_wins=True, ours_within=own_write(5)) is Standing.CHANGED_IN_IDM


def test_where_ad_wins_an_entry_without_a_marker_can_be_overwritten() -> None:
    assert standing(THIS, entry(None, NOW + HOUR), idm_newer_wins=False) is Standing.CHANGED_IN_IDM


def test_a_made_up_id_tells_no_time() -> None:
    assert standing(letter(uuid4()), entry(), idm_newer_wins=True) is Standing.NOT_KNOWN


# --- the plan


@pytest.mark.parametrize(
    ("found", "overwrite", "taken"),
    [
        (Standing.DUE, False, True),
        (Standing.SUPERSEDED, False, True),
        # A key that is not here, or a letter of the broker itself, must not decide whose password is overwritten.
        (Standing.NOT_KNOWN, False, False),
        (Standing.NOT_KNOWN, True, True),
        (Standing.CHANGED_IN_IDM, False, False),
        (Standing.CHANGED_IN_IDM, True, True),
        (Standing.NEVER_WRITTEN, False, False),
        (Standing.NEVER_WRITTEN, True, False),
    ],
)
def test_what_was_changed_in_idm_is_left_out(found: Standing, overwrite: bool, taken: bool) -> None:
    made = plan([letter()], lambda _: found, overwrite_idm=overwrite)
    assert (len(made.letters), len(made.left_out)) == ((1, 0) if taken else (0, 1))
    assert all("--overwrite-idm" in one.repair or "marker rebind" in one.repair for one in made.left_out)


def test_the_printed_rebind_can_be_run_as_it_stands() -> None:
    (out,) = plan([letter(account="ann lee")], lambda _: Standing.NEVER_WRITTEN).left_out
    assert f"`passrelay idm marker rebind 'ann lee' --guid {GUID} --yes --domain lab.example`" in out.repair
    # A letter whose note or header could not be read.
    (out,) = plan([letter(account=None, guid=None, domain=None)], lambda _: Standing.NEVER_WRITTEN).left_out
    assert "`passrelay idm marker rebind USER --guid GUID --yes`" in out.repair


def test_nobody_replays_for_ever() -> None:
    made = plan([letter(replays=MOST_REPLAYS), letter(replays=MOST_REPLAYS - 1)], lambda _: Standing.DUE)
    assert (len(made.letters), len(made.left_out)) == (1, 1)
    assert "dead show" in made.left_out[0].repair


def test_the_limit_takes_the_first_and_asks_no_further() -> None:
    asked: list[Letter] = []

    def ask(one: Letter) -> Standing:
        asked.append(one)
        return Standing.DUE

    letters = [letter() for _ in range(5)]
    made = plan(letters, ask, limit=2)
    assert [one.event_id for one in made.letters] == [one.event_id for one in letters[:2]]
    assert (made.beyond_limit, len(asked)) == (3, 2)


def test_the_trials_rate_is_that_of_all_batches_but_one() -> None:
    """tests/faults/letters.py judges --rate by it."""
    one = act(ID, REPLAYED, 1)
    moments = [NOW + timedelta(seconds=number // 100 * 0.2) for number in range(1000)]
    acts = [one.model_copy(update={"received_at": moment}) for moment in moments]
    assert rate_reached(acts, at_once=100) == pytest.approx(500)
    assert rate_reached(acts[:100], at_once=100) is None
    assert rate_reached([], at_once=100) is None


@pytest.mark.parametrize("why", [None, "", "  \n", "x" * (MOST_WORDS + 1)])
def test_an_act_needs_a_reason(why: str | None) -> None:
    with pytest.raises(ConfigurationError, match="--reason-text"):
        Act.of(why)


def test_selection_by_attempts_and_ids() -> None:
    one = letter(attempts=5)
    assert Selection(attempts=5).takes(one)
    assert not Selection(attempts=6).takes(one)
    assert Selection(ids=frozenset({one.event_id})).takes(one)
    assert not Selection(ids=frozenset({uuid4()})).takes(one)


EVERY = dict.fromkeys(("reason", "producer", "domain", "user", "ids", "attempts", "older_than", "younger_than"))


def select(**options: str | None) -> Selection:
    return selection_of(**(EVERY | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["older_than", "younger_than", "domain", "producer", "user"])
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_option_is_refused_and_never_selects_more(option: str, empty: str) -> None:
    """A variable that a script has not set would else discard every letter."""
    with pytest.raises(ConfigurationError, match=f"--{option.replace('_', '-')}"):
        select(reason="policy", **{option: empty})


def test_options_that_are_left_out_select_all() -> None:
    assert select() == Selection()
    assert select(domain="Lab.Example.").domain == "lab.example"
    with pytest.raises(ConfigurationError, match="--domain"):
        select(domain=".")


# --- how they look


def test_letters_near_their_end_are_told_aloud_but_not_users_who_are_not_in_idm() -> None:
    old = NOW - KEPT + timedelta(days=3)
    letters = [
        letter(last_failed_at=old),
        letter(last_failed_at=old, reason="user_missing"),
        letter(last_failed_at=old, state=State.DISCARDED),
        letter(),
    ]
    soon = letter_pages.expiring(letters, NOW)
    assert soon == {"letters": 1, "user_missing": 1}
    assert "1 letters" in str(letter_pages.warning(soon))
    assert letter_pages.warning({"letters": 0, "user_missing": 7}) is None
    text = "".join(letter_pages.lists(letters, NOW))
    assert [line.endswith("!") for line in text.splitlines()[1:]] == [True, True, False, False]


def test_letters_are_kept_as_long_as_the_stream_keeps_them() -> None:
    [stream] = [queue for queue in queues() if queue.name == DEAD]
    assert stream.arguments["x-max-age"] == f"{KEPT.days}D"


def test_every_reason_is_told_in_plain_words_and_in_the_runbook() -> None:
    assert set(MEANINGS) == set(Reason)
    text = RUNBOOK.read_text()
    assert [reason for reason in Reason if f"`{reason}`" not in text] == []


def test_the_story_ends_with_what_to_do() -> None:
    fields = {"received_at": "T", "verdict": "dead", "reason": "policy", "attempts": 1, "diagnostic": "too short"}
    [first, failed, advice] = story(letter(), [fields], NOW)
    assert first.startswith("A password change of alice in lab.example, captured by dc1")
    assert "IdM does not accept this password (too short)" in failed
    assert "choose another password" in advice
    done = {"received_at": "T", "verdict": "replayed", "by": "eva", "why": "repaired"}
    *_, act_line, advice = story(letter(state=State.REPLAYED), [fields, done], NOW)
    assert act_line == "T: sent again by eva: repaired"
    assert "passrelay status alice" in advice


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\uff1d1", " =1"])
def test_no_cell_is_a_formula(evil: str) -> None:
    out = io.StringIO()
    assert write_csv([dict.fromkeys(FIELDS, evil)], out) == 1
    [_, cells] = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    assert not any(cell.strip().startswith(("=", "+", "-", "@", "\uff1d")) for cell in cells)


def test_cells_keep_quotes_commas_and_lines_but_nothing_that_a_terminal_obeys() -> None:
    out = io.StringIO()
    row = dict.fromkeys(FIELDS, 'a "b", c\nd\x1b[2J') | {"diagnostic": None}
    write_csv([row], out)
    [_, cells] = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    assert cells[0] == 'a "b", c\nd\N{REPLACEMENT CHARACTER}[2J'
    assert out.getvalue().count("\r\n") == 2
    assert harmless(None) == ""


# --- the course of a replay


class Channel:
    """A broker that takes everything at once, but not what is published to the exchange `refuses`."""

    def __init__(self, refuses: str = "") -> None:
        self.published: list[Outgoing] = []
        self.refuses = refuses

    def send(self, messages: Iterable[Outgoing]) -> Sent:
        places = list(messages)
        self.published += places
        return Sent(safe={place for place, message in enumerate(places) if message.exchange != self.refuses})

    def settle(self, sent: Sent) -> set[int]:
        return sent.safe

    def records(self) -> list[Record]:
        return [decode(message.body) for message in self.published if message.exchange == DEAD]


def test_a_letter_that_fails_anew_before_its_record_is_recorded_as_it_was() -> None:
    channel, done = Channel(), Done()
    course = Course(channel, channel, Act("eva@office", "repaired"), done)
    first, second = Sealed(letter(reason="policy"), 1, b"{}"), Sealed(letter(), 2, b"{}")
    course.publish([first])
    first.letter.replays, first.letter.reason = 1, "revoked"  # what the stream tells before the next batch
    course.publish([second])
    course.finish()
    assert [(record.replays, record.reason) for record in channel.records()] == [(1, "policy"), (1, "policy")]
    assert done.replayed == 2


def test_the_consumer_is_told_how_often_it_was_replayed() -> None:
    channel = Channel()
    course = Course(channel, channel, Act("eva@office", "repaired"), Done())
    course.publish([Sealed(letter(replays=2), 1, b"{}")])
    assert [message.properties.headers[REPLAYS] for message in channel.published] == [3]


def test_a_record_that_the_broker_does_not_take_is_not_counted() -> None:
    channel, done = Channel(refuses=DEAD), Done()
    course = Course(channel, channel, Act("eva@office", "repaired"), done)
    course.publish([Sealed(letter(), 1, b"{}")])
    with pytest.raises(UnavailableError, match="did not take 1"):
        course.finish()
    assert done.replayed == 0


def test_what_somebody_dealt_with_or_what_failed_anew_is_not_due() -> None:
    event_id = new_event_id()
    live, discarded = told(dead(event_id)), told(dead(event_id), act(event_id, DISCARDED, 0))
    assert Sealed(live, 0, b"{}").is_due
    assert not Sealed(discarded, 0, b"{}").is_due
    assert not Sealed(told(dead(event_id), dead(event_id, 1)), 0, b"{}").is_due


def test_no_record_says_replayed_of_a_letter_that_the_broker_did_not_take() -> None:
    channel, done = Channel(refuses=EVENTS), Done()
    course = Course(channel, channel, Act("eva@office", "repaired"), done)
    course.publish([Sealed(letter(), 1, b"{}")])
    with pytest.raises(UnavailableError, match="did not take 1"):
        course.publish([Sealed(letter(), 2, b"{}")])
    assert not channel.records()
    assert done.replayed == 0


def test_what_was_taken_is_on_record_before_anybody_is_told_of_a_failure() -> None:
    channel, done = Channel(), Done()
    course = Course(channel, channel, Act("eva@office", "repaired"), done)
    course.publish([Sealed(letter(), 1, b"{}")])
    channel.refuses = EVENTS
    course.publish([Sealed(letter(), 2, b"{}")])
    with pytest.raises(UnavailableError, match="did not take 1"):
        course.finish()
    assert len(channel.records()) == done.replayed == 1
