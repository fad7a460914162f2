"""Which entries get a password and which never do, and what a refusal tells: on a real 389 Directory Server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE

from passrelay_consumer.handler import Handler
from passrelay_consumer.outcome import Delivery, Outcome
from passrelay_consumer.servers import Servers
from passrelay_schemas import filetime
from passrelay_schemas.keyring import Keyring
from passrelay_schemas.logs import Log
from passrelay_schemas.message import Counters
from passrelay_schemas.settings import ConsumerSettings
from passrelay_schemas.verdict import Reason, Verdict
from tests.lab.directory import Directory
from tests.lab.directory_tree import add, modify
from tests.lab.enrolment import Enrolment, Sender, change
from tests.lab.folder import canary_password
from tests.lab.process import LabError

pytestmark = pytest.mark.integration

_NAMES = (f"entry{number}" for number in itertools.count())
_STAGED = "cn=staged users,cn=accounts,cn=provisioning"
_PRESERVED = "cn=deleted users,cn=accounts,cn=provisioning"
_READABLE = (
    '(targetattr = "*")(version 3.0; acl "what a service account sees of IPA by itself"; '
    'allow (read, search, compare) userdn = "ldap:///all";)'
)


class Site:
    """One enrolled producer, and handlers as they are configured."""

    def __init__(self, directory: Directory, enrolment: Enrolment, sender: Sender) -> None:
        self.directory = directory
        self._enrolment = enrolment
        self._sender = sender

    def user(self, password: str | None = None, **attributes: Any) -> str:
        name = next(_NAMES)
        self.directory.add_user(name, password or canary_password(), **attributes)
        return name

    def send(self, sam: str, password: str, *, base: str | None = None, **idm: Any) -> Outcome:
        """One event through a consumer with these settings."""
        settings = ConsumerSettings.model_validate(
            {
                "broker": {"url": "amqp://127.0.0.1/"},
                "keys": {"directory": self._enrolment.consumer_keys},
                "idm": {
                    "servers": [self.directory.ldaps_url],
                    "ca_file": self.directory.ca_file,
                    "bind_dn": self.directory.service_dn,
                    "password_file": self.directory.password_file,
                    **idm,
                },
                "domain": [self._enrolment.domain(base or self.directory.search_base)],
            }
        )
        servers = Servers(settings.idm, log=Log("test"))
        handler = Handler(settings, keyring=Keyring(self._enrolment.consumer_keys), servers=servers)
        event = change(sam, password, guid=uuid4(), kvno=1, changed_at=filetime.now())
        try:
            outcome = handler.handle(Delivery(self._sender.envelope(event), Counters(), datetime.now(UTC)))
        finally:
            handler.close()
            servers.close()
        assert isinstance(outcome, Outcome)
        return outcome


@pytest.fixture(scope="module")
def site(shared_directory: Directory, tmp_path_factory: pytest.TempPathFactory) -> Site:
    enrolment = Enrolment(tmp_path_factory.mktemp("keys"))
    return Site(shared_directory, enrolment, enrolment.enrol("dc1"))


@contextmanager
def _changed(directory: Directory, dn: str, attribute: str, *values: str) -> Iterator[None]:
    """Values of an attribute, and taken away again."""
    with directory.manager() as manager:
        modify(manager, dn, {attribute: [(MODIFY_ADD, list(values))]})
        yield
        modify(manager, dn, {attribute: [(MODIFY_DELETE, list(values))]})


# --- people


def test_a_member_of_a_protected_group_is_never_written_also_through_another_group(site: Site) -> None:
    directory = site.directory
    direct, nested, other = site.user(), site.user(), site.user()
    groups = f"cn=groups,cn=accounts,{directory.suffix}"
    with directory.manager() as manager:
        for name, member in (("clerks", directory.user_dn(nested)), ("payroll", f"cn=clerks,{groups}")):
            classes = ["top", "groupOfNames", "nsMemberOf"]
            add(manager, f"cn={name},{groups}", {"objectClass": classes, "cn": [name], "member": [member]})
        modify(manager, f"cn=payroll,{groups}", {"member": [(MODIFY_ADD, [directory.user_dn(direct)])]})
    for user in (direct, nested):
        outcome = site.send(user, canary_password(), protected_groups=["admins", "Payroll"])
        assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.PROTECTED)
        assert "member of Payroll" in outcome.diagnostic
        assert "passrelayMarker" not in directory.read(user)
    assert site.send(other, canary_password(), protected_groups=["admins", "Payroll"]).verdict is Verdict.APPLIED
    assert site.send(nested, canary_password()).verdict is Verdict.APPLIED


def test_a_disabled_user_keeps_in_step_and_still_cannot_log_in(site: Site) -> None:
    user, new = site.user(nsAccountLock="TRUE"), canary_password()
    assert site.send(user, new).verdict is Verdict.APPLIED
    with pytest.raises(LabError):
        site.directory.binds(user, new)
    assert site.directory.read(user)["nsAccountLock"] == ["TRUE"]
    with site.directory.manager() as manager:
        modify(manager, site.directory.user_dn(user), {"nsAccountLock": [(MODIFY_REPLACE, ["FALSE"])]})
    assert site.directory.binds(user, new)


# --- what only looks like a user


def test_with_a_search_base_too_high_the_user_is_hit_and_no_staged_preserved_or_compat_entry(site: Site) -> None:
    directory = site.directory
    user, new = next(_NAMES), canary_password()
    elsewhere = [
        _person(directory, user, _STAGED),
        _person(directory, user, _PRESERVED),
        f"uid={user},cn=users,cn=compat,{directory.suffix}",
    ]
    directory.add_user(user, canary_password())  # the last to be made, and so the last to be found
    before = [directory.read_entry(dn) for dn in elsewhere]
    with _changed(directory, directory.suffix, "aci", _READABLE):
        assert site.send(user, new, base=directory.suffix).verdict is Verdict.APPLIED
    assert directory.binds(user, new)
    assert [directory.read_entry(dn) for dn in elsewhere] == before


@pytest.mark.parametrize("place", [_STAGED, _PRESERVED])
def test_who_is_staged_or_preserved_only_is_missing(site: Site, place: str) -> None:
    name = next(_NAMES)
    dn = _person(site.directory, name, place)
    before = site.directory.read_entry(dn)
    with _changed(site.directory, site.directory.suffix, "aci", _READABLE):
        for base in (None, site.directory.suffix):
            outcome = site.send(name, canary_password(), base=base)
            assert (outcome.verdict, outcome.reason) == (Verdict.RETRY, Reason.USER_MISSING)
    assert site.directory.read_entry(dn) == before


def _person(directory: Directory, uid: str, place: str) -> str:
    """A user of this name in one of IPA's places for those who are not in use."""
    dn = f"uid={uid},{place},{directory.suffix}"
    with directory.manager() as manager:
        container = f"{place},{directory.suffix}"
        manager.search(container, "(objectClass=*)", "BASE")
        if not manager.response:
            name = place.partition(",")[0].partition("=")[2]
            add(manager, container, {"objectClass": ["top", "nsContainer"], "cn": [name]})
        add(manager, dn, {"objectClass": ["top", "person", "inetOrgPerson"], "uid": [uid], "cn": [uid], "sn": [uid]})
    return dn


