"""The set-up of one IdM server as checks, each decided from what the server showed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from passrelay_consumer.directory import MANAGERS, PLUGIN_DN
from passrelay_ops.check import Result, Row
from passrelay_ops.idm import schema
from passrelay_ops.idm.ldif import Record, Value
from passrelay_ops.idm.plan import missing
from passrelay_ops.idm.site import Site
from passrelay_ops.idm.templates import Wanted
from passrelay_ops.idm.view import SCHEMA_DN, View
from passrelay_schemas.distinguished_name import folded
from passrelay_schemas.setting_values import OWN_MARKER, OWN_PROOF

SETUP = "`passrelay idm setup --yes`"
_NAME = re.compile(r'\bacl "([^"]*)"|\bNAME \'([^\']*)\'')
_WHOM = re.compile(r'\buserdn\s*=\s*"ldap:///(?!self\b)([^"]+)"')
_AFTER_BIND = ("idm.schema", "idm.account", "idm.probe", "idm.access", "idm.managers", "idm.login")


def rows(site: Site, wanted: Wanted, view: View) -> list[Row]:
    """Every check of one server, in the order in which one rests on another."""
    if view.unusable is not None:
        return [
            *_up_to(view),
            *(_row(view, check, Result.UNKNOWN, "the server could not be read") for check in _AFTER_BIND),
        ]
    return [
        *_up_to(view),
        _schema(site, wanted, view),
        _account(site, wanted, view),
        _probe(site, wanted, view),
        _access(site, wanted, view),
        _managers(site, wanted, view),
        _login(site, view),
    ]


def _up_to(view: View) -> Iterator[Row]:
    fault = view.unusable
    if fault is None or fault.id != "idm.connect":
        yield _row(view, "idm.connect", Result.OK, "TLS, certificate and name are good")
    else:
        yield fault
    if fault is None:
        yield _row(view, "idm.bind", Result.OK, f"as {view.bound_as}")
    elif fault.id == "idm.bind":
        yield fault
    else:
        yield _row(view, "idm.bind", Result.UNKNOWN, "there is no connection")


def _row(view: View, check: str, result: Result, detail: str, repair: str = "") -> Row:
    return Row(check, view.server, result, detail, repair)


def _schema(site: Site, wanted: Wanted, view: View) -> Row:
    faults = marker_faults(site, view)
    if faults:
        repair = "name others in [idm] marker_attribute and proof_attribute, or leave both out"
        return _row(view, "idm.schema", Result.FAIL, "; ".join(faults), repair)
    if not wanted.schema:
        return _row(view, "idm.schema", Result.OK, f"{', '.join(site.markers)}: there, each with a single value")
    return _present(view, "idm.schema", wanted.schema)


def marker_faults(site: Site, view: View) -> list[str]:
    """Why attributes of the site's own choice cannot hold markers on this server."""
    definitions = view.values(SCHEMA_DN, "attributeTypes")
    return [
        f"{name} {why}"
        for name in site.markers
        if name not in (OWN_MARKER, OWN_PROOF) and (why := schema.unfit_for_markers(definitions, name))
    ]


def _present(view: View, check: str, records: Iterable[Record]) -> Row:
    lacking = [found for record in records if (found := missing(record, view)) is not None]
    if not lacking:
        return _row(view, check, Result.OK, "there, as it should be")
    detail = "; ".join(_words(record) for record in lacking)
    if not view.sees_all:
        why = f"{view.bound_as} does not see {detail}"
        return _row(view, check, Result.UNKNOWN, why, "bind as Directory Manager (--bind-dn)")
    return _row(view, check, Result.FAIL, detail, SETUP)


def _account(site: Site, wanted: Wanted, view: View) -> Row:
    found = _present(view, "idm.account", [wanted.service])
    if not (others := others_with_access(site, wanted, view)) or not _no_account(site, view):
        return found
    names = " and ".join(others)
    detail = f"{found.detail}; the access rules there are for {names}"
    repair = f"correct [idm] bind_dn: {names}; {SETUP} only if it is to be another account from now on"
    return Row(found.id, found.subject, found.result, detail, repair)


def _no_account(site: Site, view: View) -> bool:
    return view.sees_all and view.entry(site.service_dn) is None


def others_with_access(site: Site, wanted: Wanted, view: View) -> list[str]:
    """For whom passrelay's access rules on this server are, beside the service account: so a mistyped bind_dn shows."""
    found: dict[str, str] = {}
    for record in wanted.access:
        names = {_name("", value) for change in record.changes for value in change.values}
        for rule in view.values(record.dn, "aci"):
            if _name("", rule) in names and (whom := _WHOM.search(rule)):
                found.setdefault(folded(whom[1]), whom[1])
    found.pop(folded(site.service_dn), None)
    return list(found.values())


