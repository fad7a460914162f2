"""The twelve steps against a real 389 Directory Server: what a user, an operator and an attacker would see."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import ldap3
import pytest

from passrelay_consumer.decide import Entry
from passrelay_consumer.directories import Directories
from passrelay_consumer.directory import Directory as ConsumerDirectory
from passrelay_consumer.directory import generalized_time
from passrelay_consumer.handler import Handler
from passrelay_consumer.outcome import Delivery, Hold, Outcome
from passrelay_consumer.servers import Servers
from passrelay_schemas import filetime, keys
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.event import Account, Kind
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.keys import KeyStatus
from passrelay_schemas.logs import Log
from passrelay_schemas.marker import Marker
from passrelay_schemas.message import Counters
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.verdict import Reason, Verdict
from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.enrolment import DOMAIN_SID, Enrolment, Sender, change
from tests.lab.folder import LabFolder, canary_password
from tests.lab.network import Reservations

pytestmark = pytest.mark.integration

_NAMES = (f"hand{number}" for number in itertools.count())
_HOUR = 3600 * filetime.UNITS_PER_SECOND


def _settings(directory: Directory, enrolment: Enrolment, **idm: Any) -> ConsumerSettings:
    base = directory.search_base
    document: dict[str, Any] = {
        "broker": {"url": "amqp://127.0.0.1/"},
        "keys": {"directory": enrolment.consumer_keys},
        "idm": {
            "servers": [directory.ldaps_url],
            "ca_file": directory.ca_file,
            "bind_dn": directory.service_dn,
            "password_file": directory.password_file,
            "timeout_seconds": 3,
            **idm,
        },
        "domain": [
            enrolment.domain(base),
            {"name": "flat.example", "order": "time", "producers": ["dc1"], "search_base": base},
            {"name": "other.example", "sid": "S-1-5-21-9-9-9", "producers": ["dc9"], "search_base": base},
        ],
    }
    return ConsumerSettings(**document)


@dataclass
class Rig:
    """One consumer's handler and one enrolled producer."""

    directory: Directory
    enrolment: Enrolment
    sender: Sender
    keyring: Keyring
    handler: Handler
    make: Callable[..., Handler]
    guids: dict[str, UUID] = field(default_factory=dict)

    def user(self, **attributes: Any) -> str:
        name = next(_NAMES)
        self.directory.add_user(name, canary_password(), **attributes)
        return name

    def envelope(self, sam: str, password: str | None, kvno: int, **more: Any) -> bytes:
        event_id = more.pop("event_id", None)
        more.setdefault("guid", self.guids.setdefault(sam, uuid4()))
        more.setdefault("changed_at", filetime.now() + kvno * filetime.UNITS_PER_SECOND)
        return self.sender.envelope(change(sam, password, kvno=kvno, **more), event_id=event_id)

    def send(self, sam: str, password: str | None, kvno: int, **more: Any) -> Outcome:
        return self.deliver(self.envelope(sam, password, kvno, **more))

    def deliver(self, raw: bytes) -> Outcome:
        outcome = self.handler.handle(Delivery(raw, Counters(), datetime.now(UTC)))
        assert isinstance(outcome, Outcome)
        return outcome

    def marker(self, sam: str) -> Marker:
        return Marker.parse(self.directory.read(sam)["passrelayMarker"][0])


