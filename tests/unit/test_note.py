"""Notes: only the ops key's holder reads them, each belongs to its event, and they tell nothing by their size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_schemas import limits
from passrelay_schemas import note as notes
from passrelay_schemas.errors import EventError, MalformedError
from passrelay_schemas.keys import KeyUse, generate
from passrelay_schemas.note import NoteSealer, note_key_id, open_note
from passrelay_schemas.sealing import Opener, seal
from passrelay_schemas.strict_json import b64url, from_b64url
from tests.unit.builders import EVENT_ID, PASSWORD, Party, flipped

OPS, OPS_PRIVATE = generate(KeyUse.OPS)
OPS_OPENER = Opener(OPS, OPS_PRIVATE)
OTHER_ID = UUID("01940000-0000-7000-8000-00000000007b")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200).map(lambda text: text.rstrip(" ")))
def test_a_note_comes_back_and_all_notes_have_one_size(text: str) -> None:
    note = NoteSealer().seal(text, event_id=EVENT_ID, ops_key=OPS)
    assert open_note(note, event_id=EVENT_ID, opener=OPS_OPENER) == text
    assert len(note) == len(NoteSealer().seal("", event_id=EVENT_ID, ops_key=OPS))
    assert note_key_id(note) == OPS.key_id


@pytest.mark.parametrize("unit", ["x", "ü", "€", "\U0001f511", "a€", "ab\U0001f511"])
def test_a_long_note_is_cut_between_characters(unit: str) -> None:
    text = unit * limits.NOTE_BYTES
    opened = open_note(NoteSealer().seal(text, event_id=EVENT_ID, ops_key=OPS), event_id=EVENT_ID, opener=OPS_OPENER)
    assert text.startswith(opened)
    assert limits.NOTE_BYTES - 4 < len(opened.encode()) <= limits.NOTE_BYTES


def test_a_note_takes_text_that_is_no_unicode() -> None:
    note = NoteSealer().seal("a\ud800b", event_id=EVENT_ID, ops_key=OPS)
    assert open_note(note, event_id=EVENT_ID, opener=OPS_OPENER) == "a?b"


def test_a_note_is_bound_to_its_event_and_its_key() -> None:
    note = NoteSealer().seal("alice", event_id=EVENT_ID, ops_key=OPS)
    with pytest.raises(MalformedError):
        open_note(note, event_id=OTHER_ID, opener=OPS_OPENER)
    other, private = generate(KeyUse.OPS)
    with pytest.raises(MalformedError):
        open_note(note, event_id=EVENT_ID, opener=Opener(other, private))


def test_a_note_cannot_be_opened_as_an_event_and_no_event_as_a_note() -> None:
    party = Party()
    note = NoteSealer().seal(PASSWORD, event_id=EVENT_ID, ops_key=party.recipient)
    protected = party.seal().protected
    with pytest.raises(MalformedError):
        party.opener.open(from_b64url(note.split(".")[1], what="note"), info=protected)
    with pytest.raises(MalformedError):
        open_note(f"x.{b64url(party.seal().sealed[0])}", event_id=EVENT_ID, opener=party.opener)


@given(note=st.text(max_size=50) | st.text(st.sampled_from("QR.-_=+/ "), max_size=50))
def test_what_is_no_note_is_malformed(note: str) -> None:
    with pytest.raises(EventError):
        open_note(note, event_id=EVENT_ID, opener=OPS_OPENER)


def test_a_note_that_was_changed_is_not_opened() -> None:
    key_id, sealed_key, text = NoteSealer().seal("alice", event_id=EVENT_ID, ops_key=OPS).split(".")
    for changed in (
        f"{key_id}.{b64url(flipped(from_b64url(sealed_key, what='key'), 40))}.{text}",
        f"{key_id}.{sealed_key}.{b64url(flipped(from_b64url(text, what='text'), 40))}",
        f"{key_id}.{sealed_key}.{text[:8]}",
        f"{key_id}.{b64url(seal(b'short', info=b'passrelay.note-key/1', recipient=OPS))}.{text}",
        f"{key_id}.{sealed_key}.{text}.{text}",
        key_id,
    ):
        with pytest.raises(MalformedError):
            open_note(changed, event_id=EVENT_ID, opener=OPS_OPENER)


def test_a_note_of_the_version_before_opens() -> None:
    sealed = seal(b"alice".ljust(limits.NOTE_BYTES), info=b"passrelay.note/1 " + str(EVENT_ID).encode(), recipient=OPS)
    note = f"{OPS.key_id}.{b64url(sealed)}"
    assert open_note(note, event_id=EVENT_ID, opener=OPS_OPENER) == "alice"
    with pytest.raises(MalformedError):
        open_note(note, event_id=OTHER_ID, opener=OPS_OPENER)


def test_one_key_serves_many_notes_and_no_two_have_one_nonce() -> None:
    sealer = NoteSealer()
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: sealer.seal("same", event_id=EVENT_ID, ops_key=OPS), range(400)))
    keys, texts = ({note.split(".")[part] for note in made} for part in (1, 2))
    assert len(keys) == 1
    assert len({from_b64url(text, what="text")[:12] for text in texts}) == 400


def test_a_key_is_renewed_with_the_ops_key_in_time_and_after_many_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    def key_of(note: str) -> str:
        return note.split(".")[1]

    sealer, (other, private) = NoteSealer(), generate(KeyUse.OPS)
    first = sealer.seal("a", event_id=EVENT_ID, ops_key=OPS)
    second = sealer.seal("b", event_id=EVENT_ID, ops_key=other)
    assert open_note(first, event_id=EVENT_ID, opener=OPS_OPENER) == "a"
    assert open_note(second, event_id=EVENT_ID, opener=Opener(other, private)) == "b"
    monkeypatch.setattr(notes, "_MOST_NOTES", 2)
    sealer = NoteSealer()
    made = [key_of(sealer.seal("c", event_id=uuid4(), ops_key=OPS)) for _ in range(5)]
    assert [made.count(key) for key in dict.fromkeys(made)] == [2, 2, 1]
    monkeypatch.setattr(notes, "_MOST_SECONDS", -1)
    sealer = NoteSealer()
    assert len({key_of(sealer.seal("d", event_id=EVENT_ID, ops_key=OPS)) for _ in range(3)}) == 3


def test_nothing_of_a_note_key_shows() -> None:
    sealer = NoteSealer()
    sealer.seal("alice", event_id=EVENT_ID, ops_key=OPS)
    assert "alice" not in repr(vars(sealer))
    assert OPS.key_id not in repr(sealer._key)


def test_the_key_of_many_notes_is_opened_once() -> None:
    class Counting(Opener):
        opened = 0

        def open(self, sealed: bytes, *, info: bytes) -> bytes:
            Counting.opened += 1
            return super().open(sealed, info=info)

    sealer, opener = NoteSealer(), Counting(OPS, OPS_PRIVATE)
    for number in range(5):
        note = sealer.seal(f"user{number}", event_id=EVENT_ID, ops_key=OPS)
        assert open_note(note, event_id=EVENT_ID, opener=opener) == f"user{number}"
    assert Counting.opened == 1
