"""IdM's side of an audit on real servers: a search for many users never says other than the consumer's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from ldap3 import MODIFY_REPLACE
from ldap3.core.results import RESULT_CONSTRAINT_VIOLATION

from passrelay_consumer.decide import Entry
from passrelay_consumer.directory import Directory as ConsumerDirectory
from passrelay_consumer.directory import write_changes
from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.entries import Entries
from passrelay_ops.audit.state import Rules, Sight, State, judge
from passrelay_schemas.domain_settings import DEFAULT_MATCH, DomainSettings
from passrelay_schemas.errors import MarkerError
from passrelay_schemas.event import Account
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import from_datetime, rfc3339, utc_now
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.marker import Marker
from passrelay_schemas.secret import Secret
from tests.lab.directory import Directory
from tests.lab.directory_tree import Changes, add, delete, modify
from tests.lab.enrolment import DOMAIN, DOMAIN_SID
from tests.lab.folder import canary_password
from tests.lab.ipa_directory import IpaDirectory

pytestmark = pytest.mark.integration

ORIGIN = UUID(int=1 << 100)


def idm(directory: Directory) -> IdmSettings:
    return IdmSettings(
        servers=(directory.ldaps_url,),
        ca_file=directory.ca_file,
        bind_dn=directory.service_dn,
        password_file=directory.password_file,
    )


def domain(directory: Directory, match: str = DEFAULT_MATCH) -> DomainSettings:
    # Above the users, so that compat and preserved entries are found as well.
    return DomainSettings(name=DOMAIN, sid=DOMAIN_SID, search_base=directory.suffix, match=match)


def user(name: str, *, upn: str | None = None, guid: UUID | None = None, kvno: int = 1) -> AdAccount:
    account = Account(guid=guid or uuid4(), sam_account_name=name, user_principal_name=upn)
    return AdAccount(account, kvno, from_datetime(datetime(2026, 11, 24, 12, tzinfo=UTC)), ORIGIN)


@pytest.fixture(scope="module")
def crowd(shared_directory: Directory) -> Iterator[list[AdAccount]]:
    """AD users whose entries are everything that a batch could take for somebody else's."""
    directory = shared_directory
    names = ["Audit.Upper", "audit plain", "audit*star", "audit(paren)", "audit\\slash", "äudit", "audit,comma"]
    for name in names[:2]:
        directory.add_user(name.lower())
    for name in names[2:5]:
        add_entry(directory, name)
    directory.add_user("audit-renamed", ntUserDomainId="Audit-OldName")
    directory.add_user("audit-umlaut", ntUserDomainId="Äudit")
    directory.add_user("audit-one", ntUserDomainId="audit-both")
    directory.add_user("audit-both")
    directory.add_user("audit-mail", ntUserDomainId="audit-mail@x.example")
    directory.add_user("audit-broken", passrelayMarker="no marker")
    with directory.manager() as manager:
        preserved = f"uid=audit-gone,cn=deleted users,cn=accounts,cn=provisioning,{directory.suffix}"
        add(manager, preserved, {"objectClass": ["inetOrgPerson"], "uid": ["audit-gone"], "cn": ["x"], "sn": ["x"]})
    more = ["audit-oldname", "AUDIT-RENAMED", "audit-one", "audit-both", "audit-broken", "audit-gone", "audit-nobody"]
    people = [user(name, upn=f"{name.lower()}@x.example") for name in [*names, *more, "audit-mail"]]
    yield [*people, user("audit-namesake", upn="audit-mail@x.example")]
    with directory.manager() as manager:
        manager.search(directory.suffix, "(uid=audit*)", attributes=["1.1"])
        for item in manager.response or []:
            delete(manager, item["dn"])


def add_entry(directory: Directory, name: str) -> None:
    """A user whose name a DN cannot hold as it is."""
    cn = str(uuid4())
    entry = {"objectClass": ["inetOrgPerson"], "cn": [cn], "sn": ["x"], "uid": [name]}
    with directory.manager() as manager:
        add(manager, f"cn={cn},{directory.search_base}", entry)


def alone(consumer: ConsumerDirectory, one: AdAccount, settings: DomainSettings) -> tuple[set[str], bool]:
    try:
        return {entry.dn for entry in consumer.find(one.account, settings)}, False
    except MarkerError:
        return set(), True


def seen(sight: Sight) -> tuple[set[str], bool]:
    return {entry.dn for entry in sight.entries}, bool(sight.fault)


@pytest.mark.parametrize(
    "match",
    [
        DEFAULT_MATCH,
        "(|(uid={sam})(ntUserDomainId={sam}))",
        "(&(objectClass=person)(!(nsAccountLock=TRUE))(uid={sam}))",
        "(|(uid={sam})(ntUserDomainId={upn}))",
        "(&(uid={sam})(ntUserDomainId={upn}))",
        "(uid=*{sam}*)",
    ],
)
def test_a_batch_finds_for_each_what_the_consumer_finds(
    shared_directory: Directory, crowd: list[AdAccount], match: str
) -> None:
    settings, where = idm(shared_directory), domain(shared_directory, match)
    entries, consumer = (
        Entries(shared_directory.ldaps_url, settings, where),
        ConsumerDirectory(shared_directory.ldaps_url, settings),
    )
    try:
        wanted = {one.name: alone(consumer, one, where) for one in crowd}
        found = {one.name: seen(sight) for one, sight in zip(crowd, entries.look(crowd), strict=True)}
        assert found == wanted
        assert sum(bool(dns) for dns, _ in wanted.values()) >= 1
    finally:
        entries.close()
        consumer.close()


