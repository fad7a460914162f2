"""IPA's own password plugin: what a listed and an unlisted writer gets from it, and what the handler makes of that."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE
from ldap3.core.results import (
    RESULT_ATTRIBUTE_OR_VALUE_EXISTS,
    RESULT_CONSTRAINT_VIOLATION,
    RESULT_NO_SUCH_ATTRIBUTE,
    RESULT_OBJECT_CLASS_VIOLATION,
    RESULT_SUCCESS,
)

from passrelay_consumer.decide import Entry
from passrelay_consumer.directory import Directory as ConsumerDirectory
from passrelay_consumer.handler import Handler
from passrelay_consumer.outcome import Delivery, Hold, Outcome
from passrelay_consumer.servers import OnProbe, Servers
from passrelay_schemas import filetime
from passrelay_schemas.event import Kind
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Log
from passrelay_schemas.marker import Marker
from passrelay_schemas.message import Counters
from passrelay_schemas.secret import Secret
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.verdict import Reason, Verdict
from tests.lab.directory_tree import Attributes, Changes
from tests.lab.enrolment import Enrolment, change
from tests.lab.folder import canary_password, find_canary
from tests.lab.ipa_directory import MAX_LIFE_SECONDS, PLUGIN_DN, IpaDirectory

pytestmark = [pytest.mark.integration, pytest.mark.ipa]

_NAMES = (f"ipa{number}" for number in itertools.count())
_MAX_LIFE = timedelta(seconds=MAX_LIFE_SECONDS)


@pytest.fixture
def directory(shared_ipa_directory: IpaDirectory) -> Iterator[IpaDirectory]:
    """The server, given back as it was: our DN listed, IPA's own policy."""
    yield shared_ipa_directory
    shared_ipa_directory.set_managers(shared_ipa_directory.service_dn)
    shared_ipa_directory.set_policy(krbPwdHistoryLength=0, krbMaxPwdLife=MAX_LIFE_SECONDS)


def _user(directory: IpaDirectory, **attributes: Any) -> str:
    name = next(_NAMES)
    directory.add_user(name, canary_password(), **attributes)
    return name


