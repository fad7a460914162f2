"""What an IdM server has, compared with each user's newest change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ldap3 import BASE

from passrelay_schemas.event import PasswordChanged
from passrelay_schemas.marker import MUST_CHANGE_DONE, Marker
from passrelay_schemas.setting_values import OWN_MARKER, OWN_PROOF
from tests.lab.directory import Directory
from tests.lab.directory_connection import refused_logins
from tests.lab.directory_tree import Attributes, demand

_READ = (OWN_MARKER, OWN_PROOF, "userPassword")


def stale(server: Directory, newest: Mapping[str, PasswordChanged]) -> list[str]:
    """What one server does not have as AD has it, a line for each user: marker, proof, must-change, password."""
    passwords = {server.user_dn(name): event.password.reveal() for name, event in newest.items() if event.password}
    refused = refused_logins(server.listening.ldaps, server.ca_file, passwords)
    lines = []
    with server.manager() as manager:
        for name, event in newest.items():
            dn = server.user_dn(name)
            manager.search(dn, "(objectClass=*)", BASE, attributes=list(_READ))
            demand(manager, f"read {dn}")
            raw = manager.response[0]["raw_attributes"] if manager.response else {}
            faults = [*_faults(event, {key: [value.decode() for value in raw.get(key, [])] for key in _READ})]
            if dn in refused:
                faults.append("the newest password does not bind")
            if faults:
                lines.append(f"{name}: {', '.join(faults)}")
    return lines


def _faults(event: PasswordChanged, values: Attributes) -> Iterator[str]:
    counts = [len(values[attribute]) for attribute in _READ]
    if counts != [1, 1, 1]:
        yield f"{counts} values of {_READ}"
        return
    marker, proof = (Marker.parse(values[attribute][0]) for attribute in (OWN_MARKER, OWN_PROOF))
    if marker.kvno != event.kvno:
        yield f"marker at kvno {marker.kvno}, newest is {event.kvno}"
    if marker.key != proof.key:
        yield f"marker of kvno {marker.kvno} and proof of kvno {proof.kvno} are of two changes"
    if event.must_change and MUST_CHANGE_DONE not in marker.flags:
        yield "must change at next logon was not carried"