@pytest.fixture(scope="module")
def rig(shared_directory: Directory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    enrolment = Enrolment(tmp_path_factory.mktemp("keys"))
    sender = enrolment.enrol("dc1")
    keyring = Keyring(enrolment.consumer_keys)
    made: list[Handler] = []

    def make(**idm: Any) -> Handler:
        settings = _settings(shared_directory, enrolment, **idm)
        handler = Handler(settings, keyring=keyring, servers=Servers(settings.idm, log=Log("test")))
        made.append(handler)
        return handler

    yield Rig(shared_directory, enrolment, sender, keyring, make(), make)
    for handler in made:
        handler.close()
        handler._servers.close()


# --- the main path


def test_the_marker_has_the_time_of_the_write_however_long_the_search_took(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, find, now, later = rig.user(), ConsumerDirectory.find, Servers.now, [timedelta()]

    def find_slowly(directory: ConsumerDirectory, account: Account, domain: DomainSettings) -> list[Entry]:
        found = find(directory, account, domain)
        later[0] = timedelta(seconds=30)
        return found

    began = datetime.now(UTC)
    monkeypatch.setattr(Servers, "now", lambda servers, url: now(servers, url) + later[0])
    monkeypatch.setattr(ConsumerDirectory, "find", find_slowly)
    outcome = rig.send(user, canary_password(), 3)
    assert outcome.applied_at is not None
    assert outcome.applied_at > began + timedelta(seconds=29)
    assert rig.marker(user).applied_at == filetime.rfc3339(outcome.applied_at)


def test_a_change_becomes_the_users_password_and_leaves_its_marker(rig: Rig) -> None:
    user, new = rig.user(), canary_password()
    outcome = rig.send(user, new, 3)
    assert outcome.verdict is Verdict.APPLIED
    assert outcome.server == rig.directory.ldaps_url
    assert rig.directory.binds(user, new)
    marker = rig.marker(user)
    assert (marker.kvno, marker.guid, marker.flags) == (3, rig.guids[user], frozenset())
    assert rig.directory.read(user)["krbLastAdminUnlock"]


def test_an_older_change_that_comes_late_is_superseded_and_the_newer_password_stays(rig: Rig) -> None:
    user, new, old = rig.user(), canary_password(), canary_password()
    assert rig.send(user, new, 8).verdict is Verdict.APPLIED
    assert (rig.send(user, old, 7).verdict, rig.send(user, old, 7).reason) == (Verdict.SUPERSEDED, "newer")
    assert rig.directory.binds(user, new)
    assert not rig.directory.binds(user, old)


def test_the_same_event_again_and_the_same_change_from_another_dc_write_nothing(rig: Rig) -> None:
    user, when = rig.user(), filetime.now()
    raw = rig.envelope(user, canary_password(), 2, changed_at=when)
    assert rig.deliver(raw).verdict is Verdict.APPLIED
    before = rig.directory.read(user)
    assert rig.deliver(raw).verdict is Verdict.DUPLICATE
    assert rig.send(user, canary_password(), 2, changed_at=when).verdict is Verdict.DUPLICATE
    assert rig.directory.read(user) == before


def test_equal_kvno_the_later_second_wins_then_the_origin_and_nothing_finer(rig: Rig) -> None:
    user, later = rig.user(), canary_password()
    start = filetime.now() // filetime.UNITS_PER_SECOND * filetime.UNITS_PER_SECOND
    low, high = UUID(int=7 << 120), UUID(int=8 << 120)

    def send(password: str, after: int, origin: UUID) -> Verdict:
        event = change(user, password, guid=rig.guids.setdefault(user, uuid4()), kvno=5, changed_at=start + after)
        return rig.deliver(rig.sender.envelope(event.model_copy(update={"origin": origin}))).verdict

    assert send(canary_password(), 0, low) is Verdict.APPLIED
    assert send(canary_password(), 9_999_999, low) is Verdict.DUPLICATE
    assert send(canary_password(), 0, high) is Verdict.APPLIED
    assert send(canary_password(), 9_999_999, low) is Verdict.SUPERSEDED
    assert send(later, 10_000_000, low) is Verdict.APPLIED
    assert send(canary_password(), 0, high) is Verdict.SUPERSEDED
    assert rig.directory.binds(user, later)


@pytest.mark.parametrize("changed_at", [1, filetime.from_datetime(datetime(2200, 1, 1, tzinfo=UTC))])
def test_a_wild_clock_does_not_shut_the_next_change_out(rig: Rig, changed_at: int) -> None:
    user, new = rig.user(), canary_password()
    assert rig.send(user, canary_password(), 1, changed_at=changed_at).verdict is Verdict.APPLIED
    assert rig.send(user, new, 2).verdict is Verdict.APPLIED
    assert rig.directory.binds(user, new)


def test_a_time_ordered_domain_goes_by_time_and_refuses_the_far_future(rig: Rig) -> None:
    user, new, now = rig.user(), canary_password(), filetime.now()
    flat = {"domain": "flat.example", "sid": None}
    assert rig.send(user, new, 0, changed_at=now, **flat).verdict is Verdict.APPLIED
    assert rig.send(user, canary_password(), 0, changed_at=now - 1, **flat).verdict is Verdict.SUPERSEDED
    assert rig.send(user, canary_password(), 0, changed_at=now + 25 * _HOUR, **flat).reason is Reason.MALFORMED
    assert rig.send(user, canary_password(), 4, changed_at=now, **flat).reason is Reason.FOREIGN_DOMAIN
    assert rig.directory.binds(user, new)


def test_a_password_that_is_younger_in_idm_stays_unless_configured(rig: Rig) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    user, new = rig.user(krbLastPwdChange=generalized_time(yesterday).decode()), canary_password()
    old_change = filetime.from_datetime(yesterday - timedelta(hours=1))
    outcome = rig.send(user, new, 1, changed_at=old_change)
    assert (outcome.verdict, outcome.reason) == (Verdict.SUPERSEDED, "idm_newer")
    raw = rig.envelope(user, new, 1, changed_at=old_change)
    written = rig.make(initial="ad-wins").handle(Delivery(raw, Counters(), datetime.now(UTC)))
    assert isinstance(written, Outcome)
    assert written.verdict is Verdict.APPLIED
    assert rig.directory.binds(user, new)


def test_many_writers_at_one_entry_end_with_the_newest(rig: Rig) -> None:
    user = rig.user()
    passwords = {kvno: canary_password() for kvno in range(1, 33)}
    raws = [rig.envelope(user, password, kvno) for kvno, password in passwords.items()]
    local = threading.local()

    def handle(raw: bytes) -> Verdict:
        if not hasattr(local, "handler"):
            local.handler = rig.make()
        outcome = local.handler.handle(Delivery(raw, Counters(), datetime.now(UTC)))
        assert isinstance(outcome, Outcome)
        return outcome.verdict

    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(handle, raws[::2] + raws[1::2]))
    retried = [raw for raw, verdict in zip(raws[::2] + raws[1::2], verdicts, strict=True) if verdict is Verdict.RETRY]
    verdicts += [handle(raw) for raw in retried]
    assert set(verdicts) <= {Verdict.APPLIED, Verdict.SUPERSEDED, Verdict.RETRY}
    assert rig.marker(user).kvno == 32
    assert rig.directory.binds(user, passwords[32])


# --- must change


def test_must_change_expires_the_password_and_a_crash_before_it_loses_nothing(rig: Rig) -> None:
    user, new, event_id = rig.user(), canary_password(), new_event_id()
    raw = rig.envelope(user, new, 4, must_change=True, event_id=event_id)
    assert rig.deliver(raw).verdict is Verdict.APPLIED
    assert rig.marker(user).flags == {"x"}
    # As a consumer that died between the two modifies would have left it:
    bare = str(rig.marker(user)).replace(" x", " -")
    with rig.directory.manager() as manager:
        manager.modify(
            rig.directory.user_dn(user),
            {
                "passrelayMarker": [(ldap3.MODIFY_REPLACE, [bare])],
                "krbPasswordExpiration": [(ldap3.MODIFY_REPLACE, [])],
            },
        )
    assert rig.deliver(raw).verdict is Verdict.DUPLICATE
    assert rig.marker(user).flags == {"x"}
    expiration = rig.directory.read(user)["krbPasswordExpiration"][0]
    assert expiration <= generalized_time(datetime.now(UTC)).decode()


def test_a_must_change_tick_applies_only_to_its_own_password(rig: Rig) -> None:
    user = rig.user()
    tick = {"kind": Kind.EXPIRE, "must_change": True}
    assert rig.send(user, None, 4, **tick).reason is Reason.EARLY
    rig.send(user, canary_password(), 3)
    assert rig.send(user, None, 4, **tick).reason is Reason.EARLY
    rig.send(user, canary_password(), 4)
    assert rig.send(user, None, 3, **tick).verdict is Verdict.SUPERSEDED
    assert "krbPasswordExpiration" not in rig.directory.read(user)
    assert rig.send(user, None, 4, **tick).verdict is Verdict.APPLIED
    assert rig.send(user, None, 4, **tick).verdict is Verdict.DUPLICATE
    assert "krbPasswordExpiration" in rig.directory.read(user)
    assert rig.send(user, canary_password(), 5).verdict is Verdict.APPLIED
    assert rig.marker(user).flags == frozenset()


# --- whose entry


def test_another_guid_on_a_marked_entry_is_dead(rig: Rig) -> None:
    user, mine = rig.user(), canary_password()
    rig.send(user, mine, 1)
    outcome = rig.send(user, canary_password(), 9, guid=uuid4())
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.IDENTITY)
    assert rig.directory.binds(user, mine)