def _time(entry: Attributes, attribute: str) -> datetime:
    return datetime.strptime(entry[attribute][0], "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _now() -> datetime:
    """As the directory writes times: in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def _life(entry: Attributes) -> timedelta:
    """How long after it was set the password expires."""
    return _time(entry, "krbPasswordExpiration") - _time(entry, "krbLastPwdChange")


def _set(connection: Any, dn: str, password: str, **more: Any) -> int:
    changes: Changes = {"userPassword": [(MODIFY_REPLACE, [password])], **more}
    connection.modify(dn, changes)
    code: int = connection.result["result"]
    return code


# --- the plugin itself


def test_a_listed_writer_gives_the_policys_lifetime_and_is_free_of_length_and_history(directory: IpaDirectory) -> None:
    directory.set_policy(krbPwdHistoryLength=5)
    user = _user(directory)
    with directory.service() as service:
        for password in ("x", "y", "x"):
            assert _set(service, directory.user_dn(user), password) == RESULT_SUCCESS
    entry = directory.read(user)
    assert _life(entry) == _MAX_LIFE
    assert entry["krbPrincipalKey"]
    assert "krbLastAdminUnlock" not in entry, "IPA unlocks nobody for a plain modify: passrelay has to"
    assert directory.binds(user, "x")


def test_an_unlisted_writer_expires_the_user_at_once_and_meets_the_history(directory: IpaDirectory) -> None:
    directory.set_policy(krbPwdHistoryLength=5)
    user, used = _user(directory), canary_password()
    dn = directory.user_dn(user)
    with directory.service() as service:
        assert _set(service, dn, used) == RESULT_SUCCESS
        directory.set_managers()
        # On the connection that was open before: the list counts at each write.
        assert _set(service, dn, canary_password()) == RESULT_SUCCESS
        entry = directory.read(user)
        assert _life(entry) == timedelta()
        assert _time(entry, "krbPasswordExpiration") <= _now()
        assert _set(service, dn, used) == RESULT_CONSTRAINT_VIOLATION
        assert "reuse" in service.result["message"]
        directory.set_managers(directory.service_dn)
        assert _set(service, dn, used) == RESULT_SUCCESS
    assert _life(directory.read(user)) == _MAX_LIFE


@pytest.mark.parametrize(
    ("old", "new", "listed"),
    [
        (",cn=sysaccounts", ", cn=sysaccounts", False),
        ("uid=passrelay", "UID=PassRelay", True),
        ("uid=passrelay", "uid = passrelay", False),
    ],
)
def test_the_list_is_compared_as_text_but_for_case(directory: IpaDirectory, old: str, new: str, listed: bool) -> None:
    user = _user(directory)
    directory.set_managers(directory.service_dn.replace(old, new))
    with directory.service() as service:
        assert _set(service, directory.user_dn(user), canary_password()) == RESULT_SUCCESS
    assert _life(directory.read(user)) == (_MAX_LIFE if listed else timedelta())


def test_how_the_writer_spells_his_own_dn_does_not_matter(directory: IpaDirectory) -> None:
    user, password = _user(directory), directory.password_file.read_text()
    with directory.connect(directory.service_dn.replace(",", ", ").upper(), password) as service:
        assert _set(service, directory.user_dn(user), canary_password()) == RESULT_SUCCESS
    assert _life(directory.read(user)) == _MAX_LIFE


def test_the_longest_password_and_a_hash_are_judged_for_a_listed_writer_too(directory: IpaDirectory) -> None:
    user, longest = _user(directory), canary_password().ljust(1000, "x")
    dn = directory.user_dn(user)
    with directory.service() as service:
        assert _set(service, dn, longest) == RESULT_SUCCESS
        assert _set(service, dn, longest + "x") == RESULT_CONSTRAINT_VIOLATION
        assert _set(service, dn, "{SSHA}8C1eLXG2Qb4xXvZlK3iYl7rQ1E8hZGVtb3NhbHQ=") == RESULT_CONSTRAINT_VIOLATION
    assert directory.binds(user, longest)


def test_only_the_extended_operation_unlocks_by_itself(directory: IpaDirectory) -> None:
    user, began = _user(directory), _now()
    with directory.manager() as manager:
        assert manager.extend.standard.modify_password(directory.user_dn(user), new_password=canary_password())
    assert _time(directory.read(user), "krbLastAdminUnlock") >= began


def test_a_stale_marker_changes_neither_password_nor_keys_nor_times(directory: IpaDirectory) -> None:
    user, password = _user(directory), canary_password()
    dn = directory.user_dn(user)
    with directory.service() as service:
        first: Changes = {
            "objectClass": [(MODIFY_ADD, ["passrelayAccount"])],
            "passrelayMarker": [(MODIFY_ADD, ["one"])],
            "krbLastAdminUnlock": [(MODIFY_REPLACE, ["20260101000000Z"])],
        }
        assert _set(service, dn, password, **first) == RESULT_SUCCESS
        before = directory.read(user)
        assert before["krbLastAdminUnlock"] == ["20260101000000Z"]
        stale: Changes = {"passrelayMarker": [(MODIFY_DELETE, ["zero"]), (MODIFY_ADD, ["two"])]}
        assert _set(service, dn, canary_password(), **stale) == RESULT_NO_SUCH_ATTRIBUTE
        again: Changes = {"passrelayMarker": [(MODIFY_ADD, ["two"])]}
        assert _set(service, dn, canary_password(), **again) == RESULT_OBJECT_CLASS_VIOLATION
        assert "multiple values" in service.result["message"]
        assert _set(service, dn, canary_password(), **first) == RESULT_ATTRIBUTE_OR_VALUE_EXISTS
    assert directory.read(user) == before
    assert directory.binds(user, password)


def test_an_expiration_in_the_passwords_own_modify_is_overwritten(directory: IpaDirectory) -> None:
    user = _user(directory)
    dn = directory.user_dn(user)
    expired: Changes = {"krbPasswordExpiration": [(MODIFY_REPLACE, ["20200101000000Z"])]}
    with directory.service() as service:
        assert _set(service, dn, canary_password(), **expired) == RESULT_SUCCESS
        assert _life(directory.read(user)) == _MAX_LIFE
        service.modify(dn, expired)
    assert directory.read(user)["krbPasswordExpiration"] == ["20200101000000Z"]


def test_no_clear_text_reaches_a_file(directory: IpaDirectory) -> None:
    user = _user(directory)
    with directory.service() as service:
        assert _set(service, directory.user_dn(user), canary_password()) == RESULT_SUCCESS
    files, _, hits = find_canary([directory.layout.folder])
    assert files > 0
    assert hits == []


# --- the handler on it


class Site:
    """One consumer at the server, and one enrolled producer."""

    def __init__(self, directory: IpaDirectory, folder: Path) -> None:
        self.directory = directory
        enrolment = Enrolment(folder)
        self._sender = enrolment.enrol("dc1")
        self._keyring = Keyring(enrolment.consumer_keys)
        self._guids: dict[str, UUID] = {}
        document: dict[str, Any] = {
            "broker": {"url": "amqp://127.0.0.1/"},
            "keys": {"directory": enrolment.consumer_keys},
            "idm": {
                "servers": [directory.ldaps_url],
                "ca_file": directory.ca_file,
                "bind_dn": directory.service_dn,
                "password_file": directory.password_file,
            },
            "domain": [enrolment.domain(directory.search_base)],
        }
        self.settings = ConsumerSettings(**document)

    @contextmanager
    def consumer(self, on_probe: OnProbe | None = None) -> Iterator[tuple[Handler, Servers]]:
        servers = Servers(self.settings.idm, log=Log("test"), on_probe=on_probe)
        handler = Handler(self.settings, keyring=self._keyring, servers=servers)
        try:
            yield handler, servers
        finally:
            handler.close()
            servers.close()

    def envelope(self, user: str, password: str | None, kvno: int, **more: Any) -> bytes:
        guid = self._guids.setdefault(user, uuid4())
        # Later than the password that the user was made with, which IPA dates.
        more.setdefault("changed_at", filetime.now() + (kvno + 60) * filetime.UNITS_PER_SECOND)
        return self._sender.envelope(change(user, password, guid=guid, kvno=kvno, **more))

    def marker(self, user: str) -> Marker:
        return Marker.parse(self.directory.read(user)["passrelayMarker"][0])


def _handle(handler: Handler, raw: bytes) -> Outcome | Hold:
    return handler.handle(Delivery(raw, Counters(), datetime.now(UTC)))


def _verdict(handler: Handler, raw: bytes) -> Verdict:
    outcome = _handle(handler, raw)
    assert isinstance(outcome, Outcome), outcome
    return outcome.verdict


@pytest.fixture(scope="module")
def whole_site(shared_ipa_directory: IpaDirectory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(shared_ipa_directory, tmp_path_factory.mktemp("keys"))


@pytest.fixture
def site(whole_site: Site, directory: IpaDirectory) -> Site:
    return whole_site


@pytest.fixture
def handler(site: Site) -> Iterator[Handler]:
    with site.consumer() as (handler, _):
        yield handler


def test_a_change_is_applied_with_the_policys_lifetime_and_unlocks(site: Site, handler: Handler) -> None:
    user, new, began = _user(site.directory), canary_password(), _now()
    assert _verdict(handler, site.envelope(user, new, 3)) is Verdict.APPLIED
    entry = site.directory.read(user)
    assert site.directory.binds(user, new)
    assert _life(entry) == _MAX_LIFE
    assert _time(entry, "krbLastAdminUnlock") >= began
    assert site.marker(user).kvno == 3


def test_ad_may_set_what_idms_policy_would_refuse(site: Site, handler: Handler) -> None:
    site.directory.set_policy(krbPwdHistoryLength=5)
    user, used = _user(site.directory), canary_password()
    for kvno, password in enumerate((used, "x", used), start=1):
        assert _verdict(handler, site.envelope(user, password, kvno)) is Verdict.APPLIED
    assert site.directory.binds(user, used)


def test_a_password_that_ipa_takes_for_a_hash_is_dead_and_leaves_the_user_alone(site: Site, handler: Handler) -> None:
    user, look_alike = _user(site.directory), "{SSHA}8C1eLXG2Qb4xXvZlK3iYl7rQ1E8hZGVtb3NhbHQ="
    before = site.directory.read(user)
    outcome = _handle(handler, site.envelope(user, look_alike, 1))
    assert isinstance(outcome, Outcome)
    assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.POLICY)
    assert look_alike not in outcome.diagnostic
    assert site.directory.read(user) == before


def test_a_change_older_than_the_password_that_ipa_dated_is_superseded(site: Site, handler: Handler) -> None:
    user = _user(site.directory)
    an_hour_ago = filetime.now() - 3600 * filetime.UNITS_PER_SECOND
    outcome = _handle(handler, site.envelope(user, canary_password(), 1, changed_at=an_hour_ago))
    assert isinstance(outcome, Outcome)
    assert (outcome.verdict, outcome.reason) == (Verdict.SUPERSEDED, "idm_newer")


@pytest.mark.parametrize("listed", ["nobody", "with a blank"])
def test_a_server_that_does_not_list_us_gets_no_user(site: Site, listed: str) -> None:
    directory = site.directory
    user = _user(directory)
    before = directory.read(user)
    spelled = directory.service_dn.replace(",", ", ")
    directory.set_managers(*([] if listed == "nobody" else [spelled]))
    probing = ConsumerDirectory(directory.ldaps_url, site.settings.idm)
    try:
        probe = probing.probe(Secret(canary_password()))
    finally:
        probing.close()
    assert (probe.ok, probe.check) == (False, "expiry")
    assert directory.service_dn in probe.repair
    raw = site.envelope(user, canary_password(), 1)
    with site.consumer() as (handler, servers):
        assert isinstance(_handle(handler, raw), Hold)
        assert directory.read(user) == before
        directory.set_managers(directory.service_dn)
        servers.wait_until_up(threading.Event())
        assert _verdict(handler, raw) is Verdict.APPLIED
    assert _life(directory.read(user)) == _MAX_LIFE


def test_taken_from_the_list_while_in_use_costs_no_user_anything(site: Site) -> None:
    directory = site.directory
    user, new = _user(directory), canary_password()
    raw = site.envelope(user, new, 2)
    with site.consumer() as (handler, servers):
        assert _verdict(handler, site.envelope(user, canary_password(), 1)) is Verdict.APPLIED
        before = directory.read(user)
        directory.set_managers()
        # Long before the next probe: the list is looked at before each write.
        assert isinstance(_handle(handler, raw), Hold)
        assert directory.read(user) == before
        directory.set_managers(directory.service_dn)
        servers.wait_until_up(threading.Event())
        assert _verdict(handler, raw) is Verdict.APPLIED
    assert _life(directory.read(user)) == _MAX_LIFE
    assert directory.binds(user, new)


class Moment:
    """Something happens once, in the moment between the look at a server's list and the write to a user."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
        self._happens: Callable[[], object] | None = happens
        looks = ConsumerDirectory.lists_us

        def lists_us(directory: ConsumerDirectory) -> bool | None:
            listed = looks(directory)
            happens, self._happens = self._happens, None
            if happens is not None:
                happens()
            return listed

        monkeypatch.setattr(ConsumerDirectory, "lists_us", lists_us)


@pytest.mark.parametrize("probed_meanwhile", [False, True])
@pytest.mark.parametrize("max_life", [timedelta(), timedelta(days=30), _MAX_LIFE])
def test_taken_from_the_list_in_the_moment_of_the_write_is_put_right_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, max_life: timedelta, probed_meanwhile: bool
) -> None:
    directory = site.directory
    directory.set_policy(krbMaxPwdLife=int(max_life.total_seconds()))
    user, fresh, new = _user(directory), f"fresh-{next(_NAMES)}", canary_password()
    directory.add_users([fresh])
    with site.consumer() as (handler, servers):

        def lost() -> None:
            directory.set_managers()
            if probed_meanwhile:  # by another worker; this one's write is under way all the same
                servers.suspect(directory.ldaps_url, since=time.monotonic())

        for name in (user, fresh):
            Moment(monkeypatch, lost)
            assert _verdict(handler, site.envelope(name, new, 1)) is Verdict.APPLIED
            entry = directory.read(name)
            if max_life:
                assert _life(entry) == max_life
            else:
                assert "krbPasswordExpiration" not in entry
            assert directory.binds(name, new)
            assert servers.current() is None, "no write goes there any more"
            directory.set_managers(directory.service_dn)
            servers.wait_until_up(threading.Event())


