"""Entries of IdM that are never written, whatever an event says: of powerful people, and of nobody."""

from __future__ import annotations

from collections.abc import Sequence

from passrelay_consumer.decide import Entry

_OUT_OF_USE = (",cn=accounts,cn=provisioning,", ",cn=users,cn=compat,")
"""Staged and preserved users, and slapi-nis's second face of every user (FreeIPA, install/share/bootstrap-template.ldif
and schema_compat.uldif). A search base above cn=users,cn=accounts finds them too."""


def protection(entry: Entry, groups: Sequence[str]) -> str | None:
    """Why AD must never gain power over this entry; None when it is in none of these IdM groups (cn).

    IdM keeps indirect memberships in memberOf as well (memberOf plug-in), so nested groups count.
    """
    for group in groups:
        if any(dn.startswith(f"cn={group.lower()},cn=groups,") for dn in entry.groups):
            return f"the IdM entry is a member of {group}, who are never written from AD ([idm] protected_groups)"
    return None


def out_of_use(dn: str) -> bool:
    """True for a staged or preserved user and for an entry of the compat tree."""
    folded = dn.lower().replace(", ", ",")
    return any(place in folded for place in _OUT_OF_USE)
