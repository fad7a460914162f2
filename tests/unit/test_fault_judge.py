"""The campaign's own checks find what they should."""

from __future__ import annotations

from uuid import UUID

import pytest

from passrelay_schemas.marker import Marker
from tests.faults.judge import Stored, Truth, compare, matches
from tests.lab.directory_template import hashed

GUID, EVENT = UUID(int=1), UUID(int=2)
TRUTH = Truth("u1", 7, "newest", ("oldest", "older", "old"))


def _marker(kvno: int) -> str:
    return str(Marker(0, kvno, 1, GUID, EVENT, "2026-01-01T00:00:00.000Z"))


def _details(found: Stored | None) -> list[tuple[str, str]]:
    return [(finding.check, finding.detail) for finding in compare(TRUTH, found, "a")]


def test_a_stored_password_is_known_and_no_other() -> None:
    assert matches(hashed("newest"), "newest")
    assert not matches(hashed("newest"), "Newest")
    assert not matches("{CLEAR}newest", "newest")


def test_what_ad_has_is_no_finding() -> None:
    assert _details(Stored(hashed("newest"), _marker(7), _marker(7))) == []


@pytest.mark.parametrize("found", [None, Stored(None, _marker(7), _marker(7)), Stored(hashed("newest"), None, None)])
def test_nothing_there_is_lost(found: Stored | None) -> None:
    assert [check for check, _ in _details(found)] == ["lost"]


@pytest.mark.parametrize(
    ("password", "marker", "proof", "words"),
    [
        ("newest", 6, 6, "marker at version 6, AD has 7"),
        ("newest", 7, 6, "two changes (7, 6)"),
        ("old", 7, 7, "the password 1 before the newest still works"),
        ("oldest", 7, 7, "the password 3 before the newest still works"),
        ("forged", 7, 7, "the newest password is not the stored one"),
    ],
)
def test_what_is_older_or_nobodys_is_stale(password: str, marker: int, proof: int, words: str) -> None:
    [(check, detail)] = _details(Stored(hashed(password), _marker(marker), _marker(proof)))
    assert check == "stale"
    assert words in detail
