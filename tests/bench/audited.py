"""`passrelay audit` over a large domain: how long the command takes, and how much memory.

IdM is the lab's 389 Directory Server with so many users and their markers. AD is played by a second one whose entries
have AD's attributes, as a real controller shows them to an auditor: Samba would take hours to make so many users. Both
are filled by the server's own import. Everything is in sync, so the audit has nothing to say and must say so.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from passrelay_schemas.marker import Marker
from tests.bench.proc import peak_bytes
from tests.bench.run import Run
from tests.lab.directory import Directory
from tests.lab.directory_template import ROOT_DN
from tests.lab.directory_tree import user
from tests.lab.lab import Lab
from tests.lab.process import LabError, run_tool
from tests.lab.relay import PASSRELAY
from tests.unit.builders import DOMAIN_SID
from tests.unit.test_audit_comparison import account, attributes, entry

_DOMAIN, _SUFFIX = "lab.example", "dc=lab,dc=example"
_NAMES = {
    "samaccountname": "sAMAccountName",
    "objectguid": "objectGUID",
    "objectsid": "objectSid",
    "useraccountcontrol": "userAccountControl",
    "pwdlastset": "pwdLastSet",
    "msds-keyversionnumber": "msDS-KeyVersionNumber",
    "replpropertymetadata": "replPropertyMetaData",
}
_OCTETS, _TEXT = "1.3.6.1.4.1.1466.115.121.1.40", "1.3.6.1.4.1.1466.115.121.1.15"
_BINARY = ("objectguid", "objectsid", "replpropertymetadata")
_IMPORT_SECONDS = 1800
_MOST_RUNS = 3


def measure(run: Run, lab: Lab, users: int) -> None:
    """`scale.audit.<users>` in milliseconds, `.rate` and `.peak`; the users are left in the lab's directory."""
    controller = AdDirectory(lab)
    controller.start()
    try:
        with_users(controller, _ad_entries(users))
        with_users(lab.directory, _idm_entries(lab.directory, users))
        relay = lab.relay
        ad = {
            "servers": [controller.ldaps_url],
            "ca_file": controller.ca_file,
            "bind_user": ROOT_DN,
            "password_file": controller.manager_file,
        }
        known = [one for one in relay.domains if one["name"] != _DOMAIN]
        domain = {"name": _DOMAIN, "sid": DOMAIN_SID, "producers": relay.enrolment.producers[:1], "ad": ad}
        relay.domains = [*known, {**domain, "search_base": lab.directory.search_base}]
        runs = min(run.runs, _MOST_RUNS)
        for number in range(runs):
            milliseconds, peak = _audit(relay.ops_config(), users)
            run.add(f"scale.audit.{users}", "ms", milliseconds)
            run.add(f"scale.audit.{users}.rate", "per_second", users / milliseconds * 1000)
            run.add(f"scale.audit.{users}.peak", "bytes", peak)
            run.progress(f"audit of {users} users, run {number + 1}/{runs}: {milliseconds / 1000:.1f} s")
    finally:
        controller.stop()


class AdDirectory(Directory):
    """A server whose users look like AD's."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab.folder.path / "ad", lab.reservations, lab.ca, suffix=_SUFFIX, set_up=False)

    def configure(self) -> None:
        """AD's attributes, before the first start."""
        super().configure()
        lines = ["dn: cn=schema"]
        for number, (key, name) in enumerate(_NAMES.items(), 1):
            syntax = _OCTETS if key in _BINARY else _TEXT
            match = "octetStringMatch" if key in _BINARY else "caseIgnoreMatch"
            lines.append(f"attributeTypes: ( 2.999.1.{number} NAME '{name}' EQUALITY {match} SYNTAX {syntax} )")
        may = " $ ".join(_NAMES.values())
        lines.append(f"objectClasses: ( 2.999.2.1 NAME 'user' SUP top STRUCTURAL MUST cn MAY ( {may} ) )")
        (self.layout.config / "schema" / "98ad.ldif").write_text("\n".join([*lines, ""]))


def with_users(directory: Directory, entries: Iterable[str]) -> None:
    """Stop it, give its database these entries beside those that it has, start it again."""
    directory.stop()
    exported, whole = (
        directory.layout.folder / "ldif" / "exported.ldif",
        directory.layout.folder / "ldif" / "whole.ldif",
    )
    common = ["-D", str(directory.layout.config), "-n", "userRoot"]
    run_tool(["ns-slapd", "db2ldif", *common, "-a", exported], timeout_seconds=_IMPORT_SECONDS)
    with whole.open("w") as file:
        file.write(exported.read_text())
        file.writelines(entries)
    run_tool(["ns-slapd", "ldif2db", *common, "-i", whole], timeout_seconds=_IMPORT_SECONDS)
    for path in (exported, whole):
        path.unlink()
    directory.start()


def ldif(dn: str, values: Mapping[str, Sequence[bytes]]) -> str:
    """One entry (RFC 2849), every value in base64."""
    lines = [f"dn: {dn}"]
    lines += [f"{name}:: {base64.b64encode(value).decode()}" for name, many in values.items() for value in many]
    return "\n".join([*lines, "", ""])


def _ad_entries(users: int) -> Iterator[str]:
    for number in range(1, users + 1):
        values = {_NAMES[name]: many for name, many in attributes(number).items()}
        classes = {"objectClass": (b"top", b"user"), "cn": (b"user%d" % number,)}
        yield ldif(f"cn=user{number},{_SUFFIX}", {**classes, **values})


def _idm_entries(directory: Directory, users: int) -> Iterator[str]:
    for number in range(1, users + 1):
        found = entry("", account(number), 3)
        assert isinstance(found.marker, Marker)
        given = user(f"user{number}", 10_000 + number, {"passrelayMarker": [str(found.marker)]})
        yield ldif(directory.user_dn(f"user{number}"), {k: [v.encode() for v in vs] for k, vs in given.items()})


def _audit(config: Path, users: int) -> tuple[float, int]:
    """Milliseconds and the most bytes that it held; LabError unless everybody is in sync."""
    began = time.perf_counter()
    command: list[str | Path] = [PASSRELAY, "audit", "--domain", _DOMAIN, "--json", "--config", config]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as audit:
        while audit.poll() is None:
            # What wait4 says would count what this process itself held when it forked.
            try:
                peak = max(peak, peak_bytes(audit.pid))
            except (LabError, OSError):
                break
            time.sleep(0.02)
        output, errors = audit.communicate()
    milliseconds = (time.perf_counter() - began) * 1000
    document = json.loads(output.splitlines()[-1]) if output.strip() else {}
    if audit.returncode or document["counts"]["in_sync"] != users:
        raise LabError(f"audit: exit {audit.returncode}, {document.get('counts')}: {errors[-500:]}")
    return milliseconds, peak
