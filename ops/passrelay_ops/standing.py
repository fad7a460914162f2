"""What IdM's entry says about a dead letter: whether its password is still wanted there.

The letter's password version is sealed, so only what is certain is said: a change that was captured before the
entry's own was made is older than that one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

from passrelay_consumer.decide import OWN_WRITE, Entry, own_write
from passrelay_consumer.directory import Directory
from passrelay_consumer.result_codes import DirectoryError
from passrelay_ops.dead_letters import Letter
from passrelay_ops.user_status import account_of
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import MarkerError, PassrelayError, UnavailableError
from passrelay_schemas.filetime import to_datetime
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.marker import FLOOR, Marker

_NOBODY = UUID(int=0)
_REMEMBERED = 5000
"""Entries that are not read twice, since many letters can be of one user."""


class Standing(StrEnum):
    """How a letter and its entry stand to each other; the value names a field of the plan's document."""

    DUE = "due"
    """Nothing speaks against it. The consumer decides by the versions, as ever."""
    SUPERSEDED = "superseded"
    """This event, or a change that was made after its capture, stands in the entry: nothing will be written."""
    CHANGED_IN_IDM = "changed_in_idm"
    """The password was changed in IdM itself after the letter's change was captured."""
    NEVER_WRITTEN = "changed_in_idm_without_marker"
    """The same, in an entry without a marker: consumers keep such a password ([idm] initial)."""
    FAILS_AGAIN = "fails_again"
    """There is no entry for it, or not exactly one, or it belongs to another AD account."""
    NOT_KNOWN = "not_known"
    """The letter's account is not known, or IdM is not asked: whether IdM has a newer password is not known either."""


def standing(letter: Letter, entry: Entry, *, idm_newer_wins: bool, ours_within: timedelta = OWN_WRITE) -> Standing:
    """The standing of a letter to the one entry of its account; `ours_within` is own_write's answer."""
    captured, marker = letter.captured_at, entry.known
    if captured is None:
        return Standing.NOT_KNOWN
    if marker is not None and letter.guid not in (None, marker.guid):
        return Standing.FAILS_AGAIN
    if marker is not None and FLOOR not in marker.flags and _holds(marker, letter, captured):
        return Standing.SUPERSEDED
    if not _changed_since(entry, captured, ours_within):
        return Standing.DUE
    if marker is None and idm_newer_wins:
        return Standing.NEVER_WRITTEN
    return Standing.CHANGED_IN_IDM


def _holds(marker: Marker, letter: Letter, captured: datetime) -> bool:
    return marker.event_id == letter.event_id or to_datetime(marker.changed_at) > captured


def _changed_since(entry: Entry, captured: datetime, ours_within: timedelta) -> bool:
    changed = entry.last_change
    if changed is None or changed <= captured:
        return False
    ours = [marker for marker in (entry.marker, entry.proof) if marker is not None and FLOOR not in marker.flags]
    return not any(abs(changed - datetime.fromisoformat(marker.applied_at)) <= ours_within for marker in ours)


class Standings:
    """Looks at IdM's entries, over one connection to the first server that answers."""

    def __init__(self, idm: IdmSettings, domains: tuple[DomainSettings, ...]) -> None:
        self._idm = idm
        self._domains = {domain.name: domain for domain in domains if domain.search_base}
        self._directory: Directory | None = None
        self._found = lru_cache(maxsize=_REMEMBERED)(self._find)

    @property
    def server(self) -> str | None:
        """The server that answered."""
        return self._directory.url if self._directory else None

    def close(self) -> None:
        """Drop the connection."""
        if self._directory is not None:
            self._directory.close()

    def __call__(self, letter: Letter) -> Standing:
        """The standing of one letter; UnavailableError when no IdM server answers."""
        domain = self._domains.get(letter.domain or "")
        if domain is None or letter.account is None:
            return Standing.NOT_KNOWN
        entries = self._found(letter.account, letter.guid, domain.name)
        if entries is None:
            return Standing.NOT_KNOWN
        if len(entries) != 1:
            return Standing.FAILS_AGAIN
        idm_newer_wins = self._idm.initial == "idm-newer-wins"
        ours_within = own_write(self._idm.timeout_seconds)
        return standing(letter, entries[0], idm_newer_wins=idm_newer_wins, ours_within=ours_within)

    def _find(self, name: str, guid: UUID | None, domain: str) -> list[Entry] | None:
        try:
            account = account_of(name).model_copy(update={"guid": guid or _NOBODY})
        except PassrelayError:
            return None  # anybody can seal a note, so a name in it may be none
        failures = []
        for directory in [self._directory] if self._directory else [Directory(url, self._idm) for url in self._servers]:
            try:
                entries = directory.find(account, self._domains[domain])
            except MarkerError:
                return None
            except DirectoryError as error:
                directory.close()
                failures.append(f"{directory.url}: {error}")
            else:
                self._directory = directory
                return entries
        raise UnavailableError(
            "no IdM server answers, so nobody can say whose password was changed there since: " + "; ".join(failures)
        )

    @property
    def _servers(self) -> tuple[str, ...]:
        return tuple(self._idm.servers)
