"""The entries of an IdM-like tree, and change records in LDIF applied to it."""

from __future__ import annotations

from typing import Any

from ldap3 import MODIFY_ADD, MODIFY_DELETE, MODIFY_REPLACE, Connection

from tests.lab.process import LabError

Attributes = dict[str, list[str]]
Changes = dict[str, list[tuple[str, list[str]]]]
"""Attribute to modifications (operation, values), as ldap3 takes them."""

BACKEND_DN = "cn=userRoot,cn=ldbm database,cn=plugins,cn=config"
_OPERATIONS = {"add": MODIFY_ADD, "delete": MODIFY_DELETE, "replace": MODIFY_REPLACE}
_CONTAINERS = (
    "cn=accounts",
    "cn=users,cn=accounts",
    "cn=groups,cn=accounts",
    "cn=compat",
    "cn=users,cn=compat",
    "cn=etc",
    "cn=sysaccounts,cn=etc",
    "cn=provisioning",
    "cn=accounts,cn=provisioning",
    "cn=deleted users,cn=accounts,cn=provisioning",
)
_FIRST_ID = 70_000
_CLASS_OF = {"ntUserDomainId": "ntUser", "passrelayMarker": "passrelayAccount"}


def create_tree(connection: Connection, suffix: str) -> None:
    """Give a fresh server its database and IdM's empty tree."""
    backend = {
        "objectClass": ["top", "extensibleObject", "nsBackendInstance"],
        "cn": ["userRoot"],
        "nsslapd-suffix": [suffix],
    }
    mapping = {
        "objectClass": ["top", "extensibleObject", "nsMappingTree"],
        "cn": [suffix],
        "nsslapd-state": ["backend"],
        "nsslapd-backend": ["userRoot"],
    }
    # As in IPA, where users change their own password.
    own_password = (
        '(targetattr = "userPassword")(version 3.0; acl "selfservice: own password"; '
        'allow (write) userdn = "ldap:///self";)'
    )
    add(connection, BACKEND_DN, backend)
    add(connection, f'cn="{suffix}",cn=mapping tree,cn=config', mapping)
    for dn, attributes in _tree(suffix):
        add(connection, dn, attributes)
    modify(connection, suffix, {"aci": [(MODIFY_ADD, [own_password])]})


def _tree(suffix: str) -> list[tuple[str, Attributes]]:
    """The containers and groups of an IdM server below the suffix, parents first."""
    name = suffix.partition(",")[0].partition("=")[2]
    entries: list[tuple[str, Attributes]] = [(suffix, {"objectClass": ["top", "domain"], "dc": [name]})]
    for rdns in _CONTAINERS:
        container = rdns.partition(",")[0].removeprefix("cn=")
        entries.append((f"{rdns},{suffix}", {"objectClass": ["top", "nsContainer"], "cn": [container]}))
    for group in ("admins", "ipausers"):
        attributes = {"objectClass": ["top", "groupOfNames"], "cn": [group]}
        entries.append((f"cn={group},cn=groups,cn=accounts,{suffix}", attributes))
    return entries


def user(uid: str, number: int, attributes: Attributes) -> Attributes:
    """A user as IPA makes one (class, ids, principal), with attributes added or replaced by the caller's."""
    classes = [
        "top",
        "person",
        "organizationalPerson",
        "inetOrgPerson",
        "inetUser",
        "posixAccount",
        "krbPrincipalAux",
    ]
    classes += [_CLASS_OF[name] for name in attributes if name in _CLASS_OF]
    made = {
        "objectClass": classes,
        "uid": [uid],
        "cn": [f"Test {uid}"],
        "givenName": ["Test"],
        "sn": [uid],
        "uidNumber": [str(_FIRST_ID + number)],
        "gidNumber": [str(_FIRST_ID + number)],
        "homeDirectory": [f"/home/{uid}"],
        "loginShell": ["/bin/sh"],
        "krbPrincipalName": [f"{uid}@IDM.TEST"],
    }
    return {**made, **attributes}


def compat_user(entry: Attributes) -> Attributes:
    """The second face of a user below cn=compat; a person, so that a search base too high finds two."""
    kept = ("uid", "cn", "sn", "uidNumber", "gidNumber", "homeDirectory")
    return {"objectClass": ["top", "person", "posixAccount"], **{name: entry[name] for name in kept}}


# ldap3's type stubs leave the writing methods untyped, hence Any.
def add(connection: Any, dn: str, attributes: Attributes) -> None:
    """Add an entry; LabError with the server's answer."""
    connection.add(dn, attributes=attributes)
    demand(connection, f"add {dn}")


def modify(connection: Any, dn: str, changes: Changes) -> None:
    """Modify an entry; LabError with the server's answer."""
    connection.modify(dn, changes)
    demand(connection, f"modify {sorted(changes)} of {dn}")


def delete(connection: Any, dn: str) -> None:
    """Delete an entry; LabError with the server's answer."""
    connection.delete(dn)
    demand(connection, f"delete {dn}")


def demand(connection: Connection, what: str) -> None:
    """LabError with the server's answer unless the last operation succeeded."""
    result = connection.result
    if result["result"] != 0:
        raise LabError(f"{what}: result {result['result']} {result['description']} {result['message']}")
