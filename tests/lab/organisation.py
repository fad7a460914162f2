"""Groups and organisational units of a lab's domain, as an administrator makes and moves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ldap3
from ldap3.utils.conv import escape_filter_chars

from tests.lab.changes import Accounts, sid_text


class Organisation:
    """Works with the rights of the system, on the controller's private socket."""

    def __init__(self, controller: Accounts) -> None:
        self._controller = controller

    def ou(self, name: str, below: str | None = None) -> str:
        """A new organisational unit; its DN."""
        dn = f"OU={name},{below or self._controller.base_dn}"
        self._do("add", dn, ["organizationalUnit"])
        return dn

    def group(self, name: str, *members: str) -> str:
        """A new group with these accounts or groups in it; its DN."""
        dn = f"CN={name},CN=Users,{self._controller.base_dn}"
        self._do("add", dn, ["group"], {"sAMAccountName": name})
        if members:
            self.join(name, *members)
        return dn

    def join(self, group: str, *members: str) -> None:
        """Put accounts or groups into a group."""
        self._members(group, ldap3.MODIFY_ADD, members)

    def leave(self, group: str, *members: str) -> None:
        """Take them out again."""
        self._members(group, ldap3.MODIFY_DELETE, members)

    def primary(self, sam: str, group: str) -> None:
        """Make it the account's primary group; the account must be a member."""
        rid = self.sid(group).rpartition("-")[2]
        self.set(sam, primaryGroupID=rid)

    def move(self, dn: str, below: str) -> str:
        """Move an entry with all below it; its new DN."""
        rdn = dn.partition(",")[0]
        self._do("modify_dn", dn, rdn, new_superior=below)
        return f"{rdn},{below}"

    def rename(self, dn: str, rdn: str) -> str:
        """Give an entry another name; its new DN."""
        self._do("modify_dn", dn, rdn)
        return f"{rdn},{dn.partition(',')[2]}"

    def delete(self, dn: str) -> None:
        """Delete an entry without children."""
        self._do("delete", dn)

    def set(self, sam: str, **values: str | None) -> None:
        """Replace attributes of an account or group; None removes them."""
        changes = {name: [(ldap3.MODIFY_REPLACE, [] if value is None else [value])] for name, value in values.items()}
        self._do("modify", self.dn(sam), changes)

    def dn(self, sam: str) -> str:
        """Where an account or group is now."""
        return str(self._read(sam)["dn"])

    def sid(self, sam: str) -> str:
        """Its SID as text."""
        return sid_text(self._read(sam)["raw_attributes"]["objectSid"][0])

    def _read(self, sam: str) -> dict[str, Any]:
        with self._controller.local_connection() as connection:
            name = escape_filter_chars(sam)
            connection.search(self._controller.base_dn, f"(sAMAccountName={name})", attributes=["objectSid"])
            (found,) = [item for item in connection.response or [] if item["type"] == "searchResEntry"]
        return dict(found)

    def _members(self, group: str, operation: Any, members: Sequence[str]) -> None:
        self._do("modify", self.dn(group), {"member": [(operation, [self.dn(member) for member in members])]})

    def _do(self, operation: str, *arguments: Any, **named: Any) -> None:
        with self._controller.local_connection() as connection:
            getattr(connection, operation)(*arguments, **named)
