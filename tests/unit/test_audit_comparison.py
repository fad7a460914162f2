"""A whole domain compared: races, lagging controllers, silent servers, and memory that stays flat."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from passrelay_consumer.decide import Entry
from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.ad.controller import Attributes
from passrelay_ops.audit import healing, repair
from passrelay_ops.audit.account import AdAccount, read
from passrelay_ops.audit.comparison import Comparison
from passrelay_ops.audit.result import Result
from passrelay_ops.audit.state import Rules, Sight, State
from passrelay_ops.report import Report
from passrelay_producer.metadata import UNICODE_PWD
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, UnavailableError
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import UNITS_PER_SECOND, utc_now
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.marker import Marker
from tests.unit.builders import CHANGED_AT, DOMAIN, DOMAIN_SID

SID = bytes([1, 5, 0, 0, 0, 0, 0, 5]) + struct.pack("<5I", 21, 1, 2, 3, 1105)
ORIGIN = UUID(int=1)


def metadata(kvno: int) -> bytes:
    stamp = struct.pack("<IIQ16sQQ", UNICODE_PWD, kvno, CHANGED_AT // UNITS_PER_SECOND, ORIGIN.bytes_le, 5, 5)
    return struct.pack("<IIII", 1, 0, 1, 0) + stamp


def attributes(number: int, kvno: int = 3, changes: Mapping[str, bytes] | None = None) -> Attributes:
    values = {
        "samaccountname": b"user%d" % number,
        "objectguid": UUID(int=number).bytes_le,
        "objectsid": SID,
        "useraccountcontrol": b"512",
        "pwdlastset": b"%d" % CHANGED_AT,
        "msds-keyversionnumber": b"%d" % kvno,
        "replpropertymetadata": metadata(kvno),
    }
    return {name: (value,) for name, value in {**values, **(changes or {})}.items() if value}


def account(number: int, kvno: int = 3) -> AdAccount:
    found = read(attributes(number, kvno))
    assert found is not None
    return found


class Domain:
    """So many users; `newest` is what a second look at every controller shows, `newer` what only others show."""

    def __init__(
        self, users: int, newest: dict[int, int] | None = None, *, kvno: int = 3, newer: dict[int, int] | None = None
    ) -> None:
        self._users = users
        self._newest = newest or {}
        self._newer = newer or {}
        self._kvno = kvno
        self.tokens: dict[int, frozenset[str] | None] = {}
        self.asked: list[int] = []

    def groups(self, guid: UUID) -> frozenset[str] | None:
        self.asked.append(guid.int)
        return self.tokens.get(guid.int, frozenset({"S-1-5-32-545"}))

    def users(self, name: str | None = None) -> Iterator[AdAccount]:
        return (account(number, self._kvno) for number in range(1, self._users + 1))

    def newer(self, users: Sequence[AdAccount]) -> list[AdAccount]:
        return [account(user.guid.int, self._newer.get(user.guid.int, user.kvno)) for user in users]

    def newest(self, guids: Iterable[UUID]) -> dict[UUID, AdAccount]:
        numbers = (guid.int for guid in guids)
        return {
            UUID(int=number): account(number, self._newest.get(number, self._kvno))
            for number in numbers
            if self._newest.get(number, 1)
        }


class Server:
    """Its entries have version 3, but for `kvnos` (0: no entry); it can fall silent after some batches."""

    def __init__(
        self,
        url: str = "idm1",
        kvnos: dict[int, int] | None = None,
        *,
        batches: int = 10**9,
        others: dict[int, int] | None = None,
        changed_in_idm: Collection[int] = (),
    ) -> None:
        self.url = url
        self.kvnos = kvnos or {}
        self._left = batches
        self._changed_in_idm = changed_in_idm
        self._others = others
        """Versions in the markers of entries with other names; None: they cannot be listed."""

    def look(self, users: Sequence[AdAccount]) -> list[Sight]:
        if not self._left:
            raise DirectoryError(None, "gone")
        self._left -= 1
        return [Sight(self.url, self._entries(user)) for user in users]

    def of_guids(self, guids: Collection[UUID]) -> dict[UUID, Entry]:
        if self._others is None:
            raise DirectoryError(11, "too many to look through")
        return {
            guid: entry(f"uid=old{guid.int}", account(guid.int), self._others[guid.int])
            for guid in guids
            if guid.int in self._others
        }

    def close(self) -> None:
        """Nothing is open."""

    def _entries(self, user: AdAccount) -> tuple[Entry, ...]:
        kvno = self.kvnos.get(user.guid.int, 3)
        if not kvno:
            return ()
        last_change = utc_now() if user.guid.int in self._changed_in_idm else None
        return (replace(entry(f"uid={user.name}", user, kvno), last_change=last_change),)


def entry(dn: str, user: AdAccount, kvno: int) -> Entry:
    key = replace(user, kvno=kvno).key(0)
    assert key is not None
    marker = Marker(0, kvno, key.changed_at, user.guid, new_event_id(), "2026-11-24T22:42:33.120Z")
    return Entry(dn, marker, marker)


def compared(domain: Domain, *servers: Server) -> tuple[Result, Comparison]:
    comparison, result = Comparison(domain, servers, Rules(0)), Result(DOMAIN)
    result.compare(comparison, None, lambda: None)
    return result, comparison


def test_everybody_is_counted_and_only_who_needs_a_line_is_listed() -> None:
    result, _ = compared(Domain(120), Server(kvnos={7: 2, 9: 0}, others={}))
    assert result.counts == {State.IN_SYNC: 118, State.BEHIND: 1, State.NOT_IN_IDM: 1}
    assert [(row.user, row.state) for row in result.rows()] == [("user7", "behind"), ("user9", "not_in_idm")]
    assert result.drift == {State.BEHIND: 1}


def test_a_controller_that_lags_makes_nobody_unexplained() -> None:
    result, _ = compared(Domain(5, newest={2: 4}), Server(kvnos={2: 4, 3: 4}))
    assert [(row.user, row.state) for row in result.rows()] == [("user3", "unexplained")]
    assert result.counts == {State.IN_SYNC: 4, State.UNEXPLAINED: 1}


def test_a_password_that_only_another_controller_has_is_missing() -> None:
    result, _ = compared(Domain(5, newer={2: 4}, newest={2: 4}), Server())
    assert [(row.user, row.state, row.ad_kvno) for row in result.rows()] == [("user2", "behind", 4)]


def test_who_was_renamed_is_drift_and_named_with_his_entry() -> None:
    result, _ = compared(Domain(5), Server(kvnos={1: 0, 2: 0, 3: 0}, others={2: 2, 3: 3}))
    rows = {row.user: row for row in result.rows()}
    states = {name: row.state.value for name, row in rows.items()}
    assert states == {"user1": "not_in_idm", "user2": "behind", "user3": "unexplained"}
    assert result.drift == {State.BEHIND: 1, State.UNEXPLAINED: 1}
    assert "uid=old2 is his by its marker (version 2)" in rows["user2"].detail
    assert "--rename" in rows["user2"].repair
    assert "capture --user user2" in rows["user2"].repair
    assert result.curable() == []


def test_without_a_list_of_all_markers_who_was_renamed_is_not_known() -> None:
    result, comparison = compared(Domain(5), Server(kvnos={1: 0}))
    assert result.counts == {State.IN_SYNC: 4, State.NOT_IN_IDM: 1}
    assert "too many to look through" in comparison.unlisted["idm1"]
    assert comparison.silent == {}


def test_who_was_deleted_meanwhile_is_nobody() -> None:
    result, _ = compared(Domain(5, newest={2: 0}), Server(kvnos={2: 2}))
    assert result.rows() == []
    assert result.counts == {State.IN_SYNC: 4, State.BEHIND: 0}


def test_a_server_that_falls_silent_is_told_and_the_others_go_on() -> None:
    result, comparison = compared(Domain(150), Server(), Server("idm2", batches=1))
    assert result.counts == {State.IN_SYNC: 150}
    assert comparison.silent == {"idm2": "gone"}
    with pytest.raises(UnavailableError, match="no IdM server can be read: idm1: gone"):
        compared(Domain(150), Server(batches=1))


def test_an_account_that_may_not_read_versions_is_told_so() -> None:
    with pytest.raises(ConfigurationError, match="msDS-KeyVersionNumber"):
        compared(Domain(5, kvno=0), Server())


def test_after_a_repair_who_is_healed_has_no_line_any_more() -> None:
    server = Server(kvnos={7: 2, 8: 2})
    result, comparison = compared(Domain(9), server)
    assert {guid.int for guid in result.curable()} == {7, 8}
    server.kvnos = {8: 2}
    result.again(comparison, result.curable())
    assert [row.user for row in result.rows()] == ["user8"]
    assert result.counts == {State.IN_SYNC: 8, State.BEHIND: 1}


def test_a_repair_waits_for_what_can_come_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "_LOOK_SECONDS", 0.0)
    server = Server(kvnos={7: 2, 8: 2})
    result, comparison = compared(Domain(9), server)
    asked: list[int] = []

    def died() -> set[UUID]:
        asked.append(1)
        server.kvnos = {8: 2}
        return {UUID(int=8)}

    # Neither of these would end within the time of a test if it waited on.
    healing.wait(result, comparison, 3600, coming=set(), died=died)
    assert asked == []
    healing.wait(result, comparison, 3600, coming={UUID(int=7), UUID(int=8)}, died=died)
    assert result.repaired == ["user7"]
    assert asked == [1]


@pytest.mark.parametrize(
    ("captures", "words"), [(True, "1 users of lab.example get "), (False, "by their dead letters alone")]
)
def test_without_a_producer_nobody_is_told_to_get_what_nobody_sends(
    captures: bool, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result, comparison = compared(Domain(9), Server(kvnos={7: 2}, changed_in_idm={7}))
    assert [user.name for user, _ in result.younger_in_idm()] == ["user7"]
    domain = DomainSettings(name=DOMAIN, sid=DOMAIN_SID, search_base="dc=test")
    nowhere = Path("/nowhere")
    idm = IdmSettings(servers=("ldaps://idm1",), ca_file=nowhere, bind_dn="cn=x", password_file=nowhere)
    repair.let_in(Report("audit", as_json=False), result, comparison, domain, idm, captures=captures, yes=True)
    assert words in capsys.readouterr().err


def test_memory_does_not_grow_with_the_domain() -> None:
    def peak(users: int) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        compared(Domain(users), Server())
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        peak(500)  # what is imported and compiled at the first use
        small, large = peak(1_000), peak(10_000)
    finally:
        tracemalloc.stop()
    assert large < 2 * small


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"samaccountname": b"pc$"}, "machine"),
        ({"admincount": b"1"}, "AdminSDHolder"),
        ({"objectsid": SID[:-4] + struct.pack("<I", 500)}, "built-in"),
        ({"useraccountcontrol": b"4096"}, "not a normal account"),
        ({"useraccountcontrol": b"546", "pwdlastset": b"0", "msds-keyversionnumber": b"1"}, "no password"),
    ],
)
def test_who_is_never_carried_says_why(changes: dict[str, bytes], why: str) -> None:
    found = read(attributes(1, changes=changes))
    assert found is not None
    assert why in (found.left_out or "")


def test_whoever_became_an_administrator_is_excluded_and_only_who_differs_is_asked_for() -> None:
    domain = Domain(4, kvno=4)
    domain.tokens = {1: frozenset({"S-1-5-32-544"}), 2: None}
    result, _ = compared(domain, Server(kvnos={1: 3, 2: 3, 3: 3, 4: 4}))
    assert result.counts[State.EXCLUDED] == 1
    assert [(row.user, row.state) for row in result.rows()] == [("user2", State.BEHIND), ("user3", State.BEHIND)]
    assert ["tokenGroups" in row.detail for row in result.rows()] == [True, False]
    assert set(domain.asked) == {1, 2, 3}


def test_a_disabled_account_is_compared_like_any_other() -> None:
    found = read(attributes(1, changes={"useraccountcontrol": b"514"}))
    assert found is not None
    assert found.left_out is None


def test_without_metadata_the_version_alone_is_known() -> None:
    bare = read(attributes(1, changes={"replpropertymetadata": b""}))
    other = read(attributes(1, changes={"replpropertymetadata": metadata(9)}))
    assert bare is not None
    assert other is not None
    assert (bare.key(0), bare.changed_at) == (None, CHANGED_AT)
    assert other.key(0) is None  # of another password than the version that was read


def test_what_no_event_can_have_is_no_user() -> None:
    assert read(attributes(1, changes={"samaccountname": b""})) is None
    assert read(attributes(1, changes={"objectguid": b""})) is None
