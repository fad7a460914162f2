"""What settling relies on in two 389 Directory Servers that replicate to each other."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ldap3 import BASE, MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE

from tests.lab.certificates import CertificateAuthority
from tests.lab.directory import Directory
from tests.lab.directory_tree import Attributes, Changes, demand, modify
from tests.lab.folder import LabFolder, canary_password, find_canary
from tests.lab.network import Reservations
from tests.lab.process import wait_for
from tests.lab.replication import Suppliers, agreement_dn, newest

pytestmark = pytest.mark.integration

MARKER, PROOF = "passrelayMarker", "passrelayProof"


@pytest.fixture(scope="module")
def suppliers(lab_folder: LabFolder, reservations: Reservations, ca: CertificateAuthority) -> Iterator[Suppliers]:
    pair = Suppliers(lab_folder.path / "pair", reservations, ca, storage_scheme="SSHA512")
    try:
        pair.start()
        yield pair
    finally:
        pair.close()


@pytest.fixture
def users(suppliers: Suppliers) -> Iterator[Users]:
    suppliers.heal()  # after a test that failed
    with suppliers.a.service() as a, suppliers.b.service() as b:
        yield Users(suppliers, {suppliers.a: a, suppliers.b: b})


class Users:
    """Entries, and every password that was ever written to them, by the text of its marker."""

    def __init__(self, suppliers: Suppliers, services: dict[Directory, Any]) -> None:
        self.suppliers = suppliers
        self.passwords: dict[str, str] = {}
        self._services = services

    def add(self, *uids: str) -> None:
        """Make entries and wait until both servers have them."""
        self.suppliers.a.add_users(uids)
        self.suppliers.wait_in_sync()

    def write(self, server: Directory, uid: str) -> str:
        """What a consumer does: one modify, exactly on top of what this server shows; returns the marker."""
        marker = f"1 0 7 134000000000000000 guid write-{len(self.passwords)} -"
        self.passwords[marker] = canary_password()
        shown = self._read(server, uid)
        changes: Changes = {"userPassword": [(MODIFY_REPLACE, [self.passwords[marker]])]}
        for name in (MARKER, PROOF):
            changes[name] = [*((MODIFY_DELETE, [old]) for old in shown[name]), (MODIFY_ADD, [marker])]
        if "passrelayAccount" not in shown["objectClass"]:
            changes["objectClass"] = [(MODIFY_ADD, ["passrelayAccount"])]
        modify(self._services[server], server.user_dn(uid), changes)
        return marker

    def mark(self, server: Directory, uid: str) -> None:
        """The must-change step: the marker without the password."""
        shown = self._read(server, uid)[MARKER][0]
        changes: Changes = {MARKER: [(MODIFY_DELETE, [shown]), (MODIFY_ADD, [f"{shown}x"])]}
        modify(self._services[server], server.user_dn(uid), changes)

    def _read(self, server: Directory, uid: str) -> Attributes:
        service = self._services[server]
        service.search(server.user_dn(uid), "(objectClass=*)", BASE, attributes=["objectClass", MARKER, PROOF])
        demand(service, f"read {uid}")
        raw = service.response[0]["raw_attributes"]
        return {name: [value.decode() for value in raw[name]] for name in ("objectClass", MARKER, PROOF)}

    def shown(self, uid: str) -> tuple[str, str]:
        """Marker and proof, after a look that both servers show the same ones and the proof's own password."""
        a, b = (server.read(uid) for server in (self.suppliers.a, self.suppliers.b))
        for name in (MARKER, PROOF, "userPassword"):
            assert a[name] == b[name]
            assert len(a[name]) == 1
        assert a["objectClass"].count("passrelayAccount") == 1
        for server in (self.suppliers.a, self.suppliers.b):
            assert server.binds(uid, self.passwords[a[PROOF][0]])
        return a[MARKER][0], a[PROOF][0]


def test_schema_access_and_passwords_pass_both_ways(suppliers: Suppliers, users: Users) -> None:
    users.add("both")
    for server in (suppliers.a, suppliers.b):
        marker = users.write(server, "both")
        suppliers.wait_in_sync()
        assert users.shown("both") == (marker, marker)


