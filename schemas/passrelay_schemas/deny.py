"""Accounts that are never carried, whatever the configuration says: refused by producer and consumer alike."""

from __future__ import annotations

import unicodedata

_BUILT_IN_RIDS = frozenset({500, 501, 502})
"""Administrator, Guest, krbtgt ([MS-SAMR] 2.2.1.14)."""
_MAPPED_TO_NOTHING = frozenset("\u034f\ufffc\u180b\u180c\u180d") | {chr(code) for code in range(0xFE00, 0xFE10)}
"""Beside the categories Cc and Cf (RFC 4518 2.2)."""


def denied(*, sam_account_name: str, sid: str | None, admin_count: int = 0) -> str | None:
    """Why an account is never captured, or None when it may be."""
    name = _prepared(sam_account_name)
    if name.endswith("$"):
        return "machine or trust account"
    if name.startswith("krbtgt"):
        return "Kerberos ticket-granting account"
    if sid is not None and int(sid.rpartition("-")[2]) in _BUILT_IN_RIDS:
        return "built-in account"
    if admin_count == 1:
        return "protected by AdminSDHolder (adminCount=1)"
    return None


def _prepared(name: str) -> str:
    """As a directory may compare it (RFC 4518 2): a sign that nobody sees must not make another account of it."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    seen = (
        sign for sign in folded if unicodedata.category(sign) not in ("Cc", "Cf") and sign not in _MAPPED_TO_NOTHING
    )
    return "".join(seen).strip()
