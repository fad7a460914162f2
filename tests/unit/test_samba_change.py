"""What one reading of an account means: the table of decisions of the Samba source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pysequoia
import pytest
from ldap3.core.exceptions import LDAPOperationsErrorResult

from passrelay_producer.filters import Filter
from passrelay_producer.metadata import PWD_LAST_SET, UNICODE_PWD
from passrelay_producer.nt_hash import md4
from passrelay_producer.sources import AccountState, Memory, Pending, PendingReason
from passrelay_producer.sources.samba_account import Reading, UnreadableError
from passrelay_producer.sources.samba_change import Decision, decide
from passrelay_producer.sources.samba_directory import Change, SambaDirectory
from passrelay_producer.sources.samba_reader import Reader
from passrelay_producer.sources.samba_scope import SambaScope
from passrelay_producer.supplemental import SAMBA_GPG, OpenPgpKeyFile
from passrelay_schemas.event import Kind
from passrelay_schemas.filetime import UNITS_PER_SECOND
from passrelay_schemas.filter_settings import FilterSettings
from tests.lab.folder import CANARY
from tests.unit import test_metadata, test_supplemental

PASSWORD = f"{CANARY}-decision"
GUID = UUID("0b6f0f5e-6a4b-4a4e-9a52-0d4f5a1b2ce1")
HERE, THERE = UUID(int=1), UUID(int=2)
SECOND = 13_440_035_200
FINE = SECOND * UNITS_PER_SECOND + 1_234_567


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> OpenPgpKeyFile:
    return test_supplemental.write_key(tmp_path_factory.mktemp("key") / "key", SECRET_KEY)


SECRET_KEY = pysequoia.Tsk.generate(user_id="capture")


def stamps(version: int = 7, *, password: tuple[int, UUID, int], tick: tuple[int, UUID, int]) -> bytes:
    return test_metadata.blob((UNICODE_PWD, version, *password), (PWD_LAST_SET, 3, *tick))


ONE_WRITE = stamps(password=(SECOND, HERE, 9), tick=(SECOND, HERE, 9))
TICK = stamps(password=(SECOND, HERE, 9), tick=(SECOND + 60, HERE, 12))
READING = Reading(
    guid=GUID,
    sid="S-1-5-21-1-2-3-1105",
    sam_account_name="alice",
    user_principal_name="alice@lab.example",
    admin_count=0,
    user_account_control=0x200,
    pwd_last_set=FINE,
    unicode_pwd=md4(PASSWORD.encode("utf-16-le")),
    supplemental=test_supplemental.blob(
        test_supplemental.package(SAMBA_GPG, test_supplemental.sealed(PASSWORD, SECRET_KEY))
    ),
    metadata=ONE_WRITE,
)
KNOWN = AccountState(GUID, 7, must_change=False)


def decision(key: OpenPgpKeyFile, *, password: bool, known: AccountState | None = KNOWN, **fields: Any) -> Decision:
    reading = replace(READING, **fields)
    return decide(reading, filters=Filter(), domain="lab.example", password=password, known=known, key=key)


def test_a_reading_never_shows_its_secrets() -> None:
    shown = repr(READING)
    assert READING.unicode_pwd is not None
    assert "unicode_pwd" not in shown
    assert "supplemental" not in shown


def test_a_new_password_becomes_an_event(key: OpenPgpKeyFile) -> None:
    found = decision(key, password=True, known=None)
    assert found.event is not None
    assert found.event.password is not None
    assert found.event.password.reveal() == PASSWORD
    assert (found.event.kvno, found.event.changed_at, found.event.must_change) == (7, FINE, False)
    assert found.event.kind is Kind.UNKNOWN
    assert found.state == KNOWN
    assert found.pending is None


def test_the_first_version_is_a_creation(key: OpenPgpKeyFile) -> None:
    metadata = stamps(1, password=(SECOND, HERE, 9), tick=(SECOND, HERE, 9))
    found = decision(key, password=True, metadata=metadata)
    assert found.event is not None
    assert found.event.kind is Kind.CREATE


def test_the_same_version_again_is_sent_when_the_password_changed(key: OpenPgpKeyFile) -> None:
    # Two controllers made version 7 each; replication let the other one win.
    found = decision(
        key, password=True, metadata=stamps(password=(SECOND + 2, THERE, 44), tick=(SECOND + 2, THERE, 44))
    )
    assert found.event is not None
    assert found.event.changed_at == (SECOND + 2) * UNITS_PER_SECOND


@pytest.mark.parametrize(
    ("pwd_last_set", "metadata"),
    [
        (0, ONE_WRITE),
        (FINE + 60 * UNITS_PER_SECOND, TICK),
        (FINE, stamps(password=(SECOND, HERE, 9), tick=(SECOND, THERE, 9))),
        (FINE + UNITS_PER_SECOND, ONE_WRITE),
        (FINE, test_metadata.blob((UNICODE_PWD, 7, SECOND, HERE, 9))),
    ],
    ids=["must change", "later tick", "other writer", "other second", "no tick at all"],
)
def test_changed_at_is_the_originating_second_unless_pwd_last_set_belongs_to_it(
    key: OpenPgpKeyFile, pwd_last_set: int, metadata: bytes
) -> None:
    found = decision(key, password=True, pwd_last_set=pwd_last_set, metadata=metadata)
    assert found.event is not None
    assert found.event.changed_at == SECOND * UNITS_PER_SECOND
    assert found.event.must_change is (pwd_last_set == 0)


def test_a_tick_on_a_captured_password_expires_it(key: OpenPgpKeyFile) -> None:
    found = decision(key, password=False, pwd_last_set=0, metadata=TICK)
    assert found.event is not None
    assert (found.event.kind, found.event.password, found.event.kvno) == (Kind.EXPIRE, None, 7)
    assert found.event.changed_at == (SECOND + 60) * UNITS_PER_SECOND
    assert found.state == AccountState(GUID, 7, must_change=True)


def test_a_tick_on_a_password_never_captured_brings_it_along(key: OpenPgpKeyFile) -> None:
    found = decision(key, password=False, known=None, pwd_last_set=0, metadata=TICK)
    assert found.event is not None
    assert found.event.password is not None
    assert found.event.must_change


def test_a_tick_hides_no_password(key: OpenPgpKeyFile) -> None:
    found = decision(key, password=False, known=AccountState(GUID, 6, must_change=False), metadata=TICK)
    assert found.event is not None
    assert found.event.kvno == 7


def test_what_is_known_is_not_sent_again(key: OpenPgpKeyFile) -> None:
    assert decision(key, password=False) == Decision()
    assert decision(key, password=False, known=None) == Decision()
    expired = AccountState(GUID, 7, must_change=True)
    assert decision(key, password=False, known=expired, pwd_last_set=0) == Decision()
    assert decision(key, password=False, known=expired) == Decision(state=KNOWN)


def test_passwords_that_never_expire_need_no_change(key: OpenPgpKeyFile) -> None:
    found = decision(key, password=True, pwd_last_set=0, user_account_control=0x10200)
    assert found.event is not None
    assert not found.event.must_change


@pytest.mark.parametrize(
    "fields",
    [
        {"sam_account_name": "HOST$"},
        {"sam_account_name": "krbtgt"},
        {"sid": "S-1-5-21-1-2-3-500"},
        {"admin_count": 1},
        {"user_account_control": 0x1000},
    ],
)
def test_accounts_that_are_never_captured(key: OpenPgpKeyFile, fields: dict[str, Any]) -> None:
    # Whatever else is wrong with them: nothing of theirs is opened, and nobody is asked to repair anything.
    found = decision(key, password=True, known=None, **fields, supplemental=b"junk")
    assert found.exclusion is not None
    assert found == Decision(exclusion=found.exclusion)


@pytest.mark.parametrize(
    "fields",
    [{"unicode_pwd": None, "supplemental": None}, {"metadata": test_metadata.blob((PWD_LAST_SET, 1, 1, HERE, 1))}],
)
def test_an_account_without_a_password_is_no_event(key: OpenPgpKeyFile, fields: dict[str, Any]) -> None:
    assert decision(key, password=True, known=None, **fields) == Decision()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"metadata": b""}, PendingReason.UNREADABLE),
        ({"supplemental": None}, PendingReason.NO_CLEAR_TEXT),
        ({"supplemental": b"junk"}, PendingReason.UNREADABLE),
        ({"unicode_pwd": bytes(16)}, PendingReason.STALE_CLEAR_TEXT),
        ({"sam_account_name": "a\udcff"}, PendingReason.UNREADABLE),
        ({"sam_account_name": ""}, PendingReason.UNREADABLE),
        ({"sam_account_name": "\U0001f511" * 256, "user_principal_name": "\U0001f511" * 1024}, PendingReason.TOO_LARGE),
    ],
)
def test_what_cannot_be_captured_now_waits(key: OpenPgpKeyFile, fields: dict[str, Any], reason: PendingReason) -> None:
    assert decision(key, password=True, **fields) == Decision(pending=Pending(GUID, reason))


def test_a_missing_key_makes_it_wait() -> None:
    found = decision(OpenPgpKeyFile(Path("/nowhere/key")), password=True)
    assert found == Decision(pending=Pending(GUID, PendingReason.KEY_MISSING))


BAD = UUID(int=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("objectSid", b""),
        ("objectSid", b"\x01\x05\0\0\0\0\0\x05short"),
        ("userAccountControl", b"512x"),
        ("adminCount", b""),
        ("pwdLastSet", b"\xff"),
        ("primaryGroupID", b"users"),
        ("memberOf", b"CN=nobody said its SID,DC=lab,DC=example"),
    ],
)
def test_attributes_that_nobody_can_read_stop_no_other_account(
    name: str, value: bytes, tmp_path: Path, key: OpenPgpKeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert READING.unicode_pwd is not None
    assert READING.supplemental is not None
    good = {
        "objectGUID": [GUID.bytes_le],
        "objectSid": [b"\x01\x01\0\0\0\0\0\x05\x51\x04\0\0"],
        "sAMAccountName": [b"alice"],
        "userPrincipalName": [],
        "adminCount": [],
        "userAccountControl": [b"512"],
        "pwdLastSet": [str(FINE).encode()],
        "unicodePwd": [READING.unicode_pwd],
        "supplementalCredentials": [READING.supplemental],
        "replPropertyMetaData": [READING.metadata],
    }
    answers = {f"<GUID={GUID}>": good, f"<GUID={BAD}>": good | {name: [value]}}
    directory = SambaDirectory(tmp_path / "ldapi")
    directory.domain = "lab.example"
    monkeypatch.setattr(
        directory, "_looked_up", lambda dn, *_: {"raw_dn": b"CN=alice,DC=lab,DC=example", "raw_attributes": answers[dn]}
    )
    monkeypatch.setattr(directory, "highest_usn", lambda: 1)
    monkeypatch.setattr(directory, "token_groups", lambda _: frozenset({"S-1-5-32-545"}))
    with pytest.raises(UnreadableError):
        directory.read(BAD)
    reader = Reader(directory, _Nothing(), SambaScope(FilterSettings(), directory), key)
    changes = [Change(BAD, password=True), Change(GUID, password=True)]
    writes: dict[UUID, int] = {}
    page = reader.page(changes, writes)
    assert page.pending == [Pending(BAD, PendingReason.UNREADABLE)]
    assert [event.account.guid for event in page.events] == [GUID]
    assert list(writes) == [GUID]


def test_groups_that_nobody_can_tell_cost_the_account_its_turn_and_no_other_its_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = SambaDirectory(tmp_path / "ldapi")
    entry: dict[str, Any] = {
        "raw_dn": b"CN=alice,DC=lab,DC=example",
        "raw_attributes": {
            "objectGUID": [GUID.bytes_le],
            "objectSid": [b"\x01\x01\0\0\0\0\0\x05\x51\x04\0\0"],
            "sAMAccountName": [b"alice"],
            "replPropertyMetaData": [READING.metadata],
        },
    }

    def looked_up(_: str, attributes: list[str], *__: object) -> dict[str, Any]:
        if "tokenGroups" in attributes:
            raise LDAPOperationsErrorResult(result=1, description="operationsError")
        return entry

    monkeypatch.setattr(directory, "_looked_up", looked_up)
    reading = directory.read(GUID)
    assert reading is not None
    assert not reading.token_groups, "they are asked for again, which says why they cannot be told"
    entry["raw_attributes"]["tokenGroups"] = [b"\x01\x02\0\0\0\0\0\x05\x20\0\0\0\x21\x02\0\0"]
    asked: list[list[str]] = []

    def told(_: str, attributes: list[str], __: object) -> dict[str, Any]:
        asked.append(attributes)
        return entry

    monkeypatch.setattr(directory, "_looked_up", told)
    reading = directory.read(GUID)
    assert ["tokenGroups" in attributes for attributes in asked] == [True], "one question for all"
    assert reading is not None
    assert reading.token_groups == {"S-1-5-32-545"}
    monkeypatch.setattr(directory, "highest_usn", lambda: 1)
    assert SambaScope(FilterSettings(), directory).with_token(reading) is reading, "no second question"


class _Nothing(Memory):
    """A spool that has seen nothing."""

    def cursor(self) -> dict[str, str]:
        return {}

    def account(self, guid: UUID) -> None:
        return None

    def pending(self) -> list[Pending]:
        return []

    def excluded(self, limit: int | None = None) -> list[UUID]:
        return []

    def is_excluded(self, guid: UUID) -> bool:
        return False
