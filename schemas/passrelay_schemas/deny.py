"""Accounts that are never carried, whatever the configuration says: refused by producer and consumer alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

_BUILT_IN_RIDS = frozenset({500, 501, 502})
"""Administrator, Guest, krbtgt ([MS-SAMR] 2.2.1.14)."""
_GROUPS_OF_A_DOMAIN = {
    "512": "Domain Admins",
    "516": "Domain Controllers",
    "518": "Schema Admins",
    "519": "Enterprise Admins",
    "521": "Read-only Domain Controllers",
    "526": "Key Admins",
    "527": "Enterprise Key Admins",
}
"""RIDs that mean the same in every domain ([MS-DTYP] 2.4.2.4); 518, 519 and 527: of the forest's root domain."""
_BUILT_IN_GROUPS = {
    "544": "Administrators",
    "548": "Account Operators",
    "549": "Server Operators",
    "550": "Print Operators",
    "551": "Backup Operators",
    "552": "Replicator",
}
"""Below S-1-5-32. With the above: what AdminSDHolder protects by default ([MS-ADTS] 3.1.1.6.1); the key admins since
Server 2016."""
_MAPPED_TO_NOTHING = frozenset("\u034f\ufffc\u180b\u180c\u180d") | {chr(code) for code in range(0xFE00, 0xFE10)}
"""Beside the categories Cc and Cf (RFC 4518 2.2)."""


def denied(*, sam_account_name: str, sid: str | None, admin_count: int = 0, groups: Collection[str] = ()) -> str | None:
    """Why an account is never captured, or None when it may be. `groups`: SIDs of groups that it is in, as known."""
    name = _prepared(sam_account_name)
    if name.endswith("$"):
        return "machine or trust account"
    if name.startswith("krbtgt"):
        return "Kerberos ticket-granting account"
    if sid is not None and int(sid.rpartition("-")[2]) in _BUILT_IN_RIDS:
        return "built-in account"
    if admin_count == 1:
        return "protected by AdminSDHolder (adminCount=1)"
    # adminCount comes late: on Windows within the hour (SDProp), on Samba not at all.
    administrative = sorted(found for group in groups if (found := _administrative(group)) is not None)
    return f"member of {administrative[0]}, itself or through another group" if administrative else None


def _administrative(group: str) -> str | None:
    """The group's name when its members are administrators."""
    domain, _, rid = group.rpartition("-")
    if domain == "S-1-5-32":
        return _BUILT_IN_GROUPS.get(rid)
    return _GROUPS_OF_A_DOMAIN.get(rid) if domain.startswith("S-1-5-21-") else None


def _prepared(name: str) -> str:
    """As a directory may compare it (RFC 4518 2): a sign that nobody sees must not make another account of it."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    seen = (
        sign for sign in folded if unicodedata.category(sign) not in ("Cc", "Cf") and sign not in _MAPPED_TO_NOTHING
    )
    return "".join(seen).strip()