def write(directory: Directory, name: str, one: AdAccount, password: str | None = None) -> Entry:
    """What a consumer's write leaves, and the entry as it is then."""
    key = one.key(0)
    assert key is not None
    settings, where = idm(directory), domain(directory)
    consumer = ConsumerDirectory(directory.ldaps_url, settings)
    try:
        (entry,) = consumer.find(one.account, where)
        marker = Marker(0, one.kvno, key.changed_at, one.guid, new_event_id(), rfc3339(utc_now()))
        changes = write_changes(
            password=Secret(password or canary_password()), new=marker, entry=entry, idm=settings, unlock_at=None
        )
        consumer.modify(entry.dn, changes)
        (entry,) = consumer.find(one.account, where)
        return entry
    finally:
        consumer.close()


def state(directory: Directory, one: AdAccount) -> State:
    entries = Entries(directory.ldaps_url, idm(directory), domain(directory))
    try:
        return judge(one, entries.look([one]), Rules(0)).state
    finally:
        entries.close()


def test_an_entry_is_found_by_the_guid_in_its_marker(
    shared_directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = shared_directory
    people = {name: user(name) for name in ("audit-page1", "audit-page2", "audit-page3", "audit-page4")}
    for name, one in people.items():
        directory.add_user(name)
        write(directory, name, one)
    directory.add_user("audit-nomarker", passrelayMarker="no marker")
    monkeypatch.setattr("passrelay_ops.audit.entries._PAGE", 2)
    searched = Entries(directory.ldaps_url, idm(directory), domain(directory))
    try:
        wanted = {one.guid: directory.user_dn(name) for name, one in list(people.items())[1:]}
        found = searched.of_guids({*wanted, uuid4()})
        assert {guid: entry.dn for guid, entry in found.items()} == wanted
        assert all(entry.marker is not None and entry.marker.guid == guid for guid, entry in found.items())
    finally:
        searched.close()
        for name in (*people, "audit-nomarker"):
            directory.delete_user(name)


@pytest.mark.ipa
def test_a_change_that_ipa_refuses_looks_like_one_that_it_took(shared_ipa_directory: IpaDirectory) -> None:
    """Should this fail with a newer IPA, the words "or tried to be set" and a limit in the runbook can go."""
    # Written a day ago by all that the entry shows, so that nobody has to wait.
    directory, one = shared_ipa_directory, user("audit-tried")
    directory.add_user("audit-tried")
    password = canary_password("Ab1")
    write(directory, "audit-tried", one, password)
    with directory.manager() as manager:
        marker = Marker.parse(directory.read("audit-tried")["passrelayMarker"][0])
        earlier = str(marker).replace(marker.applied_at, "2026-11-24T12:00:00.000Z")
        values: list[tuple[str, list[str]]] = [(MODIFY_REPLACE, [earlier])]
        changed: list[tuple[str, list[str]]] = [(MODIFY_REPLACE, ["20261124120000Z"])]
        changes: Changes = {"passrelayMarker": values, "passrelayProof": values, "krbLastPwdChange": changed}
        modify(manager, directory.user_dn("audit-tried"), changes)
    assert state(directory, one) is State.IN_SYNC
    with directory.connect(directory.user_dn("audit-tried"), password) as own:
        own.modify(directory.user_dn("audit-tried"), {"userPassword": [(MODIFY_REPLACE, ["short"])]})
        assert own.result["result"] == RESULT_CONSTRAINT_VIOLATION
    assert directory.binds("audit-tried", password)
    assert state(directory, one) is State.CHANGED_IN_IDM


@pytest.mark.ipa
def test_a_password_set_in_ipa_itself_is_seen(shared_ipa_directory: IpaDirectory) -> None:
    directory, one = shared_ipa_directory, user("audit-direct")
    directory.add_user("audit-direct")
    assert state(directory, one) is State.NEVER_SYNCED
    write(directory, "audit-direct", one)
    assert state(directory, one) is State.IN_SYNC
    # An hour ago by the marker, so that nobody has to wait until the user has a reason for another password.
    with directory.manager() as manager:
        marker = Marker.parse(directory.read("audit-direct")["passrelayMarker"][0])
        earlier = str(marker).replace(marker.applied_at, "2026-11-24T12:00:00.000Z")
        values: list[tuple[str, list[str]]] = [(MODIFY_REPLACE, [earlier])]
        modify(manager, directory.user_dn("audit-direct"), {"passrelayMarker": values, "passrelayProof": values})
        password: list[tuple[str, list[str]]] = [(MODIFY_REPLACE, [canary_password()])]
        modify(manager, directory.user_dn("audit-direct"), {"userPassword": password})
    assert state(directory, one) is State.CHANGED_IN_IDM