def test_a_missing_user_waits_and_two_entries_are_ambiguous(rig: Rig) -> None:
    outcome = rig.send("nobody-here", canary_password(), 1)
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, Reason.USER_MISSING)
    first = rig.user()
    rig.user(ntUserDomainId=first)
    assert rig.send(first, canary_password(), 1).reason is Reason.AMBIGUOUS


@pytest.mark.parametrize(
    "name",
    [
        "*",
        "a*",
        "o'brien",
        'quo"te',
        "müller",
        "Ünï-cödé",
        "a(b)c",
        "back\\slash",
        "star*)(uid=*",
        "with blank",
        "{upn}",
    ],
)
def test_names_with_special_characters_hit_their_own_entry_only(rig: Rig, name: str) -> None:
    mine, new = rig.user(ntUserDomainId=name), canary_password()
    assert rig.send(name, new, 1).verdict is Verdict.APPLIED
    assert rig.directory.binds(mine, new)


@pytest.mark.parametrize(
    ("sam", "rid"), [("PC1$", 1200), ("krbtgt", 502), ("krbtgt_123", 1200), ("boss", 500), ("guest", 501)]
)
def test_protected_accounts_are_dead_before_the_directory_is_asked(rig: Rig, sam: str, rid: int) -> None:
    outcome = rig.send(sam, canary_password(), 1, rid=rid)
    assert (outcome.verdict, outcome.reason, outcome.server) == (Verdict.DEAD, Reason.PROTECTED, None)