@pytest.mark.parametrize("by", ["a tick", "an administrator"])
def test_a_time_that_no_policy_gave_is_not_the_next_passwords_life(
    site: Site, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The password before had seconds to live: that one was meant, the new one is not."""
    directory, user, new, seconds = site.directory, _user(site.directory), canary_password(), timedelta(seconds=5)
    now = Servers.now
    with site.consumer() as (handler, _):
        assert _verdict(handler, site.envelope(user, canary_password(), 1)) is Verdict.APPLIED
        with monkeypatch.context() as later:
            later.setattr(Servers, "now", lambda servers, url: now(servers, url) + seconds)
            if by == "a tick":
                tick = site.envelope(user, None, 1, kind=Kind.EXPIRE, must_change=True)
                assert _verdict(handler, tick) is Verdict.APPLIED
            else:
                directory.expire(user, _time(directory.read(user), "krbLastPwdChange") + seconds)
        assert timedelta() < _life(directory.read(user)) <= 2 * seconds
        Moment(monkeypatch, directory.set_managers)
        assert _verdict(handler, site.envelope(user, new, 2)) is Verdict.APPLIED
    assert _life(directory.read(user)) == _MAX_LIFE
    assert directory.binds(user, new)


def test_who_had_a_password_for_ever_has_the_next_one_for_ever_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, new = site.directory, canary_password()
    directory.set_policy(krbMaxPwdLife=0)
    user = _user(directory)
    assert "krbPasswordExpiration" not in directory.read(user)
    directory.set_policy(krbMaxPwdLife=MAX_LIFE_SECONDS)  # of the probe, and of all others
    with site.consumer() as (handler, _):
        Moment(monkeypatch, directory.set_managers)
        assert _verdict(handler, site.envelope(user, new, 1)) is Verdict.APPLIED
    assert "krbPasswordExpiration" not in directory.read(user)
    assert directory.binds(user, new)


def test_a_list_that_we_may_not_see_costs_one_probe_and_not_one_for_each_event(site: Site) -> None:
    directory, user, probes = site.directory, _user(site.directory), []
    [rule] = directory.read_entry(PLUGIN_DN)["aci"]
    hidden = rule.replace("passSyncManagersDN*", "cn")
    assert hidden != rule
    directory.change_rules(PLUGIN_DN, delete=[rule])
    directory.change_rules(PLUGIN_DN, add=[hidden])
    try:
        with site.consumer(on_probe=lambda _, result: probes.append(result.ok)) as (handler, servers):
            seen = ConsumerDirectory(directory.ldaps_url, site.settings.idm)
            assert seen.lists_us() is False, "the entry is there, and nobody in its list"
            seen.close()
            for kvno in range(1, 11):
                assert _verdict(handler, site.envelope(user, canary_password(), kvno)) is Verdict.APPLIED
            assert probes == [True, True], "before the first use, and for the list"
            directory.change_rules(PLUGIN_DN, delete=[hidden])
            directory.change_rules(PLUGIN_DN, add=[rule])
            assert _verdict(handler, site.envelope(user, canary_password(), 11)) is Verdict.APPLIED
            # It showed us now: whatever was believed before, one that shows us no more is probed at once.
            before = directory.read(user)
            directory.set_managers()
            assert isinstance(_handle(handler, site.envelope(user, canary_password(), 12)), Hold)
            assert directory.read(user) == before
            assert probes == [True, True, False]
            assert servers.current() is None
    finally:
        found = directory.read_entry(PLUGIN_DN)["aci"]
        if hidden in found:
            directory.change_rules(PLUGIN_DN, delete=[hidden])
        if rule not in found:
            directory.change_rules(PLUGIN_DN, add=[rule])


def test_a_must_change_step_of_another_consumer_is_not_taken_for_a_wrong_servers_work(
    site: Site, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = _user(site.directory)
    tick = site.envelope(user, None, 1, kind=Kind.EXPIRE, must_change=True)
    read = ConsumerDirectory.read
    with site.consumer() as (other, _):

        def read_late(directory: ConsumerDirectory, dn: str) -> Entry | None:
            monkeypatch.setattr(ConsumerDirectory, "read", read)
            assert _verdict(other, tick) is Verdict.APPLIED
            return read(directory, dn)

        monkeypatch.setattr(ConsumerDirectory, "read", read_late)
        assert _verdict(handler, site.envelope(user, canary_password(), 1)) is Verdict.APPLIED
    entry = site.directory.read(user)
    assert _time(entry, "krbPasswordExpiration") <= _now(), "he has to change it"
    assert site.marker(user).flags == {"x"}


def test_where_the_list_cannot_be_seen_the_write_itself_tells(site: Site) -> None:
    directory = site.directory
    user, new = _user(directory), canary_password()
    rules = directory.read_entry(PLUGIN_DN)["aci"]
    directory.change_rules(PLUGIN_DN, delete=rules)
    try:
        with site.consumer() as (handler, servers):
            assert _verdict(handler, site.envelope(user, canary_password(), 1)) is Verdict.APPLIED
            directory.set_managers()
            assert _verdict(handler, site.envelope(user, new, 2)) is Verdict.APPLIED
            assert _life(directory.read(user)) == _MAX_LIFE
            assert servers.current() is None
            assert isinstance(_handle(handler, site.envelope(user, canary_password(), 3)), Hold)
    finally:
        directory.change_rules(PLUGIN_DN, add=rules)
    assert directory.binds(user, new)


def test_must_change_holds_until_the_next_password(site: Site, handler: Handler) -> None:
    user, new = _user(site.directory), canary_password()
    raw = site.envelope(user, new, 4, must_change=True)
    assert _verdict(handler, raw) is Verdict.APPLIED
    entry = site.directory.read(user)
    assert site.directory.binds(user, new)
    assert site.marker(user).flags == {"x"}
    assert _time(entry, "krbPasswordExpiration") <= _time(entry, "krbLastPwdChange"), "expired at once"
    # An expired password is also what a server leaves that does not list us: this one is meant, and nothing is written.
    assert _verdict(handler, raw) is Verdict.DUPLICATE
    assert site.directory.read(user) == entry
    assert _verdict(handler, site.envelope(user, canary_password(), 5)) is Verdict.APPLIED
    assert _life(site.directory.read(user)) == _MAX_LIFE
    assert site.marker(user).flags == frozenset()


def test_a_user_who_was_preserved_and_came_back_gets_his_password_again(site: Site, handler: Handler) -> None:
    user, new = _user(site.directory), canary_password()
    raw = site.envelope(user, new, 7)
    assert _verdict(handler, raw) is Verdict.APPLIED
    site.directory.preserve(user)
    waits = _handle(handler, raw)
    assert isinstance(waits, Outcome)
    assert (waits.verdict, waits.reason) == (Verdict.RETRY, Reason.USER_MISSING)
    site.directory.undelete(user)
    assert site.marker(user).kvno == 7
    assert not site.directory.binds(user, new)
    assert _verdict(handler, raw) is Verdict.APPLIED
    assert site.directory.binds(user, new)
    assert _life(site.directory.read(user)) == _MAX_LIFE
    assert _verdict(handler, raw) is Verdict.DUPLICATE


def test_many_writers_at_one_entry_end_with_the_newest_password_and_its_marker(site: Site) -> None:
    user = _user(site.directory)
    passwords = {kvno: canary_password() for kvno in range(1, 17)}
    raws = [site.envelope(user, password, kvno) for kvno, password in passwords.items()]

    def carry(share: list[bytes]) -> None:
        with site.consumer() as (handler, _):
            for raw in share:
                while _verdict(handler, raw) is Verdict.RETRY:  # contended, as the tiers would bring it again
                    pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(carry, [raws[start::8] for start in range(8)]))
    assert site.marker(user).kvno == 16
    assert site.directory.binds(user, passwords[16])


def test_a_reused_password_is_not_dead_because_a_server_no_longer_lists_us(site: Site) -> None:
    directory = site.directory
    directory.set_policy(krbPwdHistoryLength=5)
    user, used = _user(directory), canary_password()
    raw = site.envelope(user, used, 3)
    with site.consumer() as (handler, servers):
        for kvno, password in enumerate((used, canary_password()), start=1):
            assert _verdict(handler, site.envelope(user, password, kvno)) is Verdict.APPLIED
        directory.set_managers()
        assert isinstance(_handle(handler, raw), Hold)
        directory.set_managers(directory.service_dn)
        servers.wait_until_up(threading.Event())
        assert _verdict(handler, raw) is Verdict.APPLIED
    assert directory.binds(user, used)


def test_the_plugin_is_known_where_passwords_never_expire(site: Site) -> None:
    directory = site.directory
    directory.set_policy(krbMaxPwdLife=0)
    user, new = _user(directory), canary_password()
    raw = site.envelope(user, new, 2)
    with site.consumer() as (handler, _):
        assert _verdict(handler, raw) is Verdict.APPLIED
        assert "krbPasswordExpiration" not in directory.read(user)
        directory.preserve(user)
        directory.undelete(user)
        assert _verdict(handler, raw) is Verdict.APPLIED
        assert directory.binds(user, new)