def test_nothing_passes_while_they_are_cut_apart_and_everything_afterwards(suppliers: Suppliers, users: Users) -> None:
    users.add("cut")
    before = users.write(suppliers.a, "cut")
    suppliers.wait_in_sync()
    suppliers.cut()
    after = users.write(suppliers.a, "cut")
    wait_for(
        lambda: "Error (0)" not in suppliers.a.read_entry(agreement_dn(suppliers.a))["nsds5replicaLastUpdateStatus"][0],
        what="a notices that b is gone",
    )
    assert suppliers.b.read("cut")[MARKER] == [before]
    suppliers.heal()
    suppliers.wait_in_sync()
    assert users.shown("cut") == (after, after)


def test_in_sync_is_told_also_while_both_are_written_to(suppliers: Suppliers, users: Users) -> None:
    """As consumers do with their probes: two servers that are never still are never equal either."""
    stop = threading.Event()

    def keep_writing(server: Directory) -> None:
        with server.manager() as manager:
            while not stop.wait(0.01):
                manager.modify(suppliers.a.suffix, {"description": [(MODIFY_REPLACE, [secrets.token_hex(4)])]})

    users.add("restless")
    writers = [threading.Thread(target=keep_writing, args=(server,)) for server in (suppliers.a, suppliers.b)]
    for writer in writers:
        writer.start()
    try:
        for server in (suppliers.a, suppliers.b):
            marker = users.write(server, "restless")
            suppliers.wait_in_sync()
            assert users.shown("restless") == (marker, marker)
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_a_change_is_newer_than_all_that_its_server_has_seen(suppliers: Suppliers, users: Users) -> None:
    # A write is never undone by what its server had shown, also not within the second in which the other was ahead.
    users.add("seen")
    for _ in range(5):
        suppliers.overtake(suppliers.b)
        users.write(suppliers.b, "seen")
        suppliers.wait_in_sync()
        marker = users.write(suppliers.a, "seen")
        own = newest(suppliers.a)
        assert own["1"] > own["2"]
    suppliers.wait_in_sync()
    assert users.shown("seen") == (marker, marker)


@pytest.mark.parametrize("winner", ["a", "b"])
def test_after_a_cut_the_newest_change_wins_even_when_its_password_is_older(
    suppliers: Suppliers, users: Users, winner: str
) -> None:
    """The failure that settling cures: compare-and-set at either server cannot see the other's write."""
    uid = f"wins-{winner}"
    users.add(uid)
    last, first = (suppliers.a, suppliers.b) if winner == "a" else (suppliers.b, suppliers.a)
    suppliers.cut()
    users.write(first, uid)
    suppliers.overtake(last)
    marker = users.write(last, uid)
    suppliers.heal()
    suppliers.wait_in_sync()
    assert users.shown(uid) == (marker, marker)


def test_conflicts_always_end_with_password_and_proof_of_one_write(suppliers: Suppliers, users: Users) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    uids = [f"conflict{number}" for number in range(12)]
    users.add(*uids)
    steps = [(server, uid) for uid in uids for server in (suppliers.a, suppliers.b)] * 3
    for _ in range(2):  # first writes, then writes on top of a conflict's outcome
        dice.shuffle(steps)
        suppliers.cut()
        begun: set[tuple[Directory, str]] = set()
        for server, uid in steps:
            if (server, uid) in begun and dice.random() < 0.4:
                users.mark(server, uid)
            else:
                users.write(server, uid)
            begun.add((server, uid))
        suppliers.heal()
        suppliers.wait_in_sync()
        for uid in uids:
            users.shown(uid)


def test_a_step_on_the_marker_alone_can_end_beside_another_writes_password(suppliers: Suppliers, users: Users) -> None:
    """Why there is a proof: servers merge attribute by attribute, so the marker alone proves nothing."""
    users.add("torn")
    suppliers.cut()
    lost = users.write(suppliers.a, "torn")
    suppliers.overtake(suppliers.b)
    kept = users.write(suppliers.b, "torn")
    suppliers.overtake(suppliers.a)
    users.mark(suppliers.a, "torn")
    suppliers.heal()
    suppliers.wait_in_sync()
    assert users.shown("torn") == (f"{lost}x", kept)


def test_no_password_lies_in_a_changelog(suppliers: Suppliers, users: Users) -> None:
    users.add("clear")
    users.write(suppliers.a, "clear")
    suppliers.wait_in_sync()
    files, _, hits = find_canary([*suppliers.a.data_paths, *suppliers.b.data_paths])
    assert files > 20
    assert hits == []
