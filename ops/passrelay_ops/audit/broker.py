"""The broker's side of an audit: the streams and the queue, read once for the users whose password is missing."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.audit.whereabouts import JOURNAL_REACH, Whereabouts
from passrelay_ops.notes import Notes
from passrelay_ops.stream import read
from passrelay_schemas.filetime import utc_now
from passrelay_schemas.marker import Marker
from passrelay_schemas.topology import DEAD, EVENTS, JOURNAL


def look(
    connection: BlockingConnection, markers: Mapping[UUID, Marker | None], notes: Notes, *, journal: bool = True
) -> Whereabouts:
    """What the streams tell about these accounts; without `journal` the dead stream alone, which is much shorter."""
    found = Whereabouts(markers, notes)
    if markers and found.readable:
        channel = connection.channel()
        found.waiting = channel.queue_declare(EVENTS, passive=True).method.message_count
        channel.close()
        found.read_dead(read(connection, DEAD))
        if journal:
            found.read_journal(read(connection, JOURNAL, since=utc_now() - JOURNAL_REACH))
    return found
