"""What the consumer relies on in 389 Directory Server, measured as the service account under ops/idm."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE, SUBTREE
from ldap3.core.results import (
    RESULT_ATTRIBUTE_OR_VALUE_EXISTS,
    RESULT_INSUFFICIENT_ACCESS_RIGHTS,
    RESULT_NO_SUCH_ATTRIBUTE,
    RESULT_OBJECT_CLASS_VIOLATION,
    RESULT_SUCCESS,
    RESULT_UNWILLING_TO_PERFORM,
)
from ldap3.protocol.rfc4511 import AttributeSelection, Selector
from pyasn1.codec.ber.encoder import encode

from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.directory_tree import Changes
from tests.lab.folder import LabFolder, canary_password, find_canary
from tests.lab.network import Reservations, accepts
from tests.lab.process import LabError

pytestmark = pytest.mark.integration

OLD = "1 0 7 134000000000000000 guid event-a 134000000000000001 -"
NEW = "1 0 8 134000000000000002 guid event-b 134000000000000003 -"
NEWER = "1 0 9 134000000000000004 guid event-c 134000000000000005 -"
POST_READ = "1.3.6.1.1.13.2"


@pytest.fixture(scope="module")
def lab() -> Iterator[tuple[Path, Reservations, CertificateAuthority]]:
    folder, reservations = LabFolder(), Reservations()
    try:
        yield folder.path, reservations, CertificateAuthority(folder.path / "ca")
    finally:
        reservations.release()
        folder.remove()


@pytest.fixture(scope="module")
def directory(lab: tuple[Path, Reservations, CertificateAuthority]) -> Iterator[Directory]:
    folder, reservations, ca = lab
    server = Directory(folder / "directory", reservations, ca)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def first_write(password: str, marker: str) -> Changes:
    return {
        "userPassword": [(MODIFY_REPLACE, [password])],
        "objectClass": [(MODIFY_ADD, ["passrelayAccount"])],
        "passrelayMarker": [(MODIFY_ADD, [marker])],
        "krbLastAdminUnlock": [(MODIFY_REPLACE, ["20260101000000Z"])],
    }


def update(password: str, expected: str, marker: str) -> Changes:
    return {
        "userPassword": [(MODIFY_REPLACE, [password])],
        "passrelayMarker": [(MODIFY_DELETE, [expected]), (MODIFY_ADD, [marker])],
        "krbLastAdminUnlock": [(MODIFY_REPLACE, ["20260102000000Z"])],
    }


def modify(connection: Any, dn: str, changes: Changes, controls: Any = None) -> int:
    connection.modify(dn, changes, controls=controls)
    code: int = connection.result["result"]
    return code


def test_one_modify_sets_password_class_marker_and_unlock(directory: Directory) -> None:
    dn, password = directory.add_user("first"), canary_password()
    with directory.service() as service:
        assert modify(service, dn, first_write(password, OLD)) == RESULT_SUCCESS
    entry = directory.read("first")
    assert entry["passrelayMarker"] == [OLD]
    assert entry["krbLastAdminUnlock"] == ["20260101000000Z"]
    assert "passrelayAccount" in entry["objectClass"]
    assert directory.binds("first", password)


def test_a_second_first_write_changes_nothing(directory: Directory) -> None:
    dn, password = directory.add_user("race"), canary_password()
    marker_only = {**first_write("x", NEW)}
    del marker_only["objectClass"]
    with directory.service() as service:
        assert modify(service, dn, first_write(password, OLD)) == RESULT_SUCCESS
        assert modify(service, dn, first_write("x", NEW)) == RESULT_ATTRIBUTE_OR_VALUE_EXISTS
        assert modify(service, dn, marker_only) == RESULT_OBJECT_CLASS_VIOLATION
        assert "has multiple values" in service.result["message"]
    assert directory.read("race")["passrelayMarker"] == [OLD]
    assert directory.binds("race", password)


def test_the_marker_makes_a_modify_a_compare_and_set(directory: Directory) -> None:
    dn, password = directory.add_user("update"), canary_password()
    with directory.service() as service:
        assert modify(service, dn, first_write("x", OLD)) == RESULT_SUCCESS
        assert modify(service, dn, update(password, OLD, NEW)) == RESULT_SUCCESS
        assert modify(service, dn, update("stale", OLD, NEWER)) == RESULT_NO_SUCH_ATTRIBUTE
        assert modify(service, dn, update("case", NEW.upper(), NEWER)) == RESULT_NO_SUCH_ATTRIBUTE
        assert modify(service, dn, update(password, NEW, NEW)) == RESULT_SUCCESS
    assert directory.read("update")["passrelayMarker"] == [NEW]
    assert directory.binds("update", password)
    assert not directory.binds("update", "stale")


def test_post_read_shows_what_the_modify_left(directory: Directory) -> None:
    dn = directory.add_user("post", krbPasswordExpiration="20300101000000Z")
    wanted = AttributeSelection()
    for position, name in enumerate(("passrelayMarker", "krbPasswordExpiration", "userPassword")):
        wanted[position] = Selector(name)
    control = (POST_READ, True, encode(wanted))
    with directory.service() as service:
        assert modify(service, dn, first_write(canary_password(), OLD), [control]) == RESULT_SUCCESS
        seen = service.result["controls"][POST_READ]["value"]["result"]
    # The access rules hold here too: userPassword is written but never read.
    assert seen == {"passrelayMarker": [OLD], "krbPasswordExpiration": ["20300101000000Z"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"objectClass": [(MODIFY_ADD, ["ipHost"])]},
        {"objectClass": [(MODIFY_ADD, ["passrelayAccount", "ipHost"])]},
        {"objectClass": [(MODIFY_DELETE, ["posixAccount"])]},
        {"objectClass": [(MODIFY_REPLACE, ["top", "person", "passrelayAccount"])]},
        {"nsAccountLock": [(MODIFY_REPLACE, ["FALSE"])]},
        {"uid": [(MODIFY_ADD, ["other"])]},
        {"krbPrincipalName": [(MODIFY_REPLACE, ["admin@IDM.TEST"])]},
        {"krbLastPwdChange": [(MODIFY_REPLACE, ["20260101000000Z"])]},
    ],
)
def test_the_service_account_may_write_nothing_else(directory: Directory, changes: Changes) -> None:
    dn = directory.add_user("narrow")
    try:
        with directory.service() as service:
            assert modify(service, dn, changes) == RESULT_INSUFFICIENT_ACCESS_RIGHTS
    finally:
        directory.delete_user("narrow")


def test_members_of_admins_are_seen_but_not_written(directory: Directory) -> None:
    dn = directory.add_user("chief", ntUserDomainId="chief.ad")
    directory.add_to_group("chief", "admins")
    with directory.service() as service:
        assert modify(service, dn, first_write("x", OLD)) == RESULT_INSUFFICIENT_ACCESS_RIGHTS
        service.search(directory.search_base, "(ntUserDomainId=chief.ad)", attributes=["memberOf"])
        assert service.response is not None
        assert service.response[0]["raw_attributes"]["memberOf"] == [
            f"cn=admins,cn=groups,cn=accounts,{directory.suffix}".encode()
        ]


def test_entries_outside_the_users_are_out_of_reach(directory: Directory) -> None:
    directory.add_user("outside")
    compat = f"uid=outside,cn=users,cn=compat,{directory.suffix}"
    with directory.service() as service:
        assert modify(service, compat, first_write("x", OLD)) == RESULT_INSUFFICIENT_ACCESS_RIGHTS
        missing = directory.user_dn("nobody")
        # Not 32 (no such object): who may not know must not learn, so the consumer searches first.
        assert modify(service, missing, first_write("x", OLD)) == RESULT_INSUFFICIENT_ACCESS_RIGHTS
        service.search(directory.suffix, "(uid=outside)", SUBTREE, attributes=["uid"])
        assert [entry["dn"] for entry in service.response or []] == [directory.user_dn("outside")]
    with directory.manager() as manager:
        manager.search(directory.suffix, "(&(objectClass=person)(uid=outside))", SUBTREE, attributes=["uid"])
        assert len(manager.response or []) == 2


def test_nobody_writes_his_own_marker(directory: Directory) -> None:
    dn, password = directory.add_user("selfish"), canary_password()
    generous = '(targetattr = "*")(version 3.0; acl "generous"; allow (all) userdn = "ldap:///self";)'
    with directory.service() as service:
        assert modify(service, dn, first_write(password, OLD)) == RESULT_SUCCESS
    with directory.manager() as manager:
        assert modify(manager, directory.search_base, {"aci": [(MODIFY_ADD, [generous])]}) == RESULT_SUCCESS
        try:
            with directory.connect(dn, password) as own:
                assert modify(own, dn, {"mail": [(MODIFY_ADD, ["a@idm.test"])]}) == RESULT_SUCCESS
                for change in ((MODIFY_REPLACE, [NEWER]), (MODIFY_DELETE, [OLD])):
                    refused = modify(own, dn, {"passrelayMarker": [change]})
                    assert refused == RESULT_INSUFFICIENT_ACCESS_RIGHTS
        finally:
            removed = modify(manager, directory.search_base, {"aci": [(MODIFY_DELETE, [generous])]})
            assert removed == RESULT_SUCCESS


def test_the_probe_takes_a_password_and_nothing_else(directory: Directory) -> None:
    with directory.service() as service:
        password: Changes = {"userPassword": [(MODIFY_REPLACE, [canary_password()])]}
        assert modify(service, directory.probe_dn, password) == RESULT_SUCCESS
        unlock: Changes = {"nsAccountLock": [(MODIFY_REPLACE, ["FALSE"])]}
        assert modify(service, directory.probe_dn, unlock) == RESULT_INSUFFICIENT_ACCESS_RIGHTS
    assert "krbPrincipalAux" in directory.read_entry(directory.probe_dn)["objectClass"]


def test_a_read_only_server_answers_unwilling(directory: Directory) -> None:
    dn = directory.add_user("frozen")
    with directory.service() as service:
        directory.read_only(on=True)
        try:
            assert modify(service, dn, first_write("x", OLD)) == RESULT_UNWILLING_TO_PERFORM
            # The text speaks of privilege, as a refusal by an access rule (50) does: only the code tells.
            assert "Insufficient 'write' privilege" in service.result["message"]
        finally:
            directory.read_only(on=False)
        assert modify(service, dn, first_write("x", OLD)) == RESULT_SUCCESS


def test_a_locked_user_is_no_wrong_password(directory: Directory) -> None:
    password = canary_password()
    directory.add_user("locked", password, nsAccountLock="TRUE")
    for attempt in (password, "wrong"):
        with pytest.raises(LabError, match="result 53"):
            directory.binds("locked", attempt)


def test_no_clear_text_reaches_a_file(directory: Directory) -> None:
    dn = directory.add_user("quiet", canary_password())
    with directory.service() as service:
        assert modify(service, dn, first_write(canary_password(), OLD)) == RESULT_SUCCESS
    files, _, hits = find_canary([*directory.data_paths, directory.layout.folder])
    assert files > 0
    assert hits == []


def test_two_servers_survive_kill_pause_and_stop(
    lab: tuple[Path, Reservations, CertificateAuthority],
) -> None:
    folder, reservations, ca = lab
    password = canary_password()
    servers = [
        Directory(folder / "left", reservations, ca, storage_scheme="SSHA512"),
        Directory(folder / "right", reservations, ca, suffix="dc=other,dc=test"),
    ]
    left, right = servers
    try:
        for server in servers:
            server.start()
        left.add_user("anna", password)
        assert left.read("anna")["userPassword"][0].startswith("{SSHA512}")
        with pytest.raises(LabError, match="read uid=anna"):
            right.read("anna")
        left.kill()
        with pytest.raises(LabError, match="refused"):
            left.binds("anna", password)
        left.start()
        assert left.binds("anna", password)
        left.delete_user("anna")
        left.pause()
        with socket.create_connection(("127.0.0.1", left.listening.ldaps), timeout=30):
            left.resume()
        assert not left.binds("anna", password)
        left.pause()
    finally:
        for server in servers:
            server.stop()
    for server in servers:
        assert not accepts("127.0.0.1", server.listening.ldaps)
        assert not accepts("127.0.0.1", server.listening.ldap)


def test_the_certificate_is_checked(directory: Directory, tmp_path: Path) -> None:
    stranger = CertificateAuthority(tmp_path / "stranger")
    trusted, directory.ca_file = directory.ca_file, stranger.ca_file
    try:
        with pytest.raises(LabError, match="CERTIFICATE_VERIFY_FAILED"), directory.manager():
            pass
    finally:
        directory.ca_file = trusted
