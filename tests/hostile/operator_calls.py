"""What an operator's commands read: AD over LDAPS, IdM's configuration, certificates, the Windows hook's registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PureWindowsPath
from typing import Any, cast
from unittest import mock

from passrelay_ops.ad import checks as ad_checks
from passrelay_ops.ad import view as ad_view
from passrelay_ops.ad.controller import Attributes
from passrelay_ops.ad.presented import Presented
from passrelay_ops.audit import account as audit_account
from passrelay_ops.audit import sheet, state
from passrelay_ops.audit.row import Row
from passrelay_ops.audit.state import Rules, Sight
from passrelay_ops.doctor import directory as idm_doctor
from passrelay_ops.doctor.windows import rows as windows_rows
from passrelay_ops.idm import schema, server
from passrelay_ops.report import printable
from passrelay_producer.windows import packages, registry
from passrelay_producer.windows.facts import Facts, Role
from tests.hostile.attributes import parse_entry
from tests.hostile.setting import DOMAIN, ENTRIES, NOW, no_canary


class _Nowhere:
    """Takes text and keeps none."""

    def write(self, text: str) -> int:
        """Nothing."""
        return len(text)


def _attributes(raw: bytes) -> tuple[str, Attributes]:
    """An entry as `Controller.search` gives it."""
    entry = parse_entry(raw)
    return entry["dn"], {name.lower(): tuple(found) for name, found in entry["raw_attributes"].items() if found}


def user(raw: bytes) -> None:
    """A user of an audit, to the row and the sheet that it ends as."""
    _, values = _attributes(raw)
    audit_account.token_groups(values)
    found = audit_account.read(values)
    if found is None:
        return
    for entry, newer in zip(ENTRIES, (True, False, True), strict=True):
        rules = Rules(1, ("admins",), idm_newer_wins=newer)
        finding = state.judge(found, [Sight("idm1", (entry,), times_kept=newer), Sight("idm2")], rules)
        row = Row.of("lab.example", found, finding, None)
        json.dumps(row.document())
        no_canary(printable(row.in_words))
        sheet.write(cast("Any", _Nowhere()), [row])
        state.elsewhere(found, entry, "idm1", rules)


class _Controller:
    """A domain controller that answers every question with this entry."""

    def __init__(self, dn: str, values: Attributes) -> None:
        self._dn = dn
        self._values = values

    def entry(self, *_: str) -> Attributes:
        """The answer to every base search."""
        return self._values

    def search(self, *_: object) -> Iterator[tuple[str, Attributes]]:
        """The answer to every other search."""
        yield self._dn, self._values


def controller(raw: bytes) -> None:
    """A domain controller's own words of itself, to the checks."""
    dn, values = _attributes(raw)
    shown = ad_view._shown(cast("Any", _Controller(dn, values)), values)
    seen = ad_view.View("ldaps://dc1.lab.example", "reader", NOW, shown=shown)
    for row in ad_checks.rows(DOMAIN, [seen], "not asked", NOW):
        printable(f"{row.detail} {row.repair}")


def certificate(raw: bytes) -> None:
    """What a server presents that is not trusted."""
    shown = Presented.parse(raw)
    seen = ad_view.View("ldaps://dc1.lab.example", "reader", NOW, certificate=shown)
    for row in ad_checks.rows(DOMAIN, [seen], "not asked", NOW):
        printable(f"{row.detail} {row.repair}")


def agreement(raw: bytes) -> None:
    """A replication agreement of IdM."""
    values = server._attributes(parse_entry(raw)["raw_attributes"])
    seen = idm_doctor.agreement(values)
    row = idm_doctor._replication("ldaps://idm1.example", [seen], set())
    printable(f"{row.detail} {row.repair}")


def definition(raw: bytes) -> None:
    """A server's schema."""
    text = raw.decode("utf-8", "replace")
    schema.find([text], "passrelayMarker")
    schema.oid(text)
    schema.unfit_for_markers([text], "passrelayMarker")
    schema.alike(text, text)


def hook_registry(raw: bytes) -> None:
    """Values of the hook's registry keys as JSON, name to [value, type]: an administrator may write any type there."""
    try:
        values = dict(json.loads(raw))
    except (ValueError, TypeError, RecursionError):  # no key at all: the JSON is ours, only what is in it is not
        values = {}
    found = {name: _registry_value(value) for name, value in values.items()}
    with mock.patch.object(registry, "values", return_value=found):
        settings, status = registry.hook_settings(), registry.hook_status()
        registry.folder_fault(PureWindowsPath("C:/other"))
        registry.hook_domain_sid()
        shown = Facts(Role.WRITABLE, lsass=registry.lsass(), settings=settings, status=status)
        for row in windows_rows("dc1", replace(shown, protected=registry.run_as_ppl()), producer="dc1"):
            printable(f"{row.detail} {row.repair}")
    status.why_off(4)
    status.old_settings()
    listed = packages.parse(*found.get("Notification Packages", (None, 0)))
    packages.appended(packages.removed(listed, "passrelay-hook"), "passrelay-hook")


def _registry_value(value: Any) -> tuple[Any, int]:
    """As winreg gives it; bytes are {"hex": ...}."""
    found, kind = value if isinstance(value, list) and len(value) == 2 else (value, 1)
    if isinstance(found, dict):
        try:
            found = bytes.fromhex(str(found.get("hex", "")))
        except ValueError:
            found = b"\0"
    return found, kind if isinstance(kind, int) else 0
