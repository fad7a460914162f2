"""Who is an administrator by his groups: asked of the controller once, and who nobody can tell of waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from ldap3.core.exceptions import (
    LDAPNoSuchAttributeResult,
    LDAPOperationsErrorResult,
    LDAPSocketReceiveError,
)

from passrelay_producer.filters import Rule
from passrelay_producer.sources import Excluded, Pending, PendingReason
from passrelay_producer.sources.samba_account import GroupsError, Listed, Reading
from passrelay_producer.sources.samba_directory import Change, SambaDirectory
from passrelay_producer.sources.samba_reader import Reader
from passrelay_producer.sources.samba_scope import SambaScope
from passrelay_producer.supplemental import OpenPgpKeyFile
from passrelay_schemas.errors import UnavailableError
from passrelay_schemas.filter_settings import FilterSettings
from tests.unit import test_supplemental
from tests.unit.test_samba_change import GUID, READING, SECRET_KEY, _Nothing

USERS, ADMINISTRATORS = "S-1-5-32-545", "S-1-5-32-544"
OTHER = UUID(int=7)


class Controller:
    """AD with two accounts, and the groups that it tells of them."""

    domain = "lab.example"

    def __init__(self) -> None:
        self.readings: dict[UUID, Reading] = {
            GUID: READING,
            OTHER: replace(READING, guid=OTHER, sid="S-1-5-21-1-2-3-1200", sam_account_name="bob"),
        }
        self.tokens: dict[UUID, frozenset[str] | Exception] = {}
        self.asked: list[UUID] = []

    def highest_usn(self) -> int:
        return 1

    def read(self, guid: UUID) -> Reading | None:
        return self.readings.get(guid)

    def accounts(self, guids: list[UUID] | None = None) -> list[tuple[UUID, Listed | None]]:
        return [(guid, self.readings[guid]) for guid in guids or self.readings]

    def token_groups(self, guid: UUID) -> frozenset[str]:
        self.asked.append(guid)
        found = self.tokens.get(guid, frozenset({USERS}))
        if isinstance(found, Exception):
            raise found
        return found


class _LeftOut(_Nothing):
    def is_excluded(self, guid: UUID) -> bool:
        return True


class Rig:
    def __init__(self, key: OpenPgpKeyFile) -> None:
        self.controller = Controller()
        self.scope = SambaScope(FilterSettings(), cast("Any", self.controller))
        self._key = key

    def reader(self, memory: _Nothing) -> Reader:
        return Reader(cast("Any", self.controller), memory, self.scope, self._key)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(test_supplemental.write_key(tmp_path / "key", SECRET_KEY))


CHANGES = [Change(GUID, password=True), Change(OTHER, password=True)]


def test_one_question_for_each_account_and_none_for_who_is_denied_already(rig: Rig) -> None:
    rig.controller.tokens[OTHER] = frozenset({USERS, ADMINISTRATORS})
    page = rig.reader(_Nothing()).page(CHANGES, {})
    assert [event.account.guid for event in page.events] == [GUID]
    assert page.excluded == [Excluded(Rule.DENIED, OTHER)]
    assert rig.controller.asked == [GUID, OTHER]
    rig.controller.readings[GUID] = replace(READING, admin_count=1)
    rig.controller.readings[OTHER] = replace(READING, guid=OTHER, groups=frozenset({ADMINISTRATORS}))
    rig.controller.asked.clear()
    page = rig.reader(_Nothing()).page(CHANGES, {})
    assert (page.events, [excluded.guid for excluded in page.excluded]) == ([], [GUID, OTHER])
    assert rig.controller.asked == []


def test_who_nobody_can_tell_of_waits_and_the_others_go_on(rig: Rig) -> None:
    rig.controller.tokens[GUID] = GroupsError("it shows none")
    writes: dict[UUID, int] = {}
    page = rig.reader(_Nothing()).page(CHANGES, writes)
    assert page.pending == [Pending(GUID, PendingReason.NO_GROUPS)]
    assert [event.account.guid for event in page.events] == [OTHER]
    assert set(writes) == {GUID, OTHER}  # or a restored database would be seen where there is none


def test_a_look_at_who_was_left_out_brings_who_left_the_group_and_counts_nobody_twice(rig: Rig) -> None:
    rig.controller.tokens[OTHER] = frozenset({USERS, ADMINISTRATORS})
    (page,) = rig.reader(_LeftOut()).come_in([GUID, OTHER])
    assert [event.account.guid for event in page.events] == [GUID]
    assert (page.excluded, page.resolved) == ([], [GUID])
    assert rig.controller.asked == [GUID, OTHER]


def test_capture_by_name_says_that_he_is_an_administrator(rig: Rig) -> None:
    assert rig.scope.why_not([GUID]) is None
    rig.controller.tokens[GUID] = frozenset({USERS, ADMINISTRATORS})
    assert rig.scope.why_not([GUID]) == "denied: member of Administrators, itself or through another group"


class Connection:
    """An LDAP connection with one answer to a search."""

    def __init__(self, answer: list[dict[str, Any]] | Exception) -> None:
        self._answer = answer
        self.response: list[dict[str, Any]] = []

    def search(self, *_: object, **__: object) -> None:
        if isinstance(self._answer, Exception):
            raise self._answer
        self.response = self._answer


def entry(*sids: bytes) -> list[dict[str, Any]]:
    return [{"type": "searchResEntry", "raw_attributes": {"tokenGroups": list(sids)}}]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], frozenset[str]]:
    def ask(answer: Any) -> frozenset[str]:
        directory = SambaDirectory(tmp_path / "ldapi")
        monkeypatch.setattr(directory, "_connection", Connection(answer))
        return directory.token_groups(GUID)

    return ask


SID = b"\x01\x02\0\0\0\0\0\x05\x20\0\0\0\x20\x02\0\0"


def test_token_groups_are_sids(asked: Callable[[Any], frozenset[str]]) -> None:
    assert asked(entry(SID)) == {ADMINISTRATORS}


@pytest.mark.parametrize(
    "answer",
    [
        [],
        entry(),
        entry(b""),
        entry(SID, SID[:9]),
        [{"type": "searchResRef"}],
        LDAPOperationsErrorResult(),
        LDAPNoSuchAttributeResult(),
    ],
    ids=["nobody", "not shown", "empty", "torn", "a referral", "an error", "no such attribute"],
)
def test_what_is_not_shown_is_not_taken_for_no_groups(asked: Callable[[Any], frozenset[str]], answer: Any) -> None:
    with pytest.raises(GroupsError):
        asked(answer)


def test_a_lost_connection_concerns_everybody(asked: Callable[[Any], frozenset[str]]) -> None:
    with pytest.raises(UnavailableError, match="read tokenGroups"):
        asked(LDAPSocketReceiveError("gone"))