def test_an_idm_admin_cannot_be_written(rig: Rig) -> None:
    user = rig.user()
    rig.directory.add_to_group(user, "admins")
    outcome = rig.send(user, canary_password(), 1)
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.PROTECTED)
    assert "passrelayMarker" not in rig.directory.read(user)


# --- passwords

_PLANES = ["".join(chr(plane * 0x10000 + 0x1F60) for plane in (0, 1, 2, 3, 14, 15, 16)), "pässwörd ß €", "密码🔑"]


@pytest.mark.parametrize("password", ["x", "é" * 256, " blanks at both ends ", "\t tab", '"\\', *_PLANES])
def test_passwords_arrive_exactly(rig: Rig, password: str) -> None:
    user = rig.user()
    assert rig.send(user, password, 1).verdict is Verdict.APPLIED
    assert rig.directory.binds(user, password)


@pytest.mark.parametrize(
    "password",
    ["{SSHA}8C1eLXG2Qb4xXvZlK3iYl7rQ1E8hZGVtb3NhbHQ=", "{CLEAR}Kanarie7-x", "{clear}Kanarie7-y", "a\0Kanarie7-b"],
)
def test_what_the_server_would_misread_is_dead_and_says_policy(rig: Rig, password: str) -> None:
    user = rig.user()
    outcome = rig.send(user, password, 1)
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.POLICY)
    assert password not in outcome.diagnostic
    assert "passrelayMarker" not in rig.directory.read(user)


# --- hostile envelopes


def _tampered(raw: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(raw), **changes}).encode()


