"""A turn: the next events in order, each signed by itself with the key of its own producer, all at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from passrelay_producer.capture import seal_page
from passrelay_producer.identity import Identity
from passrelay_producer.sources import Page
from passrelay_producer.spool import Spool
from passrelay_producer.turns import READ, TurnMaker
from passrelay_schemas.envelope import Envelope
from passrelay_schemas.errors import KeyFileError, UnavailableError
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Log
from passrelay_schemas.signing import verify
from passrelay_schemas.source_settings import SpoolSettings
from tests.lab.enrolment import Enrolment, change
from tests.lab.folder import canary_password


class Desk:
    """A spool and the keys of the producers dc1 and dc2."""

    def __init__(self, folder: Path) -> None:
        enrolment = Enrolment(folder)
        enrolment.enrol("dc1")
        self.consumers = enrolment.consumer_keys
        self.identity = Identity(enrolment.producer_keys("dc1"), log=Log("test"))
        self.spool = Spool(SpoolSettings(path=folder / "spool" / "spool.sqlite"))
        self.turns = TurnMaker(self.spool, self.identity)

    def add(self, count: int, producer: str = "dc1") -> list[str]:
        """Spool events; their ids in order."""
        events = [change("anna", canary_password(), guid=uuid4(), kvno=1, changed_at=1) for _ in range(count)]
        page = seal_page(Page(events=events), producer=producer, recipient=self.identity.recipient())
        self.spool.commit(page.page, page.sealed)
        return [str(result) for result in page.results]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.spool.close()


def test_each_event_is_signed_by_itself_and_all_at_one_moment(desk: Desk) -> None:
    ids = desk.add(5)
    before = datetime.now(UTC)
    turn = desk.turns.make(0, set(), 3)
    assert [signed.event_id for signed in turn.events] == ids[:3]
    envelopes = [Envelope.parse(signed.body) for signed in turn.events]
    keyring = Keyring(desk.consumers)
    for signed, envelope in zip(turn.events, envelopes, strict=True):
        verify(envelope, keyring.signing_key(envelope.signer.signing_key_id))
        assert (str(envelope.event_id), envelope.header.producer) == (signed.event_id, signed.producer)
    assert len({envelope.signature for envelope in envelopes}) == 3
    (moment,) = {envelope.signed_at for envelope in envelopes}
    assert before <= moment <= datetime.now(UTC)
    rest = desk.turns.make(turn.after, set(), 3)
    assert [signed.event_id for signed in rest.events] == ids[3:]
    end = desk.turns.make(rest.after, set(), 3)
    assert (rest.more, end.more, end.events, end.after) == (False, False, (), rest.after)
    assert turn.more


def test_what_is_held_is_passed_over_however_much_it_is(desk: Desk) -> None:
    ids = desk.add(8)
    places = [queued.seq for queued in desk.spool.queued(0, 8)]
    turn = desk.turns.make(0, {*places[:5], places[6]}, 2)
    assert [signed.event_id for signed in turn.events] == [ids[5]]
    assert [signed.event_id for signed in desk.turns.make(turn.after, {places[6]}, 2).events] == [ids[7]]


def test_without_a_key_of_their_own_name_events_are_left_out_and_the_others_are_not(desk: Desk) -> None:
    first, _, last = desk.add(1), desk.add(2, "gone"), desk.add(1)
    turn = desk.turns.make(0, set(), 10)
    assert [signed.event_id for signed in turn.events] == [*first, *last]
    assert {step: type(error) for step, error in turn.steps.items()} == {
        READ: type(None),
        "sign for dc1": type(None),
        "sign for gone": KeyFileError,
    }


def test_a_turn_of_nothing_but_events_without_a_key_is_not_the_end(desk: Desk) -> None:
    desk.add(4, "gone")
    last = desk.add(1)
    turn = desk.turns.make(0, set(), 4)
    assert (turn.more, turn.events) == (True, [])
    assert [signed.event_id for signed in desk.turns.make(turn.after, set(), 4).events] == last


def test_a_spool_that_is_held_by_another_process_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    error = UnavailableError("another process holds it")

    def held(after_seq: int, limit: int) -> None:
        raise error

    desk.add(1)
    monkeypatch.setattr(desk.spool, "queued", held)
    turn = desk.turns.make(7, set(), 4)
    assert (turn.after, turn.more, turn.events, turn.steps) == (7, False, (), {READ: error})
