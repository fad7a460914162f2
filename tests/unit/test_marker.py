"""The marker: what is parsed is exactly what stands in the entry, or it is refused."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_schemas.errors import MarkerError
from passrelay_schemas.marker import FLOOR, MUST_CHANGE_DONE, Marker
from passrelay_schemas.order import OrderKey
from tests.unit.builders import CHANGED_AT, EVENT_ID, GUID

TEXT = f"1 0 7 {CHANGED_AT} {GUID} {EVENT_ID} 2026-11-24T22:42:33.120Z -"

markers = st.builds(
    Marker,
    epoch=st.integers(0, 2**31),
    kvno=st.integers(0, 2**32 - 1),
    changed_at=st.integers(0, 2_650_467_743_999_999_999),
    guid=st.uuids(),
    event_id=st.uuids(),
    applied_at=st.datetimes().map(lambda moment: f"{moment.isoformat(timespec='milliseconds')}Z"),
    flags=st.frozensets(st.sampled_from([MUST_CHANGE_DONE, FLOOR])),
)


def with_field(position: int, value: str) -> str:
    fields = TEXT.split(" ")
    fields[position] = value
    return " ".join(fields)


@given(marker=markers)
def test_round_trip(marker: Marker) -> None:
    assert Marker.parse(str(marker)) == marker
    assert len(str(marker)) < 256


@given(text=st.text(max_size=40) | st.text(st.sampled_from(TEXT), max_size=160))
def test_what_is_no_marker_is_a_marker_error(text: str) -> None:
    with pytest.raises(MarkerError):
        Marker.parse(text)


@given(position=st.integers(0, len(TEXT) - 1), character=st.characters())
def test_a_changed_character_is_refused_or_read_as_it_stands(position: int, character: str) -> None:
    text = TEXT[:position] + character + TEXT[position + 1 :]
    try:
        marker = Marker.parse(text)
    except MarkerError:
        return
    assert str(marker) == text  # the compare-and-set deletes str(marker): it must be what the entry holds


def test_the_documented_form_is_read() -> None:
    marker = Marker.parse(TEXT)
    assert (marker.epoch, marker.kvno, marker.changed_at) == (0, 7, CHANGED_AT)
    assert (marker.guid, marker.event_id, marker.flags) == (GUID, EVENT_ID, frozenset())
    assert marker.key == OrderKey.of(epoch=0, kvno=7, changed_at=CHANGED_AT, event_id=marker.event_id)
    assert marker.key.changed_at == CHANGED_AT


BROKEN = {
    "empty": "",
    "version 2": with_field(0, "2"),
    "version missing": TEXT[2:],
    "field missing": TEXT.rsplit(" ", 1)[0],
    "field more": TEXT + " -",
    "two blanks": TEXT.replace(" ", "  ", 1),
    "tab": TEXT.replace(" ", "\t", 1),
    "blank at the start": " " + TEXT,
    "newline at the end": TEXT + "\n",
    "changed_at beyond 9999": with_field(3, "2650467744000000000"),
    "epoch negative": with_field(1, "-1"),
    "epoch empty": with_field(1, ""),
    "epoch plus": with_field(1, "+1"),
    "kvno leading zero": with_field(2, "07"),
    "kvno underscore": with_field(2, "1_0"),
    "kvno foreign digits": with_field(2, "1\u0662"),
    "kvno superscript": with_field(2, "\u00b2"),
    "kvno float": with_field(2, "7.0"),
    "changed_at too long": with_field(3, "1" * 20),
    "changed_at hexadecimal": with_field(3, "0x10"),
    "guid short": with_field(4, str(GUID)[:-1]),
    "guid braces": with_field(4, f"{{{GUID}}}"),
    "guid urn": with_field(4, GUID.urn),
    "guid without hyphens": with_field(4, GUID.hex),
    "guid upper case": with_field(4, str(GUID).upper()),
    "guid text": with_field(4, "alice"),
    "event id upper case": with_field(5, str(UUID(int=0xA)).upper()),
    "event id text": with_field(5, "-"),
    "applied_at text": with_field(6, "-"),
    "applied_at no time": with_field(6, "2026-99-24T22:42:33.120Z"),
    "applied_at hour 25": with_field(6, "2026-11-24T25:42:33.120Z"),
    "applied_at offset": with_field(6, "2026-11-24T22:42:33.120+00:00"),
    "applied_at microseconds": with_field(6, "2026-11-24T22:42:33.120000Z"),
    "applied_at foreign digits": with_field(6, "202\u0666-11-24T22:42:33.120Z"),
    "flags empty": with_field(7, ""),
    "flags unknown": with_field(7, "y"),
    "flags unknown beside a known": with_field(7, "xy"),
    "flags doubled": with_field(7, "xx"),
    "flags with a dash": with_field(7, "x-"),
    "flags two dashes": with_field(7, "--"),
    "flags in another order": with_field(7, "xf"),
    "flags upper case": with_field(7, "X"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_malformed_field_is_refused(case: str) -> None:
    with pytest.raises(MarkerError):
        Marker.parse(BROKEN[case])


def test_with_flag_adds_one_flag_and_changes_nothing_else() -> None:
    marker = Marker.parse(TEXT)
    done = marker.with_flag(MUST_CHANGE_DONE)
    assert str(done) == with_field(7, "x")
    assert done.with_flag(MUST_CHANGE_DONE) == done
    assert str(done.with_flag(FLOOR)) == with_field(7, "fx")
    assert marker.flags == frozenset()
