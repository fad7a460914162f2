"""[filter] on a domain controller: its groups and OUs found, and what may have come into the filter since."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import UUID

from passrelay_producer.filters import Filter, Rule
from passrelay_producer.sources.samba_account import Found, GroupsError, Listed
from passrelay_producer.sources.samba_directory import SambaDirectory
from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.filter_settings import FilterSettings

_NAMES = "sAMAccountName distinguishedName objectSid"
_OU_CLASSES = "organizationalUnit container"
LOOK_ACCOUNTS = 100
"""So many accounts are looked at in one search."""
Seen = TypeVar("Seen", bound=Listed)


@dataclass(frozen=True)
class Moved:
    """What was changed since the last look, as far as it can bring an account into the filter."""

    everybody: bool = False
    """A group or an OU of the filter, or one inside or above them, was changed: any account may have come in."""
    users: Sequence[UUID] = ()
    """These were changed themselves: renamed, moved, put into another group."""


class SambaScope:
    """The filter as it is now.

    Groups are known by SID, and memberships are read with each account; only how groups are nested is kept here, and
    `look` renews that.
    """

    def __init__(self, settings: FilterSettings, directory: SambaDirectory) -> None:
        """ConfigurationError for a group or OU that does not exist."""
        self._settings = settings
        self._directory = directory
        self._usn = directory.highest_usn()
        self.filter = self._resolve()

    def look(self, usn: int | None = None) -> Moved:
        """What moved since the last call. Call it before accounts are read, so that the filter is no older than they.

        `usn` is a highestCommittedUSN of before: whoever has one saves a question. ConfigurationError for a group or OU
        that is gone.
        """
        if usn is None:
            usn = self._directory.highest_usn()
            if usn <= self._usn:
                return Moved()
        found = self._directory.changed(self._watched, self._usn + 1)
        self._usn = max(usn, self._usn)
        objects = [item for item in found if not item.user]
        return Moved(
            everybody=bool(objects) and self._renew(objects),
            users=[item.guid for item in found if item.user],
        )

    def check(self) -> None:
        """ConfigurationError when the filter leaves nobody of those who could be captured."""
        ordinary = 0
        for _, account in self._directory.accounts():
            exclusion = self.filter.exclusion(account) if account is not None else None
            if exclusion is None:
                return
            ordinary += exclusion.rule is not Rule.DENIED
        if ordinary:
            raise ConfigurationError(
                f"[filter] leaves nobody of {ordinary} users: no password would ever be captured: widen it"
            )

    def with_token(self, account: Seen) -> Seen:
        """The account with what tokenGroups says, for the last word of `filter.exclusion`.

        One base search, and none for an account that has them already or is left out without. GroupsError: the account
        has to wait.
        """
        if account.token_groups or self.filter.exclusion(account) is not None:
            return account
        return replace(account, token_groups=self._directory.token_groups(account.guid))

    def excluded(self) -> Iterator[tuple[UUID, Rule]]:
        """Every account that the filter leaves out now, as far as one search tells: without tokenGroups."""
        for guid, account in self._directory.accounts():
            exclusion = self.filter.exclusion(account) if account is not None else None
            if exclusion is not None:
                yield guid, exclusion.rule

    def why_not(self, guids: Sequence[UUID]) -> str | None:
        """Why none of these is captured (no guids: an unknown user); None when one is."""
        why = f"no such user in {self._directory.domain}"
        for _, account in self._directory.accounts(guids) if guids else ():
            try:
                exclusion = None if account is None else self.filter.exclusion(self.with_token(account))
            except GroupsError:  # its reading says so
                exclusion = None
            if exclusion is None:
                return None
            why = exclusion.words
        return why

    def come_in(self, guids: Sequence[UUID]) -> list[UUID]:
        """Who of these (LOOK_ACCOUNTS at most) may be in the filter now: tokenGroups has not been asked."""
        found = self._directory.accounts(guids)
        return [guid for guid, account in found if account is None or self.filter.exclusion(account) is None]

    @property
    def _watched(self) -> str:
        settings = self._settings
        groups = "group" if settings.include_groups or settings.exclude_groups else ""
        ous = _OU_CLASSES if settings.include_ous or settings.exclude_ous else ""
        return f"user {groups} {ous}"

    def _renew(self, objects: Collection[Found]) -> bool:
        """Resolve again; False when none of these objects matters to the filter."""
        before, self.filter = self.filter, self._resolve()
        groups = {*before.include_groups, *before.exclude_groups, *self.filter.include_groups}
        groups |= self.filter.exclude_groups.keys()
        # Any OU may have been moved into one of the filter's, or out; that is rare enough to look at everybody.
        return self.filter != before or any(item.sid is None or item.sid in groups for item in objects)

    def _resolve(self) -> Filter:
        settings = self._settings
        return Filter(
            include_groups=self._groups("include_groups", settings.include_groups),
            exclude_groups=self._groups("exclude_groups", settings.exclude_groups),
            include_ous=self._ous("include_ous", settings.include_ous),
            exclude_ous=self._ous("exclude_ous", settings.exclude_ous),
            exclude_patterns=settings.exclude_patterns,
        )

    def _groups(self, setting: str, names: Sequence[str]) -> Mapping[str, str]:
        sids: dict[str, str] = {}
        for name in names:
            found = self._directory.find("group", _NAMES, name)
            if not found:
                raise ConfigurationError(
                    f"[filter] {setting}: there is no group {name!r} in {self._directory.domain}: was it renamed or "
                    "deleted? Correct the name, or write its SID, which survives a rename"
                )
            for group in (*found, *(inner for outer in found for inner in self._directory.nested(outer))):
                sids.setdefault(group.sid or "", name)
        return sids

    def _ous(self, setting: str, dns: Sequence[str]) -> Sequence[str]:
        found = {dn: self._directory.find(_OU_CLASSES, "distinguishedName", dn) for dn in dns}
        for dn, objects in found.items():
            if not objects:
                raise ConfigurationError(
                    f"[filter] {setting}: there is no OU or container {dn!r} in {self._directory.domain}: was it "
                    "renamed, moved or deleted? Correct the DN"
                )
        return [item.dn for objects in found.values() for item in objects]
