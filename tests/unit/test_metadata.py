"""replPropertyMetaData: parsed strictly, because the order of passwords rests on it."""

from __future__ import annotations

import contextlib
import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passrelay_producer.metadata import PWD_LAST_SET, UNICODE_PWD, MetadataError, Stamp, last_write, parse
from passrelay_schemas.filetime import UNITS_PER_SECOND

INVOCATION = UUID("d1ce9f41-6ea1-48ea-b113-52c6fb2b65f8")


def blob(*entries: tuple[int, int, int, UUID, int], version: int = 1, count: int | None = None) -> bytes:
    raw = struct.pack("<IIII", version, 0, len(entries) if count is None else count, 0)
    for attribute, number, seconds, invocation, usn in entries:
        raw += struct.pack("<IIQ16sQQ", attribute, number, seconds, invocation.bytes_le, usn, usn + 7)
    return raw


def test_version_time_and_writer_of_each_attribute() -> None:
    stamps = parse(
        blob((UNICODE_PWD, 2, 13440035200, INVOCATION, 3946), (PWD_LAST_SET, 3, 13440035201, INVOCATION, 3947))
    )
    assert stamps[UNICODE_PWD] == Stamp(2, 13440035200 * UNITS_PER_SECOND, INVOCATION, 3946, 3953)
    assert not stamps[UNICODE_PWD].same_write(stamps[PWD_LAST_SET])


def test_one_transaction_is_the_same_write() -> None:
    stamps = parse(blob((UNICODE_PWD, 2, 5, INVOCATION, 9), (PWD_LAST_SET, 8, 5, INVOCATION, 9)))
    assert stamps[UNICODE_PWD].same_write(stamps[PWD_LAST_SET])


def test_the_same_usn_on_another_controller_is_another_write() -> None:
    stamps = parse(blob((UNICODE_PWD, 2, 5, INVOCATION, 9), (PWD_LAST_SET, 8, 5, UUID(int=1), 9)))
    assert not stamps[UNICODE_PWD].same_write(stamps[PWD_LAST_SET])


def test_the_last_write_is_this_controllers_own_number_of_it() -> None:
    assert last_write(blob((UNICODE_PWD, 2, 5, INVOCATION, 9), (PWD_LAST_SET, 8, 5, UUID(int=1), 4))) == 16
    assert last_write(blob((0x3, 2, 5, INVOCATION, 900), (PWD_LAST_SET, 8, 5, UUID(int=1), 4))) == 11
    assert last_write(blob((0x3, 2, 5, INVOCATION, 900))) is None
    assert last_write(b"?") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        blob()[:15],
        blob(version=2),
        blob(count=1),
        blob((UNICODE_PWD, 1, 1, INVOCATION, 1))[:-1],
        blob((UNICODE_PWD, 1, 1, INVOCATION, 1)) + b"\0",
        blob((UNICODE_PWD, 1, 1, INVOCATION, 1), (UNICODE_PWD, 2, 1, INVOCATION, 1)),
        blob((UNICODE_PWD, 1, 2**63, INVOCATION, 1)),
        blob(count=2**32 - 1),
    ],
    ids=["empty", "cut header", "version", "missing entry", "cut entry", "surplus", "twice", "time", "huge count"],
)
def test_malformed_blobs_are_refused(raw: bytes) -> None:
    with pytest.raises(MetadataError):
        parse(raw)


@given(st.binary(max_size=200))
def test_any_bytes_give_stamps_or_the_typed_error(raw: bytes) -> None:
    with contextlib.suppress(MetadataError):
        parse(raw)
