"""IdM's entries for many AD users: one search for many of them, and the consumer's own search where in doubt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from passrelay_consumer.connection import call, close, connect_bound, server_words
from passrelay_consumer.decide import Entry
from passrelay_consumer.directory import Directory
from passrelay_consumer.ldap_messages import Scope
from passrelay_consumer.protection import out_of_use
from passrelay_consumer.result_codes import DirectoryError
from passrelay_consumer.search_filter import encoded
from passrelay_ops.audit.account import AdAccount
from passrelay_ops.audit.match import Matcher
from passrelay_ops.audit.state import Sight
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import MarkerError
from passrelay_schemas.event import Account
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.marker import Marker

BATCH = 50
"""So many users are searched at once: a server tests every hit against the names of all (measured: 40 cost least)."""
_MOST_PER_USER = 4
"""Entries a batch may find for each of its users; with more the match filter hits whole crowds, and each is searched
alone."""

_PAGED, _PAGE = "1.2.840.113556.1.4.319", 500
"""Simple paged results (RFC 2696)."""


@dataclass(frozen=True, slots=True)
class _Hit:
    owners: set[int]
    entry: Entry | None
    fault: str = ""


class Entries(Directory):
    """One IdM server, read. Raises DirectoryError when it does not answer."""

    def __init__(self, url: str, settings: IdmSettings, domain: DomainSettings) -> None:
        super().__init__(url, settings)
        self._domain = domain
        self._matcher = Matcher.of(domain.match)
        self._times_kept: bool | None = None

    def look(self, users: Sequence[AdAccount]) -> list[Sight]:
        """What the server shows for each of these users; those who are never carried are not searched."""
        wanted = [index for index, user in enumerate(users) if user.left_out is None]
        accounts = [users[index].account for index in wanted]
        sights = [Sight(self.url) for _ in users]
        for index, sight in zip(wanted, self._together(accounts), strict=True):
            sights[index] = sight
        return sights

    def of_guids(self, guids: Collection[UUID]) -> dict[UUID, Entry]:
        """Entries whose markers have these GUIDs, whatever their names; every marker of the server is read for it.

        No index has a GUID inside a marker. Staged and preserved users do not count.
        """
        marker = self._settings.marker_attribute
        found: dict[UUID, str] = {}
        for dn, values in self._pages(f"({marker}=*)", [marker]):
            try:
                guid = Marker.parse(next(iter(_folded(values)[marker.lower()])).decode("utf-8", "replace")).guid
            except (KeyError, StopIteration, MarkerError):
                continue
            if guid in guids and not out_of_use(dn):
                found[guid] = dn
        entries = {guid: self._read(dn) for guid, dn in found.items()}
        return {guid: entry for guid, entry in entries.items() if entry is not None}

    def _read(self, dn: str) -> Entry | None:
        try:
            return self.read(dn)
        except MarkerError:
            return None

    def _pages(self, search_filter: str, attributes: list[str]) -> Iterator[tuple[str, dict[str, list[bytes]]]]:
        """Everything below the search base that the filter hits (RFC 2696); a page is in memory at a time."""
        page: dict[str, Any] = {"attributes": attributes, "paged_size": _PAGE}
        base = self._domain.search_base or ""
        connection = connect_bound(self.url, self._settings)
        try:
            while True:
                call(connection, lambda: connection.search(base, search_filter, "SUBTREE", **page))
                if connection.result["result"]:
                    raise DirectoryError(int(connection.result["result"]), server_words(connection))
                for item in connection.response or []:
                    if item["type"] == "searchResEntry":
                        yield item["dn"], item["raw_attributes"]
                controls = connection.result.get("controls") or {}
                page["paged_cookie"] = controls.get(_PAGED, {}).get("value", {}).get("cookie")
                if not page["paged_cookie"]:
                    return
        finally:
            close(connection)

    def _together(self, accounts: Sequence[Account]) -> list[Sight]:
        """Who is found for sure in one search is; who is not, is what the consumer's own search says."""
        hits = self._hits(self._matcher, accounts) if self._matcher is not None and len(accounts) > 1 else None
        if hits is None or any(not hit.owners for hit in hits):
            return [self._alone(account) for account in accounts]
        found: list[list[_Hit]] = [[] for _ in accounts]
        doubtful: set[int] = set()
        for hit in hits:
            if len(hit.owners) > 1:
                doubtful |= hit.owners
            for number in hit.owners:
                found[number].append(hit)
        return [
            self._sight(found[number]) if found[number] and number not in doubtful else self._alone(account)
            for number, account in enumerate(accounts)
        ]

    def _sight(self, hits: Sequence[_Hit]) -> Sight:
        fault = next((hit.fault for hit in hits if hit.fault), "")
        entries = tuple(hit.entry for hit in hits if hit.entry is not None)
        return Sight(self.url, entries, fault, self._keeps_times())

    def _alone(self, account: Account) -> Sight:
        try:
            return Sight(self.url, tuple(self.find(account, self._domain)), times_kept=self._keeps_times())
        except MarkerError as error:
            return Sight(self.url, fault=str(error))

    def _hits(self, matcher: Matcher, accounts: Sequence[Account]) -> list[_Hit] | None:
        """Every entry that one of the users' filters hits, with whom it may belong to; None when there are too many."""
        attributes = (*self._attributes, *matcher.attributes)
        most = _MOST_PER_USER * len(accounts)
        search_filter = encoded(matcher.search_filter(accounts))
        found = self._search(self._domain.search_base or "", search_filter, Scope.SUBTREE, attributes, most=most)
        if len(found) >= most:
            return None
        owners = matcher.owners(accounts)
        return [self._hit(dn, values, matcher.owner(owners, _folded(values))) for dn, values in found if _used(dn)]

    def _hit(self, dn: str, values: dict[str, list[bytes]], owners: set[int]) -> _Hit:
        try:
            return _Hit(owners, self._entry(dn, values))
        except MarkerError as error:
            return _Hit(owners, None, str(error))

    def _keeps_times(self) -> bool:
        """As the consumer's probe has found: the server keeps krbLastPwdChange for what is written."""
        if self._times_kept is None:
            try:
                probe = self.read(self._settings.probe_entry(self.url))
            except (DirectoryError, MarkerError):
                probe = None
            self._times_kept = probe is not None and probe.last_change is not None
        return self._times_kept


def _used(dn: str) -> bool:
    return not out_of_use(dn)


def _folded(values: Mapping[str, list[bytes]]) -> dict[str, list[bytes]]:
    return {name.lower(): found for name, found in values.items()}
