"""The cursor of a Samba source: kept as text, and not to be fooled by a database that went back in time."""

from __future__ import annotations

from uuid import UUID

import pytest

from passrelay_producer.sources.samba_cursor import WITNESSES, Cursor, newest
from passrelay_schemas.errors import ConfigurationError

HERE = UUID("d1ce9f41-6ea1-48ea-b113-52c6fb2b65f8")
THERE = UUID("0b6f0000-0000-4000-8000-0000000000e1")
ANNA, BERT, CARL, DORA = (UUID(int=number) for number in range(1, 5))
CURSOR = Cursor(b"\0MSDS", HERE, 4000, {ANNA: 3900, BERT: 3950})


def restored(
    cursor: Cursor = CURSOR, *, invocation_id: UUID = HERE, usn: int = 5000, **writes: int | None
) -> str | None:
    names = {"anna": ANNA, "bert": BERT, "carl": CARL, "dora": DORA}
    found = {names[name]: usn for name, usn in {"anna": 3900, "bert": 3950, **writes}.items() if usn != 0}
    return cursor.restored(invocation_id=invocation_id, usn=usn, writes=found)


def test_a_cursor_survives_the_spool() -> None:
    assert Cursor.parse(CURSOR.mapping()) == CURSOR
    broken = ({"cookie": "!"}, {"usn": "x"}, {"witnesses": "x"}, {"witnesses": f"{ANNA}:x"}, {"invocation_id": "x"})
    for values in ({}, {"line": "7"}, *(CURSOR.mapping() | part for part in broken)):
        with pytest.raises(ConfigurationError, match="producer init"):
            Cursor.parse(values)


def test_a_cursor_from_before_there_were_witnesses_is_one_without() -> None:
    values = CURSOR.mapping()
    del values["witnesses"]
    cursor = Cursor.parse(values)
    assert cursor == Cursor(b"\0MSDS", HERE, 4000)
    assert restored(cursor, carl=3990) is None
    assert restored(cursor, usn=3999) == "a lower USN"


def test_a_database_that_went_on_is_trusted() -> None:
    assert restored(usn=4000) is None
    assert restored(anna=4001, bert=4100, carl=4050) is None
    assert restored(anna=None, bert=None, carl=None) is None  # deleted, or with no password any more
    assert restored(carl=3899) is None  # changed since in something else: its password is older than all witnesses


def test_another_invocation_and_a_lower_usn_are_restores() -> None:
    assert restored(invocation_id=THERE) == "another invocation id"
    assert restored(usn=3999) == "a lower USN"


@pytest.mark.parametrize("bert", [3949, 3800, 0], ids=["lower", "much lower", "not changed since"])
def test_a_witness_that_went_back_is_a_restore(bert: int) -> None:
    assert restored(bert=bert) == "a password write that was read is gone"


@pytest.mark.parametrize("usn", [3901, 3950, 4000])
def test_a_write_that_was_never_read_under_a_number_that_was_is_a_restore(usn: int) -> None:
    assert restored(carl=usn) == "a password write under a USN that was read before"


def test_a_witness_whose_number_was_given_again_is_a_restore() -> None:
    assert restored(anna=3960) == "a password write under a USN that was read before"


def test_the_newest_writes_are_the_witnesses() -> None:
    many = {UUID(int=number): number for number in range(1, 101)}
    kept = newest(many, {UUID(int=5): 500})
    assert len(kept) == WITNESSES
    assert kept == {UUID(int=5): 500} | {UUID(int=number): number for number in range(100, 85, -1)}
    assert newest({ANNA: 7}, {ANNA: 3}) == {ANNA: 3}
