"""What is to be changed on which server, decided from what the servers showed.

Every value of ours has an identity, by which it is found again when it is written differently: an access rule its name,
a definition its OID, a manager his DN.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from passrelay_consumer.directory import MANAGERS, PLUGIN_DN
from passrelay_ops.idm import schema
from passrelay_ops.idm.ldif import Change, FromFile, Record
from passrelay_ops.idm.server import Attributes
from passrelay_ops.idm.templates import MADE_BY, Wanted
from passrelay_ops.idm.view import View
from passrelay_schemas import distinguished_name

_ACL = re.compile(r'\bacl\s+"([^"]*)"')
_DEFINITIONS = frozenset({"attributetypes", "objectclasses"})


@dataclass(frozen=True)
class Step:
    """One record and the servers on which it is to be applied."""

    servers: tuple[str, ...]
    record: Record


def home(wanted: Wanted, views: Sequence[View]) -> View:
    """Where accounts and rules are written: the first server that has one of the accounts, else the first.

    An account that replication has not brought yet must not be added a second time: the two would meet as a conflict.
    """
    accounts = [record.dn for record in wanted.tree if record.kind == "add"]
    return next((view for view in views if any(view.entry(dn) is not None for dn in accounts)), views[0])


def to_set_up(wanted: Wanted, views: Sequence[View]) -> list[Step]:
    """Every step that is missing; the views are of usable servers."""
    steps: list[Step] = []
    for records, where in ((wanted.schema, views), (wanted.tree, [home(wanted, views)]), (wanted.managers, views)):
        steps += grouped((view.server, missing(record, view)) for record in records for view in where)
    return steps


def to_take_back(wanted: Wanted, views: Sequence[View]) -> tuple[list[Step], list[Step]]:
    """Every step back, and apart from them those for the schema: nothing is removed that something else still uses."""
    steps: list[Step] = []
    for records, where in ((wanted.managers, views), (wanted.tree, [home(wanted, views)])):
        steps += grouped((view.server, made(record, view)) for record in reversed(records) for view in where)
    # The rules on an entry go with it.
    deleted = {step.record.dn for step in steps if step.record.kind == "delete"}
    steps = [step for step in steps if step.record.kind == "delete" or step.record.dn not in deleted]
    return steps, grouped((view.server, made(record, view)) for record in reversed(wanted.schema) for view in views)


def grouped(found: Iterable[tuple[str, Record | None]]) -> list[Step]:
    """One step for each record, with all the servers that need it."""
    servers: dict[Record, list[str]] = {}
    for server, record in found:
        if record is not None:
            servers.setdefault(record, []).append(server)
    return [Step(tuple(where), record) for record, where in servers.items()]


def missing(record: Record, view: View) -> Record | None:
    """What this server lacks of the record; None when it has everything, or has no place for it."""
    if record.dn == PLUGIN_DN and view.entry(PLUGIN_DN) is None:
        return None
    if record.kind == "add":
        stored = view.entry(record.dn)
        if stored is None:
            return record
        changes = [change for wanted in record.changes for change in _completed(wanted, stored)]
    else:
        changes = []
        for wanted in record.changes:
            changes += _corrected(wanted, view.values(record.dn, wanted.attribute))
    return Record(record.dn, "modify", tuple(changes), record.comment) if changes else None


def _completed(wanted: Change, stored: Attributes) -> list[Change]:
    """What an account lacks that is there already. Its password and who made it are not touched."""
    if wanted.attribute == "description" or any(isinstance(value, FromFile) for value in wanted.values):
        return []
    present = {value.casefold() for value in stored.get(wanted.attribute.lower(), ())}
    lacking = tuple(value for value in wanted.values if isinstance(value, str) and value.casefold() not in present)
    if not lacking:
        return []
    if wanted.attribute == "objectClass":
        return [Change("add", "objectClass", lacking)]
    return [Change("replace", wanted.attribute, wanted.values)]


def _corrected(wanted: Change, stored: Sequence[str]) -> list[Change]:
    added: list[str] = []
    removed: list[str] = []
    for value in wanted.values:
        if not isinstance(value, str):
            continue
        ours = owned(wanted.attribute, value, stored)
        good = [one for one in ours if _same(wanted.attribute, value, one)]
        added += [] if good else [value]
        # A definition is replaced by adding it anew; one that a class uses could not be deleted. A manager's other
        # spelling beside the good one does nothing.
        if wanted.attribute.lower() not in _DEFINITIONS and not (good and wanted.attribute == MANAGERS):
            removed += [one for one in ours if one not in good]
    changes = []
    if removed:
        changes.append(Change("delete", wanted.attribute, tuple(removed)))
    if added:
        changes.append(Change("add", wanted.attribute, tuple(added)))
    return changes


def made(record: Record, view: View) -> Record | None:
    """What takes the record back from this server; None when there is nothing of it that setup made."""
    if record.kind == "add":
        stored = view.entry(record.dn)
        ours = stored is not None and MADE_BY in stored.get("description", ())
        return Record(record.dn, "delete") if ours else None
    changes = []
    for wanted in record.changes:
        stored_values = view.values(record.dn, wanted.attribute)
        found: dict[str, None] = {}
        for value in wanted.values:
            if isinstance(value, str):
                found |= dict.fromkeys(owned(wanted.attribute, value, stored_values))
        if found:
            changes.append(Change("delete", wanted.attribute, tuple(found)))
    return Record(record.dn, "modify", tuple(changes)) if changes else None


def owned(attribute: str, wanted: str, stored: Iterable[str]) -> list[str]:
    """The stored values that are this one of ours, however they are written."""
    identity = _identity(attribute, wanted)
    return [value for value in stored if _identity(attribute, value) == identity]


def _identity(attribute: str, value: str) -> str:
    if attribute == "aci":
        found = _ACL.search(value)
        return " ".join(found[1].split()) if found else value
    if attribute.lower() in _DEFINITIONS:
        return schema.oid(value)
    if attribute == MANAGERS:
        return distinguished_name.folded(value)
    return value.casefold()


def _same(attribute: str, wanted: str, stored: str) -> bool:
    if attribute == "aci":
        return wanted.split() == stored.split()
    if attribute.lower() in _DEFINITIONS:
        return schema.alike(wanted, stored)
    # As the plugin compares its managers: text, but for upper and lower case.
    return wanted.casefold() == stored.casefold()