# --- what the password policy says


def test_a_refusal_tells_history_and_length_apart(site: Site) -> None:
    used = canary_password()
    user = site.user()
    with _policy(site.directory, passwordCheckSyntax="on", passwordMinLength="8", passwordHistory="on"):
        with site.directory.manager() as manager:  # nobody's history holds what the manager set
            modify(manager, site.directory.user_dn(user), {"userPassword": [(MODIFY_REPLACE, [used])]})
        with site.directory.connect(site.directory.user_dn(user), used) as own:
            modify(own, site.directory.user_dn(user), {"userPassword": [(MODIFY_REPLACE, [canary_password()])]})
        for password, meaning in ((used, "IdM's history refuses it"), ("Ab1-xyz", "too short for IdM's policy")):
            outcome = site.send(user, password)
            assert (outcome.verdict, outcome.reason) == (Verdict.DEAD, Reason.POLICY)
            assert meaning in outcome.diagnostic
            assert "the server says: " in outcome.diagnostic
            assert password not in outcome.diagnostic
        assert site.send(user, canary_password()).verdict is Verdict.APPLIED


@contextmanager
def _policy(directory: Directory, **values: str) -> Iterator[None]:
    """The server's global password policy, and as it was."""
    off = {"passwordMinLength": "8"}
    with directory.manager() as manager:
        _replace(manager, values)
        try:
            yield
        finally:
            _replace(manager, {name: off.get(name, "off") for name in values})


def _replace(manager: Any, values: Mapping[str, str]) -> None:
    modify(manager, "cn=config", {name: [(MODIFY_REPLACE, [value])] for name, value in values.items()})