def test_envelopes_that_are_not_ours_never_write(rig: Rig) -> None:
    user, before = rig.user(), canary_password()
    rig.send(user, before, 1)
    raw, other = rig.envelope(user, "Kanarie7-evil", 9), json.loads(rig.envelope(user, "Kanarie7-evil", 10))
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 1
    cases: dict[bytes, set[Reason]] = {
        b"": {Reason.MALFORMED},
        b"not json": {Reason.MALFORMED},
        b"[" * 40_000: {Reason.MALFORMED},
        raw + b" " * 60_000: {Reason.TOO_LARGE},
        bytes(flipped): {Reason.MALFORMED, Reason.BAD_SIGNATURE},
        _tampered(raw, extra=1): {Reason.MALFORMED},
        raw.replace(b'{"protected"', b'{"protected":"e30","protected"'): {Reason.MALFORMED},
        _tampered(raw, signature=""): {Reason.MALFORMED},
        _tampered(raw, signature=other["signature"]): {Reason.BAD_SIGNATURE},
        _tampered(raw, sealed=other["sealed"]): {Reason.BAD_SIGNATURE},
        _tampered(raw, protected=other["protected"]): {Reason.BAD_SIGNATURE},
    }
    for bad, reasons in cases.items():
        outcome = rig.deliver(bad)
        assert outcome.verdict is Verdict.DEAD
        assert outcome.reason in reasons
        assert not outcome.authentic
    assert rig.directory.binds(user, before)


def test_strangers_and_late_keys_wait_revoked_ones_are_dead(rig: Rig, tmp_path: Path) -> None:
    user = rig.user()
    stranger = Enrolment(tmp_path).enrol("dc1")
    event = change(user, canary_password(), guid=uuid4(), kvno=1, changed_at=filetime.now())
    assert rig.deliver(stranger.envelope(event)).reason is Reason.UNTRUSTED
    # Known signer, but sealed to a key that this consumer does not have:
    late = Sender("dc1", Keyring(rig.enrolment.producer_keys("dc1")))
    late.recipient = stranger.recipient
    outcome = rig.deliver(late.envelope(event))
    assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, Reason.UNKNOWN_KEY)
    # A producer whose key is revoked while the consumer runs:
    doomed = rig.enrolment.enrol("dc-doomed")
    keys.write_public(
        rig.enrolment.consumer_keys, doomed.signer.document.model_copy(update={"status": KeyStatus.REVOKED})
    )
    rig.keyring.refresh()
    outcome = rig.deliver(doomed.envelope(event))
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.REVOKED)


def test_an_enrolled_producer_speaks_for_its_own_domain_only(rig: Rig) -> None:
    user = rig.user()
    foreign_sid = rig.send(user, canary_password(), 1, sid="S-1-5-21-9-9-9-1105")
    no_sid = rig.send(user, canary_password(), 1, sid=None)
    other_domain = rig.send(user, canary_password(), 1, domain="other.example", sid="S-1-5-21-9-9-9-1105")
    unknown_domain = rig.send(user, canary_password(), 1, domain="nowhere.example", sid=f"{DOMAIN_SID}-1105")
    for outcome in (foreign_sid, no_sid, other_domain, unknown_domain):
        assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.FOREIGN_DOMAIN)


# --- several servers


def _look_again(handler: Handler, raw: bytes, since: datetime | None = None) -> Outcome:
    outcome = handler.handle(Delivery(raw, Counters(settle=1, settle_since=since), datetime.now(UTC)))
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.fixture(scope="module")
def second(
    lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority, rig: Rig
) -> Iterator[Directory]:
    """A second server that does not replicate: what replication would bring is put there by hand."""
    directory = Directory(lab_folder.path / "handler-second", reservations, ca)
    directory.start()
    with directory.manager() as manager:  # one service account with one password
        password = rig.directory.password_file.read_text().strip()
        manager.modify(directory.service_dn, {"userPassword": [(ldap3.MODIFY_REPLACE, [password])]})
    yield directory
    directory.stop()


def _replicate(user: str, source: Directory, target: Directory) -> None:
    entry = source.read(user)
    with target.manager() as manager:
        manager.modify(target.user_dn(user), {"objectClass": [(ldap3.MODIFY_ADD, ["passrelayAccount"])]})
        for attribute in ("passrelayMarker", "passrelayProof"):
            manager.modify(target.user_dn(user), {attribute: [(ldap3.MODIFY_REPLACE, entry[attribute])]})


