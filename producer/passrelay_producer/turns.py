"""A turn of the publisher: the next events of the spool, read and signed in one go. Touches no channel."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from passrelay_producer.identity import Identity
from passrelay_producer.queued_event import Place, QueuedEvent
from passrelay_producer.spool import Spool
from passrelay_schemas.errors import KeyFileError, UnavailableError
from passrelay_schemas.filetime import utc_now

READ = "read"


class SignedEvent(NamedTuple):
    """An event that is ready for the broker."""

    place: Place
    event_id: str
    producer: str
    body: bytes
    signed_at: float
    """time.monotonic"""


@dataclass(frozen=True)
class Turn:
    """What was read and signed, in the order of capture, all at one moment."""

    after: int
    """The number of the last event that was read: where the next turn begins."""
    more: bool
    """It is as large as it may be, so there may be more; otherwise all was read."""
    events: Sequence[SignedEvent] = ()
    steps: Mapping[str, KeyFileError | UnavailableError | None] = field(default_factory=dict)
    """What was done (READ, `sign for PRODUCER`), and why it did not work. Events without a key are not in `events`."""


class TurnMaker:
    """Makes turns, one at a time, on whatever thread it is called."""

    def __init__(self, spool: Spool, identity: Identity) -> None:
        self._spool = spool
        self._identity = identity
        self._producers: dict[bytes, str] = {}  # by all of a protected header but the event's id

    def make(self, after: int, held: Collection[int], most: int) -> Turn:
        """The next events after a place, so many at most, without those that are `held`."""
        events: list[QueuedEvent] = []
        try:
            while not events:
                found = self._spool.queued(after, most)
                if not found:
                    return Turn(after, more=False, steps={READ: None})
                after = found[-1].place.seq
                events = [queued for queued in found if queued.place.seq not in held]
        except UnavailableError as error:
            return Turn(after, more=False, steps={READ: error})
        return self._signed(after, events, more=len(found) == most)

    def _signed(self, after: int, events: Sequence[QueuedEvent], *, more: bool) -> Turn:
        signed_at, moment = utc_now(), time.monotonic()
        signed: list[SignedEvent] = []
        steps: dict[str, KeyFileError | UnavailableError | None] = {READ: None}
        for producer, group in itertools.groupby(events, self._producer):
            # By name: the key of one name may be gone for ever, and what waits for it must not stop the others.
            step = f"sign for {producer}"
            try:
                sign = self._identity.signer(producer).sign
            except KeyFileError as error:
                steps[step] = error
                continue
            steps[step] = None
            signed += [
                SignedEvent(queued.place, queued.event_id, producer, sign(queued.event, signed_at=signed_at), moment)
                for queued in group
            ]
        return Turn(after, more, signed, steps)

    def _producer(self, queued: QueuedEvent) -> str:
        # The headers of a producer for one domain and recipient key differ in the event's id alone: one is parsed.
        rest = queued.event.protected.replace(queued.event_id.encode(), b"")
        if rest not in self._producers:
            self._producers[rest] = queued.event.header.producer
        return self._producers[rest]
