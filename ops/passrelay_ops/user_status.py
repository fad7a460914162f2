"""What a helpdesk asks of one user: what IdM's entry carries, and what became of the last changes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from passrelay_consumer.decide import Entry
from passrelay_consumer.directory import Directory
from passrelay_consumer.result_codes import DirectoryError
from passrelay_consumer.settle import REASON
from passrelay_ops.dead_letters import ends, read_record, repair
from passrelay_ops.notes import Notes
from passrelay_ops.stream import StreamMessage
from passrelay_schemas.domain_settings import DomainSettings
from passrelay_schemas.errors import ConfigurationError, MarkerError, UnavailableError
from passrelay_schemas.event import Account
from passrelay_schemas.filetime import rfc3339, to_datetime
from passrelay_schemas.idm_settings import IdmSettings
from passrelay_schemas.limits import MAX_FILETIME
from passrelay_schemas.marker import FLOOR, MUST_CHANGE_DONE, Marker
from passrelay_schemas.record import Record
from passrelay_schemas.strict_json import describe as describe_fault
from passrelay_schemas.topology import tier_for
from passrelay_schemas.verdict import FINAL, Verdict

_NOBODY = UUID(int=0)
_SETTLED = {
    Verdict.APPLIED: "a server was behind: written again",
    Verdict.DUPLICATE: "every listed server has it",
    Verdict.SUPERSEDED: "a newer password took its place",
}
"""Records of settle copies in words."""


@dataclass(frozen=True)
class Found:
    """What the match filter of one domain hit."""

    domain: str
    server: str
    entries: tuple[Entry, ...]
    fault: str | None = None
    """Why an entry's marker cannot be read."""


def find(user: str, idm: IdmSettings, domain: DomainSettings) -> Found:
    """The entry that an event for this sAMAccountName or UPN would be written to, from the first server that answers.

    UnavailableError names every server that did not.
    """
    account = account_of(user)
    failures = []
    for url in idm.servers:
        directory = Directory(url, idm)
        try:
            return Found(domain.name, url, tuple(directory.find(account, domain)))
        except MarkerError as error:
            return Found(domain.name, url, (), str(error))
        except DirectoryError as error:
            failures.append(f"{url}: {error}")
        finally:
            directory.close()
    raise UnavailableError("no IdM server answers: " + "; ".join(failures))


def account_of(user: str) -> Account:
    """The account of this sAMAccountName or UPN, as the match filter needs it; ConfigurationError for no such name."""
    try:
        return Account(guid=_NOBODY, sam_account_name=user, user_principal_name=user if "@" in user else None)
    except ValidationError as error:
        raise ConfigurationError(f"USER {user!r:.60}: no account name: {describe_fault(error)}") from None


def in_words(marker: Marker) -> str:
    """A marker as a sentence."""
    if FLOOR in marker.flags:
        text = f"an operator's floor of {marker.applied_at}: {_passing(marker)}"
    else:
        text = f"password version {marker.kvno}" if marker.kvno else "a password"
        text += f", changed {rfc3339(to_datetime(marker.changed_at))}, written here {marker.applied_at}"
    if MUST_CHANGE_DONE in marker.flags:
        text += "; must be changed at the next login"
    return text


def _passing(floor: Marker) -> str:
    account = f"of AD account {floor.guid}"
    if not floor.kvno:
        after = f"only changes after {rfc3339(to_datetime(floor.changed_at))} pass"
        return f"{after}, {account}" if floor.changed_at else f"every change {account} passes"
    until = "" if floor.changed_at >= MAX_FILETIME else f" of {rfc3339(to_datetime(floor.changed_at))}"
    return f"only changes after password version {floor.kvno}{until} pass, {account}"


def describe(found: Found, entry: Entry) -> dict[str, Any]:
    """One entry for a document."""
    return {
        "domain": found.domain,
        "server": found.server,
        "dn": entry.dn,
        "idm_changed_at": _time(entry.last_change),
        "idm_expires_at": _time(entry.expiration),
        "marker": describe_marker(entry.marker),
    }


