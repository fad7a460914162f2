"""The checks when all is healed and quiet: nothing lost, nothing stale, nothing readable, nothing silent."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ldap3 import SUBTREE

from passrelay_schemas.errors import MarkerError
from passrelay_schemas.marker import Marker
from passrelay_schemas.setting_values import OWN_MARKER, OWN_PROOF
from tests.faults.site import Site
from tests.faults.traffic import SambaTraffic, Traffic
from tests.lab.directory import Directory
from tests.lab.directory_tree import demand

_OLDER = 3
_SALTED_FROM = 64
"""SSHA512: a SHA-512 digest, then the salt."""


@dataclass(frozen=True)
class Truth:
    """What AD has of one user: the version and the password, and those before it, the newest last."""

    name: str
    kvno: int
    password: str
    older: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """What one server has of one user."""

    password: str | None
    marker: str | None
    proof: str | None

    def is_password(self, text: str) -> bool:
        """True when the server would let this password in."""
        return self.password is not None and matches(self.password, text)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    check: str
    subject: str
    detail: str


def matches(stored: str, password: str) -> bool:
    """Whether a value of userPassword in 389-ds' form {SSHA512} is of this password."""
    scheme, _, encoded = stored.partition("}")
    if scheme.upper() != "{SSHA512":
        return False
    raw = base64.b64decode(encoded)
    return hashlib.sha512(password.encode() + raw[_SALTED_FROM:]).digest() == raw[:_SALTED_FROM]


def truths(traffic: Traffic, samba: SambaTraffic, site: Site) -> list[Truth]:
    """Of everybody; Samba itself is asked which password it has."""
    found = [
        Truth(person.name, made[-1].kvno, made[-1].password, tuple(old.password for old in made[-1 - _OLDER : -1]))
        for person in traffic.people
        if (made := person.history)
    ]
    for name in samba.names:
        newest = samba.newest(name)
        others = [password for password in samba.passwords[name] if password != newest]
        found.append(Truth(name, site.dc.account(name)["kvno"], newest, tuple(others[-_OLDER:])))
    return found


def stored(server: Directory) -> dict[str, Stored]:
    """All users of one server as Directory Manager sees them."""
    with server.manager() as manager:
        names = ["uid", "userPassword", OWN_MARKER, OWN_PROOF]
        manager.search(server.search_base, "(objectClass=person)", SUBTREE, attributes=names)
        demand(manager, f"read the users of {server.ldaps_url}")
        entries = [item["raw_attributes"] for item in manager.response or [] if item["type"] == "searchResEntry"]
    return {_text(entry["uid"]) or "": Stored(*(_text(entry.get(name, [])) for name in names[1:])) for entry in entries}


def _text(values: list[bytes]) -> str | None:
    return b"|".join(values).decode() if values else None


def compare(truth: Truth, found: Stored | None, server: str) -> Iterator[Finding]:
    """One user at one server: lost is what is not there at all, stale is what is older than AD's, or nobody's."""
    if found is None or found.password is None or found.marker is None:
        what = "no entry" if found is None else "no password or no marker"
        yield Finding("lost", truth.name, f"at {server}: {what}, AD has version {truth.kvno}")
        return
    try:
        marker = Marker.parse(found.marker)
        proof = Marker.parse(found.proof or "")
    except MarkerError as error:
        yield Finding("stale", truth.name, f"at {server}: {error}")
        return
    faults = []
    if marker.kvno != truth.kvno:
        faults.append(f"marker at version {marker.kvno}, AD has {truth.kvno}")
    if marker.key != proof.key:
        faults.append(f"marker and proof are of two changes ({marker.kvno}, {proof.kvno})")
    if not found.is_password(truth.password):
        faults.append("the newest password is not the stored one")
    places = [len(truth.older) - place for place, old in enumerate(truth.older) if found.is_password(old)]
    faults += [f"the password {place} before the newest still works" for place in places]
    if faults:
        yield Finding("stale", truth.name, f"at {server}: {', '.join(faults)} (event {marker.event_id})")


def directories(site: Site, everybody: list[Truth], *, binds: int, dice: random.Random) -> list[Finding]:
    """Everybody at every server by his entry, and some of them by logging in."""
    findings: list[Finding] = []
    for name, server in site.directories.items():
        entries = stored(server)
        for truth in everybody:
            findings += compare(truth, entries.get(truth.name), name)
        for truth in dice.sample(everybody, min(binds, len(everybody))):
            findings += _logins(server, truth, name)
    return findings


def _logins(server: Directory, truth: Truth, name: str) -> Iterator[Finding]:
    if not server.binds(truth.name, truth.password):
        yield Finding("stale", truth.name, f"at {name}: the newest password cannot log in")
    if any(server.binds(truth.name, old) for old in truth.older):
        yield Finding("stale", truth.name, f"at {name}: an older password can log in")


def audit(site: Site, everybody: int) -> list[Finding]:
    """What `passrelay audit` says of the real domain, where so many users have changed their passwords."""
    document = site.operate("audit", "--domain", site.dc.dns_domain)
    if document.get("ok"):
        # Good is also who is in no IdM at all, or left out: it counts only when it has compared everybody.
        in_sync = document.get("counts", {}).get("in_sync", 0)
        return [] if in_sync == everybody else [Finding("audit_drift", "", f"{in_sync} of {everybody} are in sync")]
    rows = [Finding("audit_drift", row["user"], f"{row['state']} {row['where']}") for row in document.get("users", [])]
    said = [Finding("audit_drift", row["subject"], row["detail"]) for row in document.get("failures", [])]
    return rows + said or [Finding("audit_drift", "", "audit gave no document")]


def complaints(logs: Iterable[Path]) -> list[Finding]:
    """Errors that no fault explains: passrelay calls them its own."""
    return [
        Finding("internal", log.name, line[:500])
        for log in logs
        for line in log.read_text(errors="replace").splitlines()
        if '"action": "internal_error"' in line or "Traceback (most recent call last)" in line
    ]
