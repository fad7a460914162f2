"""Why settle copies still wait: the operator's own look at the entries of some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from passrelay_ops import markers
from passrelay_ops.markers import View, Whose
from passrelay_ops.notes import Note, Notes
from passrelay_schemas.errors import PassrelayError
from passrelay_schemas.record import Record
from passrelay_schemas.settings import OpsSettings

MOST = 20
"""So many events are looked at; the others wait for the same reasons, or one can ask again."""


@dataclass(frozen=True)
class Finding:
    """One reason, and where it was seen."""

    subject: str
    detail: str


def look(records: Iterable[Record], notes: Notes, settings: OpsSettings) -> Iterator[Finding]:
    """What keeps these events waiting. Nothing where ops.toml has no [idm] or the ops key is missing."""
    domains = {domain.name: domain for domain in settings.domain if domain.search_base}
    for record in records:
        note = notes.open(record.note, record.event_id)
        domain = domains.get(record.domain or "")
        if settings.idm is None or domain is None or note.account is None:
            continue
        try:
            whose = Whose.parse(note.account)
        except PassrelayError:
            continue
        views = markers.look(whose, settings.idm, domain, settings.idm.servers)
        silent = [Finding(view.server, str(view.fault)) for view in views if not view.answered]
        if silent:
            # Everything waits for this one; to ask it again for each event would only take its timeout each time.
            yield from silent
            return
        yield Finding(f"event {record.event_id} of {note.account}", why(views, note, record.event_id))


def why(views: Sequence[View], note: Note, event_id: UUID) -> str:
    """Why one event is not settled, from what every server shows of its entry."""
    found = [view.entry for view in views if view.entry is not None]
    if not found:
        return f"{views[0].fault}; nothing is left to settle where the user is gone for good"
    if len(found) < len(views) or not markers.identical(views):
        return f"the servers differ: {markers.REPLICATION}"
    owner = found[0].marker.guid if found[0].marker else None
    if owner is not None and note.guid is not None and owner != note.guid:
        return f"the entry belongs to AD account {owner} now: nothing is left to settle"
    if found[0].marker is not None and found[0].marker.event_id == event_id:
        return "every server has it now: its next round will say so"
    return "the servers are alike, but not with this write: see the consumers' log for this event (unsettled, retry)"
