"""An account as one search of the domain controller shows it: for the filter alone, or with its secrets; and groups."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from passrelay_producer.filters import Subject

EXTENDED_DN = ("1.2.840.113556.1.4.529", True, b"\x30\x03\x02\x01\x01")
"""Every DN comes as `<GUID=...>;<SID=...>;CN=...` ([MS-ADTS] 3.1.1.3.4.1.5): memberOf tells the groups' SIDs."""
IDENTITY = ["objectGUID", "objectSid", "objectClass"]
LISTED = [
    "objectGUID",
    "objectSid",
    "sAMAccountName",
    "adminCount",
    "userAccountControl",
    "memberOf",
    "primaryGroupID",
]
VERSIONED = [*LISTED, "userPrincipalName", "pwdLastSet", "replPropertyMetaData"]
SECRET = [*VERSIONED, "unicodePwd", "supplementalCredentials"]
ALL_GROUPS = "tokenGroups"
"""Constructed for a base search only ([MS-ADTS] 3.1.1.4.5.19)."""
_EXTENDED = re.compile(rb"(?:<GUID=[^>]*>;)?(?:<SID=(?P<sid>[^>]*)>;)?(?P<dn>.*)", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """A group, OU or user: what its identity needs."""

    guid: UUID
    dn: str
    sid: str | None
    user: bool


class UnreadableError(Exception):
    """One account's attributes have a form that nobody can read; the controller itself answers."""


class GroupsError(UnreadableError):
    """Nobody can tell which groups one account is in; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Listed(Subject):
    """An account without its secrets."""

    guid: UUID


@dataclass(frozen=True, kw_only=True)
class Reading(Listed):
    """One account as a single search returned it, so that password and version belong together."""

    user_principal_name: str | None
    pwd_last_set: int
    unicode_pwd: bytes | None = field(repr=False)
    supplemental: bytes | None = field(repr=False)
    metadata: bytes = field(repr=False)
    key_version: int = 0
    """msDS-KeyVersionNumber where it was asked for and may be seen: the version alone."""


def listed(entry: Mapping[str, Any]) -> Listed:
    """The account of a search result with LISTED under EXTENDED_DN; UnreadableError concerns this account alone."""
    with _explained():
        return Listed(**_common(entry))


def reading(entry: Mapping[str, Any]) -> Reading:
    """The account of a search result with VERSIONED or SECRET under EXTENDED_DN; UnreadableError concerns it alone.

    With ALL_GROUPS too, its groups, if they can be read; `token_groups` of the entry tells why they cannot.
    """
    values = entry["raw_attributes"]
    with _explained():
        return Reading(
            **_common(entry),
            token_groups=_groups_or_none(entry),
            user_principal_name=_text(values.get("userPrincipalName")),
            pwd_last_set=_number(values.get("pwdLastSet")),
            unicode_pwd=_first(values.get("unicodePwd")),
            supplemental=_first(values.get("supplementalCredentials")),
            metadata=_first(values.get("replPropertyMetaData")) or b"",
            key_version=_number(values.get("msDS-KeyVersionNumber")),
        )


def found(entry: Mapping[str, Any]) -> Found:
    """The object of a search result with IDENTITY under EXTENDED_DN."""
    values = entry["raw_attributes"]
    sid = _first(values.get("objectSid"))
    return Found(
        guid=UUID(bytes_le=values["objectGUID"][0]),
        dn=_plain_dn(entry["raw_dn"]),
        sid=None if sid is None else sid_text(sid),
        user=b"user" in values["objectClass"],
    )


def token_groups(entry: Mapping[str, Any]) -> frozenset[str]:
    """The SIDs of a search result with ALL_GROUPS; GroupsError: it shows none, while every account has some."""
    values = entry["raw_attributes"].get(ALL_GROUPS)
    if not values:
        raise GroupsError("it shows none")
    try:
        return frozenset(map(sid_text, values))
    except (IndexError, struct.error):
        raise GroupsError("a SID in an unknown form") from None


def _groups_or_none(entry: Mapping[str, Any]) -> frozenset[str]:
    try:
        return token_groups(entry)
    except GroupsError:
        return frozenset()


def _plain_dn(raw: bytes) -> str:
    """The DN without what EXTENDED_DN put before it."""
    return _EXTENDED.fullmatch(raw)["dn"].decode("utf-8", "surrogateescape")  # type: ignore[index]  # matches anything


def sid_text(sid: bytes) -> str:
    """A binary SID as S-1-... ([MS-DTYP] 2.4.2.1)."""
    authority = int.from_bytes(sid[2:8], "big")
    return "-".join(map(str, ("S", sid[0], authority, *struct.unpack(f"<{sid[1]}I", sid[8:]))))


def _common(entry: Mapping[str, Any]) -> dict[str, Any]:
    values = entry["raw_attributes"]
    sid = _first(values.get("objectSid"))
    text = None if sid is None else sid_text(sid)
    groups = {_group_sid(raw) for raw in values.get("memberOf") or ()}
    primary = _first(values.get("primaryGroupID"))
    if text is not None and primary is not None:
        # The primary group is not in memberOf ([MS-ADTS] 3.1.1.4.5.18 has it in tokenGroups only).
        groups.add(f"{text.rpartition('-')[0]}-{int(primary)}")
    return {
        "guid": UUID(bytes_le=values["objectGUID"][0]),
        "sid": text,
        "sam_account_name": _text(values.get("sAMAccountName")) or "",
        "admin_count": _number(values.get("adminCount")),
        "user_account_control": _number(values.get("userAccountControl")),
        "dn": _plain_dn(entry["raw_dn"]),
        "groups": frozenset(groups),
    }


def _group_sid(raw: bytes) -> str:
    sid = _EXTENDED.fullmatch(raw)["sid"]  # type: ignore[index]  # matches anything
    if sid is None:
        raise ValueError("memberOf without a SID")
    return sid.decode("ascii")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise UnreadableError(type(error).__name__) from None


def _first(values: Sequence[bytes] | None) -> bytes | None:
    return values[0] if values else None


def _text(values: Sequence[bytes] | None) -> str | None:
    # What is not UTF-8 becomes lone surrogates, which no event takes: that account waits, the others go on.
    return values[0].decode("utf-8", "surrogateescape") if values else None


def _number(values: Sequence[bytes] | None) -> int:
    return int(values[0]) if values else 0
