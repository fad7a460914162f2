"""Two 389 Directory Servers that replicate to each other, as two IdM servers do, and the network around them.

The configuration is what `dsconf replication` writes: a replica entry with an id on each, a manager that each lets in,
and one agreement from each to the other (Directory Server administration guide, "Managing replication").
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from ldap3 import BASE, MODIFY_REPLACE

from tests.lab.certificates import CertificateAuthority
from tests.lab.clock import environment
from tests.lab.directory import Directory
from tests.lab.directory_tree import Attributes, add, demand, modify
from tests.lab.network import Reservations
from tests.lab.process import LabError, wait_for
from tests.lab.proxy import Proxy

_MANAGER = "cn=replication manager,cn=config"
_SUPPLIER, _KEEPS_CHANGELOG = "3", "1"
_ELEMENT = re.compile(r"\{replica (\d+) [^}]*\}(?: \S+ (\S+))?")


class Suppliers:
    """`a` and `b`, each the other's supplier.

    Each has one proxy before it towards the other (`cut`, `heal`) and one towards its clients (`hide`, `show`).
    `b_ahead` is how far b's clock runs ahead of a's. For experiments: under libfaketime ns-slapd crashed in three of a
    hundred starts.
    """

    def __init__(
        self,
        folder: Path,
        reservations: Reservations,
        ca: CertificateAuthority,
        *,
        storage_scheme: str | None = None,
        b_ahead: timedelta = timedelta(),
        make: Callable[..., Directory] = Directory,
    ) -> None:
        self.a = make(folder / "a", reservations, ca, storage_scheme=storage_scheme)
        clock = environment(b_ahead) if b_ahead else None
        self.b = make(folder / "b", reservations, ca, storage_scheme=storage_scheme, set_up=False, environment=clock)
        # Schema, accounts and access rules come to `b` by replication, as they would in IdM.
        self.b.password_file = self.a.password_file
        self._links = {server: Proxy(reservations, server.listening.ldaps) for server in (self.a, self.b)}
        self._doors = {server: Proxy(reservations, server.listening.ldaps) for server in (self.a, self.b)}
        self.urls = {server: f"ldaps://localhost:{door.port}" for server, door in self._doors.items()}
        self.a.listed_as = [*self.urls.values(), self.a.ldaps_url, self.b.ldaps_url]
        self._manager_password = secrets.token_urlsafe(24)

    def start(self) -> None:
        """Start both and return when `b` holds everything that `a` does. To be called once."""
        for replica_id, server in (("1", self.a), ("2", self.b)):
            server.start()
            self._make_supplier(server, replica_id)
        self._agree(self.b, self.a)
        self._agree(self.a, self.b, nsds5BeginReplicaRefresh=["start"])
        self._wait_until_initialised()
        # A vector does not tell of changes that came with the initialisation (measured): both begin with a new one.
        for server in self._links:
            _touch(server)
        self.wait_in_sync()

    def close(self) -> None:
        """End everything now, without the good order that takes four seconds each: nobody starts them again."""
        for server in (self.a, self.b):
            server.kill()
            self._links[server].close()
            self._doors[server].close()

    # -- the network around them

    def hide(self, server: Directory) -> None:
        """Clients that use `urls` lose sight of one server."""
        self._doors[server].cut()

    def show(self, server: Directory) -> None:
        """Clients can reach it again."""
        self._doors[server].heal()

    def cut(self) -> None:
        """No change passes from one to the other any more."""
        for link in self._links.values():
            link.cut()

    def heal(self) -> None:
        """Let them talk again; they begin within two seconds."""
        for link in self._links.values():
            link.heal()

    def crash(self, server: Directory) -> None:
        """Kill one server, as a power cut would, with changes that the other has not got; `revive` brings it back.

        389-ds 3 is stopped instead: killed while it writes, it throws its changelog away at the next start, and sends
        nothing more until an administrator initialises the other anew (measured, with LMDB).
        """
        self.cut()
        if server.version.startswith(("1.", "2.")):
            server.kill()
        else:
            server.stop()

    def revive(self, server: Directory) -> None:
        """Start it again, with all that it had, and let the two talk."""
        server.start()
        self.heal()

    def wait_in_sync(self, timeout_seconds: float = 60) -> None:
        """Return when each has seen all that either has seen by now; LabError with what each has seen otherwise.

        Not when both have seen the same: while consumers probe them each second, no two looks need ever be equal.
        """
        wanted = _merged(newest(self.a), newest(self.b))

        def seen() -> bool:
            return all(_merged(found, wanted) == found for found in (newest(self.a), newest(self.b)))

        try:
            wait_for(seen, what="in sync", timeout_seconds=timeout_seconds)
        except LabError:
            raise LabError(
                f"not in sync after {timeout_seconds:.0f} s: wanted {wanted}, a has seen {newest(self.a)}, "
                f"b {newest(self.b)}"
            ) from None

    def overtake(self, server: Directory) -> None:
        """Make whatever is written on `server` from now on newer, as replication counts, than the other's own changes.

        Change sequence numbers have seconds and are not the clocks' order; the newest one wins a conflict.
        """
        ours, others = ("1", "2") if server is self.a else ("2", "1")

        def newer() -> bool:
            _touch(server)
            return newest(server)[ours] > newest(self.b if server is self.a else self.a)[others]

        wait_for(newer, what=f"{server.ldaps_url} ahead of the other", interval_seconds=0.1)

    # -- how they are set up

    def _make_supplier(self, server: Directory, replica_id: str) -> None:
        manager_entry: Attributes = {
            "objectClass": ["top", "netscapeServer", "nsAccount"],
            "cn": ["replication manager"],
            "userPassword": [self._manager_password],
        }
        replica = {
            "objectClass": ["top", "nsDS5Replica"],
            "cn": ["replica"],
            "nsDS5ReplicaRoot": [server.suffix],
            "nsDS5ReplicaId": [replica_id],
            "nsDS5ReplicaType": [_SUPPLIER],
            "nsDS5Flags": [_KEEPS_CHANGELOG],
            "nsDS5ReplicaBindDN": [_MANAGER],
            # After a cut the next try is at most two seconds away; the default grows to five minutes.
            "nsds5ReplicaBackoffMin": ["1"],
            "nsds5ReplicaBackoffMax": ["2"],
        }
        with server.manager() as manager:
            add(manager, _MANAGER, manager_entry)
            add(manager, _replica_dn(server), replica)

    def _agree(self, supplier: Directory, consumer: Directory, **more: list[str]) -> None:
        agreement = {
            "objectClass": ["top", "nsDS5ReplicationAgreement"],
            "cn": ["peer"],
            "nsDS5ReplicaRoot": [supplier.suffix],
            "nsDS5ReplicaHost": ["127.0.0.1"],
            "nsDS5ReplicaPort": [str(self._links[consumer].port)],
            "nsDS5ReplicaTransportInfo": ["LDAPS"],
            "nsDS5ReplicaBindDN": [_MANAGER],
            "nsDS5ReplicaBindMethod": ["SIMPLE"],
            "nsDS5ReplicaCredentials": [self._manager_password],
            "nsDS5ReplicaTimeout": ["10"],
            **more,
        }
        with supplier.manager() as manager:
            add(manager, agreement_dn(supplier), agreement)

    def _wait_until_initialised(self) -> None:
        """Until all that `b` had is replaced by what `a` has."""

        def ended() -> bool:
            state = self.a.read_entry(agreement_dn(self.a))
            status = state.get("nsds5replicaLastInitStatus", [""])[0]
            if status and not status.startswith("Error (0)"):
                raise LabError(f"b could not be initialised from a: {status}")
            return "nsds5BeginReplicaRefresh" not in state and "succeeded" in status

        wait_for(ended, what="b initialised from a", interval_seconds=0.1)


def newest(server: Directory) -> dict[str, str]:
    """For each replica id the newest change sequence number that this server has seen; as text they sort by age."""
    with server.manager() as manager:
        manager.search(_replica_dn(server), "(objectClass=*)", BASE, attributes=["nsds50ruv"])
        demand(manager, f"read the replica update vector of {server.ldaps_url}")
        raw = manager.response[0]["raw_attributes"] if manager.response else {}
    values = [value.decode() for value in raw.get("nsds50ruv", [])]
    found = [match for value in values if (match := _ELEMENT.match(value))]
    return {match[1]: match[2] for match in found if match[2]}


def _merged(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """The vector of whoever has seen what both have."""
    return {replica: max(one.get(replica, ""), other.get(replica, "")) for replica in {*one, *other}}


def _touch(server: Directory) -> None:
    """A change that nobody looks at."""
    with server.manager() as manager:
        modify(manager, server.suffix, {"description": [(MODIFY_REPLACE, [secrets.token_hex(4)])]})


def _replica_dn(server: Directory) -> str:
    return f'cn=replica,cn="{server.suffix}",cn=mapping tree,cn=config'


def agreement_dn(server: Directory) -> str:
    """The entry in cn=config that tells how this server's sending to the other goes."""
    return f"cn=peer,{_replica_dn(server)}"
