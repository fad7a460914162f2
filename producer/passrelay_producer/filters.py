"""Whose passwords are captured: a pure decision from what an account's name, DN and groups say.

The built-in denial comes first, each exclude list wins over both include lists, and of these one is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from passrelay_schemas.deny import denied

NORMAL_ACCOUNT = 0x200
"""ADS_UF_NORMAL_ACCOUNT ([MS-ADTS] 2.2.16): a person's or service's account, not a machine's or a trust's."""


class Rule(StrEnum):
    """What kept an account out; a metric's label."""

    DENIED = "denied"
    EXCLUDE_PATTERN = "exclude_pattern"
    EXCLUDE_OU = "exclude_ou"
    EXCLUDE_GROUP = "exclude_group"
    NOT_INCLUDED = "not_included"


@dataclass(frozen=True)
class Exclusion:
    """Why an account is not captured; `words` are for the administrator who asks for it by name."""

    rule: Rule
    words: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a filter looks at."""

    sam_account_name: str
    sid: str | None = None
    admin_count: int = 0
    user_account_control: int = NORMAL_ACCOUNT
    dn: str = ""
    groups: frozenset[str] = frozenset()
    """SIDs of the groups that it is a direct member of, its primary group among them."""
    token_groups: frozenset[str] = frozenset()
    """SIDs of tokenGroups: security groups only, with those that the others are nested in; empty: not asked for."""


@dataclass(frozen=True)
class Filter:
    """[filter] with groups and OUs as the directory knows them. Without any rule only the built-in denial counts."""

    include_groups: Mapping[str, str] = field(default_factory=dict)
    """SID -> the configured name, for each group that is named and each one nested in it."""
    exclude_groups: Mapping[str, str] = field(default_factory=dict)
    include_ous: Sequence[str] = ()
    """DNs as the directory spells them."""
    exclude_ous: Sequence[str] = ()
    exclude_patterns: Sequence[str] = ()

    def exclusion(self, subject: Subject) -> Exclusion | None:
        """Why the account is not captured; None when it is."""
        why = denied(
            sam_account_name=subject.sam_account_name,
            sid=subject.sid,
            admin_count=subject.admin_count,
            groups=subject.groups | subject.token_groups,
        ) or _no_person(subject.user_account_control)
        if why is not None:
            return Exclusion(Rule.DENIED, f"denied: {why}")
        name = subject.sam_account_name.casefold()
        for pattern in self.exclude_patterns:
            if fnmatchcase(name, pattern.casefold()):
                return Exclusion(Rule.EXCLUDE_PATTERN, f"[filter] exclude_patterns {pattern!r} matches its name")
        for ou in self.exclude_ous:
            if within(subject.dn, ou):
                return Exclusion(Rule.EXCLUDE_OU, f"it is in [filter] exclude_ous {ou!r}")
        for sid in sorted(subject.groups):
            if sid in self.exclude_groups:
                return Exclusion(
                    Rule.EXCLUDE_GROUP, f"it is a member of [filter] exclude_groups {self.exclude_groups[sid]!r}"
                )
        if not self.include_groups and not self.include_ous:
            return None
        if not subject.groups.isdisjoint(self.include_groups) or any(within(subject.dn, ou) for ou in self.include_ous):
            return None
        return Exclusion(Rule.NOT_INCLUDED, "it is in none of [filter] include_groups and include_ous")


def within(dn: str, ou: str) -> bool:
    """True when the entry is below the OU, at any depth. Both DNs must be as one server spells them, but for case."""
    rest, folded = dn.casefold(), f",{ou.casefold()}"
    if not rest.endswith(folded):
        return False
    # A comma after an odd number of backslashes belongs to a name (RFC 4514 2.4): CN=x\,OU=People is not in People.
    before = rest.removesuffix(folded)
    return (len(before) - len(before.rstrip("\\"))) % 2 == 0


def _no_person(user_account_control: int) -> str | None:
    return None if user_account_control & NORMAL_ACCOUNT else "not a normal account (userAccountControl)"