def test_a_write_is_settled_only_when_every_server_shows_that_very_write(rig: Rig, second: Directory) -> None:
    handler = rig.make(servers=[rig.directory.ldaps_url, second.ldaps_url])
    user, new = rig.user(), canary_password()
    second.add_user(user, canary_password())
    raw = rig.envelope(user, new, 4)
    rig.deliver(raw)
    before = rig.directory.read(user)
    lonely = _look_again(handler, raw)
    assert (lonely.verdict, second.ldaps_url in lonely.unsettled) == (Verdict.DUPLICATE, True)
    _replicate(user, rig.directory, second)
    settled = _look_again(handler, raw)
    assert (settled.verdict, settled.unsettled) == (Verdict.DUPLICATE, "")
    assert rig.directory.read(user) == before
    second.stop()
    try:
        assert second.ldaps_url in _look_again(handler, raw).unsettled
    finally:
        second.start()


def test_what_replication_took_back_is_written_again(rig: Rig, second: Directory) -> None:
    handler = rig.make(servers=[rig.directory.ldaps_url, second.ldaps_url])
    user, new, old = rig.user(), canary_password(), canary_password()
    second.add_user(user, canary_password())
    older, newer = rig.envelope(user, old, 4), rig.envelope(user, new, 5)
    rig.deliver(newer)
    written = rig.marker(user)
    with rig.directory.manager() as manager:  # the last writer won: an older write of another server
        back = Marker(0, 4, 0, written.guid, uuid4(), written.applied_at)
        manager.modify(
            rig.directory.user_dn(user),
            {
                "passrelayMarker": [(ldap3.MODIFY_REPLACE, [str(back)])],
                "passrelayProof": [(ldap3.MODIFY_REPLACE, [str(back)])],
                "userPassword": [(ldap3.MODIFY_REPLACE, [old])],
            },
        )
    again = _look_again(handler, newer)
    assert (again.verdict, again.server) == (Verdict.APPLIED, rig.directory.ldaps_url)
    assert rig.directory.binds(user, new)
    assert rig.marker(user).key == written.key
    assert rig.marker(user) != written  # another write, so that nobody takes the servers for equal before it is there
    assert _look_again(handler, older).verdict is Verdict.SUPERSEDED


def test_a_settle_copy_begins_at_an_entry_that_was_there_and_never_at_a_namesakes(rig: Rig) -> None:
    user, new = rig.user(), canary_password()
    raw = rig.envelope(user, new, 3)
    for since in (None, datetime.now(UTC) - timedelta(minutes=1)):
        namesake = _look_again(rig.handler, raw, since)
        assert (namesake.verdict, namesake.reason) == (Verdict.RETRY, Reason.REFUSED)
        assert "passrelayMarker" not in rig.directory.read(user)
    behind = _look_again(rig.handler, raw, datetime.now(UTC) + timedelta(seconds=1))
    assert behind.verdict is Verdict.APPLIED
    assert rig.directory.binds(user, new)


def test_of_two_consumers_with_one_event_only_the_one_that_wrote_says_applied(rig: Rig) -> None:
    user, new = rig.user(), canary_password()
    raw, late = rig.envelope(user, new, 2), rig.make()
    late.handle(Delivery(rig.envelope(user, canary_password(), 1), Counters(), datetime.now(UTC)))
    directory = late._directories.on(rig.directory.ldaps_url)
    modify = directory.modify

    def overtaken(dn: str, changes: Any) -> None:
        assert rig.deliver(raw).verdict is Verdict.APPLIED
        directory.modify = modify  # type: ignore[method-assign]
        modify(dn, changes)

    directory.modify = overtaken  # type: ignore[method-assign]
    outcome = late.handle(Delivery(raw, Counters(), datetime.now(UTC)))
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is Verdict.DUPLICATE