def describe_marker(marker: Marker | None) -> dict[str, Any] | None:
    """A marker for a document."""
    if marker is None:
        return None
    return {
        "text": in_words(marker),
        "epoch": marker.epoch,
        "kvno": marker.kvno,
        "ad_changed_at": rfc3339(to_datetime(marker.changed_at)),
        "guid": str(marker.guid),
        "event_id": str(marker.event_id),
        "applied_at": marker.applied_at,
        "flags": sorted(marker.flags),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


class Outcomes:
    """The last outcomes of one user, from any number of streams; everything else is dropped while reading."""

    def __init__(self, user: str, markers: Iterable[Marker], notes: Notes, *, most: int, since: datetime) -> None:
        self._user = user
        self._guids = {marker.guid for marker in markers}
        self._events = {marker.event_id for marker in markers}
        self._notes = notes
        self._since = since
        self._most = most
        self._last: deque[dict[str, Any]] = deque(maxlen=most)
        self._tries: dict[UUID, tuple[Record, dict[str, Any]]] = {}
        """Of each event that waits, its last try: the many before it would only push the outcomes out."""
        self._said: dict[UUID, str] = {}
        """The diagnostic of each event's last note: a later try for the same reason has none of its own."""
        self._live: dict[UUID, dict[str, Any]] = {}
        self._failed_replay: dict[UUID, int] = {}

    def read(self, messages: Iterable[StreamMessage], where: str) -> None:
        """Take what a stream tells; letters count from its first message on, outcomes since the chosen time."""
        for message in messages:
            record = read_record(message)
            if record is None:
                continue
            if record.verdict in {Verdict.REPLAYED, Verdict.DISCARDED}:
                failed = self._failed_replay.get(record.event_id)
                if failed is not None:
                    self._last.append(_outcome(record, where, ""))
                    if ends(record, failed_replay=failed):
                        self._live.pop(record.event_id, None)
            elif (diagnostic := self._concerns(record)) is not None:
                self._take(record, where, diagnostic)

    def _concerns(self, record: Record) -> str | None:
        """The diagnostic of a record of this user; None for anybody else's."""
        note = self._notes.open(record.note, record.event_id)
        if record.event_id not in self._events and not note.speaks_of(self._user) and note.guid not in self._guids:
            return None
        self._events.add(record.event_id)  # a later try, and what is recorded of settling, name the event only
        if record.reason == REASON:
            return _SETTLED.get(record.verdict, "")
        if record.note is not None:
            self._said[record.event_id] = note.diagnostic
        return self._said.get(record.event_id, "") if record.verdict is Verdict.RETRY else note.diagnostic

    def _take(self, record: Record, where: str, diagnostic: str) -> None:
        outcome = _outcome(record, where, diagnostic)
        if record.verdict is Verdict.RETRY:
            if record.received_at >= self._since:
                self._tries[record.event_id] = record, outcome
            return
        self._end_tries(record)
        # A dead letter stands in both streams; the dead stream is the one that says whether it still lives.
        if record.verdict is Verdict.DEAD:
            if where != "dead":
                return
            self._live[record.event_id] = outcome
            self._failed_replay[record.event_id] = record.replays
            self._last.append(outcome)
        elif record.received_at >= self._since:
            self._last.append(outcome)

    def _end_tries(self, record: Record) -> None:
        # Of an earlier replay it is not the end of what waits now: the dead stream is read after the journal.
        tried = self._tries.get(record.event_id)
        if tried is not None and record.verdict in FINAL and record.replays >= tried[0].replays:
            del self._tries[record.event_id]

    @property
    def last(self) -> list[dict[str, Any]]:
        """The newest outcomes and what waits, oldest first."""
        waiting = (outcome for _, outcome in self._tries.values())
        return sorted((*self._last, *waiting), key=lambda outcome: str(outcome["at"]))[-self._most :]

    @property
    def live_letters(self) -> list[dict[str, Any]]:
        """Dead letters of this user that wait for a person."""
        return list(self._live.values())


def _waits(record: Record, diagnostic: str, ends_it: str) -> str:
    """A try that was not the last one, in words."""
    text = f"waits, and is tried again by itself within {tier_for(record.attempts).name}"
    return "; ".join(part for part in (text, diagnostic, ends_it and f"repair: {ends_it}") if part)


def _outcome(record: Record, where: str, diagnostic: str) -> dict[str, Any]:
    mend = repair(record.reason or "") if record.verdict in {Verdict.DEAD, Verdict.RETRY} else ""
    if record.verdict is Verdict.RETRY:
        mend = mend.removesuffix(", then replay")  # it comes again by itself
        diagnostic = _waits(record, diagnostic, mend)
    return {
        "at": rfc3339(record.applied_at or record.received_at),
        "event_id": str(record.event_id),
        "verdict": record.verdict.value,
        "reason": record.reason,
        "domain": record.domain,
        "producer": record.producer,
        "server": record.server,
        "attempts": record.attempts,
        "where": where,
        "by": record.by,
        "why": record.why,
        "diagnostic": diagnostic,
        "repair": mend,
    }
