"""One IdM server beyond its set-up: a write as consumers make it, its clock, its changelog and its replication."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from passrelay_consumer.directory import Directory, ProbeResult
from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.check import Result, Row
from passrelay_ops.idm import setting_up
from passrelay_ops.idm.checks import login_repair
from passrelay_ops.idm.checks import rows as set_up_rows
from passrelay_ops.idm.login import Login
from passrelay_ops.idm.server import Attributes, Server
from passrelay_ops.idm.site import Site
from passrelay_ops.idm.templates import wanted
from passrelay_ops.idm.view import View
from passrelay_ops.idm.view import look as look_at_set_up
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.secret import Secret

CLOCK = timedelta(seconds=60)
"""As consumers tell it (docs/adr/0010-clocks.md)."""
_CONFIG, _SWITCH = "cn=config", "nsslapd-unhashed-pw-switch"
_MAPPING_TREE, _AGREEMENTS = "cn=mapping tree,cn=config", "(objectClass=nsds5replicationAgreement)"
_AGREEMENT = (
    "cn",
    "nsDS5ReplicaHost",
    "nsDS5ReplicaPort",
    "nsds5ReplicaEnabled",
    "nsds5replicaLastUpdateStatus",
    "nsds5replicaLastUpdateStatusJSON",
    "nsds5replicaLastUpdateEnd",
)
_STATUS = re.compile(r"Error \((-?\d+)\)")
IDS = (
    "idm.connect",
    "idm.certificate",
    "idm.bind",
    "idm.schema",
    "idm.account",
    "idm.probe",
    "idm.access",
    "idm.managers",
    "idm.login",
    "idm.write",
    "idm.clock",
    "idm.unhashed",
    "idm.replication",
)
STOPS_CONSUMERS = frozenset(IDS) - {"idm.bind", "idm.clock", "idm.unhashed", "idm.replication"}
"""A server that fails one of these gets no writes."""
_BEYOND = ("idm.write", "idm.clock", "idm.unhashed", "idm.replication")
_OF_THE_WRITE = ("idm.login", "idm.schema", "idm.account", "idm.probe", "idm.access", "idm.managers")


@dataclass(frozen=True)
class Agreement:
    """How one server sends its changes to another."""

    peer: str
    """Its host, as the agreement names it."""
    enabled: bool
    good: bool
    status: str
    last_update: str


@dataclass(frozen=True)
class ServerView:
    """What one server showed; None: this login could not see it."""

    set_up: View
    probe: ProbeResult | None = None
    switch: str | None = None
    agreements: tuple[Agreement, ...] | None = None


def look(url: str, idm: IdmSettings, site: Site, login: Login) -> ServerView:
    """Look once, and set a random password on the disabled probe entry, as consumers do every minute."""
    view = look_at_set_up(url, idm, site, login)
    if view.unusable is not None:
        return ServerView(view)
    directory = Directory(url, idm)
    try:
        probe = directory.probe(Secret(secrets.token_urlsafe(24)))
    finally:
        directory.close()
    if not view.sees_all:
        return ServerView(view, probe)
    try:
        with Server(url, idm, login) as server:
            switch = (server.entry(_CONFIG, _SWITCH) or {}).get(_SWITCH, (None,))[0]
            found = tuple(agreement(entry) for _, entry in server.below(_MAPPING_TREE, _AGREEMENTS, *_AGREEMENT))
    except DirectoryError:
        return ServerView(view, probe)
    return ServerView(view, probe, switch, found)


def agreement(entry: Attributes) -> Agreement:
    """One replication agreement (389-ds: 0 is good; newer versions say so as JSON beside the text)."""
    host = entry.get("nsds5replicahost", ("",))[0]
    port = entry.get("nsds5replicaport", ("",))[0]
    status = entry.get("nsds5replicalastupdatestatus", ("",))[0]
    found = _STATUS.search(status)
    good = found is None or found[1] == "0"
    try:
        state = json.loads(entry.get("nsds5replicalastupdatestatusjson", ("{}",))[0])
        good = good and state.get("state", "green") != "red"
    except (ValueError, AttributeError):
        pass
    return Agreement(
        peer=f"{host}:{port}" if port else host,
        enabled=entry.get("nsds5replicaenabled", ("on",))[0].lower() != "off",
        good=good,
        status=" ".join(status.split())[:300],
        last_update=entry.get("nsds5replicalastupdateend", ("never",))[0],
    )


def rows(site: Site, views: Sequence[ServerView], *, as_service: bool) -> list[Row]:
    """Every check of every server; what rests on one that failed is unknown."""
    dead = {urlsplit(view.set_up.server).hostname or "" for view in views if view.set_up.unusable is not None}
    return [row for view in views for row in _server(site, view, dead, as_service=as_service)]


def _server(site: Site, view: ServerView, dead: set[str], *, as_service: bool) -> list[Row]:
    seen = setting_up.seen(site, view.set_up)
    found = told_apart(set_up_rows(seen, wanted(seen), view.set_up))
    if as_service:
        found = [_for_service(seen, row) for row in found]
    server = view.set_up.server
    if view.set_up.unusable is not None:
        return [*found, *(Row(check, server, Result.UNKNOWN, "the server could not be read") for check in _BEYOND)]
    return [
        *found,
        _write(server, view.probe, found),
        _clock(server, view.probe),
        _unhashed(server, view.switch),
        _replication(server, view.agreements, dead),
    ]


def told_apart(rows: Iterable[Row]) -> list[Row]:
    """The way to a server and its certificate as two checks."""
    found: list[Row] = []
    for row in rows:
        if row.id != "idm.connect":
            found.append(row)
        elif row.result is Result.FAIL and "certificate" in row.detail.lower():
            found += [
                Row(row.id, row.subject, Result.OK, "it answers"),
                Row("idm.certificate", row.subject, Result.FAIL, row.detail, row.repair),
            ]
        elif row.result is Result.FAIL:
            found += [row, Row("idm.certificate", row.subject, Result.UNKNOWN, "there is no connection")]
        else:
            found += [
                Row(row.id, row.subject, Result.OK, "it answers"),
                Row("idm.certificate", row.subject, row.result, "signed by ca_file, and the name stands in it"),
            ]
    return found


def _for_service(site: Site, row: Row) -> Row:
    """Without an administrator's login the service account looks; its bind is the one that consumers need."""
    if row.id == "idm.bind" and row.result is Result.FAIL:
        return Row(row.id, row.subject, row.result, row.detail, login_repair(site, row.subject, row.detail))
    return row


