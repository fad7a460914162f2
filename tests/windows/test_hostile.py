"""Pointers and lengths that no LSASS would hand over: the process lives, and what is not captured is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from passrelay_schemas.sealing import Opener
from tests.windows.harness import Harness
from tests.windows.records import open_all, records

_FUZZ = int(os.environ.get("LAB_FUZZ", "5000"))
_AT_ONCE = 2500
_ANSWERED = "0 1"  # PasswordChangeNotify's NTSTATUS, PasswordFilter's TRUE
_FAULT = "an address that LSASS handed over, or the program itself, is at fault"
_LENGTH = "the password is longer than 256 characters or ends in half a character"

_UNREADABLE_STRING = ("string_low", "string_noncanonical", "string_unmapped", "string_torn")
_UNREADABLE_BUFFER = (
    "buffer_low",
    "buffer_kernel",
    "buffer_noncanonical",
    "buffer_torn",
    "buffer_guard",
    "buffer_freed",
)
_WRONG_LENGTH = ("length_one", "length_odd", "length_514", "length_most")
_ABSENT = ("null", "buffer_null", "length_zero")
_UNUSUAL = ("good", "string_odd", "buffer_odd", "length_512", "most_zero")
_ALL = (*_UNREADABLE_STRING, *_UNREADABLE_BUFFER, *_WRONG_LENGTH, *_ABSENT, *_UNUSUAL)


def _files(spool: Path) -> list[str]:
    """All that lies in the folder beside the slots."""
    return sorted(path.name for path in spool.iterdir() if path.name != "slots")


@pytest.mark.parametrize("kind", [*_UNREADABLE_STRING, *_UNREADABLE_BUFFER, *_WRONG_LENGTH])
def test_a_password_that_cannot_be_taken_is_named_by_its_rid(hook: Harness, spool: Path, kind: str) -> None:
    assert hook.ask("hostile", "password", kind, 1105) == _ANSWERED
    assert _files(spool) == []
    assert hook.lost == 1
    assert hook.status("LastLostRid") == "1105"
    assert hook.status("LastLostReason") == (_LENGTH if kind in _WRONG_LENGTH else _FAULT)
    hook.change(1106, "good again")
    assert len(_files(spool)) == 1


@pytest.mark.parametrize("kind", _ABSENT)
def test_no_password_is_nothing_to_carry(hook: Harness, spool: Path, kind: str) -> None:
    assert hook.ask("hostile", "password", kind, 1105) == _ANSWERED
    assert _files(spool) == []
    assert hook.lost == 0


@pytest.mark.parametrize("kind", _UNUSUAL)
def test_an_unusual_password_is_captured(hook: Harness, spool: Path, opener: Opener, kind: str) -> None:
    assert hook.ask("hostile", "password", kind, 1105) == _ANSWERED
    (captured,) = open_all(spool, opener)
    assert set(captured.password) <= {"x", "\u7800"}


@pytest.mark.parametrize("kind", _ALL)
def test_a_name_that_cannot_be_read_loses_nothing(hook: Harness, spool: Path, opener: Opener, kind: str) -> None:
    assert hook.ask("hostile", "name", kind, 1105) == _ANSWERED
    assert [(captured.rid, captured.password) for captured in open_all(spool, opener)] == [(1105, "good-one")]
    assert hook.lost == 0


def test_random_calls_are_all_answered(hook: Harness, spool: Path, opener: Opener) -> None:
    """Drained in between, as the source does it: a folder that fills makes every further file slower."""
    captured = 0
    for turn, first in enumerate(range(0, _FUZZ, _AT_ONCE)):
        calls = min(_AT_ONCE, _FUZZ - first)
        lost = hook.lost
        assert hook.ask("fuzz", 4711 + turn, calls) == f"{calls} 0"
        found = open_all(spool, opener)
        # A file for each call that is not named as lost, or had nothing to carry: no call ends without a word.
        assert 100 * calls // _AT_ONCE < len(found) <= calls - (hook.lost - lost)
        captured += len(found)
        for path in records(spool):
            path.unlink()
        assert _files(spool) == []
    print(f"{_FUZZ} calls: {captured} captured, {hook.lost} named as lost")
    hook.change(1105, "good again")
    (last,) = open_all(spool, opener)
    assert last.password == "good again"
