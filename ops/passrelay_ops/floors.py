"""The floor: a marker that no event wrote (flag f), so that only changes after it pass.

It opens an entry to a password once more, shuts older ones out, or gives the entry to another AD account. A marker is
never deleted: then anything would pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import ldap3

from passrelay_consumer.decide import Entry
from passrelay_consumer.directory import MARKER_CLASS, Directory
from passrelay_consumer.ldap_messages import Changes
from passrelay_consumer.protection import protection
from passrelay_consumer.result_codes import DirectoryError, Trouble
from passrelay_ops.markers import Whose, explain
from passrelay_schemas.deny import denied
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, SafetyError, UnavailableError
from passrelay_schemas.event_id import new_event_id
from passrelay_schemas.filetime import UNITS_PER_SECOND, now, rfc3339, utc_now
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.limits import MAX_FILETIME
from passrelay_schemas.marker import FLOOR, Marker
from passrelay_schemas.order import Order
from passrelay_schemas.setting_values import OWN_MARKER


def check_allowed(whose: Whose, entry: Entry, protected_groups: Sequence[str]) -> None:
    """SafetyError for an account that passrelay never writes: the same rules as the consumer's."""
    why = denied(sam_account_name=whose.name, sid=None) or protection(entry, protected_groups)
    if why is not None:
        raise SafetyError(f"{entry.dn}: {why}: refused")


def lowered_or_raised(
    marker: Marker | None, domain: DomainSettings, *, kvno: int | None = None, changed_at: int | None = None
) -> Marker:
    """The floor of `marker reset`; the marker itself when it is a floor already and nothing else is asked for.

    With `kvno` every change up to that version is shut out, or with `changed_at` too (FILETIME) what that version was
    until then; in a time-ordered domain `changed_at` alone. Without either: just below the marker, so that the very
    change that it names may come once more. Raises ConfigurationError and SafetyError.
    """
    if marker is None:
        raise ConfigurationError(
            "the entry has no marker, so there is nothing to reset: AD's next change is written as it comes; to let "
            "one pass that is older than the IdM password, give the entry to its AD account: "
            "`passrelay idm marker rebind USER --guid GUID`"
        )
    _check_epoch(marker, domain)
    if domain.order is Order.TIME:
        if kvno is not None:
            raise ConfigurationError(f"--kvno: [[domain]] {domain.name} is ordered by time: give --changed-at")
        if changed_at is not None and changed_at > now():
            raise SafetyError("--changed-at: lies in the future, and would shut out every change until then")
    elif changed_at is not None and kvno is None:
        raise ConfigurationError(f"--changed-at: [[domain]] {domain.name} is ordered by kvno: give --kvno as well")
    if kvno is not None or changed_at is not None:
        return _floor(domain.epoch, kvno or 0, changed_at, marker.guid)
    if FLOOR in marker.flags:
        return marker
    if marker.key.order is not domain.order:
        option = "--kvno" if domain.order is Order.KVNO else "--changed-at"
        raise ConfigurationError(
            f"the marker is ordered by {marker.key.order}, [[domain]] {domain.name} by {domain.order}: give {option}"
        )
    if domain.order is Order.TIME:
        return _floor(marker.epoch, 0, max(marker.changed_at - 1, 0), marker.guid)
    return _floor(marker.epoch, marker.kvno - 1, None, marker.guid)


def rebound(marker: Marker | None, guid: UUID, domain: DomainSettings) -> Marker:
    """The floor of `marker rebind`: every change of AD account `guid` passes from now on, no other account's.

    Raises ConfigurationError for a GUID that is none, SafetyError when the marker has it already.
    """
    if guid.int == 0:
        raise ConfigurationError("--guid: no account has this one: give the AD account's objectGUID")
    if marker is not None:
        if marker.guid == guid:
            raise SafetyError(
                f"the entry belongs to AD account {guid} already, and older passwords would pass: "
                "to lower its marker use `passrelay idm marker reset`"
            )
        _check_epoch(marker, domain)
    return _floor(domain.epoch, 0, 0, guid)


def _check_epoch(marker: Marker, domain: DomainSettings) -> None:
    if marker.epoch > domain.epoch:
        raise ConfigurationError(
            f"the marker has epoch {marker.epoch}, [[domain]] {domain.name} epoch is {domain.epoch} here: "
            "set it as on the consumers"
        )


def _floor(epoch: int, kvno: int, changed_at: int | None, guid: UUID) -> Marker:
    if changed_at is None:
        # The whole of that version: of two that DCs made at once (docs/adr/0003), the later one too.
        changed_at = MAX_FILETIME if kvno else 0
    elif kvno:
        # The whole of that second: below it an order key has the rank of the controller.
        changed_at += UNITS_PER_SECOND - 1 - changed_at % UNITS_PER_SECOND
    return Marker(epoch, kvno, changed_at, guid, new_event_id(), rfc3339(utc_now()), frozenset({FLOOR}))


def floor_changes(entry: Entry, floor: Marker, attribute: str) -> Changes:
    """One modify that puts the floor exactly in the place of the marker that was read, and leaves the password."""
    added = (ldap3.MODIFY_ADD, [str(floor).encode("ascii")])
    if entry.marker is not None:
        return {attribute: [(ldap3.MODIFY_DELETE, [str(entry.marker).encode("ascii")]), added]}
    changes: Changes = {attribute: [added]}
    if attribute == OWN_MARKER and MARKER_CLASS.lower() not in entry.object_classes:
        changes["objectClass"] = [(ldap3.MODIFY_ADD, [MARKER_CLASS.encode()])]
    return changes


def write(server: str, entry: Entry, floor: Marker, idm: IdmSettings) -> None:
    """Put the floor in the place of the entry's marker on one server.

    SafetyError when the marker is no longer the one that was read, UnavailableError when it is not known whether it
    was written.
    """
    directory = Directory(server, idm)
    try:
        directory.modify(entry.dn, floor_changes(entry, floor, idm.marker_attribute))
    except DirectoryError as error:
        if error.trouble is Trouble.RACE:
            raise SafetyError(
                f"{entry.dn}: the marker was changed meanwhile and nothing was written: look at it again"
            ) from None
        if error.code is None:
            raise UnavailableError(
                f"{server}: {error}: whether the floor was written is not known: "
                "see `passrelay idm marker show`, then repeat the command"
            ) from None
        fault = explain(error, idm)
        raise type(fault)(f"{server}: {fault}") from None
    finally:
        directory.close()