def _write(server: str, probe: ProbeResult | None, before: Sequence[Row]) -> Row:
    if probe is None:
        return Row("idm.write", server, Result.UNKNOWN, "not tried")
    if probe.ok:
        return Row("idm.write", server, Result.OK, "a password was set on the probe and holds")
    failed = [row.id for row in before if row.id in _OF_THE_WRITE and row.result is Result.FAIL]
    if failed:
        return Row("idm.write", server, Result.UNKNOWN, f"{', '.join(failed)} failed")
    return Row("idm.write", server, Result.FAIL, f"{probe.check}: {probe.detail}", probe.repair)


def _clock(server: str, probe: ProbeResult | None) -> Row:
    if probe is None or probe.clock_offset is None:
        return Row("idm.clock", server, Result.UNKNOWN, "told by a write on the probe, which failed")
    seconds = probe.clock_offset.total_seconds()
    detail = f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} this host" if seconds else "as here"
    if abs(probe.clock_offset) <= CLOCK:
        return Row("idm.clock", server, Result.OK, detail)
    return Row("idm.clock", server, Result.FAIL, detail, "find out which clock is wrong and set it (chronyc tracking)")


def _unhashed(server: str, switch: str | None) -> Row:
    if switch is None:
        return Row(
            "idm.unhashed", server, Result.UNKNOWN, "this login does not see cn=config: name --bind-password-file"
        )
    if switch.lower() in {"nolog", "off"}:
        return Row("idm.unhashed", server, Result.OK, f"{_SWITCH}: {switch}")
    detail = f"{_SWITCH}: {switch}: the changelog keeps every password in clear text"
    command = f"dsconf -D 'cn=Directory Manager' -W {server} config replace {_SWITCH}=nolog"
    repair = f"`{command}`, then remove the old changelog"
    return Row("idm.unhashed", server, Result.FAIL, detail, repair)


def _replication(server: str, agreements: Sequence[Agreement] | None, dead: set[str]) -> Row:
    check = "idm.replication"
    if agreements is None:
        return Row(check, server, Result.UNKNOWN, "this login does not see cn=config: name --bind-password-file")
    broken = [one for one in agreements if not one.enabled or not one.good]
    new = [one for one in broken if one.peer.partition(":")[0] not in dead]
    if new:
        detail = "; ".join(f"to {one.peer}: {one.status if one.enabled else 'switched off'}" for one in new)
        return Row(check, server, Result.FAIL, detail, "`ipa-replica-manage list -v`, or `dsconf repl-agmt status`")
    if broken:
        detail = f"to {', '.join(one.peer for one in broken)}, which cannot be reached from here either"
        return Row(check, server, Result.UNKNOWN, detail)
    if not agreements:
        return Row(check, server, Result.OK, "no agreements: a single server")
    detail = "; ".join(f"to {one.peer}, last at {one.last_update}" for one in agreements)
    return Row(check, server, Result.OK, detail)