def test_workers_share_a_connection_whose_end_loses_nothing(rig: Rig) -> None:
    idm = _settings(rig.directory, rig.enrolment)
    servers, shared = Servers(idm.idm, log=Log("test")), Directories(idm.idm)
    handlers = [Handler(idm, keyring=rig.keyring, servers=servers, directories=shared) for _ in range(6)]
    users = [rig.user() for _ in handlers]
    newest = {user: canary_password() for user in users}
    work: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for kvno in range(1, 9):
        for user in users:
            work.put(rig.envelope(user, newest[user] if kvno == 8 else canary_password(), kvno))

    again: list[bytes] = []

    def work_on(handler: Handler) -> list[Verdict]:
        verdicts: list[Verdict] = []
        with contextlib.suppress(queue.Empty):
            while True:
                raw = work.get_nowait()
                outcome = handler.handle(Delivery(raw, Counters(), datetime.now(UTC)))
                assert isinstance(outcome, Outcome)
                if outcome.verdict is Verdict.RETRY:
                    # Cut or overtaken in each of its rounds; a tier hands it out again.
                    assert "rounds" in outcome.diagnostic, outcome.diagnostic
                    again.append(raw)
                    assert len(again) <= 2 * len(users), "there are so many cuts"
                    work.put(raw)
                    continue
                verdicts.append(outcome.verdict)
                if len(verdicts) in (2, 4):
                    # Cut while the others have requests on their way; another may have cut it just now.
                    connection = shared.on(rig.directory.ldaps_url)._connection
                    if connection is not None:
                        with contextlib.suppress(OSError):
                            socket.socket.shutdown(connection._socket, socket.SHUT_RDWR)
        return verdicts

    with ThreadPoolExecutor(len(handlers)) as threads:
        verdicts = [verdict for each in threads.map(work_on, handlers) for verdict in each]
    shared.close()
    servers.close()
    assert len(verdicts) == 8 * len(users)
    assert set(verdicts) <= {Verdict.APPLIED, Verdict.SUPERSEDED}
    for user in users:
        assert rig.directory.binds(user, newest[user])
        assert rig.marker(user).kvno == 8


# --- a server in trouble


def test_a_read_only_or_silent_server_holds_the_event_and_a_restart_does_not(rig: Rig) -> None:
    user, new = rig.user(), canary_password()
    raw = rig.envelope(user, new, 1)
    rig.directory.read_only(on=True)
    try:
        assert isinstance(rig.make().handle(Delivery(raw, Counters(), datetime.now(UTC))), Hold)
        held = rig.handler.handle(Delivery(raw, Counters(), datetime.now(UTC)))
        assert isinstance(held, Hold)
        assert user not in held.why, "it goes into the log, and the server's words name the entry"
    finally:
        rig.directory.read_only(on=False)
    rig.directory.pause()
    try:
        assert isinstance(rig.make(timeout_seconds=1).handle(Delivery(raw, Counters(), datetime.now(UTC))), Hold)
    finally:
        rig.directory.resume()
    handler = rig.make()
    other = rig.user()
    assert isinstance(handler.handle(Delivery(rig.envelope(other, new, 1), Counters(), datetime.now(UTC))), Outcome)
    rig.directory.kill()
    assert isinstance(handler.handle(Delivery(raw, Counters(), datetime.now(UTC))), Hold)
    rig.directory.start()
    handler._servers.wait_until_up(threading.Event())
    outcome = handler.handle(Delivery(raw, Counters(), datetime.now(UTC)))
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is Verdict.APPLIED
    # The worker's own connection died with a restart that nobody noticed: the event is applied all the same.
    rig.directory.stop()
    rig.directory.start()
    outcome = handler.handle(Delivery(rig.envelope(user, new, 2), Counters(), datetime.now(UTC)))
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is Verdict.APPLIED


def test_a_wrong_ca_a_wrong_name_and_a_wrong_password_are_server_trouble(rig: Rig, tmp_path: Path) -> None:
    raw = rig.envelope(rig.user(), canary_password(), 1)
    wrong_password = tmp_path / "password"
    wrong_password.touch(mode=0o600)
    wrong_password.write_text("Kanarie7-wrong")
    open_password = tmp_path / "open"
    open_password.write_bytes(rig.directory.password_file.read_bytes())
    open_password.chmod(0o644)
    for idm in (
        {"ca_file": tmp_path / "missing.pem"},
        {"servers": [f"ldaps://127.0.0.2:{rig.directory.listening.ldaps}"]},
        {"servers": [rig.directory.ldaps_url.replace("localhost", "ip6-localhost")]},
        {"password_file": wrong_password},
        {"password_file": open_password},
        {"bind_dn": rig.directory.service_dn.replace("passrelay", "nobody")},
    ):
        assert isinstance(rig.make(**idm).handle(Delivery(raw, Counters(), datetime.now(UTC))), Hold)
    outcome = rig.make(servers=[rig.directory.ldap_url]).handle(Delivery(raw, Counters(), datetime.now(UTC)))
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is Verdict.APPLIED, "StartTLS works too"
