"""Accounts that are never carried, whatever the configuration says: refused by producer and consumer alike."""

from __future__ import annotations

_BUILT_IN_RIDS = frozenset({500, 501, 502})
"""Administrator, Guest, krbtgt ([MS-SAMR] 2.2.1.14)."""


def denied(*, sam_account_name: str, sid: str | None, admin_count: int = 0) -> str | None:
    """Why an account is never captured, or None when it may be."""
    name = sam_account_name.casefold()
    if name.endswith("$"):
        return "machine or trust account"
    if name.startswith("krbtgt"):
        return "Kerberos ticket-granting account"
    if sid is not None and int(sid.rpartition("-")[2]) in _BUILT_IN_RIDS:
        return "built-in account"
    if admin_count == 1:
        return "protected by AdminSDHolder (adminCount=1)"
    return None
