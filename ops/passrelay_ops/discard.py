"""Giving dead letters up: a record in their own stream. The letter itself stays until the stream drops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from pika.adapters.blocking_connection import BlockingConnection

from passrelay_ops.confirmed import ConfirmingChannel, Outgoing
from passrelay_ops.dead_letters import Letter, Letters, State
from passrelay_ops.operator_act import Act
from passrelay_ops.stream import Tail, read
from passrelay_schemas.errors import UnavailableError
from passrelay_schemas.message import record_properties
from passrelay_schemas.topology import DEAD
from passrelay_schemas.verdict import Verdict

_AT_ONCE = 500
_OTHERS_SECONDS = 1.0
"""After our records: a replay that had sent a letter before it could see them has put its own on record by then."""


@dataclass
class Done:
    """What was done so far."""

    discarded: list[Letter] = field(default_factory=list)
    changed: list[Letter] = field(default_factory=list)
    """Not discarded: replayed, discarded or dead anew since the plan."""


def run(
    connection: BlockingConnection,
    letters: Letters,
    chosen: Sequence[Letter],
    act: Act,
    *,
    done: Done,
    stop: Callable[[], bool] = lambda: False,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Discard the chosen of `letters` until `stop`; `done` counts along.

    Before each batch the stream is asked what became of its letters since, and a second after the end once more: what
    another operator replayed in the same moment counts as replayed. UnavailableError when the broker takes no records.
    """
    channel = ConfirmingChannel(connection)
    seen = {letter.event_id: letter.offset for letter in chosen}
    waiting = iter(chosen)
    with Tail(connection, DEAD, after=letters.end) as tail:
        while not stop() and (batch := list(islice(waiting, _AT_ONCE))):
            letters.read(tail.new())
            live: list[Letter] = []
            changed: list[Letter] = []
            for one in batch:
                (live if one.state is State.LIVE and one.offset == seen[one.event_id] else changed).append(one)
            done.changed += changed
            records = [act.record(one, Verdict.DISCARDED, replays=one.failed_replay) for one in live]
            safe = channel.publish(Outgoing(DEAD, record.encode(), record_properties(record)) for record in records)
            done.discarded += [live[place] for place in sorted(safe)]
            if len(safe) < len(live):
                raise UnavailableError(f"stream {DEAD}: took {len(safe)} of {len(live)} records: look at the broker")
            advance(len(batch))
    if done.discarded:
        connection.sleep(_OTHERS_SECONDS)
    letters.read(read(connection, DEAD, since=None if letters.end is None else letters.end + 1))
    done.changed += [letter for letter in done.discarded if letter.state is not State.DISCARDED]
    done.discarded = [letter for letter in done.discarded if letter.state is State.DISCARDED]