def _probe(site: Site, wanted: Wanted, view: View) -> Row:
    """Where it is not configured, its place follows from that of the account."""
    found = _present(view, "idm.probe", wanted.probes)
    if found.result is Result.FAIL and _no_account(site, view):
        return _row(view, found.id, Result.UNKNOWN, "idm.account failed")
    return found


def _access(site: Site, wanted: Wanted, view: View) -> Row:
    """The rules rest on the account for which they are, and on the probe on which they are."""
    if _no_account(site, view):
        return _row(view, "idm.access", Result.UNKNOWN, "idm.account failed")
    gone = {record.dn for record in wanted.probes if view.entry(record.dn) is None}
    found = _present(view, "idm.access", [record for record in wanted.access if record.dn not in gone])
    if found.result is Result.OK and gone:
        return _row(view, "idm.access", Result.UNKNOWN, "idm.probe failed")
    return found


def _words(record: Record) -> str:
    if record.kind == "add":
        return f"{record.dn}: missing"
    names = [_name(change.attribute, value) for change in record.changes for value in change.values]
    return f"{record.dn}: missing or different: {', '.join(dict.fromkeys(names))}"


def _name(attribute: str, value: Value) -> str:
    """What a reader calls the value: a rule or definition by its name, others by their attribute."""
    found = _NAME.search(value) if isinstance(value, str) else None
    return found[1] or found[2] if found else attribute


def _managers(site: Site, wanted: Wanted, view: View) -> Row:
    if view.entry(PLUGIN_DN) is None:
        if view.sees_all:
            return _row(view, "idm.managers", Result.OK, "no IPA password plugin here, so no password is expired by it")
        why = f"{view.bound_as} does not see {PLUGIN_DN}"
        return _row(view, "idm.managers", Result.UNKNOWN, why, "bind as Directory Manager (--bind-dn)")
    if _no_account(site, view):
        return _row(view, "idm.managers", Result.UNKNOWN, "idm.account failed")
    [record] = wanted.managers
    found = missing(record, view)
    if found is None:
        return _row(view, "idm.managers", Result.OK, f"in {MANAGERS}")
    lacking = [change for change in found.changes if change.attribute == MANAGERS]
    if not lacking and not view.sees_all:
        if folded(view.bound_as) == folded(site.service_dn):
            return _row(view, "idm.managers", Result.OK, f"in {MANAGERS}, which the service account sees")
        why = f"in {MANAGERS}; {view.bound_as} does not see whether the service account may look there"
        return _row(view, "idm.managers", Result.UNKNOWN, why, "bind as Directory Manager (--bind-dn)")
    if not lacking:
        detail = (
            f"in {MANAGERS}, which the service account cannot see, and so cannot tell before a write when it is lost"
        )
        return _row(view, "idm.managers", Result.FAIL, detail, SETUP)
    detail = f"not in {MANAGERS} of {PLUGIN_DN}: every password that passrelay sets there would expire at once"
    if any(change.operation == "delete" for change in lacking):
        detail = f"in {MANAGERS} by a spelling that the plugin does not take for the same DN: as if it was missing"
    return _row(view, "idm.managers", Result.FAIL, detail, "`passrelay idm managers add --yes`")


def _login(site: Site, view: View) -> Row:
    if view.login_fault is None:
        return _row(view, "idm.login", Result.OK, f"{site.service_dn} logs in with {site.password_file}")
    if view.sees_all and view.entry(site.service_dn) is None:
        return _row(view, "idm.login", Result.UNKNOWN, "there is no service account", SETUP)
    return _row(view, "idm.login", Result.FAIL, view.login_fault, login_repair(site, view.server, view.login_fault))


def login_repair(site: Site, server: str, fault: str) -> str:
    """How the service account can log in again. A locked one (53, "Account inactivated") needs no new password."""
    if "inactivated" not in fault:
        return new_password(site, server)
    lines = "\\n".join((f"dn: {site.service_dn}", "changetype: modify", "delete: nsAccountLock", ""))
    return (
        "find out who locked the account and why, then unlock it: "
        f"`printf '{lines}' | ldapmodify -x -H {server} -D 'cn=Directory Manager' -W`"
    )


def new_password(site: Site, server: str) -> str:
    """How to bring the service account and its password file together again."""
    return (
        f"copy {site.password_file} from a consumer that works (mode 0600), or give the account the file's password: "
        f"`ldappasswd -x -H {server} -D 'cn=Directory Manager' -W -T {site.password_file} {site.service_dn}`"
    )
